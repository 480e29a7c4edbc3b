"""Executes blocks again that `state.db` lost, from the node's own `consensus.db`.

A power cut takes the newest blocks, which were written and not synced (decision 0014). The store
keeps the batch of every executed block beside the body, so what was agreed is all there, and
executing it again makes the same blocks. Whether it did is for the replica to say, which compares
the newest one with its certificate before anything is told.

Who lost more than a power cut takes asks the other validators, who send blocks or a snapshot. A
single validator has nobody to ask and executes all of it again.
"""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import structlog
import trio

from consensus.application import Block
from consensus.core import wire
from consensus.core.messages import EMPTY_ROOT
from consensus.core.phases.commit import header_above
from consensus.core.records import Diverged, ExecutedBlock, certified_height
from consensus.core.replica import genesis_block
from consensus.errors import CorruptRecord
from consensus.limits import MESSAGE_BYTES_MAX
from consensus.runtime.store import StoreDamaged
from native.batches import Batch
from native.values import Digest
from node.runtime.receipts import pack_receipts
from node.runtime.store import StateStoreError, StoredBlock

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consensus.core.messages import BatchHeader
    from consensus.core.records import Record
    from consensus.runtime.store import ConsensusStore
    from node.core.genesis import Genesis
    from node.runtime.executor import Executor
    from node.runtime.router import Router
    from node.runtime.store import StateStore

KEPT_AT_ONCE: Final = 1_024  # batches of blocks that one transaction keeps
KEPT_BESIDE: Final = 64  # the same while the node runs: votes wait for no long transaction
COMMIT_BLOCKS: Final = 64  # executed again with one commit
SYNC_BLOCKS: Final = 1_024  # executed again between two syncs, each with a word of progress
REPLAY_BLOCKS_MAX: Final = 8_192  # with others to ask; a cut takes 4,454 at most, all empty
KEPT_AT_START: Final = 1_024  # newest blocks looked at: more than a life has in memory unkept

log = structlog.get_logger("node")


def keep_agreed(
    state: StateStore, store: ConsensusStore, bounds: wire.Bounds, *, alone: bool
) -> None:
    """Keep the batches that `state.db` knows and `consensus.db` does not. At every start.

    They are those of a life that was killed before they were written, which is why the newest
    blocks are looked at; who is alone looks at all, for those of an earlier version.
    """
    first, height = state.first, state.height
    if not alone:
        first = max(first, height - KEPT_AT_START + 1)
    if height == 0 or _all_kept(store, first, height):
        return
    for start in range(first, height + 1, KEPT_AT_ONCE):
        last = min(start + KEPT_AT_ONCE - 1, height)
        if _all_kept(store, start, last):
            continue
        store.keep_agreed(_agreed(state, start, last, bounds))


class Keeper:
    """Looks at all blocks beside a running node whose set shrinks to it alone.

    Those that this version executed are kept; those before it may be in `state.db` only.
    """

    def __init__(self, executor: Executor, state: StateStore, store: ConsensusStore) -> None:
        self._executor = executor
        self._state = state
        self._store = store
        self._alone = trio.Event()
        self._bounds: wire.Bounds | None = None

    def alone(self, bounds: wire.Bounds) -> None:
        """From now on there is nobody to ask; `bounds` read what was agreed before."""
        self._bounds = bounds
        self._alone.set()

    async def run(self) -> None:
        """Keep when it is time, until cancelled. After trouble the next start does it."""
        while True:
            await self._alone.wait()
            self._alone = trio.Event()
            try:
                await self._keep()
            except Exception as error:
                log.warning("agreed.not_kept", error=str(error))

    async def _keep(self) -> None:
        state, store, bounds = self._state, self._store, self._bounds
        assert bounds is not None
        first, height = await self._executor.run(lambda: (state.first, state.height))
        for start in range(first, height + 1, KEPT_BESIDE):
            last = min(start + KEPT_BESIDE - 1, height)
            if await store.run(functools.partial(_all_kept, store, start, last)):
                continue

            def agreed(start: int = start, last: int = last) -> list[BatchHeader]:
                # The pruner may have passed the beginning meanwhile, and headers have no gaps.
                return _agreed(state, max(start, state.first), last, bounds)

            found = await self._executor.run(agreed)
            await store.run(functools.partial(store.keep_agreed, found))


def _agreed(state: StateStore, first: int, last: int, bounds: wire.Bounds) -> list[BatchHeader]:
    return [
        wire.batch_header(wire.decode_value(batch, MESSAGE_BYTES_MAX), bounds)
        for _, batch in state.headers(first, last)
    ]


def _all_kept(store: ConsensusStore, first: int, last: int) -> bool:
    return store.agreed_count(first, last) == last - first + 1


def execute_lost(
    router: Router,
    state: StateStore,
    store: ConsensusStore,
    tip: ExecutedBlock,
    *,
    alone: bool,
    records: Sequence[Record],
    bounds: wire.Bounds,
) -> Digest:
    """Execute again what `consensus.db` knows above `tip`, and return the state root.

    Nothing may run yet. Raises what `execute_again` raises if the node is alone; with others it
    goes on as far as it can, and not beyond what a record of divergence calls sound.
    """
    height = int(tip.height)
    if alone:
        through = max(store.agreed_through(height), certified_height(records))
    else:
        through = store.agreed_through(height, count_max=REPLAY_BLOCKS_MAX + 1)
        sound = [int(found.sound_through) for found in records if isinstance(found, Diverged)]
        through = max(height, min([through, *sound]))
        if through - height > REPLAY_BLOCKS_MAX:
            log.warning(
                "state.left_to_peers",
                first=height + 1,
                next_step="if no other node has them, stop and run `hypermesh chain replay`",
            )
            return tip.state_root
    if through == height:
        return tip.state_root
    log.warning("state.executed_again", first=height + 1, last=through)
    try:
        return execute_again(
            router,
            state,
            store,
            tip,
            through=through,
            bounds=bounds,
            progress=lambda at: log.info("state.executing_again", height=at, last=through),
        )
    except (StateStoreError, StoreDamaged, CorruptRecord) as error:
        if alone:
            raise
        log.warning("state.left_to_peers", first=state.height + 1, error=str(error))
        return router.state_root


def stored_block(state: StateStore, height: int, bounds: wire.Bounds) -> ExecutedBlock:
    """A block as `state.db` holds it, without what it decided. Raises `StateStoreError`."""
    stored = state.block(height)
    if stored is None:
        raise state.damaged(f"block {height} is missing")
    header = wire.block_header(wire.decode_value(stored.header, MESSAGE_BYTES_MAX), bounds)
    return ExecutedBlock(
        height=header.height,
        header_hash=header.hash,
        time_ms=header.time_ms,
        state_root=Digest(stored.state_root),
    )


def newest_block(
    state: StateStore, genesis: Genesis, root: Digest, bounds: wire.Bounds
) -> ExecutedBlock:
    """The newest block in `state.db`, or that of genesis; `root` is that of the state after it."""
    if state.height:
        return stored_block(state, state.height, bounds)
    return genesis_block(genesis.chain_id, genesis.time_ms, root)


def execute_again(
    router: Router,
    state: StateStore,
    store: ConsensusStore,
    tip: ExecutedBlock,
    *,
    through: int,
    bounds: wire.Bounds,
    progress: Callable[[int], None],
) -> Digest:
    """Execute every block above `tip`, the newest in `state.db`, and return the state root.

    Nothing may run yet. All of it is durable afterwards; `progress` is told now and then up to
    which block it is. Raises `StateStoreError` if a block is not held any more, `StoreDamaged` and
    `CorruptRecord` if it is held damaged; what was executed before that stays.
    """
    kept = int(tip.height)
    try:
        for height in range(kept + 1, through + 1):
            agreed = store.agreed(height, bounds)
            batch = None if agreed is None else _body(store, agreed)
            if agreed is None or batch is None:
                raise StateStoreError(
                    state.path,
                    f"block {height} is not here and cannot be executed again: consensus.db does "
                    "not hold its batch any more",
                    "give the node the newest of its own snapshots, or a copy of one: "
                    "`hypermesh chain restore data/snapshots/HEIGHT`",
                )
            tip = _execute(router, state, tip, agreed, batch)
            if height % COMMIT_BLOCKS == 0:
                state.commit()
                kept = height
            if height % SYNC_BLOCKS == 0:
                state.sync()
                progress(height)
    except (StateStoreError, StoreDamaged, CorruptRecord):
        if kept < int(tip.height):
            state.commit()  # what was executed before trouble came is as good as the rest
        raise
    if kept < int(tip.height):
        state.commit()
    state.sync()
    return tip.state_root


def _execute(
    router: Router, state: StateStore, tip: ExecutedBlock, agreed: BatchHeader, batch: Batch
) -> ExecutedBlock:
    header = header_above(tip, agreed)
    outcome = router.execute(Block(header=header, batch=batch))
    state.write_later(
        StoredBlock.of(header, agreed, outcome.state_root, pack_receipts(outcome.executed)),
        outcome.deltas,
        [],
    )
    return replace(
        tip,
        height=header.height,
        header_hash=header.hash,
        time_ms=header.time_ms,
        state_root=outcome.state_root,
    )


def _body(store: ConsensusStore, agreed: BatchHeader) -> Batch | None:
    if agreed.payload_root == EMPTY_ROOT:
        return Batch.of([])
    return store.batch_now(int(agreed.sequence), agreed.payload_root)
