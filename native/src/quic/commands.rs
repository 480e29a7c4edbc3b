//! What the owner of an engine may ask of it. Commands change state only; see the module above for
//! when datagrams leave.
use std::{
    io,
    net::SocketAddrV6,
    os::fd::{AsRawFd, RawFd},
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use quinn_proto::{Dir, FinishError, SendDatagramError, VarInt, WriteError};

use super::{
    Engine, io_error,
    link::{End, Inbound, channel_index, read_chunks, stream_id, stream_number},
    names::{Cause, Event, Fault, kind},
    socket::Socket,
};
use crate::{
    frame::{self, Splitter},
    tls::{self, NodeId},
};

/// Below this, the parts of a frame are joined into one buffer rather than chained.
const FRAME_JOIN_BYTES_MAX: usize = 4_096;

impl Engine {
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
        let mut config = quinn_proto::ClientConfig::new(self.client.clone());
        config.transport_config(self.transport("dialler"));
        config.token_store(self.tokens.clone());
        let now = Instant::now();
        let (handle, inner) = self
            .endpoint
            .connect(now, config, address.into(), &tls::server_name(&expected))
            .map_err(io_error)?;
        let id = self.add(handle, inner, true, now);
        if let Ok(link) = self.link(id) {
            link.expected = Some(expected);
        }
        Ok(id)
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
        let (address, dialled) = (link.first_remote, link.dialled);
        self.guard.settled(address, dialled, false);
        let receive = u64::from(self.settings.connection_window_bytes);
        let send = self.settings.send_window_bytes;
        let more = self.guard.grant(address, dialled, receive + send);
        link.granted_bytes += more;
        // Both directions shrink alike when memory is short.
        let receive = link.granted_bytes * receive / (receive + send);
        let window = VarInt::from_u64(receive).unwrap_or(VarInt::MAX);
        link.inner.set_receive_window(window);
        link.inner.set_send_window(link.granted_bytes - receive);
        link.readable.extend(link.inbound.keys().copied());
        if link.datagrams_early {
            link.datagrams_told = true;
            self.events.push(Event::Datagram { connection });
        }
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

    /// Move to a new socket. Connections we dialled migrate to it; those we accepted end with their
    /// idle timeout, because only a dialler may migrate (RFC 9000, section 9).
    ///
    /// # Errors
    /// When the address cannot be bound; the old socket stays then.
    pub fn rebind(&mut self, listen: SocketAddrV6) -> io::Result<()> {
        let socket = Socket::bind(listen, self.settings.socket_buffer_bytes)?;
        self.poller
            .control(libc::EPOLL_CTL_ADD, socket.as_raw_fd(), libc::EPOLLIN)?;
        let old = self.socket.as_raw_fd();
        self.poller.control(libc::EPOLL_CTL_DEL, old, 0)?;
        self.poller.want_write = false;
        self.socket = socket;
        self.unsent.clear();
        for handle in 0..self.links.len() {
            if let Some(link) = self.links[handle].as_mut() {
                link.inner.local_address_changed();
                self.touch(handle);
            }
        }
        self.poller.kick();
        Ok(())
    }

    /// Forget every connection and give the port back. Descriptors of the wait set stay until the
    /// engine is dropped: somebody may still wait on them.
    pub fn release(&mut self) {
        for handle in 0..self.links.len() {
            self.mark_closed(handle, Cause::Local, 0, String::new());
        }
        self.events.clear();
        self.handles.clear();
        self.links.clear();
        self.dirty.clear();
        self.deadlines.clear();
        self.unsent.clear();
        self.socket.close();
    }

    /// Begin to use the next keys (RFC 9001, section 6). Does nothing while an update is under way.
    ///
    /// # Errors
    /// [`Fault::Gone`].
    pub fn update_key(&mut self, connection: u64) -> Result<(), Fault> {
        let link = self.link(connection)?;
        link.inner.force_key_update();
        link.inner.ping(); // the peer learns of it from the next packet
        link.key_updates += 1;
        self.touch_id(connection);
        Ok(())
    }

    /// Queue an unreliable datagram (RFC 9221). `false`: the queue is full, and
    /// [`Event::DatagramRoom`] follows.
    ///
    /// # Errors
    /// [`Fault::TooLong`], [`Fault::Unsupported`], [`Fault::Gone`].
    pub fn send_datagram(&mut self, connection: u64, data: Bytes) -> Result<bool, Fault> {
        let link = self.link(connection)?;
        let result = link.inner.datagrams().send(data, false);
        self.touch_id(connection);
        match result {
            Ok(()) => Ok(true),
            Err(SendDatagramError::Blocked(_)) => Ok(false),
            Err(SendDatagramError::TooLarge) => Err(Fault::TooLong),
            Err(SendDatagramError::UnsupportedByPeer | SendDatagramError::Disabled) => {
                Err(Fault::Unsupported)
            }
        }
    }

    /// Every datagram that waits, oldest first.
    ///
    /// # Errors
    /// [`Fault::Gone`].
    pub fn receive_datagrams(&mut self, connection: u64) -> Result<Vec<Bytes>, Fault> {
        let link = self.link(connection)?;
        link.datagrams_told = false;
        let mut taken = Vec::new();
        while let Some(data) = link.inner.datagrams().recv() {
            taken.push(data);
        }
        Ok(taken)
    }

    /// Largest datagram the path and the peer take now; `None`: the peer takes none.
    pub fn datagram_bytes_max(&mut self, connection: u64) -> Option<usize> {
        self.link(connection).ok()?.inner.datagrams().max_size()
    }

    /// Streams of a higher priority are sent first; 0 is what a stream begins with.
    pub fn set_priority(&mut self, connection: u64, stream: u64, priority: i32) {
        if let (Ok(link), Some(id)) = (self.link(connection), stream_id(stream)) {
            let _ = link.inner.send_stream(id).set_priority(priority); // over: nothing to order
        }
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
    /// The data is shared, not copied, until the peer has acknowledged it.
    ///
    /// # Errors
    /// When the connection or this direction of the stream is over.
    pub fn write(&mut self, connection: u64, stream: u64, data: Bytes) -> Result<usize, Fault> {
        let link = self.link(connection)?;
        let id = stream_id(stream).ok_or(Fault::NoStream)?;
        let labelled = link.label(id);
        let result = match labelled {
            Ok(true) => link
                .inner
                .send_stream(id)
                .write_chunks(&mut [data])
                .map(|written| written.bytes),
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
            let known = link.inbound.remove(&id).is_some();
            if known && code != 0 {
                link.was_reset(id); // refused is as good as reset: its own reset is not seen
            }
            let code = VarInt::from_u64(code).unwrap_or(VarInt::MAX);
            let _ = link.inner.recv_stream(id).stop(code);
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
            End::Finished => drop(link.inbound.remove(&id)),
            End::Reset(_) => {
                link.inbound.remove(&id);
                link.was_reset(id);
            }
            End::Blocked | End::Limit => {
                link.inbound.insert(id, Inbound::Owned { told: false });
            }
        }
        if transmit {
            self.touch_id(connection);
            if matches!(end, End::Finished) {
                self.poller.kick(); // the owner has no reason to flush, and the peer may wait
            }
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
            if let Some(id) = link.channels[index].stream {
                link.channels[index].finishing = true;
                link.drain(index);
                waiting.push(stream_number(id));
            }
        }
        self.touch_id(connection);
        waiting
    }
}
