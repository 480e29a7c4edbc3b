"""One admitted connection to one proven peer."""

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

import trio

from native import quic
from native.values import NodeId, PublicKey
from transport.core.engine import Buffer, Engine, Part
from transport.core.events import (
    ChannelKind,
    CloseReason,
    Closure,
    StreamKind,
    key_exchange_name,
    signature_name,
)
from transport.core.hello import Hello
from transport.core.pool import Candidate
from transport.core.streams import is_bidirectional, is_dialler_stream
from transport.errors import ChannelFull, ConnectionEnded, FrameTooLong
from transport.limits import CLOSE_DETAIL_CHARS_MAX, RPC_TIMEOUT_S
from transport.runtime import rpc
from transport.runtime.control import Control
from transport.runtime.datagrams import Datagrams
from transport.runtime.streams import BidirectionalStream, ReceiveStream, SendStream

if TYPE_CHECKING:
    from transport.runtime.endpoint import Endpoint

Stream: TypeAlias = BidirectionalStream | SendStream | ReceiveStream


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionStatistics:
    """The path of one connection, and what waits on it."""

    engine: str
    key_exchange: str
    signature: str
    resumed: bool
    key_updates: int
    rtt_s: float
    rtt_min_s: float
    mtu_bytes: int
    congestion_window_bytes: int
    packets_sent: int
    packets_lost: int
    bytes_sent: int
    bytes_received: int
    black_holes: int
    congestion_events: int
    datagrams_dropped: int  # received ones that nobody read in time
    streams: int
    votes_queued_bytes: int
    bulk_queued_bytes: int


class FrameSender:
    """One of the two framed channels to a peer. Frames of one channel arrive in order."""

    __slots__ = ("_connection", "_engine", "_handle", "kind")

    def __init__(self, connection: "Connection", kind: ChannelKind) -> None:
        self._connection = connection
        self._engine = connection.engine
        self._handle = connection.handle
        self.kind: Final = kind

    def send_nowait(self, frame_type: int, *parts: Part) -> None:
        """Queue one frame; parts are joined. Leaves with everything else queued in this turn.

        Raises `ChannelFull`, `FrameTooLong`, `ConnectionEnded`; nothing was queued then.
        """
        try:
            self._engine.send(self._handle, self.kind, frame_type, *parts)
        except quic.QueueFull:
            raise ChannelFull(f"the {self.kind.name} channel is full") from None
        except quic.FrameTooLong:
            raise FrameTooLong("the frame is over the limit") from None
        except quic.ConnectionGone:
            raise self._connection.ended() from None
        self._connection.kick()

    @property
    def queued_bytes(self) -> int:
        """Bytes that the peer's flow control has not taken yet."""
        return self._engine.queued_bytes(self._handle, self.kind)


class Connection:
    """Made by an `Endpoint`, which `dial`s or `accept`s it. Ends once, for both sides."""

    def __init__(
        self,
        endpoint: "Endpoint",
        *,
        handle: int,
        dialled: bool,
        public_key: PublicKey,
        hello: Hello,
        remote_address: str,
    ) -> None:
        self.endpoint: Final = endpoint
        self.engine: Final[Engine] = endpoint.engine
        self.handle: Final = handle
        self.dialled: Final = dialled
        self.public_key: Final = public_key
        self.peer: Final[NodeId] = public_key.node_id
        self.hello: Final = hello
        self.remote_address = remote_address
        self.closed: Final = trio.Event()
        self.closure: Closure | None = None
        self._session = self.engine.session(handle) or (0, 0, 0, 0)
        self._control = Control(self)
        self._datagrams = Datagrams(self)
        self._channels = {kind: FrameSender(self, kind) for kind in ChannelKind}
        self._streams: dict[int, Stream] = {}
        self._arrived: dict[bool, deque[int]] = {True: deque(), False: deque()}
        self._news = trio.Event()  # streams arrived, or may be opened again
        self._unfinished: set[int] = set()
        self._all_finished = trio.Event()

    def __repr__(self) -> str:
        """Peer and state."""
        state = "open" if self.closure is None else str(self.closure)
        return f"<Connection to {self.peer.hex()[:8]} at {self.remote_address}: {state}>"

    @property
    def close_reason(self) -> Closure | None:
        """How it ended; None while it is open."""
        return self.closure

    @property
    def candidate(self) -> Candidate:
        """What decides between this and another connection to the same peer."""
        dialler = self.endpoint.identity.node_id if self.dialled else self.peer
        return Candidate(dialler=dialler, instance=self.hello.instance)

    def channel(self, kind: ChannelKind) -> FrameSender:
        """The framed channel of this kind towards the peer; always the same object."""
        return self._channels[kind]

    async def call(
        self, method: str, request: bytes = b"", *, timeout_s: float = RPC_TIMEOUT_S
    ) -> bytes:
        """Ask the peer. Raises `RPCError` (its refusal), `RPCTimeout`, `ConnectionEnded`."""
        return await rpc.call(self, method, request, timeout_s=timeout_s)

    # datagrams: unreliable, unordered, one packet each (RFC 9221)

    @property
    def datagram_bytes_max(self) -> int | None:
        """The longest datagram that fits this path now; None if the peer takes none."""
        return self.engine.datagram_bytes_max(self.handle)

    def send_datagram_nowait(self, data: Buffer) -> None:
        """Queue one datagram. Raises `DatagramTooLong`, `DatagramsUnsupported`,
        `DatagramQueueFull`, `ConnectionEnded`; nothing was queued then."""
        self._datagrams.send_nowait(data)

    async def send_datagram(self, data: Buffer) -> None:
        """Queue one datagram, waiting for room. Raises as `send_datagram_nowait` does."""
        await self._datagrams.send(data)

    async def receive_datagram(self) -> bytes:
        """The oldest datagram that waits; those that nobody reads are dropped, and counted."""
        return await self._datagrams.receive()

    async def ping(self) -> float:
        """Seconds to the peer's program and back, its queues included. Raises
        `ConnectionEnded`."""
        return await self._control.ping()

    @property
    def observed_address(self) -> str | None:
        """Where the peer says it sees us; None until it has said so."""
        return self._control.observed_address

    def update_key(self) -> None:
        """Encrypt with new keys from now on, and make the peer do so. Raises
        `ConnectionEnded`."""
        try:
            self.engine.update_key(self.handle)
        except quic.ConnectionGone:
            raise self.ended() from None
        self.kick()

    async def open_stream(self) -> BidirectionalStream:
        """A new stream of the application; waits while the peer allows no more."""
        return self._bidirectional(await self._open(True, StreamKind.RAW))

    async def open_uni(self) -> SendStream:
        """A new stream on which only we send."""
        number = await self._open(False, StreamKind.RAW)
        stream = SendStream(self, number)
        self._streams[number] = stream
        return stream

    async def accept_stream(self) -> BidirectionalStream:
        """The next stream that the peer opened."""
        return self._bidirectional(await self._accept(True))

    async def accept_uni(self) -> ReceiveStream:
        """The next stream on which only the peer sends."""
        number = await self._accept(False)
        stream = ReceiveStream(self, number)
        self._streams[number] = stream
        return stream

    async def close(self, reason: CloseReason = CloseReason.SHUTDOWN, detail: str = "") -> None:
        """End the connection once the peer has what is queued on the channels, or soon anyway.

        Raw streams are not waited for: finish them and wait for an answer first.
        """
        if self.closure is None:
            self._unfinished = set(self.engine.finish_channels(self.handle))
            self.kick()
            with trio.move_on_after(self.endpoint.config.close_timeout_s):
                while self._unfinished and self.closure is None:
                    if self._all_finished.is_set():
                        self._all_finished = trio.Event()
                    await self._all_finished.wait()
        self.close_now(reason, detail)
        await trio.lowlevel.checkpoint()

    def close_now(self, reason: CloseReason, detail: str = "") -> None:
        """End the connection at once; what is queued may be lost."""
        if self.closure is None:
            self.engine.close(self.handle, reason, detail[:CLOSE_DETAIL_CHARS_MAX])
            self.endpoint.connection_closed(
                self.handle,
                Closure.of(0, reason, detail[:CLOSE_DETAIL_CHARS_MAX]),
            )
            self.kick()

    @property
    def stream_count(self) -> int:
        """Open raw streams and calls."""
        return len(self._streams)

    def statistics(self) -> ConnectionStatistics:
        """Counters of the engine; zeros once the connection is gone."""
        path = self.engine.path(self.handle) or (0.0, 0.0, 0, 0, 0, 0, 0, 0, 0, 0)
        session = self.engine.session(self.handle) or self._session
        rtt_s, rtt_min_s, mtu, window, sent, lost, bytes_sent, bytes_received, holes, events = path
        key_exchange, signature, resumed, key_updates = session
        return ConnectionStatistics(
            engine=self.endpoint.config.engine,
            key_exchange=key_exchange_name(key_exchange),
            signature=signature_name(signature),
            resumed=bool(resumed),
            key_updates=key_updates,
            rtt_s=rtt_s,
            rtt_min_s=rtt_min_s,
            mtu_bytes=mtu,
            congestion_window_bytes=window,
            packets_sent=sent,
            packets_lost=lost,
            bytes_sent=bytes_sent,
            bytes_received=bytes_received,
            black_holes=holes,
            congestion_events=events,
            datagrams_dropped=self._datagrams.dropped,
            streams=len(self._streams),
            votes_queued_bytes=self._channels[ChannelKind.VOTES].queued_bytes,
            bulk_queued_bytes=self._channels[ChannelKind.BULK].queued_bytes,
        )

    def export_keying_material(self, label: bytes, context: bytes = b"", size: int = 32) -> bytes:
        """A secret that both ends of this very connection derive alike; raises
        `ConnectionEnded`."""
        try:
            return self.engine.export(self.handle, label, context, size)
        except quic.ConnectionGone:
            raise self.ended() from None

    # what the endpoint and the streams use

    def kick(self) -> None:
        """Something was queued: have it sent with the rest of this turn."""
        self.endpoint.kick()

    def ended(self) -> ConnectionEnded:
        """The error for whoever still wanted something."""
        return ConnectionEnded(self.closure or Closure.of(0, CloseReason.SHUTDOWN, ""))

    def forget(self, stream: Stream) -> None:
        """Both directions are over for us."""
        self._streams.pop(stream.number, None)

    def control_received(self, frame_type: int, body: bytes) -> None:
        """A control frame after HELLO."""
        self._control.received(frame_type, body)

    def admitted(self) -> None:
        """Both sides have agreed: what the peer should know at once."""
        self._control.tell_address()

    def moved(self, address: str) -> None:
        """The peer sends from another address, which QUIC asks it to prove (RFC 9000, section
        8.2); should it not, the connection moves back and this is called again."""
        self.remote_address = address
        self._control.tell_address()

    def datagrams_arrived(self) -> None:
        """Datagrams wait in the engine."""
        self._datagrams.arrived()

    def datagram_room(self) -> None:
        """Datagrams can be queued again."""
        self._datagrams.room()

    def stream_opened(self, number: int, kind: int) -> None:
        """The peer opened a stream."""
        if kind == StreamKind.RPC:
            stream = self._bidirectional(number)
            self.endpoint.calls.accept(self, stream)
        else:
            self._arrived[is_bidirectional(number)].append(number)
            self._news.set()

    def stream_news(self, number: int) -> None:
        """Readable or writable."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.wake()

    def stream_stopped(self, number: int) -> None:
        """The peer reads no further."""
        stream = self._streams.get(number)
        if stream is not None:
            stream.wake()
            if isinstance(stream, BidirectionalStream):
                stream.set_stopped()
        self.stream_finished(number)

    def stream_finished(self, number: int) -> None:
        """The peer has everything we sent on a finished stream."""
        self._unfinished.discard(number)
        if not self._unfinished:
            self._all_finished.set()

    def streams_available(self) -> None:
        """The peer allows more streams again."""
        self._news.set()

    def set_closed(self, closure: Closure) -> None:
        """The end, seen or made by the endpoint."""
        self.closure = closure
        self.closed.set()
        self._news.set()
        self._all_finished.set()
        self._control.ended()
        self._datagrams.ended()
        for stream in tuple(self._streams.values()):
            stream.wake()
            if isinstance(stream, BidirectionalStream):
                stream.set_stopped()
        self._streams.clear()

    def open_call_nowait(self) -> BidirectionalStream | None:
        """A stream for one call, if the peer allows one more; nothing leaves before something is
        written."""
        number = self._open_nowait(True, StreamKind.RPC)
        return None if number is None else self._bidirectional(number)

    async def open_call(self) -> BidirectionalStream:
        """A stream for one call, once the peer allows one more."""
        return self._bidirectional(await self._open(True, StreamKind.RPC))

    def _bidirectional(self, number: int) -> BidirectionalStream:
        stream = BidirectionalStream(self, number)
        self._streams[number] = stream
        return stream

    def _open_nowait(self, bidirectional: bool, kind: StreamKind) -> int | None:
        try:
            return self.engine.open(self.handle, bidirectional, kind)
        except quic.ConnectionGone:
            raise self.ended() from None

    async def _open(self, bidirectional: bool, kind: StreamKind) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            number = self._open_nowait(bidirectional, kind)
            if number is not None:
                assert is_dialler_stream(number) == self.dialled
                self.kick()
                await trio.lowlevel.cancel_shielded_checkpoint()
                return number
            await self._wait_news()

    async def _accept(self, bidirectional: bool) -> int:
        await trio.lowlevel.checkpoint_if_cancelled()
        queue = self._arrived[bidirectional]
        while not queue:
            if self.closure is not None:
                raise self.ended()
            await self._wait_news()
        number = queue.popleft()  # before other tasks run, which may wait for the same stream
        await trio.lowlevel.cancel_shielded_checkpoint()
        return number

    async def _wait_news(self) -> None:
        if self._news.is_set():
            self._news = trio.Event()
        await self._news.wait()
