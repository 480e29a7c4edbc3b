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
    collections::{BTreeSet, HashMap, VecDeque},
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{
    AckFrequencyConfig, ConnectionHandle, EndpointConfig, HashedConnectionIdGenerator, IdleTimeout,
    MtuDiscoveryConfig, TokenMemoryCache, Transmit, TransportConfig, VarInt,
    congestion::{BbrConfig, CubicConfig},
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};

mod bucket;
mod buffers;
mod commands;
mod guard;
mod link;
mod names;
mod news;
mod poller;
mod qlog;
mod receive;
mod socket;

pub use names::{
    Cause, Congestion, Event, Fault, PathReport, Refusal, RetryPolicy, SessionReport, Settings,
    Statistics, code, kind,
};

use crate::{
    keylog::KeyLogFile,
    tls::{self, Identity},
};
use bucket::Bucket;
use buffers::Buffers;
use guard::Guard;
use link::{Amplification, Channel, DETAIL_BYTES_MAX, Link, channel_index};
use poller::Poller;
use socket::Socket;

/// One receive buffer must hold a whole GRO super-datagram; `recvmmsg` fills a batch of them.
const DATAGRAM_BYTES_MAX: usize = 65_536;
const RECEIVE_BATCH: usize = 32;
/// `sendmsg` refuses a GSO batch above this, silently losing it (reference, section 15.1).
const GSO_BYTES_MAX: usize = 65_507;
/// Transport parameter: the largest datagram we are willing to receive.
const UDP_PAYLOAD_BYTES_MAX: u16 = 65_527;
/// Smallest QUIC path MTU: where every connection starts.
const MTU_BYTES_MIN: u16 = 1_200;
/// What a peer may send before it is admitted: HELLO, and room for another frame. Half of the
/// memory a connection is granted at first.
const HANDSHAKE_WINDOW_BYTES: u32 = 131_072;
/// Streams that a peer may open at first, each way: quinn keeps a place for every stream it allows,
/// and most connections carry a few channels. The first that is past half of them brings the rest.
const STREAMS_AT_FIRST: u32 = 32;
/// Resets that a peer may save up, in seconds of their rate.
const RESETS_BURST_S: u64 = 10;
/// A capped connection may burst for this part of a second.
const RATE_BURST_DIVISOR: u64 = 20;

/// See the module.
pub struct Engine {
    socket: Socket,
    endpoint: quinn_proto::Endpoint,
    /// Recognises connection ids this key has made, also before a restart.
    ids: HashedConnectionIdGenerator,
    /// What every dial uses.
    client: Arc<QuicClientConfig>,
    sessions: Arc<tls::Sessions>,
    /// Proofs of our address that acceptors gave us for the next dial.
    tokens: Arc<TokenMemoryCache>,
    settings: Settings,
    transport: Arc<TransportConfig>,
    /// What `accept` uses; a traced connection gets a copy with a trace of its own.
    server: Arc<quinn_proto::ServerConfig>,
    poller: Poller,
    /// Indexed by quinn's connection handle.
    links: Vec<Option<Box<Link>>>,
    handles: HashMap<u64, usize>,
    next_id: u64,
    guard: Guard,
    dirty: Vec<usize>,
    /// When which connection wants to be looked at, soonest first.
    deadlines: BTreeSet<(Instant, usize)>,
    buffers: Buffers,
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
        .receive_window(
            settings
                .connection_window_bytes
                .min(HANDSHAKE_WINDOW_BYTES)
                .into(),
        )
        .send_window(settings.send_window_bytes)
        .max_concurrent_bidi_streams(settings.streams_max.min(STREAMS_AT_FIRST).into())
        .max_concurrent_uni_streams(settings.streams_max.min(STREAMS_AT_FIRST).into())
        .initial_mtu(MTU_BYTES_MIN)
        .mtu_discovery_config((settings.mtu_bytes_max > MTU_BYTES_MIN).then_some(discovery))
        .initial_rtt(Duration::from_millis(50))
        .max_idle_timeout(IdleTimeout::try_from(settings.idle_timeout).ok())
        .keep_alive_interval(Some(settings.keep_alive))
        .datagram_receive_buffer_size(Some(settings.datagram_queue_bytes_max))
        .datagram_send_buffer_size(settings.datagram_queue_bytes_max);
    match settings.congestion {
        Congestion::Cubic => {
            config.congestion_controller_factory(Arc::new(CubicConfig::default()));
        }
        Congestion::Bbr => {
            config.congestion_controller_factory(Arc::new(BbrConfig::default()));
        }
    }
    if settings.ack_frequency {
        config.ack_frequency_config(Some(AckFrequencyConfig::default()));
    }
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
        let socket = Socket::bind(settings.listen, settings.socket_buffer_bytes)?;
        let transport = Arc::new(transport_config(&settings));
        let sessions = tls::Sessions::new();
        let resumable = settings.resumption.then(|| sessions.clone());
        let mut tls = tls::server_config(&identity, resumable).map_err(io_error)?;
        let mut client = tls::client_config(&identity, settings.resumption).map_err(io_error)?;
        if !settings.key_log_path.is_empty() {
            let log = Arc::new(KeyLogFile::open(&settings.key_log_path)?);
            tls.key_log = log.clone();
            client.key_log = log;
        }
        let crypto = QuicServerConfig::try_from(tls).map_err(io_error)?;
        let client = Arc::new(QuicClientConfig::try_from(client).map_err(io_error)?);
        let mut server = quinn_proto::ServerConfig::with_crypto(Arc::new(crypto));
        server.transport_config(transport.clone());
        server.max_incoming(settings.handshakes_max);
        let server = Arc::new(server);
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
            Some(server.clone()),
            !socket.state.may_fragment(),
            None,
        );
        let poller = Poller::new(socket.as_raw_fd())?;
        let guard = Guard::new(&settings);
        Ok(Self {
            socket,
            endpoint,
            ids,
            client,
            sessions,
            tokens: Arc::new(TokenMemoryCache::default()),
            settings,
            transport,
            server,
            poller,
            links: Vec::new(),
            handles: HashMap::new(),
            next_id: 1,
            guard,
            dirty: Vec::new(),
            deadlines: BTreeSet::new(),
            buffers: Buffers::new(),
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

    /// Where we listen, or did, with the port the kernel chose.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.socket.address
    }

    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let mut refused = self.statistics.refused;
        refused[Refusal::ReplayedTicket as usize] = self.sessions.refused();
        Statistics {
            refused,
            memory_granted_bytes: self.guard.memory_bytes(),
            ..self.statistics.clone()
        }
    }

    /// Granted receive and send buffer, in bytes: the kernel may give less than was asked for.
    #[must_use]
    pub fn socket_buffers(&self) -> (usize, usize) {
        self.socket.buffers_bytes
    }

    /// How many segments one send call may carry; 1 when the kernel has no GSO.
    #[must_use]
    pub fn gso_segments(&self) -> usize {
        self.socket.state.max_gso_segments()
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
            rtt_min: stats.path.min_rtt,
            mtu_bytes: stats.path.current_mtu,
            congestion_window_bytes: stats.path.cwnd,
            packets_sent: stats.path.sent_packets,
            packets_lost: stats.path.lost_packets,
            bytes_sent: stats.udp_tx.bytes,
            bytes_received: stats.udp_rx.bytes,
            black_holes: stats.path.black_holes_detected,
            congestion_events: stats.path.congestion_events,
        })
    }

    /// What the handshake of one connection agreed on; `None` before it is finished.
    #[must_use]
    pub fn session(&self, connection: u64) -> Option<SessionReport> {
        let link = self.links.get(*self.handles.get(&connection)?)?.as_ref()?;
        link.connected.then_some(SessionReport {
            key_exchange: tls::KEY_EXCHANGE,
            signature: link.scheme,
            resumed: !link.verified,
            key_updates: link.key_updates,
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
        // Packets first: after a pause of the whole process, what waits in the socket proves that
        // the peer lives, and must be seen before its idle timer is.
        let mut more = readable && self.receive_batch();
        self.expire(Instant::now());
        self.send_queued();
        for _ in 1..budget {
            if !more {
                break;
            }
            more = self.receive_batch();
            self.send_queued();
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
        if !self.events.is_empty() {
            self.poller.kick(); // the next turn tells them, and has to come
        }
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

    /// The transport parameters of the next connection: those of all, or with a trace.
    fn transport(&self, role: &str) -> Arc<TransportConfig> {
        if self.settings.qlog_folder.is_empty() {
            return self.transport.clone();
        }
        let stream = qlog::stream(self.settings.qlog_folder.as_ref(), role);
        let Ok(stream) = stream else {
            return self.transport.clone(); // a full disk must not end a node
        };
        let mut config = transport_config(&self.settings);
        config.qlog_stream(stream);
        Arc::new(config)
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
        let remote = inner.remote_address();
        let rate = self.settings.send_rate_bytes_per_s_max;
        let resets = u64::from(self.settings.stream_resets_per_s_max);
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
            first_remote: remote,
            remote,
            resume_at: None,
            scheduled: None,
            streams_all: [false; 2],
            scheme: 0,
            expected: None,
            verified: false,
            key_updates: 0,
            datagrams_told: false,
            datagrams_early: false,
            held_bytes: 0,
            pending_bytes: [0; 3],
            throttled: false,
            granted_bytes: self.guard.opened(remote, dialled, now),
            rate: (rate > 0).then(|| Bucket::new(rate, rate / RATE_BURST_DIVISOR, now)),
            amplification: Amplification {
                validated: dialled,
                ..Amplification::default()
            },
            resets: Bucket::new(resets, resets * RESETS_BURST_S, now),
        }));
        self.handles.insert(id, handle.0);
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
            let spoofed = !link.amplification.validated;
            self.guard.settled(link.first_remote, link.dialled, spoofed);
        }
        link.granted_bytes =
            self.guard
                .released(link.first_remote, link.dialled, link.granted_bytes);
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

    fn deadline(&self) -> Option<Instant> {
        self.deadlines.first().map(|(at, _)| *at)
    }

    /// Remember when a connection wants to be looked at. Whatever may change that also makes the
    /// connection dirty, so that it is enough to ask after it was driven.
    fn schedule(&mut self, handle: usize) {
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        let next = link.deadline(self.settings.admission_timeout);
        let last = std::mem::replace(&mut link.scheduled, next);
        if last == next {
            return;
        }
        if let Some(at) = last {
            self.deadlines.remove(&(at, handle));
        }
        if let Some(at) = next {
            self.deadlines.insert((at, handle));
        }
    }

    fn expire(&mut self, now: Instant) {
        while self.deadlines.first().is_some_and(|(at, _)| *at <= now) {
            let Some((_, handle)) = self.deadlines.pop_first() else {
                return;
            };
            let Some(link) = self.links[handle].as_mut() else {
                continue;
            };
            link.scheduled = None;
            let due = link.inner.poll_timeout().is_some_and(|at| at <= now);
            if due {
                link.inner.handle_timeout(now);
            }
            if link.resume_at.is_some_and(|at| at <= now) {
                link.resume_at = None;
            }
            let pending = !link.admitted && !link.closed;
            let late = pending && link.started + self.settings.admission_timeout <= now;
            let connected = link.connected;
            self.touch(handle); // driving it asks for its next deadline
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
        let result = self.socket.send(&quinn_udp::Transmit {
            destination: transmit.destination,
            ecn: transmit
                .ecn
                .and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
            contents: &contents[..transmit.size],
            segment_size: transmit.segment_size,
            src_ip: transmit.src_ip,
        });
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
            let all = self.drive(handle);
            self.schedule(handle);
            if !all {
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
                    if let Some(link) = self.links[handle].take() {
                        self.guard
                            .closed(link.first_remote, link.dialled, link.granted_bytes);
                        if let Some(at) = link.scheduled {
                            self.deadlines.remove(&(at, handle));
                        }
                    }
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
            let mut segments = self
                .socket
                .state
                .max_gso_segments()
                .min(self.settings.gso_segments_max)
                .min(GSO_BYTES_MAX / mtu)
                .max(1);
            self.send_buffer.clear();
            let now = Instant::now();
            if !link.amplification.validated {
                // quinn lets one datagram more through than RFC 9000, section 8.1 allows.
                let budget = usize::try_from(link.amplification.budget()).unwrap_or(usize::MAX);
                segments = segments.min(budget / mtu);
                if segments == 0 {
                    return true; // goes on with what the peer sends next
                }
            }
            if let Some(rate) = link.rate.as_mut() {
                let one = mtu as u64;
                let allowed = rate.available(now) / one;
                if allowed == 0 {
                    link.resume_at = earlier(link.resume_at, now + rate.wait(one, now));
                    return true;
                }
                segments = segments.min(usize::try_from(allowed).unwrap_or(usize::MAX));
            }
            let Some(transmit) = link
                .inner
                .poll_transmit(now, segments, &mut self.send_buffer)
            else {
                return true;
            };
            link.amplification.sent_bytes += transmit.size as u64;
            if let Some(rate) = link.rate.as_mut() {
                rate.spend(transmit.size as u64);
            }
            let contents = std::mem::take(&mut self.send_buffer);
            if !self.transmit(&transmit, &contents) {
                self.unsent.push_back((transmit, contents));
                self.send_buffer = Vec::with_capacity(DATAGRAM_BYTES_MAX);
                return false;
            }
            self.send_buffer = contents;
        }
    }
}

fn earlier(current: Option<Instant>, other: Instant) -> Option<Instant> {
    Some(current.map_or(other, |current| current.min(other)))
}
