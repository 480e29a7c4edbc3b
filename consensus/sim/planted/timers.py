"""Bugs of timers, suspicion and custody: clusters that stand still, or never do."""

from typing import Any, Final

from consensus.core import custody
from consensus.core.effects import Effect, ForwardCustody
from consensus.core.inputs import Timer
from consensus.core.phases import view_change
from consensus.core.replica import Replica
from consensus.sim.planted.bug import Bug, Replace, nothing
from consensus.sim.scenes import liveness


def _timer_restarted_by_each_block(put: Replace) -> None:
    def patient(replica: Replica, oldest_us: int) -> int:
        begin = max(oldest_us, replica.entered_us, replica.executed_us or 0)
        return begin + custody._patience_us(replica)

    put(custody, "_custody_deadline", patient)


def _load_restarts_the_view_timer(put: Replace) -> None:
    on_changed = custody.on_changed

    def restarting(replica: Replica, change: Any) -> None:
        on_changed(replica, change)
        if not replica.active and replica.view_timer_for == replica.view:
            replica.set_timer(
                Timer.VIEW_CHANGE,
                replica.now.monotonic_us + view_change.timeout_us(replica),
            )

    put(custody, "on_changed", restarting)


def _back_off_without_cap(put: Replace) -> None:
    put(view_change, "BACKOFF_DOUBLINGS_MAX", 60)


def _no_join(put: Replace) -> None:
    put(view_change, "_join", nothing)


def _view_timer_without_quorum(put: Replace) -> None:
    def hasty(replica: Replica) -> None:
        if not replica.active and replica.view_timer_for != replica.view:
            replica.view_timer_for = replica.view
            replica.set_timer(
                Timer.VIEW_CHANGE,
                replica.now.monotonic_us + view_change.timeout_us(replica),
            )

    put(view_change, "_watch", hasty)


def _join_anybody(put: Replace) -> None:
    def joining(replica: Replica) -> None:
        higher = [
            message.view
            for signer, message in sorted(replica.view_changes.items())
            if message.view > replica.view and signer != replica.me
        ]
        if higher:
            view_change.start(replica, max(higher), "joined another")

    put(view_change, "_join", joining)


def _anybody_moves_all(put: Replace) -> None:
    _join_anybody(put)
    _view_timer_without_quorum(put)


def _only_a_dead_primary_is_suspected(put: Replace) -> None:
    on_suspect = custody.on_suspect

    def trusting(replica: Replica) -> None:
        primary = replica.committee.primary(replica.view)
        if primary == replica.me or not replica.peers[primary].connected:
            on_suspect(replica)
        else:
            replica.suspect_at = None
            custody.arm(replica)
            if replica.suspect_at is not None and replica.suspect_at <= replica.now.monotonic_us:
                replica.suspect_at = replica.now.monotonic_us + replica.request_timeout_us
                replica.set_timer(Timer.SUSPECT, replica.suspect_at)

    put(custody, "on_suspect", trusting)


def _view_timer_for_exactly_this_view(put: Replace) -> None:
    def exact(replica: Replica) -> None:
        if replica.active or replica.view_timer_for == replica.view:
            return
        wanting = sum(message.view == replica.view for message in replica.view_changes.values())
        if replica.me in replica.view_changes and wanting >= replica.quorum:
            replica.view_timer_for = replica.view
            replica.set_timer(
                Timer.VIEW_CHANGE,
                replica.now.monotonic_us + view_change.timeout_us(replica),
            )

    put(view_change, "_watch", exact)


def _timer_from_first_sight(put: Replace) -> None:
    def impatient(replica: Replica, oldest_us: int) -> int:
        return oldest_us + custody._patience_us(replica)

    put(custody, "_custody_deadline", impatient)


def _custody_not_forwarded(put: Replace) -> None:
    emit = Replica.emit

    def quiet(self: Replica, effect: Effect) -> None:
        if not isinstance(effect, ForwardCustody):
            emit(self, effect)

    put(Replica, "emit", quiet)


BUGS: Final = (
    Bug(
        number=19,
        name="custody timer restarted by each block",
        plant=_timer_restarted_by_each_block,
        scenes=(liveness.starved_client,),
    ),
    Bug(
        number=20,
        name="load restarts the view-change timer",
        plant=_load_restarts_the_view_timer,
        scenes=(liveness.dead_primary_under_load,),
    ),
    Bug(
        number=22,
        name="back-off without a cap",
        plant=_back_off_without_cap,
        scenes=(liveness.long_outage,),
    ),
    Bug(
        number=22,
        variant="b",
        name="no join on W VIEW-CHANGEs",
        plant=_no_join,
        scenes=(liveness.scattered_views,),
    ),
    Bug(
        number=23,
        name="view timer runs without a quorum",
        plant=_view_timer_without_quorum,
        scenes=(liveness.alone_for_long,),
    ),
    Bug(
        number=27,
        name="only a disconnected primary is suspected",
        plant=_only_a_dead_primary_is_suspected,
        scenes=(liveness.frozen_primary,),
    ),
    Bug(
        number=28,
        name="one node moves all to its view",
        plant=_anybody_moves_all,
        scenes=(liveness.deaf_node,),
    ),
    Bug(
        number=33,
        name="view timer needs Q for exactly this view",
        plant=_view_timer_for_exactly_this_view,
        scenes=(liveness.one_goes_ahead,),
    ),
    Bug(
        number=35,
        name="custody timer from first sight alone",
        plant=_timer_from_first_sight,
        scenes=(liveness.slow_links_after_an_outage,),
    ),
    Bug(
        number=37,
        name="custody is not forwarded to the primary",
        plant=_custody_not_forwarded,
        scenes=(liveness.no_fault_at_all,),
    ),
)
