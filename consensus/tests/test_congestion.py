"""A cluster that is short of processor time: it asks less often, and it still moves."""

from consensus.core.effects import ChangeView, SetTimer
from consensus.core.inputs import CustodyChanged, Timer, TimerFired
from consensus.core.retransmit import may_repeat_view
from consensus.core.types import Instant, ReplicaIndex, Timing, View
from consensus.limits import STATUS_STRETCH_MAX, SUSPICIONS_POSTPONED_MAX
from consensus.runtime.checked import SIGNATURES_KEPT_MAX, Checked
from consensus.sim.machine import Costs
from consensus.sim.scenes.stage import Staged
from consensus.tests.samples import EPOCH
from consensus.tests.test_replica import Bench
from native.values import Signature

SLOW = 20  # times slower than measured: 21 processes that share one processor
MEASURED = Costs(sign_us=200, verify_us=20, frame_us=60, execute_us=500)


def test_twenty_one_slow_nodes_replace_a_dead_primary() -> None:
    """At a twentieth of the speed, a dead primary is replaced and a block made within 20 s."""
    stage = Staged(1, 21, {})
    for node in stage.nodes:
        node.timing = Timing()
        node.processor.costs = Costs(
            sign_us=MEASURED.sign_us * SLOW,
            verify_us=MEASURED.verify_us * SLOW,
            frame_us=MEASURED.frame_us * SLOW,
            execute_us=MEASURED.execute_us * SLOW,
        )
    stage.start()
    stage.isolate(0)
    stage.pay()
    stage.expect_progress(20_000_000)
    assert stage.views().count(View(0)) == 1


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
