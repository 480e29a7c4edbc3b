"""STATUS: tell where we stand, see where others stand, re-send what they lack (bft.md 3.6.7).

Sent on every reconnect, every few hundred milliseconds while something is stuck, and as a slow
heartbeat otherwise, so that a late node hears of newer certificates even when the cluster is idle.
All answers are limited in rate for each peer; two healthy nodes fall silent at once.
"""

from typing import TYPE_CHECKING

from consensus.core import custody, recovery
from consensus.core.effects import Fault, Send
from consensus.core.inputs import Timer
from consensus.core.messages import (
    Checkpoint,
    NewView,
    PrePrepare,
    Status,
    VoteVector,
    leaf_place,
)
from consensus.core.phases import checkpoint
from consensus.core.types import GENESIS_HEIGHT, Phase, ReplicaIndex

if TYPE_CHECKING:
    from consensus.core.replica import Replica

HELP_INTERVAL_US = 100_000


def arm(replica: "Replica") -> None:
    replica.set_timer(
        Timer.STATUS,
        replica.now.monotonic_us + replica.timing.status_interval_ms * 1_000,
    )


def on_timer(replica: "Replica") -> None:
    """Send STATUS if something is stuck, or as a heartbeat."""
    arm(replica)
    custody.remind(replica)
    now = replica.now.monotonic_us
    mark = (replica.executed, replica.certified)
    moved = mark != replica.status_mark
    replica.status_mark = mark
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
        for peer in replica.others:
            if not replica.peers[peer].holds_ours:
                replica.emit(Send(peer=peer, message=own))


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
                echo=replica.peers[peer].boot,
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
        replica.blame(sender, Fault.WRONG_EPOCH)
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
        status.view == replica.view and bool(status.view_changes_held >> replica.me & 1)
    )
    if status.held is not None:
        if status.held.signer != replica.me:
            replica.blame(sender, Fault.WRONG_SENDER)
            return
        recovery.check_number(replica, status.held)
    fresh = status.echo == replica.boot
    if fresh and status.phase in (Phase.STARTING, Phase.VOTING):
        replica.started_from |= 1 << sender
        recovery.may_start(replica)
    if status.certificate is not None:
        checkpoint.adopt(replica, status.certificate)
    if replica.phase is Phase.HALTED:
        return
    _help(replica, sender, status, certified)


def _help(replica: "Replica", sender: ReplicaIndex, status: Status, certified: int) -> None:
    peer = replica.peers[sender]
    now = replica.now.monotonic_us
    if peer.helped_us is not None and now - peer.helped_us < HELP_INTERVAL_US:
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
    if behind and replica.active and new_view is not None and _may_show(replica, new_view):
        replica.emit(Send(peer=sender, message=new_view))
    if not replica.active and (behind or status.view == replica.view):
        for signer, message in sorted(replica.view_changes.items()):
            if signer == sender or message.view < replica.view:
                continue
            known = status.view == replica.view and status.view_changes_held >> signer & 1
            own = signer == replica.me
            if not known and (not own or replica.may_vote(message.view)):
                replica.emit(Send(peer=sender, message=message))
    if replica.phase is Phase.VOTING:
        _resend(replica, sender, status, certified)
    if len(replica.effects) > before:
        peer.helped_us = now


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
