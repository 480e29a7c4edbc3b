"""The machine under one simulated node: its one processor, its clock, and how its disk behaves.

Work that arrives while the processor is busy or stopped waits in a queue, in order. Costs are in
virtual time; they are zero in runs that do not draw any.
"""

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

from consensus.core.types import Instant
from consensus.sim.world import World

QUEUED_MESSAGES_MAX = 500  # what buffers hold for a process that does not read
MILLION = 1_000_000


@dataclass(slots=True, kw_only=True)
class Costs:
    """Microseconds of one processor."""

    sign_us: int = 0
    verify_us: int = 0  # one signature
    frame_us: int = 0  # parse one message
    execute_us: int = 0  # one block


class Processor:
    """Runs actions one after the other, each taking its cost."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.costs = Costs()
        self.free_us = 0
        self._waiting: deque[tuple[int, Callable[[], None]]] = deque()
        self._armed = False

    def run(self, action: Callable[[], None], cost_us: int = 0) -> None:
        """At once when idle, else in its turn."""
        now_us = self.world.now_us
        if self._waiting or self.free_us > now_us:
            self._waiting.append((cost_us, action))
            self._arm()
            return
        if cost_us:
            self.free_us = now_us + cost_us
        action()

    def spend(self, cost_us: int) -> None:
        """What runs now takes this much longer than was said."""
        self.free_us = max(self.free_us, self.world.now_us) + cost_us

    def pause(self, for_us: int) -> None:
        """SIGSTOP, or a collector of garbage that stops the world."""
        self.free_us = max(self.free_us, self.world.now_us + for_us)

    def resume(self) -> None:
        """SIGCONT: what has waited runs in order."""
        self.free_us = min(self.free_us, self.world.now_us)
        self._armed = False
        self._arm()

    def clear(self) -> None:
        """The process is gone, and what waited for it."""
        self._waiting.clear()
        self.free_us = 0

    @property
    def idle(self) -> bool:
        return not self._waiting and self.free_us <= self.world.now_us

    @property
    def full(self) -> bool:
        return len(self._waiting) >= QUEUED_MESSAGES_MAX

    def _arm(self) -> None:
        if not self._armed:
            self._armed = True
            self.world.at(self.free_us, self._drain)

    def _drain(self) -> None:
        self._armed = False
        now_us = self.world.now_us
        while self._waiting and self.free_us <= now_us:
            cost_us, action = self._waiting.popleft()
            if cost_us:
                self.free_us = now_us + cost_us
            action()
        if self._waiting:
            self._arm()


class Clock:
    """What one node believes the time is."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.skew_ms = 0  # of the wall clock
        self.frozen_ms: int | None = None  # the wall clock stands here
        self.drift_ppm = 0  # of both clocks
        self._base_us = 0  # true time since which it drifts
        self._base_monotonic_us = 0

    def now(self) -> Instant:
        now_us = self.world.now_us
        if self.drift_ppm or self._base_us:
            now_us = self._monotonic_us()
        unix_ms = self.frozen_ms
        if unix_ms is None:
            unix_ms = now_us // 1_000 + self.skew_ms
        return Instant(monotonic_us=now_us, unix_ms=max(0, unix_ms))

    def drift(self, ppm: int) -> None:
        """Run faster or slower from now on; what the clock shows does not jump."""
        self._base_monotonic_us = self._monotonic_us()
        self._base_us = self.world.now_us
        self.drift_ppm = ppm

    def freeze(self) -> None:
        self.frozen_ms = self.now().unix_ms

    def repair(self, skew_ms: int) -> None:
        """A time service set it right; the monotonic clock keeps what it has gained or lost."""
        self.drift(0)
        self.frozen_ms = None
        self.skew_ms = skew_ms + (self._base_us - self._base_monotonic_us) // 1_000

    def true_us(self, monotonic_us: int) -> int:
        """When this clock will show that, if nobody touches it."""
        ahead = monotonic_us - self._base_monotonic_us
        return self._base_us + -(-ahead * MILLION // (MILLION + self.drift_ppm))

    def _monotonic_us(self) -> int:
        passed = self.world.now_us - self._base_us
        return self._base_monotonic_us + passed + passed * self.drift_ppm // MILLION


@dataclass(slots=True, kw_only=True)
class DiskFaults:
    """How the disk misbehaves at present."""

    sync_error_rate: float = 0.0  # of commits whose fsync fails: the process ends
    full: bool = False  # every commit fails, nothing is written
    stall_rate: float = 0.0  # of commits that take `stall_us`
    stall_us: int = 30_000
