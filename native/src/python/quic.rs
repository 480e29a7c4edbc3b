//! Border of `crate::quic`: one object per UDP socket, one list of tuples per turn.
use std::{
    net::{SocketAddr, SocketAddrV6},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use pyo3::{
    buffer::PyBuffer,
    create_exception,
    exceptions::PyOSError,
    prelude::*,
    pybacked::PyBackedBytes,
    types::{PyBytes, PyDict, PyList, PyTuple},
};

use super::{batch::Batch, errors::NativeError, falcon::FalconSigner, mldsa::MLDSASigner};
use crate::{
    batch,
    quic::{Congestion, Engine, Event, Fault, Refusal, RetryPolicy, Settings},
    tls::{Identity, KeySigner},
};

create_exception!(
    native,
    ConnectionGone,
    NativeError,
    "The connection is over."
);
create_exception!(
    native,
    StreamReset,
    NativeError,
    "The peer abandoned the stream; its code."
);
create_exception!(
    native,
    StreamStopped,
    NativeError,
    "The peer reads no further; its code."
);
create_exception!(
    native,
    StreamClosed,
    NativeError,
    "The stream is not open this way."
);
create_exception!(
    native,
    QueueFull,
    NativeError,
    "The channel's queue is at its limit."
);
create_exception!(
    native,
    FrameTooLong,
    NativeError,
    "The frame or datagram is over the size limit."
);
create_exception!(
    native,
    DatagramsUnsupported,
    NativeError,
    "The peer takes no datagrams."
);

/// Event kinds of `QuicEngine.step`, by position in this list.
const EVENTS: [&str; 13] = [
    "connected",
    "frame",
    "opened",
    "readable",
    "writable",
    "finished",
    "stopped",
    "available",
    "closed",
    "watched",
    "datagram",
    "datagram_room",
    "moved",
];

/// A `bytes` object up to this size is copied when written; a larger one is kept alive instead.
const COPY_BYTES_MAX: usize = 4_096;

/// Why a connection ended, by position in this list.
const CAUSES: [&str; 6] = [
    "local",
    "peer",
    "refused",
    "timed_out",
    "reset",
    "transport",
];

fn fault(fault: Fault) -> PyErr {
    match fault {
        Fault::Gone => ConnectionGone::new_err(()),
        Fault::Reset(code) => StreamReset::new_err(code),
        Fault::Stopped(code) => StreamStopped::new_err(code),
        Fault::NoStream => StreamClosed::new_err(()),
        Fault::Full => QueueFull::new_err(()),
        Fault::TooLong => FrameTooLong::new_err(()),
        Fault::Unsupported => DatagramsUnsupported::new_err(()),
    }
}

/// Keeps the error number, which the conversion of `PyO3` drops.
fn os_error(error: std::io::Error) -> PyErr {
    match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())),
        None => PyOSError::new_err(error.to_string()),
    }
}

fn ipv6(address: &str) -> PyResult<SocketAddrV6> {
    match address.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(address)) => Ok(address),
        Ok(SocketAddr::V4(_)) => Err(NativeError::new_err("an IPv4 address; STOQ is IPv6 only")),
        Err(_) => Err(NativeError::new_err(
            "not an IPv6 address with port, as in [::1]:9292",
        )),
    }
}

/// Lets a frame share the body of a batch instead of copying it.
struct Body(Arc<batch::Batch>);

impl AsRef<[u8]> for Body {
    fn as_ref(&self) -> &[u8] {
        self.0.body()
    }
}

/// The bytes of one part: a batch, whose body is shared, or a buffer, which is copied.
fn part(value: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    if let Ok(value) = value.cast::<Batch>() {
        return Ok(Bytes::from_owner(Body(value.get().batch.clone())));
    }
    if let Ok(value) = value.cast::<PyBytes>() {
        return Ok(Bytes::copy_from_slice(value.as_bytes()));
    }
    let buffer = PyBuffer::<u8>::get(value)?;
    Ok(Bytes::from(buffer.to_vec(value.py())?))
}

fn parts(values: &Bound<'_, PyTuple>) -> PyResult<Vec<Bytes>> {
    values.iter().map(|value| part(&value)).collect()
}

fn event<'py>(py: Python<'py>, event: &Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Connected {
            connection,
            dialled,
            spki,
        } => (
            0,
            *connection,
            u64::from(*dialled),
            0,
            PyBytes::new(py, spki),
        )
            .into_pyobject(py),
        Event::Frame {
            connection,
            kind,
            frame_type,
            body,
        } => (1, *connection, *kind, *frame_type, PyBytes::new(py, body)).into_pyobject(py),
        Event::Opened {
            connection,
            stream,
            kind,
        } => (2, *connection, *stream, *kind, py.None()).into_pyobject(py),
        Event::Readable { connection, stream } => {
            (3, *connection, *stream, 0, py.None()).into_pyobject(py)
        }
        Event::Writable { connection, stream } => {
            (4, *connection, *stream, 0, py.None()).into_pyobject(py)
        }
        Event::Finished { connection, stream } => {
            (5, *connection, *stream, 0, py.None()).into_pyobject(py)
        }
        Event::Stopped {
            connection,
            stream,
            code,
        } => (6, *connection, *stream, *code, py.None()).into_pyobject(py),
        Event::Available {
            connection,
            bidirectional,
        } => (7, *connection, u64::from(*bidirectional), 0, py.None()).into_pyobject(py),
        Event::Closed {
            connection,
            cause,
            code,
            detail,
        } => (8, *connection, *cause as u8, *code, detail).into_pyobject(py),
        Event::Watched { fd } => (9, 0, *fd, 0, py.None()).into_pyobject(py),
        Event::Datagram { connection } => (10, *connection, 0, 0, py.None()).into_pyobject(py),
        Event::DatagramRoom { connection } => (11, *connection, 0, 0, py.None()).into_pyobject(py),
        Event::Moved {
            connection,
            address,
        } => (12, *connection, 0, 0, address.to_string()).into_pyobject(py),
    }
}

#[derive(FromPyObject)]
enum SignerInput<'py> {
    Falcon(Bound<'py, FalconSigner>),
    MlDsa(Bound<'py, MLDSASigner>),
}

/// The attributes of `transport.core.engine.EngineSettings`.
#[derive(FromPyObject)]
struct SettingsInput {
    mtu_bytes_max: u16,
    socket_buffer_bytes: usize,
    stream_window_bytes: u32,
    connection_window_bytes: u32,
    send_window_bytes: u64,
    streams_max: u32,
    connections_max: usize,
    connections_per_prefix_max: usize,
    handshakes_max: usize,
    handshakes_per_prefix_max: usize,
    handshakes_per_s_per_prefix_max: u32,
    memory_bytes_max: u64,
    stream_resets_per_s_max: u32,
    admission_timeout_s: f64,
    idle_timeout_s: f64,
    keep_alive_s: f64,
    control_frame_bytes_max: usize,
    frame_bytes_max: usize,
    channel_queue_bytes_max: usize,
    datagram_queue_bytes_max: usize,
    gso_segments_max: usize,
    send_rate_bytes_per_s_max: u64,
    congestion: String,
    ack_frequency: bool,
    retry: String,
    resumption: bool,
    key_log_path: String,
    qlog_folder: String,
}

impl SettingsInput {
    fn checked(self, listen: &str) -> PyResult<Settings> {
        let seconds = |value: f64| {
            Duration::try_from_secs_f64(value)
                .map_err(|_| NativeError::new_err("not a duration in seconds"))
        };
        Ok(Settings {
            listen: ipv6(listen)?,
            mtu_bytes_max: self.mtu_bytes_max,
            socket_buffer_bytes: self.socket_buffer_bytes,
            stream_window_bytes: self.stream_window_bytes,
            connection_window_bytes: self.connection_window_bytes,
            send_window_bytes: self.send_window_bytes,
            streams_max: self.streams_max,
            connections_max: self.connections_max,
            connections_per_prefix_max: self.connections_per_prefix_max,
            handshakes_max: self.handshakes_max,
            handshakes_per_prefix_max: self.handshakes_per_prefix_max,
            handshakes_per_s_per_prefix_max: self.handshakes_per_s_per_prefix_max,
            memory_bytes_max: self.memory_bytes_max,
            stream_resets_per_s_max: self.stream_resets_per_s_max,
            admission_timeout: seconds(self.admission_timeout_s)?,
            idle_timeout: seconds(self.idle_timeout_s)?,
            keep_alive: seconds(self.keep_alive_s)?,
            control_frame_bytes_max: self.control_frame_bytes_max,
            frame_bytes_max: self.frame_bytes_max,
            channel_queue_bytes_max: self.channel_queue_bytes_max,
            datagram_queue_bytes_max: self.datagram_queue_bytes_max,
            gso_segments_max: self.gso_segments_max,
            send_rate_bytes_per_s_max: self.send_rate_bytes_per_s_max,
            congestion: match self.congestion.as_str() {
                "cubic" => Congestion::Cubic,
                "bbr" => Congestion::Bbr,
                _ => return Err(NativeError::new_err("congestion is cubic or bbr")),
            },
            ack_frequency: self.ack_frequency,
            retry: match self.retry.as_str() {
                "auto" => RetryPolicy::Auto,
                "always" => RetryPolicy::Always,
                "never" => RetryPolicy::Never,
                _ => return Err(NativeError::new_err("retry is auto, always or never")),
            },
            resumption: self.resumption,
            key_log_path: self.key_log_path,
            qlog_folder: self.qlog_folder,
        })
    }
}

/// One `bytes` object of all chunks. `PyBytes::new_with` would write every byte twice, zeros first.
fn joined<'py>(py: Python<'py>, chunks: &[Bytes]) -> PyResult<Bound<'py, PyBytes>> {
    if let [chunk] = chunks {
        return Ok(PyBytes::new(py, chunk));
    }
    let size: usize = chunks.iter().map(Bytes::len).sum();
    let length = isize::try_from(size).map_err(|_| NativeError::new_err("too much at once"))?;
    // SAFETY: we are attached. A null source asks for an object of this size that is ours alone, so
    // that it may still be written; every byte of it is, before anybody else sees it.
    unsafe {
        let object = pyo3::ffi::PyBytes_FromStringAndSize(std::ptr::null(), length);
        let bytes = Bound::from_owned_ptr_or_err(py, object)?.cast_into_unchecked::<PyBytes>();
        let mut target = pyo3::ffi::PyBytes_AsString(bytes.as_ptr()).cast::<u8>();
        for chunk in chunks {
            std::ptr::copy_nonoverlapping(chunk.as_ptr(), target, chunk.len());
            target = target.add(chunk.len());
        }
        Ok(bytes)
    }
}

/// The `rust` engine. Not a transport by itself: `transport.runtime` gives it tasks and names.
#[pyclass(frozen)]
struct QuicEngine {
    engine: Mutex<Engine>,
}

impl QuicEngine {
    fn lock(&self) -> MutexGuard<'_, Engine> {
        // A panic inside a turn cannot leave the engine worse than a lost connection.
        self.engine.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl QuicEngine {
    #[new]
    fn new(
        py: Python<'_>,
        signer: SignerInput<'_>,
        listen: &str,
        settings: SettingsInput,
    ) -> PyResult<Self> {
        let settings = settings.checked(listen)?;
        let identity = Identity::new(match signer {
            SignerInput::Falcon(signer) => KeySigner::Falcon(signer.get().signer.clone()),
            SignerInput::MlDsa(signer) => KeySigner::MlDsa(signer.get().signer.clone()),
        });
        let engine = py
            .detach(|| Engine::new(Arc::new(identity), settings))
            .map_err(os_error)?;
        Ok(Self {
            engine: Mutex::new(engine),
        })
    }

    fn fileno(&self) -> i32 {
        self.lock().fileno()
    }

    /// Always `None`: timers make `fileno` readable.
    fn timeout(&self) -> Option<f64> {
        None
    }

    fn address(&self) -> String {
        self.lock().address().to_string()
    }

    fn kick(&self) {
        self.lock().kick();
    }

    fn watch(&self, fd: i32) -> PyResult<()> {
        Ok(self.lock().watch(fd)?)
    }

    fn unwatch(&self, fd: i32) -> PyResult<()> {
        Ok(self.lock().unwatch(fd)?)
    }

    /// One turn: `(more, events)`, each event `(kind, connection, a, b, payload)`.
    fn step<'py>(&self, py: Python<'py>, budget: usize) -> PyResult<(bool, Bound<'py, PyList>)> {
        let (more, events) = py.detach(|| {
            let mut events = Vec::new();
            let more = self.lock().step(budget, &mut events);
            (more, events)
        });
        let list = PyList::empty(py);
        for item in &events {
            list.append(event(py, item)?)?;
        }
        Ok((more, list))
    }

    fn flush(&self, py: Python<'_>) {
        py.detach(|| self.lock().flush());
    }

    fn connect(&self, address: &str, node_id: [u8; 32]) -> PyResult<u64> {
        let address = ipv6(address)?;
        self.lock()
            .connect(address, node_id)
            .map_err(|error| PyOSError::new_err(error.to_string()))
    }

    fn admit(&self, connection: u64) {
        self.lock().admit(connection);
    }

    fn close(&self, connection: u64, code: u64, detail: &str) {
        self.lock().close(connection, code, detail);
    }

    fn refuse_all(&self) {
        self.lock().refuse_all();
    }

    /// Forget every connection and give the port back.
    fn release(&self) {
        self.lock().release();
    }

    fn rebind(&self, listen: &str) -> PyResult<()> {
        let listen = ipv6(listen)?;
        self.lock().rebind(listen).map_err(os_error)
    }

    fn update_key(&self, connection: u64) -> PyResult<()> {
        self.lock().update_key(connection).map_err(fault)
    }

    fn send_datagram(&self, connection: u64, data: &Bound<'_, PyAny>) -> PyResult<bool> {
        let data = part(data)?;
        self.lock().send_datagram(connection, data).map_err(fault)
    }

    fn receive_datagrams<'py>(
        &self,
        py: Python<'py>,
        connection: u64,
    ) -> PyResult<Vec<Bound<'py, PyBytes>>> {
        let taken = self.lock().receive_datagrams(connection).map_err(fault)?;
        Ok(taken.iter().map(|data| PyBytes::new(py, data)).collect())
    }

    fn datagram_bytes_max(&self, connection: u64) -> Option<usize> {
        self.lock().datagram_bytes_max(connection)
    }

    fn set_priority(&self, connection: u64, stream: u64, priority: i32) {
        self.lock().set_priority(connection, stream, priority);
    }

    #[pyo3(signature = (connection, bidirectional, kind))]
    fn open(&self, connection: u64, bidirectional: bool, kind: u8) -> PyResult<Option<u64>> {
        self.lock()
            .open(connection, bidirectional, Some(kind))
            .map_err(fault)
    }

    /// Write from `offset` on; returns how many bytes were taken.
    fn write(
        &self,
        py: Python<'_>,
        connection: u64,
        stream: u64,
        data: &Bound<'_, PyAny>,
        offset: usize,
    ) -> PyResult<usize> {
        let shared = if let Ok(value) = data.cast::<PyBytes>()
            && value.len()? > COPY_BYTES_MAX
        {
            Bytes::from_owner(value.extract::<PyBackedBytes>()?)
        } else {
            part(data)?
        };
        let rest = shared.slice(offset.min(shared.len())..);
        py.detach(|| self.lock().write(connection, stream, rest))
            .map_err(fault)
    }

    fn finish(&self, connection: u64, stream: u64) -> PyResult<bool> {
        self.lock().finish(connection, stream).map_err(fault)
    }

    fn reset(&self, connection: u64, stream: u64, code: u64) {
        self.lock().reset(connection, stream, code);
    }

    fn stop(&self, connection: u64, stream: u64, code: u64) {
        self.lock().stop(connection, stream, code);
    }

    /// Up to `limit` bytes, and whether the stream ended after them.
    fn read<'py>(
        &self,
        py: Python<'py>,
        connection: u64,
        stream: u64,
        limit: usize,
    ) -> PyResult<(Bound<'py, PyBytes>, bool)> {
        let (chunks, finished) = self.lock().read(connection, stream, limit).map_err(fault)?;
        Ok((joined(py, &chunks)?, finished))
    }

    /// Fill `target` with what has arrived: how many bytes, and whether the stream ended after them.
    fn read_into(
        &self,
        connection: u64,
        stream: u64,
        target: &Bound<'_, PyAny>,
    ) -> PyResult<(usize, bool)> {
        let buffer = PyBuffer::<u8>::get(target)?;
        if buffer.readonly() || !buffer.is_c_contiguous() {
            return Err(NativeError::new_err("not a writable contiguous buffer"));
        }
        let size = buffer.len_bytes();
        let (chunks, finished) = self.lock().read(connection, stream, size).map_err(fault)?;
        let start = buffer.buf_ptr().cast::<u8>();
        let mut at = 0;
        for chunk in &chunks {
            // SAFETY: `read` returns at most `size` bytes in all, the buffer is writable, contiguous
            // and pinned while `buffer` lives, and we are attached, so Python writes nothing to it.
            unsafe { std::ptr::copy_nonoverlapping(chunk.as_ptr(), start.add(at), chunk.len()) };
            at += chunk.len();
        }
        Ok((at, finished))
    }

    #[pyo3(signature = (connection, kind, frame_type, *parts))]
    fn send(
        &self,
        connection: u64,
        kind: u8,
        frame_type: u8,
        parts: &Bound<'_, PyTuple>,
    ) -> PyResult<usize> {
        let parts = self::parts(parts)?;
        self.lock()
            .send(connection, kind, frame_type, &parts)
            .map_err(fault)
    }

    /// The same frame to many connections, its bytes held once. Returns those that did not take it.
    #[pyo3(signature = (connections, kind, frame_type, *parts))]
    fn send_many(
        &self,
        connections: Vec<u64>,
        kind: u8,
        frame_type: u8,
        parts: &Bound<'_, PyTuple>,
    ) -> PyResult<Vec<u64>> {
        let parts = self::parts(parts)?;
        let mut engine = self.lock();
        let mut left_out = Vec::new();
        for connection in connections {
            match engine.send(connection, kind, frame_type, &parts) {
                Ok(_) => {}
                Err(Fault::TooLong) => return Err(fault(Fault::TooLong)),
                Err(_) => left_out.push(connection),
            }
        }
        Ok(left_out)
    }

    fn queued_bytes(&self, connection: u64, kind: u8) -> usize {
        self.lock().queued_bytes(connection, kind)
    }

    fn finish_channels(&self, connection: u64) -> Vec<u64> {
        self.lock().finish_channels(connection)
    }

    fn remote_address(&self, connection: u64) -> Option<String> {
        self.lock()
            .remote_address(connection)
            .map(|address| address.to_string())
    }

    fn export<'py>(
        &self,
        py: Python<'py>,
        connection: u64,
        label: &[u8],
        context: &[u8],
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        PyBytes::new_with(py, length, |output| {
            self.lock()
                .export(connection, label, context, output)
                .map_err(fault)
        })
    }

    /// `(rtt s, smallest rtt s, mtu, congestion window, packets sent, lost, bytes sent, received,
    /// black holes, congestion events)`.
    #[allow(clippy::type_complexity)]
    fn path(&self, connection: u64) -> Option<(f64, f64, u16, u64, u64, u64, u64, u64, u64, u64)> {
        self.lock().path(connection).map(|path| {
            (
                path.rtt.as_secs_f64(),
                path.rtt_min.as_secs_f64(),
                path.mtu_bytes,
                path.congestion_window_bytes,
                path.packets_sent,
                path.packets_lost,
                path.bytes_sent,
                path.bytes_received,
                path.black_holes,
                path.congestion_events,
            )
        })
    }

    /// `(key exchange, signature scheme, resumed, key updates)`.
    fn session(&self, connection: u64) -> Option<(u16, u16, u8, u64)> {
        self.lock().session(connection).map(|session| {
            (
                session.key_exchange,
                session.signature,
                u8::from(session.resumed),
                session.key_updates,
            )
        })
    }

    /// Counters by name; refusals under `refused`, by reason.
    fn statistics<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let engine = self.lock();
        let counters = engine.statistics();
        let (receive_buffer, send_buffer) = engine.socket_buffers();
        let refused = PyDict::new(py);
        for (name, count) in Refusal::NAMES.iter().zip(counters.refused) {
            refused.set_item(name, count)?;
        }
        let result = PyDict::new(py);
        for (name, value) in [
            ("connections", engine.connections() as u64),
            ("datagrams_received", counters.datagrams_received),
            ("receive_calls", counters.receive_calls),
            ("bytes_received", counters.bytes_received),
            ("datagrams_sent", counters.datagrams_sent),
            ("send_calls", counters.send_calls),
            ("bytes_sent", counters.bytes_sent),
            ("send_errors", counters.send_errors),
            ("frames_received", counters.frames_received),
            ("frames_sent", counters.frames_sent),
            ("handshakes_completed", counters.handshakes_completed),
            ("retries_sent", counters.retries_sent),
            ("steps", counters.steps),
            ("ecn_received", counters.ecn_received),
            ("streams_throttled", counters.streams_throttled),
            ("memory_granted_bytes", counters.memory_granted_bytes),
            ("receive_buffer_bytes", receive_buffer as u64),
            ("send_buffer_bytes", send_buffer as u64),
            ("gso_segments", engine.gso_segments() as u64),
        ] {
            result.set_item(name, value)?;
        }
        result.set_item("refused", refused)?;
        Ok(result)
    }
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    let py = module.py();
    module.add_class::<QuicEngine>()?;
    module.add("ConnectionGone", py.get_type::<ConnectionGone>())?;
    module.add("StreamReset", py.get_type::<StreamReset>())?;
    module.add("StreamStopped", py.get_type::<StreamStopped>())?;
    module.add("StreamClosed", py.get_type::<StreamClosed>())?;
    module.add("QueueFull", py.get_type::<QueueFull>())?;
    module.add(
        "DatagramsUnsupported",
        py.get_type::<DatagramsUnsupported>(),
    )?;
    module.add("FrameTooLong", py.get_type::<FrameTooLong>())?;
    module.add("QUIC_EVENTS", PyTuple::new(py, EVENTS)?)?;
    module.add("QUIC_CAUSES", PyTuple::new(py, CAUSES)?)?;
    module.add("QUIC_REFUSALS", PyTuple::new(py, Refusal::NAMES)?)
}
