"""The `[transport]` part of a node's configuration."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from transport import limits


class TransportConfig(BaseModel):
    """How an endpoint behaves. Every field has a default that suits a small mesh."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    engine: Literal["rust"] = "rust"
    mtu_bytes_max: Annotated[int, Field(ge=limits.MTU_BYTES_MIN, le=limits.MTU_BYTES_MAX)] = (
        limits.MTU_BYTES_DEFAULT
    )
    socket_buffer_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = limits.SOCKET_BUFFER_BYTES
    stream_window_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = limits.STREAM_WINDOW_BYTES
    connection_window_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = (
        limits.CONNECTION_WINDOW_BYTES
    )
    send_window_bytes: Annotated[int, Field(ge=65_536, le=1 << 30)] = limits.SEND_WINDOW_BYTES
    channel_queue_bytes_max: Annotated[int, Field(ge=65_536, le=1 << 30)] = (
        limits.CHANNEL_QUEUE_BYTES_MAX
    )
    frame_size_bytes_max: Annotated[int, Field(ge=1_024, le=1 << 28)] = limits.FRAME_SIZE_BYTES_MAX
    streams_max: Annotated[int, Field(ge=8, le=65_536)] = limits.STREAMS_MAX
    connections_max: Annotated[int, Field(ge=1, le=65_536)] = limits.CONNECTIONS_MAX
    connections_per_prefix_max: Annotated[int, Field(ge=1, le=65_536)] = (
        limits.CONNECTIONS_PER_PREFIX_MAX
    )
    handshakes_max: Annotated[int, Field(ge=2, le=65_536)] = limits.HANDSHAKES_MAX
    handshakes_per_prefix_max: Annotated[int, Field(ge=1, le=65_536)] = (
        limits.HANDSHAKES_PER_PREFIX_MAX
    )
    handshakes_per_s_per_prefix_max: Annotated[int, Field(ge=1, le=1_000_000)] = (
        limits.HANDSHAKES_PER_S_PER_PREFIX_MAX
    )
    memory_bytes_max: Annotated[int, Field(ge=1 << 20, le=1 << 40)] = limits.MEMORY_BYTES_MAX
    stream_resets_per_s_max: Annotated[int, Field(ge=1, le=1_000_000)] = (
        limits.STREAM_RESETS_PER_S_MAX
    )
    datagram_queue_bytes_max: Annotated[int, Field(ge=65_536, le=1 << 30)] = (
        limits.DATAGRAM_QUEUE_BYTES_MAX
    )
    send_rate_bytes_per_s_max: Annotated[int, Field(ge=0, le=1 << 40)] = 0
    congestion: Literal["cubic", "bbr"] = "cubic"
    ack_frequency: bool = False
    retry: Literal["auto", "always", "never"] = "auto"
    resumption: bool = True
    key_log_path: str = ""
    qlog_folder: str = ""
    rpc_calls_max: Annotated[int, Field(ge=1, le=65_536)] = limits.RPC_CALLS_MAX
    admission_timeout_s: Annotated[float, Field(gt=0, le=60)] = limits.ADMISSION_TIMEOUT_S
    idle_timeout_s: Annotated[float, Field(ge=1, le=600)] = limits.IDLE_TIMEOUT_S
    close_timeout_s: Annotated[float, Field(ge=0, le=60)] = limits.CLOSE_TIMEOUT_S
    gso_segments_max: Annotated[int, Field(ge=1, le=64)] = limits.GSO_SEGMENTS_MAX
