"""Public keys as their SubjectPublicKeyInfo, and the ids made from them.

Only one encoding of a key is accepted, so one key has exactly one id. Nothing here verifies: the
runtime does, with the libraries it may use.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from native.hashing import sha256
from trustchain import limits
from trustchain.core import der
from trustchain.core.oids import FORM_BY_OID, FORM_OF, KeyAlgorithm, KeyForm
from trustchain.errors import MalformedDER

NODE_DOMAIN: Final = b"hypermesh/node/v1"  # design section 3: the id of a key

_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_UNCOMPRESSED_POINT: Final = 0x04


@dataclass(frozen=True, slots=True)
class SubjectKey:
    """A public key that was decoded from the canonical bytes in `spki`."""

    algorithm: KeyAlgorithm
    raw: bytes
    spki: bytes

    @property
    def form(self) -> KeyForm:
        """How keys of this algorithm look."""
        return FORM_OF[self.algorithm]

    @property
    def node_id(self) -> bytes:
        """The id of this key, and the permanent id of a holder for whom it is the first."""
        return node_id_of(self.spki)

    @property
    def spki_hash(self) -> bytes:
        """SHA-256 of the SPKI, as a log entry carries it."""
        return sha256(self.spki)

    @staticmethod
    def decode(spki: bytes) -> SubjectKey:
        """Decode one SPKI, or raise MalformedDER."""
        reader = der.Reader(spki, size_max=limits.REQUEST_INFO_SIZE_BYTES_MAX)
        outer = reader.sequence()
        reader.close()
        algorithm = outer.sequence()
        oid = algorithm.oid()
        form = FORM_BY_OID.get(oid)
        if form is None:
            raise MalformedDER(f"key algorithm {oid} is not known")
        if form.curve is not None and algorithm.oid() != form.curve:
            raise MalformedDER("elliptic curve is not P-256")
        algorithm.close()
        raw = outer.octet_aligned_bits()
        outer.close()
        if len(raw) != form.key_size:
            raise MalformedDER(f"{form.algorithm.value} key of {len(raw)} bytes")
        if form.algorithm is KeyAlgorithm.P256 and raw[0] != _UNCOMPRESSED_POINT:
            raise MalformedDER("P-256 point is not in its uncompressed form")
        return SubjectKey(form.algorithm, raw, spki)

    @staticmethod
    def of(algorithm: KeyAlgorithm, raw: bytes) -> SubjectKey:
        """Wrap raw key bytes of a known algorithm."""
        return SubjectKey.decode(der.sequence(algorithm_identifier(algorithm), der.bits(raw)))


def algorithm_identifier(algorithm: KeyAlgorithm) -> bytes:
    """Write the AlgorithmIdentifier of a key."""
    form = FORM_OF[algorithm]
    if form.curve is not None:
        return der.sequence(der.oid(form.oid), der.oid(form.curve))
    return der.sequence(der.oid(form.oid))


def node_id_of(spki: bytes) -> bytes:
    """Return the id of the key in an SPKI."""
    return sha256(NODE_DOMAIN + spki)


def check_signature_form(algorithm: KeyAlgorithm, signature: bytes) -> None:
    """Raise MalformedDER for signature bytes that no strict signer writes.

    For P-256 that is a DER pair of integers in 1 to n-1; for the others the size says it all.
    """
    form = FORM_OF[algorithm]
    if algorithm is not KeyAlgorithm.P256:
        if len(signature) != form.signature_size_max:
            raise MalformedDER(f"{algorithm.value} signature of {len(signature)} bytes")
        return
    reader = der.Reader(signature, size_max=form.signature_size_max)
    pair = reader.sequence()
    reader.close()
    for value in (pair.unsigned(bits_max=256), pair.unsigned(bits_max=256)):
        if not 1 <= value < _P256_ORDER:
            raise MalformedDER("P-256 signature value is out of range")
    pair.close()
