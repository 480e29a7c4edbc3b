"""S13: a fork names at least f + 1 culprits, and no honest replica is ever blamed.

Forks are built from two honest sides and f + 1 liars that serve both, over a path that is drawn;
everything an honest replica could have said on the way is in the input too. That the honest are
never blamed is also shown on the whole traffic of simulated clusters under faults.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.core.certificates import block_certificate, prepared_certificate
from consensus.core.forensics import Held, Verdict, investigate
from consensus.core.messages import (
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Checkpoint,
    Commit,
    Leaf,
    Message,
    NewView,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    SignatureJob,
    ViewChange,
    VoteVector,
    null_batch,
)
from consensus.core.quorum import faults, quorum
from consensus.core.types import Epoch, Height, Number, ReplicaIndex, View
from consensus.core.types import Sequence as Place
from consensus.sim.faults import Focus, Mix, chaos, prepare
from consensus.sim.node import sign
from consensus.sim.run import Cluster
from native.values import Digest, Signature

CHAIN = Digest(b"c" * 32)
EPOCH = Epoch(0)


def check(jobs: Sequence[SignatureJob]) -> bytes:
    return bytes([sign(signer, signed) == mark for signer, signed, mark in jobs])


def verdict(held: Sequence[Held], members: int, headers: Sequence[BlockHeader] = ()) -> Verdict:
    return investigate(
        held, chain_id=CHAIN, members=members, epoch=EPOCH, check=check, headers=headers
    )


@dataclass(frozen=True, kw_only=True)
class Fork:
    """Two honest sides that each make a quorum with the liars."""

    members: int
    liars: tuple[int, ...]
    left: tuple[int, ...]
    right: tuple[int, ...]
    sequence: int
    view: int

    @property
    def sides(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (
            tuple(sorted(self.left + self.liars)),
            tuple(sorted(self.right + self.liars)),
        )


@st.composite
def forks(draw: st.DrawFn) -> Fork:
    members = draw(st.sampled_from((4, 7)))
    order = draw(st.permutations(range(members)))
    count = faults(members) + 1
    middle = count + (members - count) // 2
    return Fork(
        members=members,
        liars=tuple(sorted(order[:count])),
        left=tuple(sorted(order[count:middle])),
        right=tuple(sorted(order[middle:])),
        sequence=draw(st.integers(1, 40)),
        view=draw(st.integers(0, 12)),
    )


def batch(sequence: int, root: bytes) -> BatchHeader:
    return BatchHeader(
        chain_id=CHAIN,
        epoch=EPOCH,
        sequence=Place(sequence),
        proposed_ms=1_700_000_000_000,
        payload_root=Digest(root * 32),
    )


class Pen:
    """Signs under any key, with numbers that only grow."""

    def __init__(self, members: int) -> None:
        self.members = members
        self.number = 0

    def next(self) -> Number:
        self.number += 1
        return Number(self.number)

    def vector(self, signer: int, *leaves: Leaf) -> VoteVector:
        vector = VoteVector(
            epoch=EPOCH, signer=ReplicaIndex(signer), number=self.next(), leaves=leaves
        )
        return vector.signed(sign(signer, vector.signed_bytes(CHAIN)))

    def proposal(self, view: int, header: BatchHeader) -> PrePrepare:
        signer = ReplicaIndex(view % self.members)
        message = PrePrepare(view=View(view), signer=signer, number=self.next(), header=header)
        return message.signed(sign(signer, message.signed_bytes(CHAIN)))

    def prepared(
        self, view: int, header: BatchHeader, signers: Sequence[int]
    ) -> PreparedCertificate:
        """With a leaf of another place in every vector, so that paths are not empty."""
        primary = view % self.members
        leaf = _prepare(view, header)
        other = _prepare(view, batch(int(header.sequence) + 1, b"o"))
        votes = [
            (ReplicaIndex(who), self.vector(who, other, leaf), 1)
            for who in signers
            if who != primary
        ]
        return prepared_certificate(self.proposal(view, header), votes, quorum(self.members) - 1)

    def view_change(
        self,
        view: int,
        signer: int,
        prepared: tuple[PreparedCertificate, ...] = (),
        certificate: BlockCertificate | None = None,
    ) -> ViewChange:
        message = ViewChange(
            epoch=EPOCH,
            view=View(view),
            signer=ReplicaIndex(signer),
            number=self.next(),
            certificate=certificate,
            prepared=prepared,
        )
        return message.signed(sign(signer, message.signed_bytes(CHAIN)))

    def new_view(
        self, view: int, changes: Sequence[ViewChange], headers: Sequence[BatchHeader]
    ) -> NewView:
        signer = ReplicaIndex(view % self.members)
        message = NewView(
            epoch=EPOCH,
            view=View(view),
            signer=signer,
            number=self.next(),
            view_changes=tuple(changes),
            proposals=tuple([self.proposal(view, header) for header in headers]),
        )
        return message.signed(sign(signer, message.signed_bytes(CHAIN)))

    def certified(self, header: BlockHeader, signers: Sequence[int]) -> BlockCertificate:
        leaf = Checkpoint(
            epoch=EPOCH,
            height=header.height,
            header_hash=header.hash,
            state_root=_state(header),
        )
        votes = [(ReplicaIndex(who), self.vector(who, leaf), 0) for who in signers]
        return block_certificate(leaf, votes, quorum(self.members))


def _prepare(view: int, header: BatchHeader) -> Prepare:
    return Prepare(epoch=EPOCH, view=View(view), sequence=header.sequence, digest=header.digest)


def _commit(view: int, header: BatchHeader) -> Commit:
    return Commit(epoch=EPOCH, view=View(view), sequence=header.sequence, digest=header.digest)


def _state(header: BlockHeader) -> Digest:
    return Digest(bytes([255 - byte for byte in header.hash]))


def blocks(first: int, last: int, parent: BlockHeader | None, mark: bytes) -> list[BlockHeader]:
    made: list[BlockHeader] = []
    for height in range(first, last + 1):
        parent_hash = CHAIN if parent is None else parent.hash
        parent = BlockHeader(
            chain_id=CHAIN,
            height=Height(height),
            epoch=EPOCH,
            parent=parent_hash,
            batch=batch(height, mark).digest,
            time_ms=height,
            state_root=Digest(b"g" * 32) if parent is None else _state(parent),
        )
        made.append(parent)
    return made


def expect_liars(found: Verdict, fork: Fork) -> None:
    assert set(found.culprits) == set(fork.liars)
    assert found.complete
    assert found.needed == faults(fork.members) + 1


# --- the three ways to fork


@given(forks())
def test_two_certificates_of_one_view_name_all_who_served_both(fork: Fork) -> None:
    view = next(at for at in range(fork.members) if at in fork.liars) + fork.members
    pen = Pen(fork.members)
    held: list[Held] = []
    for side, mark in zip(fork.sides, (b"a", b"b"), strict=True):
        header = batch(fork.sequence, mark)
        held.append(pen.prepared(view, header, side))
        held.extend(pen.vector(who, _commit(view, header)) for who in side)
    expect_liars(verdict(held, fork.members), fork)


@given(forks(), st.integers(0, 3), st.integers(0, 3))
def test_two_certified_chains_name_all_who_executed_both(
    fork: Fork, higher_left: int, higher_right: int
) -> None:
    """The certificates may be of different heights: headers then show what they descend from."""
    pen = Pen(fork.members)
    common = blocks(1, fork.sequence, None, b"=")
    headers = list(common)
    held: list[Held] = []
    for side, mark, higher in zip(
        fork.sides, (b"a", b"b"), (higher_left, higher_right), strict=True
    ):
        branch = blocks(fork.sequence + 1, fork.sequence + 1 + higher, common[-1], mark)
        headers += branch
        held.append(pen.certified(branch[-1], side))
        if higher:  # what an honest side votes for on the way
            held.extend(
                pen.vector(who, pen.certified(branch[0], side).checkpoint)
                for who in (fork.left if mark == b"a" else fork.right)
            )
    found = verdict(held, fork.members, headers)
    if higher_left == higher_right:
        expect_liars(found, fork)
    else:  # neither certified block is an ancestor of the other
        assert set(found.culprits) == set(fork.liars)


@given(forks(), st.integers(1, 9))
def test_a_view_that_forgot_a_committed_batch_names_all_who_kept_silent(
    fork: Fork, later: int
) -> None:
    pen = Pen(fork.members)
    ours, theirs = batch(fork.sequence, b"a"), batch(fork.sequence, b"b")
    left, right = fork.sides
    below = (
        pen.certified(blocks(1, fork.sequence - 1, None, b"=")[-1], left)
        if fork.sequence > 1
        else None
    )
    kept = pen.prepared(fork.view, ours, left)
    held: list[Held] = [kept]
    held.extend(pen.vector(who, _commit(fork.view, ours)) for who in left)
    target = fork.view + later
    while target % fork.members in fork.left:  # an honest primary would show what it holds
        target += 1
    changes = [pen.view_change(target, who, certificate=below) for who in right]
    held.append(pen.new_view(target, changes[: quorum(fork.members)], []))
    held.append(pen.prepared(target, theirs, right))
    # The honest of the left side show the batch when they move on, whatever became of it.
    held.extend(pen.view_change(target + 1, who, (kept,), below) for who in fork.left)
    expect_liars(verdict(held, fork.members), fork)


@given(forks())
def test_a_view_change_that_shows_forged_certificates_is_no_alibi(fork: Fork) -> None:
    pen = Pen(fork.members)
    ours = batch(fork.sequence, b"a")
    left, _ = fork.sides
    kept = pen.prepared(fork.view, ours, left)
    liar = fork.liars[0]
    commit = pen.vector(liar, _commit(fork.view, ours))
    newer = pen.prepared(fork.view + 1, batch(fork.sequence, b"b"), left)
    votes = tuple([replace(vote, signature=Signature(bytes(16))) for vote in newer.votes])
    forged = replace(newer, votes=votes)
    change = pen.view_change(fork.view + 2, liar, (forged,))
    assert verdict([commit, change], fork.members).culprits == (liar,)
    honest = pen.view_change(fork.view + 2, liar, (kept,))
    assert verdict([commit, honest], fork.members).culprits == ()


# --- what must not happen


@given(forks(), st.integers(0, 9))
def test_a_batch_proposed_again_in_later_views_blames_nobody(fork: Fork, later: int) -> None:
    pen = Pen(fork.members)
    everybody = range(fork.members)
    header = batch(fork.sequence, b"a")
    kept = pen.prepared(fork.view, header, everybody)
    target = fork.view + 1 + later
    changes = [pen.view_change(target, who, (kept,)) for who in everybody]
    gap = [null_batch(CHAIN, EPOCH, Place(at)) for at in range(1, fork.sequence)]
    held: list[Held] = [
        kept,
        pen.new_view(target, changes[: quorum(fork.members)], [*gap, header]),
        pen.prepared(target, header, everybody),
    ]
    for view in (fork.view, target):
        held.extend(pen.vector(who, _commit(view, header)) for who in everybody)
    found = verdict(held, fork.members)
    assert found.culprits == ()
    assert not found.complete


@given(forks())
def test_forged_signatures_blame_nobody(fork: Fork) -> None:
    """Somebody without their keys writes a fork in the name of all."""
    pen = Pen(fork.members)
    held: list[Held] = []
    for mark in (b"a", b"b"):
        for who in range(fork.members):
            vector = pen.vector(who, _commit(fork.view, batch(fork.sequence, mark)))
            held.append(vector if mark == b"a" else vector.signed(Signature(bytes(16))))
    found = verdict(held, fork.members)
    assert found.culprits == ()
    assert found.ignored == fork.members


def test_a_chain_without_its_headers_proves_nothing() -> None:
    pen = Pen(4)
    left = blocks(1, 2, None, b"a")
    right = blocks(1, 1, None, b"b")
    held = [pen.certified(left[-1], range(4)), pen.certified(right[-1], range(4))]
    assert verdict(held, 4).culprits == ()
    assert set(verdict(held, 4, left).culprits) == {vote.signer for vote in held[0].votes} & {
        vote.signer for vote in held[1].votes
    }


class Tapped(Cluster):
    """A simulated cluster whose every message is kept."""

    def __init__(self, seed: int, members: int) -> None:
        super().__init__(seed, members)
        self.seen: list[Held] = []

    def censor(self, source: int, target: int, message: Message) -> bool:
        if isinstance(message, VoteVector | PrePrepare | ViewChange | NewView):
            self.seen.append(message)
        return super().censor(source, target, message)


@pytest.mark.parametrize("members", [4, 7])
def test_in_simulated_clusters_only_liars_are_blamed(members: int) -> None:
    """Under loss, crashes, disk loss, old backups and partitions; liars are caught at times."""
    caught = statements = 0
    for seed in range(12):
        cluster = Tapped(seed, members)
        mix = replace(
            Mix.draw(cluster.world.random, members, Focus.SWARM, luck=cluster.luck),
            duration_us=1_000_000,
        )
        prepare(cluster, mix)
        cluster.start()
        chaos(cluster, mix)
        cluster.world.run_until(cluster.world.now_us + 1_000_000)
        found = investigate(
            cluster.seen,
            chain_id=cluster.chain_id,
            members=members,
            epoch=EPOCH,
            check=check,
        )
        assert set(found.culprits) <= cluster.liars, (seed, found.contradictions)
        statements += found.statements
        caught += len(found.culprits)
    assert statements > 500
    assert caught > 0
