"""What bounds a replica's lag: nobody prepares more than 8 blocks above what it has executed.

So a place is agreed only once Q replicas, of which f may lie about it, have executed up to 8 below
it: the Q-th best sets the pace, without a message or a rule of its own. The n - Q slowest set none,
so a liar that plays slow cannot either; they catch up with certified blocks.
"""

import pytest

from consensus.core.quorum import quorum
from consensus.limits import IN_FLIGHT_BLOCKS_MAX
from consensus.sim.scenes.stage import Staged, opened

SLOW_US = 25_000  # to execute one block
RUN_MS = 400


def loaded(members: int, slow: tuple[int, ...]) -> tuple[Staged, int, int]:
    """Run under load; blocks executed, and how far the best was ever ahead of the Q-th best."""
    stage = opened(1, (members,))
    for index in slow:
        stage.nodes[index].processor.costs.execute_us = SLOW_US
    stage.pay_for(RUN_MS, 2)
    before, ahead = stage.tip(), 0
    for _ in range(RUN_MS):
        stage.run(1)
        heights = sorted((stage.executed(at) for at in range(members)), reverse=True)
        ahead = max(ahead, heights[0] - heights[quorum(members) - 1])
    return stage, stage.tip() - before, ahead


@pytest.mark.parametrize("members", [4, 7])
def test_the_cluster_waits_for_a_replica_that_the_quorum_needs(members: int) -> None:
    needed = tuple(range(quorum(members) - 1, members))
    stage, blocks, ahead = loaded(members, needed)
    assert 2 < ahead <= IN_FLIGHT_BLOCKS_MAX
    assert blocks <= RUN_MS * 1_000 // SLOW_US + 2 * IN_FLIGHT_BLOCKS_MAX
    for index in needed:
        stage.nodes[index].processor.costs.execute_us = 0
    stage.finish()


@pytest.mark.parametrize("members", [4, 7])
def test_a_replica_that_no_quorum_needs_slows_nobody_and_comes_back(members: int) -> None:
    spare = tuple(range(quorum(members), members))
    _, alone, _ = loaded(members, ())
    stage, blocks, _ = loaded(members, spare)
    assert blocks >= alone * 9 // 10
    for index in spare:
        assert stage.tip() - stage.executed(index) > 4 * IN_FLIGHT_BLOCKS_MAX
        stage.nodes[index].processor.costs.execute_us = 0
    stage.finish()
    assert len({stage.executed(at) for at in range(members)}) == 1
