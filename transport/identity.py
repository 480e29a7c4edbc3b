"""Who a node is, and who decides whether a peer may stay. Implemented by others."""

from typing import Protocol

from native.keys import FalconSigner, MLDSASigner, SecretKey
from native.values import NodeId, PublicKey
from transport.core.hello import Hello

__all__ = ["AcceptAll", "Hello", "Identity", "PeerVerifier"]


class Identity:
    """A node's own key: Falcon-512, Falcon-1024 or ML-DSA-65. Raises `native.errors.KeyInvalid` for
    others."""

    __slots__ = ("_secret", "node_id", "public_key", "signer")

    def __init__(self, secret: SecretKey) -> None:
        self.signer: FalconSigner | MLDSASigner = secret.handshake_signer
        self.public_key: PublicKey = secret.public
        self.node_id: NodeId = secret.node_id
        self._secret = secret

    @property
    def secret(self) -> SecretKey:
        """The key itself, for the engine that signs outside the extension."""
        return self._secret


class PeerVerifier(Protocol):
    """Decides about a peer whose key is proven and whose HELLO is well formed and of our chain."""

    def verify_peer(self, node_id: NodeId, public_key: PublicKey, hello: Hello) -> None:
        """Return to admit; raise `transport.errors.PeerRefused` not to. Must not block."""


class AcceptAll:
    """Admits every peer of the chain: observers and services are told apart above."""

    def verify_peer(self, node_id: NodeId, public_key: PublicKey, hello: Hello) -> None:
        """Admit."""
