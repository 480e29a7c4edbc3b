"""A Byzantine node: an honest replica inside, and a tongue that bends what it says (bft.md 10).

Each way to lie is a *trick*: a function that gets one outgoing message and one receiver, and gives
back what that receiver is told instead; None leaves the message to the next trick. Which tricks a
liar knows is drawn from the seed. Everything a liar says under its key is signed with its own key;
it cannot forge others. And everything passes the decoder and the check of signatures before it
reaches an honest core, because that is the duty of the runtime: `Liar.tell`.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, Final, TypeVar, cast

from consensus.core import frames, wire
from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockCertificate,
    Blocks,
    Checkpoint,
    Commit,
    Leaf,
    Message,
    NewView,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    RecoveryAnswer,
    Status,
    ViewChange,
    VoteProof,
    VoteVector,
    null_batch,
    signatures,
)
from consensus.core.tick import Outgoing
from consensus.core.types import Epoch, Height, Number, ReplicaIndex, Sequence, View
from consensus.errors import MalformedMessage
from consensus.limits import NUMBER_MAX, WINDOW_BLOCKS
from consensus.sim.disk import Body
from consensus.sim.node import SIM_TIMING, Node, sign
from native.values import Digest

if TYPE_CHECKING:
    from random import Random

    from consensus.sim.run import Cluster

M = TypeVar("M", PrePrepare, VoteVector, ViewChange, NewView)
T = TypeVar("T")
Trick = Callable[["Liar", ReplicaIndex, Message], list[Message] | None]

REMEMBERED_MESSAGES_MAX: Final = 200  # what a liar can play again
ALMOST_A_TIMEOUT_US: Final = SIM_TIMING.request_timeout_ms * 900


def admitted(message: Message, chain_id: Digest, members: int) -> Message | None:
    """What the runtime of an honest receiver makes of a frame; None when it is refused."""
    _, frame_type, data = frames.encode(message)
    try:
        decoded = frames.decode(frame_type, data, wire.Bounds(chain_id=chain_id, members=members))
    except MalformedMessage:
        return None
    keys = range(members)
    for signer, signed, signature in signatures(decoded, chain_id):
        if sign(keys[signer], signed) != signature:
            return None
    return decoded


class Silent(Node):
    """Hears everything and says nothing, except while it is let to."""

    def __init__(self, cluster: "Cluster", index: int) -> None:
        super().__init__(cluster, index)
        self.honest = False
        self.speaks = False

    def send(self, peer: ReplicaIndex, outgoing: Outgoing) -> None:
        if self.speaks:
            super().send(peer, outgoing)


class Liar(Node):
    """Never held to the checker's rules."""

    def __init__(self, cluster: "Cluster", index: int) -> None:
        super().__init__(cluster, index)
        self.honest = False
        self.boldness = 0.5
        self.starves: bytes | None = None
        """A payload it never proposes."""
        random = self.world.random
        self.tricks: tuple[Trick, ...] = CLASSIC
        if random.random() < 0.5:
            self.tricks = tuple(random.sample(TRICKS, random.randint(1, 4)))
        self.forged: dict[tuple[int, int, int], PrePrepare] = {}
        self.heard: deque[Message] = deque(maxlen=REMEMBERED_MESSAGES_MAX)
        self.new_view_lies: dict[int, str] = {}

    def side(self, peer: int) -> int:
        """Which of the stories a receiver is told: 0 is the true one."""
        return peer % 2

    def tell(self, peer: ReplicaIndex, message: Message, body: Body | None = None) -> None:
        """Say something that the receiver's runtime must look at before its core does."""
        decoded = admitted(message, self.cluster.chain_id, self.cluster.members)
        if decoded is None:
            self.world.counters["lies refused at the door"] += 1
        else:
            self.cluster.carry(self.index, peer, decoded, body)

    def sealed(self, message: M) -> M:
        """The message under this node's own key."""
        signature = sign(self.index, message.signed_bytes(self.cluster.chain_id))
        return message.signed(signature)

    def count(self, lie: str) -> None:
        self.world.counters[f"lies: {lie}"] += 1

    def bold(self) -> bool:
        return self.world.random.random() < self.boldness

    def send(self, peer: ReplicaIndex, outgoing: Outgoing) -> None:
        message = outgoing.message
        for trick in self.tricks:
            told = trick(self, peer, message)
            if told is None:
                continue
            for lie in told:
                body = None
                if isinstance(lie, PrePrepare):
                    body = self._body(lie.header.payload_root)
                self.tell(peer, lie, body)
            return
        super().send(peer, outgoing)

    def receive(self, sender: ReplicaIndex, message: Message, body: Body | None) -> None:
        self.heard.append(message)
        super().receive(sender, message, body)

    def take_payloads(self, payloads: Iterable[bytes]) -> None:
        super().take_payloads([payload for payload in payloads if payload != self.starves])


def liar_with(*tricks: Trick) -> Callable[["Cluster", int], Liar]:
    """A liar that knows these tricks and no others."""

    def make(cluster: "Cluster", index: int) -> Liar:
        liar = Liar(cluster, index)
        liar.tricks = tricks
        return liar

    return make


# --- silence and delay


def says_nothing(_liar: Liar, _peer: ReplicaIndex, _message: Message) -> list[Message] | None:
    return []


def loses_some(liar: Liar, _peer: ReplicaIndex, _message: Message) -> list[Message] | None:
    return [] if liar.world.random.random() < 0.05 else None


def almost_too_late(liar: Liar, peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Everything comes just before anybody loses patience."""
    liar.count("delayed to nine tenths of the timeout")
    body = liar._body(message.header.payload_root) if isinstance(message, PrePrepare) else None
    liar.world.after(ALMOST_A_TIMEOUT_US, lambda: liar.tell(peer, message, body))
    return []


def withholds_bodies(liar: Liar, peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """PRE-PREPAREs reach everybody, bodies only Q - f of them."""
    cluster = liar.cluster
    if isinstance(message, PrePrepare) and peer >= liar.replica.quorum - (cluster.members - 1) // 3:
        liar.count("body withheld")
        cluster.carry(liar.index, peer, message, None)
        return []
    return None


# --- the normal case


def equivocates(liar: Liar, peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Two batches for one place, each half of the cluster gets one, with votes for both."""
    if isinstance(message, PrePrepare) and message.signer == liar.index:
        forged = _forge(liar, message, liar.side(peer))
        if forged is not None:
            liar.count("two batches for one place")
            return [forged]
    elif isinstance(message, VoteVector) and message.signer == liar.index and liar.side(peer):
        bent = _bent_votes(liar, message, liar.side(peer))
        if bent.leaves == message.leaves or message.number % 4:
            return [bent]
        liar.count("both votes to one peer")
        return [bent, message]
    return None


def equivocates_to_each(liar: Liar, peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Another batch for every receiver."""
    if isinstance(message, PrePrepare) and message.signer == liar.index:
        forged = _forge(liar, message, peer + 1)
        if forged is not None:
            liar.count("another batch for each")
            return [forged]
    return None


def equivocates_to_f(liar: Liar, peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """f nodes get one batch, the rest another."""
    if isinstance(message, PrePrepare) and message.signer == liar.index and peer == 1:
        forged = _forge(liar, message, 1)
        if forged is not None:
            liar.count("another batch for f of them")
            return [forged]
    return None


def _forge(liar: Liar, message: PrePrepare, story: int) -> PrePrepare | None:
    """The other batch for the same place; decided once for each place and story."""
    if not story:
        return None
    place = (message.view, message.sequence, story)
    if place in liar.forged:
        return liar.forged[place]
    if not liar.bold():
        return None
    header = replace(
        message.header,
        proposed_ms=message.header.proposed_ms + story,
        payload_root=EMPTY_ROOT,
    )
    forged = liar.sealed(replace(message, header=header, number=Number(message.number)))
    liar.forged[place] = forged
    return forged


def _bent_votes(liar: Liar, vector: VoteVector, story: int) -> VoteVector:
    """Votes for the forged batches instead, at once for both phases."""
    leaves: list[Leaf] = []
    for leaf in vector.leaves:
        forged = None
        if not isinstance(leaf, Checkpoint):
            forged = liar.forged.get((leaf.view, leaf.sequence, story))
        if forged is None or isinstance(leaf, Checkpoint):
            leaves.append(leaf)
        else:
            leaves.append(replace(leaf, digest=forged.digest))
    for (_, sequence, told), forged in list(liar.forged.items())[-4:]:
        if sequence > liar.replica.certified and told == story:
            for kind in (Prepare, Commit):
                vote = kind(
                    epoch=forged.epoch,
                    view=forged.view,
                    sequence=forged.sequence,
                    digest=forged.digest,
                )
                if vote not in leaves:
                    leaves.append(vote)
    return liar.sealed(replace(vector, leaves=tuple(leaves)))


def votes_too_much(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Double PREPAREs, COMMITs without a certificate, votes for what nobody proposed."""
    if not isinstance(message, VoteVector) or message.signer != liar.index or not liar.bold():
        return None
    random = liar.world.random
    more: list[Leaf] = []
    for leaf in message.leaves:
        if isinstance(leaf, Prepare):
            more.append(
                Commit(epoch=leaf.epoch, view=leaf.view, sequence=leaf.sequence, digest=leaf.digest)
            )
            if random.random() < 0.5:
                liar.count("double PREPARE")
                more.append(replace(leaf, digest=_noise(random)))
        elif isinstance(leaf, Commit):
            more.append(replace(leaf, sequence=Sequence(leaf.sequence + 1), digest=_noise(random)))
    if not more:
        return None
    liar.count("votes without a reason")
    return [liar.sealed(replace(message, leaves=(*message.leaves, *more)))]


def votes_far_ahead(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Votes and batches for places and views nobody will reach."""
    if not isinstance(message, VoteVector | Status):
        return None
    random = liar.world.random
    replica = liar.replica
    leaves: list[Leaf] = []
    for _ in range(80):
        sequence = Sequence(
            replica.executed + random.choice((60, 130, 1_000, 2**40)) + random.randrange(900)
        )
        view = View(replica.view + random.choice((0, 1, 7, 2**30)))
        kind = random.choice((Prepare, Commit))
        leaves.append(kind(epoch=Epoch(0), view=view, sequence=sequence, digest=_noise(random)))
        leaves.append(
            Checkpoint(
                epoch=Epoch(0),
                height=Height(sequence),
                header_hash=_noise(random),
                state_root=_noise(random),
            )
        )
    liar.count("votes far ahead")
    vector = VoteVector(
        epoch=Epoch(0),
        signer=liar.index,
        number=Number(replica.last_number + 1),
        leaves=tuple(leaves),
    )
    return [message, liar.sealed(vector)]


def bad_batches(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Batches of the past and of the future, batches again, batches at the top of the window."""
    if not isinstance(message, PrePrepare) or message.signer != liar.index or not liar.bold():
        return None
    random = liar.world.random
    header = message.header
    kind = random.choice(("stale", "future", "far future", "again", "jump", "unknown body"))
    liar.count(f"batch, {kind}")
    match kind:
        case "stale":
            header = replace(header, proposed_ms=max(0, header.proposed_ms - 60_000))
        case "future":
            header = replace(header, proposed_ms=header.proposed_ms + 2_000)
        case "far future":
            header = replace(header, proposed_ms=2**62)
        case "again":
            root = random.choice(list(liar.bodies))
            header = replace(header, payload_root=root)
        case "jump":
            top = Sequence(liar.replica.certified + WINDOW_BLOCKS)
            return [message, liar.sealed(replace(message, header=replace(header, sequence=top)))]
        case _:
            header = replace(header, payload_root=_noise(random))
    return [liar.sealed(replace(message, header=header))]


def proposes_again(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Every third batch is one that was executed before; everybody is told the same."""
    if not isinstance(message, PrePrepare) or message.signer != liar.index or message.sequence % 3:
        return None
    old = [stored.batch.payload_root for stored in liar.disk.blocks if stored.payloads]
    if not old:
        return None
    liar.count("an executed batch again")
    header = replace(message.header, payload_root=old[0])
    return [liar.sealed(replace(message, header=header))]


def wrong_roots(liar: Liar, peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """CHECKPOINTs with a wrong root, the same to all or another to each."""
    if not isinstance(message, VoteVector) or message.signer != liar.index or not liar.bold():
        return None
    root = Digest(bytes([peer + 1]) * 32) if liar.world.random.random() < 0.5 else Digest(bytes(32))
    leaves = tuple(
        [
            replace(leaf, state_root=root) if isinstance(leaf, Checkpoint) else leaf
            for leaf in message.leaves
        ]
    )
    if leaves == message.leaves:
        return None
    liar.count("wrong state root")
    return [liar.sealed(replace(message, leaves=leaves))]


# --- view changes


def bare_view_change(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    if not isinstance(message, ViewChange) or message.signer != liar.index or not liar.bold():
        return None
    liar.count("VIEW-CHANGE without certificates")
    return [liar.sealed(replace(message, prepared=()))]


def odd_view_change(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Stale, doubled, of another epoch, lower, without certificates, or much too large."""
    if not isinstance(message, ViewChange) or message.signer != liar.index or not liar.bold():
        return None
    random = liar.world.random
    kind = random.choice(("stale", "two", "epoch", "lower", "holes", "huge"))
    liar.count(f"VIEW-CHANGE, {kind}")
    match kind:
        case "stale":
            odd = replace(message, view=View(max(0, message.view - 1)))
        case "two":
            return [message, liar.sealed(replace(message, prepared=message.prepared[1:]))]
        case "epoch":
            odd = replace(message, epoch=Epoch(message.epoch + 1))
        case "lower":
            odd = replace(message, certificate=None)
        case "holes":
            odd = replace(message, prepared=message.prepared[::2])
        case _:
            odd = replace(message, prepared=message.prepared * 70)
    return [liar.sealed(odd)]


def forged_certificates(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """A VIEW-CHANGE with a prepared certificate in which only this node has voted."""
    if not isinstance(message, ViewChange) or message.signer != liar.index:
        return None
    members = liar.cluster.members
    leads = [view for view in range(message.view) if view % members == liar.index]
    base = message.height
    view = View(leads[-1] if leads else max(0, message.view - 1))
    signer = ReplicaIndex(view % members)
    entries: list[PreparedCertificate] = []
    for sequence in range(base + 1, base + 1 + liar.world.random.randint(1, 4)):
        kind = liar.world.random.choice(("short", "double", "of another view"))
        header = BatchHeader(
            chain_id=liar.cluster.chain_id,
            epoch=message.epoch,
            sequence=Sequence(sequence),
            proposed_ms=liar.now().unix_ms,
            payload_root=EMPTY_ROOT,
        )
        proposal = PrePrepare(
            view=view, signer=signer, number=Number(message.number + sequence), header=header
        )
        leaf = Prepare(
            epoch=message.epoch,
            view=view if kind != "of another view" else View(view + 1),
            sequence=proposal.sequence,
            digest=proposal.digest,
        )
        vote = _own_proof(liar, leaf, Number(message.number + 100 + sequence))
        count = 1 if kind == "short" else liar.replica.quorum - 1
        entries.append(
            PreparedCertificate(pre_prepare=liar.sealed(proposal), votes=(vote,) * count)
        )
        liar.count(f"forged certificate, {kind}")
    return [liar.sealed(replace(message, prepared=tuple(entries)))]


def _own_proof(liar: Liar, leaf: Leaf, number: Number) -> VoteProof:
    vector = liar.sealed(
        VoteVector(epoch=leaf.epoch, signer=liar.index, number=number, leaves=(leaf,))
    )
    return VoteProof(
        signer=liar.index, number=number, index=0, size=1, path=(), signature=vector.signature
    )


def forged_tip(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """STATUS, answers and blocks with a block certificate that only this node has signed."""
    if not isinstance(message, Status | RecoveryAnswer | Blocks) or not liar.bold():
        return None
    random = liar.world.random
    leaf = Checkpoint(
        epoch=Epoch(0),
        height=Height(liar.replica.certified + random.choice((1, 1, 2, 40))),
        header_hash=_noise(random),
        state_root=_noise(random),
    )
    vote = _own_proof(liar, leaf, Number(liar.replica.last_number + 1))
    count = random.choice((1, liar.replica.quorum - 1, liar.replica.quorum))
    liar.count("forged block certificate")
    forged = BlockCertificate(checkpoint=leaf, votes=(vote,) * count)
    return [replace(message, certificate=forged)]


def floods_views(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """VIEW-CHANGEs for ever higher views."""
    if not isinstance(message, VoteVector | Status) or not liar.bold():
        return None
    replica = liar.replica
    liar.count("view numbers far ahead")
    step = liar.world.random.choice((1, 2, 100, 10**6))
    flood = ViewChange(
        epoch=Epoch(0),
        view=View(replica.view + step),
        signer=liar.index,
        number=Number(replica.last_number + liar.world.random.randrange(1, 1_000)),
        certificate=replica.certificate,
        prepared=(),
    )
    return [message, liar.sealed(flood)]


def bent_new_view(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """One lie for each view, the same to everybody: a batch left out, or null in its place."""
    if not isinstance(message, NewView) or not message.proposals or message.signer != liar.index:
        return None
    if message.view not in liar.new_view_lies:
        kind = liar.world.random.choice(("short", "null", "null", "other"))
        liar.new_view_lies[message.view] = kind
        match kind:
            case "short":
                liar.count("NEW-VIEW without its last batch")
            case "null":
                liar.count("NEW-VIEW with null for a batch")
            case _:
                liar.count("NEW-VIEW with another batch")
    proposals = message.proposals
    first = proposals[0]
    match liar.new_view_lies[message.view]:
        case "short":
            proposals = proposals[:-1]
        case "null":
            header = null_batch(liar.cluster.chain_id, first.epoch, first.sequence)
            proposals = (liar.sealed(replace(first, header=header)), *proposals[1:])
        case _:
            header = replace(first.header, proposed_ms=first.header.proposed_ms + 1)
            proposals = (liar.sealed(replace(first, header=header)), *proposals[1:])
    return [liar.sealed(replace(message, proposals=proposals))]


def odd_new_view(liar: Liar, peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """V of another view, V too small, or a good one that only half of them get."""
    if not isinstance(message, NewView) or message.signer != liar.index:
        return None
    kind = ("stale V", "Q - 1", "to half")[message.view % 3]
    liar.count(f"NEW-VIEW, {kind}")
    if kind == "to half":
        return [] if liar.side(peer) else None
    changes = message.view_changes
    if kind == "Q - 1":
        changes = changes[:-1]
    else:
        old = replace(changes[0], view=View(max(0, message.view - 1)))
        changes = (liar.sealed(old) if old.signer == liar.index else old, *changes[1:])
    return [liar.sealed(replace(message, view_changes=changes))]


def no_new_view(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """It is asked to lead, and does not."""
    return [] if isinstance(message, NewView) and message.signer == liar.index else None


# --- anything


def replays(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """What it once heard, of anybody, again."""
    if not liar.heard or not liar.bold():
        return None
    liar.count("replayed message")
    return [message, liar.world.random.choice(liar.heard)]


def mutates(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """One field a little different, then signed again."""
    if not liar.bold():
        return None
    changed = mutated(message, liar.world.random)
    match changed:
        case PrePrepare():
            changed = liar.sealed(changed)
        case VoteVector():
            changed = liar.sealed(changed)
        case ViewChange():
            changed = liar.sealed(changed)
        case NewView():
            changed = liar.sealed(changed)
    liar.count("mutated field")
    return [changed]


def mutated(value: T, random: "Random") -> T:
    """A copy of a message in which one field, however deep, is off by a little."""
    return cast("T", _mutated(value, random))


def _mutated(value: object, random: "Random") -> object:
    if is_dataclass(value) and not isinstance(value, type):
        names = [entry.name for entry in fields(value) if entry.init]
        name = random.choice(names)
        return replace(value, **{name: _mutated(getattr(value, name), random)})
    if isinstance(value, tuple):
        return _mutated_rows(value, random)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        step = random.choice(
            (-1, 1, -WINDOW_BLOCKS, WINDOW_BLOCKS, -value, 1 << random.randrange(63))
        )
        changed = min(max(0, int(value) + step), NUMBER_MAX)
        try:
            return type(value)(changed)
        except ValueError:
            return value
    if isinstance(value, bytes) and value:
        at = random.randrange(len(value))
        flipped = bytes([value[at] ^ 1 << random.randrange(8)])
        return type(value)(value[:at] + flipped + value[at + 1 :])
    return value


def _mutated_rows(value: tuple[object, ...], random: "Random") -> tuple[object, ...]:
    if not value:
        return value
    at = random.randrange(len(value))
    match random.randrange(4):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return (*value, value[at])
        case _:
            return (*value[:at], _mutated(value[at], random), *value[at + 1 :])


def _noise(random: "Random") -> Digest:
    return Digest(random.randbytes(32))


CLASSIC: Final[tuple[Trick, ...]] = (
    loses_some,
    equivocates,
    wrong_roots,
    bare_view_change,
    bent_new_view,
)
TRICKS: Final[tuple[Trick, ...]] = (
    *CLASSIC,
    almost_too_late,
    bad_batches,
    equivocates_to_each,
    equivocates_to_f,
    floods_views,
    forged_certificates,
    forged_tip,
    mutates,
    odd_new_view,
    odd_view_change,
    proposes_again,
    replays,
    says_nothing,
    votes_far_ahead,
    votes_too_much,
    withholds_bodies,
)
