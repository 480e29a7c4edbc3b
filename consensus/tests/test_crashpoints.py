"""The numbering of crash points: every boundary, both ways, then a second crash."""

from consensus.sim import crashpoints
from consensus.sim.crashpoints import STORIES, boundaries_of


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
