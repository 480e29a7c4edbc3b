"""`consensus.db`: what survives, what is refused, and how a lost disk is recognised."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest
import trio

from consensus.core.records import Accepted, Birth, Record, Recovery, ViewEntered, encode_record
from consensus.core.types import Epoch, View
from consensus.core.wire import Bounds
from consensus.errors import CorruptRecord
from consensus.runtime.store import (
    PAGE_CACHE_KIB,
    Body,
    CommitFailed,
    Committed,
    ConsensusStore,
    StoreDamaged,
    StoreExists,
    create_consensus_store,
    recreate_consensus_store,
)
from consensus.tests import samples
from native import Completions
from native.batches import Batch
from native.values import Digest

CHAIN = Digest(b"c" * 32)
NODE = Digest(b"n" * 32)
BOUNDS = Bounds(chain_id=CHAIN, members=4)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "consensus.db"


def opened(path: Path, completions: Completions) -> ConsensusStore:
    return ConsensusStore(path, completions, token=7, clock=lambda: 0.0)


def entered(view: int) -> ViewEntered:
    return ViewEntered(epoch=Epoch(0), view=View(view), active=True)


def outcomes(completions: Completions) -> list[Committed | CommitFailed]:
    return [value for _, value in completions.drain()]


@pytest.fixture
def store(path: Path) -> Iterator[tuple[ConsensusStore, Completions]]:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    completions = Completions()
    store = opened(path, completions)
    yield store, completions
    store.stop()


def test_a_new_store_holds_its_birth_record_and_nothing_else(path: Path) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    store = opened(path, Completions())
    assert store.load(BOUNDS) == [Birth(chain_id=CHAIN, node_id=NODE, incarnation=1)]
    assert path.stat().st_mode & 0o777 == 0o600
    store.stop()


def test_a_store_is_never_created_over_another(path: Path) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    with pytest.raises(StoreExists, match=r"consensus\.db exists"):
        create_consensus_store(path, chain_id=CHAIN, node_id=NODE)


def test_a_recreated_store_must_recover_before_it_votes(path: Path) -> None:
    recreate_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    store = opened(path, Completions())
    records = store.load(BOUNDS)
    assert any(isinstance(record, Recovery) and not record.done for record in records)
    assert any(isinstance(record, Birth) and record.incarnation == 2 for record in records)
    store.stop()


def test_a_log_left_beside_a_lost_file_is_not_replayed_over_the_new_one(path: Path) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    writer = apsw.Connection(str(path))
    writer.execute("PRAGMA journal_mode=WAL").fetchall()
    writer.execute("INSERT INTO record VALUES(4, 0, 0, x'93000900')")
    saved = path.with_name("saved-wal")
    shutil.copy(f"{path}-wal", saved)
    writer.close()
    path.unlink()
    shutil.copy(saved, f"{path}-wal")
    recreate_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    store = opened(path, Completions())
    assert any(isinstance(record, Recovery) for record in store.load(BOUNDS))
    store.stop()


def test_what_was_reported_as_committed_is_there_after_a_restart(path: Path) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    completions = Completions()
    store = opened(path, completions)
    store.start()
    batch = Batch.of([b"\x01one", b"\x02two"])
    for serial in range(1, 6):
        body = Body(sequence=serial, root=batch.root, batch=batch)
        store.commit_soon(serial, [entered(serial)], [body], None)
    store.stop()
    reported = outcomes(completions)
    assert all(isinstance(value, Committed) for value in reported)
    assert isinstance(reported[-1], Committed)
    assert reported[-1].serial == 5
    store = opened(path, Completions())
    assert entered(5) in store.load(BOUNDS)
    held = [(sequence, found.body) for sequence, found in store.bodies(3)]
    assert held == [(4, batch.body), (5, batch.body)]
    store.stop()


def test_a_start_reads_bodies_that_were_accepted_below_a_certificate(path: Path) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    completions = Completions()
    store = opened(path, completions)
    store.start()
    batch = Batch.of([b"\x01one"])
    bodies = [Body(sequence=at, root=batch.root, batch=batch) for at in range(1, 6)]
    accepted = Accepted(pre_prepare=samples.pre_prepare(0, 2, batch.root))
    store.commit_soon(1, [accepted], bodies, None)
    store.stop()
    store = opened(path, Completions())
    assert [sequence for sequence, _ in store.bodies(4)] == [2, 5]
    store.stop()


def test_dropping_spares_records_that_only_a_newer_one_replaces(
    store: tuple[ConsensusStore, Completions],
) -> None:
    writer, completions = store
    writer.start()
    writer.commit_soon(1, [entered(3)], [], 10_000)
    writer.stop()
    assert isinstance(outcomes(completions)[0], Committed)


def test_a_disk_that_refuses_is_reported_and_nothing_after_it_is_written(
    path: Path, store: tuple[ConsensusStore, Completions]
) -> None:
    writer, completions = store
    other = apsw.Connection(str(path))
    other.execute("DROP TABLE record")
    writer.start()
    writer.commit_soon(1, [entered(1)], [], None)
    writer.commit_soon(2, [entered(2)], [], None)
    writer.stop()
    reported = outcomes(completions)
    assert len(reported) == 1
    assert isinstance(reported[0], CommitFailed)


async def test_bodies_are_found_by_place_and_by_root(
    store: tuple[ConsensusStore, Completions],
) -> None:
    reader, _ = store
    reader.start()
    batch = Batch.of([b"\x01payload"])
    reader.commit_soon(1, [], [Body(sequence=9, root=batch.root, batch=batch)], None)
    with trio.fail_after(5):
        assert await reader.body(9) == batch.body
        assert await reader.body(9, batch.root) == batch.body
        assert await reader.body(9, b"?" * 32) is None
        assert await reader.body_by_root(batch.root) == batch.body
        assert await reader.certificates(100) == []


def test_a_file_that_is_no_database_is_refused_with_the_way_out(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"not a database" * 500)
    with pytest.raises(StoreDamaged, match="damaged") as caught:
        opened(path, Completions())
    assert "-wal" in caught.value.hint


def test_one_flipped_bit_in_a_record_is_found_where_the_database_sees_nothing(path: Path) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    writer = opened(path, Completions())
    writer.start()
    writer.commit_soon(1, [entered(5)], [], None)
    writer.stop()
    stored = encode_record(entered(5)).stored
    whole = path.read_bytes()
    place = whole.index(stored)
    path.write_bytes(whole[:place] + bytes([stored[0] ^ 1]) + whole[place + 1 :])
    with pytest.raises(CorruptRecord, match="checksum") as caught:
        _load(path)
    assert "move consensus.db away" in caught.value.hint
    path.write_bytes(whole[: place + 11] + bytes([stored[11] ^ 1]) + whole[place + 12 :])
    with pytest.raises(CorruptRecord, match="checksum"):
        _load(path)
    path.write_bytes(whole)
    assert entered(5) in _load(path)


@pytest.mark.parametrize("damaged", [b"", b"?", b"other"])
def test_a_damaged_body_is_found_before_the_node_votes(path: Path, damaged: bytes) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    writer = opened(path, Completions())
    writer.start()
    batch = Batch.of([b"\x01payload"])
    writer.commit_soon(1, [], [Body(sequence=9, root=batch.root, batch=batch)], None)
    writer.stop()
    data = Batch.of([b"\x01other"]).body if damaged == b"other" else damaged
    database = apsw.Connection(str(path))
    database.execute("UPDATE body SET data=?", (data,))
    database.close()
    store = opened(path, Completions())
    with pytest.raises(StoreDamaged, match="the body of block 9 is damaged"):
        store.bodies(0)
    store.stop()


def _load(path: Path) -> list[Record]:
    store = opened(path, Completions())
    try:
        assert store.check_pages() == "ok"
        return store.load(BOUNDS)
    finally:
        store.stop()


def test_a_store_of_another_format_is_refused(path: Path) -> None:
    create_consensus_store(path, chain_id=CHAIN, node_id=NODE)
    database = apsw.Connection(str(path))
    database.execute("UPDATE meta SET value=99 WHERE key='format'")
    database.close()
    with pytest.raises(StoreDamaged, match="another version"):
        opened(path, Completions())


def test_statements_that_stay_prepared_keep_few_bodies(
    store: tuple[ConsensusStore, Completions],
) -> None:
    writer, completions = store
    writer.start()
    batch = Batch.of([bytes([1]) * 65_000] * 16)
    body = Body(sequence=1, root=batch.root, batch=batch)
    before = apsw.memory_used()
    for records in range(1, 13):
        writer.commit_soon(records, [entered(at) for at in range(records)], [body], None)
        while not (reported := outcomes(completions)):
            time.sleep(0.001)
        assert isinstance(reported[0], Committed)
    assert apsw.memory_used() - before < PAGE_CACHE_KIB * 1024 + 3 * len(batch.body)
