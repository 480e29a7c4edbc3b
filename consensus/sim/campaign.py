"""Many cases on all cores; goes on where it stopped.

Every hundredth case is played twice, and both runs must leave the same trail.
"""

import json
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from consensus.errors import ConsensusError
from consensus.sim.cases import Case, Kind
from consensus.sim.checker import Violation
from consensus.sim.coverage import missing

SLICE_RUNS = 200  # between two writes of the state
TWICE_EVERY = 100
CPU_US = "microseconds of one core"

Failure = tuple[Case, str]


@dataclass(slots=True, kw_only=True)
class Progress:
    """How far the campaigns of one state file have come, and what they found."""

    path: Path | None = None
    failed: list[str] = field(default_factory=list)
    counters: dict[Kind, Counter[str]] = field(
        default_factory=lambda: {kind: Counter() for kind in Kind}
    )

    @classmethod
    def load(cls, path: Path | None) -> Self:
        """An absent file is a beginning."""
        progress = cls(path=path)
        if path is not None and path.exists():
            known = json.loads(path.read_text())
            progress.failed = known["failed"]
            for name, counted in known["counters"].items():
                progress.counters[Kind(name)].update(counted)
        return progress

    def save(self) -> None:
        if self.path is None:
            return
        self.path.parent.mkdir(parents=True, exist_ok=True)
        known = {
            "failed": self.failed,
            "counters": {kind.value: counted for kind, counted in self.counters.items()},
        }
        written = self.path.with_suffix(".new")
        written.write_text(json.dumps(known, indent=1))
        written.replace(self.path)


def campaign(kind: Kind, runs: int, progress: Progress, *, first: int = 0) -> None:
    """Cases `first` to `first + runs`, less what is done already; prints as it goes."""
    counters = progress.counters[kind]
    while counters["runs"] < runs:
        begin = first + counters["runs"]
        numbers = range(begin, min(begin + SLICE_RUNS, first + runs))
        failures = sweep([Case(kind=kind, number=number) for number in numbers], counters)
        progress.failed += [f"{case.command}: {text}" for case, text in failures]
        progress.save()
        print(
            f"{kind.value}: {counters['runs']} of {runs}, {len(progress.failed)} failures, "
            f"{events_per_second(counters):,} events per second and core",
            flush=True,
        )


def verdict(kind: Kind, counters: Counter[str]) -> list[str]:
    """Complaints about a whole campaign: faults that never occurred."""
    return [
        f"{kind.value}: the fault mix never produced: {name}" for name in missing(kind, counters)
    ]


def events_per_second(counters: Counter[str]) -> int:
    """What one core played, by its own processor time."""
    return counters["events"] * 1_000_000 // max(1, counters[CPU_US])


def sweep(cases: Sequence[Case], counters: Counter[str]) -> list[Failure]:
    """Play all cases; failures come back in order, counters are added up."""
    failures: list[Failure] = []
    context = multiprocessing.get_context("spawn")
    with context.Pool(min(os.cpu_count() or 1, len(cases))) as pool:
        for failure, counted in pool.imap(_play, cases, chunksize=8):
            counters.update(counted)
            if failure is not None:
                failures.append(failure)
    return failures


def _play(case: Case) -> tuple[Failure | None, Counter[str]]:
    counters: Counter[str] = Counter(runs=1)
    begin = time.process_time()
    try:
        result = case.play()
        if case.number % TWICE_EVERY == 0:
            counters["runs played twice"] += 1
            again = case.play()
            counters["events"] += again.events
            if again != result:
                return (case, f"two runs differ: {result.digest} and {again.digest}"), counters
    except (Violation, ConsensusError) as error:
        return (case, str(error)), counters
    counters.update(result.counters)
    counters["blocks"] += max(result.heights)
    counters["payloads acknowledged"] += result.payloads
    counters["events"] += result.events
    counters[CPU_US] += int((time.process_time() - begin) * 1_000_000)
    return None, counters
