"""Four drivers with real keys, frames and bodies; only wires, disk and ledger are fakes."""

import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import cast

import pytest

from consensus.core import frames, inputs, types
from consensus.core.effects import Fault
from consensus.core.epochs import GUEST_FIRST
from consensus.core.messages import (
    EMPTY_ROOT,
    UNSIGNED,
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Checkpoint,
    FetchBodies,
    PrePrepare,
)
from consensus.core.records import Accepted, Agreed, Birth, OwnVotes, Record, Recovery
from consensus.core.replica import Replica, genesis_block
from consensus.core.types import (
    NOBODY,
    Committee,
    Epoch,
    Instant,
    Number,
    Phase,
    ReplicaIndex,
    Timing,
    View,
)
from consensus.core.wire import Bounds
from consensus.errors import InvariantError
from consensus.limits import (
    BATCH_PAYLOADS_MAX,
    IN_FLIGHT_BLOCKS_MAX,
    UNUSED_BODIES_BYTES_MAX,
    WINDOW_BLOCKS,
)
from consensus.runtime.driver import MEMBERS_ONLY, PATIENCE_CUSTODY_US, PATIENCE_US, Driver, Request
from consensus.runtime.links import Links
from consensus.runtime.store import Body, CommitFailed, Committed
from consensus.tests import samples
from consensus.tests.test_replica import status
from native import FalconVerifier, Mempool, verify_many
from native.batches import Batch
from native.keys import SecretKey, verify
from native.values import Algorithm, Digest, Signature
from transport import ChannelKind, Connection

CHAIN = Digest(b"c" * 32)
MEMBERS = 4
KEYS = [SecretKey.generate(Algorithm.FALCON_512) for _ in range(MEMBERS)]
VERIFIERS = [FalconVerifier(key.public.raw) for key in KEYS]


class Wires:
    """Stands for `Links`: keeps what was sent until the world delivers it."""

    def __init__(self, me: int, sent: deque[tuple[int, int, int, bytes]]) -> None:
        self.me = me
        self.sent = sent
        self.turned_away: list[int] = []
        self.silent: set[frames.FrameType] = set()  # frames that never leave
        self.full: set[frames.FrameType] = set()  # frames that there is no room for

    def turn_away_nowait(self, peer: int, _detail: str) -> None:
        if peer >= GUEST_FIRST:
            self.turned_away.append(peer)

    def take_place(self, connection: object) -> int | None:
        return connection if isinstance(connection, int) else None

    def send_nowait(
        self, peer: int, _kind: ChannelKind, frame_type: int, *parts: bytes | Batch
    ) -> bool:
        if frame_type in self.silent:
            return True
        if frame_type in self.full:
            return False
        data = b"".join(part.body if isinstance(part, Batch) else part for part in parts)
        self.sent.append((self.me, peer, frame_type, data))
        return True

    def broadcast_nowait(self, kind: ChannelKind, frame_type: int, *parts: bytes | Batch) -> None:
        for peer in range(MEMBERS):
            if peer != self.me:
                self.send_nowait(peer, kind, frame_type, *parts)


class Disk:
    """Stands for the store: nothing is durable before the world says so."""

    def __init__(self) -> None:
        self.waiting: list[int] = []
        self.ticks: list[Sequence[Record]] = []
        self.records: list[Record] = []
        self.bodies: list[Body] = []

    def load(self, _bounds: Bounds) -> list[Record]:
        return self.records

    def commit_soon(
        self, serial: int, records: Sequence[Record], bodies: Sequence[Body], _drop: int | None
    ) -> None:
        self.waiting.append(serial)
        self.ticks.append(records)
        self.records += records
        self.bodies += bodies


class Machine:
    """Stands for the executor: a hash chain of everything that was executed."""

    def __init__(self) -> None:
        self.waiting: deque[tuple[BlockHeader, Batch]] = deque()
        self.payloads: list[bytes] = []
        self.root = Digest(bytes(32))

    def execute_soon(self, header: BlockHeader, _agreed: BatchHeader, batch: Batch) -> None:
        self.waiting.append((header, batch))

    def execute(self) -> tuple[BlockHeader, Batch]:
        header, batch = self.waiting.popleft()
        self.payloads += [batch.payload(at) for at in range(len(batch))]
        self.root = Digest(hashlib.sha256(self.root + batch.root).digest())
        return header, batch

    def well_formed(self, batch: Batch) -> bytes:
        return bytes([not batch.payload(at).startswith(b"rubbish") for at in range(len(batch))])

    def prepare(self, _batch: Batch) -> None:
        pass


class Quiet:
    """An observer that remembers faults only."""

    def __init__(self) -> None:
        self.faults: list[Fault] = []

    def signed(self, _seconds: float) -> None: ...
    def verified(self, _seconds: float) -> None: ...
    def committed(self, _seconds: float) -> None: ...
    def phase(self, _name: str, _seconds: float) -> None: ...
    def agreed(self, _payloads: int, _size_bytes: int, _seconds: float | None) -> None: ...
    def view_changed(self) -> None: ...
    def misbehaved(self, fault: Fault) -> None:
        self.faults.append(fault)


class Node:
    """One driver and its fakes."""

    def __init__(
        self,
        me: int,
        now: Callable[[], Instant],
        sent: deque[tuple[int, int, int, bytes]],
        *,
        members: int = MEMBERS,
        kept: Sequence[Record] = (),
    ) -> None:
        self.disk = Disk()
        self.machine = Machine()
        self.mempool = Mempool(1_000, 10_000_000, sender_at=[(1, 1)])
        self.wires = Wires(me, sent)
        self.served: list[Request] = []
        self.transfers: list[object] = []
        self.certified: list[BlockCertificate] = []
        birth = Birth(chain_id=CHAIN, node_id=Digest(KEYS[me].node_id), incarnation=1)
        self.driver = Driver(
            Replica(
                Committee(chain_id=CHAIN, members=members, me=ReplicaIndex(me)),
                Timing(),
                boot=me + 1,
                tip=genesis_block(CHAIN, 1_000, self.machine.root),
                records=[birth, *kept],
            ),
            bounds=Bounds(chain_id=CHAIN, members=members),
            secret=KEYS[me],
            verifiers=VERIFIERS[:members],
            links=cast("Links", self.wires),
            store=self.disk,
            execution=self.machine,
            admission=self.machine,
            mempool=self.mempool,
            observer=Quiet(),
            clock=now,
            seconds=lambda: now().monotonic_us / 1e6,
            wake_at=lambda _at: None,
            serve=lambda _peer, request: self.served.append(request),
            transfer=self.transfers.append,
            certified=self.certified.append,
        )

    def settle(self) -> None:
        """Commit and execute what waits, and fire what is due."""
        while self.disk.waiting:
            serial = self.disk.waiting.pop(0)
            self.driver.committed(Committed(serial=serial, commit_s=0.001, group=1))
            self.driver.turn()
        while self.machine.waiting:
            header, batch = self.machine.execute()
            self.driver.executed(header, batch, self.machine.root, b"\1" * len(batch))
            self.driver.turn()
        self.driver.timers_due()


class World:
    """Delivers frames, commits and executions until nothing happens any more."""

    def __init__(self) -> None:
        self.us = 1_000_000
        self.censor: Callable[[int], bool] = lambda _frame: False
        self.sent: deque[tuple[int, int, int, bytes]] = deque()
        self.nodes = [Node(me, self.now, self.sent) for me in range(MEMBERS)]
        for node in self.nodes:
            node.driver.start([])
        self.settle()

    def now(self) -> Instant:
        return Instant(monotonic_us=self.us, unix_ms=self.us // 1_000)

    def settle(self, rounds: int = 400) -> None:
        for _ in range(rounds):
            self.us += 1_000
            while self.sent:
                sender, peer, frame_type, data = self.sent.popleft()
                if self.censor(frame_type):
                    continue
                self.hand(peer, sender, frame_type, data)
            for node in self.nodes:
                node.settle()

    def hand(self, peer: int, sender: object, frame_type: int, data: bytes) -> None:
        driver = self.nodes[peer].driver
        driver.frame_received(cast("Connection", sender), frame_type, data)
        driver.turn()

    def submit(self, node: int, *payloads: bytes) -> None:
        batch = Batch.of(payloads)
        self.nodes[node].mempool.add(batch, None, node, self.us // 1_000)
        wires = Wires(node, self.sent)
        wires.broadcast_nowait(ChannelKind.BULK, frames.FrameType.PAYLOADS, batch)
        self.nodes[node].driver.custody_changed()


def test_payloads_are_executed_once_everywhere_in_one_order() -> None:
    world = World()
    for number in range(6):
        world.submit(number % MEMBERS, b"\x01payload %d" % number, b"\x01and %d" % number)
    world.settle()
    first = world.nodes[0].machine
    assert sorted(first.payloads) == sorted(
        text for n in range(6) for text in (b"\x01payload %d" % n, b"\x01and %d" % n)
    )
    for node in world.nodes:
        assert node.machine.payloads == first.payloads
        assert node.machine.root == first.root
        assert node.certified[-1].height >= 1
        assert len(node.mempool) == 0


def test_a_sender_that_floods_does_not_delay_another() -> None:
    world = World()
    flood = [b"\x01" + b"flooding" + b"%d" % number for number in range(600)]
    for node in (1, 2):
        world.submit(node, *flood[node * 200 : node * 200 + 200])
    world.submit(1, b"\x01" + b"somebody" + b"first", b"\x01" + b"somebody" + b"second")
    world.submit(3, b"\x01" + b"another." + b"only")
    while world.sent:  # all of it waits before the primary proposes
        sender, peer, frame_type, data = world.sent.popleft()
        world.nodes[peer].driver.frame_received(cast("Connection", sender), frame_type, data)
    world.settle()
    executed = world.nodes[0].machine.payloads
    order = [text[1:9] for text in executed]
    assert len(executed) == 403
    assert order.index(b"another.") < 8
    assert [at for at, name in enumerate(order) if name == b"somebody"][1] < 16
    for name in (b"flooding200", b"flooding201", b"flooding202"):
        assert b"\x01" + name in executed[:8]


def test_malformed_payloads_of_another_node_never_come_into_custody() -> None:
    world = World()
    before = world.nodes[0].driver.statistics().frames_refused_total
    body = Batch.of([b"\x01fine", b"rubbish", b"\x01fine too", b"rubbish again"]).body
    world.hand(0, 3, frames.FrameType.PAYLOADS, body)
    world.nodes[0].driver.turn()
    assert world.nodes[0].driver.statistics().frames_refused_total == before + 1
    world.settle()
    assert world.nodes[1].machine.payloads == [b"\x01fine", b"\x01fine too"]


LARGE = [b"\x01" + bytes([number]) * 20_000 for number in range(5)]


def test_a_large_body_follows_its_pre_prepare() -> None:
    world = World()
    world.nodes[0].mempool.add(Batch.of(LARGE), None, 0, world.us // 1_000)
    world.nodes[0].driver.custody_changed()
    seen: list[int] = []

    def watch(frame: int) -> bool:
        seen.append(frame)
        return False

    world.censor = watch
    world.settle()
    first = seen.index(frames.FrameType.PRE_PREPARE)
    assert first < seen.index(frames.FrameType.BODY)
    assert frames.FrameType.FETCH_BODIES not in seen
    assert all(node.machine.payloads == LARGE for node in world.nodes)


def test_a_large_body_that_came_first_is_kept_for_its_pre_prepare() -> None:
    world = World()
    batch = Batch.of(LARGE)
    world.hand(2, 0, frames.FrameType.BODY, batch.body)
    world.nodes[2].driver.turn()
    world.nodes[0].mempool.add(batch, None, 0, world.us // 1_000)
    world.nodes[0].driver.custody_changed()
    fetches = 0

    def censor(frame: int) -> bool:
        nonlocal fetches
        fetches += frame == frames.FrameType.FETCH_BODIES
        return frame == frames.FrameType.BODY

    world.censor = censor
    world.settle()
    assert world.nodes[2].machine.payloads == []
    assert world.nodes[2].driver.body(batch.root) is not None
    assert fetches > 0  # by the two others


def test_pushed_bodies_are_few() -> None:
    world = World()
    for number in range(3 * IN_FLIGHT_BLOCKS_MAX):
        world.hand(2, 0, frames.FrameType.BODY, Batch.of([b"\x01 %d" % number]).body)
    world.hand(2, 1, frames.FrameType.BODY, Batch.of([b"\x01 of no primary"]).body)
    world.nodes[2].driver.turn()
    assert world.nodes[2].driver.statistics().bodies_held <= 1 + IN_FLIGHT_BLOCKS_MAX


def test_a_primary_of_the_view_being_entered_fills_a_bounded_part_of_the_memory() -> None:
    world = World()
    driver = world.nodes[2].driver
    driver.replica.view, driver.replica.active = View(1), False
    places = [*range(2, 60), *[2] * 40]
    for number, place in enumerate(places):
        batch = Batch.of([b"\x01%d of %d" % (part, number) + bytes(20_000) for part in range(50)])
        header = BatchHeader(
            chain_id=CHAIN,
            epoch=Epoch(0),
            sequence=types.Sequence(place),
            proposed_ms=1_000,
            payload_root=batch.root,
        )
        proposal = PrePrepare(
            view=View(1), signer=ReplicaIndex(1), number=Number(1 + number), header=header
        )
        proposal = proposal.signed(KEYS[1].sign(proposal.signed_bytes(CHAIN)))
        world.hand(2, 1, frames.FrameType.PROPOSAL, frames.proposal_head(proposal) + batch.body)
    assert len(driver.replica.early[ReplicaIndex(1)]) == 58
    most = IN_FLIGHT_BLOCKS_MAX + 1 + UNUSED_BODIES_BYTES_MAX // 1_000_000
    assert driver.statistics().bodies_held <= 1 + most


def test_nothing_signed_leaves_before_its_commit_is_reported() -> None:
    world = World()
    primary = world.nodes[0]
    primary.mempool.add(Batch.of([b"\x01pay"]), None, 0, world.us // 1_000)
    primary.driver.custody_changed()
    assert primary.disk.waiting
    assert not [frame for frame in world.sent if frame[2] == frames.FrameType.PROPOSAL]
    assert any(isinstance(record, Accepted) for record in primary.disk.records)
    serial = primary.disk.waiting.pop(0)
    primary.driver.committed(Committed(serial=serial, commit_s=0.0, group=1))
    assert [frame for frame in world.sent if frame[2] == frames.FrameType.PROPOSAL]


def test_votes_and_proposals_are_signed_while_the_disk_writes_them() -> None:
    world = World()
    primary = world.nodes[0]
    primary.mempool.add(Batch.of([b"\x01pay"]), None, 0, world.us // 1_000)
    primary.driver.custody_changed()
    *_, stored = [record for record in primary.disk.records if isinstance(record, Accepted)]
    assert stored.pre_prepare.signature == UNSIGNED
    serial = primary.disk.waiting.pop(0)
    primary.driver.committed(Committed(serial=serial, commit_s=0.0, group=1))
    sent = [frame[3] for frame in world.sent if frame[2] == frames.FrameType.PROPOSAL]
    proposal, _ = frames.split_proposal(sent[-1], Bounds(chain_id=CHAIN, members=MEMBERS))
    assert proposal == stored.pre_prepare.signed(proposal.signature)
    verify(KEYS[0].public, proposal.signed_bytes(CHAIN), proposal.signature)


def test_checkpoints_wait_longer_while_a_payload_promises_other_votes() -> None:
    world = World()
    world.submit(2, b"\x01pay")
    executed = [False]
    while not all(executed):
        world.settle(1)
        executed = [bool(node.machine.payloads) for node in world.nodes]
    holder, *others = reversed(world.nodes)
    holder.mempool.add(Batch.of([b"\x01known here only"]), None, 3, world.us // 1_000)
    ticks = [node.driver.statistics().ticks_total for node in world.nodes]
    world.settle(PATIENCE_US // 1_000 + 2)
    assert holder.driver.statistics().ticks_total == ticks[3]
    for node, before in zip(reversed(others), ticks[:3], strict=True):
        assert node.driver.statistics().ticks_total > before
    world.settle(PATIENCE_CUSTODY_US // 1_000)
    assert holder.driver.statistics().ticks_total > ticks[3]
    assert holder.certified[-1].height == others[0].certified[-1].height


def test_every_accepted_body_is_written_with_its_tick() -> None:
    world = World()
    world.submit(2, b"\x01keep me")
    world.settle()
    root = Batch.of([b"\x01keep me"]).root
    for node in world.nodes:
        assert root in {body.root for body in node.disk.bodies}


def test_a_failed_commit_ends_the_process() -> None:
    world = World()
    with pytest.raises(OSError, match="no space left"):
        world.nodes[1].driver.committed(CommitFailed(error=OSError("no space left")))


@pytest.mark.parametrize("frame_type", [int(kind) for kind in frames.FrameType] + [0, 0xFF])
@pytest.mark.parametrize("data", [b"", b"\x00", b"\xc0" * 40, b"\x94\x01" * 200, bytes(4)])
def test_garbage_of_a_validator_is_refused_and_counted(frame_type: int, data: bytes) -> None:
    world = WORLD
    before = world.nodes[3].driver.statistics().frames_refused_total
    world.hand(3, 1, frame_type, data)
    after = world.nodes[3].driver.statistics()
    assert after.halted is None
    empty_batch = data == bytes(4) and frame_type in (
        frames.FrameType.BODY,
        frames.FrameType.PAYLOADS,
    )
    assert after.frames_refused_total == before + (0 if empty_batch else 1)


def test_frames_of_anybody_else_are_dropped() -> None:
    driver = WORLD.nodes[2].driver
    before = driver.statistics().frames_refused_total
    WORLD.hand(2, "a stranger", frames.FrameType.VOTES, b"")
    assert driver.statistics().frames_refused_total == before + 1


def test_a_flipped_bit_in_a_signature_is_refused() -> None:
    world = World()
    world.submit(0, b"\x01pay")
    world.nodes[0].driver.committed(
        Committed(serial=world.nodes[0].disk.waiting.pop(0), commit_s=0.0, group=1)
    )
    proposal = next(frame for frame in world.sent if frame[2] == frames.FrameType.PROPOSAL)
    size = int.from_bytes(proposal[3][:2], "big")
    damaged = bytearray(proposal[3])
    damaged[2 + size - 5] ^= 1  # the signature ends the head
    driver = world.nodes[1].driver
    before = driver.statistics().frames_refused_total
    world.hand(1, 0, frames.FrameType.PROPOSAL, bytes(damaged))
    assert driver.statistics().frames_refused_total == before + 1
    assert not world.nodes[1].disk.waiting


def test_a_body_that_is_not_the_proposed_one_is_refused() -> None:
    world = World()
    world.submit(0, b"\x01pay")
    world.nodes[0].driver.committed(
        Committed(serial=world.nodes[0].disk.waiting.pop(0), commit_s=0.0, group=1)
    )
    proposal = next(frame for frame in world.sent if frame[2] == frames.FrameType.PROPOSAL)
    size = int.from_bytes(proposal[3][:2], "big")
    other = proposal[3][: 2 + size] + Batch.of([b"\x01steal"]).body
    before = world.nodes[1].driver.statistics().frames_refused_total
    world.hand(1, 0, frames.FrameType.PROPOSAL, other)
    assert world.nodes[1].driver.statistics().frames_refused_total == before + 1


def test_a_batch_over_the_limit_is_refused() -> None:
    payloads = [b"\x01%d" % number for number in range(BATCH_PAYLOADS_MAX + 1)]
    body = Batch.of(payloads).body
    before = WORLD.nodes[1].driver.statistics().frames_refused_total
    for frame_type in (frames.FrameType.PAYLOADS, frames.FrameType.BODY):
        WORLD.hand(1, 0, frame_type, body)
    assert WORLD.nodes[1].driver.statistics().frames_refused_total == before + 2


def test_a_body_nobody_asked_for_is_not_kept() -> None:
    node = WORLD.nodes[1]
    before = node.driver.statistics().bodies_held
    WORLD.hand(1, 2, frames.FrameType.BODY, Batch.of([b"\x01unasked"]).body)
    assert node.driver.statistics().bodies_held == before


@pytest.mark.parametrize("frame", sorted(MEMBERS_ONLY))
def test_what_only_members_say_is_refused_from_a_guest_unread(frame: int) -> None:
    node = WORLD.nodes[1]
    before = node.driver.statistics().frames_refused_total
    WORLD.hand(1, GUEST_FIRST, frame, b"\xc0" * 1_000_000)
    assert node.driver.statistics().frames_refused_total == before + 1


def test_a_guest_whose_certificate_has_a_bad_signature_is_turned_away() -> None:
    world = World()
    world.submit(0, b"\x01pay")
    world.settle()
    certificate = world.nodes[0].certified[-1]
    vote = certificate.votes[0]
    damaged = bytes([vote.signature[0] ^ 1]) + vote.signature[1:]
    votes = (replace(vote, signature=Signature(damaged)), *certificate.votes[1:])
    driver = world.nodes[1].driver
    for shown, turned_away in (
        (certificate, []),
        (replace(certificate, votes=votes), [GUEST_FIRST]),
    ):
        _, frame_type, data = frames.encode(status(2, certificate=shown))
        world.hand(1, GUEST_FIRST, frame_type, data)
        assert world.nodes[1].wires.turned_away == turned_away
    world.hand(1, 2, frame_type, data)
    assert world.nodes[1].wires.turned_away == [GUEST_FIRST]  # a member stays
    assert driver.statistics().frames_refused_total == 2


def test_a_tick_that_becomes_durable_after_memory_loss_was_found_says_nothing() -> None:
    world = World()
    node = world.nodes[0]
    node.mempool.add(Batch.of([b"\x01pay"]), None, 0, world.us // 1_000)
    node.driver.custody_changed()
    serial = node.disk.waiting.pop(0)
    node.driver.replica.phase = Phase.SEEKING
    node.driver.committed(Committed(serial=serial, commit_s=0.0, group=1))
    said = {frames.FrameType.PROPOSAL, frames.FrameType.PRE_PREPARE, frames.FrameType.VOTES}
    assert not [frame for sender, _, frame, _ in world.sent if sender == 0 and frame in said]


@pytest.mark.parametrize("commit_runs", [False, True])
def test_what_was_found_out_just_before_a_halt_is_written_and_nothing_else(
    commit_runs: bool,
) -> None:
    sent: deque[tuple[int, int, int, bytes]] = deque()
    now = Instant(monotonic_us=1_000_000, unix_ms=1_000)
    node = Node(0, lambda: now, sent, members=2)
    node.driver.start([])
    node.mempool.add(Batch.of([b"\x01pay"]), None, 0, 1)
    if commit_runs:
        node.driver.replica.phase = Phase.VOTING
        node.driver.custody_changed()
        assert node.disk.waiting
    shown = samples.vector(0, samples.prepare(0, 1))
    lost = replace(shown, number=Number(900))
    lost = lost.signed(KEYS[0].sign(lost.signed_bytes(CHAIN)))
    _, frame_type, data = frames.encode(lost)
    sent.clear()
    node.driver.frame_received(cast("Connection", 1), int(frame_type), data)
    node.driver.turn()
    assert node.driver.halted is not None
    while node.disk.waiting:
        serial = node.disk.waiting.pop(0)
        node.driver.committed(Committed(serial=serial, commit_s=0.0, group=1))
        node.driver.turn()
    assert isinstance(node.disk.records[-1], Recovery)
    assert not sent


def test_a_block_that_was_agreed_and_not_executed_executes_in_the_next_life() -> None:
    now = Instant(monotonic_us=1_000_000, unix_ms=1_000)
    first = Node(0, lambda: now, deque(), members=1)
    first.mempool.add(Batch.of([b"\x01pay"]), None, 0, 1)
    first.driver.custody_changed()
    first.driver.start([])
    while first.disk.waiting:
        serial = first.disk.waiting.pop(0)
        first.driver.committed(Committed(serial=serial, commit_s=0.0, group=1))
        first.driver.turn()
    assert first.machine.waiting, "it was agreed"
    again = Node(0, lambda: now, deque(), members=1, kept=first.disk.records)
    again.driver.start([(body.sequence, body.batch) for body in first.disk.bodies])
    again.settle()
    assert again.machine.payloads == [b"\x01pay"]


@pytest.mark.parametrize("members", [1, 4])
def test_the_batch_of_a_block_is_kept_no_later_than_its_checkpoint_vote(members: int) -> None:
    us = 1_000_000
    sent: deque[tuple[int, int, int, bytes]] = deque()

    def now() -> Instant:
        return Instant(monotonic_us=us, unix_ms=us // 1_000)

    nodes = [Node(me, now, sent, members=members) for me in range(members)]
    for node in nodes:
        node.driver.start([])
    payload = Batch.of([b"\x01pay"])
    for _ in range(200):
        us += 1_000
        if not nodes[0].mempool.statistics().added:
            nodes[0].mempool.add(payload, None, 0, us // 1_000)
            nodes[0].driver.custody_changed()
        while sent:
            sender, peer, frame_type, data = sent.popleft()
            if peer < members:
                nodes[peer].driver.frame_received(cast("Connection", sender), frame_type, data)
                nodes[peer].driver.turn()
        for node in nodes:
            node.settle()
    assert nodes[0].machine.payloads == [b"\x01pay"]
    assert nodes[0].driver.replica.certified >= 1
    for node in nodes:
        kept: dict[int, Digest] = {}
        for tick in node.disk.ticks:
            for record in tick:
                if isinstance(record, Agreed):
                    kept[int(record.header.sequence)] = record.header.payload_root
            for record in tick:
                if isinstance(record, OwnVotes):
                    leaves = record.vector.leaves
                    voted = {int(leaf.height) for leaf in leaves if isinstance(leaf, Checkpoint)}
                    assert voted <= kept.keys()
        assert list(kept) == list(range(1, len(kept) + 1))
        assert len(kept) >= node.driver.replica.certified >= 1
        assert payload.root in kept.values()


def test_fetches_are_served_outside_the_core() -> None:
    node = WORLD.nodes[1]
    request = FetchBodies(payload_roots=(EMPTY_ROOT,))
    _, frame_type, data = frames.encode(request)
    WORLD.hand(1, 0, frame_type, data)
    assert node.served[-1] == request


def test_who_was_removed_long_ago_serves_nothing_and_counts_it() -> None:
    node = World().nodes[1]
    replica = node.driver.replica
    replica.retired, replica.me = Epoch(1), NOBODY
    replica.committee = replace(replica.committee, epoch=Epoch(3), me=NOBODY)
    before = node.driver.statistics().frames_skipped_total
    _, frame_type, data = frames.encode(FetchBodies(payload_roots=(EMPTY_ROOT,)))
    node.driver.frame_received(cast("Connection", 0), int(frame_type), data)
    node.driver.turn()
    assert not node.served
    assert node.driver.statistics().frames_skipped_total == before + 1


def test_after_a_bug_of_ours_nothing_more_is_said() -> None:
    world = World()
    driver = world.nodes[1].driver

    def broken(_message: inputs.Input, _now: Instant) -> list[object]:
        raise InvariantError("planted")

    driver.replica.step = broken  # type: ignore[method-assign, assignment]
    world.nodes[1].mempool.add(Batch.of([b"\x01x"]), None, 1, world.us // 1_000)
    with pytest.raises(InvariantError, match="planted"):
        driver.custody_changed()
    assert driver.halted is not None
    driver.timers_due()
    assert not world.nodes[1].disk.waiting


WORLD = World()


class Deaf(World):
    """Node 3 hears nothing but STATUS."""

    def hand(self, peer: int, sender: object, frame_type: int, data: bytes) -> None:
        if peer != 3 or frame_type == frames.FrameType.STATUS:
            super().hand(peer, sender, frame_type, data)


def test_a_node_far_behind_drops_votes_and_proposals_unread() -> None:
    world = Deaf()
    for number in range(WINDOW_BLOCKS + 2):
        world.submit(0, b"\x01%d" % number)
        world.settle(rounds=12)
    world.settle(rounds=4_000)
    behind, tip = world.nodes[3].driver, world.nodes[0].driver.replica
    assert tip.executed > WINDOW_BLOCKS
    assert behind.replica.is_far_behind
    for peer, skipped, refused in ((3, 1, 0), (1, 0, 1)):
        driver = world.nodes[peer].driver
        before = driver.statistics()
        World.hand(world, peer, 0, frames.FrameType.VOTES, b"cannot be decoded")
        after = driver.statistics()
        assert after.frames_skipped_total == before.frames_skipped_total + skipped
        assert after.frames_refused_total == before.frames_refused_total + refused


def test_a_signature_is_checked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.submit(0, b"\x01pay")
    world.settle()
    checks: list[int] = []

    def counted(jobs: Sequence[tuple[FalconVerifier, bytes, bytes]]) -> bytes:
        checks.append(len(jobs))
        return verify_many(jobs)

    monkeypatch.setattr("consensus.runtime.driver.verify_many", counted)
    kept: list[tuple[int, int, int, bytes]] = []
    for _ in range(4_000):
        world.settle(rounds=1)
        kept += [frame for frame in world.sent if frame[2] == frames.FrameType.STATUS]
        if kept:
            break
    assert kept
    sender, peer, frame_type, data = kept[0]
    world.hand(peer, sender, frame_type, data)
    checks.clear()
    world.hand(peer, sender, frame_type, data)
    assert not sum(checks)


def test_all_that_waits_is_forwarded_once_and_in_pieces() -> None:
    """Half of it is proposed meanwhile, and not sent."""
    world = World()
    node = world.nodes[1]
    payloads = [b"\x01waits %d" % number for number in range(900)]
    node.mempool.add(Batch.of(payloads), None, 1, world.us // 1_000)
    node.driver.custody_changed()
    forwarded: list[list[bytes]] = []
    end = world.us + 700_000
    while world.us < end:
        world.us += 1_000
        for other in world.nodes:
            other.driver.timers_due()
        while world.sent:
            sender, peer, frame, data = world.sent.popleft()
            if frame == frames.FrameType.PAYLOADS:
                assert (sender, peer) == (1, 0)
                batch = Batch.parse(data)
                forwarded.append([batch.payload(at) for at in range(len(batch))])
                node.mempool.mark_proposed(Batch.of(payloads[512:700]))
    assert forwarded == [payloads[:512], payloads[700:]]


def test_what_a_full_link_did_not_take_is_shown_again_an_eighth_of_the_timeout_later() -> None:
    world = World()
    node = world.nodes[1]
    payloads = [b"\x01waits %d" % number for number in range(600)]
    came = world.us
    node.wires.full = {frames.FrameType.PAYLOADS}
    node.mempool.add(Batch.of(payloads), None, 1, came // 1_000)
    node.driver.custody_changed()
    forwarded: list[tuple[int, list[bytes]]] = []
    while world.us < came + 700_000:
        world.us += 1_000
        if world.us == came + 300_000:
            node.wires.full = set()
        for other in world.nodes:
            other.driver.timers_due()
        while world.sent:
            _, _, frame, data = world.sent.popleft()
            if frame == frames.FrameType.PAYLOADS:
                batch = Batch.parse(data)
                pieces = [batch.payload(at) for at in range(len(batch))]
                forwarded.append(((world.us - came) // 1_000, pieces))
    assert forwarded == [(375, payloads[:512]), (500, payloads[512:])]


def test_a_primary_that_took_all_and_leads_again_knows_what_came_back() -> None:
    world = World()
    for me in range(MEMBERS):
        for peer in range(MEMBERS):
            if me != peer:
                world.nodes[me].driver.peer_up(peer)
    world.settle()
    first = world.nodes[0].driver.replica
    proposals = {frames.FrameType.PROPOSAL, frames.FrameType.PRE_PREPARE, frames.FrameType.BODY}
    world.censor = lambda frame: frame == frames.FrameType.VOTES
    for node in world.nodes[1:]:  # these propose nothing
        node.wires.silent = proposals
    world.us += 500_000
    payload = Batch.of([b"\x01payment"])
    for node in world.nodes:
        node.mempool.add(payload, None, 0, world.us // 1_000)
    for node in world.nodes:
        node.driver.custody_changed()
    while first.view <= MEMBERS and not world.nodes[0].machine.payloads:
        world.settle(10)
        if first.view == MEMBERS and first.active:
            world.censor = lambda _frame: False
    assert world.nodes[0].machine.payloads == [b"\x01payment"]
    assert first.view == MEMBERS


def test_a_payload_of_the_size_of_the_one_in_flight_is_proposed_beside_it() -> None:
    world = World()
    primary = world.nodes[0]
    held: deque[tuple[BlockHeader, Batch]] = deque()
    primary.machine.execute_soon = lambda header, _agreed, batch: held.append((header, batch))  # type: ignore[method-assign]
    world.submit(0, b"\x01payment 1")
    world.settle(50)
    before = primary.driver.replica.next_sequence
    world.submit(0, b"\x01payment 2")
    world.settle(50)
    assert held, "the first waits to be executed"
    assert primary.driver.replica.next_sequence == before + 1
