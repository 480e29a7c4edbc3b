//! What an engine says and is told: kinds, reasons, events, settings, counters. Data only.
use std::{
    net::{SocketAddr, SocketAddrV6},
    os::fd::RawFd,
    time::Duration,
};

use bytes::Bytes;

use crate::tls::HandshakeFault;

/// First byte of every stream but stream 0.
pub mod kind {
    pub const RAW: u8 = 0;
    pub const VOTES: u8 = 1;
    pub const BULK: u8 = 2;
    pub const RPC: u8 = 3;
    /// Stream 0: carries no kind byte, only frames.
    pub const CONTROL: u8 = 255;
}

/// Application close codes the engine uses itself; the full table lives above.
pub mod code {
    pub const PROTOCOL_VIOLATION: u64 = 1;
    pub const HELLO_TIMEOUT: u64 = 7;
    pub const OVERLOADED: u64 = 8;
}

/// Why a peer or its bytes never reached the application. The order is the index in
/// [`Statistics::refused`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    WrongKey,
    BadSignature,
    BadKeyEncoding,
    NoPeerKey,
    ClassicalOnly,
    NoRawKey,
    OtherProtocol,
    TlsFailure,
    NotQuic,
    OtherQuicVersion,
    StrayPacket,
    BadInitial,
    HandshakeTimeout,
    HelloTimeout,
    RefusedByPeer,
    ConnectionsFull,
    HandshakesFull,
    ProtocolViolation,
    PrefixConnectionsFull,
    PrefixHandshakesFull,
    HandshakeRate,
    MemoryFull,
    ShortInitial,
    ReplayedTicket,
    BadKeyShare,
}

impl Refusal {
    /// Stable names, in the order of the variants.
    pub const NAMES: [&'static str; 25] = [
        "wrong_key",
        "bad_signature",
        "bad_key_encoding",
        "no_peer_key",
        "classical_only",
        "no_raw_key",
        "other_protocol",
        "tls_failure",
        "not_quic",
        "other_quic_version",
        "stray_packet",
        "bad_initial",
        "handshake_timeout",
        "hello_timeout",
        "refused_by_peer",
        "connections_full",
        "handshakes_full",
        "protocol_violation",
        "prefix_connections_full",
        "prefix_handshakes_full",
        "handshake_rate",
        "memory_full",
        "short_initial",
        "replayed_ticket",
        "bad_key_share",
    ];
}

impl From<HandshakeFault> for Refusal {
    fn from(fault: HandshakeFault) -> Self {
        match fault {
            HandshakeFault::WrongKey => Self::WrongKey,
            HandshakeFault::BadSignature => Self::BadSignature,
            HandshakeFault::BadKeyEncoding => Self::BadKeyEncoding,
            HandshakeFault::NoPeerKey => Self::NoPeerKey,
            HandshakeFault::ClassicalOnly => Self::ClassicalOnly,
            HandshakeFault::NoRawKey => Self::NoRawKey,
            HandshakeFault::OtherProtocol => Self::OtherProtocol,
            HandshakeFault::BadKeyShare => Self::BadKeyShare,
            HandshakeFault::Other => Self::TlsFailure,
        }
    }
}

/// How a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// We closed it, with an application code.
    Local,
    /// The peer closed it, with an application code.
    Peer,
    /// The handshake or QUIC itself failed; the code is a [`Refusal`].
    Refused,
    /// Silence for longer than the idle timeout.
    TimedOut,
    /// The peer has forgotten the connection: it was restarted.
    Reset,
    /// QUIC failed after the handshake; the code is the transport error.
    Transport,
}

/// What happened, in the order it happened per connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The peer's key is proven; HELLO comes next.
    Connected {
        connection: u64,
        dialled: bool,
        spki: Vec<u8>,
    },
    Frame {
        connection: u64,
        kind: u8,
        frame_type: u8,
        body: Bytes,
    },
    /// The peer opened a stream whose kind is [`kind::RAW`] or [`kind::RPC`].
    Opened {
        connection: u64,
        stream: u64,
        kind: u8,
    },
    Readable {
        connection: u64,
        stream: u64,
    },
    Writable {
        connection: u64,
        stream: u64,
    },
    /// Everything sent on a finished stream has been acknowledged.
    Finished {
        connection: u64,
        stream: u64,
    },
    Stopped {
        connection: u64,
        stream: u64,
        code: u64,
    },
    /// The peer allows more streams of one direction again.
    Available {
        connection: u64,
        bidirectional: bool,
    },
    Closed {
        connection: u64,
        cause: Cause,
        code: u64,
        detail: String,
    },
    Watched {
        fd: RawFd,
    },
    /// Datagrams wait; told once until they are taken.
    Datagram {
        connection: u64,
    },
    /// The queue that refused a datagram has room again.
    DatagramRoom {
        connection: u64,
    },
    /// The peer sends from another address.
    Moved {
        connection: u64,
        address: SocketAddr,
    },
}

/// Why a command had no effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No such connection any more.
    Gone,
    /// The stream was reset by the peer, with its code.
    Reset(u64),
    /// The peer no longer wants what we send, with its code.
    Stopped(u64),
    /// The stream is not open in this direction.
    NoStream,
    /// The channel's queue is at its limit.
    Full,
    /// A frame, or a datagram, of this size is over the limit.
    TooLong,
    /// The peer takes no datagrams.
    Unsupported,
}

/// Which congestion controller sends (RFC 9438 or BBR).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Congestion {
    Cubic,
    Bbr,
}

/// When a dialler must first prove its address (RFC 9000, section 8.1.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryPolicy {
    Auto,
    Always,
    Never,
}

/// Every limit and timer of an engine; there is no default here on purpose, the owner decides.
#[derive(Debug, Clone)]
pub struct Settings {
    pub listen: SocketAddrV6,
    pub mtu_bytes_max: u16,
    pub socket_buffer_bytes: usize,
    pub stream_window_bytes: u32,
    pub connection_window_bytes: u32,
    pub send_window_bytes: u64,
    pub streams_max: u32,
    pub connections_max: usize,
    /// Per /64, as the next two: what one network may take of the whole.
    pub connections_per_prefix_max: usize,
    pub handshakes_max: usize,
    pub handshakes_per_prefix_max: usize,
    pub handshakes_per_s_per_prefix_max: u32,
    /// Bytes that all peers together may make us hold in windows and queues.
    pub memory_bytes_max: u64,
    pub stream_resets_per_s_max: u32,
    pub admission_timeout: Duration,
    pub idle_timeout: Duration,
    pub keep_alive: Duration,
    pub control_frame_bytes_max: usize,
    pub frame_bytes_max: usize,
    pub channel_queue_bytes_max: usize,
    pub datagram_queue_bytes_max: usize,
    pub gso_segments_max: usize,
    /// Per connection; 0 is no cap.
    pub send_rate_bytes_per_s_max: u64,
    pub congestion: Congestion,
    pub ack_frequency: bool,
    pub retry: RetryPolicy,
    pub resumption: bool,
    pub key_log_path: String,
    pub qlog_folder: String,
}

/// Counters since the engine started.
#[derive(Debug, Clone, Default)]
pub struct Statistics {
    pub datagrams_received: u64,
    pub receive_calls: u64,
    pub bytes_received: u64,
    pub datagrams_sent: u64,
    pub send_calls: u64,
    pub bytes_sent: u64,
    pub send_errors: u64,
    pub frames_received: u64,
    pub frames_sent: u64,
    pub handshakes_completed: u64,
    pub retries_sent: u64,
    pub steps: u64,
    /// Datagrams that carried an ECN mark.
    pub ecn_received: u64,
    /// Streams of peers that had to wait because too many were reset before.
    pub streams_throttled: u64,
    /// Bytes of windows and queues granted to peers now.
    pub memory_granted_bytes: u64,
    pub refused: [u64; Refusal::NAMES.len()],
}

/// What the path of one connection looks like.
#[derive(Debug, Clone, Default)]
pub struct PathReport {
    pub rtt: Duration,
    pub rtt_min: Duration,
    pub mtu_bytes: u16,
    pub congestion_window_bytes: u64,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub black_holes: u64,
    pub congestion_events: u64,
}

/// What the handshake of one connection agreed on.
#[derive(Debug, Clone, Copy)]
pub struct SessionReport {
    pub key_exchange: u16,
    pub signature: u16,
    pub resumed: bool,
    pub key_updates: u64,
}
