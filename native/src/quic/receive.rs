//! Datagrams on their way in: to their connection, or counted and dropped.
use std::{sync::Arc, time::Instant};

use bytes::BytesMut;
use quinn_proto::{
    ConnectionError, ConnectionId, ConnectionIdGenerator as _, DatagramEvent, EcnCodepoint,
    HashedConnectionIdGenerator, Incoming, Transmit,
};

use super::{
    Engine, MTU_BYTES_MIN, RECEIVE_BATCH,
    guard::Verdict,
    names::{Event, Refusal},
};
use crate::tls;

/// Length of the ids that quinn's hashed generator makes.
const CONNECTION_ID_BYTES: usize = 8;
/// First byte, version, length of the id, and the id.
const HEAD_BYTES: usize = 6 + CONNECTION_ID_BYTES;

/// A batch of fewer bytes has most likely emptied the socket; if not, it is readable again.
const BUSY_BYTES_MIN: usize = 16_384;

impl Engine {
    /// One `recvmmsg`. `true`: more may be waiting, so that another one is worth its price.
    pub(super) fn receive_batch(&mut self) -> bool {
        let mut metas = [quinn_udp::RecvMeta::default(); RECEIVE_BATCH];
        let received = self.socket.receive(&mut self.buffers.targets(), &mut metas);
        // A pending ICMP error surfaces here once; the timers of its connection handle it.
        let Ok(count) = received else { return false };
        self.statistics.receive_calls += 1;
        let now = Instant::now();
        let mut bytes = 0;
        for (index, meta) in metas[..count].iter().enumerate() {
            let mut data = self.buffers.take(index, meta.len);
            bytes += meta.len;
            while !data.is_empty() {
                let datagram = data.split_to(meta.stride.min(data.len()));
                self.statistics.datagrams_received += 1;
                self.handle(now, meta, datagram);
            }
        }
        self.statistics.bytes_received += bytes as u64;
        count == RECEIVE_BATCH || bytes >= BUSY_BYTES_MIN
    }

    fn handle(&mut self, now: Instant, meta: &quinn_udp::RecvMeta, datagram: BytesMut) {
        // quinn takes the datagram; what we may want to know of it later is at its start.
        let mut head = [0; HEAD_BYTES];
        let head_bytes = datagram.len().min(HEAD_BYTES);
        head[..head_bytes].copy_from_slice(&datagram[..head_bytes]);
        let head = &head[..head_bytes];
        let size = datagram.len() as u64;
        // RFC 9000, section 14.1: no Initial packet of a dialler comes in a smaller datagram.
        let initial = head.first().is_some_and(|first| first & 0xf0 == 0xc0);
        let short = initial && size < u64::from(MTU_BYTES_MIN);
        if meta.ecn.is_some() {
            self.statistics.ecn_received += 1;
        }
        let mut response = Vec::new();
        let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
        let handled =
            self.endpoint
                .handle(now, meta.addr, meta.dst_ip, ecn, datagram, &mut response);
        match handled {
            Some(DatagramEvent::ConnectionEvent(handle, event)) => {
                let Some(Some(link)) = self.links.get_mut(handle.0) else {
                    return;
                };
                if short && !link.dialled {
                    return self.refuse(Refusal::ShortInitial);
                }
                link.amplification.received_bytes += size;
                if !link.amplification.validated {
                    link.amplification.validated = proves_address(&self.ids, head);
                }
                if link.connected {
                    link.inner.handle_event(event);
                } else {
                    tls::forget_verified();
                    link.inner.handle_event(event);
                    link.verified |= tls::verified();
                }
                let address = link.inner.remote_address();
                if address != link.remote {
                    link.remote = address;
                    let connection = link.id;
                    self.events.push(Event::Moved {
                        connection,
                        address,
                    });
                }
                self.touch(handle.0);
            }
            Some(DatagramEvent::NewConnection(incoming)) => self.incoming(now, incoming, size),
            Some(DatagramEvent::Response(transmit)) => {
                self.refuse(self.unrouted(head));
                self.respond(transmit, response);
            }
            None if short => self.refuse(Refusal::ShortInitial),
            // Also what a known handshake buffers; nothing buffers here, we decide at once.
            None => self.refuse(self.unrouted(head)),
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
    fn incoming(&mut self, now: Instant, incoming: Incoming, size: u64) {
        let mut response = Vec::new();
        let proven = incoming.remote_address_validated();
        let verdict = if self.draining {
            Verdict::Refuse(Refusal::ConnectionsFull)
        } else {
            let address = incoming.remote_address();
            self.guard.judge(address, proven, incoming.may_retry(), now)
        };
        match verdict {
            Verdict::Accept => {}
            Verdict::Retry => {
                self.statistics.retries_sent += 1;
                if let Ok(transmit) = self.endpoint.retry(incoming, &mut response) {
                    self.respond(transmit, response);
                }
                return;
            }
            Verdict::Refuse(refusal) => {
                self.refuse(refusal);
                let transmit = self.endpoint.refuse(incoming, &mut response);
                return self.respond(transmit, response);
            }
            Verdict::Ignore(refusal) => {
                self.refuse(refusal);
                return self.endpoint.ignore(incoming);
            }
        }
        let traced = (!self.settings.qlog_folder.is_empty())
            .then(|| self.transport("acceptor"))
            .map(|transport| {
                let mut server = (*self.server).clone();
                server.transport_config(transport);
                Arc::new(server)
            });
        match self.endpoint.accept(incoming, now, &mut response, traced) {
            Ok((handle, inner)) => {
                self.add(handle, inner, false, now);
                if let Some(Some(link)) = self.links.get_mut(handle.0) {
                    link.amplification.received_bytes = size;
                    link.amplification.validated = proven;
                }
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
}

/// Whether a datagram shows that its sender has seen our answer: a Handshake or 1-RTT packet to a
/// connection id that we made (RFC 9000, section 8.1).
fn proves_address(ids: &HashedConnectionIdGenerator, datagram: &[u8]) -> bool {
    let Some((first, rest)) = datagram.split_first() else {
        return false;
    };
    let id = match first & 0xf0 {
        0xe0 => rest.get(5..5 + CONNECTION_ID_BYTES),
        0x40..=0x70 => rest.get(..CONNECTION_ID_BYTES),
        _ => None,
    };
    id.is_some_and(|id| ids.validate(&ConnectionId::new(id)).is_ok())
}

/// Why a handshake failed; `None` when we gave it up ourselves.
pub(super) fn handshake_refusal(reason: &ConnectionError) -> Option<Refusal> {
    match reason {
        ConnectionError::TransportError(error) => Some(tls::handshake_fault(&error.reason).into()),
        ConnectionError::ConnectionClosed(_) | ConnectionError::ApplicationClosed(_) => {
            Some(Refusal::RefusedByPeer)
        }
        ConnectionError::TimedOut => Some(Refusal::HandshakeTimeout),
        ConnectionError::VersionMismatch => Some(Refusal::OtherQuicVersion),
        ConnectionError::Reset => Some(Refusal::RefusedByPeer),
        ConnectionError::CidsExhausted => Some(Refusal::ConnectionsFull),
        ConnectionError::LocallyClosed => None,
    }
}
