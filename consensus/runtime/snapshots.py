"""Serves state snapshots to peers, at a bounded rate and beside everything else.

One queue and one task: a peer that asks for chunks can neither delay a vote nor the headers of
somebody who is only a little behind.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, Protocol

import structlog
import trio

from consensus.core import frames
from consensus.core.messages import Chunk, FetchChunk, FetchManifest
from consensus.limits import CHUNKS_IN_FLIGHT_PER_PEER
from transport import ChannelKind

if TYPE_CHECKING:
    from consensus.core.messages import Manifest, Message
    from consensus.core.types import Height
    from consensus.runtime.links import Links
    from native.values import Digest

REQUESTS_WAITING_MAX: Final = 256  # four chunks of each of 64 members
REQUESTS_PER_PEER_MAX: Final = 2 * CHUNKS_IN_FLIGHT_PER_PEER  # a late request and its repetition
SERVED_BYTES_PER_S: Final = 67_108_864  # 1,000,000 accounts in 20 s; 5 % of a core in sending

log = structlog.get_logger("consensus")


class SnapshotSource(Protocol):
    """Where snapshots are read from."""

    async def newest(self, above: Height) -> Manifest | None:
        """The newest complete snapshot of a block above a height."""
        ...

    async def chunk(self, snapshot: Digest, index: int) -> bytes | None:
        """One chunk, if the snapshot is still held."""
        ...


class SnapshotServer:
    """Serves `FetchManifest` and `FetchChunk`."""

    def __init__(self, links: Links, source: SnapshotSource) -> None:
        self._links = links
        self._source = source
        self._in, self._out = trio.open_memory_channel[tuple[int, FetchManifest | FetchChunk]](
            REQUESTS_WAITING_MAX
        )
        self._asked: Counter[int] = Counter()
        self.dropped_total = 0
        self.bytes_total = 0

    def serve_nowait(self, peer: int, request: FetchManifest | FetchChunk) -> None:
        """Queue a request of a validator; too many of one peer are dropped."""
        if self._asked[peer] >= REQUESTS_PER_PEER_MAX:
            self.dropped_total += 1
            return
        try:
            self._in.send_nowait((peer, request))
            self._asked[peer] += 1
        except trio.WouldBlock:
            self.dropped_total += 1

    async def run(self) -> None:
        """Serve until cancelled."""
        async for peer, request in self._out:
            try:
                size = await self._serve(peer, request)
            except Exception:
                log.exception("fetch.failed", peer=peer)
                size = 0
            finally:
                self._asked[peer] -= 1
            self.bytes_total += size
            await trio.sleep(size / SERVED_BYTES_PER_S)

    async def _serve(self, peer: int, request: FetchManifest | FetchChunk) -> int:
        message: Message | None
        match request:
            case FetchManifest():
                message = await self._source.newest(request.above)
            case FetchChunk():
                data = await self._source.chunk(request.snapshot, request.index)
                message = None
                if data is not None:
                    message = Chunk(snapshot=request.snapshot, index=request.index, data=data)
        if message is None:
            return 0
        channel, frame, encoded = frames.encode(message)
        self._links.send_nowait(peer, ChannelKind(int(channel)), int(frame), encoded)
        return len(encoded)
