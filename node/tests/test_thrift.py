"""Memory is given back after a burst and rarely while it lasts."""

import trio
from trio.testing import MockClock

from node.limits import THRIFT_LOOK_S, THRIFT_PERIOD_LOOKS
from node.runtime.thrift import Thrift


async def given_back(heights: list[int], clock: MockClock, waiting: int = 0) -> list[int]:
    """At which looks memory is given back, when each finds the next of these heights."""
    looks = iter(heights)
    at = 0
    given: list[int] = []

    def height() -> int:
        nonlocal at
        at += 1
        return next(looks)

    async def give_back() -> None:
        given.append(at)

    clock.autojump_threshold = 0
    with trio.move_on_after(THRIFT_LOOK_S * (len(heights) - 0.5)):
        await Thrift(height, lambda: waiting, give_back).run()
    return given


async def test_an_idle_node_gives_nothing_back(mock_clock: MockClock) -> None:
    assert await given_back([7] * 100, mock_clock) == []


async def test_a_burst_is_given_back_once_in_the_first_quiet_moment(mock_clock: MockClock) -> None:
    heights = [7, 8, 9, 10, *[10] * 50, 11, *[11] * 50]
    assert await given_back(heights, mock_clock) == [5, 56]


async def test_load_without_end_is_given_back_now_and_then(mock_clock: MockClock) -> None:
    given = await given_back(list(range(4 * THRIFT_PERIOD_LOOKS)), mock_clock)
    assert given == [1 + THRIFT_PERIOD_LOOKS * turn for turn in (1, 2, 3)]


async def test_a_pause_between_blocks_is_not_quiet_while_payloads_wait(
    mock_clock: MockClock,
) -> None:
    heights = [at // 4 for at in range(2 * THRIFT_PERIOD_LOOKS)]
    assert len(await given_back(heights, mock_clock)) > 2
    assert len(await given_back(heights, mock_clock, waiting=1)) == 1
