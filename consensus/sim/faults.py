"""The plan of one run: which faults occur, how often and when, all drawn from the seed.

Swarm testing: a run draws its own mix, so that faults are absent as often as present and none
hides another. What exceeds the fault budget is not drawn (`Cluster.may_forget`); crashes, pauses,
partitions, slow disks and wrong clocks may exceed it, because they cost liveness only, and liveness
is asked for after `heal` alone.
"""

from dataclasses import dataclass
from enum import Enum
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Self

from consensus.core.messages import NewView, PrePrepare, Status, ViewChange, VoteVector
from consensus.core.quorum import faults
from consensus.sim import damage
from consensus.sim.machine import Costs
from consensus.sim.world import FAIR, REGIONS_US, Weather

if TYPE_CHECKING:
    from consensus.sim.run import Cluster

Cut = set[tuple[int, int]]

SECOND_US = 1_000_000
LARGE_MEMBERS = 20  # from here on a run is kept short
PARTITIONS = (
    "both",
    "both",
    "one way",
    "one node",
    "primary isolated",
    "f isolated",
    "f+1 | rest",
    "not transitive",
    "half open",
)


class Focus(Enum):
    """What a campaign is about."""

    SWARM = "swarm"
    DISK = "disk"  # every run has disk faults and crashes


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """How many of each fault, and how bad."""

    duration_us: int
    weather: Weather
    geo: bool
    partitions: int
    flaps: int
    clogs: int
    storms: int  # all connections break and are made again, several times
    muffles: int
    crashes: int
    crashes_in_writes: int
    crashes_in_sends: int
    crashes_in_recovery: int
    crash_of_all: bool
    primary_crashes: int
    pauses: int
    pause_us_max: int
    costs: bool
    slow_node: bool
    clock_faults: int
    slow_disk_us: int
    disk_errors: int
    full_disks: int
    memory_losses: int
    damages: int  # of records, torn, flipped or in the wrong place
    payloads: int
    bursts: int
    to_all: int
    one_gate: bool

    @classmethod
    def draw(cls, random: Random, members: int, focus: Focus, *, luck: Random) -> Self:
        """Most faults are absent from most runs. `luck` is that of `damage`."""
        large = members >= LARGE_MEMBERS
        disk = focus is Focus.DISK
        pauses = random.choice((0, 0, 0, 0, 1, 3))
        pause_us_max = random.choice((SECOND_US, SECOND_US, 3 * SECOND_US))
        if pauses and not large and random.random() < 0.05:
            pause_us_max = 60 * SECOND_US
        duration_us = random.choice((1_500_000, 3_000_000, 5_000_000))
        if large:
            duration_us = 1_000_000
        if pauses:
            duration_us = max(duration_us, min(pause_us_max * 5 // 4, 70 * SECOND_US))
        crashes = random.choice((1, 3, 6)) if disk else random.choice((0, 0, 1, 3, 6))
        return cls(
            duration_us=duration_us,
            weather=Weather(
                drop=random.choice((0.0, 0.0, 0.02, 0.1, 0.3)),
                repeat=random.choice((0.0, 0.0, 0.05, 0.5)),
                delay_us_min=100,
                delay_us_mean=random.choice((400, 2_000, 10_000)),
                slow=random.choice((0.0, 0.0, 0.01, 0.05)),
                link_us=random.choice((0, 0, 0, 200, 2_000)),
            ),
            geo=random.random() < (0.5 if large else 0.08),
            partitions=random.choice((0, 0, 1, 3)),
            flaps=random.choice((0, 0, 0, 0, 1)),
            clogs=random.choice((0, 0, 0, 1, 3)),
            storms=random.choice((0, 0, 0, 0, 1)),
            muffles=random.choice((0, 0, 2, 4)),
            crashes=crashes,
            crashes_in_writes=random.choice((2, 6)) if disk else random.choice((0, 0, 2, 6)),
            crashes_in_sends=random.choice((0, 0, 0, 2, 6)),
            crashes_in_recovery=random.choice((0, 0, 0, 1, 3)),
            crash_of_all=bool(crashes) and random.random() < 0.3,
            primary_crashes=random.choice((1, 1, 2, 5)) if random.random() < 0.2 else 0,
            pauses=pauses,
            pause_us_max=pause_us_max,
            costs=random.random() < 0.4,
            slow_node=random.random() < 0.25,
            clock_faults=random.choice((0, 0, 0, 1, 2)),
            slow_disk_us=random.choice((0, 0, 0, 8_000, 60_000, 400_000, 2_000_000)),
            disk_errors=random.choice((1, 2)) if disk else random.choice((0, 0, 0, 0, 1)),
            full_disks=random.choice((0, 1)) if disk else random.choice((0, 0, 0, 0, 1)),
            memory_losses=random.choice((1, 3)) if disk else random.choice((0, 0, 1, 3)),
            damages=luck.choice((0, 1, 2)) if disk else luck.choice((0, 0, 0, 1)),
            payloads=10 if large else random.choice((5, 20, 60)),
            bursts=random.choice((0, 0, 0, 1)) if not large else 0,
            to_all=random.choice((0, 0, 0, 10)),
            one_gate=random.random() < 0.1,
        )


def prepare(cluster: "Cluster", mix: Mix) -> None:
    """What holds from the first moment on: distances, costs, the speed of machines."""
    world = cluster.world
    random = world.random
    world.weather = mix.weather
    if mix.geo:
        world.regions = tuple(index % len(REGIONS_US) for index in range(cluster.members))
        world.counters["runs across regions"] += 1
    if mix.weather.link_us:
        world.counters["runs with narrow links"] += 1
    if mix.costs:
        world.counters["runs with costs of cryptography"] += 1
        for node in cluster.nodes:
            node.processor.costs = Costs(
                sign_us=random.randint(150, 180),
                verify_us=random.randint(6, 9),
                frame_us=random.randint(5, 30),
                execute_us=random.choice((50, 500, 3_000)),
            )
    if mix.slow_node:
        cluster.slowest = random.randrange(cluster.members)
        world.counters["runs with a slow node"] += 1
        slow = cluster.nodes[cluster.slowest]
        slow.processor.costs = Costs(sign_us=850, verify_us=40, frame_us=100, execute_us=5_000)
        slow.disk_us_max = max(slow.disk_us_max, 8_000)
    cluster.crashes_in_writes = mix.crashes_in_writes
    cluster.crashes_in_sends = mix.crashes_in_sends
    cluster.crashes_in_recovery = mix.crashes_in_recovery
    if mix.one_gate:
        cluster.gate = random.randrange(cluster.members)
        world.counters["runs with one gate"] += 1


def chaos(cluster: "Cluster", mix: Mix) -> None:
    """Put the faults on the calendar."""
    world = cluster.world
    random = world.random
    begin = world.now_us

    def moment() -> int:
        return begin + random.randrange(mix.duration_us)

    def victim() -> int:
        return random.randrange(cluster.members)

    for _ in range(mix.crashes):
        world.at(moment(), partial(cluster.crash, victim()))
    if mix.crash_of_all:
        world.at(moment(), cluster.crash_all)
        world.counters["runs with a crash of all"] += 1
    if mix.primary_crashes:
        world.at(moment(), partial(_crash_primary, cluster, mix.primary_crashes))
    for _ in range(mix.partitions):
        world.at(moment(), partial(_partition, cluster))
    for _ in range(mix.flaps):
        world.at(moment(), partial(_flap, cluster, random.randint(3, 12)))
    for _ in range(mix.clogs):
        world.at(moment(), partial(_clog, cluster))
    for _ in range(mix.storms):
        world.at(moment(), partial(_storm, cluster, random.randint(2, 6)))
    for _ in range(mix.muffles):
        kinds = random.choice(
            ((VoteVector,), (VoteVector,), (PrePrepare,), (ViewChange,), (NewView,), (Status,))
        )
        world.at(moment(), partial(_muffle, cluster, kinds))
    for _ in range(mix.pauses):
        span = random.randrange(mix.pause_us_max // 3, mix.pause_us_max)
        world.at(moment(), partial(_pause, cluster, victim(), span))
    for _ in range(mix.clock_faults):
        world.at(moment(), partial(_upset_clock, cluster, victim()))
    if mix.slow_disk_us:
        slow = victim()
        world.at(moment(), partial(_slow_disk, cluster, slow, mix.slow_disk_us))
    for _ in range(mix.disk_errors):
        rate = random.choice((0.02, 0.2, 1.0))
        world.at(moment(), partial(_fail_syncs, cluster, victim(), rate))
    for _ in range(mix.full_disks):
        world.at(moment(), partial(_fill_disk, cluster, victim()))
    for _ in range(mix.memory_losses):
        world.at(moment(), partial(_lose_memory, cluster, victim()))
    for _ in range(mix.damages):
        damage.schedule(cluster, begin + cluster.luck.randrange(mix.duration_us))
    _load(cluster, mix)


def heal(cluster: "Cluster") -> None:
    """All faults end; liars go on lying, distances stay."""
    world = cluster.world
    world.log("healed")
    world.weather = FAIR
    world.cut = set()
    world.clogged.clear()
    cluster.muffled = ()
    cluster.crashes_in_writes = 0
    cluster.crashes_in_sends = 0
    cluster.crashes_in_recovery = 0
    cluster.backups.clear()
    for node in cluster.nodes:
        node.disk_us_max = 400
        node.disk_faults.full = False
        node.disk_faults.sync_error_rate = 0.0
        node.disk_faults.stall_rate = 0.0
        node.disk.misdirect = None
        node.clock.repair(0)
        node.processor.resume()
        if node.up:
            for peer in cluster.nodes:
                if peer.index < node.index and peer.up:
                    node.connect(peer)


# --- load


def _load(cluster: "Cluster", mix: Mix) -> None:
    world = cluster.world
    random = world.random
    begin = world.now_us
    for number in range(mix.payloads):
        payload = b"%d/%d" % (number, random.getrandbits(40))
        only = random.choice((0, 1)) if random.random() < 0.1 else None
        world.at(
            begin + random.randrange(mix.duration_us), partial(cluster.submit, payload, only=only)
        )
    for burst in range(mix.bursts):
        world.counters["bursts"] += 1
        when = begin + random.randrange(mix.duration_us)
        for number in range(10 * mix.payloads):
            payload = b"burst %d/%d/%d" % (burst, number, random.getrandbits(40))
            world.at(when + number * 100, partial(cluster.submit, payload, only=None))
    for number in range(mix.to_all):
        world.counters["payloads sent to all by their client"] += 1
        payload = b"all %d/%d" % (number, random.getrandbits(40))
        world.at(begin + random.randrange(mix.duration_us), partial(cluster.submit_to_all, payload))


# --- network


def _partition(cluster: "Cluster") -> None:
    world = cluster.world
    kind = world.random.choice(PARTITIONS)
    cut = _cut(cluster, kind)
    world.cut = cut
    world.counters[f"partitions, {kind}"] += 1
    world.log(f"partition {sorted(cut)} {kind}")

    def over() -> None:
        if world.cut is cut:
            world.cut = set()
            world.log("partition over")
            if kind != "half open":  # there nobody noticed anything
                _reconnect(cluster)

    world.after(world.random.randrange(100_000, 1_500_000), over)


def _cut(cluster: "Cluster", kind: str) -> Cut:
    """The directed links that a partition of this kind takes down."""
    members = cluster.members
    random = cluster.world.random
    indexes = list(range(members))
    random.shuffle(indexes)
    if kind == "not transitive":
        # Everybody hears some, nobody is in the same part as everybody: A-B and B-C, never A-C.
        return {
            (one, other)
            for place, one in enumerate(indexes)
            for away, other in enumerate(indexes)
            if one != other and min((place - away) % members, (away - place) % members) > 1
        }
    if kind == "half open":
        return {
            (one, other) for one in indexes for other in indexes if one < other and _coin(random)
        }
    split = random.randint(1, max(1, members - 1))
    if kind == "one node":
        split = 1
    elif kind == "primary isolated":
        primary = _primary(cluster)  # perhaps a node that joined
        indexes = [primary, *(index for index in indexes if index != primary)]
        split = 1
    elif kind == "f isolated":
        split = max(1, faults(members))
    elif kind == "f+1 | rest":
        split = faults(members) + 1
    left, right = indexes[:split], indexes[split:]
    cut = {(one, other) for one in left for other in right}
    if kind != "one way":
        cut |= {(other, one) for one, other in cut}
    return cut


def _coin(random: Random) -> bool:
    return random.random() < 0.5


def _flap(cluster: "Cluster", times: int) -> None:
    """The same cut comes and goes."""
    world = cluster.world
    cut = _cut(cluster, "both")
    world.counters["partitions, flapping"] += 1
    world.log(f"flapping {sorted(cut)}")
    for turn in range(2 * times):
        at = turn * 60_000 + world.random.randrange(50_000)
        world.after(at, partial(_set_cut, cluster, cut if turn % 2 == 0 else set()))


def _set_cut(cluster: "Cluster", cut: Cut) -> None:
    cluster.world.cut = cut


def _clog(cluster: "Cluster") -> None:
    """Links of one node hold everything for a while, then all of it comes at once."""
    world = cluster.world
    node = world.random.randrange(cluster.members)
    until = world.now_us + world.random.randrange(50_000, 1_000_000)
    world.log(f"links of node {node} clogged")
    for other in range(cluster.members):
        if other != node and _coin(world.random):
            world.clogged[node, other] = until
            world.clogged[other, node] = until


def _storm(cluster: "Cluster", times: int) -> None:
    """Every connection breaks and is made again, again and again."""
    cluster.world.counters["reconnect storms"] += 1
    for turn in range(times):
        cluster.world.after(turn * 70_000, partial(_reconnect, cluster, chance=1.0))


def _reconnect(cluster: "Cluster", *, chance: float = 0.5) -> None:
    """Some connections broke meanwhile and are made again."""
    for node in cluster.nodes:
        for peer in cluster.nodes:
            both_up = peer.index < node.index and peer.up and node.up
            if both_up and cluster.world.random.random() < chance:
                node.connect(peer)


def _muffle(cluster: "Cluster", kinds: tuple[type, ...]) -> None:
    """For a while most messages of some kinds are lost: phases end half done."""
    cluster.muffled = kinds
    cluster.world.log(f"muffled: {kinds[0].__name__}")

    def over() -> None:
        if cluster.muffled is kinds:
            cluster.muffled = ()

    cluster.world.after(cluster.world.random.randrange(50_000, 800_000), over)


# --- processes and clocks


def _primary(cluster: "Cluster") -> int:
    """The node that leads the newest view of the newest epoch."""
    newest = max(cluster.nodes, key=lambda node: (node.replica.committee.epoch, node.replica.view))
    return newest.node_at(newest.replica.committee.primary(newest.replica.view))


def _crash_primary(cluster: "Cluster", times: int) -> None:
    """The primary dies, and the next one soon after it took over."""
    cluster.world.counters["crashes of the primary"] += 1
    cluster.crash(_primary(cluster))
    if times > 1:
        cluster.world.counters["crashes of one primary after the other"] += 1
        wait = cluster.world.random.randrange(300_000, 900_000)
        cluster.world.after(wait, partial(_crash_primary, cluster, times - 1))


def _pause(cluster: "Cluster", victim: int, span_us: int) -> None:
    """SIGSTOP. Long enough, and the others lose the connection."""
    node = cluster.nodes[victim]
    world = cluster.world
    if not node.up:
        return
    long = span_us > 10 * SECOND_US
    world.counters["pauses above 10 s" if long else "pauses"] += 1
    world.log(f"node {victim} stops for {span_us // 1_000} ms")
    node.processor.pause(span_us)
    if long:
        world.after(10 * SECOND_US, node.fall_silent)
        world.after(span_us, partial(_reconnect, cluster, chance=1.0))


def _upset_clock(cluster: "Cluster", victim: int) -> None:
    """Wrong by up to ten minutes, standing still, or too fast or slow by 5 %."""
    random = cluster.world.random
    clock = cluster.nodes[victim].clock
    kind = random.choice(("jump ahead", "jump back", "frozen", "fast", "slow"))
    match kind:
        case "jump ahead":
            clock.skew_ms += random.choice((700, 6_000, 600_000))
        case "jump back":
            clock.skew_ms -= random.choice((700, 6_000, 600_000))
        case "frozen":
            clock.freeze()
        case "fast":
            clock.drift(50_000)
        case _:
            clock.drift(-50_000)
    cluster.world.counters[f"clocks, {kind}"] += 1
    cluster.world.log(f"clock of node {victim}: {kind}")


# --- disks


def _slow_disk(cluster: "Cluster", victim: int, took_us: int) -> None:
    faults_of = cluster.nodes[victim].disk_faults
    faults_of.stall_rate = 0.5
    faults_of.stall_us = took_us
    cluster.world.log(f"disk of node {victim} takes {took_us // 1_000} ms")


def _fail_syncs(cluster: "Cluster", victim: int, rate: float) -> None:
    """fsync fails now and then, or always: until the disk is replaced."""
    faults_of = cluster.nodes[victim].disk_faults
    faults_of.sync_error_rate = rate
    cluster.world.log(f"disk of node {victim} fails {rate:.0%} of its syncs")

    def over() -> None:
        faults_of.sync_error_rate = 0.0

    cluster.world.after(cluster.world.random.randrange(200_000, 2_000_000), over)


def _fill_disk(cluster: "Cluster", victim: int) -> None:
    """No space left, until somebody makes some."""
    faults_of = cluster.nodes[victim].disk_faults
    faults_of.full = True
    cluster.world.log(f"disk of node {victim} is full")

    def over() -> None:
        faults_of.full = False

    cluster.world.after(cluster.world.random.randrange(200_000, 2_000_000), over)


def _lose_memory(cluster: "Cluster", victim: int) -> None:
    node = cluster.nodes[victim]
    random = cluster.world.random
    if not cluster.may_forget(victim) or not node.up or cluster.members < 3:
        return
    if cluster.members == 3 or random.random() < 0.5:
        cluster.wipe(victim)
        return
    if random.random() < 0.2:
        cluster.lose_state(victim)
        return
    cluster.backups[victim] = node.disk.copy()

    def restore() -> None:
        if victim in cluster.backups and cluster.may_forget(victim) and node.up:
            cluster.restore_backup(victim)

    cluster.world.after(random.randrange(50_000, 1_500_000), restore)
