"""Canonical bytes of messages: made here, and read here with every bound checked.

`native.codec.decode` has already refused anything that is not canonical and anything longer than
the frame may be; what is left is a tuple. Counts are compared with n and the window before one
object is made. A decoder returns a fully valid object or raises `MalformedMessage`: signers exist
and are distinct, certificates are large enough, sequences ascend inside one window. Only
signatures and what needs the replica's state remain to be checked.
"""

import functools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

from consensus.core import quorum
from consensus.core.decoded import Decoded
from consensus.core.messages import (
    VERSION,
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Blocks,
    Checkpoint,
    Chunk,
    Commit,
    EpochLink,
    Equivocation,
    FetchBlocks,
    FetchBodies,
    FetchChunk,
    FetchManifest,
    Leaf,
    Manifest,
    NewView,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    RecoveryAnswer,
    SignedKind,
    Stamp,
    Status,
    ViewChange,
    VoteProof,
    VoteVector,
    path_length,
)
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
from consensus.core.validators import Validator, ValidatorSet
from consensus.errors import MalformedMessage, UnknownEpoch
from consensus.limits import (
    BODIES_PER_FETCH_MAX,
    CREDENTIALS_SIZE_BYTES_MAX,
    HEADERS_PER_REPLY_MAX,
    LEAVES_PER_VECTOR_MAX,
    MEMBERS_MAX,
    MESSAGE_BYTES_MAX,
    NUMBER_MAX,
    SIGNATURE_SIZE_BYTES_MAX,
    SNAPSHOT_CHUNK_BYTES_MAX,
    SNAPSHOT_CHUNKS_MAX,
    SNAPSHOT_OUTLINE_BYTES_MAX,
    VALIDATOR_NAME_BYTES_MAX,
    WINDOW_BLOCKS,
)
from native.codec import CodecError, Value, decode, encode
from native.errors import NativeError
from native.values import Digest, PublicKey, Signature

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What a decoder must know of the chain: how many vote in this epoch, and did in earlier ones.

    Every message names its epoch, and is read with the numbers of that one.
    """

    chain_id: Digest
    members: int
    earlier: tuple[int, ...] = ()  # members of epoch 0, 1, ... below this one
    decoded: Decoded | None = field(default=None, compare=False, repr=False)

    def of(self, epoch: int) -> "Bounds":
        """The bounds of a known epoch; raises `UnknownEpoch`."""
        present = len(self.earlier)
        if epoch == present:
            return self
        if epoch > present:
            raise UnknownEpoch(f"epoch {epoch} is not known here, the newest is {present}")
        return replace(self, members=self.earlier[epoch], earlier=self.earlier[:epoch])

    def extended(self, members: int) -> "Bounds":
        """The bounds of the next epoch."""
        return replace(self, members=members, earlier=(*self.earlier, self.members))


def _once(read: Callable[[Value, Bounds], T]) -> Callable[[Value, Bounds], T]:
    """Have what a reader makes of a part remembered, if the bounds have a memory."""

    @functools.wraps(read)
    def remembered(value: Value, bounds: Bounds) -> T:
        if bounds.decoded is None:
            return read(value, bounds)
        return bounds.decoded.get(value, lambda value: read(value, bounds), read)

    return remembered


def decode_value(data: bytes, size_max: int) -> Value:
    """Canonical msgpack to tuples, or `MalformedMessage`."""
    try:
        return decode(data, size_max=size_max)
    except CodecError as error:
        raise MalformedMessage(str(error)) from None


# --- small readers


def fields(value: Value, count: int) -> tuple[Value, ...]:
    if not isinstance(value, tuple) or len(value) != count:
        raise MalformedMessage(f"expected {count} fields")
    return value


def rows(value: Value, count_max: int, count_min: int = 0) -> tuple[Value, ...]:
    if not isinstance(value, tuple) or not count_min <= len(value) <= count_max:
        raise MalformedMessage(f"expected {count_min} to {count_max} entries")
    return value


def message_number(value: Value) -> Number:
    """The number of a signed message: they begin at 1, so that 0 stands for none."""
    found = number(value)
    if not found:
        raise MalformedMessage("a signed message without a number")
    return Number(found)


def number(value: Value, maximum: int = NUMBER_MAX) -> int:
    if type(value) is not int or not 0 <= value <= maximum:
        raise MalformedMessage("integer out of range")
    return value


def flag(value: Value) -> bool:
    if value is True or value is False:
        return value
    raise MalformedMessage("expected a truth value")


def digest(value: Value) -> Digest:
    if type(value) is not bytes or len(value) != 32:
        raise MalformedMessage("expected 32 bytes")
    return Digest(value)


def signature(value: Value) -> Signature:
    if type(value) is not bytes or not 1 <= len(value) <= SIGNATURE_SIZE_BYTES_MAX:
        raise MalformedMessage("expected a signature")
    return Signature(value)


def optional(value: Value, read: Callable[[Value], T]) -> T | None:
    return None if value is None else read(value)


def signer(value: Value, bounds: Bounds) -> ReplicaIndex:
    return ReplicaIndex(number(value, bounds.members - 1))


def signed_kind(value: Value) -> SignedKind:
    kind = number(value, max(SignedKind))
    if kind == 0:
        raise MalformedMessage("unknown kind of signed message")
    return SignedKind(kind)


# --- headers


def batch_header(value: Value, bounds: Bounds) -> BatchHeader:
    version, chain_id, epoch, sequence, proposed_ms, payload_root = fields(value, 6)
    if number(version) != VERSION or chain_id != bounds.chain_id:
        raise MalformedMessage("batch of another chain or version")
    place = number(sequence)
    if place == 0:
        raise MalformedMessage("sequence 0 is genesis")
    return BatchHeader(
        chain_id=bounds.chain_id,
        epoch=Epoch(number(epoch)),
        sequence=Sequence(place),
        proposed_ms=number(proposed_ms),
        payload_root=digest(payload_root),
    )


def block_header(value: Value, bounds: Bounds) -> BlockHeader:
    version, chain_id, height, epoch, parent, batch, time_ms, state_root = fields(value, 8)
    if number(version) != VERSION or chain_id != bounds.chain_id:
        raise MalformedMessage("block of another chain or version")
    return BlockHeader(
        chain_id=bounds.chain_id,
        height=Height(number(height)),
        epoch=Epoch(number(epoch)),
        parent=digest(parent),
        batch=digest(batch),
        time_ms=number(time_ms),
        state_root=digest(state_root),
    )


# --- votes and certificates


def leaf(value: Value) -> Leaf:
    if not isinstance(value, tuple) or not value:
        raise MalformedMessage("expected a leaf")
    if number(value[0]) == 3:  # `true` equals 1 and is another encoding
        return checkpoint(value[1:])
    kind, epoch, view, sequence, batch = fields(value, 5)
    if kind == 1:
        return Prepare(
            epoch=Epoch(number(epoch)),
            view=View(number(view)),
            sequence=Sequence(number(sequence)),
            digest=digest(batch),
        )
    if kind == 2:
        return Commit(
            epoch=Epoch(number(epoch)),
            view=View(number(view)),
            sequence=Sequence(number(sequence)),
            digest=digest(batch),
        )
    raise MalformedMessage("unknown leaf")


def checkpoint(value: Value) -> Checkpoint:
    epoch, height, header_hash, state_root, next_set = fields(value, 5)
    return Checkpoint(
        epoch=Epoch(number(epoch)),
        height=Height(number(height)),
        header_hash=digest(header_hash),
        state_root=digest(state_root),
        next_set=digest(next_set),
    )


def encode_votes(vector: VoteVector) -> bytes:
    return encode(
        (
            vector.epoch,
            vector.signer,
            vector.number,
            tuple([leaf.value() for leaf in vector.leaves]),
            vector.signature,
        )
    )


def votes(value: Value, bounds: Bounds) -> VoteVector:
    epoch, who, count, leaves, signed = fields(value, 5)
    bounds = bounds.of(number(epoch))
    vector = VoteVector(
        epoch=Epoch(number(epoch)),
        signer=signer(who, bounds),
        number=message_number(count),
        leaves=tuple([leaf(entry) for entry in rows(leaves, LEAVES_PER_VECTOR_MAX, 1)]),
        signature=signature(signed),
    )
    for entry in vector.leaves:
        if entry.epoch != vector.epoch:
            raise MalformedMessage("leaf of another epoch than its vector")
    return vector


def vote_proof(value: Value, bounds: Bounds) -> VoteProof:
    who, count, index, size, path, signed = fields(value, 6)
    leaves = number(size, LEAVES_PER_VECTOR_MAX)
    place = number(index)
    if place >= leaves:
        raise MalformedMessage("leaf outside its vector")
    length = path_length(place, leaves)
    return VoteProof(
        signer=signer(who, bounds),
        number=message_number(count),
        index=place,
        size=leaves,
        path=tuple([digest(step) for step in rows(path, length, length)]),
        signature=signature(signed),
    )


def _distinct(proofs: tuple[VoteProof, ...], needed: int, excluded: int | None) -> None:
    seen = 0
    for proof in proofs:
        bit = 1 << proof.signer
        if seen & bit or proof.signer == excluded:
            raise MalformedMessage("a certificate counts a signer twice")
        seen |= bit
    if len(proofs) < needed:
        raise MalformedMessage("a certificate without a quorum")


@_once
def prepared_certificate(value: Value, bounds: Bounds) -> PreparedCertificate:
    proposal, proofs = fields(value, 2)
    first = pre_prepare(proposal, bounds)
    bounds = bounds.of(first.epoch)
    entries = rows(proofs, bounds.members - 1)
    certificate = PreparedCertificate(
        pre_prepare=first, votes=tuple([vote_proof(entry, bounds) for entry in entries])
    )
    _distinct(certificate.votes, quorum.quorum(bounds.members) - 1, first.signer)
    return certificate


@_once
def block_certificate(value: Value, bounds: Bounds) -> BlockCertificate:
    body, proofs = fields(value, 2)
    claim = checkpoint(body)
    bounds = bounds.of(claim.epoch)
    entries = rows(proofs, bounds.members)
    certificate = BlockCertificate(
        checkpoint=claim, votes=tuple([vote_proof(entry, bounds) for entry in entries])
    )
    _distinct(certificate.votes, quorum.quorum(bounds.members), None)
    if certificate.height == 0:
        raise MalformedMessage("genesis has no certificate")
    return certificate


# --- signed messages


def pre_prepare(value: Value, bounds: Bounds) -> PrePrepare:
    view, count, header, signed = fields(value, 4)
    place = View(number(view))
    batch = batch_header(header, bounds)
    return PrePrepare(
        view=place,
        signer=ReplicaIndex(place % bounds.of(batch.epoch).members),
        number=message_number(count),
        header=batch,
        signature=signature(signed),
    )


@_once
def view_change(value: Value, bounds: Bounds) -> ViewChange:
    epoch, view, who, count, certified, prepared, signed = fields(value, 7)
    bounds = bounds.of(number(epoch))
    entries = rows(prepared, WINDOW_BLOCKS)
    message = ViewChange(
        epoch=Epoch(number(epoch)),
        view=View(number(view)),
        signer=signer(who, bounds),
        number=message_number(count),
        certificate=optional(certified, lambda entry: block_certificate(entry, bounds)),
        prepared=tuple([prepared_certificate(entry, bounds) for entry in entries]),
        signature=signature(signed),
    )
    last = int(message.height)
    if not _belongs(message.certificate, message.epoch):
        raise MalformedMessage("certificate of another epoch")
    for entry in message.prepared:
        if not last < entry.sequence <= message.height + WINDOW_BLOCKS:
            raise MalformedMessage("prepared certificate outside the window or out of order")
        if entry.view >= message.view or entry.pre_prepare.epoch != message.epoch:
            raise MalformedMessage("prepared certificate of another epoch or a later view")
        last = entry.sequence
    return message


def _belongs(certificate: BlockCertificate | None, epoch: Epoch) -> bool:
    """Whether a VIEW-CHANGE of this epoch may show the certificate: of the epoch, or its link."""
    if certificate is None:
        return epoch == 0
    claim = certificate.checkpoint
    return claim.epoch == epoch or (claim.epoch + 1 == epoch and claim.next_set != NO_DIGEST)


def new_view(value: Value, bounds: Bounds) -> NewView:
    epoch, view, count, changes, proposals, signed = fields(value, 6)
    bounds = bounds.of(number(epoch))
    members = bounds.members
    place = View(number(view))
    entries = rows(changes, members, quorum.quorum(members))
    message = NewView(
        epoch=Epoch(number(epoch)),
        view=place,
        signer=ReplicaIndex(place % members),
        number=message_number(count),
        view_changes=tuple([view_change(entry, bounds) for entry in entries]),
        proposals=tuple(
            [pre_prepare(entry, bounds) for entry in rows(proposals, 2 * WINDOW_BLOCKS)]
        ),
        signature=signature(signed),
    )
    seen = 0
    for change in message.view_changes:
        bit = 1 << change.signer
        if seen & bit or change.view != place or change.epoch != message.epoch:
            raise MalformedMessage("NEW-VIEW with a VIEW-CHANGE that is not for it")
        seen |= bit
    for proposal in message.proposals:
        if proposal.view != place or proposal.epoch != message.epoch:
            raise MalformedMessage("NEW-VIEW proposes for another view")
    return message


# --- channel messages


def stamp_value(stamp: Stamp) -> tuple[Value, ...]:
    return (
        int(stamp.kind),
        stamp.signer,
        stamp.epoch,
        stamp.number,
        stamp.digest,
        stamp.signature,
    )


def stamp(value: Value, bounds: Bounds) -> Stamp:
    kind, who, epoch, count, content, signed = fields(value, 6)
    bounds = bounds.of(number(epoch))
    return Stamp(
        kind=signed_kind(kind),
        signer=signer(who, bounds),
        epoch=Epoch(number(epoch)),
        number=message_number(count),
        digest=digest(content),
        signature=signature(signed),
    )


def encode_status(status: Status) -> bytes:
    return encode(
        (
            status.epoch,
            status.view,
            status.in_view_change,
            int(status.phase),
            status.boot,
            status.echo,
            status.executed,
            None if status.certificate is None else status.certificate.value(),
            status.view_changes_held,
            None if status.held is None else stamp_value(status.held),
            status.unix_ms,
        )
    )


def status(value: Value, bounds: Bounds) -> Status:
    epoch, view, changing, phase, boot, echo, executed, certified, mask, held, clock = fields(
        value, 11
    )
    bounds = bounds.of(number(epoch))
    return Status(
        epoch=Epoch(number(epoch)),
        view=View(number(view)),
        in_view_change=flag(changing),
        phase=Phase(number(phase, max(Phase))),
        boot=number(boot),
        echo=number(echo),
        executed=Height(number(executed)),
        certificate=optional(certified, lambda entry: block_certificate(entry, bounds)),
        view_changes_held=number(mask, (1 << bounds.members) - 1),
        held=optional(held, lambda entry: stamp(entry, bounds)),
        unix_ms=number(clock),
    )


def encode_recovery_answer(answer: RecoveryAnswer) -> bytes:
    return encode(
        (
            answer.epoch,
            answer.echo,
            answer.executed,
            None if answer.certificate is None else answer.certificate.value(),
            None if answer.new_view is None else answer.new_view.value(),
            tuple(entry.value() for entry in answer.view_changes),
        )
    )


def recovery_answer(value: Value, bounds: Bounds) -> RecoveryAnswer:
    epoch, echo, executed, certified, announced, changes = fields(value, 6)
    bounds = bounds.of(number(epoch))
    answer = RecoveryAnswer(
        epoch=Epoch(number(epoch)),
        echo=number(echo),
        executed=Height(number(executed)),
        certificate=optional(certified, lambda entry: block_certificate(entry, bounds)),
        new_view=optional(announced, lambda entry: new_view(entry, bounds)),
        view_changes=tuple([view_change(entry, bounds) for entry in rows(changes, bounds.members)]),
    )
    if len({entry.signer for entry in answer.view_changes}) != len(answer.view_changes):
        raise MalformedMessage("two VIEW-CHANGEs of one sender")
    shown = (*answer.view_changes, *(() if answer.new_view is None else (answer.new_view,)))
    if any(message.epoch != answer.epoch for message in shown):
        raise MalformedMessage("an answer shows a view of another epoch")
    return answer


def equivocation(value: Value, bounds: Bounds) -> Equivocation:
    first, second = (pre_prepare(entry, bounds) for entry in fields(value, 2))
    same_place = (first.epoch, first.view, first.sequence) == (
        second.epoch,
        second.view,
        second.sequence,
    )
    if not same_place or first.digest == second.digest:
        raise MalformedMessage("no contradiction")
    return Equivocation(first=first, second=second)


def validator_set(value: Value) -> ValidatorSet:
    """The members of an epoch: names and keys, each once."""
    epoch, members = fields(value, 2)
    validators: list[Validator] = []
    for entry in rows(members, MEMBERS_MAX, 1):
        name, spki, credentials = with_credentials(entry)
        if type(name) is not str or len(name.encode()) > VALIDATOR_NAME_BYTES_MAX:
            raise MalformedMessage("expected the name of a validator")
        if type(spki) is not bytes:
            raise MalformedMessage("expected a public key")
        try:
            key = PublicKey.from_spki(spki)
        except NativeError as error:
            raise MalformedMessage(str(error)) from None
        validators.append(Validator(name=name, key=key, credentials=credentials))
    if len({validator.node_id for validator in validators}) != len(validators):
        raise MalformedMessage("a set with one key twice")
    return ValidatorSet(epoch=Epoch(number(epoch)), members=tuple(validators))


def with_credentials(value: Value) -> tuple[Value, Value, bytes]:
    """Name, key and credentials of a validator; one without credentials is a list of two."""
    if isinstance(value, tuple) and len(value) == 2:
        return value[0], value[1], b""
    name, spki, credentials = fields(value, 3)
    if type(credentials) is not bytes or not 0 < len(credentials) <= CREDENTIALS_SIZE_BYTES_MAX:
        raise MalformedMessage("expected the credentials of a validator")
    return name, spki, credentials


def epoch_link(value: Value, bounds: Bounds) -> EpochLink:
    """A link whose certificate is of a known epoch and names the set beside it."""
    certified, members = fields(value, 2)
    certificate = block_certificate(certified, bounds)
    validators = validator_set(members)
    claim = certificate.checkpoint
    if claim.next_set != validators.hash or validators.epoch != claim.epoch + 1:
        raise MalformedMessage("a set that its certificate does not name")
    return EpochLink(certificate=certificate, validators=validators)


def fetch_blocks(value: Value, _bounds: Bounds) -> FetchBlocks:
    (first,) = fields(value, 1)
    return FetchBlocks(first=Height(number(first)))


def fetch_bodies(value: Value, _bounds: Bounds) -> FetchBodies:
    (roots,) = fields(value, 1)
    return FetchBodies(
        payload_roots=tuple([digest(entry) for entry in rows(roots, BODIES_PER_FETCH_MAX, 1)])
    )


def encode_blocks(blocks: Blocks) -> bytes:
    return encode(
        (
            tuple([header.value() for header in blocks.headers]),
            tuple([batch.value() for batch in blocks.batches]),
            blocks.certificate.value(),
        )
    )


def blocks(value: Value, bounds: Bounds) -> Blocks:
    headers, batches, certified = fields(value, 3)
    header_rows = rows(headers, HEADERS_PER_REPLY_MAX, 1)
    batch_rows = rows(batches, len(header_rows), len(header_rows))
    reply = Blocks(
        headers=tuple([block_header(entry, bounds) for entry in header_rows]),
        batches=tuple([batch_header(entry, bounds) for entry in batch_rows]),
        certificate=block_certificate(certified, bounds),
    )
    parent: BlockHeader | None = None
    for header, batch in zip(reply.headers, reply.batches, strict=True):
        if header.batch != batch.digest or int(header.height) != batch.sequence:
            raise MalformedMessage("a block that is not made of its batch")
        if parent is not None and (
            header.parent != parent.hash or header.height != parent.height + 1
        ):
            raise MalformedMessage("blocks that do not chain")
        parent = header
    if parent is not None and parent.hash != reply.certificate.checkpoint.header_hash:
        raise MalformedMessage("blocks that do not end at their certificate")
    return reply


# --- state transfer


def fetch_manifest(value: Value, _bounds: Bounds) -> FetchManifest:
    (above,) = fields(value, 1)
    return FetchManifest(above=Height(number(above)))


def encode_manifest(manifest: Manifest) -> bytes:
    return encode((encode_blocks(manifest.run), manifest.outline))


def manifest(value: Value, bounds: Bounds) -> Manifest:
    run, outline = fields(value, 2)
    if not isinstance(run, bytes) or not isinstance(outline, bytes):
        raise MalformedMessage("a manifest is made of bytes")
    if len(outline) > SNAPSHOT_OUTLINE_BYTES_MAX:
        raise MalformedMessage("an outline that is too long")
    return Manifest(run=blocks(decode_value(run, MESSAGE_BYTES_MAX), bounds), outline=outline)


def fetch_chunk(value: Value, _bounds: Bounds) -> FetchChunk:
    snapshot, index = fields(value, 2)
    return FetchChunk(snapshot=digest(snapshot), index=number(index, SNAPSHOT_CHUNKS_MAX - 1))


def chunk(value: Value, _bounds: Bounds) -> Chunk:
    snapshot, index, data = fields(value, 3)
    if not isinstance(data, bytes) or len(data) > SNAPSHOT_CHUNK_BYTES_MAX:
        raise MalformedMessage("a chunk that is too long, or no bytes")
    return Chunk(snapshot=digest(snapshot), index=number(index, SNAPSHOT_CHUNKS_MAX - 1), data=data)
