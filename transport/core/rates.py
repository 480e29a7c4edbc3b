"""How often something may happen: a bucket that fills with time."""

from typing import Final


class Bucket:
    """So many a second, and so many at once. The owner says what time it is."""

    __slots__ = ("_level", "_then_s", "at_once_max", "per_s_max")

    def __init__(self, *, per_s_max: float, at_once_max: float) -> None:
        self.per_s_max: Final = per_s_max
        self.at_once_max: Final = at_once_max
        self._level = at_once_max
        self._then_s: float | None = None

    def take(self, now_s: float) -> bool:
        """Whether one more is within the rate; it counts if so."""
        if self.wait_s(now_s) > 0.0:
            return False
        self._level -= 1.0
        return True

    def wait_s(self, now_s: float) -> float:
        """How long until one more is within the rate."""
        if self._then_s is not None and now_s > self._then_s:
            filled = self._level + (now_s - self._then_s) * self.per_s_max
            self._level = min(self.at_once_max, filled)
        self._then_s = now_s
        return max(0.0, (1.0 - self._level) / self.per_s_max)
