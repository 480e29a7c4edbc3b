"""Door to the QUIC engine. It owns a socket: for runtimes only."""

from native._native import (
    QUIC_CAUSES,
    QUIC_EVENTS,
    QUIC_REFUSALS,
    ConnectionGone,
    DatagramsUnsupported,
    FrameTooLong,
    QueueFull,
    QuicEngine,
    StreamClosed,
    StreamReset,
    StreamStopped,
)

__all__ = [
    "QUIC_CAUSES",
    "QUIC_EVENTS",
    "QUIC_REFUSALS",
    "ConnectionGone",
    "DatagramsUnsupported",
    "FrameTooLong",
    "QueueFull",
    "QuicEngine",
    "StreamClosed",
    "StreamReset",
    "StreamStopped",
]
