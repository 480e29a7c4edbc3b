"""What the reference engine remembers of its peers, so that a handshake can be resumed.

Acceptors give out tickets that are good once; diallers keep them under the NodeId they are for.
With each goes the key that was proven when it was made: a resumed session has no other proof.
"""

from collections import OrderedDict, deque
from dataclasses import replace
from typing import Final

from aioquic.tls import SessionTicket

from native.values import NodeId, PublicKey
from transport.limits import (
    SESSIONS_MAX,
    TICKET_BYTES_MAX,
    TICKET_NODES_MAX,
    TICKETS_PER_NODE_MAX,
)


class Sessions:
    """Of one endpoint, in both roles; the oldest are forgotten first."""

    def __init__(self) -> None:
        self._given: Final[OrderedDict[bytes, tuple[SessionTicket, PublicKey]]] = OrderedDict()
        self._taken: Final[OrderedDict[NodeId, deque[SessionTicket]]] = OrderedDict()
        self._keys: Final[dict[NodeId, PublicKey]] = {}
        self.refused = 0  # tickets that were used before, or never given out by us

    def give(self, ticket: SessionTicket, peer: PublicKey) -> None:
        """As acceptor: a ticket for this peer was sent."""
        self._given[ticket.ticket] = (ticket, peer)
        if len(self._given) > SESSIONS_MAX:
            self._given.popitem(last=False)

    def redeem(self, ticket: bytes) -> tuple[SessionTicket, PublicKey] | None:
        """As acceptor: the session of a ticket, once."""
        session = self._given.pop(ticket, None)
        if session is None:
            self.refused += 1
        return session

    def keep(self, ticket: SessionTicket, peer: PublicKey) -> None:
        """As dialler: a ticket for the next dial of this peer has come. One that is too long to
        begin a handshake with is of no use."""
        if len(ticket.ticket) > TICKET_BYTES_MAX:
            return
        ticket = replace(ticket, max_early_data_size=None)  # whatever the peer would allow
        node_id = peer.node_id
        tickets = self._taken.setdefault(node_id, deque(maxlen=TICKETS_PER_NODE_MAX))
        tickets.append(ticket)
        self._keys[node_id] = peer
        self._taken.move_to_end(node_id)
        if len(self._taken) > TICKET_NODES_MAX:
            forgotten, _ = self._taken.popitem(last=False)
            del self._keys[forgotten]

    def use(self, node_id: NodeId) -> tuple[SessionTicket, PublicKey] | None:
        """As dialler: a ticket for this node, which is not used again."""
        tickets = self._taken.get(node_id)
        while tickets:
            ticket = tickets.popleft()
            if ticket.is_valid:
                return ticket, self._keys[node_id]
        return None
