"""Bugs of quorums, certificates and the selection of a new view: what costs agreement."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Final

from consensus.core import quorum, replica, wire
from consensus.core.instance import Instance
from consensus.core.messages import NewView, PreparedCertificate, PrePrepare, ViewChange, VoteProof
from consensus.core.phases import prepare, propose, view_change
from consensus.core.replica import Replica
from consensus.core.types import Sequence
from consensus.errors import MalformedMessage
from consensus.sim import liars
from consensus.sim.planted.bug import Bug, Replace
from consensus.sim.scenes import agreement
from consensus.sim.scenes.agreement import among_liars


def _naive_quorum(put: Replace) -> None:
    def naive(members: int) -> int:
        return 2 * quorum.faults(members) + 1

    put(quorum, "quorum", naive)
    put(replica, "quorum", naive)


def _prepared_dropped(put: Replace) -> None:
    def bare(**values: Any) -> ViewChange:
        return ViewChange(**{**values, "prepared": ()})

    put(view_change, "ViewChange", bare)


def _lowest_view_wins(put: Replace) -> None:
    selection = view_change.selection

    def lowest(changes: Iterable[ViewChange], committee: Any) -> Any:
        kept = list(changes)
        low: dict[int, int] = {}
        for change in kept:
            for entry in change.prepared:
                low[entry.sequence] = min(entry.view, low.get(entry.sequence, entry.view))
        return selection(
            [
                replace(
                    change,
                    prepared=tuple(
                        [entry for entry in change.prepared if entry.view == low[entry.sequence]]
                    ),
                )
                for change in kept
            ],
            committee,
        )

    put(view_change, "selection", lowest)


def _short(certificate: PreparedCertificate, members: int) -> bool:
    signers = {vote.signer for vote in certificate.votes} - {certificate.pre_prepare.signer}
    return len(signers) < quorum.quorum(members) - 1


def _bad_certificate_hides_good_ones(put: Replace) -> None:
    """Certificates are looked at when a place is decided, not when they are decoded."""
    selection = view_change.selection

    def hidden(changes: Iterable[ViewChange], committee: Any) -> Any:
        kept = list(changes)
        bad = {
            entry.sequence
            for change in kept
            for entry in change.prepared
            if _short(entry, committee.members)
        }
        return selection(
            [
                replace(
                    change,
                    prepared=tuple(
                        [entry for entry in change.prepared if entry.sequence not in bad]
                    ),
                )
                for change in kept
            ],
            committee,
        )

    put(view_change, "selection", hidden)
    put(wire, "_distinct", _any_signers_of_prepared)


_distinct = wire._distinct


def _any_signers_of_prepared(
    proofs: tuple[VoteProof, ...], needed: int, excluded: int | None
) -> None:
    if excluded is None:
        _distinct(proofs, needed, excluded)


def _matching_checkpoints_only(put: Replace) -> None:
    selection = view_change.selection

    def matching(changes: Iterable[ViewChange], committee: Any) -> Any:
        kept = list(changes)
        top = max(change.height for change in kept)
        return selection([change for change in kept if change.height == top], committee)

    put(view_change, "selection", matching)


def _re_proposals_validated_again(put: Replace) -> None:
    accept = propose.accept

    def validating(replica: Replica, message: PrePrepare, *, reproposed: bool = False) -> None:
        if reproposed and message.header.proposed_ms <= replica.tip.time_ms:
            return
        accept(replica, message, reproposed=reproposed)

    put(propose, "accept", validating)


def _sequence_reset_by_a_view(put: Replace) -> None:
    install = view_change.install

    def resetting(replica: Replica, message: NewView, certificate: Any) -> None:
        install(replica, message, certificate)
        replica.next_sequence = Sequence(max(replica.executed, replica.certified) + 1)

    put(view_change, "install", resetting)


def _new_view_not_recomputed(put: Replace) -> None:
    def trusting(replica: Replica, message: NewView) -> None:
        if message.view > replica.view or (message.view == replica.view and not replica.active):
            certificate, _ = view_change.selection(message.view_changes, replica.committee)
            view_change.enter(replica, message, certificate)

    put(view_change, "on_new_view", trusting)


def _signer_counted_twice(put: Replace) -> None:
    def counting(proofs: tuple[VoteProof, ...], needed: int, _excluded: int | None) -> None:
        if len(proofs) < needed:
            raise MalformedMessage("a certificate without a quorum")

    put(wire, "_distinct", counting)


def _primary_counted_twice(put: Replace) -> None:
    def careless(replica: Replica, instance: Instance, accepted: PrePrepare) -> None:
        mask = instance.voters(instance.prepares, accepted.digest)
        if mask.bit_count() + 1 >= replica.quorum:
            instance.prepared = True

    put(prepare, "_prepare", careless)


def _short_certificates_in_catch_up(put: Replace) -> None:
    def lax(proofs: tuple[VoteProof, ...], needed: int, excluded: int | None) -> None:
        if excluded is not None:
            _distinct(proofs, needed, excluded)

    put(wire, "_distinct", lax)


def _lock_without_certificate(put: Replace) -> None:
    may_prepare = prepare._may_prepare
    locks: dict[tuple[int, int], bytes] = {}

    def locking(replica: Replica, instance: Instance, accepted: PrePrepare) -> bool:
        place = (replica.boot, instance.sequence)
        return locks.setdefault(place, accepted.digest) == accepted.digest and may_prepare(
            replica, instance, accepted
        )

    put(prepare, "_may_prepare", locking)


BUGS: Final = (
    Bug(
        number=1,
        name="quorum 2f+1 for every n",
        plant=_naive_quorum,
        scenes=(agreement.split_quorums,),
    ),
    Bug(
        number=2,
        name="VIEW-CHANGE without what is prepared",
        plant=_prepared_dropped,
        scenes=(agreement.lonely_commit,),
    ),
    Bug(
        number=2,
        variant="b",
        name="certificate of the lowest view wins",
        plant=_lowest_view_wins,
        scenes=(agreement.two_certificates,),
    ),
    Bug(
        number=3,
        name="an invalid certificate hides valid ones",
        plant=_bad_certificate_hides_good_ones,
        scenes=(agreement.lonely_commit_and_forger,),
    ),
    Bug(
        number=4,
        name="selection from matching checkpoints only",
        plant=_matching_checkpoints_only,
        scenes=(agreement.uneven_checkpoints,),
    ),
    Bug(
        number=5,
        name="re-proposed batches validated again",
        plant=_re_proposals_validated_again,
        scenes=(agreement.proposed_again,),
    ),
    Bug(
        number=5,
        variant="b",
        name="sequence numbers start again in a view",
        plant=_sequence_reset_by_a_view,
        scenes=(agreement.proposed_again,),
    ),
    Bug(
        number=6,
        name="NEW-VIEW accepted without recomputing it",
        plant=_new_view_not_recomputed,
        scenes=(agreement.lonely_commit,),
    ),
    Bug(
        number=7,
        name="a certificate counts a signer twice",
        plant=_signer_counted_twice,
        scenes=(agreement.lonely_commit_and_forger,),
    ),
    Bug(
        number=7,
        variant="b",
        name="the primary's PREPARE counts twice",
        plant=_primary_counted_twice,
        scenes=(agreement.lonely_commit, among_liars(liars.equivocates, leads=True)),
    ),
    Bug(
        number=11,
        name="catch-up trusts certificates with too few signers",
        plant=_short_certificates_in_catch_up,
        scenes=(among_liars(liars.forged_tip),),
    ),
    Bug(
        number=13,
        name="lock without a certificate",
        plant=_lock_without_certificate,
        scenes=(agreement.halves_and_a_silent_primary,),
    ),
)
