"""Four real validators and the load generator on one machine: rates, latency, faults, restart.

Everything is signed and durable: clients sign transfers with Falcon-512, votes are on disk before
they leave. An operation counts when its client has the outcome of the executed block from the node
that took it. Every fault row names its runs.
"""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from bench.load import Load, Purse
from bench.network import Member, Network, until
from bench.report import ATTEMPTS_MAX, Pauses, Result, Suite, progress, rounded
from node.runtime.load import Report

NODES: Final = 4
RATES: Final = (100, 500, 1000)
LATENCY_SECONDS: Final = 15.0
WARM_UP_S: Final = 3.0
SATURATED_SECONDS: Final = 25.0
SATURATED_COUNT: Final = 150_000
IN_FLIGHT: Final = 4_000
CALL_SIZE: Final = 250
TRANSFERS_ON_DISK: Final = 100_000
FAULT_RATE: Final = 500
FAULT_RUNS: Final = 3
ACCOUNTS: Final = 128
CONDITIONS: Final = (
    "n=4 and load generator on this machine, client-signed Falcon-512, fsync before vote"
)

LATENCY: Final = ("tx_latency_p50_ms", "tx_latency_p99_ms")
SATURATED: Final = (
    "tx_per_s_saturated", "cpu_s_per_1000_tx", "rss_mb_per_node", "restart_s",
)  # fmt: skip
FAULTS: Final = ("primary_kill_gap_ms", "catch_up_s")


def run(wanted: frozenset[str]) -> Iterator[Result]:
    """Make a network, measure what is wanted, and leave nothing behind."""
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-bench-"))
    network = Network.create(folder, nodes=NODES, name="bench")
    try:
        yield _up(network)
        progress("  funding accounts")
        purse = Purse.fill(network, accounts=ACCOUNTS)
        if not wanted.isdisjoint(LATENCY):
            yield from _latency(network, purse)
        if not wanted.isdisjoint(FAULTS):
            yield from _faults(network, purse)
        if not wanted.isdisjoint(SATURATED):
            yield from _saturated(network, purse, wanted)
        yield _conservation(network, purse)
    finally:
        network.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def _up(network: Network) -> Result:
    began = time.monotonic()
    network.command("cluster", "up", network.name)
    network.wait_height(1)
    return Result(
        name="cluster_up_s",
        value=rounded(time.monotonic() - began),
        unit="s",
        conditions="`hypermesh cluster up` of 4 fresh nodes until each has executed block 1",
    )


def _latency(network: Network, purse: Purse) -> Iterator[Result]:
    for rate in RATES:
        report = _load(
            network.members, purse, rate=rate, seconds=LATENCY_SECONDS, warm_up_s=WARM_UP_S
        )
        conditions = (
            f"at {rate}/s, open loop from intended send, {LATENCY_SECONDS:g} s of which the first "
            f"{WARM_UP_S:g} s dropped, p99.9 {report.p999_ms:g} ms, max {report.max_ms:g} ms, "
            f"{_unapplied(report)} not applied; {CONDITIONS}"
        )
        for name, value in zip(LATENCY, (report.p50_ms, report.p99_ms), strict=True):
            yield Result(name=name, value=rounded(value), unit="ms", conditions=conditions)


def _faults(network: Network, purse: Purse) -> Iterator[Result]:
    gaps: list[float] = []
    caught_up: list[float] = []
    for _ in range(FAULT_RUNS + ATTEMPTS_MAX):
        with Pauses() as pauses:
            gap, seconds = _kill_primary(network, purse)
        if pauses.excessive:
            progress(f"  the machine paused for {pauses.longest_ms:.0f} ms: run left out")
            continue
        gaps.append(gap)
        caught_up.append(seconds)
        progress(f"  run {len(gaps)}: gap {gap:.0f} ms, caught up in {seconds:.2f} s")
        if len(gaps) == FAULT_RUNS:
            break
    load = f"{FAULT_RATE}/s open loop through the other three nodes"
    yield Result(
        name="primary_kill_gap_ms",
        value=rounded(statistics.median(gaps)),
        unit="ms",
        conditions=f"longest time without a receipt around SIGKILL of the primary, {load}; median "
        f"of {len(gaps)}, min {min(gaps):.0f}, max {max(gaps):.0f}; {CONDITIONS}",
    )
    yield Result(
        name="catch_up_s",
        value=rounded(statistics.median(caught_up)),
        unit="s",
        conditions="start of the killed process until it is ready and at the height of the others, "
        f"load going on: {load}; median of {len(gaps)}, max {max(caught_up):.2f}; {CONDITIONS}",
    )


def _kill_primary(network: Network, purse: Purse) -> tuple[float, float]:
    victim = network.primary()
    others = [member for member in network.members if member is not victim]
    plan = purse.plan(targets=others, rate=FAULT_RATE, seconds=30.0, lanes=12)
    with Load(plan) as load:
        load.go()
        height = network.height()
        network.wait_height(height + 20, others)
        view = others[0].view()
        killed = time.monotonic()
        victim.kill()
        until(lambda: others[0].view() > view, "view change", timeout_s=20)
        network.wait_height(network.height() + 20, others)
        resumed = time.monotonic()
        victim.start()
        until(
            lambda: victim.ready() and victim.height() >= others[0].height() - 1,
            f"{victim.name} caught up",
            timeout_s=60,
        )
        seconds = time.monotonic() - resumed
        load.stop()
        report = purse.book(load.report())
    return report.longest_silence(killed - 0.2, resumed) * 1000, seconds


def _saturated(network: Network, purse: Purse, wanted: frozenset[str]) -> Iterator[Result]:
    before = _cpu(network.members)
    executed = purse.executed
    report = _load(
        network.members,
        purse,
        mode="saturate",
        count=SATURATED_COUNT,
        seconds=SATURATED_SECONDS,
        in_flight=IN_FLIGHT,
        call_size=CALL_SIZE,
        lanes=32,
    )
    spent = _cpu(network.members) - before
    sent = purse.executed - executed
    conditions = (
        f"{IN_FLIGHT} transfers in flight in calls of {CALL_SIZE} over STOQ, "
        f"{report.finished - report.started:.1f} s, p50 {report.p50_ms:.0f} ms, p99 "
        f"{report.p99_ms:.0f} ms, {_unapplied(report)} not applied; {CONDITIONS}"
    )
    yield Result(
        name="tx_per_s_saturated",
        value=rounded(report.tx_per_s),
        unit="tx/s",
        conditions=conditions,
    )
    yield Result(
        name="cpu_s_per_1000_tx",
        value=rounded(spent / max(sent, 1) * 1000),
        unit="s",
        conditions=f"CPU of all four nodes per 1,000 transfers of the saturated run; {conditions}",
    )
    if wanted.isdisjoint(("rss_mb_per_node", "restart_s")):
        return
    while purse.executed < TRANSFERS_ON_DISK:
        missing = TRANSFERS_ON_DISK - purse.executed
        progress(f"  {missing} more transfers, for memory and restart")
        before_count = purse.executed
        _load(
            network.members,
            purse,
            mode="saturate",
            count=missing + CALL_SIZE,
            seconds=60.0,
            in_flight=IN_FLIGHT,
            call_size=CALL_SIZE,
            lanes=32,
        )
        if purse.executed == before_count:
            raise RuntimeError("no transfer is applied any more")
    rss = [member.usage().rss_mb for member in network.members]
    yield Result(
        name="rss_mb_per_node",
        value=rounded(max(rss)),
        unit="MB",
        conditions=f"largest of four after {purse.executed} transfers, smallest {min(rss):.0f}; "
        f"{CONDITIONS}",
    )
    yield _restart(network, purse)


def _restart(network: Network, purse: Purse) -> Result:
    stopped = [member.stop() for member in network.members]
    began = time.monotonic()
    network.up(timeout_s=120)
    took = time.monotonic() - began
    network.agreed_root()
    return Result(
        name="restart_s",
        value=rounded(took),
        unit="s",
        conditions=f"start of all four nodes at once until all are ready, {purse.executed} "
        f"transfers on disk, state root rebuilt and compared; a clean stop took at most "
        f"{max(stopped):.2f} s",
    )


def _conservation(network: Network, purse: Purse) -> Result:
    network.agreed_root()
    difference = abs(purse.received() - purse.units)
    return Result(
        name="conservation_error",
        value=max(network.conservation_error(), difference),
        unit="base units",
        conditions=f"largest of four nodes after {purse.executed} transfers, equal state roots; "
        "and the sink's balance against the transfers whose receipt a client has",
    )


def _load(targets: Sequence[Member], purse: Purse, **options: object) -> Report:
    """Run a load, again when the machine stood still meanwhile."""
    progress(f"  load: {', '.join(f'{key} {value}' for key, value in options.items())}")
    for _ in range(ATTEMPTS_MAX):
        plan = purse.plan(targets=targets, **options)  # type: ignore[arg-type]
        with Load(plan) as load, Pauses() as pauses:
            load.go()
            report = purse.book(load.report(timeout_s=300))
        if not pauses.excessive:
            break
        progress(f"  the machine paused for {pauses.longest_ms:.0f} ms: measuring again")
    return report


def _cpu(members: Sequence[Member]) -> float:
    return sum(member.usage().cpu_s for member in members)


def _unapplied(report: Report) -> int:
    return report.sent - report.applied


SUITE: Final = Suite(
    group="bft",
    names=("cluster_up_s", *LATENCY, *FAULTS, *SATURATED, "conservation_error"),
    run=run,
)
