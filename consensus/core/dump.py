"""What a replica holds at one moment, for a person who looks for the reason of something.

It reads and changes nothing, and shows no signature, body or key. Validators are named by the
caller; everything is bounded by the window and the number of validators. `stall` gives the short
answer.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.core.stall import explain
from consensus.core.types import Instant
from consensus.limits import WINDOW_BLOCKS

if TYPE_CHECKING:
    from consensus.core.instance import Instance
    from consensus.core.replica import Replica

Name = Callable[[int], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceDump:
    """One sequence number that is being agreed on; votes count for what was accepted, if it was."""

    sequence: int
    digest: str  # of the accepted batch, hexadecimal; empty while there is none
    body_held: bool
    prepared: bool
    committed: bool
    prepares: tuple[str, ...]
    commits: tuple[str, ...]
    missing: tuple[str, ...]  # whose vote of the present phase is not here


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointDump:
    """Who says to have executed a block that has no certificate yet."""

    height: int
    voters: tuple[str, ...]
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ViewChangeDump:
    """Who wants which view."""

    name: str
    view: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerDump:
    """Where another validator is, by its newest STATUS."""

    name: str
    connected: bool
    phase: str
    view: int
    executed: int
    certified: int
    status_age_ms: int | None  # None: nothing was heard from it


@dataclass(frozen=True, slots=True, kw_only=True)
class AgreementDump:
    """The state of agreement in one replica."""

    waits_for: str
    phase: str
    epoch: int
    view: int
    active: bool  # False during a view change
    primary: str
    members: int
    quorum: int
    executed: int
    certified: int
    watermark_high: int
    pending: int
    oldest_ms: int | None  # age of the oldest payload in custody
    request_timeout_ms: int
    failed_views: int
    view_changes: tuple[ViewChangeDump, ...]
    places: tuple[PlaceDump, ...]
    checkpoints: tuple[CheckpointDump, ...]
    peers: tuple[PeerDump, ...]


def dump(replica: "Replica", name: Name, now: Instant) -> AgreementDump:
    """Read everything that agreement waits for."""
    oldest = replica.oldest_us
    return AgreementDump(
        waits_for=explain(replica, name),
        phase=replica.phase.name.lower(),
        epoch=int(replica.committee.epoch),
        view=int(replica.view),
        active=replica.active,
        primary=name(replica.committee.primary(replica.view)),
        members=replica.members,
        quorum=replica.quorum,
        executed=int(replica.executed),
        certified=int(replica.certified),
        watermark_high=int(replica.certified) + WINDOW_BLOCKS,
        pending=replica.pending,
        oldest_ms=None if oldest is None else (now.monotonic_us - oldest) // 1_000,
        request_timeout_ms=replica.request_timeout_us // 1_000,
        failed_views=replica.failed_views,
        view_changes=tuple(
            ViewChangeDump(name=name(signer), view=int(change.view))
            for signer, change in sorted(replica.view_changes.items())
        ),
        places=tuple(
            _place(replica, replica.instances[at], name)
            for at in sorted(replica.instances)
            if at > replica.executed
        ),
        checkpoints=tuple(
            CheckpointDump(
                height=at,
                voters=_names(votes, name),
                missing=_missing(replica, votes, name),
            )
            for at, votes in sorted(replica.checkpoints.items())
            if at > replica.certified
        ),
        peers=tuple(_peer(replica, at, name, now) for at in replica.others),
    )


def _place(replica: "Replica", instance: "Instance", name: Name) -> PlaceDump:
    accepted = instance.pre_prepare
    prepares, commits = set(instance.prepares), set(instance.commits)
    if accepted is not None:
        prepares = {at for at in prepares if instance.prepares[at].digest == accepted.digest} | {
            accepted.signer
        }
        commits = {at for at in commits if instance.commits[at].digest == accepted.digest}
    return PlaceDump(
        sequence=instance.sequence,
        digest="" if accepted is None else accepted.digest.hex(),
        body_held=accepted is not None and replica.holds(accepted.header.payload_root),
        prepared=instance.prepared,
        committed=instance.batch is not None,
        prepares=_names(prepares, name),
        commits=_names(commits, name),
        missing=_missing(replica, commits if instance.prepared else prepares, name),
    )


def _peer(replica: "Replica", at: int, name: Name, now: Instant) -> PeerDump:
    peer = replica.peers[at]  # type: ignore[index]
    return PeerDump(
        name=name(at),
        connected=peer.connected,
        phase=peer.phase.name.lower(),
        view=int(peer.view),
        executed=int(peer.executed),
        certified=int(peer.certified),
        status_age_ms=None if peer.seen_us is None else (now.monotonic_us - peer.seen_us) // 1_000,
    )


def _names(members: Iterable[int], name: Name) -> tuple[str, ...]:
    return tuple([name(member) for member in sorted(members)])


def _missing(replica: "Replica", heard: Iterable[int], name: Name) -> tuple[str, ...]:
    known = set(heard)
    return tuple([name(at) for at in range(replica.members) if at not in known])
