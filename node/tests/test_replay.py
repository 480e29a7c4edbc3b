"""Blocks that `state.db` lost are executed again from the node's own `consensus.db`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import apsw
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from consensus.application import Block
from consensus.core.messages import EMPTY_ROOT, BatchHeader
from consensus.core.phases.commit import header_above
from consensus.core.records import Agreed, Diverged, ExecutedBlock, Record, Tip
from consensus.core.replica import genesis_block
from consensus.core.types import Height, Sequence
from consensus.runtime.store import (
    Body,
    ConsensusStore,
    StoreDamaged,
    create_consensus_store,
)
from consensus.tests import samples
from native import Completions
from native.batches import Batch
from native.codec import encode
from native.hashing import sha256
from native.values import Digest
from node.runtime import replay
from node.runtime.executor import open_state
from node.runtime.receipts import pack_receipts
from node.runtime.replay import Keeper, execute_again, execute_lost, keep_agreed
from node.runtime.router import Router
from node.runtime.store import StateStore, StateStoreError, StoredBlock
from node.tests.test_snapshots import AUTHORITY, certificate_payload
from trustchain.runtime.application import LogApplication

BLOCKS = 150
NODE = Digest(b"n" * 32)


class Life:
    """The stores of a validator that is alone, its applications, and the newest block."""

    def __init__(self, folder: Path) -> None:
        path = folder / "consensus.db"
        if not path.exists():
            create_consensus_store(path, chain_id=samples.CHAIN, node_id=NODE)
        self.router = Router([LogApplication(samples.CHAIN, AUTHORITY.genesis)])
        self.state = StateStore(folder / "state.db", chain_id=samples.CHAIN)
        self.tip = genesis_block(samples.CHAIN, 1_000, open_state(self.router, self.state))
        self.progress: list[int] = []
        self.store = ConsensusStore(path, Completions(), token=1, clock=lambda: 0.0)

    def again(self, through: int = BLOCKS) -> Digest:
        return execute_again(
            self.router, self.state, self.store, self.tip,
            through=through, bounds=samples.BOUNDS, progress=self.progress.append,
        )  # fmt: skip

    def lost(self, *records: Record, alone: bool = False) -> Digest:
        return execute_lost(
            self.router, self.state, self.store, self.tip,
            alone=alone, records=records, bounds=samples.BOUNDS,
        )  # fmt: skip


@contextmanager
def life(folder: Path) -> Iterator[Life]:
    found = Life(folder)
    try:
        yield found
    finally:
        found.state.close()
        found.store.close()


def lived(folder: Path, *, kept: Callable[[int], bool] = lambda _: True) -> list[StoredBlock]:
    """A life of blocks with and without payloads, as the executor and the driver write it."""
    one = Life(folder)
    one.store.start()
    blocks = []
    for height in range(1, BLOCKS + 1):
        names = [] if height % 10 else [certificate_payload(f"n{height}.mesh")]
        batch = Batch.of(names)
        agreed = BatchHeader(
            chain_id=samples.CHAIN,
            epoch=samples.EPOCH,
            sequence=Sequence(height),
            proposed_ms=1_700_000_000_000 + height,
            payload_root=batch.root if names else EMPTY_ROOT,
        )
        header = header_above(one.tip, agreed)
        outcome = one.router.execute(Block(header=header, batch=batch))
        block = StoredBlock(
            height=height,
            header=encode(header.value()),
            batch=encode(agreed.value()),
            state_root=outcome.state_root,
            receipts=pack_receipts(outcome.executed),
        )
        one.state.write(block, outcome.deltas, [])
        bodies = [Body(sequence=height, root=batch.root, batch=batch)] if names else []
        records = [Agreed(header=agreed)] if kept(height) else []
        if records or bodies:
            one.store.commit_soon(height, records, bodies, None)
        one.tip = ExecutedBlock(
            height=header.height,
            header_hash=header.hash,
            time_ms=header.time_ms,
            state_root=outcome.state_root,
        )
        blocks.append(block)
    one.store.stop()
    one.state.close()
    return blocks


def tip_at(height: int) -> Record:
    return Tip(certificate=samples.certificate(height))


def lose_state(folder: Path) -> None:
    for path in folder.glob("state.db*"):
        path.unlink()


def test_a_lost_state_is_the_same_after_its_blocks_were_executed_again(tmp_path: Path) -> None:
    blocks = lived(tmp_path)
    assert sum(bool(block.receipts) for block in blocks) == BLOCKS // 10
    lose_state(tmp_path)
    with life(tmp_path) as after:
        assert after.again() == blocks[-1].state_root
        assert [after.state.block(block.height) for block in blocks] == blocks
    with life(tmp_path) as restarted:
        assert restarted.router.state_root == blocks[-1].state_root


@pytest.mark.parametrize("alone", [True, False])
def test_what_a_power_cut_took_is_executed_again_with_and_without_others(
    tmp_path: Path, alone: bool
) -> None:
    blocks = lived(tmp_path)
    lose_state(tmp_path)
    with life(tmp_path) as after:
        # Agreed blocks above the newest certificate are final too.
        assert after.lost(tip_at(100), alone=alone) == blocks[-1].state_root
        assert [after.state.block(block.height) for block in blocks] == blocks


def test_who_has_others_to_ask_executes_as_far_as_the_batches_are_there(tmp_path: Path) -> None:
    blocks = lived(tmp_path, kept=lambda height: height != 71)
    lose_state(tmp_path)
    with life(tmp_path) as after:
        assert after.lost() == blocks[69].state_root
        assert after.state.height == 70
    with life(tmp_path) as alone:
        alone.tip = ExecutedBlock(
            height=Height(70),
            header_hash=Digest(sha256(blocks[69].header)),
            time_ms=1_700_000_000_070,
            state_root=Digest(blocks[69].state_root),
        )
        with pytest.raises(StateStoreError, match="block 71 is not here"):
            alone.lost(tip_at(BLOCKS), alone=True)


def test_who_lost_more_than_a_power_cut_takes_asks_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(tmp_path)
    lose_state(tmp_path)
    monkeypatch.setattr(replay, "REPLAY_BLOCKS_MAX", BLOCKS - 1)
    with life(tmp_path) as after:
        assert after.lost() == after.router.state_root
        assert after.state.height == 0


def test_nothing_is_executed_again_when_nothing_is_lost(tmp_path: Path) -> None:
    lived(tmp_path, kept=lambda _: False)
    lose_state(tmp_path)
    with life(tmp_path) as after:
        assert after.lost() == after.router.state_root
        assert after.state.height == 0


def test_what_was_executed_again_is_durable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(tmp_path)
    lose_state(tmp_path)
    monkeypatch.setattr(replay, "SYNC_BLOCKS", 64)
    synced: list[int] = []
    with life(tmp_path) as after:
        monkeypatch.setattr(after.state, "sync", lambda: synced.append(after.state.height))
        after.again()
        assert after.progress == [64, 128]
    assert synced == [64, 128, BLOCKS]


def test_a_divergence_is_not_executed_again(tmp_path: Path) -> None:
    """Whose own batch was the wrong one takes the certified one from the others."""
    blocks = lived(tmp_path)
    lose_state(tmp_path)
    found = Diverged(
        height=Height(120),
        header_hash=Digest(bytes(32)),
        state_root=Digest(bytes(32)),
        sound_through=Height(100),
    )
    with life(tmp_path) as after:
        assert after.lost(found) == blocks[99].state_root
        assert after.state.height == 100


def test_a_full_disk_is_told_as_such(tmp_path: Path) -> None:
    lived(tmp_path)
    lose_state(tmp_path)
    with life(tmp_path) as after:
        database = after.state._db
        pages = database.execute("PRAGMA page_count").fetchall()[0][0]
        database.execute(f"PRAGMA max_page_count={int(str(pages)) + 1}").fetchall()
        with pytest.raises(apsw.FullError):
            after.lost()


def test_a_killed_life_leaves_no_hole_among_the_newest_blocks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lived(tmp_path, kept=lambda height: height not in (7, 140, 149, 150))
    monkeypatch.setattr(replay, "KEPT_AT_START", 20)
    with life(tmp_path) as again:
        keep_agreed(again.state, again.store, samples.BOUNDS, alone=False)
        assert again.store.agreed_through(7) == BLOCKS
        assert again.store.agreed_through(0) == 6, "that is left to who is alone"
        assert again.store.agreed_through(7, count_max=5) == 12


def test_batches_that_only_the_state_knows_are_kept_at_the_next_start(tmp_path: Path) -> None:
    blocks = lived(tmp_path, kept=lambda _: False)
    with life(tmp_path) as upgraded:
        assert upgraded.store.agreed_count(1, BLOCKS) == 0
        keep_agreed(upgraded.state, upgraded.store, samples.BOUNDS, alone=True)
        assert upgraded.store.agreed_count(1, BLOCKS) == BLOCKS
    lose_state(tmp_path)
    with life(tmp_path) as after:
        assert after.again() == blocks[-1].state_root


def test_holes_left_by_lives_with_more_validators_are_filled(tmp_path: Path) -> None:
    """The set shrank to one, grew again, and shrank again, and each time the node ran on."""
    blocks = lived(tmp_path, kept=lambda height: 30 < height <= 60 or height > 100)
    with life(tmp_path) as restarted:
        assert restarted.store.agreed_count(1, BLOCKS) == 80
        keep_agreed(restarted.state, restarted.store, samples.BOUNDS, alone=True)
    lose_state(tmp_path)
    with life(tmp_path) as after:
        assert after.again() == blocks[-1].state_root


async def test_a_set_that_shrinks_to_one_keeps_the_earlier_blocks_while_the_node_runs(
    tmp_path: Path,
) -> None:
    blocks = lived(tmp_path, kept=lambda height: height > 140)
    one = Life(tmp_path)
    one.store.start()
    keeper = Keeper(cast("Any", OnTheLoop()), one.state, one.store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await wait_all_tasks_blocked()
        keeper.alone(samples.BOUNDS)
        with trio.fail_after(10):
            while await one.store.run(lambda: one.store.agreed_count(1, BLOCKS)) < BLOCKS:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    one.store.stop()
    one.state.close()
    lose_state(tmp_path)
    with life(tmp_path) as after:
        assert after.again() == blocks[-1].state_root


async def test_what_the_pruner_passes_meanwhile_does_not_leave_a_hole(tmp_path: Path) -> None:
    lived(tmp_path, kept=lambda _: False)
    one = Life(tmp_path)
    one.store.start()
    keeper = Keeper(cast("Any", OnTheLoop(then=lambda: one.state.prune(20))), one.state, one.store)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(keeper.run)
        await wait_all_tasks_blocked()
        keeper.alone(samples.BOUNDS)
        with trio.fail_after(10):
            while await one.store.run(lambda: one.store.agreed_count(21, BLOCKS)) < BLOCKS - 20:
                await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()
    one.store.stop()
    one.state.close()


class OnTheLoop:
    """Stands for the executor's thread; `then` happens after the first thing it was asked for."""

    def __init__(self, *, then: Callable[[], object] = lambda: None) -> None:
        self.then = then

    async def run(self, function: Callable[[], Any]) -> Any:
        await trio.lowlevel.checkpoint()
        answer = function()
        self.then()
        self.then = lambda: None
        return answer


def test_a_block_that_was_pruned_is_named_with_the_way_out(tmp_path: Path) -> None:
    lived(tmp_path)
    lose_state(tmp_path)
    with life(tmp_path) as after:
        assert after.store.prune(20) == 2
        assert after.store.agreed(20, samples.BOUNDS) is None
        assert after.store.agreed(21, samples.BOUNDS) is not None
        with pytest.raises(StateStoreError, match="block 1 is not here") as failed:
            after.again()
        assert "chain restore" in failed.value.hint


def test_a_damaged_body_is_not_executed(tmp_path: Path) -> None:
    lived(tmp_path)
    lose_state(tmp_path)
    database = apsw.Connection(str(tmp_path / "consensus.db"))
    [(data,)] = database.execute("SELECT data FROM body WHERE sequence=80").fetchall()
    assert isinstance(data, bytes)
    flipped = data[:-1] + bytes([data[-1] ^ 1])
    database.execute("UPDATE body SET data=? WHERE sequence=80", (flipped,)).fetchall()
    database.close()
    with life(tmp_path) as after:
        with pytest.raises(StoreDamaged, match="the body of block 80 is damaged"):
            after.again()
        assert after.state.height == 79, "what was executed before that stays"
    lose_state(tmp_path)
    with life(tmp_path) as with_others:
        assert with_others.lost() == with_others.router.state_root
        assert with_others.state.height == 79


def test_what_is_kept_for_that_is_not_read_at_a_start(tmp_path: Path) -> None:
    lived(tmp_path)
    with life(tmp_path) as after:
        assert not [r for r in after.store.load(samples.BOUNDS) if isinstance(r, Agreed)]
