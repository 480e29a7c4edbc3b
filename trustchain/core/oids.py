"""Every object identifier TrustChain reads or writes, in one versioned table.

Not here: what an identifier is used for. A later algorithm or draft is an addition to this file.
The private arc is the documentation arc 32473 (RFC 5612) until a number is registered.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

LOG_FORMAT: Final = "mtc-plants-05"  # draft-ietf-plants-merkle-tree-certs, stored with each entry
PROFILE_VERSION: Final = 1  # of the fields a leaf carries

ENTERPRISE_ARC: Final = "1.3.6.1.4.1"  # trust anchor ids are relative to it

# Merkle Tree Certificates: experimental arc of the draft
MTC_PROOF: Final = "1.3.6.1.4.1.44363.47.0"
MTC_CA_ID: Final = "1.3.6.1.4.1.44363.47.1"

# Private
STOQ_PURPOSE: Final = "1.3.6.1.4.1.32473.4.1"
LOG_REFERENCE: Final = "1.3.6.1.4.1.32473.4.2"

# Names and extensions (RFC 5280)
COMMON_NAME: Final = "2.5.4.3"
BASIC_CONSTRAINTS: Final = "2.5.29.19"
KEY_USAGE: Final = "2.5.29.15"
EXTENDED_KEY_USAGE: Final = "2.5.29.37"
SUBJECT_ALT_NAME: Final = "2.5.29.17"
SUBJECT_KEY_ID: Final = "2.5.29.14"
AUTHORITY_KEY_ID: Final = "2.5.29.35"
SERVER_AUTH: Final = "1.3.6.1.5.5.7.3.1"
CLIENT_AUTH: Final = "1.3.6.1.5.5.7.3.2"
EXTENSION_REQUEST: Final = "1.2.840.113549.1.9.14"  # PKCS#9, RFC 2985 section 5.4.2

# Keys and signatures
EC_PUBLIC_KEY: Final = "1.2.840.10045.2.1"
CURVE_P256: Final = "1.2.840.10045.3.1.7"
ECDSA_SHA256: Final = "1.2.840.10045.4.3.2"
ED25519: Final = "1.3.101.112"
ML_DSA_44: Final = "2.16.840.1.101.3.4.3.17"
ML_DSA_65: Final = "2.16.840.1.101.3.4.3.18"
ML_DSA_87: Final = "2.16.840.1.101.3.4.3.19"
FALCON_512: Final = "1.3.9999.3.16"  # padded form, our own keys
FALCON_1024: Final = "1.3.9999.3.19"


class KeyAlgorithm(Enum):
    """Algorithms of a key inside a SubjectPublicKeyInfo."""

    ED25519 = "ed25519"
    P256 = "p256"
    ML_DSA_44 = "ml-dsa-44"
    ML_DSA_65 = "ml-dsa-65"
    ML_DSA_87 = "ml-dsa-87"
    FALCON_512 = "falcon-512"
    FALCON_1024 = "falcon-1024"


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyForm:
    """How a key of one algorithm looks in DER, and whether a leaf may carry it."""

    algorithm: KeyAlgorithm
    oid: str
    curve: str | None = None  # parameters; None is absent
    key_size: int
    signature_size_max: int
    signature_oid: str  # what a certification request names
    certifiable: bool  # Falcon leaves come with the Merkle Tree Certificate forms


KEY_FORMS: Final = (
    KeyForm(
        algorithm=KeyAlgorithm.ED25519,
        oid=ED25519,
        key_size=32,
        signature_size_max=64,
        signature_oid=ED25519,
        certifiable=True,
    ),
    KeyForm(
        algorithm=KeyAlgorithm.P256,
        oid=EC_PUBLIC_KEY,
        curve=CURVE_P256,
        key_size=65,
        signature_size_max=72,
        signature_oid=ECDSA_SHA256,
        certifiable=True,
    ),
    KeyForm(
        algorithm=KeyAlgorithm.ML_DSA_44,
        oid=ML_DSA_44,
        key_size=1_312,
        signature_size_max=2_420,
        signature_oid=ML_DSA_44,
        certifiable=False,
    ),
    KeyForm(
        algorithm=KeyAlgorithm.ML_DSA_65,
        oid=ML_DSA_65,
        key_size=1_952,
        signature_size_max=3_309,
        signature_oid=ML_DSA_65,
        certifiable=True,
    ),
    KeyForm(
        algorithm=KeyAlgorithm.ML_DSA_87,
        oid=ML_DSA_87,
        key_size=2_592,
        signature_size_max=4_627,
        signature_oid=ML_DSA_87,
        certifiable=False,
    ),
    KeyForm(
        algorithm=KeyAlgorithm.FALCON_512,
        oid=FALCON_512,
        key_size=897,
        signature_size_max=666,
        signature_oid=FALCON_512,
        certifiable=False,
    ),
    KeyForm(
        algorithm=KeyAlgorithm.FALCON_1024,
        oid=FALCON_1024,
        key_size=1_793,
        signature_size_max=1_280,
        signature_oid=FALCON_1024,
        certifiable=False,
    ),
)

FORM_OF: Final = {form.algorithm: form for form in KEY_FORMS}
FORM_BY_OID: Final = {form.oid: form for form in KEY_FORMS}
