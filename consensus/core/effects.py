"""Everything a replica may ask for. A closed union, and the contract of its order.

Persist before you speak: the records, votes and signed messages of one list of effects become
durable in *one* transaction, and nothing of that list leaves before. The runtime may merge several
lists into one tick, in order; it may not move anything across a tick, and a tick is released only
when all ticks before it are durable. `core/tick.py` does all of that except the disk.

Released at once, before anything is durable: `TakeBatch`, `EnterEpoch`, timers, `Misbehaved`,
`Accuse`, `Note`, `Halt`, and `Execute` with `after_persist=False` (its prepared certificate is
already durable). Everything else waits.
"""

from dataclasses import dataclass
from enum import Enum

from consensus.core.evidence import Contradiction
from consensus.core.inputs import Timer
from consensus.core.messages import (
    BatchHeader,
    BlockHeader,
    Chunk,
    EpochLink,
    Leaf,
    Manifest,
    Message,
    NewView,
    PrePrepare,
    ViewChange,
)
from consensus.core.records import Record
from consensus.core.types import Height, ReplicaIndex
from native.values import Digest


class Fault(Enum):
    """What a peer did that an honest one never does."""

    EQUIVOCATION = "equivocation"  # two signed messages that exclude each other
    NOT_PRIMARY = "not_primary"  # speaks for a view it does not lead
    BAD_CERTIFICATE = "bad_certificate"  # too few signers, one twice, or wrong content
    BAD_NEW_VIEW = "bad_new_view"  # O is not what V says
    BAD_BLOCKS = "bad_blocks"  # headers that do not chain to their certificate
    BAD_SNAPSHOT = "bad_snapshot"  # an outline or a chunk that is not of the certified state
    WRONG_SENDER = "wrong_sender"  # a channel message in another's name
    REFUSED_PAYLOADS = "refused_payloads"  # batches full of malformed payloads
    STALE_CLOCK = "stale_clock"  # proposes times far in the past


class Event(Enum):
    """Noteworthy things, one log line each."""

    VIEW_CHANGE_STARTED = "view_change.started"
    VIEW_ENTERED = "view.entered"
    STARTED = "replica.started"  # may vote from now on
    AMNESIA_FOUND = "replica.amnesia_found"
    RECOVERY_BOUND = "replica.recovery_bound"
    RECOVERED = "replica.recovered"
    CATCH_UP_STARTED = "catch_up.started"
    CATCH_UP_FINISHED = "catch_up.finished"
    EPOCH_DECIDED = "epoch.decided"  # a block decided on the next set
    EPOCH_ENTERED = "epoch.entered"
    SERVING_ENDED = "replica.serving_ended"  # removed long enough ago: it only observes
    TRANSFER_STARTED = "transfer.started"
    TRANSFER_ABANDONED = "transfer.abandoned"
    TRANSFER_FINISHED = "transfer.finished"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One leaf of the next vote vector."""

    leaf: Leaf


@dataclass(frozen=True, slots=True, kw_only=True)
class Propose:
    """An unsigned, unnumbered PRE-PREPARE of ours; sent to all with its body."""

    pre_prepare: PrePrepare


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeView:
    """An unsigned, unnumbered VIEW-CHANGE of ours; sent to all."""

    view_change: ViewChange


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnounceView:
    """An unsigned, unnumbered NEW-VIEW of ours, its proposals unsigned too; sent to all."""

    new_view: NewView


@dataclass(frozen=True, slots=True, kw_only=True)
class Retract:
    """Throw away everything unsigned that was gathered: we have lost memory of our votes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Persist:
    """Write this record; the same (kind, key) replaces."""

    record: Record


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop:
    """In the same transaction: delete droppable records at or below this sequence (records.py).

    Emitted only together with (or after) a certificate at or above `through`.
    """

    through: Height


@dataclass(frozen=True, slots=True, kw_only=True)
class Send:
    """To one replica."""

    peer: ReplicaIndex
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Broadcast:
    """To every other replica."""

    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class SendProposal:
    """A signed PRE-PREPARE again, with its body, to one replica."""

    peer: ReplicaIndex
    pre_prepare: PrePrepare


@dataclass(frozen=True, slots=True, kw_only=True)
class Execute:
    """Execute this block after those handed out before it.

    The runtime stores `header` and `batch` with the block in `state.db`.
    """

    header: BlockHeader
    batch: BatchHeader
    after_persist: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckSnapshot:
    """Prove an outline against its state root, and answer `SnapshotChecked`."""

    peer: ReplicaIndex
    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class KeepChunk:
    """Check a chunk against its outline, write it, and answer `ChunkKept`.

    `manifest` is proven, and the one that is fetched now: chunks of any other are of no use.
    """

    peer: ReplicaIndex
    manifest: Manifest
    chunk: Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreSnapshot:
    """All chunks are kept: replace `state.db` by their state and answer `SnapshotRestored`.

    Waits for the disk like `Execute`: the certificate must be durable before. No block is in
    execution, and none is handed out before the answer.
    """

    manifest: Manifest


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeBatch:
    """Primary: take payloads out of custody and answer `BatchTaken`, in the same turn."""

    payloads_max: int
    size_bytes_max: int
    allow_empty: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseCustody:
    """A view begins: nothing in custody is proposed in it, except what is in these bodies."""

    in_flight: tuple[Digest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForwardCustody:
    """Send custody payloads again, at most `FORWARD_PAYLOADS_MAX`, the oldest first.

    To the primary, which may never have seen them: what nobody has proposed, from place `first` of
    custody on, first seen at `until_us` or before. Answer `CustodyShown`, in the same turn, with
    the same `first` if the link did not take them.
    To everybody (`peer` is None, no answer) the oldest of all, when they have waited for so long
    that others must know of them.
    """

    peer: ReplicaIndex | None
    first: int = 0
    until_us: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ForgetBody:
    """No instance refers to this body any more; a body of an executed block stays on disk."""

    payload_root: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class EnterEpoch:
    """Another set votes from now on: indexes mean other nodes.

    Throws away everything unsigned and unsent that was gathered: it belongs to the old epoch. The
    runtime maps indexes, keys and bounds to the new set before its next input, and drops inputs
    and ticks that name members of the old one.
    """

    link: EpochLink


@dataclass(frozen=True, slots=True, kw_only=True)
class SetTimer:
    """Replaces a running timer of that name."""

    timer: Timer
    at_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClearTimer:
    """No such timer is running from now on."""

    timer: Timer


@dataclass(frozen=True, slots=True, kw_only=True)
class Misbehaved:
    """A peer's fault: count it, perhaps disconnect."""

    peer: ReplicaIndex
    fault: Fault


@dataclass(frozen=True, slots=True, kw_only=True)
class Accuse:
    """Proof of a peer's lie that anybody can check: at most one for each offence and life."""

    peer: ReplicaIndex
    proof: Contradiction


@dataclass(frozen=True, slots=True, kw_only=True)
class Halt:
    """Our state differs from a certified one, or recovery is impossible: stop, keep all data."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Note:
    """Something an operator wants to read."""

    event: Event
    detail: str


Effect = (
    Vote
    | Propose
    | ChangeView
    | AnnounceView
    | Retract
    | Persist
    | Drop
    | Send
    | Broadcast
    | SendProposal
    | Execute
    | CheckSnapshot
    | KeepChunk
    | RestoreSnapshot
    | TakeBatch
    | ReleaseCustody
    | ForwardCustody
    | ForgetBody
    | EnterEpoch
    | SetTimer
    | ClearTimer
    | Misbehaved
    | Accuse
    | Halt
    | Note
)
