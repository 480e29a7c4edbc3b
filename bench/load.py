"""The load generator of the benchmarks: funded accounts, and a process of its own.

`Purse` funds accounts and signs the transfers of a `Plan` beforehand, so that signing costs the
measurement nothing. `Load` holds the generator's process: it connects, says "ready", waits for a
line, sends as `node.runtime.load` does, and prints a report.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

import trio

from bench.network import PASSPHRASE, Member, Network
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
from native.keys import SecretKey
from native.values import Algorithm, Amount, Digest
from node.runtime.load import (
    RETRY_PAUSE_S,
    AlikeChannel,
    CallFailed,
    Generator,
    Mode,
    Report,
    Schedule,
    StoqChannel,
    Target,
    quiet,
    stoq_channels,
)

FRAME: Final = struct.Struct(">I")
SIGNING_THREADS: Final = os.cpu_count() or 1
VALID_UNTIL: Final = 900_000  # within what genesis allows by default


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
    answers: int = 1  # nodes that must answer alike before an operation counts
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
    def schedule(self) -> Schedule:
        """When what is sent."""
        return Schedule(
            strands=self.strands,
            mode=self.mode,
            rate=self.rate,
            seconds=self.seconds,
            warm_up_s=self.warm_up_s,
            in_flight=self.in_flight,
            call_size=self.call_size,
        )

    @property
    def payloads_file(self) -> Path:
        """The signed transfers, in the order they are meant to be sent."""
        return Path(self.folder) / "payloads.bin"

    @property
    def samples_file(self) -> Path:
        """Pairs of doubles: intended and done, CLOCK_MONOTONIC seconds."""
        return Path(self.folder) / "samples.bin"


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


def _channels(plan: Plan) -> contextlib.AbstractAsyncContextManager[list[StoqChannel]]:
    return stoq_channels(
        plan.targets, chain_id=bytes.fromhex(plan.chain_id), chain_name=plan.chain_name
    )


async def run(plan: Plan) -> None:
    """Connect, say "ready", wait for a line, send, write samples, print the report."""
    payloads = read_payloads(plan)
    offset = time.monotonic() - trio.current_time()
    async with _channels(plan) as channels, trio.open_nursery() as nursery:
        for channel in channels:
            with contextlib.suppress(Exception):
                await channel.connected()
        asked = [
            AlikeChannel(
                channel, [channels[(at + n) % len(channels)] for n in range(1, plan.answers)]
            )
            for at, channel in enumerate(channels)
        ]
        generator = Generator(plan.schedule, asked, payloads)
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
        answers: int = 1,
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
            answers=answers,
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
            async with _channels(plan) as (channel,):
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
