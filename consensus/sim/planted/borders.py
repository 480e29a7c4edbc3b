"""Bugs at borders: of the window, of a set of signers, and between two epochs."""

from dataclasses import replace
from typing import Any, Final

from consensus.core import epochs, frames, wire
from consensus.core.instance import Instance
from consensus.core.messages import EpochLink
from consensus.core.replica import Replica
from consensus.core.types import ReplicaIndex
from consensus.sim import liars
from consensus.sim.planted.bug import Bug, Replace
from consensus.sim.scenes import epochs as borders
from consensus.sim.scenes.agreement import among_liars


def _set_without_the_old_quorum(put: Replace) -> None:
    """The certificate beside a set need not name it."""

    def believing(value: Any, bounds: wire.Bounds) -> EpochLink:
        certified, members = wire.fields(value, 2)
        return EpochLink(
            certificate=wire.block_certificate(certified, bounds),
            validators=wire.validator_set(members),
        )

    put(frames, "_READERS", {**frames._READERS, frames.FrameType.EPOCH_LINK: believing})


def _no_window_for_votes(put: Replace) -> None:
    def unbounded(self: Replica, sequence: int) -> Instance | None:
        found = self.instances.get(sequence)
        if found is None and sequence > self.floor:
            found = self.instances[sequence] = Instance(sequence)
        return found

    put(Replica, "instance", unbounded)


def _signer_not_checked(put: Replace) -> None:
    def trusting(value: Any, _bounds: wire.Bounds) -> ReplicaIndex:
        return ReplicaIndex(wire.number(value))

    put(wire, "signer", trusting)


def _epoch_entered_early(put: Replace) -> None:
    """The next epoch begins when its predecessor's last block is executed."""
    due = epochs.enter_if_due

    def early(replica: Replica) -> None:
        certificate, validators = replica.certificate, replica.next_set
        if (
            certificate is not None
            and validators is not None
            and replica.cut == replica.executed
            and certificate.checkpoint.epoch == replica.committee.epoch
        ):
            claim = replace(
                certificate.checkpoint,
                height=replica.tip.height,
                header_hash=replica.tip.header_hash,
                state_root=replica.tip.state_root,
                next_set=validators.hash,
            )
            early_link = replace(certificate, checkpoint=claim)
            epochs.enter(replica, EpochLink(certificate=early_link, validators=validators))
        else:
            due(replica)

    put(epochs, "enter_if_due", early)


BUGS: Final = (
    Bug(
        number=12,
        name="a validator set that no old quorum has named",
        plant=_set_without_the_old_quorum,
        scenes=(borders.set_nobody_decided,),
    ),
    Bug(
        number=29,
        name="instances for votes outside the window",
        plant=_no_window_for_votes,
        scenes=(among_liars(liars.votes_far_ahead),),
    ),
    Bug(
        number=30,
        name="signer index used before it is checked",
        plant=_signer_not_checked,
        scenes=(among_liars(liars.mutates),),
    ),
    Bug(
        number=38,
        name="an epoch entered before the last one is certified",
        plant=_epoch_entered_early,
        scenes=(borders.last_block_uncertified,),
    ),
)
