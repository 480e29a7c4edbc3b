"""The thread that executes blocks and owns `state.db`.

One thread, one queue: blocks and queries run in the order they were asked for, so a query sees the
state between two blocks and never inside one. Completions reach the loop through the descriptor
that packets use too.
"""

from __future__ import annotations

import functools
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from consensus.application import Block, Row
from consensus.errors import invariant
from node.runtime.receipts import Receipt, find_receipt, pack_receipts
from node.runtime.store import (
    WRITE_BACK_CYCLE_BLOCKS_MAX,
    WRITE_BACK_PERIOD_BLOCKS,
    WRITE_BACK_ROWS_PER_BLOCK,
    StateStore,
    StoredBlock,
)

if TYPE_CHECKING:
    from consensus.core.messages import BatchHeader, BlockHeader
    from native import Completions
    from native.batches import Batch
    from native.values import Digest
    from node.runtime.router import Outcome, Router

T = TypeVar("T")

ROWS_PER_SLICE: Final = 4_096  # of a whole state that is written at once: 4 MB of memory
COMMIT_GROUP_BLOCKS_MAX: Final = 16  # blocks that one commit writes while catching up
RECENT_RECEIPTS_BLOCKS_MAX: Final = 256  # blobs kept in memory: receipts asked for soon after
RECEIPT_SEARCH_BLOCKS_MAX: Final = 20_000  # one old receipt is worth this many blob searches
RECEIPT_SEARCH_SLICE_BLOCKS: Final = 128  # searched between two blocks: 5 ms at 500 receipts each
HEADER_SEARCH_SLICE_BLOCKS: Final = 512  # headers hashed between two blocks: 2 ms
RECEIPT_SEARCHES_WAITING_MAX: Final = 8  # one runs, these wait, others are told to come back


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedBlock:
    """One block executed and written to `state.db`."""

    header: BlockHeader
    batch: Batch
    outcome: Outcome
    receipts: bytes
    execute_s: float
    commit_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFailed:
    """Execution or its commit raised: the process must stop, the state on disk is unchanged."""

    error: BaseException


@dataclass(frozen=True, slots=True, kw_only=True)
class _Written:
    """A block that was executed and written, but not committed yet."""

    header: BlockHeader
    batch: Batch
    outcome: Outcome
    receipts: bytes
    execute_s: float


class SearchBusy(Exception):
    """Too many look for old receipts at once."""


class Executor:
    """Runs the router and the state store on a thread of their own."""

    def __init__(
        self,
        router: Router,
        store: StateStore,
        completions: Completions,
        *,
        token: int,
        clock: Callable[[], float],
        stagger_blocks: int = 0,
        settle: Callable[[Batch], None] = lambda _batch: None,
        snapshot_blocks: int = 0,
    ) -> None:
        """`token` marks our completions; `stagger_blocks` shifts this node's write-back cycle;
        `settle` returns when nobody else is checking the batch.

        The state is cut after every block whose height is a multiple of `snapshot_blocks`, unless
        that is 0 or the cut before is still being read.
        """
        self._router = router
        self._store = store
        self._completions = completions
        self._token = token
        self._clock = clock
        self._settle = settle
        self._jobs: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="executor", daemon=True)
        self._recent: deque[tuple[int, bytes]] = deque(maxlen=RECENT_RECEIPTS_BLOCKS_MAX)
        self._cycle_next = store.cycle + WRITE_BACK_PERIOD_BLOCKS + stagger_blocks
        self._cycle_started: int | None = None
        self._cursors: dict[int, int] = {}
        self._cycle_rows: dict[int, int] = {}  # rows there were when the cycle began
        self._slice_rows = WRITE_BACK_ROWS_PER_BLOCK
        self._height = store.height
        self._written: list[_Written] = []  # executed, and kept with the next commit
        self._failed = False
        self._searches = trio.Lock()
        self._stagger_blocks = stagger_blocks
        self._snapshot_blocks = snapshot_blocks
        self._cut_height: int | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def execute_soon(self, header: BlockHeader, agreed: BatchHeader, batch: Batch) -> None:
        """Queue a block; an `ExecutedBlock` or `ExecutionFailed` is posted when it is written."""
        self._jobs.put(lambda: self._execute(header, agreed, batch))

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` on the executor thread between two blocks and return its result."""
        done = trio.Event()
        token = trio.lowlevel.current_trio_token()
        slot: list[tuple[bool, object]] = []

        def job() -> None:
            self._commit()
            try:
                slot.append((True, function()))
            except BaseException as error:
                slot.append((False, error))
            token.run_sync_soon(done.set)

        self._jobs.put(job)
        await done.wait()
        ok, value = slot[0]
        if not ok:
            assert isinstance(value, BaseException)
            raise value
        return value  # type: ignore[return-value]

    def receipt_nowait(
        self, identifier: bytes, *, oldest: int = 0, newest: int | None = None
    ) -> Receipt | None:
        """Find a receipt among the newest blocks, or those of them from `oldest` to `newest`.

        From any thread, without touching the disk.
        """
        for height, blob in reversed(tuple(self._recent)):
            if height < oldest:
                break
            if newest is not None and height > newest:
                continue
            found = find_receipt(blob, identifier, height)
            if found is not None:
                return found
        return None

    async def receipt(self, identifier: bytes) -> Receipt | None:
        """Find a receipt in memory, then on disk among the newest blocks.

        One search at a time, in slices, so that blocks never wait for one. Raises `SearchBusy`.
        """
        found = self.receipt_nowait(identifier)
        if found is not None:
            return found
        return await self._search(
            RECEIPT_SEARCH_SLICE_BLOCKS,
            lambda first, last: self._store.receipt(
                identifier, newest=last, count_max=last - first + 1
            ),
        )

    @property
    def height(self) -> int:
        """Height of the newest block that is written to `state.db`."""
        return self._height

    async def height_of(self, header_hash: bytes) -> int | None:
        """Find a block by its hash among the newest blocks, newest first.

        Bounded and in turn with other searches, like `receipt`. Raises `SearchBusy`.
        """
        return await self._search(
            HEADER_SEARCH_SLICE_BLOCKS,
            lambda first, last: self._store.height_of(header_hash, first=first, last=last),
        )

    async def _search(self, slice_blocks: int, look: Callable[[int, int], T | None]) -> T | None:
        """Have `look(first, last)` go through the blocks on disk, newest first, slice by slice."""
        if self._searches.statistics().tasks_waiting >= RECEIPT_SEARCHES_WAITING_MAX:
            raise SearchBusy
        async with self._searches:
            newest = self._height
            floor = max(0, newest - RECEIPT_SEARCH_BLOCKS_MAX)
            for last in range(newest, floor, -slice_blocks):
                first = max(floor, last - slice_blocks) + 1
                found = await self.run(functools.partial(look, first, last))
                if found is not None:
                    return found
        return None

    async def block(self, height: int) -> StoredBlock | None:
        """One executed block."""
        return await self.run(lambda: self._store.block(height))

    async def headers(self, first: int, last: int) -> list[tuple[bytes, bytes]]:
        """Canonical block and batch headers of a run of blocks, as far as they are held."""
        return await self.run(lambda: self._store.headers(first, last))

    @property
    def cut_height(self) -> int | None:
        """Height of the state that `next_chunk` reads; None when nothing is cut."""
        return self._cut_height

    async def next_chunk(self) -> tuple[int, bytes] | None:
        """Read the next chunk of the cut between two blocks, with its application's tag."""
        return await self.run(self._router.next_chunk)

    async def end_cut(self) -> None:
        """Let the next cut happen."""

        def end() -> None:
            self._router.end_cut()
            self._cut_height = None

        await self.run(end)

    async def enter(
        self, header: BlockHeader, agreed: BatchHeader, root: Digest, restore: Callable[[], Digest]
    ) -> None:
        """Replace the state, in memory and on disk, by that after a block that `restore` makes.

        Nothing else may be in execution. If it fails, the process must stop.
        """

        def enter() -> None:
            found = restore()
            invariant(found == root, "a snapshot whose parts are proven has the proven root")
            height = int(header.height)
            self._store.enter(StoredBlock.of(header, agreed, root), all_rows(self._router))
            self._height = height
            self._cut_height = None
            self._recent.clear()
            self._cycle_started = None
            self._cycle_next = height + WRITE_BACK_PERIOD_BLOCKS + self._stagger_blocks

        await self.run(enter)

    def stop(self) -> None:
        """Finish what is queued, close the store and join the thread."""
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            job()
        self._commit()
        self._store.close()

    def _execute(self, header: BlockHeader, agreed: BatchHeader, batch: Batch) -> None:
        """Execute a block; it is committed with those that wait behind it in the queue."""
        if self._failed:
            return
        try:
            self._settle(batch)
            began = self._clock()
            outcome = self._router.execute(Block(header=header, batch=batch))
            executed = self._clock()
            receipts = pack_receipts(outcome.executed)
            height = int(header.height)
            self._store.write_later(
                StoredBlock.of(header, agreed, outcome.state_root, receipts),
                outcome.deltas,
                self._write_back(height),
            )
            due = self._snapshot_blocks and height % self._snapshot_blocks == 0
            if due and self._cut_height is None:
                self._router.cut()
                self._cut_height = height
        except BaseException as error:
            self._fail(error)
            return
        self._written.append(
            _Written(
                header=header,
                batch=batch,
                outcome=outcome,
                receipts=receipts,
                execute_s=executed - began,
            )
        )
        whole = self._cycle_is_whole()
        if whole or self._jobs.empty() or len(self._written) >= COMMIT_GROUP_BLOCKS_MAX:
            self._commit()
        if whole and not self._failed:
            self._finish_cycle(height)

    def _commit(self) -> None:
        """Commit what was executed, and say so; blocks that wait are committed together."""
        written, self._written = self._written, []
        if not written or self._failed:
            return
        try:
            began = self._clock()
            self._store.commit()
            each_s = (self._clock() - began) / len(written)
        except BaseException as error:
            self._fail(error)
            return
        for one in written:
            self._height = int(one.header.height)
            if one.receipts:
                self._recent.append((self._height, one.receipts))
            self._completions.post(
                self._token,
                ExecutedBlock(
                    header=one.header,
                    batch=one.batch,
                    outcome=one.outcome,
                    receipts=one.receipts,
                    execute_s=one.execute_s,
                    commit_s=each_s,
                ),
            )

    def _fail(self, error: BaseException) -> None:
        """Execute nothing more: the state in memory is ahead of what the disk holds."""
        self._failed = True
        self._completions.post(self._token, ExecutionFailed(error=error))

    def _write_back(self, height: int) -> list[tuple[int, list[Row]]]:
        """The next slice of cache rows, as of this block; empty between two cycles."""
        if self._cycle_started is None:
            if height < self._cycle_next:
                return []
            self._begin_cycle(height)
        left = self._slice_rows
        slices = []
        for application in self._router.applications:
            cursor = self._cursors[application.tag]
            wanted = min(left, self._cycle_rows[application.tag] - cursor)
            rows = list(application.rows(cursor, wanted)) if wanted > 0 else []
            if rows:
                slices.append((application.tag, rows))
                self._cursors[application.tag] = cursor + len(rows)
                left -= len(rows)
        return slices

    def _begin_cycle(self, height: int) -> None:
        """Begin to write the rows there are now; newer ones are in the deltas that stay.

        A cycle that went after newer rows too would never end while they come faster than it
        writes.
        """
        # Rows written from now on hold every change up to the block before this one.
        self._cycle_started = height - 1
        self._cursors = {a.tag: 0 for a in self._router.applications}
        self._cycle_rows = {a.tag: a.row_count() for a in self._router.applications}
        least = -(-sum(self._cycle_rows.values()) // WRITE_BACK_CYCLE_BLOCKS_MAX)
        self._slice_rows = max(WRITE_BACK_ROWS_PER_BLOCK, least)

    def _cycle_is_whole(self) -> bool:
        """Whether every row there was when the cycle began has been written since."""
        return self._cycle_started is not None and all(
            self._cursors[tag] >= rows for tag, rows in self._cycle_rows.items()
        )

    def _finish_cycle(self, height: int) -> None:
        """Drop the deltas that a whole cycle made unneeded; its rows are written."""
        assert self._cycle_started is not None
        try:
            self._store.finish_cycle(self._cycle_started, height)
        except BaseException as error:
            self._fail(error)
            return
        self._cycle_started = None
        self._cycle_next = height + WRITE_BACK_PERIOD_BLOCKS


def all_rows(router: Router) -> Iterator[tuple[int, Row]]:
    """Every row of every application with its tag: what a fresh `state.db` is filled with."""
    for application in router.applications:
        total = application.row_count()
        for first in range(0, total, ROWS_PER_SLICE):
            for row in application.rows(first, ROWS_PER_SLICE):
                yield application.tag, row


def open_state(router: Router, store: StateStore) -> Digest:
    """Bring the router to the newest block in `store` and return the state root after it.

    Raises `StateStoreError` if the rebuilt root differs from the stored one.
    """
    height = store.height
    if height == 0:
        return router.genesis()
    root = router.load(
        {application.tag: store.rows(application.tag) for application in router.applications},
        store.deltas(),
    )
    newest = store.block(height)
    if newest is None or newest.state_root != root:
        raise store.damaged(f"the state rebuilt at block {height} has another root than was stored")
    return root
