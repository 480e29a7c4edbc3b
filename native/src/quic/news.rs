//! What a connection has to say after its packets were handled: events, frames, its end.
use std::time::Instant;

use quinn_proto::{ConnectionError, ConnectionHandle, Dir, Side, StreamEvent, StreamId};
use rustls::pki_types::CertificateDer;

use super::{
    Engine, STREAMS_AT_FIRST, earlier,
    guard::GRANT_BYTES_MIN,
    link::{End, Inbound, channel_index, read_chunks, stream_number, text},
    names::{Cause, Event, Refusal, code, kind},
    receive::handshake_refusal,
};
use crate::{frame::Splitter, tls};

impl Engine {
    pub(super) fn collect(&mut self, handle: usize) {
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
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        if link.throttled && link.resets.available(Instant::now()) > 0 {
            link.throttled = false;
            self.accept_streams(handle, Dir::Bi);
            self.accept_streams(handle, Dir::Uni);
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
                link.scheme = spki.as_deref().map_or(0, tls::scheme_of);
                let expected = link.expected.is_none_or(|expected| {
                    spki.as_deref()
                        .is_some_and(|spki| tls::node_id(spki) == expected)
                });
                match spki {
                    // The key of a resumed session is checked here, of any other for the second time.
                    Some(_) if !expected => {
                        let refusal = Some(Refusal::WrongKey);
                        self.close_link(handle, code::PROTOCOL_VIOLATION, "wrong key", refusal);
                    }
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
            Quic::Stream(StreamEvent::Opened { dir }) => self.accept_streams(handle, dir),
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
            Quic::DatagramReceived => {
                // quinn tells of the first one of a queue only, so `admit` has to know of it.
                if !link.admitted {
                    link.datagrams_early = true;
                } else if !std::mem::replace(&mut link.datagrams_told, true) {
                    self.events.push(Event::Datagram { connection });
                }
            }
            Quic::DatagramsUnblocked => self.events.push(Event::DatagramRoom { connection }),
        }
    }

    /// Take the streams the peer opened. Those of a peer that has reset too many wait, and so does
    /// the peer, because streams that wait use up what it may open.
    fn accept_streams(&mut self, handle: usize, dir: Dir) {
        let Some(link) = self.links[handle].as_mut() else {
            return;
        };
        let now = Instant::now();
        if link.resets.available(now) == 0 {
            if !std::mem::replace(&mut link.throttled, true) {
                self.statistics.streams_throttled += 1;
            }
            let later = now + link.resets.wait(1, now);
            link.resume_at = earlier(link.resume_at, later);
            return;
        }
        loop {
            let Some(id) = link.inner.streams().accept(dir) else {
                return;
            };
            if id.index() >= u64::from(STREAMS_AT_FIRST / 2)
                && !std::mem::replace(&mut link.streams_all[dir as usize], true)
            {
                let all = self.settings.streams_max.into();
                link.inner.set_max_concurrent_streams(dir, all);
            }
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
            } else if !self.hold_frames(handle) {
                let refusal = Some(Refusal::MemoryFull);
                self.close_link(handle, code::OVERLOADED, "frames that never end", refusal);
            }
        }
    }

    /// Frames that have begun lie outside of every window. What they hold beyond a first allowance
    /// counts against the memory of all. `false`: there is no room for them.
    fn hold_frames(&mut self, handle: usize) -> bool {
        let Some(link) = self.links[handle].as_mut().filter(|link| !link.closed) else {
            return true;
        };
        let held = link.pending_bytes.iter().sum::<u64>();
        let held = held.saturating_sub(GRANT_BYTES_MIN);
        if held == link.held_bytes {
            return true;
        }
        let (before, address, dialled) = (link.held_bytes, link.first_remote, link.dialled);
        if !self.guard.hold(address, dialled, before, held) {
            return false;
        }
        link.granted_bytes = link.granted_bytes - before + held;
        link.held_bytes = held;
        true
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
                if matches!(end, End::Reset(_)) {
                    link.was_reset(id);
                }
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
                link.pending_bytes[channel_index(kind)] = splitter.pending() as u64;
                match end {
                    End::Blocked | End::Limit => Ok(()),
                    End::Finished | End::Reset(_) if kind == kind::CONTROL => {
                        Err("control stream ended".to_owned())
                    }
                    End::Finished | End::Reset(_) => {
                        link.pending_bytes[channel_index(kind)] = 0;
                        link.inbound.remove(&id);
                        Ok(())
                    }
                }
            }
        }
    }
}
