"""Requests of peers in one bounded queue, a few of each peer.

What does not fit is dropped and counted: the peer asks again, or somebody else.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Generic, TypeVar

import structlog
import trio

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

R = TypeVar("R")

log = structlog.get_logger("consensus")


class Requests(Generic[R]):
    """Waiting requests; one task answers them one after the other."""

    def __init__(self, *, waiting_max: int, per_peer_max: int) -> None:
        self._in, self._out = trio.open_memory_channel[tuple[int, R]](waiting_max)
        self._per_peer_max = per_peer_max
        self._asked: Counter[int] = Counter()
        self.dropped_total = 0

    @property
    def waiting(self) -> int:
        """How many nobody has begun to answer."""
        return self._out.statistics().current_buffer_used

    def put_nowait(self, peer: int, request: R) -> None:
        """Queue a request of a peer, or drop it."""
        if self._asked[peer] >= self._per_peer_max:
            self.dropped_total += 1
            return
        try:
            self._in.send_nowait((peer, request))
            self._asked[peer] += 1
        except trio.WouldBlock:
            self.dropped_total += 1

    async def answer(self, serve: Callable[[int, R], Awaitable[None]]) -> None:
        """Answer until cancelled. Trouble with one request is logged; the others go on."""
        async for peer, request in self._out:
            try:
                await serve(peer, request)
            except Exception:
                log.exception("fetch.failed", peer=peer)
            finally:
                self._asked[peer] -= 1
