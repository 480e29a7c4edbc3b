"""Hand-written cases as text: a script of commands over a cluster without chance faults.

    nodes 4
    lose PRE-PREPARE at 1                take messages out of the network: kind, then where
    lose VIEW-CHANGE from 3 to 1         it comes from, goes to, and the place it speaks about
    allow                                lose nothing any more
    submit apple to 0 1 2 3              payload into the custody of these nodes, at once
    run 50                               milliseconds
    crash 0 / start 0 / wipe 2
    prune                                from now on nodes drop blocks below their snapshots
    rotate 3                             all start again in a chain whose primaries lead 3 blocks
    expect view 1 of 1 2 3               view that these nodes have entered
    expect asked 1 of 3                  view this node asks for
    expect height 2 of 1 2 3             at least this many blocks
    expect block 1 null                  what the one log holds: null, empty, or payload names
    expect phase VOTING of 0
    expect transfers 1 of 3              how often this node took over a snapshot

Kinds: PRE-PREPARE PREPARE COMMIT CHECKPOINT VIEW-CHANGE NEW-VIEW STATUS BLOCKS. A vote vector is
lost when any of its leaves is of the kind.
"""

from dataclasses import dataclass, field

from consensus.core.messages import (
    Blocks,
    Checkpoint,
    Commit,
    Message,
    NewView,
    Prepare,
    PrePrepare,
    Status,
    ViewChange,
    VoteVector,
    leaf_place,
)
from consensus.core.types import Phase
from consensus.sim.checker import Violation, require
from consensus.sim.disk import Disk
from consensus.sim.node import Node
from consensus.sim.run import Cluster, describe
from consensus.sim.snapshots import Snapshots
from native.values import Digest

LEAVES = {"PREPARE": Prepare, "COMMIT": Commit, "CHECKPOINT": Checkpoint}
MESSAGES = {
    "PRE-PREPARE": PrePrepare,
    "VIEW-CHANGE": ViewChange,
    "NEW-VIEW": NewView,
    "STATUS": Status,
    "BLOCKS": Blocks,
}


@dataclass(slots=True, kw_only=True)
class Rule:
    """One `lose` line."""

    kind: str
    source: int | None = None
    target: int | None = None
    place: int | None = None

    def matches(self, source: int, target: int, message: Message) -> bool:
        if self.source not in (None, source) or self.target not in (None, target):
            return False
        if self.kind in LEAVES:
            return isinstance(message, VoteVector) and any(
                isinstance(leaf, LEAVES[self.kind]) and self.place in (None, leaf_place(leaf))
                for leaf in message.leaves
            )
        if not isinstance(message, MESSAGES[self.kind]):
            return False
        return self.place is None or (
            isinstance(message, PrePrepare) and message.sequence == self.place
        )


class Stage(Cluster):
    """A cluster whose network obeys a script."""

    def __init__(self, members: int) -> None:
        super().__init__(0, members)
        for index in self.liars:
            self.nodes[index] = Node(self, index)
        self.liars.clear()
        self.rotation_blocks = 0
        self.prunes = False
        self.by_digest = 0.0
        for node in self.nodes:
            node.clock.skew_ms = 0
            node.disk_us_max = 400
            node.check_wire = True
        self.rules: list[Rule] = []

    def censor(self, source: int, target: int, message: Message) -> bool:
        return any(rule.matches(source, target, message) for rule in self.rules)


@dataclass(slots=True)
class Script:
    """Plays one text; raises `Violation` with the state of all nodes on a mismatch."""

    stage: Stage | None = None
    done: list[str] = field(default_factory=list)

    def play(self, text: str) -> None:
        for line in text.splitlines():
            words = line.split("#")[0].split()
            if words:
                self.done.append(line.strip())
                self._command(words)
        assert self.stage is not None
        self.stage.checker.durable()

    def _command(self, words: list[str]) -> None:
        if words[0] == "nodes":
            self.stage = Stage(int(words[1]))
            self.stage.start()
            return
        stage = self.stage
        assert stage is not None, "a script begins with `nodes`"
        match words:
            case ["rotate", blocks]:
                stage.rotation_blocks = int(blocks)
                for node in stage.nodes:
                    node.crash()
                    node.start()
            case ["prune"]:
                stage.prunes = True
            case ["lose", kind, *where]:
                rule = Rule(kind=kind)
                for name, value in zip(where[::2], where[1::2], strict=True):
                    attribute = {"from": "source", "to": "target", "at": "place"}[name]
                    setattr(rule, attribute, int(value))
                stage.rules.append(rule)
            case ["allow"]:
                stage.rules.clear()
            case ["submit", name, "to", *nodes]:
                payload = name.encode()
                stage.checker.injected.add(payload)
                for index in nodes:
                    stage.nodes[int(index)].take_payloads((payload,))
            case ["run", milliseconds]:
                stage.world.run_until(stage.world.now_us + int(milliseconds) * 1_000)
            case ["crash", index]:
                stage.nodes[int(index)].crash()
            case ["start", index]:
                stage.nodes[int(index)].start()
            case ["wipe", index]:
                node = stage.nodes[int(index)]
                node.crash()
                node.disk = Disk()
                node.transfers = Snapshots(node)
                node.disk.born_again(stage.chain_id, Digest(bytes([int(index)]) * 32))
                node.start()
            case ["expect", "block", height, *content]:
                self._expect_block(int(height), content)
            case ["expect", what, value, "of", *nodes]:
                for index in nodes:
                    self._expect(what, value, stage.nodes[int(index)])
            case _:
                raise Violation(f"no such command: {' '.join(words)}")

    def _expect_block(self, height: int, content: list[str]) -> None:
        stage = self.stage
        assert stage is not None
        stored = stage.checker.log.get(height)
        if stored is None:
            self._fail(f"there is no block {height}")
            return
        found = [payload.decode() for payload in stored.payloads]
        if not found:
            found = ["null" if stored.batch.proposed_ms == 0 else "empty"]
        if found != content:
            self._fail(f"block {height} holds {found}")

    def _expect(self, what: str, value: str, node: Node) -> None:
        replica = node.replica
        found = {
            "view": replica.active and replica.view == int(value) if value.isdigit() else None,
            "asked": not replica.active and str(replica.view) == value,
            "height": value.isdigit() and replica.executed >= int(value),
            "transfers": str(node.transfers.restored_total) == value,
            "phase": replica.phase is Phase.__members__.get(value),
        }.get(what)
        if not found:
            self._fail(f"node {node.index}: {what} is not {value}")

    def _fail(self, reason: str) -> None:
        assert self.stage is not None
        require(
            condition=False,
            message=f"after `{self.done[-1]}`: {reason}\n{describe(self.stage)}",
        )


def play(text: str) -> Stage:
    """Play a script to its end."""
    script = Script()
    script.play(text)
    assert script.stage is not None
    return script.stage
