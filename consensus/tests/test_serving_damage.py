"""Certificates that went bad on the disk of a running node: others are served, and it is said."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import apsw
import trio
from trio.testing import wait_all_tasks_blocked

from consensus.core.frames import FrameType
from consensus.core.messages import BlockCertificate, FetchBlocks
from consensus.core.records import Anchor, RecordKind, Tip
from consensus.core.types import Height
from consensus.runtime.store import ConsensusStore, create_consensus_store
from consensus.runtime.sync import BlockServer
from consensus.tests import samples
from native import Completions
from native.codec import encode
from native.values import Digest

ANCHORS = (64, 128)
TIP = 140


class Source:
    """Every block through the tip."""

    height = TIP

    async def headers(self, first: int, last: int) -> Sequence[tuple[bytes, bytes]]:
        await trio.lowlevel.checkpoint()
        heights = range(first, min(last, self.height) + 1)
        return [
            (encode(samples.header(at).value()), encode(samples.batch(at).value()))
            for at in heights
        ]


class Links:
    """Keeps what would be sent."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def send_nowait(self, _peer: int, _kind: object, frame: int, *_parts: object) -> bool:
        self.sent.append(frame)
        return True


@asynccontextmanager
async def serving(folder: Path, *damaged: RecordKind) -> AsyncIterator[tuple[BlockServer, Links]]:
    """A server whose store has a flipped bit in each row of these kinds."""
    path = folder / "consensus.db"
    create_consensus_store(path, chain_id=samples.CHAIN, node_id=Digest(b"n" * 32))
    written = _opened(path)
    certificates = [Anchor(certificate=samples.certificate(at)) for at in ANCHORS]
    written.start()
    written.commit_soon(1, [*certificates, Tip(certificate=samples.certificate(TIP))], [], None)
    written.stop()
    database = apsw.Connection(str(path))
    for kind in damaged:
        rows = database.execute("SELECT key, data FROM record WHERE kind=?", (kind,)).fetchall()
        for key, data in rows:
            assert isinstance(data, bytes)
            flipped = data[:40] + bytes([data[40] ^ 1]) + data[41:]
            database.execute(
                "UPDATE record SET data=? WHERE kind=? AND key=?", (flipped, kind, key)
            ).fetchall()
    database.close()
    store, links = _opened(path), Links()
    store.start()
    server = BlockServer(cast(Any, links), store, Source(), samples.BOUNDS, lambda _root: None)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(server.run)
            yield server, links
            nursery.cancel_scope.cancel()
    finally:
        store.stop()


def _opened(path: Path) -> ConsensusStore:
    return ConsensusStore(path, Completions(), token=1, clock=lambda: 0.0)


async def _served(server: BlockServer) -> None:
    with trio.fail_after(5):
        while not server.statistics().served_total:  # noqa: ASYNC110 - the writing thread answers
            await trio.sleep(0.001)


async def _newest(server: BlockServer, first: int) -> BlockCertificate | None:
    found = await server.blocks(Height(first))
    return None if found is None else found.certificate


async def test_what_is_intact_is_served_in_the_place_of_a_damaged_certificate(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, RecordKind.TIP) as (server, _):
        assert await _newest(server, 100) == samples.certificate(128)
        assert await _newest(server, 130) is None
        assert await _newest(server, 130) is None
        assert server.statistics().records_damaged == 1, "the same one each time"


async def test_a_server_with_no_intact_certificate_gives_no_answer_and_goes_on(
    tmp_path: Path,
) -> None:
    async with serving(tmp_path, RecordKind.TIP, RecordKind.ANCHOR) as (server, links):
        server.serve_nowait(2, FetchBlocks(first=Height(100)))
        await _served(server)
        await wait_all_tasks_blocked()
        assert links.sent == []
        assert server.statistics().records_damaged == 3
        assert server.statistics().waiting == 0


async def test_an_intact_store_is_served_and_nothing_is_said(tmp_path: Path) -> None:
    async with serving(tmp_path) as (server, links):
        server.serve_nowait(2, FetchBlocks(first=Height(100)))
        await _served(server)
        assert links.sent == [FrameType.BLOCKS]
        assert server.statistics().records_damaged == 0
