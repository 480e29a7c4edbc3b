"""The `aioquic` engine: a second implementation of the wire, in Python, for comparison.

It owns one UDP socket and does nothing between turns. Limits are those of the default engine; what
it lacks is a search for the path's MTU (every packet may be as large as the configuration says), a
choice of congestion controller, a cap on the sending rate, and a wait for peers that reset many
streams.
"""

import contextlib
import ipaddress
import itertools
import json
import os
import select
import stat
import time
from collections import Counter, deque
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from aioquic._buffer import Buffer as QuicBuffer
from aioquic._buffer import BufferReadError
from aioquic.quic import events as quic
from aioquic.quic.connection import QuicConnectionState
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.logger import QLOG_VERSION, QuicFileLogger, QuicLoggerTrace
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)
from aioquic.quic.packet_builder import QuicPacketBuilder
from aioquic.quic.retry import QuicRetryTokenHandler
from aioquic.quic.stream import QuicStream
from aioquic.tls import Alert, Epoch

from native.batches import Batch
from native.quic import (
    ConnectionGone,
    DatagramsUnsupported,
    FrameTooLong,
    QueueFull,
    StreamClosed,
    StreamReset,
    StreamStopped,
)
from native.values import NodeId
from transport.core.engine import Buffer, EngineEvent, EngineSettings, Part, PathTuple, SessionTuple
from transport.core.events import (
    ENGINE_REFUSALS,
    Cause,
    CloseReason,
    EventKind,
    RefusalReason,
    StreamKind,
)
from transport.core.frames import FrameDecoder, encode_frame
from transport.core.streams import is_bidirectional, is_dialler_stream
from transport.errors import MalformedFrame
from transport.identity import Identity
from transport.limits import (
    DATAGRAMS_RECEIVED_MAX,
    MTU_BYTES_MIN,
    TRACE_EVENTS_MAX,
    UDP_PAYLOAD_BYTES_MAX,
)
from transport.runtime.engines.aioquic_sessions import Sessions
from transport.runtime.engines.aioquic_socket import Address, DatagramSocket, parsed, shown
from transport.runtime.engines.aioquic_tls import (
    X25519MLKEM768,
    Signer,
    StoqConnection,
    configuration,
    handshake_reason,
)

PACKET_BYTES_MAX: Final = 16_000  # aioquic writes lengths in two bytes: 16,383 with its headers
_ID_BYTES: Final = 8
_HANDSHAKE_WINDOW_BYTES: Final = 131_072  # HELLO, and room for another frame
_DATAGRAM_OVERHEAD_BYTES: Final = 64  # headers, packet number, tag, frame type and length
_DETAIL_BYTES_MAX: Final = 512
_STREAMS_KEPT_FACTOR: Final = 4  # ended streams wait for their reader; more is an attack
_BATCH: Final = 32
_VERSION: Final = 1
_CHANNELS: Final = (StreamKind.CONTROL, StreamKind.VOTES, StreamKind.BULK)
# What spoofed addresses can bring about, and proven ones get past.
_RETRY_FIRST: Final = (
    RefusalReason.PREFIX_CONNECTIONS_FULL,
    RefusalReason.PREFIX_HANDSHAKES_FULL,
    RefusalReason.HANDSHAKE_RATE,
)
_GRANT_SHARE: Final = 4
_PREFIX_SHARE: Final = 2
_PRIORITIES: Final = {int(StreamKind.CONTROL): 20, int(StreamKind.VOTES): 10}
# What aioquic may raise for bytes it has no name for, beside its own errors.
_NO_COMMON_VERSION: Final = "Could not find a common protocol version"  # aioquic's words
_BROKEN: Final = (AssertionError, BufferReadError, IndexError, KeyError, ValueError, Alert)


class _Inbound:
    """What has arrived on one stream."""

    __slots__ = ("buffer", "decoder", "ended", "kind", "reset", "told")

    def __init__(self, kind: int | None, decoder: FrameDecoder | None = None) -> None:
        self.kind = kind  # None: the kind byte has not arrived
        self.decoder = decoder
        self.buffer = bytearray()  # bounded by the stream's window
        self.told = False
        self.ended = False
        self.reset: int | None = None


class _Channel:
    __slots__ = ("finishing", "queue", "queued_bytes", "stream")

    def __init__(self) -> None:
        self.stream: int | None = None
        self.queue: deque[memoryview] = deque()  # bounded: channel_queue_bytes_max
        self.queued_bytes = 0
        self.finishing = False


class _Link:
    """One connection as the engine keeps it."""

    def __init__(
        self, handle: int, inner: StoqConnection, remote: Address, now: float, *, dialled: bool
    ) -> None:
        self.handle: Final = handle
        self.inner: Final = inner
        self.dialled: Final = dialled
        self.started: Final = now
        self.prefix: Final = prefix_of(remote)
        self.remote = remote
        self.heard = now
        self.spoke = now
        self.began = False  # its first Initial was sealed as it must be
        self.connected = False
        self.admitted = False
        self.closed = False
        self.key_updates = 0
        self.key_packet: int | None = None  # the first one under the newest keys
        self.bytes_sent = 0
        self.bytes_received = 0
        self.granted_bytes = 0
        self.held_bytes = 0  # of frames that have begun, beyond what every connection may
        self.inbound: dict[int, _Inbound] = {}
        self.over: set[int] = set()  # streams whose rest nobody wants
        self.blocked: set[int] = set()  # streams with a short write
        self.starved: set[bool] = set()  # directions in which a stream was refused
        self.stopped: dict[int, int] = {}
        self.finishing: dict[int, QuicStream] = {}
        self.channels: dict[int, _Channel] = {int(kind): _Channel() for kind in _CHANNELS}
        self.ids: set[bytes] = set()
        self.datagrams: deque[bytes] = deque()  # bounded: datagram_queue_bytes_max
        self.datagram_bytes = 0
        self.datagrams_told = False
        self.datagrams_full = False

    def waiting_bytes(self) -> int:
        """Bytes written that the peer has not acknowledged."""
        return sum(len(stream.sender._buffer) for stream in self.inner._streams.values())


def credit(stream: QuicStream) -> int:
    """Bytes that the peer's window of this stream has room for. What is written beyond it would
    take the room of other streams, which the peer may be waiting for."""
    return int(stream.max_stream_data_remote) - stream.sender._buffer_stop


def prefix_of(address: Address) -> str:
    """The /64 an address is in."""
    return str(ipaddress.IPv6Network((address[0].partition("%")[0], 64), strict=False))


class _PrivateTraces(QuicFileLogger):
    """Traces in files that nobody else can read and that are never written over."""

    def start_trace(self, is_client: bool, odcid: bytes) -> QuicLoggerTrace:
        """A bounded trace of a connection that begins."""
        trace = _BoundedTrace(is_client=is_client, odcid=odcid)
        self._traces.append(trace)
        return trace

    def end_trace(self, trace: QuicLoggerTrace) -> None:
        """Write the trace of a connection that has ended; a full disk must not end a node."""
        if trace not in self._traces:
            return
        self._traces.remove(trace)
        with contextlib.suppress(OSError):
            self._write(trace)

    def _write(self, trace: QuicLoggerTrace) -> None:
        told = trace.to_dict()
        document = {"qlog_format": "JSON", "qlog_version": QLOG_VERSION, "traces": [told]}
        name = f"{told['common_fields']['ODCID']}-{os.urandom(4).hex()}.qlog"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with os.fdopen(os.open(Path(self.path) / name, flags, 0o600), "w") as file:
            json.dump(document, file)


class _BoundedTrace(QuicLoggerTrace):
    """A trace that forgets what comes after its limit: it is held in memory until the end."""

    def log_event(self, *, category: str, event: str, data: dict[str, Any]) -> None:
        """One event more, while there is room."""
        if len(self._events) < TRACE_EVENTS_MAX:
            super().log_event(category=category, event=event, data=data)


class _KeyLog:
    """Where aioquic writes secrets; a full disk must not end a handshake, let alone a node."""

    def __init__(self, path: str) -> None:
        """To append to; raises `OSError` for what is no file of our own that only we can read."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
        status = os.fstat(descriptor)
        problem = None
        if not stat.S_ISREG(status.st_mode) or status.st_uid != os.geteuid():
            problem = "the key log is no file of this user's"
        elif status.st_mode & 0o077:
            problem = "the key log can be read by others; run chmod 600"
        if problem:
            os.close(descriptor)
            raise OSError(problem)
        self._file: Final = os.fdopen(descriptor, "a")

    def write(self, text: str) -> None:
        """One line."""
        with contextlib.suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """To the file."""
        with contextlib.suppress(OSError):
            self._file.flush()

    def close(self) -> None:
        """No more."""
        with contextlib.suppress(OSError):
            self._file.close()


class AioquicEngine:
    """See `transport.core.engine.Engine`."""

    def __init__(self, identity: Identity, listen: str, settings: EngineSettings) -> None:
        """Bind a socket; raises `OSError` or `native.errors.NativeError`."""
        self._settings: Final = settings
        self._signer: Final = Signer(identity.secret)
        self._packet_bytes: Final = min(settings.mtu_bytes_max, PACKET_BYTES_MAX)
        self._socket = DatagramSocket(parsed(listen), settings)
        self._epoll: Final = select.epoll()
        self._kick: Final = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._epoll.register(self._socket.fileno(), select.EPOLLIN)
        self._epoll.register(self._kick, select.EPOLLIN)
        self._writable_wanted = False
        self._key_log: _KeyLog | None = None
        if settings.key_log_path:
            self._key_log = _KeyLog(settings.key_log_path)
        self._qlog: QuicFileLogger | None = None
        if settings.qlog_folder:
            Path(settings.qlog_folder).mkdir(mode=0o700, parents=True, exist_ok=True)
            self._qlog = _PrivateTraces(settings.qlog_folder)
        self._retry: Final = QuicRetryTokenHandler()
        self._links: dict[int, _Link] = {}
        self._routes: dict[bytes, _Link] = {}
        self._dirty: dict[int, _Link] = {}
        self._numbers: Final = itertools.count(1)
        self._events: list[EngineEvent] = []
        self._unsent: deque[tuple[bytes, Address]] = deque()
        self._connections_at: Counter[str] = Counter()
        self._handshakes_at: Counter[str] = Counter()
        self._begun_at: Counter[str] = Counter()
        self._begun_second = 0
        self._retry_above = settings.handshakes_max // 2
        self._granted_bytes = 0
        self._granted_at: Counter[str] = Counter()
        self._ended: Final[dict[int, _Link]] = {}
        self._draining = False
        self._sessions: Final = Sessions() if settings.resumption else None
        self._counters: Counter[str] = Counter()
        self._refused: dict[str, int] = {reason.value: 0 for reason in ENGINE_REFUSALS}

    def __del__(self) -> None:
        """Close the descriptors; peers find out by their idle timers."""
        for closed in ("_socket", "_epoll", "_key_log"):
            owner = self.__dict__.get(closed)
            if owner is not None:
                owner.close()
        if "_kick" in self.__dict__:
            os.close(self._kick)

    # --- getters

    def fileno(self) -> int:
        """Readable when `step` has packets, a kick, or a watched descriptor."""
        return self._epoll.fileno()

    def timeout(self) -> float | None:
        """Seconds until `step` is due without packets."""
        deadlines = [at for link in self._links.values() if (at := self._deadline(link))]
        return max(0.0, min(deadlines) - time.monotonic()) if deadlines else None

    def address(self) -> str:
        """Where we listen."""
        return shown(self._socket.address)

    def remote_address(self, connection: int) -> str | None:
        """Where the peer is now."""
        link = self._links.get(connection)
        return None if link is None else shown(link.remote)

    def queued_bytes(self, connection: int, kind: int) -> int:
        """Bytes of a channel that no stream has taken yet."""
        link = self._links.get(connection)
        return 0 if link is None else link.channels[kind].queued_bytes

    def path(self, connection: int) -> PathTuple | None:
        """What the path looks like; see `PathTuple`. aioquic searches no MTU: no black holes."""
        link = self._links.get(connection)
        if link is None:
            return None
        inner, loss = link.inner, link.inner._loss
        known = loss._rtt_initialized
        return (
            loss._rtt_smoothed if known else loss._rtt_initial,
            loss._rtt_min if known else loss._rtt_initial,
            self._packet_bytes,
            loss.congestion_window,
            inner._packet_number,
            inner.packets_lost,
            link.bytes_sent,
            link.bytes_received,
            0,
            inner.congestion_events,
        )

    def session(self, connection: int) -> SessionTuple | None:
        """What the handshake agreed on."""
        link = self._links.get(connection)
        context = None if link is None else link.inner.context
        if link is None or not link.connected or context is None or context.peer is None:
            return None
        scheme = context.peer.algorithm.tls_scheme
        return X25519MLKEM768, scheme, int(context.session_resumed), link.key_updates

    def datagram_bytes_max(self, connection: int) -> int | None:
        """Largest datagram that one packet holds and the peer takes."""
        link = self._links.get(connection)
        if link is None or link.closed:
            return None
        peer = link.inner._remote_max_datagram_frame_size
        if not peer:
            return None
        return min(self._packet_bytes, peer) - _DATAGRAM_OVERHEAD_BYTES

    def statistics(self) -> dict[str, int | dict[str, int]]:
        """Counters by name; refusals under `refused`, by reason."""
        receive_buffer, send_buffer = self._socket.buffers_bytes
        names = (
            "frames_received",
            "frames_sent",
            "handshakes_completed",
            "retries_sent",
            "steps",
            "streams_throttled",
        )
        return {
            "connections": len(self._links),
            **self._socket.counted(),
            **{name: self._counters[name] for name in names},
            "memory_granted_bytes": self._granted_bytes,
            "receive_buffer_bytes": receive_buffer,
            "send_buffer_bytes": send_buffer,
            "gso_segments": self._socket.segments,
            "refused": {
                **self._refused,
                RefusalReason.REPLAYED_TICKET.value: self._sessions.refused
                if self._sessions
                else 0,
            },
        }

    def export(self, connection: int, label: bytes, context: bytes, length: int) -> bytes:
        """Channel binding (RFC 8446, section 7.5)."""
        link = self._link(connection)
        if not link.connected or link.inner.context is None:
            raise ConnectionGone
        return link.inner.context.export(label, context, length)

    # --- the turn

    def step(self, budget: int) -> tuple[bool, list[EngineEvent]]:
        """One turn: packets first, then timers, then what is to be sent."""
        self._counters["steps"] += 1
        for link in self._ended.values():  # the owner has heard of it, and read its counters
            self._forget(link)
        self._ended.clear()
        readable = False
        for fd, _ in self._epoll.poll(0):
            if fd == self._socket.fileno():
                readable = True
            elif fd == self._kick:
                with contextlib.suppress(BlockingIOError):
                    os.eventfd_read(self._kick)
            else:
                self._events.append((EventKind.WATCHED, 0, fd, 0, None))
        more = readable
        for _ in range(budget):
            if not more:
                break
            more = self._receive_batch()
            self._drive()
        self._expire(time.monotonic())
        self._drive()
        events, self._events = self._events, []
        return more, events

    def flush(self) -> None:
        """Send what is queued, without receiving."""
        self._drive()

    def kick(self) -> None:
        """Make `fileno` readable."""
        with contextlib.suppress(BlockingIOError):
            os.eventfd_write(self._kick, 1)

    def watch(self, fd: int) -> None:
        """Let `fd` wake us."""
        self._epoll.register(fd, select.EPOLLIN)

    def unwatch(self, fd: int) -> None:
        """Undo `watch`."""
        self._epoll.unregister(fd)

    # --- commands on the endpoint

    def refuse_all(self) -> None:
        """Accept nobody any more."""
        self._draining = True

    def release(self) -> None:
        """Forget every connection and give the port back."""
        for link in tuple(self._links.values()):
            self._forget(link)
        self._dirty.clear()
        self._ended.clear()
        self._unsent.clear()
        if self._socket.fileno() >= 0:
            self._epoll.unregister(self._socket.fileno())
        self._socket.close()
        self._writable_wanted = False

    def rebind(self, listen: str) -> None:
        """Move to a new socket; peers learn of it from the next packet."""
        new = DatagramSocket(parsed(listen), self._settings)
        self._epoll.register(new.fileno(), select.EPOLLIN)
        self._epoll.unregister(self._socket.fileno())
        new.take_counters(self._socket)
        self._socket.close()
        self._socket = new
        self._writable_wanted = False
        self._unsent.clear()
        for link in self._links.values():
            if link.connected and not link.closed:
                if link.dialled:
                    link.inner.change_connection_id()  # not to be followed (RFC 9000, 9.5)
                link.inner.send_ping(0)
                self._touch(link)
        self.kick()

    # --- commands on connections

    def connect(self, address: str, node_id: bytes) -> int:
        """Begin to dial."""
        remote, now = parsed(address), time.monotonic()
        inner = StoqConnection(
            configuration=self._configuration(dialling=True),
            expected=NodeId(node_id),
            sessions=self._sessions,
            patience_s=self._settings.admission_timeout_s,
        )
        inner.connect(remote, now=now)
        link = self._add(inner, remote, now, dialled=True)
        return link.handle

    def admit(self, connection: int) -> None:
        """HELLO was accepted: the peer's streams reach the owner."""
        link = self._links.get(connection)
        if link is None or link.admitted or link.closed:
            return
        self._settled(link)
        link.admitted = True
        settings = self._settings
        wanted = settings.connection_window_bytes + settings.send_window_bytes
        # All it wants while there is plenty, else a share, as `native/src/quic/guard.rs` does.
        left = max(settings.memory_bytes_max - self._granted_bytes, 0)
        more = min(max(wanted - link.granted_bytes, 0), left // _GRANT_SHARE)
        if not link.dialled:
            share = settings.memory_bytes_max // _PREFIX_SHARE - self._granted_at[link.prefix]
            more = min(more, max(share, 0) // _GRANT_SHARE)
        self._grant(link, more)
        receive = link.granted_bytes * settings.connection_window_bytes // wanted
        link.inner.configuration.max_data = max(receive, _HANDSHAKE_WINDOW_BYTES)
        for stream in tuple(link.inbound):
            self._read_inbound(link, stream)
        self._tell_datagrams(link)
        self._touch(link)
        self.kick()

    def close(self, connection: int, code: int, detail: str) -> None:
        """Close with an application code."""
        link = self._links.get(connection)
        if link is not None:
            self._close(link, code, detail, None)

    def update_key(self, connection: int) -> None:
        """Begin to use the next keys."""
        link = self._link(connection)
        space = link.inner._spaces[Epoch.ONE_RTT]
        if link.key_packet is not None and space.largest_acked_packet < link.key_packet:
            return  # the peer has not shown yet that it knows the newest keys (RFC 9001, 6.1)
        link.inner.request_key_update()
        link.inner.send_ping(0)
        link.key_packet = link.inner._packet_number
        link.key_updates += 1
        self._touch(link)

    def send_datagram(self, connection: int, data: Buffer) -> bool:
        """Queue an unreliable datagram; False when the queue is full."""
        link = self._link(connection)
        limit = self.datagram_bytes_max(connection)
        if limit is None:
            raise DatagramsUnsupported
        if len(data) > limit:
            raise FrameTooLong
        pending = link.inner._datagrams_pending
        if sum(map(len, pending)) + len(data) > self._settings.datagram_queue_bytes_max:
            link.datagrams_full = True
            return False
        link.inner.send_datagram_frame(bytes(data))
        self._touch(link)
        return True

    def receive_datagrams(self, connection: int) -> list[bytes]:
        """Every datagram that waits."""
        link = self._link(connection)
        taken = list(link.datagrams)
        link.datagrams.clear()
        link.datagram_bytes = 0
        link.datagrams_told = False
        return taken

    # --- commands on streams

    def open(self, connection: int, bidirectional: bool, kind: int) -> int | None:
        """Open a stream of the given kind; None: the peer allows no more now."""
        link = self._link(connection)
        stream = self._open(link, bidirectional, kind)
        if stream is not None and bidirectional:
            link.inbound[stream] = _Inbound(kind)
        return stream

    def write(self, connection: int, stream: int, data: Buffer, offset: int) -> int:
        """Write from `offset` on; fewer bytes than given is back-pressure."""
        link = self._link(connection)
        known = self._sender(link, stream)
        rest = memoryview(data)[offset:]
        room = self._settings.send_window_bytes - link.waiting_bytes()
        taken = max(0, min(len(rest), room, credit(known)))
        if taken:
            link.inner.send_stream_data(stream, bytes(rest[:taken]))
            self._touch(link)
        if taken < len(rest):
            link.blocked.add(stream)
        return taken

    def finish(self, connection: int, stream: int) -> bool:
        """No more will be written."""
        link = self._link(connection)
        link.finishing[stream] = self._sender(link, stream)
        link.inner.send_stream_data(stream, b"", end_stream=True)
        self._touch(link)
        return True

    def reset(self, connection: int, stream: int, code: int) -> None:
        """Abandon what was written."""
        link = self._links.get(connection)
        if link is None or link.closed or stream not in link.inner._streams:
            return
        link.finishing.pop(stream, None)
        link.blocked.discard(stream)
        with contextlib.suppress(*_BROKEN):
            link.inner.reset_stream(stream, code)
        self._touch(link)

    def stop(self, connection: int, stream: int, code: int) -> None:
        """Ask the peer to send no more."""
        link = self._links.get(connection)
        if link is None or link.closed:
            return
        inbound = link.inbound.pop(stream, None)
        link.inner.unread.pop(stream, None)
        if inbound is not None and not inbound.ended and inbound.reset is None:
            link.over.add(stream)
            with contextlib.suppress(ValueError):
                link.inner.stop_stream(stream, code)
        self._touch(link)

    def read(self, connection: int, stream: int, limit: int) -> tuple[bytes, bool]:
        """Up to `limit` bytes, and whether the stream ended after them."""
        link = self._link(connection)
        inbound = link.inbound.get(stream)
        if inbound is None or inbound.decoder is not None:
            raise StreamClosed
        data = bytes(memoryview(inbound.buffer)[:limit])
        del inbound.buffer[: len(data)]
        self._taken(link, stream, inbound)
        if inbound.buffer:
            inbound.told = False
            return data, False
        if inbound.reset is not None:
            del link.inbound[stream]
            raise StreamReset(inbound.reset)
        if inbound.ended:
            del link.inbound[stream]
            return data, True
        inbound.told = False
        return data, False

    def read_into(
        self, connection: int, stream: int, target: bytearray | memoryview
    ) -> tuple[int, bool]:
        """Fill `target` with what has arrived."""
        view = memoryview(target).cast("B")
        data, finished = self.read(connection, stream, len(view))
        view[: len(data)] = data
        return len(data), finished

    def set_priority(self, connection: int, stream: int, priority: int) -> None:
        """Streams of a higher priority are sent first."""
        link = self._links.get(connection)
        if link is not None and stream in link.inner._streams:
            link.inner.priorities[stream] = priority

    # --- commands on channels

    def send(self, connection: int, kind: int, frame_type: int, *parts: Part) -> int:
        """Queue one frame on a channel; returns the bytes that no stream has taken yet."""
        return self._send(connection, kind, self._frame(kind, frame_type, parts))

    def send_many(
        self, connections: Sequence[int], kind: int, frame_type: int, *parts: Part
    ) -> list[int]:
        """The same frame to many; returns those that did not take it."""
        frame = self._frame(kind, frame_type, parts)
        left_out = []
        for connection in connections:
            try:
                self._send(connection, kind, frame)
            except (ConnectionGone, QueueFull):
                left_out.append(connection)
        return left_out

    def finish_channels(self, connection: int) -> list[int]:
        """Finish the channels; returns the streams to wait for."""
        link = self._links.get(connection)
        if link is None or link.closed:
            return []
        waiting = []
        for kind in (StreamKind.VOTES, StreamKind.BULK):
            channel = link.channels[int(kind)]
            if channel.stream is not None:
                channel.finishing = True
                self._drain(link, int(kind))
                waiting.append(channel.stream)
        self._touch(link)
        return waiting

    # --- private: commands

    def _link(self, connection: int) -> _Link:
        link = self._links.get(connection)
        if link is None or link.closed:
            raise ConnectionGone
        return link

    def _touch(self, link: _Link) -> None:
        self._dirty[link.handle] = link

    def _refuse(self, reason: RefusalReason) -> None:
        self._refused[reason.value] += 1

    def _open(self, link: _Link, bidirectional: bool, kind: int | None) -> int | None:
        inner = link.inner
        stream = inner.get_next_available_stream_id(is_unidirectional=not bidirectional)
        allowed = inner._remote_max_streams_bidi if bidirectional else inner._remote_max_streams_uni
        if stream // 4 >= allowed:
            link.starved.add(bidirectional)
            return None
        inner.send_stream_data(stream, b"" if kind is None else bytes((kind,)))
        self._touch(link)
        return stream

    def _sender(self, link: _Link, stream: int) -> QuicStream:
        if stream in link.stopped:
            raise StreamStopped(link.stopped[stream])
        known = link.inner._streams.get(stream)
        if (
            known is None
            or known.sender.is_finished
            or known.sender._buffer_fin is not None
            or known.sender._reset_error_code is not None
        ):
            raise StreamClosed
        return known

    def _frame(self, kind: int, frame_type: int, parts: Sequence[Part]) -> bytes:
        settings = self._settings
        control = kind == StreamKind.CONTROL
        limit = settings.control_frame_bytes_max if control else settings.frame_bytes_max
        body = b"".join(part.body if isinstance(part, Batch) else bytes(part) for part in parts)
        if len(body) >= limit:
            raise FrameTooLong
        return encode_frame(frame_type, body)

    def _send(self, connection: int, kind: int, frame: bytes) -> int:
        link = self._link(connection)
        channel = link.channels[kind]
        if channel.queued_bytes + len(frame) > self._settings.channel_queue_bytes_max:
            raise QueueFull
        if channel.stream is None:
            control = kind == StreamKind.CONTROL
            stream = self._open(link, control, None if control else kind)
            if stream is None:
                raise QueueFull
            if control:
                self._control(link, stream)
            channel.stream = stream
            link.inner.priorities[stream] = _PRIORITIES.get(kind, 0)
        channel.queue.append(memoryview(frame))
        channel.queued_bytes += len(frame)
        self._counters["frames_sent"] += 1
        self._drain(link, kind)
        self._touch(link)
        return channel.queued_bytes

    def _control(self, link: _Link, stream: int) -> None:
        decoder = FrameDecoder(size_max=self._settings.control_frame_bytes_max)
        link.inbound[stream] = _Inbound(int(StreamKind.CONTROL), decoder)

    def _drain(self, link: _Link, kind: int) -> None:
        """Move what there is room for from a channel's queue into its stream."""
        channel = link.channels[kind]
        if channel.stream is None or not (channel.queue or channel.finishing):
            return
        # A full bulk channel leaves as much again to votes and to the control stream.
        factor = 1 if kind == StreamKind.BULK else 2
        room = factor * self._settings.send_window_bytes - link.waiting_bytes()
        try:
            stream = self._sender(link, channel.stream)
        except (StreamStopped, StreamClosed):
            return
        while channel.queue and room > 0:
            head = channel.queue[0]
            taken = min(len(head), room)
            link.inner.send_stream_data(channel.stream, bytes(head[:taken]))
            channel.queued_bytes -= taken
            room -= taken
            if taken == len(head):
                channel.queue.popleft()
            else:
                channel.queue[0] = head[taken:]
        if channel.finishing and not channel.queue:
            channel.finishing = False
            link.finishing[channel.stream] = stream
            link.inner.send_stream_data(channel.stream, b"", end_stream=True)

    def _close(self, link: _Link, code: int, detail: str, refusal: RefusalReason | None) -> None:
        if link.closed:
            return
        detail = detail.encode()[:_DETAIL_BYTES_MAX].decode(errors="ignore")
        link.inner.close(error_code=code, reason_phrase=detail)
        if refusal is None:
            self._mark_closed(link, Cause.LOCAL, code, detail)
        else:
            self._refuse(refusal)
            self._mark_closed(link, Cause.REFUSED, ENGINE_REFUSALS.index(refusal), detail)
        self._touch(link)

    def _mark_closed(self, link: _Link, cause: Cause, code: int, detail: str) -> None:
        if link.closed:
            return
        self._settled(link)
        link.closed = True
        link.channels = {int(kind): _Channel() for kind in _CHANNELS}
        link.inbound.clear()
        link.datagrams.clear()
        if link.connected or link.dialled:
            self._events.append((EventKind.CLOSED, link.handle, int(cause), code, detail))

    # --- private: life of a connection

    def _configuration(self, *, dialling: bool) -> Any:
        settings = self._settings
        return configuration(
            self._signer,
            dialling=dialling,
            idle_timeout=settings.idle_timeout_s,
            max_data=min(_HANDSHAKE_WINDOW_BYTES, settings.connection_window_bytes),
            max_stream_data=settings.stream_window_bytes,
            max_datagram_size=self._packet_bytes,
            max_datagram_frame_size=UDP_PAYLOAD_BYTES_MAX,
            secrets_log_file=self._key_log,
            quic_logger=self._qlog,
        )

    def _add(self, inner: StoqConnection, remote: Address, now: float, *, dialled: bool) -> _Link:
        for limit in (inner._local_max_streams_bidi, inner._local_max_streams_uni):
            limit.value = limit.sent = self._settings.streams_max
        link = _Link(next(self._numbers), inner, remote, now, dialled=dialled)
        self._grant(link, 2 * _HANDSHAKE_WINDOW_BYTES)
        inner.count_unread = partial(self._unread, link)
        self._links[link.handle] = link
        self._route(link, inner.host_cid)
        if not dialled:
            self._connections_at[link.prefix] += 1
            self._handshakes_at[link.prefix] += 1
        self._touch(link)
        return link

    def _route(self, link: _Link, cid: bytes) -> None:
        link.ids.add(cid)
        self._routes[cid] = link

    def _grant(self, link: _Link, more: int) -> None:
        link.granted_bytes += more
        self._granted_bytes += more
        if not link.dialled:
            self._granted_at[link.prefix] += more
            if not self._granted_at[link.prefix]:
                del self._granted_at[link.prefix]

    def _hold_frames(self, link: _Link) -> bool:
        """Frames that have begun lie outside of every window. False: there is no room for them."""
        pending = sum(
            inbound.decoder.pending_bytes
            for inbound in link.inbound.values()
            if inbound.decoder is not None
        )
        held = max(pending - 2 * _HANDSHAKE_WINDOW_BYTES, 0)
        more = held - link.held_bytes
        limit = self._settings.memory_bytes_max
        theirs = 0 if link.dialled else self._granted_at[link.prefix] + more
        if more > 0 and (self._granted_bytes + more > limit or theirs > limit // _PREFIX_SHARE):
            return False
        self._grant(link, more)
        link.held_bytes = held
        return True

    def _settled(self, link: _Link) -> None:
        """It counts as a handshake no more."""
        if not link.dialled and not link.admitted and not link.closed:
            self._handshakes_at[link.prefix] -= 1
            self._handshakes_at += Counter()
            if not link.began:
                return
            paths = link.inner._network_paths
            if paths and paths[0].is_validated:
                highest = self._settings.handshakes_max // 2
                self._retry_above = min(self._retry_above + 1, highest)
            else:
                self._retry_above //= 2

    def _forget(self, link: _Link) -> None:
        self._mark_closed(link, Cause.TIMED_OUT, 0, "")  # unless it was told before
        self._grant(link, -link.granted_bytes)
        trace = link.inner._quic_logger
        if trace is not None and self._qlog is not None:
            self._qlog.end_trace(trace)  # aioquic ends those of connections that began
        if not link.dialled:
            self._connections_at[link.prefix] -= 1
            self._connections_at += Counter()
        for cid in link.ids:
            self._routes.pop(cid, None)
        self._links.pop(link.handle, None)
        self._dirty.pop(link.handle, None)

    def _deadline(self, link: _Link) -> float | None:
        deadlines = [at] if (at := link.inner.get_timer()) is not None else []
        if not link.closed:
            if not link.admitted:
                deadlines.append(link.started + self._settings.admission_timeout_s)
            if link.connected:
                deadlines.append(max(link.heard, link.spoke) + self._settings.keep_alive_s)
        return min(deadlines, default=None)

    def _expire(self, now: float) -> None:
        settings = self._settings
        for link in tuple(self._links.values()):
            at = link.inner.get_timer()
            if at is not None and at <= now:
                link.inner.handle_timer(now=now)
                self._touch(link)
            if link.closed:
                continue
            if link.connected and max(link.heard, link.spoke) + settings.keep_alive_s <= now:
                link.spoke = now
                link.inner.send_ping(0)
                self._touch(link)
            if not link.admitted and link.started + settings.admission_timeout_s <= now:
                reason, detail = (
                    (RefusalReason.HELLO_TIMEOUT, "no HELLO in time")
                    if link.connected
                    else (RefusalReason.HANDSHAKE_TIMEOUT, "handshake not finished in time")
                )
                self._close(link, CloseReason.HELLO_TIMEOUT, detail, reason)

    # --- private: receiving

    def _receive_batch(self) -> bool:
        """Whether more may wait."""
        received = self._socket.receive(_BATCH)
        now = time.monotonic()
        for data, remote in received:
            self._handle(data, remote, now)
        return bool(received)

    def _handle(self, data: bytes, remote: Address, now: float) -> None:
        short = data[:1] and data[0] & 0xF0 == 0xC0 and len(data) < MTU_BYTES_MIN
        try:
            header = pull_quic_header(QuicBuffer(data=data), host_cid_length=_ID_BYTES)
        except ValueError:
            self._refuse(RefusalReason.SHORT_INITIAL if short else unrouted(data))
            return
        link = self._routes.get(header.destination_cid)
        if link is None:
            if short:
                self._refuse(RefusalReason.SHORT_INITIAL)
                return
            self._stranger(header, data, remote, now)
            return
        if short and not link.dialled:
            self._refuse(RefusalReason.SHORT_INITIAL)
            return
        self._deliver(link, data, remote, now)

    def _deliver(self, link: _Link, data: bytes, remote: Address, now: float) -> None:
        link.heard = now
        link.bytes_received += len(data)
        try:
            link.inner.receive_datagram(data, remote, now=now)
        except _BROKEN as error:
            self._close(
                link,
                CloseReason.PROTOCOL_VIOLATION,
                f"packets of no known form: {type(error).__name__}",
                RefusalReason.PROTOCOL_VIOLATION,
            )
        self._touch(link)

    def _stranger(self, header: QuicHeader, data: bytes, remote: Address, now: float) -> None:
        if header.version not in (None, 0, _VERSION):
            self._refuse(RefusalReason.OTHER_QUIC_VERSION)
            if len(data) >= MTU_BYTES_MIN:
                self._unsent_push(
                    encode_quic_version_negotiation(
                        source_cid=header.destination_cid,
                        destination_cid=header.source_cid,
                        supported_versions=[_VERSION],
                    ),
                    remote,
                )
            return
        if header.packet_type is not QuicPacketType.INITIAL:
            self._refuse(unrouted(data))
            return
        proven = False
        original, retried = header.destination_cid, None
        if header.token:
            try:
                original = self._retry.validate_token(
                    address=remote,
                    destination_cid=header.destination_cid,
                    token=header.token,
                    now=now,
                )
            except ValueError:
                self._answer(header, QuicErrorCode.INVALID_TOKEN, remote)
                self._refuse(RefusalReason.BAD_INITIAL)
                return
            proven, retried = True, header.destination_cid
        prefix = prefix_of(remote)
        refusal = self._judge(prefix, now)
        may_retry = not proven and self._settings.retry != "never"
        if refusal is not None and not (may_retry and refusal in _RETRY_FIRST):
            self._refuse(refusal)
            self._answer(header, QuicErrorCode.CONNECTION_REFUSED, remote)
            return
        if may_retry and (self._must_retry(prefix) or refusal is not None):
            source = os.urandom(_ID_BYTES)
            token = self._retry.create_token(
                address=remote,
                original_destination_connection_id=header.destination_cid,
                retry_source_connection_id=source,
                now=now,
            )
            answer = encode_quic_retry(
                version=_VERSION,
                source_cid=source,
                destination_cid=header.source_cid,
                original_destination_cid=header.destination_cid,
                retry_token=token,
            )
            self._counters["retries_sent"] += 1
            self._unsent_push(answer, remote)
            return
        inner = StoqConnection(
            configuration=self._configuration(dialling=False),
            sessions=self._sessions,
            patience_s=self._settings.admission_timeout_s,
            original_destination_connection_id=original,
            retry_source_connection_id=retried,
        )
        link = self._add(inner, remote, now, dialled=False)
        self._begun_at[link.prefix] += 1
        self._route(link, header.destination_cid)
        self._deliver(link, data, remote, now)
        space = inner._spaces.get(Epoch.INITIAL)
        if not inner._close_event and (space is None or len(space.ack_queue) == 0):
            self._refuse(RefusalReason.BAD_INITIAL)
            self._forget(link)
        else:
            link.began = True

    def _judge(self, prefix: str, now: float) -> RefusalReason | None:
        settings = self._settings
        if int(now) != self._begun_second:
            self._begun_second = int(now)
            self._begun_at.clear()
        accepted = self._connections_at.total()
        memory = self._granted_bytes + 2 * _HANDSHAKE_WINDOW_BYTES
        for full, reason in (
            (self._draining, RefusalReason.CONNECTIONS_FULL),
            (accepted >= settings.connections_max, RefusalReason.CONNECTIONS_FULL),
            (
                self._connections_at[prefix] >= settings.connections_per_prefix_max,
                RefusalReason.PREFIX_CONNECTIONS_FULL,
            ),
            (
                self._handshakes_at.total() >= settings.handshakes_max,
                RefusalReason.HANDSHAKES_FULL,
            ),
            (
                self._handshakes_at[prefix] >= settings.handshakes_per_prefix_max,
                RefusalReason.PREFIX_HANDSHAKES_FULL,
            ),
            (
                self._begun_at[prefix] >= settings.handshakes_per_s_per_prefix_max,
                RefusalReason.HANDSHAKE_RATE,
            ),
            (memory > settings.memory_bytes_max, RefusalReason.MEMORY_FULL),
        ):
            if full:
                return reason
        return None

    def _must_retry(self, prefix: str) -> bool:
        """The marks of `native/src/quic/guard.rs`: of all, tuned by what spoofing looks like, and
        half of what one network may have."""
        settings = self._settings
        if settings.retry == "auto":
            crowded = 2 * self._handshakes_at[prefix] >= settings.handshakes_per_prefix_max
            crowded |= 2 * self._connections_at[prefix] >= settings.connections_per_prefix_max
            return crowded or self._handshakes_at.total() >= self._retry_above
        return settings.retry == "always"

    def _answer(self, header: QuicHeader, code: int, remote: Address) -> None:
        """Close a connection that we do not begin, without keeping anything."""
        crypto = CryptoPair()
        crypto.setup_initial(cid=header.destination_cid, is_client=False, version=_VERSION)
        builder = QuicPacketBuilder(
            host_cid=header.destination_cid,
            is_client=False,
            max_datagram_size=MTU_BYTES_MIN,
            peer_cid=header.source_cid,
            version=_VERSION,
        )
        builder.start_packet(QuicPacketType.INITIAL, crypto)
        frame = builder.start_frame(QuicFrameType.TRANSPORT_CLOSE, capacity=16)
        frame.push_uint_var(code)
        frame.push_uint_var(QuicFrameType.PADDING)
        frame.push_uint_var(0)
        datagrams, _ = builder.flush()
        self._unsent_push(datagrams[0], remote)

    def _unsent_push(self, data: bytes, remote: Address) -> None:
        if len(self._unsent) < _BATCH:
            self._unsent.append((data, remote))

    # --- private: sending, and what connections say

    def _drive(self) -> None:
        dirty, self._dirty = self._dirty, {}
        now = time.monotonic()
        for link in dirty.values():
            self._collect(link)
            sent = link.inner.datagrams_to_send(now=now) if link.inner._network_paths else ()
            if sent:
                link.spoke = now
                link.bytes_sent += sum(len(data) for data, _ in sent)
                self._unsent.extend(sent)
            if link.datagrams_full and not link.inner._datagrams_pending and not link.closed:
                link.datagrams_full = False
                self._events.append((EventKind.DATAGRAM_ROOM, link.handle, 0, 0, None))
            if link.inner._state is QuicConnectionState.TERMINATED:
                self._mark_closed(link, Cause.TIMED_OUT, 0, "")
                self._ended[link.handle] = link
                self.kick()  # the next turn forgets it
        blocked = not self._socket.send(self._unsent)
        if blocked is not self._writable_wanted:
            self._writable_wanted = blocked
            wanted = select.EPOLLIN | (select.EPOLLOUT if blocked else 0)
            self._epoll.modify(self._socket.fileno(), wanted)

    @staticmethod
    def _unread(link: _Link) -> dict[bool, int]:
        """Streams of the peer that have ended and that nobody has read, by direction."""
        counts = {True: 0, False: 0}
        for stream in link.inbound:
            if stream not in link.inner._streams and is_dialler_stream(stream) != link.dialled:
                counts[is_bidirectional(stream)] += 1
        return counts

    def _collect(self, link: _Link) -> None:
        inner = link.inner
        while (event := inner.next_event()) is not None:
            if isinstance(event, quic.ConnectionIdIssued):
                self._route(link, event.connection_id)
            elif isinstance(event, quic.ConnectionIdRetired):
                link.ids.discard(event.connection_id)
                self._routes.pop(event.connection_id, None)
            elif not link.closed:
                self._dispatch(link, event)
        if inner._close_event is not None and not link.closed:
            self._lost(link, inner._close_event)
        if link.closed:
            return
        paths = inner._network_paths
        if paths and paths[0].addr != link.remote and paths[0].is_validated:
            link.remote = paths[0].addr
            self._events.append((EventKind.MOVED, link.handle, 0, 0, shown(link.remote)))
        self._room(link)

    def _room(self, link: _Link) -> None:
        """What acknowledgements and raised limits have made possible."""
        inner = link.inner
        for kind in link.channels:
            self._drain(link, kind)
        for stream, known in tuple(link.finishing.items()):
            if known.sender.is_finished:
                del link.finishing[stream]
                inner.priorities.pop(stream, None)
                if known.sender._reset_error_code is None:
                    self._events.append((EventKind.FINISHED, link.handle, stream, 0, None))
        if link.blocked and 2 * link.waiting_bytes() <= self._settings.send_window_bytes:
            for stream in tuple(link.blocked):
                sending = inner._streams.get(stream)
                if sending is None or credit(sending):
                    self._events.append((EventKind.WRITABLE, link.handle, stream, 0, None))
                    link.blocked.discard(stream)
        for bidirectional in tuple(link.starved):
            stream = inner.get_next_available_stream_id(is_unidirectional=not bidirectional)
            allowed = (
                inner._remote_max_streams_bidi if bidirectional else inner._remote_max_streams_uni
            )
            if stream // 4 < allowed:
                link.starved.discard(bidirectional)
                event = (EventKind.AVAILABLE, link.handle, int(bidirectional), 0, None)
                self._events.append(event)

    def _dispatch(self, link: _Link, event: quic.QuicEvent) -> None:
        if isinstance(event, quic.StreamDataReceived):
            self._arrived(link, event.stream_id, event.data, ended=event.end_stream)
        elif isinstance(event, quic.StreamReset):
            self._arrived(link, event.stream_id, b"", reset=event.error_code)
        elif isinstance(event, quic.StopSendingReceived):
            link.stopped[event.stream_id] = event.error_code
            if len(link.stopped) > 2 * self._settings.streams_max:
                link.stopped.pop(next(iter(link.stopped)))  # the oldest; its writer is long gone
            link.finishing.pop(event.stream_id, None)
            link.blocked.discard(event.stream_id)
            self._events.append(
                (EventKind.STOPPED, link.handle, event.stream_id, event.error_code, None)
            )
        elif isinstance(event, quic.HandshakeCompleted):
            context = link.inner.context
            assert context is not None
            assert context.peer is not None
            link.connected = True
            self._counters["handshakes_completed"] += 1
            spki = context.peer.spki
            self._events.append((EventKind.CONNECTED, link.handle, int(link.dialled), 0, spki))
        elif isinstance(event, quic.DatagramFrameReceived):
            limit = self._settings.datagram_queue_bytes_max
            while link.datagrams and (
                link.datagram_bytes + len(event.data) > limit
                or len(link.datagrams) >= DATAGRAMS_RECEIVED_MAX
            ):
                link.datagram_bytes -= len(link.datagrams.popleft())  # older ones are worth less
            link.datagrams.append(event.data)
            link.datagram_bytes += len(event.data)
            self._tell_datagrams(link)

    def _tell_datagrams(self, link: _Link) -> None:
        if link.admitted and link.datagrams and not link.datagrams_told:
            link.datagrams_told = True
            self._events.append((EventKind.DATAGRAM, link.handle, 0, 0, None))

    def _arrived(
        self,
        link: _Link,
        stream: int,
        data: bytes,
        *,
        ended: bool = False,
        reset: int | None = None,
    ) -> None:
        if stream in link.over:
            if ended or reset is not None:
                link.over.discard(stream)
            return
        inbound = link.inbound.get(stream)
        if inbound is None:
            if is_dialler_stream(stream) == link.dialled:
                return  # ours, and given up
            if stream == 0:
                self._control(link, stream)
                link.channels[int(StreamKind.CONTROL)].stream = stream
                link.inner.priorities[stream] = _PRIORITIES[int(StreamKind.CONTROL)]
            else:
                if len(link.inbound) >= _STREAMS_KEPT_FACTOR * self._settings.streams_max:
                    self._violation(link, "too many streams that nobody has read")
                    return
                link.inbound[stream] = _Inbound(None)
            inbound = link.inbound[stream]
        inbound.buffer += data
        inbound.ended = inbound.ended or ended
        inbound.reset = reset
        self._taken(link, stream, inbound)
        self._read_inbound(link, stream)

    def _taken(self, link: _Link, stream: int, inbound: _Inbound) -> None:
        if inbound.buffer:
            link.inner.unread[stream] = len(inbound.buffer)
        else:
            link.inner.unread.pop(stream, None)
        self._touch(link)

    def _read_inbound(self, link: _Link, stream: int) -> None:
        """Cut a channel into frames; announce the rest to the owner."""
        inbound = link.inbound.get(stream)
        if inbound is None or link.closed or not (link.admitted or stream == 0):
            return
        if inbound.kind is None and not self._label(link, stream, inbound):
            return
        if inbound.decoder is None:
            if not inbound.told:
                inbound.told = True
                self._events.append((EventKind.READABLE, link.handle, stream, 0, None))
            return
        data = bytes(inbound.buffer)
        inbound.buffer.clear()
        self._taken(link, stream, inbound)
        kind = inbound.kind
        assert kind is not None
        try:
            frames = inbound.decoder.feed(data)
        except MalformedFrame as error:
            self._violation(link, str(error))
            return
        for frame_type, body in frames:
            self._counters["frames_received"] += 1
            self._events.append((EventKind.FRAME, link.handle, kind, frame_type, body))
        if not self._hold_frames(link):
            detail = "frames that never end"
            self._close(link, CloseReason.OVERLOADED, detail, RefusalReason.MEMORY_FULL)
            return
        if inbound.ended or inbound.reset is not None:
            if kind == StreamKind.CONTROL:
                self._violation(link, "control stream ended")
            else:
                link.inbound.pop(stream, None)

    def _label(self, link: _Link, stream: int, inbound: _Inbound) -> bool:
        """Take the kind byte. False: there is nothing more to do with this stream now."""
        if not inbound.buffer:
            if inbound.ended or inbound.reset is not None:
                link.inbound.pop(stream, None)
            return False
        kind = inbound.buffer.pop(0)
        self._taken(link, stream, inbound)
        bidirectional = is_bidirectional(stream)
        inbound.kind = kind
        if kind == StreamKind.RAW or (kind == StreamKind.RPC and bidirectional):
            inbound.told = True
            self._events.append((EventKind.OPENED, link.handle, stream, kind, None))
            return False
        if kind in (StreamKind.VOTES, StreamKind.BULK) and not bidirectional:
            others = (other for other in link.inbound.values() if other.decoder is not None)
            if any(other.kind == kind for other in others):
                self._violation(link, f"second channel of kind {kind}")
                return False
            inbound.decoder = FrameDecoder(size_max=self._settings.frame_bytes_max)
            return True
        self._violation(link, f"stream of unknown kind {kind}")
        return False

    def _violation(self, link: _Link, detail: str) -> None:
        if not link.closed:
            self._refuse(RefusalReason.PROTOCOL_VIOLATION)
        self._close(link, CloseReason.PROTOCOL_VIOLATION, detail, None)

    def _lost(self, link: _Link, event: quic.ConnectionTerminated) -> None:
        code, detail = event.error_code, event.reason_phrase
        by_peer = link.inner._state is QuicConnectionState.DRAINING
        idle = link.inner._state is QuicConnectionState.TERMINATED
        if by_peer and event.frame_type is None:
            self._mark_closed(link, Cause.PEER, code, detail)
            return
        if not link.connected:
            reason = (
                RefusalReason.REFUSED_BY_PEER
                if by_peer
                else RefusalReason.OTHER_QUIC_VERSION
                if detail == _NO_COMMON_VERSION
                else RefusalReason.HANDSHAKE_TIMEOUT
                if idle
                else handshake_reason(link.inner, code)
            )
            self._refuse(reason)
            self._mark_closed(link, Cause.REFUSED, ENGINE_REFUSALS.index(reason), detail)
        elif by_peer:
            if not link.admitted:
                self._refuse(RefusalReason.REFUSED_BY_PEER)
            self._mark_closed(link, Cause.TRANSPORT, code, detail)
        elif idle:
            self._mark_closed(link, Cause.TIMED_OUT, 0, "no sign of life")
        else:
            self._mark_closed(link, Cause.TRANSPORT, code, detail)


def unrouted(data: bytes) -> RefusalReason:
    """What a datagram is if it belongs to no connection (RFC 9000, section 17)."""
    if len(data) < 5 or data[0] & 0xC0 != 0xC0:
        return RefusalReason.NOT_QUIC  # a short header of a stranger looks like anything
    version = int.from_bytes(data[1:5])
    if version == _VERSION:
        initial = data[0] & 0x30 == 0
        return RefusalReason.BAD_INITIAL if initial else RefusalReason.STRAY_PACKET
    return RefusalReason.OTHER_QUIC_VERSION if version >= 2 else RefusalReason.NOT_QUIC
