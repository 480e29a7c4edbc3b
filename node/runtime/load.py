"""Load on a network: signed transactions sent at their time, and what became of them.

Open loop: operation i is meant to be sent at start + i / rate (or later and later apart, in a
ramp), and its latency counts from that moment even if it left later. Saturation: a fixed number of
operations is always in flight. A *strand* is one lane of one account; it has one call in flight, so
nothing overtakes. A call that fails because its node died goes to the next node: resubmission is
idempotent. Signing is not done here but before.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import math
import os
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol

import structlog
import trio

from native import codec
from native.batches import Batch
from native.keys import SecretKey
from native.values import Algorithm, NodeId
from node.runtime.api import Outcome
from node.runtime.submissions import CODE_MEMPOOL_FULL
from transport import AcceptAll, CloseReason, Connection, Endpoint, HelloOffer, Identity
from transport.errors import TransportError

COALESCE_S: Final = 0.001  # operations due within it share a call
CALL_TIMEOUT_S: Final = 15.0
RETRY_PAUSE_S: Final = 0.05
GIVE_UP_S: Final = 60.0
APPLIED: Final = 0
NO_ANSWER: Final = -1  # of this generator: no node gave an outcome in time
PENDING: Final = -2  # of this generator: no outcome yet, ask again with the same bytes
TRANSIENT: Final = frozenset({CODE_MEMPOOL_FULL, PENDING})
HISTOGRAM_STEP: Final = 2.0 ** (1 / 8)  # between two bounds: a figure is right to 9 %
HISTOGRAM_FLOOR_MS: Final = 0.1

Mode = Literal["open", "saturate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A node that takes transactions: hexadecimal NodeId and STOQ address."""

    node_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """When what is sent. Operation i belongs to strand i modulo `strands`."""

    strands: int
    mode: Mode = "open"
    rate: float = 0.0  # operations a second, at the start of a ramp
    rate_end: float | None = None  # at the end of a ramp; None for a steady rate
    seconds: float = 0.0
    warm_up_s: float = 0.0  # samples meant to be sent earlier do not count for latency
    in_flight: int = 0
    call_size: int = 1

    @property
    def count(self) -> int:
        """How many operations an open loop sends."""
        end = self.rate if self.rate_end is None else self.rate_end
        return int((self.rate + end) / 2 * self.seconds)

    def due_s(self, index: int) -> float:
        """When operation `index` is meant to be sent, in seconds after the start."""
        slope = 0.0 if self.rate_end is None else (self.rate_end - self.rate) / self.seconds
        if slope == 0.0:
            return index / self.rate
        # rate * t + slope * t^2 / 2 = index
        return (math.sqrt(max(self.rate**2 + 2 * slope * index, 0.0)) - self.rate) / slope


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What came out of a run. Latencies count from the intended moment, in ms."""

    sent: int
    applied: int
    outcomes: dict[str, int]
    retries: int
    started: float
    finished: float
    tx_per_s: float
    p50_ms: float
    p90_ms: float
    p99_ms: float
    p999_ms: float
    max_ms: float
    late_ms_max: float  # how far the generator itself fell behind its schedule
    cpu_s: float
    samples: tuple[tuple[float, float], ...] = field(default=(), repr=False)

    def longest_silence(self, first: float, last: float) -> float:
        """Return the longest time between two receipts that touches [first, last]."""
        done = sorted({finished for _, finished in self.samples})
        gaps = [
            later - earlier
            for earlier, later in itertools.pairwise(done)
            if later >= first and earlier <= last
        ]
        return max(gaps, default=last - first)


def percentile(sorted_values: Sequence[float], percent: float) -> float:
    """Return the nearest-rank percentile of values in rising order."""
    if not sorted_values:
        raise ValueError("no samples")
    rank = max(0, min(len(sorted_values) - 1, round(percent / 100 * len(sorted_values)) - 1))
    return sorted_values[rank]


def histogram(took_ms: Sequence[float]) -> list[tuple[float, int]]:
    """Count latencies by upper bound; the bounds grow by `HISTOGRAM_STEP`."""
    counts = Counter(
        max(0, math.ceil(math.log(max(took, 1e-9) / HISTOGRAM_FLOOR_MS, HISTOGRAM_STEP)))
        for took in took_ms
    )
    return [
        (round(HISTOGRAM_FLOOR_MS * HISTOGRAM_STEP**place, 4), counts[place])
        for place in range(max(counts, default=-1) + 1)
    ]


class Channel(Protocol):
    """One way to hand transfers to one node."""

    async def submit(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Return each payload's outcome code once executed; raise `CallFailed` otherwise."""
        ...


class CallFailed(Exception):
    """The node did not answer: it is gone, starts, or is full. The call may be repeated."""


@dataclass(slots=True)
class Strand:
    """One lane of one account: its transfers must arrive in order."""

    slot: int
    waiting: deque[tuple[float, bytes]] = field(default_factory=deque)
    busy: bool = False


class Generator:
    """Sends the transfers of one plan through channels and keeps the score."""

    def __init__(
        self,
        plan: Schedule,
        channels: Sequence[Channel],
        payloads: Sequence[bytes],
        *,
        give_up_s: float = GIVE_UP_S,
    ) -> None:
        self.plan = plan
        self.give_up_s = give_up_s
        self.channels = channels
        self.payloads = payloads
        self.outcomes: Counter[int] = Counter()
        self.samples: list[tuple[float, float]] = []
        self.retries = 0
        self.late_s_max = 0.0
        self.stopping = False

    async def run(self) -> None:
        """Send everything, or until the time of the plan is over, and wait for the answers."""
        if self.plan.mode == "open":
            await self._open_loop()
        else:
            await self._saturate()

    async def _open_loop(self) -> None:
        width = self.plan.strands
        strands = [Strand(slot=index % len(self.channels)) for index in range(width)]
        started = trio.current_time()
        last = started + self.plan.seconds
        index = 0
        async with trio.open_nursery() as nursery:
            while index < len(self.payloads) and not self.stopping:
                intended = started + self.plan.due_s(index)
                if intended > last:
                    break
                await trio.sleep_until(intended)
                now = trio.current_time()
                due: dict[int, list[Strand]] = {}
                while index < len(self.payloads):
                    intended = started + self.plan.due_s(index)
                    if intended > min(now + COALESCE_S, last):
                        break
                    self.late_s_max = max(self.late_s_max, now - intended)
                    strand = strands[index % width]
                    strand.waiting.append((intended, self.payloads[index]))
                    index += 1
                    if not strand.busy:
                        strand.busy = True
                        due.setdefault(strand.slot, []).append(strand)
                for slot, ready in due.items():
                    nursery.start_soon(self._serve, slot, ready)

    async def _serve(self, slot: int, strands: list[Strand]) -> None:
        """Send what the strands hold until they hold nothing; they stay in step meanwhile."""
        while strands:
            operations = [operation for strand in strands for operation in strand.waiting]
            for strand in strands:
                strand.waiting.clear()
            await self._call(slot, operations)
            for strand in strands:
                strand.busy = bool(strand.waiting)
            strands = [strand for strand in strands if strand.busy]

    async def _saturate(self) -> None:
        size = self.plan.call_size
        slots = max(1, self.plan.in_flight // size)
        deadline = trio.current_time() + self.plan.seconds
        width = self.plan.strands
        if width < slots:
            raise ValueError(f"{slots} calls in flight need as many lanes, there are {width}")

        async def work(slot: int) -> None:
            """Own every lane whose number is `slot` modulo `slots`, so order is kept."""
            mine = deque(
                self.payloads[index]
                for index in range(len(self.payloads))
                if index % width % slots == slot
            )
            while mine and trio.current_time() < deadline and not self.stopping:
                now = trio.current_time()
                call = [(now, mine.popleft()) for _ in range(min(size, len(mine)))]
                await self._call(slot, call)

        async with trio.open_nursery() as nursery:
            for slot in range(slots):
                nursery.start_soon(work, slot)

    async def _call(self, slot: int, operations: list[tuple[float, bytes]]) -> None:
        payloads = [payload for _, payload in operations]
        give_up = trio.current_time() + self.give_up_s
        for attempt in itertools.count():
            if trio.current_time() > give_up:
                break
            channel = self.channels[(slot + attempt) % len(self.channels)]
            try:
                codes = await channel.submit(payloads)
            except CallFailed:
                self.retries += 1
                await trio.sleep(RETRY_PAUSE_S)
                continue
            done = trio.current_time()
            answered = list(zip(operations, codes, strict=True))
            final = [(operation, code) for operation, code in answered if code not in TRANSIENT]
            self.outcomes.update(code for _, code in final)
            self.samples.extend(
                (intended, done) for (intended, _), code in final if code == APPLIED
            )
            operations = [operation for operation, code in answered if code in TRANSIENT]
            if not operations:
                return
            payloads = [payload for _, payload in operations]
            self.retries += 1
            await trio.sleep(RETRY_PAUSE_S)
        self.outcomes[NO_ANSWER] += len(operations)

    def latencies_ms(self, counted: float) -> list[float]:
        """Latencies of what was meant to be sent at `counted` or later, in rising order."""
        return sorted(
            (done - intended) * 1000 for intended, done in self.samples if intended >= counted
        )

    def report(self, started: float, finished: float, clock_offset: float) -> Report:
        """Sum up; `clock_offset` turns trio's clock into CLOCK_MONOTONIC."""
        counted = started + self.plan.warm_up_s
        took = self.latencies_ms(counted)
        applied = len(self.samples)
        last = max((done for _, done in self.samples), default=finished)
        span = max(last - started, 1e-9)
        cpu = os.times()

        def at(percent: float) -> float:
            return round(percentile(took, percent), 3) if took else float("nan")

        return Report(
            sent=sum(self.outcomes.values()),
            applied=applied,
            outcomes={str(code): count for code, count in sorted(self.outcomes.items())},
            retries=self.retries,
            started=started + clock_offset,
            finished=last + clock_offset,
            tx_per_s=round(applied / span, 1),
            p50_ms=at(50),
            p90_ms=at(90),
            p99_ms=at(99),
            p999_ms=at(99.9),
            max_ms=at(100),
            late_ms_max=round(self.late_s_max * 1000, 3),
            cpu_s=round(cpu.user + cpu.system, 2),
        )


class AlikeChannel:
    """Several nodes asked at once: an outcome counts when all of them gave the same."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self.channels = channels

    async def submit(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Send one call to every node; one that fails or says something else fails the call."""
        answers: list[Sequence[int]] = []
        failures: list[CallFailed] = []

        async def ask(channel: Channel) -> None:
            try:
                answers.append(await channel.submit(payloads))
            except CallFailed as failed:
                failures.append(failed)

        async with trio.open_nursery() as nursery:
            for channel in self.channels:
                nursery.start_soon(ask, channel)
        if failures:
            raise failures[0]
        merged = []
        for codes in zip(*answers, strict=True):
            if len(set(codes)) > 1 and TRANSIENT.isdisjoint(codes):
                raise CallFailed(f"the nodes say different things: {codes}")
            merged.append(next((code for code in codes if code in TRANSIENT), codes[0]))
        return merged


class StoqChannel:
    """STOQ RPC `caesar.submit`: a batch body in, outcome codes out."""

    def __init__(self, endpoint: Endpoint, target: Target) -> None:
        self.endpoint = endpoint
        self.target = target
        self.connection: Connection | None = None
        self.dialling = trio.Lock()

    async def submit(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Send one call; dial again after the connection was lost."""
        body = Batch.of(payloads).body
        try:
            connection = await self.connected()
            with trio.fail_after(CALL_TIMEOUT_S):
                answer = await connection.call("caesar.submit", body, timeout_s=CALL_TIMEOUT_S)
        except (TransportError, trio.TooSlowError) as error:
            raise CallFailed(str(error)) from error
        match codec.decode(answer, size_max=len(answer)):
            case (int(), bytes(codes), bytes(outcomes)) if len(codes) == len(payloads):
                return [
                    PENDING if outcome == Outcome.PENDING else code
                    for code, outcome in zip(codes, outcomes, strict=True)
                ]
        raise CallFailed("the answer is not one of caesar.submit")

    async def connected(self) -> Connection:
        """Dial unless there is a connection."""
        async with self.dialling:
            if self.connection is None or self.connection.closed.is_set():
                self.connection = None
                with trio.fail_after(5):
                    self.connection = await self.endpoint.dial(
                        self.target.address, NodeId(bytes.fromhex(self.target.node_id))
                    )
        return self.connection


@contextlib.asynccontextmanager
async def stoq_channels(
    targets: Sequence[Target],
    *,
    chain_id: bytes,
    chain_name: str,
    make: Callable[[Endpoint, Target], StoqChannel] | None = None,
) -> AsyncIterator[list[StoqChannel]]:
    """Open an endpoint with a key of its own and a channel to every target."""
    offer = HelloOffer(chain_id=chain_id, chain_name=chain_name)
    async with trio.open_nursery() as nursery:
        endpoint = Endpoint(
            Identity(SecretKey.generate(Algorithm.FALCON_512)),
            listen=None,
            hello=offer,
            verifier=AcceptAll(),  # whom we reach is decided by the NodeId we dial
        )
        await nursery.start(endpoint.run)
        channels = [(make or StoqChannel)(endpoint, target) for target in targets]
        try:
            yield channels
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await endpoint.close(CloseReason.SHUTDOWN)
            nursery.cancel_scope.cancel()


def quiet() -> None:
    """Keep the transport's events out of this process's output, unless they are alarming."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
