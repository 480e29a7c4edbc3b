"""A cluster that is short of processor time: it asks less often, and it still moves."""

from dataclasses import replace

import pytest

from consensus.core import custody
from consensus.core.effects import ChangeView, Effect, Send, SetTimer
from consensus.core.inputs import CustodyChanged, Timer, TimerFired
from consensus.core.messages import ViewChange
from consensus.core.phases.view_change import start, timeout_us
from consensus.core.retransmit import may_repeat_view
from consensus.core.types import Instant, ReplicaIndex, Timing, View
from consensus.limits import QUICK_BLOCKS, STATUS_STRETCH_MAX, SUSPICIONS_POSTPONED_MAX
from consensus.runtime.checked import SIGNATURES_KEPT_MAX, Checked
from consensus.sim.machine import Costs
from consensus.sim.node import Node, signatures_in
from consensus.sim.run import Cluster
from consensus.sim.scenes.stage import Staged
from consensus.tests import samples
from consensus.tests.samples import EPOCH
from consensus.tests.test_replica import Bench, status
from native.values import Signature

SLOW = 20  # times slower than measured: 21 processes that share one processor
MEASURED = Costs(sign_us=200, verify_us=20, frame_us=60, execute_us=500)


def test_twenty_one_slow_nodes_replace_a_dead_primary() -> None:
    """At a twentieth of the speed, a dead primary is replaced and a block made within 20 s."""
    stage = Staged(1, 21, {})
    _slowed(stage, SLOW)
    stage.start()
    stage.isolate(0)
    stage.pay()
    stage.expect_progress(20_000_000)
    assert stage.views().count(View(0)) == 1


def _slowed(stage: Staged, slow: int) -> None:
    for node in stage.nodes:
        node.timing = Timing()
        node.processor.costs = Costs(
            sign_us=MEASURED.sign_us * slow,
            verify_us=MEASURED.verify_us * slow,
            frame_us=MEASURED.frame_us * slow,
            execute_us=MEASURED.execute_us * slow,
        )


@pytest.mark.parametrize("seed", range(3))
def test_four_overloaded_nodes_soon_stay_with_one_primary(seed: int) -> None:
    """At a 150th of the speed every block takes longer than T: the timers grow, and stay up."""
    stage = Staged(seed, 4, {})
    _slowed(stage, 150)
    stage.start()
    stage.pay_for(32_000, 20)
    stage.run(16_000)
    settled = stage.views()
    tip = stage.tip()
    stage.run(16_000)
    assert stage.views() == settled
    assert max(settled) <= 3
    assert stage.tip() > tip + 20


def test_a_slow_period_makes_the_next_failover_slow_for_48_timeouts_at_most() -> None:
    stage = Staged(2, 4, {})
    stage.by_digest = 0.0
    _slowed(stage, 200)
    stage.start()
    stage.pay_for(90_000, 20)
    stage.run(15_000)
    assert stage.stretched()
    _slowed(stage, 1)
    base_us = max(node.replica.request_timeout_us for node in stage.nodes)
    assert stage.run(48 * base_us // 1_000, lambda: not stage.stretched())
    tip = stage.tip()
    stage.nodes[stage.views()[0] % 4].crash()
    assert stage.run(base_us * 12 // 10_000 + 50, lambda: stage.tip() > tip + 5)


class Patience:
    """Blocks of so many milliseconds each, executed by one replica whose views have failed."""

    def __init__(self, failed_views: int) -> None:
        self.replica = Bench(1).replica
        self.replica.failed_views = failed_views
        self.now_ms = 0

    def block(self, took_ms: int | None, *, every_ms: int) -> int:
        """What the patience is after one more of them, in milliseconds."""
        self.now_ms += every_ms
        self.replica.now = Instant(monotonic_us=self.now_ms * 1_000, unix_ms=0)
        accepted_us = None if took_ms is None else (self.now_ms - took_ms) * 1_000
        custody.on_block(self.replica, accepted_us)
        return timeout_us(self.replica) // 1_000


def test_quick_blocks_bring_the_patience_down_after_one_patience() -> None:
    bench = Patience(3)
    found = [bench.block(100, every_ms=1_000) for _ in range(10)]
    assert found == [8_000] * 8 + [1_000] * 2


def test_blocks_in_quick_succession_are_no_evidence_yet() -> None:
    bench = Patience(2)
    assert {bench.block(1, every_ms=10) for _ in range(100)} == {4_000}


def test_few_blocks_are_no_evidence_however_long_they_are_apart() -> None:
    bench = Patience(2)
    found = [bench.block(1, every_ms=60_000) for _ in range(QUICK_BLOCKS)]
    assert found == [4_000] * (QUICK_BLOCKS - 1) + [1_000]


def test_the_patience_comes_down_to_what_the_slowest_block_needs() -> None:
    bench = Patience(5)
    found = [bench.block(900 if at == 5 else 10, every_ms=1_000) for at in range(40)]
    assert found == [32_000] * 32 + [4_000] * 5 + [1_000] * 3


def test_one_slow_block_begins_the_count_again() -> None:
    bench = Patience(1)
    found = {bench.block(500 if at % 3 == 2 else 10, every_ms=1_000) for at in range(30)}
    assert found == {2_000}


def test_a_view_whose_last_block_was_slow_has_failed() -> None:
    for took_ms, doublings in ((10, 0), (900, 1)):
        bench = Patience(0)
        bench.block(took_ms, every_ms=1_000)
        start(bench.replica, 1, "test")
        assert bench.replica.failed_views == doublings


def test_a_block_that_was_accepted_in_an_earlier_life_is_no_evidence() -> None:
    bench = Patience(1)
    found = [bench.block(None if at == 3 else 10, every_ms=1_000) for at in range(6)]
    assert found == [2_000] * 4 + [1_000] * 2


def test_what_waits_for_an_earlier_place_is_timed_from_when_that_came() -> None:
    """The primary held it back: five blocks were ready and waited for one."""
    bench = Patience(1)
    bench.block(10, every_ms=1_000)
    found = [bench.block(took_ms, every_ms=1) for took_ms in (10, 900, 900, 900)]
    assert found == [2_000] * 4
    assert bench.block(10, every_ms=2_000) == 1_000


def test_slow_blocks_alone_keep_the_patience_for_sixteen_times_as_long() -> None:
    bench = Patience(2)
    found = [bench.block(1_900, every_ms=2_000) for _ in range(60)]
    assert found == [4_000] * 32 + [2_000] * 16 + [1_000] * 12


def test_each_view_may_be_slow_for_as_long() -> None:
    bench = Patience(1)
    for _ in range(3):
        assert {bench.block(900, every_ms=2_000) for _ in range(15)} == {2_000}
        bench.replica.entered_us = bench.replica.now.monotonic_us


@pytest.mark.parametrize("seed", range(3))
def test_a_primary_that_dates_its_batches_ahead_does_not_keep_the_patience_up(seed: int) -> None:
    """Its blocks wait for the clocks of the others: that says nothing about the machine."""
    stage = Staged(seed, 4, {0: DatesAhead})
    stage.start()
    for node in stage.nodes:
        node.replica.failed_views = 3
    stage.pay_for(12_000, 40)
    assert stage.run(12_000, lambda: set(stage.views()) != {View(0)} and not stage.stretched())


class DatesAhead(Node):
    """Its batches are of a time that comes in more than a quarter of a long time-out."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        super().__init__(cluster, index)
        self.honest = False

    def now(self) -> Instant:
        now = super().now()
        return replace(now, unix_ms=now.unix_ms + 1_400)


def test_a_simulated_node_pays_for_each_signature_once() -> None:
    """As a real one does: a NEW-VIEW of 21 has 1,787 signatures, of which 97 differ."""
    stage = Staged(1, 4, {})
    stage.start()
    node = stage.nodes[2]
    node.processor.costs = Costs(verify_us=10)
    began_us = node.processor.free_us = stage.world.now_us + 1_000
    change = samples.view_change(1, 1)
    new_view = samples.new_view(1)
    for message in (change, change, new_view, new_view):
        node.arrive(ReplicaIndex(1), message, None)
    differing = {*signatures_in(change), *signatures_in(new_view)}
    assert len(differing) < len([*signatures_in(change), *signatures_in(new_view)])
    spent = sum(cost_us for cost_us, _ in node.processor._waiting)
    assert spent == 10 * len(differing)
    assert began_us == node.processor.free_us


def test_twenty_one_nodes_at_a_hundredth_of_a_core_replace_a_dead_primary_under_load() -> None:
    stage = Staged(1, 21, {})
    stage.by_digest = 0.0
    _slowed(stage, 100)
    stage.start()
    stage.isolate(0)
    stage.pay_for(20_000, 500)
    stage.run(12_000)
    for _ in range(3):
        stage.expect_progress(2_000_000)


def test_a_node_that_is_late_asks_more_rarely_and_recovers_step_by_step() -> None:
    bench = Bench(1)
    interval_us = Timing().status_interval_ms * 1_000
    due_us = interval_us

    def next_pause(late_us: int) -> int:
        nonlocal due_us
        bench.late_us = due_us + late_us
        effects = bench.feed(TimerFired(timer=Timer.STATUS))
        (timer,) = [
            effect
            for effect in effects
            if isinstance(effect, SetTimer) and effect.timer is Timer.STATUS
        ]
        due_us = timer.at_us - 1_000_000
        return (due_us - bench.late_us) // interval_us

    assert [next_pause(interval_us) for _ in range(7)] == [2, 4, 8, 16, 32, 32, 32]
    assert [next_pause(0) for _ in range(3)] == [31, 30, 29]
    assert bench.replica.status_stretch <= STATUS_STRETCH_MAX


def test_a_node_that_is_always_late_still_suspects_a_dead_primary() -> None:
    bench = Bench(1)
    bench.feed(CustodyChanged(pending=1, pending_bytes=9, oldest_us=1_000_000))
    bench.late_us = 250_000
    bench.feed(TimerFired(timer=Timer.SUSPECT))
    asked: list[bool] = []
    for _ in range(SUSPICIONS_POSTPONED_MAX + 1):
        bench.late_us += 5_000_000
        effects = bench.feed(TimerFired(timer=Timer.SUSPECT))
        asked.append(any(isinstance(effect, ChangeView) for effect in effects))
    assert asked == [False] * SUSPICIONS_POSTPONED_MAX + [True]


def test_the_same_new_view_is_shown_to_a_peer_ever_more_rarely() -> None:
    bench = Bench(1)
    peer = bench.replica.peers[ReplicaIndex(2)]
    shown: list[int] = []
    for moment_ms in range(0, 4_000, 10):
        bench.replica.now = Instant(monotonic_us=moment_ms * 1_000, unix_ms=0)
        if may_repeat_view(bench.replica, peer):
            shown.append(moment_ms)
    assert shown == [0, 100, 300, 700, 1_500, 3_100]


@pytest.mark.parametrize(
    ("members", "at_ms"),
    [
        (4, [0, 300, 600, 900, 1_200, 1_500, 1_800, 2_100, 2_400, 2_700]),
        (7, [300, 600, 1_200, 1_800, 2_400]),
        (21, [600, 1_200, 2_400]),
    ],
)
def test_a_view_change_is_sent_again_ever_more_rarely_and_the_more_so_the_larger_the_set(
    members: int, at_ms: list[int]
) -> None:
    """To a peer that shows nothing of it, by the timer; with four validators, every time."""
    bench = Bench(1, members=members)
    start(bench.replica, 1, "test")
    bench.hear(1, samples.view_change(1, 1))
    sent: list[int] = []
    for moment_ms in range(0, 3_000, Timing().status_interval_ms):
        bench.late_us = moment_ms * 1_000
        effects = bench.feed(TimerFired(timer=Timer.STATUS))
        if changes_to(2, effects):
            sent.append(moment_ms)
    assert sent == at_ms


@pytest.mark.parametrize(("members", "times"), [(4, 10), (21, 3)])
def test_a_peer_of_a_large_set_is_shown_what_it_lacks_of_a_view_change_more_rarely(
    members: int, times: int
) -> None:
    """It is likely to be reading it still: twenty others would each send it all of them."""
    bench = Bench(1, members=members)
    start(bench.replica, 1, "test")
    for signer in (1, 3):
        bench.hear(signer, samples.view_change(1, signer))
    counts: list[int] = []
    for moment_ms in range(0, 3_000, Timing().status_interval_ms):
        bench.late_us = moment_ms * 1_000
        lacking = status(2, view=View(1), in_view_change=True)
        counts.append(len(changes_to(2, bench.hear(2, lacking))))
    assert set(counts) <= {0, 2}
    assert counts.count(2) == times


def test_the_first_peer_to_lack_a_view_change_does_not_make_the_others_wait() -> None:
    bench = Bench(1)
    start(bench.replica, 1, "test")
    bench.hear(1, samples.view_change(1, 1))
    for peer in (2, 3):
        assert changes_to(peer, bench.hear(peer, status(peer, view=View(1), in_view_change=True)))


def changes_to(peer: int, effects: list[Effect]) -> list[ViewChange]:
    return [
        effect.message
        for effect in effects
        if isinstance(effect, Send)
        and effect.peer == peer
        and isinstance(effect.message, ViewChange)
    ]


def test_only_so_many_checked_signatures_are_remembered() -> None:
    checked = Checked()
    jobs = [
        (EPOCH, ReplicaIndex(1), b"%d" % number, Signature(b"s" * 16))
        for number in range(SIGNATURES_KEPT_MAX + 1)
    ]
    checked.keep(jobs)
    assert len(checked) == SIGNATURES_KEPT_MAX
    assert jobs[0] not in checked
    assert jobs[-1] in checked
