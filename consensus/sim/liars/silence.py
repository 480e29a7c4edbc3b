"""Tricks of who says less than it should, or says it late (bft.md 10)."""

from typing import TYPE_CHECKING, Final

from consensus.core.messages import Message, NewView, PrePrepare
from consensus.core.types import ReplicaIndex
from consensus.sim.node import SIM_TIMING

if TYPE_CHECKING:
    from consensus.sim.liars.liar import Liar

ALMOST_A_TIMEOUT_US: Final = SIM_TIMING.request_timeout_ms * 900


def says_nothing(_liar: "Liar", _peer: ReplicaIndex, _message: Message) -> list[Message] | None:
    return []


def loses_some(liar: "Liar", _peer: ReplicaIndex, _message: Message) -> list[Message] | None:
    return [] if liar.world.random.random() < 0.05 else None


def almost_too_late(liar: "Liar", peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Everything comes just before anybody loses patience."""
    liar.count("delayed to nine tenths of the timeout")
    body = liar._body(message.header.payload_root) if isinstance(message, PrePrepare) else None
    liar.world.after(ALMOST_A_TIMEOUT_US, lambda: liar.tell(peer, message, body))
    return []


def withholds_bodies(liar: "Liar", peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """PRE-PREPAREs reach everybody, bodies only Q - f of them."""
    cluster = liar.cluster
    if isinstance(message, PrePrepare) and peer >= liar.replica.quorum - (cluster.members - 1) // 3:
        liar.count("body withheld")
        cluster.carry(liar.index, peer, message, None)
        return []
    return None


def no_new_view(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """It is asked to lead, and does not."""
    return [] if isinstance(message, NewView) and message.signer == liar.index else None
