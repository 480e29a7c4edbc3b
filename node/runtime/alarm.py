"""One timer that can be moved at any moment: what wakes the driver."""

from __future__ import annotations

import math
from collections.abc import Callable

import trio


class Alarm:
    """Rings once at the time last set. Lives on the loop; setting it costs no task switch."""

    def __init__(self, ring: Callable[[], None], now_us: Callable[[], int]) -> None:
        """`now_us` is the clock that `set` speaks of; only differences of it are used."""
        self._ring = ring
        self._now_us = now_us
        self._at_us: int | None = None
        self._scope = trio.CancelScope()

    def set(self, at_us: int | None) -> None:
        """Ring at `at_us` instead of any earlier setting; never for None."""
        if at_us != self._at_us:
            self._at_us = at_us
            self._scope.deadline = self._deadline()

    async def run(self) -> None:
        """Ring until cancelled."""
        while True:
            with trio.CancelScope(deadline=self._deadline()) as self._scope:
                await trio.sleep_forever()
            self._at_us = None
            self._ring()

    def _deadline(self) -> float:
        if self._at_us is None:
            return math.inf
        return trio.current_time() + (self._at_us - self._now_us()) / 1_000_000
