"""Two certified chains: the place where they part, and who signed both, by real keys."""

from __future__ import annotations

import pytest

from consensus.core.light import HeaderProof
from consensus.core.messages import BlockCertificate, BlockHeader
from consensus.tests.test_light import CLIENT, FOUR, certified, chain
from native.values import Digest
from node.chain import Run
from node.forks import find_fork


class Held:
    """A chain in memory, with certificates at some heights."""

    def __init__(self, headers: list[BlockHeader], certificates: list[BlockCertificate]) -> None:
        self.headers = headers
        self.certificates = sorted(certificates, key=lambda found: found.height)
        self.oldest, self.newest = 1, len(headers)

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
    fork = find_fork(one, other, CLIENT)
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
    assert find_fork(short, long, CLIENT) is None
    assert find_fork(long, short, CLIENT) is None


def test_blocks_without_a_certificate_are_not_compared() -> None:
    shared = chain(1, 8)
    one = Held(branch(shared, 1, b"a"), [certified(shared[7], FOUR, (0, 1, 2))])
    other = Held(branch(shared, 1, b"b"), [certified(shared[7], FOUR, (0, 1, 2))])
    assert find_fork(one, other, CLIENT) is None
    assert find_fork(Held(shared, []), other, CLIENT) is None
