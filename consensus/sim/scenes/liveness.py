"""Dead, slow and unfair primaries, views that move, nodes that are late."""

from dataclasses import replace
from typing import Final

from consensus.core.effects import Event
from consensus.core.messages import (
    NewView,
    Prepare,
    ViewChange,
)
from consensus.sim.checker import require
from consensus.sim.liars import (
    Liar,
    Silent,
    liar_with,
)
from consensus.sim.node import SIM_TIMING
from consensus.sim.run import describe
from consensus.sim.scenes.stage import Staged, all_of, opened, votes
from consensus.sim.world import Weather

IDLE_FOR_EVER = replace(SIM_TIMING, idle_block_interval_ms=600_000)
GAP_US_MAX: Final = 15_000_000  # 32 x T and a round: no payload waits longer for one dead primary


def dead_primary_under_load(seed: int) -> None:
    """The next primary is silent and payloads keep coming: the view must fail all the same."""
    stage = opened(seed, (4, 5), {1: Silent})
    random = stage.world.random
    stage.pay_for(40_000, random.choice((20, 50, 100)))
    stage.run(100)
    stage.isolate(0)
    stage.run(random.randrange(500, 1_500))
    stage.world.cut = set()
    stage.expect_progress(GAP_US_MAX)


def frozen_primary(seed: int) -> None:
    """The primary keeps its connections and says nothing."""
    stage = opened(seed, (4, 5, 7))
    random = stage.world.random
    stage.pay()
    frozen = stage.views()[0] % stage.members
    stage.rules.append(lambda source, _target, _message: source == frozen)
    stage.pay_for(20_000, random.choice((20, 100)))
    stage.run(20)
    stage.expect_progress(GAP_US_MAX)
    stage.run(100)
    stage.finish()


def killed_primary(seed: int) -> None:
    """The primary dies under load: one gap, not longer than its timeout and a view change (L7)."""
    stage = opened(seed, (4, 5, 7))
    world, random = stage.world, stage.world.random
    stage.pay_for(2_000, random.choice((10, 40)))
    stage.run(random.randrange(200, 500))
    timeout_us = max(node.replica.request_timeout_us for node in stage.nodes)
    stage.nodes[stage.views()[0] % stage.members].crash()
    tip, since_us, gap_us = stage.tip(), world.now_us, 0
    end_us = world.now_us + 1_500_000
    while world.now_us < end_us:
        world.run_until(world.now_us + 1_000)
        if stage.tip() > tip:
            tip, gap_us, since_us = stage.tip(), max(gap_us, world.now_us - since_us), world.now_us
    gap_us = max(gap_us, world.now_us - since_us)
    limit_us = timeout_us * 12 // 10 + 50_000
    require(
        gap_us <= limit_us,
        f"a gap of {gap_us // 1_000} ms after a killed primary, limit {limit_us // 1_000} ms",
    )
    stage.finish()


def long_outage(seed: int) -> None:
    """Views fail for minutes because no NEW-VIEW arrives; then a silent liar is next to lead."""
    silent = seed % 4
    stage = opened(seed, (4,), {silent: Silent})
    stage.speak(silent)
    stage.rules.append(all_of(NewView))
    stage.pay()
    stage.rules.append(votes(Prepare, to=range(4)))
    stage.run(90_000 + 10_000 * (seed % 7))
    stage.run(60_000, lambda: all(view % 4 == silent for view in stage.views()))
    stage.hush(silent)
    stage.rules.clear()
    stage.finish(45_000_000)


def slow_links_after_an_outage(seed: int) -> None:
    """A payload is old, views have failed because of the network, and the network is slow."""
    stage = opened(seed, (4, 7))
    stage.rules += [all_of(NewView), votes(Prepare, to=range(stage.members))]
    old = stage.pay()
    stage.run(20_000 + 1_000 * (seed % 5))
    stage.rules.clear()
    stage.world.weather = Weather(delay_us_min=40_000, delay_us_mean=60_000)
    require(
        stage.run(60_000, lambda: old in stage.checker.acknowledged),
        f"liveness: an old payload waits for ever: {describe(stage)}",
    )
    stage.finish()


def scattered_views(seed: int) -> None:
    """Three nodes have gone many views ahead of the fourth, and one of them falls silent."""
    silent = 1 + seed % 2
    stage = opened(seed, (4,), {silent: Silent})
    stage.speak(silent)
    stage.isolate(0)
    stage.rules.append(
        lambda _source, target, message: (
            isinstance(message, ViewChange) and message.view % stage.members == target
        )
    )
    stage.pay()
    stage.run(200_000)
    stage.hush(silent)
    stage.world.cut = set()
    stage.finish()


def one_goes_ahead(seed: int) -> None:
    """One node saw a quorum for a view and has left it, the others never saw one."""
    silent = 1 + seed % 3
    stage = opened(seed, (4,), {silent: Silent})
    stage.speak(silent)
    random = stage.world.random
    ahead = random.choice([index for index in (1, 2, 3) if index != silent])
    stage.rules.append(all_of(NewView))
    stage.rules.append(
        lambda _source, target, message: target != ahead and isinstance(message, ViewChange)
    )
    stage.rules.append(votes(Prepare, to=range(4)))
    stage.pay()
    stage.run(3_000, lambda: stage.nodes[ahead].replica.view >= 2)
    stage.hush(silent)
    stage.finish()


def deaf_node(seed: int) -> None:
    """A node can send and cannot receive, for good: the others must not follow it for ever."""
    stage = opened(seed, (4, 5, 7))
    deaf = seed % stage.members
    for peer in range(stage.members):
        if peer != deaf:
            stage.world.cut.add((peer, deaf))
    stage.pay_for(30_000, 300)
    stage.run(30_000)
    highest = max(
        view for node, view in zip(stage.nodes, stage.views(), strict=True) if node.index != deaf
    )
    require(highest <= 3, f"views move on because one node asks for them: {stage.views()}")
    stage.finish()


def alone_for_long(seed: int) -> None:
    """A node cut off from all others asks for one view, and does not run ahead of them."""
    stage = opened(seed, (3, 4, 7))
    alone = seed % stage.members
    stage.isolate(alone)
    stage.pay()
    stage.pay_for(20_000, 500)
    stage.run(20_000)
    views = stage.views()
    require(
        views[alone] <= max(views[:alone] + views[alone + 1 :]) + 2,
        f"views race ahead at a node that is alone: {views}",
    )
    stage.finish()


def late_in_a_view_change(seed: int) -> None:
    """A node is late when the view changes, and without it there is no quorum."""
    silent = 1 + seed % 2
    stage = opened(seed, (4,), {silent: Silent})
    random = stage.world.random
    stage.speak(silent)
    stage.isolate(3)
    stage.pay_for(200, 6)
    stage.run(random.randrange(150, 350))
    stage.hush(silent)
    stage.world.cut = set()
    if random.random() < 0.7:
        stage.crash(0)
    stage.run(20)
    stage.pay()
    stage.finish()


def late_and_idle(seed: int) -> None:
    """A node missed the last blocks, and no new one comes: its links work again, that is all."""
    stage = Staged(seed, (3, 4, 7)[seed % 3], {})
    for node in stage.nodes:
        node.timing = IDLE_FOR_EVER
    stage.start()
    stage.run(60)
    late = 1 + seed % (stage.members - 1)
    if stage.members == 3:
        late = 2
    stage.isolate(late)
    for _ in range(stage.world.random.randint(1, 12)):
        stage.pay(0, 1)
        stage.run(10)
    stage.run(200)
    stage.world.cut = set()
    stage.run(5_000, lambda: stage.executed(late) == stage.tip())
    require(
        stage.executed(late) == stage.tip(),
        f"an idle cluster leaves a late node behind: {describe(stage)}",
    )


def uncertified_tip(seed: int) -> None:
    """Every node dies between the execution of the last block and its vote for it."""
    stage = Staged(seed, (3, 4)[seed % 2], {})
    for node in stage.nodes:
        node.timing = IDLE_FOR_EVER
    stage.start()
    stage.run(60)
    stage.pay()
    waiting = set(range(stage.members))
    end = stage.world.now_us + 200_000
    while waiting and stage.world.now_us < end:
        stage.world.run_until(stage.world.now_us + 50)
        for index in list(waiting):
            if stage.nodes[index].executing:
                waiting.discard(index)
                stage.crash(index)
    stage.run(
        15_000,
        lambda: all(
            node.up and node.replica.certified == node.replica.executed == stage.tip()
            for node in stage.nodes
        ),
    )
    require(
        all(node.replica.certified == stage.tip() for node in stage.nodes),
        f"certificates do not converge in an idle cluster: {describe(stage)}",
    )


def no_fault_at_all(seed: int) -> None:
    """Payloads reach some nodes only, nothing else is wrong: nobody may be deposed."""
    stage = opened(seed, (2, 3, 4, 7))
    for _ in range(6):
        stage.pay(stage.world.random.randrange(1, stage.members))
        stage.run(stage.world.random.randrange(10, 900))
    stage.run(2_000)
    started = stage.world.counters[Event.VIEW_CHANGE_STARTED.value]
    require(started == 0, f"{started} view changes without any fault: {describe(stage)}")
    stage.finish()


def starved_client(seed: int) -> None:
    """The primary proposes everything but the payloads of one client."""
    stage = opened(seed, (4, 7), {0: liar_with()})
    liar = stage.nodes[0]
    assert isinstance(liar, Liar)
    liar.starves = starved = b"payload of a client nobody likes"
    stage.checker.injected.add(starved)
    for node in stage.nodes:
        node.take_payloads((starved,))
    stage.pay_for(40_000, 60)
    require(
        stage.run(20_000, lambda: starved in stage.checker.acknowledged),
        f"liveness: a primary starves a client for 20 s: {describe(stage)}",
    )


def lossy_network(seed: int) -> None:
    """A third of all messages is lost for good, and blocks come nevertheless."""
    stage = opened(seed, (4,))
    stage.world.weather = Weather(drop=0.35)
    stage.pay_for(20_000, 200)
    for _ in range(10):
        stage.expect_progress(4_000_000)
    stage.finish()
