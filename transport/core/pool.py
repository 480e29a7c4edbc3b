"""Rules of keeping one connection per peer: which of two stays, and when to dial again."""

from dataclasses import dataclass

from transport.limits import DIAL_BACKOFF_S_MAX, DIAL_BACKOFF_S_MIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """What decides between two connections to the same peer."""

    dialler: bytes  # NodeId
    instance: bytes  # of the peer, from its HELLO


def replaces(new: Candidate, old: Candidate) -> bool:
    """Whether a new connection takes the place of an old one (design, section 3).

    Both ends decide alike: the one dialled by the smaller NodeId stays, of two by the same dialler
    the older. A peer that was restarted in between is alive only on the new one.
    """
    if new.instance != old.instance:
        return True
    return new.dialler < old.dialler


def backoff_s(attempt: int, jitter: float) -> float:
    """How long to wait after the given failed attempt (from 0); `jitter` is uniform in [0, 1)."""
    ceiling = min(DIAL_BACKOFF_S_MAX, DIAL_BACKOFF_S_MIN * 2.0 ** min(attempt, 16))
    return ceiling * (0.5 + jitter / 2)
