"""Changes of the validator set (bft.md 3.8): one replica, then whole clusters under faults."""

from dataclasses import replace
from pathlib import Path

import pytest

from consensus.core import epochs, wire
from consensus.core.certificates import block_certificate
from consensus.core.effects import (
    Effect,
    EnterEpoch,
    Event,
    Execute,
    Fault,
    ForwardCustody,
    Halt,
    Misbehaved,
    Note,
    Persist,
    Propose,
    Send,
    TakeBatch,
    Vote,
)
from consensus.core.epochs import GUEST_FIRST, Epochs
from consensus.core.inputs import (
    BatchTaken,
    BodyHeld,
    CustodyChanged,
    Executed,
    Input,
    LaterEpoch,
    Received,
    Started,
    Timer,
    TimerFired,
)
from consensus.core.instance import Instance
from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Blocks,
    Checkpoint,
    Commit,
    EpochLink,
    Leaf,
    Message,
    Prepare,
    PrePrepare,
    RecoveryAnswer,
    Status,
    ViewChange,
    VoteVector,
    signatures,
)
from consensus.core.records import (
    Birth,
    EpochBegun,
    ExecutedBlock,
    PeerStamp,
    Record,
    Recovery,
    Retired,
    Tip,
    ViewEntered,
    decode_records,
    encode_record,
    record_key,
)
from consensus.core.replica import Replica, genesis_block
from consensus.core.types import (
    NO_DIGEST,
    NOBODY,
    Committee,
    Epoch,
    Height,
    Instant,
    Number,
    Phase,
    ReplicaIndex,
    Sequence,
    Timing,
    View,
)
from consensus.core.validators import ValidatorSet
from consensus.errors import CorruptRecord, InvariantError, MalformedMessage, UnknownEpoch
from consensus.limits import WINDOW_BLOCKS
from consensus.sim.checker import Violation
from consensus.sim.membership import simulate_changes
from consensus.sim.node import sign, validator
from consensus.sim.script import play
from native.values import Digest

CHAIN = Digest(b"c" * 32)
ROOT = Digest(b"r" * 32)
STATE = Digest(b"t" * 32)
DECIDED = 40  # the block that changes the set
LAST = DECIDED + WINDOW_BLOCKS


def set_of(epoch: int, *nodes: int) -> ValidatorSet:
    return ValidatorSet(epoch=Epoch(epoch), members=tuple(validator(node) for node in nodes))


OLD = set_of(0, 0, 1, 2, 3)
NEW = set_of(1, 4, 1, 2, 3, 0)  # 0 and 4 change places, so 4 leads view 0


def signed(epoch: int, signer: int, node: int, number: int, *leaves: Leaf) -> VoteVector:
    vector = VoteVector(
        epoch=Epoch(epoch), signer=ReplicaIndex(signer), number=Number(number), leaves=leaves
    )
    return vector.signed(sign(node, vector.signed_bytes(CHAIN)))


def last_leaf(header_hash: bytes = b"h" * 32, named: ValidatorSet | None = NEW) -> Checkpoint:
    return Checkpoint(
        epoch=Epoch(0),
        height=Height(LAST),
        header_hash=Digest(header_hash),
        state_root=STATE,
        next_set=NO_DIGEST if named is None else named.hash,
    )


def certificate(leaf: Checkpoint) -> BlockCertificate:
    votes = [(ReplicaIndex(node), signed(0, node, node, 500, leaf), 0) for node in (0, 2, 3)]
    return block_certificate(leaf, votes, 3)


def link(named: ValidatorSet = NEW) -> EpochLink:
    return EpochLink(certificate=certificate(last_leaf(named=named)), validators=named)


def batch(epoch: int, sequence: int) -> BatchHeader:
    return BatchHeader(
        chain_id=CHAIN,
        epoch=Epoch(epoch),
        sequence=Sequence(sequence),
        proposed_ms=1_000,
        payload_root=ROOT,
    )


def status(epoch: int, height: int = 0, **changes: object) -> Status:
    fields: dict[str, object] = {
        "epoch": Epoch(epoch),
        "view": View(0),
        "in_view_change": False,
        "phase": Phase.VOTING,
        "boot": 9,
        "echo": 77,
        "unix_ms": 2_000,
        "executed": Height(height),
        "certificate": None,
        "view_changes_held": 0,
        "held": None,
    }
    return Status(**(fields | changes))  # type: ignore[arg-type]


class Bench:
    """One node of the chain, by default at the block before the one that changes the set."""

    def __init__(
        self,
        node: int,
        *,
        height: int = DECIDED - 1,
        records: tuple[Record, ...] = (),
        decided: bool = False,
        certified: int | None = None,
        first: int = 1,
    ) -> None:
        """The blocks below `first` are those of a snapshot: known by their state only."""
        self.node = node
        birth = Birth(chain_id=CHAIN, node_id=ROOT, incarnation=1)
        known = Epochs.of(CHAIN, OLD, records)
        blocks = [
            ExecutedBlock(
                height=Height(at),
                header_hash=Digest(b"h" * 32),
                time_ms=at,
                state_root=STATE,
                next_validators=NEW if decided and at == DECIDED else None,
            )
            for at in range(1, height + 1)
        ]
        if not any(isinstance(record, Tip) for record in records):
            top = height if certified is None else certified
            leaf = replace(last_leaf(named=None), height=Height(top))
            records = (*records, Tip(certificate=certificate(leaf)))
        self.replica = Replica(
            known.committee(validator(node).node_id),
            Timing(),
            boot=77,
            tip=blocks[-1] if blocks else genesis_block(CHAIN, 0, STATE),
            uncertified=blocks[first - 1 :][-2 * WINDOW_BLOCKS :],
            records=(birth, *records),
            genesis_set=OLD,
            decided=blocks[DECIDED - 1] if decided else None,
        )
        self.feed(Started())

    def vote(self) -> "Bench":
        """Hear from enough others to be allowed to vote."""
        epoch = self.replica.committee.epoch
        for peer in self.replica.others[: self.replica.quorum - 1]:
            self.hear(peer, status(epoch, self.replica.executed))
        assert self.replica.phase is Phase.VOTING
        return self

    def feed(self, message: Input) -> list[Effect]:
        return self.replica.step(message, Instant(monotonic_us=1_000_000, unix_ms=2_000))

    def hear(self, sender: int, message: Message) -> list[Effect]:
        return self.feed(Received(sender=ReplicaIndex(sender), message=message))

    def execute(self, through: int, *, decide: int = DECIDED) -> list[Effect]:
        """Fetch and execute blocks up to this height; one of them changes the set."""
        self.feed(BodyHeld(payload_root=ROOT, size_bytes=9))
        effects: list[Effect] = []
        while self.replica.executed < through:
            height = Height(self.replica.executed + 1)
            instance = self.replica.instances.setdefault(height, Instance(height))
            instance.batch = batch(0 if height <= LAST else 1, height)
            effects += self.feed(BodyHeld(payload_root=ROOT, size_bytes=9))
            assert self.replica.executing is not None
            header = self.replica.executing[0]
            effects += self.feed(
                Executed(
                    height=height,
                    header_hash=header.hash,
                    state_root=STATE,
                    next_validators=NEW if height == decide else None,
                )
            )
        return effects


def records(effects: list[Effect]) -> list[Record]:
    return [effect.record for effect in effects if isinstance(effect, Persist)]


def votes(effects: list[Effect]) -> list[Leaf]:
    return [effect.leaf for effect in effects if isinstance(effect, Vote)]


def entered(effects: list[Effect]) -> bool:
    return any(isinstance(effect, EnterEpoch) for effect in effects)


# --- the end of an epoch


def test_the_decision_cuts_the_window_one_window_later() -> None:
    bench = Bench(1).vote()
    bench.execute(DECIDED)
    assert bench.replica.statistics().epoch_last == LAST
    assert bench.replica.instance(LAST + 1) is None
    assert bench.replica.last_of(2 * WINDOW_BLOCKS) == LAST


def test_only_the_last_checkpoint_of_an_epoch_names_the_next_set() -> None:
    bench = Bench(1).vote()
    effects = bench.execute(LAST)
    named = {
        int(leaf.height): leaf.next_set for leaf in votes(effects) if isinstance(leaf, Checkpoint)
    }
    assert named.pop(LAST) == NEW.hash
    assert len(named) == WINDOW_BLOCKS
    assert set(named.values()) == {NO_DIGEST}


def test_the_primary_fills_the_epoch_up_and_proposes_nothing_beyond_it() -> None:
    bench = Bench(0).vote()
    bench.execute(LAST - 1)
    tip = bench.replica.tip
    shown = replace(last_leaf(tip.header_hash, named=None), height=Height(LAST - 1))
    bench.hear(2, status(0, LAST - 1, certificate=certificate(shown)))
    # The recovery rate, not the idle interval: the next look is 20 ms away, not 10 s.
    bench.replica.proposed_us = 0
    effects = bench.feed(TimerFired(timer=Timer.IDLE))
    assert [effect for effect in effects if isinstance(effect, TakeBatch)]
    taken = BatchTaken(payload_root=EMPTY_ROOT, payloads=0, size_bytes=0, pending=0)
    effects = bench.feed(taken)
    proposed = [effect.pre_prepare for effect in effects if isinstance(effect, Propose)]
    assert [int(entry.sequence) for entry in proposed] == [LAST]
    bench.replica.proposed_us = 0
    assert not bench.feed(TimerFired(timer=Timer.IDLE))


def test_what_is_committed_beyond_the_epoch_is_void() -> None:
    bench = Bench(1).vote()
    bench.execute(DECIDED - 1)
    beyond = bench.replica.instance(LAST + 1)
    assert beyond is not None
    beyond.batch = batch(0, LAST + 1)
    bench.execute(LAST)
    assert LAST + 1 not in bench.replica.instances
    message = PrePrepare(
        view=View(0), signer=ReplicaIndex(0), number=Number(900), header=batch(0, LAST + 1)
    )
    assert not votes(bench.hear(0, message))
    assert not any(isinstance(effect, Execute) for effect in bench.hear(0, message))


def test_a_second_decision_while_one_is_pending_is_our_own_bug() -> None:
    bench = Bench(1).vote()
    bench.execute(DECIDED)
    with pytest.raises(InvariantError, match="second change"):
        bench.execute(DECIDED + 1, decide=DECIDED + 1)


def test_a_certificate_beyond_the_epoch_is_refused() -> None:
    bench = Bench(1).vote()
    bench.execute(DECIDED)
    forged = certificate(replace(last_leaf(named=None), height=Height(LAST + 3)))
    bench.hear(2, status(0, LAST, certificate=forged))
    assert bench.replica.certified < LAST


def test_another_set_than_the_executed_one_stops_this_node() -> None:
    bench = Bench(1).vote()
    bench.execute(DECIDED)
    effects = bench.hear(2, link(set_of(1, 0, 1, 2)))
    assert any(isinstance(effect, Halt) for effect in effects)


# --- into the next epoch


def test_the_certificate_of_the_old_quorum_opens_the_next_epoch() -> None:
    bench = Bench(1).vote()
    effects = bench.execute(LAST)
    own = next(
        leaf for leaf in votes(effects) if isinstance(leaf, Checkpoint) and leaf.height == LAST
    )
    bench.hear(1, signed(0, 1, 1, 600, own))
    assert not entered(bench.hear(2, signed(0, 2, 2, 600, own)))
    effects = bench.hear(3, signed(0, 3, 3, 600, own))
    assert entered(effects)
    assert ViewEntered(epoch=Epoch(1), view=View(0), active=True) in records(effects)
    durable = [type(record) for record in records(effects)]
    assert Tip in durable, "one tick: certificate and link together"
    assert EpochBegun in durable
    found = bench.replica.statistics()
    assert (found.epoch, found.epoch_base, found.epoch_last, found.members) == (1, LAST, 0, 5)
    assert bench.replica.phase is Phase.VOTING
    assert bench.replica.next_sequence == LAST + 1


def test_the_certificate_alone_opens_nothing_while_the_set_is_unknown() -> None:
    bench = Bench(1).vote()
    shown = status(0, LAST, certificate=link().certificate)
    assert not entered(bench.hear(2, shown))
    assert bench.replica.cut == LAST
    assert entered(bench.hear(2, link()))


def test_a_laggard_enters_by_the_link_and_executes_the_old_blocks_afterwards() -> None:
    bench = Bench(1).vote()
    effects = bench.hear(2, link())
    assert entered(effects)
    assert bench.replica.executed == DECIDED - 1
    assert bench.replica.certified == LAST
    # What was agreed before is not voted for again, whatever set votes now.
    message = PrePrepare(
        view=View(0), signer=ReplicaIndex(0), number=Number(900), header=batch(1, LAST)
    )
    assert not votes(bench.hear(0, message))


def test_a_link_to_a_later_epoch_is_not_jumped_to() -> None:
    bench = Bench(1).vote()
    far = replace(link(), validators=replace(NEW, epoch=Epoch(2)))
    assert not entered(bench.hear(2, far))
    assert bench.replica.committee.epoch == 0


def test_old_votes_count_for_nothing_and_blame_nobody() -> None:
    bench = Bench(1).vote()
    bench.hear(2, link())
    bench.execute(LAST)
    bench.feed(BodyHeld(payload_root=ROOT, size_bytes=9))
    old = Prepare(
        epoch=Epoch(0), view=View(0), sequence=Sequence(LAST + 1), digest=batch(0, LAST + 1).digest
    )
    effects = bench.hear(2, signed(0, 2, 2, 700, old))
    effects += bench.hear(3, signed(0, 3, 3, 700, replace(last_leaf(), height=Height(LAST + 1))))
    effects += bench.hear(0, status(0, LAST))
    assert not any(isinstance(effect, Misbehaved) for effect in effects)
    instance = bench.replica.instances.get(LAST + 1)
    assert instance is None or not instance.prepares
    assert not bench.replica.checkpoints


def test_leaves_behind_the_one_that_ends_the_epoch_are_not_counted_in_the_next() -> None:
    bench = Bench(1).vote()
    effects = bench.execute(LAST)
    own = next(
        leaf for leaf in votes(effects) if isinstance(leaf, Checkpoint) and leaf.height == LAST
    )
    bench.hear(1, signed(0, 1, 1, 600, own))
    bench.hear(2, signed(0, 2, 2, 600, own))
    stray = Commit(epoch=Epoch(0), view=View(0), sequence=Sequence(LAST + 1), digest=ROOT)
    assert entered(bench.hear(3, signed(0, 3, 3, 600, own, stray)))
    instance = bench.replica.instances.get(LAST + 1)
    assert instance is None or not instance.commits


def test_a_node_of_an_old_epoch_is_shown_the_link_at_a_bounded_rate() -> None:
    bench = Bench(1).vote()
    bench.hear(2, link())
    effects = bench.hear(3, status(0, 3))
    assert [effect.message for effect in effects if isinstance(effect, Send)] == [link()]
    assert not bench.hear(3, status(0, 3))


def test_news_of_an_unknown_epoch_makes_a_node_show_where_it_stands() -> None:
    bench = Bench(1).vote()
    bench.replica.peers[ReplicaIndex(2)].helped_us = None
    effects = bench.feed(LaterEpoch(peer=ReplicaIndex(2)))
    sent = [effect.message for effect in effects if isinstance(effect, Send)]
    assert [message.epoch for message in sent if isinstance(message, Status)] == [0]


# --- who is not in the set


def test_a_removed_node_retires_durably_and_signs_nothing() -> None:
    bench = Bench(0).vote()
    smaller = set_of(1, 1, 2, 3, 4)
    effects = bench.hear(2, link(smaller))
    assert Retired(epoch=Epoch(1), base=Height(LAST)) in records(effects)
    assert bench.replica.phase is Phase.OBSERVING
    assert bench.replica.committee.me == NOBODY
    effects = bench.execute(LAST, decide=0)
    assert not votes(effects)


def test_a_removed_node_forwards_nothing_that_nobody_would_take() -> None:
    bench = Bench(0).vote()
    bench.feed(CustodyChanged(pending=3, pending_bytes=30, oldest_us=1))
    effects = bench.hear(2, link(set_of(1, 1, 2, 3, 4)))
    assert bench.replica.committee.me == NOBODY
    assert not any(isinstance(effect, ForwardCustody) for effect in effects)


def test_a_removed_node_serves_for_two_epochs_and_then_only_observes() -> None:
    bench = Bench(0).vote()
    notes: list[Event] = []
    for epoch in (1, 2, 3, 4):
        assert bench.replica.serves == (epoch - 1 < 3)  # it is in the epoch before
        members = set_of(epoch, 1, 2, 3, 4)
        last = replace(
            last_leaf(named=members), epoch=Epoch(epoch - 1), height=Height(LAST * epoch)
        )
        effects: list[Effect] = []
        bench.replica.effects = effects
        epochs.enter(bench.replica, EpochLink(certificate=certificate(last), validators=members))
        notes += [effect.event for effect in effects if isinstance(effect, Note)]
    assert bench.replica.committee.me == NOBODY
    assert not bench.replica.serves
    assert notes.count(Event.SERVING_ENDED) == 1


def test_who_never_was_a_member_serves_and_so_does_who_came_back() -> None:
    observer = Bench(4)
    observer.replica.committee = replace(observer.replica.committee, epoch=Epoch(9))
    assert observer.replica.serves
    back = Bench(1)
    back.replica.retired = Epoch(1)
    back.replica.committee = replace(back.replica.committee, epoch=Epoch(9))
    assert back.replica.serves


def test_a_retired_record_is_obeyed_without_its_link() -> None:
    bench = Bench(1, records=(Retired(epoch=Epoch(1), base=Height(LAST)),))
    for peer in (0, 2, 3):
        bench.hear(peer, status(0))
    assert bench.replica.phase is Phase.OBSERVING
    assert not votes(bench.execute(DECIDED))


def test_a_joiner_hears_from_a_quorum_before_it_votes() -> None:
    bench = Bench(4)
    assert bench.replica.statistics().phase is Phase.OBSERVING
    bench.hear(2, link())
    assert bench.replica.statistics().phase is Phase.STARTING
    assert bench.replica.is_primary
    for peer in (1, 2, 3):
        bench.hear(peer, status(1))
    assert bench.replica.phase is Phase.VOTING


def test_a_joiner_that_lost_its_disk_recovers_first() -> None:
    lost = Recovery(first_sequence=Sequence(0), first_view=View(0), done=False)
    bench = Bench(4, records=(lost,))
    assert bench.replica.statistics().phase is Phase.OBSERVING
    bench.hear(2, link())
    assert bench.replica.phase is Phase.SEEKING


def test_a_bound_of_the_old_epoch_is_asked_for_again_in_the_new_one() -> None:
    bound = Recovery(first_sequence=Sequence(200), first_view=View(5), done=False)
    bench = Bench(1, records=(bound,))
    assert bench.replica.statistics().phase is Phase.RECOVERING
    effects = bench.hear(2, link())
    assert bench.replica.phase is Phase.SEEKING
    again = Recovery(first_sequence=Sequence(0), first_view=View(0), done=False)
    assert again in records(effects)


def test_guests_are_shown_certificates_and_heard_about_nothing_else() -> None:
    bench = Bench(1).vote()
    guest = GUEST_FIRST + 5
    effects = bench.hear(guest, status(0))
    sent = [effect for effect in effects if isinstance(effect, Send)]
    assert [effect.peer for effect in sent] == [guest]
    own = Prepare(epoch=Epoch(0), view=View(0), sequence=Sequence(DECIDED), digest=ROOT)
    bench.hear(guest, signed(0, 2, 2, 700, own))
    instance = bench.replica.instances.get(DECIDED)
    assert instance is None or not instance.prepares
    assert not bench.hear(999, status(0)), "no place for a node"


# --- restarts


def test_a_node_starts_in_the_newest_epoch_of_its_records() -> None:
    held = (EpochBegun(link=link()), Tip(certificate=link().certificate))
    bench = Bench(1, height=LAST, records=held, decided=True)
    found = bench.replica.statistics()
    assert (found.epoch, found.epoch_base, found.members) == (1, LAST, 5)
    assert found.epoch_last == 0, "the decision that led here is not pending any more"
    assert bench.replica.next_sequence == LAST + 1


def test_a_pending_decision_is_known_again_after_a_restart() -> None:
    bench = Bench(1, height=DECIDED + 5, decided=True, certified=DECIDED + 4)
    assert bench.replica.statistics().epoch_last == LAST


@pytest.mark.parametrize("first", [DECIDED, DECIDED + 1, DECIDED + 5])
def test_a_decision_below_a_restored_snapshot_is_known_again_after_a_restart(first: int) -> None:
    bench = Bench(1, height=DECIDED + 5, decided=True, first=first)
    assert bench.replica.statistics().epoch_last == LAST
    bench.vote().execute(LAST)
    shown = certificate(last_leaf(bench.replica.tip.header_hash))
    assert entered(bench.hear(2, status(0, LAST, certificate=shown)))


def test_a_crash_between_certificate_and_link_is_made_good_at_the_start() -> None:
    held = (Tip(certificate=link().certificate),)
    bench = Bench(1, height=LAST, records=held, decided=True)
    assert bench.replica.committee.epoch == 1


def test_records_of_an_old_epoch_are_not_votes_in_the_new_one() -> None:
    stale = ViewEntered(epoch=Epoch(0), view=View(7), active=False)
    held = (EpochBegun(link=link()), Tip(certificate=link().certificate), stale)
    bench = Bench(1, height=LAST, records=held, decided=True)
    assert bench.replica.view == 0
    assert bench.replica.active


def test_an_own_message_is_known_under_the_index_of_its_epoch() -> None:
    bench = Bench(0, records=(EpochBegun(link=link()), Tip(certificate=link().certificate)))
    assert bench.replica.me == 4
    shown = signed(0, 0, 0, 900, last_leaf()).stamp()
    bench.hear(1, status(1, held=shown))
    assert bench.replica.phase is Phase.SEEKING, "it used a number that it does not remember"


def test_a_peers_newest_message_is_kept_under_its_new_index() -> None:
    stamp = signed(0, 3, 3, 900, last_leaf()).stamp()
    moved = set_of(1, 3, 1, 2, 0)
    bench = Bench(
        1,
        records=(
            PeerStamp(stamp=stamp),
            EpochBegun(link=link(moved)),
            Tip(certificate=link(moved).certificate),
        ),
    )
    assert bench.replica.stamp_of(ReplicaIndex(0)) == stamp


# --- bytes


def test_links_are_read_in_order_and_a_missing_one_is_damage() -> None:
    rows = [encode_record(EpochBegun(link=link()))]
    bounds = wire.Bounds(chain_id=CHAIN, members=4)
    known = decode_records([(row.kind, row.data) for row in rows], bounds)
    assert known == [EpochBegun(link=link())]
    with pytest.raises(CorruptRecord):
        decode_records([(row.kind, row.data) for row in rows], bounds.extended(5))


def test_a_certificate_is_read_with_the_set_of_its_epoch() -> None:
    bounds = wire.Bounds(chain_id=CHAIN, members=4)
    small = certificate(last_leaf())
    later = bounds.extended(7)
    assert wire.block_certificate(small.value(), later) == small
    of_seven = replace(small, checkpoint=replace(small.checkpoint, epoch=Epoch(1)))
    with pytest.raises(MalformedMessage, match="quorum"):
        wire.block_certificate(of_seven.value(), later)
    with pytest.raises(UnknownEpoch):
        wire.block_certificate(of_seven.value(), bounds)


def test_a_set_must_be_the_one_that_the_certificate_names() -> None:
    bounds = wire.Bounds(chain_id=CHAIN, members=4)
    assert wire.epoch_link(link().value(), bounds) == link()
    for bad in (
        replace(link(), validators=set_of(1, 0, 1, 2)),
        replace(link(), certificate=certificate(last_leaf(named=None))),
        link(set_of(1, 1, 1, 2)),
        link(set_of(2, 0, 1, 2)),
    ):
        with pytest.raises(MalformedMessage):
            wire.epoch_link(bad.value(), bounds)


def test_every_signature_names_its_epoch() -> None:
    assert {job[0] for job in signatures(link(), CHAIN)} == {0}
    assert {job[0] for job in signatures(signed(1, 0, 4, 1, replace(last_leaf())), CHAIN)} == {1}


# --- whole clusters


def _found(seeds: int) -> bool:
    for seed in range(seeds):
        try:
            simulate_changes(seed, 4)
        except (Violation, InvariantError):
            return True
    return False


def test_entering_before_the_last_certificate_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """8.3 item 38: whoever has executed the last block goes on at once."""
    decided = epochs.decided

    def hasty(replica: Replica, epoch: Epoch, block: ExecutedBlock) -> None:
        decided(replica, epoch, block)
        if block.height == replica.cut and replica.next_set is not None:
            known = replica.certificate
            assert known is not None
            claim = replace(known.checkpoint, height=block.height, next_set=replica.next_set.hash)
            early = EpochLink(
                certificate=replace(known, checkpoint=claim), validators=replica.next_set
            )
            epochs.enter(replica, early)

    monkeypatch.setattr(epochs, "decided", hasty)
    assert _found(3)


def test_a_window_that_is_not_cut_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks beyond the end of an epoch are agreed on by the old set."""
    monkeypatch.setattr(Replica, "last_of", lambda self, window: self.certified + window)
    monkeypatch.setattr(Replica, "is_void", lambda _self, _place: False)
    scene = Path(__file__).parent / "scenarios" / "last_certificate_is_lost.txt"
    with pytest.raises(Violation, match="block 67 is of 0"):
        play(scene.read_text())


def test_a_node_that_keeps_its_old_index_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """8.1 item 12: the same index means another node in the next set."""
    begin = Replica.begin_epoch

    def kept(replica: Replica, committee: Committee, base: Height) -> None:
        before = getattr(replica, "me", committee.me)
        begin(replica, replace(committee, me=before), base)

    monkeypatch.setattr(Replica, "begin_epoch", kept)
    assert _found(6)


# --- what former members, replays and restarts may not bring about

ENTERED = (EpochBegun(link=link()), Tip(certificate=link().certificate))


def test_the_keys_of_a_former_set_certify_nothing_beyond_its_last_block() -> None:
    bench = Bench(1, height=LAST, records=ENTERED, decided=True).vote()
    bench.feed(BodyHeld(payload_root=ROOT, size_bytes=9))
    void = batch(0, LAST + 1)
    header = BlockHeader(
        chain_id=CHAIN,
        height=Height(LAST + 1),
        epoch=Epoch(0),
        parent=bench.replica.tip.header_hash,
        batch=void.digest,
        time_ms=1_000,
        state_root=STATE,
    )
    leaf = replace(last_leaf(header.hash, named=None), height=Height(LAST + 1))
    blocks = Blocks(headers=(header,), batches=(void,), certificate=certificate(leaf))
    effects = bench.hear(2, blocks)
    assert Misbehaved(peer=ReplicaIndex(2), fault=Fault.BAD_CERTIFICATE) in effects
    assert not [effect for effect in effects if isinstance(effect, Execute)]
    change = ViewChange(
        epoch=Epoch(1),
        view=View(1),
        signer=ReplicaIndex(2),
        number=Number(800),
        certificate=certificate(replace(leaf, next_set=NEW.hash)),
        prepared=(),
    )
    effects = bench.hear(2, change)
    assert Misbehaved(peer=ReplicaIndex(2), fault=Fault.BAD_CERTIFICATE) in effects
    assert not bench.replica.view_changes


def test_a_node_that_starts_in_an_epoch_counts_turns_from_its_beginning() -> None:
    bench = Bench(1, height=LAST, records=ENTERED, decided=True)
    assert bench.replica.view_base == bench.replica.base == LAST


def test_an_answer_to_a_recovering_node_shows_views_of_its_own_epoch_only() -> None:
    old = ViewChange(
        epoch=Epoch(0),
        view=View(5_000),
        signer=ReplicaIndex(2),
        number=Number(300),
        certificate=certificate(replace(last_leaf(named=None), height=Height(10))),
        prepared=(),
    )
    old = old.signed(sign(2, old.signed_bytes(CHAIN)))
    answer = RecoveryAnswer(
        epoch=Epoch(1),
        echo=77,
        executed=Height(LAST),
        certificate=link().certificate,
        new_view=None,
        view_changes=(old,),
    )
    data = wire.decode_value(wire.encode_recovery_answer(answer), 1 << 20)
    with pytest.raises(MalformedMessage, match="view of another epoch"):
        wire.recovery_answer(data, Epochs.of(CHAIN, OLD, ENTERED).bounds())


def test_blocks_that_bring_nothing_new_are_no_answer() -> None:
    bench = Bench(1).vote()
    header = BlockHeader(
        chain_id=CHAIN,
        height=Height(5),
        epoch=Epoch(0),
        parent=ROOT,
        batch=batch(0, 5).digest,
        time_ms=1,
        state_root=STATE,
    )
    leaf = replace(last_leaf(header.hash, named=None), height=Height(5))
    known = Blocks(headers=(header,), batches=(batch(0, 5),), certificate=certificate(leaf))
    bench.replica.headers_asked_us = 900_000
    bench.replica.transfer.asks_unanswered = 3
    bench.hear(2, known)
    assert bench.replica.headers_asked_us == 900_000
    assert bench.replica.transfer.asks_unanswered == 3


def test_what_a_node_showed_last_is_remembered_under_its_next_index_and_on_the_disk() -> None:
    moved = set_of(1, 3, 1, 2, 0)  # node 3 goes from index 3 to 0, node 0 takes its place
    bench = Bench(1).vote()
    bench.hear(3, signed(0, 3, 3, 900, last_leaf()))
    bench.hear(2, link(moved))
    stamps = bench.replica.take_peer_stamps()
    other = signed(1, 3, 0, 901, replace(last_leaf(), epoch=Epoch(1))).stamp()
    assert len({record_key(record) for record in (*stamps, PeerStamp(stamp=other))}) == 2
    records = (EpochBegun(link=link(moved)), Tip(certificate=link(moved).certificate), *stamps)
    again = Bench(1, height=LAST, records=records, decided=False).replica
    shown = again.stamp_of(ReplicaIndex(0))
    assert shown is not None
    assert shown.number == 900


def test_a_node_that_cannot_recover_in_its_new_set_says_so() -> None:
    pair = set_of(1, 1, 2)
    bench = Bench(
        1, records=(Recovery(first_sequence=Sequence(0), first_view=View(0), done=False),)
    )
    assert bench.replica.phase is Phase.SEEKING
    effects = bench.hear(2, link(pair))
    assert [effect for effect in effects if isinstance(effect, Halt)]
