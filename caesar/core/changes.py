"""What is said about the validator set, and its exact bytes: changes and evidence.

A payload is `0x03 || canonical msgpack` of one of

    [1, 1, chain id, base epoch, base set hash, valid until, removes, adds, rotations,
     approvals, join proofs]
    [1, 2, chain id, offender's node id, [statement, statement]]

*Change.* `removes` are names, `adds` and `rotations` `[name, SPKI]`; a rotation gives a member a
new key. An approval is `[index in the base set, signature over "hypermesh/validators/v1" || chain
id || msgpack [1, base epoch, base set hash, valid until, removes, adds, rotations]]`. The SHA-256
of those bytes is the change's id: who approves adds nothing to it. A join proof is `[height, header
hash, signature by the new key over "hypermesh/validator-join/v1" || chain id || msgpack [change id,
node id, height, header hash]]`, one for each new key in the order adds, rotations. It is no part of
what is approved, because it must be fresh when the change executes.

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
from consensus.limits import MEMBERS_MAX
from native.codec import Value, decode, encode
from native.errors import NativeError
from native.hashing import sha256
from native.values import Digest, NodeId, PublicKey, Signature

TAG: Final = 3
VERSION: Final = 1
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
            VERSION,
            int(self.base_epoch),
            self.base_set,
            self.valid_until,
            self.removes,
            tuple([(entry.name, entry.key.spki) for entry in self.adds]),
            tuple([(entry.name, entry.key.spki) for entry in self.rotations]),
        )

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

    def value(self) -> tuple[Value, ...]:
        return (self.height, self.header_hash, self.signature)


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
                tuple([proof.value() for proof in self.proofs]),
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
    if wire.number(value[0]) != VERSION:
        raise MalformedMessage("another version")
    if wire.number(value[1]) == KIND_CHANGE:
        return _signed_change(value)
    if value[1] == KIND_EVIDENCE:
        _, _, chain_id, offender, proof = wire.fields(value, 5)
        return Accusation(
            chain_id=wire.digest(chain_id),
            offender=NodeId(wire.digest(offender)),
            proof=read_contradiction(proof),
        )
    raise MalformedMessage("unknown kind of payload")


def _signed_change(value: Value) -> SignedChange:
    _, _, chain_id, epoch, base, until, removes, adds, rotations, approvals, proofs = wire.fields(
        value, 11
    )
    change = Change(
        chain_id=wire.digest(chain_id),
        base_epoch=Epoch(wire.number(epoch)),
        base_set=wire.digest(base),
        valid_until=wire.number(until, U64_MAX),
        removes=tuple([_name(entry) for entry in wire.rows(removes, MEMBERS_MAX)]),
        adds=tuple([_validator(entry) for entry in wire.rows(adds, JOINERS_PER_CHANGE_MAX)]),
        rotations=tuple(
            [_validator(entry) for entry in wire.rows(rotations, JOINERS_PER_CHANGE_MAX)]
        ),
    )
    if len(set(change.names)) != len(change.names):
        raise MalformedMessage("a change names a member twice")
    if not change.names:
        raise MalformedMessage("a change that changes nothing")
    joiners = len(change.joiners)
    signed = SignedChange(
        change=change,
        approvals=tuple([_approval(entry) for entry in wire.rows(approvals, MEMBERS_MAX)]),
        proofs=tuple([_proof(entry) for entry in wire.rows(proofs, joiners, joiners)]),
    )
    indexes = [entry.index for entry in signed.approvals]
    if indexes != sorted(set(indexes)):
        raise MalformedMessage("approvals do not rise by index")
    return signed


def _approval(value: Value) -> Approval:
    index, signature = wire.fields(value, 2)
    return Approval(index=wire.number(index, MEMBERS_MAX - 1), signature=wire.signature(signature))


def _proof(value: Value) -> JoinProof:
    height, header_hash, signature = wire.fields(value, 3)
    return JoinProof(
        height=wire.number(height),
        header_hash=wire.digest(header_hash),
        signature=wire.signature(signature),
    )


def _validator(value: Value) -> Validator:
    name, spki = wire.fields(value, 2)
    if type(spki) is not bytes:
        raise MalformedMessage("expected a key")
    key = PublicKey.from_spki(spki)
    if not key.algorithm.is_falcon:
        raise MalformedMessage("validators have Falcon keys")
    return Validator(name=_name(name), key=key)


def _name(value: Value) -> str:
    if (
        type(value) is not str
        or len(value) > VALIDATOR_NAME_LENGTH_MAX
        or not NAME_PATTERN.fullmatch(value)
    ):
        raise MalformedMessage("expected the name of a validator")
    return value
