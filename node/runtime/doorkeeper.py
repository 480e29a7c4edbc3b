"""Who may stay connected: validators always, others as long as there is room.

The transport has proven the peer's key and chain before it asks. Clients need no permission, but
they may not use up the places that validators need to find each other again, nor those of nodes
that are about to become validators. Keys cost nothing, so only a node somebody vouches for counts
as that: the operator (`[peers]`), or the registry (an ordered change, the set before this one).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from transport.errors import PeerRefused

if TYPE_CHECKING:
    from native.values import NodeId, PublicKey
    from transport import Endpoint, Hello


class Doorkeeper:
    """A `transport.identity.PeerVerifier` that keeps two places free for each known node."""

    def __init__(
        self,
        validators: Callable[[], Iterable[NodeId]],
        endpoint: Callable[[], Endpoint],
        *,
        expected: Callable[[], Collection[NodeId]] = tuple,
    ) -> None:
        """All are asked later: who votes changes, and the endpoint needs its doorkeeper first.

        `expected` names nodes that are let in like validators.
        """
        self._validators = validators
        self._endpoint = endpoint
        self._expected = expected

    def verify_peer(self, node_id: NodeId, public_key: PublicKey, hello: Hello) -> None:  # noqa: ARG002
        """Admit, or raise `PeerRefused` when the places for clients are taken."""
        known = frozenset(self._validators()).union(self._expected())
        if node_id in known:
            return
        endpoint = self._endpoint()
        room = endpoint.config.connections_max - 2 * len(known)
        clients = sum(found.peer not in known for found in endpoint.connections)
        if clients >= max(room, 1):
            raise PeerRefused(f"all {room} places for clients are taken; try another node")
