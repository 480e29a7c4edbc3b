"""Damage to what is on a simulated disk, and the way out of it (bft.md 9, disk).

A node must find it when it starts and refuse to: it never votes on a record that is not what it
wrote. Damage that stays is a lost `consensus.db`; the operator moves the file away, and the node
recovers from its peers, with or without its `state.db`. A bit that was only read wrongly is right
the next time. Every damage comes with a crash: what is written again before the next start would be
whole. All of it is drawn from a luck of its own, so that runs without it stay what they are.
"""

from functools import partial
from random import Random
from typing import TYPE_CHECKING, Final

from consensus.core.messages import BatchHeader
from consensus.core.records import Accepted, encode_record
from consensus.sim.disk import Disk
from consensus.sim.snapshots import Snapshots
from native.values import Digest

if TYPE_CHECKING:
    from consensus.sim.node import Node
    from consensus.sim.run import Cluster

FLIPPED: Final = "damage, bit flipped"
TORN: Final = "damage, record torn"
MISDIRECTED: Final = "damage, write in the place of another"
BODY: Final = "damage, body of an accepted batch"
MISREAD: Final = "damage, bit flipped on read"
KINDS: Final = (FLIPPED, TORN, MISDIRECTED, BODY, MISREAD)


def luck_of(seed: int, members: int) -> Random:
    """What damage is drawn from."""
    return Random(f"{seed}/{members}/damage")


def schedule(cluster: "Cluster", when_us: int) -> None:
    """Damage the disk of some node in some way at this time."""
    victim = cluster.luck.randrange(cluster.members)
    kind = cluster.luck.choice(KINDS)
    cluster.world.at(when_us, partial(damage, cluster, victim, kind))


def damage(cluster: "Cluster", victim: int, kind: str) -> None:
    """Do it, unless as many nodes lie or have forgotten as may."""
    node = cluster.nodes[victim]
    if not node.up:
        return
    if kind != MISREAD and (cluster.members < 3 or not cluster.may_forget(victim)):
        return
    disk = node.disk
    if kind == MISDIRECTED:
        disk.misdirect = cluster.luck
        return  # counted when it happens: the node crashes after that write
    cluster.crash(victim)
    if kind == BODY:
        accepted = _accepted(disk)
        if not accepted:
            return
        disk.bodies[cluster.luck.choice(accepted).payload_root] = (b"damaged",)
    else:
        place = cluster.luck.choice(disk.places)
        stored = encode_record(disk.records[place]).stored
        if kind == MISREAD:
            disk.misread = place, flipped(stored, cluster.luck)
        else:
            disk.damaged[place] = (
                flipped(stored, cluster.luck) if kind == FLIPPED else stored[: len(stored) // 2]
            )
    done(node, kind)


def done(node: "Node", kind: str) -> None:
    """Write down that a disk is damaged now."""
    node.world.counters[kind] += 1
    node.world.log(f"node {node.index}: {kind}")


def flipped(stored: bytes, luck: Random) -> bytes:
    """The same bytes but for one bit."""
    at = luck.randrange(len(stored))
    return stored[:at] + bytes([stored[at] ^ 1 << luck.randrange(8)]) + stored[at + 1 :]


def refused(cluster: "Cluster", node: "Node", problem: str) -> None:
    """The node did not start, and said why; the operator does what it said."""
    cluster.world.counters["starts refused for damage"] += 1
    cluster.world.log(f"node {node.index} refuses to start: {problem}")
    if node.disk.is_damaged:
        node.disk.moved_away(cluster.chain_id, Digest(bytes([node.index]) * 32))
        if cluster.luck.random() < 0.5:
            node.disk.blocks.clear()
            node.transfers = Snapshots(node)
            cluster.world.counters["damaged disks replaced"] += 1
        else:
            cluster.world.counters["damaged consensus.db moved away"] += 1
        cluster.forgetful.add(node.index)
    cluster.restart_later(node.address)


def _accepted(disk: Disk) -> list[BatchHeader]:
    """Batches whose bodies are looked at when the node starts."""
    headers = [
        record.pre_prepare.header
        for record in disk.records.values()
        if isinstance(record, Accepted)
    ]
    return [header for header in headers if disk.bodies.get(header.payload_root)]
