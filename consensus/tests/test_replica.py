"""One replica, one input at a time: what it asks for, and what it waits for."""

from dataclasses import replace

import pytest

from consensus.core import catch_up, custody
from consensus.core.effects import (
    Accuse,
    Broadcast,
    ChangeView,
    Effect,
    Execute,
    Fault,
    ForwardCustody,
    Halt,
    Misbehaved,
    Persist,
    Propose,
    ReleaseCustody,
    Send,
    SetTimer,
    TakeBatch,
    Vote,
)
from consensus.core.evidence import Offence
from consensus.core.inputs import (
    BatchTaken,
    BodyHeld,
    CustodyChanged,
    CustodyShown,
    Executed,
    Input,
    PeerConnected,
    PeerLost,
    Received,
    Started,
    Timer,
    TimerFired,
)
from consensus.core.messages import (
    EMPTY_ROOT,
    Checkpoint,
    Commit,
    Equivocation,
    FetchBodies,
    Leaf,
    Message,
    NewView,
    Prepare,
    Status,
    ViewChange,
    VoteVector,
)
from consensus.core.phases import propose
from consensus.core.records import Accepted, Birth, ExecutedBlock, Prepared, Tip
from consensus.core.replica import Replica, genesis_block
from consensus.core.types import (
    Committee,
    Height,
    Instant,
    Number,
    Phase,
    ReplicaIndex,
    Sequence,
    Timing,
    View,
)
from consensus.errors import InvariantError
from consensus.limits import HURRIED_BLOCKS_MAX, IN_FLIGHT_BLOCKS_MAX, JUDGED_BATCHES
from consensus.sim.node import sign
from consensus.tests import samples
from native.values import Digest

ROOT = Digest(b"r" * 32)
START_MS = 1_700_000_000_000


class Bench:
    """A replica of four, or more, on a bench: time stands still unless told otherwise."""

    def __init__(self, me: int, *, members: int = 4, started: bool = True) -> None:
        self.me = ReplicaIndex(me)
        self.late_us = 0
        self.replica = Replica(
            Committee(chain_id=samples.CHAIN, members=members, me=self.me),
            Timing(),
            boot=77,
            tip=genesis_block(samples.CHAIN, 0, ROOT),
            records=[Birth(chain_id=samples.CHAIN, node_id=ROOT, incarnation=1)],
        )
        self.feed(Started())
        if started:
            for peer in self.replica.others[: self.replica.quorum - 1]:
                self.hear(peer, status(peer))
            assert self.replica.statistics().phase is Phase.VOTING

    def feed(self, message: Input) -> list[Effect]:
        now = Instant(
            monotonic_us=1_000_000 + self.late_us, unix_ms=START_MS + self.late_us // 1_000
        )
        return self.replica.step(message, now)

    def hear(self, sender: int, message: Message) -> list[Effect]:
        return self.feed(Received(sender=ReplicaIndex(sender), message=message))

    def hear_votes(self, leaf: Leaf, *signers: int) -> list[Effect]:
        effects: list[Effect] = []
        for signer in signers:
            effects += self.hear(signer, samples.vector(signer, leaf))
        return effects

    def propose(self, sequence: int, root: bytes = ROOT) -> list[Effect]:
        effects = self.feed(BodyHeld(payload_root=Digest(root), size_bytes=9))
        return effects + self.hear(0, samples.pre_prepare(0, sequence, root))

    def own(self, leaf: Leaf, number: int) -> list[Effect]:
        vector = replace(samples.vector(self.me, leaf), number=Number(number))
        return self.hear(self.me, vector)


def status(sender: int, **changes: object) -> Status:
    fields: dict[str, object] = {
        "epoch": samples.EPOCH,
        "view": View(0),
        "in_view_change": False,
        "phase": Phase.VOTING,
        "boot": 1_000 + sender,
        "echo": 77,
        "executed": Height(0),
        "certificate": None,
        "view_changes_held": 0,
        "held": None,
        "unix_ms": START_MS,
    }
    return Status(**(fields | changes))  # type: ignore[arg-type]


def leaves(effects: list[Effect]) -> list[Leaf]:
    return [effect.leaf for effect in effects if isinstance(effect, Vote)]


def test_a_backup_prepares_what_the_primary_proposes() -> None:
    effects = Bench(1).propose(1)
    assert leaves(effects) == [samples.prepare(0, 1)]
    assert Persist(record=Accepted(pre_prepare=samples.pre_prepare(0, 1))) in effects


def test_nothing_is_signed_before_enough_others_were_heard() -> None:
    bench = Bench(1, started=False)
    assert leaves(bench.propose(1)) == []
    assert leaves(bench.hear(0, status(0))) == []
    assert leaves(bench.hear(2, status(2))) == [samples.prepare(0, 1)]


def test_an_answer_to_an_earlier_life_does_not_count() -> None:
    bench = Bench(1, started=False)
    bench.propose(1)
    for peer in (0, 2, 3):
        assert leaves(bench.hear(peer, status(peer, echo=76))) == []


def test_what_a_recovering_node_says_does_not_count() -> None:
    bench = Bench(1, started=False)
    for peer in (0, 2, 3):
        bench.hear(peer, status(peer, phase=Phase.RECOVERING))
    assert bench.replica.statistics().phase is Phase.STARTING


def test_a_missing_body_is_fetched_and_the_vote_waits_for_it() -> None:
    bench = Bench(1)
    effects = bench.hear(0, samples.pre_prepare(0, 1))
    assert leaves(effects) == []
    assert any(isinstance(effect, SetTimer) and effect.timer is Timer.FETCH for effect in effects)
    bench.late_us = catch_up.PUSHED_WAIT_US
    asked = bench.feed(TimerFired(timer=Timer.FETCH))
    fetches = [effect.message for effect in asked if isinstance(effect, Send)]
    assert fetches == [FetchBodies(payload_roots=(ROOT,))]
    assert bench.replica.wants_body(ROOT)
    assert leaves(bench.feed(BodyHeld(payload_root=ROOT, size_bytes=9))) == [samples.prepare(0, 1)]
    assert not bench.replica.wants_body(ROOT)


def test_prepared_needs_two_backups_and_the_primary_counts_once() -> None:
    bench = Bench(1)
    bench.propose(1)
    assert leaves(bench.hear_votes(samples.prepare(0, 1), 0)) == []
    assert leaves(bench.hear_votes(samples.prepare(0, 1), 2)) == []
    effects = bench.hear_votes(samples.prepare(0, 1), 3)
    assert leaves(effects) == [samples.commit(0, 1)]
    certificates = [
        effect.record.certificate
        for effect in effects
        if isinstance(effect, Persist) and isinstance(effect.record, Prepared)
    ]
    assert [vote.signer for vote in certificates[0].votes] == [2, 3]


def test_the_own_vote_counts_when_it_comes_back() -> None:
    bench = Bench(1)
    bench.propose(1)
    bench.hear_votes(samples.prepare(0, 1), 2)
    assert not bench.replica.prepared
    assert leaves(bench.own(samples.prepare(0, 1), 1)) == [samples.commit(0, 1)]


def test_a_block_executes_at_once_only_behind_the_own_durable_commit() -> None:
    for own_first in (True, False):
        bench = Bench(1)
        bench.propose(1)
        bench.hear_votes(samples.prepare(0, 1), 2, 3)
        effects = bench.own(samples.commit(0, 1), 1) if own_first else []
        effects += bench.hear_votes(samples.commit(0, 1), 0, 2)
        if not own_first:
            effects += bench.hear_votes(samples.commit(0, 1), 3)
        executes = [effect for effect in effects if isinstance(effect, Execute)]
        assert [effect.after_persist for effect in executes] == [not own_first]


def agreed_block(bench: Bench, sequence: int = 1) -> Execute:
    bench.propose(sequence)
    bench.hear_votes(samples.prepare(0, sequence), 2, 3)
    effects = bench.hear_votes(samples.commit(0, sequence), 0, 2, 3)
    return next(effect for effect in effects if isinstance(effect, Execute))


def executed(execute: Execute, root: bytes = b"t" * 32) -> Executed:
    header = execute.header
    return Executed(height=header.height, header_hash=header.hash, state_root=Digest(root))


def test_a_durable_block_gets_a_checkpoint_vote() -> None:
    bench = Bench(1)
    execute = agreed_block(bench)
    assert execute.header.time_ms == START_MS
    (leaf,) = leaves(bench.feed(executed(execute)))
    assert isinstance(leaf, Checkpoint)
    assert (leaf.header_hash, leaf.state_root) == (execute.header.hash, b"t" * 32)


def test_a_replica_whose_state_differs_from_the_certified_one_stops_for_good() -> None:
    bench = Bench(1)
    execute = agreed_block(bench)
    bench.feed(executed(execute, b"x" * 32))
    theirs = Checkpoint(
        epoch=samples.EPOCH,
        height=Height(1),
        header_hash=execute.header.hash,
        state_root=Digest(b"t" * 32),
    )
    effects = bench.hear_votes(theirs, 0, 2, 3)
    halts = [at for at, effect in enumerate(effects) if isinstance(effect, Halt)]
    tips = [
        at
        for at, effect in enumerate(effects)
        if isinstance(effect, Persist) and isinstance(effect.record, Tip)
    ]
    assert tips[0] < halts[0], "the next life must find what its state differs from"
    assert bench.propose(2) == []
    assert bench.replica.executed == 1
    assert bench.replica.acknowledged == 0


def test_what_was_executed_above_a_state_that_differs_is_taken_back() -> None:
    bench = Bench(1)
    for height in (1, 2, 3, 4):
        bench.feed(executed(agreed_block(bench, height)))
        assert bench.replica.acknowledged == height
    own = bench.replica.uncertified
    bench.hear_votes(claim(own[Height(2)]), 0, 2, 3)
    assert bench.replica.acknowledged == 4
    bench.hear_votes(claim(own[Height(4)], root=b"x" * 32), 0, 2, 3)
    assert bench.replica.phase is Phase.HALTED
    assert bench.replica.acknowledged == 3  # its header is the certified one, so all below is


def test_below_a_block_with_another_header_only_what_was_compared_is_sound() -> None:
    bench = Bench(1)
    for height in (1, 2, 3, 4):
        bench.feed(executed(agreed_block(bench, height)))
    own = bench.replica.uncertified
    bench.hear_votes(claim(own[Height(2)]), 0, 2, 3)
    bench.hear_votes(claim(own[Height(4)], header=b"y" * 32), 0, 2, 3)
    assert bench.replica.phase is Phase.HALTED
    assert bench.replica.acknowledged == 2


def claim(
    block: ExecutedBlock, *, header: bytes | None = None, root: bytes | None = None
) -> Checkpoint:
    return Checkpoint(
        epoch=samples.EPOCH,
        height=block.height,
        header_hash=block.header_hash if header is None else Digest(header),
        state_root=block.state_root if root is None else Digest(root),
    )


def test_a_state_that_differed_in_an_earlier_life_still_differs() -> None:
    blocks = [
        ExecutedBlock(
            height=Height(height),
            header_hash=samples.header(height).hash,
            time_ms=height,
            state_root=Digest(bytes([height]) * 32),
        )
        for height in (1, 2, 3)
    ]
    certificate = samples.certificate(3, blocks[2].header_hash)
    assert certificate.checkpoint.state_root != blocks[2].state_root
    replica = Replica(
        Committee(chain_id=samples.CHAIN, members=4, me=ReplicaIndex(1)),
        Timing(),
        boot=78,
        tip=blocks[2],
        uncertified=blocks,
        records=[
            Birth(chain_id=samples.CHAIN, node_id=ROOT, incarnation=1),
            Tip(certificate=certificate),
        ],
    )
    effects = replica.step(Started(), Instant(monotonic_us=1, unix_ms=START_MS))
    assert [effect for effect in effects if isinstance(effect, Halt)]
    assert replica.acknowledged == 2


def test_two_batches_for_one_place_depose_the_primary_at_once() -> None:
    bench = Bench(1)
    bench.propose(1)
    other = samples.pre_prepare(0, 1, b"q" * 32)
    effects = bench.hear(2, other)
    assert Misbehaved(peer=ReplicaIndex(0), fault=Fault.EQUIVOCATION) in effects
    proof = Equivocation(first=samples.pre_prepare(0, 1), second=other)
    assert Broadcast(message=proof) in effects
    assert any(isinstance(effect, ChangeView) for effect in effects)


def test_the_second_batch_is_never_voted_for() -> None:
    bench = Bench(1)
    bench.propose(1)
    assert leaves(bench.propose(1, b"q" * 32)) == []


def test_who_prepares_another_batch_is_shown_ours() -> None:
    bench = Bench(1)
    bench.propose(1)
    effects = bench.hear_votes(samples.prepare(0, 1, b"q" * 32), 3)
    assert Send(peer=ReplicaIndex(3), message=samples.pre_prepare(0, 1)) in effects


def test_a_proposal_from_the_future_waits_for_the_clock() -> None:
    bench = Bench(1)
    bench.late_us = -2_000_000
    effects = bench.propose(1)
    assert leaves(effects) == []
    (clock,) = [
        effect for effect in effects if isinstance(effect, SetTimer) and effect.timer is Timer.CLOCK
    ]
    assert clock.at_us == 1_000_000 - 500_000
    bench.late_us = -500_000
    assert leaves(bench.feed(TimerFired(timer=Timer.CLOCK))) == [samples.prepare(0, 1)]


def test_a_proposal_too_far_ahead_waits_for_execution() -> None:
    bench = Bench(1)
    ahead = IN_FLIGHT_BLOCKS_MAX + 1
    assert leaves(bench.propose(ahead)) == []
    effects = bench.feed(executed(agreed_block(bench)))
    assert samples.prepare(0, ahead) in leaves(effects)


def test_proposals_and_votes_of_a_later_view_are_kept() -> None:
    bench = Bench(2)
    bench.feed(BodyHeld(payload_root=ROOT, size_bytes=9))
    bench.hear_votes(samples.prepare(1, 6), 0)
    bench.hear(1, samples.pre_prepare(1, 9))
    bench.hear(1, _new_view_without_batches())
    assert bench.replica.statistics().view == 1
    assert bench.replica.certified == 5
    kept = bench.replica.instances
    assert list(kept[6].prepares) == [0]
    assert kept[9].pre_prepare == samples.pre_prepare(1, 9)


def _new_view_without_batches() -> NewView:
    unsigned = NewView(
        epoch=samples.EPOCH,
        view=View(1),
        signer=ReplicaIndex(1),
        number=Number(9),
        view_changes=tuple(replace(samples.view_change(1, who), prepared=()) for who in (0, 1, 3)),
        proposals=(),
    )
    return unsigned.signed(sign(1, unsigned.signed_bytes(samples.CHAIN)))


def test_a_new_view_that_omits_a_batch_is_refused_and_passed_over() -> None:
    bench = Bench(2)
    message = samples.new_view(1)
    effects = bench.hear(1, replace(message, proposals=message.proposals[:-1]))
    assert Misbehaved(peer=ReplicaIndex(1), fault=Fault.BAD_NEW_VIEW) in effects
    assert bench.replica.statistics().view == 2


def test_a_new_view_proposes_prepared_batches_again_and_null_between_them() -> None:
    bench = Bench(2)
    message = samples.new_view(1)
    null = replace(
        samples.pre_prepare(1, 7),
        header=replace(samples.batch(7), proposed_ms=0, payload_root=EMPTY_ROOT),
    )
    first, _, last = message.proposals
    bench.hear(1, replace(message, proposals=(first, null, last)))
    assert bench.replica.statistics().view == 1
    found = [bench.replica.instances[place].pre_prepare for place in (6, 7, 8)]
    assert found == [first, null, last]


def test_the_primary_proposes_at_once_and_then_keeps_its_interval() -> None:
    bench = Bench(0)
    effects = bench.feed(CustodyChanged(pending=5, pending_bytes=500, oldest_us=1_000_000))
    # The very first block needs no payloads and no waiting.
    assert [effect for effect in effects if isinstance(effect, TakeBatch)] == []
    assert bench.replica.taking
    taken = BatchTaken(payload_root=ROOT, payloads=5, size_bytes=500, pending=3)
    effects = bench.feed(taken)
    (proposal,) = [effect.pre_prepare for effect in effects if isinstance(effect, Propose)]
    assert (proposal.sequence, proposal.header.payload_root) == (1, ROOT)
    assert not any(isinstance(effect, TakeBatch) for effect in effects)
    bench.late_us = 5_000
    effects = bench.feed(TimerFired(timer=Timer.PROPOSE))
    assert any(isinstance(effect, TakeBatch) for effect in effects)


def test_a_full_batch_does_not_wait() -> None:
    bench = Bench(0)
    taken = BatchTaken(payload_root=ROOT, payloads=5, size_bytes=500, pending=5_000)
    assert any(isinstance(effect, TakeBatch) for effect in bench.feed(taken))


def test_an_idle_primary_proposes_an_empty_batch() -> None:
    bench = Bench(0)
    bench.feed(BatchTaken(payload_root=EMPTY_ROOT, payloads=0, size_bytes=0, pending=0))
    bench.late_us = 10_000_000
    effects = bench.feed(TimerFired(timer=Timer.IDLE))
    (take,) = [effect for effect in effects if isinstance(effect, TakeBatch)]
    assert take.allow_empty


def test_a_waiting_payload_is_forwarded_and_then_held_against_the_primary() -> None:
    bench = Bench(1)
    bench.feed(CustodyChanged(pending=1, pending_bytes=9, oldest_us=1_000_000))
    bench.late_us = 250_000
    effects = bench.feed(TimerFired(timer=Timer.SUSPECT))
    assert ForwardCustody(peer=ReplicaIndex(0), until_us=1_125_000) in effects
    for late_us in (500_000, 750_000):
        bench.feed(CustodyShown(first=1, waiting_us=None))
        bench.late_us = late_us
        bench.feed(TimerFired(timer=Timer.SUSPECT))
    bench.late_us = 1_000_000
    effects = bench.feed(TimerFired(timer=Timer.SUSPECT))
    (change,) = [effect.view_change for effect in effects if isinstance(effect, ChangeView)]
    assert change.view == 1


def test_what_came_after_a_forwarding_is_forwarded_too() -> None:
    """Under load custody is never empty: a client that leaves the primary out deposes it else."""
    bench = Bench(1)
    bench.feed(CustodyChanged(pending=1, pending_bytes=9, oldest_us=1_000_000))
    bench.late_us = 250_000
    assert _forwarded(bench) == ForwardCustody(peer=ReplicaIndex(0), until_us=1_125_000)
    bench.feed(CustodyShown(first=1, waiting_us=None))
    bench.late_us = 300_000
    bench.feed(CustodyChanged(pending=1, pending_bytes=9, oldest_us=1_240_000))
    bench.late_us = 490_000
    assert _forwarded(bench) is None
    bench.feed(CustodyChanged(pending=1, pending_bytes=9, oldest_us=1_260_000))
    bench.late_us = 510_000
    assert _forwarded(bench) == ForwardCustody(
        peer=ReplicaIndex(0), first=1, until_us=1_510_000 - 125_000
    )


@pytest.mark.parametrize(("full", "pause_us"), [(False, 125_000), (True, 500_000)])
def test_what_did_not_fit_is_forwarded_later_and_more_rarely_to_a_primary_of_full_batches(
    full: bool, pause_us: int
) -> None:
    bench = Bench(1)
    bench.replica.crowded = full
    bench.feed(CustodyChanged(pending=900, pending_bytes=9_000, oldest_us=1_000_000))
    bench.late_us = 250_000
    assert _forwarded(bench) is not None
    bench.feed(CustodyShown(first=512, waiting_us=1_000_000))
    assert bench.replica.suspect_at == 1_250_000 + pause_us
    bench.late_us += pause_us
    forwarded = _forwarded(bench)
    assert forwarded is not None
    assert forwarded.first == 512


@pytest.mark.parametrize(("peer", "first"), [(0, 0), (2, 512)])
def test_a_primary_that_reconnects_is_shown_everything_again_at_the_same_pace(
    peer: int, first: int
) -> None:
    """What was on its way to it is lost; another peer changes nothing."""
    bench = Bench(1)
    bench.feed(CustodyChanged(pending=900, pending_bytes=9_000, oldest_us=1_000_000))
    bench.late_us = 250_000
    assert _forwarded(bench) is not None
    bench.feed(CustodyShown(first=512, waiting_us=1_000_000))
    bench.late_us = 260_000
    bench.feed(PeerLost(peer=ReplicaIndex(peer)))
    bench.feed(PeerConnected(peer=ReplicaIndex(peer)))
    assert bench.replica.suspect_at == 1_375_000
    bench.late_us = 375_000
    forwarded = _forwarded(bench)
    assert forwarded is not None
    assert forwarded.first == first


def test_what_is_proposed_is_not_forwarded() -> None:
    bench = Bench(1)
    bench.feed(CustodyChanged(pending=0, pending_bytes=0, oldest_us=1_000_000))
    bench.late_us = 250_000
    assert _forwarded(bench) is None


def test_what_comes_while_an_older_one_is_proposed_has_a_timer_of_its_own() -> None:
    bench = Bench(1)
    bench.feed(CustodyChanged(pending=0, pending_bytes=0, oldest_us=1_000_000))
    assert bench.replica.suspect_at == 2_000_000
    bench.feed(CustodyChanged(pending=1, pending_bytes=9, oldest_us=1_000_000))
    assert bench.replica.suspect_at == 1_250_000


def test_the_next_primary_is_shown_everything_from_the_start() -> None:
    bench = Bench(2)
    bench.feed(CustodyChanged(pending=900, pending_bytes=9_000, oldest_us=1_000_000))
    bench.late_us = 250_000
    assert _forwarded(bench) is not None
    bench.feed(CustodyShown(first=900, waiting_us=None))
    bench.late_us = 300_000
    effects = bench.hear(1, _new_view_without_batches())
    shown = ForwardCustody(peer=ReplicaIndex(1), first=0, until_us=1_300_000)
    released = [effect for effect in effects if isinstance(effect, ReleaseCustody)]
    assert effects.index(shown) > effects.index(released[0])


def _forwarded(bench: Bench) -> ForwardCustody | None:
    effects = bench.feed(TimerFired(timer=Timer.SUSPECT))
    return next((effect for effect in effects if isinstance(effect, ForwardCustody)), None)


def test_a_process_that_slept_does_not_blame_the_primary() -> None:
    bench = Bench(1)
    bench.feed(CustodyChanged(pending=1, pending_bytes=9, oldest_us=1_000_000))
    bench.late_us = 250_000
    bench.feed(TimerFired(timer=Timer.SUSPECT))
    bench.late_us = 10_000_000
    effects = bench.feed(TimerFired(timer=Timer.SUSPECT))
    assert not any(isinstance(effect, ChangeView) for effect in effects)


def test_the_view_change_carries_what_is_prepared() -> None:
    bench = Bench(1)
    bench.propose(2)
    bench.hear_votes(samples.prepare(0, 2), 2, 3)
    changes: list[ViewChange] = []
    for signer in (2, 3):
        bare = replace(samples.view_change(1, signer), certificate=None, prepared=())
        effects = bench.hear(signer, bare)
        changes += [effect.view_change for effect in effects if isinstance(effect, ChangeView)]
    assert [entry.sequence for entry in changes[0].prepared] == [2]
    assert changes[0].view == 1


def test_nobody_votes_in_a_view_it_has_left() -> None:
    bench = Bench(1)
    for signer in (2, 3):
        bare = replace(samples.view_change(1, signer), certificate=None, prepared=())
        bench.hear(signer, bare)
    assert leaves(bench.propose(1)) == []
    assert leaves(bench.hear_votes(samples.prepare(0, 1), 2, 3)) == []


def test_a_number_above_the_record_is_amnesia() -> None:
    bench = Bench(1)
    shown = replace(samples.vector(1, samples.commit(0, 1)), number=Number(9)).stamp()
    bench.hear(2, status(2, held=shown))
    assert bench.replica.statistics().phase is Phase.SEEKING
    assert leaves(bench.propose(1)) == []


def test_lower_numbers_prove_nothing() -> None:
    bench = Bench(1)
    bench.own(samples.prepare(0, 1), 9)
    shown = replace(samples.vector(1, samples.commit(0, 1)), number=Number(8)).stamp()
    bench.hear(2, status(2, held=shown))
    assert bench.replica.statistics().phase is Phase.VOTING


def test_the_present_number_with_other_content_is_amnesia() -> None:
    bench = Bench(1)
    bench.own(samples.prepare(0, 1), 9)
    shown = replace(samples.vector(1, samples.commit(0, 1)), number=Number(9)).stamp()
    bench.hear(2, status(2, held=shown))
    assert bench.replica.statistics().phase is Phase.SEEKING


def test_own_numbers_that_do_not_grow_are_our_bug() -> None:
    bench = Bench(1)
    bench.own(samples.prepare(0, 1), 9)
    with pytest.raises(InvariantError):
        bench.own(samples.prepare(0, 2), 9)


def test_votes_outside_every_window_are_not_kept() -> None:
    bench = Bench(1)
    for leaf in (samples.prepare(0, 10_000), samples.commit(0, 10_000)):
        bench.hear_votes(leaf, 2)
    bench.hear_votes(samples.certificate(10_000).checkpoint, 2)
    assert not bench.replica.instances
    assert not bench.replica.checkpoints


def test_leaf_kinds_are_told_apart() -> None:
    kinds = {type(leaf) for leaf in (samples.prepare(0, 1), samples.commit(0, 1))}
    assert kinds == {Prepare, Commit}


@pytest.mark.parametrize(("malformed", "deposed"), [(1, False), (2, True)])
def test_batches_full_of_malformed_payloads_depose_their_primary(
    malformed: int, deposed: bool
) -> None:
    bench = Bench(1)
    for batch in range(JUDGED_BATCHES):
        assert bench.replica.active, f"deposed after {batch} batches"
        custody.judge_batch(bench.replica, payloads=10, malformed=malformed)
    assert bench.replica.active is not deposed
    blamed = Misbehaved(peer=ReplicaIndex(0), fault=Fault.REFUSED_PAYLOADS)
    assert (blamed in bench.replica.effects) is deposed


def test_a_short_history_deposes_nobody() -> None:
    bench = Bench(1)
    for _ in range(JUDGED_BATCHES - 1):
        custody.judge_batch(bench.replica, payloads=1, malformed=1)
    assert bench.replica.active


def test_the_clocks_of_the_others_are_compared_with_ours() -> None:
    bench = Bench(1)
    for peer, ahead_ms in ((0, 700), (2, 90_000), (3, -20)):
        bench.hear(peer, status(peer, unix_ms=START_MS + ahead_ms))
    assert bench.replica.statistics().clock_offset_ms == 700
    bench.feed(PeerLost(peer=ReplicaIndex(0)))
    bench.feed(PeerLost(peer=ReplicaIndex(2)))
    assert bench.replica.statistics().clock_offset_ms == -20


# --- evidence


def accused(effects: list[Effect]) -> list[tuple[int, Offence]]:
    return [(effect.peer, effect.proof.offence) for effect in effects if isinstance(effect, Accuse)]


def other_vote(signer: int, leaf: Leaf, number: int = 500) -> VoteVector:
    message = replace(samples.vector(signer, leaf), number=Number(number))
    return message.signed(sign(signer, message.signed_bytes(samples.CHAIN)))


OTHER = Digest(b"q" * 32)


@pytest.mark.parametrize("view", [0, 2])
@pytest.mark.parametrize(
    ("leaf", "offence"),
    [
        (samples.prepare(0, 1), Offence.TWO_PREPARES),
        (samples.commit(0, 1), Offence.TWO_COMMITS),
    ],
)
def test_two_votes_at_one_place_are_evidence_once(
    view: int, leaf: Prepare | Commit, offence: Offence
) -> None:
    bench = Bench(1)
    said = replace(leaf, view=View(view))
    assert accused(bench.hear_votes(said, 2)) == []
    assert accused(bench.hear(2, other_vote(2, said))) == []  # the same vote again
    lied = bench.hear(2, other_vote(2, replace(said, digest=OTHER), 501))
    assert accused(lied) == [(2, offence)]
    assert [effect.fault for effect in lied if isinstance(effect, Misbehaved)] == [
        Fault.EQUIVOCATION
    ]
    more = bench.hear(2, other_vote(2, replace(said, digest=ROOT), 502))
    assert accused(more) == []  # proven already
    assert any(isinstance(effect, Misbehaved) for effect in more)


def test_two_checkpoints_of_one_height_are_evidence() -> None:
    bench = Bench(1)
    leaf = samples.certificate(3).checkpoint
    assert accused(bench.hear_votes(leaf, 2, 3)) == []
    lied = bench.hear(3, other_vote(3, replace(leaf, state_root=OTHER)))
    assert accused(lied) == [(3, Offence.TWO_CHECKPOINTS)]


def test_two_batches_for_one_place_are_evidence() -> None:
    bench = Bench(1)
    bench.propose(1)
    forged = samples.pre_prepare(0, 1, b"q" * 32).numbered(Number(9))
    forged = forged.signed(sign(0, forged.signed_bytes(samples.CHAIN)))
    assert accused(bench.hear(0, forged)) == [(0, Offence.TWO_BATCHES)]


def test_two_view_changes_for_one_view_are_evidence() -> None:
    bench = Bench(1)
    whole = samples.view_change(3, 2)
    assert accused(bench.hear(2, whole)) == []
    bare = replace(whole, prepared=(), number=Number(8))
    bare = bare.signed(sign(2, bare.signed_bytes(samples.CHAIN)))
    assert accused(bench.hear(2, bare)) == [(2, Offence.TWO_VIEW_CHANGES)]


def test_two_new_views_for_one_view_are_evidence() -> None:
    bench = Bench(2)

    def announced(*wanting: int) -> NewView:
        message = NewView(
            epoch=samples.EPOCH,
            view=View(1),
            signer=ReplicaIndex(1),
            number=Number(10 + wanting[0]),
            view_changes=tuple(
                replace(samples.view_change(1, who), prepared=()) for who in wanting
            ),
            proposals=(),
        )
        return message.signed(sign(1, message.signed_bytes(samples.CHAIN)))

    assert accused(bench.hear(1, announced(1, 2, 3))) == []
    assert bench.replica.view == 1
    assert accused(bench.hear(1, announced(1, 2, 3))) == []
    assert accused(bench.hear(3, announced(0, 2, 3))) == [(1, Offence.TWO_NEW_VIEWS)]


def test_two_messages_under_one_number_are_evidence() -> None:
    bench = Bench(1)
    assert accused(bench.hear(2, other_vote(2, samples.prepare(0, 1)))) == []
    assert accused(bench.hear(3, other_vote(2, samples.prepare(0, 1)))) == []
    lied = bench.hear(3, other_vote(2, samples.prepare(0, 2)))
    assert accused(lied) == [(2, Offence.NUMBER_REUSED)]


def test_a_peer_that_recovers_for_ever_gets_so_many_early_blocks_and_no_more() -> None:
    bench = Bench(0)
    bench.feed(BatchTaken(payload_root=EMPTY_ROOT, payloads=0, size_bytes=0, pending=0))
    bench.replica.next_sequence = Sequence(2)
    peer = bench.replica.peers[ReplicaIndex(3)]
    for _ in range(HURRIED_BLOCKS_MAX):
        bench.hear(3, status(3, phase=Phase.RECOVERING))
        assert propose._idle_us(bench.replica) == 20_000
        propose._count_hurried(bench.replica)
    assert propose._idle_us(bench.replica) == 10_000_000
    bench.hear(3, status(3))
    propose._count_hurried(bench.replica)
    assert peer.hurried_blocks == HURRIED_BLOCKS_MAX - 1
