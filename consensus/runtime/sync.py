"""Answers peers that are behind: runs of certified headers, and bodies.

Served outside the core and beside the pump: reading the disk must not delay a vote. Requests wait
in one bounded queue; when it is full the newest is dropped and the peer asks somebody else.

A certificate that went bad on the disk is passed over: another one above it serves as well, and
where there is none the peer gets no answer and asks somebody else. It is counted and logged once,
because the next start of this node will refuse the file.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

import structlog

from consensus.core import frames, wire
from consensus.core.messages import Blocks, FetchBlocks, FetchBodies
from consensus.core.serving import blocks_from
from consensus.core.types import Height
from consensus.errors import CorruptRecord
from consensus.limits import BODIES_PER_FETCH_MAX, HEADERS_PER_REPLY_MAX, MESSAGE_BYTES_MAX
from consensus.runtime.requests import Requests
from native.batches import Batch
from transport import ChannelKind

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from consensus.core.messages import BatchHeader, BlockHeader, Blocks
    from consensus.core.wire import Bounds
    from consensus.runtime.links import Links
    from consensus.runtime.store import ConsensusStore
    from native.values import Digest

log = structlog.get_logger("consensus")

REQUESTS_WAITING_MAX: Final = 256  # two of each peer at 64 members, and room

REQUESTS_PER_PEER_MAX: Final = 4  # headers and bodies, each twice: a peer asks again in 150 ms


class BlockSource(Protocol):
    """Where executed blocks are read from."""

    @property
    def height(self) -> int:
        """The newest block that can be read."""
        ...

    async def headers(self, first: int, last: int) -> Sequence[tuple[bytes, bytes]]:
        """Canonical block and batch headers from `first` on, without a gap, as far as held."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerStatistics:
    """Counters for `status` and metrics."""

    served_total: int
    dropped_total: int
    waiting: int
    records_damaged: int  # certificates found bad on the disk since the start, each once


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
        self._requests: Requests[FetchBlocks | FetchBodies] = Requests(
            waiting_max=REQUESTS_WAITING_MAX, per_peer_max=REQUESTS_PER_PEER_MAX
        )
        self.served_total = 0
        self._damaged: set[str] = set()  # no more than there are records

    def enter_epoch(self, members: int) -> None:
        """Certificates of one more epoch can be read."""
        self._bounds = self._bounds.extended(members)

    def statistics(self) -> ServerStatistics:
        """How much was asked of this node by peers that are behind."""
        return ServerStatistics(
            served_total=self.served_total,
            dropped_total=self._requests.dropped_total,
            waiting=self._requests.waiting,
            records_damaged=len(self._damaged),
        )

    def serve_nowait(self, peer: int, request: FetchBlocks | FetchBodies) -> None:
        """Queue a request of a validator."""
        self._requests.put_nowait(peer, request)

    async def run(self) -> None:
        """Serve until cancelled."""
        await self._requests.answer(self._serve)

    async def _serve(self, peer: int, request: FetchBlocks | FetchBodies) -> None:
        match request:
            case FetchBlocks():
                if 1 <= request.first <= self._source.height:
                    await self._serve_blocks(peer, request.first)
            case FetchBodies():
                for root in request.payload_roots[:BODIES_PER_FETCH_MAX]:
                    await self._serve_body(peer, root)
        self.served_total += 1

    async def blocks(self, first: Height) -> Blocks | None:
        """Headers from one block to a certificate, or None while there is no such run."""
        certificates = [
            wire.block_certificate(wire.decode_value(data, MESSAGE_BYTES_MAX), self._bounds)
            for data in await self._certificates(first)
        ]
        pairs = await self._source.headers(first, first + HEADERS_PER_REPLY_MAX - 1)
        held = dict(enumerate(pairs, start=int(first)))
        return blocks_from(
            first,
            executed=Height(first + len(pairs) - 1),
            certificates=certificates,
            load=lambda height: self._decode(held.get(height)),
        )

    async def _certificates(self, first: Height) -> list[bytes]:
        """The ones that are as they were written."""
        intact: list[bytes] = []
        for found in await self._store.certificates(first):
            if not isinstance(found, CorruptRecord):
                intact.append(found)
            elif str(found) not in self._damaged:
                self._damaged.add(str(found))
                log.error("record.damaged", problem=str(found), next_step=found.hint)
        return intact

    async def _serve_blocks(self, peer: int, first: Height) -> None:
        blocks = await self.blocks(first)
        if blocks is not None:
            channel, frame, data = frames.encode(blocks)
            self._links.send_nowait(peer, ChannelKind(int(channel)), int(frame), data)

    def _decode(self, pair: tuple[bytes, bytes] | None) -> tuple[BlockHeader, BatchHeader] | None:
        if pair is None:
            return None
        header, batch = (wire.decode_value(data, MESSAGE_BYTES_MAX) for data in pair)
        return wire.block_header(header, self._bounds), wire.batch_header(batch, self._bounds)

    async def _serve_body(self, peer: int, root: Digest) -> None:
        batch = self._body(root)
        if batch is None:
            stored = await self._store.body_by_root(root)
            if stored is None:
                return
            batch = Batch.parse(stored)
        self._links.send_nowait(peer, ChannelKind.BULK, int(frames.FrameType.BODY), batch)
