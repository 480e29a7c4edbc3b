"""Takes in what clients send: one check, one entry into custody, one frame to each validator.

A call on an idle node is taken in at once. While payloads are in custody, calls that come within
`pause_s` of each other are taken in together: the block that could carry them is not made yet, and
what a call costs four nodes is mostly a frame, a wake-up and a turn each, whatever it holds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from consensus.application import CODE_APPLIED
from consensus.core.frames import FrameType
from consensus.limits import BATCH_PAYLOADS_MAX, BATCH_SIZE_BYTES_MAX
from native.batches import ADDED, Batch
from node.runtime.api import Overloaded
from node.runtime.receipts import ID_SIZE_BYTES
from transport import ChannelKind

if TYPE_CHECKING:
    from consensus.application import Advice
    from consensus.runtime.driver import Driver
    from consensus.runtime.links import Links
    from native.batches import Mempool
    from node.runtime.router import Router

CHECK_INLINE_PAYLOADS_MAX: Final = 32  # 0.5 ms of signatures; a hand-over and back is as dear
WAITING_PAYLOADS_MAX: Final = 16_384  # to be taken in: half a second of signatures
TOGETHER_PAYLOADS_MAX: Final = 256  # calls with more between them do not wait: 2 ms of signatures

ADMITTED: Final = bytes(code == CODE_APPLIED for code in range(256))
TAKEN: Final = bytes(status == ADDED for status in range(256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Admitted:
    """What the payloads of one call met, in place: outcome codes, ids, states of custody."""

    codes: bytes
    ids: bytes
    statuses: bytes


@dataclass(slots=True, kw_only=True, eq=False)
class _Call:
    """One call that waits to be taken in."""

    batch: Batch
    admitted: Callable[[Admitted], None]
    error: Exception | None = None
    done: trio.Event = field(default_factory=trio.Event)


class Intake:
    """Admits payloads on the loop. `run` must run beside it."""

    def __init__(
        self,
        *,
        router: Router,
        mempool: Mempool,
        driver: Driver,
        links: Links,
        me: int,
        now_ms: Callable[[], int],
        pause_s: float,
    ) -> None:
        """`me` marks our own payloads in custody."""
        self._router = router
        self._mempool = mempool
        self._driver = driver
        self._links = links
        self._me = me
        self._now_ms = now_ms
        self._pause_s = pause_s
        self._calls: list[_Call] = []
        self._waiting = 0  # payloads of those calls
        self._arrived = trio.Event()
        self._plenty = trio.Event()
        self._ready_at = 0.0

    async def admit(self, batch: Batch, admitted: Callable[[Admitted], None]) -> None:
        """Take a call in; `admitted` is told in the same breath, before anything can execute."""
        call = _Call(batch=batch, admitted=admitted)
        alone = not self._calls and not len(self._mempool)
        if alone and len(batch) <= CHECK_INLINE_PAYLOADS_MAX:
            self._take([call], batch, self._router.check(batch))
            return
        if self._waiting >= WAITING_PAYLOADS_MAX:
            raise Overloaded(
                f"{self._waiting:,} payloads wait to be taken in", hint="try again in a second"
            )
        self._calls.append(call)
        self._waiting += len(batch)
        self._arrived.set()
        if self._waiting >= TOGETHER_PAYLOADS_MAX:
            self._plenty.set()
        try:
            await call.done.wait()
        except trio.Cancelled:
            if call in self._calls:
                self._calls.remove(call)
                self._waiting -= len(batch)
            else:
                call.admitted = lambda _taken: None  # it is being taken in; nobody is told
            raise
        if call.error is not None:
            raise call.error

    async def run(self) -> None:
        """Take calls in until cancelled."""
        while True:
            await self._arrived.wait()
            if len(self._mempool):
                with trio.move_on_at(self._ready_at):
                    await self._plenty.wait()
            calls = self._next()
            if not calls:
                continue
            self._ready_at = trio.current_time() + self._pause_s
            batch = _joined(calls)
            try:
                advice = await self._check(batch)
            except Exception as error:
                for call in calls:
                    call.error = error
            else:
                self._take(calls, batch, advice)
            for call in calls:
                call.done.set()

    def _next(self) -> list[_Call]:
        """The calls that fit into one batch; none if all callers gave up."""
        count = size = number = 0
        for number, call in enumerate(self._calls):
            count += len(call.batch)
            size += call.batch.size
            if number and (count > BATCH_PAYLOADS_MAX or size > BATCH_SIZE_BYTES_MAX):
                break
        else:
            number = len(self._calls)
        calls, self._calls = self._calls[:number], self._calls[number:]
        self._waiting = sum(len(call.batch) for call in self._calls)
        if not self._calls:
            self._arrived = trio.Event()
        if self._waiting < TOGETHER_PAYLOADS_MAX:
            self._plenty = trio.Event()
        return calls

    async def _check(self, batch: Batch) -> Advice:
        if len(batch) <= CHECK_INLINE_PAYLOADS_MAX:
            return self._router.check(batch)
        return await trio.to_thread.run_sync(self._router.check, batch)

    def _take(self, calls: Sequence[_Call], batch: Batch, advice: Advice) -> None:
        codes, ids = advice.codes, advice.ids
        mask = codes.translate(ADMITTED)
        statuses = self._mempool.add(batch, mask, self._me, self._now_ms())
        first = 0
        for call in calls:
            last = first + len(call.batch)
            call.admitted(
                Admitted(
                    codes=codes[first:last],
                    ids=ids[first * ID_SIZE_BYTES : last * ID_SIZE_BYTES],
                    statuses=statuses[first:last],
                )
            )
            first = last
        taken = statuses.translate(TAKEN)
        if 1 in taken:
            for part in _frames(batch, taken):
                self._links.broadcast_nowait(ChannelKind.BULK, FrameType.PAYLOADS, part)
            self._driver.custody_changed()


def _joined(calls: Sequence[_Call]) -> Batch:
    return calls[0].batch if len(calls) == 1 else Batch.join([call.batch for call in calls])


def _frames(batch: Batch, taken: bytes) -> list[Batch]:
    """The payloads that were taken, in batches that a validator accepts."""
    if len(batch) <= BATCH_PAYLOADS_MAX and batch.size <= BATCH_SIZE_BYTES_MAX:
        return [batch if 0 not in taken else batch.select(taken)]
    parts = []
    for first in range(0, len(batch), BATCH_PAYLOADS_MAX):
        piece = bytes(first) + taken[first : first + BATCH_PAYLOADS_MAX]
        piece += bytes(len(batch) - len(piece))
        part = batch.select(piece)
        if len(part):
            parts += _halves(part)
    return parts


def _halves(batch: Batch) -> list[Batch]:
    """A batch of at most `BATCH_PAYLOADS_MAX` payloads, in parts no larger than one may be."""
    if batch.size <= BATCH_SIZE_BYTES_MAX or len(batch) == 1:
        return [batch]
    middle = len(batch) // 2
    front = bytes([1]) * middle + bytes(len(batch) - middle)
    back = bytes(middle) + bytes([1]) * (len(batch) - middle)
    return [*_halves(batch.select(front)), *_halves(batch.select(back))]
