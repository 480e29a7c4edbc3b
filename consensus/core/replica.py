"""One replica: inputs in, effects out.

`Replica` is the whole state of one member of the agreement and the dispatch of its inputs; each
phase of the protocol is a module of functions over it (`phases/`), so the page that describes a
phase is the page that implements it.

How the runtime drives it, in the order safety needs:

1. Build it with `Replica(...)` from the records of `consensus.db` and the tip of `state.db`, then
   feed `Started` before anything else.
2. Feed verified inputs (duties in `inputs.py`), each with the present time; never call `step`
   from inside the handling of its own effects.
3. Give every list of effects to `tick.Gather` and follow the life of a tick in `tick.py`.
4. Serve `FetchBlocks`, `FetchBodies`, `FetchManifest` and `FetchChunk` from the stores without
   asking the core, as long as it `serves`.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from typing import assert_never

from consensus.core import catch_up, custody, epochs, evidence, recovery, retransmit, transfer
from consensus.core.effects import (
    Accuse,
    ClearTimer,
    Effect,
    Fault,
    ForgetBody,
    Halt,
    Misbehaved,
    Note,
    Persist,
    SetTimer,
)
from consensus.core.effects import Event as Noteworthy
from consensus.core.evidence import Offence, Statement
from consensus.core.inputs import (
    BatchTaken,
    BodyHeld,
    ChunkKept,
    CustodyChanged,
    CustodyShown,
    Executed,
    Input,
    LaterEpoch,
    PeerConnected,
    PeerLost,
    Received,
    SnapshotChecked,
    SnapshotRestored,
    Started,
    Timer,
    TimerFired,
)
from consensus.core.instance import Instance
from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Blocks,
    Checkpoint,
    Chunk,
    EpochLink,
    Equivocation,
    FetchBlocks,
    FetchBodies,
    FetchChunk,
    FetchManifest,
    Manifest,
    Message,
    NewView,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    RecoveryAnswer,
    Signed,
    SignedKind,
    Stamp,
    Status,
    ViewChange,
    VoteVector,
)
from consensus.core.pace import Pace
from consensus.core.phases import checkpoint, commit, prepare, propose, view_change
from consensus.core.quorum import quorum, weak_quorum
from consensus.core.records import Diverged, ExecutedBlock, PeerStamp, Record
from consensus.core.types import (
    GENESIS_HEIGHT,
    NO_DIGEST,
    NOBODY,
    Committee,
    Epoch,
    Height,
    Instant,
    Number,
    Phase,
    ReplicaIndex,
    Sequence,
    Timing,
    View,
)
from consensus.core.validators import ValidatorSet
from consensus.errors import invariant
from consensus.limits import (
    AHEAD_BLOCKS_MAX,
    JUDGED_BATCHES,
    RETIRED_SERVES_EPOCHS,
    UNUSED_BODIES_BYTES_MAX,
    VECTORS_KEPT_MAX,
    WINDOW_BLOCKS,
)
from native.values import Digest


def genesis_block(chain_id: Digest, time_ms: int, state_root: Digest) -> ExecutedBlock:
    """What block 1 is built on: the chain id stands for the hash of the missing header 0."""
    return ExecutedBlock(
        height=GENESIS_HEIGHT, header_hash=chain_id, time_ms=time_ms, state_root=state_root
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A snapshot for `status`, metrics and the debug bundle."""

    epoch: Epoch
    epoch_base: Height  # the last block before this epoch
    epoch_last: Height  # its last block, 0 while no other set is decided on
    members: int
    view: View
    in_view_change: bool
    is_primary: bool
    phase: Phase
    executed: Height
    certified: Height
    in_flight: int
    view_changes_total: int
    request_timeout_ms: int
    catching_up: bool
    first_sequence: int  # S of a recovery, 0 otherwise
    first_view: int  # V of a recovery, 0 otherwise
    last_number: Number
    votes_late_total: int
    misbehaviour_total: int
    instances: int
    bodies: int
    vectors_kept: int
    watermark_high: int  # no batch above it is taken up
    pending: int  # payloads in custody, as last told
    failed_views: int  # doublings of T
    headers_held: int  # certified and not executed yet
    bodies_wanted: int
    peers_behind: int  # more than a window below the newest certificate, or unheard of
    peer_lag_blocks: dict[int, int]  # by replica index, below the newest certificate
    clock_offset_ms: int  # median of the other replicas' clocks, less ours


class Peer:
    """What this replica knows of another one."""

    __slots__ = (
        "asked_us",
        "asking",
        "boot",
        "certified",
        "clock_offset_ms",
        "connected",
        "executed",
        "heard_us",
        "helped_us",
        "holds_ours",
        "hurried_blocks",
        "passing_on",
        "phase",
        "seen_us",
        "showing",
        "view",
    )

    def __init__(self) -> None:
        self.connected = True
        self.boot = 0
        self.phase = Phase.STARTING
        self.view = View(0)
        self.executed = Height(0)
        self.certified = Height(0)
        self.holds_ours = False  # our newest VIEW-CHANGE
        self.hurried_blocks = 0  # proposed early for its recovery, and not yet made up for
        self.seen_us: int | None = None  # when its last STATUS came
        self.clock_offset_ms: int | None = None  # its clock then, less ours; delay included
        self.heard_us: int | None = None  # when it last sent anything
        self.asked_us: int | None = None  # when it was last asked for headers or bodies
        self.helped_us: int | None = None  # when we last re-sent things to it
        self.asking = Pace()  # our VIEW-CHANGE, on our own account
        self.passing_on = Pace()  # all VIEW-CHANGEs that its STATUS lacks
        self.showing = Pace()  # our NEW-VIEW


class Replica:
    """One member of the agreement. See the module text for how to drive it.

    The attributes are the state that `phases/` works on; outside of `consensus.core` only the
    methods are used.
    """

    def __init__(
        self,
        committee: Committee,
        timing: Timing,
        *,
        boot: int,
        tip: ExecutedBlock,
        uncertified: Seq[ExecutedBlock] = (),
        records: Iterable[Record] = (),
        genesis_set: ValidatorSet | None = None,
        decided: ExecutedBlock | None = None,
    ) -> None:
        """Rebuild a replica from what is durable.

        `boot` is random, 1 to 2**64 - 1, and new at every start: answers of an earlier life are
        known by it. `tip` is the newest block of `state.db` (or `genesis_block`), `uncertified` the
        blocks up to and including it that are above the newest certificate in `records` (more is
        harmless). After disk loss `records` are those of `records.reborn`. `committee` is that of
        the newest epoch in `records` (`epochs.Epochs`); without `genesis_set` nothing is known of
        who was who in epoch 0. `decided` is what the state says of the next set, which counts even
        if the block that decided, its height, was never held here.
        Raises `BirthMissing` and `WrongChain`.
        """
        invariant(boot > 0, "a boot number is not zero")
        self.timing = timing
        self.boot = boot
        self.genesis_set = genesis_set
        self.effects: list[Effect] = []
        self.now = Instant(monotonic_us=0, unix_ms=0)

        # Where this replica stands with its key (3.9).
        self.phase = Phase.STARTING
        self.first_sequence = Sequence(0)  # S
        self.amnesiac = False  # an observer that must recover before it votes again
        self.retired = Epoch(0)  # the newest epoch this key is known not to vote in
        self.behind_through = GENESIS_HEIGHT  # no vote before this block is executed (3.10)
        self.last_number = Number(0)
        self.last_kind = SignedKind.VOTES
        self.last_digest = NO_DIGEST

        # The executed chain.
        self.tip = tip
        self.confirmed = GENESIS_HEIGHT  # newest own block known to be the certified one
        self.sound_through: Height | None = None  # set once our state is known to differ above it
        self.uncertified = {block.height: block for block in uncertified}
        self.executing: tuple[BlockHeader, BatchHeader] | None = None
        self.executing_after: deque[tuple[BlockHeader, BatchHeader]] = deque()
        self.executed_us: int | None = None
        self.certificate: BlockCertificate | None = None
        self.certified = GENESIS_HEIGHT  # h: its height
        self.anchor = -1  # newest multiple of 64 (divided) that has a certificate
        self.cast_through = Height(0)  # our CHECKPOINT leaves
        self.links: dict[int, EpochLink] = {}  # how every epoch after genesis began

        self.bodies: dict[Digest, None] = {EMPTY_ROOT: None}  # held, in order of arrival
        self.unswept_bytes = 0  # of bodies that came since unused ones were last forgotten
        self.unwritten: set[Digest] = set()  # bodies that the next draft will write

        # Custody.
        self.pending = 0
        self.pending_bytes = 0
        self.oldest_us: int | None = None
        self.reminded_us: int | None = None
        self.request_timeout_us = timing.request_timeout_ms * 1_000
        self.ages_us: deque[int] = deque(maxlen=128)
        self.suspect_at: int | None = None
        self.postponed = 0  # looks at the primary that were put off in a row

        # Catch-up.
        self.fetched: dict[int, tuple[BlockHeader, BatchHeader]] = {}
        self.wanted: dict[Digest, int] = {}  # root -> asked for a retry interval before it is due
        self.fetch_turn = 0
        self.headers_asked_us: int | None = None
        self.catching_up = False
        self.fetch_at: int | None = None

        self.transfer = transfer.Transfer()

        # Retransmission.
        self.status_mark = (Height(0), Height(0))
        self.status_sent_us: int | None = None
        self.status_due_us: int | None = None
        self.status_stretch = 1  # STATUS and answers are this many times rarer: we are late

        self.view_changes_total = 0
        self.votes_late = 0
        self.misbehaviour = 0
        self.begin_epoch(committee, GENESIS_HEIGHT)
        recovery.restore(self, records, decided)

    def begin_epoch(self, committee: Committee, base: Height) -> None:
        """Set everything that belongs to one epoch, above all what is kept by replica index."""
        self.committee = committee
        self.members = committee.members
        self.me = committee.me
        self.quorum = quorum(committee.members)
        self.weak_quorum = weak_quorum(committee.members)
        self.others = [ReplicaIndex(i) for i in range(committee.members) if i != committee.me]
        self.peers = {peer: Peer() for peer in self.others}
        self.guests: dict[ReplicaIndex, Peer] = {}  # connected nodes outside the set
        self.base = base  # the last block before this epoch
        self.cut: Height | None = None  # the last block of this epoch, once that is known
        self.next_set: ValidatorSet | None = None

        self.started_from = 0  # bit mask of others whose STATUS came in this life
        self.first_view = View(0)  # V
        self.answers: dict[ReplicaIndex, RecoveryAnswer] = {}
        self.newest_of: dict[ReplicaIndex, Signed | Stamp] = {}
        self.newest_changed: set[ReplicaIndex] = set()
        self.checkpoints: dict[int, dict[ReplicaIndex, tuple[Checkpoint, VoteVector, int]]] = {}

        # The view.
        self.view = View(0)
        self.active = True
        self.entered_us = 0
        self.view_base = base  # certified block the view began above
        self.view_works = False  # the last block it made was quick
        self.failed_views = 0  # doublings of T
        self.quick_blocks = 0  # in a row, in whatever views
        self.quick_since_us = 0
        self.quick_us_max = 0
        self.blocks_since_us = 0  # the latest acceptance of all blocks executed in this life
        self.patient_since_us = 0  # a doubling was last taken back without evidence
        self.view_changes: dict[ReplicaIndex, ViewChange] = {}
        self.own_view_change: ViewChange | None = None
        self.new_view: NewView | None = None
        self.announced_view = View(0)
        self.view_timer_for = View(0)

        # Agreement inside the window.
        self.instances: dict[int, Instance] = {}
        self.prepared: dict[int, PreparedCertificate] = {}
        self.early: dict[ReplicaIndex, dict[int, PrePrepare]] = {}
        self.own_vectors: list[VoteVector] = []
        self.clock_wait_ms: int | None = None

        # The primary, and what it and others are suspected of.
        self.accused: set[tuple[Epoch, ReplicaIndex, Offence]] = set()
        self.next_sequence = Sequence(self.tip.height + 1)
        self.taking = False
        self.proposed_us: int | None = None
        self.forwarded_us: int | None = None  # custody, to the primary of this view
        self.forward_first = 0  # the place in custody to go on from
        self.unshown_us = 0  # what came before is shown to the primary, proposed by it, or gone
        self.crowded = False  # the last batch of this primary was full
        self.judged: deque[tuple[int, int]] = deque(maxlen=JUDGED_BATCHES)  # payloads, malformed
        self.stale_since_us: int | None = None

    # --- the border

    def step(self, message: Input, now: Instant) -> list[Effect]:
        """Apply one input. Never blocks, never raises for bad peers: see `Misbehaved`.

        Raises `InvariantError` for a bug of ours: the process must stop at once.
        """
        effects: list[Effect] = []
        if self.phase is Phase.HALTED:
            effects, self.effects = self.effects, effects  # why it did, if it was at the start
            return effects
        self.effects = effects
        self.now = now
        match message:
            case Received():
                self._receive(message.sender, message.message)
            case Executed():
                commit.on_executed(self, message)
            case BodyHeld():
                self._hold_body(message)
            case BatchTaken():
                propose.on_batch_taken(self, message)
            case SnapshotChecked():
                transfer.on_checked(self, message)
            case ChunkKept():
                transfer.on_kept(self, message)
            case SnapshotRestored():
                transfer.on_restored(self, message)
            case CustodyChanged():
                custody.on_changed(self, message)
            case CustodyShown():
                custody.on_shown(self, message)
            case TimerFired():
                self._fire(message.timer)
            case PeerConnected():
                self._connected(message.peer)
            case PeerLost():
                self.guests.pop(message.peer, None)
                if message.peer in self.peers:
                    self.peers[message.peer].connected = False
                    custody.arm(self)
            case LaterEpoch():
                if self.may_help(message.peer):
                    retransmit.send_status(self, message.peer)
            case Started():
                recovery.start(self)
            case _:
                assert_never(message)
        self.effects = []
        return effects

    def _connected(self, peer: ReplicaIndex) -> None:
        if epochs.is_guest(peer):
            retransmit.send_status(self, peer)
        elif peer in self.peers:
            known = self.peers[peer]
            known.connected = True
            known.asking.restart()
            known.passing_on.restart()
            retransmit.send_status(self, peer)
            custody.on_connected(self, peer)

    def _receive(self, sender: ReplicaIndex, message: Message) -> None:
        if sender not in self.peers and sender != self.me and not self._may_say(sender, message):
            return
        if sender in self.peers:
            self.peers[sender].heard_us = self.now.monotonic_us
        if isinstance(message, VoteVector | PrePrepare | ViewChange | NewView):
            if sender == self.me:
                self._own(message)
            if message.epoch != self.committee.epoch:
                return  # of a set that votes no more: late, or replayed
            if message.signer == self.me:
                if sender != self.me:
                    recovery.check_number(self, message.stamp())
                    return
            else:
                newest = self.newest_of.get(message.signer)
                if newest is not None and message.number == newest.number:
                    self._compare_numbers(message, newest)
                if newest is None or message.number > newest.number:
                    self.newest_of[message.signer] = message
                    self.newest_changed.add(message.signer)
        match message:
            case VoteVector():
                self._count(message)
            case PrePrepare():
                propose.on_pre_prepare(self, message)
            case ViewChange():
                view_change.on_view_change(self, message)
            case NewView():
                view_change.on_new_view(self, message)
            case Status():
                retransmit.on_status(self, sender, message)
            case RecoveryAnswer():
                recovery.on_answer(self, sender, message)
            case Equivocation():
                if message.first.epoch == self.committee.epoch:
                    propose.on_equivocation(self, message)
            case Blocks():
                catch_up.on_blocks(self, sender, message)
            case EpochLink():
                epochs.on_link(self, message)
            case Manifest():
                transfer.on_manifest(self, sender, message)
            case Chunk():
                transfer.on_chunk(self, sender, message)
            case FetchBlocks() | FetchBodies() | FetchManifest() | FetchChunk():
                pass  # served by the runtime
            case _:
                assert_never(message)

    def _may_say(self, sender: ReplicaIndex, message: Message) -> bool:
        """Guests show where they stand and what is certified; members speak about agreement."""
        return epochs.is_guest(sender) and isinstance(message, Status | Blocks | EpochLink)

    def _compare_numbers(self, message: Signed, newest: Signed | Stamp) -> None:
        """Two different messages under one number; the same one again is nothing."""
        one = newest if isinstance(newest, Stamp) else newest.stamp()
        other = message.stamp()
        if one.epoch == other.epoch and (one.kind, one.digest) != (other.kind, other.digest):
            self.accuse(message.signer, evidence.of_stamp(one), evidence.of_stamp(other))

    def _own(self, message: Signed) -> None:
        """A message of ours is durable: from now on it counts."""
        invariant(message.number > self.last_number, "own numbers only grow")
        stamp = message.stamp()
        self.last_number = stamp.number
        self.last_kind = stamp.kind
        self.last_digest = stamp.digest
        if isinstance(message, VoteVector) and message.epoch == self.committee.epoch:
            self.keep_vector(message)

    def keep_vector(self, vector: VoteVector) -> None:
        """Remember an own vector, so that it can be sent again."""
        self.own_vectors.append(vector)
        if len(self.own_vectors) > VECTORS_KEPT_MAX:
            del self.own_vectors[0]

    def _count(self, vector: VoteVector) -> None:
        signer = vector.signer
        touched: list[Instance] = []
        for index, leaf in enumerate(vector.leaves):
            if vector.epoch != self.committee.epoch:
                return  # its first leaves completed the certificate that ended its epoch
            kind = leaf.__class__
            if kind is Checkpoint:
                checkpoint.on_checkpoint(self, signer, leaf, vector, index)  # type: ignore[arg-type]
            elif kind is Prepare:
                instance = prepare.on_prepare(self, signer, leaf, vector, index)  # type: ignore[arg-type]
                if instance is not None:
                    touched.append(instance)
            else:
                instance = commit.on_commit(self, signer, leaf, vector, index)  # type: ignore[arg-type]
                if instance is not None:
                    touched.append(instance)
        for instance in touched:
            prepare.progress(self, instance)

    def _hold_body(self, message: BodyHeld) -> None:
        root = message.payload_root
        if self.wanted.pop(root, None) is not None:
            transfer.answered(self)
        self.bodies[root] = None
        for instance in list(self.instances.values()):
            pre_prepare = instance.pre_prepare
            if pre_prepare is not None and pre_prepare.header.payload_root == root:
                prepare.progress(self, instance)
        commit.execute_next(self)
        catch_up.fetch(self)
        self.unswept_bytes += message.size_bytes
        if len(self.bodies) > 3 * WINDOW_BLOCKS or self.unswept_bytes > UNUSED_BODIES_BYTES_MAX:
            self.sweep_bodies(keep=1)

    def _fire(self, timer: Timer) -> None:
        match timer:
            case Timer.PROPOSE | Timer.IDLE:
                propose.propose(self)
            case Timer.SUSPECT:
                custody.on_suspect(self)
            case Timer.VIEW_CHANGE:
                view_change.on_timeout(self)
            case Timer.STATUS:
                retransmit.on_timer(self)
            case Timer.FETCH:
                self.fetch_at = None
                catch_up.on_timer(self)
            case Timer.TRANSFER:
                transfer.on_timer(self)
            case Timer.CLOCK:
                self.clock_wait_ms = None
                prepare.progress_all(self)
            case _:
                assert_never(timer)

    @property
    def number_floor(self) -> Number:
        """Every message signed from now on is numbered above this."""
        return self.last_number

    def take_peer_stamps(self) -> list[Record]:
        """Highest-numbered messages of peers that changed since the last call (for `tick`)."""
        stamps: list[Record] = []
        for signer in sorted(self.newest_changed):
            stamp = self.stamp_of(signer)
            if stamp is not None:
                stamps.append(PeerStamp(stamp=stamp))
        self.newest_changed.clear()
        return stamps

    def drafted(self) -> None:
        """Everything emitted so far is in a draft (for `tick`): bodies were taken with it."""
        self.unwritten.clear()

    def wants_body(self, payload_root: Digest) -> bool:
        """Whether a BODY frame with this root was asked for; others are dropped unread."""
        return payload_root in self.wanted

    @property
    def is_far_behind(self) -> bool:
        """More than a window is certified that was not executed here yet.

        Live votes and proposals are of no use until the gap is smaller: nothing in flight can be
        voted on. They may be dropped unread, as if lost; STATUS and the headers that were asked
        for bring newer certificates.
        """
        return self.certified - self.executed > WINDOW_BLOCKS

    def is_led_by(self, peer: int) -> bool:
        """Whether this peer is the primary of the view we are in: its bodies may come unasked."""
        return self.active and self.committee.primary(self.view) == peer != self.me

    def statistics(self) -> Statistics:
        lags = {
            int(at): max(0, int(self.certified) - int(peer.executed))
            for at, peer in self.peers.items()
        }
        return Statistics(
            epoch=self.committee.epoch,
            epoch_base=self.base,
            epoch_last=self.cut or GENESIS_HEIGHT,
            members=self.members,
            view=self.view,
            in_view_change=not self.active,
            is_primary=self.is_primary,
            phase=self.phase,
            executed=self.executed,
            certified=self.certified,
            in_flight=max(0, self.next_sequence - 1 - self.executed) if self.is_primary else 0,
            view_changes_total=self.view_changes_total,
            request_timeout_ms=self.request_timeout_us // 1_000,
            catching_up=self.catching_up,
            first_sequence=self.first_sequence,
            first_view=self.first_view,
            last_number=self.last_number,
            votes_late_total=self.votes_late,
            misbehaviour_total=self.misbehaviour,
            instances=len(self.instances),
            bodies=len(self.bodies),
            vectors_kept=len(self.own_vectors),
            watermark_high=self.certified + WINDOW_BLOCKS,
            pending=self.pending,
            failed_views=self.failed_views,
            headers_held=len(self.fetched),
            bodies_wanted=len(self.wanted),
            peers_behind=sum(lag > WINDOW_BLOCKS for lag in lags.values()),
            peer_lag_blocks=lags,
            clock_offset_ms=self._clock_offset_ms(),
        )

    def _clock_offset_ms(self) -> int:
        """The median, so that a minority of wrong clocks does not show."""
        known = sorted(
            peer.clock_offset_ms
            for peer in self.peers.values()
            if peer.clock_offset_ms is not None and peer.connected
        )
        return known[len(known) // 2] if known else 0

    # --- words that the phases share

    @property
    def executed(self) -> Height:
        """Height of the newest durable block."""
        return self.tip.height

    @property
    def serves(self) -> bool:
        """Whether peers are answered that fetch blocks and state (bft.md 3.8).

        A removed member does so for two epochs and then only observes. Who never was one may.
        """
        over = self.committee.epoch >= self.retired + RETIRED_SERVES_EPOCHS
        return not (self.retired and self.me == NOBODY and over)

    @property
    def floor(self) -> int:
        """At or below this place nothing is of interest any more."""
        return min(self.certified, self.executed)

    @property
    def is_primary(self) -> bool:
        return self.view % self.members == self.me

    def may_vote(self, view: View) -> bool:
        """Whether PREPARE, COMMIT, PRE-PREPARE, VIEW-CHANGE and NEW-VIEW of a view may be cast."""
        return (
            self.phase is Phase.VOTING
            and view >= self.first_view
            and self.executed >= self.behind_through
        )

    def instance(self, sequence: int) -> Instance | None:
        """The instance at a place that may still matter, made when it is new."""
        if sequence <= self.base:
            return None
        found = self.instances.get(sequence)
        if found is None and self.floor < sequence <= self.last_of(AHEAD_BLOCKS_MAX):
            found = self.instances[sequence] = Instance(sequence)
        return found

    def last_of(self, window: int) -> int:
        """The last place of a window above h; never beyond the end of the epoch."""
        last = self.certified + window
        return last if self.cut is None else min(last, self.cut)

    def is_void(self, place: int) -> bool:
        """Whether a place is beyond the end of this epoch."""
        return self.cut is not None and place > self.cut

    def set_of(self, epoch: Epoch) -> ValidatorSet | None:
        """Who votes in an epoch, if that is known here."""
        if epoch == 0:
            return self.genesis_set
        link = self.links.get(int(epoch))
        return None if link is None else link.validators

    def remember(self, stamp: Stamp) -> None:
        """Keep the newest message of a node under its present index, of whatever epoch it is."""
        index: int | None = stamp.signer
        if stamp.epoch != self.committee.epoch:
            node_id = epochs.node_of(self, stamp)
            present = self.set_of(self.committee.epoch)
            index = None if node_id is None or present is None else present.index_of(node_id)
        if index is None or index == self.me:
            return
        signer = ReplicaIndex(index)
        newest = self.newest_of.get(signer)
        if newest is None or stamp.number > newest.number:
            self.newest_of[signer] = stamp

    def may_help(self, peer: ReplicaIndex) -> bool:
        """Whether a peer or guest may be sent something big again; if so, that is noted."""
        now = self.now.monotonic_us
        known = self.peers.get(peer) or self.guest(peer)
        if known is None:
            return False
        if known.helped_us is not None and now - known.helped_us < retransmit.help_interval_us(
            self
        ):
            return False
        known.helped_us = now
        return True

    def guest(self, index: ReplicaIndex) -> Peer | None:
        """What is known of a node outside the set; None if this is no place for one."""
        if not epochs.is_guest(index):
            return None
        return self.guests.setdefault(index, Peer())

    def holds(self, root: Digest) -> bool:
        return root in self.bodies

    def emit(self, effect: Effect) -> None:
        self.effects.append(effect)

    def blame(self, peer: ReplicaIndex, fault: Fault) -> None:
        self.misbehaviour += 1
        self.effects.append(Misbehaved(peer=peer, fault=fault))

    def accuse(self, peer: ReplicaIndex, one: Statement, other: Statement) -> None:
        """Blame a peer and hand out the proof, once for each offence in this life."""
        self.blame(peer, Fault.EQUIVOCATION)
        key = (self.committee.epoch, peer, one.offence)
        if key not in self.accused:
            self.accused.add(key)
            self.emit(Accuse(peer=peer, proof=evidence.contradiction(one, other)))

    def note(self, event: Noteworthy, detail: str) -> None:
        self.effects.append(Note(event=event, detail=detail))

    def halt(self, reason: str) -> None:
        """Stop for good, keep everything, say why."""
        self.phase = Phase.HALTED
        self.effects.append(Halt(reason=reason))

    def diverge(
        self, reason: str, *, below: int | None = None, block: ExecutedBlock | None = None
    ) -> None:
        """Stop because our state is not the certified one, in this life and the next ones.

        With `below`, the blocks below it are known to be the certified ones; else only those that
        were compared. Nothing of a later block may be told to anybody. `block` is the one whose
        state differs, the newest if that is not given.
        """
        if below is not None:
            self.confirm(below - 1)
        self.sound_through = self.confirmed
        found = self.tip if block is None else block
        self.emit(
            Persist(
                record=Diverged(
                    height=found.height,
                    header_hash=found.header_hash,
                    state_root=found.state_root,
                    sound_through=self.sound_through,
                )
            )
        )
        self.halt(f"{reason}: this node's data is damaged or its software differs")

    def confirm(self, height: int) -> None:
        """Our block of this height, and with it all before it, is the certified one."""
        if height > self.confirmed:
            self.confirmed = Height(height)

    @property
    def acknowledged(self) -> Height:
        """The newest block whose outcomes may be told: executed, durable, and not known to differ.

        It falls when our state turns out to differ from the certified one.
        """
        if self.sound_through is None:
            return self.executed
        return min(self.sound_through, self.executed)

    def set_timer(self, timer: Timer, at_us: int) -> None:
        self.effects.append(SetTimer(timer=timer, at_us=at_us))

    def clear_timer(self, timer: Timer) -> None:
        self.effects.append(ClearTimer(timer=timer))

    def stamp_of(self, signer: ReplicaIndex) -> Stamp | None:
        newest = self.newest_of.get(signer)
        if newest is None or isinstance(newest, Stamp):
            return newest
        return newest.stamp()

    def drop_below_floor(self) -> None:
        """Forget instances that are executed and certified, and what only they needed."""
        floor = self.floor
        roots: set[Digest] = set()
        for sequence in [place for place in self.instances if place <= floor]:
            instance = self.instances.pop(sequence)
            if instance.batch is not None:
                roots.add(instance.batch.payload_root)
            if instance.pre_prepare is not None:
                roots.add(instance.pre_prepare.header.payload_root)
        certified = self.certified
        for sequence in [place for place in self.prepared if place <= certified]:
            del self.prepared[sequence]
        for height in [place for place in self.checkpoints if place <= certified]:
            del self.checkpoints[height]
        for block in [place for place in self.uncertified if place <= certified]:
            del self.uncertified[block]
        for proposals in self.early.values():
            for sequence in [place for place in proposals if place <= floor]:
                del proposals[sequence]
        self.own_vectors = [vector for vector in self.own_vectors if vector.top > certified]
        self.release_bodies(roots)

    def release_bodies(self, roots: set[Digest]) -> None:
        """Forget bodies that nothing else needs."""
        held = [root for root in sorted(roots) if root in self.bodies]
        if not held:
            return
        in_use = self.roots_in_use()
        for root in held:
            if root not in in_use:
                del self.bodies[root]
                self.effects.append(ForgetBody(payload_root=root))

    def roots_in_use(self) -> set[Digest]:
        roots = {EMPTY_ROOT, *self.unwritten}
        for instance in self.instances.values():
            if instance.pre_prepare is not None:
                roots.add(instance.pre_prepare.header.payload_root)
            if instance.batch is not None:
                roots.add(instance.batch.payload_root)
        for _, batch in self.fetched.values():
            roots.add(batch.payload_root)
        for certificate in self.prepared.values():
            roots.add(certificate.pre_prepare.header.payload_root)
        for proposals in self.early.values():
            for pre_prepare in proposals.values():
                roots.add(pre_prepare.header.payload_root)
        return roots

    def sweep_bodies(self, *, keep: int) -> None:
        """Forget bodies nothing refers to, but the newest: their PRE-PREPARE comes next.

        Proposals that are refused leave theirs behind.
        """
        self.unswept_bytes = 0
        in_use = self.roots_in_use()
        for root in list(self.bodies)[: len(self.bodies) - keep]:
            if root not in in_use:
                del self.bodies[root]
                self.effects.append(ForgetBody(payload_root=root))
