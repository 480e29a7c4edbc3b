"""The client of a chaos run: open loop, and it writes down what it was told and when.

One line a payload, in the order of the answers: index, first invocation and answer (seconds of
CLOCK_MONOTONIC), outcome code, height. A call of several payloads is answered with the highest
height among them, so a line says whether its height is exact. Reads of the sink's account, in each
of the three read modes, go round the nodes beside it and are written to another file.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import functools
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass
from pathlib import Path
from typing import Final

import httpx
import trio

from bench.load import Plan, read_payloads
from node.runtime.api import Outcome, ReadMode
from node.runtime.load import (
    Generator,
    StoqChannel,
    Target,
    quiet,
    stoq_channels,
)
from transport import Endpoint

GIVE_UP_S: Final = 240.0  # a scenario, its healing, and the catch-up of a slow machine
READ_PAUSE_S: Final = 0.05
READ_TIMEOUT_S: Final = 2.0
READ_WAIT_S: Final = 4.0  # for a state that is new enough
LINEARIZABLE_READERS: Final = 4  # each of their reads waits a second, by its definition
FINAL: Final = (Outcome.APPLIED, Outcome.FAILED)


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """One payload that a node said was executed."""

    index: int
    invoked: float
    answered: float
    code: int
    height: int
    exact: bool  # the height is this payload's own, not the highest of its call
    target: str  # NodeId of the node that answered


@dataclass(frozen=True, slots=True)
class Read:
    """One read of an account through one node."""

    node: int
    invoked: float
    answered: float
    height: int
    balance: int
    mode: str = ReadMode.LOCAL  # as asked
    promised: str = ReadMode.LOCAL  # as the answer says


class Book:
    """What all channels of one client write into."""

    def __init__(self, payloads: Sequence[bytes]) -> None:
        self.places = {payload: at for at, payload in enumerate(payloads)}
        self.first: dict[bytes, float] = {}
        self.history: list[Acknowledged] = []
        self.newest = 0  # height of all answers


class Recorder(StoqChannel):
    """A channel that remembers the first invocation and the answer of each payload."""

    def __init__(self, endpoint: Endpoint, target: Target, *, book: Book) -> None:
        super().__init__(endpoint, target)
        self.book = book

    async def submit(self, payloads: Sequence[bytes]) -> Sequence[int]:
        """Send one call as the benchmark's channel does, and write down what is final."""
        now = time.monotonic()
        for payload in payloads:
            self.book.first.setdefault(payload, now)
        answer = await self.ask(payloads)
        answered = time.monotonic()
        for payload, code, outcome in zip(payloads, answer.codes, answer.outcomes, strict=True):
            if outcome in FINAL:
                self.book.newest = max(self.book.newest, answer.height)
                self.book.history.append(
                    Acknowledged(
                        self.book.places[payload],
                        self.book.first[payload],
                        answered,
                        code,
                        answer.height,
                        len(payloads) == 1,
                        self.target.node_id,
                    )
                )
        return answer.verdicts()


async def read_around(
    urls: Sequence[str],
    account: str,
    book: Book,
    reads: list[Read],
    *,
    mode: ReadMode,
    first: int = 0,
) -> None:
    """Read one account through one node after the other until cancelled.

    At a height: the session's own, the highest that this client was told, by an answer or a read.
    """
    seen = 1
    async with httpx.AsyncClient(trust_env=False) as client:
        turn = first
        while True:
            node = turn % len(urls)
            turn += 1
            invoked = time.monotonic()
            query = {}
            if mode is not ReadMode.LOCAL:
                query["timeout_ms"] = f"{READ_WAIT_S * 1000:.0f}"
            if mode is ReadMode.AT_HEIGHT:
                query["min_height"] = str(max(seen, book.newest))
            elif mode is ReadMode.LINEARIZABLE:
                query["linearizable"] = "1"
            timeout_s = READ_TIMEOUT_S + (READ_WAIT_S if query else 0.0)
            with contextlib.suppress(httpx.HTTPError, KeyError, ValueError):
                answer = await client.get(
                    f"{urls[node]}/api/v1/accounts/{account}", params=query, timeout=timeout_s
                )
                document = answer.raise_for_status().json()
                one = Read(
                    node,
                    invoked,
                    time.monotonic(),
                    int(document["height"]),
                    int(document["balance"]),
                    mode,
                    document["read"],
                )
                reads.append(one)
                seen = max(seen, one.height)
            await trio.sleep(READ_PAUSE_S)


async def run(plan: Plan, urls: Sequence[str], account: str) -> None:
    """Say "ready", wait for a line, send and read, write both histories, print the report."""
    payloads = read_payloads(plan)
    book = Book(payloads)
    make = functools.partial(Recorder, book=book)
    reads: list[Read] = []
    offset = time.monotonic() - trio.current_time()
    chain_id = bytes.fromhex(plan.chain_id)
    async with (
        stoq_channels(
            plan.targets, chain_id=chain_id, chain_name=plan.chain_name, make=make
        ) as channels,
        trio.open_nursery() as nursery,
    ):
        for channel in channels:
            with contextlib.suppress(Exception):
                await channel.connected()
        generator = Generator(plan.schedule, channels, payloads, give_up_s=GIVE_UP_S)
        print("ready", flush=True)
        await trio.to_thread.run_sync(sys.stdin.readline)
        look = functools.partial(read_around, urls, account, book, reads)
        nursery.start_soon(functools.partial(look, mode=ReadMode.LOCAL))
        nursery.start_soon(functools.partial(look, mode=ReadMode.AT_HEIGHT))
        for first in range(min(LINEARIZABLE_READERS, len(urls))):
            nursery.start_soon(functools.partial(look, mode=ReadMode.LINEARIZABLE, first=first))
        started = trio.current_time()
        await generator.run()
        finished = trio.current_time()
        nursery.cancel_scope.cancel()
    for name, lines in (("acknowledged.csv", book.history), ("reads.csv", reads)):
        with (Path(plan.folder) / name).open("w", newline="") as file:
            csv.writer(file).writerows(astuple(line) for line in lines)
    plan.samples_file.write_bytes(b"")
    document = asdict(generator.report(started, finished, offset))
    del document["samples"]
    print(json.dumps(document), flush=True)


def read_history(plan: Plan) -> tuple[list[Acknowledged], list[Read]]:
    """Both histories of a run that ended."""
    folder = Path(plan.folder)
    with (folder / "acknowledged.csv").open() as file:
        acknowledged = [
            Acknowledged(int(a), float(b), float(c), int(d), int(e), f == "True", g)
            for a, b, c, d, e, f, g in csv.reader(file)
        ]
    with (folder / "reads.csv").open() as file:
        reads = [
            Read(int(a), float(b), float(c), int(d), int(e), f, g)
            for a, b, c, d, e, f, g in csv.reader(file)
        ]
    return acknowledged, reads


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.client", description="recording client")
    parser.add_argument("plan", type=Path)
    parser.add_argument("account")
    parser.add_argument("urls", nargs="+")
    arguments = parser.parse_args()
    quiet()
    trio.run(run, Plan.read(arguments.plan), arguments.urls, arguments.account)
    return 0


if __name__ == "__main__":
    sys.exit(main())
