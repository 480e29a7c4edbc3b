"""Many seeds on all cores."""

import multiprocessing
import os
from collections import Counter
from collections.abc import Sequence

from consensus.sim.checker import Violation
from consensus.sim.run import simulate

Case = tuple[int, int]  # seed, members
Failure = tuple[int, int, str]


def sweep(cases: Sequence[Case], counters: Counter[str]) -> list[Failure]:
    """Play all cases; failures come back in order, counters are added up."""
    failures: list[Failure] = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(os.cpu_count() or 1, len(cases))) as pool:
        for failure, counted in pool.imap(_play, cases, chunksize=4):
            counters.update(counted)
            if failure is not None:
                failures.append(failure)
    return failures


def _play(case: Case) -> tuple[Failure | None, Counter[str]]:
    seed, members = case
    try:
        result = simulate(seed, members)
    except Violation as violation:
        return (seed, members, str(violation)), Counter()
    counters = Counter(result.counters)
    counters["runs"] += 1
    counters["blocks"] += max(result.heights)
    counters["payloads acknowledged"] += result.payloads
    counters["events"] += result.events
    return None, counters
