"""The pure half of a tick: what becomes durable together, and what may leave after that.

Life of a tick (the driver and the simulator do exactly this, in this order):

    urgent = gather.add(replica.step(input, now))   # run these at once
    draft = gather.draft(replica)                   # None when there is nothing to do
    tick = draft.complete([sign(job) for job in draft.jobs])
    store.commit(tick.records, tick.drop)           # one transaction; Accepted: body too
    for message in tick.own:                        # durable now: own messages count
        gather.add(replica.step(Received(sender=me, message=message), now))
    send(tick.outgoing); execute(tick.executes)

Only one tick is on its way to the disk at a time; what happens meanwhile is gathered for the next.
After a `Halt` there is one more at most, `gather.last_tick`, which releases nothing.
A tick without records may skip the disk when no commit is running. A draft with
`votes_and_proposals_only` may be written first (`draft.unsigned`) and signed while the disk works.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, assert_never

from consensus.core.effects import (
    Accuse,
    AnnounceView,
    Broadcast,
    ChangeView,
    CheckSnapshot,
    ClearTimer,
    Drop,
    Effect,
    EnterEpoch,
    Execute,
    ForgetBody,
    ForwardCustody,
    Halt,
    KeepChunk,
    Misbehaved,
    Note,
    Persist,
    Propose,
    ReleaseCustody,
    RestoreSnapshot,
    Retract,
    Send,
    SendProposal,
    SetTimer,
    TakeBatch,
    Vote,
)
from consensus.core.messages import (
    Checkpoint,
    Leaf,
    Message,
    NewView,
    PrePrepare,
    Signed,
    ViewChange,
    VoteVector,
)
from consensus.core.records import (
    Accepted,
    Agreed,
    Anchor,
    Diverged,
    LastNumber,
    NewViewHeld,
    OwnViewChange,
    OwnVotes,
    Record,
    Recovery,
    Tip,
    record_key,
)
from consensus.core.types import NOBODY, Committee, Epoch, Height, Number, ReplicaIndex
from consensus.errors import invariant
from consensus.limits import LEAVES_PER_VECTOR_MAX, OWN_NUMBER_MAX
from native.values import Signature

Urgent = (
    Execute
    | CheckSnapshot
    | KeepChunk
    | TakeBatch
    | ReleaseCustody
    | ForwardCustody
    | ForgetBody
    | EnterEpoch
    | SetTimer
    | ClearTimer
    | Misbehaved
    | Accuse
    | Halt
    | Note
)
"""Effects that reveal nothing of ours and are run at once."""


class Author(Protocol):
    """What a draft asks of the replica."""

    @property
    def committee(self) -> Committee: ...

    @property
    def number_floor(self) -> Number:
        """Every number must be above this one."""
        ...

    def take_peer_stamps(self) -> list[Record]:
        """Highest-numbered messages of peers that changed since the last call."""
        ...

    def drafted(self) -> None:
        """Everything emitted so far is in a draft."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Outgoing:
    """A message for one peer, or for every other replica (`peer` is None).

    `with_body` only for a PRE-PREPARE: send it as PROPOSAL with the body of its batch.
    """

    peer: ReplicaIndex | None
    message: Message
    with_body: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tick:
    """One transaction, and what it releases.

    `outgoing` is dropped when another epoch was entered since the draft.
    """

    epoch: Epoch  # its outgoing messages name peers by their index in this one
    records: tuple[Record, ...]
    drop: Height | None
    own: tuple[Signed, ...]
    outgoing: tuple[Outgoing, ...]
    executes: tuple[Execute, ...]
    restore: RestoreSnapshot | None = None

    @property
    def durable(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.records) or self.drop is not None


class Gather:
    """Collects effects until a tick is drafted."""

    __slots__ = (
        "_announcements",
        "_changes",
        "_drop",
        "_executes",
        "_last_number",
        "_leaves",
        "_outgoing",
        "_proposals",
        "_records",
        "_restore",
    )

    def __init__(self) -> None:
        self._last_number = 0
        self._clear()

    def _clear(self) -> None:
        self._leaves: list[Leaf] = []
        self._proposals: list[PrePrepare] = []
        self._changes: list[ViewChange] = []
        self._announcements: list[NewView] = []
        self._records: dict[tuple[int, int], Record] = {}
        self._drop: Height | None = None
        self._outgoing: list[Outgoing] = []
        self._executes: list[Execute] = []
        self._restore: RestoreSnapshot | None = None

    @property
    def empty(self) -> bool:
        """Whether a draft would have nothing to do."""
        return not (
            self._leaves
            or self._records
            or self._outgoing
            or self._proposals
            or self._executes
            or self._changes
            or self._announcements
            or self._drop is not None
            or self._restore is not None
        )

    @property
    def patient(self) -> bool:
        """Whether nobody waits for what is gathered: CHECKPOINT leaves, certificates, old batches.

        They may ride on the next tick, which saves a signature and a commit for each block.
        """
        return not (
            self._outgoing
            or self._proposals
            or self._changes
            or self._announcements
            or self._executes
            or self._restore is not None
            or any(not isinstance(leaf, Checkpoint) for leaf in self._leaves)
            or any(
                not isinstance(record, Tip | Anchor | Agreed) for record in self._records.values()
            )
        )

    def add(self, effects: Iterable[Effect]) -> list[Urgent]:
        """Keep what must wait for the disk; give back, in order, what must not."""
        urgent: list[Urgent] = []
        for effect in effects:
            match effect:
                case Vote():
                    self._leaves.append(effect.leaf)
                case Persist():
                    self._records[record_key(effect.record)] = effect.record
                case Execute():
                    if effect.after_persist:
                        self._executes.append(effect)
                    else:
                        urgent.append(effect)
                case Send():
                    self._outgoing.append(Outgoing(peer=effect.peer, message=effect.message))
                case Broadcast():
                    self._outgoing.append(Outgoing(peer=None, message=effect.message))
                case SendProposal():
                    self._outgoing.append(
                        Outgoing(peer=effect.peer, message=effect.pre_prepare, with_body=True)
                    )
                case Propose():
                    self._proposals.append(effect.pre_prepare)
                case Drop():
                    if self._drop is None or effect.through > self._drop:
                        self._drop = effect.through
                case ChangeView():
                    self._changes.append(effect.view_change)
                case AnnounceView():
                    self._announcements.append(effect.new_view)
                case Retract():
                    self._leaves = []
                    self._proposals = []
                    self._changes = []
                    self._announcements = []
                case EnterEpoch():
                    self._leaves = []
                    self._proposals = []
                    self._changes = []
                    self._announcements = []
                    self._outgoing = []
                    urgent.append(effect)
                case RestoreSnapshot():
                    self._restore = effect
                case (
                    CheckSnapshot()
                    | KeepChunk()
                    | TakeBatch()
                    | ReleaseCustody()
                    | ForwardCustody()
                    | ForgetBody()
                    | SetTimer()
                    | ClearTimer()
                    | Misbehaved()
                    | Accuse()
                    | Halt()
                    | Note()
                ):
                    urgent.append(effect)
                case _:
                    assert_never(effect)
        return urgent

    def draft(self, author: Author) -> "Draft | None":
        """Number everything that was gathered; None when there is nothing.

        The bodies that its `Accepted` records need are held until the next `Replica.step`: take
        them before.
        """
        if self.empty:
            return None
        draft = Draft(
            author,
            unsigned=self._numbered(author),
            records=self._records,
            drop=self._drop,
            outgoing=self._outgoing,
            executes=self._executes,
            restore=self._restore,
        )
        self._clear()
        author.drafted()
        return draft

    def last_tick(self, author: Author) -> Tick | None:
        """What must be durable of a replica that halted.

        That it lost memory of its votes, that its state differs, and the certificate that showed
        it. It says nothing any more, so of all else that was gathered nothing is written.
        """
        last = Recovery | Tip | Diverged
        records = tuple([found for found in self._records.values() if isinstance(found, last)])
        self._clear()
        if not records:
            return None
        return Tick(
            epoch=author.committee.epoch,
            records=records,
            drop=None,
            own=(),
            outgoing=(),
            executes=(),
        )

    def _numbered(self, author: Author) -> list[Signed]:
        committee = author.committee
        number = max(self._last_number, author.number_floor)
        unsigned: list[Signed] = []
        for pre_prepare in self._proposals:
            number += 1
            unsigned.append(pre_prepare.numbered(Number(number)))
        for start in range(0, len(self._leaves), LEAVES_PER_VECTOR_MAX):
            number += 1
            unsigned.append(
                VoteVector(
                    epoch=committee.epoch,
                    signer=committee.me,
                    number=Number(number),
                    leaves=tuple(self._leaves[start : start + LEAVES_PER_VECTOR_MAX]),
                )
            )
        for change in self._changes:
            number += 1
            unsigned.append(change.numbered(Number(number)))
        for announcement in self._announcements:
            proposals: list[PrePrepare] = []
            for pre_prepare in announcement.proposals:
                number += 1
                proposals.append(pre_prepare.numbered(Number(number)))
            number += 1
            unsigned.append(
                replace(announcement, number=Number(number), proposals=tuple(proposals))
            )
        invariant(number <= OWN_NUMBER_MAX, "signed messages are numbered below 2**63")
        self._last_number = number
        return unsigned


class Draft:
    """A tick whose signatures are still missing."""

    __slots__ = (
        "_drop",
        "_epoch",
        "_executes",
        "_outgoing",
        "_records",
        "_restore",
        "_unsigned",
        "_written",
        "jobs",
    )

    def __init__(
        self,
        author: Author,
        *,
        unsigned: list[Signed],
        records: dict[tuple[int, int], Record],
        drop: Height | None,
        outgoing: list[Outgoing],
        executes: list[Execute],
        restore: RestoreSnapshot | None = None,
    ) -> None:
        self._epoch = author.committee.epoch
        self._unsigned = unsigned
        self._records = records
        self._drop = drop
        self._outgoing = outgoing
        self._executes = executes
        self._restore = restore
        self._written = False
        chain_id = author.committee.chain_id
        self.jobs: list[bytes] = []
        """What must be signed, in order."""
        for message in unsigned:
            if isinstance(message, NewView):
                self.jobs.extend(entry.signed_bytes(chain_id) for entry in message.proposals)
            self.jobs.append(message.signed_bytes(chain_id))
        if unsigned:
            invariant(author.committee.me != NOBODY, "an observer signs nothing")
            for stamp in author.take_peer_stamps():
                records[record_key(stamp)] = stamp
            stamp_of_last = unsigned[-1].stamp()
            last: Record = LastNumber(
                number=stamp_of_last.number, kind=stamp_of_last.kind, digest=stamp_of_last.digest
            )
            records[record_key(last)] = last

    @property
    def votes_and_proposals_only(self) -> bool:
        """Whether the records may be stored unsigned (`records.signed_again`)."""
        return all(isinstance(message, VoteVector | PrePrepare) for message in self._unsigned)

    def _keep(self, record: Record) -> None:
        """Write it, unless something of a later view was gathered for its place meanwhile."""
        key = record_key(record)
        match record, self._records.get(key):
            case Accepted() as mine, Accepted() as held:
                if held.pre_prepare.view > mine.pre_prepare.view:
                    return
            case NewViewHeld() as mine, NewViewHeld() as held:
                if held.new_view.view > mine.new_view.view:
                    return
        self._records[key] = record

    def unsigned(self) -> Tick:
        """What may be written before anything is signed; it says nothing and has our messages bare.

        Only if they are `votes_and_proposals_only`. `complete` follows and has the same records.
        """
        invariant(self.votes_and_proposals_only, "what holds the words of others is signed before")
        for message in self._unsigned:
            self._keep(_record(message))
        self._written = True
        return self._tick((), ())

    def complete(self, signatures: Sequence[Signature]) -> Tick:
        """Put the signatures in, one for each job."""
        invariant(len(signatures) == len(self.jobs), "one signature for each job")
        at = iter(signatures)
        own: list[Signed] = []
        for message in self._unsigned:
            unsigned: Signed = message
            if isinstance(message, NewView):
                proposals = tuple([entry.signed(next(at)) for entry in message.proposals])
                unsigned = replace(message, proposals=proposals)
            own.append(unsigned.signed(next(at)))
            if not self._written:
                self._keep(_record(own[-1]))
        outgoing = [
            Outgoing(peer=None, message=message, with_body=message.__class__ is PrePrepare)
            for message in own
        ]
        return self._tick(tuple(own), tuple(outgoing + self._outgoing))

    def _tick(self, own: tuple[Signed, ...], outgoing: tuple[Outgoing, ...]) -> Tick:
        return Tick(
            epoch=self._epoch,
            records=tuple(self._records.values()),
            drop=self._drop,
            own=own,
            outgoing=outgoing,
            executes=tuple(self._executes),
            restore=self._restore,
        )


def _record(message: Signed) -> Record:
    """What is written of a message of ours."""
    match message:
        case PrePrepare():
            return Accepted(pre_prepare=message)
        case VoteVector():
            return OwnVotes(vector=message)
        case ViewChange():
            return OwnViewChange(view_change=message)
        case NewView():
            return NewViewHeld(new_view=message)
        case _:
            assert_never(message)
