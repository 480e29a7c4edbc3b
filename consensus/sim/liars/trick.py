"""What a trick is: one way to lie."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from consensus.core.messages import Message
from consensus.core.types import ReplicaIndex
from native.values import Digest

if TYPE_CHECKING:
    from random import Random

    from consensus.sim.liars.liar import Liar

Trick = Callable[["Liar", ReplicaIndex, Message], list[Message] | None]
"""Gets one outgoing message and one receiver; gives what that one is told instead, or None."""


def noise(random: "Random") -> Digest:
    """A digest of nothing."""
    return Digest(random.randbytes(32))
