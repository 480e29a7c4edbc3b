"""Serves state snapshots to peers, at a bounded rate and beside everything else.

One queue and one task: a peer that asks for chunks can neither delay a vote nor the headers of
somebody who is only a little behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol

import trio

from consensus.core import frames
from consensus.core.messages import Chunk, FetchChunk, FetchManifest
from consensus.limits import CHUNKS_IN_FLIGHT_PER_PEER
from consensus.runtime.requests import Requests
from transport import ChannelKind

if TYPE_CHECKING:
    from consensus.core.messages import Manifest, Message
    from consensus.core.types import Height
    from consensus.runtime.links import Links
    from native.values import Digest

REQUESTS_WAITING_MAX: Final = 256  # four chunks of each of 64 members
REQUESTS_PER_PEER_MAX: Final = 2 * CHUNKS_IN_FLIGHT_PER_PEER  # a late request and its repetition
SERVED_BYTES_PER_S: Final = 67_108_864  # 1,000,000 accounts in 20 s; 5 % of a core in sending


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
        self._requests: Requests[FetchManifest | FetchChunk] = Requests(
            waiting_max=REQUESTS_WAITING_MAX, per_peer_max=REQUESTS_PER_PEER_MAX
        )
        self.bytes_total = 0

    @property
    def dropped_total(self) -> int:
        """How many requests found no place."""
        return self._requests.dropped_total

    def serve_nowait(self, peer: int, request: FetchManifest | FetchChunk) -> None:
        """Queue a request of a validator; too many of one peer are dropped."""
        self._requests.put_nowait(peer, request)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._requests.answer(self._serve)

    async def _serve(self, peer: int, request: FetchManifest | FetchChunk) -> None:
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
            return
        channel, frame, encoded = frames.encode(message)
        self._links.send_nowait(peer, ChannelKind(int(channel)), int(frame), encoded)
        self.bytes_total += len(encoded)
        await trio.sleep(len(encoded) / SERVED_BYTES_PER_S)
