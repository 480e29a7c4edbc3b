"""Which validators vote now, as the runtime knows it: one value, replaced when an epoch begins.

It follows consensus and decides nothing. Who reads it keeps no copy of what it says.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from consensus.core.types import Epoch, Height
from consensus.core.validators import Validator, ValidatorSet
from native import FalconVerifier
from node.core.rosters import roster_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from caesar.runtime.validators import ValidatorsApplication
    from consensus.core.epochs import Epochs
    from consensus.core.messages import EpochLink
    from consensus.core.records import ExecutedBlock
    from native.values import NodeId
    from node.core.genesis import Genesis
    from trustchain.core.roster import Roster


class Membership:
    """The sets of all epochs, and this node's place in the newest."""

    def __init__(self, epochs: Epochs, own: NodeId) -> None:
        self.epochs = epochs
        self._own = own

    def enter(self, link: EpochLink) -> None:
        """The next epoch begins."""
        self.epochs = self.epochs.extended(link)

    @property
    def validators(self) -> Sequence[Validator]:
        """The present members; their order is their replica index."""
        return self.epochs.newest.members

    @property
    def node_ids(self) -> list[NodeId]:
        """The same as node ids."""
        return [validator.node_id for validator in self.validators]

    @property
    def index(self) -> int | None:
        """This node's replica index; None while it observes."""
        return self.epochs.newest.index_of(self._own)

    def roster(self, genesis: Genesis) -> Roster:
        """Who cosigns and issues in the newest epoch."""
        return roster_of(genesis, self.epochs.newest)

    def verifiers(self) -> list[list[FalconVerifier]]:
        """Decoded keys of every epoch, rising."""
        return [
            [FalconVerifier(validator.key.raw) for validator in validators.members]
            for validators in self.epochs.sets
        ]


def decision(tip: ExecutedBlock, validators: ValidatorsApplication) -> ExecutedBlock | None:
    """What the state at `tip` says of the next set; its block may be below the oldest held."""
    pending = validators.registry.pending
    if pending is None:
        return None
    return replace(tip, height=Height(pending.ordered_at), next_validators=pending.next)


def genesis_set(genesis: Genesis) -> ValidatorSet:
    """The set of epoch 0."""
    return ValidatorSet(
        epoch=Epoch(0),
        members=tuple(
            Validator(name=validator.name, key=validator.key) for validator in genesis.validators
        ),
    )
