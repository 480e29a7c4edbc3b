"""PREPARE: every replica promises one batch for each place in a view (bft.md 3.2).

A backup PREPAREs iff the view is active, the place is in the window and at most P_MAX above what it
executed, it accepted no other batch there, executed no other, holds the body, and its clock has
reached the proposed time minus 500 ms (re-proposals are exempt). Nothing that needs application
state is a condition. Whatever is not fulfilled *yet* only delays.

`progress` moves one instance as far as it goes; it is called again whenever something it may have
waited for has happened.
"""

from typing import TYPE_CHECKING

from consensus.core import evidence
from consensus.core.certificates import prepared_certificate
from consensus.core.effects import Fault, Persist, Send, Vote
from consensus.core.inputs import Timer
from consensus.core.instance import Ballot, Instance
from consensus.core.messages import Commit, Prepare, PrePrepare, VoteVector
from consensus.core.phases import commit
from consensus.core.records import Accepted, Prepared
from consensus.core.types import ReplicaIndex
from consensus.limits import CLOCK_AHEAD_MS_MAX, IN_FLIGHT_BLOCKS_MAX, WINDOW_BLOCKS

if TYPE_CHECKING:
    from consensus.core.replica import Replica


def on_prepare(
    replica: "Replica", signer: ReplicaIndex, leaf: Prepare, vector: VoteVector, index: int
) -> Instance | None:
    """Count one PREPARE; the instance if it may move now."""
    view = leaf.view
    if view < replica.view:
        replica.votes_late += 1
        return None
    instance = replica.instance(leaf.sequence)
    if instance is None:
        return None
    ballot = Ballot(view, leaf.digest, vector, index)
    if view > replica.view:
        kept = instance.later_prepares.get(signer)
        if kept is None or kept.view < view:
            instance.later_prepares[signer] = ballot
        elif kept.view == view and kept.digest != leaf.digest:
            accuse(replica, signer, kept, ballot)
        return None
    counted = instance.prepares.get(signer)
    if counted is not None:
        if counted.digest != leaf.digest:
            accuse(replica, signer, counted, ballot)
        return None
    instance.prepares[signer] = ballot
    accepted = instance.pre_prepare
    if accepted is None:
        return None
    if accepted.digest != leaf.digest:
        _tell_conflict(replica, instance, signer, accepted)
        return None
    return instance


def accuse(replica: "Replica", signer: ReplicaIndex, known: Ballot, other: Ballot) -> None:
    """Two votes of one kind for two batches at one place, in one view."""
    replica.accuse(
        signer,
        evidence.of_vote(known.vector, known.index),
        evidence.of_vote(other.vector, other.index),
    )


def _tell_conflict(
    replica: "Replica", instance: Instance, signer: ReplicaIndex, accepted: PrePrepare
) -> None:
    """Somebody prepares another batch here: with our PRE-PREPARE it can prove who lied."""
    bit = 1 << signer
    if not instance.conflict_told & bit and signer != replica.me:
        instance.conflict_told |= bit
        replica.emit(Send(peer=signer, message=accepted))


def progress(replica: "Replica", instance: Instance) -> None:
    """PRE-PREPARED to PREPARED to COMMITTED, as far as it goes."""
    accepted = instance.pre_prepare
    if (
        accepted is None
        or not replica.active
        or instance.committed
        or not replica.holds(accepted.header.payload_root)
    ):
        return
    may_vote = replica.certified < instance.sequence <= replica.last_of(
        WINDOW_BLOCKS
    ) and replica.may_vote(accepted.view)
    if may_vote and not instance.voted_prepare and _may_prepare(replica, instance, accepted):
        instance.voted_prepare = True
        _keep_accepted(replica, instance, accepted)
        if accepted.signer != replica.me:
            replica.emit(
                Vote(
                    leaf=Prepare(
                        epoch=accepted.epoch,
                        view=accepted.view,
                        sequence=accepted.sequence,
                        digest=accepted.digest,
                    )
                )
            )
    if not instance.prepared:
        _prepare(replica, instance, accepted)
    if instance.prepared:
        if may_vote and not instance.voted_commit:
            instance.voted_commit = True
            _keep_accepted(replica, instance, accepted)
            replica.emit(
                Vote(
                    leaf=Commit(
                        epoch=accepted.epoch,
                        view=accepted.view,
                        sequence=accepted.sequence,
                        digest=accepted.digest,
                    )
                )
            )
        commit.progress(replica, instance, accepted)


def progress_all(replica: "Replica") -> None:
    """The window moved, the clock moved, or this replica may vote from now on."""
    for sequence in sorted(replica.instances):
        instance = replica.instances.get(sequence)
        if instance is not None:
            progress(replica, instance)


def _may_prepare(replica: "Replica", instance: Instance, accepted: PrePrepare) -> bool:
    if instance.sequence > replica.executed + IN_FLIGHT_BLOCKS_MAX:
        return False
    if instance.batch is not None and instance.batch.digest != accepted.digest:
        replica.blame(accepted.signer, Fault.EQUIVOCATION)
        return False
    if instance.batch is None and instance.sequence <= replica.executed:
        known = replica.prepared.get(instance.sequence)
        if known is not None and known.pre_prepare.digest != accepted.digest:
            return False
    wait_ms = clock_wait_ms(replica, instance, accepted)
    if wait_ms > 0:
        if replica.clock_wait_ms is None or accepted.header.proposed_ms < replica.clock_wait_ms:
            replica.clock_wait_ms = accepted.header.proposed_ms
            replica.set_timer(Timer.CLOCK, replica.now.monotonic_us + wait_ms * 1_000)
        return False
    return True


def clock_wait_ms(replica: "Replica", instance: Instance, accepted: PrePrepare) -> int:
    """How long the time rule delays our PREPARE from now on."""
    if instance.reproposed or accepted.signer == replica.me:
        return 0
    return max(0, accepted.header.proposed_ms - CLOCK_AHEAD_MS_MAX - replica.now.unix_ms)


def _keep_accepted(replica: "Replica", instance: Instance, accepted: PrePrepare) -> None:
    if not instance.accepted_durably:
        instance.accepted_durably = True
        replica.unwritten.add(accepted.header.payload_root)
        replica.emit(Persist(record=Accepted(pre_prepare=accepted)))


def _prepare(replica: "Replica", instance: Instance, accepted: PrePrepare) -> None:
    """Prepared: PRE-PREPARE and PREPAREs of Q distinct replicas, the primary counted once."""
    primary = accepted.signer
    mask = instance.voters(instance.prepares, accepted.digest) & ~(1 << primary)
    if mask.bit_count() + 1 < replica.quorum:
        return
    instance.prepared = True
    certificate = prepared_certificate(
        accepted,
        [
            (signer, ballot.vector, ballot.index)
            for signer, ballot in instance.prepares.items()
            if mask >> signer & 1 and ballot.digest == accepted.digest
        ],
        replica.quorum - 1,
    )
    if instance.sequence > replica.certified:
        known = replica.prepared.get(instance.sequence)
        if known is None or known.view < certificate.view:
            replica.prepared[instance.sequence] = certificate
            replica.emit(Persist(record=Prepared(certificate=certificate)))
