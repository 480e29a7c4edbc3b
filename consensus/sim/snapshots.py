"""State snapshots of the simulated application, and nodes that prune, serve and lie about them.

The simulated state is what was executed: the root is a chain over block headers and payload roots,
so an outline (both, block by block) proves itself, and a chunk (the payloads of some blocks) is
checked against it. Everything here survives a crash but the work in progress.
"""

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.core.effects import CheckSnapshot, KeepChunk, RestoreSnapshot
from consensus.core.inputs import ChunkKept, Input, SnapshotChecked, SnapshotRestored
from consensus.core.messages import Chunk, FetchChunk, FetchManifest, Manifest
from consensus.core.records import Anchor, ExecutedBlock, RecordKind, Tip
from consensus.core.serving import blocks_from
from consensus.core.types import GENESIS_HEIGHT, Height, ReplicaIndex
from consensus.limits import WINDOW_BLOCKS
from consensus.sim.checker import require
from consensus.sim.disk import Body, StoredBlock
from native.codec import CodecError, decode, encode
from native.hashing import merkle_root, sha256
from native.values import Digest

if TYPE_CHECKING:
    from consensus.sim.node import Node

PERIOD_BLOCKS = 8
KEPT = 2
BLOCKS_PER_CHUNK = 3
SIZE_MAX = 1 << 22


def root_after(before: Digest, header_hash: Digest, payload_root: Digest) -> Digest:
    """The state root of the simulated application."""
    return Digest(sha256(before + header_hash + payload_root))


def prunes(seed: int, members: int) -> bool:
    """Whether the nodes of a run drop what is below their older snapshot."""
    return random.Random(f"{seed}/{members}/snapshots").random() < 0.4


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """One snapshot on the disk; chunks that have not come yet are None."""

    height: int
    outline: bytes
    chunks: list[bytes | None]


class Snapshots:
    """The part of one node that cuts, serves, fetches and restores."""

    def __init__(self, node: "Node") -> None:
        self.node = node
        self.kept: list[Snapshot] = []
        self.incoming: dict[Digest, Snapshot] = {}
        self.restored_total = 0
        self.floor = 0  # blocks at or below are pruned

    # --- cutting and serving

    def executed(self, stored: StoredBlock) -> None:
        """Cut a snapshot when it is time; its block is executed."""
        height = int(stored.header.height)
        if height % PERIOD_BLOCKS == 0:
            self._cut(height)
        if len(self.kept) >= KEPT:
            self._drop_old(height)

    def _cut(self, height: int) -> None:
        blocks = self.node.disk.blocks[:height]
        entries = [_entry(block) for block in blocks]
        chunks: list[bytes | None] = [
            encode(tuple(block.payloads for block in blocks[first : first + BLOCKS_PER_CHUNK]))
            for first in range(0, height, BLOCKS_PER_CHUNK)
        ]
        self.kept.append(Snapshot(height=height, outline=encode(tuple(entries)), chunks=chunks))

    def _drop_old(self, executed: int) -> None:
        """As the runtime does: one without a certificate at or above it is of no use to anybody."""
        tip = self.node.disk.records.get((RecordKind.TIP, 0))
        certified = int(tip.certificate.height) if isinstance(tip, Tip) else 0
        proven = [one.height for one in self.kept if one.height <= certified <= executed]
        if len(proven) < KEPT:
            return
        oldest = proven[-KEPT]
        self.kept = [one for one in self.kept if one.height >= oldest]
        if self.node.cluster.prunes and oldest > self.floor:
            self._prune(oldest)

    def _prune(self, floor: int) -> None:
        disk = self.node.disk
        needed = {block.batch.payload_root for block in disk.blocks[floor:]}
        for block in disk.blocks[self.floor : floor]:
            if block.batch.payload_root not in needed:
                disk.bodies.pop(block.batch.payload_root, None)
        self.floor = max(self.floor, floor)
        self.node.world.counters["blocks pruned"] += 1

    def holds(self, height: int, stored: StoredBlock) -> bool:
        """Whether a block can be served: neither pruned nor from before a restored snapshot."""
        return height > self.floor and stored.header.height == height

    def serve(self, sender: ReplicaIndex, request: FetchManifest | FetchChunk) -> None:
        """Answer, or lie."""
        match request:
            case FetchManifest():
                for snapshot in reversed(self.kept):
                    if snapshot.height <= request.above:
                        break
                    manifest = self._manifest(snapshot)
                    if manifest is not None:
                        self.node.cluster.carry(self.node.index, sender, manifest, None)
                        break
            case FetchChunk():
                for snapshot in self.kept:
                    manifest = self._manifest(snapshot)
                    if manifest is None or request.index >= len(snapshot.chunks):
                        continue
                    if manifest.id == request.snapshot:
                        self._serve_chunk(sender, request, snapshot)

    def _serve_chunk(self, sender: ReplicaIndex, request: FetchChunk, snapshot: Snapshot) -> None:
        data = snapshot.chunks[request.index]
        assert data is not None
        node = self.node
        if not node.honest:
            match node.world.random.choice(("honest", "silent", "bad", "bad")):
                case "silent":
                    node.world.counters["lies: a chunk that never comes"] += 1
                    return
                case "bad":
                    node.world.counters["lies: bad chunk"] += 1
                    data = data[:-1] + bytes([data[-1] ^ 1])
        chunk = Chunk(snapshot=request.snapshot, index=request.index, data=data)
        node.world.counters["chunks served"] += 1
        node.cluster.carry(node.index, sender, chunk, None)

    def _manifest(self, snapshot: Snapshot) -> Manifest | None:
        node = self.node
        blocks = node.disk.blocks
        run = blocks_from(
            Height(snapshot.height),
            executed=Height(len(blocks)),
            certificates=[
                record.certificate
                for record in node.disk.records.values()
                if isinstance(record, Tip | Anchor)
            ],
            load=lambda height: (
                (blocks[height - 1].header, blocks[height - 1].batch)
                if height <= len(blocks) and blocks[height - 1].header.height == height
                else None
            ),
        )
        if run is None:
            return None
        outline = snapshot.outline
        if not node.honest and node.world.random.random() < 0.3:
            node.world.counters["lies: bad manifest"] += 1
            outline = encode(tuple(_entries(outline)[:-1]))
        return Manifest(run=run, outline=outline)

    # --- fetching

    def work(self, effect: CheckSnapshot | KeepChunk | RestoreSnapshot) -> None:
        """Do what the core asked for, later, if the process still lives."""
        node = self.node
        life = node.life

        def later(action: Callable[[], Input]) -> None:
            def run() -> None:
                if node.up and node.life == life and not node.halted:
                    node.feed(action())

            node.world.after(node.world.random.randrange(100, 5_000), run)

        match effect:
            case CheckSnapshot():
                later(lambda: self._check(effect))
            case KeepChunk():
                later(lambda: self._keep(effect))
            case RestoreSnapshot():
                later(lambda: self._restore(effect.manifest))

    def _check(self, effect: CheckSnapshot) -> SnapshotChecked:
        manifest = effect.manifest
        genesis = self.node.genesis_root
        valid = _proven(manifest, genesis)
        if not valid:
            return SnapshotChecked(peer=effect.peer, snapshot=manifest.id, valid=False)
        count = -(-int(manifest.height) // BLOCKS_PER_CHUNK)
        found = self.incoming.setdefault(
            manifest.id,
            Snapshot(height=manifest.height, outline=manifest.outline, chunks=[None] * count),
        )
        missing = tuple(index for index, chunk in enumerate(found.chunks) if chunk is None)
        if len(missing) < count:
            self.node.world.counters["transfers resumed"] += 1
        return SnapshotChecked(
            peer=effect.peer, snapshot=manifest.id, valid=True, chunks=count, missing=missing
        )

    def _keep(self, effect: KeepChunk) -> ChunkKept:
        chunk = effect.chunk
        snapshot = self.incoming[chunk.snapshot]
        first = chunk.index * BLOCKS_PER_CHUNK
        expected = [root for _, root in _entries(snapshot.outline)][
            first : first + BLOCKS_PER_CHUNK
        ]
        try:
            found = [_payload_root(body) for body in _bodies(chunk.data)]
        except (CodecError, TypeError, AssertionError):
            found = []
        if found == expected:
            snapshot.chunks[chunk.index] = chunk.data
        return ChunkKept(
            peer=effect.peer,
            snapshot=chunk.snapshot,
            index=chunk.index,
            valid=found == expected,
        )

    def _restore(self, manifest: Manifest) -> SnapshotRestored:
        """The new `state.db`: what was executed, under the header of the snapshot's block."""
        node = self.node
        snapshot = self.incoming.pop(manifest.id)
        bodies: list[Body] = []
        for chunk in snapshot.chunks:
            require(chunk is not None, f"node {node.index} restores a snapshot with a hole")
            assert chunk is not None
            bodies += _bodies(chunk)
        header, batch = manifest.run.headers[0], manifest.run.batches[0]
        require(not node.executing, f"node {node.index} executes while it restores")
        blocks: list[StoredBlock] = []
        present, decided_at = node.cluster.genesis_set, GENESIS_HEIGHT
        hashes = [header_hash for header_hash, _ in _entries(snapshot.outline)]
        for height, body in enumerate(bodies, 1):
            decision = None
            if not decided_at or height > decided_at + WINDOW_BLOCKS:
                decision = node.next_set(present, body)
            if decision is not None:
                present, decided_at = decision, Height(height)
            block = ExecutedBlock(
                height=Height(height),
                header_hash=hashes[height - 1],
                time_ms=header.time_ms,
                state_root=manifest.state_root,
                next_validators=decision,
            )
            blocks.append(StoredBlock(header=header, batch=batch, block=block, payloads=body))
        require(
            any(
                isinstance(record, Tip) and record.certificate.height >= header.height
                for record in node.disk.records.values()
            ),
            f"node {node.index} restores before the certificate is durable",
        )
        if node.honest:
            known = node.cluster.checker.log.get(header.height)
            require(
                known is not None and known.block == blocks[-1].block,
                f"node {node.index} restores another state at {header.height}",
            )
        node.disk.blocks = blocks
        node.state_replaced()
        self.kept.clear()
        self.floor = max(self.floor, int(header.height))
        for body in bodies:
            node.custody.remove(body)
        self.restored_total += 1
        node.world.counters["snapshots restored"] += 1
        if not decided_at or header.height > decided_at + WINDOW_BLOCKS:
            return SnapshotRestored(snapshot=manifest.id)
        return SnapshotRestored(
            snapshot=manifest.id, next_validators=present, decided_at=decided_at
        )


def _payload_root(payloads: Iterable[bytes]) -> Digest:
    return Digest(merkle_root(list(payloads)))


def _entry(stored: StoredBlock) -> tuple[bytes, bytes]:
    return stored.block.header_hash, _payload_root(stored.payloads)


def _entries(outline: bytes) -> list[tuple[Digest, Digest]]:
    entries = decode(outline, size_max=SIZE_MAX)
    assert isinstance(entries, tuple)
    found = []
    for entry in entries:
        assert isinstance(entry, tuple)
        header_hash, root = entry
        assert isinstance(header_hash, bytes)
        assert isinstance(root, bytes)
        found.append((Digest(header_hash), Digest(root)))
    return found


def _bodies(chunk: bytes) -> list[Body]:
    bodies = decode(chunk, size_max=SIZE_MAX)
    assert isinstance(bodies, tuple)
    found = []
    for body in bodies:
        assert isinstance(body, tuple)
        payloads = tuple(payload for payload in body if isinstance(payload, bytes))
        found.append(payloads)
    return found


def _proven(manifest: Manifest, genesis_root: Digest) -> bool:
    root = genesis_root
    entries = _entries(manifest.outline)
    for header_hash, payloads in entries:
        root = root_after(root, header_hash, payloads)
    return root == manifest.state_root and len(entries) == manifest.height
