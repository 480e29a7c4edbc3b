"""From a client's batch to its receipts.

The intake admits a payload and sends it to every validator, so that no single node, this one
included, can lose it. Waiting is by receipt id; a block that executes wakes who waits for it. What
another node said of a payload is asked here by height and id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from consensus.application import CODE_APPLIED, has_receipt
from consensus.core.types import Phase
from native.batches import ADDED, FULL, RECENT, SKIPPED, Batch
from node.runtime.acknowledged import HeldBack
from node.runtime.api import Outcome, Overloaded, Submission, Unavailable
from node.runtime.executor import SearchBusy
from node.runtime.receipts import ID_SIZE_BYTES, Receipt, id_at

if TYPE_CHECKING:
    from consensus.runtime.driver import Driver
    from node.metrics import Metrics
    from node.runtime.acknowledged import Acknowledged
    from node.runtime.executor import ExecutedBlock
    from node.runtime.intake import Admitted, Intake
    from node.runtime.router import Router

OWN_SOURCE: Final = 255  # marks our own payloads in custody; members and guests have their index
CODE_MEMPOOL_FULL: Final = 254  # refused: this node holds as many payloads as it may
WAITERS_MAX: Final = 100_000  # receipts waited for at once on this node
LOOKUPS_PER_BREATH: Final = 32  # in memory, then others have the loop: 30 ms at the very worst
NEAR_BLOCKS: Final = 16  # the payloads of one call are executed in a few blocks, one after another
DISK_LOOKUPS_MAX: Final = 4  # old receipts one submission may have searched on disk


@dataclass(slots=True, kw_only=True, eq=False)
class _Waiter:
    """One submission that waits; `left` ids are not executed yet."""

    ids: bytes
    heights: list[int]
    outcomes: bytearray
    codes: bytearray
    left: int = 0
    done: trio.Event = field(default_factory=trio.Event)

    @classmethod
    def of(cls, count: int, outcome: Outcome, ids: bytes = b"") -> _Waiter:
        """Nothing is known of `count` payloads yet but the outcome they have otherwise."""
        return cls(
            ids=ids,
            heights=[0] * count,
            outcomes=bytearray([outcome]) * count,
            codes=bytearray(count),
        )

    def submission(self) -> Submission:
        """What is known now."""
        return Submission(
            ids=self.ids,
            outcomes=bytes(self.outcomes),
            codes=bytes(self.codes),
            heights=tuple(self.heights),
        )

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
        driver: Driver,
        intake: Intake,
        metrics: Metrics,
    ) -> None:
        self._router = router
        self._receipts = receipts
        self._driver = driver
        self._intake = intake
        self._metrics = metrics
        self._waiting: dict[bytes, list[tuple[_Waiter, int]]] = {}

    @property
    def waiting(self) -> int:
        """How many receipts are waited for."""
        return len(self._waiting)

    async def submit(self, batch: Batch, *, wait: bool, timeout_s: float) -> Submission:
        """Admit what may be admitted; with `wait`, return when all of it is executed or time is up.

        Raises `Unavailable` while the node starts or catches up, or when it has halted;
        `Overloaded` when nothing could be taken because a bound is reached.
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
        if self._driver.replica.phase is not Phase.VOTING:
            # Its state may be old or empty: what it refused for good others would have taken.
            raise Unavailable(
                "this node has just started and does not know yet how far the chain is",
                hint="use another node, or wait: `hypermesh node wait --ready`",
            )
        if self._driver.replica.catching_up:
            raise Unavailable(
                "this node is catching up and takes no payloads",
                hint="use another node, or wait: `hypermesh node wait --ready`",
            )
        if len(self._waiting) >= WAITERS_MAX:
            raise Overloaded("too many receipts are waited for", hint="try again in a second")
        waiter = _Waiter.of(len(batch), Outcome.REFUSED)
        waiter.left += 1  # for the call itself: what it waits for is complete after `_find_known`
        try:
            taken = await self._admit(batch, waiter, wait=wait)
            await self._find_known(waiter, batch, taken, wait=wait)
            waiter.left -= 1
            self._count_refused(waiter)
            if ADDED not in taken.statuses and CODE_MEMPOOL_FULL in waiter.codes:
                raise Overloaded(
                    "this node holds as many payloads as it may", hint="try again in a second"
                )
            if waiter.left:
                with trio.move_on_after(timeout_s):
                    await waiter.done.wait()
        finally:
            self._forget(waiter)
        return waiter.submission()

    async def _admit(self, batch: Batch, waiter: _Waiter, *, wait: bool) -> Admitted:
        """Have a call taken in, and note what is known of it and what must be waited for."""
        slot: list[Admitted] = []

        def admitted(taken: Admitted) -> None:
            slot.append(taken)
            waiter.ids, waiter.codes[:] = taken.ids, taken.codes
            for at, status in enumerate(taken.statuses):
                if status == SKIPPED:
                    continue
                if status == FULL:
                    waiter.codes[at] = CODE_MEMPOOL_FULL
                    continue
                if status == RECENT and self._known(waiter, at, taken.ids, wait=wait):
                    continue
                # What is recent and not known is executed, and its receipt on disk.
                self._pending(waiter, at, wait=wait and status != RECENT)

        await self._intake.admit(batch, admitted)
        [taken] = slot
        return taken

    async def outcomes(self, ids: bytes, *, height: int, timeout_s: float) -> Submission:
        """What became of payloads that another node says were executed up to block `height`.

        Returns when that block may be told of here, or the time is over. A payload that is not in
        one of the `NEAR_BLOCKS` blocks up to that height is pending, as far as this node can say.
        """
        with trio.move_on_after(timeout_s):
            while self._receipts.height < height:
                await self._receipts.news.wait()
        count = len(ids) // ID_SIZE_BYTES
        waiter = _Waiter.of(count, Outcome.PENDING, ids)
        for at in range(count):
            if at % LOOKUPS_PER_BREATH == 0:
                await trio.lowlevel.checkpoint()
            self._known(waiter, at, ids, oldest=height - NEAR_BLOCKS + 1, newest=height)
        return waiter.submission()

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

    async def _find_known(
        self, waiter: _Waiter, batch: Batch, taken: Admitted, *, wait: bool
    ) -> None:
        """A refused payload may be one that was executed: the same bytes, the same receipt."""
        lookups, ids = DISK_LOOKUPS_MAX, taken.ids
        tags = batch.tags
        for at, code in enumerate(taken.codes):
            if code == CODE_APPLIED or not self._router.repeated(tags[at], code):
                continue
            if at % LOOKUPS_PER_BREATH == 0:
                await trio.lowlevel.checkpoint()
            if self._known(waiter, at, ids, wait=wait):
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
                self._pending(waiter, at, wait=wait)
                continue
            if found is not None:
                waiter.answer(at, found)
            else:
                waiter.outcomes[at] = Outcome.REFUSED

    def _known(
        self,
        waiter: _Waiter,
        at: int,
        ids: bytes,
        *,
        oldest: int = 0,
        newest: int | None = None,
        wait: bool = False,
    ) -> bool:
        """Take the receipt as the answer, or, with `wait`, be woken when it may be told."""
        try:
            found = self._receipts.receipt_nowait(id_at(ids, at), oldest=oldest, newest=newest)
        except HeldBack:
            self._pending(waiter, at, wait=wait)
            return True
        if found is None:
            return False
        waiter.answer(at, found)
        return True

    def _pending(self, waiter: _Waiter, at: int, *, wait: bool) -> None:
        """It has no answer yet; with `wait`, the block that has it wakes the waiter."""
        waiter.outcomes[at] = Outcome.PENDING
        if wait:
            self._waiting.setdefault(id_at(waiter.ids, at), []).append((waiter, at))
            waiter.left += 1

    def _forget(self, waiter: _Waiter) -> None:
        """Drop what a submission still waited for when it gave up."""
        if waiter.left == 0:
            return
        for at, outcome in enumerate(waiter.outcomes):
            if outcome != Outcome.PENDING:
                continue
            key = id_at(waiter.ids, at)
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
