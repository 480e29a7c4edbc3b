"""Who may stay connected: validators always, others as long as there is room.

The transport has proven the peer's key and chain before it asks. Clients need no permission, but
they may not use up the places that validators need to find each other again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from transport.errors import PeerRefused

if TYPE_CHECKING:
    from native.values import NodeId, PublicKey
    from transport import Endpoint, Hello


class Doorkeeper:
    """A `transport.identity.PeerVerifier` that keeps two places free for each validator."""

    def __init__(
        self, validators: Callable[[], Iterable[NodeId]], endpoint: Callable[[], Endpoint]
    ) -> None:
        """Both are asked later: who votes changes, and the endpoint needs its doorkeeper first."""
        self._validators = validators
        self._endpoint = endpoint

    def verify_peer(self, node_id: NodeId, public_key: PublicKey, hello: Hello) -> None:  # noqa: ARG002
        """Admit, or raise `PeerRefused` when the places for clients are taken."""
        validators = frozenset(self._validators())
        if node_id in validators:
            return
        endpoint = self._endpoint()
        room = endpoint.config.connections_max - 2 * len(validators)
        clients = sum(found.peer not in validators for found in endpoint.connections)
        if clients >= max(room, 1):
            raise PeerRefused(f"all {room} places for clients are taken; try another node")
