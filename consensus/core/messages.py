"""What replicas say to each other, and the exact bytes each signature covers.

Every message signed with a replica key (PRE-PREPARE, VOTES, VIEW-CHANGE, NEW-VIEW) is signed over
`hypermesh/<what>/v1 || chain id || msgpack [epoch, number, digest of the content]`, so a `Stamp`
(number, digest, signature, without the content) proves that its signer reached that number. That
is how STATUS shows a node its own newest message (bft.md 3.9).

Nothing here checks a signature: `signatures(message)` lists what must be checked, nested
certificates included, and the runtime does so in batches before the core sees the message.
Bytes are made and read in `wire.py`.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from enum import IntEnum
from typing import Final, assert_never

from consensus.core.types import (
    NO_DIGEST,
    Epoch,
    Height,
    Number,
    Phase,
    ReplicaIndex,
    Sequence,
    View,
)
from consensus.core.validators import ValidatorSet
from native.codec import Value, encode
from native.hashing import merkle_root
from native.values import Digest, Signature

VERSION: Final = 1
EMPTY_ROOT: Final = Digest(hashlib.sha256(b"").digest())  # Merkle root of no payloads
UNSIGNED: Final = Signature(b"")
UNNUMBERED: Final = Number(0)  # a real number is at least 1


class SignedKind(IntEnum):
    """What a replica key signs."""

    PRE_PREPARE = 1
    VOTES = 2
    VIEW_CHANGE = 3
    NEW_VIEW = 4


DOMAINS: Final = {
    SignedKind.PRE_PREPARE: b"hypermesh/pre-prepare/v1",
    SignedKind.VOTES: b"hypermesh/votes/v1",
    SignedKind.VIEW_CHANGE: b"hypermesh/view-change/v1",
    SignedKind.NEW_VIEW: b"hypermesh/new-view/v1",
}

SignatureJob = tuple[ReplicaIndex, bytes, Signature]
"""Signer, the bytes that were signed, and the signature to check."""

EpochJob = tuple[Epoch, ReplicaIndex, bytes, Signature]
"""The same with the epoch whose set the signer is an index into."""
Jobs = tuple[Digest, tuple[EpochJob, ...]]
"""The signatures of a certificate, and the chain id that they are checked under."""


def stamp_bytes(
    kind: SignedKind, chain_id: Digest, epoch: Epoch, number: Number, digest: Digest
) -> bytes:
    """The bytes a replica key signs, for all four kinds."""
    return DOMAINS[kind] + chain_id + encode((epoch, number, digest))


def _hash(value: Value) -> Digest:
    return Digest(hashlib.sha256(encode(value)).digest())


@dataclass(frozen=True, slots=True, kw_only=True)
class Stamp:
    """A signed message without its content: proves that `signer` has used `number`."""

    kind: SignedKind
    signer: ReplicaIndex
    epoch: Epoch
    number: Number
    digest: Digest
    signature: Signature

    def signed_bytes(self, chain_id: Digest) -> bytes:
        return stamp_bytes(self.kind, chain_id, self.epoch, self.number, self.digest)


# --- what is agreed, and what execution makes of it


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchHeader:
    """What is agreed. Its digest depends on neither the view nor the predecessor."""

    chain_id: Digest
    epoch: Epoch
    sequence: Sequence
    proposed_ms: int
    payload_root: Digest
    digest: Digest = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _hash(self.value()))

    def value(self) -> tuple[Value, ...]:
        return (
            VERSION,
            self.chain_id,
            self.epoch,
            self.sequence,
            self.proposed_ms,
            self.payload_root,
        )


def null_batch(chain_id: Digest, epoch: Epoch, sequence: Sequence) -> BatchHeader:
    """What fills a gap after a view change."""
    return BatchHeader(
        chain_id=chain_id, epoch=epoch, sequence=sequence, proposed_ms=0, payload_root=EMPTY_ROOT
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockHeader:
    """What execution makes of a batch, in order."""

    chain_id: Digest
    height: Height
    epoch: Epoch
    parent: Digest
    batch: Digest
    time_ms: int
    state_root: Digest  # before this block
    hash: Digest = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", _hash(self.value()))

    def value(self) -> tuple[Value, ...]:
        return (
            VERSION,
            self.chain_id,
            self.height,
            self.epoch,
            self.parent,
            self.batch,
            self.time_ms,
            self.state_root,
        )


# --- votes


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepare:
    """I accepted this batch at this place, and will accept no other in this view."""

    epoch: Epoch
    view: View
    sequence: Sequence
    digest: Digest

    def value(self) -> tuple[Value, ...]:
        return (1, self.epoch, self.view, self.sequence, self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Commit:
    """I hold a prepared certificate for this batch, durably."""

    epoch: Epoch
    view: View
    sequence: Sequence
    digest: Digest

    def value(self) -> tuple[Value, ...]:
        return (2, self.epoch, self.view, self.sequence, self.digest)


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """I executed this block, durably, and this is the state after it."""

    epoch: Epoch
    height: Height
    header_hash: Digest
    state_root: Digest  # after the block
    next_set: Digest = NO_DIGEST

    def value(self) -> tuple[Value, ...]:
        return (3, self.epoch, self.height, self.header_hash, self.state_root, self.next_set)


Leaf = Prepare | Commit | Checkpoint


def leaf_place(leaf: Leaf) -> int:
    """The sequence number or height a leaf speaks about."""
    return leaf.height if isinstance(leaf, Checkpoint) else leaf.sequence


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteVector:
    """All votes of one replica in one tick, under one signature."""

    epoch: Epoch
    signer: ReplicaIndex
    number: Number
    leaves: tuple[Leaf, ...]
    signature: Signature = UNSIGNED
    encoded: tuple[bytes, ...] = field(init=False, compare=False, repr=False)
    root: Digest = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        encoded = tuple([encode(leaf.value()) for leaf in self.leaves])
        object.__setattr__(self, "encoded", encoded)
        object.__setattr__(self, "root", Digest(merkle_root(encoded)))

    def stamp(self) -> Stamp:
        return Stamp(
            kind=SignedKind.VOTES,
            signer=self.signer,
            epoch=self.epoch,
            number=self.number,
            digest=self.root,
            signature=self.signature,
        )

    def signed_bytes(self, chain_id: Digest) -> bytes:
        return stamp_bytes(SignedKind.VOTES, chain_id, self.epoch, self.number, self.root)

    def signed(self, signature: Signature) -> "VoteVector":
        """The same votes with their signature; the root is not computed again."""
        vector = object.__new__(VoteVector)
        for name in ("epoch", "signer", "number", "leaves", "encoded", "root"):
            object.__setattr__(vector, name, getattr(self, name))
        object.__setattr__(vector, "signature", signature)
        return vector

    @property
    def top(self) -> int:
        """The highest place a leaf speaks about; below a certificate at it nothing matters."""
        return max([leaf_place(leaf) for leaf in self.leaves])


@dataclass(frozen=True, slots=True, kw_only=True)
class VoteProof:
    """One leaf of a vector as transferable evidence: its path and the vector's signature.

    The leaf itself is not repeated: the certificate that holds the proof says what it was.
    """

    signer: ReplicaIndex
    number: Number
    index: int
    size: int
    path: tuple[Digest, ...]
    signature: Signature

    def value(self) -> tuple[Value, ...]:
        return (self.signer, self.number, self.index, self.size, self.path, self.signature)

    def job(self, chain_id: Digest, leaf: Leaf) -> SignatureJob:
        root = root_of_path(encode(leaf.value()), self.index, self.size, self.path)
        signed = stamp_bytes(SignedKind.VOTES, chain_id, leaf.epoch, self.number, root)
        return self.signer, signed, self.signature


def root_of_path(leaf: bytes, index: int, size: int, path: Iterable[Digest]) -> Digest:
    """Root that an RFC 9162 inclusion path leads to (section 2.1.3.2); lengths were checked."""
    sha256 = hashlib.sha256
    at, last = index, size - 1
    digest = sha256(b"\0" + leaf).digest()
    for step in path:
        if at & 1 or at == last:
            digest = sha256(b"\1" + step + digest).digest()
            while at and not at & 1:
                at >>= 1
                last >>= 1
        else:
            digest = sha256(b"\1" + digest + step).digest()
        at >>= 1
        last >>= 1
    return Digest(digest)


def path_length(index: int, size: int) -> int:
    """How many hashes an inclusion path of this place has."""
    inner = (index ^ (size - 1)).bit_length()
    return inner + (index >> inner).bit_count()


# --- the signed messages


@dataclass(frozen=True, slots=True, kw_only=True)
class PrePrepare:
    """The primary of a view puts a batch at its sequence number. The body travels beside it."""

    view: View
    signer: ReplicaIndex
    number: Number
    header: BatchHeader
    signature: Signature = UNSIGNED

    @property
    def epoch(self) -> Epoch:
        return self.header.epoch

    @property
    def sequence(self) -> Sequence:
        return self.header.sequence

    @property
    def digest(self) -> Digest:
        return self.header.digest

    def value(self) -> tuple[Value, ...]:
        return (self.view, self.number, self.header.value(), self.signature)

    def content(self) -> Digest:
        return _hash((self.view, self.header.sequence, self.header.digest))

    def stamp(self) -> Stamp:
        return Stamp(
            kind=SignedKind.PRE_PREPARE,
            signer=self.signer,
            epoch=self.epoch,
            number=self.number,
            digest=self.content(),
            signature=self.signature,
        )

    def signed_bytes(self, chain_id: Digest) -> bytes:
        return stamp_bytes(
            SignedKind.PRE_PREPARE, chain_id, self.epoch, self.number, self.content()
        )

    def numbered(self, number: Number) -> "PrePrepare":
        return replace(self, number=number)

    def signed(self, signature: Signature) -> "PrePrepare":
        return replace(self, signature=signature)


class _Certificate:
    """Signatures that are checked again and again: the same certificate comes in many messages."""

    __slots__ = ()
    _jobs: "Jobs | None"

    def jobs(self, chain_id: Digest) -> tuple[EpochJob, ...]:
        """Every signature in it, made once."""
        held = self._jobs
        if held is None or held[0] != chain_id:
            held = chain_id, tuple(self._made(chain_id))
            object.__setattr__(self, "_jobs", held)
        return held[1]

    def _made(self, chain_id: Digest) -> list[EpochJob]:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedCertificate(_Certificate):
    """Q distinct replicas accepted this PRE-PREPARE; its primary counts through it."""

    pre_prepare: PrePrepare
    votes: tuple[VoteProof, ...]
    _jobs: "Jobs | None" = field(default=None, init=False, compare=False, repr=False)

    @property
    def sequence(self) -> Sequence:
        return self.pre_prepare.header.sequence

    @property
    def view(self) -> View:
        return self.pre_prepare.view

    def leaf(self) -> Prepare:
        pre_prepare = self.pre_prepare
        return Prepare(
            epoch=pre_prepare.epoch,
            view=pre_prepare.view,
            sequence=pre_prepare.sequence,
            digest=pre_prepare.digest,
        )

    def _made(self, chain_id: Digest) -> list[EpochJob]:
        jobs: list[EpochJob] = []
        _own(jobs, self.pre_prepare, chain_id)
        return jobs + _votes(self.leaf(), self.votes, chain_id)

    def value(self) -> tuple[Value, ...]:
        return (self.pre_prepare.value(), tuple(vote.value() for vote in self.votes))


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockCertificate(_Certificate):
    """Q CHECKPOINT leaves for one block: what everybody outside the vote trusts."""

    checkpoint: Checkpoint
    votes: tuple[VoteProof, ...]
    _jobs: "Jobs | None" = field(default=None, init=False, compare=False, repr=False)

    @property
    def height(self) -> Height:
        return self.checkpoint.height

    def _made(self, chain_id: Digest) -> list[EpochJob]:
        return _votes(self.checkpoint, self.votes, chain_id)

    def value(self) -> tuple[Value, ...]:
        return (self.checkpoint.value()[1:], tuple(vote.value() for vote in self.votes))


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewChange:
    """I want `view`; this is what is certified (C) and what I hold prepared above it (P)."""

    epoch: Epoch
    view: View
    signer: ReplicaIndex
    number: Number
    certificate: BlockCertificate | None  # None while nothing after genesis is certified
    prepared: tuple[PreparedCertificate, ...]  # ascending sequence
    signature: Signature = UNSIGNED
    digest: Digest = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _hash((self.view, self.claims())))

    def claims(self) -> Digest:
        """Digest of C and P, so that evidence can show the view without all of them."""
        certificate = None if self.certificate is None else self.certificate.value()
        return _hash((certificate, tuple(entry.value() for entry in self.prepared)))

    @property
    def height(self) -> Height:
        return Height(0) if self.certificate is None else self.certificate.height

    def value(self) -> tuple[Value, ...]:
        return (
            self.epoch,
            self.view,
            self.signer,
            self.number,
            None if self.certificate is None else self.certificate.value(),
            tuple(entry.value() for entry in self.prepared),
            self.signature,
        )

    def stamp(self) -> Stamp:
        return Stamp(
            kind=SignedKind.VIEW_CHANGE,
            signer=self.signer,
            epoch=self.epoch,
            number=self.number,
            digest=self.digest,
            signature=self.signature,
        )

    def signed_bytes(self, chain_id: Digest) -> bytes:
        return stamp_bytes(SignedKind.VIEW_CHANGE, chain_id, self.epoch, self.number, self.digest)

    def numbered(self, number: Number) -> "ViewChange":
        return replace(self, number=number)

    def signed(self, signature: Signature) -> "ViewChange":
        return replace(self, signature=signature)


@dataclass(frozen=True, slots=True, kw_only=True)
class NewView:
    """The new primary shows why (V, Q VIEW-CHANGEs) and what is proposed again (O)."""

    epoch: Epoch
    view: View
    signer: ReplicaIndex
    number: Number
    view_changes: tuple[ViewChange, ...]
    proposals: tuple[PrePrepare, ...]
    signature: Signature = UNSIGNED
    digest: Digest = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", _hash((self.view, self.claims())))

    def claims(self) -> Digest:
        """Digest of V and O, so that evidence can show the view without all of them."""
        return _hash(
            (
                tuple((entry.signer, entry.number, entry.digest) for entry in self.view_changes),
                tuple((entry.number, entry.digest) for entry in self.proposals),
            )
        )

    def value(self) -> tuple[Value, ...]:
        return (
            self.epoch,
            self.view,
            self.number,
            tuple(entry.value() for entry in self.view_changes),
            tuple(entry.value() for entry in self.proposals),
            self.signature,
        )

    def stamp(self) -> Stamp:
        return Stamp(
            kind=SignedKind.NEW_VIEW,
            signer=self.signer,
            epoch=self.epoch,
            number=self.number,
            digest=self.digest,
            signature=self.signature,
        )

    def signed_bytes(self, chain_id: Digest) -> bytes:
        return stamp_bytes(SignedKind.NEW_VIEW, chain_id, self.epoch, self.number, self.digest)

    def signed(self, signature: Signature) -> "NewView":
        return replace(self, signature=signature)


# --- messages authenticated by their channel


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """Where the sender stands, for one receiver. `echo` is the receiver's own `boot`, so an
    answer of an earlier life is recognised."""

    epoch: Epoch
    view: View
    in_view_change: bool
    phase: Phase
    boot: int
    echo: int
    executed: Height
    certificate: BlockCertificate | None
    view_changes_held: int  # bit mask of senders whose VIEW-CHANGE for `view` or higher is held
    held: Stamp | None  # highest-numbered message held of the receiver
    unix_ms: int  # the sender's clock: only compared, never used


@dataclass(frozen=True, slots=True, kw_only=True)
class RecoveryAnswer:
    """What a node that lost its memory needs to know: how far it may have voted (3.9)."""

    epoch: Epoch
    echo: int
    executed: Height
    certificate: BlockCertificate | None
    new_view: NewView | None
    view_changes: tuple[ViewChange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Equivocation:
    """Two PRE-PREPAREs of one primary for one place: proof that it lies."""

    first: PrePrepare
    second: PrePrepare


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchBlocks:
    """Give me certified headers from `first` on. Served by the runtime, not by the core."""

    first: Height


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocks:
    """A run of headers that ends at the certificate's block; bodies are fetched by root."""

    headers: tuple[BlockHeader, ...]
    batches: tuple[BatchHeader, ...]
    certificate: BlockCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchBodies:
    """Give me these bodies. Served by the runtime; the answer is one BODY frame for each."""

    payload_roots: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchManifest:
    """Which state snapshots above this height do you have? Served by the runtime."""

    above: Height


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """A state snapshot on offer: the state after the first block of `run`.

    `run` leads from that block to a certificate. `outline` lists the chunks; it says the same at
    every node, while the runs may end at different certificates. The applications prove it against
    the state root.
    """

    run: Blocks
    outline: bytes
    id: Digest = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        outline = hashlib.sha256(self.outline).digest()
        object.__setattr__(self, "id", _hash((self.run.headers[0].hash, outline)))

    @property
    def height(self) -> Height:
        return self.run.headers[0].height

    @property
    def state_root(self) -> Digest:
        """After the block: in the header of the next one, or in the certificate."""
        if len(self.run.headers) > 1:
            return self.run.headers[1].state_root
        return self.run.certificate.checkpoint.state_root


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchChunk:
    """Give me one chunk of a snapshot. Served by the runtime."""

    snapshot: Digest
    index: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """One chunk; the runtime of the receiver checks it against the outline."""

    snapshot: Digest
    index: int
    data: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochLink:
    """The end of an epoch: the certificate of its last block, and the set that it names.

    A chain of links from genesis proves the set of every epoch (bft.md 3.8).
    """

    certificate: BlockCertificate
    validators: ValidatorSet

    @property
    def epoch(self) -> Epoch:
        """The epoch that begins."""
        return self.validators.epoch

    @property
    def base(self) -> Height:
        """The last block of the epoch before it."""
        return self.certificate.height

    def value(self) -> tuple[Value, ...]:
        return (self.certificate.value(), self.validators.value())


Signed = PrePrepare | VoteVector | ViewChange | NewView
Message = (
    Signed
    | Status
    | RecoveryAnswer
    | Equivocation
    | FetchBlocks
    | Blocks
    | FetchBodies
    | FetchManifest
    | Manifest
    | FetchChunk
    | Chunk
    | EpochLink
)


def signatures(message: Message, chain_id: Digest) -> list[EpochJob]:
    """Every signature inside `message`, nested certificates included."""
    jobs: list[EpochJob] = []
    match message:
        case PrePrepare() | VoteVector():
            _own(jobs, message, chain_id)
        case ViewChange():
            _view_change(jobs, message, chain_id)
        case NewView():
            _new_view(jobs, message, chain_id)
        case Status():
            _block_certificate(jobs, message.certificate, chain_id)
            held = message.held
            if held is not None:
                jobs.append((held.epoch, held.signer, held.signed_bytes(chain_id), held.signature))
        case RecoveryAnswer():
            _block_certificate(jobs, message.certificate, chain_id)
            if message.new_view is not None:
                _new_view(jobs, message.new_view, chain_id)
            for view_change in message.view_changes:
                _view_change(jobs, view_change, chain_id)
        case Equivocation():
            _own(jobs, message.first, chain_id)
            _own(jobs, message.second, chain_id)
        case Blocks() | EpochLink():
            _block_certificate(jobs, message.certificate, chain_id)
        case Manifest():
            _block_certificate(jobs, message.run.certificate, chain_id)
        case FetchBlocks() | FetchBodies() | FetchManifest() | FetchChunk() | Chunk():
            pass
        case _:
            assert_never(message)
    return jobs


def _votes(leaf: Leaf, votes: Iterable[VoteProof], chain_id: Digest) -> list[EpochJob]:
    return [(leaf.epoch, *vote.job(chain_id, leaf)) for vote in votes]


def _own(jobs: list[EpochJob], message: Signed, chain_id: Digest) -> None:
    signed = message.signed_bytes(chain_id)
    jobs.append((message.epoch, message.signer, signed, message.signature))


def _block_certificate(
    jobs: list[EpochJob], certificate: BlockCertificate | None, chain_id: Digest
) -> None:
    if certificate is not None:
        jobs.extend(certificate.jobs(chain_id))


def _view_change(jobs: list[EpochJob], message: ViewChange, chain_id: Digest) -> None:
    _own(jobs, message, chain_id)
    _block_certificate(jobs, message.certificate, chain_id)
    for entry in message.prepared:
        jobs.extend(entry.jobs(chain_id))


def _new_view(jobs: list[EpochJob], message: NewView, chain_id: Digest) -> None:
    _own(jobs, message, chain_id)
    for view_change in message.view_changes:
        _view_change(jobs, view_change, chain_id)
    for proposal in message.proposals:
        _own(jobs, proposal, chain_id)
