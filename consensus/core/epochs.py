"""From one validator set to the next (bft.md 3.8).

A block at height s_tx decides the next set; the epoch ends with block s_c = s_tx + L, its last one.
The window is cut there: nothing is proposed or voted for beyond it, and what an old epoch agreed on
beyond it is void. The CHECKPOINT leaves of s_c name the next set, so its certificate, made by the
old quorum, links the epochs. A replica enters the next epoch in the step that gives it both the
certificate and the set; the tick of that step makes both durable before anything of the new epoch
leaves. Everything kept by replica index is forgotten there: the same node has another index now.

What is *not* here: who decides on members (an application does), and connections, which outlive
epochs. A node outside the set runs the same code as an observer and signs nothing.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from consensus.core import catch_up, custody, recovery, retransmit, transfer
from consensus.core.certificates import was_in_epoch
from consensus.core.effects import EnterEpoch, Event, Persist, ReleaseCustody, Send
from consensus.core.inputs import Timer
from consensus.core.instance import Instance
from consensus.core.messages import BlockCertificate, EpochLink, Stamp, Status
from consensus.core.phases import checkpoint, prepare, propose
from consensus.core.records import (
    Birth,
    EpochBegun,
    ExecutedBlock,
    Record,
    Recovery,
    Retired,
    ViewEntered,
)
from consensus.core.types import (
    GENESIS_HEIGHT,
    NO_DIGEST,
    NOBODY,
    Committee,
    Epoch,
    Height,
    Phase,
    ReplicaIndex,
    Sequence,
    View,
)
from consensus.core.validators import ValidatorSet
from consensus.core.wire import Bounds
from consensus.errors import CorruptRecord, invariant
from consensus.limits import GUESTS_MAX, MEMBERS_MAX, RETIRED_SERVES_EPOCHS, WINDOW_BLOCKS
from native.values import Digest, NodeId

if TYPE_CHECKING:
    from consensus.core.replica import Replica

GUEST_FIRST = ReplicaIndex(MEMBERS_MAX)
"""From here on an index is no member but a place for a connected node outside the set."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Epochs:
    """The set of every epoch from genesis to the newest known one."""

    chain_id: Digest
    sets: tuple[ValidatorSet, ...]
    base: Height = GENESIS_HEIGHT  # the last block before the newest epoch
    links: tuple[EpochLink, ...] = ()  # to epoch 1, 2, ...

    @classmethod
    def of(cls, chain_id: Digest, genesis: ValidatorSet, records: Iterable[Record]) -> "Epochs":
        """What the records of a store prove; raises `CorruptRecord` when a link is missing."""
        links = {int(r.link.epoch): r.link for r in records if isinstance(r, EpochBegun)}
        epochs = cls(chain_id=chain_id, sets=(genesis,))
        for epoch in sorted(links):
            if epoch != len(epochs.sets):
                raise CorruptRecord(f"the link to epoch {len(epochs.sets)} is missing")
            epochs = epochs.extended(links[epoch])
        return epochs

    def extended(self, link: EpochLink) -> "Epochs":
        """With the next epoch."""
        invariant(link.epoch == len(self.sets), "epochs are entered one after another")
        return Epochs(
            chain_id=self.chain_id,
            sets=(*self.sets, link.validators),
            base=link.base,
            links=(*self.links, link),
        )

    @property
    def newest(self) -> ValidatorSet:
        return self.sets[-1]

    def bounds(self) -> Bounds:
        """What a decoder of the newest epoch must know."""
        sizes = [len(validators.members) for validators in self.sets]
        return Bounds(chain_id=self.chain_id, members=sizes[-1], earlier=tuple(sizes[:-1]))

    def committee(self, node_id: NodeId, *, rotation_blocks: int = 0) -> Committee:
        """The newest epoch as one node sees it."""
        index = self.newest.index_of(node_id)
        return Committee(
            chain_id=self.chain_id,
            members=len(self.newest.members),
            me=NOBODY if index is None else ReplicaIndex(index),
            epoch=self.newest.epoch,
            node_id=node_id,
            rotation_blocks=rotation_blocks,
        )


def shown(known: Epochs, links: Iterable[EpochLink], records: Iterable[Record]) -> list[Record]:
    """What to write for a stopped node that is shown later epochs, as if it had entered them.

    `links` begin at genesis and were verified; `records` are those of the node's store. Raises
    `CorruptRecord` when the store knows other sets.
    """
    own: Digest | None = None
    recovery_of: Recovery | None = None
    for record in records:
        if isinstance(record, Birth):
            own = record.node_id
        elif isinstance(record, Recovery):
            recovery_of = record
    made: list[Record] = []
    for link in links:
        if link.epoch < len(known.sets):
            if known.sets[link.epoch].hash != link.validators.hash:
                raise CorruptRecord(f"the store knows another set of epoch {link.epoch}")
            continue
        before, known = known.newest, known.extended(link)
        made.append(EpochBegun(link=link))
        was, is_one = [
            any(Digest(member.node_id) == own for member in each.members)
            for each in (before, link.validators)
        ]
        if was and not is_one:
            made.append(Retired(epoch=link.epoch, base=link.base))
    if made:
        made.append(ViewEntered(epoch=known.newest.epoch, view=View(0), active=True))
        if recovery_of is not None:  # see `recovery.change_epoch`
            place = recovery_of.first_sequence if recovery_of.done else Sequence(0)
            made.append(replace(recovery_of, first_sequence=place, first_view=View(0)))
    return made


# --- the end of an epoch


def decided(replica: "Replica", epoch: Epoch, block: ExecutedBlock) -> None:
    """A block that was executed, and perhaps decided on the next set."""
    validators = block.next_validators
    if validators is None:
        return
    invariant(validators.epoch == epoch + 1, "a block decides on the set of the next epoch")
    last = block.height + WINDOW_BLOCKS
    link = replica.links.get(int(validators.epoch))
    if link is not None:
        if (link.base, link.validators.hash) != (last, validators.hash):
            replica.diverge(
                f"block {block.height} decided on another validator set than the certified one"
            )
        return
    invariant(epoch == replica.committee.epoch, "blocks of later epochs are not executed")
    invariant(replica.next_set is None, "a second change of members while one is pending")
    replica.next_set = validators
    cut_at(replica, last)
    if replica.phase is not Phase.HALTED:
        replica.note(
            Event.EPOCH_DECIDED,
            f"epoch {validators.epoch} of {len(validators.members)} validators begins after "
            f"block {last}",
        )


def cut_at(replica: "Replica", last: int) -> None:
    """The epoch ends with this block; whatever was agreed on beyond it is void."""
    if replica.cut is not None:
        if replica.cut != last:
            replica.diverge(
                f"epoch {replica.committee.epoch} ends with block {last} for others, with block "
                f"{replica.cut} here"
            )
        return
    replica.cut = Height(last)
    for sequence in [place for place in replica.instances if place > last]:
        del replica.instances[sequence]
    for sequence in [place for place in replica.prepared if place > last]:
        del replica.prepared[sequence]
    for height in [place for place in replica.checkpoints if place > last]:
        del replica.checkpoints[height]


def next_set_at(replica: "Replica", height: Height) -> Digest:
    """What the CHECKPOINT leaf of a block says of the next set."""
    if replica.next_set is not None and height == replica.cut:
        return replica.next_set.hash
    return NO_DIGEST


def certified(replica: "Replica", certificate: BlockCertificate) -> None:
    """A certificate was adopted: perhaps it is the last one of the epoch."""
    claim = certificate.checkpoint
    if claim.epoch == replica.committee.epoch and claim.next_set != NO_DIGEST:
        cut_at(replica, certificate.height)


def enter_if_due(replica: "Replica") -> None:
    """Enter the next epoch once the certificate of the last block and the set are both here."""
    certificate, validators = replica.certificate, replica.next_set
    if (
        replica.phase is Phase.HALTED
        or certificate is None
        or validators is None
        or certificate.checkpoint.epoch != replica.committee.epoch
        or certificate.checkpoint.next_set == NO_DIGEST
    ):
        return
    if certificate.checkpoint.next_set != validators.hash:
        replica.diverge(
            f"block {certificate.height} names another validator set than this node executed"
        )
        return
    enter(replica, EpochLink(certificate=certificate, validators=validators))


def on_link(replica: "Replica", link: EpochLink) -> None:
    """A peer shows how this epoch ended (the decoder compared the set with the certificate)."""
    if link.epoch != replica.committee.epoch + 1:
        return
    known = replica.next_set
    if known is not None and known.hash != link.validators.hash:
        replica.diverge(f"block {link.base} names another validator set than this node executed")
        return
    replica.next_set = link.validators
    cut_at(replica, link.base)
    if replica.phase is not Phase.HALTED:
        checkpoint.adopt(replica, link.certificate)
        enter_if_due(replica)  # the certificate may have been here before the set


def certifies(replica: "Replica", certificate: BlockCertificate) -> bool:
    """Whether the certificate is of a block that its epoch really had, as far as is known here."""
    claim = certificate.checkpoint
    begun = replica.links.get(int(claim.epoch))
    ended = replica.links.get(claim.epoch + 1)
    return was_in_epoch(
        claim,
        base=None if begun is None else begun.base,
        end=None if ended is None else ended.base,
    )


# --- the beginning of the next one


def enter(replica: "Replica", link: EpochLink) -> None:
    """Become a member of the next epoch, or an observer of it: view 0, first place s_c + 1."""
    before = replica.committee
    index = None if before.node_id is None else link.validators.index_of(before.node_id)
    waiting = {
        sequence: instance.batch
        for sequence, instance in replica.instances.items()
        if sequence <= link.base and instance.batch is not None
    }
    stamps = [stamp for signer in sorted(replica.newest_of) if (stamp := replica.stamp_of(signer))]
    roots = replica.roots_in_use()
    replica.begin_epoch(
        Committee(
            chain_id=before.chain_id,
            members=len(link.validators.members),
            me=NOBODY if index is None else ReplicaIndex(index),
            epoch=link.epoch,
            node_id=before.node_id,
            rotation_blocks=before.rotation_blocks,
        ),
        link.base,
    )
    replica.links[int(link.epoch)] = link
    for stamp in stamps:
        replica.remember(stamp)
    replica.newest_changed.update(replica.newest_of)
    for sequence, batch in waiting.items():
        # Committed and certified, not yet executed: final, whatever set votes now.
        instance = replica.instances[sequence] = Instance(sequence)
        instance.batch = batch
    replica.emit(EnterEpoch(link=link))
    replica.emit(Persist(record=EpochBegun(link=link)))
    replica.emit(Persist(record=ViewEntered(epoch=link.epoch, view=replica.view, active=True)))
    was_member = before.me != NOBODY
    if was_member and index is None:
        replica.retired = link.epoch
        replica.emit(Persist(record=Retired(epoch=link.epoch, base=link.base)))
    for block in [replica.uncertified[height] for height in sorted(replica.uncertified)]:
        if block.next_validators is not None and block.next_validators.epoch > link.epoch:
            decided(replica, link.epoch, block)
    recovery.change_epoch(replica)
    transfer.change_epoch(replica)
    role = "an observer" if index is None else f"replica {index}"
    replica.note(
        Event.EPOCH_ENTERED,
        f"epoch {link.epoch} after block {link.base}: {len(link.validators.members)} validators, "
        f"this node is {role}",
    )
    if not replica.serves and link.epoch == replica.retired + RETIRED_SERVES_EPOCHS:
        replica.note(
            Event.SERVING_ENDED,
            f"this node votes no more since epoch {replica.retired}: it observes, and peers fetch "
            "nothing from it any more; stop it when nobody reads from it",
        )
    _begin(replica, roots)


def _begin(replica: "Replica", roots: set[Digest]) -> None:
    now = replica.now.monotonic_us
    replica.entered_us = now
    replica.next_sequence = Sequence(max(replica.base, replica.executed) + 1)
    for timer in (Timer.PROPOSE, Timer.IDLE, Timer.VIEW_CHANGE, Timer.CLOCK):
        replica.clear_timer(timer)
    replica.release_bodies(roots)
    replica.emit(ReleaseCustody(in_flight=()))
    custody.on_entry(replica)
    retransmit.send_status_to_all(replica)
    recovery.may_start(replica)
    catch_up.fetch(replica)
    custody.arm(replica)
    prepare.progress_all(replica)
    propose.propose(replica)


# --- who is who


def node_of(replica: "Replica", stamp: Stamp) -> NodeId | None:
    """The node behind a stamp, whichever epoch it is of; None if that set is not known."""
    validators = replica.set_of(stamp.epoch)
    if validators is None or stamp.signer >= len(validators.members):
        return None
    return validators.members[stamp.signer].node_id


def own_index(replica: "Replica", epoch: Epoch) -> ReplicaIndex | None:
    """Our index in an epoch; None when we had none, or when that set is not known."""
    if epoch == replica.committee.epoch:
        return None if replica.me == NOBODY else replica.me
    validators = replica.set_of(epoch)
    if validators is None or replica.committee.node_id is None:
        return None
    index = validators.index_of(replica.committee.node_id)
    return None if index is None else ReplicaIndex(index)


# --- nodes that are behind, or outside


def help_behind(replica: "Replica", sender: ReplicaIndex, status: Status) -> None:
    """Show a node of an earlier epoch how that epoch ended, at a bounded rate."""
    link = replica.links.get(int(status.epoch) + 1)
    if link is not None and replica.may_help(sender):
        replica.emit(Send(peer=sender, message=link))


def help_guest(replica: "Replica", sender: ReplicaIndex, status: Status) -> None:
    """Show an observer of this epoch our newest certificate, and note what it can serve."""
    guest = replica.guest(sender)
    if guest is not None:
        guest.executed = status.executed
    known = GENESIS_HEIGHT if status.certificate is None else status.certificate.height
    if known < replica.certified and replica.may_help(sender):
        retransmit.send_status(replica, sender)


def is_guest(index: ReplicaIndex) -> bool:
    """Whether an index is a place for a node outside the set."""
    return GUEST_FIRST <= index < GUEST_FIRST + GUESTS_MAX
