"""The Protocol of an engine: QUIC without tasks, driven by whoever owns it.

Polling order: wait until `fileno()` is readable, or `timeout()` has passed if it is not None;
`step()`; handle its events; `flush()` if handling queued anything; repeat. Commands given between
turns need a `flush()`, or they leave with the next packet only. `kick()` makes `fileno()` readable;
an engine does so itself when a `flush()` had news, or when reading the end of a stream left the
peer owed credit. An engine never calls back and never blocks.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias

from native.batches import Batch

# (EventKind, connection, a, b, payload); a and b by kind:
#   CONNECTED   a = 1 if we dialled                          payload = the peer's SPKI
#   FRAME       a = StreamKind of the channel, b = type      payload = body
#   OPENED      a = stream, b = StreamKind
#   READABLE, WRITABLE, FINISHED   a = stream
#   STOPPED     a = stream, b = the peer's code
#   AVAILABLE   a = 1 for bidirectional streams
#   CLOSED      a = Cause, b = code                          payload = detail text
#   WATCHED     a = descriptor                               connection = 0
#   DATAGRAM    datagrams wait for `receive_datagrams`, told once until it is called
#   DATAGRAM_ROOM   the datagram queue has room again after `send_datagram` gave False
#   MOVED           the peer sends from another address       payload = its text
EngineEvent: TypeAlias = tuple[int, int, int, int, bytes | str | None]
Buffer: TypeAlias = bytes | bytearray | memoryview
Part: TypeAlias = Buffer | Batch  # the body of a batch is shared, not copied
# rtt s, smallest rtt s, mtu, congestion window, packets sent, packets lost, bytes sent, bytes
# received, black holes, congestion events
PathTuple: TypeAlias = tuple[float, float, int, int, int, int, int, int, int, int]
# key exchange group (IANA), signature scheme (TLS), 1 if resumed, key updates
SessionTuple: TypeAlias = tuple[int, int, int, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineSettings:
    """Every limit and timer of an engine. No defaults on purpose: `TransportConfig` decides."""

    mtu_bytes_max: int
    socket_buffer_bytes: int
    stream_window_bytes: int
    connection_window_bytes: int
    send_window_bytes: int
    streams_max: int
    connections_max: int
    connections_per_prefix_max: int
    handshakes_max: int
    handshakes_per_prefix_max: int
    handshakes_per_s_per_prefix_max: int
    memory_bytes_max: int
    stream_resets_per_s_max: int
    admission_timeout_s: float
    idle_timeout_s: float
    keep_alive_s: float
    control_frame_bytes_max: int
    frame_bytes_max: int
    channel_queue_bytes_max: int
    datagram_queue_bytes_max: int
    gso_segments_max: int
    send_rate_bytes_per_s_max: int  # per connection; 0 is no cap
    congestion: str  # "cubic" or "bbr"
    ack_frequency: bool
    retry: str  # "auto", "always" or "never"
    resumption: bool
    key_log_path: str  # "" is off
    qlog_folder: str  # "" is off


class Engine(Protocol):
    """Getters, inputs, commands and outputs of one UDP socket."""

    # getters
    def fileno(self) -> int: ...
    def timeout(self) -> float | None: ...  # None: `fileno()` becomes readable for timers, too
    def address(self) -> str: ...
    def remote_address(self, connection: int) -> str | None: ...
    def queued_bytes(self, connection: int, kind: int) -> int: ...
    def path(self, connection: int) -> PathTuple | None: ...
    def session(self, connection: int) -> SessionTuple | None: ...
    def datagram_bytes_max(self, connection: int) -> int | None: ...  # None: peer takes none
    def statistics(self) -> dict[str, int | dict[str, int]]: ...
    def export(self, connection: int, label: bytes, context: bytes, length: int) -> bytes: ...

    # inputs and outputs
    def step(self, budget: int) -> tuple[bool, list[EngineEvent]]: ...
    def flush(self) -> None: ...
    def kick(self) -> None: ...
    def watch(self, fd: int) -> None: ...
    def unwatch(self, fd: int) -> None: ...

    # commands on the endpoint
    def refuse_all(self) -> None: ...
    def release(self) -> None: ...  # forget every connection, give the port back
    def rebind(self, listen: str) -> None: ...  # new socket; connections migrate to it

    # commands on connections
    def connect(self, address: str, node_id: bytes) -> int: ...
    def admit(self, connection: int) -> None: ...
    def close(self, connection: int, code: int, detail: str) -> None: ...
    def update_key(self, connection: int) -> None: ...
    def send_datagram(self, connection: int, data: Buffer) -> bool: ...  # False: queue is full
    def receive_datagrams(self, connection: int) -> list[bytes]: ...

    # commands on streams
    def open(self, connection: int, bidirectional: bool, kind: int) -> int | None: ...
    def write(self, connection: int, stream: int, data: Buffer, offset: int) -> int: ...
    def finish(self, connection: int, stream: int) -> bool: ...
    def reset(self, connection: int, stream: int, code: int) -> None: ...
    def stop(self, connection: int, stream: int, code: int) -> None: ...
    def read(self, connection: int, stream: int, limit: int) -> tuple[bytes, bool]: ...
    def read_into(
        self, connection: int, stream: int, target: bytearray | memoryview
    ) -> tuple[int, bool]: ...
    def set_priority(self, connection: int, stream: int, priority: int) -> None: ...

    # commands on channels
    def send(self, connection: int, kind: int, frame_type: int, *parts: Part) -> int: ...
    def send_many(
        self, connections: Sequence[int], kind: int, frame_type: int, *parts: Part
    ) -> list[int]: ...
    def finish_channels(self, connection: int) -> list[int]: ...
