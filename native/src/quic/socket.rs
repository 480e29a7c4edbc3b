//! The UDP socket of an engine, until it is closed. What is asked of it afterwards is what it was.
use std::{
    io,
    net::{SocketAddr, SocketAddrV6, UdpSocket},
    os::fd::{AsRawFd, RawFd},
};

use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

/// No descriptor has this number.
const CLOSED: RawFd = -1;

pub(super) struct Socket {
    socket: Option<UdpSocket>,
    pub(super) state: UdpSocketState,
    /// With the port that the kernel chose.
    pub(super) address: SocketAddr,
    /// Granted receive and send buffer; the kernel may give less than was asked for.
    pub(super) buffers_bytes: (usize, usize),
}

impl Socket {
    /// An IPv6-only socket with the buffers that bursts need.
    pub(super) fn bind(listen: SocketAddrV6, buffer_bytes: usize) -> io::Result<Self> {
        let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
        socket.set_only_v6(true)?;
        socket.set_recv_buffer_size(buffer_bytes)?;
        socket.set_send_buffer_size(buffer_bytes)?;
        socket.bind(&SocketAddr::V6(listen).into())?;
        socket.set_nonblocking(true)?;
        let socket: UdpSocket = socket.into();
        let state = UdpSocketState::new((&socket).into())?;
        let buffers_bytes = (
            state.recv_buffer_size((&socket).into())?,
            state.send_buffer_size((&socket).into())?,
        );
        Ok(Self {
            address: socket.local_addr()?,
            state,
            buffers_bytes,
            socket: Some(socket),
        })
    }

    /// Give the port back.
    pub(super) fn close(&mut self) {
        self.socket = None;
    }

    pub(super) fn send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.state.try_send(self.open()?.into(), transmit)
    }

    pub(super) fn receive(
        &self,
        buffers: &mut [io::IoSliceMut<'_>],
        metas: &mut [RecvMeta],
    ) -> io::Result<usize> {
        self.state.recv(self.open()?.into(), buffers, metas)
    }

    fn open(&self) -> io::Result<&UdpSocket> {
        self.socket
            .as_ref()
            .ok_or_else(|| io::ErrorKind::NotConnected.into())
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_ref().map_or(CLOSED, AsRawFd::as_raw_fd)
    }
}
