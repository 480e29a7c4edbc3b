"""What a requester does: draw a key, make a certification request, have it authorised.

Used by the command line and by load generators. It opens no socket: `encode_submission` gives the
body to post to any node.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.x509.oid import NameOID

from native.errors import NativeError
from native.keys import SecretKey
from native.values import Algorithm
from trustchain import limits
from trustchain.core.keys import SubjectKey
from trustchain.core.names import parse_names
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.requests import CertificationRequest, Operation
from trustchain.core.submission import build_operation, encode_submission
from trustchain.errors import KeyFileError, MalformedRequest
from trustchain.runtime.keyfiles import (
    RequesterKey,
    load_requester_key,
    read_private,
    subject_key,
    write_key,
)

__all__ = [
    "EnrolmentSigner",
    "RequesterKey",
    "certification_request",
    "encode_submission",
    "generate_key",
    "issue_operation",
    "load_enrolment_key",
    "load_requester_key",
    "new_request_id",
    "renew_operation",
    "subject_key",
    "write_key",
]


class EnrolmentSigner(Protocol):
    """A key that authorises requests."""

    @property
    def subject(self) -> SubjectKey:
        """Its public key."""
        ...

    def sign(self, message: bytes) -> bytes:
        """Sign one message."""
        ...


def generate_key(algorithm: KeyAlgorithm) -> RequesterKey:
    """Draw a fresh key for a certificate; raises MalformedRequest for other algorithms."""
    match algorithm:
        case KeyAlgorithm.ED25519:
            return ed25519.Ed25519PrivateKey.generate()
        case KeyAlgorithm.P256:
            return ec.generate_private_key(ec.SECP256R1())
        case KeyAlgorithm.ML_DSA_65:
            return mldsa.MLDSA65PrivateKey.generate()
        case _:
            raise MalformedRequest(f"certificates are not issued for {algorithm.value} keys yet")


def new_request_id() -> bytes:
    """Draw a request id; keep it for retries, so that they get the same certificate."""
    return os.urandom(limits.REQUEST_ID_SIZE_BYTES)


def certification_request(key: RequesterKey, names: Sequence[str]) -> bytes:
    """Make a PKCS#10 request, DER; raises MalformedName."""
    wanted = parse_names(tuple(names))
    builder = x509.CertificateSigningRequestBuilder(
        subject_name=x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, wanted[0][:64])])
    ).add_extension(
        x509.SubjectAlternativeName([x509.DNSName(name) for name in wanted]), critical=False
    )
    algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


def load_enrolment_key(path: Path, passphrase: str | None = None) -> EnrolmentSigner:
    """Read an enrolment key: our Falcon-512 key file, or Ed25519 in PKCS#8.

    Raises KeyFileError.
    """
    if read_private(path).startswith(b"-----BEGIN HYPERMESH SECRET KEY-----"):
        try:
            secret = SecretKey.load(path, passphrase)
        except NativeError as error:
            raise KeyFileError(str(error)) from error
        return FalconEnrolment(secret)
    key = load_requester_key(path, passphrase)
    if not isinstance(key, ed25519.Ed25519PrivateKey):
        raise KeyFileError(f"{path}: an enrolment key is a Falcon-512 or Ed25519 key")
    return Ed25519Enrolment(key)


class FalconEnrolment:
    """An enrolment key in the form `cluster new` makes."""

    def __init__(self, key: SecretKey) -> None:
        if key.algorithm is not Algorithm.FALCON_512:
            raise KeyFileError(f"an enrolment key is not a {key.algorithm.name_text} key")
        self._key = key
        self.subject = SubjectKey.decode(key.public.spki)

    def sign(self, message: bytes) -> bytes:
        """Sign one message."""
        return bytes(self._key.sign(message))


class Ed25519Enrolment:
    """An enrolment key that an operator brought along."""

    def __init__(self, key: ed25519.Ed25519PrivateKey) -> None:
        self._key = key
        self.subject = subject_key(key)

    def sign(self, message: bytes) -> bytes:
        """Sign one message."""
        return self._key.sign(message)


def issue_operation(
    request: bytes, *, chain_id: bytes, enrolment: EnrolmentSigner, request_id: bytes
) -> Operation:
    """Authorise a certification request (DER) with an enrolment key."""
    unsigned = build_operation(
        CertificationRequest.decode(request),
        chain_id=chain_id,
        request_id=request_id,
        authority=enrolment.subject.spki_hash,
        renewed=None,
        authorisation=b"",
    )
    return replace(unsigned, authorisation=enrolment.sign(unsigned.authorised_message))


def renew_operation(
    key: RequesterKey, names: Sequence[str], *, chain_id: bytes, index: int, request_id: bytes
) -> Operation:
    """Renew the certificate of the entry at `index` with the key it certifies."""
    unsigned = build_operation(
        CertificationRequest.decode(certification_request(key, names)),
        chain_id=chain_id,
        request_id=request_id,
        authority=subject_key(key).spki_hash,
        renewed=index,
        authorisation=b"",
    )
    return replace(unsigned, authorisation=_sign(key, unsigned.authorised_message))


def _sign(key: RequesterKey, message: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, ec.ECDSA(hashes.SHA256()))
    return key.sign(message)
