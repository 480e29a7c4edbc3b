"""Snapshots of a node: cut between blocks, served, fetched, resumed, taken over, restarted."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trio

from caesar.core.addresses import Address
from caesar.core.genesis import LedgerGenesis
from caesar.core.rules import Parameters
from caesar.runtime.application import LedgerApplication
from consensus.core.effects import CheckSnapshot, KeepChunk, RestoreSnapshot
from consensus.core.epochs import Epochs
from consensus.core.inputs import ChunkKept, SnapshotChecked, SnapshotRestored
from consensus.core.messages import BlockHeader, Blocks, Chunk, Manifest
from consensus.core.types import Height, ReplicaIndex
from consensus.errors import SnapshotInvalid
from consensus.limits import SNAPSHOT_CHUNK_BYTES_MAX
from consensus.runtime.sync import BlockServer
from consensus.tests import samples
from consensus.tests.test_light import members
from native import Completions
from native.batches import Batch
from native.hashing import sha256
from native.values import Amount, Digest
from node.core.outlines import Outlines
from node.core.snapshotfiles import MANIFEST, chunk_name
from node.disk import disk_failure
from node.runtime.executor import Executor, open_state
from node.runtime.router import Router
from node.runtime.snapshots import WORK_WAITING_MAX, Done, Snapshots
from node.runtime.store import StateStore
from trustchain import client
from trustchain.core.oids import KeyAlgorithm
from trustchain.runtime.application import LogApplication
from trustchain.tests.network import Network

EVERY = 4  # blocks between two snapshots
PEER = ReplicaIndex(2)
CERTIFICATES = 20
GENESIS = LedgerGenesis(
    allocations=tuple((Address(sha256(b"%d" % n)), Amount(n)) for n in range(1, 12_000)),
    parameters=Parameters(transfer_fee=Amount(1), valid_for_blocks_max=1_000),
)
AUTHORITY = Network(validators=1)
KEY = client.generate_key(KeyAlgorithm.ED25519)


def certificate_payload(name: str) -> bytes:
    return client.issue_operation(
        client.certification_request(KEY, [name]),
        chain_id=samples.CHAIN,
        enrolment=AUTHORITY.enrolment,
        request_id=sha256(name.encode())[:16],
    ).encode()


EPOCHS = Epochs(chain_id=samples.CHAIN, sets=(members(0, 0, 1, 2, 3),))


class Node:
    """Router, executor, `state.db` and snapshots of one node; blocks come by hand."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.router = Router(
            [
                LedgerApplication(samples.CHAIN, GENESIS),
                LogApplication(samples.CHAIN, AUTHORITY.genesis),
            ]
        )
        folder.mkdir(exist_ok=True)
        self.state = StateStore(folder / "state.db", chain_id=samples.CHAIN)
        self.root = open_state(self.router, self.state)
        self.headers: dict[int, BlockHeader] = {}
        self.executor = Executor(
            self.router,
            self.state,
            Completions(),
            token=1,
            clock=lambda: 0.0,
            snapshot_blocks=EVERY,
        )
        self.done, self.results = trio.open_memory_channel[Done](1_000)
        self.restored: list[Manifest] = []
        self.snapshots = Snapshots(
            folder / "snapshots",
            self.router,
            self.executor,
            cast("BlockServer", self),
            lambda: EPOCHS,
            done=self.done.send_nowait,
            restored=self.restored.append,
        )

    async def execute(self, *payloads: bytes) -> bytes:
        """Execute the next block; return its codes."""
        height = self.executor.height + 1
        parent = self.headers.get(height - 1)
        header = replace(
            samples.header(height, b"p" * 32 if parent is None else parent.hash),
            state_root=self.router.state_root,
        )
        self.headers[height] = header
        self.executor.execute_soon(header, samples.batch(height), Batch.of(list(payloads)))
        stored = await self.executor.block(height)
        assert stored is not None
        self.snapshots.executed()
        return stored.receipts

    async def blocks(self, first: Height) -> Blocks | None:
        """Stands in for the block server: a run of two headers."""
        await trio.lowlevel.checkpoint()
        one, two = self.headers.get(first), self.headers.get(first + 1)
        if one is None or two is None:
            return None
        return Blocks(
            headers=(one, two),
            batches=(samples.batch(first), samples.batch(first + 1)),
            certificate=samples.certificate(first + 1, two.hash),
        )

    async def work(self, work: CheckSnapshot | KeepChunk | RestoreSnapshot) -> Done:
        self.snapshots.work_soon(work)
        with trio.fail_after(30):
            return await self.results.receive()

    async def check(self, manifest: Manifest) -> SnapshotChecked:
        done = await self.work(CheckSnapshot(peer=PEER, manifest=manifest))
        assert isinstance(done, SnapshotChecked)
        return done

    async def keep(self, manifest: Manifest, index: int, data: bytes) -> bool:
        chunk = Chunk(snapshot=manifest.id, index=index, data=data)
        done = await self.work(KeepChunk(peer=PEER, manifest=manifest, chunk=chunk))
        assert isinstance(done, ChunkKept)
        return done.valid is True

    async def fetch_from(self, other: Node, manifest: Manifest, *indexes: int) -> None:
        for index in indexes:
            data = await other.snapshots.chunk(manifest.id, index)
            assert data is not None
            assert len(data) <= SNAPSHOT_CHUNK_BYTES_MAX
            assert await self.keep(manifest, index, data)


@contextmanager
def running(folder: Path) -> Iterator[Node]:
    node = Node(folder)
    node.executor.start()
    try:
        yield node
    finally:
        node.executor.stop()


async def eventually(condition: Callable[[], bool]) -> None:
    with trio.fail_after(30):
        while True:
            if condition():
                return
            await trio.sleep(0.01)


async def wait_newest(node: Node, above: int = 0) -> Manifest:
    with trio.fail_after(30):
        while True:
            found = await node.snapshots.newest(Height(above))
            if found is not None:
                return found
            await trio.sleep(0.01)


async def filled(node: Node) -> Manifest:
    """Six blocks with certificates; the snapshot of the fourth."""
    for height in range(1, EVERY + 3):
        names = range(height * 5, height * 5 + 5)
        await node.execute(*[certificate_payload(f"n{name}.mesh") for name in names])
    return await wait_newest(node)


async def test_a_new_node_takes_over_the_state_and_goes_on_with_the_same_roots(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            nursery.start_soon(new.snapshots.run)
            manifest = await filled(old)
            assert manifest.height == EVERY
            checked = await new.check(manifest)
            assert checked.valid
            assert len(checked.missing) == checked.chunks >= 4
            await new.fetch_from(old, manifest, *checked.missing)
            done = await new.work(RestoreSnapshot(manifest=manifest))
            assert done == SnapshotRestored(snapshot=manifest.id)
            assert new.restored == [manifest]
            assert new.router.state_root == manifest.state_root
            assert new.executor.height == EVERY
            # The block after it is the same on both, and nothing is issued twice.
            new.headers[EVERY] = old.headers[EVERY]
            again = certificate_payload("n5.mesh")
            fresh = [certificate_payload(f"n{EVERY * 5 + 5 + n}.mesh") for n in range(5)]
            await new.execute(again, *fresh)
            assert new.headers[EVERY + 1].parent == old.headers[EVERY + 1].parent
            assert new.router.state_root == old.headers[EVERY + 2].state_root
            assert await new.snapshots.newest(Height(0)) == manifest, "it serves what it fetched"
            nursery.cancel_scope.cancel()
    again_node = Node(tmp_path / "b")
    assert again_node.root == old.headers[EVERY + 2].state_root
    assert again_node.state.first == EVERY
    again_node.state.close()


async def test_blocks_go_on_while_a_cut_is_read_and_two_nodes_cut_the_same(tmp_path: Path) -> None:
    with running(tmp_path / "a") as one, running(tmp_path / "b") as other:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(one.snapshots.run)
            mine = await filled(one)
            for height in range(1, EVERY + 3):
                names = range(height * 5, height * 5 + 5)
                await other.execute(*[certificate_payload(f"n{name}.mesh") for name in names])
            nursery.start_soon(other.snapshots.run)  # reads the cut two blocks late
            theirs = await wait_newest(other)
            assert theirs.id == mine.id
            nursery.cancel_scope.cancel()


async def test_a_restarted_node_fetches_only_what_is_missing_or_damaged(tmp_path: Path) -> None:
    with running(tmp_path / "a") as old:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            manifest = await filled(old)
            with running(tmp_path / "b") as first_life:
                nursery.start_soon(first_life.snapshots.run)
                await first_life.check(manifest)
                await first_life.fetch_from(old, manifest, 0, 2, 3)
            part = tmp_path / "b" / "snapshots" / f"{manifest.id.hex()}.part"
            (part / chunk_name(2)).write_bytes(b"torn")
            with running(tmp_path / "b") as second_life:
                nursery.start_soon(second_life.snapshots.run)
                checked = await second_life.check(manifest)
                assert set(checked.missing) == set(range(checked.chunks)) - {0, 3}
            nursery.cancel_scope.cancel()


async def test_another_offer_costs_nothing_of_what_is_being_fetched(tmp_path: Path) -> None:
    """The check of a newer snapshot is queued before, between and after chunks of the first."""
    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            nursery.start_soon(new.snapshots.run)
            manifest = await filled(old)
            while old.executor.height <= 2 * EVERY:
                await old.execute()
            newer = await wait_newest(old, EVERY)
            checked = await new.check(manifest)
            for index in checked.missing:
                assert (await new.check(newer)).valid
                await new.fetch_from(old, manifest, index)
            assert (await new.check(newer)).valid
            await new.work(RestoreSnapshot(manifest=manifest))
            assert new.router.state_root == manifest.state_root
            nursery.cancel_scope.cancel()


async def test_a_full_queue_refuses_work_and_has_room_for_a_restore(tmp_path: Path) -> None:
    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            manifest = await filled(old)
            chunk = Chunk(snapshot=manifest.id, index=0, data=b"data")
            keep = KeepChunk(peer=PEER, manifest=manifest, chunk=chunk)
            check = CheckSnapshot(peer=PEER, manifest=manifest)
            for _ in range(WORK_WAITING_MAX - 1):
                new.snapshots.work_soon(keep)
            new.snapshots.work_soon(keep)
            new.snapshots.work_soon(check)
            assert new.results.receive_nowait() == ChunkKept(
                peer=PEER, snapshot=manifest.id, index=0, valid=None
            )
            assert new.results.receive_nowait() == SnapshotChecked(
                peer=PEER, snapshot=manifest.id, valid=None
            )
            new.snapshots.work_soon(RestoreSnapshot(manifest=manifest))
            with pytest.raises(trio.WouldBlock):
                new.results.receive_nowait()
            nursery.cancel_scope.cancel()


async def test_false_manifests_and_chunks_are_recognised_on_arrival(tmp_path: Path) -> None:
    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            nursery.start_soon(new.snapshots.run)
            manifest = await filled(old)
            outlines = Outlines.decode(manifest.outline)
            fewer = replace(
                outlines.applications[0],
                outline=replace(
                    outlines.applications[0].outline,
                    parts=outlines.applications[0].outline.parts[:-1],
                ),
            )
            lies = [
                b"junk",
                Outlines(applications=outlines.applications[:1]).encode(),
                Outlines(applications=(fewer, *outlines.applications[1:])).encode(),
            ]
            for lie in lies:
                assert not (await new.check(replace(manifest, outline=lie))).valid
            elsewhere = Blocks(
                headers=(old.headers[1],),
                batches=(samples.batch(1),),
                certificate=samples.certificate(1, old.headers[1].hash),
            )
            assert not (await new.check(replace(manifest, run=elsewhere))).valid
            assert (await new.check(manifest)).valid
            good = await old.snapshots.chunk(manifest.id, 1)
            assert good is not None
            assert not await new.keep(manifest, 1, good[:-1] + bytes([good[-1] ^ 1]))
            assert not await new.keep(manifest, 2, good)
            assert not await new.keep(manifest, 1, good + bytes(SNAPSHOT_CHUNK_BYTES_MAX))
            assert not await new.keep(manifest, 60_000, good)
            assert await new.keep(manifest, 1, good)
            nursery.cancel_scope.cancel()


async def test_the_newest_two_are_kept_and_an_unfinished_cut_is_thrown_away(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "snapshots"
    with running(tmp_path / "a") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.snapshots.run)
            for height in (EVERY, 2 * EVERY, 3 * EVERY):
                while node.executor.height <= height:
                    await node.execute()
                await wait_newest(node, height - 1)
            nursery.cancel_scope.cancel()
    assert sorted(path.name for path in folder.iterdir()) == ["12", "8"]
    assert node.snapshots.oldest() == 2 * EVERY
    (folder / "cutting").mkdir()
    (folder / "99").mkdir()
    (folder / "99" / MANIFEST).write_bytes(b"junk")
    with running(tmp_path / "a") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.snapshots.run)
            assert (await wait_newest(node)).height == 3 * EVERY
            assert await node.snapshots.chunk(Digest(bytes(32)), 0) is None
            assert not (folder / "cutting").exists()
            nursery.cancel_scope.cancel()


async def test_a_state_taken_over_while_a_cut_waits_for_its_certificate_ends_that_cut(
    tmp_path: Path,
) -> None:
    """The block above the cut never comes here, so nothing ever certifies it here."""
    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            nursery.start_soon(new.snapshots.run)
            for height in (EVERY, 2 * EVERY):
                while old.executor.height <= height:
                    await old.execute()
                manifest = await wait_newest(old, height - 1)
            while new.executor.height < EVERY:
                await new.execute()
            await eventually(lambda: new.executor.cut_height is None)
            checked = await new.check(manifest)
            await new.fetch_from(old, manifest, *checked.missing)
            await new.work(RestoreSnapshot(manifest=manifest))
            new.headers = {2 * EVERY: old.headers[2 * EVERY]}
            while new.executor.height <= 3 * EVERY:
                await new.execute()
            assert (await wait_newest(new, 2 * EVERY)).height == 3 * EVERY
            assert new.executor.cut_height is None
            nursery.cancel_scope.cancel()


async def test_what_a_manifest_promises_is_durable_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[str] = []
    fsync = os.fsync

    def watched(descriptor: int) -> None:
        fsync(descriptor)
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

    monkeypatch.setattr(os, "fsync", watched)
    with running(tmp_path / "a") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.snapshots.run)
            manifest = await filled(node)
            nursery.cancel_scope.cancel()
    count = Outlines.decode(manifest.outline).chunk_count
    written = synced.index(next(name for name in synced if MANIFEST in name))
    before = synced[:written]
    assert set(before) >= {"cutting", *(chunk_name(index) for index in range(count))}
    assert before.index("cutting") > before.index(chunk_name(count - 1))
    assert synced[-1] == "snapshots", "the rename"


async def test_a_cut_that_the_disk_refuses_costs_that_snapshot_only(tmp_path: Path) -> None:
    with running(tmp_path / "a") as node:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(node.snapshots.run)
            await eventually((tmp_path / "a" / "snapshots").exists)
            (tmp_path / "a" / "snapshots" / "cutting").touch()  # a file where a folder must be
            while node.executor.height <= EVERY:
                await node.execute()
            await eventually(lambda: node.executor.cut_height is None)
            assert await node.snapshots.newest(Height(0)) is None
            (tmp_path / "a" / "snapshots" / "cutting").unlink()
            while node.executor.height <= 2 * EVERY:
                await node.execute()
            assert (await wait_newest(node)).height == 2 * EVERY
            nursery.cancel_scope.cancel()


async def test_what_was_fetched_is_durable_before_it_is_served(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            nursery.start_soon(new.snapshots.run)
            manifest = await filled(old)
            checked = await new.check(manifest)
            synced: list[str] = []
            fsync = os.fsync

            def watched(descriptor: int) -> None:
                fsync(descriptor)
                assert not new.snapshots.holds(manifest.id)
                synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)

            await new.fetch_from(old, manifest, *checked.missing[1:])
            monkeypatch.setattr(os, "fsync", watched)
            await new.fetch_from(old, manifest, checked.missing[0])
            await new.work(RestoreSnapshot(manifest=manifest))
            assert new.snapshots.holds(manifest.id)
            nursery.cancel_scope.cancel()
    part = f"{manifest.id.hex()}.part"
    chunks = {chunk_name(index) for index in range(checked.chunks)}
    assert set(synced) >= {part, *chunks}
    assert synced[-1] == "snapshots", "the rename"


async def test_a_disk_that_refuses_a_chunk_ends_the_transfer_and_not_the_node(
    tmp_path: Path,
) -> None:
    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            nursery.start_soon(new.snapshots.run)
            manifest = await filled(old)
            await new.check(manifest)
            part = tmp_path / "b" / "snapshots" / f"{manifest.id.hex()}.part"
            await new.fetch_from(old, manifest, 0, 1)
            shutil.rmtree(part)
            part.touch()  # a file where a folder must be
            data = await old.snapshots.chunk(manifest.id, 2)
            assert data is not None
            chunk = Chunk(snapshot=manifest.id, index=2, data=data)
            done = await new.work(KeepChunk(peer=PEER, manifest=manifest, chunk=chunk))
            assert isinstance(done, ChunkKept)
            assert (done.valid, done.refused) == (None, True)
            done = await new.work(CheckSnapshot(peer=PEER, manifest=manifest))
            assert isinstance(done, SnapshotChecked)
            assert done.valid is None
            assert new.snapshots.statistics().disk_refusals_total == 2
            part.unlink()
            again = await new.check(manifest)
            await new.fetch_from(old, manifest, *again.missing)
            await new.work(RestoreSnapshot(manifest=manifest))
            assert new.router.state_root == manifest.state_root
            nursery.cancel_scope.cancel()


async def test_a_full_disk_ends_the_node_with_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with running(tmp_path / "a") as old, running(tmp_path / "b") as new:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(old.snapshots.run)
            manifest = await filled(old)
            nursery.cancel_scope.cancel()
        monkeypatch.setattr(os, "fsync", full)

        async def fetch() -> None:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(new.snapshots.run)
                await new.fetch_from(old, manifest, 0)

        with pytest.raises(BaseExceptionGroup) as failed:
            await fetch()
    told = disk_failure(failed.value, tmp_path)
    assert told is not None
    assert "make room" in told.hint


def test_a_router_refuses_chunks_and_outlines_of_other_applications(tmp_path: Path) -> None:
    node = Node(tmp_path / "a")
    ledger = Router([LedgerApplication(samples.CHAIN, GENESIS)])
    root = ledger.genesis()
    ledger.cut()
    parts = []
    while (found := ledger.next_chunk()) is not None:
        parts.append((found[0], ledger.measure(*found)))
    outlines = ledger.outlines(parts)
    assert ledger.check_outlines(root, outlines.encode()) == outlines
    with pytest.raises(SnapshotInvalid, match="other applications"):
        node.router.check_outlines(root, outlines.encode())
    with pytest.raises(SnapshotInvalid, match="another state root"):
        ledger.check_outlines(Digest(bytes(32)), outlines.encode())
    with pytest.raises(SnapshotInvalid, match="no chunk"):
        outlines.part(len(parts))
    node.state.close()
