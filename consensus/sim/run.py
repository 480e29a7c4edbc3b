"""One run: a cluster, a plan of faults drawn from the seed, healing, and the verdict.

Phase one is chaos and checks safety only. Then everything is healed, and phase two demands
liveness: all payloads in custody executed, all nodes at one height, views no longer moving.
"""

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from random import Random

from consensus.core import wire
from consensus.core.effects import Event, Fault
from consensus.core.evidence import Contradiction, read_contradiction
from consensus.core.messages import Message
from consensus.core.quorum import faults
from consensus.core.tick import Tick
from consensus.core.types import Epoch, Phase, ReplicaIndex, View
from consensus.core.validators import ValidatorSet
from consensus.limits import EVIDENCE_SIZE_BYTES_MAX
from consensus.sim import damage, snapshots
from consensus.sim.checker import Checker, Violation, require
from consensus.sim.disk import Body, Disk, StoredBlock
from consensus.sim.faults import Focus, Mix, chaos, heal, prepare
from consensus.sim.liars import Liar
from consensus.sim.node import SIM_TIMING, Node, sign, validator
from consensus.sim.world import World
from native.codec import encode
from native.values import Digest

SIZES = (1, 2, 3, 4, 5, 6, 7)
LARGE_SIZES = (20, 21)  # one seed in a hundred: a run costs as much as fifty small ones
RECOVERY_EVENTS = (
    Event.STARTED,
    Event.AMNESIA_FOUND,
    Event.RECOVERY_BOUND,
    Event.CATCH_UP_STARTED,
    Event.RECOVERED,
)
WIRE_CHECKED_MAX = 8  # of twenty nodes each certificate is the same work again
HEALING_US_MAX = 60_000_000


def size_of(seed: int) -> int:
    """How many validators a seed of a campaign has."""
    if seed % 100 == 50:
        return LARGE_SIZES[seed // 100 % 2]
    return SIZES[seed % len(SIZES)]


@dataclass(slots=True, kw_only=True)
class Planted:
    """Bugs put in on purpose, to prove that the checker can fail."""

    count_before_durable: bool = False
    drop_after_execution: bool = False
    forget_votes: bool = False  # disk loss without recovery
    liar_leads: bool = False  # no bug by itself: the first primary is Byzantine


@dataclass(slots=True, kw_only=True)
class Outcome:
    """What a run did; equal for equal seeds."""

    seed: int
    members: int
    heights: list[int]
    views: list[int]
    payloads: int
    events: int
    digest: str
    counters: Counter[str] = field(default_factory=Counter)


class Cluster:
    """n nodes, their links, and the checker above them."""

    def __init__(
        self, seed: int, members: int, planted: Planted | None = None, *, spares: int = 0
    ) -> None:
        """`spares` are nodes outside the set of genesis: they observe until they are voted in."""
        self.world = World(seed, members)
        self.members = members
        self.chain_id = Digest(hashlib.sha256(b"chain %d" % members).digest())
        self.genesis_set = ValidatorSet(
            epoch=Epoch(0), members=tuple([validator(node) for node in range(members)])
        )
        self.checker = Checker()
        self.planted = planted or Planted()
        random = self.world.random
        liars = 0
        if faults(members) and random.random() < 0.35:
            liars = random.randint(1, faults(members))
        chosen = set(random.sample(range(members), liars))
        if self.planted.liar_leads:
            chosen = {0}
        self.nodes: list[Node] = [
            Liar(self, index) if index in chosen else Node(self, index)
            for index in range(members + spares)
        ]
        self.liars = chosen
        check_wire = random.random() < 0.15
        for node in self.nodes:
            node.clock.skew_ms = random.randint(-250, 250)
            node.disk_us_max = random.choice((400, 1_500, 4_000))
            node.check_wire = check_wire and node.index < WIRE_CHECKED_MAX
            node.count_before_durable = self.planted.count_before_durable
            node.drop_after_execution = self.planted.drop_after_execution
        self.rotation_blocks = random.choice((0, 0, 0, 3, 10))
        self.by_digest = random.choice((0.0, 0.0, 0.5, 1.0))  # share of bodies that travel alone
        self.prunes = snapshots.prunes(seed, members)
        self.luck = damage.luck_of(seed, members)
        self.power = Random(f"{seed}/{members}/power")  # what its cuts are drawn from
        self.crashes_in_writes = 0
        self.crashes_in_sends = 0
        self.crashes_in_recovery = 0
        self.slowest: int | None = None
        self.gate: int | None = None  # the node that nearly all clients talk to
        self.muffled: tuple[type, ...] = ()
        self.backups: dict[int, Disk] = {}
        self.forgetful: set[int] = set()  # lost votes and have not recovered
        self.restored: set[int] = set()  # got an old backup and have not noticed
        if liars:
            self.world.counters["runs with liars"] += 1

    def censor(self, _source: int, _target: int, _message: Message) -> bool:
        """Whether a script takes this message out of the network; here, never."""
        return False

    @property
    def honest(self) -> list[Node]:
        return [node for node in self.nodes if node.honest]

    def start(self) -> None:
        for node in self.nodes:
            node.start()

    # --- links

    def carry(self, source: ReplicaIndex, target: int, message: Message, body: Body | None) -> None:
        node = self.nodes[target]
        muffled = self.muffled and isinstance(message, self.muffled)
        if (muffled and self.world.random.random() < 0.7) or self.censor(source, target, message):
            self.world.counters["messages muffled"] += 1
            return
        self.world.deliver(source, target, lambda: node.arrive(source, message, body))

    def carry_body(self, source: ReplicaIndex, target: int, body: Body) -> None:
        node = self.nodes[target]
        work = partial(node.hold_body, body)
        self.world.deliver(source, target, lambda: node.processor.run(work))

    def carry_payloads(self, source: ReplicaIndex, target: int, payloads: Body) -> bool:
        """Whether they were queued."""
        node = self.nodes[target]
        work = partial(node.take_payloads, payloads)
        return self.world.deliver(source, target, lambda: node.processor.run(work))

    def submit(self, payload: bytes, *, only: int | None) -> None:
        """A client hands a payload to an honest node, which sends it on; or to some nodes only."""
        random = self.world.random
        up = [node for node in self.honest if node.up and not node.halted]
        if not up:
            return
        first = random.choice(up)
        if self.gate is not None and self.nodes[self.gate] in up and random.random() < 0.99:
            first = self.nodes[self.gate]
        self.checker.injected.add(payload)
        first.processor.run(partial(first.take_payloads, (payload,)))
        targets = [node.index for node in self.nodes if node is not first]
        if only is not None:
            targets = random.sample(targets, min(only, len(targets)))
            self.world.counters["payloads sent to some nodes only"] += 1
        for target in targets:
            self.carry_payloads(first.index, target, (payload,))

    def submit_to_all(self, payload: bytes) -> None:
        """A client that hands the same bytes to every node, twice to some."""
        self.checker.injected.add(payload)
        for node in (*self.nodes, *self.nodes[: self.members // 2]):
            node.processor.run(partial(node.take_payloads, (payload,)))

    # --- what nodes report

    def blamed(self, node: int, peer: int, fault: Fault) -> None:
        """No honest node is ever blamed for what only a liar does (S13)."""
        if self.planted == Planted():
            guilty = peer in self.liars | self.checker.excused or fault is Fault.STALE_CLOCK
            require(guilty, f"node {node} blames honest node {peer}: {fault.value}")

    def accused(self, node: int, peer: int, proof: Contradiction) -> None:
        """Evidence convinces whoever has nothing but its bytes, and names a liar (E1, S13)."""
        data = encode(proof.value())
        require(len(data) <= EVIDENCE_SIZE_BYTES_MAX, f"node {node}: {len(data)} bytes of evidence")
        read = read_contradiction(wire.decode_value(data, EVIDENCE_SIZE_BYTES_MAX))
        for signed, signature in read.signed(self.chain_id):
            require(sign(peer, signed) == signature, f"node {node}: evidence {peer} did not sign")
        if self.planted == Planted():
            guilty = peer in self.liars | self.checker.excused
            require(guilty, f"node {node} has evidence against honest node {peer}")
        self.world.counters[f"evidence of {read.offence.text}"] += 1

    def node_halted(self, node: Node, reason: str) -> None:
        if self.members >= 3 or node.index not in self.forgetful:
            raise Violation(f"node {node.index} halted: {reason}")

    def noted(self, node: Node, event: Event) -> None:
        if event is Event.CATCH_UP_STARTED and not node.replica.active:
            self.world.counters["catch-up during a view change"] += 1
        if event in RECOVERY_EVENTS and self.crashes_in_recovery:
            self.crashes_in_recovery -= 1
            wait = self.world.random.choice((0, 500, 20_000, 200_000))
            self.world.after(wait, partial(self._crash_life, node.address, node.life))
        if event is Event.STARTED and node.index in self.restored:
            # Its lost messages reached none of those it heard from: it does not know.
            self.checker.excused.add(node.index)
            self.world.counters["old backups that went unnoticed"] += 1
        if event in (Event.STARTED, Event.RECOVERED):
            self.restored.discard(node.index)

    # --- faults

    def may_forget(self, index: int) -> bool:
        """At most f nodes lie, lost their memory, or are recovering from that."""
        for known in list(self.forgetful):
            node = self.nodes[known]
            if node.up and node.replica.phase is Phase.VOTING and node.life >= 2:
                self.forgetful.discard(known)
        limit = 1 if self.members == 3 else faults(self.members)
        return (
            not self.forgetful
            and not any(node.disk.is_damaged or node.disk.misdirect for node in self.nodes)
            and len(self.liars | self.checker.excused) + 1 <= limit
            and index not in self.liars
            and (self.members > 3 or all(node.up for node in self.nodes))
        )

    def wipe(self, index: int) -> None:
        """The disk is gone; the operator writes a new birth record and starts again."""
        node = self.nodes[index]
        node.crash()
        node.disk = Disk()
        node.transfers = snapshots.Snapshots(node)
        node_id = Digest(bytes([index]) * 32)
        if self.planted.forget_votes:
            node.disk.born(self.chain_id, node_id)
        else:
            node.disk.born_again(self.chain_id, node_id)
        self.world.counters["disks lost"] += 1
        self.world.log(f"node {index} loses its disk")
        if not self.planted.forget_votes:
            self.forgetful.add(index)
        self.restart_later(index)

    def restore_backup(self, index: int) -> None:
        """The operator restores an old backup, without saying so."""
        node = self.nodes[index]
        backup = self.backups.pop(index)
        node.crash()
        kind = self.world.random.choice(("both files", "consensus.db", "both files"))
        if kind == "consensus.db":
            backup.blocks = node.disk.blocks
            backup.bodies.update(node.disk.bodies)
        node.disk = backup
        node.transfers = snapshots.Snapshots(node)
        self.world.counters[f"old backups restored, {kind}"] += 1
        self.world.log(f"node {index} gets an old backup")
        self.restored.add(index)
        self.forgetful.add(index)
        self.restart_later(index)

    def lose_state(self, index: int) -> None:
        """Only `state.db` is gone: no vote is forgotten, all blocks are executed again."""
        node = self.nodes[index]
        node.crash()
        node.disk.blocks.clear()
        node.transfers = snapshots.Snapshots(node)
        self.world.counters["states lost"] += 1
        self.world.log(f"node {index} loses state.db")
        self.restart_later(index)

    def crash(self, index: int) -> None:
        if self.nodes[index].up:
            self.nodes[index].crash()
            self.restart_later(index)

    def _crash_life(self, address: int, life: int) -> None:
        if self.nodes[address].life == life:
            self.crash(address)

    def boundary(
        self, _node: Node, *, committed: Tick | None = None, executed: StoredBlock | None = None
    ) -> bool:
        """A transaction is about to become durable; True when the node was killed here."""
        del committed, executed
        return False

    def crash_all(self) -> None:
        """A power cut."""
        for index in range(self.members):
            self.crash(index)

    def restart_later(self, index: int) -> None:
        node = self.nodes[index]
        random = self.world.random
        wait = random.choice((5_000, 50_000, 300_000, 1_500_000))

        def restart() -> None:
            if not node.up:
                self.world.log(f"node {index} starts")
                node.start()

        self.world.after(random.randrange(wait // 2, wait * 2), restart)


def simulate(
    seed: int,
    members: int,
    *,
    planted: Planted | None = None,
    trace: list[str] | None = None,
    focus: Focus = Focus.SWARM,
) -> Outcome:
    """Play one seed; raises `Violation` when a property does not hold."""
    cluster = Cluster(seed, members, planted)
    world = cluster.world
    world.trace = trace
    mix = Mix.draw(world.random, members, focus, luck=cluster.luck)
    prepare(cluster, mix)
    cluster.start()
    chaos(cluster, mix)
    end = world.now_us + mix.duration_us
    while world.now_us < end:
        world.run_until(min(end, world.now_us + 500_000))
        for node in cluster.honest:
            if node.up:
                cluster.checker.bounded(node.replica)
    heal(cluster)
    payload = b"after healing %d" % seed
    insist(cluster, payload)
    limit = world.now_us + HEALING_US_MAX
    require(
        world.run_until(limit, lambda: converged(cluster, payload)),
        f"liveness: not converged {HEALING_US_MAX // 1_000_000} s after healing: "
        + describe(cluster),
    )
    settle(cluster)
    cluster.checker.durable()
    return outcome(cluster, seed)


def insist(cluster: Cluster, payload: bytes) -> None:
    """A client that sends the same bytes again until somebody answers."""
    ask_receipt(cluster, payload)
    if payload not in cluster.checker.acknowledged:
        cluster.submit(payload, only=None)
        cluster.world.after(700_000, lambda: insist(cluster, payload))


def ask_receipt(cluster: Cluster, payload: bytes) -> None:
    """The answer may have been lost with the process that was about to give it."""
    for node in cluster.honest:
        if node.up:
            for stored in reversed(node.disk.blocks):
                if payload in stored.payloads:
                    cluster.checker.acknowledge(payload, stored.header.height)
                    return


def converged(cluster: Cluster, payload: bytes) -> bool:
    """Every honest node is up, votes, is at one height, and owes nobody a payload."""
    nodes = cluster.honest
    if any(not node.up or node.halted for node in nodes):
        return False
    if any(node.replica.phase is not Phase.VOTING for node in nodes):
        return False
    heights = {node.replica.executed for node in nodes}
    return (
        payload in cluster.checker.acknowledged
        and len(heights) == 1
        and all(not node.custody.payloads for node in nodes)
    )


def settle(cluster: Cluster) -> None:
    """After convergence views stop moving (L2), unless a liar leads, or all of them in turn."""
    world = cluster.world
    if cluster.liars or cluster.rotation_blocks:
        return
    idle_us = SIM_TIMING.idle_block_interval_ms * 1_000
    before: list[View] = []
    for _ in range(5):
        after = [node.replica.view for node in cluster.honest]
        if before == after:
            break
        before = after
        world.run_until(world.now_us + 3 * idle_us)
    require(before == after, f"views still move after healing: {before} then {after}")
    require(
        len({node.replica.certified for node in cluster.honest}) <= 2,
        f"certificates do not converge: {describe(cluster)}",
    )


def describe(cluster: Cluster) -> str:
    """One line that explains a stall."""
    parts = []
    for node in cluster.nodes:
        if not node.up:
            parts.append(f"{node.index}: down")
            continue
        replica = node.replica
        parts.append(
            f"{node.index}: {replica.phase.name} view {replica.view}"
            f"{'' if replica.active else ' (asked)'} executed {replica.executed}"
            f" certified {replica.certified} custody {len(node.custody.payloads)}"
            f"{'' if node.honest else ' liar'}"
        )
    return "; ".join(parts)


def outcome(cluster: Cluster, seed: int) -> Outcome:
    """Fold the run into something that can be compared."""
    world = cluster.world
    trail = world.trail
    for height in sorted(cluster.checker.log):
        trail.update(cluster.checker.log[height].header.hash)
    trail.update(repr((world.events, world.now_us, world.random.getrandbits(64))).encode())
    return Outcome(
        seed=seed,
        members=cluster.members,
        heights=[node.replica.executed for node in cluster.nodes],
        views=[node.replica.view for node in cluster.nodes],
        payloads=len(cluster.checker.acknowledged),
        events=world.events,
        digest=trail.hexdigest(),
        counters=world.counters,
    )
