"""PRE-PREPARE: the primary puts batches at sequence numbers, the others take note (bft.md 3.2).

The primary proposes at once when the last batch is long enough ago, else when a batch is full, and
never runs more than P_MAX batches ahead of execution or leaves the window. A PRE-PREPARE that comes
too early (window, view) waits; one that contradicts an accepted one is proof of a lie.
"""

from typing import TYPE_CHECKING

from consensus.core import catch_up, custody, evidence
from consensus.core.effects import Broadcast, Fault, Propose, TakeBatch
from consensus.core.inputs import BatchTaken, Timer
from consensus.core.messages import (
    EMPTY_ROOT,
    UNNUMBERED,
    BatchHeader,
    Equivocation,
    PrePrepare,
)
from consensus.core.phases import prepare, view_change
from consensus.core.types import Phase, Sequence
from consensus.limits import (
    AHEAD_BLOCKS_MAX,
    BATCH_PAYLOADS_MAX,
    BATCH_SIZE_BYTES_TARGET,
    HURRIED_BLOCKS_MAX,
    IN_FLIGHT_BLOCKS_MAX,
    WINDOW_BLOCKS,
)

if TYPE_CHECKING:
    from consensus.core.replica import Peer, Replica


def propose(replica: "Replica") -> None:
    """Ask for a batch if this replica leads and the pipe has room."""
    if (
        not replica.is_primary
        or not replica.active
        or replica.taking
        or not replica.may_vote(replica.view)
    ):
        return
    last = min(replica.last_of(WINDOW_BLOCKS), replica.executed + IN_FLIGHT_BLOCKS_MAX)
    if replica.next_sequence > last:
        return
    now = replica.now.monotonic_us
    since = None if replica.proposed_us is None else now - replica.proposed_us
    if replica.pending:
        # The longer agreement takes, the more batches run, and the fuller the next one gets. When
        # none runs, nobody gains by waiting.
        in_flight = replica.next_sequence - 1 - replica.executed
        interval = replica.timing.batch_interval_ms * 1_000 * in_flight
        full = (
            replica.pending >= BATCH_PAYLOADS_MAX
            or replica.pending_bytes >= BATCH_SIZE_BYTES_TARGET
        )
        if since is not None and since < interval and not full:
            replica.set_timer(Timer.PROPOSE, now - since + interval)
            return
    else:
        wait = _idle_us(replica)
        start = replica.entered_us if replica.proposed_us is None else replica.proposed_us
        if now < start + wait:
            replica.set_timer(Timer.IDLE, start + wait)
            return
    replica.taking = True
    replica.emit(
        TakeBatch(
            payloads_max=BATCH_PAYLOADS_MAX,
            size_bytes_max=BATCH_SIZE_BYTES_TARGET,
            allow_empty=not replica.pending,
        )
    )


def _idle_us(replica: "Replica") -> int:
    """How long an idle primary waits before it proposes an empty batch.

    Not at all for the first block of an epoch, which shows that a quorum is there. While a
    validator is recovering the log must move past what it may have voted for, and while another
    set is waiting, to the end of the epoch.
    """
    if replica.next_sequence == replica.base + 1:
        return 0
    if replica.cut is not None:
        return replica.timing.recovery_block_interval_ms * 1_000
    if any(peer.hurried_blocks < HURRIED_BLOCKS_MAX for peer in _recovering(replica)):
        return replica.timing.recovery_block_interval_ms * 1_000
    return replica.timing.idle_block_interval_ms * 1_000


def _recovering(replica: "Replica") -> "list[Peer]":
    """Who said a moment ago that it waits for the log to move."""
    recent = replica.now.monotonic_us - 5_000_000
    return [
        peer
        for peer in replica.peers.values()
        if peer.phase in (Phase.SEEKING, Phase.RECOVERING)
        and peer.seen_us is not None
        and peer.seen_us > recent
    ]


def _count_hurried(replica: "Replica") -> None:
    """An empty batch was proposed: who says it recovers has so many early ones and no more.

    Otherwise one liar could have the cluster write fifty blocks a second for ever.
    """
    recovering = _recovering(replica)
    for peer in recovering:
        peer.hurried_blocks = min(peer.hurried_blocks + 1, HURRIED_BLOCKS_MAX)
    for peer in replica.peers.values():
        if peer.hurried_blocks and peer not in recovering:
            peer.hurried_blocks -= 1


def on_batch_taken(replica: "Replica", taken: BatchTaken) -> None:
    """The runtime took a batch (or nothing) out of custody."""
    replica.taking = False
    replica.pending = taken.pending
    if (
        taken.payload_root is None
        or not replica.is_primary
        or not replica.active
        or not replica.may_vote(replica.view)
    ):
        if taken.payload_root is None:
            replica.pending = 0
            propose(replica)
        return
    now = replica.now
    header = BatchHeader(
        chain_id=replica.committee.chain_id,
        epoch=replica.committee.epoch,
        sequence=replica.next_sequence,
        proposed_ms=now.unix_ms,
        payload_root=taken.payload_root,
    )
    if taken.payload_root == EMPTY_ROOT:
        _count_hurried(replica)
    else:
        replica.bodies[taken.payload_root] = None
        replica.unwritten.add(taken.payload_root)
    replica.next_sequence = Sequence(replica.next_sequence + 1)
    replica.proposed_us = now.monotonic_us
    replica.emit(
        Propose(
            pre_prepare=PrePrepare(
                view=replica.view, signer=replica.me, number=UNNUMBERED, header=header
            )
        )
    )
    propose(replica)


def on_pre_prepare(replica: "Replica", message: PrePrepare) -> None:
    """Accept, keep for later, or prove a lie."""
    if message.signer != replica.committee.primary(message.view):
        replica.blame(message.signer, Fault.NOT_PRIMARY)
        return
    sequence = message.sequence
    if message.view < replica.view or sequence <= max(replica.floor, replica.base):
        return
    if message.view > replica.view or not replica.active:
        _keep(replica, message)
        return
    instance = replica.instance(sequence)
    if instance is None:
        if not replica.is_void(sequence):
            _keep(replica, message)
        return
    accepted = instance.pre_prepare
    if accepted is None:
        accept(replica, message)
    elif accepted.digest != message.digest:
        proof = Equivocation(first=accepted, second=message)
        replica.emit(Broadcast(message=proof))
        on_equivocation(replica, proof)


def _keep(replica: "Replica", message: PrePrepare) -> None:
    """Keep an early PRE-PREPARE: of each signer those of its highest view, inside two windows."""
    kept = replica.early.setdefault(message.signer, {})
    for other in kept.values():
        if other.view > message.view:
            return
        if other.view < message.view:
            kept.clear()
        break
    if message.sequence <= replica.certified + 2 * AHEAD_BLOCKS_MAX:
        kept.setdefault(message.sequence, message)


def take_early(replica: "Replica") -> None:
    """Accept what came before this view was entered or before the window moved."""
    if not replica.active:
        return
    primary = replica.committee.primary(replica.view)
    kept = replica.early.get(primary)
    if not kept:
        return
    for sequence in sorted(kept):
        message = kept[sequence]
        if message.view < replica.view:
            del kept[sequence]
        elif message.view == replica.view and replica.instance(sequence) is not None:
            del kept[sequence]
            on_pre_prepare(replica, message)


def accept(replica: "Replica", message: PrePrepare, *, reproposed: bool = False) -> None:
    """This is the batch at this place in this view."""
    instance = replica.instance(message.sequence)
    if instance is None:
        return
    instance.pre_prepare = message
    instance.reproposed = reproposed
    # What the primary makes everybody wait for by its clock says nothing of how fast they are.
    wait_ms = prepare.clock_wait_ms(replica, instance, message)
    instance.accepted_us = replica.now.monotonic_us + wait_ms * 1_000
    if message.signer == replica.me:
        replica.next_sequence = max(replica.next_sequence, Sequence(message.sequence + 1))
        instance.accepted_durably = not reproposed  # the tick wrote it, but not those of NEW-VIEW
    elif not reproposed:
        custody.watch_clock(replica, message.header.proposed_ms)
    if not replica.holds(message.header.payload_root):
        wait_us = catch_up.FIRST_WAIT_US if reproposed else catch_up.PUSHED_WAIT_US
        catch_up.want_body(replica, message.header.payload_root, wait_us)
    prepare.progress(replica, instance)


def on_equivocation(replica: "Replica", proof: Equivocation) -> None:
    """Two signed PRE-PREPAREs for one place: no need to wait for a timer."""
    replica.accuse(
        proof.first.signer, evidence.of_proposal(proof.first), evidence.of_proposal(proof.second)
    )
    if proof.first.view == replica.view and replica.active:
        view_change.start(replica, replica.view + 1, "the primary signed two batches for one place")
