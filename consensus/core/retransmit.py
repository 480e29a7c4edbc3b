"""STATUS: tell where we stand, see where others stand, re-send what they lack (bft.md 3.6.7).

Sent on every reconnect, every few hundred milliseconds while something is stuck, and as a slow
heartbeat otherwise, so that a late node hears of newer certificates even when the cluster is idle.
All answers are limited in rate for each peer; two healthy nodes fall silent at once.

A timer that fires late says that this node cannot keep up with what it receives. Then it asks and
answers less often, up to a bound: among many slow nodes the re-sends alone would fill every queue,
and nothing else would be read any more.
"""

from typing import TYPE_CHECKING

from consensus.core import custody, epochs, recovery
from consensus.core.effects import Fault, Send
from consensus.core.inputs import Timer
from consensus.core.messages import (
    Checkpoint,
    NewView,
    PrePrepare,
    Status,
    ViewChange,
    VoteVector,
    leaf_place,
)
from consensus.core.pace import Pace
from consensus.core.phases import checkpoint
from consensus.core.quorum import faults
from consensus.core.types import GENESIS_HEIGHT, NOBODY, Phase, ReplicaIndex
from consensus.limits import BACKOFF_DOUBLINGS_MAX, STATUS_STRETCH_MAX

if TYPE_CHECKING:
    from consensus.core.replica import Peer, Replica

HELP_INTERVAL_US = 100_000


def arm(replica: "Replica") -> None:
    interval = replica.timing.status_interval_ms * 1_000 * replica.status_stretch
    replica.status_due_us = replica.now.monotonic_us + interval
    replica.set_timer(Timer.STATUS, replica.status_due_us)


def _adapt(replica: "Replica") -> None:
    """Twice the pause when this node is late with its work, one step back when it is in time."""
    interval = replica.timing.status_interval_ms * 1_000
    due = replica.status_due_us
    late = due is not None and replica.now.monotonic_us - due > interval // 2
    if late:
        replica.status_stretch = min(2 * replica.status_stretch, STATUS_STRETCH_MAX)
    else:
        replica.status_stretch = max(1, replica.status_stretch - 1)


def on_timer(replica: "Replica") -> None:
    """Send STATUS if something is stuck, or as a heartbeat."""
    _adapt(replica)
    arm(replica)
    custody.remind(replica)
    now = replica.now.monotonic_us
    mark = (replica.executed, replica.certified)
    moved = mark != replica.status_mark
    replica.status_mark = mark
    if replica.phase is Phase.OBSERVING:
        _ask_one(replica)
        return
    stuck = (
        not replica.active
        or replica.phase is not Phase.VOTING
        or (not moved and _unfinished(replica))
    )
    heartbeat = replica.timing.heartbeat_interval_ms * 1_000
    sent = replica.status_sent_us
    if stuck or sent is None or now - sent >= heartbeat:
        send_status_to_all(replica)
    own = replica.view_changes.get(replica.me)
    if not replica.active and own is not None and replica.may_vote(replica.view):
        for index in replica.others:
            peer = replica.peers[index]
            if not peer.holds_ours and _may_repeat_change(replica, peer.asking):
                replica.emit(Send(peer=index, message=own))


def _ask_one(replica: "Replica") -> None:
    """An observer hears of new certificates by asking: another member each time."""
    connected = [peer for peer in replica.others if replica.peers[peer].connected]
    if connected:
        replica.fetch_turn += 1
        send_status(replica, connected[replica.fetch_turn % len(connected)])


def _unfinished(replica: "Replica") -> bool:
    return (
        replica.executed != replica.certified
        or any(place > replica.executed for place in replica.instances)
        or bool(replica.wanted)
    )


def send_status_to_all(replica: "Replica") -> None:
    replica.status_sent_us = replica.now.monotonic_us
    for peer in replica.others:
        if replica.peers[peer].connected:
            send_status(replica, peer)


def send_status(replica: "Replica", peer: ReplicaIndex) -> None:
    """Where we stand, for one receiver."""
    held = 0
    for signer, message in replica.view_changes.items():
        if message.view >= replica.view:
            held |= 1 << signer
    replica.emit(
        Send(
            peer=peer,
            message=Status(
                epoch=replica.committee.epoch,
                view=replica.view,
                in_view_change=not replica.active,
                phase=replica.phase,
                boot=replica.boot,
                echo=0 if peer not in replica.peers else replica.peers[peer].boot,
                executed=replica.executed,
                certificate=replica.certificate,
                view_changes_held=held,
                held=replica.stamp_of(peer),
                unix_ms=replica.now.unix_ms,
            ),
        )
    )


def on_status(replica: "Replica", sender: ReplicaIndex, status: Status) -> None:
    """Learn, then help."""
    if sender == replica.me:
        return
    if status.epoch != replica.committee.epoch:
        epochs.help_behind(replica, sender, status)
        return
    if epochs.is_guest(sender):
        epochs.help_guest(replica, sender, status)
        if status.certificate is not None:
            checkpoint.adopt(replica, status.certificate)
        return
    peer = replica.peers[sender]
    certified = GENESIS_HEIGHT if status.certificate is None else status.certificate.height
    peer.boot = status.boot
    peer.phase = status.phase
    peer.view = status.view
    peer.executed = status.executed
    peer.certified = certified
    peer.seen_us = replica.now.monotonic_us
    peer.clock_offset_ms = status.unix_ms - replica.now.unix_ms
    peer.holds_ours = status.view > replica.view or (
        status.view == replica.view
        and replica.me != NOBODY
        and bool(status.view_changes_held >> replica.me & 1)
    )
    if status.held is not None:
        if status.held.signer != epochs.own_index(replica, status.held.epoch):
            replica.blame(sender, Fault.WRONG_SENDER)
            return
        recovery.check_number(replica, status.held)
    fresh = status.echo == replica.boot
    if fresh and status.phase in (Phase.STARTING, Phase.VOTING):
        replica.started_from |= 1 << sender
        recovery.may_start(replica)
    if status.certificate is not None:
        checkpoint.adopt(replica, status.certificate)
    if replica.phase is Phase.HALTED or status.epoch != replica.committee.epoch:
        return
    _help(replica, sender, status, certified)


def help_interval_us(replica: "Replica") -> int:
    """How long one peer waits for the next answer at least."""
    return HELP_INTERVAL_US * replica.status_stretch


def _help(replica: "Replica", sender: ReplicaIndex, status: Status, certified: int) -> None:
    peer = replica.peers[sender]
    now = replica.now.monotonic_us
    if peer.helped_us is not None and now - peer.helped_us < help_interval_us(replica):
        return
    before = len(replica.effects)
    behind = status.view < replica.view or (
        status.view == replica.view and status.in_view_change and replica.active
    )
    ahead = status.in_view_change and (
        status.view > replica.view or (status.view == replica.view and not replica.active)
    )
    if (
        status.echo != replica.boot
        or status.phase in (Phase.STARTING, Phase.SEEKING)
        or certified < replica.certified
        or (ahead and not _holds_change_of(replica, sender, status))
    ):
        send_status(replica, sender)
    if status.phase is Phase.SEEKING:
        answer = recovery.answer(replica, status.boot)
        if answer is not None:
            replica.emit(Send(peer=sender, message=answer))
    new_view = replica.new_view
    if (
        behind
        and replica.active
        and new_view is not None
        and _may_show(replica, new_view)
        and may_repeat_view(replica, peer)
    ):
        replica.emit(Send(peer=sender, message=new_view))
    if not replica.active and (behind or status.view == replica.view):
        lacking = _changes_lacking(replica, sender, status)
        if lacking and _may_repeat_change(replica, peer.passing_on):
            replica.effects += [Send(peer=sender, message=message) for message in lacking]
    if replica.phase is Phase.VOTING:
        _resend(replica, sender, status, certified)
    if len(replica.effects) > before:
        peer.helped_us = now


def may_repeat_view(replica: "Replica", peer: "Peer") -> bool:
    """Whether it is time to show this peer our NEW-VIEW (again): ever more rarely.

    It is the largest message there is. A peer that has not entered after the first one is probably
    still reading it.
    """
    longest = replica.request_timeout_us << BACKOFF_DOUBLINGS_MAX
    return peer.showing.may_repeat(
        replica.view,
        replica.now.monotonic_us,
        first_us=HELP_INTERVAL_US,
        longest_us=longest // 8,
    )


def _may_repeat_change(replica: "Replica", pace: Pace) -> bool:
    """Whether it is time to send a peer VIEW-CHANGEs of this view again.

    With up to six validators whenever the timer of STATUS fires. In larger sets everybody has as
    many more of them to read, from all the others at once: the first repetition waits, and the
    pauses grow further.
    """
    fold = max(1, faults(replica.members))
    longest = replica.timing.status_interval_ms * 1_000 * fold
    return pace.may_repeat(
        replica.view,
        replica.now.monotonic_us,
        first_us=min(HELP_INTERVAL_US * fold, longest),
        longest_us=longest,
        wait_us=HELP_INTERVAL_US * (fold - 1),
    )


def _changes_lacking(replica: "Replica", sender: ReplicaIndex, status: Status) -> list[ViewChange]:
    """VIEW-CHANGEs of others, and our own if we may send it, that a STATUS shows nothing of."""
    held = status.view_changes_held if status.view == replica.view else 0
    return [
        message
        for signer, message in sorted(replica.view_changes.items())
        if signer != sender
        and message.view >= replica.view
        and not held >> signer & 1
        and (signer != replica.me or replica.may_vote(message.view))
    ]


def _may_show(replica: "Replica", new_view: NewView) -> bool:
    """Others' NEW-VIEW always, our own only while we may speak."""
    return new_view.signer != replica.me or replica.phase is Phase.VOTING


def _holds_change_of(replica: "Replica", sender: ReplicaIndex, status: Status) -> bool:
    known = replica.view_changes.get(sender)
    return known is not None and known.view >= status.view


def _resend(replica: "Replica", sender: ReplicaIndex, status: Status, certified: int) -> None:
    """Own votes above the receiver's h, and the primary's own proposals."""
    same_view = status.view == replica.view and not status.in_view_change and replica.active
    for vector in replica.own_vectors:
        if any(
            leaf_place(leaf) > certified
            and (
                leaf.__class__ is Checkpoint
                or (same_view and leaf_place(leaf) > status.executed)
                or (same_view and leaf_place(leaf) > replica.executed)
            )
            for leaf in vector.leaves
        ):
            replica.emit(Send(peer=sender, message=vector))
    if same_view and replica.is_primary:
        for sequence in sorted(replica.instances):
            accepted: PrePrepare | None = replica.instances[sequence].pre_prepare
            if accepted is not None and sequence > status.executed:
                replica.emit(Send(peer=sender, message=accepted))


def still_useful(replica: "Replica", vector: VoteVector) -> bool:
    """Whether an own vector may still help somebody: checkpoints, or votes of this view."""
    return any(
        leaf_place(leaf) > replica.certified
        and (isinstance(leaf, Checkpoint) or leaf.view >= replica.view)
        for leaf in vector.leaves
    )
