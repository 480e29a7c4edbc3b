"""Start, restart, and what a replica does that lost memory of its own votes (bft.md 3.9).

A started replica signs nothing before it has STATUS from Q - 1 others. If one of them shows it a
message of its own with a number above its record, it has lost votes (a damaged log, an old backup):
it must not vote until everything it may have voted for is certified. S bounds the places and V the
views it may have voted in; both come from Q others that remember.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from consensus.core import catch_up, custody, epochs, retransmit
from consensus.core.effects import Event, Persist, Retract
from consensus.core.instance import Ballot
from consensus.core.messages import (
    BlockCertificate,
    Checkpoint,
    NewView,
    Prepare,
    PrePrepare,
    RecoveryAnswer,
    Stamp,
    VoteVector,
)
from consensus.core.phases import checkpoint, commit, prepare, propose, view_change
from consensus.core.records import (
    Accepted,
    Agreed,
    Anchor,
    Birth,
    Diverged,
    EpochBegun,
    ExecutedBlock,
    LastNumber,
    NewViewHeld,
    OwnViewChange,
    OwnVotes,
    PeerStamp,
    Prepared,
    Record,
    Recovery,
    Retired,
    Tip,
    ViewEntered,
)
from consensus.core.types import NOBODY, Height, Number, Phase, ReplicaIndex, Sequence, View
from consensus.errors import BirthMissing, WrongChain, invariant
from consensus.limits import ANCHOR_BLOCKS, NUMBERS_PER_BLOCK_BITS, WINDOW_BLOCKS

if TYPE_CHECKING:
    from consensus.core.replica import Replica


# --- from records to state


def restore(
    replica: "Replica", records: Iterable[Record], decided: ExecutedBlock | None = None
) -> None:
    """Rebuild what was durable; `decided` is what the state says of the next set.

    Emits nothing: `start` does.
    """
    birth: Birth | None = None
    entered = ViewEntered(epoch=replica.committee.epoch, view=View(0), active=True)
    held: NewView | None = None
    diverged: Diverged | None = None
    accepted: list[PrePrepare] = []
    vectors: list[VoteVector] = []
    stamps: list[Stamp] = []
    epoch = replica.committee.epoch
    for record in records:
        match record:
            case Birth():
                birth = record
            case LastNumber():
                replica.last_number = record.number
                replica.last_kind = record.kind
                replica.last_digest = record.digest
            case PeerStamp():
                stamps.append(record.stamp)
            case ViewEntered():
                if record.epoch == epoch:
                    entered = record
            case NewViewHeld():
                if record.new_view.epoch == epoch:
                    held = record.new_view
            case Accepted():
                if record.pre_prepare.epoch == epoch:
                    accepted.append(record.pre_prepare)
            case Prepared():
                if record.certificate.pre_prepare.epoch == epoch:
                    replica.prepared[record.certificate.sequence] = record.certificate
            case OwnVotes():
                if record.vector.epoch == epoch:
                    vectors.append(record.vector)
            case OwnViewChange():
                if record.view_change.epoch == epoch:
                    replica.own_view_change = record.view_change
            case Tip():
                replica.certificate = record.certificate
                replica.certified = record.certificate.height
            case Anchor():
                replica.anchor = max(replica.anchor, record.certificate.height // ANCHOR_BLOCKS)
                _restore_confirmed(replica, record.certificate)
            case Recovery():
                _restore_recovery(replica, record)
            case EpochBegun():
                replica.links[int(record.link.epoch)] = record.link
                _restore_confirmed(replica, record.link.certificate)
            case Retired():
                replica.retired = max(replica.retired, record.epoch)
            case Agreed():
                pass  # only to execute blocks again
            case Diverged():
                diverged = record
    if replica.first_sequence and replica.phase is Phase.STARTING:
        # Recovered in an earlier life: numbers went on above everything that was lost.
        replica.last_number = Number(
            max(replica.last_number, replica.first_sequence << NUMBERS_PER_BLOCK_BITS)
        )
    if birth is None:
        raise BirthMissing("consensus.db has no birth record")
    if birth.chain_id != replica.committee.chain_id:
        raise WrongChain("consensus.db was made for another chain")
    if replica.executed < replica.certified:
        replica.behind_through = replica.certified
    if replica.executed > max(replica.certified, max(replica.prepared, default=0)):
        # `state.db` is ahead of the voting record: the record is an old copy.
        replica.phase = Phase.SEEKING
        replica.first_sequence = Sequence(0)
    _restore_epoch(replica, stamps, decided)
    _restore_view(replica, entered, held)
    _restore_votes(replica, accepted, sorted(vectors, key=_number))
    own = replica.uncertified.get(replica.certified)
    if own is not None:
        checkpoint.agrees(replica, own)  # an earlier life may have halted here
    if diverged is not None and replica.phase is not Phase.HALTED:
        _restore_divergence(replica, diverged)
    replica.drop_below_floor()


def _restore_divergence(replica: "Replica", record: Diverged) -> None:
    """Halt as the earlier life did, unless the state is another one now, or was none to halt for.

    Wrong software may have found it. The record is disproved if our block of its height, or one
    that is built on it, is what a certificate in our records says, header and state. Only those
    count: whoever halts hears nobody. The record goes with the next certificate.
    """
    own = replica.uncertified.get(record.height)
    if own is None and replica.tip.height == record.height:
        own = replica.tip
    if own is None or (own.header_hash, own.state_root) != (record.header_hash, record.state_root):
        return
    if replica.certificate is not None:
        _restore_confirmed(replica, replica.certificate)
    if replica.confirmed >= record.height:
        return
    replica.confirm(record.sound_through)
    replica.diverge(
        f"an earlier life found that block {record.height}, or the state after it, is not the "
        "certified one",
        block=own,
    )


def _restore_confirmed(replica: "Replica", certificate: BlockCertificate) -> None:
    claim = certificate.checkpoint
    own = replica.uncertified.get(certificate.height)
    if own is None and replica.tip.height == certificate.height:
        own = replica.tip
    if own is not None and (claim.header_hash, claim.state_root) == (
        own.header_hash,
        own.state_root,
    ):
        replica.confirm(own.height)


def _restore_epoch(replica: "Replica", stamps: list[Stamp], known: ExecutedBlock | None) -> None:
    """Where this epoch began, who showed what before it, and whether this node votes in it."""
    epoch = replica.committee.epoch
    invariant(len(replica.links) == epoch, "a replica starts in the newest epoch of its records")
    if epoch:
        replica.base = replica.view_base = replica.links[epoch].base
    for stamp in stamps:
        replica.remember(stamp)
    for block in list(replica.uncertified.values()):
        decided = block.next_validators
        if decided is not None and decided.epoch == epoch + 1:
            epochs.decided(replica, epoch, block)
    pending = None if known is None else known.next_validators
    if replica.next_set is None and pending is not None and pending.epoch == epoch + 1:
        assert known is not None
        epochs.decided(replica, epoch, known)  # below the snapshot that this state came from
    if replica.certificate is not None:
        epochs.certified(replica, replica.certificate)
    if replica.committee.me == NOBODY or replica.retired > epoch:
        replica.amnesiac = replica.phase in (Phase.SEEKING, Phase.RECOVERING)
        replica.phase = Phase.OBSERVING


def _number(vector: VoteVector) -> int:
    return vector.number


def _restore_recovery(replica: "Replica", record: Recovery) -> None:
    replica.first_sequence = record.first_sequence
    replica.first_view = record.first_view
    if not record.done:
        known = record.first_sequence > 0
        replica.phase = Phase.RECOVERING if known else Phase.SEEKING


def _restore_view(replica: "Replica", entered: ViewEntered, held: NewView | None) -> None:
    replica.view = entered.view
    replica.active = entered.active
    if held is not None:
        replica.new_view = held
        if held.view >= entered.view:
            replica.view = held.view
            replica.active = True
    own = replica.own_view_change
    if own is not None and not replica.active and own.view == replica.view:
        replica.view_changes[replica.me] = own


def _restore_votes(
    replica: "Replica", accepted: list[PrePrepare], vectors: list[VoteVector]
) -> None:
    view = replica.view
    # What was proposed at or below a certificate has been dropped, but it was proposed.
    replica.next_sequence = Sequence(max(replica.certified, replica.executed, replica.base) + 1)
    if replica.active and replica.new_view is not None and replica.new_view.view == view:
        certificate, _ = view_change.selection(replica.new_view.view_changes, replica.committee)
        base = 0 if certificate is None else certificate.height
        replica.view_base = Height(base)
        replica.next_sequence = Sequence(
            max(base + len(replica.new_view.proposals), replica.certified, replica.executed) + 1
        )
        for proposal in replica.new_view.proposals:
            instance = replica.instance(proposal.sequence)
            if instance is not None:
                instance.pre_prepare = proposal
                instance.reproposed = True
    for pre_prepare in accepted:
        instance = replica.instance(pre_prepare.sequence)
        if instance is None:
            continue
        # The body was written with the record.
        replica.bodies[pre_prepare.header.payload_root] = None
        if pre_prepare.view == view and replica.active:
            instance.pre_prepare = pre_prepare
            instance.accepted_durably = True
            if pre_prepare.signer == replica.me:
                replica.next_sequence = max(
                    replica.next_sequence, Sequence(pre_prepare.sequence + 1)
                )
    for vector in vectors:
        useful = False
        for index, leaf in enumerate(vector.leaves):
            if isinstance(leaf, Checkpoint):
                if leaf.height > replica.certified:
                    useful = True
                    votes = replica.checkpoints.setdefault(leaf.height, {})
                    votes[replica.me] = (leaf, vector, index)
                replica.cast_through = max(replica.cast_through, leaf.height)
                continue
            instance = replica.instance(leaf.sequence)
            if leaf.view != view or instance is None:
                continue
            useful = True
            ballot = Ballot(leaf.view, leaf.digest, vector, index)
            if isinstance(leaf, Prepare):
                instance.prepares[replica.me] = ballot
                instance.voted_prepare = True
            else:
                instance.commits[replica.me] = ballot
                instance.voted_commit = True
        if useful and vector.top > replica.certified:
            replica.keep_vector(vector)
    for sequence, prepared in replica.prepared.items():
        instance = replica.instance(sequence)
        if instance is None or prepared.view != view or not replica.active:
            continue
        if instance.pre_prepare is None:
            instance.pre_prepare = prepared.pre_prepare
        instance.prepared = True
    for sequence, prepared in replica.prepared.items():
        instance = replica.instances.get(sequence)
        if instance is not None and sequence <= replica.executed:
            instance.batch = prepared.pre_prepare.header


# --- starting


def start(replica: "Replica") -> None:
    """First input of a life."""
    replica.entered_us = replica.now.monotonic_us
    if replica.phase is Phase.SEEKING:
        replica.emit(Persist(record=_record(replica, done=False)))
        if _too_few(replica):
            return
    retransmit.send_status_to_all(replica)
    retransmit.arm(replica)
    may_start(replica)
    commit.execute_next(replica)
    prepare.progress_all(replica)
    custody.arm(replica)
    for instance in list(replica.instances.values()):
        if instance.pre_prepare is not None:
            root = instance.pre_prepare.header.payload_root
            if not replica.holds(root):
                catch_up.want_body(replica, root)
    catch_up.fetch(replica)
    epochs.enter_if_due(replica)


def _too_few(replica: "Replica") -> bool:
    """Halt, and say so, where no quorum of others can tell how far this node has voted."""
    if replica.members - 1 >= replica.quorum:
        return False
    replica.halt(
        f"this node lost its voting record, and a chain of {replica.members} validators "
        "cannot recover one: restore the data folder, or start a new chain"
    )
    return True


def change_epoch(replica: "Replica") -> None:
    """What entering an epoch means for the right to vote (the replica is in its first view).

    A bound that was fixed in the old epoch says nothing of views and places in this one: who has
    not recovered yet asks again, and hears from a quorum of the new set.
    """
    lost = replica.phase in (Phase.SEEKING, Phase.RECOVERING) or replica.amnesiac
    if lost:
        replica.first_sequence = Sequence(0)
    if replica.me == NOBODY:
        replica.amnesiac = lost
        replica.phase = Phase.OBSERVING
    elif lost:
        replica.amnesiac = False
        replica.phase = Phase.SEEKING
        if _too_few(replica):
            return
    elif replica.phase is Phase.OBSERVING:
        replica.phase = Phase.STARTING
    if lost or replica.first_sequence:
        replica.emit(Persist(record=_record(replica, done=not lost)))


def may_start(replica: "Replica") -> None:
    """Vote from now on, if Q - 1 others have shown what they know of us."""
    if replica.phase is not Phase.STARTING or replica.started_from.bit_count() < replica.quorum - 1:
        return
    replica.phase = Phase.VOTING
    replica.note(Event.STARTED, f"view {replica.view}, block {replica.executed}")
    take_part(replica)


def take_part(replica: "Replica") -> None:
    """Everything that waited for the right to vote."""
    checkpoint.cast(replica)
    checkpoint.count_own(replica)
    prepare.progress_all(replica)
    view_change.resume(replica)
    propose.propose(replica)
    replica.suspect_at = None
    custody.arm(replica)


# --- amnesia


def check_number(replica: "Replica", shown: Stamp) -> None:
    """Somebody shows us a message under our own key (its signature was checked)."""
    if shown.signer != epochs.own_index(replica, shown.epoch):
        return
    if replica.phase in (Phase.SEEKING, Phase.RECOVERING):
        return
    same = shown.kind is replica.last_kind and shown.digest == replica.last_digest
    if shown.number < replica.last_number or (shown.number == replica.last_number and same):
        return
    replica.note(
        Event.AMNESIA_FOUND,
        f"a peer holds our message number {shown.number}, our record ends at {replica.last_number}",
    )
    if replica.phase is Phase.OBSERVING:
        replica.amnesiac = True
    else:
        replica.phase = Phase.SEEKING
    replica.first_sequence = Sequence(0)
    replica.answers.clear()
    replica.own_vectors.clear()
    replica.own_view_change = None
    replica.view_changes.pop(replica.me, None)
    replica.emit(Retract())
    replica.emit(Persist(record=_record(replica, done=False)))
    if replica.phase is Phase.OBSERVING:
        return
    if replica.members - 1 < replica.quorum:
        replica.halt(
            f"this node's voting record is older than its votes, and a chain of {replica.members} "
            "validators cannot recover one: restore the newest data folder"
        )
        return
    retransmit.send_status_to_all(replica)


def _record(replica: "Replica", *, done: bool) -> Recovery:
    return Recovery(first_sequence=replica.first_sequence, first_view=replica.first_view, done=done)


def answer(replica: "Replica", boot: int) -> RecoveryAnswer | None:
    """What we know, for a replica that lost its memory; None from one that may know nothing."""
    if replica.phase is not Phase.VOTING:
        return None
    return RecoveryAnswer(
        epoch=replica.committee.epoch,
        echo=boot,
        executed=replica.executed,
        certificate=replica.certificate,
        new_view=replica.new_view,
        view_changes=tuple([message for _, message in sorted(replica.view_changes.items())]),
    )


def on_answer(replica: "Replica", sender: ReplicaIndex, message: RecoveryAnswer) -> None:
    """Collect Q answers of others, then fix S and V for good."""
    if message.epoch != replica.committee.epoch:
        return
    if message.certificate is not None:
        checkpoint.adopt(replica, message.certificate)
        if message.epoch != replica.committee.epoch:
            return
    if replica.phase is not Phase.SEEKING or message.echo != replica.boot:
        return
    replica.answers[sender] = message
    if len(replica.answers) < replica.quorum:
        return
    bounds: list[int] = []
    views: list[int] = [0]
    for reply in replica.answers.values():
        shown = reply.certificate
        certified = 0 if shown is None or not epochs.certifies(replica, shown) else shown.height
        bounds.append(max(certified, min(reply.executed, certified + WINDOW_BLOCKS)))
        if reply.new_view is not None:
            views.append(reply.new_view.view)
        wanted = sorted((change.view for change in reply.view_changes), reverse=True)
        if len(wanted) >= replica.weak_quorum:
            views.append(wanted[replica.weak_quorum - 1])
    replica.first_sequence = Sequence(max(bounds) + WINDOW_BLOCKS + 1)
    replica.first_view = View(max(max(views) + 2, replica.first_view))
    replica.phase = Phase.RECOVERING
    replica.answers.clear()
    replica.emit(Persist(record=_record(replica, done=False)))
    replica.note(
        Event.RECOVERY_BOUND,
        f"no vote below block {replica.first_sequence} or view {replica.first_view}",
    )
    on_certified(replica)


def on_certified(replica: "Replica") -> None:
    """Everything this replica may have voted for is certified: it votes again."""
    if replica.phase is not Phase.RECOVERING or replica.certified < replica.first_sequence - 1:
        return
    replica.phase = Phase.VOTING
    replica.last_number = Number(
        max(replica.last_number, replica.first_sequence << NUMBERS_PER_BLOCK_BITS)
    )
    replica.emit(Persist(record=_record(replica, done=True)))
    replica.note(Event.RECOVERED, f"votes again from block {replica.first_sequence}")
    take_part(replica)
