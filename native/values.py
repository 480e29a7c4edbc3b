"""Value types that every room shares: digests, node names, amounts and public keys.

A public key always knows its algorithm, and its canonical DER form (`spki`) is the only one: the
same bytes stand in the handshake, in the NodeId and in certificates. Falcon is not FN-DSA.
"""

import hashlib
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, NewType

from native._native import FalconVerifier, spki_decode, spki_encode
from native.errors import KeyInvalid

__all__ = [
    "Algorithm",
    "Amount",
    "Digest",
    "NodeId",
    "PublicKey",
    "Signature",
]

Digest = NewType("Digest", bytes)  # SHA-256, 32 bytes
NodeId = NewType("NodeId", bytes)  # 32 bytes, see `PublicKey.node_id`
Signature = NewType("Signature", bytes)
Amount = NewType("Amount", int)  # base units of CAES, 0 to 2**64 - 1

NODE_DOMAIN: Final = b"hypermesh/node/v1"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Profile:
    oid: str
    tls_scheme: int
    public_size_bytes: int
    signature_size_bytes: int


class Algorithm(Enum):
    """A signature algorithm. The value is its name in files, on the wire and on screens."""

    FALCON_512 = "falcon-512"
    FALCON_1024 = "falcon-1024"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"

    @property
    def name_text(self) -> str:
        """The stable name, such as `falcon-512`."""
        return self.value

    @property
    def oid(self) -> str:
        """Dotted OID of the SPKI; Falcon in its padded form."""
        return _PROFILES[self].oid

    @property
    def tls_scheme(self) -> int:
        """TLS `SignatureScheme` code point."""
        return _PROFILES[self].tls_scheme

    @property
    def public_size_bytes(self) -> int:
        """Length of a raw public key."""
        return _PROFILES[self].public_size_bytes

    @property
    def signature_size_bytes(self) -> int:
        """Length of every signature."""
        return _PROFILES[self].signature_size_bytes

    @property
    def is_falcon(self) -> bool:
        """Whether the extension computes this algorithm."""
        return self in (Algorithm.FALCON_512, Algorithm.FALCON_1024)

    @classmethod
    def from_name(cls, name: str) -> "Algorithm":
        """The algorithm of this name; raises `KeyInvalid`."""
        try:
            return cls(name)
        except ValueError:
            raise KeyInvalid(f"no key algorithm {name!r}") from None


# transport.md section 3.1, the one table of code points.
_PROFILES: Final = {
    Algorithm.FALCON_512: _Profile(
        oid="1.3.9999.3.16", tls_scheme=0xFEDC, public_size_bytes=897, signature_size_bytes=666
    ),
    Algorithm.FALCON_1024: _Profile(
        oid="1.3.9999.3.19", tls_scheme=0xFEDF, public_size_bytes=1793, signature_size_bytes=1280
    ),
    Algorithm.ML_DSA_44: _Profile(
        oid="2.16.840.1.101.3.4.3.17",
        tls_scheme=0x0904,
        public_size_bytes=1312,
        signature_size_bytes=2420,
    ),
    Algorithm.ML_DSA_65: _Profile(
        oid="2.16.840.1.101.3.4.3.18",
        tls_scheme=0x0905,
        public_size_bytes=1952,
        signature_size_bytes=3309,
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublicKey:
    """A well-formed public key; raises `KeyInvalid` otherwise.

    Falcon keys are decoded once here (every coefficient below 12289), so that two different byte
    strings are never the same key.
    """

    algorithm: Algorithm
    raw: bytes
    node_id: NodeId = field(init=False, repr=False, compare=False)
    """`SHA-256("hypermesh/node/v1" || SPKI)`."""

    def __post_init__(self) -> None:
        """Check length and, for Falcon, content."""
        if len(self.raw) != self.algorithm.public_size_bytes:
            raise KeyInvalid(
                f"a {self.algorithm.name_text} public key has "
                f"{self.algorithm.public_size_bytes} bytes, not {len(self.raw)}"
            )
        if self.algorithm.is_falcon:
            FalconVerifier(self.raw)
        node_id = NodeId(hashlib.sha256(NODE_DOMAIN + self.spki).digest())
        object.__setattr__(self, "node_id", node_id)  # asked for often, and the key is frozen

    @classmethod
    def from_spki(cls, spki: bytes) -> "PublicKey":
        """Parse canonical DER and nothing else; raises `KeyInvalid`."""
        name, raw = spki_decode(spki)
        return cls(algorithm=Algorithm(name), raw=raw)

    @property
    def spki(self) -> bytes:
        """Canonical DER of the SubjectPublicKeyInfo."""
        return spki_encode(self.algorithm.value, self.raw)
