"""Why nothing is executed: one sentence for a person who did not write the protocol.

It reads a replica and changes nothing. Who is in which view, which vote or message is missing, and
from whom; the names come from the caller.
"""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from consensus.core.types import Instant, Phase
from consensus.limits import WINDOW_BLOCKS

if TYPE_CHECKING:
    from consensus.core.instance import Instance
    from consensus.core.replica import Replica

Name = Callable[[int], str]


def quiet_us(replica: "Replica", now: Instant, started_us: int) -> int:
    """How long something should have been executed and was not; 0 or less while all is well.

    A payload counts from when it came, an idle block from when it was due.
    """
    since = started_us if replica.executed_us is None else max(replica.executed_us, started_us)
    due = since + replica.timing.idle_block_interval_ms * 1_000
    if replica.oldest_us is not None:
        due = min(due, max(since, replica.oldest_us))
    return now.monotonic_us - due


def explain(replica: "Replica", name: Name) -> str:
    """Say what this replica waits for, and where the others are."""
    return f"{_waiting(replica, name)}; {_views(replica, name)}"


def _waiting(replica: "Replica", name: Name) -> str:
    match replica.phase:
        case Phase.HALTED:
            return "this node has stopped voting for good: see its log"
        case Phase.STARTING:
            heard = [peer for peer in replica.others if replica.started_from >> peer & 1]
            return (
                f"this node has just started and waits for the status of {replica.quorum - 1} "
                f"others{_missing(replica.others, heard, name)}"
            )
        case Phase.SEEKING:
            return (
                f"this node lost its voting record and asks {replica.quorum} others how far it "
                f"may have voted{_missing(replica.others, replica.answers, name)}"
            )
        case Phase.RECOVERING:
            return (
                f"this node lost its voting record and votes again from block "
                f"{replica.first_sequence} on"
            )
        case Phase.OBSERVING:
            return "this node observes and waits for a certified block"
        case Phase.VOTING:
            pass
    if not replica.active:
        return _view_change(replica, name)
    if replica.executing is not None:
        return f"block {replica.executing[0].height} is being executed"
    if replica.certified > replica.executed:
        return (
            f"block {replica.executed + 1} is certified and this node fetches it: "
            f"{len(replica.wanted)} bodies are missing"
        )
    if replica.executed >= replica.certified + WINDOW_BLOCKS:
        return _certificate(replica, name)
    return _agreement(replica, name)


def _view_change(replica: "Replica", name: Name) -> str:
    primary = name(replica.committee.primary(replica.view))
    wanting = [
        signer for signer, change in replica.view_changes.items() if change.view >= replica.view
    ]
    if len(wanting) < replica.quorum:
        return (
            f"a change to view {replica.view} has {len(wanting)} of {replica.quorum} "
            f"VIEW-CHANGEs{_missing(range(replica.members), wanting, name)}"
        )
    return f"enough want view {replica.view}, and its primary {primary} has not announced it"


def _certificate(replica: "Replica", name: Name) -> str:
    height = replica.certified + 1
    votes = replica.checkpoints.get(height, {})
    return (
        f"block {height} is executed and has {len(votes)} of {replica.quorum} CHECKPOINT votes"
        f"{_missing(range(replica.members), votes, name)}"
    )


def _agreement(replica: "Replica", name: Name) -> str:
    place = replica.executed + 1
    primary = name(replica.committee.primary(replica.view))
    instance = replica.instances.get(place)
    if instance is None or instance.pre_prepare is None:
        return f"primary {primary} has proposed nothing for block {place}"
    if not replica.holds(instance.pre_prepare.header.payload_root):
        return f"the body of block {place} is missing and is asked of the others"
    kind, voters, count = _votes(replica, instance)
    if count < replica.quorum:
        return (
            f"block {place} has {count} of {replica.quorum} {kind} votes"
            f"{_missing(range(replica.members), voters, name)}"
        )
    return f"block {place} is agreed and not executed yet"


def _votes(replica: "Replica", instance: "Instance") -> tuple[str, list[int], int]:
    accepted = instance.pre_prepare
    assert accepted is not None
    if instance.prepared:
        mask = instance.voters(instance.commits, accepted.digest)
        kind = "COMMIT"
    else:
        mask = instance.voters(instance.prepares, accepted.digest) | 1 << accepted.signer
        kind = "PREPARE"
    return kind, [at for at in range(replica.members) if mask >> at & 1], mask.bit_count()


def _missing(members: Iterable[int], heard: Iterable[int], name: Name) -> str:
    known = set(heard)
    away = [name(member) for member in members if member not in known]
    return f", none from {', '.join(away)}" if away else ""


def _views(replica: "Replica", name: Name) -> str:
    """Where everybody is, as far as this replica has heard."""
    parts = [f"{name(replica.me)} (this node) {_place(replica.view, replica.executed)}"]
    for at in replica.others:
        peer = replica.peers[at]
        if not peer.connected:
            parts.append(f"{name(at)} not connected")
        elif peer.seen_us is None:
            parts.append(f"{name(at)} silent")
        else:
            word = "" if peer.phase is Phase.VOTING else f" {peer.phase.name.lower()}"
            parts.append(f"{name(at)}{word} {_place(peer.view, peer.executed)}")
    return ", ".join(parts)


def _place(view: int, executed: int) -> str:
    return f"in view {view} at block {executed}"
