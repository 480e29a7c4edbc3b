"""Who lies: an honest replica inside, and a tongue that bends what it says (bft.md 10)."""

from collections import deque
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final, TypeVar

from consensus.core import frames, wire
from consensus.core.messages import Message, NewView, PrePrepare, ViewChange, VoteVector, signatures
from consensus.core.tick import Outgoing
from consensus.core.types import ReplicaIndex
from consensus.errors import MalformedMessage
from consensus.sim.disk import Body
from consensus.sim.liars.anything import mutates, replays
from consensus.sim.liars.forgery import forged_certificates, forged_tip
from consensus.sim.liars.normal_case import (
    bad_batches,
    equivocates,
    equivocates_to_each,
    equivocates_to_f,
    proposes_again,
    votes_far_ahead,
    votes_too_much,
    wrong_roots,
)
from consensus.sim.liars.silence import almost_too_late, loses_some, says_nothing, withholds_bodies
from consensus.sim.liars.trick import Trick
from consensus.sim.liars.view_changes import (
    bare_view_change,
    bent_new_view,
    floods_views,
    odd_new_view,
    odd_view_change,
)
from consensus.sim.node import Node, sign
from native.values import Digest

if TYPE_CHECKING:
    from consensus.sim.run import Cluster

M = TypeVar("M", PrePrepare, VoteVector, ViewChange, NewView)

REMEMBERED_MESSAGES_MAX: Final = 200  # what a liar can play again
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


def admitted(message: Message, chain_id: Digest, members: int) -> Message | None:
    """What the runtime of an honest receiver makes of a frame; None when it is refused."""
    _, frame_type, data = frames.encode(message)
    try:
        decoded = frames.decode(frame_type, data, wire.Bounds(chain_id=chain_id, members=members))
    except MalformedMessage:
        return None
    keys = range(members)
    for _, signer, signed, signature in signatures(decoded, chain_id):
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
