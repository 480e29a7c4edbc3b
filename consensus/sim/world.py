"""Virtual time and a network that loses, delays, repeats, clogs and cuts.

An event is what the queue gives back: a message, a timer, a disk that is done, a fault that begins
or ends. The links know nothing of connections; `node` does.
"""

import hashlib
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
    link_us: int = 0  # what one message takes of a link's time: a cap on bandwidth


FAIR = Weather()
REGIONS_US = (  # one way between seven regions of a large cloud, about half the published RTT
    (400, 32_000, 35_000, 46_000, 95_000, 75_000, 57_000),
    (32_000, 400, 65_000, 75_000, 110_000, 50_000, 87_000),
    (35_000, 65_000, 400, 12_000, 62_000, 105_000, 90_000),
    (46_000, 75_000, 12_000, 400, 57_000, 115_000, 102_000),
    (95_000, 110_000, 62_000, 57_000, 400, 62_000, 150_000),
    (75_000, 50_000, 105_000, 115_000, 62_000, 400, 130_000),
    (57_000, 87_000, 90_000, 102_000, 150_000, 130_000, 400),
)


class World:
    """The event queue, the one source of randomness, and the links."""

    def __init__(self, seed: int, members: int) -> None:
        self.random = random.Random(seed)
        self.members = members
        self.now_us = 1_000_000
        self.weather = Weather()
        self.cut: set[tuple[int, int]] = set()  # directed links that are down
        self.clogged: dict[tuple[int, int], int] = {}  # links that hold everything until then
        self.regions: tuple[int, ...] = ()  # where each member is; empty: all in one place
        self.link_free: dict[tuple[int, int], int] = {}
        self.counters: Counter[str] = Counter()
        self.trace: list[str] | None = None
        self.events = 0
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._order = 0
        self.trail = hashlib.sha256()  # of everything logged: equal for equal runs

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

    def deliver(self, source: int, target: int, action: Callable[[], None]) -> bool:
        """Carry one message, or not. False if its queue was full, which its sender knows.

        What is cut off on the way was queued.
        """
        weather = self.weather
        chance = self.random.random
        link = (source, target)
        if link in self.cut:
            self.counters["messages cut"] += 1
            return True
        if weather.drop and chance() < weather.drop:
            self.counters["messages dropped"] += 1
            return False
        self.at(self._arrival(link), action)
        if weather.repeat and chance() < weather.repeat:
            self.counters["messages repeated"] += 1
            self.at(self._arrival(link), action)
        return True

    def _arrival(self, link: tuple[int, int]) -> int:
        """When a message that leaves now gets there; later ones may overtake it."""
        weather = self.weather
        leaves = self.now_us
        if link in self.clogged:
            if self.clogged[link] > leaves:
                leaves = self.clogged[link]
                self.counters["messages held in a clogged link"] += 1
            else:
                del self.clogged[link]
        if weather.link_us:
            leaves = max(leaves, self.link_free.get(link, 0)) + weather.link_us
            self.link_free[link] = leaves
        delay = weather.delay_us_min + int(
            self.random.random() * 2 * (weather.delay_us_mean - weather.delay_us_min)
        )
        if self.regions:
            source, target = link
            delay += REGIONS_US[self.regions[source]][self.regions[target]]
        if weather.slow and self.random.random() < weather.slow:
            self.counters["messages delayed"] += 1
            delay += self.random.randrange(50_000, 400_000)
        return leaves + delay

    def log(self, text: str) -> None:
        self.trail.update(b"%d %s\n" % (self.now_us, text.encode()))
        if self.trace is not None:
            self.trace.append(f"{self.now_us / 1e6:10.6f} {text}")
