"""The only caller of `Replica.step`: frames and completions in, ticks and blocks out.

Everything here is synchronous and runs inside one turn of the transport's pump, so the replica, the
bodies and custody are never seen half changed. A turn is

    decode and verify what came in -> step -> urgent effects -> tick -> commit_soon

and a commit's completion starts the next one (the disk clocks the size of a tick). The contract of
the order is in `core/tick.py`; nothing under this node's key leaves before `release`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Protocol, assert_never

import structlog

from consensus.core import frames, inputs
from consensus.core.decoded import Decoded
from consensus.core.effects import (
    Accuse,
    CheckSnapshot,
    ClearTimer,
    EnterEpoch,
    Event,
    Execute,
    ForgetBody,
    ForwardCustody,
    Halt,
    KeepChunk,
    Misbehaved,
    Note,
    ReleaseCustody,
    RestoreSnapshot,
    SetTimer,
    TakeBatch,
)
from consensus.core.epochs import GUEST_FIRST
from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Commit,
    EpochJob,
    EpochLink,
    FetchBlocks,
    FetchBodies,
    FetchChunk,
    FetchManifest,
    Message,
    PrePrepare,
    Signed,
    VoteVector,
    signatures,
)
from consensus.core.records import Accepted, Tip
from consensus.core.tick import Gather, Outgoing, Tick, Urgent
from consensus.core.types import Instant, Phase, ReplicaIndex
from consensus.errors import MalformedMessage, UnknownEpoch, invariant
from consensus.limits import (
    BATCH_PAYLOADS_MAX,
    BATCH_SIZE_BYTES_MAX,
    BATCH_SIZE_BYTES_TARGET,
    FORWARD_PAYLOADS_MAX,
    FORWARD_SIZE_BYTES_MAX,
    IN_FLIGHT_BLOCKS_MAX,
    INLINE_BODY_BYTES_MAX,
    WINDOW_BLOCKS,
)
from consensus.runtime.checked import Checked
from consensus.runtime.store import Body, CommitFailed, Committed
from native import FalconVerifier, verify_many
from native.batches import Batch
from native.errors import NativeError
from native.limits import PAYLOAD_SIZE_BYTES_MAX
from transport import ChannelKind

if TYPE_CHECKING:
    from consensus.core.evidence import Contradiction
    from consensus.core.replica import Replica
    from consensus.core.validators import ValidatorSet
    from consensus.core.wire import Bounds
    from consensus.runtime.links import Links
    from consensus.runtime.observer import Observer
    from consensus.runtime.store import RecordStore
    from native import Mempool
    from native.keys import SecretKey
    from native.values import Digest, Signature
    from transport import Connection

JOBS_PER_CALL: Final = 4_096  # signatures checked in one call: 40 ms, then the loop breathes
REFUSALS_LOGGED_MAX: Final = 100  # a liar must not fill the disk with lines; the counter goes on
INBOX_FRAMES_MAX: Final = 4_096  # ~100 turns of a busy cluster of 21; beyond that we drop and count
STORED_SEQUENCES_MAX: Final = 1_024  # how long we remember that a body is already on disk
PATIENCE_US: Final = 5_000  # CHECKPOINT leaves wait this long for other votes to travel with
PATIENCE_CUSTODY_US: Final = 25_000  # and this long while payloads are held: their block will come
SEEN_PROPOSALS_MAX: Final = 256  # first sights kept for the latency metric: four windows

log = structlog.get_logger("consensus")

Request = FetchBlocks | FetchBodies | FetchManifest | FetchChunk

EMPTY_BATCH: Final = Batch.of([])

MEMBERS_ONLY: Final = frozenset(
    {
        frames.FrameType.PROPOSAL,
        frames.FrameType.PAYLOADS,
        frames.FrameType.PRE_PREPARE,
        frames.FrameType.VOTES,
        frames.FrameType.VIEW_CHANGE,
        frames.FrameType.NEW_VIEW,
        frames.FrameType.RECOVERY_ANSWER,
        frames.FrameType.EQUIVOCATION,
    }
)
"""What has no meaning from a guest: it may neither fill memory nor have signatures checked."""

LIVE: Final = frozenset(
    {frames.FrameType.VOTES, frames.FrameType.PRE_PREPARE, frames.FrameType.PROPOSAL}
)
"""What a node far behind drops unread: it cannot vote on what is in flight."""


class Execution(Protocol):
    """Executes blocks in order and writes them down; `Driver.executed` is called afterwards."""

    def execute_soon(self, header: BlockHeader, agreed: BatchHeader, batch: Batch) -> None:
        """Queue one block."""
        ...


class Admission(Protocol):
    """What the driver asks of the applications before execution."""

    def prepare(self, batch: Batch) -> None:
        """Start decoding and signature checks early."""
        ...

    def well_formed(self, batch: Batch) -> bytes:
        """One byte a payload, 1 for those that pass every check that needs no state."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverStatistics:
    """Counters for `status`, metrics and the debug bundle."""

    ticks_total: int
    frames_refused_total: int
    inbox_dropped_total: int
    frames_skipped_total: int
    bodies_held: int
    halted: str | None


class Driver:
    """Drives one replica. Single-threaded: every method is called on the loop."""

    def __init__(
        self,
        replica: Replica,
        *,
        bounds: Bounds,
        secret: SecretKey,
        verifiers: Sequence[FalconVerifier],
        links: Links,
        store: RecordStore,
        execution: Execution,
        admission: Admission,
        mempool: Mempool,
        observer: Observer,
        clock: Callable[[], Instant],
        seconds: Callable[[], float],
        wake_at: Callable[[int | None], None],
        serve: Callable[[int, Request], None],
        certified: Callable[[BlockCertificate], None],
        earlier: Sequence[Sequence[FalconVerifier]] = (),
        entered: Callable[[EpochLink], None] | None = None,
        accuse: Callable[[ReplicaIndex, Contradiction], None] | None = None,
        transfer: Callable[[CheckSnapshot | KeepChunk | RestoreSnapshot], None] | None = None,
    ) -> None:
        """`wake_at` is told when the next timer is due; `serve` answers a peer's fetch;
        `transfer` works on a snapshot and calls `transferred` afterwards; `certified` sees every
        newest block certificate once it is durable here; `accuse` gets the proof of a peer's lie.
        `verifiers` are those of the newest epoch, `earlier` those of the epochs before it in order;
        `entered` is told of every epoch that begins.
        """
        self.replica = replica
        self._committee = replica.committee
        self._bounds = replace(bounds, decoded=Decoded())
        self._secret = secret
        self._verifiers = [*earlier, list(verifiers)]
        self._links = links
        self._store = store
        self._execution = execution
        self._admission = admission
        self._mempool = mempool
        self._observer = observer
        self._clock = clock
        self._seconds = seconds
        self._wake_at = wake_at
        self._serve = serve
        self._transfer = transfer or (lambda _work: None)
        self._certified = certified
        self._entered = entered or (lambda _link: None)
        self._accuse = accuse or (lambda _peer, _proof: None)
        self._gather = Gather()
        self._inbox: deque[tuple[int, int, bytes]] = deque()
        self._inputs: deque[tuple[inputs.Input, Batch | None]] = deque()
        self._owed: list[Body] = []
        self._timers: dict[inputs.Timer, int] = {}
        self._bodies: dict[Digest, Batch] = {EMPTY_ROOT: EMPTY_BATCH}
        self._pushed: dict[Digest, Batch] = {}  # came before the PRE-PREPARE that names them
        self._on_disk: dict[tuple[int, Digest], None] = {}
        self._tick: Tick | None = None
        self._patient_since: int | None = None  # something gathered waits for company
        self._idle_since: int | None = None  # and since then no payload promises any
        self._patient_until: int | None = None
        self._serial = 0
        self._custody: tuple[int, int, int | None] = (0, 0, None)
        self._seen: dict[int, float] = {}
        self._marks: dict[int, float] = {}
        self._ticks_total = 0
        self._frames_refused_total = 0
        self._inbox_dropped_total = 0
        self._frames_skipped_total = 0
        self._checked = Checked()
        self.halted: str | None = None
        self._stepping = False

    # --- life

    def start(self, held: Sequence[tuple[int, Batch]]) -> None:
        """Begin this life; `held` are the bodies on disk that may be needed again.

        The replica counts on those of its records from the first input on: a validator that is
        alone executes what it had agreed on at once.
        """
        self._feed(inputs.Started())
        for sequence, batch in held:
            self._on_disk[(sequence, batch.root)] = None
            self._bodies[batch.root] = batch
            self._feed(_body_held(batch), batch)
        self.turn()

    def statistics(self) -> DriverStatistics:
        """A snapshot of the counters."""
        return DriverStatistics(
            ticks_total=self._ticks_total,
            frames_refused_total=self._frames_refused_total,
            inbox_dropped_total=self._inbox_dropped_total,
            frames_skipped_total=self._frames_skipped_total,
            bodies_held=len(self._bodies) + len(self._pushed),
            halted=self.halted,
        )

    def timers(self) -> dict[str, int]:
        """Which timers run, by name, and in how many milliseconds each is due; below 0 it was."""
        now = self._clock().monotonic_us
        running = sorted((timer.value, at) for timer, at in self._timers.items())
        return {name: (at - now) // 1_000 for name, at in running}

    # --- what the runtime tells us

    def frame_received(self, connection: Connection, frame_type: int, payload: bytes) -> None:
        """Queue a frame of a member or guest for this turn; others' are dropped and counted."""
        peer = self._links.take_place(connection)
        if peer is None or self.halted is not None:
            self._frames_refused_total += 1
            return
        if len(self._inbox) >= INBOX_FRAMES_MAX:
            self._inbox_dropped_total += 1
            return
        self._inbox.append((peer, frame_type, payload))

    def peer_up(self, peer: int) -> None:
        """A connection to a validator is up."""
        self._feed(inputs.PeerConnected(peer=ReplicaIndex(peer)))
        self.turn()

    def peer_down(self, peer: int) -> None:
        """The connection to a validator is gone."""
        self._feed(inputs.PeerLost(peer=ReplicaIndex(peer)))
        self.turn()

    def custody_changed(self) -> None:
        """Payloads came into custody; the caller added them to the mempool."""
        self._watch_custody()
        self.turn()

    def committed(self, done: Committed | CommitFailed) -> None:
        """The store finished a tick, or failed: then the process must stop. `turn` must follow."""
        if isinstance(done, CommitFailed):
            raise done.error
        self._observer.committed(done.commit_s)
        tick = self._tick
        invariant(tick is not None and done.serial == self._serial, "a commit is of our tick")
        assert tick is not None
        self._tick = None
        self._release(tick)
        self._write_last()

    def executed(
        self,
        header: BlockHeader,
        batch: Batch,
        state_root: Digest,
        final: bytes,
        *,
        malformed: int = 0,
        next_validators: ValidatorSet | None = None,
    ) -> None:
        """A block is written to `state.db`; `final` has 1 for each payload with a receipt.

        `turn` must follow. The others were refused and may be submitted again; `malformed` of them
        for reasons that need no state. `next_validators` is what the block decided about the set.
        """
        self._mempool.remove(batch, final)
        height = int(header.height)
        seen = self._seen.pop(height, None)
        now = self._seconds()
        took = None if seen is None else now - seen
        if height in self._marks:
            self._marks[height] = now
        self._observer.agreed(len(batch), batch.size, took)
        self._feed(
            inputs.Executed(
                height=header.height,
                header_hash=header.hash,
                state_root=state_root,
                next_validators=next_validators,
                payloads=len(batch),
                malformed=malformed,
                full=len(batch) >= BATCH_PAYLOADS_MAX
                or batch.size > BATCH_SIZE_BYTES_TARGET - PAYLOAD_SIZE_BYTES_MAX,
            )
        )
        self._watch_custody()

    def transferred(
        self, done: inputs.SnapshotChecked | inputs.ChunkKept | inputs.SnapshotRestored
    ) -> None:
        """What `transfer` was asked for is done."""
        self._feed(done)
        self.turn()

    def timers_due(self) -> None:
        """The moment given to `wake_at` has come."""
        now = self._clock().monotonic_us
        due = sorted((at, timer.value, timer) for timer, at in self._timers.items() if at <= now)
        for _, _, timer in due:
            self._timers.pop(timer, None)
            self._feed(inputs.TimerFired(timer=timer))
        self.turn()

    def body(self, root: Digest) -> Batch | None:
        """A body held in memory."""
        return self._bodies.get(root)

    # --- a turn

    def turn(self) -> None:
        """Handle everything that is waiting, then start a tick if the disk is free."""
        if self._stepping or self.halted is not None:
            return
        self._stepping = True
        try:
            self._drain_inbox()
            self._drain_inputs()
            while self._tick is None and not self._wait_for_company() and self._start_tick():
                self._drain_inputs()
        except BaseException:
            # Our own bug: nothing more is said under this key while the process ends.
            self._halt("failed")
            raise
        finally:
            self._stepping = False
        times = list(self._timers.values())
        if self._patient_until is not None:
            times.append(self._patient_until)
        self._wake_at(min(times, default=None))

    def _wait_for_company(self) -> bool:
        """Let a tick that nobody waits for ride on the next one, for a bounded time.

        A payload in custody is voted on soon, and a commit that began just before would be in the
        way of its votes.
        """
        if self._gather.empty or not self._gather.patient:
            self._patient_since = self._idle_since = self._patient_until = None
            return self._gather.empty
        now = self._clock().monotonic_us
        if self._patient_since is None:
            self._patient_since = now
        until = self._patient_since + PATIENCE_CUSTODY_US
        if len(self._mempool):
            self._idle_since = None
        else:
            if self._idle_since is None:
                self._idle_since = now
            until = min(until, self._idle_since + PATIENCE_US)
        if now < until:
            self._patient_until = until
            return True
        self._patient_since = self._idle_since = self._patient_until = None
        return False

    def _feed(self, message: inputs.Input, body: Batch | None = None) -> None:
        """Queue an input for the replica; `body` is offered to it in the same breath."""
        if self.halted is None:
            self._inputs.append((message, body))

    def _drain_inputs(self) -> None:
        while self._inputs and self.halted is None:
            message, body = self._inputs.popleft()
            if body is not None and self._keep(message, body):
                self._step(_body_held(body))
            self._step(message)
            if body is None:
                continue
            if not self.replica.holds(body.root):
                self._bodies.pop(body.root, None)
            elif isinstance(message, inputs.Received):
                self._admission.prepare(body)

    def _keep(self, message: inputs.Input, body: Batch) -> bool:
        """Keep the body of an input whose turn has come, if it is of use now.

        True if the replica must be told of it before the input. A PRE-PREPARE of another view, or
        far ahead (in a view that is only being entered, beyond what may be in flight), is taken
        without its body, which is fetched when its time comes: otherwise one liar could fill the
        memory.
        """
        if not isinstance(message, inputs.Received) or not isinstance(message.message, PrePrepare):
            self._bodies[body.root] = body
            return False
        proposal, replica = message.message, self.replica
        ahead = int(proposal.sequence) - int(replica.executed)
        most = WINDOW_BLOCKS if replica.active else IN_FLIGHT_BLOCKS_MAX
        if proposal.view != replica.view or not 0 < ahead <= most:
            return False
        primary = self._committee.primary(proposal.view)
        if proposal.signer == primary and primary != self._committee.me:
            self._mempool.mark_proposed(body)
        self._bodies[body.root] = body
        return True

    def _step(self, message: inputs.Input) -> None:
        for effect in self._gather.add(self.replica.step(message, self._clock())):
            self._run(effect)

    def _halt(self, reason: str) -> None:
        self.halted = reason
        self._inbox.clear()
        self._inputs.clear()

    def _write_last(self) -> None:
        """Make durable why a halted replica may never vote again, once the disk is free."""
        if self.halted is None or self._tick is not None:
            return
        tick = self._gather.last_tick(self.replica)
        if tick is None:
            return
        self._serial += 1
        self._store.commit_soon(self._serial, tick.records, [], None)
        self._tick = tick

    def _start_tick(self) -> bool:
        """Draft, sign and hand over one tick; True if it needed no disk and more may follow."""
        draft = self._gather.draft(self.replica)
        if draft is None or self.halted is not None:
            return False
        self._ticks_total += 1
        # Votes and proposals are signed while the disk writes them: what is durable is that we say
        # them, and a start signs them again. What holds the words of others is signed before.
        overlapped = draft.votes_and_proposals_only
        tick = draft.unsigned() if overlapped else draft.complete(self._signed(draft.jobs))
        if not tick.durable:
            self._release(draft.complete([]) if overlapped else tick)
            return True
        self._serial += 1
        for record in tick.records:
            if isinstance(record, Accepted):
                self._owe_body(record.pre_prepare.header)
        for execute in tick.executes:
            self._owe_body(execute.batch)
        bodies, self._owed = self._owed, []
        self._store.commit_soon(self._serial, tick.records, bodies, tick.drop)
        self._tick = draft.complete(self._signed(draft.jobs)) if overlapped else tick
        return False

    def _signed(self, jobs: Sequence[bytes]) -> list[Signature]:
        if not jobs:
            return []
        began = self._seconds()
        signed = [self._secret.sign(job) for job in jobs]
        self._observer.signed((self._seconds() - began) / len(jobs))
        return signed

    def _owe_body(self, header: BatchHeader) -> None:
        """The disk must get this body with the next tick, unless it has it already.

        Accepted bodies are needed after a crash, executed ones by peers that catch up.
        """
        place = (int(header.sequence), header.payload_root)
        if header.payload_root == EMPTY_ROOT or place in self._on_disk:
            return
        batch = self._bodies.get(header.payload_root)
        invariant(batch is not None, "an accepted PRE-PREPARE has its body")
        assert batch is not None
        self._on_disk[place] = None
        if len(self._on_disk) > STORED_SEQUENCES_MAX:
            del self._on_disk[next(iter(self._on_disk))]
        self._owed.append(Body(sequence=place[0], root=place[1], batch=batch))

    def _release(self, tick: Tick) -> None:
        me = self._committee.me
        if self.halted is not None:
            return
        # A node that learnt meanwhile that it lost memory of its votes says nothing of its own.
        silenced = self.replica.phase in (Phase.SEEKING, Phase.RECOVERING)
        for record in tick.records:
            if isinstance(record, Tip):
                self._mark("certify", int(record.certificate.height))
                self._certified(record.certificate)
        if tick.epoch == self._committee.epoch:
            for outgoing in tick.outgoing:
                message = outgoing.message
                if not (silenced and isinstance(message, Signed) and message.signer == me):
                    self._send(outgoing)
        for message in () if silenced else tick.own:
            if isinstance(message, VoteVector):
                for leaf in message.leaves:
                    if isinstance(leaf, Commit):
                        self._mark("prepare", int(leaf.sequence))
            self._feed(inputs.Received(sender=me, message=message))
        for execute in tick.executes:
            self._execute(execute)
        if tick.restore is not None:
            self._transfer(tick.restore)

    def _send(self, outgoing: Outgoing) -> None:
        message = outgoing.message
        batch: Batch | None = None
        if outgoing.with_body and isinstance(message, PrePrepare):
            batch = self._bodies.get(message.header.payload_root)
            if batch is None:
                return  # executed long ago: the peer needs catch-up, not this proposal
            self._saw(message)
            if batch.size <= INLINE_BODY_BYTES_MAX:
                head = frames.proposal_head(message)
                proposal = int(frames.FrameType.PROPOSAL)
                self._send_frame(outgoing.peer, ChannelKind.BULK, proposal, head, batch)
                return
        channel, frame, data = frames.encode(message)
        self._send_frame(outgoing.peer, ChannelKind(int(channel)), int(frame), data)
        if batch is not None:
            body = int(frames.FrameType.BODY)
            self._send_frame(outgoing.peer, ChannelKind.BULK, body, batch)

    def _send_frame(
        self, peer: int | None, kind: ChannelKind, frame_type: int, *parts: bytes | Batch
    ) -> None:
        if peer is None:
            self._links.broadcast_nowait(kind, frame_type, *parts)
        else:
            self._links.send_nowait(peer, kind, frame_type, *parts)

    # --- urgent effects

    def _run(self, effect: Urgent) -> None:
        match effect:
            case Execute():
                self._execute(effect)
            case TakeBatch():
                self._take_batch(effect)
            case ReleaseCustody():
                self._mempool.release()
                for root in effect.in_flight:
                    batch = self._bodies.get(root)
                    if batch is not None:
                        self._mempool.mark_proposed(batch)
                self._watch_custody()
            case ForwardCustody():
                self._forward(effect)
            case ForgetBody():
                root = effect.payload_root
                if root != EMPTY_ROOT and not self.replica.holds(root):
                    self._bodies.pop(root, None)
            case EnterEpoch():
                self._enter_epoch(effect.link)
            case SetTimer():
                self._timers[effect.timer] = effect.at_us
            case ClearTimer():
                self._timers.pop(effect.timer, None)
            case CheckSnapshot() | KeepChunk():
                self._transfer(effect)
            case Misbehaved():
                self._observer.misbehaved(effect.fault)
                log.warning("peer.misbehaved", peer=effect.peer, fault=effect.fault.value)
            case Accuse():
                log.warning("peer.accused", peer=effect.peer, offence=effect.proof.offence.text)
                self._accuse(effect.peer, effect.proof)
            case Halt():
                self._halt(effect.reason)
                self._write_last()
                log.error("replica.halted", reason=effect.reason)
            case Note():
                if effect.event is Event.VIEW_ENTERED:
                    self._observer.view_changed()
                log.info(effect.event.value, detail=effect.detail)
            case _:
                assert_never(effect)

    def _enter_epoch(self, link: EpochLink) -> None:
        """Indexes mean other nodes from now on: what waits under old ones is sent again anyway."""
        before, after = self._committee, self.replica.committee
        members = link.validators.members
        self._committee = after
        self._bounds = self._bounds.extended(len(members))
        self._verifiers.append([FalconVerifier(member.key.raw) for member in members])
        waiting, self._inputs = self._inputs, deque()
        for message, body in waiting:
            match message:
                case inputs.Received():
                    if message.sender == before.me:
                        own = inputs.Received(sender=after.me, message=message.message)
                        self._inputs.append((own, body))
                case inputs.PeerConnected() | inputs.PeerLost() | inputs.LaterEpoch():
                    pass
                case _:
                    self._inputs.append((message, body))
        self._inbox.clear()
        for index in self._links.enter_epoch([member.node_id for member in members]):
            self._feed(inputs.PeerLost(peer=ReplicaIndex(index)))
        self._entered(link)

    def _execute(self, effect: Execute) -> None:
        batch = self._bodies.get(effect.batch.payload_root)
        invariant(batch is not None, "a block that executes has its body")
        assert batch is not None
        self._owe_body(effect.batch)
        self._mark("commit", int(effect.header.height))
        self._execution.execute_soon(effect.header, effect.batch, batch)

    def _take_batch(self, effect: TakeBatch) -> None:
        batch = self._mempool.take(effect.payloads_max, effect.size_bytes_max)
        if batch is None:
            root = EMPTY_ROOT if effect.allow_empty else None
            taken = inputs.BatchTaken(payload_root=root, payloads=0, size_bytes=0, pending=0)
            self._inputs.appendleft((taken, None))
            return
        self._bodies[batch.root] = batch
        self._admission.prepare(batch)
        taken = inputs.BatchTaken(
            payload_root=batch.root,
            payloads=len(batch),
            size_bytes=batch.size,
            pending=self._mempool.pending(),
        )
        self._inputs.appendleft((taken, None))
        # Told now: if all of it came back before anything else changed, nothing would look new.
        self._watch_custody()

    def _forward(self, effect: ForwardCustody) -> None:
        most = FORWARD_PAYLOADS_MAX, FORWARD_SIZE_BYTES_MAX
        kind = int(frames.FrameType.PAYLOADS)
        if effect.peer is None:
            oldest = self._mempool.pending_batch(*most)
            if oldest is not None:
                self._links.broadcast_nowait(ChannelKind.BULK, kind, oldest)
            return
        until_ms = effect.until_us // 1_000
        batch, first, waiting_ms = self._mempool.unproposed(effect.first, until_ms, *most)
        if batch is not None and not self._links.send_nowait(
            effect.peer, ChannelKind.BULK, kind, batch
        ):
            _, first, waiting_ms = self._mempool.unproposed(effect.first, until_ms, 0, 0)
        waiting_us = None if waiting_ms is None else waiting_ms * 1_000
        self._inputs.appendleft((inputs.CustodyShown(first=first, waiting_us=waiting_us), None))

    def _watch_custody(self) -> None:
        oldest = self._mempool.oldest_ms()
        now = (
            self._mempool.pending(),
            self._mempool.pending_bytes,
            None if oldest is None else oldest * 1_000,
        )
        if now != self._custody:
            self._custody = now
            self._feed(
                inputs.CustodyChanged(pending=now[0], pending_bytes=now[1], oldest_us=now[2])
            )

    # --- frames

    def _drain_inbox(self) -> None:
        """Decode what came in, check all signatures of a part in one call, feed what holds.

        The same certificates come in many messages: each signature is checked once.
        """
        chain_id = self._committee.chain_id
        while self._inbox:
            messages: list[tuple[int, Message, Batch | None]] = []
            needed: list[list[EpochJob]] = []
            jobs: dict[EpochJob, None] = {}
            while self._inbox and len(jobs) < JOBS_PER_CALL:
                peer, frame_type, payload = self._inbox.popleft()
                if frame_type in LIVE and self.replica.is_far_behind:
                    self._frames_skipped_total += 1
                    continue
                try:
                    decoded = self._decode(peer, frame_type, payload)
                except UnknownEpoch:
                    self._feed(inputs.LaterEpoch(peer=ReplicaIndex(peer)))
                    continue
                except (MalformedMessage, NativeError) as error:
                    self._refuse(peer, str(error))
                    continue
                if decoded is None:
                    continue
                messages.append((peer, *decoded))
                needed.append(signatures(decoded[0], chain_id))
                jobs.update((job, None) for job in needed[-1] if job not in self._checked)
            valid = self._verify(
                [(self._verifiers[job[0]][job[1]], job[2], job[3]) for job in jobs]
            )
            bad = {job for job, holds in zip(jobs, valid, strict=True) if not holds}
            for (peer, message, body), wanted in zip(messages, needed, strict=True):
                if bad.isdisjoint(wanted):
                    self._accept(peer, message, body)
                else:
                    self._refuse(peer, "bad signature")
                    if peer >= GUEST_FIRST:  # an honest node checks what it sends on
                        self._links.turn_away_nowait(peer, "bad signature")
            self._checked.keep(job for job in jobs if job not in bad)

    def _verify(self, jobs: Sequence[tuple[FalconVerifier, bytes, bytes]]) -> bytes:
        """One byte a job, 1 where the signature holds; in slices, whatever the number."""
        if not jobs:
            return b""
        began = self._seconds()
        valid = b"".join(
            verify_many(jobs[at : at + JOBS_PER_CALL]) for at in range(0, len(jobs), JOBS_PER_CALL)
        )
        self._observer.verified((self._seconds() - began) / len(jobs))
        return valid

    def _decode(
        self, peer: int, frame_type: int, payload: bytes
    ) -> tuple[Message, Batch | None] | None:
        """A message that needs checking, or None when the frame was handled here."""
        if peer >= GUEST_FIRST and frame_type in MEMBERS_ONLY:
            raise MalformedMessage("only members of the present set send this")
        match frame_type:
            case frames.FrameType.PROPOSAL:
                pre_prepare, body = frames.split_proposal(payload, self._bounds)
                root = pre_prepare.header.payload_root
                batch = self._bodies.get(root) or _bounded(Batch.parse(bytes(body)))
                if batch.root != root:
                    raise MalformedMessage("the body is not the one of its PRE-PREPARE")
                return pre_prepare, batch
            case frames.FrameType.BODY:
                if peer >= GUEST_FIRST and not self.replica.wanted:
                    raise MalformedMessage("a body that nobody asked for")
                batch = _bounded(Batch.parse(payload))
                if self.replica.wants_body(batch.root):
                    self._mempool.mark_proposed(batch)
                    self._admission.prepare(batch)
                    self._feed(_body_held(batch), batch)
                elif self.replica.is_led_by(peer) and batch.root not in self._bodies:
                    self._pushed[batch.root] = batch
                    if len(self._pushed) > IN_FLIGHT_BLOCKS_MAX:
                        del self._pushed[next(iter(self._pushed))]
                return None
            case frames.FrameType.PAYLOADS:
                batch = _bounded(Batch.parse(payload))
                allowed = self._admission.well_formed(batch)
                if rubbish := allowed.count(0):
                    self._refuse(peer, f"{rubbish} of {len(batch)} payloads are malformed")
                self._mempool.add(
                    batch,
                    allowed if rubbish else None,
                    peer,
                    self._clock().monotonic_us // 1_000,
                    drop_newest_of_biggest_source=True,
                )
                self._watch_custody()
                return None
            case _:
                message = frames.decode(frame_type, payload, self._bounds)
                if isinstance(message, FetchBlocks | FetchBodies | FetchManifest | FetchChunk):
                    if self.replica.serves:
                        self._serve(peer, message)
                    else:
                        self._frames_skipped_total += 1
                    return None
                return message, None

    def _accept(self, peer: int, message: Message, body: Batch | None) -> None:
        if isinstance(message, PrePrepare):
            self._saw(message)
            body = body or self._pushed.pop(message.header.payload_root, None)
        self._feed(inputs.Received(sender=ReplicaIndex(peer), message=message), body)

    def _saw(self, proposal: PrePrepare) -> None:
        """Begin the clock of a block's phases when its proposal is first seen."""
        for times in (self._seen, self._marks):
            while len(times) >= SEEN_PROPOSALS_MAX:
                del times[next(iter(times))]
            times.setdefault(int(proposal.sequence), self._seconds())

    def _mark(self, phase: str, height: int) -> None:
        """A phase of a block ends, the next one begins."""
        since = self._marks.get(height)
        if since is None:
            return
        now = self._seconds()
        self._observer.phase(phase, now - since)
        self._marks[height] = now
        if phase == "certify":
            for done in [known for known in self._marks if known <= height]:
                del self._marks[done]

    def _refuse(self, peer: int, reason: str) -> None:
        self._frames_refused_total += 1
        if self._frames_refused_total <= REFUSALS_LOGGED_MAX:
            log.warning("frame.refused", peer=peer, reason=reason)


def _body_held(batch: Batch) -> inputs.BodyHeld:
    return inputs.BodyHeld(payload_root=batch.root, size_bytes=batch.size)


def _bounded(batch: Batch) -> Batch:
    """Refuse a batch that no honest primary makes."""
    if len(batch) > BATCH_PAYLOADS_MAX or batch.size > BATCH_SIZE_BYTES_MAX:
        raise MalformedMessage(
            f"a batch of {len(batch)} payloads and {batch.size} bytes; allowed are "
            f"{BATCH_PAYLOADS_MAX} and {BATCH_SIZE_BYTES_MAX}"
        )
    return batch
