"""One simulated node: drives a real `Replica` through the duties of the runtime.

It lives and dies: what survives a crash is `disk`, and only what was synced to it. Signatures are
hashes, bodies are tuples of small byte strings, the application is a hash chain.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from itertools import chain
from typing import TYPE_CHECKING, assert_never

from consensus import limits
from consensus.core import frames
from consensus.core.effects import (
    Accuse,
    CheckSnapshot,
    ClearTimer,
    Effect,
    EnterEpoch,
    Execute,
    ForgetBody,
    ForwardCustody,
    Halt,
    KeepChunk,
    Misbehaved,
    Note,
    ReleaseCustody,
    SetTimer,
    TakeBatch,
)
from consensus.core.epochs import GUEST_FIRST, Epochs
from consensus.core.inputs import (
    BatchTaken,
    BodyHeld,
    CustodyChanged,
    CustodyShown,
    Executed,
    Input,
    LaterEpoch,
    PeerConnected,
    PeerLost,
    Received,
    Started,
    Timer,
    TimerFired,
)
from consensus.core.messages import (
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Blocks,
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
    PrePrepare,
    RecoveryAnswer,
    Status,
    ViewChange,
    VoteVector,
    signatures,
)
from consensus.core.phases.commit import header_above
from consensus.core.records import (
    Accepted,
    Anchor,
    ExecutedBlock,
    Prepared,
    Tip,
    decode_records,
)
from consensus.core.replica import Replica, genesis_block
from consensus.core.serving import blocks_from
from consensus.core.tick import Gather, Outgoing, Tick, Urgent
from consensus.core.types import Epoch, Height, Instant, Phase, ReplicaIndex, Timing
from consensus.core.validators import Validator, ValidatorSet
from consensus.errors import CorruptRecord, InvariantError
from consensus.limits import WINDOW_BLOCKS
from consensus.runtime.checked import SIGNATURES_KEPT_MAX
from consensus.sim import damage
from consensus.sim.checker import Violation, require
from consensus.sim.disk import Body, Disk, StoredBlock, payload_root
from consensus.sim.machine import Clock, DiskFaults, Processor
from consensus.sim.snapshots import Snapshots, root_after
from native.values import Algorithm, Digest, PublicKey, Signature

if TYPE_CHECKING:
    from consensus.sim.run import Cluster

SIM_TIMING = Timing(
    request_timeout_ms=400,
    request_timeout_ms_min=300,
    request_timeout_ms_max=1_500,
    idle_block_interval_ms=1_500,
    status_interval_ms=250,
    heartbeat_interval_ms=900,
    fetch_retry_ms=100,
    chunk_timeout_ms=400,
)
IMPATIENT = Timing(
    request_timeout_ms=60,
    request_timeout_ms_min=60,
    request_timeout_ms_max=240,
    idle_block_interval_ms=1_500,
    status_interval_ms=50,
    heartbeat_interval_ms=900,
    fetch_retry_ms=50,
)
"""For scripted runs with few events."""
SHRUNK = 20  # batches, and with them what is forwarded, are so many times smaller here
BATCH_PAYLOADS_MAX = limits.BATCH_PAYLOADS_MAX // SHRUNK
FORWARD_PAYLOADS_MAX = limits.FORWARD_PAYLOADS_MAX // SHRUNK
GENESIS_TIME_MS = 1_000
GENESIS_ROOT = Digest(hashlib.sha256(b"genesis").digest())


@cache
def validator(node: int) -> Validator:
    """A member only the simulator knows: its name is the number of its node."""
    seed = hashlib.sha256(b"key %d" % node).digest()
    return Validator(name=str(node), key=PublicKey(algorithm=Algorithm.ML_DSA_65, raw=seed * 61))


def epoch_of(message: Message) -> int:
    """The epoch whose set is needed to read a message."""
    match message:
        case Status() | ViewChange() | NewView() | RecoveryAnswer() | VoteVector() | PrePrepare():
            return message.epoch
        case Equivocation():
            return message.first.epoch
        case Blocks() | EpochLink():
            return message.certificate.checkpoint.epoch
        case Manifest():
            return message.run.certificate.checkpoint.epoch
        case FetchBlocks() | FetchBodies() | FetchManifest() | FetchChunk() | Chunk():
            return 0
        case _:
            assert_never(message)


def signatures_in(message: Message) -> Iterator[Signature]:
    """All that a reader has to check; the same ones come in many messages."""
    match message:
        case VoteVector() | PrePrepare():
            yield message.signature
        case Equivocation():
            yield from (message.first.signature, message.second.signature)
        case ViewChange():
            yield message.signature
            for entry in message.prepared:
                yield entry.pre_prepare.signature
                yield from (vote.signature for vote in entry.votes)
            yield from _votes(message.certificate)
        case NewView():
            yield message.signature
            yield from (entry.signature for entry in message.proposals)
            for change in message.view_changes:
                yield from signatures_in(change)
        case Status():
            yield from _votes(message.certificate)
            if message.held is not None:
                yield message.held.signature
        case RecoveryAnswer():
            for change in message.view_changes:
                yield from signatures_in(change)
            if message.new_view is not None:
                yield from signatures_in(message.new_view)
            yield from _votes(message.certificate)
        case Blocks() | EpochLink():
            yield from _votes(message.certificate)
        case Manifest():
            yield from _votes(message.run.certificate)
        case FetchBlocks() | FetchBodies() | FetchManifest() | FetchChunk() | Chunk():
            pass
        case _:
            assert_never(message)


def _votes(certificate: BlockCertificate | None) -> Iterator[Signature]:
    if certificate is not None:
        yield from (vote.signature for vote in certificate.votes)


def sign(signer: int, message: bytes) -> Signature:
    """A signature only the simulator can check."""
    return Signature(hashlib.sha256(b"key %d" % signer + message).digest()[:16])


def accepted_bodies(tick: Tick, find: Callable[[Digest], Body | None]) -> dict[Digest, Body]:
    """The bodies that must be written in the transaction of a tick."""
    bodies: dict[Digest, Body] = {}
    for record in tick.records:
        if isinstance(record, Accepted):
            root = record.pre_prepare.header.payload_root
            body = find(root)
            require(body is not None, "an accepted PRE-PREPARE has its body")
            assert body is not None
            bodies[root] = body
    return bodies


class Custody:
    """Payloads until they are executed, in order of arrival; the native mempool, but small."""

    def __init__(self) -> None:
        self.payloads: dict[bytes, int] = {}  # first seen
        self.places: dict[bytes, int] = {}  # numbered as they came
        self.proposed: set[bytes] = set()
        self.next_place = 0
        self.done: set[bytes] = set()

    def add(self, payload: bytes, now_us: int) -> bool:
        if payload in self.payloads or payload in self.done:
            return False
        self.payloads[payload] = now_us
        self.places[payload] = self.next_place
        self.next_place += 1
        return True

    def take(self, count: int) -> Body:
        fresh = [payload for payload in self.payloads if payload not in self.proposed][:count]
        self.proposed.update(fresh)
        return tuple(fresh)

    def mark_proposed(self, payloads: Body) -> None:
        self.proposed.update(payload for payload in payloads if payload in self.payloads)

    def unproposed(
        self, first: int, until_us: int, count_max: int = FORWARD_PAYLOADS_MAX
    ) -> tuple[Body, int, int | None]:
        """As that of the native mempool, in microseconds."""
        shown: list[bytes] = []
        for payload, since_us in self.payloads.items():
            if payload in self.proposed or self.places[payload] < first:
                continue
            if len(shown) == count_max or since_us > until_us:
                return tuple(shown), first, since_us
            shown.append(payload)
            first = self.places[payload] + 1
        return tuple(shown), first, None

    def remove(self, payloads: Body) -> None:
        for payload in payloads:
            self.payloads.pop(payload, None)
            self.places.pop(payload, None)
            self.proposed.discard(payload)
            self.done.add(payload)


class Node:
    """A process that can be killed, and the disk it leaves behind."""

    def __init__(self, cluster: "Cluster", index: int) -> None:
        self.cluster = cluster
        self.world = cluster.world
        self.index = ReplicaIndex(index)
        self.address = self.index  # place in `cluster.nodes`; differs for the copy of a twin
        self.processor = Processor(self.world)
        self.clock = Clock(self.world)
        self.disk_faults = DiskFaults()
        self.disk = Disk()
        self.disk.born(cluster.chain_id, Digest(bytes([index]) * 32))
        self.timing = SIM_TIMING
        self.disk_us_max = 1_000
        self.life = 0
        self.up = False
        self.halted = False
        self.honest = True
        self.check_wire = False
        self.count_before_durable = False
        self.drop_after_execution = False
        self.transfers = Snapshots(self)
        self.synced = 0  # blocks of `state.db` that no power cut takes
        self.genesis_root = GENESIS_ROOT

    # --- life and death

    def start(self) -> None:
        """A new process on the old disk."""
        world = self.world
        genesis_set = self.cluster.genesis_set
        first = Epochs(chain_id=self.cluster.chain_id, sets=(genesis_set,))
        was_damaged = self.disk.is_damaged or self.disk.misread is not None
        try:
            records = decode_records(self.disk.read(), first.bounds())
        except CorruptRecord as error:
            damage.refused(self.cluster, self, str(error))
            return
        require(not was_damaged, f"node {self.index} starts on a damaged record")
        self.life += 1
        self.up = True
        self.epochs = Epochs.of(self.cluster.chain_id, genesis_set, records)
        committee = self.epochs.committee(
            validator(self.index).node_id, rotation_blocks=self.cluster.rotation_blocks
        )
        blocks = self.disk.blocks
        self.executing: deque[StoredBlock] = deque()
        self.replica = Replica(
            committee,
            self.timing,
            boot=world.random.randrange(1, 2**64),
            tip=self._execute_again(),
            uncertified=[stored.block for stored in blocks[-200:] if not stored.is_from_snapshot],
            records=records,
            genesis_set=genesis_set,
            decided=next(
                (one.block for one in reversed(blocks) if one.block.next_validators is not None),
                None,
            ),
        )
        self.gather = Gather()
        self.checked: dict[Signature, None] = {}  # newest last
        self.bodies: dict[Digest, Body] = {payload_root(()): ()}
        self.custody = Custody()
        for stored in blocks:
            self.custody.done.update(stored.payloads)
        self.timers: dict[Timer, int] = {}
        self.committing: tuple[Tick, dict[Digest, Body]] | None = None
        self.ticking = False
        self.custody_told: tuple[int, int, int | None] | None = None
        self.feed(Started())
        for peer in self.cluster.nodes:
            if peer.index != self.index:
                if not peer.up and not self._has_copy_up(peer):
                    self.feed(PeerLost(peer=self.place_of(peer.index)))
                elif peer.up and peer.life:
                    self.connect(peer)

    def _execute_again(self) -> ExecutedBlock:
        """Execute what a power cut took out of `state.db`, and sync it; return the newest block."""
        disk = self.disk
        genesis = genesis_block(self.cluster.chain_id, GENESIS_TIME_MS, GENESIS_ROOT)
        while True:
            tip = disk.blocks[-1].block if disk.blocks else genesis
            batch = disk.agreed(tip.height + 1)
            body = None if batch is None else disk.bodies.get(batch.payload_root)
            if batch is None or body is None or payload_root(body) != batch.payload_root:
                self.synced = len(disk.blocks)
                return tip
            stored = self._executed(header_above(tip, batch), batch, body)
            if self.honest:
                self.cluster.checker.executed(self.index, stored)
            disk.write_block(stored)
            self.world.counters["blocks executed again after a power cut"] += 1

    def _has_copy_up(self, peer: "Node") -> bool:
        return any(node.up and node.index == peer.index for node in self.cluster.nodes)

    def connect(self, peer: "Node") -> None:
        """Both ends notice the new connection."""
        me, life, other = self.index, self.life, peer.life

        def notice() -> None:
            if self.up and self.life == life and peer.up and peer.life == other:
                peer.hear(PeerLost(peer=peer.place_of(me)))
                peer.hear(PeerConnected(peer=peer.place_of(me)))
                self.hear(PeerConnected(peer=self.place_of(peer.index)))

        self.world.after(self.world.random.randrange(1_000, 20_000), notice)

    def crash(self, *, written: bool | None = None) -> None:
        """SIGKILL: what was being written may or may not have made it, unless that is said."""
        world = self.world
        world.counters["crashes"] += 1
        world.log(f"node {self.address} crashes")
        self.up = False
        self.processor.clear()
        if self.replica.phase in (Phase.SEEKING, Phase.RECOVERING):
            world.counters["crashes during recovery"] += 1
        committing = self.committing
        if committing is not None:
            if world.random.random() < 0.5 if written is None else written:
                self.disk.write_tick(*committing)
                if self.honest:
                    for message in committing[0].own:
                        self.cluster.checker.signed(self.index, message)
                world.counters["crashes between sync and send"] += 1
                if any(isinstance(record, Prepared) for record in committing[0].records):
                    world.counters["crashes between sync of a certificate and send"] += 1
            else:
                world.counters["crashes that lost a write"] += 1
        while self.executing and (world.random.random() < 0.5 if written is None else written):
            self._store_block(self.executing.popleft())
            world.counters["crashes between execution and vote"] += 1
        self._lose_power()
        for peer in self.cluster.nodes:
            if peer is not self and peer.up and world.random.random() < 0.8:
                self._tell_lost(peer, self.index, self.life)

    def _lose_power(self) -> None:
        """Every third crash is a power cut: `state.db` is synced from time to time only.

        Drawn apart from the rest, which stays as it is without it.
        """
        luck = self.cluster.power
        if luck.random() < 1 / 3:
            count = luck.randrange(1, 2 * WINDOW_BLOCKS)
            lost = self.disk.lose_blocks(count, floor=max(self.synced, self.transfers.floor))
            self.world.counters["power cuts that took blocks out of state.db"] += bool(lost)

    def fall_silent(self) -> None:
        """The others give the connection up, whether this process lives or not."""
        for peer in self.cluster.nodes:
            if peer is not self and peer.up:
                peer.hear(PeerLost(peer=self.index))

    def _tell_lost(self, peer: "Node", me: ReplicaIndex, life: int) -> None:
        other = peer.life

        def notice() -> None:
            if peer.up and peer.life == other and not (self.up and self.life != life):
                peer.hear(PeerLost(peer=peer.place_of(me)))

        self.world.after(self.world.random.randrange(1_000, 50_000), notice)

    # --- who is who

    def place_of(self, node: int) -> ReplicaIndex:
        """The index by which this node knows another one in its present epoch."""
        index = self.epochs.newest.index_of(validator(node).node_id)
        return ReplicaIndex(GUEST_FIRST + node if index is None else index)

    def node_at(self, place: ReplicaIndex) -> ReplicaIndex:
        """The node behind an index of the present epoch."""
        if place >= GUEST_FIRST:
            return ReplicaIndex(place - GUEST_FIRST)
        return ReplicaIndex(int(self.epochs.newest.members[place].name))

    def _enter_epoch(self, link: EpochLink) -> None:
        self.epochs = self.epochs.extended(link)
        self.world.counters["epochs entered"] += 1
        life = self.life

        def notice() -> None:
            for peer in self.cluster.nodes:
                if self.up and self.life == life and peer is not self and not peer.up:
                    self.feed(PeerLost(peer=self.place_of(peer.index)))

        self.world.after(0, notice)

    # --- feeding the core

    def now(self) -> Instant:
        return self.clock.now()

    def hear(self, message: Input) -> None:
        """Feed this in its turn."""
        life = self.life

        def work() -> None:
            if self.life == life:
                self.feed(message)

        self.processor.run(work)

    def feed(self, message: Input) -> None:
        if self.up and not self.halted:
            self._absorb(self._step(message))

    def _step(self, message: Input) -> list[Effect]:
        try:
            return self.replica.step(message, self.now())
        except InvariantError as error:
            raise Violation(f"node {self.index}: {error}") from error

    def _absorb(self, effects: list[Effect]) -> None:
        for effect in self.gather.add(effects):
            self._urgent(effect)
        self._wake()

    def _urgent(self, effect: Urgent) -> None:
        world = self.world
        match effect:
            case SetTimer():
                self._set_timer(effect.timer, effect.at_us)
            case ClearTimer():
                self.timers.pop(effect.timer, None)
            case TakeBatch():
                self._take_batch(effect)
            case Execute():
                self._execute(effect)
            case CheckSnapshot() | KeepChunk():
                self.transfers.work(effect)
            case ReleaseCustody():
                self.custody.proposed.clear()
                for root in effect.in_flight:
                    body = self._body(root)
                    if body is not None:
                        self.custody.proposed.update(body)
                self._tell_custody()
            case ForwardCustody():
                self._forward(effect)
            case ForgetBody():
                self.bodies.pop(effect.payload_root, None)
            case Misbehaved():
                world.counters[f"fault {effect.fault.value}"] += 1
                culprit = self.node_at(effect.peer)
                world.log(f"node {self.index} blames {culprit}: {effect.fault.value}")
                if self.honest:
                    self.cluster.blamed(self.index, culprit, effect.fault)
            case EnterEpoch():
                self._enter_epoch(effect.link)
            case Accuse():
                if self.honest:
                    self.cluster.accused(self.index, self.node_at(effect.peer), effect.proof)
            case Halt():
                self.halted = True
                world.log(f"node {self.index} halts: {effect.reason}")
                self.cluster.node_halted(self, effect.reason)
            case Note():
                world.counters[effect.event.value] += 1
                world.log(f"node {self.index} {effect.event.value}: {effect.detail}")
                self.cluster.noted(self, effect.event)
            case _:
                assert_never(effect)

    def _set_timer(self, timer: Timer, at_us: int) -> None:
        self.timers[timer] = at_us
        life = self.life

        def expire() -> None:
            if not (self.up and self.life == life and self.timers.get(timer) == at_us):
                return
            if self.now().monotonic_us < at_us:  # the clock slowed down meanwhile
                self.world.at(self.clock.true_us(at_us), fire)
                return
            del self.timers[timer]
            self.feed(TimerFired(timer=timer))

        def fire() -> None:
            self.processor.run(expire)

        self.world.at(self.clock.true_us(at_us), fire)

    # --- the tick

    def _wake(self) -> None:
        if self.ticking or not self.up or self.gather.empty:
            return
        self.ticking = True
        life = self.life

        def turn() -> None:
            if self.up and self.life == life:
                self.ticking = False
                self._tick()

        self.world.after(int(self.world.random.random() * 300), lambda: self.processor.run(turn))

    def _tick(self) -> None:
        if self.committing is not None:
            return
        if self.halted:
            last = self.gather.last_tick(self.replica)
            if last is not None:
                self.committing = last, accepted_bodies(last, self._body)
                self._commit(last, 0)
            return
        draft = self.gather.draft(self.replica)
        if draft is None:
            return
        tick = draft.complete([sign(self.index, job) for job in draft.jobs])
        if not tick.durable:
            self._release(tick)
            return
        if self.count_before_durable:
            self._own(tick)
            self._send(tick)
        self.committing = tick, accepted_bodies(tick, self._body)
        self._note_slowest(tick)
        self._commit(tick, len(draft.jobs) * self.processor.costs.sign_us)

    def _commit(self, tick: Tick, sign_us: int) -> None:
        """One transaction; the process ends when its fsync fails."""
        committing = self.committing
        assert committing is not None
        life = self.life

        def synced() -> None:
            if not (self.up and self.life == life):
                return
            if self.cluster.boundary(self, committed=tick):
                return
            self.disk.write_tick(*committing)
            self.committing = None
            if self.disk.damaged:
                self.cluster.crash(self.address)
                damage.done(self, damage.MISDIRECTED)
                return
            self._release(tick)
            self._wake()

        random = self.world.random
        faults = self.disk_faults
        if sign_us:
            self.processor.spend(sign_us)
        took = sign_us + 100 + int(random.random() * (self.disk_us_max - 100))
        if faults.stall_rate and random.random() < faults.stall_rate:
            took += faults.stall_us
            self.world.counters["commits that stalled"] += 1
        if faults.full or (faults.sync_error_rate and random.random() < faults.sync_error_rate):
            self.world.after(took, partial(self._disk_fails, life))
            return
        self.world.after(took, lambda: self.processor.run(synced))
        if self.cluster.crashes_in_writes and random.random() < 0.01:
            self.cluster.crashes_in_writes -= 1
            self.world.counters["crashes aimed at a write"] += 1
            self.world.after(random.randrange(took), partial(self._crash_of, life))

    def _disk_fails(self, life: int) -> None:
        """A failed commit ends the process: nobody knows what of it is on the disk."""
        if not (self.up and self.life == life):
            return
        if self.disk_faults.full:
            self.world.counters["commits on a full disk"] += 1
            self.crash(written=False)
        else:
            self.world.counters["commits whose sync failed"] += 1
            self.crash()
        self.cluster.restart_later(self.address)

    def _crash_of(self, life: int) -> None:
        if self.up and self.life == life:
            self.cluster.crash(self.address)

    def _release(self, tick: Tick) -> None:
        if not (self.count_before_durable and tick.durable):
            self._own(tick)
            self._send(tick)
        if self.up:
            for effect in tick.executes:
                self._execute(effect)
            if tick.restore is not None:
                self.transfers.work(tick.restore)

    def _own(self, tick: Tick) -> None:
        for message in tick.own:
            if self.honest:
                self.cluster.checker.signed(self.index, message)
            self._note_coverage(message)
        for message in tick.own:
            self._absorb(self._step(Received(sender=self.replica.me, message=message)))

    def _send(self, tick: Tick) -> None:
        cluster = self.cluster
        for outgoing in tick.outgoing:
            if tick.epoch != self.replica.committee.epoch:
                return
            peers = self.replica.others if outgoing.peer is None else [outgoing.peer]
            for peer in peers:
                if cluster.crashes_in_sends and self.world.random.random() < 0.005:
                    cluster.crashes_in_sends -= 1
                    self.world.counters["crashes inside a broadcast"] += 1
                    cluster.crash(self.address)
                if not self.up:
                    return
                self.send(self.node_at(peer), outgoing)

    def send(self, peer: ReplicaIndex, outgoing: Outgoing) -> None:
        body: Body | None = None
        message = outgoing.message
        if outgoing.with_body and isinstance(message, PrePrepare):
            body = self._body(message.header.payload_root)
            if body and self.world.random.random() < self.cluster.by_digest:
                self.world.counters["bodies by digest"] += 1
                self.cluster.carry(self.address, peer, message, None)
                self.cluster.carry_body(self.address, peer, body)
                return
        self.cluster.carry(self.address, peer, message, body)

    def _note_slowest(self, tick: Tick) -> None:
        """A certificate that needed the slowest node of all."""
        slowest = self.cluster.slowest
        if slowest is not None and any(
            isinstance(record, Tip)
            and any(vote.signer == slowest for vote in record.certificate.votes)
            for record in tick.records
        ):
            self.world.counters["certificates with the slowest node"] += 1

    def _note_coverage(self, message: object) -> None:
        counters = self.world.counters
        if isinstance(message, ViewChange):
            if message.prepared:
                counters["VIEW-CHANGE with prepared batches"] += 1
            if len({entry.view for entry in message.prepared}) > 1:
                counters["VIEW-CHANGE with certificates of several views"] += 1
        elif isinstance(message, NewView):
            counters["NEW-VIEW sent"] += 1
            empty = payload_root(())
            if any(
                entry.header.proposed_ms == 0 and entry.header.payload_root == empty
                for entry in message.proposals
            ):
                counters["NEW-VIEW with a null batch"] += 1
            if len({change.height for change in message.view_changes}) > 1:
                counters["NEW-VIEW from several checkpoints"] += 1
        elif isinstance(message, VoteVector) and len(message.leaves) > 1:
            counters["vectors with several leaves"] += 1

    # --- receiving

    def arrive(self, sender: ReplicaIndex, message: Message, body: Body | None) -> None:
        """A frame is here; the processor comes to it in its turn."""
        if not self.up or self.halted:
            return
        processor = self.processor
        if processor.full:
            self.world.counters["messages a stopped process did not read"] += 1
            return
        if isinstance(message, VoteVector | PrePrepare) and self.replica.is_far_behind:
            self.world.counters["live messages a node far behind did not read"] += 1
            return
        costs = processor.costs
        if not costs.frame_us and processor.idle:
            self.receive(sender, message, body)
            return
        checks = self._checks(message) if costs.verify_us else 0
        life = self.life

        def work() -> None:
            if self.life == life:
                self.receive(sender, message, body)

        processor.run(work, costs.frame_us + checks * costs.verify_us)

    def _checks(self, message: Message) -> int:
        """How many signatures in it were not checked before: each is once, as in `runtime`."""
        fresh = [found for found in signatures_in(message) if found not in self.checked]
        self.checked.update((found, None) for found in fresh)
        for _ in range(len(self.checked) - SIGNATURES_KEPT_MAX):
            del self.checked[next(iter(self.checked))]
        return len(set(fresh))

    def receive(self, sender: ReplicaIndex, message: Message, body: Body | None) -> None:
        """Parse, and feed the core."""
        if not self.up or self.halted:
            return
        if epoch_of(message) > self.replica.committee.epoch:
            self.world.counters["messages of a later epoch"] += 1
            self.feed(LaterEpoch(peer=self.place_of(sender)))
            return
        if self.check_wire:
            message = self._through_the_wire(message)
        if (
            isinstance(message, FetchBlocks | FetchBodies | FetchManifest | FetchChunk)
            and not self.replica.serves
        ):
            return
        if isinstance(message, FetchBlocks):
            self._serve_blocks(sender, message)
            return
        if isinstance(message, FetchManifest | FetchChunk):
            self.transfers.serve(sender, message)
            return
        if isinstance(message, FetchBodies):
            for root in message.payload_roots:
                found = self._body(root)
                if found is not None:
                    self.cluster.carry_body(self.address, sender, found)
            return
        if isinstance(message, PrePrepare) and body is not None:
            if message.view == self.replica.view and message.signer != self.replica.me:
                self.custody.mark_proposed(body)
            self.hold_body(body, unasked=True)
        self.feed(Received(sender=self.place_of(sender), message=message))

    def _through_the_wire(self, message: Message) -> Message:
        """Encode, decode, compare, and check every signature inside."""
        chain_id = self.cluster.chain_id
        _, frame_type, data = frames.encode(message)
        decoded = frames.decode(frame_type, data, self.epochs.bounds())
        require(decoded == message, f"{type(message).__name__} changed on the wire")
        for epoch, signer, signed, signature in signatures(decoded, chain_id):
            key = int(self.epochs.sets[epoch].members[signer].name)
            require(sign(key, signed) == signature, f"bad signature in {type(message).__name__}")
        return decoded

    def hold_body(self, body: Body, *, unasked: bool = False) -> None:
        root = payload_root(body)
        if not self.up or self.halted or not (unasked or self.replica.wants_body(root)):
            return
        self.bodies[root] = body
        if not unasked:
            self.custody.mark_proposed(body)
            self.world.counters["bodies fetched"] += 1
        self.feed(BodyHeld(payload_root=root, size_bytes=sum(map(len, body))))

    def _body(self, root: Digest) -> Body | None:
        body = self.bodies.get(root)
        return self.disk.bodies.get(root) if body is None else body

    def _serve_blocks(self, sender: ReplicaIndex, request: FetchBlocks) -> None:
        def load(height: Height) -> tuple[BlockHeader, BatchHeader] | None:
            if height > len(self.disk.blocks):
                return None
            stored = self.disk.blocks[height - 1]
            if not self.transfers.holds(height, stored):
                return None
            return stored.header, stored.batch

        reply = blocks_from(
            request.first,
            executed=Height(len(self.disk.blocks)),
            certificates=[
                record.certificate
                for record in self.disk.records.values()
                if isinstance(record, Tip | Anchor)
            ],
            load=load,
        )
        if reply is not None:
            self.world.counters["headers served"] += 1
            self.cluster.carry(self.address, sender, reply, None)

    # --- payloads

    def take_payloads(self, payloads: Iterable[bytes]) -> None:
        """From a client or from another node, into custody."""
        if not self.up or self.halted:
            return
        now_us = self.now().monotonic_us
        added = [self.custody.add(payload, now_us) for payload in payloads]
        if any(added):
            self._tell_custody()

    def _tell_custody(self) -> None:
        custody = self.custody
        pending = [payload for payload in custody.payloads if payload not in custody.proposed]
        told = (
            len(pending),
            sum(map(len, pending)),
            min(custody.payloads.values(), default=None),
        )
        if told != self.custody_told:
            self.custody_told = told
            self.feed(CustodyChanged(pending=told[0], pending_bytes=told[1], oldest_us=told[2]))

    def _forward(self, effect: ForwardCustody) -> None:
        counters = self.world.counters
        if effect.peer is None:
            counters["custody shown to everybody"] += 1
            oldest = tuple(self.custody.payloads)[:FORWARD_PAYLOADS_MAX]
            for peer in self.replica.others:
                self.cluster.carry_payloads(self.address, self.node_at(peer), oldest)
            return
        payloads, first, waiting_us = self.custody.unproposed(effect.first, effect.until_us)
        if payloads:
            counters["custody forwarded"] += 1
            counters["payloads forwarded"] += len(payloads)
            if not self._show(effect.peer, payloads):
                counters["custody that no link took"] += 1
                _, first, waiting_us = self.custody.unproposed(effect.first, effect.until_us, 0)
        self._absorb(self._step(CustodyShown(first=first, waiting_us=waiting_us)))

    def _show(self, peer: ReplicaIndex, payloads: Body) -> bool:
        """Whether they were queued; a peer that was lost has no queue."""
        connected = self.replica.peers[peer].connected
        return connected and self.cluster.carry_payloads(self.address, self.node_at(peer), payloads)

    def _take_batch(self, effect: TakeBatch) -> None:
        body = self.custody.take(min(effect.payloads_max, BATCH_PAYLOADS_MAX))
        pending = len(self.custody.payloads.keys() - self.custody.proposed)
        root: Digest | None = payload_root(body)
        if not body and not effect.allow_empty:
            root = None
        if root is not None:
            self.bodies[root] = body
        answer = BatchTaken(
            payload_root=root,
            payloads=len(body),
            size_bytes=sum(map(len, body)),
            pending=pending,
        )
        self._absorb(self._step(answer))
        if body:
            self._tell_custody()

    # --- execution

    def _execute(self, effect: Execute) -> None:
        body = self._body(effect.batch.payload_root)
        require(body is not None, f"node {self.index} executes a body it does not have")
        assert body is not None
        header = effect.header
        stored = self._executed(header, effect.batch, body)
        before = self.executing[-1].header if self.executing else self.replica.tip
        require(
            header.height == before.height + 1, f"node {self.index} executes blocks out of order"
        )
        self.executing.append(stored)
        if len(self.executing) == 1:
            self._execute_first()

    def _executed(self, header: BlockHeader, batch: BatchHeader, body: Body) -> StoredBlock:
        """What execution makes of a batch."""
        return StoredBlock(
            header=header,
            batch=batch,
            block=ExecutedBlock(
                height=header.height,
                header_hash=header.hash,
                time_ms=header.time_ms,
                state_root=root_after(header.state_root, header.hash, batch.payload_root),
                next_validators=self._decide(header, body),
            ),
            payloads=body,
        )

    def _execute_first(self) -> None:
        stored = self.executing[0]
        header, body = stored.header, stored.payloads
        life = self.life

        def done() -> None:
            if self.up and self.life == life:
                if self.cluster.boundary(self, executed=stored):
                    return
                self.executing.popleft()
                if self.executing:
                    self._execute_first()
                self._store_block(stored)
                for payload in body:
                    if self.honest:
                        self.cluster.checker.acknowledge(payload, header.height)
                self.custody.remove(body)
                self.feed(
                    Executed(
                        height=header.height,
                        header_hash=header.hash,
                        state_root=stored.block.state_root,
                        next_validators=stored.block.next_validators,
                        full=len(body) >= BATCH_PAYLOADS_MAX,
                    )
                )
                self._tell_custody()

        took = 100 + int(self.world.random.random() * (self.disk_us_max - 100))
        took += self.processor.costs.execute_us
        self.world.after(took, lambda: self.processor.run(done))

    def _decide(self, header: BlockHeader, body: Body) -> ValidatorSet | None:
        """The application: a payload `set:0,2,5` puts these nodes into the next set.

        Refused while another change is pending, and when it changes nothing.
        """
        present = self.cluster.genesis_set
        for stored in chain(reversed(self.executing), reversed(self.disk.blocks)):
            decided = stored.block.next_validators
            if decided is not None:
                if header.height <= stored.block.height + WINDOW_BLOCKS:
                    require(header.epoch == decided.epoch - 1, f"epoch of {header.height}")
                    return None
                present = decided
                break
        require(header.epoch == present.epoch, f"block {header.height} is of {header.epoch}")
        return self.next_set(present, body)

    def next_set(self, present: ValidatorSet, body: Body) -> ValidatorSet | None:
        """What the payloads of one block make of the present set, if that is another one."""
        for payload in body:
            if payload.startswith(b"set:"):
                nodes = payload.split(b"/")[0][4:].split(b",")
                members = tuple([validator(int(node)) for node in nodes])
                if members != present.members:
                    self.world.counters["changes of the set decided"] += 1
                    return ValidatorSet(epoch=Epoch(present.epoch + 1), members=members)
        return None

    def state_replaced(self) -> None:
        """The blocks on the disk are now those of a fetched snapshot."""

    def _store_block(self, stored: StoredBlock) -> None:
        if self.honest:
            self.cluster.checker.executed(self.index, stored)
        self.disk.write_block(stored)
        self.transfers.executed(stored)
        if self.drop_after_execution:
            self.disk.drop(stored.header.height)
            self.replica.prepared.pop(stored.header.height, None)
