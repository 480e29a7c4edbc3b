"""`state.db` after a power cut at any moment, its making included: no reported block is lost."""

from pathlib import Path

import pytest

from consensus.tests.power import after_power_cut, recorded
from node.runtime import store as stores
from node.runtime.store import StateStore, StoredBlock

CHAIN = bytes(31) + b"c"
BLOCKS = 8


@pytest.mark.timeout(120)
def test_after_a_power_cut_every_reported_block_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "WAL_CHECKPOINT_PAGES", 6)
    reported: list[int] = []
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
            reported.append(len(recording))
        operations = list(recording)
        store.close()
    for moment in range(len(operations) + 1):
        due = sum(at <= moment for at in reported)
        for cut in range(2):
            folder = tmp_path / f"{moment}-{cut}"
            folder.mkdir()
            for name, data in after_power_cut({}, operations[:moment], seed=cut).items():
                (folder / name).write_bytes(data)
            again = StateStore(folder / "state.db", chain_id=CHAIN)
            assert due <= again.height <= due + 1, f"cut {cut} after operation {moment}"
            for height in range(1, again.height + 1):
                found = again.block(height)
                assert found is not None
                assert found.state_root == bytes([height]) * 32
            again.close()
