"""Who votes in an epoch: the value that a CHECKPOINT leaf names by its hash (bft.md 3.8).

The order of the members is their replica index. A set of genesis has epoch 0; every later one is
made by an application (`Executed.next_validators`) and takes effect one window after its block.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from consensus.core.types import Epoch
from native.codec import Value, encode
from native.hashing import sha256
from native.values import Digest, NodeId, PublicKey


@dataclass(frozen=True, slots=True, kw_only=True)
class Validator:
    """One voting member. The key binds its votes; the name is for people.

    `credentials` are bytes of an application, certified with the set and not read by consensus: a
    client that follows the epochs learns them with the keys. Members of genesis have none.
    """

    name: str
    key: PublicKey
    credentials: bytes = b""

    @property
    def node_id(self) -> NodeId:
        return self.key.node_id

    def value(self) -> tuple[Value, ...]:
        if not self.credentials:
            return (self.name, self.key.spki)
        return (self.name, self.key.spki, self.credentials)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorSet:
    """The members of one epoch, and the hash that certificates name them by."""

    epoch: Epoch
    members: tuple[Validator, ...]
    hash: Digest = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "hash", Digest(sha256(encode(self.value()))))

    def value(self) -> tuple[Value, ...]:
        return (
            int(self.epoch),
            tuple([validator.value() for validator in self.members]),
        )

    def index_of(self, node_id: NodeId) -> int | None:
        """The replica index of a node, None when it does not vote in this epoch."""
        for index, validator in enumerate(self.members):
            if validator.node_id == node_id:
                return index
        return None
