"""From effects to one transaction: numbers, signatures, and what waits for the disk."""

import pytest

from consensus.core.effects import (
    AnnounceView,
    Broadcast,
    ChangeView,
    Drop,
    Execute,
    Persist,
    Propose,
    Retract,
    Send,
    SetTimer,
    Vote,
)
from consensus.core.inputs import Timer
from consensus.core.messages import (
    UNNUMBERED,
    UNSIGNED,
    FetchBlocks,
    NewView,
    PrePrepare,
    VoteVector,
)
from consensus.core.records import Accepted, LastNumber, OwnVotes, Record, ViewEntered
from consensus.core.tick import Gather, Tick
from consensus.core.types import Committee, Height, Number, ReplicaIndex, View
from consensus.errors import InvariantError
from consensus.limits import LEAVES_PER_VECTOR_MAX
from consensus.sim.node import sign
from consensus.tests import samples


class Author:
    """A replica that has signed 41 messages."""

    def __init__(self) -> None:
        self.committee = Committee(chain_id=samples.CHAIN, members=4, me=ReplicaIndex(1))
        self.number_floor = Number(41)
        self.drafts = 0

    def take_peer_stamps(self) -> list[Record]:
        return []

    def drafted(self) -> None:
        self.drafts += 1


def finish(gather: Gather) -> Tick:
    draft = gather.draft(Author())
    assert draft is not None
    return draft.complete([sign(1, job) for job in draft.jobs])


def unsigned_proposal(sequence: int) -> PrePrepare:
    return PrePrepare(
        view=View(1), signer=ReplicaIndex(1), number=UNNUMBERED, header=samples.batch(sequence)
    )


def test_all_votes_of_a_tick_share_one_signature() -> None:
    gather = Gather()
    gather.add([Vote(leaf=samples.prepare(0, 1))])
    gather.add([Vote(leaf=samples.commit(0, 1)), Vote(leaf=samples.certificate(3).checkpoint)])
    tick = finish(gather)
    (vector,) = tick.own
    assert isinstance(vector, VoteVector)
    assert len(vector.leaves) == 3
    assert vector.number == 42
    assert vector.signature == sign(1, vector.signed_bytes(samples.CHAIN))
    assert OwnVotes(vector=vector) in tick.records


def test_numbers_run_on_over_ticks_and_the_last_is_recorded() -> None:
    gather = Gather()
    gather.add([Propose(pre_prepare=unsigned_proposal(1)), Vote(leaf=samples.commit(0, 1))])
    first = finish(gather)
    gather.add([Vote(leaf=samples.commit(0, 2))])
    second = finish(gather)
    assert [message.number for message in first.own + second.own] == [42, 43, 44]
    last = [record for record in second.records if isinstance(record, LastNumber)]
    assert [record.number for record in last] == [44]


def test_a_proposal_is_recorded_and_leaves_with_its_body() -> None:
    gather = Gather()
    gather.add([Propose(pre_prepare=unsigned_proposal(1))])
    tick = finish(gather)
    (proposal,) = tick.own
    assert isinstance(proposal, PrePrepare)
    assert Accepted(pre_prepare=proposal) in tick.records
    assert [(out.peer, out.with_body) for out in tick.outgoing] == [(None, True)]


def test_a_new_view_signs_its_proposals_first() -> None:
    gather = Gather()
    unsigned = NewView(
        epoch=samples.EPOCH,
        view=View(1),
        signer=ReplicaIndex(1),
        number=UNNUMBERED,
        view_changes=tuple(samples.view_change(1, who) for who in (1, 2, 3)),
        proposals=(unsigned_proposal(6), unsigned_proposal(7)),
    )
    gather.add([ChangeView(view_change=samples.view_change(1, 1)), AnnounceView(new_view=unsigned)])
    tick = finish(gather)
    change, announced = tick.own
    assert change.number == 42
    assert isinstance(announced, NewView)
    assert [proposal.number for proposal in announced.proposals] == [43, 44]
    assert announced.number == 45
    assert announced.signature == sign(1, announced.signed_bytes(samples.CHAIN))
    for signed in announced.proposals:
        assert signed.signature == sign(1, signed.signed_bytes(samples.CHAIN))


def test_a_newer_record_of_the_same_key_replaces_the_older() -> None:
    gather = Gather()
    for view in (1, 2):
        record = ViewEntered(epoch=samples.EPOCH, view=View(view), active=False)
        gather.add([Persist(record=record)])
    tick = finish(gather)
    assert tick.records == (ViewEntered(epoch=samples.EPOCH, view=View(2), active=False),)


def test_only_what_reveals_nothing_is_urgent() -> None:
    gather = Gather()
    timer = SetTimer(timer=Timer.STATUS, at_us=1)
    header = samples.header(1)
    early = Execute(header=header, batch=samples.batch(1), after_persist=False)
    late = Execute(header=header, batch=samples.batch(1), after_persist=True)
    message = FetchBlocks(first=Height(1))
    urgent = gather.add(
        [
            timer,
            early,
            late,
            Send(peer=ReplicaIndex(2), message=message),
            Broadcast(message=message),
        ]
    )
    assert urgent == [timer, early]
    tick = finish(gather)
    assert tick.executes == (late,)
    assert [out.peer for out in tick.outgoing] == [2, None]
    assert not tick.durable


def test_a_drop_alone_needs_the_disk() -> None:
    gather = Gather()
    gather.add([Drop(through=Height(7)), Drop(through=Height(5))])
    tick = finish(gather)
    assert tick.durable
    assert tick.drop == 7


def test_retraction_forgets_every_unsigned_message() -> None:
    gather = Gather()
    record = ViewEntered(epoch=samples.EPOCH, view=View(1), active=False)
    gather.add(
        [
            Vote(leaf=samples.commit(0, 1)),
            Propose(pre_prepare=unsigned_proposal(1)),
            ChangeView(view_change=samples.view_change(1, 1)),
            Retract(),
            Persist(record=record),
        ]
    )
    tick = finish(gather)
    assert tick.own == ()
    assert tick.records == (record,)


def test_very_many_votes_become_several_vectors() -> None:
    gather = Gather()
    gather.add([Vote(leaf=samples.commit(0, place + 1)) for place in range(300)])
    tick = finish(gather)
    sizes = [len(own.leaves) for own in tick.own if isinstance(own, VoteVector)]
    assert sizes == [LEAVES_PER_VECTOR_MAX, 300 - LEAVES_PER_VECTOR_MAX]


def test_what_was_written_unsigned_is_signed_once_and_stays_as_it_was_written() -> None:
    gather = Gather()
    gather.add([Vote(leaf=samples.commit(0, 1)), Propose(pre_prepare=unsigned_proposal(1))])
    draft = gather.draft(Author())
    assert draft is not None
    written = draft.unsigned()
    assert (written.own, written.outgoing) == ((), ())
    for record in written.records:
        if isinstance(record, Accepted):
            assert record.pre_prepare.signature == UNSIGNED
        elif isinstance(record, OwnVotes):
            assert record.vector.signature == UNSIGNED
    tick = draft.complete([sign(1, job) for job in draft.jobs])
    assert all(one is other for one, other in zip(tick.records, written.records, strict=True))
    assert [message.signature for message in tick.own] == [sign(1, job) for job in draft.jobs]
    assert [outgoing.message for outgoing in tick.outgoing] == list(tick.own)


def test_what_holds_the_words_of_others_is_not_written_unsigned() -> None:
    gather = Gather()
    gather.add([ChangeView(view_change=samples.view_change(1, 1))])
    draft = gather.draft(Author())
    assert draft is not None
    with pytest.raises(InvariantError):
        draft.unsigned()


def test_nothing_gathered_is_no_draft() -> None:
    gather = Gather()
    assert gather.draft(Author()) is None
    assert UNSIGNED == b""


def test_an_own_message_does_not_replace_what_was_accepted_in_a_later_view() -> None:
    gather = Gather()
    later = Accepted(pre_prepare=samples.pre_prepare(4, 1))
    gather.add([Propose(pre_prepare=unsigned_proposal(1)), Persist(record=later)])
    kept = [record for record in finish(gather).records if isinstance(record, Accepted)]
    assert kept == [later]
