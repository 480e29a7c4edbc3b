"""Pruning: what goes, what stays, and that the files really become smaller."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from consensus.core.messages import BlockHeader
from consensus.core.records import Anchor, Record, ViewEntered
from consensus.core.types import Epoch, Height, View
from consensus.core.wire import Bounds
from consensus.runtime import space
from consensus.runtime.store import Body, ConsensusStore, create_consensus_store
from consensus.tests.samples import certificate
from native import Completions
from native.batches import Batch
from native.codec import encode
from native.values import Digest
from node.core.snapshotfiles import MANIFEST
from node.limits import PRUNE_SLICE_BLOCKS, RETAIN_BLOCKS_MIN
from node.runtime.executor import Executor
from node.runtime.pruner import DAY_MS, Pruner, Retention, next_slice, prune_stopped
from node.runtime.router import Router
from node.runtime.store import StateStore, StoredBlock

CHAIN = Digest(b"c" * 32)
BOUNDS = Bounds(chain_id=CHAIN, members=4)
HOUR_MS = 3_600_000
BODY_SIZE_BYTES = 20_000
FAR = 1_000_000  # a snapshot that stands in nobody's way
KEPT = 32  # instead of the 1,024 blocks of a real node


def stored(height: int) -> StoredBlock:
    header = BlockHeader(
        chain_id=CHAIN,
        height=Height(height),
        epoch=Epoch(0),
        parent=Digest(bytes(32)),
        batch=Digest(bytes(32)),
        time_ms=height * HOUR_MS,
        state_root=Digest(bytes(32)),
    )
    return StoredBlock(
        height=height,
        header=encode(header.value()),
        batch=b"b",
        state_root=bytes(32),
        receipts=os.urandom(BODY_SIZE_BYTES // 10),
    )


def body(height: int) -> Body:
    batch = Batch.of([b"\x01%d" % height + bytes(BODY_SIZE_BYTES)])
    return Body(sequence=height, root=batch.root, batch=batch)


class Files:
    """Both databases of a node, written as it does."""

    def __init__(self, folder: Path) -> None:
        self.consensus, self.state = folder / "consensus.db", folder / "state.db"
        create_consensus_store(self.consensus, chain_id=CHAIN, node_id=Digest(b"n" * 32))
        self.snapshots = folder / "snapshots"
        self.hold(FAR)
        self.top = 0

    def hold(self, *heights: int) -> None:
        """What a node leaves there: complete snapshots of these heights, and unfinished ones."""
        shutil.rmtree(self.snapshots, ignore_errors=True)
        for name in ("cutting", "3", "ab.part", *map(str, heights)):
            (self.snapshots / name).mkdir(parents=True)
        for name in ("ab.part", *map(str, heights)):
            (self.snapshots / name / MANIFEST).touch()

    def open(self) -> tuple[StateStore, ConsensusStore]:
        self.completions = Completions()
        return (
            StateStore(self.state, chain_id=CHAIN),
            ConsensusStore(self.consensus, self.completions, token=1, clock=lambda: 0.0),
        )

    def grow(self, state: StateStore, store: ConsensusStore, blocks: int) -> None:
        for height in range(self.top + 1, self.top + blocks + 1):
            state.write(stored(height), b"", [])
            store.commit_soon(height, [], [body(height)], None)
        self.top += blocks

    def size_bytes(self) -> int:
        """On disk, logs included."""
        return sum(
            Path(f"{path}{end}").stat().st_size
            for path in (self.consensus, self.state)
            for end in ("", "-wal")
            if Path(f"{path}{end}").exists()
        )


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def pruner(
    state: StateStore,
    store: ConsensusStore,
    retention: Retention,
    *,
    snapshot: Callable[[], int] = lambda: FAR,
) -> tuple[Pruner, Executor]:
    executor = Executor(Router([]), state, Completions(), token=2, clock=lambda: 0.0)
    executor.start()
    store.start()
    work = Pruner(retention, executor, state, store, BOUNDS, seconds=lambda: 0.0, snapshot=snapshot)
    return work, executor


# --- what goes


@given(
    st.integers(1, 5_000),
    st.integers(1, 5_000),
    st.integers(0, 5_000).filter(lambda value: value == 0 or value >= RETAIN_BLOCKS_MIN),
    st.integers(0, 50),
    st.integers(0, 100),
)
def test_the_newest_blocks_stay_whatever_the_limits_say(
    height: int, newest: int, blocks: int, days: int, size_bytes: int
) -> None:
    retention = Retention(blocks=blocks, days=days, size_bytes=size_bytes)
    age_ms = (newest - height) * HOUR_MS
    gone = retention.gives_up(height, newest=newest, age_ms=age_ms, used_bytes=50)
    if height > newest - RETAIN_BLOCKS_MIN or not retention.limited:
        assert not gone
    else:
        over = (
            (blocks > 0 and newest - height >= blocks)
            or (days > 0 and age_ms > days * DAY_MS)
            or 0 < size_bytes < 50
        )
        assert gone is over


@pytest.mark.parametrize(
    ("retention", "oldest"),
    [
        (Retention(blocks=100, blocks_min=KEPT), 193),  # whole slices of 16 only
        (Retention(days=5, blocks_min=KEPT), 177),  # a block is an hour: 120 of them
        (Retention(size_bytes=1, blocks_min=KEPT), 257),  # never below what must stay
        (Retention(blocks_min=KEPT), 1),
    ],
)
def test_each_limit_alone_decides_what_goes(
    files: Files, retention: Retention, oldest: int
) -> None:
    """On the files of a stopped node that kept everything until now."""
    state, store = files.open()
    store.start()
    files.grow(state, store, 300)
    state.close()
    store.stop()
    state, store = files.open()
    assert prune_stopped(retention, state, store, BOUNDS, snapshots=files.snapshots) == oldest - 1
    assert state.oldest == oldest
    assert state.height == 300
    assert [at for at, _ in store.bodies(0)] == list(range(oldest, 301))
    assert next_slice(retention, state, BOUNDS, used_bytes=1, snapshot=FAR) is None
    state.close()
    store.stop()


@pytest.mark.parametrize(
    ("heights", "oldest"),
    [((), 1), ((128, 200), 113), ((129, 200), 129), ((16,), 1), ((17,), 17)],
)
def test_blocks_from_the_oldest_snapshot_on_stay_on_a_stopped_node(
    files: Files, heights: tuple[int, ...], oldest: int
) -> None:
    """Who starts from the snapshot of 129 needs 130 and all that follow."""
    state, store = files.open()
    store.start()
    files.grow(state, store, 300)
    state.close()
    store.stop()
    files.hold(*heights)
    state, store = files.open()
    retention = Retention(size_bytes=1, blocks_min=KEPT)
    pruned = prune_stopped(retention, state, store, BOUNDS, snapshots=files.snapshots)
    assert pruned == oldest - 1
    assert [at for at, _ in store.bodies(0)] == list(range(oldest, 301))
    state.close()
    store.stop()


async def test_a_running_node_forgets_no_block_from_its_oldest_snapshot_on(files: Files) -> None:
    state, store = files.open()
    held = [0]
    retention = Retention(blocks=KEPT, blocks_min=KEPT)
    work, executor = pruner(state, store, retention, snapshot=lambda: held[0])
    oldest = []
    with trio.fail_after(60):
        await executor.run(lambda: files.grow(state, store, 200))
        for snapshot in (0, 100, 129):
            held[0] = snapshot
            while await work.step():
                pass
            oldest.append(work.oldest)
    executor.stop()
    store.stop()
    assert oldest == [1, 97, 129]


def test_a_limit_on_bytes_is_kept_as_far_as_the_newest_blocks_allow(files: Files) -> None:
    state, store = files.open()
    store.start()
    files.grow(state, store, 300)
    state.close()
    store.stop()
    state, store = files.open()
    limit = (state.usage().used_bytes + store.usage().used_bytes) // 2
    retention = Retention(size_bytes=limit, blocks_min=KEPT)
    prune_stopped(retention, state, store, BOUNDS, snapshots=files.snapshots)
    left = state.usage().used_bytes + store.usage().used_bytes
    slice_bytes = 2 * PRUNE_SLICE_BLOCKS * BODY_SIZE_BYTES
    assert limit - slice_bytes < left <= limit
    state.close()
    store.stop()


def test_records_and_certificates_are_never_pruned(files: Files) -> None:
    state, store = files.open()
    store.start()
    records: list[Record] = [
        Anchor(certificate=certificate(5)),
        ViewEntered(epoch=Epoch(0), view=View(3), active=True),
    ]
    store.commit_soon(0, records, [], None)
    files.grow(state, store, 100)
    state.close()
    store.stop()
    state, store = files.open()
    before = store.load(BOUNDS)
    retention = Retention(size_bytes=1, blocks_min=KEPT)
    assert prune_stopped(retention, state, store, BOUNDS, snapshots=files.snapshots) == 64
    assert store.load(BOUNDS) == before
    assert all(record in before for record in records)
    state.close()
    store.stop()


def test_headers_below_what_is_kept_are_not_served_as_if_they_were_others(files: Files) -> None:
    state, store = files.open()
    store.start()
    files.grow(state, store, 64)
    store.stop()
    state.prune(16)
    assert state.headers(10, 30) == []
    assert len(state.headers(17, 30)) == 14
    assert state.block(16) is None
    state.close()


# --- space


async def test_ten_cycles_of_growing_and_pruning_leave_files_of_one_size(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Live, beside the writing: what was given up goes back to the disk."""
    monkeypatch.setattr(space, "FREE_PAGES_KEPT", 64)
    retention = Retention(blocks=KEPT, blocks_min=KEPT)
    state, store = files.open()
    work, executor = pruner(state, store, retention)
    bound = (KEPT + 2 * PRUNE_SLICE_BLOCKS) * 2 * BODY_SIZE_BYTES + 2 * 64 * 4096
    grown = 0
    with trio.fail_after(60):
        for _ in range(10):
            await executor.run(lambda: files.grow(state, store, 160))
            grown = max(grown, (await store.run(store.usage)).pages * 4096)
            while await work.step():
                pass
            assert state.oldest == files.top - KEPT + 1
            found = [await store.run(store.usage), await executor.run(state.usage)]
            assert sum(usage.pages * usage.page_bytes for usage in found) < bound
    executor.stop()
    store.stop()
    assert files.size_bytes() < bound < grown
    assert work.statistics().blocks_total == 1_600 - KEPT
    assert work.statistics().returned_bytes_total > 9 * 100 * BODY_SIZE_BYTES


async def test_a_file_of_before_keeps_its_size_until_it_is_rebuilt(files: Files) -> None:
    files.consensus.unlink()
    old = apsw.Connection(str(files.consensus))  # as versions without pruning made it
    old.execute("PRAGMA auto_vacuum=NONE; PRAGMA journal_mode=WAL").fetchall()
    old.close()
    fresh = files.consensus.with_name("fresh.db")
    create_consensus_store(fresh, chain_id=CHAIN, node_id=Digest(b"n" * 32))
    source = apsw.Connection(str(fresh))
    old = apsw.Connection(str(files.consensus))
    for (statement,) in source.execute("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL"):
        old.execute(statement)
    for table, marks in (("meta", "?,?"), ("record", "?,?,?,?")):
        rows = source.execute(f"SELECT * FROM {table}").fetchall()
        old.executemany(f"INSERT INTO {table} VALUES({marks})", rows)
    source.close()
    old.close()
    state, store = files.open()
    work, executor = pruner(state, store, Retention(blocks=KEPT, blocks_min=KEPT))
    with trio.fail_after(60):
        await executor.run(lambda: files.grow(state, store, 300))
        while await work.step():
            pass
    found = await store.run(store.usage)
    executor.stop()
    store.stop()
    assert not found.shrinks
    size = files.consensus.stat().st_size
    assert size > 250 * BODY_SIZE_BYTES
    assert found.used_bytes < 100 * BODY_SIZE_BYTES
    after = space.rebuild(files.consensus)
    assert after.shrinks
    assert files.consensus.stat().st_size < size / 3
    state, store = files.open()
    assert [at for at, _ in store.bodies(0)] == list(range(257, 301))
    state.close()
    store.stop()


def test_a_large_store_is_checked_by_its_records_only(
    files: Files, monkeypatch: pytest.MonkeyPatch
) -> None:
    state, store = files.open()
    store.start()
    files.grow(state, store, 100)
    state.close()
    store.stop()
    data = bytearray(files.consensus.read_bytes())
    at = data.rindex(b"\x0190" + bytes(64)) // 4096 * 4096  # a page full of a body
    data[at + 4096 : at + 8192] = os.urandom(4096)
    monkeypatch.setattr("consensus.runtime.store.STORE_CHECK_SIZE_BYTES_MAX", 4096)
    files.consensus.write_bytes(data)
    state, store = files.open()  # a damaged body does not stop a node
    assert len(store.load(BOUNDS)) == 1
    state.close()
    store.stop()
