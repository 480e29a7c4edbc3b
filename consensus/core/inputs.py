"""Everything that can happen to a replica. A closed union: `Replica.step` handles each member.

Duties of whoever feeds the core (runtime and simulator alike):

1. `Received` only after every job of `messages.signatures(message)` was found valid, and only with
   `sender` = the replica the channel belongs to. A signed message may be forwarded by another.
2. `BodyHeld` only after the body was parsed, its Merkle root was computed, and it can be found
   by that root. A body that came with a PRE-PREPARE is announced before the PRE-PREPARE.
3. `Executed` only after the block's `state.db` transaction.
4. Own signed messages come back as `Received(sender=me)` only through `Tick.release`.
"""

from dataclasses import dataclass
from enum import Enum

from consensus.core.messages import Message
from consensus.core.types import GENESIS_HEIGHT, Height, ReplicaIndex
from consensus.core.validators import ValidatorSet
from native.values import Digest


class Timer(Enum):
    """The names of the core's timers; at most one of each is running."""

    PROPOSE = "propose"  # the batch interval is over
    IDLE = "idle"  # time for an empty batch
    SUSPECT = "suspect"  # the primary has had its time
    VIEW_CHANGE = "view_change"  # NEW-VIEW has had its time
    STATUS = "status"  # is something stuck? then tell, and ask
    FETCH = "fetch"  # ask the next peer for what is missing
    TRANSFER = "transfer"  # take back what a server of chunks did not give
    CLOCK = "clock"  # a PREPARE waits for our clock to reach its proposed time


@dataclass(frozen=True, slots=True, kw_only=True)
class Started:
    """The first input of a life: timers are armed and STATUS goes out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Received:
    """A verified message."""

    sender: ReplicaIndex
    message: Message


@dataclass(frozen=True, slots=True, kw_only=True)
class BodyHeld:
    """The body with this payload root can be executed and served from here."""

    payload_root: Digest
    size_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchTaken:
    """Answer to `TakeBatch`. `payload_root` is None when custody had nothing to propose."""

    payload_root: Digest | None
    payloads: int
    size_bytes: int
    pending: int  # payloads that may be proposed and were not taken


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyShown:
    """Answer to `ForwardCustody` to a primary. Places in custody only grow.

    Only what the link took was shown: if it was full or gone, `first` is the one of the effect.
    """

    first: int  # the place to go on from
    waiting_us: int | None  # first sight of the oldest payload from there on that is not proposed


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """The block of the last `Execute` was executed and written to `state.db`."""

    height: Height
    header_hash: Digest
    state_root: Digest  # after the block
    next_validators: ValidatorSet | None = None  # the next set, if this block decided on it
    payloads: int = 0
    malformed: int = 0  # payloads that fail stateless checks: undecodable, wrong chain, oversized
    full: bool = False  # the batch is so large that its primary may have had more to propose


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotChecked:
    """Answer to `CheckSnapshot`. `missing` are the chunks that are not on our disk yet.

    `valid` is None if too much was waiting to look at it.
    """

    peer: ReplicaIndex
    snapshot: Digest
    valid: bool | None
    chunks: int = 0
    missing: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkKept:
    """Answer to `KeepChunk`: on the disk, or not the chunk that the outline commits to.

    `valid` is None if too much was waiting to look at it, or if the disk did not take it, which
    `refused` says.
    """

    peer: ReplicaIndex
    snapshot: Digest
    index: int
    valid: bool | None
    refused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotRestored:
    """Answer to `RestoreSnapshot`: `state.db` holds the state of the snapshot, durably.

    `next_validators` is the set that this state has decided on, by its block `decided_at`, if any.
    """

    snapshot: Digest
    next_validators: ValidatorSet | None = None
    decided_at: Height = GENESIS_HEIGHT


@dataclass(frozen=True, slots=True, kw_only=True)
class TimerFired:
    """A timer set by `SetTimer` reached its time."""

    timer: Timer


@dataclass(frozen=True, slots=True, kw_only=True)
class CustodyChanged:
    """Payloads came into custody or left it. At most one for each turn of the driver."""

    pending: int  # payloads that were not proposed yet
    pending_bytes: int
    oldest_us: int | None  # `Instant.monotonic_us` at which the oldest in custody was first seen


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerConnected:
    """A connection to this validator, or to a guest (`epochs.GUEST_FIRST`), is up."""

    peer: ReplicaIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerLost:
    """The connection to this validator or guest is gone."""

    peer: ReplicaIndex


@dataclass(frozen=True, slots=True, kw_only=True)
class LaterEpoch:
    """A peer sent something of an epoch that is not known here: nothing in it could be checked."""

    peer: ReplicaIndex


Input = (
    Started
    | Received
    | BodyHeld
    | BatchTaken
    | CustodyShown
    | Executed
    | SnapshotChecked
    | ChunkKept
    | SnapshotRestored
    | TimerFired
    | CustodyChanged
    | PeerConnected
    | PeerLost
    | LaterEpoch
)
