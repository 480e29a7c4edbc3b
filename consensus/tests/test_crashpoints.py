"""The numbering of crash points: every boundary, both ways, then a second crash."""

from dataclasses import replace

import pytest

from consensus.core.records import Accepted, LastNumber, OwnVotes, Prepared
from consensus.core.tick import Tick
from consensus.sim import crashpoints
from consensus.sim.checker import Violation
from consensus.sim.crashpoints import STORIES, boundaries_of
from consensus.sim.disk import Body, Disk
from native.values import Digest


def test_a_story_passes_its_boundaries_the_same_way_every_time() -> None:
    for story in STORIES[:3]:
        first = boundaries_of(story)
        boundaries_of.cache_clear()
        assert boundaries_of(story) == first > 30


def test_numbers_visit_every_boundary_of_a_story_both_ways() -> None:
    story = STORIES.index(next(story for story in STORIES if story.name == "one node"))
    points = 2 * boundaries_of(STORIES[story])
    seen: set[str] = set()
    for place in range(points):
        trace: list[str] = []
        crashpoints.play(place * len(STORIES) + story, trace=trace)
        seen.add(trace[0].split(": ")[1])
    assert len(seen) == points


def test_after_all_single_crashes_a_node_crashes_twice() -> None:
    story = STORIES.index(next(story for story in STORIES if story.name == "quiet"))
    points = 2 * boundaries_of(STORIES[story])
    result = crashpoints.play((points + 5) * len(STORIES) + story)
    assert result.counters["second crashes"] == 1
    assert result.counters["crashes"] == 2


@pytest.mark.parametrize(
    "forgotten", [LastNumber, Accepted, OwnVotes, Prepared], ids=lambda kind: kind.__name__
)
def test_a_record_that_is_not_written_is_found(
    forgotten: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashpoints.single_points()  # counted and kept while the disk is a good one
    write = Disk.write_tick

    def careless(disk: Disk, tick: Tick, bodies: dict[Digest, Body]) -> None:
        kept = tuple(record for record in tick.records if not isinstance(record, forgotten))
        write(disk, replace(tick, records=kept), bodies)

    monkeypatch.setattr(Disk, "write_tick", careless)
    assert any(_contradicts(number) for number in range(2_000))


def _contradicts(number: int) -> bool:
    try:
        crashpoints.play(number)
    except Violation:
        return True
    return False
