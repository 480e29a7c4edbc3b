"""When calls are late, on either side. A cancel scope for each would be a third of what a call
costs; here the usual one, which is answered in time, costs two operations on a dictionary.
"""

from math import inf
from typing import Final, Protocol

import trio


class Expiring(Protocol):
    """What can be late."""

    def expire(self) -> None:
        """The time has come."""


class Deadlines:
    """Of one endpoint: what expires when, by trio's clock."""

    def __init__(self) -> None:
        self._waiting: Final[dict[Expiring, float]] = {}
        self._next_s = inf  # not after the soonest
        self._sooner = trio.Event()

    def add(self, what: Expiring, at_s: float) -> None:
        """Have this expire then, unless it is discarded before."""
        self._waiting[what] = at_s
        if at_s < self._next_s:
            self._next_s = at_s
            self._sooner.set()

    def discard(self, what: Expiring) -> None:
        """It was in time."""
        self._waiting.pop(what, None)

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            now_s = trio.current_time()
            for what in [what for what, at_s in self._waiting.items() if at_s <= now_s]:
                del self._waiting[what]
                what.expire()
            self._next_s = min(self._waiting.values(), default=inf)
            self._sooner = trio.Event()
            with trio.move_on_at(self._next_s):
                await self._sooner.wait()
