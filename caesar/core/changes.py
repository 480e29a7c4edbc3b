"""What is said about the validator set, and its exact bytes: changes and evidence.

A payload is `0x03 || canonical msgpack` of one of

    [1, 1, chain id, base epoch, base set hash, valid until, removes, adds, rotations,
     approvals, join proofs]
    [1, 2, chain id, offender's node id, [statement, statement]]
    [2, 1, the same as in version 1, but [name, SPKI, credentials] and longer join proofs]

*Change.* `removes` are names, `adds` and `rotations` `[name, SPKI]`; a rotation gives a member a
new key. An approval is `[index in the base set, signature over "hypermesh/validators/v1" || chain
id || msgpack [1, base epoch, base set hash, valid until, removes, adds, rotations]]`. The SHA-256
of those bytes is the change's id: who approves adds nothing to it. A join proof is `[height, header
hash, signature by the new key over "hypermesh/validator-join/v1" || chain id || msgpack [change id,
node id, height, header hash]]`, one for each new key in the order adds, rotations. It is no part of
what is approved, because it must be fresh when the change executes.

*Credentials* are what another application wants to know of a validator, opaque here and certified
with the set; version 2 is for a change in which somebody has them. They are approved like the key.
A join proof of version 2 ends with the evidence for them, bytes that application asks for.

*Evidence.* The statements are those of `consensus.core.evidence`. Its id names offender and
offence only, so that everybody who proves the same thing finds the same receipt.

Nothing here checks a signature or knows the present set: `validators` does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from caesar.errors import ValidatorPayloadMalformed
from caesar.limits import (
    JOINERS_PER_CHANGE_MAX,
    U64_MAX,
    VALIDATOR_NAME_LENGTH_MAX,
    VALIDATOR_PAYLOAD_SIZE_BYTES_MAX,
)
from consensus.core import wire
from consensus.core.evidence import Contradiction, read_contradiction
from consensus.core.types import Epoch
from consensus.core.validators import Validator
from consensus.errors import MalformedMessage
from consensus.limits import CREDENTIALS_SIZE_BYTES_MAX, MEMBERS_MAX
from native.codec import Value, decode, encode
from native.errors import NativeError
from native.hashing import sha256
from native.values import Digest, NodeId, PublicKey, Signature

TAG: Final = 3
VERSION: Final = 1
VERSION_CREDENTIALS: Final = 2  # of a change in which a new key has credentials
KIND_CHANGE: Final = 1
KIND_EVIDENCE: Final = 2
APPROVAL_DOMAIN: Final = b"hypermesh/validators/v1"
JOIN_DOMAIN: Final = b"hypermesh/validator-join/v1"
EVIDENCE_DOMAIN: Final = b"hypermesh/validator-evidence/v1"
NAME_PATTERN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What the operators agree to: everything an approval covers."""

    chain_id: Digest
    base_epoch: Epoch
    base_set: Digest  # hash of the set this applies to, and to no other
    valid_until: int  # last height at which it may execute
    removes: tuple[str, ...] = ()
    adds: tuple[Validator, ...] = ()
    rotations: tuple[Validator, ...] = ()

    def fields(self) -> tuple[Value, ...]:
        """What is approved, without the chain id."""
        return (
            self.version,
            int(self.base_epoch),
            self.base_set,
            self.valid_until,
            self.removes,
            tuple([self._joiner(entry) for entry in self.adds]),
            tuple([self._joiner(entry) for entry in self.rotations]),
        )

    @property
    def version(self) -> int:
        """Which form this change has; it follows from the content."""
        has_credentials = any(entry.credentials for entry in self.joiners)
        return VERSION_CREDENTIALS if has_credentials else VERSION

    @property
    def signed_bytes(self) -> bytes:
        """What an approval signs."""
        return APPROVAL_DOMAIN + self.chain_id + encode(self.fields())

    @property
    def id(self) -> Digest:
        """What the receipt is found by."""
        return Digest(sha256(self.signed_bytes))

    @property
    def joiners(self) -> tuple[Validator, ...]:
        """Whoever is new under a key, in the order of the join proofs."""
        return self.adds + self.rotations

    @property
    def names(self) -> tuple[str, ...]:
        """Every name the change speaks about."""
        return self.removes + tuple([entry.name for entry in self.joiners])

    def _joiner(self, entry: Validator) -> tuple[Value, ...]:
        if self.version == VERSION:
            return (entry.name, entry.key.spki)
        return (entry.name, entry.key.spki, entry.credentials)


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """One member of the base set agrees."""

    index: int
    signature: Signature


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinProof:
    """The holder of a new key has followed the chain up to a block."""

    height: int
    header_hash: Digest
    signature: Signature
    evidence: bytes = b""  # for the credentials, if there are any

    def value(self, version: int) -> tuple[Value, ...]:
        said = (self.height, self.header_hash, self.signature)
        return said if version == VERSION else (*said, self.evidence)


def join_bytes(change: Change, node_id: NodeId, height: int, header_hash: Digest) -> bytes:
    """What the new key signs."""
    return JOIN_DOMAIN + change.chain_id + encode((change.id, node_id, height, header_hash))


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedChange:
    """A change with what makes it count."""

    change: Change
    approvals: tuple[Approval, ...]  # rising by index
    proofs: tuple[JoinProof, ...]  # one for each of `change.joiners`

    @property
    def chain_id(self) -> Digest:
        return self.change.chain_id

    @property
    def id(self) -> Digest:
        return self.change.id

    def encode(self) -> bytes:
        """The payload."""
        version, *fields = self.change.fields()
        return bytes([TAG]) + encode(
            (
                version,
                KIND_CHANGE,
                self.change.chain_id,
                *fields,
                tuple([(entry.index, entry.signature) for entry in self.approvals]),
                tuple([proof.value(self.change.version) for proof in self.proofs]),
            )
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Accusation:
    """Proof that one validator said two things that exclude each other."""

    chain_id: Digest
    offender: NodeId
    proof: Contradiction

    @property
    def id(self) -> Digest:
        """Equal for all evidence of one offence of one offender."""
        named = encode((self.offender, int(self.proof.offence)))
        return Digest(sha256(EVIDENCE_DOMAIN + self.chain_id + named))

    def encode(self) -> bytes:
        """The payload."""
        return bytes([TAG]) + encode(
            (VERSION, KIND_EVIDENCE, self.chain_id, self.offender, self.proof.value())
        )


ValidatorPayload = SignedChange | Accusation


def decode_validator_payload(payload: bytes) -> ValidatorPayload:
    """Read a payload; raises `ValidatorPayloadMalformed`. Checks form only."""
    if payload[:1] != bytes([TAG]):
        raise ValidatorPayloadMalformed("the payload is not about validators")
    try:
        value = decode(payload[1:], size_max=VALIDATOR_PAYLOAD_SIZE_BYTES_MAX)
        return _payload(value)
    except (MalformedMessage, NativeError) as error:
        raise ValidatorPayloadMalformed(str(error)) from None


def _payload(value: Value) -> ValidatorPayload:
    if not isinstance(value, tuple) or len(value) < 2:
        raise MalformedMessage("expected a list")
    version, kind = wire.number(value[0]), wire.number(value[1])
    if kind == KIND_CHANGE and version in (VERSION, VERSION_CREDENTIALS):
        return _signed_change(value, version)
    if version != VERSION:
        raise MalformedMessage("another version")
    if kind == KIND_EVIDENCE:
        _, _, chain_id, offender, proof = wire.fields(value, 5)
        return Accusation(
            chain_id=wire.digest(chain_id),
            offender=NodeId(wire.digest(offender)),
            proof=read_contradiction(proof),
        )
    raise MalformedMessage("unknown kind of payload")


def _signed_change(value: Value, version: int) -> SignedChange:
    _, _, chain_id, epoch, base, until, removes, adds, rotations, approvals, proofs = wire.fields(
        value, 11
    )
    change = Change(
        chain_id=wire.digest(chain_id),
        base_epoch=Epoch(wire.number(epoch)),
        base_set=wire.digest(base),
        valid_until=wire.number(until, U64_MAX),
        removes=tuple([_name(entry) for entry in wire.rows(removes, MEMBERS_MAX)]),
        adds=tuple(
            [_validator(entry, version) for entry in wire.rows(adds, JOINERS_PER_CHANGE_MAX)]
        ),
        rotations=tuple(
            [_validator(entry, version) for entry in wire.rows(rotations, JOINERS_PER_CHANGE_MAX)]
        ),
    )
    if change.version != version:
        raise MalformedMessage("version 2 without credentials")
    if len(set(change.names)) != len(change.names):
        raise MalformedMessage("a change names a member twice")
    if not change.names:
        raise MalformedMessage("a change that changes nothing")
    joiners = len(change.joiners)
    signed = SignedChange(
        change=change,
        approvals=tuple([_approval(entry) for entry in wire.rows(approvals, MEMBERS_MAX)]),
        proofs=tuple([_proof(entry, version) for entry in wire.rows(proofs, joiners, joiners)]),
    )
    indexes = [entry.index for entry in signed.approvals]
    if indexes != sorted(set(indexes)):
        raise MalformedMessage("approvals do not rise by index")
    return signed


def _approval(value: Value) -> Approval:
    index, signature = wire.fields(value, 2)
    return Approval(index=wire.number(index, MEMBERS_MAX - 1), signature=wire.signature(signature))


def _proof(value: Value, version: int) -> JoinProof:
    evidence: Value = b""
    if version == VERSION:
        height, header_hash, signature = wire.fields(value, 3)
    else:
        height, header_hash, signature, evidence = wire.fields(value, 4)
    if type(evidence) is not bytes:
        raise MalformedMessage("expected the evidence of a joiner")
    return JoinProof(
        height=wire.number(height),
        header_hash=wire.digest(header_hash),
        signature=wire.signature(signature),
        evidence=evidence,
    )


def _validator(value: Value, version: int) -> Validator:
    credentials: Value = b""
    if version == VERSION:
        name, spki = wire.fields(value, 2)
    else:
        name, spki, credentials = wire.fields(value, 3)
    if type(credentials) is not bytes or len(credentials) > CREDENTIALS_SIZE_BYTES_MAX:
        raise MalformedMessage("expected credentials")
    if type(spki) is not bytes:
        raise MalformedMessage("expected a key")
    key = PublicKey.from_spki(spki)
    if not key.algorithm.is_falcon:
        raise MalformedMessage("validators have Falcon keys")
    return Validator(name=_name(name), key=key, credentials=credentials)


def _name(value: Value) -> str:
    if (
        type(value) is not str
        or len(value) > VALIDATOR_NAME_LENGTH_MAX
        or not NAME_PATTERN.fullmatch(value)
    ):
        raise MalformedMessage("expected the name of a validator")
    return value
