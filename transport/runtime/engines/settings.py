"""What both engines are told: the configuration, with what it leaves to this room filled in."""

from transport import limits
from transport.config import TransportConfig
from transport.core.engine import EngineSettings
from transport.runtime.kernel import link_mtu_bytes


def engine_settings(config: TransportConfig) -> EngineSettings:
    """Settings of one engine."""
    return EngineSettings(
        mtu_bytes_max=link_mtu_bytes() if config.mtu_bytes_max == "link" else config.mtu_bytes_max,
        socket_buffer_bytes=config.socket_buffer_bytes,
        stream_window_bytes=config.stream_window_bytes,
        connection_window_bytes=config.connection_window_bytes,
        send_window_bytes=config.send_window_bytes,
        streams_max=config.streams_max,
        connections_max=config.connections_max,
        connections_per_prefix_max=config.connections_per_prefix_max,
        handshakes_max=config.handshakes_max,
        handshakes_per_prefix_max=config.handshakes_per_prefix_max,
        handshakes_per_s_per_prefix_max=config.handshakes_per_s_per_prefix_max,
        memory_bytes_max=config.memory_bytes_max,
        stream_resets_per_s_max=config.stream_resets_per_s_max,
        admission_timeout_s=config.admission_timeout_s,
        idle_timeout_s=config.idle_timeout_s,
        keep_alive_s=config.idle_timeout_s / 3,
        control_frame_bytes_max=limits.HELLO_SIZE_BYTES_MAX,
        frame_bytes_max=config.frame_size_bytes_max,
        channel_queue_bytes_max=config.channel_queue_bytes_max,
        datagram_queue_bytes_max=config.datagram_queue_bytes_max,
        gso_segments_max=config.gso_segments_max,
        send_rate_bytes_per_s_max=config.send_rate_bytes_per_s_max,
        congestion=config.congestion,
        ack_frequency=config.ack_frequency,
        retry=config.retry,
        resumption=config.resumption,
        key_log_path=config.key_log_path,
        qlog_folder=config.qlog_folder,
    )
