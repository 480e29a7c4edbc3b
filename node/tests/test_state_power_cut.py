"""`state.db` after a power cut at any moment, its making included: whole, but maybe older."""

from pathlib import Path

import pytest

from consensus.tests.power import after_power_cut, recorded
from node.runtime import store as stores
from node.runtime.store import StateStore, StoredBlock

CHAIN = bytes(31) + b"c"
BLOCKS = 8


@pytest.mark.timeout(120)
def test_a_power_cut_takes_only_blocks_written_after_the_last_sync(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "WAL_CHECKPOINT_PAGES", 6)
    written: list[int] = []
    synced: list[tuple[int, int]] = []
    (tmp_path / "life").mkdir()
    with recorded() as recording:
        store = StateStore(tmp_path / "life" / "state.db", chain_id=CHAIN)
        for height in range(1, BLOCKS + 1):
            block = StoredBlock(
                height=height,
                header=b"h%d" % height,
                batch=b"b",
                state_root=bytes([height]) * 32,
                receipts=bytes(2_000),
            )
            store.write(block, b"delta %d" % height, [])
            written.append(len(recording))
            if height % 3 == 0:
                store.sync()
                synced.append((len(recording), height))
        operations = list(recording)
        store.close()
    shortest = 0
    for moment in range(len(operations) + 1):
        least = max((height for at, height in synced if at <= moment), default=0)
        most = sum(at <= moment for at in written) + 1
        for cut in range(2):
            folder = tmp_path / f"{moment}-{cut}"
            folder.mkdir()
            for name, data in after_power_cut({}, operations[:moment], seed=cut).items():
                (folder / name).write_bytes(data)
            again = StateStore(folder / "state.db", chain_id=CHAIN)
            assert least <= again.height <= most, f"cut {cut} after operation {moment}"
            shortest = min(shortest, again.height - most)
            for height in range(1, again.height + 1):
                found = again.block(height)
                assert found is not None
                assert found.state_root == bytes([height]) * 32
            again.close()
    assert shortest < -1, "no cut took a block that was written"
