"""Connections to the other validators: who is where, and what is dialled again.

One connection a pair. The node with the smaller NodeId dials, with a doubling, jittered pause, so
that two nodes that start together do not cross; the other dials when nothing came for a while.
Sends never wait: a peer that is gone or whose
queue is full misses the message, which is counted; STATUS makes it whole later (reference 3.6).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog
import trio

from transport import ChannelKind, Connection, Endpoint
from transport.errors import ChannelFull, TransportError

if TYPE_CHECKING:
    from native.batches import Batch
    from native.values import NodeId

DIAL_PAUSE_S_MIN: Final = 0.05  # a peer that restarts is back within this
DIAL_PAUSE_S_MAX: Final = 2.0  # how stale our picture of a dead peer may get
DIAL_TIMEOUT_S: Final = 5.0
DIAL_GRACE_S: Final = 2.0  # the greater NodeId dials only when the smaller one has not

log = structlog.get_logger("consensus")


class Links:
    """The connected validators, by their index in the committee."""

    def __init__(
        self,
        endpoint: Endpoint,
        members: Sequence[NodeId],
        addresses: Mapping[NodeId, str],
        *,
        me: int,
        on_up: Callable[[int], None],
        on_down: Callable[[int], None],
    ) -> None:
        """`addresses` may lack a member: then that member has to dial us."""
        self._endpoint = endpoint
        self._members = members
        self._index = {node_id: index for index, node_id in enumerate(members)}
        self._addresses = addresses
        self._me = me
        self._on_up = on_up
        self._on_down = on_down
        self._connections: list[Connection | None] = [None] * len(members)
        self._lost = [trio.Event() for _ in members]
        self.dropped_total = 0
        endpoint.on_connection(self._connected)
        endpoint.on_closed(self._closed)

    def index_of(self, connection: Connection) -> int | None:
        """Index of the validator behind a connection; None for anybody else."""
        index = self._index.get(connection.peer)
        return index if index is not None and self._connections[index] is connection else None

    @property
    def connected(self) -> list[int]:
        """Indices of the validators we have a connection to."""
        return [index for index, found in enumerate(self._connections) if found is not None]

    def connection(self, index: int) -> Connection | None:
        """The connection to one validator, if it is up."""
        return self._connections[index]

    def send_nowait(
        self, index: int, kind: ChannelKind, frame_type: int, *parts: bytes | Batch
    ) -> None:
        """Queue a frame for one validator; a full queue or a missing link drops it, counted."""
        connection = self._connections[index]
        if connection is None:
            self.dropped_total += 1
            return
        try:
            connection.channel(kind).send_nowait(frame_type, *parts)
        except (ChannelFull, TransportError):
            self.dropped_total += 1

    def broadcast_nowait(self, kind: ChannelKind, frame_type: int, *parts: bytes | Batch) -> None:
        """Queue a frame for every other validator that is connected; its bytes are held once."""
        connections = [found for found in self._connections if found is not None]
        if connections:
            try:
                left_out = self._endpoint.broadcast_nowait(connections, kind, frame_type, *parts)
                self.dropped_total += len(left_out)
            except TransportError as error:
                self.dropped_total += len(connections)
                log.error("frame.not_sent", frame_type=frame_type, error=str(error))

    async def run(self) -> None:
        """Keep dialling every member that is ours to dial."""
        own = self._members[self._me]
        async with trio.open_nursery() as nursery:
            for index, node_id in enumerate(self._members):
                if index != self._me and node_id in self._addresses:
                    patience = 0.0 if own < node_id else DIAL_GRACE_S
                    nursery.start_soon(self._keep, index, patience, name=f"dial-{index}")
            await trio.sleep_forever()

    async def _keep(self, index: int, patience_s: float) -> None:
        node_id = self._members[index]
        pause = DIAL_PAUSE_S_MIN
        while True:
            if self._connections[index] is not None:
                pause = DIAL_PAUSE_S_MIN
                await self._lost[index].wait()
            if patience_s:
                await trio.sleep(patience_s)
                if self._connections[index] is not None:
                    continue
            try:
                with trio.fail_after(DIAL_TIMEOUT_S):
                    await self._endpoint.dial(self._addresses[node_id], node_id)
            except (TransportError, trio.TooSlowError, OSError) as error:
                log.debug("peer.dial_failed", peer=index, error=str(error), pause_s=pause)
            if self._connections[index] is None:
                await trio.sleep(pause * (0.5 + random.random()))
                pause = min(2 * pause, DIAL_PAUSE_S_MAX)

    def _connected(self, connection: Connection) -> None:
        index = self._index.get(connection.peer)
        if index is None:
            return
        known = self._connections[index]
        self._connections[index] = connection
        self._lost[index] = trio.Event()
        if known is None:
            log.info("peer.connected", peer=index)
        self._on_up(index)

    def _closed(self, connection: Connection) -> None:
        index = self.index_of(connection)
        if index is None:
            return
        self._connections[index] = None
        self._lost[index].set()
        log.info("peer.lost", peer=index, reason=str(connection.close_reason))
        self._on_down(index)
