"""A slice of every campaign of the simulator. A failing case prints the command that replays it.

Sized so that all slices together take about three minutes on two idle cores.
"""

from collections import Counter
from pathlib import Path

import pytest

from consensus.sim.campaign import Progress, campaign, events_per_second, sweep, verdict
from consensus.sim.cases import Case, Kind
from consensus.sim.coverage import RUNS_MIN, SOMETIMES

SWARM_SEEDS = 600
DISK_SEEDS = 200
TWINS_SCENARIOS = 1_500
CRASH_POINTS = 500
MEMBERS_SEEDS = 100
EVENTS_PER_SECOND_MIN = 10_000  # of one core


def _regressions() -> list[str]:
    text = (Path(__file__).parent / "regression_seeds.txt").read_text()
    return [line for line in text.splitlines() if not line.startswith("#")]


@pytest.mark.timeout(3_000)
@pytest.mark.parametrize(
    ("kind", "runs"),
    [
        (Kind.SWARM, SWARM_SEEDS),
        (Kind.DISK, DISK_SEEDS),
        (Kind.TWINS, TWINS_SCENARIOS),
        (Kind.CRASH, CRASH_POINTS),
        (Kind.MEMBERS, MEMBERS_SEEDS),
    ],
    ids=lambda value: value.value if isinstance(value, Kind) else str(value),
)
def test_no_property_fails_in_many_runs_and_every_fault_occurs(
    kind: Kind, runs: int, capsys: pytest.CaptureFixture[str]
) -> None:
    counters: Counter[str] = Counter()
    failures = sweep([Case(kind=kind, number=number) for number in range(runs)], counters)
    speed = events_per_second(counters)
    with capsys.disabled():
        print(f"\n{kind.value}: {runs} runs, {counters['events']:,} events, {speed:,} per second")
    assert not failures, "\n".join(f"{case.command}: {text}" for case, text in failures)
    assert counters["runs"] == runs >= RUNS_MIN[kind]
    assert counters["runs played twice"] >= max(1, runs // 100)
    assert not verdict(kind, counters)
    assert speed >= EVENTS_PER_SECOND_MIN


@pytest.mark.parametrize("line", _regressions(), ids=lambda line: " ".join(line.split()[:3]))
def test_what_was_found_once_is_not_found_again(line: str) -> None:
    kind, number, members, why = line.split(maxsplit=3)
    size = None if members == "-" else int(members)
    assert why
    assert Case(kind=Kind(kind), number=int(number), members=size).play().events > 0


@pytest.mark.parametrize("kind", list(Kind))
def test_a_campaign_without_a_fault_is_no_campaign(kind: Kind) -> None:
    counters = Counter(dict.fromkeys(SOMETIMES[kind], 1))
    counters["runs"] = RUNS_MIN[kind]
    assert verdict(kind, counters) == []
    absent = SOMETIMES[kind][-1]
    del counters[absent]
    assert verdict(kind, counters) == [f"{kind.value}: the fault mix never produced: {absent}"]


def test_a_campaign_goes_on_where_it_stopped(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    campaign(Kind.TWINS, 6, Progress.load(path))
    progress = Progress.load(path)
    assert progress.counters[Kind.TWINS]["runs"] == 6
    campaign(Kind.TWINS, 10, progress)
    whole: Counter[str] = Counter()
    sweep([Case(kind=Kind.TWINS, number=number) for number in range(10)], whole)
    found = Progress.load(path).counters[Kind.TWINS]
    assert found["runs"] == 10
    assert found["events"] == whole["events"]
