"""VIEW-CHANGE and NEW-VIEW: another primary, nothing committed lost (bft.md 3.6).

COMMIT needs a prepared certificate; Q COMMITs and any Q VIEW-CHANGEs share an honest replica, which
carries the certificate (or a block certificate at or above it). So for each place the certificate
of the highest view wins, a place without one gets the null batch, and everybody can recompute that.
Certificates are complete and transferable; they were checked one by one when they were decoded, so
a bad one discards its sender's message and never a place.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from consensus.core import catch_up, custody, epochs, evidence, retransmit
from consensus.core.effects import (
    AnnounceView,
    Broadcast,
    ChangeView,
    Event,
    Fault,
    Persist,
    ReleaseCustody,
    Send,
)
from consensus.core.inputs import Timer
from consensus.core.messages import (
    UNNUMBERED,
    BatchHeader,
    BlockCertificate,
    NewView,
    PreparedCertificate,
    PrePrepare,
    ViewChange,
    null_batch,
)
from consensus.core.phases import checkpoint, prepare, propose
from consensus.core.records import NewViewHeld, ViewEntered
from consensus.core.types import GENESIS_HEIGHT, Committee, Sequence, View
from consensus.limits import BACKOFF_DOUBLINGS_MAX, WINDOW_BLOCKS

if TYPE_CHECKING:
    from consensus.core.replica import Replica


def start(replica: "Replica", view: int, reason: str, *, failed: bool = True) -> None:
    """Ask for a view above the present one, and stop accepting messages of lower ones.

    The present one has `failed` unless the last block it made was quick, or nothing is wrong.
    """
    target = View(max(view, replica.first_view))
    if not replica.may_vote(target) or target <= replica.view:
        return
    if replica.active and failed and not replica.view_works:
        replica.failed_views += 1
    _leave_for(replica, target)
    replica.active = False
    replica.view_changes_total += 1
    replica.note(Event.VIEW_CHANGE_STARTED, f"view {target}: {reason}")
    replica.emit(
        Persist(record=ViewEntered(epoch=replica.committee.epoch, view=target, active=False))
    )
    certified = replica.certified
    replica.emit(
        ChangeView(
            view_change=ViewChange(
                epoch=replica.committee.epoch,
                view=target,
                signer=replica.me,
                number=UNNUMBERED,
                certificate=replica.certificate,
                prepared=tuple(
                    [
                        replica.prepared[sequence]
                        for sequence in sorted(replica.prepared)
                        if certified < sequence <= certified + WINDOW_BLOCKS
                    ]
                ),
            )
        )
    )
    replica.clear_timer(Timer.PROPOSE)
    replica.clear_timer(Timer.IDLE)
    custody.arm(replica)
    _watch(replica)


def _leave_for(replica: "Replica", view: View) -> None:
    replica.view = view
    replica.taking = False
    custody.show_from_start(replica)
    replica.view_works = False
    replica.stale_since_us = None
    replica.judged.clear()
    for peer in replica.peers.values():
        peer.holds_ours = False
    for instance in replica.instances.values():
        instance.move_to_view(view)
    replica.own_vectors = [
        vector for vector in replica.own_vectors if retransmit.still_useful(replica, vector)
    ]


def rotate(replica: "Replica") -> None:
    """A primary leads so many certified blocks and no more, if the chain says so.

    Everybody counts from the block certificate that its NEW-VIEW began with, so all of them leave
    at the same block. It is an ordinary view change, without a failed view.
    """
    turn = replica.committee.rotation_blocks
    if turn and replica.active and replica.certified >= replica.view_base + turn:
        start(replica, replica.view + 1, "the primary has had its turn", failed=False)


def resume(replica: "Replica") -> None:
    """This replica may vote from now on: join what it could not join before, or go on asking."""
    _join(replica)
    if replica.active:
        return
    own = replica.own_view_change
    if own is not None and own.view == replica.view and replica.may_vote(own.view):
        replica.view_changes[replica.me] = own
        replica.emit(Broadcast(message=own))
        replica.view_timer_for = View(0)  # one that fired before it could ask is gone
        _watch(replica)
        _lead(replica)
    else:
        start(replica, replica.view + 1, "recovered between two views")


def on_view_change(replica: "Replica", message: ViewChange) -> None:
    """Keep the newest of each sender; join W of them; lead when it is our turn."""
    if message.certificate is not None and not epochs.certifies(replica, message.certificate):
        replica.blame(message.signer, Fault.BAD_CERTIFICATE)
        return
    if message.certificate is not None:
        checkpoint.adopt(replica, message.certificate)
        if message.epoch != replica.committee.epoch:
            return
    if message.view < replica.view or (message.view == replica.view and replica.active):
        if replica.new_view is not None and message.signer != replica.me:
            _show_new_view(replica, message)
        return
    known = replica.view_changes.get(message.signer)
    if known is not None and known.view >= message.view:
        if known.view == message.view and known.digest != message.digest:
            replica.accuse(message.signer, evidence.of_view(known), evidence.of_view(message))
        return
    replica.view_changes[message.signer] = message
    if message.signer == replica.me:
        replica.own_view_change = message
    _join(replica)
    _watch(replica)
    _lead(replica)


def _show_new_view(replica: "Replica", message: ViewChange) -> None:
    """The sender asks for a view that exists already."""
    new_view = replica.new_view
    may_show = new_view is not None and (
        new_view.signer != replica.me or replica.may_vote(new_view.view)
    )
    if new_view is not None and may_show and new_view.view >= message.view:
        peer = replica.peers[message.signer]
        now = replica.now.monotonic_us
        rested = peer.helped_us is None or now - peer.helped_us >= 50_000
        if rested and retransmit.may_repeat_view(replica, peer):
            peer.helped_us = now
            replica.emit(Send(peer=message.signer, message=new_view))


def _join(replica: "Replica") -> None:
    """W replicas want higher views: one of them is honest, so go where W of them go."""
    higher = sorted(
        (
            message.view
            for signer, message in replica.view_changes.items()
            if message.view > replica.view and signer != replica.me
        ),
        reverse=True,
    )
    if len(higher) >= replica.weak_quorum:
        start(replica, higher[replica.weak_quorum - 1], "joined others")


def _watch(replica: "Replica") -> None:
    """T_vc starts when Q replicas, this one included, want this view or a higher one."""
    if replica.active or replica.view_timer_for == replica.view:
        return
    own = replica.view_changes.get(replica.me)
    if own is None or own.view != replica.view:
        return
    wanting = sum(message.view >= replica.view for message in replica.view_changes.values())
    if wanting >= replica.quorum:
        replica.view_timer_for = replica.view
        replica.set_timer(Timer.VIEW_CHANGE, replica.now.monotonic_us + timeout_us(replica))


def timeout_us(replica: "Replica") -> int:
    """T doubled for each failed view, up to the cap."""
    return replica.request_timeout_us << min(replica.failed_views, BACKOFF_DOUBLINGS_MAX)


def on_timeout(replica: "Replica") -> None:
    """No NEW-VIEW in time: this view failed too."""
    if not replica.active and replica.view_timer_for == replica.view:
        replica.failed_views += 1
        start(replica, replica.view + 1, "no NEW-VIEW in time")


def _lead(replica: "Replica") -> None:
    """With Q VIEW-CHANGEs for exactly this view, its primary announces it, once."""
    view = replica.view
    own = replica.view_changes.get(replica.me)
    if (
        replica.active
        or not replica.is_primary
        or replica.announced_view == view
        or not replica.may_vote(view)
        or own is None
        or own.view != view
    ):
        return
    exact = [
        message
        for _, message in sorted(replica.view_changes.items())
        if message.view == view and message.signer != replica.me
    ]
    if len(exact) + 1 < replica.quorum:
        return
    replica.announced_view = view
    chosen = (own, *exact[: replica.quorum - 1])
    _, batches = selection(chosen, replica.committee)
    replica.emit(
        AnnounceView(
            new_view=NewView(
                epoch=replica.committee.epoch,
                view=view,
                signer=replica.me,
                number=UNNUMBERED,
                view_changes=chosen,
                proposals=tuple(
                    [
                        PrePrepare(view=view, signer=replica.me, number=UNNUMBERED, header=header)
                        for header in batches
                    ]
                ),
            )
        )
    )


def selection(
    view_changes: Iterable[ViewChange], committee: Committee
) -> tuple[BlockCertificate | None, tuple[BatchHeader, ...]]:
    """What V demands: its highest block certificate, and the batch for each place above it."""
    certificate: BlockCertificate | None = None
    best: dict[int, PreparedCertificate] = {}
    for message in view_changes:
        if message.certificate is not None and (
            certificate is None or message.height > certificate.height
        ):
            certificate = message.certificate
        for entry in message.prepared:
            known = best.get(entry.sequence)
            if known is None or entry.view > known.view:
                best[entry.sequence] = entry
    base = 0 if certificate is None else certificate.height
    batches: list[BatchHeader] = []
    for sequence in range(base + 1, max(best, default=0) + 1):
        winner = best.get(sequence)
        batches.append(
            null_batch(committee.chain_id, committee.epoch, Sequence(sequence))
            if winner is None
            else winner.pre_prepare.header
        )
    return certificate, tuple(batches)


def on_new_view(replica: "Replica", message: NewView) -> None:
    """Recompute O from V; enter the view, or move past it."""
    known = replica.new_view
    if known is not None and known.view == message.view and known.digest != message.digest:
        replica.accuse(message.signer, evidence.of_view(known), evidence.of_view(message))
    if message.view < replica.view or (message.view == replica.view and replica.active):
        return
    certificate, batches = selection(message.view_changes, replica.committee)
    honest = all(
        change.certificate is None or epochs.certifies(replica, change.certificate)
        for change in message.view_changes
    )
    if not honest or tuple([proposal.header for proposal in message.proposals]) != batches:
        replica.blame(message.signer, Fault.BAD_NEW_VIEW)
        start(replica, message.view + 1, "NEW-VIEW proposes other batches than it must")
        return
    enter(replica, message, certificate)


def enter(replica: "Replica", message: NewView, certificate: BlockCertificate | None) -> None:
    """The view is active. Missing bodies and blocks are fetched meanwhile; votes wait for them."""
    if message.view > replica.view:
        _leave_for(replica, message.view)
    replica.active = True
    replica.new_view = message
    replica.entered_us = replica.now.monotonic_us
    replica.view_base = GENESIS_HEIGHT if certificate is None else certificate.height
    replica.proposed_us = None
    replica.clear_timer(Timer.VIEW_CHANGE)
    replica.emit(Persist(record=NewViewHeld(new_view=message)))
    replica.emit(Persist(record=ViewEntered(epoch=message.epoch, view=message.view, active=True)))
    replica.note(
        Event.VIEW_ENTERED, f"view {message.view} with {len(message.proposals)} batches again"
    )
    for signer in [
        who for who, change in replica.view_changes.items() if change.view <= message.view
    ]:
        del replica.view_changes[signer]
    if certificate is not None:
        checkpoint.adopt(replica, certificate)
        if message.epoch != replica.committee.epoch:
            return
    install(replica, message, certificate)
    replica.sweep_bodies(keep=0)
    custody.arm(replica)
    replica.emit(
        ReleaseCustody(in_flight=tuple([entry.header.payload_root for entry in message.proposals]))
    )
    custody.on_entry(replica)
    catch_up.fetch(replica)
    prepare.progress_all(replica)
    propose.propose(replica)


def install(replica: "Replica", message: NewView, certificate: BlockCertificate | None) -> None:
    """Accept the re-proposals, then what the new primary has sent since."""
    base = 0 if certificate is None else certificate.height
    replica.next_sequence = Sequence(
        max(base, replica.executed, replica.certified, base + len(message.proposals)) + 1
    )
    for proposal in message.proposals:
        if proposal.sequence > replica.floor:
            propose.accept(replica, proposal, reproposed=True)
    propose.take_early(replica)
