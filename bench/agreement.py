"""Agreement by size: 4, 7 and 21 real validators on one machine, each with a load of its own.

Everything but the raw row is signed and durable: clients sign transfers with Falcon-512, votes are
on disk before they leave, the ledger is the real one. An operation counts when as many nodes as
cannot all lie (W) have answered alike, each after it executed the block durably.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench import raw
from bench.load import Load, Purse
from bench.network import Member, Network
from bench.report import ATTEMPTS_MAX, Pauses, Result, Suite, progress, rounded
from consensus.core.quorum import weak_quorum
from node.runtime.load import Report

IDLE_SECONDS: Final = 10.0
STEADY_RATE: Final = 4_000
STEADY_SECONDS: Final = 15.0
WARM_UP_S: Final = 3.0
ACCOUNTS: Final = 128
TRANSFERS_BEFORE_MEMORY: Final = 100_000
CALL_SIZE: Final = 250


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """One size of network and how it is saturated."""

    nodes: int
    seconds: float
    in_flight: int
    count: int

    def name(self, what: str) -> str:
        """Name of a figure of this size."""
        return f"bft_n{self.nodes}_{what}"


SIZES: Final = (
    Size(nodes=4, seconds=25.0, in_flight=4_000, count=300_000),
    Size(nodes=7, seconds=25.0, in_flight=4_000, count=150_000),
    Size(nodes=21, seconds=40.0, in_flight=4_000, count=80_000),
)
LATENCY: Final = ("bft_n4_idle_p50_ms", "bft_n4_4000_p50_ms", "bft_n4_4000_p99_ms")
CPU: Final = "bft_n4_cpu_ms_per_op"
RAW: Final = "bft_n4_raw_op_per_s"
MEMORY: Final = ("bft_n4_rss_mb", "bft_n21_rss_mb")
NAMES: Final = (
    *LATENCY,
    CPU,
    RAW,
    *MEMORY,
    *(size.name("signed_tx_per_s") for size in SIZES),
    *(size.name("cpu_s_per_1000_tx") for size in SIZES),
)


def run(wanted: frozenset[str]) -> Iterator[Result]:
    """Measure size by size; nothing of a network is left when the next one starts."""
    for size in SIZES:
        if any(name.startswith(size.name("")) for name in wanted - {RAW}):
            yield from _of_size(size, wanted)
    if RAW in wanted:
        yield raw.measure(RAW)


def _of_size(size: Size, wanted: frozenset[str]) -> Iterator[Result]:
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-bench-"))
    network = Network.create(folder, nodes=size.nodes, name=f"bench{size.nodes}")
    try:
        network.up(timeout_s=60 + 5 * size.nodes)
        network.wait_height(1)
        purse = Purse.fill(network, accounts=ACCOUNTS)
        if size.nodes == 4 and not wanted.isdisjoint(LATENCY):
            yield from _latency(network, purse)
        yield from _saturated(network, purse, size)
        if size.name("rss_mb") in wanted:
            yield _memory(network, purse, size)
        network.agreed_root()
        if network.conservation_error():
            raise RuntimeError("money appeared or vanished under load")
    finally:
        network.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def _latency(network: Network, purse: Purse) -> Iterator[Result]:
    idle = _load(
        network, purse, mode="saturate", in_flight=1, seconds=IDLE_SECONDS,
        count=int(1_000 * IDLE_SECONDS), lanes=1,
    )  # fmt: skip
    yield Result(
        name=LATENCY[0],
        value=rounded(idle.p50_ms),
        unit="ms",
        conditions=f"one transfer at a time, {idle.applied} of them, p99 {idle.p99_ms:g} ms; "
        f"{_conditions(network)}",
    )
    steady = _load(
        network, purse, rate=STEADY_RATE, seconds=STEADY_SECONDS, warm_up_s=WARM_UP_S, lanes=16
    )
    conditions = (
        f"{STEADY_RATE}/s, open loop from intended send, {STEADY_SECONDS:g} s of which the first "
        f"{WARM_UP_S:g} s dropped, p99.9 {steady.p999_ms:g} ms, {steady.tx_per_s:g}/s came "
        f"through, generator late by {steady.late_ms_max:g} ms at most; {_conditions(network)}"
    )
    for name, value in zip(LATENCY[1:], (steady.p50_ms, steady.p99_ms), strict=True):
        yield Result(name=name, value=rounded(value), unit="ms", conditions=conditions)


def _saturated(network: Network, purse: Purse, size: Size) -> Iterator[Result]:
    before = _cpu_s(network.members)
    report = _load(
        network, purse, mode="saturate", count=size.count, seconds=size.seconds,
        in_flight=size.in_flight, call_size=CALL_SIZE, lanes=32,
    )  # fmt: skip
    spent_s = (_cpu_s(network.members) - before) / max(report.applied, 1) * 1000
    conditions = (
        f"{size.in_flight} transfers in flight in calls of {CALL_SIZE}, "
        f"{report.finished - report.started:.1f} s, p50 {report.p50_ms:.0f} ms, p99 "
        f"{report.p99_ms:.0f} ms, {report.sent - report.applied} not applied; "
        f"{_conditions(network)}"
    )
    yield Result(
        name=size.name("signed_tx_per_s"),
        value=rounded(report.tx_per_s),
        unit="tx/s",
        conditions=conditions,
    )
    of_all = f"CPU of all {size.nodes} nodes while saturated; {conditions}"
    yield Result(
        name=size.name("cpu_s_per_1000_tx"), value=rounded(spent_s), unit="s", conditions=of_all
    )
    if size.nodes == 4:
        yield Result(name=CPU, value=rounded(spent_s), unit="ms", conditions=of_all)


def _memory(network: Network, purse: Purse, size: Size) -> Result:
    if size.nodes == 4:
        while purse.executed < TRANSFERS_BEFORE_MEMORY:
            missing = TRANSFERS_BEFORE_MEMORY - purse.executed
            progress(f"  {missing} more transfers, for memory")
            _load(
                network, purse, mode="saturate", count=missing + CALL_SIZE, seconds=60.0,
                in_flight=size.in_flight, call_size=CALL_SIZE, lanes=32,
            )  # fmt: skip
    rss = [member.usage().rss_mb for member in network.members]
    return Result(
        name=size.name("rss_mb"),
        value=rounded(max(rss)),
        unit="MB",
        conditions=f"largest node after {purse.executed} transfers, smallest {min(rss):.0f}; "
        f"{_conditions(network)}",
    )


def _load(network: Network, purse: Purse, **options: object) -> Report:
    """Run a load, again when the machine stood still meanwhile."""
    progress(f"  load: {', '.join(f'{key} {value}' for key, value in options.items())}")
    answers = weak_quorum(len(network.members))
    for _ in range(ATTEMPTS_MAX):
        plan = purse.plan(targets=network.members, answers=answers, **options)  # type: ignore[arg-type]
        with Load(plan) as load, Pauses() as pauses:
            load.go()
            report = purse.book(load.report(timeout_s=300))
        if not pauses.excessive:
            break
        progress(f"  the machine paused for {pauses.longest_ms:.0f} ms: measuring again")
    return report


def _cpu_s(members: Sequence[Member]) -> float:
    return sum(member.usage().cpu_s for member in members)


def _conditions(network: Network) -> str:
    nodes = len(network.members)
    return (
        f"n={nodes} and load generator on this machine, client-signed Falcon-512, fsync before "
        f"vote, counted at {weak_quorum(nodes)} nodes that answered alike"
    )


SUITE: Final = Suite(group="agreement", names=NAMES, run=run)
