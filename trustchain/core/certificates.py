"""The X.509 form of a log entry: read strictly, written from the entry, and derived back.

A certificate of ours is an entry plus what only X.509 needs: serial number, issuer of the chain,
its key id, and the reference to the log. Whoever has the certificate can therefore rebuild the
entry and look for it in the log; that is what makes a certificate count, not its signature alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from native.hashing import sha256
from trustchain import limits
from trustchain.core import der, oids
from trustchain.core.entries import (
    EXTENSIONS_TAG,
    VERSION_TAG,
    Entry,
    Extension,
    ca_name,
    extension_value,
    key_id_extension,
    log_authority,
    read_extensions,
    read_validity,
    write_extension,
)
from trustchain.core.keys import SubjectKey, algorithm_identifier
from trustchain.core.oids import KeyAlgorithm
from trustchain.errors import MalformedDER

SERIAL_INDEX_BITS: Final = 48
ISSUING_ALGORITHM: Final = KeyAlgorithm.ML_DSA_65

_VERSION_3: Final = der.element(VERSION_TAG, der.unsigned(2))
_KEY_ID_TAG: Final = 0x80
_KEY_CERT_SIGN: Final = 0x04  # bit 5 of the first octet of KeyUsage


@dataclass(frozen=True, slots=True, kw_only=True)
class LogReference:
    """Which entry of which log authorises a certificate."""

    origin: str
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Certificate:
    """One certificate, decoded strictly; encoded parts keep the bytes they came in."""

    encoded: bytes
    tbs: bytes
    serial: int
    signature_oid: str
    issuer: bytes
    validity: bytes
    not_before_s: int
    not_after_s: int
    subject: bytes
    key: SubjectKey
    extensions: tuple[Extension, ...]
    signature: bytes

    @staticmethod
    def decode(data: bytes) -> Certificate:
        """Decode one certificate, or raise MalformedDER."""
        reader = der.Reader(data)
        outer = reader.sequence()
        reader.close()
        tbs = outer.encoded(der.SEQUENCE)
        signature_algorithm = outer.encoded(der.SEQUENCE)
        signature = outer.octet_aligned_bits()
        outer.close()
        whole = der.Reader(tbs)
        fields = whole.sequence()
        if fields.encoded(VERSION_TAG) != _VERSION_3:
            raise MalformedDER("certificate is not version 3")
        serial = fields.unsigned(bits_max=159)
        if fields.encoded(der.SEQUENCE) != signature_algorithm:
            raise MalformedDER("the two signature algorithms differ")
        issuer = fields.encoded(der.SEQUENCE)
        validity = fields.encoded(der.SEQUENCE)
        subject = fields.encoded(der.SEQUENCE)
        key = SubjectKey.decode(fields.encoded(der.SEQUENCE))
        extensions = read_extensions(fields.enter(EXTENSIONS_TAG))
        fields.close()
        not_before_s, not_after_s = read_validity(validity)
        algorithm = der.Reader(signature_algorithm).sequence()
        signature_oid = algorithm.oid()
        algorithm.close()
        return Certificate(
            encoded=data,
            tbs=tbs,
            serial=serial,
            signature_oid=signature_oid,
            issuer=issuer,
            validity=validity,
            not_before_s=not_before_s,
            not_after_s=not_after_s,
            subject=subject,
            key=key,
            extensions=extensions,
            signature=signature,
        )

    @property
    def authority_key_id(self) -> bytes:
        """The key id of the issuer, or MalformedDER."""
        reader = der.Reader(extension_value(self.extensions, oids.AUTHORITY_KEY_ID))
        fields = reader.sequence()
        reader.close()
        key_id = fields.content(_KEY_ID_TAG)
        fields.close()
        return key_id

    @property
    def subject_key_id(self) -> bytes:
        """The key id this certificate gives its own key, or MalformedDER."""
        reader = der.Reader(extension_value(self.extensions, oids.SUBJECT_KEY_ID))
        key_id = reader.content(der.OCTET_STRING)
        reader.close()
        return key_id

    @property
    def log_reference(self) -> LogReference:
        """The log entry this certificate names, or MalformedDER."""
        reader = der.Reader(extension_value(self.extensions, oids.LOG_REFERENCE))
        fields = reader.sequence()
        reader.close()
        origin = fields.content(der.UTF8_STRING)
        index = fields.unsigned(bits_max=SERIAL_INDEX_BITS)
        fields.close()
        try:
            return LogReference(origin=origin.decode("ascii"), index=index)
        except UnicodeDecodeError as error:
            raise MalformedDER("log origin is not ASCII") from error

    def check_authority(self, *, path_length_max: int) -> None:
        """Raise MalformedDER unless this may sign certificates `path_length_max` levels deep."""
        found = {extension.oid: extension for extension in self.extensions}
        constraints = found.get(oids.BASIC_CONSTRAINTS)
        usage = found.get(oids.KEY_USAGE)
        if constraints is None or not constraints.critical:
            raise MalformedDER("basic constraints are missing or not critical")
        reader = der.Reader(constraints.value)
        fields = reader.sequence()
        reader.close()
        if not fields.next_is(der.BOOLEAN) or not fields.boolean():
            raise MalformedDER("not the certificate of an authority")
        if fields.more() and fields.unsigned(bits_max=8) > path_length_max:
            raise MalformedDER("path length is larger than the profile allows")
        fields.close()
        if usage is None or not usage.critical:
            raise MalformedDER("key usage is missing or not critical")
        octets = der.Reader(usage.value).content(der.BIT_STRING)
        if len(octets) < 2 or not octets[1] & _KEY_CERT_SIGN:
            raise MalformedDER("key may not sign certificates")
        known = _AUTHORITY_EXTENSIONS
        for extension in self.extensions:
            if extension.critical and extension.oid not in known:
                raise MalformedDER(f"critical extension {extension.oid} is not known")


def serial_number(*, log_number: int, index: int) -> int:
    """Return the serial number of the certificate of an entry."""
    return log_number << SERIAL_INDEX_BITS | index


def tbs_certificate(
    entry: Entry,
    key: SubjectKey,
    *,
    log_number: int,
    reference: LogReference,
    issuer: Certificate,
) -> bytes:
    """Write what an issuing key signs: the X.509 form of one entry."""
    extensions = [
        key_id_extension(issuer.subject_key_id) if kept.oid == oids.AUTHORITY_KEY_ID else kept
        for kept in entry.extensions
    ]
    extensions.append(_log_reference(reference))
    return der.sequence(
        _VERSION_3,
        der.unsigned(serial_number(log_number=log_number, index=reference.index)),
        algorithm_identifier(ISSUING_ALGORITHM),
        issuer.subject,
        entry.validity,
        entry.subject,
        key.spki,
        der.element(EXTENSIONS_TAG, der.sequence(*(extension.encoded for extension in extensions))),
    )


def certificate(tbs: bytes, signature: bytes) -> bytes:
    """Join what was signed and its signature."""
    return der.sequence(tbs, algorithm_identifier(ISSUING_ALGORITHM), der.bits(signature))


def derive_entry(leaf: Certificate, *, ca_id: str) -> Entry:
    """Rebuild the log entry that a certificate claims to be the X.509 form of.

    Every field but serial number, issuer, issuer key id and log reference goes into the entry, so a
    changed field gives another leaf hash; the caller compares the four others.
    """
    extensions = tuple(
        log_authority(ca_id) if kept.oid == oids.AUTHORITY_KEY_ID else kept
        for kept in leaf.extensions
        if kept.oid != oids.LOG_REFERENCE
    )
    return Entry(
        issuer=ca_name(ca_id),
        validity=leaf.validity,
        subject=leaf.subject,
        key_algorithm=algorithm_identifier(leaf.key.algorithm),
        key_hash=leaf.key.spki_hash,
        extensions=extensions,
        not_before_s=leaf.not_before_s,
        not_after_s=leaf.not_after_s,
    )


def key_id_of(key: SubjectKey) -> bytes:
    """Return the id an authority gives its key: 20 bytes of SHA-256 (RFC 7093 method 1)."""
    return sha256(key.raw)[:20]


def _log_reference(reference: LogReference) -> Extension:
    if not 0 <= reference.index <= limits.LOG_INDEX_MAX:
        raise MalformedDER("log index does not fit a serial number")
    return write_extension(
        oids.LOG_REFERENCE,
        der.sequence(
            der.element(der.UTF8_STRING, reference.origin.encode("ascii")),
            der.unsigned(reference.index),
        ),
    )


_AUTHORITY_EXTENSIONS: Final = frozenset(
    (
        oids.BASIC_CONSTRAINTS,
        oids.KEY_USAGE,
        oids.SUBJECT_KEY_ID,
        oids.AUTHORITY_KEY_ID,
        oids.EXTENDED_KEY_USAGE,
    )
)
