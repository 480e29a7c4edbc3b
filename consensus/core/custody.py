"""Custody timers: when to forward payloads to the primary, and when to suspect it (bft.md 3.6.1).

The clock of the oldest payload starts at the later of its first sight and the entry into the view,
and runs for T, doubled for each view that failed in a row. After a quarter of T it is forwarded, so
a primary that never saw it has the rest; see `_forward_at` for how much, and how often. T follows
the measured time from first sight to execution, between a floor and a cap. Nothing here looks at
throughput: that deposes honest primaries under open-loop load.

What views that failed have doubled comes down only with evidence that less is enough: see
`on_block`. A machine that is slow for a while would else depose each primary after its first block.
"""

from typing import TYPE_CHECKING

from consensus.core.effects import Fault, ForwardCustody
from consensus.core.inputs import CustodyChanged, CustodyShown, Timer
from consensus.core.phases import propose, view_change
from consensus.core.types import NOBODY, ReplicaIndex
from consensus.limits import (
    BACKOFF_DOUBLINGS_MAX,
    CLOCK_STALE_MS_MAX,
    JUDGED_BATCHES,
    QUICK_BLOCKS,
    SLOW_VIEW_PATIENCES_MAX,
    SUSPICIONS_POSTPONED_MAX,
)

if TYPE_CHECKING:
    from consensus.core.replica import Replica


def on_changed(replica: "Replica", custody: CustodyChanged) -> None:
    """Payloads came or went."""
    before = replica.oldest_us
    had_pending = replica.pending > 0
    replica.pending = custody.pending
    replica.pending_bytes = custody.pending_bytes
    replica.oldest_us = custody.oldest_us
    if before is not None and before != custody.oldest_us:
        replica.ages_us.append(replica.now.monotonic_us - before)
        _adapt(replica)
    propose.propose(replica)
    if before != custody.oldest_us or not had_pending:
        arm(replica)


def _adapt(replica: "Replica") -> None:
    """T = twice the 99th percentile of the age at which the oldest payload left custody."""
    timing = replica.timing
    if len(replica.ages_us) < replica.ages_us.maxlen // 2:  # type: ignore[operator]
        return
    ages = sorted(replica.ages_us)
    measured = 2 * ages[len(ages) * 99 // 100]
    replica.request_timeout_us = min(
        max(measured, timing.request_timeout_ms_min * 1_000),
        timing.request_timeout_ms_max * 1_000,
    )


def on_block(replica: "Replica", accepted_us: int | None) -> None:
    """A block of this view was executed: how much patience did it need?

    It took the time since it, and all before it, could be voted for; what the primary dates ahead
    or sends out of order proves nothing about the machine, nor does what was accepted in an earlier
    life (None). (How long payloads have waited says nothing either: a primary can starve one client
    and serve all others.) It is quick if that is under a quarter of the present patience. After
    `QUICK_BLOCKS` quick ones in a row, over no less than that patience, it comes down to the least
    doubling of T under which all of them would have been quick. Views that fail meanwhile are no
    slow blocks: in a set that rotates, a dead member fails one every round.

    So on a slow machine the patience stays above four times its slowest block, and on one that has
    recovered it is back at T within 48 T (32 and 16) and twice `QUICK_BLOCKS` blocks.
    """
    if accepted_us is None:
        return
    now = replica.now.monotonic_us
    since = min(now, max(accepted_us, replica.blocks_since_us))
    replica.blocks_since_us = since
    took = now - since
    patience = view_change.timeout_us(replica)
    replica.view_works = 4 * took < patience
    if not replica.view_works:
        replica.quick_blocks = 0
        _lose_patience(replica)
        return
    if not replica.quick_blocks:
        replica.quick_since_us = now
        replica.quick_us_max = 0
    replica.quick_blocks += 1
    replica.quick_us_max = max(replica.quick_us_max, took)
    if replica.quick_blocks < QUICK_BLOCKS or now - replica.quick_since_us < patience:
        return
    replica.quick_blocks = 0
    doublings = min(replica.failed_views, BACKOFF_DOUBLINGS_MAX)
    while doublings and 4 * replica.quick_us_max < replica.request_timeout_us << (doublings - 1):
        doublings -= 1
    replica.failed_views = doublings


def _lose_patience(replica: "Replica") -> None:
    """One view may not keep the patience up for ever: its primary can make blocks slow at will.

    It need only send a PRE-PREPARE to some at once and to the others late, and no clock here can
    tell that from a slow machine. Where the machine is slow, the view fails, and that is put right.
    """
    since = max(replica.entered_us, replica.patient_since_us)
    now = replica.now.monotonic_us
    if now - since >= SLOW_VIEW_PATIENCES_MAX * view_change.timeout_us(replica):
        replica.patient_since_us = now
        replica.failed_views = max(0, min(replica.failed_views, BACKOFF_DOUBLINGS_MAX) - 1)


def arm(replica: "Replica") -> None:
    """Set the one timer that forwards and suspects."""
    at = _next(replica)
    if at == replica.suspect_at:
        return
    replica.suspect_at = at
    if at is None:
        replica.clear_timer(Timer.SUSPECT)
    else:
        replica.set_timer(Timer.SUSPECT, at)


def _next(replica: "Replica") -> int | None:
    if not replica.active:
        return None
    times = [_idle_deadline(replica)]
    if replica.oldest_us is not None:
        times.append(_custody_deadline(replica, replica.oldest_us))
        if replica.pending and _forwards(replica):
            times.append(_forward_at(replica, replica.oldest_us))
    return min(times)


def _forward_at(replica: "Replica", oldest_us: int) -> int:
    """When the next payloads are shown to the primary of this view.

    A quarter of T after the oldest one came that it was not shown and has not proposed; and T / 8
    after the last ones, so that it is shown six times as many as fit before any of them is T old.
    Each payload is shown once in a view, and again when what carried it was lost.

    A primary with full batches has more to propose than it can: what is old here waits there too,
    most likely, and showing it is traffic for who has most. Such a one is shown them each T / 2.
    """
    timeout = replica.request_timeout_us
    at = max(oldest_us, replica.unshown_us) + timeout // 4
    if replica.forwarded_us is not None:
        at = max(at, replica.forwarded_us + timeout // (2 if replica.crowded else 8))
    return at


def _patience_us(replica: "Replica") -> int:
    patience = view_change.timeout_us(replica)
    primary = replica.committee.primary(replica.view)
    if primary != replica.me and not replica.peers[primary].connected:
        patience //= 2
    return patience


def _custody_deadline(replica: "Replica", oldest_us: int) -> int:
    return max(oldest_us, replica.entered_us) + _patience_us(replica)


def _idle_deadline(replica: "Replica") -> int:
    """The primary proposes an empty batch when idle; who executes none for long suspects it."""
    last = replica.entered_us
    if replica.executed_us is not None:
        last = max(last, replica.executed_us)
    return last + 2 * replica.timing.idle_block_interval_ms * 1_000 + _patience_us(replica)


def on_suspect(replica: "Replica") -> None:
    """The time has come to forward or to suspect."""
    due = replica.suspect_at
    replica.suspect_at = None
    if not replica.active:
        return
    now = replica.now.monotonic_us
    grace = replica.request_timeout_us // 4
    paused = due is not None and now - due > grace
    if not paused:
        replica.postponed = 0
    elif replica.postponed < SUSPICIONS_POSTPONED_MAX:
        replica.postponed += 1
    else:
        paused = False
    if paused or replica.certified > replica.executed:
        # This process did not run for a while, or others have certified what it has not executed
        # yet: it must not blame the primary for its own lag. But a node that is always late looks
        # after a few times: a cluster of such nodes would keep a dead primary.
        replica.suspect_at = now + grace
        replica.set_timer(Timer.SUSPECT, now + grace)
        return
    oldest = replica.oldest_us
    if oldest is not None and now >= _custody_deadline(replica, oldest):
        view_change.start(replica, replica.view + 1, "a payload waits too long")
    elif now >= _idle_deadline(replica):
        view_change.start(replica, replica.view + 1, "no block for too long")
    elif (
        oldest is not None
        and replica.pending
        and _forwards(replica)
        and now >= _forward_at(replica, oldest)
    ):
        _forward(replica, now - replica.request_timeout_us // 8)
    if replica.active:
        arm(replica)
        if replica.suspect_at is not None and replica.suspect_at <= now:
            # This replica may not ask for a view (starting, recovering): look again later.
            replica.suspect_at = now + replica.request_timeout_us
            replica.set_timer(Timer.SUSPECT, replica.suspect_at)


def show_from_start(replica: "Replica") -> None:
    """The next primary was shown nothing, and has proposed nothing."""
    replica.forwarded_us = None
    replica.forward_first = 0
    replica.unshown_us = 0
    replica.crowded = False


def on_entry(replica: "Replica") -> None:
    """A view or an epoch begins: show its primary at once what waits here."""
    if replica.oldest_us is not None and _forwards(replica):
        _forward(replica, replica.now.monotonic_us)


def _forwards(replica: "Replica") -> bool:
    """Members only: nobody takes payloads from a node outside the set."""
    return not replica.is_primary and replica.me != NOBODY


def _forward(replica: "Replica", until_us: int) -> None:
    """Show the primary of this view more of what waits here, as old as this or older."""
    replica.forwarded_us = replica.now.monotonic_us
    replica.emit(
        ForwardCustody(
            peer=replica.committee.primary(replica.view),
            first=replica.forward_first,
            until_us=until_us,
        )
    )


def on_shown(replica: "Replica", shown: CustodyShown) -> None:
    """The primary was shown what comes before this place."""
    replica.forward_first = shown.first
    now = replica.now.monotonic_us
    replica.unshown_us = now if shown.waiting_us is None else shown.waiting_us
    arm(replica)


def on_connected(replica: "Replica", peer: ReplicaIndex) -> None:
    """What was on its way to a primary ended with its old connection: show it all again.

    At the same pace, so that one that connects again and again is sent no more.
    """
    if peer == replica.committee.primary(replica.view):
        replica.forward_first = 0
        replica.unshown_us = 0
    arm(replica)


def remind(replica: "Replica") -> None:
    """A payload that waits for T and longer is shown to everybody: they too must be impatient."""
    now = replica.now.monotonic_us
    oldest = replica.oldest_us
    if oldest is None or now - oldest < replica.request_timeout_us:
        return
    if replica.reminded_us is None or now - replica.reminded_us >= replica.request_timeout_us:
        replica.reminded_us = now
        replica.emit(ForwardCustody(peer=None))


def watch_clock(replica: "Replica", proposed_ms: int) -> None:
    """A primary whose fresh proposals stay far in the past is as bad as a slow one."""
    if replica.now.unix_ms - proposed_ms <= CLOCK_STALE_MS_MAX:
        replica.stale_since_us = None
        return
    now = replica.now.monotonic_us
    if replica.stale_since_us is None:
        replica.stale_since_us = now
    elif now - replica.stale_since_us > replica.request_timeout_us:
        replica.blame(replica.committee.primary(replica.view), Fault.STALE_CLOCK)
        view_change.start(replica, replica.view + 1, "proposed times are far in the past")


def judge_batch(replica: "Replica", payloads: int, malformed: int) -> None:
    """More than a tenth of the last 64 batches undecodable: the primary fills them with rubbish.

    Only failures that depend on no state count: any node could have seen them before proposing.
    """
    replica.judged.append((payloads, malformed))
    if len(replica.judged) < JUDGED_BATCHES or replica.is_primary or not malformed:
        return
    total = sum(count for count, _ in replica.judged)
    if sum(bad for _, bad in replica.judged) * 10 > total:
        replica.blame(replica.committee.primary(replica.view), Fault.REFUSED_PAYLOADS)
        view_change.start(replica, replica.view + 1, "batches are full of malformed payloads")
