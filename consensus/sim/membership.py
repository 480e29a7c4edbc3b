"""Runs in which the validator set changes under faults (bft.md 3.8, faults of section 9).

Three spare nodes observe from the start. Payloads that name a set are ordered like any other; the
nodes, the network and the disks fail meanwhile. A set never gets smaller than that of genesis, so
the number of liars and forgetful nodes it must bear does not fall. Afterwards everything is healed,
and the run demands that all nodes reach one epoch and one height, that members vote and others do
not, and that the links of every node convince a light client of every set and of the newest block.
Some runs then go back to the set of genesis, step by step.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from itertools import pairwise

from consensus.core.epochs import Epochs
from consensus.core.messages import BlockCertificate
from consensus.core.quorum import faults
from consensus.core.records import EpochBegun, Tip
from consensus.core.types import Phase
from consensus.limits import WINDOW_BLOCKS
from consensus.sim.checker import require
from consensus.sim.faults import Focus, Mix, chaos, heal, prepare
from consensus.sim.node import Node, sign
from consensus.sim.run import (
    HEALING_US_MAX,
    Cluster,
    Outcome,
    Planted,
    describe,
    insist,
    outcome,
    settle,
)

SIZES = (1, 3, 4, 5, 7)
SPARES = 3
STEPS_HOME_MAX = 6  # seven more of which one may leave at a time, at most


def size_of(seed: int) -> int:
    """How many validators the set of genesis has, for a seed of a campaign."""
    return SIZES[seed % len(SIZES)]


def simulate_changes(
    seed: int, members: int, *, planted: Planted | None = None, trace: list[str] | None = None
) -> Outcome:
    """Play one seed with changing members; raises `Violation` when a property does not hold."""
    cluster = Cluster(seed, members, planted, spares=SPARES)
    world = cluster.world
    world.trace = trace
    random = world.random
    mix = Mix.draw(random, members, Focus.SWARM, luck=cluster.luck)
    duration = max(mix.duration_us, random.choice((4_000_000, 8_000_000)))
    mix = replace(mix, duration_us=duration, geo=False)
    prepare(cluster, mix)
    cluster.start()
    chaos(cluster, mix)
    for number in range(random.choice((1, 2, 4))):
        moment = world.now_us + random.randrange(duration)
        world.at(moment, partial(_change, cluster, number))
    for _ in range(random.choice((0, 1, 3))):
        spare = members + random.randrange(SPARES)
        world.at(world.now_us + random.randrange(duration), partial(cluster.crash, spare))
    end = world.now_us + duration
    while world.now_us < end:
        world.run_until(min(end, world.now_us + 500_000))
        for node in cluster.honest:
            if node.up:
                cluster.checker.bounded(node.replica)
    heal(cluster)
    _change(cluster, 99)
    _converge(cluster, b"after healing %d" % seed)
    if random.random() < 0.5:
        _go_home(cluster)
    _note_sets(cluster)
    settle(cluster)
    cluster.checker.durable()
    for node in cluster.honest:
        convince(cluster, node)
    return outcome(cluster, seed)


def _converge(cluster: Cluster, payload: bytes) -> None:
    world = cluster.world
    insist(cluster, payload)
    require(
        world.run_until(world.now_us + HEALING_US_MAX, lambda: converged(cluster, payload)),
        f"liveness: not converged {HEALING_US_MAX // 1_000_000} s after healing: "
        + describe(cluster),
    )


def _go_home(cluster: Cluster) -> None:
    """Back to the members of genesis; no more leave at once than may."""
    home = list(range(cluster.members))
    for step in range(STEPS_HOME_MAX):
        present = members_of(cluster)
        if present == home:
            return
        extra = [index for index in present if index not in home]
        leave = extra[: max(1, faults(len(present)))]
        after = [index for index in present if index not in leave]
        after += [index for index in home if index not in after]
        propose_set(cluster, home if len(after) == len(home) else after, 100 + step)
        _converge(cluster, b"step %d home" % step)
    require(members_of(cluster) == home, f"the set of genesis is not back: {describe(cluster)}")


def _note_sets(cluster: Cluster) -> None:
    """What the sets of this run went through."""
    newest = max((node.epochs for node in cluster.nodes), key=_epoch)
    sets = [{validator.name for validator in one.members} for one in newest.sets]
    counters = cluster.world.counters
    for before, after in pairwise(sets):
        if before != after:
            counters["sets, a member replaced"] += len(before) == len(after)
    for grown in (1, SPARES):
        places = [at for at, one in enumerate(sets) if len(one) == len(sets[0]) + grown]
        back = any(one == sets[0] for one in sets[places[0] :]) if places else False
        counters[f"sets, {grown} more and back"] += back


def propose_set(cluster: Cluster, nodes: Sequence[int], number: int) -> None:
    """Hand a change of members to every node that is up."""
    payload = b"set:%s/%d" % (",".join(map(str, nodes)).encode(), number)
    cluster.checker.injected.add(payload)
    cluster.world.log(f"asked for {payload.decode()}")
    for node in cluster.nodes:
        node.processor.run(partial(node.take_payloads, (payload,)))


def members_of(cluster: Cluster) -> list[int]:
    """The nodes of the newest set that any node has entered."""
    newest = max((node.epochs for node in cluster.nodes if node.up), key=_epoch, default=None)
    if newest is None:
        return []
    return [int(validator.name) for validator in newest.newest.members]


def _epoch(epochs: Epochs) -> int:
    return epochs.newest.epoch


def _change(cluster: Cluster, number: int) -> None:
    """Add some, remove some (the primary by preference), or let the set grow and shrink back."""
    random = cluster.world.random
    present = members_of(cluster)
    if not present:
        return
    outside = [node.index for node in cluster.nodes if node.index not in present]
    removable = [index for index in present if index not in cluster.liars]
    removals = random.randint(0, max(1, faults(len(present))))
    kind = random.choice(("grow", "swap", "swap", "shrink", "turn"))
    after = list(present)
    if kind in ("grow", "swap"):
        after += random.sample(outside, min(len(outside), random.randint(1, SPARES)))
    if kind in ("swap", "shrink"):
        leader = max((node.replica.view for node in cluster.nodes if node.up), default=0)
        first = present[leader % len(present)]
        gone = [first] if first in removable else []
        gone += [index for index in removable if index != first]
        cluster.world.counters["sets asked for without the primary"] += first in gone[:removals]
        for index in gone[:removals]:
            # A member stays: a set of newcomers would have nobody to fetch from.
            stays = any(other in present for other in after if other != index)
            if len(after) > cluster.members and stays:
                after.remove(index)
    if kind == "turn":
        after = [*after[1:], after[0]]
    if after != present:
        cluster.world.counters[f"sets asked for, {kind}"] += 1
        propose_set(cluster, after, number)


def converged(cluster: Cluster, payload: bytes) -> bool:
    """One epoch, one height, no change pending; members vote, and nobody else does."""
    nodes = cluster.honest
    if any(not node.up or node.halted for node in nodes):
        return False
    if len({(node.replica.committee.epoch, node.replica.executed) for node in nodes}) > 1:
        return False
    members = members_of(cluster)
    for node in nodes:
        wanted = Phase.VOTING if node.index in members else Phase.OBSERVING
        if node.replica.phase is not wanted or node.replica.cut is not None:
            return False
    return payload in cluster.checker.acknowledged and not any(
        node.custody.payloads for node in nodes if node.index in members
    )


def convince(cluster: Cluster, node: Node) -> None:
    """A light client with genesis only accepts the links of a node and its newest block (S12)."""
    records = node.disk.records.values()
    links = sorted(
        [record.link for record in records if isinstance(record, EpochBegun)],
        key=lambda link: link.epoch,
    )
    epochs = Epochs(chain_id=cluster.chain_id, sets=(cluster.genesis_set,))
    for link in links:
        _certified(cluster, epochs, link.certificate)
        decision = cluster.checker.log[link.base - WINDOW_BLOCKS].block.next_validators
        require(decision == link.validators, f"epoch {link.epoch} is not what was decided")
        epochs = epochs.extended(link)
    for record in records:
        if isinstance(record, Tip):
            _certified(cluster, epochs, record.certificate)


def _certified(cluster: Cluster, epochs: Epochs, certificate: BlockCertificate) -> None:
    claim = certificate.checkpoint
    for epoch, signer, signed, signature in certificate.jobs(cluster.chain_id):
        key = int(epochs.sets[epoch].members[signer].name)
        require(sign(key, signed) == signature, f"a forged certificate of block {claim.height}")
    stored = cluster.checker.log.get(claim.height)
    require(
        stored is not None
        and stored.header.hash == claim.header_hash
        and stored.block.state_root == claim.state_root,
        f"a certificate of block {claim.height} that nobody executed",
    )
