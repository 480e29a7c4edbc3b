"""The `[transport]` part of a node's configuration."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from transport import limits


class TransportConfig(BaseModel):
    """How an endpoint behaves. Every field has a default that suits a small mesh."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["rust", "aioquic"] = Field(default="rust", description="What moves packets.")
    mtu_bytes_max: (
        Annotated[int, Field(ge=limits.MTU_BYTES_MIN, le=limits.MTU_BYTES_MAX)] | Literal["link"]
    ) = Field(
        default=limits.MTU_BYTES_DEFAULT,
        description='Largest UDP payload that path MTU discovery may try. "link" takes the largest '
        "MTU of the interfaces that are up, less the headers of IPv6 and UDP.",
    )
    socket_buffer_bytes: int = Field(
        default=limits.SOCKET_BUFFER_BYTES,
        ge=65_536,
        le=1 << 30,
        description="Socket buffer asked of the kernel, each way; it may grant less.",
    )
    stream_window_bytes: int = Field(
        default=limits.STREAM_WINDOW_BYTES,
        ge=65_536,
        le=1 << 30,
        description="What a peer may send on one stream before it is read.",
    )
    connection_window_bytes: int = Field(
        default=limits.CONNECTION_WINDOW_BYTES,
        ge=65_536,
        le=1 << 30,
        description="What a peer may send on all its streams before they are read.",
    )
    send_window_bytes: int = Field(
        default=limits.SEND_WINDOW_BYTES,
        ge=65_536,
        le=1 << 30,
        description="Bytes of one connection that are sent and not acknowledged.",
    )
    channel_queue_bytes_max: int = Field(
        default=limits.CHANNEL_QUEUE_BYTES_MAX,
        ge=65_536,
        le=1 << 30,
        description="What may wait on one channel to one peer; more is refused.",
    )
    frame_size_bytes_max: int = Field(
        default=limits.FRAME_SIZE_BYTES_MAX,
        ge=1_024,
        le=1 << 28,
        description="Longest frame of a channel that is accepted.",
    )
    streams_max: int = Field(
        default=limits.STREAMS_MAX,
        ge=8,
        le=65_536,
        description="Streams of each direction that a peer may have open.",
    )
    connections_max: int = Field(
        default=limits.CONNECTIONS_MAX,
        ge=1,
        le=65_536,
        description="Connections at a time, of all peers.",
    )
    connections_per_prefix_max: int = Field(
        default=limits.CONNECTIONS_PER_PREFIX_MAX,
        ge=1,
        le=65_536,
        description="Connections at a time from one /64.",
    )
    handshakes_max: int = Field(
        default=limits.HANDSHAKES_MAX,
        ge=2,
        le=65_536,
        description="Connections at a time that are not admitted yet; half of it makes diallers "
        "prove their address.",
    )
    handshakes_per_prefix_max: int = Field(
        default=limits.HANDSHAKES_PER_PREFIX_MAX,
        ge=1,
        le=65_536,
        description="The same, from one /64.",
    )
    handshakes_per_s_per_prefix_max: int = Field(
        default=limits.HANDSHAKES_PER_S_PER_PREFIX_MAX,
        ge=1,
        le=1_000_000,
        description="Handshakes that one /64 may begin in a second.",
    )
    memory_bytes_max: int = Field(
        default=limits.MEMORY_BYTES_MAX,
        ge=1 << 20,
        le=1 << 40,
        description="What the windows of all peers together may make this process hold.",
    )
    stream_resets_per_s_max: int = Field(
        default=limits.STREAM_RESETS_PER_S_MAX,
        ge=1,
        le=1_000_000,
        description="Streams that a peer may reset in a second before its next ones wait.",
    )
    datagram_queue_bytes_max: int = Field(
        default=limits.DATAGRAM_QUEUE_BYTES_MAX,
        ge=65_536,
        le=1 << 30,
        description="Unreliable datagrams of one connection that wait, each way.",
    )
    send_rate_bytes_per_s_max: int = Field(
        default=0,
        ge=0,
        le=1 << 40,
        description="Bytes sent on one connection in a second; 0 is no bound.",
    )
    congestion: Literal["cubic", "bbr"] = Field(
        default="cubic", description="Congestion controller."
    )
    ack_frequency: bool = Field(
        default=False,
        description="Whether the peer is asked to acknowledge less often (draft-ietf-quic-ack-"
        "frequency).",
    )
    retry: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="When a dialler must prove its address first: under load, always or never.",
    )
    resumption: bool = Field(
        default=True,
        description="Whether a peer seen before may skip the signatures of the handshake; early "
        "data stays off.",
    )
    key_log_path: str = Field(
        default="",
        description="File that gets the secrets of every connection: whoever reads it reads all "
        "traffic. Empty is off.",
    )
    qlog_folder: str = Field(
        default="", description="Folder that gets a trace of every connection. Empty is off."
    )
    rpc_calls_max: int = Field(
        default=limits.RPC_CALLS_MAX,
        ge=1,
        le=65_536,
        description="Calls served at a time, of all peers.",
    )
    admission_timeout_s: float = Field(
        default=limits.ADMISSION_TIMEOUT_S,
        gt=0,
        le=60,
        description="What a handshake and HELLO may take together.",
    )
    idle_timeout_s: float = Field(
        default=limits.IDLE_TIMEOUT_S,
        ge=1,
        le=600,
        description="Silence after which a connection counts as lost.",
    )
    close_timeout_s: float = Field(
        default=limits.CLOSE_TIMEOUT_S,
        ge=0,
        le=60,
        description="How long a graceful close waits for what is queued.",
    )
    gso_segments_max: int = Field(
        default=limits.GSO_SEGMENTS_MAX,
        ge=1,
        le=64,
        description="Packets handed to the kernel in one call; 1 turns GSO off.",
    )
