"""Signature checks for every algorithm TrustChain meets.

Falcon comes from the extension, the others from `cryptography`. Callers have already checked the
form of key and signature, so a refusal here means that the signature does not hold.
"""

from __future__ import annotations

from functools import lru_cache
from typing import assert_never

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

from native.errors import KeyInvalid, SignatureInvalid
from native.keys import FalconVerifier
from trustchain.core.keys import SubjectKey
from trustchain.core.oids import KeyAlgorithm

__all__ = ["SignatureInvalid", "verify_signature"]


def verify_signature(key: SubjectKey, message: bytes, signature: bytes) -> None:
    """Return when the signature holds; raise SignatureInvalid otherwise."""
    raw = key.raw
    try:
        match key.algorithm:
            case KeyAlgorithm.ED25519:
                ed25519.Ed25519PublicKey.from_public_bytes(raw).verify(signature, message)
            case KeyAlgorithm.P256:
                point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), raw)
                point.verify(signature, message, ec.ECDSA(hashes.SHA256()))
            case KeyAlgorithm.ML_DSA_44:
                mldsa.MLDSA44PublicKey.from_public_bytes(raw).verify(signature, message)
            case KeyAlgorithm.ML_DSA_65:
                mldsa.MLDSA65PublicKey.from_public_bytes(raw).verify(signature, message)
            case KeyAlgorithm.ML_DSA_87:
                mldsa.MLDSA87PublicKey.from_public_bytes(raw).verify(signature, message)
            case KeyAlgorithm.FALCON_512 | KeyAlgorithm.FALCON_1024:
                _falcon(raw).verify(message, signature)
            case _ as never:
                assert_never(never)
    except (InvalidSignature, ValueError, KeyInvalid) as error:
        raise SignatureInvalid(f"{key.algorithm.value} signature does not hold") from error


@lru_cache(maxsize=64)
def _falcon(raw: bytes) -> FalconVerifier:
    """Decode a Falcon key once: the few enrolment keys come again and again."""
    return FalconVerifier(raw)
