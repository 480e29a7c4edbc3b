"""Known bugs are found when they are planted, and nothing is found when they are not."""

from inspect import getattr_static
from pathlib import Path

import pytest

from consensus.sim import kill_list
from consensus.sim.checker import Violation, property_of
from consensus.sim.kill_list import alarms, hunt, line, missing, table, write
from consensus.sim.planted import BUGS, Bug, planted
from consensus.sim.scenes import killed_primary

SLOW = {"11", "13", "19", "22", "22b", "24", "29", "35", "40"}
"""Minutes of virtual time pass before anything can be wrong: only in `make kill-list`."""
SLOW_SCENES = {"long_outage", "scattered_views", "frozen_primary", "slow_links_after_an_outage"}
QUICK = [bug for bug in BUGS if bug.label not in SLOW]


@pytest.mark.parametrize("bug", QUICK, ids=lambda bug: f"{bug.label}: {bug.name}")
def test_a_planted_bug_is_found(bug: Bug) -> None:
    find = hunt(bug, seeds_max=40, seconds_max=30)
    assert find.caught_by is not None, f"{bug.label} {bug.name} survived {find.seeds} seeds"


@pytest.mark.parametrize("name", sorted(kill_list.scenes()))
def test_a_scene_finds_nothing_in_the_shipped_code(name: str) -> None:
    assert not alarms(kill_list.scenes()[name], 1 if name in SLOW_SCENES else 3)


@pytest.mark.parametrize("seed", range(6))
def test_after_a_killed_primary_there_is_one_gap_of_a_timeout(seed: int) -> None:
    killed_primary(seed)


def test_nothing_of_a_planted_bug_remains() -> None:
    for bug in BUGS:
        touched: list[tuple[object, str, object]] = []
        bug.plant(lambda owner, name, _value, into=touched: into.append((owner, name, None)))  # type: ignore[misc]
        before = [getattr_static(owner, name) for owner, name, _ in touched]
        with planted(bug):
            during = [getattr_static(owner, name) for owner, name, _ in touched]
        after = [getattr_static(owner, name) for owner, name, _ in touched]
        assert touched, f"{bug.label} plants nothing"
        assert before == after
        assert before != during


def test_labels_are_unique_and_a_number_nobody_planted_is_missing_and_never_passed() -> None:
    labels = [bug.label for bug in BUGS]
    assert len(labels) == len(set(labels))
    numbers = {bug.number for bug in BUGS}
    assert numbers <= set(range(1, kill_list.KNOWN_BUGS + 1))
    assert set(missing()) == set(range(1, kill_list.KNOWN_BUGS + 1)) - numbers


def test_a_bug_that_is_not_found_is_said_to_be_so() -> None:
    harmless = Bug(
        number=1, name="no bug at all", plant=lambda _put: None, scenes=(lambda _seed: None,)
    )
    find = hunt(harmless, seeds_max=5)
    assert (find.caught_by, find.seeds) == (None, 5)
    assert "NOT FOUND" in line(find)
    assert "**not found**" in table([find])


def test_a_false_alarm_is_reported_with_its_seed() -> None:
    def nervous(seed: int) -> None:
        if seed == 2:
            raise Violation("agreement: none")

    assert alarms(nervous, 4) == ["nervous seed 2: Violation: agreement: none"]


def test_the_table_goes_between_the_marks_of_the_page(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{kill_list.BEGIN}\nold\n{kill_list.END}\nafter\n")
    write(page, "new")
    assert page.read_text() == f"before\n{kill_list.BEGIN}\nnew\n{kill_list.END}\nafter\n"


def test_a_failure_is_named_by_the_property_it_violates() -> None:
    assert property_of(Violation("agreement: node 1 executed another batch at 2")).startswith("S1")
    assert property_of(Violation("liveness: not converged")).startswith("L1")
    assert property_of(IndexError("boom")) == "no message stops a node (IndexError)"
