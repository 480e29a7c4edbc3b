"""State transfer: when blocks are gone or too many, the state itself is fetched (bft.md 3.7).

A manifest is worth something because its header leads to a block certificate, and because its
outline is proven against the state root of that certificate; who sent it does not matter. Chunks
come from every peer that offered the same snapshot, each checked on arrival. A server that gives a
bad chunk is left at once, one that stays silent after a few tries. Blocks go on being asked for
meanwhile: whatever comes first wins.

This module decides; `CheckSnapshot`, `KeepChunk` and `RestoreSnapshot` are done by the runtime, off
the loop, and their results are inputs.
"""

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from consensus.core import epochs, recovery
from consensus.core.effects import (
    CheckSnapshot,
    Event,
    Fault,
    KeepChunk,
    RestoreSnapshot,
    Send,
)
from consensus.core.inputs import ChunkKept, SnapshotChecked, SnapshotRestored, Timer
from consensus.core.messages import Chunk, FetchChunk, FetchManifest, Manifest
from consensus.core.phases import checkpoint, commit, prepare, propose
from consensus.core.records import ExecutedBlock
from consensus.core.types import Epoch, Phase, ReplicaIndex, Sequence
from consensus.limits import (
    CHUNK_FAILURES_MAX,
    CHUNKS_IN_FLIGHT_PER_PEER,
    SNAPSHOT_ASKS_UNANSWERED,
    SNAPSHOT_CHUNKS_MAX,
    SNAPSHOT_GAP_BLOCKS,
    SNAPSHOTS_REFUSED_MAX,
)
from native.values import Digest

if TYPE_CHECKING:
    from consensus.core.replica import Replica


@dataclass(slots=True)
class Download:
    """The snapshot that is being fetched."""

    manifest: Manifest
    chunks: int
    missing: list[int]  # not asked for; the next one last
    asked: dict[int, tuple[ReplicaIndex, int]] = field(default_factory=dict)  # number -> whom, when
    checking: dict[int, ReplicaIndex] = field(default_factory=dict)  # arrived, being written
    holders: set[ReplicaIndex] = field(default_factory=set)
    failures: dict[ReplicaIndex, int] = field(default_factory=dict)


@dataclass(slots=True)
class Transfer:
    """What a replica knows of snapshots it may fetch."""

    asks_unanswered: int = 0  # retry intervals in a row in which nothing came
    counted_us: int | None = None
    asked_us: int | None = None  # when manifests were asked for
    checking: dict[ReplicaIndex, Manifest] = field(default_factory=dict)
    refused: list[Digest] = field(default_factory=list)  # proven false, or served by nobody
    download: Download | None = None
    restoring: bool = False
    timer_set: bool = False


def consider(replica: "Replica") -> None:
    """Ask for manifests when blocks cannot close the gap, or not as cheaply."""
    transfer = replica.transfer
    if transfer.restoring:
        return
    if not _wanted(replica):
        return
    now = replica.now.monotonic_us
    asked = transfer.asked_us
    if asked is not None and now - asked < _patience_us(replica):
        return
    transfer.asked_us = now
    for peer in _connected(replica):
        replica.emit(Send(peer=peer, message=FetchManifest(above=replica.executed)))
    _arm(replica)


def _wanted(replica: "Replica") -> bool:
    gap = replica.certified - replica.executed
    rounds = SNAPSHOT_ASKS_UNANSWERED * max(1, len(replica.others))
    return gap > SNAPSHOT_GAP_BLOCKS or (gap > 0 and replica.transfer.asks_unanswered >= rounds)


def unanswered(replica: "Replica") -> None:
    """A request for headers or bodies is due again; counted once in a retry interval."""
    transfer = replica.transfer
    now = replica.now.monotonic_us
    counted = transfer.counted_us
    if counted is None or now - counted >= replica.timing.fetch_retry_ms * 1_000:
        transfer.counted_us = now
        transfer.asks_unanswered += 1
    consider(replica)


def answered(replica: "Replica") -> None:
    """Peers still have what is asked of them."""
    replica.transfer.asks_unanswered = 0


def on_manifest(replica: "Replica", sender: ReplicaIndex, manifest: Manifest) -> None:
    """Somebody offers a snapshot; its certificate was checked with the message."""
    if not epochs.certifies(replica, manifest.run.certificate):
        replica.blame(sender, Fault.BAD_CERTIFICATE)
        return
    checkpoint.adopt(replica, manifest.run.certificate)
    transfer = replica.transfer
    if replica.phase is Phase.HALTED or transfer.restoring or not _wanted(replica):
        return
    if manifest.height <= replica.executed or manifest.id in transfer.refused:
        return
    if manifest.run.certificate.checkpoint.epoch > replica.committee.epoch:
        return  # its epoch begins with a link that this node has not seen yet
    download = transfer.download
    if download is not None:
        if manifest.id == download.manifest.id:
            download.holders.add(sender)
            _ask(replica)
        return  # what has begun is finished first; afterwards everybody is asked again
    if sender not in transfer.checking:
        known = any(other.id == manifest.id for other in transfer.checking.values())
        transfer.checking[sender] = manifest
        if not known:  # one check serves all who offer the same
            replica.emit(CheckSnapshot(peer=sender, manifest=manifest))


def on_checked(replica: "Replica", checked: SnapshotChecked) -> None:
    """The outline of an offered snapshot is proven, or a lie."""
    transfer = replica.transfer
    manifest = transfer.checking.get(checked.peer)
    if manifest is None or manifest.id != checked.snapshot:
        return
    offered = [peer for peer, other in sorted(transfer.checking.items()) if other.id == manifest.id]
    for peer in offered:
        del transfer.checking[peer]
    if checked.valid is None:
        return  # it is offered again when everybody is asked again
    if not checked.valid or checked.chunks > SNAPSHOT_CHUNKS_MAX:
        for peer in offered:
            replica.blame(peer, Fault.BAD_SNAPSHOT)
        _refuse(replica, manifest.id)
        return
    if transfer.restoring or manifest.height <= replica.executed:
        return
    download = transfer.download
    if download is not None:
        if download.manifest.id == manifest.id:
            download.holders.update(offered)
            _ask(replica)
        return  # what has begun is finished first
    transfer.download = Download(
        manifest=manifest,
        chunks=checked.chunks,
        missing=sorted(checked.missing, reverse=True),
        holders=set(offered),
    )
    replica.note(
        Event.TRANSFER_STARTED,
        f"block {manifest.height}, {len(checked.missing)} of {checked.chunks} chunks to fetch",
    )
    _ask(replica)


def on_chunk(replica: "Replica", sender: ReplicaIndex, chunk: Chunk) -> None:
    """A chunk arrives; only what was asked of this peer is looked at."""
    download = replica.transfer.download
    if download is None or chunk.snapshot != download.manifest.id:
        return
    asked = download.asked.get(chunk.index)
    if asked is None or asked[0] != sender:
        return
    del download.asked[chunk.index]
    download.checking[chunk.index] = sender
    replica.emit(KeepChunk(peer=sender, manifest=download.manifest, chunk=chunk))
    _ask(replica)


def on_kept(replica: "Replica", kept: ChunkKept) -> None:
    """A chunk was checked and is on the disk, or is not what it should be."""
    download = replica.transfer.download
    if download is None or kept.snapshot != download.manifest.id:
        return
    if kept.index not in download.checking:
        return
    del download.checking[kept.index]
    if kept.refused:
        # Asked again at once it would be refused again: everybody is asked anew in some time.
        replica.transfer.download = None
        replica.transfer.asked_us = replica.now.monotonic_us
        replica.note(
            Event.TRANSFER_ABANDONED,
            f"block {download.manifest.height}: this node's disk did not take a chunk",
        )
        _arm(replica)
        return
    if kept.valid is None:
        download.missing.append(kept.index)
    elif kept.valid:
        download.failures.pop(kept.peer, None)
    else:
        replica.blame(kept.peer, Fault.BAD_SNAPSHOT)
        download.failures[kept.peer] = CHUNK_FAILURES_MAX
        download.missing.append(kept.index)
    _ask(replica)


def on_timer(replica: "Replica") -> None:
    """Take back what was asked for too long ago; look for more servers."""
    transfer = replica.transfer
    transfer.timer_set = False
    if transfer.restoring:
        return
    download = transfer.download
    if download is not None:
        if download.manifest.height <= replica.executed:
            transfer.download = None  # blocks were faster
            return
        limit = replica.now.monotonic_us - _patience_us(replica)
        late: set[ReplicaIndex] = set()
        for index, (peer, at) in sorted(download.asked.items()):
            if at <= limit or not replica.peers[peer].connected:
                del download.asked[index]
                download.missing.append(index)
                if at <= limit:
                    late.add(peer)
        for peer in sorted(late):
            download.failures[peer] = download.failures.get(peer, 0) + 1
        if not _servers(replica, download) and not download.checking:
            if download.holders <= {
                peer for peer, count in download.failures.items() if count >= CHUNK_FAILURES_MAX
            }:
                _refuse(replica, download.manifest.id)
            transfer.download = None
            replica.note(Event.TRANSFER_ABANDONED, f"block {download.manifest.height}")
            transfer.asked_us = None
        else:
            _ask(replica)
    consider(replica)
    if transfer.download is not None or _wanted(replica):
        _arm(replica)


def on_restored(replica: "Replica", restored: SnapshotRestored) -> None:
    """The state is that of the snapshot, durably: go on above it."""
    transfer = replica.transfer
    download = transfer.download
    if download is None or not transfer.restoring or restored.snapshot != download.manifest.id:
        return
    manifest = download.manifest
    replica.transfer = Transfer()
    header = manifest.run.headers[0]
    was_behind = replica.executed < replica.behind_through
    replica.tip = ExecutedBlock(
        height=header.height,
        header_hash=header.hash,
        time_ms=header.time_ms,
        state_root=manifest.state_root,
    )
    replica.confirm(header.height)
    replica.executed_us = replica.now.monotonic_us
    for height in [height for height in replica.fetched if height <= header.height]:
        del replica.fetched[height]
    for height in [height for height in replica.uncertified if height <= header.height]:
        del replica.uncertified[height]
    replica.next_sequence = max(replica.next_sequence, Sequence(header.height + 1))
    replica.note(Event.TRANSFER_FINISHED, f"block {header.height}")
    pending = restored.next_validators
    if pending is not None and replica.next_set != pending:
        # Otherwise this node had executed the block that decided before it fell behind.
        known = replace(replica.tip, height=restored.decided_at, next_validators=pending)
        epochs.decided(replica, Epoch(pending.epoch - 1), known)
    if replica.phase is Phase.HALTED or not checkpoint.agrees(replica, replica.tip):
        return
    replica.drop_below_floor()
    may = replica.executed >= replica.behind_through
    if was_behind and may and replica.phase is Phase.VOTING:
        recovery.take_part(replica)
    commit.go_on(replica)
    prepare.progress_all(replica)
    propose.propose(replica)
    epochs.enter_if_due(replica)


def change_epoch(replica: "Replica") -> None:
    """Indexes mean other nodes now: what is being fetched is asked for again."""
    transfer = replica.transfer
    if transfer.restoring:
        transfer.checking.clear()
    else:
        replica.transfer = Transfer(refused=transfer.refused, timer_set=transfer.timer_set)


def complete(replica: "Replica") -> bool:
    """Whether every chunk of a snapshot is on the disk."""
    download = replica.transfer.download
    return download is not None and not (download.missing or download.asked or download.checking)


def finish(replica: "Replica") -> None:
    """Everything is on the disk: take the state over as soon as no block is being executed."""
    transfer = replica.transfer
    download = transfer.download
    if transfer.restoring or replica.executing is not None or not complete(replica):
        return
    assert download is not None
    if download.manifest.height <= replica.executed:
        transfer.download = None
        return
    transfer.restoring = True
    replica.emit(RestoreSnapshot(manifest=download.manifest))


def _ask(replica: "Replica") -> None:
    """Keep every server busy with a few chunks."""
    download = replica.transfer.download
    if download is None or replica.transfer.restoring:
        return
    now = replica.now.monotonic_us
    busy = dict.fromkeys(_servers(replica, download), 0)
    for peer in [*(peer for peer, _ in download.asked.values()), *download.checking.values()]:
        if peer in busy:
            busy[peer] += 1  # a server can be faster than our disk
    while download.missing:
        free = min(busy, key=lambda peer: (busy[peer], peer), default=None)
        if free is None or busy[free] >= CHUNKS_IN_FLIGHT_PER_PEER:
            break
        index = download.missing.pop()
        download.asked[index] = (free, now)
        busy[free] += 1
        message = FetchChunk(snapshot=download.manifest.id, index=index)
        replica.emit(Send(peer=free, message=message))
    _arm(replica)
    finish(replica)


def _servers(replica: "Replica", download: Download) -> list[ReplicaIndex]:
    return [
        peer
        for peer in sorted(download.holders)
        if replica.peers[peer].connected and download.failures.get(peer, 0) < CHUNK_FAILURES_MAX
    ]


def _connected(replica: "Replica") -> list[ReplicaIndex]:
    return [peer for peer in replica.others if replica.peers[peer].connected]


def _refuse(replica: "Replica", snapshot: Digest) -> None:
    refused = replica.transfer.refused
    refused.append(snapshot)
    del refused[:-SNAPSHOTS_REFUSED_MAX]


def _patience_us(replica: "Replica") -> int:
    return replica.timing.chunk_timeout_ms * 1_000


def _arm(replica: "Replica") -> None:
    if not replica.transfer.timer_set:
        replica.transfer.timer_set = True
        at = replica.now.monotonic_us + _patience_us(replica) // 4
        replica.set_timer(Timer.TRANSFER, at)
