"""Section 2 of the reference: the table, and the invariants for every n."""

import pytest

from consensus.core.quorum import faults, quorum, weak_quorum
from consensus.limits import MEMBERS_MAX

TABLE = {
    1: (0, 1, 1),
    2: (0, 2, 1),
    3: (0, 2, 2),
    4: (1, 3, 2),
    5: (1, 4, 2),
    6: (1, 4, 3),
    7: (2, 5, 3),
    10: (3, 7, 4),
    13: (4, 9, 5),
    20: (6, 14, 7),
    21: (6, 14, 8),
    22: (7, 15, 8),
}


@pytest.mark.parametrize(("members", "sizes"), TABLE.items())
def test_sizes_are_those_of_the_table(members: int, sizes: tuple[int, int, int]) -> None:
    assert (faults(members), quorum(members), weak_quorum(members)) == sizes


@pytest.mark.parametrize("members", range(1, MEMBERS_MAX + 1))
def test_two_quorums_share_an_honest_replica(members: int) -> None:
    assert 2 * quorum(members) - members >= faults(members) + 1


@pytest.mark.parametrize("members", range(1, MEMBERS_MAX + 1))
def test_a_quorum_exists_without_the_faulty_ones(members: int) -> None:
    assert quorum(members) <= members - faults(members)


@pytest.mark.parametrize("members", range(1, MEMBERS_MAX + 1))
def test_no_quorum_exists_without_a_weak_one(members: int) -> None:
    weak = weak_quorum(members)
    assert faults(members) < weak <= quorum(members)
    assert members - weak < quorum(members)
