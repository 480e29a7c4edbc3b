"""Two certified chains: the place where they part, and who signed both, by real keys."""

from __future__ import annotations

from dataclasses import replace

import pytest

from consensus.core.light import HeaderProof, Lineage
from consensus.core.messages import BlockCertificate, BlockHeader, EpochLink
from consensus.core.types import Epoch
from consensus.tests.test_light import CHAIN, FOUR, certified, chain, links, members
from native.values import Digest
from node.chain import Run
from node.forks import find_fork

GENESIS = Lineage.at_genesis(CHAIN, members(0, *FOUR))


class Held:
    """A chain in memory, with certificates at some heights."""

    def __init__(
        self,
        headers: list[BlockHeader],
        certificates: list[BlockCertificate],
        lineage: Lineage = GENESIS,
    ) -> None:
        self.headers = headers
        self.certificates = sorted(certificates, key=lambda found: found.height)
        self.oldest, self.newest = 1, len(headers)
        self.lineage = lineage

    def run(self, first: int) -> Run | None:
        for found in self.certificates:
            if found.height >= first:
                headers = tuple(self.headers[first - 1 : found.height])
                return Run(proof=HeaderProof(headers=headers, certificate=found), batches=())
        return None

    def body(self, height: int, root: Digest) -> bytes | None:
        raise AssertionError((height, root))

    def state_root(self, height: int) -> Digest | None:
        raise AssertionError(height)


def branch(common: list[BlockHeader], length: int, mark: bytes) -> list[BlockHeader]:
    """`common` and more blocks that another mark makes different."""
    made = list(common)
    for height in range(len(common) + 1, len(common) + length + 1):
        parent = made[-1].hash
        (header,) = chain(height, height, parent=Digest(bytes(parent)))
        made.append(
            BlockHeader(
                chain_id=header.chain_id,
                height=header.height,
                epoch=header.epoch,
                parent=header.parent,
                batch=Digest(mark * 32),
                time_ms=header.time_ms,
                state_root=header.state_root,
            )
        )
    return made


@pytest.mark.parametrize(("tops", "common"), [((12, 12), 9), ((12, 14), 9), ((20, 11), 10)])
def test_the_signers_of_both_chains_are_named(tops: tuple[int, int], common: int) -> None:
    shared = chain(1, common)
    early = certified(shared[4], FOUR, (0, 1, 2))
    left = branch(shared, tops[0] - common, b"a")
    right = branch(shared, tops[1] - common, b"b")
    one = Held(left, [early, certified(left[-1], FOUR, (0, 1, 2))])
    other = Held(right, [early, certified(right[-1], FOUR, (1, 2, 3))])
    fork = find_fork(one, other)
    assert fork is not None
    assert fork.height == common + 1
    assert fork.verdict.culprits == (1, 2)
    assert fork.verdict.complete


def test_one_chain_of_two_lengths_is_no_fork() -> None:
    headers = chain(1, 20)
    short = Held(headers[:10], [certified(headers[9], FOUR, (0, 1, 2))])
    long = Held(
        headers, [certified(headers[7], FOUR, (0, 1, 3)), certified(headers[19], FOUR, (1, 2, 3))]
    )
    assert find_fork(short, long) is None
    assert find_fork(long, short) is None


def test_blocks_without_a_certificate_are_not_compared() -> None:
    shared = chain(1, 8)
    one = Held(branch(shared, 1, b"a"), [certified(shared[7], FOUR, (0, 1, 2))])
    other = Held(branch(shared, 1, b"b"), [certified(shared[7], FOUR, (0, 1, 2))])
    assert find_fork(one, other) is None
    assert find_fork(Held(shared, []), other) is None


def test_a_fork_before_a_change_is_blamed_on_the_old_set_in_its_own_indexes() -> None:
    """Both sides went on with sets of their own; their newest certificates name nobody in common.

    One run ends in the next epoch, so the link that ends the old one has to stand in.
    """
    after = members(1, 6, 5, 4, 7)
    shared = chain(1, 4)
    left, right = branch(shared, 6, b"a"), branch(shared, 6, b"b")
    ends = [
        EpochLink(
            certificate=certified(side[-1], FOUR, signers, next_set=after.hash), validators=after
        )
        for side, signers in ((left, (0, 1, 2)), (right, (1, 2, 3)))
    ]
    above = [replace(header, epoch=Epoch(1)) for header in branch(left, 1, b"a")[-1:]]
    one = Held(
        [*left, *above], [certified(above[0], (6, 5, 4, 7), (0, 1, 2))], GENESIS.followed(ends[:1])
    )
    other = Held(right, [ends[1].certificate], GENESIS.followed(ends[1:]))
    fork = find_fork(one, other)
    assert fork is not None
    assert fork.height == 5
    assert fork.validators == members(0, *FOUR)
    assert fork.verdict.culprits == (1, 2)
    assert fork.verdict.complete


def test_two_next_sets_after_one_block_are_a_fork() -> None:
    shared = chain(1, 10)
    certificate = certified(shared[-1], FOUR, (0, 1, 2))
    sides = [
        Held(shared, [certificate], GENESIS.followed(links(after)))
        for after in ((0, 1, 2, 3, 4), (0, 1, 2, 3, 5))
    ]
    fork = find_fork(*sides)
    assert fork is not None
    assert (fork.height, fork.verdict.complete) == (10, True)
    assert find_fork(sides[0], sides[0]) is None
