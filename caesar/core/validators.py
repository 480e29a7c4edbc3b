"""Who votes: the registry of validators, changed by quorum and by proof.

Pure rules over an immutable `Registry`; each function returns another one. Consensus obeys the set
this decides: a change ordered at height s takes effect after s + `WINDOW_BLOCKS`, and from then on
blocks carry the next epoch. That epoch in the block header is what moves the registry on, so the
two cannot disagree about when.

*Changes* need approvals of a quorum Q of the present members' node keys, over exactly one base set.
At most max(1, f) keys leave in one epoch (a rotation is a leaving key); every new key shows that it
has followed the chain to within the last `WINDOW_BLOCKS` blocks. All members approve, proven liars
too: the quorum tolerates f of them by construction, and a cluster whose liars could not be counted
might never be repaired. A key that has left never returns.

*Credentials* of a joiner are not read here: another application vouches for them, or nobody does
and the change is refused. A joiner without credentials votes all the same.

*Evidence* of two contradicting statements leaves a tombstone on key *and* name: neither is ever
accepted again, so no change of keys escapes it. It counts once for each offender and offence, while
the statements' epoch is the present one or the one before and their place is at most
`EVIDENCE_AGE_BLOCKS_MAX` blocks back (statements without a place age by epoch alone).

*Removal by proof.* A member with a tombstone is removed without a vote when all of this holds:

- no change is pending;
- at least `AUTOMATIC_MEMBERS_MIN` members stay, so that one lie is still tolerated;
- the quorum falls by one with it. Then every set of voters that was a quorum still is one without
  the offender: a removal can cost no quorum, whoever of the others is down;
- fewer than f were removed like this since the last set the operators approved. More proofs than f
  mean that the fault model is broken (a defect, a copied key), and then people decide.

Otherwise the offender stays in the set, tombstoned, until the operators replace it. One removal at
a time also keeps the bound of max(1, f) for each epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import Final

from caesar.core.changes import (
    Accusation,
    Change,
    SignedChange,
    ValidatorPayload,
    join_bytes,
)
from caesar.core.invariants import invariant
from caesar.errors import StateDamaged
from caesar.limits import (
    AUTOMATIC_MEMBERS_MIN,
    CHANGE_VALID_BLOCKS_MAX,
    EVIDENCE_AGE_BLOCKS_MAX,
    JOIN_AGE_BLOCKS_MAX,
)
from consensus.core import wire
from consensus.core.evidence import Offence
from consensus.core.quorum import faults, quorum
from consensus.core.types import Epoch
from consensus.core.validators import Validator, ValidatorSet
from consensus.errors import MalformedMessage
from consensus.limits import MEMBERS_MAX, WINDOW_BLOCKS
from native.codec import Value, encode
from native.errors import NativeError
from native.hashing import sha256
from native.values import Digest, NodeId, PublicKey, Signature

STATE_VERSION: Final = 1
ROOT_DOMAIN: Final = b"hypermesh/validator-registry/v1"

Verify = Callable[[PublicKey, bytes, Signature], bool]
"""Whether a signature is by this key over these bytes."""

Vouch = Callable[[Validator, bytes, Sequence[Validator]], bool]
"""Whether a joiner's evidence proves its credentials, in a set with these other members."""


def nobody_vouches(_joiner: Validator, _evidence: bytes, _others: Sequence[Validator]) -> bool:
    """What holds where no application reads credentials."""
    return False


class Verdict(IntEnum):
    """What became of a payload. Registry payloads pay no fee, so none of them ever *fails*."""

    APPLIED = 0

    MALFORMED = 128
    WRONG_CHAIN = 129
    EXPIRED = 130
    VALID_TOO_LONG = 131
    WRONG_BASE = 132
    CHANGE_PENDING = 133
    UNKNOWN_MEMBER = 134
    NAME_TAKEN = 135
    KEY_TAKEN = 136
    KEY_RETIRED = 137
    TOMBSTONED = 138
    TOO_MANY_REMOVALS = 139
    SIZE_OUT_OF_BOUNDS = 140
    APPROVAL_INVALID = 141
    APPROVALS_MISSING = 142
    JOINER_BEHIND = 143
    JOIN_PROOF_INVALID = 144
    EVIDENCE_EXPIRED = 145
    EVIDENCE_KNOWN = 146
    EVIDENCE_INVALID = 147
    NOT_A_VALIDATOR = 148
    CREDENTIALS_INVALID = 149

    @property
    def code(self) -> str:
        """Stable code, such as `HM-V-133`."""
        return f"HM-V-{self.value:03d}"

    @property
    def kind(self) -> str:
        """`applied` or `refused`."""
        return "applied" if self is Verdict.APPLIED else "refused"

    @property
    def text(self) -> str:
        """What happened, in one sentence."""
        return _TEXTS[self][0]

    @property
    def hint(self) -> str:
        """The next step, in one sentence."""
        return _TEXTS[self][1]


REPEATED: Final = frozenset(
    map(
        int,
        (Verdict.CHANGE_PENDING, Verdict.WRONG_BASE, Verdict.EXPIRED, Verdict.EVIDENCE_KNOWN),
    )
)
"""What a payload that was applied gets when it comes again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A change that is ordered and not yet in effect."""

    ordered_at: int  # height of its block
    next: ValidatorSet
    automatic: bool  # by proof, not by the operators

    @property
    def effective_after(self) -> int:
        """Height of the last block of the present epoch."""
        return self.ordered_at + WINDOW_BLOCKS

    def value(self) -> tuple[Value, ...]:
        return (self.ordered_at, self.next.value(), self.automatic)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tombstone:
    """One offence of one validator, proven for good."""

    name: str
    node_id: NodeId
    offence: Offence
    epoch: Epoch  # of the statements
    height: int  # of the block that ordered the evidence
    evidence: Digest  # id of the payload

    def value(self) -> tuple[Value, ...]:
        return (
            self.name,
            self.node_id,
            int(self.offence),
            int(self.epoch),
            self.height,
            self.evidence,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Registry:
    """The whole state after a block."""

    present: ValidatorSet
    ordered_at: int = 0  # height of the block that decided the present set, 0 for genesis
    previous: ValidatorSet | None = None
    pending: Pending | None = None
    automatic_left: int  # removals by proof until the operators approve a set
    tombstones: tuple[Tombstone, ...] = ()
    retired: tuple[NodeId, ...] = ()  # keys that left, in the order they did
    headers: tuple[tuple[int, Digest], ...] = ()  # newest last, what join proofs are held against

    @property
    def height(self) -> int:
        """Height of the last block."""
        return self.headers[-1][0] if self.headers else 0

    @property
    def quorum(self) -> int:
        """How many approvals a change needs."""
        return quorum(len(self.present.members))

    def body(self) -> tuple[Value, ...]:
        """Everything but the headers, which change with every block."""
        return (
            STATE_VERSION,
            self.present.value(),
            self.ordered_at,
            None if self.previous is None else self.previous.value(),
            None if self.pending is None else self.pending.value(),
            self.automatic_left,
            tuple([entry.value() for entry in self.tombstones]),
            self.retired,
        )

    def decided(self, before: Registry) -> bool:
        """Whether anything but the headers differs from an earlier state of this registry.

        Every decision replaces one of these three, and nothing else does.
        """
        return not (
            self.present is before.present
            and self.pending is before.pending
            and self.tombstones is before.tombstones
        )

    def has_tombstone(self, validator: Validator) -> bool:
        """Whether a member lied under this name or this key."""
        return any(
            entry.name == validator.name or entry.node_id == validator.node_id
            for entry in self.tombstones
        )

    def knows(self, offender: NodeId, offence: Offence) -> bool:
        """Whether this was proven before."""
        return any(
            entry.node_id == offender and entry.offence is offence for entry in self.tombstones
        )

    def set_of(self, epoch: int) -> ValidatorSet | None:
        """The set of the present epoch or of the one before."""
        for known in (self.present, self.previous):
            if known is not None and known.epoch == epoch:
                return known
        return None


def genesis(members: Sequence[Validator]) -> Registry:
    """The registry before block 1."""
    return Registry(
        present=ValidatorSet(epoch=Epoch(0), members=tuple(members)),
        automatic_left=faults(len(members)),
    )


# --- a block, in this order: begin, apply for each payload, end


def begin(registry: Registry, epoch: int) -> Registry:
    """Enter the epoch of a block: the pending set becomes the present one."""
    pending = registry.pending
    if epoch == registry.present.epoch:
        return registry
    invariant(
        pending is not None and epoch == pending.next.epoch,
        f"a block of epoch {epoch} while the registry is in {registry.present.epoch}",
    )
    assert pending is not None
    present = registry.present
    stay = {validator.node_id for validator in pending.next.members}
    left = [entry.node_id for entry in present.members if entry.node_id not in stay]
    return replace(
        registry,
        present=pending.next,
        ordered_at=pending.ordered_at,
        previous=present,
        pending=None,
        automatic_left=(
            registry.automatic_left if pending.automatic else faults(len(pending.next.members))
        ),
        retired=registry.retired + tuple(left),
    )


def apply(
    registry: Registry,
    payload: ValidatorPayload,
    *,
    chain_id: Digest,
    height: int,
    verify: Verify,
    vouch: Vouch = nobody_vouches,
) -> tuple[Registry, Verdict]:
    """Judge one payload of the block at `height`; the state changes only if it is applied."""
    if payload.chain_id != chain_id:
        return registry, Verdict.WRONG_CHAIN
    if isinstance(payload, SignedChange):
        return _change(registry, payload, height, verify, vouch)
    return _accuse(registry, payload, height, verify)


def end(registry: Registry, height: int, header_hash: Digest) -> Registry:
    """Close a block: remove an offender if that is safe, remember the header."""
    registry = _remove_offender(registry, height)
    headers = (*registry.headers, (height, header_hash))[-JOIN_AGE_BLOCKS_MAX:]
    return replace(registry, headers=headers)


# --- changes


def _change(
    registry: Registry, signed: SignedChange, height: int, verify: Verify, vouch: Vouch
) -> tuple[Registry, Verdict]:
    change = signed.change
    if height > change.valid_until:
        return registry, Verdict.EXPIRED
    if change.valid_until > height + CHANGE_VALID_BLOCKS_MAX:
        return registry, Verdict.VALID_TOO_LONG
    present = registry.present
    if change.base_epoch != present.epoch or change.base_set != present.hash:
        return registry, Verdict.WRONG_BASE
    if registry.pending is not None:
        return registry, Verdict.CHANGE_PENDING
    members, verdict = changed_members(registry, change)
    if verdict is Verdict.APPLIED:
        verdict = _approved(registry, signed, verify)
    if verdict is Verdict.APPLIED:
        verdict = _caught_up(registry, signed, verify)
    if verdict is Verdict.APPLIED:
        verdict = _vouched(signed, members, vouch)
    if verdict is not Verdict.APPLIED:
        return registry, verdict
    return _pend(registry, members, height, automatic=False), Verdict.APPLIED


def changed_members(registry: Registry, change: Change) -> tuple[tuple[Validator, ...], Verdict]:
    """The members after a change, or why it cannot be made; signatures are not looked at."""
    present = registry.present.members
    names = {validator.name for validator in present}
    rotated = {entry.name: entry for entry in change.rotations}
    for name in (*change.removes, *rotated):
        if name not in names:
            return (), Verdict.UNKNOWN_MEMBER
    for entry in change.adds:
        if entry.name in names:
            return (), Verdict.NAME_TAKEN
    held = {validator.node_id for validator in present}
    for entry in change.joiners:
        if registry.has_tombstone(entry):
            return (), Verdict.TOMBSTONED
        if entry.node_id in held:
            return (), Verdict.KEY_TAKEN
        if entry.node_id in registry.retired:
            return (), Verdict.KEY_RETIRED
        held.add(entry.node_id)
    if len(change.removes) + len(change.rotations) > removals_max(len(present)):
        return (), Verdict.TOO_MANY_REMOVALS
    members = (
        *(
            rotated.get(validator.name, validator)
            for validator in present
            if validator.name not in change.removes
        ),
        *change.adds,
    )
    if not 1 <= len(members) <= MEMBERS_MAX:
        return (), Verdict.SIZE_OUT_OF_BOUNDS
    return members, Verdict.APPLIED


def removals_max(members: int) -> int:
    """How many keys may leave a set of this size in one epoch."""
    return max(1, faults(members))


def _approved(registry: Registry, signed: SignedChange, verify: Verify) -> Verdict:
    members = registry.present.members
    if len(signed.approvals) < registry.quorum:
        return Verdict.APPROVALS_MISSING
    message = signed.change.signed_bytes
    for approval in signed.approvals:
        if approval.index >= len(members):
            return Verdict.APPROVAL_INVALID
        if not verify(members[approval.index].key, message, approval.signature):
            return Verdict.APPROVAL_INVALID
    return Verdict.APPLIED


def _caught_up(registry: Registry, signed: SignedChange, verify: Verify) -> Verdict:
    change = signed.change
    for joiner, proof in zip(change.joiners, signed.proofs, strict=True):
        if (proof.height, proof.header_hash) not in registry.headers:
            return Verdict.JOINER_BEHIND
        message = join_bytes(change, joiner.node_id, proof.height, proof.header_hash)
        if not verify(joiner.key, message, proof.signature):
            return Verdict.JOIN_PROOF_INVALID
    return Verdict.APPLIED


def _vouched(signed: SignedChange, members: Sequence[Validator], vouch: Vouch) -> Verdict:
    for joiner, proof in zip(signed.change.joiners, signed.proofs, strict=True):
        others = [entry for entry in members if entry is not joiner]
        if joiner.credentials and not vouch(joiner, proof.evidence, others):
            return Verdict.CREDENTIALS_INVALID
        if proof.evidence and not joiner.credentials:
            return Verdict.CREDENTIALS_INVALID
    return Verdict.APPLIED


def _pend(
    registry: Registry, members: tuple[Validator, ...], height: int, *, automatic: bool
) -> Registry:
    following = ValidatorSet(epoch=Epoch(registry.present.epoch + 1), members=members)
    pending = Pending(ordered_at=height, next=following, automatic=automatic)
    return replace(registry, pending=pending)


# --- evidence


def _accuse(
    registry: Registry, accusation: Accusation, height: int, verify: Verify
) -> tuple[Registry, Verdict]:
    proof, offender = accusation.proof, accusation.offender
    if min(proof.epochs) < registry.present.epoch - 1:
        return registry, Verdict.EVIDENCE_EXPIRED
    if proof.place is not None and proof.place < height - EVIDENCE_AGE_BLOCKS_MAX:
        return registry, Verdict.EVIDENCE_EXPIRED
    if registry.knows(offender, proof.offence):
        return registry, Verdict.EVIDENCE_KNOWN
    found: Validator | None = None
    for epoch in proof.epochs:
        members = registry.set_of(epoch)
        index = None if members is None else members.index_of(offender)
        if members is None or index is None:
            return registry, Verdict.NOT_A_VALIDATOR
        found = members.members[index]
    assert found is not None
    for message, signature in proof.signed(accusation.chain_id):
        if not verify(found.key, message, signature):
            return registry, Verdict.EVIDENCE_INVALID
    tombstone = Tombstone(
        name=found.name,
        node_id=offender,
        offence=proof.offence,
        epoch=proof.epochs[0],
        height=height,
        evidence=accusation.id,
    )
    return replace(registry, tombstones=(*registry.tombstones, tombstone)), Verdict.APPLIED


def _remove_offender(registry: Registry, height: int) -> Registry:
    """Order the removal of the first proven liar, if that can cost no quorum."""
    if not registry.tombstones or registry.pending is not None or registry.automatic_left < 1:
        return registry
    members = registry.present.members
    stay = len(members) - 1
    if stay < AUTOMATIC_MEMBERS_MIN or quorum(stay) != quorum(len(members)) - 1:
        return registry
    for validator in members:
        if registry.has_tombstone(validator):
            left = tuple([entry for entry in members if entry is not validator])
            registry = replace(registry, automatic_left=registry.automatic_left - 1)
            return _pend(registry, left, height, automatic=True)
    return registry


# --- bytes of the state


def root(body: Digest, headers: Sequence[tuple[int, Digest]]) -> Digest:
    """The application root."""
    return Digest(sha256(ROOT_DOMAIN + encode((body, tuple(headers)))))


def read_registry(body: Value, headers: Sequence[tuple[int, Digest]]) -> Registry:
    """Read our own bytes back; raises `StateDamaged`."""
    try:
        version, present, ordered_at, previous, pending, left, tombstones, retired = wire.fields(
            body, 8
        )
        if version != STATE_VERSION:
            raise StateDamaged("the validator registry has another version")
        return Registry(
            present=_set(present),
            ordered_at=wire.number(ordered_at),
            previous=wire.optional(previous, _set),
            pending=wire.optional(pending, _pending),
            automatic_left=wire.number(left),
            tombstones=tuple([_tombstone(entry) for entry in wire.rows(tombstones, _MANY)]),
            retired=tuple([NodeId(wire.digest(entry)) for entry in wire.rows(retired, _MANY)]),
            headers=tuple(headers),
        )
    except (MalformedMessage, NativeError, ValueError) as error:
        raise StateDamaged(f"the validator registry does not decode: {error}") from None


def _set(value: Value) -> ValidatorSet:
    epoch, members = wire.fields(value, 2)
    return ValidatorSet(
        epoch=Epoch(wire.number(epoch)),
        members=tuple([_member(entry) for entry in wire.rows(members, _MANY, 1)]),
    )


def _member(value: Value) -> Validator:
    name, spki, credentials = wire.with_credentials(value)
    if type(name) is not str or type(spki) is not bytes:
        raise MalformedMessage("expected a validator")
    return Validator(name=name, key=PublicKey.from_spki(spki), credentials=credentials)


def _pending(value: Value) -> Pending:
    ordered_at, following, automatic = wire.fields(value, 3)
    return Pending(
        ordered_at=wire.number(ordered_at), next=_set(following), automatic=wire.flag(automatic)
    )


def _tombstone(value: Value) -> Tombstone:
    name, node_id, offence, epoch, height, evidence = wire.fields(value, 6)
    if type(name) is not str:
        raise MalformedMessage("expected a name")
    return Tombstone(
        name=name,
        node_id=NodeId(wire.digest(node_id)),
        offence=Offence(wire.number(offence)),
        epoch=Epoch(wire.number(epoch)),
        height=wire.number(height),
        evidence=wire.digest(evidence),
    )


_MANY: Final = 1 << 20  # our own bytes read back: bounded by what blocks could decide

_TEXTS: Final[dict[Verdict, tuple[str, str]]] = {
    Verdict.APPLIED: ("the registry took it", "nothing to do"),
    Verdict.MALFORMED: (
        "the bytes are not a change of validators or evidence",
        "make the file again with this version's `hypermesh validator propose`",
    ),
    Verdict.WRONG_CHAIN: (
        "it was signed for another network",
        "point the command at the network you mean and propose again",
    ),
    Verdict.EXPIRED: (
        "the block height is past the change's valid_until",
        "look up its receipt; if there is none, propose and approve it again",
    ),
    Verdict.VALID_TOO_LONG: (
        "valid_until is too far ahead of the block height",
        f"propose again, valid for at most {CHANGE_VALID_BLOCKS_MAX:,} blocks",
    ),
    Verdict.WRONG_BASE: (
        "the validator set is another one than when this was proposed",
        "see `hypermesh validator status`, then propose and approve the change again",
    ),
    Verdict.CHANGE_PENDING: (
        "another change has not taken effect yet",
        f"wait until it has, at most {WINDOW_BLOCKS} blocks, then propose again",
    ),
    Verdict.UNKNOWN_MEMBER: (
        "a name to remove or rotate is no present validator",
        "see the names with `hypermesh validator status` and propose again",
    ),
    Verdict.NAME_TAKEN: (
        "a present validator has the name of the new one",
        "choose another name, or rotate the key of that validator",
    ),
    Verdict.KEY_TAKEN: (
        "a new key is that of another validator",
        "give the new node its own key with `hypermesh node init`",
    ),
    Verdict.KEY_RETIRED: (
        "a new key was a validator's before, and a retired key never signs again",
        "make a new key with `hypermesh node init`",
    ),
    Verdict.TOMBSTONED: (
        "the name or key belongs to a validator that provably lied",
        "take a new name and a new key; neither of these is ever accepted again",
    ),
    Verdict.TOO_MANY_REMOVALS: (
        "more keys would leave than a set of this size may lose at once",
        "split the change: at most max(1, f) removed or rotated in one epoch",
    ),
    Verdict.SIZE_OUT_OF_BOUNDS: (
        "the set would be empty or too large",
        f"keep 1 to {MEMBERS_MAX} validators",
    ),
    Verdict.APPROVAL_INVALID: (
        "an approval is not a signature of that validator over this change",
        "run `hypermesh validator approve` again on that validator's home",
    ),
    Verdict.APPROVALS_MISSING: (
        "fewer validators than a quorum approved",
        "have more operators run `hypermesh validator approve`, then submit again",
    ),
    Verdict.JOINER_BEHIND: (
        f"a new key has not signed one of the last {WINDOW_BLOCKS} blocks",
        "submit again with `--joiner HOME`, which signs a fresh block; on a busy network add one "
        "validator at a time",
    ),
    Verdict.JOIN_PROOF_INVALID: (
        "a join proof is not a signature of the new key over this change",
        "submit again with the home folder of the new node",
    ),
    Verdict.EVIDENCE_EXPIRED: (
        "the statements are too old to count",
        "nothing to do; evidence counts in its epoch and the next one",
    ),
    Verdict.EVIDENCE_KNOWN: (
        "this offence of this validator was proven before",
        "nothing to do",
    ),
    Verdict.EVIDENCE_INVALID: (
        "the statements are not signed by the validator that is accused",
        "nothing to do; an accusation without both signatures is void",
    ),
    Verdict.NOT_A_VALIDATOR: (
        "the accused was no validator in the epoch of the statements",
        "nothing to do",
    ),
    Verdict.CREDENTIALS_INVALID: (
        "a new validator has not shown its log keys as approved, or its cosigner key is taken",
        "submit again with the home folder of the new node, keys and issuing certificate included; "
        "a taken cosigner key is drawn anew with `hypermesh ca request` and proposed again",
    ),
}
