"""The ordered operations `Issue` and `Renew`: typed fields around a certification request.

Payload = 0x02 || canonical msgpack of the fields below. The certification request info (RFC 2986
section 4.1) travels in the requester's own bytes, because the proof of possession is a signature
over them; `read_request_info` looks into it with our own reader and agrees with the typed fields or
says which rule it breaks. Signatures are not checked here: `signatures` lists what must hold.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from functools import cached_property
from typing import Final

from native import codec
from native.hashing import sha256
from trustchain import limits
from trustchain.core import der, oids
from trustchain.core.entries import dns_names, extension_value, read_extensions
from trustchain.core.keys import SubjectKey, check_signature_form
from trustchain.core.names import parse_names
from trustchain.core.outcomes import Outcome
from trustchain.errors import MalformedDER, MalformedName, MalformedOperation

PAYLOAD_TAG: Final = 0x02  # first byte of a payload that belongs to TrustChain
OPERATION_VERSION: Final = 1
REQUEST_DOMAIN: Final = b"hypermesh/request/v1"
ENROL_DOMAIN: Final = b"hypermesh/enrol/v1"
RENEW_DOMAIN: Final = b"hypermesh/renew/v1"

_DIGEST_SIZE_BYTES: Final = 32
_SIGNATURE_SIZE_BYTES_MAX: Final = 4_627  # ML-DSA-87
_ATTRIBUTES_TAG: Final = 0xA0
_ATTRIBUTES_COUNT_MAX: Final = 16


class Kind(IntEnum):
    """Which key authorises."""

    ISSUE = 1  # an enrolment key of genesis
    RENEW = 2  # the key of the entry being renewed


class Refused(Exception):
    """Carries the outcome of a check up to the one place that turns it into a code."""

    def __init__(self, outcome: Outcome) -> None:
        super().__init__(outcome.text)
        self.outcome = outcome


@dataclass(frozen=True, kw_only=True)
class Operation:
    """One request for a certificate, as ordered. Decoded, not yet judged.

    No slots: the request hash is computed once and kept.
    """

    chain_id: bytes
    kind: Kind
    log_format: str
    profile: int
    names: tuple[str, ...]
    spki: bytes
    request_info: bytes  # DER CertificationRequestInfo
    request_signature: bytes  # by the key in it
    request_id: bytes
    authority: bytes  # SHA-256 of the SPKI of the key that authorises
    renewed: int | None  # index of the entry being renewed
    authorisation: bytes  # signature over `authorised_message`

    @cached_property
    def request_hash(self) -> bytes:
        """What the authorisation covers, and what a receipt is found by."""
        return request_hash(
            chain_id=self.chain_id,
            kind=self.kind,
            log_format=self.log_format,
            profile=self.profile,
            names=self.names,
            spki=self.spki,
            request_info=self.request_info,
            request_id=self.request_id,
            authority=self.authority,
            renewed=self.renewed,
        )

    @property
    def authorised_message(self) -> bytes:
        """The bytes the authorising key signs."""
        return authorised_message(self.kind, self.chain_id, self.request_hash)

    def encode(self) -> bytes:
        """Return the payload to order."""
        return bytes((PAYLOAD_TAG,)) + codec.encode(
            (
                OPERATION_VERSION,
                self.chain_id,
                int(self.kind),
                self.log_format,
                self.profile,
                self.names,
                self.spki,
                self.request_info,
                self.request_signature,
                self.request_id,
                self.authority,
                self.renewed,
                self.authorisation,
            )
        )

    @staticmethod
    def decode(payload: bytes) -> Operation:
        """Decode a payload, or raise MalformedOperation."""
        if payload[:1] != bytes((PAYLOAD_TAG,)):
            raise MalformedOperation("not a payload of this application")
        try:
            fields = codec.decode(payload[1:], size_max=limits.OPERATION_SIZE_BYTES_MAX)
        except codec.CodecError as error:
            raise MalformedOperation(str(error)) from error
        match fields:
            case (
                1,
                bytes(chain_id),
                int(kind),
                str(log_format),
                int(profile),
                tuple(names),
                bytes(spki),
                bytes(request_info),
                bytes(request_signature),
                bytes(request_id),
                bytes(authority),
                int() | None as renewed,
                bytes(authorisation),
            ) if _plain_sizes(
                chain_id=chain_id,
                kind=kind,
                request_id=request_id,
                authority=authority,
                signatures=(request_signature, authorisation),
                names=names,
            ):
                pass
            case _:
                raise MalformedOperation("fields are not those of version 1")
        if (kind == Kind.RENEW) != (renewed is not None):
            raise MalformedOperation("only a renewal names an index")
        operation = Operation(
            chain_id=chain_id,
            kind=Kind(kind),
            log_format=log_format,
            profile=profile,
            names=tuple(str(name) for name in names),
            spki=spki,
            request_info=request_info,
            request_signature=request_signature,
            request_id=request_id,
            authority=authority,
            renewed=renewed,
            authorisation=authorisation,
        )
        if operation.encode() != payload:  # True where 1 belongs, for example
            raise MalformedOperation("fields are not of their types")
        return operation


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestInfo:
    """What a certification request asks for: a key and names."""

    key: SubjectKey
    names: tuple[str, ...]  # as listed, not yet judged


@dataclass(frozen=True, slots=True, kw_only=True)
class CertificationRequest:
    """A PKCS#10 request taken apart (RFC 2986 section 4.2)."""

    info: bytes
    signature: bytes
    content: RequestInfo

    def encode(self) -> bytes:
        """Return the DER of the whole request."""
        identifier = signature_identifier(self.content.key)
        return der.sequence(self.info, identifier, der.bits(self.signature))

    @staticmethod
    def of(info: bytes, signature: bytes) -> CertificationRequest:
        """Join request info and signature again, or raise MalformedDER."""
        return CertificationRequest(info=info, signature=signature, content=read_request_info(info))

    @staticmethod
    def decode(data: bytes) -> CertificationRequest:
        """Take a request apart strictly, or raise MalformedDER."""
        reader = der.Reader(data)
        outer = reader.sequence()
        reader.close()
        info = outer.encoded(der.SEQUENCE)
        algorithm = outer.encoded(der.SEQUENCE)
        signature = outer.octet_aligned_bits()
        outer.close()
        content = read_request_info(info)
        if algorithm != signature_identifier(content.key):
            raise MalformedDER("request is not signed with the algorithm of its key")
        return CertificationRequest(info=info, signature=signature, content=content)


def signature_identifier(key: SubjectKey) -> bytes:
    """Write the AlgorithmIdentifier of a signature by this key; parameters are absent."""
    return der.sequence(der.oid(key.form.signature_oid))


def read_request_info(data: bytes) -> RequestInfo:
    """Read a CertificationRequestInfo strictly, or raise MalformedDER.

    The subject and all attributes but the alternative names are well-formed and otherwise ignored:
    the profile decides what a certificate says. Without alternative names `names` is empty.
    """
    reader = der.Reader(data, size_max=limits.REQUEST_INFO_SIZE_BYTES_MAX)
    info = reader.sequence()
    reader.close()
    if info.unsigned(bits_max=8) != 0:
        raise MalformedDER("certification request is not version 1")
    info.encoded(der.SEQUENCE)  # subject
    key = SubjectKey.decode(info.encoded(der.SEQUENCE))
    names: tuple[str, ...] | None = None
    attributes = info.enter(_ATTRIBUTES_TAG)
    info.close()
    count = 0
    while attributes.more():
        count += 1
        if count > _ATTRIBUTES_COUNT_MAX:
            raise MalformedDER("too many attributes")
        attribute = attributes.sequence()
        oid = attribute.oid()
        if oid == oids.EXTENSION_REQUEST:
            if names is not None:
                raise MalformedDER("extensions are requested twice")
            names = _requested_names(attribute.enter(der.SET))
        else:
            attribute.encoded(der.SET)
        attribute.close()
    return RequestInfo(key=key, names=names or ())


def judge_form(operation: Operation, chain_id: bytes) -> SubjectKey:
    """Check everything about an operation that needs neither state nor a signature check.

    Returns the key to certify; raises Refused with the rule that was broken.
    """
    if operation.chain_id != chain_id:
        raise Refused(Outcome.WRONG_CHAIN)
    if operation.log_format != oids.LOG_FORMAT or operation.profile != oids.PROFILE_VERSION:
        raise Refused(Outcome.PROFILE_UNKNOWN)
    try:
        info = read_request_info(operation.request_info)
    except MalformedDER:
        raise Refused(Outcome.REQUEST_MALFORMED) from None
    if info.key.spki != operation.spki:
        raise Refused(Outcome.KEY_MISMATCH)
    if not info.key.form.certifiable:
        raise Refused(Outcome.KEY_UNSUPPORTED)
    try:
        names = parse_names(operation.names)
    except MalformedName:
        raise Refused(Outcome.NAMES_MALFORMED) from None
    if names != operation.names:
        raise Refused(Outcome.NAMES_MALFORMED)
    if set(info.names) != set(names):
        raise Refused(Outcome.NAMES_MISMATCH)
    try:
        check_signature_form(info.key.algorithm, operation.request_signature)
    except MalformedDER:
        raise Refused(Outcome.POSSESSION_UNPROVEN) from None
    return info.key


def request_hash(
    *,
    chain_id: bytes,
    kind: Kind,
    log_format: str,
    profile: int,
    names: tuple[str, ...],
    spki: bytes,
    request_info: bytes,
    request_id: bytes,
    authority: bytes,
    renewed: int | None,
) -> bytes:
    """Return the hash of everything a request asks for; signatures are not part of it."""
    fields = (int(kind), log_format, profile, names, spki, request_info, request_id)
    return sha256(REQUEST_DOMAIN + chain_id + codec.encode((*fields, authority, renewed)))


def authorised_message(kind: Kind, chain_id: bytes, digest: bytes) -> bytes:
    """Return what the authorising key signs for a request with this hash."""
    domain = ENROL_DOMAIN if kind is Kind.ISSUE else RENEW_DOMAIN
    return domain + chain_id + digest


def _plain_sizes(
    *,
    chain_id: bytes,
    kind: int,
    request_id: bytes,
    authority: bytes,
    signatures: tuple[bytes, ...],
    names: tuple[object, ...],
) -> bool:
    return (
        len(chain_id) == _DIGEST_SIZE_BYTES
        and kind in (Kind.ISSUE, Kind.RENEW)
        and len(request_id) == limits.REQUEST_ID_SIZE_BYTES
        and len(authority) == _DIGEST_SIZE_BYTES
        and all(len(signature) <= _SIGNATURE_SIZE_BYTES_MAX for signature in signatures)
        and len(names) <= limits.NAMES_COUNT_MAX
        and all(isinstance(name, str) for name in names)
    )


def _requested_names(values: der.Reader) -> tuple[str, ...]:
    """Read the one value of an extensionRequest attribute; its extensions may be empty."""
    if not values.next_is(der.SEQUENCE):
        raise MalformedDER("extension request has no value")
    extensions = read_extensions(values)
    if all(extension.oid != oids.SUBJECT_ALT_NAME for extension in extensions):
        return ()
    return dns_names(extension_value(extensions, oids.SUBJECT_ALT_NAME))
