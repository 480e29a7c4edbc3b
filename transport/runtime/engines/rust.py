"""The default engine: quinn and rustls inside the extension."""

from native.quic import QuicEngine
from transport import limits
from transport.config import TransportConfig
from transport.core.engine import Engine
from transport.identity import Identity


def rust_engine(identity: Identity, listen: str, config: TransportConfig) -> Engine:
    """Bind a socket; raises `OSError` or `native.errors.NativeError`."""
    return QuicEngine(
        identity.signer,
        listen,
        mtu_bytes_max=config.mtu_bytes_max,
        socket_buffer_bytes=config.socket_buffer_bytes,
        stream_window_bytes=config.stream_window_bytes,
        connection_window_bytes=config.connection_window_bytes,
        send_window_bytes=config.send_window_bytes,
        streams_max=config.streams_max,
        connections_max=config.connections_max,
        handshakes_max=config.handshakes_max,
        admission_timeout_s=config.admission_timeout_s,
        idle_timeout_s=config.idle_timeout_s,
        keep_alive_s=config.idle_timeout_s / 3,
        control_frame_bytes_max=limits.HELLO_SIZE_BYTES_MAX,
        frame_bytes_max=config.frame_size_bytes_max,
        channel_queue_bytes_max=config.channel_queue_bytes_max,
        gso_segments_max=config.gso_segments_max,
    )
