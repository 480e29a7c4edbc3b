"""The log entry: what a certificate says, in the Merkle Tree Certificate encoding.

draft-ietf-plants-merkle-tree-certs section 5: an `MTCLogEntry` is two bytes of (no) entry
extensions, the entry type, and the contents octets of a `TBSCertificateLogEntry`, which is a
TBSCertificate without serial number and signature algorithm and with the key replaced by its
algorithm and hash. The X.509 form of an entry lives in `certificates.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

from native.hashing import leaf_hash
from trustchain import limits
from trustchain.core import der, oids
from trustchain.core.keys import SubjectKey, algorithm_identifier
from trustchain.errors import MalformedDER

ENTRY_HEADER: Final = b"\x00\x00\x00\x01"  # no entry extensions; type tbs_cert_entry

VERSION_TAG: Final = 0xA0
EXTENSIONS_TAG: Final = 0xA3
_VERSION_3: Final = der.element(VERSION_TAG, der.unsigned(2))
_KEY_ID_TAG: Final = 0x80  # [0] of AuthorityKeyIdentifier
_DNS_NAME_TAG: Final = 0x82  # [2] of GeneralName
_URI_TAG: Final = 0x86  # [6] of GeneralName
_DIGITAL_SIGNATURE: Final = b"\x07\x80"  # seven unused bits, bit 0


@dataclass(frozen=True, slots=True)
class Extension:
    """One extension as it was read; `encoded` is all of its bytes."""

    oid: str
    critical: bool
    value: bytes
    encoded: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """The parts of one log entry, each in its encoded form, and its validity."""

    issuer: bytes
    validity: bytes
    subject: bytes
    key_algorithm: bytes
    key_hash: bytes
    extensions: tuple[Extension, ...]
    not_before_s: int
    not_after_s: int

    def encode(self) -> bytes:
        """Return the entry bytes, whose leaf hash is in the tree."""
        return b"".join(
            (
                ENTRY_HEADER,
                _VERSION_3,
                self.issuer,
                self.validity,
                self.subject,
                self.key_algorithm,
                der.element(der.OCTET_STRING, self.key_hash),
                der.element(
                    EXTENSIONS_TAG,
                    der.sequence(*(extension.encoded for extension in self.extensions)),
                ),
            )
        )

    @property
    def leaf(self) -> bytes:
        """The hash of this entry as a leaf of the tree (RFC 9162 section 2.1.1)."""
        return bytes(leaf_hash(self.encode()))

    @property
    def names(self) -> tuple[str, ...]:
        """The DNS names of the entry, in their order."""
        return tuple(
            value.decode("ascii")
            for tag, value in self._alternative_names()
            if tag == _DNS_NAME_TAG
        )

    @property
    def permanent_id(self) -> bytes:
        """The permanent id of the holder, from the subject."""
        text = read_common_name(self.subject)
        try:
            return bytes.fromhex(text)
        except ValueError as error:
            raise MalformedDER("subject is not a permanent id") from error

    def _alternative_names(self) -> list[tuple[int, bytes]]:
        return read_alternative_names(extension_value(self.extensions, oids.SUBJECT_ALT_NAME))

    @staticmethod
    def decode(data: bytes) -> Entry:
        """Decode entry bytes, or raise MalformedDER."""
        if data[: len(ENTRY_HEADER)] != ENTRY_HEADER:
            raise MalformedDER("not a tbs_cert_entry")
        reader = der.Reader(data[len(ENTRY_HEADER) :])
        if reader.encoded(VERSION_TAG) != _VERSION_3:
            raise MalformedDER("entry is not version 3")
        issuer = reader.encoded(der.SEQUENCE)
        validity = reader.encoded(der.SEQUENCE)
        subject = reader.encoded(der.SEQUENCE)
        key_algorithm = reader.encoded(der.SEQUENCE)
        key_hash = reader.content(der.OCTET_STRING)
        extensions = read_extensions(reader.enter(EXTENSIONS_TAG))
        reader.close()
        not_before_s, not_after_s = read_validity(validity)
        return Entry(
            issuer=issuer,
            validity=validity,
            subject=subject,
            key_algorithm=key_algorithm,
            key_hash=key_hash,
            extensions=extensions,
            not_before_s=not_before_s,
            not_after_s=not_after_s,
        )


def leaf_entry(
    *,
    ca_id: str,
    trust_domain: str,
    permanent_id: bytes,
    names: Sequence[str],
    key: SubjectKey,
    not_before_s: int,
    not_after_s: int,
) -> Entry:
    """Build the entry of a leaf of profile 1 (reference 1.6)."""
    return Entry(
        issuer=ca_name(ca_id),
        validity=write_validity(not_before_s, not_after_s),
        subject=common_name(permanent_id.hex()),
        key_algorithm=algorithm_identifier(key.algorithm),
        key_hash=key.spki_hash,
        extensions=(
            *_FIXED_EXTENSIONS,
            write_extension(
                oids.SUBJECT_ALT_NAME,
                der.sequence(
                    *(der.element(_DNS_NAME_TAG, name.encode("ascii")) for name in names),
                    der.element(_URI_TAG, holder_uri(trust_domain, permanent_id).encode("ascii")),
                ),
            ),
            log_authority(ca_id),
        ),
        not_before_s=not_before_s,
        not_after_s=not_after_s,
    )


def holder_uri(trust_domain: str, permanent_id: bytes) -> str:
    """Return the URI that names a holder across its certificates."""
    return f"spiffe://{trust_domain}/node/{permanent_id.hex()}"


@lru_cache(maxsize=16)
def ca_name(ca_id: str) -> bytes:
    """Write the issuer name of an entry: one attribute with the CA id."""
    return _name(oids.MTC_CA_ID, ca_id)


def common_name(text: str) -> bytes:
    """Write a Name of one common name."""
    return _name(oids.COMMON_NAME, text)


def read_common_name(encoded: bytes) -> str:
    """Read a Name that consists of one common name, or raise MalformedDER."""
    reader = der.Reader(encoded)
    name = reader.sequence()
    reader.close()
    relative = name.enter(der.SET)
    name.close()
    attribute = relative.sequence()
    relative.close()
    if attribute.oid() != oids.COMMON_NAME:
        raise MalformedDER("name is not a common name")
    text = attribute.content(der.UTF8_STRING)
    attribute.close()
    return _ascii(text)


def key_id_extension(key_id: bytes) -> Extension:
    """Write an AuthorityKeyIdentifier that holds a key id only."""
    return write_extension(oids.AUTHORITY_KEY_ID, der.sequence(der.element(_KEY_ID_TAG, key_id)))


@lru_cache(maxsize=16)
def log_authority(ca_id: str) -> Extension:
    """Write the AuthorityKeyIdentifier of an entry: the CA id in its binary form."""
    return key_id_extension(der.relative_oid_contents(ca_id))


def write_extension(oid: str, value: bytes, *, critical: bool = False) -> Extension:
    """Write one extension."""
    flag = b"\x01\x01\xff" if critical else b""
    return Extension(
        oid,
        critical,
        value,
        der.sequence(der.oid(oid), flag, der.element(der.OCTET_STRING, value)),
    )


def read_extensions(wrapper: der.Reader) -> tuple[Extension, ...]:
    """Read the extensions inside their explicit tag; an identifier may appear once."""
    listed = wrapper.sequence()
    wrapper.close()
    found: list[Extension] = []
    while listed.more():
        encoded = listed.encoded(der.SEQUENCE)
        reader = der.Reader(encoded)
        fields = reader.sequence()
        oid = fields.oid()
        critical = fields.next_is(der.BOOLEAN)
        if critical and not fields.boolean():
            raise MalformedDER("a default value is written out")
        value = fields.content(der.OCTET_STRING)
        fields.close()
        if any(extension.oid == oid for extension in found):
            raise MalformedDER(f"extension {oid} appears twice")
        found.append(Extension(oid, critical, value, encoded))
    if not found:
        raise MalformedDER("list of extensions is empty")
    return tuple(found)


def extension_value(extensions: Sequence[Extension], oid: str) -> bytes:
    """Return the value of the extension with this identifier, or raise MalformedDER."""
    for extension in extensions:
        if extension.oid == oid:
            return extension.value
    raise MalformedDER(f"extension {oid} is missing")


def read_alternative_names(value: bytes) -> list[tuple[int, bytes]]:
    """Read a SubjectAltName as pairs of GeneralName tag and ASCII contents."""
    reader = der.Reader(value)
    listed = reader.sequence()
    reader.close()
    found: list[tuple[int, bytes]] = []
    while listed.more():
        tag = listed.tag()
        content = listed.content(tag)
        if len(found) > limits.NAMES_COUNT_MAX:
            raise MalformedDER(f"more than {limits.NAMES_COUNT_MAX} names")
        found.append((tag, content))
    return found


def dns_names(value: bytes) -> tuple[str, ...]:
    """Read a SubjectAltName that holds DNS names only, or raise MalformedDER."""
    found = read_alternative_names(value)
    if any(tag != _DNS_NAME_TAG for tag, _ in found):
        raise MalformedDER("alternative names other than DNS names are not certified")
    return tuple(_ascii(content) for _, content in found)


def write_validity(not_before_s: int, not_after_s: int) -> bytes:
    """Write a Validity; years before 2050 as UTCTime (RFC 5280 section 4.1.2.5)."""
    return der.sequence(_time(not_before_s), _time(not_after_s))


def read_validity(encoded: bytes) -> tuple[int, int]:
    """Read a Validity as Unix seconds, or raise MalformedDER."""
    reader = der.Reader(encoded)
    pair = reader.sequence()
    reader.close()
    not_before_s, not_after_s = _read_time(pair), _read_time(pair)
    pair.close()
    return not_before_s, not_after_s


def _name(attribute: str, text: str) -> bytes:
    value = der.element(der.UTF8_STRING, text.encode("ascii"))
    return der.sequence(der.element(der.SET, der.sequence(der.oid(attribute), value)))


def _time(unix_s: int) -> bytes:
    moment = datetime.fromtimestamp(unix_s, UTC)
    digits = (
        f"{moment.year:04}{moment.month:02}{moment.day:02}"
        f"{moment.hour:02}{moment.minute:02}{moment.second:02}Z"
    )
    if 1950 <= moment.year < 2050:
        return der.element(der.UTC_TIME, digits[2:].encode("ascii"))
    return der.element(der.GENERALIZED_TIME, digits.encode("ascii"))


def _read_time(reader: der.Reader) -> int:
    short = reader.next_is(der.UTC_TIME)
    text = _ascii(reader.content(der.UTC_TIME if short else der.GENERALIZED_TIME))
    size = 12 if short else 14
    digits = text[:-1]
    if len(text) != size + 1 or text[-1] != "Z" or not digits.isdigit():
        raise MalformedDER("time is not in the form of RFC 5280")
    if short:
        digits = ("19" if digits >= "50" else "20") + digits
    month, day, hour, minute, second = (int(digits[at : at + 2]) for at in range(4, 14, 2))
    year = int(digits[:4])
    if not short and 1950 <= year < 2050:
        raise MalformedDER("time before 2050 is not written as UTCTime")
    try:
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC)
    except ValueError as error:
        raise MalformedDER("time does not exist") from error
    return int(moment.timestamp())


def _ascii(data: bytes) -> str:
    try:
        return data.decode("ascii")
    except UnicodeDecodeError as error:
        raise MalformedDER("text is not ASCII") from error


_FIXED_EXTENSIONS: Final = (
    write_extension(oids.BASIC_CONSTRAINTS, der.sequence(), critical=True),
    write_extension(oids.KEY_USAGE, der.element(der.BIT_STRING, _DIGITAL_SIGNATURE), critical=True),
    write_extension(
        oids.EXTENDED_KEY_USAGE,
        der.sequence(
            der.oid(oids.SERVER_AUTH), der.oid(oids.CLIENT_AUTH), der.oid(oids.STOQ_PURPOSE)
        ),
    ),
)
