"""Gives memory that a burst has left free to the system, in the first quiet moment after it.

The C library keeps what was freed, for the next burst: after one of 4,000 transfers in flight that
is 15 MB, in holes between what stays. Giving them back takes 1 to 2 ms, and using them again about
as much. So it is done when nothing waits and nothing was executed for a moment; and now and then
under load without end, where the largest burst would be kept for ever.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import trio

from node.limits import THRIFT_LOOK_S, THRIFT_PERIOD_LOOKS

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Thrift:
    """Looks at how far execution is. Lives on the loop."""

    def __init__(
        self,
        height: Callable[[], int],
        waiting: Callable[[], int],
        give_back: Callable[[], Awaitable[object]],
    ) -> None:
        """`height` is that of the newest block that was executed, `waiting` counts payloads."""
        self._height = height
        self._waiting = waiting
        self._give_back = give_back

    async def run(self) -> None:
        """Give back once after each burst, and every so many looks while one lasts."""
        seen = given = self._height()
        looks = 0
        while True:
            await trio.sleep(THRIFT_LOOK_S)
            before, seen = seen, self._height()
            if seen == given:
                continue
            looks += 1
            quiet = seen == before and not self._waiting()
            if quiet or looks == THRIFT_PERIOD_LOOKS:
                await self._give_back()
                given, looks = seen, 0
