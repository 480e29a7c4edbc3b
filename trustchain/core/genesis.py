"""What every participant knows about the log before its first entry.

The genesis document of the network contains this as one section; `node` reads and writes the file.
It is also all that an offline verifier trusts: the root certificate, the cosigner keys, and how
many of them must agree.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from consensus.core.quorum import weak_quorum
from native import codec
from native.hashing import sha256
from trustchain import limits
from trustchain.core import oids
from trustchain.core.certificates import Certificate
from trustchain.core.keys import SubjectKey
from trustchain.core.names import grants, parse_name, parse_pattern
from trustchain.core.oids import FORM_OF, KeyAlgorithm
from trustchain.errors import MalformedDER, MalformedGenesis, MalformedName

ENROLMENT_ALGORITHMS: Final = (KeyAlgorithm.FALCON_512, KeyAlgorithm.ED25519)

_COSIGNER_ARC: Final = 2  # below the enterprise, beside the CA id: reference 1.7
_COSIGNER_NUMBER_SIZE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentKey:
    """A key that may authorise certificates, and for which names."""

    label: str
    spki: bytes
    patterns: tuple[str, ...]

    @property
    def key_id(self) -> bytes:
        """How an operation names this key."""
        return sha256(self.spki)

    @property
    def key(self) -> SubjectKey:
        """The decoded key."""
        return SubjectKey.decode(self.spki)

    def grants(self, name: str) -> bool:
        """Say whether this key may authorise a name."""
        return any(grants(pattern, name) for pattern in self.patterns)


@dataclass(frozen=True, kw_only=True)
class LogGenesis:
    """The log section of a genesis. Raises MalformedGenesis when it cannot be true."""

    ca_id: str  # trust anchor id, relative to the enterprise arc
    log_number: int
    trust_domain: str
    cosigner_keys: tuple[bytes, ...]  # ML-DSA-44, one a validator, in the validators' order
    root_certificate: bytes  # DER
    issuing_certificates: tuple[bytes, ...]  # DER, one a validator, in the validators' order
    enrolment_keys: tuple[EnrolmentKey, ...]
    leaf_life_s: int = limits.LEAF_LIFE_S
    backdate_s: int = limits.BACKDATE_S
    renewal_grace_s: int = limits.RENEWAL_GRACE_S
    log_format: str = oids.LOG_FORMAT
    profile: int = oids.PROFILE_VERSION

    def __post_init__(self) -> None:
        try:
            self._check()
        except (MalformedDER, MalformedName) as error:
            raise MalformedGenesis(f"log: {error}") from error

    @cached_property
    def origin(self) -> str:
        """The name of the log on a checkpoint (C2SP mtc-tlog)."""
        return f"oid/{oids.ENTERPRISE_ARC}.{self.ca_id}.0.{self.log_number}"

    @cached_property
    def cosigner_names(self) -> tuple[str, ...]:
        """The name of each founder on a checkpoint, outside the arc of the CA id."""
        return tuple(
            f"{self._cosigner_arc}.{place}" for place in range(1, len(self.cosigner_keys) + 1)
        )

    def cosigner_name_of(self, cosigner_key: bytes) -> str:
        """The name on a checkpoint of a validator that joined later: it follows from its key.

        A number of 128 bits as in a UUID's arc (X.667), which no founder's place is.
        """
        number = int.from_bytes(sha256(cosigner_key)[:_COSIGNER_NUMBER_SIZE_BYTES], "big")
        return f"{self._cosigner_arc}.{number | 1 << 127}"

    @property
    def cosignatures_needed(self) -> int:
        """W of the founders: how many cosignatures make a checkpoint count in epoch 0."""
        return weak_quorum(len(self.cosigner_keys))

    def enrolment_key(self, key_id: bytes) -> EnrolmentKey | None:
        """Return the enrolment key with this id."""
        return self._enrolment_by_id.get(key_id)

    def fields(self) -> tuple[codec.Value, ...]:
        """Return the canonical fields, as they enter the chain id."""
        return (
            self.log_format,
            self.profile,
            self.ca_id,
            self.log_number,
            self.trust_domain,
            self.cosigner_keys,
            self.root_certificate,
            self.issuing_certificates,
            tuple((key.label, key.spki, key.patterns) for key in self.enrolment_keys),
            self.leaf_life_s,
            self.backdate_s,
            self.renewal_grace_s,
        )

    def document(self) -> dict[str, object]:
        """Return the same as a JSON object, byte strings in base64."""
        return {
            "format": self.log_format,
            "profile": self.profile,
            "ca_id": self.ca_id,
            "log_number": self.log_number,
            "trust_domain": self.trust_domain,
            "cosigner_keys": [_text(key) for key in self.cosigner_keys],
            "root_certificate": _text(self.root_certificate),
            "issuing_certificates": [_text(der) for der in self.issuing_certificates],
            "enrolment_keys": [
                {"label": key.label, "spki": _text(key.spki), "patterns": list(key.patterns)}
                for key in self.enrolment_keys
            ],
            "leaf_life_s": self.leaf_life_s,
            "backdate_s": self.backdate_s,
            "renewal_grace_s": self.renewal_grace_s,
        }

    @staticmethod
    def from_document(document: object) -> LogGenesis:
        """Read the JSON object back, or raise MalformedGenesis naming the key at fault."""
        section = _Section(document, "log")
        genesis = LogGenesis(
            log_format=section.text("format"),
            profile=section.number("profile"),
            ca_id=section.text("ca_id"),
            log_number=section.number("log_number"),
            trust_domain=section.text("trust_domain"),
            cosigner_keys=section.octets_list("cosigner_keys"),
            root_certificate=section.octets("root_certificate"),
            issuing_certificates=section.octets_list("issuing_certificates"),
            enrolment_keys=tuple(
                _enrolment_key(_Section(item, f"log.enrolment_keys[{place}]"))
                for place, item in enumerate(section.items("enrolment_keys"))
            ),
            leaf_life_s=section.number("leaf_life_s"),
            backdate_s=section.number("backdate_s"),
            renewal_grace_s=section.number("renewal_grace_s"),
        )
        section.close()
        return genesis

    @cached_property
    def _cosigner_arc(self) -> str:
        enterprise = self.ca_id.split(".")[0]
        return f"oid/{oids.ENTERPRISE_ARC}.{enterprise}.{_COSIGNER_ARC}"

    @cached_property
    def _enrolment_by_id(self) -> dict[bytes, EnrolmentKey]:
        return {key.key_id: key for key in self.enrolment_keys}

    def _check(self) -> None:
        if (self.log_format, self.profile) != (oids.LOG_FORMAT, oids.PROFILE_VERSION):
            raise MalformedGenesis(f"log: format {self.log_format!r} is not known")
        arcs = self.ca_id.split(".")
        if len(arcs) < 2 or not all(_is_arc(arc) for arc in arcs):
            raise MalformedGenesis(f"log: {self.ca_id!r} is not a trust anchor id like 32473.1")
        if len(arcs) == 2 and arcs[1] == str(_COSIGNER_ARC):
            raise MalformedGenesis("log: the CA id is the arc of the cosigners")
        if not 1 <= self.log_number <= limits.LOG_NUMBER_MAX:
            raise MalformedGenesis(f"log: number {self.log_number} is out of range")
        parse_name(self.trust_domain)
        self._check_keys()
        root = Certificate.decode(self.root_certificate)
        root.check_authority(path_length_max=1)
        for encoded in self.issuing_certificates:
            issuing = Certificate.decode(encoded)
            issuing.check_authority(path_length_max=0)
            if issuing.issuer != root.subject:
                raise MalformedGenesis("log: an issuing certificate is not under the root")
        if not limits.LEAF_LIFE_S_MIN <= self.leaf_life_s <= limits.LEAF_LIFE_S_MAX:
            raise MalformedGenesis(f"log: a leaf life of {self.leaf_life_s} s is out of range")
        if not 0 <= self.backdate_s <= limits.BACKDATE_S_MAX:
            raise MalformedGenesis(f"log: backdating by {self.backdate_s} s is out of range")
        if not 0 <= self.renewal_grace_s <= limits.LEAF_LIFE_S_MAX:
            raise MalformedGenesis(f"log: a grace of {self.renewal_grace_s} s is out of range")

    def _check_keys(self) -> None:
        count = len(self.cosigner_keys)
        if not 1 <= count <= limits.VALIDATORS_COUNT_MAX:
            raise MalformedGenesis(f"log: {count} cosigners are out of range")
        if count != len(self.issuing_certificates):
            raise MalformedGenesis("log: cosigners and issuing certificates differ in number")
        if len(set(self.cosigner_keys)) != count:
            raise MalformedGenesis("log: two validators share a cosigner key")
        size = FORM_OF[KeyAlgorithm.ML_DSA_44].key_size
        if any(len(key) != size for key in self.cosigner_keys):
            raise MalformedGenesis("log: a cosigner key is not an ML-DSA-44 key")
        if len(self.enrolment_keys) > limits.ENROLMENT_KEYS_COUNT_MAX:
            raise MalformedGenesis("log: too many enrolment keys")
        for key in self.enrolment_keys:
            if key.key.algorithm not in ENROLMENT_ALGORITHMS:
                raise MalformedGenesis(f"log: enrolment key {key.label!r} has a wrong algorithm")
            if not 1 <= len(key.patterns) <= limits.PATTERNS_COUNT_MAX:
                raise MalformedGenesis(f"log: enrolment key {key.label!r} has no pattern")
            for pattern in key.patterns:
                parse_pattern(pattern)
        if len(self._enrolment_by_id) != len(self.enrolment_keys):
            raise MalformedGenesis("log: an enrolment key is listed twice")


class _Section:
    """One JSON object, each key read once with its type."""

    def __init__(self, document: object, path: str) -> None:
        if not isinstance(document, Mapping):
            raise MalformedGenesis(f"{path} is not an object")
        self._path = path
        self._left: dict[str, object] = {str(key): value for key, value in document.items()}

    def close(self) -> None:
        if self._left:
            raise MalformedGenesis(f"{self._path}.{min(self._left)} is not known")

    def text(self, key: str) -> str:
        value = self._take(key)
        if not isinstance(value, str):
            raise MalformedGenesis(f"{self._path}.{key} is not text")
        return value

    def number(self, key: str) -> int:
        value = self._take(key)
        if not isinstance(value, int) or isinstance(value, bool):
            raise MalformedGenesis(f"{self._path}.{key} is not a whole number")
        return value

    def octets(self, key: str) -> bytes:
        return self._octets(self._take(key), key)

    def octets_list(self, key: str) -> tuple[bytes, ...]:
        return tuple(self._octets(item, key) for item in self.items(key))

    def items(self, key: str) -> Sequence[object]:
        value = self._take(key)
        if not isinstance(value, list):
            raise MalformedGenesis(f"{self._path}.{key} is not a list")
        return value

    def _octets(self, value: object, key: str) -> bytes:
        if not isinstance(value, str):
            raise MalformedGenesis(f"{self._path}.{key} is not base64 text")
        try:
            return base64.b64decode(value, validate=True)
        except (binascii.Error, ValueError) as error:
            raise MalformedGenesis(f"{self._path}.{key} is not base64 text") from error

    def _take(self, key: str) -> object:
        try:
            return self._left.pop(key)
        except KeyError:
            raise MalformedGenesis(f"{self._path}.{key} is missing") from None


def _enrolment_key(section: _Section) -> EnrolmentKey:
    patterns = section.items("patterns")
    if not all(isinstance(pattern, str) for pattern in patterns):
        raise MalformedGenesis("log.enrolment_keys: a pattern is not text")
    key = EnrolmentKey(
        label=section.text("label"),
        spki=section.octets("spki"),
        patterns=tuple(str(pattern) for pattern in patterns),
    )
    section.close()
    return key


def _is_arc(text: str) -> bool:
    return text.isascii() and text.isdigit() and text == str(int(text)) and int(text) < 1 << 32


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
