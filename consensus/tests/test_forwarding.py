"""What waits is shown to the primary, piece by piece: it may never have seen it."""

import pytest

from consensus.core.types import View
from consensus.sim.node import FORWARD_PAYLOADS_MAX
from consensus.sim.scenes.stage import Staged


@pytest.mark.parametrize("seed", range(4))
def test_an_honest_primary_that_lacks_many_payloads_is_not_deposed(seed: int) -> None:
    """All but the primary hold five times what fits into one forwarding."""
    stage = Staged(seed, 4, {})
    stage.start()
    stage.run(50)
    for _ in range(5 * FORWARD_PAYLOADS_MAX):
        stage.pay(1, 2, 3)
    stage.run(2_000, lambda: all(not node.custody.payloads for node in stage.nodes))
    assert set(stage.views()) == {View(0)}
    assert not any(node.custody.payloads for node in stage.nodes)
