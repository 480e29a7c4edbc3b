"""What waits is shown to the primary, piece by piece: it may never have seen it."""

from collections import Counter
from functools import partial

import pytest

from consensus.core.effects import ForwardCustody
from consensus.core.inputs import PeerLost
from consensus.core.types import ReplicaIndex, Timing, View
from consensus.sim.disk import Body
from consensus.sim.machine import Costs
from consensus.sim.node import FORWARD_PAYLOADS_MAX, Node
from consensus.sim.run import Cluster
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


class Full(Staged):
    """Links to the primary that take no payloads for the first half of a time-out."""

    full_until_us = 0

    def carry_payloads(self, source: ReplicaIndex, target: int, payloads: Body) -> bool:
        full = target == 0 and self.world.now_us < self.full_until_us
        return not full and super().carry_payloads(source, target, payloads)


@pytest.mark.parametrize("connected", [True, False])
def test_a_primary_that_no_link_led_to_for_half_a_timeout_is_not_deposed(connected: bool) -> None:
    stage = Full(0, 4, {})
    stage.start()
    stage.run(50)
    half_ms = stage.nodes[1].replica.request_timeout_us // 2_000
    if connected:
        stage.full_until_us = stage.world.now_us + half_ms * 1_000
    else:
        for node in stage.nodes[1:]:
            node.feed(PeerLost(peer=ReplicaIndex(0)))
            stage.world.after(half_ms * 500, partial(stage.nodes[0].connect, node))
    stage.pay(1, 2, 3)
    stage.run(3 * half_ms)
    assert set(stage.views()) == {View(0)}
    assert not any(node.custody.payloads for node in stage.nodes)


class Counting(Node):
    """Counts which payloads it shows to the primary of which view."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        super().__init__(cluster, index)
        self.timing = Timing()
        self.processor.costs = Costs(sign_us=20_000, frame_us=9_000, execute_us=50_000)
        self.shown: Counter[tuple[int, bytes]] = Counter()

    def _forward(self, effect: ForwardCustody) -> None:
        if effect.peer is not None:
            payloads, _, _ = self.custody.unproposed(effect.first, effect.until_us)
            self.shown.update((self.replica.view, payload) for payload in payloads)
        super()._forward(effect)


@pytest.mark.parametrize("seed", range(3))
def test_an_overloaded_primary_is_sent_nothing_twice_and_little_in_all(seed: int) -> None:
    """Everybody has all payloads, and many more of them than the cluster can agree on."""
    stage = Staged(seed, 4, {}, Counting)
    stage.start()
    stage.run(500)
    for _ in range(4_000):
        stage.pay()
    stage.run(4_000)
    shown = 0
    for node in stage.nodes:
        assert isinstance(node, Counting)
        assert len(node.custody.payloads) > 1_000, "it is overloaded all the time"
        assert set(node.shown.values()) <= {1}
        views = len({view for view, _ in node.shown})
        pieces = 2 * views + 2 * 4_000_000 // node.replica.request_timeout_us
        assert len(node.shown) <= pieces * FORWARD_PAYLOADS_MAX, "one on entry, then each T / 2"
        shown += len(node.shown)
    assert shown
