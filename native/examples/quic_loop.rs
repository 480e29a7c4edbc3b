//! The engine in a plain loop, without Python: the yardstick for the runtime above it.
//!
//! `quic_loop server --mtu 1452 --core 0` prints one JSON line with `address` and `node_id`;
//! `quic_loop client --mtu 1452 --core 1 --mebibytes 1024 --address A --node-id N` uploads over one
//! stream and prints `bytes`, `seconds` and `cpu_s` of both ends, as the server measured from the
//! first byte to the last. Both say `admit` at once: there is nobody here whom a HELLO could
//! convince.
use std::{
    env,
    error::Error,
    net::SocketAddrV6,
    os::fd::RawFd,
    sync::Arc,
    time::{Duration, Instant},
};

use _native::{
    falcon::{Degree, Signer},
    quic::{Congestion, Engine, Event, RetryPolicy, Settings, kind},
    tls::{Identity, KeySigner},
};
use bytes::Bytes;

type Outcome<T> = Result<T, Box<dyn Error>>;

const BUDGET: usize = 16;
const CHUNK_BYTES: usize = 1 << 20;
const READ_BYTES: usize = 1 << 20;
const MEBIBYTE: u64 = 1 << 20;

/// What a run was asked to be.
struct Plan {
    mtu: u16,
    gso: usize,
    ack_frequency: bool,
    mebibytes: u64,
    core: usize,
}

fn main() -> Outcome<()> {
    let plan = Plan {
        mtu: option("--mtu", "1452").parse()?,
        gso: option("--gso", "44").parse()?,
        ack_frequency: option("--ack-frequency", "false").parse()?,
        mebibytes: option("--mebibytes", "1024").parse()?,
        core: option("--core", "0").parse()?,
    };
    pin(plan.core);
    match env::args().nth(1).as_deref() {
        Some("server") => serve(&plan),
        Some("client") => {
            let node_id = from_hex(&option("--node-id", ""))?;
            upload(&plan, option("--address", "").parse()?, node_id)
        }
        _ => Err("say `server` or `client`".into()),
    }
}

fn serve(plan: &Plan) -> Outcome<()> {
    let (mut engine, node_id) = engine(plan)?;
    println!(
        "{{\"address\": \"{}\", \"node_id\": \"{}\"}}",
        engine.address(),
        to_hex(&node_id)
    );
    let (mut moved, mut started) = (0u64, None);
    let mut events = Vec::new();
    loop {
        turn(&mut engine, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Connected { connection, .. } => engine.admit(connection),
                Event::Opened {
                    connection, stream, ..
                }
                | Event::Readable { connection, stream } => {
                    let (began, cpu_s) = *started.get_or_insert_with(|| (Instant::now(), cpu_s()));
                    loop {
                        let (chunks, finished) = engine
                            .read(connection, stream, READ_BYTES)
                            .map_err(|fault| format!("read: {fault:?}"))?;
                        moved += chunks.iter().map(|chunk| chunk.len() as u64).sum::<u64>();
                        if finished {
                            let seconds = began.elapsed().as_secs_f64();
                            let answer = format!("{moved} {seconds} {}", self::cpu_s() - cpu_s);
                            engine
                                .write(connection, stream, Bytes::from(answer))
                                .and_then(|_| engine.finish(connection, stream))
                                .map_err(|fault| format!("answer: {fault:?}"))?;
                            break;
                        }
                        if chunks.is_empty() {
                            break;
                        }
                    }
                }
                Event::Closed { .. } => return Ok(()),
                _ => {}
            }
        }
        engine.flush();
    }
}

fn upload(plan: &Plan, address: SocketAddrV6, node_id: [u8; 32]) -> Outcome<()> {
    let (mut engine, _) = engine(plan)?;
    engine.connect(address, node_id)?;
    let chunk = Bytes::from(vec![0x5a; CHUNK_BYTES]);
    let mut left = plan.mebibytes * MEBIBYTE;
    let mut open = None;
    let mut began_cpu_s = 0.0;
    let mut answer = Vec::new();
    let mut events = Vec::new();
    loop {
        turn(&mut engine, &mut events);
        for event in events.drain(..) {
            match event {
                Event::Connected { connection, .. } => {
                    // Stream 0 is the control channel; the data has the next one.
                    engine
                        .send(connection, kind::CONTROL, 1, &[])
                        .map_err(|fault| format!("control: {fault:?}"))?;
                    engine.admit(connection);
                    let stream = engine
                        .open(connection, true, Some(kind::RAW))
                        .map_err(|fault| format!("open: {fault:?}"))?
                        .ok_or("no stream")?;
                    open = Some((connection, stream));
                    began_cpu_s = cpu_s();
                }
                Event::Readable { connection, stream } => {
                    let (chunks, finished) = engine
                        .read(connection, stream, READ_BYTES)
                        .map_err(|fault| format!("read: {fault:?}"))?;
                    chunks
                        .iter()
                        .for_each(|part| answer.extend_from_slice(part));
                    if finished {
                        report(&answer, cpu_s() - began_cpu_s, &engine, connection)?;
                        engine.close(connection, 0, "");
                        engine.flush();
                        return Ok(());
                    }
                }
                Event::Closed { detail, .. } => return Err(format!("closed: {detail}").into()),
                _ => {}
            }
        }
        if let Some((connection, stream)) = open {
            while left > 0 {
                let size = chunk.len().min(usize::try_from(left)?);
                let taken = engine
                    .write(connection, stream, chunk.slice(..size))
                    .map_err(|fault| format!("write: {fault:?}"))?;
                if taken == 0 {
                    break;
                }
                left -= taken as u64;
                if left == 0 {
                    engine
                        .finish(connection, stream)
                        .map_err(|fault| format!("finish: {fault:?}"))?;
                }
            }
        }
        engine.flush();
    }
}

fn report(answer: &[u8], cpu_s: f64, engine: &Engine, connection: u64) -> Outcome<()> {
    let text = std::str::from_utf8(answer)?;
    let mut parts = text.split_whitespace();
    let mut next = || parts.next().ok_or("short answer");
    let (bytes, seconds, server_cpu_s) = (next()?, next()?, next()?.parse::<f64>()?);
    let path = engine.path(connection).ok_or("no path")?;
    println!(
        "{{\"bytes\": {bytes}, \"seconds\": {seconds}, \"cpu_s\": {}, \"client_cpu_s\": {cpu_s}, \
         \"mtu\": {}, \"lost\": {}, \"black_holes\": {}}}",
        server_cpu_s + cpu_s,
        path.mtu_bytes,
        path.packets_lost,
        path.black_holes
    );
    Ok(())
}

fn engine(plan: &Plan) -> Outcome<(Engine, [u8; 32])> {
    let signer = Signer::generate(Degree::Falcon512).map_err(|_| "no randomness")?;
    let identity = Arc::new(Identity::new(KeySigner::Falcon(Arc::new(signer))));
    let node_id = identity.node_id();
    let settings = Settings {
        listen: "[::1]:0".parse()?,
        mtu_bytes_max: plan.mtu,
        socket_buffer_bytes: 4 << 20,
        stream_window_bytes: 16 << 20,
        connection_window_bytes: 32 << 20,
        send_window_bytes: 16 << 20,
        streams_max: 256,
        connections_max: 256,
        connections_per_prefix_max: 256,
        handshakes_max: 64,
        handshakes_per_prefix_max: 64,
        handshakes_per_s_per_prefix_max: 2_000,
        memory_bytes_max: 2 << 30,
        stream_resets_per_s_max: 100,
        admission_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(10),
        keep_alive: Duration::from_secs(3),
        control_frame_bytes_max: 1 << 16,
        frame_bytes_max: 16 << 20,
        channel_queue_bytes_max: 64 << 20,
        datagram_queue_bytes_max: 1 << 20,
        gso_segments_max: plan.gso,
        send_rate_bytes_per_s_max: 0,
        congestion: Congestion::Cubic,
        ack_frequency: plan.ack_frequency,
        retry: RetryPolicy::Auto,
        resumption: false,
        key_log_path: String::new(),
        qlog_folder: String::new(),
    };
    Ok((Engine::new(identity, settings)?, node_id))
}

/// Wait as the owner of an engine does, then take one turn.
fn turn(engine: &mut Engine, events: &mut Vec<Event>) {
    if !engine.step(BUDGET, events) && events.is_empty() {
        wait(engine.fileno());
        engine.step(BUDGET, events);
    }
}

fn wait(fd: RawFd) {
    let mut entry = libc::pollfd {
        fd,
        events: libc::POLLIN,
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

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn from_hex(text: &str) -> Outcome<[u8; 32]> {
    let mut bytes = [0; 32];
    for (index, byte) in bytes.iter_mut().enumerate() {
        let digits = text.get(2 * index..2 * index + 2).ok_or("short NodeId")?;
        *byte = u8::from_str_radix(digits, 16)?;
    }
    Ok(bytes)
}
