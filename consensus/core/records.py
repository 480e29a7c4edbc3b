"""The durable records of one replica (bft.md 3.10) and their bytes.

The store is a table `(kind, key, sequence, data)` with the primary key `(kind, key)`: a record
replaces one of the same kind and key. `Drop(through)` deletes the rows with
`1 <= sequence <= through`; rows with sequence 0 are never dropped. What is stored as `data` begins
with a checksum of the whole row, its place included: SQLite notices neither a flipped bit in a blob
nor a row that was written to the place of another. An `Accepted` record demands
that the body of its batch is written in the same transaction (bodies are the block store and
outlive the record).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final, Self, TypeVar, assert_never

from consensus.core import wire
from consensus.core.messages import (
    UNSIGNED,
    BatchHeader,
    BlockCertificate,
    EpochLink,
    NewView,
    PreparedCertificate,
    PrePrepare,
    SignedKind,
    Stamp,
    ViewChange,
    VoteVector,
)
from consensus.core.types import Epoch, Height, Number, Sequence, View
from consensus.core.validators import ValidatorSet
from consensus.errors import CorruptRecord, MalformedMessage
from consensus.limits import ANCHOR_BLOCKS, MEMBERS_MAX, MESSAGE_BYTES_MAX
from native.codec import Value, encode
from native.hashing import sha256
from native.values import Digest, Signature

M = TypeVar("M", PrePrepare, VoteVector)

CHECKSUM_SIZE_BYTES: Final = 8  # of SHA-256: against disks, not against somebody who can write


class RecordKind(IntEnum):
    """The first part of a record's key. A number is never given to another kind."""

    BIRTH = 1
    LAST_NUMBER = 2
    PEER_STAMP = 3
    VIEW_ENTERED = 4
    ACCEPTED = 5
    PREPARED = 6
    OWN_VOTES = 7
    OWN_VIEW_CHANGE = 8
    NEW_VIEW = 9
    TIP = 10
    ANCHOR = 11
    RECOVERY = 12
    EPOCH_BEGUN = 13
    RETIRED = 14
    AGREED = 15
    DIVERGED = 16


BIRTH_KEY: Final = (RecordKind.BIRTH, 0)
TIP_KIND: Final = RecordKind.TIP
ANCHOR_KIND: Final = RecordKind.ANCHOR
ACCEPTED_KIND: Final = RecordKind.ACCEPTED
AGREED_KIND: Final = RecordKind.AGREED


@dataclass(frozen=True, slots=True, kw_only=True)
class Birth:
    """Written with the key, never by `node run`: a key without it has lost its disk."""

    chain_id: Digest
    node_id: Digest
    incarnation: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LastNumber:
    """The highest number under this key and what it was used for; monotone, never deleted."""

    number: Number
    kind: SignedKind
    digest: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStamp:
    """The highest-numbered message of one peer, shown back to it in STATUS."""

    stamp: Stamp


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewEntered:
    """The newest view this replica entered, or asked for (`active` is False)."""

    epoch: Epoch
    view: View
    active: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Accepted:
    """The PRE-PREPARE accepted for a sequence in the newest view, own ones included."""

    pre_prepare: PrePrepare


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """The prepared certificate of the highest view for a sequence."""

    certificate: PreparedCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnVotes:
    """A vote vector of ours, as signed."""

    vector: VoteVector


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnViewChange:
    """Our newest VIEW-CHANGE, as signed."""

    view_change: ViewChange


@dataclass(frozen=True, slots=True, kw_only=True)
class NewViewHeld:
    """The newest NEW-VIEW accepted or sent."""

    new_view: NewView


@dataclass(frozen=True, slots=True, kw_only=True)
class Tip:
    """The newest block certificate."""

    certificate: BlockCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchor:
    """The first certificate at or above a multiple of 64: what catch-up is served from."""

    certificate: BlockCertificate


@dataclass(frozen=True, slots=True, kw_only=True)
class Agreed:
    """The batch of an executed block. With its body, all it takes to execute it again.

    Stands in for `Accepted` and `Prepared` once a certificate dropped those: a power cut takes the
    newest blocks out of `state.db`. Never read at a start, but to execute again what is lost.
    """

    header: BatchHeader


@dataclass(frozen=True, slots=True, kw_only=True)
class Recovery:
    """This replica lost memory of its votes. `first_sequence` 0: the bound is not known yet."""

    first_sequence: Sequence  # S: no vote below it
    first_view: View  # V: no PREPARE, COMMIT, VIEW-CHANGE, NEW-VIEW or PRE-PREPARE below it
    done: bool  # a block at or above S - 1 is certified


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochBegun:
    """An epoch was entered: its link. One for each epoch, never deleted: they prove the set."""

    link: EpochLink


@dataclass(frozen=True, slots=True, kw_only=True)
class Retired:
    """This key does not vote in `epoch`: nothing is signed above `base` until it is in a set again.

    Kept even if it comes back later, and obeyed without the link of its epoch.
    """

    epoch: Epoch
    base: Height  # the last block it may have voted for


@dataclass(frozen=True, slots=True, kw_only=True)
class Diverged:
    """This block of ours, or the state after it, turned out not to be the certified one.

    A later life halts at once if its state still comes from this block. Where somebody put another
    state in its place, or a certificate held says that it is the certified one after all, the
    record means nothing, and goes with the next certificate.
    """

    height: Height
    header_hash: Digest
    state_root: Digest  # after the block
    sound_through: Height  # up to here our blocks are known to be the certified ones


def reborn(chain_id: Digest, node_id: Digest, incarnation: int) -> tuple[Birth, Recovery]:
    """The first records of a store made again after disk loss, for one transaction.

    Both together: with the birth record alone a crash would leave a replica that thinks it is new.
    """
    return (
        Birth(chain_id=chain_id, node_id=node_id, incarnation=incarnation),
        Recovery(first_sequence=Sequence(0), first_view=View(0), done=False),
    )


Record = (
    Birth
    | LastNumber
    | PeerStamp
    | ViewEntered
    | Accepted
    | Prepared
    | OwnVotes
    | OwnViewChange
    | NewViewHeld
    | Tip
    | Anchor
    | Recovery
    | EpochBegun
    | Retired
    | Diverged
    | Agreed
)


def certified_height(records: Iterable[Record]) -> int:
    """Height of the newest certificate, 0 without one."""
    return max((int(one.certificate.height) for one in records if isinstance(one, Tip)), default=0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One row of the record table."""

    kind: int
    key: int
    sequence: int
    data: bytes

    @property
    def stored(self) -> bytes:
        """What the column `data` holds."""
        return self._checksum + self.data

    @classmethod
    def read(cls, kind: int, key: int, sequence: int, stored: bytes) -> Self:
        """The row a store gave back; `CorruptRecord` when it is not what was written there."""
        row = cls(kind=kind, key=key, sequence=sequence, data=stored[CHECKSUM_SIZE_BYTES:])
        if stored[:CHECKSUM_SIZE_BYTES] != row._checksum:
            raise CorruptRecord(f"record of kind {kind}, key {key}: the checksum is wrong")
        return row

    @property
    def _checksum(self) -> bytes:
        place = b"%d/%d/%d/" % (self.kind, self.key, self.sequence)
        return sha256(place, self.data)[:CHECKSUM_SIZE_BYTES]


def record_key(record: Record) -> tuple[int, int]:
    """Kind and key; what replaces what."""
    match record:
        case Birth():
            return BIRTH_KEY
        case LastNumber():
            return RecordKind.LAST_NUMBER, 0
        case PeerStamp():
            return RecordKind.PEER_STAMP, record.stamp.epoch * MEMBERS_MAX + record.stamp.signer
        case ViewEntered():
            return RecordKind.VIEW_ENTERED, 0
        case Accepted():
            return RecordKind.ACCEPTED, record.pre_prepare.sequence
        case Prepared():
            return RecordKind.PREPARED, record.certificate.sequence
        case OwnVotes():
            return RecordKind.OWN_VOTES, record.vector.number
        case OwnViewChange():
            return RecordKind.OWN_VIEW_CHANGE, 0
        case NewViewHeld():
            return RecordKind.NEW_VIEW, 0
        case Tip():
            return RecordKind.TIP, 0
        case Anchor():
            return RecordKind.ANCHOR, record.certificate.height // ANCHOR_BLOCKS
        case Recovery():
            return RecordKind.RECOVERY, 0
        case EpochBegun():
            return RecordKind.EPOCH_BEGUN, record.link.epoch
        case Retired():
            return RecordKind.RETIRED, record.epoch
        case Agreed():
            return RecordKind.AGREED, record.header.sequence
        case Diverged():
            return RecordKind.DIVERGED, 0
        case _:
            assert_never(record)


def record_sequence(record: Record) -> int:
    """What `Drop` compares with; 0 for records that only a newer one replaces."""
    match record:
        case Accepted():
            return record.pre_prepare.sequence
        case Prepared():
            return record.certificate.sequence
        case OwnVotes():
            return record.vector.top
        case Diverged():
            return max(1, record.height)
        case _:
            return 0


def encode_record(record: Record) -> Row:
    """A record as a row."""
    kind, key = record_key(record)
    match record:
        case Birth():
            data = encode((record.chain_id, record.node_id, record.incarnation))
        case LastNumber():
            data = encode((record.number, int(record.kind), record.digest))
        case PeerStamp():
            data = encode(wire.stamp_value(record.stamp))
        case ViewEntered():
            data = encode((record.epoch, record.view, record.active))
        case Accepted():
            data = encode(record.pre_prepare.value())
        case Prepared():
            data = encode(record.certificate.value())
        case OwnVotes():
            data = wire.encode_votes(record.vector)
        case OwnViewChange():
            data = encode(record.view_change.value())
        case NewViewHeld():
            data = encode(record.new_view.value())
        case Tip() | Anchor():
            data = encode(record.certificate.value())
        case Recovery():
            data = encode((record.first_sequence, record.first_view, record.done))
        case EpochBegun():
            data = encode(record.link.value())
        case Retired():
            data = encode((record.epoch, record.base))
        case Agreed():
            data = encode(record.header.value())
        case Diverged():
            data = encode(
                (record.height, record.header_hash, record.state_root, record.sound_through)
            )
        case _:
            assert_never(record)
    return Row(kind=kind, key=key, sequence=record_sequence(record), data=data)


def decode_record(kind: int, data: bytes, bounds: wire.Bounds) -> Record:
    """The record in a row; `CorruptRecord` when it is none."""
    try:
        return _decode(kind, wire.decode_value(data, MESSAGE_BYTES_MAX), bounds)
    except MalformedMessage as error:
        raise CorruptRecord(f"record of kind {kind}: {error}") from None


def decode_records(rows: Iterable[tuple[int, bytes]], bounds: wire.Bounds) -> list[Record]:
    """All rows of a store, given as (kind, data); `bounds` are those of genesis.

    The links are read first, rising: each proves the set that later records are read with.
    """
    links: list[bytes] = []
    others: list[tuple[int, bytes]] = []
    for kind, data in rows:
        if kind == RecordKind.EPOCH_BEGUN:
            links.append(data)
        else:
            others.append((kind, data))
    records: list[Record] = []
    for data in sorted(links, key=_link_epoch):
        record = decode_record(RecordKind.EPOCH_BEGUN, data, bounds)
        assert isinstance(record, EpochBegun)
        bounds = bounds.extended(len(record.link.validators.members))
        if record.link.epoch != len(bounds.earlier):
            raise CorruptRecord(f"the link to epoch {len(bounds.earlier)} is missing")
        records.append(record)
    records.extend(decode_record(kind, data, bounds) for kind, data in others)
    return records


def _link_epoch(data: bytes) -> int:
    """The epoch that a link begins, before its certificate can be read."""
    try:
        _, members = wire.fields(wire.decode_value(data, MESSAGE_BYTES_MAX), 2)
        return int(wire.validator_set(members).epoch)
    except MalformedMessage as error:
        raise CorruptRecord(f"record of kind {RecordKind.EPOCH_BEGUN}: {error}") from None


def signed_again(
    records: Iterable[Record], chain_id: Digest, sign: Callable[[bytes], Signature]
) -> list[Record]:
    """Put signatures where a crash came between a commit and them.

    The content and its number are those of the record, so this is no second message.
    """
    return [_signed_again(record, chain_id, sign) for record in records]


def _signed_again(record: Record, chain_id: Digest, sign: Callable[[bytes], Signature]) -> Record:
    match record:
        case Accepted(pre_prepare=message) if message.signature == UNSIGNED:
            return Accepted(pre_prepare=message.signed(sign(message.signed_bytes(chain_id))))
        case OwnVotes(vector=vector) if vector.signature == UNSIGNED:
            return OwnVotes(vector=vector.signed(sign(vector.signed_bytes(chain_id))))
        case _:
            return record


def _stored(
    read: Callable[[Value, wire.Bounds], M], value: Value, count: int, bounds: wire.Bounds
) -> M:
    """A message that may have been stored before it was signed; on the wire it never is."""
    *content, signature = wire.fields(value, count)
    if signature == UNSIGNED:
        return read((*content, b"\0"), bounds).signed(UNSIGNED)
    return read(value, bounds)


def _decode(kind: int, value: Value, bounds: wire.Bounds) -> Record:
    match kind:
        case RecordKind.BIRTH:
            chain_id, node_id, incarnation = wire.fields(value, 3)
            return Birth(
                chain_id=wire.digest(chain_id),
                node_id=wire.digest(node_id),
                incarnation=wire.number(incarnation),
            )
        case RecordKind.LAST_NUMBER:
            count, used_for, digest = wire.fields(value, 3)
            return LastNumber(
                number=Number(wire.number(count)),
                kind=wire.signed_kind(used_for),
                digest=wire.digest(digest),
            )
        case RecordKind.PEER_STAMP:
            return PeerStamp(stamp=wire.stamp(value, bounds))
        case RecordKind.VIEW_ENTERED:
            epoch, view, active = wire.fields(value, 3)
            return ViewEntered(
                epoch=Epoch(wire.number(epoch)),
                view=View(wire.number(view)),
                active=wire.flag(active),
            )
        case RecordKind.ACCEPTED:
            return Accepted(pre_prepare=_stored(wire.pre_prepare, value, 4, bounds))
        case RecordKind.PREPARED:
            return Prepared(certificate=wire.prepared_certificate(value, bounds))
        case RecordKind.OWN_VOTES:
            return OwnVotes(vector=_stored(wire.votes, value, 5, bounds))
        case RecordKind.OWN_VIEW_CHANGE:
            return OwnViewChange(view_change=wire.view_change(value, bounds))
        case RecordKind.NEW_VIEW:
            return NewViewHeld(new_view=wire.new_view(value, bounds))
        case RecordKind.TIP:
            return Tip(certificate=wire.block_certificate(value, bounds))
        case RecordKind.ANCHOR:
            return Anchor(certificate=wire.block_certificate(value, bounds))
        case RecordKind.RECOVERY:
            first_sequence, first_view, done = wire.fields(value, 3)
            return Recovery(
                first_sequence=Sequence(wire.number(first_sequence)),
                first_view=View(wire.number(first_view)),
                done=wire.flag(done),
            )
        case RecordKind.EPOCH_BEGUN:
            return EpochBegun(link=wire.epoch_link(value, bounds))
        case RecordKind.RETIRED:
            epoch, base = wire.fields(value, 2)
            return Retired(epoch=Epoch(wire.number(epoch)), base=Height(wire.number(base)))
        case RecordKind.AGREED:
            return Agreed(header=wire.batch_header(value, bounds))
        case RecordKind.DIVERGED:
            height, header_hash, state_root, sound_through = wire.fields(value, 4)
            return Diverged(
                height=Height(wire.number(height)),
                header_hash=wire.digest(header_hash),
                state_root=wire.digest(state_root),
                sound_through=Height(wire.number(sound_through)),
            )
        case _:
            raise MalformedMessage("unknown kind of record")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutedBlock:
    """What `state.db` knows of a block: enough to vote for it and to build on it."""

    height: Height
    header_hash: Digest
    time_ms: int
    state_root: Digest  # after the block
    next_validators: ValidatorSet | None = None  # what this block decided, if it did
