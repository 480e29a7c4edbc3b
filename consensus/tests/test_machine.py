"""The parts of a simulated machine: processor, clock, links, custody."""

from consensus.core.effects import ReleaseCustody
from consensus.core.inputs import CustodyChanged, Input
from consensus.sim.machine import Clock, Processor
from consensus.sim.node import Node
from consensus.sim.run import Cluster
from consensus.sim.scenes.stage import Staged
from consensus.sim.world import REGIONS_US, Weather, World


def test_work_waits_for_the_processor_in_order_and_takes_its_time() -> None:
    world = World(0, 1)
    processor = Processor(world)
    begin = world.now_us
    done: list[tuple[str, int]] = []
    for name in ("first", "second", "third"):
        processor.run(lambda name=name: done.append((name, world.now_us - begin)), 100)  # type: ignore[misc]
    world.run_until(begin + 1_000)
    assert done == [("first", 0), ("second", 100), ("third", 200)]


def test_a_stopped_process_does_everything_after_it_goes_on() -> None:
    world = World(0, 1)
    processor = Processor(world)
    begin = world.now_us
    done: list[int] = []
    processor.pause(50_000)
    processor.run(lambda: done.append(world.now_us - begin))
    world.run_until(begin + 40_000)
    assert done == []
    world.run_until(begin + 60_000)
    assert done == [50_000]


def test_a_resumed_process_does_not_wait_for_the_end_of_its_pause() -> None:
    world = World(0, 1)
    processor = Processor(world)
    begin = world.now_us
    done: list[int] = []
    processor.pause(50_000)
    processor.run(lambda: done.append(world.now_us - begin))
    world.after(10_000, processor.resume)
    world.run_until(begin + 60_000)
    assert done == [10_000]


def test_a_drifting_clock_gains_five_percent_and_never_jumps() -> None:
    world = World(0, 1)
    clock = Clock(world)
    begin = clock.now()
    clock.drift(50_000)
    assert clock.now() == begin
    world.run_until(world.now_us + 1_000_000)
    assert clock.now().monotonic_us - begin.monotonic_us == 1_050_000
    assert clock.true_us(clock.now().monotonic_us + 105) == world.now_us + 100


def test_a_repaired_clock_shows_true_time_and_its_monotonic_part_goes_on() -> None:
    world = World(0, 1)
    clock = Clock(world)
    clock.skew_ms = 600_000
    clock.drift(-50_000)
    world.run_until(world.now_us + 2_000_000)
    before = clock.now().monotonic_us
    clock.repair(0)
    assert clock.now().monotonic_us == before
    assert clock.now().unix_ms == world.now_us // 1_000


def test_a_frozen_clock_stands_while_timers_run() -> None:
    world = World(0, 1)
    clock = Clock(world)
    clock.freeze()
    begin = clock.now()
    world.run_until(world.now_us + 5_000_000)
    assert clock.now().unix_ms == begin.unix_ms
    assert clock.now().monotonic_us == begin.monotonic_us + 5_000_000


def _arrivals(world: World, count: int) -> list[int]:
    begin = world.now_us
    arrived: list[int] = []
    for _ in range(count):
        world.deliver(0, 1, lambda: arrived.append(world.now_us - begin))
    world.run_until(begin + 10_000_000)
    return arrived


def test_a_narrow_link_carries_one_message_after_the_other() -> None:
    world = World(0, 2)
    world.weather = Weather(delay_us_min=10, delay_us_mean=10, link_us=1_000)
    assert _arrivals(world, 3) == [1_010, 2_010, 3_010]


def test_a_clogged_link_gives_everything_at_once_when_it_opens() -> None:
    world = World(0, 2)
    world.weather = Weather(delay_us_min=10, delay_us_mean=10)
    world.clogged[0, 1] = world.now_us + 5_000
    assert _arrivals(world, 3) == [5_010] * 3


def test_distances_between_regions_are_symmetric_and_short_at_home() -> None:
    assert all(
        REGIONS_US[one][other] == REGIONS_US[other][one] for one in range(7) for other in range(7)
    )
    world = World(0, 2)
    world.weather = Weather(delay_us_min=10, delay_us_mean=10)
    world.regions = (0, 6)
    assert _arrivals(world, 1) == [REGIONS_US[0][6] + 10]


class Told(Node):
    """Keeps what its replica was told of custody."""

    def __init__(self, cluster: Cluster, index: int) -> None:
        super().__init__(cluster, index)
        self.told: list[CustodyChanged] = []

    def feed(self, message: Input) -> None:
        if isinstance(message, CustodyChanged):
            self.told.append(message)
        super().feed(message)


def test_a_primary_is_told_of_custody_after_each_batch_and_when_all_of_it_comes_back() -> None:
    stage = Staged(0, 4, {}, Told)
    stage.start()
    stage.run(50)
    stage.isolate(0)
    node = stage.nodes[0]
    assert isinstance(node, Told)
    stage.pay(0)
    stage.run(20)
    assert [custody.pending for custody in node.told[-2:]] == [1, 0]
    node._absorb([ReleaseCustody(in_flight=())])
    assert node.told[-1] == node.told[-3]
