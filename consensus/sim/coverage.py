"""What must occur somewhere in a campaign, or it has proved nothing ("sometimes", bft.md 11)."""

from collections import Counter
from typing import Final

from consensus.sim import damage
from consensus.sim.cases import Kind

VIEW_CHANGES: Final = (
    "NEW-VIEW sent",
    "NEW-VIEW with a null batch",
    "NEW-VIEW from several checkpoints",
    "VIEW-CHANGE with prepared batches",
    "VIEW-CHANGE with certificates of several views",
    "bodies fetched",
)
DISKS: Final = (
    "commits on a full disk",
    "commits that stalled",
    "commits whose sync failed",
    "crashes aimed at a write",
    "crashes between execution and vote",
    "crashes between sync and send",
    "crashes between sync of a certificate and send",
    "crashes during recovery",
    "crashes inside a broadcast",
    "crashes that lost a write",
    *damage.KINDS,
    "damaged consensus.db moved away",
    "damaged disks replaced",
    "disks lost",
    "old backups restored, both files",
    "old backups restored, consensus.db",
    "power cuts that took blocks out of state.db",
    "replica.amnesia_found",
    "replica.recovered",
    "replica.recovery_bound",
    "states lost",
)
SWARM: Final = (
    "bodies by digest",
    "bursts",
    "catch-up during a view change",
    "catch_up.finished",
    "certificates with the slowest node",
    "clocks, fast",
    "clocks, frozen",
    "clocks, jump ahead",
    "clocks, jump back",
    "clocks, slow",
    "crashes of one primary after the other",
    "crashes of the primary",
    "custody forwarded",
    "evidence of number reused",
    "evidence of two batches",
    "evidence of two checkpoints",
    "evidence of two view changes",
    "fault bad_new_view",
    "fault equivocation",
    "lies: NEW-VIEW with null for a batch",
    "lies: VIEW-CHANGE without certificates",
    "lies: both votes to one peer",
    "lies: two batches for one place",
    "lies: wrong state root",
    "messages cut",
    "messages delayed",
    "messages dropped",
    "messages held in a clogged link",
    "messages muffled",
    "messages repeated",
    "partitions, both",
    "partitions, f isolated",
    "partitions, f+1 | rest",
    "partitions, flapping",
    "partitions, half open",
    "partitions, not transitive",
    "partitions, one node",
    "partitions, one way",
    "partitions, primary isolated",
    "pauses",
    "pauses above 10 s",
    "payloads sent to all by their client",
    "payloads sent to some nodes only",
    "reconnect storms",
    "runs across regions",
    "runs with a crash of all",
    "runs with a slow node",
    "runs with costs of cryptography",
    "runs with liars",
    "runs with narrow links",
    "runs with one gate",
    "vectors with several leaves",
)
CRASHES: Final = (
    "crashes after a transaction of consensus.db",
    "crashes after a transaction of state.db",
    "crashes before a transaction of consensus.db",
    "crashes before a transaction of state.db",
    "crashes between execution and vote",
    "crashes between sync of a certificate and send",
    "crashes during recovery",
    "memories compared",
    "replica.recovered",
    "NEW-VIEW with a null batch",
    "VIEW-CHANGE with prepared batches",
)
MEMBERS: Final = (
    "catch_up.finished",
    "changes of the set decided",
    "chunks served",
    "crashes between sync and send",
    "disks lost",
    "epochs entered",
    "messages of a later epoch",
    "partitions, both",
    "replica.recovered",
    "runs with liars",
    "sets asked for without the primary",
    "sets asked for, grow",
    "sets asked for, shrink",
    "sets asked for, swap",
    "sets asked for, turn",
    "sets, 1 more and back",
    "sets, 3 more and back",
    "sets, a member replaced",
    "view.entered",
)
TRANSFER: Final = ("blocks pruned", "chunks served", "snapshots restored")
SOMETIMES: Final = {
    Kind.SWARM: VIEW_CHANGES + DISKS + SWARM + TRANSFER,
    Kind.DISK: VIEW_CHANGES + DISKS,
    Kind.TWINS: (*VIEW_CHANGES, "fault equivocation", "catch_up.finished", "messages cut"),
    Kind.CRASH: CRASHES,
    Kind.MEMBERS: MEMBERS,
}
RUNS_MIN: Final = {
    Kind.SWARM: 400,
    Kind.DISK: 200,
    Kind.TWINS: 1_000,
    Kind.CRASH: 200,
    Kind.MEMBERS: 100,
}
"""Smaller campaigns are not judged: what is rare may be absent from them."""


def missing(kind: Kind, counters: Counter[str]) -> list[str]:
    """What a campaign of this kind should have met and never did."""
    if counters["runs"] < RUNS_MIN[kind]:
        return []
    return [name for name in SOMETIMES[kind] if not counters[name]]
