"""Three figures of recovery, as JSON lines with their conditions: python -m chaos.figures

Kill of all nodes to the first new answer, the gap after the primary's death, and the way back of a
node that was down for half a minute under load. No limit is asserted here: figures need a quiet
machine, and the conditions stand beside them.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.load import Load, Purse
from bench.network import Member, Network, until
from bench.report import Result, machine, rounded
from chaos.client import read_history
from chaos.run import recording

NODES: Final = 4
ACCOUNTS: Final = 64
LANES: Final = 16
DOWN_S: Final = 30.0
BACK_TIMEOUT_S: Final = 60.0
TIP_BLOCKS: Final = 2  # what CometBFT's figure counts as back
KILL_RATE: Final = 200.0


def kill_all(network: Network, purse: Purse) -> Result:
    """SIGKILL of every node at once until a client gets the first answer to a new payload."""
    plan = purse.plan(targets=network.members, rate=KILL_RATE, seconds=8.0, lanes=LANES)
    with recording(plan, purse, network.members) as load:
        load.go()
        network.wait_height(network.height() + 20)
        killed = time.monotonic()
        for member in network.members:
            member.kill_soon()
        for member in network.members:
            member.kill()
        network.up(timeout_s=60)
        purse.book(load.report())
    acknowledged, _ = read_history(plan)
    first = min(one.answered for one in acknowledged if one.answered > killed + 0.5)
    return Result(
        name="kill_all_rto_s",
        value=rounded(first - killed),
        unit="s",
        conditions=f"SIGKILL of all {NODES} nodes, started again at once, to the first answer of "
        f"any node, at {KILL_RATE:g}/s; target below 10 s",
    )


def kill_primary(network: Network, purse: Purse) -> Result:
    """The longest time without any answer around the death of the primary."""
    victim = network.primary()
    others = [member for member in network.members if member is not victim]
    plan = purse.plan(targets=others, rate=KILL_RATE, seconds=8.0, lanes=LANES)
    with Load(plan) as load:
        load.go()
        network.wait_height(network.height() + 20, others)
        view = others[0].view()
        killed = time.monotonic()
        victim.kill()
        until(lambda: others[0].view() > view, "view change", timeout_s=30)
        network.wait_height(network.height() + 20, others)
        over = time.monotonic()
        victim.start()
        report = purse.book(load.report())
    network.wait_ready(timeout_s=60)
    return Result(
        name="primary_kill_gap_ms",
        value=rounded(report.longest_silence(killed - 0.2, over) * 1000),
        unit="ms",
        conditions=f"longest time without an answer of the other nodes, {KILL_RATE:g}/s",
    )


def back_at_tip(network: Network, purse: Purse, rate: float, trace: bool) -> Result:
    """Start of a node that was down until it is within two blocks of the others, load going on."""
    victim = network.backups()[-1]
    others = [member for member in network.members if member is not victim]
    plan = purse.plan(targets=others, rate=rate, seconds=DOWN_S + BACK_TIMEOUT_S, lanes=2 * LANES)
    with Load(plan) as load:
        load.go()
        victim.kill()
        time.sleep(DOWN_S)
        missed = others[0].height()
        started = time.monotonic()
        victim.start()
        until(
            lambda: _at_tip(victim, others[0], started, trace),
            f"{victim.name} at the tip",
            timeout_s=BACK_TIMEOUT_S,
        )
        took = time.monotonic() - started
        load.stop()
        report = purse.book(load.report())
    return Result(
        name="back_at_tip_s",
        value=rounded(took),
        unit="s",
        conditions=f"start of a node that was down for {DOWN_S:g} s under {rate:g}/s (answered: "
        f"{report.tx_per_s:g}/s) until it is ready and within {TIP_BLOCKS} blocks of block {missed}"
        " and what followed; floor 5 s",
    )


def _at_tip(victim: Member, other: Member, started: float, trace: bool) -> bool:
    here, there = victim.height(), other.height()
    if trace:
        print(f"{time.monotonic() - started:6.2f} s: {here} of {there}", file=sys.stderr)
        time.sleep(0.25)
    return here >= there - TIP_BLOCKS and victim.ready()


def measure(rate: float, rounds: int, trace: bool) -> Iterator[Result]:
    """Measure on one fresh cluster, links direct."""
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-chaos-"))
    network = Network.create(folder, nodes=NODES, name="figures")
    try:
        network.up()
        purse = Purse.fill(network, accounts=ACCOUNTS)
        yield kill_all(network, purse)
        yield kill_primary(network, purse)
        for _ in range(rounds):
            yield back_at_tip(network, purse, rate, trace)
    finally:
        network.destroy()
        shutil.rmtree(folder, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.figures", description="recovery")
    parser.add_argument("--rate", type=float, default=1000.0)
    parser.add_argument("--rounds", type=int, default=1, help="of a node coming back")
    parser.add_argument("--trace", action="store_true", help="show heights on the way back")
    arguments = parser.parse_args()
    print(json.dumps({"machine": machine()}), flush=True)
    for result in measure(arguments.rate, arguments.rounds, arguments.trace):
        print(
            json.dumps(
                {
                    "name": result.name,
                    "value": result.value,
                    "unit": result.unit,
                    "conditions": result.conditions,
                }
            ),
            flush=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
