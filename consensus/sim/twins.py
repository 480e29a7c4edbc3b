"""Twins: two copies of one node with one key, and every way to split the cluster around them.

After Bano et al., "Twins: BFT Systems Made Robust". A scenario is which validator has a twin and,
for each of up to eight rounds, a partition of the five processes into two or three parts. A round
is a stretch of virtual time in which every process can lose patience with the primary once, so
that views, and with them leaders, pass while partitions change. In each round every process gets a
payload of its own: copies that lead propose different batches under one key. Then all is healed,
and the honest must agree and go on, the copies still with them.

Scenarios are numbered. Even numbers enumerate exhaustively: all of one round, then all of two, and
so on. Odd numbers go through the scenarios of eight rounds, in an order in which neighbours have
nothing in common. No scenario has two numbers of one kind, so slices of any size cover new ground.

A copy is told nothing of the messages of the other: a liar would not let itself be found amnesiac.
"""

from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from consensus.core.messages import Message, Status
from consensus.core.types import ReplicaIndex
from consensus.sim.checker import require
from consensus.sim.disk import Body
from consensus.sim.node import IMPATIENT, Node
from consensus.sim.run import Cluster, Outcome, converged, describe, outcome

MEMBERS: Final = 4
PROCESSES: Final = MEMBERS + 1
ROUNDS_MAX: Final = 8
ROUND_US: Final = 130_000  # a round is longer than patience, shorter than patience after a failure
HEALING_US_MAX: Final = 20_000_000


def _partitions() -> tuple[tuple[int, ...], ...]:
    """Every way to put the processes into two or three parts, as the part of each process."""
    found: list[tuple[int, ...]] = []

    def extend(parts: tuple[int, ...]) -> None:
        used = max(parts, default=-1) + 1
        if len(parts) == PROCESSES:
            if used >= 2:
                found.append(parts)
            return
        for part in range(min(used + 1, 3)):
            extend((*parts, part))

    extend(())
    return tuple(found)


PARTITIONS: Final = _partitions()  # 15 of two parts and 25 of three
_DEEP: Final = MEMBERS * len(PARTITIONS) ** ROUNDS_MAX
_STRIDE: Final = 6_180_339_887_501  # near the golden section of _DEEP, and without a common factor


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """Who has a twin, and the part of each process in each round."""

    twin: int
    rounds: tuple[tuple[int, ...], ...]

    def __str__(self) -> str:
        rounds = " ".join("".join(map(str, parts)) for parts in self.rounds)
        return f"twin of {self.twin}, parts of 0 1 2 3 and the copy: {rounds}"


def scenario(number: int) -> Scenario:
    """The scenario with this number."""
    place, deep = divmod(number, 2)
    if deep:
        return _decode(place * _STRIDE % _DEEP, ROUNDS_MAX)
    for depth in range(1, ROUNDS_MAX + 1):
        size = MEMBERS * len(PARTITIONS) ** depth
        if place < size:
            return _decode(place, depth)
        place -= size
    return _decode(place % _DEEP, ROUNDS_MAX)


def _decode(place: int, depth: int) -> Scenario:
    place, twin = divmod(place, MEMBERS)
    rounds: list[tuple[int, ...]] = []
    for _ in range(depth):
        place, kind = divmod(place, len(PARTITIONS))
        rounds.append(PARTITIONS[kind])
    return Scenario(twin=twin, rounds=tuple(rounds))


class Copy(Node):
    """One of the two."""

    def __init__(self, cluster: Cluster, index: int, address: int) -> None:
        super().__init__(cluster, index)
        self.address = ReplicaIndex(address)
        self.honest = False

    def receive(self, sender: ReplicaIndex, message: Message, body: Body | None) -> None:
        signer = getattr(message, "signer", None)
        if signer == self.index:
            return
        if isinstance(message, Status) and message.held is not None:
            message = replace(message, held=None)
        super().receive(sender, message, body)


class TwinCluster(Cluster):
    """Four validators in five processes; the fifth is the copy."""

    def __init__(self, seed: int, plan: Scenario) -> None:
        super().__init__(seed, MEMBERS)
        self.world.counters.clear()
        if len(plan.rounds) < ROUNDS_MAX:
            self.rotation_blocks = 0
            self.by_digest = 0.0
        self.twin = plan.twin
        self.liars = {plan.twin}
        self.nodes = [
            Copy(self, index, index) if index == plan.twin else Node(self, index)
            for index in range(MEMBERS)
        ]
        self.nodes.append(Copy(self, plan.twin, MEMBERS))
        for node in self.nodes:
            node.disk_us_max = 200
            node.timing = IMPATIENT

    def _addresses(self, target: int) -> tuple[int, ...]:
        return (target, MEMBERS) if target == self.twin else (target,)

    def carry(self, source: ReplicaIndex, target: int, message: Message, body: Body | None) -> None:
        sender = self.nodes[source].index
        for address in self._addresses(target):
            node = self.nodes[address]
            self.world.deliver(source, address, partial(node.arrive, sender, message, body))

    def carry_body(self, source: ReplicaIndex, target: int, body: Body) -> None:
        for address in self._addresses(target):
            super().carry_body(source, address, body)

    def carry_payloads(self, source: ReplicaIndex, target: int, payloads: Body) -> bool:
        carry = super().carry_payloads
        queued = [carry(source, address, payloads) for address in self._addresses(target)]
        return all(queued)

    def split(self, parts: tuple[int, ...]) -> None:
        self.world.cut = {
            (one, other)
            for one in range(PROCESSES)
            for other in range(PROCESSES)
            if parts[one] != parts[other]
        }
        self.world.log(f"parts {parts}")

    def node_halted(self, node: Node, reason: str) -> None:
        if node.honest:
            super().node_halted(node, reason)


def play(number: int, *, trace: list[str] | None = None) -> Outcome:
    """Play one scenario; raises `Violation` when a property does not hold."""
    plan = scenario(number)
    cluster = TwinCluster(number, plan)
    world = cluster.world
    world.trace = trace
    world.log(str(plan))
    cluster.start()
    world.run_until(world.now_us + 20_000)  # STATUS of a quorum allows to vote
    for turn, parts in enumerate(plan.rounds):
        cluster.split(parts)
        for node in cluster.nodes:
            payload = b"%d at %d" % (turn, node.address)
            cluster.checker.injected.add(payload)
            node.take_payloads((payload,))
        world.run_until(world.now_us + ROUND_US)
    world.cut = set()
    world.log("healed")
    for node in cluster.honest:
        cluster.checker.bounded(node.replica)
        for peer in cluster.nodes:
            if peer.address < node.address and peer.index != node.index:
                node.connect(peer)
    payload = b"after healing %d" % number
    cluster.checker.injected.add(payload)
    for node in cluster.nodes:
        node.take_payloads((payload,))
    require(
        world.run_until(world.now_us + HEALING_US_MAX, lambda: converged(cluster, payload)),
        f"liveness: not converged {HEALING_US_MAX // 1_000_000} s after healing: "
        f"{plan}: {describe(cluster)}",
    )
    cluster.checker.durable()
    return outcome(cluster, number)
