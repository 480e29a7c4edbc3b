//! The `rust` engine: many QUIC connections over one UDP socket, without a thread of its own.
//!
//! The owner calls [`Engine::step`] whenever [`Engine::fileno`] is readable and gets a list of what
//! happened. One epoll descriptor covers packets, timers, [`Engine::kick`] and whatever else the
//! owner [`watches`](Engine::watch), so that a loop waits in one place. Commands (`open`, `write`,
//! `send`, `close`, ...) only change state: datagrams leave in the next `step` or `flush`, which is
//! what lets everything queued in one turn share packets.
//!
//! Until a connection is *admitted* its owner sees nothing of the peer but the control stream. The
//! engine closes what is not admitted in time.
//!
//! Surprise: connections are named by numbers that are never used twice, so a stale command
//! addresses nobody rather than a stranger.
use std::{
    collections::{HashMap, VecDeque},
    io,
    net::{SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{
    ConnectionError, ConnectionHandle, ConnectionId, ConnectionIdGenerator as _, DatagramEvent,
    Dir, EcnCodepoint, EndpointConfig, FinishError, HashedConnectionIdGenerator, IdleTimeout,
    Incoming, MtuDiscoveryConfig, NoneTokenStore, ReadError, Side, StreamEvent, StreamId, Transmit,
    TransportConfig, VarInt, WriteError,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::pki_types::CertificateDer;

use crate::{
    frame::{self, Splitter},
    tls::{self, HandshakeFault, Identity, NodeId},
};

/// One receive buffer must hold a whole GRO super-datagram; `recvmmsg` fills a batch of them.
const DATAGRAM_BYTES_MAX: usize = 65_536;
const RECEIVE_BATCH: usize = 32;
/// `sendmsg` refuses a GSO batch above this, silently losing it (reference, section 15.1).
const GSO_BYTES_MAX: usize = 65_507;
/// Transport parameter: the largest datagram we are willing to receive.
const UDP_PAYLOAD_BYTES_MAX: u16 = 65_527;
/// Smallest QUIC path MTU: where every connection starts.
const MTU_BYTES_MIN: u16 = 1_200;
/// Below this, the parts of a frame are joined into one buffer rather than chained.
const FRAME_JOIN_BYTES_MAX: usize = 4_096;
/// How much of a peer's closing words is kept.
const DETAIL_BYTES_MAX: usize = 512;
const EPOLL_EVENTS: usize = 64;
/// Length of the ids that quinn's hashed generator makes.
const CONNECTION_ID_BYTES: usize = 8;

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

#[derive(Debug)]
enum Inbound {
    /// The kind byte has not arrived.
    Unknown,
    /// Read here and cut into frames.
    Framed(u8, Splitter),
    /// Read by the owner, who is told once until it reads again: quinn reports every packet.
    Owned { told: bool },
}

#[derive(Debug, Default)]
struct Channel {
    stream: Option<StreamId>,
    queue: VecDeque<Bytes>,
    queued_bytes: usize,
}

struct Link {
    id: u64,
    inner: quinn_proto::Connection,
    started: Instant,
    dialled: bool,
    connected: bool,
    admitted: bool,
    closed: bool,
    dirty: bool,
    inbound: HashMap<StreamId, Inbound>,
    /// Streams we opened whose kind byte is not yet written.
    unlabelled: HashMap<StreamId, u8>,
    channels: [Channel; 3],
    readable: Vec<StreamId>,
}

fn channel_index(kind: u8) -> usize {
    match kind {
        kind::VOTES => 1,
        kind::BULK => 2,
        _ => 0,
    }
}

fn stream_number(id: StreamId) -> u64 {
    VarInt::from(id).into_inner()
}

fn stream_id(number: u64) -> Option<StreamId> {
    VarInt::from_u64(number).ok().map(StreamId::from)
}

fn text(reason: &[u8]) -> String {
    String::from_utf8_lossy(&reason[..reason.len().min(DETAIL_BYTES_MAX)]).into_owned()
}

impl Link {
    fn open(&mut self, dir: Dir, label: Option<u8>) -> Option<StreamId> {
        let id = self.inner.streams().open(dir)?;
        if let Some(label) = label {
            self.unlabelled.insert(id, label);
            let _ = self.label(id); // no room: paid with the first write
        }
        Some(id)
    }

    /// Write the kind byte if it is still owed. `false`: no room yet.
    fn label(&mut self, id: StreamId) -> Result<bool, WriteError> {
        let Some(kind) = self.unlabelled.get(&id) else {
            return Ok(true);
        };
        match self.inner.send_stream(id).write(&[*kind]) {
            Ok(1) => {
                self.unlabelled.remove(&id);
                Ok(true)
            }
            Ok(_) | Err(WriteError::Blocked) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Move as much of a channel's queue into its stream as flow control takes.
    fn drain(&mut self, index: usize) {
        let Some(id) = self.channels[index].stream else {
            return;
        };
        if self.channels[index].queue.is_empty() || !matches!(self.label(id), Ok(true)) {
            return;
        }
        let channel = &mut self.channels[index];
        while !channel.queue.is_empty() {
            let chunks = channel.queue.make_contiguous();
            let Ok(written) = self.inner.send_stream(id).write_chunks(chunks) else {
                break;
            };
            channel.queue.drain(..written.chunks);
            channel.queued_bytes -= written.bytes;
        }
    }
}

/// Owned descriptors of the engine's wait set.
struct Poller {
    epoll: OwnedFd,
    kick: OwnedFd,
    timer: OwnedFd,
    armed: Option<Instant>,
    want_write: bool,
}

fn owned(fd: RawFd) -> io::Result<OwnedFd> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the caller just got this descriptor from the kernel and gives it away here.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn ok(result: libc::c_int) -> io::Result<()> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

impl Poller {
    fn new(socket: RawFd) -> io::Result<Self> {
        // SAFETY: plain system calls without pointers.
        let (epoll, kick, timer) = unsafe {
            (
                owned(libc::epoll_create1(libc::EPOLL_CLOEXEC))?,
                owned(libc::eventfd(0, libc::EFD_NONBLOCK | libc::EFD_CLOEXEC))?,
                owned(libc::timerfd_create(
                    libc::CLOCK_MONOTONIC,
                    libc::TFD_NONBLOCK | libc::TFD_CLOEXEC,
                ))?,
            )
        };
        let poller = Self {
            epoll,
            kick,
            timer,
            armed: None,
            want_write: false,
        };
        poller.control(libc::EPOLL_CTL_ADD, socket, libc::EPOLLIN)?;
        poller.control(libc::EPOLL_CTL_ADD, poller.kick.as_raw_fd(), libc::EPOLLIN)?;
        poller.control(libc::EPOLL_CTL_ADD, poller.timer.as_raw_fd(), libc::EPOLLIN)?;
        Ok(poller)
    }

    fn control(&self, operation: libc::c_int, fd: RawFd, events: libc::c_int) -> io::Result<()> {
        #[allow(clippy::cast_sign_loss)]
        let mut event = libc::epoll_event {
            events: events as u32,
            u64: fd as u64,
        };
        // SAFETY: `event` lives across the call; the kernel copies it.
        ok(unsafe { libc::epoll_ctl(self.epoll.as_raw_fd(), operation, fd, &raw mut event) })
    }

    fn ready(&self) -> Vec<RawFd> {
        let mut events = [libc::epoll_event { events: 0, u64: 0 }; EPOLL_EVENTS];
        // SAFETY: the array outlives the call and its length is given.
        let count = unsafe {
            libc::epoll_wait(
                self.epoll.as_raw_fd(),
                events.as_mut_ptr(),
                EPOLL_EVENTS as i32,
                0,
            )
        };
        #[allow(clippy::cast_possible_truncation)]
        events[..usize::try_from(count).unwrap_or(0)]
            .iter()
            .map(|event| event.u64 as RawFd)
            .collect()
    }

    /// Read the counter of an eventfd or timerfd, so that it is no longer readable.
    fn clear(fd: &OwnedFd) {
        let mut counter = 0u64;
        // SAFETY: reads eight bytes into an eight-byte integer; an error means there was nothing.
        unsafe { libc::read(fd.as_raw_fd(), (&raw mut counter).cast(), 8) };
    }

    fn kick(&self) {
        let one = 1u64;
        // SAFETY: writes eight bytes from an eight-byte integer; a full counter is awake anyway.
        unsafe { libc::write(self.kick.as_raw_fd(), (&raw const one).cast(), 8) };
    }

    /// Wake at `deadline` or earlier: a wake-up too many is cheaper than a system call per turn.
    fn arm(&mut self, deadline: Option<Instant>, now: Instant) {
        let Some(deadline) = deadline else { return };
        if self.armed.is_some_and(|armed| armed <= deadline) {
            return;
        }
        let wait = deadline
            .saturating_duration_since(now)
            .max(Duration::from_nanos(1));
        let spec = libc::itimerspec {
            it_interval: libc::timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: libc::timespec {
                tv_sec: wait.as_secs().try_into().unwrap_or(libc::time_t::MAX),
                tv_nsec: wait.subsec_nanos().into(),
            },
        };
        // SAFETY: `spec` lives across the call and the old value is not asked for.
        unsafe {
            libc::timerfd_settime(
                self.timer.as_raw_fd(),
                0,
                &raw const spec,
                std::ptr::null_mut(),
            )
        };
        self.armed = Some(deadline);
    }
}

/// See the module.
pub struct Engine {
    socket: UdpSocket,
    state: quinn_udp::UdpSocketState,
    endpoint: quinn_proto::Endpoint,
    /// Recognises connection ids this key has made, also before a restart.
    ids: HashedConnectionIdGenerator,
    identity: Arc<Identity>,
    settings: Settings,
    transport: Arc<TransportConfig>,
    poller: Poller,
    /// Indexed by quinn's connection handle.
    links: Vec<Option<Box<Link>>>,
    handles: HashMap<u64, usize>,
    next_id: u64,
    handshaking: usize,
    dirty: Vec<usize>,
    receive_buffer: Vec<u8>,
    send_buffer: Vec<u8>,
    unsent: VecDeque<(Transmit, Vec<u8>)>,
    events: Vec<Event>,
    statistics: Statistics,
    draining: bool,
}

fn transport_config(settings: &Settings) -> TransportConfig {
    let mut config = TransportConfig::default();
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(settings.mtu_bytes_max);
    config
        .stream_receive_window(settings.stream_window_bytes.into())
        .receive_window(settings.connection_window_bytes.into())
        .send_window(settings.send_window_bytes)
        .max_concurrent_bidi_streams(settings.streams_max.into())
        .max_concurrent_uni_streams(settings.streams_max.into())
        .initial_mtu(MTU_BYTES_MIN)
        .mtu_discovery_config((settings.mtu_bytes_max > MTU_BYTES_MIN).then_some(discovery))
        .initial_rtt(Duration::from_millis(50))
        .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok())
        .keep_alive_interval(Some(settings.keep_alive))
        .datagram_receive_buffer_size(None);
    config
}

fn io_error(error: impl std::fmt::Display) -> io::Error {
    io::Error::other(error.to_string())
}

impl Engine {
    /// Bind the socket. Nothing is sent or accepted before the first [`step`](Self::step).
    ///
    /// # Errors
    /// When the address cannot be bound or the kernel lacks a descriptor kind.
    pub fn new(identity: Arc<Identity>, settings: Settings) -> io::Result<Self> {
        // First use of the generator costs tens of ms per process: not in someone's handshake.
        aws_lc_rs::rand::fill(&mut [0; 32]).map_err(io_error)?;
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
        socket.set_only_v6(true)?;
        socket.set_recv_buffer_size(settings.socket_buffer_bytes)?;
        socket.set_send_buffer_size(settings.socket_buffer_bytes)?;
        socket.bind(&SocketAddr::V6(settings.listen).into())?;
        socket.set_nonblocking(true)?;
        let socket: UdpSocket = socket.into();
        let state = quinn_udp::UdpSocketState::new((&socket).into())?;
        let transport = Arc::new(transport_config(&settings));
        let tls = tls::server_config(&identity).map_err(io_error)?;
        let crypto = QuicServerConfig::try_from(tls).map_err(io_error)?;
        let mut server = quinn_proto::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(transport.clone());
        server.max_incoming(settings.handshakes_max);
        let reset = aws_lc_rs::hmac::Key::new(
            aws_lc_rs::hmac::HMAC_SHA256,
            &identity.derive(b"hypermesh/stateless-reset/v1"),
        );
        let seed = identity.derive(b"hypermesh/connection-id/v1");
        let seed = u64::from_be_bytes(*seed.first_chunk().unwrap_or(&[0; 8]));
        let mut config = EndpointConfig::new(Arc::new(reset));
        config
            .max_udp_payload_size(UDP_PAYLOAD_BYTES_MAX)
            .map_err(io_error)?;
        config.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(seed)));
        let ids = HashedConnectionIdGenerator::from_key(seed);
        let endpoint = quinn_proto::Endpoint::new(
            Arc::new(config),
            Some(Arc::new(server)),
            !state.may_fragment(),
            None,
        );
        let poller = Poller::new(socket.as_raw_fd())?;
        Ok(Self {
            socket,
            state,
            endpoint,
            ids,
            identity,
            settings,
            transport,
            poller,
            links: Vec::new(),
            handles: HashMap::new(),
            next_id: 1,
            handshaking: 0,
            dirty: Vec::new(),
            receive_buffer: vec![0; RECEIVE_BATCH * DATAGRAM_BYTES_MAX],
            send_buffer: Vec::with_capacity(DATAGRAM_BYTES_MAX),
            unsent: VecDeque::new(),
            events: Vec::new(),
            statistics: Statistics::default(),
            draining: false,
        })
    }

    // --- what the owner asks

    /// Readable when [`step`](Self::step) has something to do.
    #[must_use]
    pub fn fileno(&self) -> RawFd {
        self.poller.epoll.as_raw_fd()
    }

    /// Where we listen, with the port the kernel chose.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    #[must_use]
    pub fn statistics(&self) -> &Statistics {
        &self.statistics
    }

    /// Granted receive and send buffer, in bytes: the kernel may give less than was asked for.
    ///
    /// # Errors
    /// When the kernel does not tell.
    pub fn socket_buffers(&self) -> io::Result<(usize, usize)> {
        let receive = self.state.recv_buffer_size((&self.socket).into())?;
        Ok((receive, self.state.send_buffer_size((&self.socket).into())?))
    }

    /// How many segments one send call may carry; 1 when the kernel has no GSO.
    #[must_use]
    pub fn gso_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    #[must_use]
    pub fn connections(&self) -> usize {
        self.handles.len()
    }

    /// Path of one connection.
    #[must_use]
    pub fn path(&self, connection: u64) -> Option<PathReport> {
        let link = self.links.get(*self.handles.get(&connection)?)?.as_ref()?;
        let stats = link.inner.stats();
        Some(PathReport {
            rtt: stats.path.rtt,
            mtu_bytes: stats.path.current_mtu,
            congestion_window_bytes: stats.path.cwnd,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            black_holes: stats.path.black_holes_detected,
        })
    }

    #[must_use]
    pub fn remote_address(&self, connection: u64) -> Option<SocketAddr> {
        let link = self.links.get(*self.handles.get(&connection)?)?.as_ref()?;
        Some(link.inner.remote_address())
    }

    /// Bytes of a channel that flow control has not taken yet.
    #[must_use]
    pub fn queued_bytes(&self, connection: u64, kind: u8) -> usize {
        self.handles
            .get(&connection)
            .and_then(|handle| self.links.get(*handle)?.as_ref())
            .map_or(0, |link| link.channels[channel_index(kind)].queued_bytes)
    }

    /// Secret both ends of one connection derive alike (RFC 8446, section 7.5): channel binding.
    ///
    /// # Errors
    /// [`Fault::Gone`] without a finished handshake.
    pub fn export(
        &self,
        connection: u64,
        label: &[u8],
        context: &[u8],
        output: &mut [u8],
    ) -> Result<(), Fault> {
        let handle = self.handles.get(&connection).ok_or(Fault::Gone)?;
        let link = self.links[*handle]
            .as_ref()
            .filter(|link| link.connected)
            .ok_or(Fault::Gone)?;
        let session = link.inner.crypto_session();
        session
            .export_keying_material(output, label, context)
            .map_err(|_| Fault::Gone)
    }

    // --- what the owner commands

    /// Make the descriptor readable: something was queued outside a turn.
    pub fn kick(&self) {
        self.poller.kick();
    }

    /// Let a foreign descriptor wake us; it is reported as [`Event::Watched`] while readable.
    ///
    /// # Errors
    /// When epoll does not take the descriptor.
    pub fn watch(&self, fd: RawFd) -> io::Result<()> {
        self.poller.control(libc::EPOLL_CTL_ADD, fd, libc::EPOLLIN)
    }

    /// Undo [`watch`](Self::watch).
    ///
    /// # Errors
    /// When the descriptor was not watched.
    pub fn unwatch(&self, fd: RawFd) -> io::Result<()> {
        self.poller.control(libc::EPOLL_CTL_DEL, fd, 0)
    }

    /// Begin to dial; [`Event::Connected`] or [`Event::Closed`] tells the outcome.
    ///
    /// # Errors
    /// When the address cannot be dialled at all.
    pub fn connect(&mut self, address: SocketAddrV6, expected: NodeId) -> io::Result<u64> {
        let tls = tls::client_config(&self.identity, expected).map_err(io_error)?;
        let crypto = QuicClientConfig::try_from(tls).map_err(io_error)?;
        let mut config = quinn_proto::ClientConfig::new(Arc::new(crypto));
        config.transport_config(self.transport.clone());
        config.token_store(Arc::new(NoneTokenStore));
        let now = Instant::now();
        let (handle, inner) = self
            .endpoint
            .connect(now, config, address.into(), "stoq.invalid")
            .map_err(io_error)?;
        Ok(self.add(handle, inner, true, now))
    }

    /// HELLO was accepted: from now on the peer's streams reach the owner.
    pub fn admit(&mut self, connection: u64) {
        let Some(handle) = self.handles.get(&connection).copied() else {
            return;
        };
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        if link.admitted || link.closed {
            return;
        }
        link.admitted = true;
        self.handshaking = self.handshaking.saturating_sub(1);
        link.readable.extend(link.inbound.keys().copied());
        self.touch(handle);
        self.poller.kick();
    }

    /// Close with an application code and words for the peer's operator.
    pub fn close(&mut self, connection: u64, code: u64, detail: &str) {
        let Some(handle) = self.handles.get(&connection).copied() else {
            return;
        };
        self.close_link(handle, code, detail, None);
    }

    /// Accept nobody any more.
    pub fn refuse_all(&mut self) {
        self.draining = true;
    }

    /// Open a stream of the given kind. `None`: the peer allows no more now.
    ///
    /// # Errors
    /// [`Fault::Gone`].
    pub fn open(
        &mut self,
        connection: u64,
        bidirectional: bool,
        kind: Option<u8>,
    ) -> Result<Option<u64>, Fault> {
        let link = self.link(connection)?;
        let dir = if bidirectional { Dir::Bi } else { Dir::Uni };
        let opened = link.open(dir, kind);
        if let Some(id) = opened
            && bidirectional
        {
            link.inbound.insert(id, Inbound::Owned { told: false });
        }
        let opened = opened.map(stream_number);
        self.touch_id(connection);
        Ok(opened)
    }

    /// Write to a stream; fewer bytes than given is back-pressure ([`Event::Writable`] follows).
    ///
    /// # Errors
    /// When the connection or this direction of the stream is over.
    pub fn write(&mut self, connection: u64, stream: u64, data: &[u8]) -> Result<usize, Fault> {
        let link = self.link(connection)?;
        let id = stream_id(stream).ok_or(Fault::NoStream)?;
        let labelled = link.label(id);
        let result = match labelled {
            Ok(true) => link.inner.send_stream(id).write(data),
            Ok(false) => Ok(0),
            Err(error) => Err(error),
        };
        match result {
            Ok(written) => {
                self.touch_id(connection);
                Ok(written)
            }
            Err(WriteError::Blocked) => Ok(0),
            Err(WriteError::Stopped(code)) => Err(Fault::Stopped(code.into_inner())),
            Err(WriteError::ClosedStream) => Err(Fault::NoStream),
        }
    }

    /// No more will be written. `false`: the kind byte has no room yet, try again when writable.
    ///
    /// # Errors
    /// When the connection or this direction of the stream is over.
    pub fn finish(&mut self, connection: u64, stream: u64) -> Result<bool, Fault> {
        let link = self.link(connection)?;
        let id = stream_id(stream).ok_or(Fault::NoStream)?;
        match link.label(id) {
            Ok(true) => {}
            Ok(false) => return Ok(false),
            Err(WriteError::Stopped(code)) => return Err(Fault::Stopped(code.into_inner())),
            Err(_) => return Err(Fault::NoStream),
        }
        let result = link.inner.send_stream(id).finish();
        self.touch_id(connection);
        match result {
            Ok(()) => Ok(true),
            Err(FinishError::Stopped(code)) => Err(Fault::Stopped(code.into_inner())),
            Err(FinishError::ClosedStream) => Err(Fault::NoStream),
        }
    }

    /// Abandon what was written; the peer sees the code. Does nothing to a stream that is over.
    pub fn reset(&mut self, connection: u64, stream: u64, code: u64) {
        if let (Ok(link), Some(id)) = (self.link(connection), stream_id(stream)) {
            link.unlabelled.remove(&id);
            let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
            let _ = link.inner.send_stream(id).reset(code);
            self.touch_id(connection);
        }
    }

    /// Ask the peer to send no more on a stream. Does nothing to a stream that is over.
    pub fn stop(&mut self, connection: u64, stream: u64, code: u64) {
        if let (Ok(link), Some(id)) = (self.link(connection), stream_id(stream)) {
            let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
            let _ = link.inner.recv_stream(id).stop(code);
            link.inbound.remove(&id);
            self.touch_id(connection);
        }
    }

    /// Take up to `limit` received bytes, as they lie, and whether the stream ended after them.
    ///
    /// # Errors
    /// When the connection is gone, the peer reset the stream, or it is not readable at all.
    pub fn read(
        &mut self,
        connection: u64,
        stream: u64,
        limit: usize,
    ) -> Result<(Vec<Bytes>, bool), Fault> {
        let link = self.link(connection)?;
        let id = stream_id(stream).ok_or(Fault::NoStream)?;
        let (chunks, end, transmit) = read_chunks(&mut link.inner, id, limit)?;
        match end {
            End::Finished | End::Reset(_) => drop(link.inbound.remove(&id)),
            End::Blocked | End::Limit => {
                link.inbound.insert(id, Inbound::Owned { told: false });
            }
        }
        if transmit {
            self.touch_id(connection);
        }
        match end {
            End::Reset(code) if chunks.is_empty() => Err(Fault::Reset(code)),
            _ => Ok((chunks, matches!(end, End::Finished))),
        }
    }

    /// Queue one frame on a channel, opening its stream at first use. Returns the bytes that flow
    /// control has not taken yet.
    ///
    /// # Errors
    /// [`Fault::Full`] and [`Fault::TooLong`] leave the channel as it was.
    pub fn send(
        &mut self,
        connection: u64,
        kind: u8,
        frame_type: u8,
        parts: &[Bytes],
    ) -> Result<usize, Fault> {
        let body: usize = parts.iter().map(Bytes::len).sum();
        let limit = match kind {
            kind::CONTROL => self.settings.control_frame_bytes_max,
            _ => self.settings.frame_bytes_max,
        };
        let header = frame::header(frame_type, body).filter(|_| body < limit);
        let header = header.ok_or(Fault::TooLong)?;
        let queue_max = self.settings.channel_queue_bytes_max;
        let link = self.link(connection)?;
        let index = channel_index(kind);
        let total = header.len() + body;
        if link.channels[index].queued_bytes + total > queue_max {
            return Err(Fault::Full);
        }
        if link.channels[index].stream.is_none() {
            let (dir, label, priority) = match kind {
                kind::CONTROL => (Dir::Bi, None, 20),
                kind::VOTES => (Dir::Uni, Some(kind), 10),
                _ => (Dir::Uni, Some(kind), 0),
            };
            let id = link.open(dir, label).ok_or(Fault::Full)?;
            let _ = link.inner.send_stream(id).set_priority(priority);
            if kind == kind::CONTROL {
                let limit = self.settings.control_frame_bytes_max;
                self.link(connection)?
                    .inbound
                    .insert(id, Inbound::Framed(kind::CONTROL, Splitter::new(limit)));
            }
            self.link(connection)?.channels[index].stream = Some(id);
        }
        let link = self.link(connection)?;
        let channel = &mut link.channels[index];
        if total <= FRAME_JOIN_BYTES_MAX {
            let mut joined = BytesMut::with_capacity(total);
            joined.extend_from_slice(&header);
            parts.iter().for_each(|part| joined.extend_from_slice(part));
            channel.queue.push_back(joined.freeze());
        } else {
            channel.queue.push_back(Bytes::copy_from_slice(&header));
            channel
                .queue
                .extend(parts.iter().filter(|part| !part.is_empty()).cloned());
        }
        channel.queued_bytes += total;
        link.drain(index);
        let queued = link.channels[index].queued_bytes;
        self.statistics.frames_sent += 1;
        self.touch_id(connection);
        Ok(queued)
    }

    /// Finish the channels; [`Event::Finished`] comes for each once the peer has everything.
    /// Returns the streams to wait for.
    pub fn finish_channels(&mut self, connection: u64) -> Vec<u64> {
        let Ok(link) = self.link(connection) else {
            return Vec::new();
        };
        let mut waiting = Vec::new();
        for index in 1..link.channels.len() {
            link.drain(index);
            if let Some(id) = link.channels[index].stream
                && link.channels[index].queue.is_empty()
                && link.inner.send_stream(id).finish().is_ok()
            {
                waiting.push(stream_number(id));
            }
        }
        self.touch_id(connection);
        waiting
    }

    // --- the turn

    /// Do everything that is due: timers, up to `budget` receive batches, sending. Returns whether
    /// more is waiting already and appends what happened to `events`.
    pub fn step(&mut self, budget: usize, events: &mut Vec<Event>) -> bool {
        self.statistics.steps += 1;
        let mut readable = false;
        for fd in self.poller.ready() {
            if fd == self.socket.as_raw_fd() {
                readable = true;
            } else if fd == self.poller.kick.as_raw_fd() {
                Poller::clear(&self.poller.kick);
            } else if fd == self.poller.timer.as_raw_fd() {
                Poller::clear(&self.poller.timer);
                self.poller.armed = None;
            } else {
                self.events.push(Event::Watched { fd });
            }
        }
        self.expire(Instant::now());
        self.send_queued();
        let mut more = false;
        if readable {
            more = true;
            for _ in 0..budget {
                if !self.receive_batch() {
                    more = false;
                    break;
                }
                self.send_queued();
            }
        }
        let now = Instant::now();
        let deadline = self.deadline();
        self.poller.arm(deadline, now);
        events.append(&mut self.events);
        more
    }

    /// Send what is queued, without receiving.
    pub fn flush(&mut self) {
        self.send_queued();
        let deadline = self.deadline();
        self.poller.arm(deadline, Instant::now());
    }

    // --- private

    fn send_queued(&mut self) {
        let blocked = !self.send_unsent() || !self.drive_dirty();
        if blocked != self.poller.want_write {
            let events = libc::EPOLLIN | if blocked { libc::EPOLLOUT } else { 0 };
            let socket = self.socket.as_raw_fd();
            if self
                .poller
                .control(libc::EPOLL_CTL_MOD, socket, events)
                .is_ok()
            {
                self.poller.want_write = blocked;
            }
        }
    }

    fn add(
        &mut self,
        handle: ConnectionHandle,
        inner: quinn_proto::Connection,
        dialled: bool,
        now: Instant,
    ) -> u64 {
        let id = self.next_id;
        self.next_id += 1;
        if self.links.len() <= handle.0 {
            self.links.resize_with(handle.0 + 1, || None);
        }
        self.links[handle.0] = Some(Box::new(Link {
            id,
            inner,
            started: now,
            dialled,
            connected: false,
            admitted: false,
            closed: false,
            dirty: false,
            inbound: HashMap::new(),
            unlabelled: HashMap::new(),
            channels: <[Channel; 3]>::default(),
            readable: Vec::new(),
        }));
        self.handles.insert(id, handle.0);
        self.handshaking += 1;
        self.touch(handle.0);
        id
    }

    fn link(&mut self, connection: u64) -> Result<&mut Link, Fault> {
        let handle = *self.handles.get(&connection).ok_or(Fault::Gone)?;
        self.links[handle]
            .as_deref_mut()
            .filter(|link| !link.closed)
            .ok_or(Fault::Gone)
    }

    fn touch(&mut self, handle: usize) {
        if let Some(Some(link)) = self.links.get_mut(handle)
            && !link.dirty
        {
            link.dirty = true;
            self.dirty.push(handle);
        }
    }

    fn touch_id(&mut self, connection: u64) {
        if let Some(handle) = self.handles.get(&connection) {
            self.touch(*handle);
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        self.statistics.refused[refusal as usize] += 1;
    }

    fn close_link(&mut self, handle: usize, code: u64, detail: &str, refusal: Option<Refusal>) {
        let Some(link) = self.links[handle].as_mut().filter(|link| !link.closed) else {
            return;
        };
        let cut = (0..=detail.len().min(DETAIL_BYTES_MAX))
            .rev()
            .find(|at| detail.is_char_boundary(*at))
            .unwrap_or(0);
        let detail = &detail[..cut];
        let reason = Bytes::copy_from_slice(detail.as_bytes());
        link.inner.close(
            Instant::now(),
            VarInt::from_u64(code).unwrap_or(VarInt::MAX),
            reason,
        );
        let cause = if refusal.is_some() {
            Cause::Refused
        } else {
            Cause::Local
        };
        let shown = refusal.map_or(code, |refusal| refusal as u64);
        self.mark_closed(handle, cause, shown, detail.to_owned());
        if let Some(refusal) = refusal {
            self.refuse(refusal);
        }
        self.touch(handle);
    }

    fn mark_closed(&mut self, handle: usize, cause: Cause, code: u64, detail: String) {
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        if link.closed {
            return;
        }
        link.closed = true;
        link.channels = <[Channel; 3]>::default();
        if !link.admitted {
            self.handshaking = self.handshaking.saturating_sub(1);
        }
        // A dialled-in peer that never proved its key is nobody: only counted.
        if link.connected || link.dialled {
            self.events.push(Event::Closed {
                connection: link.id,
                cause,
                code,
                detail,
            });
        }
    }

    fn deadline(&mut self) -> Option<Instant> {
        let admission = self.settings.admission_timeout;
        self.links
            .iter_mut()
            .flatten()
            .flat_map(|link| {
                let pending = !link.admitted && !link.closed;
                [
                    link.inner.poll_timeout(),
                    pending.then(|| link.started + admission),
                ]
            })
            .flatten()
            .min()
    }

    fn expire(&mut self, now: Instant) {
        for handle in 0..self.links.len() {
            let Some(link) = self.links[handle].as_mut() else {
                continue;
            };
            let due = link.inner.poll_timeout().is_some_and(|at| at <= now);
            if due {
                link.inner.handle_timeout(now);
            }
            let pending = !link.admitted && !link.closed;
            let late = pending && link.started + self.settings.admission_timeout <= now;
            let connected = link.connected;
            if due {
                self.touch(handle);
            }
            if late {
                let (refusal, detail) = if connected {
                    (Refusal::HelloTimeout, "no HELLO in time")
                } else {
                    (Refusal::HandshakeTimeout, "handshake not finished in time")
                };
                self.close_link(handle, code::HELLO_TIMEOUT, detail, Some(refusal));
            }
        }
    }

    /// One `recvmmsg`. `false`: nothing was there.
    fn receive_batch(&mut self) -> bool {
        let mut metas = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        let mut buffers: Vec<io::IoSliceMut<'_>> = self
            .receive_buffer
            .chunks_mut(DATAGRAM_BYTES_MAX)
            .map(io::IoSliceMut::new)
            .collect();
        let received = self
            .state
            .recv((&self.socket).into(), &mut buffers, &mut metas);
        // A pending ICMP error surfaces here once; the timers of its connection handle it.
        let Ok(count) = received else { return false };
        self.statistics.receive_calls += 1;
        let now = Instant::now();
        for (index, meta) in metas[..count].iter().enumerate() {
            let start = index * DATAGRAM_BYTES_MAX;
            let mut data = BytesMut::from(&self.receive_buffer[start..start + meta.len]);
            self.statistics.bytes_received += meta.len as u64;
            while !data.is_empty() {
                let datagram = data.split_to(meta.stride.min(data.len()));
                self.statistics.datagrams_received += 1;
                self.handle(now, meta, datagram);
            }
        }
        count > 0
    }

    fn handle(&mut self, now: Instant, meta: &quinn_udp::RecvMeta, datagram: BytesMut) {
        let refusal = self.unrouted(&datagram);
        let mut response = Vec::new();
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        let handled =
            self.endpoint
                .handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut response);
        match handled {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                if let Some(Some(link)) = self.links.get_mut(handle.0) {
                    link.inner.handle_event(event);
                }
                self.touch(handle.0);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.incoming(now, incoming),
            Some(DatagramEvent::Response(transmit)) => {
                self.refuse(refusal);
                self.respond(transmit, response);
            }
            // Also what a known handshake buffers; nothing buffers here, we decide at once.
            None => self.refuse(refusal),
        }
    }

    /// What a datagram is if it belongs to no connection (RFC 9000, section 17).
    fn unrouted(&self, datagram: &[u8]) -> Refusal {
        let Some((first, rest)) = datagram.split_first() else {
            return Refusal::NotQuic;
        };
        match (
            first & 0xc0,
            rest.first_chunk().map(|v| u32::from_be_bytes(*v)),
        ) {
            // A short header: of a connection we forgot, if we once made its id.
            (0x40, _) => match rest.first_chunk::<CONNECTION_ID_BYTES>() {
                Some(id) if self.ids.validate(&ConnectionId::new(id)).is_ok() => {
                    Refusal::StrayPacket
                }
                _ => Refusal::NotQuic,
            },
            (0xc0, Some(1)) if first & 0x30 == 0 => Refusal::BadInitial,
            (0xc0, Some(1)) => Refusal::StrayPacket,
            (0xc0, Some(2..)) => Refusal::OtherQuicVersion,
            _ => Refusal::NotQuic,
        }
    }

    fn respond(&mut self, transmit: Transmit, response: Vec<u8>) {
        if self.unsent.len() < RECEIVE_BATCH {
            self.unsent.push_back((transmit, response));
        }
    }

    /// Accept, ask for proof of the address, or refuse: before any expensive cryptography.
    fn incoming(&mut self, now: Instant, incoming: Incoming) {
        let mut response = Vec::new();
        if self.draining || self.handles.len() >= self.settings.connections_max {
            self.refuse(Refusal::ConnectionsFull);
            let transmit = self.endpoint.refuse(incoming, &mut response);
            return self.respond(transmit, response);
        }
        if self.handshaking >= self.settings.handshakes_max {
            self.refuse(Refusal::HandshakesFull);
            return self.endpoint.ignore(incoming);
        }
        if self.handshaking >= self.settings.handshakes_max / 2
            && !incoming.remote_address_validated()
            && incoming.may_retry()
        {
            self.statistics.retries_sent += 1;
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut response) {
                self.respond(transmit, response);
            }
            return;
        }
        match self.endpoint.accept(incoming, now, &mut response, None) {
            Ok((handle, inner)) => {
                self.add(handle, inner, false, now);
            }
            Err(error) => {
                let refusal = handshake_refusal(&error.cause).unwrap_or(Refusal::BadInitial);
                self.refuse(refusal);
                if let Some(transmit) = error.response {
                    self.respond(transmit, response);
                }
            }
        }
    }

    /// `false`: the socket takes no more now.
    fn send_unsent(&mut self) -> bool {
        while let Some((transmit, contents)) = self.unsent.pop_front() {
            if !self.transmit(&transmit, &contents) {
                self.unsent.push_front((transmit, contents));
                return false;
            }
        }
        true
    }

    /// Hand one datagram or GSO batch to the kernel. `false`: it has no room now.
    fn transmit(&mut self, transmit: &Transmit, contents: &[u8]) -> bool {
        let result = self.state.try_send(
            (&self.socket).into(),
            &quinn_udp::Transmit {
                destination: transmit.destination,
                ecn: transmit
                    .ecn
                    .and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
                contents: &contents[..transmit.size],
                segment_size: transmit.segment_size,
                src_ip: transmit.src_ip,
            },
        );
        match result {
            Ok(()) => {
                self.statistics.send_calls += 1;
                self.statistics.bytes_sent += transmit.size as u64;
                self.statistics.datagrams_sent += transmit
                    .segment_size
                    .map_or(1, |size| transmit.size.div_ceil(size))
                    as u64;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            // An MTU probe over the link's limit, or no route: loss recovery deals with both.
            Err(_) => self.statistics.send_errors += 1,
        }
        true
    }

    /// `false`: the socket takes no more now; what is left stays dirty.
    fn drive_dirty(&mut self) -> bool {
        let mut position = 0;
        while position < self.dirty.len() {
            let handle = self.dirty[position];
            if !self.drive(handle) {
                self.dirty.drain(..position);
                return false;
            }
            position += 1;
            if let Some(link) = self.links[handle].as_mut() {
                link.dirty = false;
                if link.inner.is_drained() {
                    let id = link.id;
                    self.mark_closed(handle, Cause::TimedOut, 0, String::new());
                    self.handles.remove(&id);
                    self.links[handle] = None;
                }
            }
        }
        self.dirty.clear();
        true
    }

    /// Take one connection's events, read its channels, send its packets. `false`: socket full.
    fn drive(&mut self, handle: usize) -> bool {
        loop {
            self.collect(handle);
            let Some(link) = self.links[handle].as_mut() else {
                return true;
            };
            let mtu = usize::from(link.inner.current_mtu());
            let segments = self
                .state
                .max_gso_segments()
                .min(self.settings.gso_segments_max)
                .min(GSO_BYTES_MAX / mtu)
                .max(1);
            self.send_buffer.clear();
            let now = Instant::now();
            let Some(transmit) = link
                .inner
                .poll_transmit(now, segments, &mut self.send_buffer)
            else {
                return true;
            };
            let contents = std::mem::take(&mut self.send_buffer);
            if !self.transmit(&transmit, &contents) {
                self.unsent.push_back((transmit, contents));
                self.send_buffer = Vec::with_capacity(DATAGRAM_BYTES_MAX);
                return false;
            }
            self.send_buffer = contents;
        }
    }

    fn collect(&mut self, handle: usize) {
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        while let Some(event) = link.inner.poll_endpoint_events() {
            let answer = self.endpoint.handle_event(ConnectionHandle(handle), event);
            if let Some(answer) = answer {
                link.inner.handle_event(answer);
            }
        }
        while let Some(event) = self.links[handle]
            .as_mut()
            .and_then(|link| link.inner.poll())
        {
            self.dispatch(handle, event);
        }
        self.read_ready(handle);
    }

    fn dispatch(&mut self, handle: usize, event: quinn_proto::Event) {
        use quinn_proto::Event as Quic;
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        let connection = link.id;
        match event {
            Quic::HandshakeDataReady => {}
            Quic::Connected => {
                link.connected = true;
                let dialled = link.inner.side() == Side::Client;
                let identity = link.inner.crypto_session().peer_identity();
                let spki = identity
                    .and_then(|any| any.downcast::<Vec<CertificateDer<'static>>>().ok())
                    .and_then(|chain| chain.first().map(|key| key.to_vec()));
                self.statistics.handshakes_completed += 1;
                match spki {
                    Some(spki) if !link.closed => {
                        self.events.push(Event::Connected {
                            connection,
                            dialled,
                            spki,
                        });
                    }
                    _ => self.close_link(
                        handle,
                        code::PROTOCOL_VIOLATION,
                        "no key",
                        Some(Refusal::NoPeerKey),
                    ),
                }
            }
            Quic::ConnectionLost { reason } => self.lost(handle, &reason),
            Quic::Stream(StreamEvent::Opened { dir }) => {
                while let Some(id) = link.inner.streams().accept(dir) {
                    let inbound = if stream_number(id) == 0 {
                        let limit = self.settings.control_frame_bytes_max;
                        link.channels[0].stream = Some(id);
                        let _ = link.inner.send_stream(id).set_priority(20);
                        Inbound::Framed(kind::CONTROL, Splitter::new(limit))
                    } else {
                        Inbound::Unknown
                    };
                    link.inbound.insert(id, inbound);
                    link.readable.push(id);
                }
            }
            Quic::Stream(StreamEvent::Readable { id }) => link.readable.push(id),
            Quic::Stream(StreamEvent::Writable { id }) => {
                match link
                    .channels
                    .iter()
                    .position(|channel| channel.stream == Some(id))
                {
                    Some(index) => link.drain(index),
                    None => {
                        let stream = stream_number(id);
                        self.events.push(Event::Writable { connection, stream });
                    }
                }
            }
            Quic::Stream(StreamEvent::Finished { id }) => {
                let stream = stream_number(id);
                self.events.push(Event::Finished { connection, stream });
            }
            Quic::Stream(StreamEvent::Stopped { id, error_code }) => {
                let (stream, code) = (stream_number(id), error_code.into_inner());
                self.events.push(Event::Stopped {
                    connection,
                    stream,
                    code,
                });
            }
            Quic::Stream(StreamEvent::Available { dir }) => {
                let bidirectional = dir == Dir::Bi;
                self.events.push(Event::Available {
                    connection,
                    bidirectional,
                });
            }
            Quic::DatagramReceived | Quic::DatagramsUnblocked => {}
        }
    }

    fn lost(&mut self, handle: usize, reason: &ConnectionError) {
        let Some(link) = self.links[handle].as_ref() else {
            return;
        };
        if link.closed {
            return;
        }
        let connected = link.connected;
        let refusal = if connected {
            None
        } else {
            handshake_refusal(reason)
        };
        if let Some(refusal) = refusal {
            self.refuse(refusal);
            let code = refusal as u64;
            return self.mark_closed(handle, Cause::Refused, code, reason.to_string());
        }
        let (cause, code, detail) = match reason {
            ConnectionError::ApplicationClosed(close) => (
                Cause::Peer,
                close.error_code.into_inner(),
                text(&close.reason),
            ),
            ConnectionError::ConnectionClosed(close) => {
                // A dialler is connected before the acceptor has judged its key.
                if !link.admitted {
                    self.refuse(Refusal::RefusedByPeer);
                }
                (
                    Cause::Transport,
                    u64::from(close.error_code),
                    text(&close.reason),
                )
            }
            ConnectionError::TransportError(error) => {
                (Cause::Transport, u64::from(error.code), error.to_string())
            }
            ConnectionError::Reset => (Cause::Reset, 0, "the peer was restarted".to_owned()),
            ConnectionError::TimedOut => (Cause::TimedOut, 0, "no sign of life".to_owned()),
            ConnectionError::LocallyClosed => (Cause::Local, 0, String::new()),
            ConnectionError::VersionMismatch | ConnectionError::CidsExhausted => {
                (Cause::Transport, 0, reason.to_string())
            }
        };
        self.mark_closed(handle, cause, code, detail);
    }

    /// Read what became readable: channels into frames, the rest is announced to the owner.
    fn read_ready(&mut self, handle: usize) {
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        for id in std::mem::take(&mut link.readable) {
            let Some(link) = self.links[handle].as_mut().filter(|link| !link.closed) else {
                return;
            };
            // Before HELLO is accepted only stream 0 is read; `admit` looks at the others again.
            if (link.admitted || stream_number(id) == 0)
                && let Err(detail) = self.read_inbound(handle, id)
            {
                let refusal = Some(Refusal::ProtocolViolation);
                self.close_link(handle, code::PROTOCOL_VIOLATION, &detail, refusal);
            }
        }
    }

    /// Bytes of one stream: its kind, its frames, or a word to the owner. An error is the peer's.
    fn read_inbound(&mut self, handle: usize, id: StreamId) -> Result<(), String> {
        let Some(link) = self.links[handle].as_mut() else {
            return Ok(());
        };
        let (connection, stream) = (link.id, stream_number(id));
        match link.inbound.get_mut(&id) {
            None => Ok(()), // over for the owner
            Some(Inbound::Owned { told }) => {
                if !std::mem::replace(told, true) {
                    self.events.push(Event::Readable { connection, stream });
                }
                Ok(())
            }
            Some(Inbound::Unknown) => {
                let Ok((chunks, end, _)) = read_chunks(&mut link.inner, id, 1) else {
                    link.inbound.remove(&id);
                    return Ok(());
                };
                let Some(kind) = chunks.first().and_then(|chunk| chunk.first()).copied() else {
                    if !matches!(end, End::Blocked) {
                        link.inbound.remove(&id);
                    }
                    return Ok(());
                };
                match (kind, id.dir()) {
                    (kind::RAW, _) | (kind::RPC, Dir::Bi) => {
                        link.inbound.insert(id, Inbound::Owned { told: true });
                        self.events.push(Event::Opened {
                            connection,
                            stream,
                            kind,
                        });
                        Ok(())
                    }
                    (kind::VOTES | kind::BULK, Dir::Uni) => {
                        let again = link
                            .inbound
                            .values()
                            .any(|other| matches!(other, Inbound::Framed(k, _) if *k == kind));
                        if again {
                            return Err(format!("second channel of kind {kind}"));
                        }
                        let splitter = Splitter::new(self.settings.frame_bytes_max);
                        link.inbound.insert(id, Inbound::Framed(kind, splitter));
                        self.read_inbound(handle, id)
                    }
                    (kind, dir) => Err(format!("stream of unknown kind {kind} ({dir})")),
                }
            }
            Some(Inbound::Framed(kind, splitter)) => {
                let kind = *kind;
                let Ok((chunks, end, transmit)) = read_chunks(&mut link.inner, id, usize::MAX)
                else {
                    link.inbound.remove(&id);
                    return Ok(());
                };
                let _ = transmit; // flow control updates leave with the drive that called us
                for chunk in chunks {
                    let (events, statistics) = (&mut self.events, &mut self.statistics);
                    splitter
                        .push(chunk, |frame_type, body| {
                            statistics.frames_received += 1;
                            events.push(Event::Frame {
                                connection,
                                kind,
                                frame_type,
                                body,
                            });
                        })
                        .map_err(|error| error.to_string())?;
                }
                match end {
                    End::Blocked | End::Limit => Ok(()),
                    End::Finished | End::Reset(_) if kind == kind::CONTROL => {
                        Err("control stream ended".to_owned())
                    }
                    End::Finished | End::Reset(_) => {
                        link.inbound.remove(&id);
                        Ok(())
                    }
                }
            }
        }
    }
}

/// Why a handshake failed; `None` when the peer closed it with an application code.
fn handshake_refusal(reason: &ConnectionError) -> Option<Refusal> {
    match reason {
        ConnectionError::TransportError(error) => Some(tls::handshake_fault(&error.reason).into()),
        ConnectionError::ConnectionClosed(_) => Some(Refusal::RefusedByPeer),
        ConnectionError::TimedOut => Some(Refusal::HandshakeTimeout),
        ConnectionError::VersionMismatch => Some(Refusal::OtherQuicVersion),
        ConnectionError::Reset => Some(Refusal::RefusedByPeer),
        ConnectionError::CidsExhausted => Some(Refusal::ConnectionsFull),
        ConnectionError::ApplicationClosed(_) | ConnectionError::LocallyClosed => None,
    }
}

enum End {
    /// Nothing more has arrived.
    Blocked,
    /// The caller's limit was reached first.
    Limit,
    Finished,
    Reset(u64),
}

/// In-order chunks of one stream, why it ended, and whether flow control has something to say.
fn read_chunks(
    connection: &mut quinn_proto::Connection,
    id: StreamId,
    limit: usize,
) -> Result<(Vec<Bytes>, End, bool), Fault> {
    let mut stream = connection.recv_stream(id);
    let mut chunks = stream.read(true).map_err(|_| Fault::NoStream)?;
    let (mut taken, mut bytes) = (Vec::new(), 0);
    let end = loop {
        if bytes >= limit {
            break End::Limit;
        }
        match chunks.next(limit - bytes) {
            Ok(Some(chunk)) => {
                bytes += chunk.bytes.len();
                taken.push(chunk.bytes);
            }
            Ok(None) => break End::Finished,
            Err(ReadError::Blocked) => break End::Blocked,
            Err(ReadError::Reset(code)) => break End::Reset(code.into_inner()),
        }
    };
    let transmit = chunks.finalize().should_transmit();
    Ok((taken, end, transmit))
}
