//! Raw UDP with segmentation offload both ways and no QUIC: the ceiling that the kernel sets.
//!
//! `udp_gso receiver --core 0` prints its address; `udp_gso sender --core 1 --address A --mtu 1452
//! --seconds 1` sends as fast as the kernel takes it, then tells the receiver to print, as JSON,
//! what arrived between its first and its last datagram.
use std::{
    env,
    error::Error,
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
    os::fd::AsRawFd,
    time::{Duration, Instant},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

const BUFFER_BYTES: usize = 4 << 20;
const DATAGRAM_BYTES_MAX: usize = 65_536;
const BATCH: usize = 32;
const GSO_BYTES_MAX: usize = 65_507;
/// A datagram of this size is the end; repeated, because it may be lost.
const END_BYTES: usize = 1;
const END_COPIES: usize = 50;

fn main() -> Outcome<()> {
    pin(option("--core", "0").parse()?);
    match env::args().nth(1).as_deref() {
        Some("receiver") => receive(),
        Some("sender") => send(
            option("--address", "").parse()?,
            option("--mtu", "1452").parse()?,
            Duration::from_secs_f64(option("--seconds", "1").parse()?),
        ),
        _ => Err("say `receiver` or `sender`".into()),
    }
}

fn receive() -> Outcome<()> {
    let (socket, state) = bind()?;
    println!("{{\"address\": \"{}\"}}", socket.local_addr()?);
    let mut memory = vec![0; BATCH * DATAGRAM_BYTES_MAX];
    let mut metas = [quinn_udp::RecvMeta::default(); BATCH];
    let (mut bytes, mut datagrams) = (0u64, 0u64);
    let (mut first, mut last) = (None, Instant::now());
    loop {
        let mut buffers: Vec<IoSliceMut<'_>> = memory
            .chunks_mut(DATAGRAM_BYTES_MAX)
            .map(IoSliceMut::new)
            .collect();
        let count = match state.recv((&socket).into(), &mut buffers, &mut metas) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&socket, libc::POLLIN);
                continue;
            }
            other => other?,
        };
        for meta in &metas[..count] {
            if meta.len == END_BYTES {
                let began = first.ok_or("nothing arrived")?;
                let seconds = last.duration_since(began).as_secs_f64();
                println!(
                    "{{\"bytes\": {bytes}, \"datagrams\": {datagrams}, \"seconds\": {seconds}, \
                     \"cpu_s\": {}}}",
                    cpu_s()
                );
                return Ok(());
            }
            last = Instant::now();
            first.get_or_insert(last);
            bytes += meta.len as u64;
            datagrams += meta.len.div_ceil(meta.stride.max(1)) as u64;
        }
    }
}

fn send(target: SocketAddr, mtu: usize, duration: Duration) -> Outcome<()> {
    let (socket, state) = bind()?;
    let segments = state.max_gso_segments().min(GSO_BYTES_MAX / mtu).max(1);
    let contents = vec![0x5a; segments * mtu];
    let transmit = |contents, segment_size| quinn_udp::Transmit {
        destination: target,
        ecn: None,
        contents,
        segment_size,
        src_ip: None,
    };
    let began = Instant::now();
    while began.elapsed() < duration {
        deliver(&socket, &state, &transmit(&contents, Some(mtu)))?;
    }
    println!("{{\"cpu_s\": {}}}", cpu_s());
    for _ in 0..END_COPIES {
        std::thread::sleep(Duration::from_millis(2));
        if deliver(&socket, &state, &transmit(&contents[..END_BYTES], None)).is_err() {
            break; // the receiver has gone
        }
    }
    Ok(())
}

fn deliver(
    socket: &UdpSocket,
    state: &quinn_udp::UdpSocketState,
    transmit: &quinn_udp::Transmit<'_>,
) -> io::Result<()> {
    loop {
        match state.try_send(socket.into(), transmit) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(socket, libc::POLLOUT);
            }
            other => return other,
        }
    }
}

fn bind() -> Outcome<(UdpSocket, quinn_udp::UdpSocketState)> {
    let socket = socket2::Socket::new(socket2::Domain::IPV6, socket2::Type::DGRAM, None)?;
    socket.set_recv_buffer_size(BUFFER_BYTES)?;
    socket.set_send_buffer_size(BUFFER_BYTES)?;
    socket.bind(&"[::1]:0".parse::<SocketAddr>()?.into())?;
    socket.set_nonblocking(true)?;
    let socket: UdpSocket = socket.into();
    let state = quinn_udp::UdpSocketState::new((&socket).into())?;
    Ok((socket, state))
}

fn wait(socket: &UdpSocket, events: libc::c_short) {
    let mut entry = libc::pollfd {
        fd: socket.as_raw_fd(),
        events,
        revents: 0,
    };
    // SAFETY: one entry, which outlives the call.
    unsafe { libc::poll(&raw mut entry, 1, 1_000) };
}

fn option(name: &str, default: &str) -> String {
    env::args()
        .skip_while(|word| word != name)
        .nth(1)
        .unwrap_or_else(|| default.to_owned())
}

fn pin(core: usize) {
    // SAFETY: the set is a plain bit field; a core that is not ours is refused by the kernel.
    unsafe {
        let mut set: libc::cpu_set_t = std::mem::zeroed();
        libc::CPU_SET(core, &mut set);
        libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
    }
}

fn cpu_s() -> f64 {
    // SAFETY: the kernel fills the structure, of which zeros are a valid value.
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_SELF, &raw mut usage);
        usage
    };
    [usage.ru_utime, usage.ru_stime]
        .iter()
        .map(|time| time.tv_sec as f64 + time.tv_usec as f64 / 1e6)
        .sum()
}
