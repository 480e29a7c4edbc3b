"""Five drivers with real keys and frames while the set grows from four to five, and on."""

from collections import deque
from collections.abc import Callable, Sequence
from typing import cast

from consensus.core import frames
from consensus.core.epochs import GUEST_FIRST, Epochs
from consensus.core.messages import BatchHeader, BlockHeader, EpochLink, FetchBlocks, FetchBodies
from consensus.core.records import (
    Anchor,
    Birth,
    ExecutedBlock,
    Tip,
    decode_records,
    encode_record,
    signed_again,
)
from consensus.core.replica import Replica, genesis_block
from consensus.core.serving import blocks_from
from consensus.core.types import Epoch, Height, Instant, Phase, Timing
from consensus.core.validators import Validator, ValidatorSet
from consensus.limits import WINDOW_BLOCKS
from consensus.runtime.driver import Driver, Request
from consensus.runtime.links import Links
from consensus.runtime.store import Committed
from consensus.tests.test_driver import Disk, Machine, Quiet
from native import FalconVerifier, Mempool
from native.batches import Batch
from native.keys import SecretKey
from native.values import Algorithm, Digest, NodeId
from transport import ChannelKind, Connection

CHAIN = Digest(b"e" * 32)
KEYS = [SecretKey.generate(Algorithm.FALCON_512) for _ in range(5)]
MEMBERS = [Validator(name=f"node{at}", key=key.public) for at, key in enumerate(KEYS)]
GENESIS = ValidatorSet(epoch=Epoch(0), members=tuple(MEMBERS[:4]))
CHANGES = {
    b"\1grow": ValidatorSet(epoch=Epoch(1), members=tuple(MEMBERS)),
    b"\1swap": ValidatorSet(epoch=Epoch(2), members=tuple(MEMBERS[:0:-1])),
}

Sent = deque[tuple[int, int, int, bytes]]


class Wires:
    """Stands for `Links`: nodes are numbers, and indexes are those of the present set."""

    def __init__(self, me: int, members: Sequence[NodeId], sent: Sent) -> None:
        self.me = me
        self.sent = sent
        self.enter_epoch(members)

    def enter_epoch(self, members: Sequence[NodeId]) -> list[int]:
        numbers = {validator.node_id: at for at, validator in enumerate(MEMBERS)}
        self.members = [numbers[node_id] for node_id in members]
        return []

    def turn_away_nowait(self, peer: int, detail: str) -> None:
        assert peer < GUEST_FIRST, detail

    def take_place(self, node: object) -> int:
        assert isinstance(node, int)
        return self.members.index(node) if node in self.members else GUEST_FIRST + node

    def send_nowait(
        self, peer: int, _kind: ChannelKind, frame_type: int, *parts: bytes | Batch
    ) -> bool:
        node = peer - GUEST_FIRST if peer >= GUEST_FIRST else self.members[peer]
        data = b"".join(part.body if isinstance(part, Batch) else part for part in parts)
        self.sent.append((self.me, node, frame_type, data))
        return True

    def broadcast_nowait(self, kind: ChannelKind, frame_type: int, *parts: bytes | Batch) -> None:
        for index, node in enumerate(self.members):
            if node != self.me:
                self.send_nowait(index, kind, frame_type, *parts)


class Chain(Machine):
    """Keeps the blocks, and lets a payload decide on the next set."""

    def __init__(self) -> None:
        super().__init__()
        self.root = ROOT
        self.blocks: list[ExecutedBlock] = []
        self.headers: list[tuple[BlockHeader, BatchHeader]] = []
        self.agreed: deque[BatchHeader] = deque()

    def execute_soon(self, header: BlockHeader, agreed: BatchHeader, batch: Batch) -> None:
        super().execute_soon(header, agreed, batch)
        self.agreed.append(agreed)

    def execute(self) -> tuple[BlockHeader, Batch]:
        header, batch = super().execute()
        self.headers.append((header, self.agreed.popleft()))
        asked = [batch.payload(at) for at in range(len(batch))]
        self.blocks.append(
            ExecutedBlock(
                height=header.height,
                header_hash=header.hash,
                time_ms=header.time_ms,
                state_root=self.root,
                next_validators=next((CHANGES[name] for name in asked if name in CHANGES), None),
            )
        )
        return header, batch


class Node:
    """One driver, its fakes, and what a restart finds of it."""

    def __init__(self, me: int, now: Callable[[], Instant], sent: Sent) -> None:
        self.me = me
        self.now = now
        self.sent = sent
        self.up = True
        self.disk = Disk()
        birth = Birth(chain_id=CHAIN, node_id=Digest(KEYS[me].node_id), incarnation=1)
        self.disk.records.append(birth)
        self.chain = Chain()
        self.begun: list[EpochLink] = []
        self.boot()

    def boot(self) -> None:
        """A new process on what is durable."""
        self.up = True
        self.disk.waiting.clear()
        self.chain.waiting.clear()
        self.chain.agreed.clear()
        rows = {(row.kind, row.key): row for row in map(encode_record, self.disk.records)}
        first = Epochs(chain_id=CHAIN, sets=(GENESIS,))
        stored = decode_records([(row.kind, row.data) for row in rows.values()], first.bounds())
        records = signed_again(stored, CHAIN, KEYS[self.me].sign)
        known = Epochs.of(CHAIN, GENESIS, records)
        keys = [[FalconVerifier(one.key.raw) for one in each.members] for each in known.sets]
        self.wires = Wires(
            self.me, [validator.node_id for validator in known.newest.members], self.sent
        )
        blocks = self.chain.blocks
        self.driver = Driver(
            Replica(
                known.committee(MEMBERS[self.me].node_id),
                Timing(),
                boot=1 + self.me + 100 * len(blocks),
                tip=blocks[-1] if blocks else genesis_block(CHAIN, 1_000, ROOT),
                uncertified=blocks[-2 * WINDOW_BLOCKS :],
                records=records,
                genesis_set=GENESIS,
            ),
            bounds=known.bounds(),
            secret=KEYS[self.me],
            verifiers=keys[-1],
            earlier=keys[:-1],
            links=cast("Links", self.wires),
            store=self.disk,
            execution=self.chain,
            admission=self.chain,
            mempool=Mempool(1_000, 10_000_000),
            observer=Quiet(),
            clock=self.now,
            seconds=lambda: self.now().monotonic_us / 1e6,
            wake_at=lambda _at: None,
            serve=self.serve,
            transfer=lambda _effect: None,
            certified=lambda _certificate: None,
            entered=self.begun.append,
        )
        self.driver.start([])

    def serve(self, peer: int, request: Request) -> None:
        """Answer from memory what the block server answers from disk."""
        if isinstance(request, FetchBodies):
            for root in request.payload_roots:
                body = next((one for one in self.disk.bodies if one.root == root), None)
                if body is not None:
                    kind = int(frames.FrameType.BODY)
                    self.wires.send_nowait(peer, ChannelKind.BULK, kind, body.batch)
            return
        assert isinstance(request, FetchBlocks)
        reply = blocks_from(
            request.first,
            executed=Height(len(self.chain.headers)),
            certificates=[
                record.certificate
                for record in self.disk.records
                if isinstance(record, Tip | Anchor)
            ],
            load=lambda height: self.chain.headers[height - 1],
        )
        if reply is not None:
            channel, frame, data = frames.encode(reply)
            self.wires.send_nowait(peer, ChannelKind(int(channel)), int(frame), data)

    def work(self) -> None:
        """Finish commits, executions and timers."""
        while self.disk.waiting:
            serial = self.disk.waiting.pop(0)
            self.driver.committed(Committed(serial=serial, commit_s=0.001, group=1))
            self.driver.turn()
        while self.chain.waiting:
            header, batch = self.chain.execute()
            self.driver.executed(
                header,
                batch,
                self.chain.root,
                b"\1" * len(batch),
                next_validators=self.chain.blocks[-1].next_validators,
            )
            self.driver.turn()
        self.driver.timers_due()


class World:
    """Delivers frames until a condition holds."""

    def __init__(self) -> None:
        self.us = 1_000_000
        self.sent: Sent = deque()
        self.nodes = [Node(me, self.now, self.sent) for me in range(5)]

    def now(self) -> Instant:
        return Instant(monotonic_us=self.us, unix_ms=self.us // 1_000)

    def until(self, condition: Callable[[Node], bool], *nodes: int) -> None:
        for _ in range(6_000):
            if all(condition(self.nodes[at]) for at in nodes):
                return
            self.us += 5_000
            while self.sent:
                sender, target, frame_type, data = self.sent.popleft()
                node = self.nodes[target]
                if node.up:
                    node.driver.frame_received(cast("Connection", sender), frame_type, data)
                    node.driver.turn()
            for node in self.nodes:
                if node.up:
                    node.work()
        found = [(at, self.nodes[at].driver.replica.statistics()) for at in nodes]
        raise AssertionError(f"never so: {found}")

    def submit(self, payload: bytes, *nodes: int) -> None:
        batch = Batch.of([payload])
        for at in nodes:
            frame = int(frames.FrameType.PAYLOADS)
            sender = next(other for other in nodes if other != at)
            self.sent.append((sender, at, frame, batch.body))


def in_epoch(epoch: int) -> Callable[[Node], bool]:
    return lambda node: node.driver.replica.committee.epoch == epoch


def votes(node: Node) -> bool:
    return node.driver.replica.statistics().phase is Phase.VOTING


def executed(payload: bytes) -> Callable[[Node], bool]:
    return lambda node: payload in node.chain.payloads


def test_drivers_follow_the_set_from_four_to_five_and_on_across_restarts() -> None:
    world = World()
    world.until(votes, 0, 1, 2, 3)
    assert world.nodes[4].driver.replica.statistics().phase is Phase.OBSERVING
    world.submit(b"\1grow", 0, 1, 2, 3)
    world.until(in_epoch(1), 0, 1, 2, 3, 4)
    world.until(votes, 0, 1, 2, 3, 4)
    assert [int(link.epoch) for link in world.nodes[4].begun] == [1]
    world.submit(b"\1apple", 0, 1, 2, 3, 4)
    world.until(executed(b"\1apple"), 0, 1, 2, 3, 4)
    # The next change drops the first node and reverses the rest; one member is down meanwhile.
    world.nodes[2].up = False
    world.submit(b"\1swap", 0, 1, 3, 4)
    world.until(in_epoch(2), 0, 1, 3, 4)
    assert world.nodes[0].driver.replica.statistics().phase is Phase.OBSERVING
    world.nodes[2].boot()
    world.nodes[4].boot()
    world.until(in_epoch(2), 2, 4)
    world.until(votes, 1, 2, 3, 4)
    world.submit(b"\1pear", 1, 2, 3, 4)
    world.until(executed(b"\1pear"), 0, 1, 2, 3, 4)
    assert len({node.chain.root for node in world.nodes}) == 1
    assert not any(node.driver.statistics().halted for node in world.nodes)


ROOT = Digest(bytes(32))
