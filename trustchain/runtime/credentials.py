"""The log keys of a validator that joins: made on its machine, judged on all.

`acceptable` runs while a block is executed, so every validator must come to the same answer: it
uses our own decoders, signature checks, genesis and its arguments.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from native.hashing import sha256
from native.values import Algorithm
from trustchain.core.certificates import ISSUING_ALGORITHM, Certificate
from trustchain.core.genesis import LogGenesis
from trustchain.core.keys import SubjectKey
from trustchain.core.oids import FORM_OF, KeyAlgorithm
from trustchain.core.roster import Credentials, Evidence, possession_message
from trustchain.errors import KeyFileError, MalformedCredentials, MalformedDER
from trustchain.runtime.signatures import SignatureInvalid, verify_signature

if TYPE_CHECKING:
    from native.keys import SecretKey


def acceptable(
    genesis: LogGenesis,
    chain_id: bytes,
    *,
    spki: bytes,
    credentials: bytes,
    evidence: bytes,
    others: Iterable[bytes],
) -> bool:
    """Whether a node holds the log keys it names, and may be a validator beside `others`.

    `others` are the credentials of the rest of the set, empty ones of founders included. Nobody
    takes a founder's cosigner key, not even after that founder left: a key has one holder.
    """
    try:
        named = Credentials.decode(credentials)
        shown = Evidence.decode(evidence)
        if named.cosigner_key in genesis.cosigner_keys:
            return False
        if named.cosigner_key in _cosigner_keys(others):
            return False
        message = possession_message(chain_id, spki, credentials)
        cosigner = SubjectKey.of(KeyAlgorithm.ML_DSA_44, named.cosigner_key)
        verify_signature(cosigner, message, shown.cosigner_signature)
        if not shown.issuing_certificate:
            return not named.issuing_hash
        if sha256(shown.issuing_certificate) != named.issuing_hash:
            return False
        issuing = check_issuing(genesis, shown.issuing_certificate)
        verify_signature(issuing.key, message, shown.issuing_signature)
    except (MalformedCredentials, MalformedDER, SignatureInvalid):
        return False
    return True


def _cosigner_keys(credentials: Iterable[bytes]) -> list[bytes]:
    return [Credentials.decode(data).cosigner_key for data in credentials if data]


def check_issuing(genesis: LogGenesis, encoded: bytes) -> Certificate:
    """Read an issuing certificate under the root of genesis; raises MalformedDER for others."""
    root = Certificate.decode(genesis.root_certificate)
    issuing = Certificate.decode(encoded)
    issuing.check_authority(path_length_max=0)
    if issuing.key.algorithm is not ISSUING_ALGORITHM:
        raise MalformedDER("the issuing key is not an ML-DSA-65 key")
    if issuing.issuer != root.subject or issuing.authority_key_id != root.subject_key_id:
        raise MalformedDER("the issuing certificate is not under the root of genesis")
    if issuing.signature_oid != FORM_OF[root.key.algorithm].signature_oid:
        raise MalformedDER("the issuing certificate is signed with another algorithm")
    try:
        verify_signature(root.key, issuing.tbs, issuing.signature)
    except SignatureInvalid as error:
        raise MalformedDER("the root did not sign this issuing certificate") from error
    return issuing


def make_credentials(cosigner_key: bytes, issuing_certificate: bytes) -> bytes:
    """Name the log keys of a node; the certificate may be empty."""
    return Credentials(
        cosigner_key=cosigner_key,
        issuing_hash=sha256(issuing_certificate) if issuing_certificate else b"",
    ).encode()


def make_evidence(
    chain_id: bytes,
    *,
    spki: bytes,
    credentials: bytes,
    cosigner: SecretKey,
    issuing: SecretKey | None,
    issuing_certificate: bytes,
) -> bytes:
    """Show that a node holds the keys that its credentials name; raises KeyFileError if not."""
    own = issuing if issuing_certificate else None
    if cosigner.algorithm is not Algorithm.ML_DSA_44:
        raise KeyFileError(f"the cosigner key is a {cosigner.algorithm.name_text} key")
    if credentials != make_credentials(cosigner.public.raw, issuing_certificate):
        raise KeyFileError("the keys of this home are not those that were proposed and approved")
    if issuing_certificate and own is None:
        raise KeyFileError("there is an issuing certificate without its key")
    message = possession_message(chain_id, spki, credentials)
    return Evidence(
        cosigner_signature=bytes(cosigner.sign(message)),
        issuing_certificate=issuing_certificate,
        issuing_signature=b"" if own is None else bytes(own.sign(message)),
    ).encode()
