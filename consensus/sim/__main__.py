"""Replay or sweep: `python -m consensus.sim --seed 7 --n 4 --trace`, `--seeds 500`."""

import argparse
import sys
from collections import Counter

from consensus.sim.campaign import sweep
from consensus.sim.checker import Violation
from consensus.sim.run import SIZES, simulate


def main() -> int:
    """Exit code 1 when a property does not hold."""
    parser = argparse.ArgumentParser(prog="python -m consensus.sim", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this seed only")
    parser.add_argument("--n", type=int, default=4, help="validators, with --seed")
    parser.add_argument("--trace", action="store_true", help="print what happened")
    parser.add_argument("--seeds", type=int, default=100, help="how many seeds for each size")
    parser.add_argument("--first", type=int, default=0, help="first seed of a sweep")
    parser.add_argument("--sizes", type=int, nargs="*", default=list(SIZES))
    arguments = parser.parse_args()
    if arguments.seed is not None:
        return replay(arguments.seed, arguments.n, show=arguments.trace)
    cases = [
        (seed, members)
        for seed in range(arguments.first, arguments.first + arguments.seeds)
        for members in arguments.sizes
    ]
    counters: Counter[str] = Counter()
    failures = sweep(cases, counters)
    for name, count in sorted(counters.items()):
        print(f"{count:9}  {name}")
    for seed, members, text in failures:
        print(f"FAILED: python -m consensus.sim --seed {seed} --n {members}: {text}")
    print(f"{len(cases)} runs, {len(failures)} failures")
    return 1 if failures else 0


def replay(seed: int, members: int, *, show: bool) -> int:
    trace: list[str] | None = [] if show else None
    try:
        result = simulate(seed, members, trace=trace)
    except Violation as violation:
        print("\n".join(trace or ()))
        print(f"seed {seed}, n = {members}: {violation}")
        return 1
    print("\n".join(trace or ()))
    print(
        f"seed {seed}, n = {members}: heights {result.heights}, views {result.views}, "
        f"{result.payloads} payloads, {result.events} events, {result.digest[:16]}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
