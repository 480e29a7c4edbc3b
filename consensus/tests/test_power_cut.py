"""`consensus.db` after a power cut at any moment: whole ticks, and every one that was reported."""

import select
from dataclasses import replace
from pathlib import Path

import pytest

from consensus.core.records import OwnVotes, Record, ViewEntered, record_key, record_sequence
from consensus.core.types import Epoch, Number, View
from consensus.core.wire import Bounds
from consensus.runtime import store as stores
from consensus.runtime.store import Body, Committed, ConsensusStore, create_consensus_store
from consensus.tests import samples
from consensus.tests.power import Operation, Sync, Write, after_power_cut, recorded
from native import Completions
from native.batches import Batch
from native.values import Digest

NODE = Digest(b"n" * 32)
BOUNDS = Bounds(chain_id=samples.CHAIN, members=4)
TICKS = 14
CUTS_PER_MOMENT = 3
SQUEEZED_CHECKPOINT_PAGES = 12  # several checkpoints in fourteen ticks

State = dict[tuple[int, int], Record]


def records_of(serial: int) -> list[Record]:
    """Two records that only make sense together."""
    vector = samples.vector(1, samples.prepare(serial, serial % 5 + 1))
    return [
        ViewEntered(epoch=Epoch(0), view=View(serial), active=True),
        OwnVotes(vector=replace(vector, number=Number(serial))),
    ]


def dropped_by(serial: int) -> int | None:
    return serial % 5 if serial % 4 == 0 else None


def states() -> list[State]:
    """What the store holds after 0, 1, 2, … ticks, beside its birth record."""
    found: list[State] = [{}]
    for serial in range(1, TICKS + 1):
        state = dict(found[-1])
        state.update((record_key(record), record) for record in records_of(serial))
        through = dropped_by(serial) or 0
        found.append(
            {
                key: record
                for key, record in state.items()
                if not 1 <= record_sequence(record) <= through
            }
        )
    return found


class Life:
    """One recorded life: what was done to the files, and when each tick was reported."""

    def __init__(self, folder: Path) -> None:
        path = folder / "consensus.db"
        create_consensus_store(path, chain_id=samples.CHAIN, node_id=NODE)
        self.before = {path.name: path.read_bytes()}
        self.reported: list[int] = []
        with recorded() as operations:
            completions = Completions()
            store = ConsensusStore(path, completions, token=1, clock=lambda: 0.0)
            store.start()
            for serial in range(1, TICKS + 1):
                batch = Batch.of([bytes([serial]) * (1 + 3_000 * (serial % 3))])
                body = Body(sequence=serial, root=Digest(batch.root), batch=batch)
                store.commit_soon(serial, records_of(serial), [body], dropped_by(serial))
                select.select([completions.fileno()], [], [], 30)
                [(_, done)] = completions.drain()
                assert isinstance(done, Committed)
                self.reported.append(len(operations))
            self.operations: list[Operation] = list(operations)
            store.stop()


def read(folder: Path, files: dict[str, bytes]) -> State:
    """Start on what the power cut has left."""
    folder.mkdir()
    for name, data in files.items():
        (folder / name).write_bytes(data)
    store = ConsensusStore(
        folder / "consensus.db", Completions(), token=1, clock=lambda: 0.0, durable=False
    )
    records = store.load(BOUNDS)
    store.stop()
    return {record_key(record): record for record in records if record_key(record) != (1, 0)}


@pytest.mark.timeout(120)
def test_after_a_power_cut_every_reported_tick_is_there_and_no_tick_in_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "WAL_CHECKPOINT_PAGES", SQUEEZED_CHECKPOINT_PAGES)
    life = Life(tmp_path / "life")
    expected = states()
    database = [
        operation
        for operation in life.operations
        if isinstance(operation, Write) and operation.name == "consensus.db"
    ]
    assert database, "a checkpoint was among the moments"
    for moment in range(len(life.operations) + 1):
        reported = sum(at <= moment for at in life.reported)
        for cut in range(CUTS_PER_MOMENT):
            files = after_power_cut(life.before, life.operations[:moment], seed=cut)
            found = read(tmp_path / f"{moment}-{cut}", files)
            where = f"cut {cut} after operation {moment}: {reported} ticks were reported"
            assert found in expected[reported:], where


def test_a_store_that_does_not_sync_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other test is able to fail."""
    monkeypatch.setattr(stores, "WAL_CHECKPOINT_PAGES", SQUEEZED_CHECKPOINT_PAGES)
    life = Life(tmp_path / "life")
    operations = [found for found in life.operations if not isinstance(found, Sync)]
    lost = 0
    for cut in range(20):
        try:
            found = read(tmp_path / f"{cut}", after_power_cut(life.before, operations, seed=cut))
        except Exception:
            lost += 1
        else:
            lost += found != states()[-1]
    assert lost == 20
