//! One connection as the engine keeps it: its streams, its channels, and how they are read.
use std::{
    collections::{HashMap, VecDeque},
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::Bytes;
use quinn_proto::{Dir, ReadError, StreamId, VarInt, WriteError};

use super::{
    bucket::Bucket,
    names::{Fault, kind},
};
use crate::{frame::Splitter, tls::NodeId};

/// How much of a peer's closing words is kept.
pub(super) const DETAIL_BYTES_MAX: usize = 512;

#[derive(Debug)]
pub(super) enum Inbound {
    /// The kind byte has not arrived.
    Unknown,
    /// Read here and cut into frames.
    Framed(u8, Splitter),
    /// Read by the owner, who is told once until it reads again: quinn reports every packet.
    Owned { told: bool },
}

#[derive(Debug, Default)]
pub(super) struct Channel {
    pub(super) stream: Option<StreamId>,
    pub(super) queue: VecDeque<Bytes>,
    pub(super) queued_bytes: usize,
    /// The stream ends once the queue is empty.
    pub(super) finishing: bool,
}

pub(super) struct Link {
    pub(super) id: u64,
    pub(super) inner: quinn_proto::Connection,
    pub(super) started: Instant,
    pub(super) dialled: bool,
    pub(super) connected: bool,
    pub(super) admitted: bool,
    pub(super) closed: bool,
    pub(super) dirty: bool,
    pub(super) inbound: HashMap<StreamId, Inbound>,
    /// Streams we opened whose kind byte is not yet written.
    pub(super) unlabelled: HashMap<StreamId, u8>,
    pub(super) channels: [Channel; 3],
    pub(super) readable: Vec<StreamId>,
    /// Where it was when it began; its network is charged with it to the end.
    pub(super) first_remote: SocketAddr,
    pub(super) remote: SocketAddr,
    /// When something that was held back may go on.
    pub(super) resume_at: Option<Instant>,
    /// The deadline that the engine knows.
    pub(super) scheduled: Option<Instant>,
    /// Whether the peer may open as many streams as the settings say, by direction.
    pub(super) streams_all: [bool; 2],
    /// TLS scheme of the peer's key, once it is proven.
    pub(super) scheme: u16,
    /// Whose key the dialler of this connection wanted to meet.
    pub(super) expected: Option<NodeId>,
    /// The peer has signed this very handshake; otherwise it was resumed.
    pub(super) verified: bool,
    pub(super) key_updates: u64,
    pub(super) datagrams_told: bool,
    /// Datagrams came before the peer was admitted.
    pub(super) datagrams_early: bool,
    /// Bytes of frames that have begun, as far as they count against the memory of all.
    pub(super) held_bytes: u64,
    /// Bytes of the frame that has begun, by channel.
    pub(super) pending_bytes: [u64; 3],
    /// Streams of the peer wait to be accepted.
    pub(super) throttled: bool,
    /// Bytes of this connection's windows that count against the memory of all.
    pub(super) granted_bytes: u64,
    /// `None`: no cap.
    pub(super) rate: Option<Bucket>,
    pub(super) amplification: Amplification,
    pub(super) resets: Bucket,
}

/// What we may send to an address that has not proven that it is the peer's (RFC 9000, section 8).
#[derive(Debug, Default)]
pub(super) struct Amplification {
    pub(super) validated: bool,
    pub(super) received_bytes: u64,
    pub(super) sent_bytes: u64,
}

impl Amplification {
    const FACTOR: u64 = 3;

    /// Bytes that may still be sent.
    pub(super) fn budget(&self) -> u64 {
        if self.validated {
            return u64::MAX;
        }
        (Self::FACTOR * self.received_bytes).saturating_sub(self.sent_bytes)
    }
}

pub(super) fn channel_index(kind: u8) -> usize {
    match kind {
        kind::VOTES => 1,
        kind::BULK => 2,
        _ => 0,
    }
}

pub(super) fn stream_number(id: StreamId) -> u64 {
    VarInt::from(id).into_inner()
}

pub(super) fn stream_id(number: u64) -> Option<StreamId> {
    VarInt::from_u64(number).ok().map(StreamId::from)
}

pub(super) fn text(reason: &[u8]) -> String {
    String::from_utf8_lossy(&reason[..reason.len().min(DETAIL_BYTES_MAX)]).into_owned()
}

impl Link {
    /// When this connection wants to be looked at again, whatever arrives.
    pub(super) fn deadline(&mut self, admission: Duration) -> Option<Instant> {
        let pending = !self.admitted && !self.closed;
        [
            self.inner.poll_timeout(),
            pending.then(|| self.started + admission),
            self.resume_at,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// A peer that opens streams only to give them up has to pay for it with patience.
    pub(super) fn was_reset(&mut self, id: StreamId) {
        if id.initiator() != self.inner.side() {
            self.resets.spend(1);
        }
    }

    pub(super) fn open(&mut self, dir: Dir, label: Option<u8>) -> Option<StreamId> {
        let id = self.inner.streams().open(dir)?;
        if let Some(label) = label {
            self.unlabelled.insert(id, label);
            let _ = self.label(id); // no room: paid with the first write
        }
        Some(id)
    }

    /// Write the kind byte if it is still owed. `false`: no room yet.
    pub(super) fn label(&mut self, id: StreamId) -> Result<bool, WriteError> {
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
    pub(super) fn drain(&mut self, index: usize) {
        let Some(id) = self.channels[index].stream else {
            return;
        };
        if !matches!(self.label(id), Ok(true)) {
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
        if channel.finishing && channel.queue.is_empty() {
            channel.finishing = false;
            let _ = self.inner.send_stream(id).finish(); // stopped: nobody wants the end
        }
    }
}

pub(super) enum End {
    /// Nothing more has arrived.
    Blocked,
    /// The caller's limit was reached first.
    Limit,
    Finished,
    Reset(u64),
}

/// In-order chunks of one stream, why it ended, and whether flow control has something to say.
pub(super) fn read_chunks(
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
