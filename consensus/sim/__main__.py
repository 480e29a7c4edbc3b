"""Replay a case, or play campaigns: `python -m consensus.sim --seed 7 --n 4 --trace`."""

import argparse
import sys
from pathlib import Path

from consensus.sim.campaign import Progress, campaign, verdict
from consensus.sim.cases import Case, Kind
from consensus.sim.checker import Violation


def main() -> int:
    """Exit code 1 when a property does not hold, or a campaign met too few faults."""
    parser = argparse.ArgumentParser(prog="python -m consensus.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this case only")
    parser.add_argument("--kind", choices=[kind.value for kind in Kind], default=Kind.SWARM.value)
    parser.add_argument("--n", type=int, help="validators, with --seed; the seed decides if absent")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    for kind in Kind:
        parser.add_argument(f"--{kind.value}", type=int, default=0, help="how many cases to play")
    parser.add_argument("--first", type=int, default=0, help="number of the first case")
    parser.add_argument("--state", type=Path, help="file to go on from; delete it to begin anew")
    arguments = parser.parse_args()
    if arguments.seed is not None:
        case = Case(kind=Kind(arguments.kind), number=arguments.seed, members=arguments.n)
        return replay(case, show=arguments.trace)
    progress = Progress.load(arguments.state)
    complaints: list[str] = []
    for kind in Kind:
        runs = getattr(arguments, kind.value)
        if runs:
            campaign(kind, runs, progress, first=arguments.first)
            complaints += verdict(kind, progress.counters[kind])
    for kind, counters in progress.counters.items():
        for name, count in sorted(counters.items()):
            print(f"{count:12}  {kind.value}: {name}")
    for line in progress.failed:
        print(f"FAILED: {line}")
    print("\n".join(complaints))
    total = sum(counters["runs"] for counters in progress.counters.values())
    failed = len(progress.failed)
    print(f"{total} runs, {failed} failures, {len(complaints)} faults that never occurred")
    return 1 if failed or complaints else 0


def replay(case: Case, *, show: bool) -> int:
    trace: list[str] | None = [] if show else None
    try:
        result = case.play(trace)
    except Violation as violation:
        print("\n".join(trace or ()))
        print(f"{case.kind.value} {case.number}: {violation}")
        return 1
    print("\n".join(trace or ()))
    print(
        f"{case.kind.value} {case.number}, n = {result.members}: heights {result.heights}, "
        f"views {result.views}, {result.payloads} payloads, {result.events} events, "
        f"{result.digest[:16]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
