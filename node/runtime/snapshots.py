"""State snapshots on disk: cut from the running state, served to peers, fetched and taken over.

    <home>/data/snapshots/<height>/     our own, complete: manifest, links and chunks
    <home>/data/snapshots/cutting/      being written; thrown away at the next start
    <home>/data/snapshots/<id>.part/    being fetched; a restarted node goes on with it

Cutting reads one chunk between two blocks and then leaves the executor alone for some time; files
and hashes are made on other threads.
"""

from __future__ import annotations

import functools
import math
import os
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import structlog
import trio

from consensus.core import wire
from consensus.core.effects import CheckSnapshot, KeepChunk, RestoreSnapshot
from consensus.core.inputs import ChunkKept, SnapshotChecked, SnapshotRestored
from consensus.core.light import encode_links
from consensus.core.messages import Manifest
from consensus.core.types import Height
from consensus.errors import MalformedMessage, SnapshotInvalid
from consensus.limits import (
    CHUNKS_IN_FLIGHT_PER_PEER,
    MEMBERS_MAX,
    SNAPSHOT_CHUNK_BYTES_MAX,
    SNAPSHOTS_KEPT,
)
from node.core.outlines import Outlines
from node.core.snapshotfiles import LINKS, MANIFEST, chunk_name
from node.disk import is_full
from node.home import sync_folder, write_replacing
from node.inputs import bounded_bytes
from node.limits import SNAPSHOT_READ_SHARE, SNAPSHOT_SERVED_S

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from consensus.core.epochs import Epochs
    from consensus.core.messages import Blocks
    from consensus.runtime.sync import BlockServer
    from native.values import Digest
    from node.runtime.executor import Executor
    from node.runtime.router import Router

Work = CheckSnapshot | KeepChunk | RestoreSnapshot
Done = SnapshotChecked | ChunkKept | SnapshotRestored

WORK_WAITING_MAX: Final = MEMBERS_MAX * (CHUNKS_IN_FLIGHT_PER_PEER + 1) + 1  # all that was asked
RUN_RETRY_S: Final = 0.2  # the certificate of the cut block is one vote round away
CUTTING: Final = "cutting"
PART_SUFFIX: Final = ".part"

log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class SnapshotStatistics:
    """What is held, and how often the disk refused a part of somebody else's snapshot."""

    held: int
    disk_refusals_total: int


class Snapshots:
    """The snapshots of one node. Lives on the loop."""

    def __init__(
        self,
        folder: Path,
        router: Router,
        executor: Executor,
        server: BlockServer,
        epochs: Callable[[], Epochs],
        *,
        done: Callable[[Done], None],
        restored: Callable[[Manifest], None],
    ) -> None:
        """`epochs` are all that are known now, which may be more than at the start.

        `done` gets the result of every piece of work; `restored` is called before the last.
        """
        self._folder = folder
        self._router = router
        self._executor = executor
        self._server = server
        self._epochs = epochs
        self._done = done
        self._restored = restored
        self._cut = trio.Event()
        self._work, self._todo = trio.open_memory_channel[Work](WORK_WAITING_MAX)
        self._held: dict[Digest, tuple[Path, Manifest]] = {}
        self._served_s: dict[Digest, float] = {}
        self._fetching: tuple[Digest, Outlines] | None = None
        self._entered = 0  # height of the newest state that was taken over
        self._disk_refusals_total = 0
        self.cut_s = 0.0  # the executor's time in the last cut
        self.written_bytes = 0

    def statistics(self) -> SnapshotStatistics:
        """A snapshot of the counters."""
        return SnapshotStatistics(
            held=len(self._held), disk_refusals_total=self._disk_refusals_total
        )

    # --- cutting

    def executed(self) -> None:
        """A block is executed; look whether its state was cut."""
        if self._executor.cut_height is not None:
            self._cut.set()

    async def run(self) -> None:
        """Cut, and do the work of transfers, until cancelled."""
        await trio.to_thread.run_sync(self._open, trio.current_time())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._transfer, name="snapshot-transfer")
            while True:
                await self._cut.wait()
                self._cut = trio.Event()
                height = self._executor.cut_height
                if height is None:
                    continue
                try:
                    await self._read_cut(height)
                except OSError as error:  # a full disk: blocks matter more than this
                    log.warning("snapshot.not_cut", height=height, error=str(error))

    async def _read_cut(self, height: int) -> None:
        folder = self._folder / CUTTING
        parts: list[tuple[int, bytes]] = []
        try:
            await trio.to_thread.run_sync(_empty, folder)
            self.cut_s, self.written_bytes = 0.0, 0
            while True:
                began = trio.current_time()
                found = await self._executor.next_chunk()
                if found is None:
                    break
                took = trio.current_time() - began
                self.cut_s += took
                part = await trio.to_thread.run_sync(
                    self._write_own, folder / chunk_name(len(parts)), *found
                )
                parts.append((found[0], part))
                await trio.sleep(SNAPSHOT_READ_SHARE * took)
            if self._executor.cut_height != height:
                return  # another state was taken over meanwhile
            outlines = self._router.outlines(parts)
        finally:
            with trio.CancelScope(shield=True):
                await self._executor.end_cut()
        run = await self._run_of(height)
        if run is None:
            return  # another state was taken over, which has no certified run from here
        manifest = Manifest(run=run, outline=outlines.encode())
        await trio.to_thread.run_sync(self._finish, folder, manifest, trio.current_time())
        log.info(
            "snapshot.cut",
            height=height,
            chunks=len(parts),
            bytes=self.written_bytes,
            executor_ms=round(self.cut_s * 1000),
        )

    def _write_own(self, path: Path, tag: int, chunk: bytes) -> bytes:
        _write_durable(path, chunk)  # the manifest says later that all of them are there
        self.written_bytes += len(chunk)
        return self._router.measure(tag, chunk)

    async def _run_of(self, height: int) -> Blocks | None:
        """The way to a certificate; None once the state was entered at or above the height."""
        while self._entered < height:
            run = await self._server.blocks(Height(height))
            if run is not None:
                return run
            await trio.sleep(RUN_RETRY_S)
        return None

    def _finish(self, folder: Path, manifest: Manifest, now_s: float) -> None:
        sync_folder(folder)
        self._write_links(folder, manifest)
        write_replacing(folder / MANIFEST, wire.encode_manifest(manifest))
        target = self._folder / str(int(manifest.height))
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        sync_folder(self._folder)
        self._held[manifest.id] = (target, manifest)
        self._drop_old(now_s)

    def _write_links(self, folder: Path, manifest: Manifest) -> None:
        """What proves the signers of the manifest to who has genesis only."""
        epoch = int(manifest.run.certificate.checkpoint.epoch)
        write_replacing(folder / LINKS, encode_links(self._epochs().links[:epoch]))

    def _drop_old(self, now_s: float) -> None:
        newest_first = sorted(self._held.items(), key=lambda item: -item[1][1].height)
        for snapshot, (path, _) in newest_first[SNAPSHOTS_KEPT:]:
            if now_s - self._served_s.get(snapshot, -math.inf) >= SNAPSHOT_SERVED_S:
                del self._held[snapshot]
                shutil.rmtree(path, ignore_errors=True)

    def _open(self, now_s: float) -> None:
        """Find what an earlier life left; an unfinished cut is of no use."""
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(self._folder / CUTTING, ignore_errors=True)
        for path in sorted(self._folder.iterdir()):
            if not path.name.isdigit():
                continue
            try:
                data = (path / MANIFEST).read_bytes()
                value = wire.decode_value(data, len(data))
                manifest = wire.manifest(value, self._epochs().bounds())
            except (OSError, MalformedMessage) as error:
                log.warning("snapshot.unreadable", path=path.name, error=str(error))
                continue
            self._held[manifest.id] = (path, manifest)
        self._drop_old(now_s)

    def oldest(self) -> int:
        """Height of the oldest complete snapshot, 0 while there is none: blocks from it on stay."""
        held = tuple(self._held.values())  # other threads add and drop
        return min((int(manifest.height) for _, manifest in held), default=0)

    # --- serving (`consensus.runtime.snapshots.SnapshotSource`)

    def holds(self, snapshot: Digest) -> bool:
        """Whether a snapshot is served."""
        return snapshot in self._held

    async def newest(self, above: Height) -> Manifest | None:
        """The newest complete snapshot of a block above a height."""
        await trio.lowlevel.checkpoint()
        found = [manifest for _, manifest in self._held.values() if manifest.height > above]
        return max(found, key=lambda manifest: manifest.height, default=None)

    async def chunk(self, snapshot: Digest, index: int) -> bytes | None:
        """One chunk, if the snapshot is still held."""
        held = self._held.get(snapshot)
        if held is None:
            return None
        self._served_s[snapshot] = trio.current_time()
        return await trio.to_thread.run_sync(_chunk_if_there, held[0], index)

    # --- fetching

    def work_soon(self, work: Work) -> None:
        """Queue a piece of work that the core asked for, or say that too much is waiting.

        The core bounds what it asks for, but work of a transfer that it gave up may wait as well.
        The last place is for a restore, of which there is only one.
        """
        full = self._work.statistics().current_buffer_used >= WORK_WAITING_MAX - 1
        match work:
            case CheckSnapshot() if full:
                self._done(SnapshotChecked(peer=work.peer, snapshot=work.manifest.id, valid=None))
            case KeepChunk() if full:
                chunk = work.chunk
                self._done(
                    ChunkKept(
                        peer=work.peer, snapshot=chunk.snapshot, index=chunk.index, valid=None
                    )
                )
            case _:
                self._work.send_nowait(work)

    async def _transfer(self) -> None:
        async for work in self._todo:
            match work:
                case CheckSnapshot() | KeepChunk():
                    self._done(await trio.to_thread.run_sync(self._checked_or_kept, work))
                case RestoreSnapshot():
                    await self._restore(work.manifest)

    def _checked_or_kept(self, work: CheckSnapshot | KeepChunk) -> SnapshotChecked | ChunkKept:
        """Do the work; a disk that refuses it costs this transfer, a full one the process."""
        try:
            return self._check(work) if isinstance(work, CheckSnapshot) else self._keep(work)
        except OSError as error:
            if is_full(error):
                raise
            self._disk_refusals_total += 1
            self._fetching = None  # its folder may be what is wrong
            log.warning(
                "snapshot.transfer_dropped",
                height=int(work.manifest.height),
                error=str(error),
                next_step="see to the folder data/snapshots; the transfer is tried again by itself",
            )
        if isinstance(work, CheckSnapshot):
            return SnapshotChecked(peer=work.peer, snapshot=work.manifest.id, valid=None)
        chunk = work.chunk
        return ChunkKept(
            peer=work.peer, snapshot=chunk.snapshot, index=chunk.index, valid=None, refused=True
        )

    def _part_folder(self, snapshot: Digest) -> Path:
        return self._folder / (snapshot.hex() + PART_SUFFIX)

    def _check(self, work: CheckSnapshot) -> SnapshotChecked:
        manifest = work.manifest
        try:
            outlines = self._router.check_outlines(manifest.state_root, manifest.outline)
        except SnapshotInvalid as error:
            log.warning("snapshot.refused", peer=work.peer, reason=str(error))
            return SnapshotChecked(peer=work.peer, snapshot=manifest.id, valid=False)
        missing = missing_chunks(self._part_folder(manifest.id), outlines, self._router)
        return SnapshotChecked(
            peer=work.peer,
            snapshot=manifest.id,
            valid=True,
            chunks=outlines.chunk_count,
            missing=tuple(missing),
        )

    def _begin(self, manifest: Manifest) -> Outlines:
        """The outlines of what is fetched; its folder is made, those of others go."""
        if self._fetching is not None and self._fetching[0] == manifest.id:
            return self._fetching[1]
        folder = self._part_folder(manifest.id)
        for other in self._folder.glob(f"*{PART_SUFFIX}"):
            if other != folder:
                shutil.rmtree(other, ignore_errors=True)
        folder.mkdir(exist_ok=True)
        write_replacing(folder / MANIFEST, wire.encode_manifest(manifest))
        outlines = Outlines.decode(manifest.outline)
        self._fetching = (manifest.id, outlines)
        return outlines

    def _keep(self, work: KeepChunk) -> ChunkKept:
        chunk = work.chunk
        valid = belongs(self._begin(work.manifest), chunk.index, chunk.data, self._router)
        if valid:
            path = self._part_folder(chunk.snapshot) / chunk_name(chunk.index)
            _write_durable(path, chunk.data)
        return ChunkKept(peer=work.peer, snapshot=chunk.snapshot, index=chunk.index, valid=valid)

    async def _restore(self, manifest: Manifest) -> None:
        folder = self._part_folder(manifest.id)
        outlines = Outlines.decode(manifest.outline)
        began = trio.current_time()
        await self._executor.enter(
            manifest.run.headers[0],
            manifest.run.batches[0],
            manifest.state_root,
            lambda: self._router.restore(outlines, functools.partial(read_chunk, folder)),
        )
        self._fetching = None
        self._entered = int(manifest.height)
        try:
            await trio.to_thread.run_sync(self._adopt, folder, manifest)
        except OSError as error:
            if is_full(error):
                raise
            self._disk_refusals_total += 1
            log.warning("snapshot.not_served", height=self._entered, error=str(error))
        log.info(
            "snapshot.restored",
            height=int(manifest.height),
            chunks=outlines.chunk_count,
            took_ms=round((trio.current_time() - began) * 1000),
        )
        self._restored(manifest)
        self._done(SnapshotRestored(snapshot=manifest.id))

    def _adopt(self, folder: Path, manifest: Manifest) -> None:
        """What was fetched can be served from now on, after a power cut too."""
        for path in sorted(folder.iterdir()):
            _sync(path)  # a life that was killed may have written some of them
        self._write_links(folder, manifest)
        sync_folder(folder)
        target = self._folder / str(int(manifest.height))
        shutil.rmtree(target, ignore_errors=True)
        folder.rename(target)
        sync_folder(self._folder)
        self._held[manifest.id] = (target, manifest)


def belongs(outlines: Outlines, index: int, chunk: bytes, router: Router) -> bool:
    """Whether this is the chunk that a proven outline commits to."""
    try:
        tag, part = outlines.part(index)
        return router.measure(tag, chunk) == part
    except SnapshotInvalid:
        return False


def missing_chunks(folder: Path, outlines: Outlines, router: Router) -> list[int]:
    """Numbers of the chunks that a folder lacks, or holds damaged."""
    missing = []
    for index in range(outlines.chunk_count):
        data = _chunk_if_there(folder, index)
        if data is None or not belongs(outlines, index, data, router):
            missing.append(index)
    return missing


def _write_durable(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def read_chunk(folder: Path, index: int) -> bytes:
    """A chunk of a snapshot; raises OSError, or ValueError for one that is longer than any."""
    return bounded_bytes(folder / chunk_name(index), SNAPSHOT_CHUNK_BYTES_MAX)


def _chunk_if_there(folder: Path, index: int) -> bytes | None:
    """A chunk on the disk, or None where there is none; a longer file is as good as none."""
    try:
        return read_chunk(folder, index)
    except (FileNotFoundError, ValueError):
        return None


def _empty(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
