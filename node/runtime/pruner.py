"""Forgets old blocks: their bodies in consensus.db, their headers and receipts in state.db.

Off unless the configuration sets a limit: a network in which everybody forgets has no history, so
that is a choice of its operators and no default. A block goes when any limit gives it up, but the
newest `RETAIN_BLOCKS_MIN` always stay: peers that are a little behind are served from them. The
oldest complete snapshot of this node stays together with every block from its height on: who starts
from it needs them all. Without a snapshot nothing goes.

Signing records, certificates and application state are never touched. Work is cut into slices with
pauses, because votes and blocks wait for the same two threads. It may begin late, on any file, and
may be interrupted anywhere: bodies go first, and the blocks that remain say where to go on. Before
they go the state is synced, which until then could need them again after a power cut.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from consensus.core import wire
from consensus.limits import MESSAGE_BYTES_MAX
from node.core.snapshotfiles import MANIFEST
from node.limits import PRUNE_INTERVAL_S, PRUNE_PAUSE_S, PRUNE_SLICE_BLOCKS, RETAIN_BLOCKS_MIN

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from consensus.core.messages import BlockHeader
    from consensus.core.wire import Bounds
    from consensus.runtime.store import ConsensusStore
    from node.config.schema import StorageSection
    from node.runtime.executor import Executor
    from node.runtime.store import StateStore

DAY_MS: Final = 86_400_000

log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Retention:
    """What is kept; 0 is no limit."""

    blocks: int = 0
    days: int = 0
    size_bytes: int = 0
    blocks_min: int = RETAIN_BLOCKS_MIN

    @classmethod
    def of(cls, section: StorageSection) -> Retention:
        """Read the configuration."""
        return cls(
            blocks=section.retain_blocks,
            days=section.retain_days,
            size_bytes=section.retain_bytes,
        )

    @property
    def limited(self) -> bool:
        """Whether anything is ever forgotten."""
        return bool(self.blocks or self.days or self.size_bytes)

    def gives_up(self, height: int, *, newest: int, age_ms: int, used_bytes: int) -> bool:
        """Whether the block at `height`, `age_ms` older than the newest, may go."""
        if height > newest - self.blocks_min:
            return False
        return (
            (self.blocks > 0 and height <= newest - self.blocks)
            or (self.days > 0 and age_ms > self.days * DAY_MS)
            or (self.size_bytes > 0 and used_bytes > self.size_bytes)
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PrunerStatistics:
    """What pruning has done since the start."""

    oldest_height: int
    blocks_total: int
    returned_bytes_total: int
    last_slice_s: float


def next_slice(
    retention: Retention, state: StateStore, bounds: Bounds, *, used_bytes: int, snapshot: int
) -> int | None:
    """The height up to which the next slice goes, or None when there is nothing to forget.

    `snapshot` is the height of the oldest snapshot that is held, 0 if none is.
    """
    oldest, newest = state.oldest, state.height
    last = oldest + PRUNE_SLICE_BLOCKS - 1
    if last > newest - retention.blocks_min or last >= snapshot:
        return None
    above, tip = state.block(last), state.block(newest)
    if above is None or tip is None:
        raise state.damaged(f"block {last if above is None else newest} is missing")
    age_ms = _header(tip.header, bounds).time_ms - _header(above.header, bounds).time_ms
    given_up = retention.gives_up(last, newest=newest, age_ms=age_ms, used_bytes=used_bytes)
    return last if given_up else None


def prune_stopped(
    retention: Retention,
    state: StateStore,
    store: ConsensusStore,
    bounds: Bounds,
    *,
    snapshots: Path,
) -> int:
    """Forget all that may go, on the files of a stopped node; return how many blocks."""
    pruned = 0
    snapshot = oldest_snapshot(snapshots)
    while True:
        used = state.usage().used_bytes + store.usage().used_bytes
        through = next_slice(retention, state, bounds, used_bytes=used, snapshot=snapshot)
        if through is None:
            return pruned
        state.sync()
        store.prune(through)
        pruned += state.prune(through)


def oldest_snapshot(folder: Path) -> int:
    """Height of the oldest complete snapshot in a node's folder of snapshots, 0 if there is none.

    The manifest is what completes one, so a cut or a download that has not ended does not count.
    """
    paths = folder.iterdir() if folder.is_dir() else ()
    held = [int(path.name) for path in paths if path.name.isdigit() and (path / MANIFEST).exists()]
    return min(held, default=0)


class Pruner:
    """Forgets old blocks of a running node."""

    def __init__(
        self,
        retention: Retention,
        executor: Executor,
        state: StateStore,
        store: ConsensusStore,
        bounds: Bounds,
        *,
        seconds: Callable[[], float],
        snapshot: Callable[[], int],
    ) -> None:
        """`snapshot` is the height of the oldest snapshot that is held now, 0 if none is."""
        self._retention = retention
        self._snapshot = snapshot
        self._executor = executor
        self._state = state
        self._store = store
        self._bounds = bounds
        self._seconds = seconds
        self._blocks_total = 0
        self._returned_total = 0
        self._last_slice_s = 0.0

    @property
    def oldest(self) -> int:
        """The lowest block that this node still has."""
        return self._state.oldest

    def statistics(self) -> PrunerStatistics:
        """Counters for the metrics page."""
        return PrunerStatistics(
            oldest_height=self._state.oldest,
            blocks_total=self._blocks_total,
            returned_bytes_total=self._returned_total,
            last_slice_s=self._last_slice_s,
        )

    async def run(self) -> None:
        """Forget and give space back until cancelled. Trouble is logged; agreement goes on."""
        if not self._retention.limited:
            return
        await self._warn_of_files_that_keep_their_size()
        while True:
            try:
                worked = await self.step()
            except Exception as error:
                log.warning("prune.failed", error=str(error))
                worked = False
            await trio.sleep(PRUNE_PAUSE_S if worked else PRUNE_INTERVAL_S)

    async def step(self) -> bool:
        """One slice; False when there is nothing left to do now."""
        state, store = self._state, self._store
        used = await store.run(store.usage)
        snapshot = self._snapshot()
        through = await self._executor.run(
            lambda: next_slice(
                self._retention,
                state,
                self._bounds,
                used_bytes=used.used_bytes + state.usage().used_bytes,
                snapshot=snapshot,
            )
        )
        if through is not None:
            began = self._seconds()
            await self._executor.run(state.sync)
            await store.run(lambda: store.prune(through))
            self._blocks_total += await self._executor.run(lambda: state.prune(through))
            self._last_slice_s = self._seconds() - began
        returned = await store.run(store.give_back) + await self._executor.run(state.give_back)
        self._returned_total += returned
        return through is not None or returned > 0

    async def _warn_of_files_that_keep_their_size(self) -> None:
        for name, found in (
            ("consensus.db", await self._store.run(self._store.usage)),
            ("state.db", await self._executor.run(self._state.usage)),
        ):
            if not found.shrinks:
                log.warning(
                    "prune.file_keeps_its_size",
                    file=name,
                    next_step="stop the node and run `hypermesh chain prune` once",
                )


def _header(data: bytes, bounds: Bounds) -> BlockHeader:
    return wire.block_header(wire.decode_value(data, MESSAGE_BYTES_MAX), bounds)
