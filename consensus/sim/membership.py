"""Runs in which the validator set changes under faults (bft.md 3.8, faults of section 9).

Three spare nodes observe from the start. Payloads that name a set are ordered like any other; the
nodes, the network and the disks fail meanwhile. A set never gets smaller than that of genesis, so
the number of liars and forgetful nodes it must bear does not fall. Afterwards everything is healed,
and the run demands that all nodes reach one epoch and one height, that members vote and others do
not, and that the links of every node convince a light client of every set and of the newest block.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from consensus.core.epochs import Epochs
from consensus.core.messages import BlockCertificate, certificate_signatures
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
    payload = b"after healing %d" % seed
    insist(cluster, payload)
    require(
        world.run_until(world.now_us + HEALING_US_MAX, lambda: converged(cluster, payload)),
        f"liveness: not converged {HEALING_US_MAX // 1_000_000} s after healing: "
        + describe(cluster),
    )
    settle(cluster)
    cluster.checker.durable()
    for node in cluster.honest:
        convince(cluster, node)
    return outcome(cluster, seed)


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
    for epoch, signer, signed, signature in certificate_signatures(certificate, cluster.chain_id):
        key = int(epochs.sets[epoch].members[signer].name)
        require(sign(key, signed) == signature, f"a forged certificate of block {claim.height}")
    stored = cluster.checker.log.get(claim.height)
    require(
        stored is not None
        and stored.header.hash == claim.header_hash
        and stored.block.state_root == claim.state_root,
        f"a certificate of block {claim.height} that nobody executed",
    )
