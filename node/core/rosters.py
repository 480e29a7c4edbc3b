"""Where validators and log keys meet: the roster of a validator set.

The ledger's side knows validators, the log's side knows keys; neither knows the other. A founder's
log keys stand in genesis at its place, a later validator's in its credentials.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from trustchain.core.roster import Ended, Roster, Succession

if TYPE_CHECKING:
    from consensus.core.validators import ValidatorSet
    from node.core.genesis import Genesis


def roster_of(genesis: Genesis, validators: ValidatorSet) -> Roster:
    """Who cosigns and issues in the epoch of this set."""
    members = [
        (genesis.validator_index(member.node_id), member.credentials)
        for member in validators.members
    ]
    return Roster.of(genesis.log, int(validators.epoch), members)


def succession_of(
    genesis: Genesis, sets: Iterable[ValidatorSet], ends: Sequence[Ended] = ()
) -> Succession:
    """The rosters of all epochs from genesis on, whose sets were proven by the caller."""
    return Succession(
        rosters=tuple(roster_of(genesis, validators) for validators in sets), ends=tuple(ends)
    )
