"""What must hold in every run (bft.md 11): watched while it happens, not reconstructed later."""

from typing import Final

from consensus.core.messages import (
    Checkpoint,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    VoteVector,
)
from consensus.core.replica import Replica
from consensus.errors import InvariantError
from consensus.limits import (
    AHEAD_BLOCKS_MAX,
    HEADERS_PER_REPLY_MAX,
    VECTORS_KEPT_MAX,
    WINDOW_BLOCKS,
)
from consensus.sim.disk import StoredBlock


class Violation(AssertionError):
    """A property of the protocol does not hold."""


def require(condition: object, message: str) -> None:
    if not condition:
        raise Violation(message)


class Checker:
    """Global knowledge no replica has."""

    def __init__(self) -> None:
        self.log: dict[int, StoredBlock] = {}  # height -> the one block (S1, S2, S3)
        self.injected: set[bytes] = set()
        self.acknowledged: dict[bytes, int] = {}  # payload -> height (S9)
        self.said: dict[tuple[int, str, int, int, int], bytes] = {}  # what honest nodes signed (S6)
        self.numbers: dict[tuple[int, int], bytes] = {}
        self.prepared: dict[tuple[int, int, int], bytes] = {}  # certificates seen (S5)
        self.certified: dict[int, tuple[bytes, bytes]] = {}  # adopted by somebody (S12)
        self.excused: set[int] = set()
        """Nodes with an old backup that nobody could tell so: they count among the f liars."""

    def executed(self, node: int, stored: StoredBlock) -> None:
        """An honest node has executed a block."""
        height = stored.header.height
        known = self.log.get(height)
        if known is None:
            require(height == 1 or height - 1 in self.log, f"node {node}: height {height} too soon")
            for payload in stored.payloads:
                require(payload in self.injected, f"node {node}: invented payload at {height}")
            self.log[height] = stored
            return
        require(
            known.batch.digest == stored.batch.digest,
            f"agreement: node {node} executed another batch at {height}",
        )
        require(
            known.header.hash == stored.header.hash
            and known.block.state_root == stored.block.state_root,
            f"state: node {node} differs at {height}",
        )

    def acknowledge(self, payload: bytes, height: int) -> None:
        """A receipt left an honest node."""
        self.acknowledged.setdefault(payload, height)

    def signed(self, node: int, message: Signed) -> None:
        """An honest node said this under its key: nothing may contradict it, across crashes."""
        if node in self.excused:
            return
        stamp = message.stamp()
        key = (node, int(stamp.number))
        content = bytes([stamp.kind]) + stamp.digest
        require(
            self.numbers.setdefault(key, content) == content,
            f"node {node} used number {stamp.number} twice",
        )
        match message:
            case PrePrepare():
                self._once(
                    node, "propose", message.epoch, message.view, message.sequence, message.digest
                )
            case ViewChange():
                self._once(node, "view-change", message.epoch, message.view, 0, message.digest)
            case NewView():
                self._once(node, "new-view", message.epoch, message.view, 0, message.digest)
            case VoteVector():
                for leaf in message.leaves:
                    if isinstance(leaf, Prepare):
                        self._once(
                            node, "prepare", leaf.epoch, leaf.view, leaf.sequence, leaf.digest
                        )
                    elif isinstance(leaf, Commit):
                        self._once(
                            node, "commit", leaf.epoch, leaf.view, leaf.sequence, leaf.digest
                        )
                    elif isinstance(leaf, Checkpoint):
                        content = leaf.header_hash + leaf.state_root + leaf.next_set
                        self._once(node, "checkpoint", 0, 0, leaf.height, content)

    def _once(
        self, node: int, what: str, epoch: int, view: int, place: int, content: bytes
    ) -> None:
        known = self.said.setdefault((node, what, epoch, view, place), content)
        require(
            known == content,
            f"node {node} contradicts its own {what} in epoch {epoch}, view {view}, at {place}",
        )

    def bounded(self, replica: Replica) -> None:
        """Every map has a cap (S15)."""
        window = WINDOW_BLOCKS + 2 * AHEAD_BLOCKS_MAX
        caps = (
            ("instances", len(replica.instances), window + WINDOW_BLOCKS),
            ("prepared", len(replica.prepared), 2 * WINDOW_BLOCKS),
            ("checkpoints", len(replica.checkpoints), AHEAD_BLOCKS_MAX),
            ("vectors", len(replica.own_vectors), VECTORS_KEPT_MAX),
            ("bodies", len(replica.bodies), 5 * WINDOW_BLOCKS),
            ("fetched", len(replica.fetched), 2 * HEADERS_PER_REPLY_MAX),
            ("view changes", len(replica.view_changes), replica.members),
            ("uncertified", len(replica.uncertified), AHEAD_BLOCKS_MAX),
            ("early", sum(map(len, replica.early.values())), replica.members * window),
            ("wanted", len(replica.wanted), window),
        )
        for name, size, cap in caps:
            require(size <= cap, f"node {replica.me}: {size} {name}, cap {cap}")
        self._certificates(replica)

    def _certificates(self, replica: Replica) -> None:
        """One certificate for a place in a view (S5); what is certified is in the log (S12)."""
        for entry in replica.prepared.values():
            place = (entry.pre_prepare.epoch, entry.view, entry.sequence)
            digest = entry.pre_prepare.digest
            require(
                self.prepared.setdefault(place, digest) == digest,
                f"two prepared certificates at epoch, view and place {place}",
            )
        if replica.certificate is not None:
            claim = replica.certificate.checkpoint
            content = (claim.header_hash, claim.state_root)
            require(
                self.certified.setdefault(claim.height, content) == content,
                f"a certificate of a block that contradicts another at {claim.height}",
            )

    def durable(self) -> None:
        """Everything acknowledged or certified is in the one log, where it was."""
        for height, content in self.certified.items():
            block = self.log.get(height)
            require(
                block is not None and (block.header.hash, block.block.state_root) == content,
                f"a certificate of a block that nobody executed at {height}",
            )
        for payload, height in self.acknowledged.items():
            stored = self.log.get(height)
            require(
                stored is not None and payload in stored.payloads,
                f"acknowledged payload lost at {height}",
            )


PROPERTIES: Final = (
    ("agreement", "S1 agreement"),
    ("two batches committed", "S1 agreement"),
    ("two prepared certificates", "S5 one certificate"),
    ("state:", "S3 equal states"),
    ("differs from the certified", "S8 certified states"),
    ("is not the certified", "S8 certified states"),
    ("invented payload", "S4 validity"),
    ("unsigned payload", "S4 validity"),
    ("contradicts its own", "S6 no contradiction"),
    ("twice", "S6 no contradiction"),
    ("own numbers only grow", "S6 no contradiction"),
    ("acknowledged payload lost", "S9 durability"),
    ("durability", "S9 durability"),
    ("real time", "S10 real-time order"),
    ("certificate of a block", "S12 light client"),
    ("nobody decided", "S12 light client"),
    ("forged certificate", "S12 light client"),
    ("bad signature in", "S12 light client"),
    ("blames honest", "S13 accountability"),
    ("replay", "S14 replay"),
    ("damaged record", "S14 replay"),
    (", cap ", "S15 bounded memory"),
    ("idle cluster", "L8 late nodes"),
    ("views race", "L2 views"),
    ("views move", "L5 no livelock"),
    ("views still move", "L2 views"),
    ("view changes without any fault", "L2 views"),
    ("after a killed primary", "L7 the gap"),
    ("starves a client", "L1 progress"),
    ("liveness", "L1 progress"),
    ("timers", "L6 timers"),
    ("certificates do not converge", "L3 the tip"),
    ("halted", "no honest node halts"),
)
"""What a violation says, and the property of bft.md 11 that it belongs to."""


def property_of(error: Exception) -> str:
    """The name of the property that a failure violates."""
    text = str(error)
    if not isinstance(error, Violation | InvariantError):
        return f"no message stops a node ({type(error).__name__})"
    for words, name in PROPERTIES:
        if words in text:
            return name
    return "invariant of the core"
