"""From a client's batch to its receipts: admission, custody everywhere, waiting.

A payload that is admitted here is sent to every validator at once, so that no single node, this one
included, can lose it. Waiting is by receipt id; a block that executes wakes who waits for it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from consensus.application import CODE_APPLIED, Advice, has_receipt
from consensus.core.frames import FrameType
from consensus.core.types import Phase
from native.batches import ADDED, DUPLICATE, RECENT, Batch
from node.runtime.acknowledged import HeldBack
from node.runtime.api import Outcome, Overloaded, Submission, Unavailable
from node.runtime.executor import SearchBusy
from node.runtime.receipts import Receipt, id_at
from transport import ChannelKind

if TYPE_CHECKING:
    from consensus.runtime.driver import Driver
    from consensus.runtime.links import Links
    from native.batches import Mempool
    from node.metrics import Metrics
    from node.runtime.acknowledged import Acknowledged
    from node.runtime.executor import ExecutedBlock
    from node.runtime.router import Router

CODE_MEMPOOL_FULL: Final = 254  # refused: this node holds as many payloads as it may
CHECK_INLINE_PAYLOADS_MAX: Final = 8  # 8 signatures take less time than a thread hand-over and back
WAITERS_MAX: Final = 100_000  # receipts waited for at once on this node
DISK_LOOKUPS_MAX: Final = 4  # old receipts one submission may have searched on disk


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    """One submission that waits; `left` ids are not executed yet."""

    left: int
    heights: list[int]
    outcomes: bytearray
    codes: bytearray
    done: trio.Event = field(default_factory=trio.Event)

    def answer(self, at: int, receipt: Receipt) -> None:
        """Take an earlier receipt as the answer for place `at`."""
        self.codes[at] = receipt.code
        self.outcomes[at] = outcome_of(receipt.code)
        self.heights[at] = receipt.height


class Submissions:
    """Takes payloads in and says what became of them. Lives on the loop."""

    def __init__(
        self,
        *,
        router: Router,
        receipts: Acknowledged,
        mempool: Mempool,
        driver: Driver,
        links: Links,
        me: int,
        metrics: Metrics,
        now_ms: Callable[[], int],
    ) -> None:
        self._router = router
        self._receipts = receipts
        self._mempool = mempool
        self._driver = driver
        self._links = links
        self._me = me
        self._metrics = metrics
        self._now_ms = now_ms
        self._waiting: dict[bytes, list[tuple[_Waiter, int]]] = {}

    @property
    def waiting(self) -> int:
        """How many receipts are waited for."""
        return len(self._waiting)

    async def submit(self, batch: Batch, *, wait: bool, timeout_s: float) -> Submission:
        """Admit what may be admitted; with `wait`, return when all of it is executed or time is up.

        Raises `Unavailable` while the node catches up or when it has halted, `Overloaded` when
        nothing could be taken because a bound is reached.
        """
        if self._driver.replica.phase is Phase.OBSERVING:
            raise Unavailable(
                "this node observes and takes no payloads",
                hint="submit to a validator: `hypermesh validator status` names them",
            )
        if self._driver.replica.phase is Phase.HALTED:
            raise Unavailable(
                "this node has stopped for good and takes no payloads",
                hint="use another node; the log of this one says what it found",
            )
        if self._driver.replica.statistics().catching_up:
            raise Unavailable(
                "this node is catching up and takes no payloads",
                hint="use another node, or wait: `hypermesh node wait --ready`",
            )
        if len(self._waiting) >= WAITERS_MAX:
            raise Overloaded("too many receipts are waited for", hint="try again in a second")
        if len(batch) <= CHECK_INLINE_PAYLOADS_MAX:
            advice = self._router.check(batch)
        else:
            advice = await trio.to_thread.run_sync(self._router.check, batch)
        codes, ids = advice.codes, advice.ids
        waiter = _Waiter(
            left=0,
            heights=[0] * len(batch),
            outcomes=bytearray([Outcome.REFUSED]) * len(batch),
            codes=bytearray(codes),
        )
        await self._find_known(waiter, batch, advice)
        mask = bytes(code == CODE_APPLIED for code in codes)
        statuses = self._mempool.add(batch, mask, self._me, self._now_ms())
        admitted = bytes(status == ADDED for status in statuses)
        pending: list[int] = []
        for at, status in enumerate(statuses):
            if not mask[at]:
                continue
            if status in (ADDED, DUPLICATE):
                waiter.outcomes[at] = Outcome.PENDING
                pending.append(at)
            elif status == RECENT:
                if not self._known(waiter, at, ids):
                    waiter.outcomes[at] = Outcome.PENDING  # executed; the receipt is on disk
            else:
                waiter.codes[at] = CODE_MEMPOOL_FULL
        self._count_refused(waiter)
        if 1 not in admitted and CODE_MEMPOOL_FULL in waiter.codes:
            raise Overloaded(
                "this node holds as many payloads as it may", hint="try again in a second"
            )
        for at in pending if wait else ():
            self._waiting.setdefault(id_at(ids, at), []).append((waiter, at))
            waiter.left += 1
        if 1 in admitted:
            chosen = batch if 0 not in admitted else batch.select(admitted)
            self._links.broadcast_nowait(ChannelKind.BULK, FrameType.PAYLOADS, chosen)
            self._driver.custody_changed()
        if waiter.left:
            try:
                with trio.move_on_after(timeout_s):
                    await waiter.done.wait()
            finally:
                self._forget(waiter, ids)
        return Submission(
            ids=ids,
            outcomes=bytes(waiter.outcomes),
            codes=bytes(waiter.codes),
            heights=tuple(waiter.heights),
        )

    def on_block(self, block: ExecutedBlock) -> None:
        """Wake whoever waits for a payload of this block."""
        height = int(block.header.height)
        applications = {a.tag: a.name for a in self._router.applications}
        for tag, executed in block.outcome.executed:
            if not executed.codes:
                continue
            self._count_executed(applications[tag], executed.codes)
            if not self._waiting:
                continue
            ids = executed.ids
            for at, code in enumerate(executed.codes):
                found = self._waiting.pop(id_at(ids, at), None)
                for waiter, place in found or ():
                    self._settle(waiter, place, code, height)

    def _settle(self, waiter: _Waiter, place: int, code: int, height: int) -> None:
        waiter.codes[place] = code
        waiter.outcomes[place] = outcome_of(code)
        waiter.heights[place] = height
        waiter.left -= 1
        if waiter.left == 0:
            waiter.done.set()

    async def _find_known(self, waiter: _Waiter, batch: Batch, advice: Advice) -> None:
        """A refused payload may be one that was executed: the same bytes, the same receipt."""
        lookups, ids = DISK_LOOKUPS_MAX, advice.ids
        for at, code in enumerate(advice.codes):
            if code == CODE_APPLIED or self._known(waiter, at, ids):
                continue
            if not self._router.repeated(batch.tags[at], code):
                continue
            # Not refused before the disk was asked: whoever comes again with it gets the answer.
            waiter.outcomes[at] = Outcome.PENDING
            if not lookups:
                continue
            lookups -= 1
            try:
                found = await self._receipts.receipt(id_at(ids, at))
            except SearchBusy:
                lookups = 0
                continue
            except HeldBack:
                continue
            if found is not None:
                waiter.answer(at, found)
            else:
                waiter.outcomes[at] = Outcome.REFUSED

    def _known(self, waiter: _Waiter, at: int, ids: bytes) -> bool:
        try:
            found = self._receipts.receipt_nowait(id_at(ids, at))
        except HeldBack:
            waiter.outcomes[at] = Outcome.PENDING
            return True
        if found is None:
            return False
        waiter.answer(at, found)
        return True

    def _forget(self, waiter: _Waiter, ids: bytes) -> None:
        """Drop what a submission still waited for when it gave up."""
        if waiter.left == 0:
            return
        for at, outcome in enumerate(waiter.outcomes):
            if outcome != Outcome.PENDING:
                continue
            key = id_at(ids, at)
            left = [entry for entry in self._waiting.pop(key, ()) if entry[0] is not waiter]
            if left:
                self._waiting[key] = left

    def _count_refused(self, waiter: _Waiter) -> None:
        refused = waiter.outcomes.count(Outcome.REFUSED)
        if refused:
            full = waiter.codes.count(CODE_MEMPOOL_FULL)
            self._metrics.payloads_refused.labels(reason="full").inc(full)
            self._metrics.payloads_refused.labels(reason="rules").inc(refused - full)

    def _count_executed(self, application: str, codes: Sequence[int]) -> None:
        applied = bytes(codes).count(CODE_APPLIED)
        failed = sum(has_receipt(code) for code in codes) - applied
        labels = self._metrics.payloads.labels
        labels(application=application, outcome="applied").inc(applied)
        if failed:
            labels(application=application, outcome="failed").inc(failed)
        if refused := len(codes) - applied - failed:
            labels(application=application, outcome="refused").inc(refused)


def outcome_of(code: int) -> Outcome:
    """Class of an outcome code of an executed payload."""
    if code == CODE_APPLIED:
        return Outcome.APPLIED
    return Outcome.FAILED if has_receipt(code) else Outcome.REFUSED
