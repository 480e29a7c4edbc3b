"""Measures of many values that a metric can show: their spread, and how long things took."""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from statistics import median
from typing import Final


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Smallest, middle and largest; zeros of nothing."""

    minimum: float = 0.0
    median: float = 0.0
    maximum: float = 0.0

    @classmethod
    def of(cls, values: Sequence[float]) -> "Spread":
        """Of these values."""
        if not values:
            return cls()
        return cls(minimum=min(values), median=median(values), maximum=max(values))


@dataclass(frozen=True, slots=True, kw_only=True)
class Durations:
    """How many took at most so long, cumulated, and all of them together."""

    buckets: tuple[tuple[float, int], ...]  # upper bound in seconds, count up to it
    count: int
    total_s: float


class DurationCounter:
    """Sorts durations into buckets."""

    __slots__ = ("_bounds_s", "_counts", "_total_s")

    def __init__(self, bounds_s: Sequence[float]) -> None:
        self._bounds_s: Final = tuple(bounds_s)
        self._counts = [0] * (len(bounds_s) + 1)
        self._total_s = 0.0

    def observe(self, seconds: float) -> None:
        """One more."""
        self._counts[bisect_left(self._bounds_s, seconds)] += 1
        self._total_s += seconds

    def read(self) -> Durations:
        """What was observed until now."""
        buckets: list[tuple[float, int]] = []
        count = 0
        for bound_s, number in zip(self._bounds_s, self._counts, strict=False):
            count += number
            buckets.append((bound_s, count))
        return Durations(
            buckets=tuple(buckets), count=count + self._counts[-1], total_s=self._total_s
        )


def kernel_drops(table: str, address: str, inodes: frozenset[int], *, byteorder: str) -> int:
    """Datagrams dropped at the socket bound to `[address]:port`, from the text of
    `/proc/net/udp6`; only sockets with one of our inodes count."""
    host, _, port = address.rpartition(":")
    packed = IPv6Address(host.strip("[]").partition("%")[0]).packed
    words = [packed[start : start + 4] for start in range(0, 16, 4)]
    if byteorder == "little":
        words = [word[::-1] for word in words]
    local = f"{b''.join(words).hex().upper()}:{int(port):04X}"
    drops = 0
    for line in table.splitlines()[1:]:
        columns = line.split()
        if len(columns) >= 13 and columns[1] == local and int(columns[9]) in inodes:
            drops += int(columns[12])
    return drops
