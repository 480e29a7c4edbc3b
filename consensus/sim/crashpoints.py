"""A crash at every record boundary of short, scripted runs.

A boundary is a transaction of `consensus.db` or of `state.db` on any node. At each one a run kills
the node twice over: once before the transaction is durable, once after it and before anything of it
left the process. The node starts again on what its disk holds; it must never contradict what it
signed, what it remembers must be what it knew, and the cluster must finish the story.

Points are numbered; neighbours belong to different stories. When every boundary of a story had both
crashes, the numbers go on with a second crash of the same node: at its first transaction after the
restart, then at its second, and so on.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from math import gcd
from typing import Final, Self

from consensus.core.messages import Checkpoint, Leaf, NewView, ViewChange, leaf_place
from consensus.core.tick import Tick
from consensus.core.types import Phase
from consensus.sim.checker import require
from consensus.sim.disk import StoredBlock
from consensus.sim.node import IMPATIENT, Node
from consensus.sim.run import Cluster, Outcome, ask_receipt, converged, describe, outcome

LIMIT_US: Final = 20_000_000
DOWN_US: Final = 30_000


class Stage(Cluster):
    """A cluster without chance faults that counts boundaries and kills at one of them."""

    def __init__(self, members: int, kill_at: int | None, *, written: bool, again: int) -> None:
        super().__init__(0, members)
        self.liars = set()
        self.rotation_blocks = 0
        self.by_digest = 0.0
        self.nodes = [Node(self, index) for index in range(members)]
        for node in self.nodes:
            node.disk_us_max = 400
            node.timing = IMPATIENT
        self.world.counters.clear()
        self.boundaries = 0
        self.kill_at = kill_at
        self.written = written
        self.again = again
        self.victim: Node | None = None

    def boundary(
        self, node: Node, *, committed: Tick | None = None, executed: StoredBlock | None = None
    ) -> bool:
        assert (committed is None) != (executed is None)
        if self.victim is not None:
            if node is not self.victim or self.again == 0:
                return False
            self.again -= 1
            if self.again:
                return False
            self.world.counters["second crashes"] += 1
        else:
            self.boundaries += 1
            if self.boundaries - 1 != self.kill_at:
                return False
            self.victim = node
        database = "state.db" if committed is None else "consensus.db"
        moment = "after" if self.written else "before"
        self.world.counters[f"crashes {moment} a transaction of {database}"] += 1
        memory: Memory | None = None
        if self.written and committed is not None and node.gather.empty:
            # A view is entered, or asked for, when the message that does it is durable.
            moves = any(isinstance(message, ViewChange | NewView) for message in committed.own)
            memory = None if moves else Memory.of(node)
        node.crash(written=self.written)
        self.world.after(DOWN_US, partial(self._restart, node, memory))
        return True

    def _restart(self, node: Node, memory: "Memory | None") -> None:
        if node.up:
            return
        node.start()
        if memory is not None:
            self.world.counters["memories compared"] += 1
            found = Memory.of(node)
            if node.replica.quorum == 1:  # its own vote for a block makes the certificate
                memory = memory.above(found.certified)
            # Votes that became durable count now, and may have completed a certificate.
            require(
                memory.prepared <= found.prepared
                and memory.votes <= found.votes
                and replace(memory, prepared=found.prepared, votes=found.votes) == found,
                f"node {node.index} remembers {found}, and knew {memory}",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Memory:
    """What a restart may not change."""

    view: int
    active: bool
    certified: int
    first_sequence: int
    first_view: int
    prepared: frozenset[tuple[int, int, bytes]]
    votes: frozenset[Leaf]  # of the present view, above the newest certificate

    @classmethod
    def of(cls, node: Node) -> Self:
        replica = node.replica
        return cls(
            view=replica.view,
            active=replica.active,
            certified=replica.certified,
            first_sequence=replica.first_sequence,
            first_view=replica.first_view,
            prepared=frozenset(
                (entry.sequence, entry.view, bytes(entry.pre_prepare.digest))
                for entry in replica.prepared.values()
            ),
            votes=frozenset(
                leaf
                for vector in replica.own_vectors
                for leaf in vector.leaves
                if not isinstance(leaf, Checkpoint)
                and leaf.view == replica.view
                and leaf.sequence > replica.certified
            ),
        )

    def above(self, certified: int) -> Self:
        """The same after this block, or a later one, was certified."""
        return replace(
            self,
            certified=max(self.certified, certified),
            prepared=frozenset(entry for entry in self.prepared if entry[0] > certified),
            votes=frozenset(leaf for leaf in self.votes if leaf_place(leaf) > certified),
        )


# --- the stories


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """What happens anyway, crash or not."""

    name: str
    members: int
    plot: Callable[[Stage], None]


def _payloads(stage: Stage, count: int, every_us: int) -> None:
    for number in range(count):
        payload = b"%d" % number
        stage.world.after(20_000 + number * every_us, partial(stage.submit_to_all, payload))


def _stop(stage: Stage, index: int) -> None:
    node = stage.nodes[index]
    if node.up:
        node.crash()


def _go(stage: Stage, index: int) -> None:
    node = stage.nodes[index]
    if not node.up:
        node.start()


def _quiet(stage: Stage) -> None:
    _payloads(stage, 6, 20_000)


def _dead_primary(stage: Stage) -> None:
    _payloads(stage, 6, 30_000)
    stage.world.after(45_000, partial(_stop, stage, 0))
    stage.world.after(400_000, partial(_go, stage, 0))


def _deaf_primaries(stage: Stage) -> None:
    """Two views fail in a row while batches are prepared."""
    _payloads(stage, 6, 30_000)
    stage.world.after(41_200, partial(_stop, stage, 0))
    stage.world.after(120_000, partial(_stop, stage, 1))
    stage.world.after(400_000, partial(_go, stage, 0))
    stage.world.after(450_000, partial(_go, stage, 1))


def _late_node(stage: Stage) -> None:
    _payloads(stage, 8, 15_000)
    last = stage.members - 1
    stage.world.after(30_000, partial(_stop, stage, last))
    stage.world.after(200_000, partial(_go, stage, last))


def _lost_disk(stage: Stage) -> None:
    _payloads(stage, 5, 20_000)
    stage.world.after(60_000, partial(_wipe, stage, stage.members - 1))


def _wipe(stage: Stage, index: int) -> None:
    # Beyond the fault budget while another node is down, which then counts among the f as well.
    if all(node.up and node.replica.phase is Phase.VOTING for node in stage.nodes):
        stage.wipe(index)


STORIES: Final = (
    Story(name="quiet", members=4, plot=_quiet),
    Story(name="dead primary", members=4, plot=_dead_primary),
    Story(name="late node", members=4, plot=_late_node),
    Story(name="lost disk", members=4, plot=_lost_disk),
    Story(name="one node", members=1, plot=_quiet),
    Story(name="two nodes", members=2, plot=_quiet),
    Story(name="deaf primaries", members=5, plot=_deaf_primaries),
    Story(name="dead primary of three", members=3, plot=_dead_primary),
)


@cache
def boundaries_of(story: Story) -> int:
    """How many transactions the story has when nobody is killed."""
    stage = Stage(story.members, None, written=False, again=0)
    _run(stage, story)
    return stage.boundaries


def single_points() -> int:
    """How many numbers it takes to have every boundary of every story crash both ways."""
    return 2 * max(boundaries_of(story) for story in STORIES) * len(STORIES)


def play(number: int, *, trace: list[str] | None = None) -> Outcome:
    """Play one crash point; raises `Violation` when a property does not hold."""
    place, chosen = divmod(number, len(STORIES))
    story = STORIES[chosen]
    points = 2 * boundaries_of(story)
    again, place = divmod(place, points)
    place = place * _stride(points) % points
    kill_at, written = divmod(place, 2)
    stage = Stage(story.members, kill_at, written=bool(written), again=again)
    stage.world.trace = trace
    stage.world.log(f"{story.name}: {'after' if written else 'before'} transaction {kill_at}")
    _run(stage, story)
    require(stage.victim is not None, f"{story.name} has no transaction {kill_at}")
    return outcome(stage, number)


def _stride(points: int) -> int:
    """Visits all points, neighbours far apart."""
    stride = max(1, points * 618 // 1_000)
    while gcd(stride, points) > 1:
        stride += 1
    return stride


def _run(stage: Stage, story: Story) -> None:
    world = stage.world
    stage.start()
    story.plot(stage)
    world.run_until(world.now_us + 500_000)
    payload = b"at last"
    for index in range(stage.members):
        _go(stage, index)
    _insist(stage, payload)
    require(
        world.run_until(world.now_us + LIMIT_US, lambda: converged(stage, payload)),
        f"liveness: {story.name} does not end: {describe(stage)}",
    )
    stage.checker.durable()


def _insist(stage: Stage, payload: bytes) -> None:
    ask_receipt(stage, payload)
    if payload not in stage.checker.acknowledged:
        stage.submit_to_all(payload)
        stage.world.after(300_000, partial(_insist, stage, payload))
