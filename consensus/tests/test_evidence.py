"""Evidence: what contradicts, what does not, and bytes that convince whoever has nothing else."""

from collections import Counter
from dataclasses import replace
from functools import partial

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.core import evidence, wire
from consensus.core.evidence import Contradiction, Offence, Statement, contradict
from consensus.core.messages import (
    Checkpoint,
    Commit,
    Leaf,
    NewView,
    Prepare,
    PrePrepare,
    Signed,
    ViewChange,
    VoteVector,
)
from consensus.core.types import Epoch, Height, Number, ReplicaIndex, Sequence, View
from consensus.errors import InvariantError, MalformedMessage
from consensus.limits import EVIDENCE_SIZE_BYTES_MAX, LEAVES_PER_VECTOR_MAX
from consensus.sim.checker import Checker
from consensus.sim.faults import Focus, Mix, chaos, heal, prepare
from consensus.sim.node import sign
from consensus.sim.run import Cluster, converged, insist
from consensus.tests import samples
from native.codec import Value, decode, encode
from native.values import Digest, Signature

LIAR = ReplicaIndex(1)


def numbered(message: PrePrepare, number: int) -> PrePrepare:
    again = message.numbered(Number(number))
    return again.signed(sign(again.signer, again.signed_bytes(samples.CHAIN)))


def view_change(number: int, view: int = 1, *, bare: bool = False) -> ViewChange:
    message = replace(samples.view_change(view, LIAR), number=Number(number))
    if bare:
        message = replace(message, prepared=())
    return message.signed(sign(LIAR, message.signed_bytes(samples.CHAIN)))


def new_view(number: int, *, short: bool = False) -> NewView:
    message = replace(samples.new_view(1), number=Number(number))
    if short:
        message = replace(message, proposals=message.proposals[:-1])
    return message.signed(sign(LIAR, message.signed_bytes(samples.CHAIN)))


def vote(*leaves: Leaf, at: int = 0, number: int = 50) -> evidence.Vote:
    message = VoteVector(
        epoch=leaves[0].epoch, signer=LIAR, number=Number(number), leaves=tuple(leaves)
    )
    signed = message.signed(sign(LIAR, message.signed_bytes(samples.CHAIN)))
    return evidence.of_vote(signed, at)


def commit(view: int, sequence: int, batch: bytes) -> Commit:
    return Commit(
        epoch=samples.EPOCH, view=View(view), sequence=Sequence(sequence), digest=Digest(batch * 32)
    )


def checkpoint(height: int, root: bytes = b"t") -> Checkpoint:
    return Checkpoint(
        epoch=samples.EPOCH,
        height=Height(height),
        header_hash=Digest(b"h" * 32),
        state_root=Digest(root * 32),
    )


def cases() -> dict[Offence, tuple[Statement, Statement]]:
    """One lie of each kind, by replica 1, which leads view 1."""
    of = evidence
    prepare = samples.prepare
    return {
        Offence.TWO_BATCHES: (
            of.of_proposal(samples.pre_prepare(1, 6)),
            of.of_proposal(numbered(samples.pre_prepare(1, 6, b"q" * 32), 8)),
        ),
        Offence.TWO_PREPARES: (
            vote(commit(0, 5, b"a"), prepare(0, 6), at=1),
            vote(prepare(0, 6, b"q" * 32), commit(0, 4, b"a"), commit(0, 5, b"a"), number=51),
        ),
        Offence.TWO_COMMITS: (vote(commit(0, 6, b"a")), vote(commit(0, 6, b"b"), number=51)),
        Offence.TWO_CHECKPOINTS: (vote(checkpoint(6)), vote(checkpoint(6, b"u"), number=51)),
        Offence.TWO_VIEW_CHANGES: (
            of.of_view(view_change(7)),
            of.of_view(view_change(8, bare=True)),
        ),
        Offence.TWO_NEW_VIEWS: (of.of_view(new_view(9)), of.of_view(new_view(10, short=True))),
        Offence.NUMBER_REUSED: (
            of.of_stamp(samples.pre_prepare(1, 6).stamp()),
            of.of_stamp(replace(view_change(6)).stamp()),
        ),
    }


CASES = cases()


def read(proof: Contradiction) -> Contradiction:
    data = encode(proof.value())
    assert len(data) <= EVIDENCE_SIZE_BYTES_MAX
    return evidence.read_contradiction(decode(data, size_max=EVIDENCE_SIZE_BYTES_MAX))


@pytest.mark.parametrize("offence", Offence)
def test_every_lie_survives_as_bytes_with_both_signatures(offence: Offence) -> None:
    one, other = CASES[offence]
    proof = evidence.contradiction(one, other)
    assert proof == evidence.contradiction(other, one)  # whoever saw which first
    found = read(proof)
    assert found == proof
    assert found.offence is offence
    assert found.epochs == (0, 0)
    for signed, signature in found.signed(samples.CHAIN):
        assert sign(LIAR, signed) == signature
        assert sign(0, signed) != signature
    for signed, signature in found.signed(Digest(b"x" * 32)):
        assert sign(LIAR, signed) != signature  # a lie on another chain is none here


def test_the_signed_bytes_of_a_statement_are_those_of_its_message() -> None:
    pre_prepare, change, announced = samples.pre_prepare(1, 6), view_change(7), new_view(9)
    assert evidence.of_proposal(pre_prepare).signed_bytes(samples.CHAIN) == (
        pre_prepare.signed_bytes(samples.CHAIN)
    )
    for message in (change, announced):
        assert evidence.of_view(message).signed_bytes(samples.CHAIN) == (
            message.signed_bytes(samples.CHAIN)
        )
        assert evidence.of_stamp(message.stamp()).signed_bytes(samples.CHAIN) == (
            message.signed_bytes(samples.CHAIN)
        )
    vector = samples.vector(2, samples.prepare(0, 1), samples.commit(0, 1), checkpoint(3))
    for at in range(3):
        assert evidence.of_vote(vector, at).signed_bytes(samples.CHAIN) == (
            vector.signed_bytes(samples.CHAIN)
        )


@pytest.mark.parametrize("offence", Offence)
def test_the_same_words_twice_are_no_lie(offence: Offence) -> None:
    for one in CASES[offence]:
        assert not contradict(one, one)
        assert not contradict(one, replace(one, signature=Signature(b"another")))
        if offence is not Offence.NUMBER_REUSED:
            assert not contradict(one, replace(one, number=Number(999)))


def test_what_an_honest_replica_may_say_contradicts_nothing() -> None:
    """Other views, other places, other kinds, another epoch: each alone excuses a difference."""
    prepare = Prepare(
        epoch=samples.EPOCH, view=View(0), sequence=Sequence(6), digest=Digest(b"a" * 32)
    )
    other = Digest(b"b" * 32)
    legitimate: list[tuple[Statement, Statement]] = [
        (vote(prepare), vote(replace(prepare, view=View(1), digest=other))),
        (vote(prepare), vote(replace(prepare, sequence=Sequence(7), digest=other))),
        (vote(prepare), vote(replace(prepare, epoch=Epoch(1), digest=other))),
        (vote(prepare), vote(commit(0, 6, b"b"))),
        (vote(checkpoint(6)), vote(checkpoint(7, b"u"))),
        (evidence.of_view(view_change(7)), evidence.of_view(view_change(8, view=2, bare=True))),
        (evidence.of_view(view_change(7)), evidence.of_view(new_view(9))),
        (
            evidence.of_proposal(samples.pre_prepare(1, 6)),
            evidence.of_proposal(samples.pre_prepare(5, 6, b"q" * 32)),
        ),
        (
            evidence.of_stamp(samples.pre_prepare(1, 6).stamp()),
            evidence.of_stamp(view_change(7).stamp()),
        ),
    ]
    for one, another in legitimate:
        assert not contradict(one, another)
        with pytest.raises(InvariantError):
            evidence.contradiction(one, another)
        with pytest.raises(MalformedMessage):
            evidence.read_contradiction((one.value(), another.value()))


@given(
    leaves=st.lists(
        st.builds(
            lambda kind, view, place: (
                checkpoint(place)
                if kind == 2
                else (Prepare, Commit)[kind](
                    epoch=samples.EPOCH,
                    view=View(view),
                    sequence=Sequence(place),
                    digest=Digest(bytes([view]) * 32),
                )
            ),
            st.integers(0, 2),
            st.integers(0, 3),
            st.integers(1, 5),
        ),
        min_size=2,
        max_size=24,
    )
)
@settings(max_examples=60, deadline=None)
def test_a_record_that_says_one_thing_for_each_place_yields_no_evidence(
    leaves: list[Leaf],
) -> None:
    """Whatever order, repetition and grouping into vectors: one answer a place is honest."""
    said = [
        vote(*leaves[start : start + 5], at=at, number=100 + start)
        for start in range(0, len(leaves), 5)
        for at in range(len(leaves[start : start + 5]))
    ]
    assert not any(contradict(one, other) for one in said for other in said)


def test_statements_out_of_order_are_refused() -> None:
    proof = evidence.contradiction(*CASES[Offence.TWO_COMMITS])
    with pytest.raises(MalformedMessage, match="order"):
        evidence.read_contradiction((proof.second.value(), proof.first.value()))


@pytest.mark.parametrize("offence", Offence)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_evidence_is_refused_or_signed_by_nobody(
    offence: Offence, data: st.DataObject
) -> None:
    proof = evidence.contradiction(*CASES[offence])
    damaged = bytearray(encode(proof.value()))
    place = data.draw(st.integers(0, len(damaged) - 1))
    damaged[place] ^= data.draw(st.integers(1, 255))
    try:
        value = wire.decode_value(bytes(damaged), EVIDENCE_SIZE_BYTES_MAX)
        found = evidence.read_contradiction(value)
    except MalformedMessage:
        return
    assert encode(found.value()) == bytes(damaged)
    assert any(sign(LIAR, signed) != said for signed, said in found.signed(samples.CHAIN))


@pytest.mark.parametrize(
    "value",
    [
        None,
        (),
        (True, 0, 1, 0, 1, b"d" * 32, b"s"),
        (1, 0, 0, 0, 1, b"d" * 32, b"s"),  # number 0
        (1, 0, 1, 0, 1, b"d" * 31, b"s"),
        (2, (1, 0, 0, 1, b"d" * 32), 1, 1, 1, (), b"s"),  # leaf outside its vector
        (2, (1, 0, 0, 1, b"d" * 32), 1, 0, LEAVES_PER_VECTOR_MAX + 1, (), b"s"),
        (2, (1, 0, 0, 1, b"d" * 32), 1, 0, 2, (), b"s"),  # path too short
        (3, 1, 0, 1, 0, b"d" * 32, b"s"),  # a PRE-PREPARE claims nothing
        (4, 5, 0, 1, b"d" * 32, b"s"),
        (5, 0, 1, b"d" * 32, b"s"),
    ],
)
def test_a_malformed_statement_is_refused(value: Value) -> None:
    with pytest.raises(MalformedMessage):
        evidence.statement(value)


class Recorder(Checker):
    """Keeps all that honest nodes sign, as the statements evidence is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.statements: dict[tuple[int, Offence, tuple[int, ...]], dict[bytes, Statement]] = {}

    def signed(self, node: int, message: Signed) -> None:
        super().signed(node, message)
        said: list[Statement] = [evidence.of_stamp(message.stamp())]
        match message:
            case PrePrepare():
                said.append(evidence.of_proposal(message))
            case VoteVector():
                said += [evidence.of_vote(message, at) for at in range(len(message.leaves))]
            case ViewChange() | NewView():
                said.append(evidence.of_view(message))
        for one in said:
            contents = self.statements.setdefault((node, one.offence, one.subject()), {})
            contents.setdefault(one.content(), one)


@pytest.mark.timeout(240)
def test_nothing_an_honest_replica_ever_signs_convicts_it() -> None:
    """S13, over crashes, view changes, lost disks, old backups and lies of others."""
    counters: Counter[str] = Counter()
    kinds: set[Offence] = set()
    for seed in range(30):
        cluster = Cluster(seed, (4, 7)[seed % 3 == 0])
        recorder = cluster.checker = Recorder()
        mix = Mix.draw(
            cluster.world.random,
            cluster.members,
            (Focus.SWARM, Focus.DISK)[seed % 2],
            luck=cluster.luck,
        )
        prepare(cluster, mix)
        cluster.start()
        chaos(cluster, mix)
        cluster.world.run_until(cluster.world.now_us + min(mix.duration_us, 3_000_000))
        heal(cluster)
        payload = b"after healing %d" % seed
        insist(cluster, payload)
        limit = cluster.world.now_us + 20_000_000
        cluster.world.run_until(limit, partial(converged, cluster, payload))
        for (node, offence, subject), contents in recorder.statements.items():
            kinds.add(offence)
            assert len(contents) == 1 or node in recorder.excused, (seed, node, offence, subject)
        counters.update(cluster.world.counters)
    assert kinds == set(Offence)
    for needed in ("disks lost", "replica.recovered", "view.entered", "lies: wrong state root"):
        assert counters[needed], needed
