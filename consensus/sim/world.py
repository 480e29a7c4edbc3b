"""Virtual time and a network that loses, delays, repeats and cuts."""

import heapq
import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(slots=True, kw_only=True)
class Weather:
    """How bad the network is; drawn anew for every seed, fair after healing."""

    drop: float = 0.0
    repeat: float = 0.0
    delay_us_min: int = 200
    delay_us_mean: int = 500
    slow: float = 0.0  # share of messages delayed by a further 50 to 400 ms


FAIR = Weather()


class World:
    """The event queue, the one source of randomness, and the links."""

    def __init__(self, seed: int, members: int) -> None:
        self.random = random.Random(seed)
        self.members = members
        self.now_us = 1_000_000
        self.weather = Weather()
        self.cut: set[tuple[int, int]] = set()  # directed links that are down
        self.counters: Counter[str] = Counter()
        self.trace: list[str] | None = None
        self.events = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0

    def at(self, when_us: int, action: Callable[[], None]) -> None:
        self._order += 1
        heapq.heappush(self._queue, (max(when_us, self.now_us), self._order, action))

    def after(self, delay_us: int, action: Callable[[], None]) -> None:
        self.at(self.now_us + delay_us, action)

    def run_until(self, end_us: int, stop: Callable[[], bool] | None = None) -> bool:
        """Play events up to `end_us`; True when `stop` said so first."""
        checked = 0
        while self._queue and self._queue[0][0] <= end_us:
            when, _, action = heapq.heappop(self._queue)
            self.now_us = when
            self.events += 1
            action()
            checked += 1
            if stop is not None and checked % 64 == 0 and stop():
                return True
        self.now_us = max(self.now_us, end_us)
        return stop is not None and stop()

    def deliver(self, source: int, target: int, action: Callable[[], None]) -> None:
        """Carry one message, or not."""
        weather = self.weather
        chance = self.random.random
        if (source, target) in self.cut:
            self.counters["messages cut"] += 1
            return
        if weather.drop and chance() < weather.drop:
            self.counters["messages dropped"] += 1
            return
        self.after(self._delay(), action)
        if weather.repeat and chance() < weather.repeat:
            self.counters["messages repeated"] += 1
            self.after(self._delay(), action)

    def _delay(self) -> int:
        weather = self.weather
        delay = weather.delay_us_min + int(
            self.random.random() * 2 * (weather.delay_us_mean - weather.delay_us_min)
        )
        if weather.slow and self.random.random() < weather.slow:
            self.counters["messages delayed"] += 1
            delay += self.random.randrange(50_000, 400_000)
        return delay

    def log(self, text: str) -> None:
        if self.trace is not None:
            self.trace.append(f"{self.now_us / 1e6:10.6f} {text}")
