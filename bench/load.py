"""Load generator: pre-signed transfers, open loop, in a process of its own.

`Purse` funds accounts and signs the transfers of a `Plan` beforehand, so that signing costs the
measurement nothing. `Load` holds the generator's process: it connects, says "ready", waits for a
line, sends, and prints a report.

Open loop: operation i is meant to be sent at start + i / rate, and its latency counts from that
moment even if it left later. Saturation: a fixed number of operations is always in flight. A
*strand* is one lane of one account; it has one call in flight, so nothing overtakes. A call that
fails because its node died goes to the next node: resubmission is idempotent.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import logging
import os
import struct
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final, Literal, Protocol

import structlog
import trio

from bench.network import PASSPHRASE, Member, Network
from bench.report import percentile
from caesar.core.addresses import Address, address_of, address_text
from caesar.core.transactions import Transaction, Transfer
from caesar.limits import LANES_MAX, OPERATIONS_MAX
from caesar.runtime.wallet import (
    DEFAULT_MAX_FEE,
    TransferOrder,
    sign_transaction,
    sign_transfer,
    sign_transfers,
)
from native import codec
from native.batches import Batch
from native.keys import SecretKey
from native.values import Algorithm, Amount, Digest, NodeId
from node.runtime.api import Outcome
from node.runtime.submissions import CODE_MEMPOOL_FULL
from transport import AcceptAll, CloseReason, Connection, Endpoint, HelloOffer, Identity
from transport.errors import TransportError

COALESCE_S: Final = 0.001  # operations due within it share a call
CALL_TIMEOUT_S: Final = 15.0
RETRY_PAUSE_S: Final = 0.05
GIVE_UP_S: Final = 60.0
FRAME: Final = struct.Struct(">I")
APPLIED: Final = 0
NO_ANSWER: Final = -1  # of this generator: no node gave an outcome in time
PENDING: Final = -2  # of this generator: no outcome yet, ask again with the same bytes
TRANSIENT: Final = frozenset({CODE_MEMPOOL_FULL, PENDING})
SIGNING_THREADS: Final = os.cpu_count() or 1
VALID_UNTIL: Final = 900_000  # within what genesis allows by default

Mode = Literal["open", "saturate"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """A node that takes transfers."""

    node_id: str
    address: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Everything one run needs; written as JSON by who starts the generator."""

    folder: str  # holds the signed transfers, the plan and the samples
    chain_id: str
    chain_name: str
    strands: int  # transfer i belongs to strand i modulo this
    mode: Mode
    rate: float = 0.0
    seconds: float = 0.0
    warm_up_s: float = 0.0  # samples meant to be sent earlier do not count for latency
    in_flight: int = 0
    call_size: int = 1
    targets: tuple[Target, ...] = ()

    @classmethod
    def read(cls, path: Path) -> Plan:
        """Read what `write` wrote."""
        document = json.loads(path.read_text())
        targets = tuple(Target(**target) for target in document.pop("targets"))
        return cls(targets=targets, **document)

    def write(self) -> Path:
        """Write the plan into its folder and return the file."""
        path = Path(self.folder) / "plan.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @property
    def payloads_file(self) -> Path:
        """The signed transfers, in the order they are meant to be sent."""
        return Path(self.folder) / "payloads.bin"

    @property
    def samples_file(self) -> Path:
        """Pairs of doubles: intended and done, CLOCK_MONOTONIC seconds."""
        return Path(self.folder) / "samples.bin"


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
        plan: Plan,
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
                intended = started + index / self.plan.rate
                if intended > last:
                    break
                await trio.sleep_until(intended)
                now = trio.current_time()
                due: dict[int, list[Strand]] = {}
                while index < len(self.payloads):
                    intended = started + index / self.plan.rate
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
            raise SystemExit(f"{slots} calls in flight need as many lanes, there are {width}")

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

    def report(self, started: float, finished: float, clock_offset: float) -> Report:
        """Sum up; `clock_offset` turns trio's clock into CLOCK_MONOTONIC."""
        counted = started + self.plan.warm_up_s
        took = sorted(
            (done - intended) * 1000 for intended, done in self.samples if intended >= counted
        )
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
            connection = await self._connected()
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

    async def _connected(self) -> Connection:
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
    plan: Plan, make: Callable[[Endpoint, Target], StoqChannel] = StoqChannel
) -> AsyncIterator[list[StoqChannel]]:
    """Open an endpoint with a key of its own and a channel to every target."""
    offer = HelloOffer(chain_id=bytes.fromhex(plan.chain_id), chain_name=plan.chain_name)
    async with trio.open_nursery() as nursery:
        endpoint = Endpoint(
            Identity(SecretKey.generate(Algorithm.FALCON_512)),
            listen=None,
            hello=offer,
            verifier=AcceptAll(),  # whom we reach is decided by the NodeId we dial
        )
        await nursery.start(endpoint.run)
        channels = [make(endpoint, target) for target in plan.targets]
        try:
            yield channels
        finally:
            with trio.CancelScope(shield=True), trio.move_on_after(1):
                await endpoint.close(CloseReason.SHUTDOWN)
            nursery.cancel_scope.cancel()


def quiet() -> None:
    """Keep the transport's events out of this process's output, unless they are alarming."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))


# -- the process


def read_payloads(plan: Plan) -> list[bytes]:
    """Read what `sign` wrote."""
    data = plan.payloads_file.read_bytes()
    payloads = []
    position = 0
    while position < len(data):
        (size,) = FRAME.unpack_from(data, position)
        position += FRAME.size
        payloads.append(data[position : position + size])
        position += size
    return payloads


async def run(plan: Plan) -> None:
    """Connect, say "ready", wait for a line, send, write samples, print the report."""
    payloads = read_payloads(plan)
    offset = time.monotonic() - trio.current_time()
    async with stoq_channels(plan) as channels, trio.open_nursery() as nursery:
        for channel in channels:
            with contextlib.suppress(Exception):
                await channel._connected()
        generator = Generator(plan, channels, payloads)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        nursery.start_soon(_watch_stop, generator)
        started = trio.current_time()
        await generator.run()
        finished = trio.current_time()
        nursery.cancel_scope.cancel()
    report = generator.report(started, finished, offset)
    with plan.samples_file.open("wb") as file:
        for intended, done in generator.samples:
            file.write(struct.pack("=dd", intended + offset, done + offset))
    document = asdict(report)
    del document["samples"]
    print(json.dumps(document), flush=True)


async def _watch_stop(generator: Generator) -> None:
    """A second line, or the end of stdin, ends the run early."""
    await trio.to_thread.run_sync(sys.stdin.readline, abandon_on_cancel=True)
    generator.stopping = True


class Load:
    """The generator's process, as its parent holds it."""

    def __init__(
        self,
        plan: Plan,
        *,
        module: str = "bench.load",
        arguments: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """`module` is another generator with the same manners; it gets `arguments` as well."""
        self.plan = plan
        path = plan.write()
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, str(path), *arguments],
            env={**os.environ, **(environment or {})},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        assert self.process.stdout
        line = self.process.stdout.readline()
        if line.strip() != "ready":
            self.process.wait()
            raise RuntimeError(f"the load generator ended with {self.process.returncode}")

    def go(self) -> None:
        """Start sending."""
        self._line()

    def stop(self) -> None:
        """Send nothing new; what is in flight is still waited for."""
        with contextlib.suppress(OSError):
            self._line()

    def report(self, timeout_s: float = 120.0) -> Report:
        """Wait for the end and return what came out."""
        assert self.process.stdout
        limit = threading.Timer(timeout_s, self.process.kill)
        limit.start()
        output = self.process.stdout.read()  # not communicate(): the end of stdin means "stop"
        self.process.wait()
        limit.cancel()
        if self.process.returncode != 0:
            raise RuntimeError(f"the load generator ended with {self.process.returncode}")
        document = json.loads(output.splitlines()[-1])
        samples = tuple(struct.iter_unpack("=dd", self.plan.samples_file.read_bytes()))
        return Report(**document, samples=samples)

    def close(self) -> None:
        """End the process whatever it does."""
        self.process.kill()
        self.process.communicate()

    def _line(self) -> None:
        assert self.process.stdin
        self.process.stdin.write("\n")
        self.process.stdin.flush()

    def __enter__(self) -> Load:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Purse:
    """Funded accounts of one network, and signed transfers from them to one sink.

    Every plan takes lanes nobody used before, so a run that was cut short spoils nothing.
    """

    def __init__(self, network: Network, secrets: Sequence[SecretKey], folder: Path) -> None:
        self.network = network
        self.secrets = secrets
        self.folder = folder
        self.sink = Address(hashlib.sha256(b"sink of " + folder.name.encode()).digest())
        self.first_lane = 1  # lane 0 carried the key
        self.plans = 0
        self.units = 0  # received by the sink
        self.executed = 0  # transactions

    @classmethod
    def fill(cls, network: Network, *, accounts: int, amount: int = 10**13) -> Purse:
        """Pay `amount` base units from the treasury to fresh accounts and put their keys on the
        ledger.
        """
        folder = network.folder / "purse"
        folder.mkdir(exist_ok=True)
        with ThreadPoolExecutor(SIGNING_THREADS) as pool:
            secrets = list(pool.map(SecretKey.generate, [Algorithm.FALCON_512] * accounts))
        purse = cls(network, secrets, folder)
        treasury = SecretKey.load(network.path / "wallets" / "treasury.key", PASSPHRASE)
        purse.submit(purse._funding(treasury, amount))
        purse.submit(
            [
                sign_transfer(
                    secret,
                    chain_id=purse.chain_id,
                    recipient=purse.sink,
                    amount=Amount(1),
                    sequence=0,
                    valid_until=VALID_UNTIL,
                    carries_key=True,
                ).payload
                for secret in secrets
            ]
        )
        purse.units += len(secrets)
        return purse

    def plan(
        self,
        *,
        targets: Sequence[Member],
        mode: Mode = "open",
        rate: float = 0.0,
        seconds: float,
        count: int | None = None,
        lanes: int = 8,
        warm_up_s: float = 0.0,
        in_flight: int = 0,
        call_size: int = 1,
    ) -> Plan:
        """Sign what a run needs (`count`, or rate x seconds) and return its plan."""
        if self.first_lane + lanes > LANES_MAX:
            raise RuntimeError("the purse has no fresh lanes left; fill another one")
        total = count if count is not None else round(rate * seconds)
        strands = len(self.secrets) * lanes
        self.plans += 1
        folder = self.folder / str(self.plans)
        folder.mkdir()
        plan = Plan(
            folder=str(folder),
            chain_id=self.chain_id.hex(),
            chain_name=self.network.chain,
            strands=strands,
            mode=mode,
            rate=rate,
            seconds=seconds,
            warm_up_s=warm_up_s,
            in_flight=in_flight,
            call_size=call_size,
            targets=tuple(
                Target(node_id=member.node_id, address=member.address) for member in targets
            ),
        )

        with plan.payloads_file.open("wb") as file:
            for payload in self._signed(total, strands):
                file.write(FRAME.pack(len(payload)))
                file.write(payload)
        self.first_lane += lanes
        return plan

    def book(self, report: Report) -> Report:
        """Count what a run of ours moved."""
        self.units += report.applied
        self.executed += report.applied
        return report

    def received(self) -> int:
        """Return what the sink has, as the first member that answers sees it."""
        return int(self.network.account(address_text(self.sink))["balance"])

    @property
    def chain_id(self) -> Digest:
        """Of the network."""
        return Digest(bytes.fromhex(self.network.chain_id))

    def submit(self, payloads: Sequence[bytes]) -> None:
        """Hand transactions to the first member; all must be applied."""
        member = self.network.members[0]
        plan = Plan(
            folder=str(self.folder),
            chain_id=self.chain_id.hex(),
            chain_name=self.network.chain,
            strands=1,
            mode="open",
            targets=(Target(node_id=member.node_id, address=member.address),),
        )

        async def once() -> Sequence[int] | str:
            problem = ""
            async with stoq_channels(plan) as (channel,):
                for _ in range(100):
                    try:
                        return await channel.submit(payloads)
                    except CallFailed as failed:
                        problem = str(failed)
                    await trio.sleep(RETRY_PAUSE_S)
            return problem

        quiet()
        codes = trio.run(once)
        if isinstance(codes, str):
            raise RuntimeError(f"{member.name} took no transaction: {codes}")
        if any(codes):
            raise RuntimeError(f"transactions of the purse were not applied: {Counter(codes)}")
        self.executed += len(payloads)

    def _funding(self, treasury: SecretKey, amount: int) -> list[bytes]:
        sender = address_of(treasury.public)
        account = self.network.account(address_text(sender))
        sequence = next(
            (lane["next_sequence"] for lane in account["lanes"] if lane["lane"] == 0), 0
        )
        recipients = [address_of(secret.public) for secret in self.secrets]
        payloads = []
        for start in range(0, len(recipients), OPERATIONS_MAX):
            part = recipients[start : start + OPERATIONS_MAX]
            transaction = Transaction(
                chain_id=self.chain_id,
                sender=sender,
                lane=0,
                sequence=sequence,
                valid_until=VALID_UNTIL,
                max_fee=Amount(DEFAULT_MAX_FEE * len(part)),
                operations=tuple(
                    Transfer(recipient=recipient, amount=Amount(amount)) for recipient in part
                ),
            )
            first = not account["has_key"]  # all of them: they are admitted before the first runs
            payloads.append(sign_transaction(treasury, transaction, carries_key=first).payload)
            sequence += 1
        return payloads

    def _signed(self, total: int, strands: int) -> Iterator[bytes]:
        """Sign transfer 0, 1, … where transfer i belongs to strand i modulo `strands`."""
        accounts = len(self.secrets)
        order = sorted(range(total), key=lambda index: index % strands % accounts)
        payloads = sign_transfers(
            self.secrets,
            [
                TransferOrder(
                    signer=index % strands % accounts,
                    lane=self.first_lane + index % strands // accounts,
                    sequence=index // strands,
                    recipient=self.sink,
                    amount=Amount(1),
                    valid_until=VALID_UNTIL,
                )
                for index in order
            ],
            chain_id=self.chain_id,
            threads=SIGNING_THREADS,
        )
        place = {index: position for position, index in enumerate(order)}
        return (payloads[place[index]] for index in range(total))


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.load", description="load generator")
    parser.add_argument("plan", type=Path)
    quiet()
    trio.run(run, Plan.read(parser.parse_args(arguments).plan))
    return 0


if __name__ == "__main__":
    sys.exit(main())
