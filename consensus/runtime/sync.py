"""Answers peers that are behind: runs of certified headers, and bodies.

Served outside the core and beside the pump: reading the disk must not delay a vote. Requests wait
in one bounded queue; when it is full the newest is dropped and the peer asks somebody else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from consensus.core import frames, wire
from consensus.core.messages import Blocks, FetchBlocks, FetchBodies
from consensus.limits import BODIES_PER_FETCH_MAX, HEADERS_PER_REPLY_MAX, MESSAGE_BYTES_MAX
from native.batches import Batch
from transport import ChannelKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consensus.core.wire import Bounds
    from consensus.runtime.links import Links
    from consensus.runtime.store import ConsensusStore
    from native.values import Digest

REQUESTS_WAITING_MAX: Final = 256  # two of each peer at 64 members, and room

log = structlog.get_logger("consensus")


class BlockSource(Protocol):
    """Where executed blocks are read from."""

    async def headers(self, first: int, last: int) -> Sequence[tuple[bytes, bytes]]:
        """Canonical block and batch headers from `first` on, without a gap, as far as held."""
        ...


class BlockServer:
    """Serves `FetchBlocks` and `FetchBodies`."""

    def __init__(
        self,
        links: Links,
        store: ConsensusStore,
        source: BlockSource,
        bounds: Bounds,
        body: Callable[[Digest], Batch | None],
    ) -> None:
        """`body` looks a body up in memory before the disk is asked."""
        self._links = links
        self._store = store
        self._source = source
        self._bounds = bounds
        self._body = body
        self._in, self._out = trio.open_memory_channel[tuple[int, FetchBlocks | FetchBodies]](
            REQUESTS_WAITING_MAX
        )
        self.dropped_total = 0
        self.served_total = 0

    def serve_nowait(self, peer: int, request: FetchBlocks | FetchBodies) -> None:
        """Queue a request of a validator."""
        try:
            self._in.send_nowait((peer, request))
        except trio.WouldBlock:
            self.dropped_total += 1

    async def run(self) -> None:
        """Serve until cancelled."""
        async for peer, request in self._out:
            match request:
                case FetchBlocks():
                    await self._serve_blocks(peer, int(request.first))
                case FetchBodies():
                    for root in request.payload_roots[:BODIES_PER_FETCH_MAX]:
                        await self._serve_body(peer, root)
            self.served_total += 1

    async def _serve_blocks(self, peer: int, first: int) -> None:
        stored = await self._store.anchor_at_or_above(first)
        if stored is None:
            return
        certificate = wire.block_certificate(
            wire.decode_value(stored, MESSAGE_BYTES_MAX), self._bounds
        )
        last = int(certificate.height)
        if not first <= last < first + HEADERS_PER_REPLY_MAX:
            return
        pairs = await self._source.headers(first, last)
        if len(pairs) != last - first + 1:
            return  # certified by others, not executed here yet
        decode = wire.decode_value
        blocks = Blocks(
            headers=tuple(
                wire.block_header(decode(header, MESSAGE_BYTES_MAX), self._bounds)
                for header, _ in pairs
            ),
            batches=tuple(
                wire.batch_header(decode(batch, MESSAGE_BYTES_MAX), self._bounds)
                for _, batch in pairs
            ),
            certificate=certificate,
        )
        channel, frame, data = frames.encode(blocks)
        self._links.send_nowait(peer, ChannelKind(int(channel)), int(frame), data)

    async def _serve_body(self, peer: int, root: Digest) -> None:
        batch = self._body(root)
        if batch is None:
            stored = await self._store.body_by_root(root)
            if stored is None:
                return
            batch = Batch.parse(stored)
        self._links.send_nowait(peer, ChannelKind.BULK, int(frames.FrameType.BODY), batch)
