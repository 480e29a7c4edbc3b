"""A cluster in fair weather on which a scene is played: chosen liars, and a network with rules."""

from collections.abc import Callable, Collection, Mapping
from typing import Final

from consensus.core.messages import (
    Message,
    NewView,
    PrePrepare,
    ViewChange,
    VoteVector,
)
from consensus.core.types import Phase, ReplicaIndex, View
from consensus.limits import QUICK_BLOCKS
from consensus.sim.checker import require
from consensus.sim.faults import heal
from consensus.sim.liars import (
    Silent,
)
from consensus.sim.node import SIM_TIMING, Node
from consensus.sim.run import HEALING_US_MAX, Cluster, converged, describe, insist, settle

Scene = Callable[[int], None]
Rule = Callable[[int, int, Message], bool]
Cast = Mapping[int, Callable[[Cluster, int], Node]]

SIGNED: Final = (PrePrepare, VoteVector, ViewChange, NewView)


class Staged(Cluster):
    """A cluster in fair weather with chosen liars, whose network obeys rules."""

    def __init__(
        self,
        seed: int,
        members: int,
        cast: Cast,
        everybody: Callable[[Cluster, int], Node] = Node,
        *,
        spares: int = 0,
    ) -> None:
        super().__init__(seed, members, spares=spares)
        self.rotation_blocks = 0  # views move only when something is wrong
        self.nodes = [cast.get(index, everybody)(self, index) for index in range(members + spares)]
        self.liars = set(cast)
        self.rules: list[Rule] = []
        self.payloads = 0
        for node in self.nodes:
            node.disk_us_max = 400
            node.clock.skew_ms = self.world.random.randint(-50, 50)

    def censor(self, source: int, target: int, message: Message) -> bool:
        return any(rule(source, target, message) for rule in self.rules)

    def run(self, milliseconds: int, until: Callable[[], bool] = lambda: False) -> bool:
        """Play on in small steps until it is true, and look at the cap of every map."""
        end = self.world.now_us + milliseconds * 1_000
        while self.world.now_us < end and not until():
            self.world.run_until(min(end, self.world.now_us + 1_000))
        for node in self.honest:
            if node.up:
                self.checker.bounded(node.replica)
        return until()

    def pay(self, *targets: int) -> bytes:
        """A new payload in the custody of these nodes, or of all."""
        self.payloads += 1
        payload = b"payload %d of %d" % (self.payloads, self.world.random.getrandbits(32))
        self.checker.injected.add(payload)
        for index in targets or range(self.members):
            self.nodes[index].take_payloads((payload,))
        return payload

    def pay_for(self, milliseconds: int, every: int) -> None:
        """Load from now on: one payload in each interval."""
        for moment in range(0, milliseconds, every):
            self.world.after(moment * 1_000, lambda: void(self.pay()))

    def speak(self, index: int, *, loud: bool = True) -> None:
        """Let a silent node behave like an honest one for a while."""
        node = self.nodes[index]
        assert isinstance(node, Silent)
        node.speaks = loud

    def hush(self, index: int) -> None:
        self.speak(index, loud=False)

    def isolate(self, index: int) -> None:
        """No link of this node works."""
        for peer in range(self.members):
            if peer != index:
                self.world.cut |= {(index, peer), (peer, index)}

    def executed(self, index: int) -> int:
        return self.nodes[index].replica.executed

    def tip(self) -> int:
        return max(node.replica.executed for node in self.honest if node.up)

    def recovered(self, index: int) -> bool:
        node = self.nodes[index]
        return node.up and node.replica.phase is Phase.VOTING

    def views(self) -> list[View]:
        return [node.replica.view for node in self.honest if node.up]

    def expect_progress(self, within_us: int) -> None:
        """Honest nodes execute another block in this time, whatever goes on."""
        before = self.tip()
        require(
            self.run(within_us // 1_000, lambda: self.tip() > before),
            f"liveness: no block for {within_us // 1_000_000} s: {describe(self)}",
        )

    def finish(self, within_us: int = HEALING_US_MAX) -> None:
        """Everything is healed: all that must hold in the end."""
        self.rules.clear()
        heal(self)
        for node in self.nodes:
            if not node.up:
                node.start()
        payload = b"after healing %d" % self.world.random.getrandbits(32)
        insist(self, payload)
        require(
            self.world.run_until(self.world.now_us + within_us, lambda: converged(self, payload)),
            f"liveness: not converged {within_us // 1_000_000} s after healing: {describe(self)}",
        )
        settle(self)
        for node in self.honest:
            self.checker.bounded(node.replica)
        self._calm()
        self.checker.durable()
        self._replay()

    def _calm(self) -> None:
        """With everything healed and blocks coming, timers are soon as at the start (L6).

        Within 48 T and twice `QUICK_BLOCKS` idle blocks, as `custody.on_block` promises.
        """
        if self.liars:
            return
        timeout_us = max(node.replica.request_timeout_us for node in self.nodes)
        idle_us = SIM_TIMING.idle_block_interval_ms * 1_000
        limit_us = 48 * timeout_us + 2 * QUICK_BLOCKS * (idle_us + timeout_us // 4)
        require(
            self.world.run_until(self.world.now_us + limit_us, lambda: not self.stretched()),
            f"timers of {self.stretched()} are still stretched: {describe(self)}",
        )

    def stretched(self) -> list[ReplicaIndex]:
        """Nodes whose timers are longer than T."""
        return [
            node.index for node in self.nodes if node.replica.active and node.replica.failed_views
        ]

    def _replay(self) -> None:
        """A process that starts on the records is the one that wrote them (S14)."""
        for node in self.honest:
            self.run(200, lambda found=node: _quiet(found))  # type: ignore[misc]
            if not _quiet(node):
                continue
            before = _state_of(node)
            node.crash()
            node.start()
            after = _state_of(node)
            differing = [name for name, value in before.items() if after[name] != value]
            require(
                not differing,
                f"replay of the records of node {node.index} gives another {differing}",
            )


def _quiet(node: Node) -> bool:
    return node.up and node.committing is None and node.gather.empty and not node.executing


def _state_of(node: Node) -> dict[str, object]:
    """What a replica must know again after a crash."""
    replica = node.replica
    open_places = [place for place in sorted(replica.instances) if place > replica.certified]
    return {
        "view": (replica.view, replica.active),
        "tip": replica.tip,
        "certificate": replica.certificate,
        "number": replica.last_number,
        "bounds": (replica.first_sequence, replica.first_view),
        "prepared": {place: replica.prepared[place] for place in sorted(replica.prepared)},
        "checkpoints cast": max(replica.cast_through, replica.certified),
        "votes": [
            (place, kind, ballots[replica.me].view, ballots[replica.me].digest)
            for place in open_places
            for kind, ballots in (
                ("prepare", replica.instances[place].prepares),
                ("commit", replica.instances[place].commits),
            )
            if replica.me in ballots
        ],
    }


def void(_value: object) -> None:
    """For actions whose value nobody wants."""


def opened(
    seed: int,
    sizes: tuple[int, ...],
    cast: Cast | None = None,
    *,
    everybody: Callable[[Cluster, int], Node] = Node,
) -> Staged:
    """A running cluster with a few blocks; size by seed."""
    stage = Staged(seed, sizes[seed % len(sizes)], cast or {}, everybody)
    stage.start()
    stage.run(40)
    for _ in range(stage.world.random.randrange(3)):
        stage.pay()
        stage.run(stage.world.random.randrange(1, 15))
    stage.run(30)
    return stage


def votes(kind: type, *, to: Collection[int]) -> Rule:
    """Vectors with a leaf of this kind do not arrive at these nodes."""
    return lambda _source, target, message: (
        target in to
        and isinstance(message, VoteVector)
        and any(isinstance(leaf, kind) for leaf in message.leaves)
    )


def all_of(kind: type | tuple[type, ...], *, source: int | None = None) -> Rule:
    """Messages of this kind do not arrive anywhere."""
    return lambda sender, _target, message: isinstance(message, kind) and source in (None, sender)
