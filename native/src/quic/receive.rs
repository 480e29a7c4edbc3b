//! Datagrams on their way in: to their connection, or counted and dropped.
use std::{io, time::Instant};

use bytes::BytesMut;
use quinn_proto::{
    ConnectionError, ConnectionId, ConnectionIdGenerator as _, DatagramEvent, EcnCodepoint,
    Incoming, Transmit,
};

use super::{DATAGRAM_BYTES_MAX, Engine, RECEIVE_BATCH, names::Refusal};
use crate::tls;

/// Length of the ids that quinn's hashed generator makes.
const CONNECTION_ID_BYTES: usize = 8;

impl Engine {
    /// One `recvmmsg`. `false`: nothing was there.
    pub(super) fn receive_batch(&mut self) -> bool {
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
}

/// Why a handshake failed; `None` when the peer closed it with an application code.
pub(super) fn handshake_refusal(reason: &ConnectionError) -> Option<Refusal> {
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
