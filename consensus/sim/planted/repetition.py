"""Bugs of retransmission and catch-up: what is said once only, or to nobody."""

from typing import Any, Final

from consensus.core import catch_up, custody, recovery, retransmit
from consensus.core.messages import Status
from consensus.core.phases import commit, prepare, propose, view_change
from consensus.core.replica import Replica
from consensus.core.types import ReplicaIndex
from consensus.sim.planted.bug import Bug, Replace, nothing
from consensus.sim.scenes import liveness


def _no_retransmission(put: Replace) -> None:
    put(retransmit, "on_timer", retransmit.arm)
    put(retransmit, "_help", nothing)


def _catch_up_waits_for_the_view(put: Replace) -> None:
    fetch, on_timer, lead = catch_up.fetch, catch_up.on_timer, view_change.start

    def fetching(replica: Replica) -> None:
        if replica.active:
            fetch(replica)

    def firing(replica: Replica) -> None:
        if replica.active:
            on_timer(replica)

    def starting(replica: Replica, view: int, reason: str) -> None:
        if replica.executed >= replica.certified:
            lead(replica, view, reason)

    put(catch_up, "fetch", fetching)
    put(catch_up, "on_timer", firing)
    put(view_change, "start", starting)


def _status_without_certificate(put: Replace) -> None:
    def silent(**values: Any) -> Status:
        return Status(**{**values, "certificate": None})

    put(retransmit, "Status", silent)


def _checkpoint_cast_once(put: Replace) -> None:
    put(recovery, "take_part", _taking_part_without_checkpoints)


def _taking_part_without_checkpoints(replica: Replica) -> None:
    prepare.progress_all(replica)
    view_change.resume(replica)
    propose.propose(replica)
    replica.suspect_at = None
    custody.arm(replica)
    # Blocks of an earlier life are never voted for.
    replica.cast_through = replica.executed


def _nothing_is_said_twice(put: Replace) -> None:
    """No vote again, STATUS only out of view, whatever comes early is dropped."""
    on_timer = retransmit.on_timer

    def only_out_of_view(replica: Replica) -> None:
        if replica.active:
            retransmit.arm(replica)
        else:
            on_timer(replica)

    def present_only(function: Any) -> Any:
        def counting(replica: Replica, signer: ReplicaIndex, leaf: Any, *rest: Any) -> Any:
            return None if leaf.view > replica.view else function(replica, signer, leaf, *rest)

        return counting

    put(retransmit, "_resend", nothing)
    put(retransmit, "on_timer", only_out_of_view)
    put(propose, "_keep", nothing)
    put(prepare, "on_prepare", present_only(prepare.on_prepare))
    put(commit, "on_commit", present_only(commit.on_commit))


BUGS: Final = (
    Bug(
        number=21,
        name="no retransmission",
        plant=_no_retransmission,
        scenes=(liveness.one_goes_ahead, liveness.late_and_idle),
    ),
    Bug(
        number=24,
        name="catch-up and view change wait for each other",
        plant=_catch_up_waits_for_the_view,
        scenes=(liveness.late_in_a_view_change,),
    ),
    Bug(
        number=25,
        name="STATUS shows no certificate",
        plant=_status_without_certificate,
        scenes=(liveness.late_and_idle,),
    ),
    Bug(
        number=34,
        name="CHECKPOINT cast at execution only",
        plant=_checkpoint_cast_once,
        scenes=(liveness.uncertified_tip,),
    ),
    Bug(
        number=40,
        name="nothing is said twice or kept for later",
        plant=_nothing_is_said_twice,
        scenes=(liveness.lossy_network,),
    ),
)
