//! What an engine says and is told: kinds, reasons, events, settings, counters. Data only.
use std::{net::SocketAddrV6, os::fd::RawFd, time::Duration};

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
}

impl Refusal {
    /// Stable names, in the order of the variants.
    pub const NAMES: [&'static str; 18] = [
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
    /// A frame of this size is over the limit.
    TooLong,
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
    pub handshakes_max: usize,
    pub admission_timeout: Duration,
    pub idle_timeout: Duration,
    pub keep_alive: Duration,
    pub control_frame_bytes_max: usize,
    pub frame_bytes_max: usize,
    pub channel_queue_bytes_max: usize,
    pub gso_segments_max: usize,
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
    pub refused: [u64; Refusal::NAMES.len()],
}

/// What the path of one connection looks like.
#[derive(Debug, Clone, Default)]
pub struct PathReport {
    pub rtt: Duration,
    pub mtu_bytes: u16,
    pub congestion_window_bytes: u64,
    pub packets_sent: u64,
    pub packets_lost: u64,
    pub bytes_sent: u64,
    pub bytes_received: u64,
    pub black_holes: u64,
}
