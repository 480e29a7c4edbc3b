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
from node.runtime.receipts import ID_SIZE_BYTES, id_at
from node.runtime.submissions import CODE_MEMPOOL_FULL
from transport import AcceptAll, CloseReason, Connection, Endpoint, HelloOffer, Identity
from transport.errors import TransportError

COALESCE_S: Final = 0.001  # operations due within it share a call
CALLS_PER_NODE_MAX: Final = 8  # in flight, of an open loop; what is due then waits for a place
CALL_PAUSE_S: Final = 0.015  # between calls to a node that overlap: each costs all nodes a frame
CALL_OPERATIONS_MAX: Final = 250  # of one call: 200 kB of Falcon transfers
CALL_TIMEOUT_S: Final = 15.0
RETRY_PAUSE_S: Final = 0.05
GIVE_UP_S: Final = 60.0
APPLIED: Final = 0
NO_ANSWER: Final = -1  # of this generator: no node gave an outcome in time
PENDING: Final = -2  # of this generator: no outcome yet, ask again with the same bytes
EXECUTED: Final = frozenset({Outcome.APPLIED, Outcome.FAILED})
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


@dataclass(slots=True, eq=False)
class Line:
    """One node and the calls to it: so many at a time, and what is due meanwhile shares the next.

    A client that sent one call for each operation would make them smaller the slower it gets. A
    call to an idle line goes at once; while others are in flight it collects for a moment.
    """

    slot: int
    ready: deque[Strand] = field(default_factory=deque)
    calls: int = 0
    collecting: bool = False
    pause_until: float = 0.0

    def next_call(self) -> tuple[list[Strand], list[tuple[float, bytes]]]:
        """The strands of the next call, and what they hold."""
        strands: list[Strand] = []
        operations: list[tuple[float, bytes]] = []
        while self.ready and len(operations) < CALL_OPERATIONS_MAX:
            strand = self.ready.popleft()
            strands.append(strand)
            operations += strand.waiting
            strand.waiting.clear()
        return strands, operations


@dataclass(slots=True, eq=False)
class Strand:
    """One lane of one account: its transfers must arrive in order."""

    line: Line
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
        lines = [Line(slot=slot) for slot in range(len(self.channels))]
        strands = [Strand(line=lines[index % len(lines)]) for index in range(width)]
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
                        strand.line.ready.append(strand)
                for line in lines:
                    if line.ready and not line.collecting and line.calls < CALLS_PER_NODE_MAX:
                        line.calls += 1
                        line.collecting = True
                        nursery.start_soon(self._serve, line)

    async def _serve(self, line: Line) -> None:
        """Send what is ready, call after call, until nothing is."""
        while line.ready:
            if line.calls > 1:
                await trio.sleep_until(line.pause_until)
            line.collecting = False
            line.pause_until = trio.current_time() + CALL_PAUSE_S
            strands, operations = line.next_call()
            if not operations:
                break  # another call took them
            await self._call(line.slot, operations)
            for strand in strands:
                strand.busy = bool(strand.waiting)
            line.ready.extend(strand for strand in strands if strand.busy)
        line.calls -= 1

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one node says of the payloads of a call, in place."""

    height: int  # of the newest block that executed any of them
    codes: bytes
    outcomes: bytes
    ids: bytes

    def __post_init__(self) -> None:
        size = len(self.codes)
        if (len(self.outcomes), len(self.ids)) != (size, size * ID_SIZE_BYTES):
            raise CallFailed("the answer has not one code, outcome and id for each payload")

    @classmethod
    def decode(cls, data: bytes, payloads: int) -> Answer:
        """Decode what `caesar.submit` and `node.outcomes` answer."""
        match codec.decode(data, size_max=len(data)):
            case (int(height), bytes(codes), bytes(outcomes), bytes(ids)) if len(codes) == payloads:
                return cls(height=height, codes=codes, outcomes=outcomes, ids=ids)
        raise CallFailed("the answer is not one of caesar.submit")

    def verdicts(self) -> list[int]:
        """The code of each payload, `PENDING` where there is none yet."""
        return [
            PENDING if outcome == Outcome.PENDING else code
            for code, outcome in zip(self.codes, self.outcomes, strict=True)
        ]


class Witness(Protocol):
    """A node that takes payloads, and says what it knows of those another one took."""

    async def ask(self, payloads: Sequence[bytes]) -> Answer:
        """Submit; raises `CallFailed`."""
        ...

    async def outcomes(self, height: int, ids: bytes) -> Answer:
        """What it knows once it has executed the block at `height`; raises `CallFailed`."""
        ...


class AlikeChannel:
    """One node takes the payloads; an outcome counts when the others executed the same."""

    def __init__(self, first: Witness, others: Sequence[Witness]) -> None:
        self.first = first
        self.others = others

    async def submit(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Send one call, then ask the others; one that fails or says something else fails it."""
        answer = await self.first.ask(payloads)
        verdicts = answer.verdicts()
        executed = [at for at, outcome in enumerate(answer.outcomes) if outcome in EXECUTED]
        if not executed:
            return verdicts
        ids = b"".join(id_at(answer.ids, at) for at in executed)
        seconds: list[Answer] = []
        failures: list[CallFailed] = []

        async def ask(witness: Witness) -> None:
            try:
                seconds.append(await witness.outcomes(answer.height, ids))
            except CallFailed as failed:
                failures.append(failed)

        async with trio.open_nursery() as nursery:
            for witness in self.others:
                nursery.start_soon(ask, witness)
        if failures:
            raise failures[0]
        for second in seconds:
            for at, verdict in zip(executed, second.verdicts(), strict=True):
                if verdict == PENDING:
                    verdicts[at] = PENDING
                elif verdicts[at] not in (PENDING, verdict):
                    raise CallFailed(f"two nodes say {verdicts[at]} and {verdict} of one payload")
        return verdicts


class StoqChannel:
    """STOQ RPC `caesar.submit`, a batch body in and outcomes out, and `node.outcomes`."""

    def __init__(self, endpoint: Endpoint, target: Target) -> None:
        self.endpoint = endpoint
        self.target = target
        self.connection: Connection | None = None
        self.dialling = trio.Lock()

    async def submit(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Send one call; dial again after the connection was lost."""
        return (await self.ask(payloads)).verdicts()

    async def ask(self, payloads: Sequence[bytes]) -> Answer:
        """See `Witness`."""
        return await self._call("caesar.submit", Batch.of(payloads).body, len(payloads))

    async def outcomes(self, height: int, ids: bytes) -> Answer:
        """See `Witness`."""
        question = codec.encode((height, ids))
        return await self._call("node.outcomes", question, len(ids) // ID_SIZE_BYTES)

    async def _call(self, method: str, argument: bytes, payloads: int) -> Answer:
        try:
            connection = await self.connected()
            with trio.fail_after(CALL_TIMEOUT_S):
                answer = await connection.call(method, argument, timeout_s=CALL_TIMEOUT_S)
        except (TransportError, trio.TooSlowError) as error:
            raise CallFailed(str(error)) from error
        return Answer.decode(answer, payloads)

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
