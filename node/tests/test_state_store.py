"""`state.db`: blocks, receipts, deltas, and the write-back cache."""

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from consensus.application import Executed, Row
from native.hashing import sha256
from native.values import Digest
from node.runtime.receipts import find_receipt, pack_receipts, receipt_codes, receipt_ids
from node.runtime.store import StateStore, StateStoreError, StoredBlock

CHAIN = bytes(31) + b"c"


def block(height: int, receipts: bytes = b"") -> StoredBlock:
    return StoredBlock(
        height=height, header=b"h%d" % height, batch=b"b", state_root=bytes(32), receipts=receipts
    )


@pytest.fixture
def store(tmp_path: Path) -> Iterator[StateStore]:
    opened = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    yield opened
    opened.close()


def executed(ids: list[bytes], codes: list[int]) -> Executed:
    return Executed(
        root=Digest(bytes(32)),
        delta=b"",
        positions=range(len(ids)),
        ids=b"".join(ids),
        codes=bytes(codes),
    )


def test_a_receipt_is_found_by_its_id_and_a_refused_payload_has_none() -> None:
    ids = [bytes([n]) * 32 for n in (9, 3, 200, 7)]
    blob = pack_receipts([(1, executed(ids, [0, 5, 130, 0]))])
    assert len(blob) == 3 * 36
    for position, code in ((0, 0), (1, 5), (3, 0)):
        found = find_receipt(blob, ids[position], 12)
        assert found is not None
        assert (found.code, found.position, found.height, found.tag) == (code, position, 12, 1)
    assert find_receipt(blob, ids[2], 12) is None
    assert find_receipt(b"", ids[0], 12) is None


def test_the_receipts_of_a_block_are_listed_with_their_codes() -> None:
    ids = [bytes([n]) * 32 for n in (9, 3, 200, 7)]
    blob = pack_receipts([(1, executed(ids, [0, 5, 130, 0]))])
    assert receipt_ids(blob) == (ids[1], ids[3], ids[0])
    assert receipt_codes(blob) == bytes([5, 0, 0])
    assert (receipt_ids(b""), receipt_codes(b"")) == ((), b"")


def test_the_oldest_block_is_known_after_pruning_a_restart_and_an_entered_state(
    tmp_path: Path,
) -> None:
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    assert store.oldest == 1
    for height in range(1, 6):
        store.write(block(height), b"d", [])
    assert store.prune(2) == 2
    assert store.oldest == 3
    store.close()
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    assert store.oldest == 3
    store.enter(block(90), [])
    assert (store.oldest, store.height) == (90, 90)
    store.close()


def test_an_empty_store_is_at_genesis_and_keeps_what_was_written(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    assert store.height == 0
    store.write(block(1), b"d1", [(1, [Row(table="account", key=4, value=b"v")])])
    store.write(block(2), b"d2", [(1, [Row(table="account", key=4, value=b"w")])])
    store.close()
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    assert store.height == 2
    assert list(store.rows(1)) == [Row(table="account", key=4, value=b"w")]
    assert list(store.deltas()) == [(1, b"d1"), (2, b"d2")]
    assert store.headers(1, 5) == [(b"h1", b"b"), (b"h2", b"b")]
    store.close()


def test_a_finished_cycle_drops_only_deltas_that_every_row_covers(store: StateStore) -> None:
    for height in range(1, 8):
        store.write(block(height), b"d%d" % height, [])
    store.finish_cycle(4, 7)
    assert [height for height, _ in store.deltas()] == [5, 6, 7]
    assert store.cycle == 7


def test_a_missing_delta_is_damage_and_names_the_way_out(store: StateStore) -> None:
    store.write(block(1), b"d1", [])
    store.write(block(3), b"d3", [])
    with pytest.raises(StateStoreError, match="delta of block 2 is missing") as caught:
        list(store.deltas())
    assert "move state.db away" in caught.value.hint


def test_a_receipt_search_is_bounded(store: StateStore) -> None:
    wanted = b"r" * 32
    store.write(block(1, pack_receipts([(1, executed([wanted], [0]))])), b"", [])
    for height in range(2, 6):
        store.write(block(height, pack_receipts([(1, executed([b"x" * 32], [0]))])), b"", [])
    found = store.receipt(wanted, newest=5, count_max=5)
    assert found is not None
    assert found.height == 1
    assert store.receipt(wanted, newest=5, count_max=4) is None


def test_a_block_is_found_by_the_hash_of_its_header_in_a_run_of_blocks(store: StateStore) -> None:
    for height in range(1, 6):
        store.write(block(height), b"", [])
    wanted = sha256(block(2).header)
    assert store.height_of(wanted, first=1, last=5) == 2
    assert store.height_of(wanted, first=3, last=5) is None
    assert store.height_of(bytes(32), first=1, last=5) is None


def test_another_chains_store_is_refused(tmp_path: Path) -> None:
    StateStore(tmp_path / "state.db", chain_id=CHAIN).close()
    with pytest.raises(StateStoreError, match="belongs to another chain"):
        StateStore(tmp_path / "state.db", chain_id=bytes(32))


def damaged_store(path: Path, blocks: int) -> None:
    """A closed store with many pages, one of them overwritten; its first pages are whole."""
    store = StateStore(path, chain_id=CHAIN)
    for height in range(1, blocks + 1):
        store.write(block(height), bytes(3_000), [])
    store.close()
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2 // 4096 * 4096)
        file.write(b"\xff" * 4096 * 8)


def test_a_damaged_page_is_found_when_the_file_is_opened(tmp_path: Path) -> None:
    damaged_store(tmp_path / "state.db", 200)
    with pytest.raises(StateStoreError, match="damaged") as caught:
        StateStore(tmp_path / "state.db", chain_id=CHAIN)
    assert "move state.db away" in caught.value.hint


def test_a_damaged_page_of_a_big_file_is_damage_when_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("node.runtime.store.STATE_CHECK_SIZE_BYTES_MAX", 0)
    damaged_store(tmp_path / "state.db", 200)
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    with pytest.raises(StateStoreError, match="damaged"):
        list(store.deltas())
    store.close()


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database at all" * 100)
    with pytest.raises(StateStoreError, match="damaged"):
        StateStore(path, chain_id=CHAIN)


def test_blocks_written_together_are_kept_together(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    store.write(block(1), b"d1", [])
    store.write_later(block(2), b"d2", [(1, [Row(table="account", key=4, value=b"v")])])
    store.write_later(block(3), b"d3", [])
    reader = apsw.Connection(str(tmp_path / "state.db"), flags=apsw.SQLITE_OPEN_READONLY)
    seen = "SELECT max(height) FROM block"
    assert reader.execute(seen).fetchone() == (1,)
    store.commit()
    assert reader.execute(seen).fetchone() == (3,)
    reader.close()
    store.close()
    again = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    assert (again.height, list(again.deltas())) == (3, [(1, b"d1"), (2, b"d2"), (3, b"d3")])
    again.close()


def test_a_group_with_a_block_that_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    store.write(block(1), b"d1", [])
    store.write_later(block(2), b"d2", [])
    with pytest.raises(apsw.ConstraintError):
        store.write_later(block(1), b"again", [])
    assert store.height == 1
    store.close()


def test_another_reader_of_the_file_stops_neither_a_sync_nor_a_start(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = StateStore(path, chain_id=CHAIN)
    store.write(block(1), b"delta", [])
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    reader.execute("BEGIN").fetchall()
    assert reader.execute("SELECT max(height) FROM block").fetchall() == [(1,)]
    store.write(block(2), b"delta", [])
    store.sync()
    store.close()
    again = StateStore(path, chain_id=CHAIN)
    assert again.height == 2
    assert reader.execute("SELECT max(height) FROM block").fetchall() == [(1,)]
    reader.close()
    again.close()
