"""What a bad link does to datagrams: decisions only, the same for the same seed.

A `Link` is one direction. It is told of every datagram and answers with what arrives at the other
end, and when; whoever owns the sockets does the rest (`transport.runtime.proxy`).

Surprise: the n-th datagram draws its luck from the seed and n alone. Changing one probability
therefore changes only what that probability decides: with one seed, the datagrams lost at 2 % are
among those lost at 5 %.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from transport.limits import LINK_QUEUE_BYTES_MAX, LINK_REORDER_S, UDP_PAYLOAD_BYTES_MAX

_WORD: Final = (1 << 64) - 1
_GOLDEN: Final = 0x9E3779B97F4A7C15
_DRAWS_PER_DATAGRAM: Final = 16  # a power of two above the number of `_Draw`s


class Loss(StrEnum):
    """Why a datagram did not arrive."""

    CHANCE = "chance"
    QUEUE_FULL = "queue_full"
    TOO_LARGE = "too_large"
    SCRIPTED = "scripted"
    PARTITIONED = "partitioned"


class _Draw(IntEnum):
    """Which of a datagram's random numbers decides what."""

    DROP = 0
    CORRUPT = 1
    CORRUPT_BYTE = 2
    CORRUPT_VALUE = 3
    DUPLICATE = 4
    REORDER = 5
    JITTER = 6
    MARK = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Impairment:
    """One direction of a link. Probabilities are between 0 and 1; the default does no harm."""

    drop: float = 0.0
    corrupt: float = 0.0  # one byte becomes another one
    duplicate: float = 0.0  # a copy follows at once
    reorder: float = 0.0  # held back for `reorder_s`, so that later ones overtake it
    reorder_s: float = LINK_REORDER_S
    mark: float = 0.0  # ECN "congestion experienced", on datagrams that allow it
    delay_s: float = 0.0
    jitter_s: float = 0.0  # up to so much more; by itself it does not reorder
    rate_bytes_per_s: float = 0.0  # of UDP payload; 0 is no cap
    queue_bytes_max: int = LINK_QUEUE_BYTES_MAX  # what waits for the cap; the rest is lost
    mtu_bytes: int = UDP_PAYLOAD_BYTES_MAX  # larger datagrams vanish, as on a path without ICMP

    def __post_init__(self) -> None:
        """Raises `ValueError` for what no link can do."""
        for name in ("drop", "corrupt", "duplicate", "reorder", "mark"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} is a probability")
        for name in ("reorder_s", "delay_s", "jitter_s", "rate_bytes_per_s", "queue_bytes_max"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name} must be finite and not negative")
        if not 1 <= self.mtu_bytes <= UDP_PAYLOAD_BYTES_MAX:
            raise ValueError("mtu_bytes must be a size of a datagram")


CLEAN: Final = Impairment()


class Delivery(NamedTuple):
    """One datagram at the far end."""

    deliver_at: float
    data: bytes
    marked: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkStatistics:
    """Counters of one direction since it was made."""

    datagrams_received: int
    bytes_received: int
    datagrams_delivered: int
    bytes_delivered: int
    largest_delivered_bytes: int
    corrupted: int
    duplicated: int
    reordered: int
    marked: int
    lost: Mapping[Loss, int]

    @property
    def lost_total(self) -> int:
        """Datagrams that came and did not arrive."""
        return sum(self.lost.values())


class Link:
    """One direction. Its impairment may be changed at any time; its luck goes on."""

    def __init__(self, seed: int, impairment: Impairment = CLEAN) -> None:
        self.impairment = impairment
        self._seed: Final = mix(seed)
        self._number = 0
        self._busy_until = 0.0
        self._newest = 0.0
        self._datagrams_received = self._bytes_received = 0
        self._datagrams_delivered = self._bytes_delivered = self._largest = 0
        self._corrupted = self._duplicated = self._reordered = self._marked = 0
        self._lost = dict.fromkeys(Loss, 0)

    def decide(self, data: bytes, now: float) -> list[Delivery]:
        """What arrives of this datagram, and when. `now` must not go backwards."""
        self._number += 1
        self._datagrams_received += 1
        self._bytes_received += len(data)
        link = self.impairment
        if len(data) > link.mtu_bytes:
            return self._lose(Loss.TOO_LARGE)
        if self._happens(_Draw.DROP, link.drop):
            return self._lose(Loss.CHANCE)
        if data and self._happens(_Draw.CORRUPT, link.corrupt):
            data = self._corrupt(data)
        marked = self._happens(_Draw.MARK, link.mark)
        copies = 1
        if self._happens(_Draw.DUPLICATE, link.duplicate):
            self._duplicated += 1
            copies = 2
        arrivals = [self._arrival(data, now, marked=marked) for _ in range(copies)]
        return [delivery for delivery in arrivals if delivery is not None]

    def lose(self, data: bytes, loss: Loss) -> None:
        """A datagram that somebody else decided about; it draws its luck all the same, so that a
        scripted loss does not change the fate of the others."""
        self._number += 1
        self._datagrams_received += 1
        self._bytes_received += len(data)
        self._lose(loss)

    def statistics(self) -> LinkStatistics:
        """Counters since it was made."""
        return LinkStatistics(
            datagrams_received=self._datagrams_received,
            bytes_received=self._bytes_received,
            datagrams_delivered=self._datagrams_delivered,
            bytes_delivered=self._bytes_delivered,
            largest_delivered_bytes=self._largest,
            corrupted=self._corrupted,
            duplicated=self._duplicated,
            reordered=self._reordered,
            marked=self._marked,
            lost=dict(self._lost),
        )

    def _arrival(self, data: bytes, now: float, *, marked: bool) -> Delivery | None:
        """Through the queue of the cap, then along the delay."""
        link = self.impairment
        leaves_at = now
        if link.rate_bytes_per_s:
            waiting = max(self._busy_until - now, 0.0) * link.rate_bytes_per_s
            if waiting + len(data) > link.queue_bytes_max:
                self._lost[Loss.QUEUE_FULL] += 1
                return None
            leaves_at = max(self._busy_until, now) + len(data) / link.rate_bytes_per_s
            self._busy_until = leaves_at
        deliver_at = leaves_at + link.delay_s + link.jitter_s * self._draw(_Draw.JITTER)
        if self._happens(_Draw.REORDER, link.reorder):
            self._reordered += 1
            deliver_at += link.reorder_s
        else:
            deliver_at = self._newest = max(deliver_at, self._newest)
        self._datagrams_delivered += 1
        self._bytes_delivered += len(data)
        self._largest = max(self._largest, len(data))
        self._marked += marked
        return Delivery(deliver_at, data, marked)

    def _lose(self, loss: Loss) -> list[Delivery]:
        self._lost[loss] += 1
        return []

    def _corrupt(self, data: bytes) -> bytes:
        self._corrupted += 1
        at = int(self._draw(_Draw.CORRUPT_BYTE) * len(data))
        change = 1 + int(self._draw(_Draw.CORRUPT_VALUE) * 255)
        return data[:at] + bytes([data[at] ^ change]) + data[at + 1 :]

    def _happens(self, draw: _Draw, probability: float) -> bool:
        return probability > 0 and self._draw(draw) < probability

    def _draw(self, draw: _Draw) -> float:
        """Between 0 and 1, without 1."""
        place = self._number * _DRAWS_PER_DATAGRAM + draw
        return (mix(self._seed + place * _GOLDEN) >> 11) / (1 << 53)


def mix(value: int) -> int:
    """The finaliser of SplitMix64 (Steele, Lea, Flood 2014): any 64 bits to well-mixed ones."""
    value &= _WORD
    value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _WORD
    value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _WORD
    return value ^ (value >> 31)
