"""Connections to the other validators and to guests: who is where, and what is dialled again.

One connection a pair. The node with the smaller NodeId dials, with a doubling, jittered pause, so
that two nodes that start together do not cross; the other dials when nothing came for a while.
Sends never wait: a peer that is gone or whose
queue is full misses the message, which is counted; STATUS makes it whole later (reference 3.6).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import structlog
import trio

from consensus.core.epochs import GUEST_FIRST
from consensus.limits import GUESTS_MAX, STRANGERS_MAX
from transport import ChannelKind, CloseReason, Connection, Endpoint
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
    """The connected nodes, by their index: members of the present set, then guests.

    Connections outlive epochs: `enter_epoch` only gives the same nodes other indexes. A guest is a
    node outside the set that has said something on our channels (other clients never do); it has
    one of a bounded number of places while it is connected. Keys cost nothing, so strangers take no
    more than `STRANGERS_MAX` of them: the others are for nodes that are expected.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        members: Sequence[NodeId],
        addresses: Mapping[NodeId, str],
        *,
        me: int,
        on_up: Callable[[int], None],
        on_down: Callable[[int], None],
        own: NodeId | None = None,
        expected: Callable[[], Collection[NodeId]] = tuple,
    ) -> None:
        """`addresses` may lack a member: then that member has to dial us.

        `own` is needed by a node outside the set, whose `me` is negative. `expected` names nodes
        outside it that a place is kept for: who joins, and who has left.
        """
        self._endpoint = endpoint
        self._members = list(members)
        self._index = {node_id: index for index, node_id in enumerate(members)}
        self._guests: dict[NodeId, int] = {}
        self._addresses = addresses
        self._own = members[me] if own is None else own
        self._expected = expected
        self._on_up = on_up
        self._on_down = on_down
        self._connections: dict[NodeId, Connection] = {}
        self._lost: dict[NodeId, trio.Event] = {}
        self._changed = trio.Event()
        self.dropped_total = 0
        endpoint.on_connection(self._connected)
        endpoint.on_closed(self._closed)

    def enter_epoch(self, members: Sequence[NodeId]) -> list[int]:
        """Other members from now on; their indexes that no connection is up to."""
        self._members = list(members)
        self._index = {node_id: index for index, node_id in enumerate(members)}
        # Who was a member speaks as a guest from now on; old guests take their place again.
        self._guests = {}
        self._changed.set()
        self._changed = trio.Event()
        return [
            index
            for node_id, index in self._index.items()
            if node_id != self._own and node_id not in self._connections
        ]

    def index_of(self, connection: Connection) -> int | None:
        """Index of the member or guest behind a connection; None if it has no place here."""
        node_id = connection.peer
        if self._connections.get(node_id) is not connection:
            return None
        return self._index.get(node_id, self._guests.get(node_id))

    def take_place(self, connection: Connection) -> int | None:
        """The same for a node that speaks now: it becomes a guest if a place is free."""
        index = self.index_of(connection)
        if index is not None or self._connections.get(connection.peer) is not connection:
            return index
        taken = set(self._guests.values())
        expected = self._expected()
        if connection.peer not in expected:
            strangers = sum(node_id not in expected for node_id in self._guests)
            if strangers >= STRANGERS_MAX:
                return None
        for place in range(GUEST_FIRST, GUEST_FIRST + GUESTS_MAX):
            if place not in taken:
                self._guests[connection.peer] = place
                return place
        return None

    @property
    def connected(self) -> list[int]:
        """Indices of the validators we have a connection to."""
        return [index for node_id, index in self._index.items() if node_id in self._connections]

    def connection(self, index: int) -> Connection | None:
        """The connection to one member or guest, if it is up."""
        if 0 <= index < len(self._members):
            return self._connections.get(self._members[index])
        for node_id, place in self._guests.items():
            if place == index:
                return self._connections.get(node_id)
        return None

    def turn_away_nowait(self, index: int, detail: str) -> None:
        """Close the connection to a guest that misbehaves; a member's stays."""
        connection = self.connection(index)
        if index >= GUEST_FIRST and connection is not None:
            connection.close_now(CloseReason.PROTOCOL_VIOLATION, detail)

    def send_nowait(
        self, index: int, kind: ChannelKind, frame_type: int, *parts: bytes | Batch
    ) -> bool:
        """Queue a frame for one validator; a full queue or a missing link drops it, counted.

        Whether it was queued: then it arrives, unless this connection ends.
        """
        connection = self.connection(index)
        if connection is None:
            self.dropped_total += 1
            return False
        try:
            connection.channel(kind).send_nowait(frame_type, *parts)
        except (ChannelFull, TransportError):
            self.dropped_total += 1
            return False
        return True

    def broadcast_nowait(self, kind: ChannelKind, frame_type: int, *parts: bytes | Batch) -> None:
        """Queue a frame for every other validator that is connected; its bytes are held once."""
        connections = [
            self._connections[node_id] for node_id in self._members if node_id in self._connections
        ]
        if connections:
            try:
                left_out = self._endpoint.broadcast_nowait(connections, kind, frame_type, *parts)
                self.dropped_total += len(left_out)
            except TransportError as error:
                self.dropped_total += len(connections)
                log.error("frame.not_sent", frame_type=frame_type, error=str(error))

    async def run(self) -> None:
        """Keep dialling every member that is ours to dial, of whatever epoch."""
        kept: set[NodeId] = set()
        async with trio.open_nursery() as nursery:

            async def keep(node_id: NodeId) -> None:
                await self._keep(node_id)
                kept.discard(node_id)

            while True:
                changed = self._changed
                for index, node_id in enumerate(self._members):
                    if node_id in self._addresses and node_id not in kept | {self._own}:
                        kept.add(node_id)
                        nursery.start_soon(keep, node_id, name=f"dial-{index}")
                await changed.wait()

    async def _keep(self, node_id: NodeId) -> None:
        """Dial one node whenever it is not connected, as long as it is a member."""
        patience_s = 0.0 if self._own < node_id else DIAL_GRACE_S
        pause = DIAL_PAUSE_S_MIN
        while node_id in self._index:
            if node_id in self._connections:
                pause = DIAL_PAUSE_S_MIN
                await self._lost[node_id].wait()
                continue
            if patience_s:
                await trio.sleep(patience_s)
                if node_id in self._connections:
                    continue
            try:
                with trio.fail_after(DIAL_TIMEOUT_S):
                    await self._endpoint.dial(self._addresses[node_id], node_id)
            except (TransportError, trio.TooSlowError, OSError) as error:
                peer = self._index.get(node_id)
                log.debug("peer.dial_failed", peer=peer, error=str(error), pause_s=pause)
            if node_id not in self._connections:
                await trio.sleep(pause * (0.5 + random.random()))
                pause = min(2 * pause, DIAL_PAUSE_S_MAX)

    def _connected(self, connection: Connection) -> None:
        node_id = connection.peer
        known = self._connections.get(node_id)
        self._connections[node_id] = connection
        self._lost.setdefault(node_id, trio.Event())
        index = self.index_of(connection)
        if index is None:
            return
        if known is None:
            log.info("peer.connected", peer=index)
        self._on_up(index)

    def _closed(self, connection: Connection) -> None:
        node_id = connection.peer
        if self._connections.get(node_id) is not connection:
            return
        index = self.index_of(connection)
        del self._connections[node_id]
        self._guests.pop(node_id, None)
        self._lost.pop(node_id).set()
        if index is not None:
            log.info("peer.lost", peer=index, reason=str(connection.close_reason))
            self._on_down(index)
