"""Two signed statements of one replica that exclude each other, as bytes anybody can check.

An honest replica says each of these once, across crashes, view changes and recoveries, because its
record is durable before anything leaves (bft.md 3.9, 3.10):

| offence          | said once for each       | what must not differ                         |
|------------------|--------------------------|----------------------------------------------|
| TWO_BATCHES      | epoch, view, sequence    | the batch of a PRE-PREPARE                   |
| TWO_PREPARES     | epoch, view, sequence    | the batch of a PREPARE leaf                  |
| TWO_COMMITS      | epoch, view, sequence    | the batch of a COMMIT leaf                   |
| TWO_CHECKPOINTS  | epoch, height            | the CHECKPOINT leaf                          |
| TWO_VIEW_CHANGES | epoch, view              | what a VIEW-CHANGE claims                    |
| TWO_NEW_VIEWS    | epoch, view              | what a NEW-VIEW claims                       |
| NUMBER_REUSED    | number, in all epochs    | kind, epoch and digest of the signed message |

What is *no* evidence, because an honest replica may do it: another batch at the same place in
another view, the same words under another number or signature, a VIEW-CHANGE without what a COMMIT
of a lower view implies (that takes certificates to judge), anything unsigned.

A signature says nothing about the index of its signer: whoever judges names the key, and finds out
with `signed` whether both statements are by it. Nothing here checks a signature.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from consensus.core import wire
from consensus.core.certificates import vote_proof
from consensus.core.messages import (
    Checkpoint,
    Commit,
    Leaf,
    NewView,
    Prepare,
    PrePrepare,
    SignedKind,
    Stamp,
    ViewChange,
    VoteVector,
    leaf_place,
    path_length,
    root_of_path,
    stamp_bytes,
)
from consensus.core.types import Epoch, Number, Sequence, View
from consensus.errors import MalformedMessage, invariant
from consensus.limits import LEAVES_PER_VECTOR_MAX
from native.codec import Value, encode
from native.hashing import sha256
from native.values import Digest, Signature

NUMBER_MIN: Final = 1  # a real number is at least 1


class Offence(IntEnum):
    """What was said twice. The numbers are part of the ledger's bytes and never change."""

    TWO_BATCHES = 1
    TWO_PREPARES = 2
    TWO_COMMITS = 3
    TWO_CHECKPOINTS = 4
    TWO_VIEW_CHANGES = 5
    TWO_NEW_VIEWS = 6
    NUMBER_REUSED = 7

    @property
    def text(self) -> str:
        """The offence in words."""
        return self.name.lower().replace("_", " ")


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A PRE-PREPARE by the digest of its batch."""

    epoch: Epoch
    number: Number
    view: View
    sequence: Sequence
    digest: Digest
    signature: Signature

    offence = Offence.TWO_BATCHES

    def value(self) -> tuple[Value, ...]:
        return (
            1,
            self.epoch,
            self.number,
            self.view,
            self.sequence,
            self.digest,
            self.signature,
        )

    def subject(self) -> tuple[int, ...]:
        return (self.epoch, self.view, self.sequence)

    def content(self) -> bytes:
        return self.digest

    @property
    def place(self) -> int | None:
        return self.sequence

    def signed_bytes(self, chain_id: Digest) -> bytes:
        content = sha256(encode((self.view, self.sequence, self.digest)))
        return stamp_bytes(SignedKind.PRE_PREPARE, chain_id, self.epoch, self.number, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One leaf of a vote vector with its path."""

    leaf: Leaf
    number: Number
    index: int
    size: int
    path: tuple[Digest, ...]
    signature: Signature

    @property
    def epoch(self) -> Epoch:
        return self.leaf.epoch

    @property
    def offence(self) -> Offence:
        return _OFFENCE_OF_LEAF[type(self.leaf)]

    def value(self) -> tuple[Value, ...]:
        leaf = self.leaf.value()
        return (2, leaf, self.number, self.index, self.size, self.path, self.signature)

    def subject(self) -> tuple[int, ...]:
        leaf = self.leaf
        if isinstance(leaf, Checkpoint):
            return (leaf.epoch, leaf.height)
        return (leaf.epoch, leaf.view, leaf.sequence)

    def content(self) -> bytes:
        return encode(self.leaf.value())

    @property
    def place(self) -> int | None:
        return leaf_place(self.leaf)

    def signed_bytes(self, chain_id: Digest) -> bytes:
        root = root_of_path(encode(self.leaf.value()), self.index, self.size, self.path)
        return stamp_bytes(SignedKind.VOTES, chain_id, self.leaf.epoch, self.number, root)


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewStatement:
    """A VIEW-CHANGE or NEW-VIEW by the digest of what it claims."""

    kind: SignedKind
    epoch: Epoch
    number: Number
    view: View
    claims: Digest
    signature: Signature

    @property
    def offence(self) -> Offence:
        if self.kind is SignedKind.VIEW_CHANGE:
            return Offence.TWO_VIEW_CHANGES
        return Offence.TWO_NEW_VIEWS

    def value(self) -> tuple[Value, ...]:
        return (
            3,
            int(self.kind),
            self.epoch,
            self.number,
            self.view,
            self.claims,
            self.signature,
        )

    def subject(self) -> tuple[int, ...]:
        return (self.epoch, self.view)

    def content(self) -> bytes:
        return self.claims

    @property
    def place(self) -> int | None:
        return None

    def signed_bytes(self, chain_id: Digest) -> bytes:
        content = sha256(encode((self.view, self.claims)))
        return stamp_bytes(self.kind, chain_id, self.epoch, self.number, content)


@dataclass(frozen=True, slots=True, kw_only=True)
class Numbered:
    """Any signed message, by its number and digest alone."""

    kind: SignedKind
    epoch: Epoch
    number: Number
    digest: Digest
    signature: Signature

    offence = Offence.NUMBER_REUSED

    def value(self) -> tuple[Value, ...]:
        return (4, int(self.kind), self.epoch, self.number, self.digest, self.signature)

    def subject(self) -> tuple[int, ...]:
        return (self.number,)

    def content(self) -> bytes:
        return encode((int(self.kind), self.epoch, self.digest))

    @property
    def place(self) -> int | None:
        return None

    def signed_bytes(self, chain_id: Digest) -> bytes:
        return stamp_bytes(self.kind, chain_id, self.epoch, self.number, self.digest)


Statement = Proposal | Vote | ViewStatement | Numbered


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two statements that exclude each other, in the order of their bytes."""

    first: Statement
    second: Statement

    @property
    def offence(self) -> Offence:
        return self.first.offence

    @property
    def epochs(self) -> tuple[Epoch, Epoch]:
        """The epochs whose validator sets must both hold the key."""
        return self.first.epoch, self.second.epoch

    @property
    def place(self) -> int | None:
        """The sequence or height both speak about, None where they name none."""
        return self.first.place

    def value(self) -> tuple[Value, ...]:
        return (self.first.value(), self.second.value())

    def signed(self, chain_id: Digest) -> tuple[tuple[bytes, Signature], tuple[bytes, Signature]]:
        """What must be a signature over what, both by the key that is accused."""
        first, second = self.first, self.second
        return (
            (first.signed_bytes(chain_id), first.signature),
            (second.signed_bytes(chain_id), second.signature),
        )


# --- from messages


def of_proposal(message: PrePrepare) -> Proposal:
    return Proposal(
        epoch=message.epoch,
        number=message.number,
        view=message.view,
        sequence=message.sequence,
        digest=message.digest,
        signature=message.signature,
    )


def of_vote(vector: VoteVector, index: int) -> Vote:
    proof = vote_proof(vector, index)
    return Vote(
        leaf=vector.leaves[index],
        number=vector.number,
        index=index,
        size=proof.size,
        path=proof.path,
        signature=vector.signature,
    )


def of_view(message: ViewChange | NewView) -> ViewStatement:
    return ViewStatement(
        kind=message.stamp().kind,
        epoch=message.epoch,
        number=message.number,
        view=message.view,
        claims=message.claims(),
        signature=message.signature,
    )


def of_stamp(stamp: Stamp) -> Numbered:
    return Numbered(
        kind=stamp.kind,
        epoch=stamp.epoch,
        number=stamp.number,
        digest=stamp.digest,
        signature=stamp.signature,
    )


def contradict(one: Statement, other: Statement) -> bool:
    """Whether an honest replica never says both."""
    return (
        one.offence is other.offence
        and one.subject() == other.subject()
        and one.content() != other.content()
    )


def contradiction(one: Statement, other: Statement) -> Contradiction:
    """Both statements, in order; our own bug if they do not exclude each other."""
    invariant(contradict(one, other), "evidence is made of statements that exclude each other")
    if encode(one.value()) > encode(other.value()):
        one, other = other, one
    return Contradiction(first=one, second=other)


# --- from bytes


def statement(value: Value) -> Statement:
    """Read one statement; raises `MalformedMessage`."""
    if not isinstance(value, tuple) or not value:
        raise MalformedMessage("expected a statement")
    kind = value[0]
    if type(kind) is not int:
        raise MalformedMessage("unknown statement")
    if kind == 1:
        _, epoch, count, view, sequence, batch, signed = wire.fields(value, 7)
        return Proposal(
            epoch=Epoch(wire.number(epoch)),
            number=_number(count),
            view=View(wire.number(view)),
            sequence=Sequence(wire.number(sequence)),
            digest=wire.digest(batch),
            signature=wire.signature(signed),
        )
    if kind == 2:
        _, leaf, count, index, size, path, signed = wire.fields(value, 7)
        leaves = wire.number(size, LEAVES_PER_VECTOR_MAX)
        at = wire.number(index)
        if at >= leaves:
            raise MalformedMessage("leaf outside its vector")
        length = path_length(at, leaves)
        return Vote(
            leaf=wire.leaf(leaf),
            number=_number(count),
            index=at,
            size=leaves,
            path=tuple([wire.digest(step) for step in wire.rows(path, length, length)]),
            signature=wire.signature(signed),
        )
    if kind == 3:
        _, what, epoch, count, view, claims, signed = wire.fields(value, 7)
        said = wire.signed_kind(what)
        if said not in (SignedKind.VIEW_CHANGE, SignedKind.NEW_VIEW):
            raise MalformedMessage("neither a VIEW-CHANGE nor a NEW-VIEW")
        return ViewStatement(
            kind=said,
            epoch=Epoch(wire.number(epoch)),
            number=_number(count),
            view=View(wire.number(view)),
            claims=wire.digest(claims),
            signature=wire.signature(signed),
        )
    if kind == 4:
        _, what, epoch, count, content, signed = wire.fields(value, 6)
        return Numbered(
            kind=wire.signed_kind(what),
            epoch=Epoch(wire.number(epoch)),
            number=_number(count),
            digest=wire.digest(content),
            signature=wire.signature(signed),
        )
    raise MalformedMessage("unknown statement")


def read_contradiction(value: Value) -> Contradiction:
    """Read two statements that do exclude each other; raises `MalformedMessage`."""
    first, second = (statement(entry) for entry in wire.fields(value, 2))
    if not contradict(first, second):
        raise MalformedMessage("no contradiction")
    if encode(first.value()) > encode(second.value()):
        raise MalformedMessage("statements out of order")
    return Contradiction(first=first, second=second)


def _number(value: Value) -> Number:
    found = wire.number(value)
    if found < NUMBER_MIN:
        raise MalformedMessage("a signed message has a number")
    return Number(found)


_OFFENCE_OF_LEAF: Final = {
    Prepare: Offence.TWO_PREPARES,
    Commit: Offence.TWO_COMMITS,
    Checkpoint: Offence.TWO_CHECKPOINTS,
}
