"""The endpoint: one UDP socket, one task that pumps the engine, and everything hung onto it.

    await nursery.start(endpoint.run)
    connection = await endpoint.dial("[::1]:9292", node_id)

The pump waits on one descriptor for packets, timers, news of the engine and whatever else was
`watch`ed. Callbacks run inside the pump, synchronously and in order: they must be short, must not
raise, and may send; what they send leaves when the turn ends.
"""

import errno
import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from time import perf_counter
from typing import Final, Self, TypeAlias

import structlog
import trio

from native import quic
from native.errors import KeyInvalid, NativeError
from native.values import NodeId, PublicKey
from transport.config import TransportConfig
from transport.core.engine import Engine, Part
from transport.core.events import (
    HELLO_REFUSALS,
    Cause,
    ChannelKind,
    CloseReason,
    Closure,
    EventKind,
    RefusalReason,
    StreamKind,
    key_exchange_name,
    signature_name,
)
from transport.core.frames import ControlType
from transport.core.hello import (
    INSTANCE_SIZE_BYTES,
    Hello,
    HelloExchange,
    HelloOffer,
    Step,
    encode_hello,
)
from transport.core.measures import DurationCounter
from transport.core.pool import Candidate, replaces
from transport.errors import (
    AddressInvalid,
    BindFailed,
    DialFailed,
    EndpointStopped,
    FrameTooLong,
    HelloRefused,
    MalformedHello,
    PeerRefused,
    PortInUse,
    TransportError,
)
from transport.identity import Identity, PeerVerifier
from transport.limits import (
    CLOSE_DETAIL_CHARS_MAX,
    DIAL_ADDRESSES_MAX,
    RECEIVE_BATCHES_PER_TURN,
    TURN_LATE_S,
)
from transport.metrics import HANDSHAKE_BUCKETS_S, EndpointStatistics, HandshakeResult
from transport.runtime.connection import Connection
from transport.runtime.deadlines import Deadlines
from transport.runtime.dialling import first_admitted
from transport.runtime.engines import make_engine
from transport.runtime.flusher import Flusher
from transport.runtime.kernel import receive_drops
from transport.runtime.network import NetworkCounter
from transport.runtime.rpc import CallServer, Handler

FrameCallback: TypeAlias = Callable[[Connection, ChannelKind, int, bytes], object]
ConnectionCallback: TypeAlias = Callable[[Connection], object]
EngineFactory: TypeAlias = Callable[[Identity, str, TransportConfig], Engine]

_log = structlog.get_logger("transport")
_CHANNELS: Final = {int(kind): kind for kind in ChannelKind}

# Plain integers for the loop that runs per event: looking an enum member up costs more than that.
_CONTROL: Final = int(StreamKind.CONTROL)
_CONNECTED: Final = int(EventKind.CONNECTED)
_FRAME: Final = int(EventKind.FRAME)
_OPENED: Final = int(EventKind.OPENED)
_READABLE: Final = int(EventKind.READABLE)
_WRITABLE: Final = int(EventKind.WRITABLE)
_FINISHED: Final = int(EventKind.FINISHED)
_STOPPED: Final = int(EventKind.STOPPED)
_AVAILABLE: Final = int(EventKind.AVAILABLE)
_CLOSED: Final = int(EventKind.CLOSED)
_WATCHED: Final = int(EventKind.WATCHED)
_DATAGRAM: Final = int(EventKind.DATAGRAM)
_DATAGRAM_ROOM: Final = int(EventKind.DATAGRAM_ROOM)
_MOVED: Final = int(EventKind.MOVED)


@dataclass(slots=True, kw_only=True, eq=False)
class _Handshake:
    """A connection on its way to being admitted."""

    handle: int
    exchange: HelloExchange
    began_s: float = field(default_factory=trio.current_time)
    public_key: PublicKey | None = None
    expected: NodeId | None = None
    done: trio.Event | None = None  # a task waits in `dial`
    outcome: Connection | Closure | None = None


class Endpoint:
    """Dials and accepts. Reusable state is none: make a new one after `run` has ended."""

    def __init__(
        self,
        identity: Identity,
        *,
        listen: str | None,
        hello: HelloOffer,
        verifier: PeerVerifier,
        config: TransportConfig | None = None,
        engine_factory: EngineFactory = make_engine,
    ) -> None:
        self.identity: Final = identity
        self.config: Final = config or TransportConfig()
        self.deadlines: Final = Deadlines()
        self.calls: Final = CallServer(self.config.rpc_calls_max, self.deadlines)
        self._listen = None if listen is None else checked_address(listen)
        self._hello = Hello.of(hello, os.urandom(INSTANCE_SIZE_BYTES))
        self.verifier: Final = verifier
        self._engine_factory = engine_factory
        self._engine: Engine | None = None
        self._handshakes: dict[int, _Handshake] = {}
        self._connections: dict[int, Connection] = {}
        self._peers: dict[NodeId, Connection] = {}
        self._accepted: deque[Connection] = deque()  # bounded: open connections only
        self._arrival = trio.Event()
        self._flusher: Final = Flusher()
        self._watched: dict[int, Callable[[], object]] = {}
        self._on_frame: list[FrameCallback] = []
        self._on_turn: list[Callable[[], object]] = []
        self._on_connection: list[ConnectionCallback] = []
        self._on_closed: list[ConnectionCallback] = []
        self._hello_refused = dict.fromkeys(HELLO_REFUSALS.values(), 0)
        self._handshakes_ended: dict[tuple[HandshakeResult, str, str], int] = {}
        self._handshake_times = DurationCounter(HANDSHAKE_BUCKETS_S)
        self._network = NetworkCounter()
        self._turns_late = 0
        self.backpressure_s = 0.0  # counted by the streams
        self.datagrams_unread = 0  # counted by the connections
        self._closing = False
        self._closed = trio.Event()

    # --- life

    async def run(self, *, task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED) -> None:
        """Bind, then pump until cancelled or closed. Raises `PortInUse` and `BindFailed`."""
        if self._engine is not None or self._closing:
            raise EndpointStopped("an endpoint runs once")
        self._engine = self._bind()
        self._warn()
        try:
            for fd in self._watched:
                self._engine.watch(fd)
            if self._listen is None:
                self._engine.refuse_all()
            async with trio.open_nursery() as nursery:
                self.calls.start(nursery)
                nursery.start_soon(self.deadlines.run, name="transport.deadlines")
                self._flusher.start(self._engine)
                task_status.started(self)
                try:
                    await self._pump(self._engine)
                finally:
                    # Before handlers are waited for: what they still ask of a peer fails then.
                    self._shut_down()
                nursery.cancel_scope.cancel()
        finally:
            self._shut_down()

    async def close(self, reason: CloseReason = CloseReason.SHUTDOWN, detail: str = "") -> None:
        """Close every connection gracefully, then stop `run`."""
        if self._engine is not None:
            self._engine.refuse_all()
        async with trio.open_nursery() as nursery:
            for connection in tuple(self._connections.values()):
                nursery.start_soon(connection.close, reason, detail)
        self._closing = True
        if self._engine is not None:
            self._engine.kick()
            await self._closed.wait()

    @property
    def engine(self) -> Engine:
        """The engine; raises `EndpointStopped` before `run`."""
        if self._engine is None:
            raise EndpointStopped("the endpoint is not running")
        return self._engine

    @property
    def address(self) -> str:
        """Where we listen, with the port the system chose."""
        return self.engine.address()

    @property
    def connections(self) -> Sequence[Connection]:
        """Every admitted connection that is open."""
        return tuple(self._connections.values())

    def peer(self, node_id: NodeId) -> Connection | None:
        """The open connection to this node, if there is one."""
        return self._peers.get(node_id)

    def rebind(self, listen: str) -> None:
        """Move to another local address; connections come along (RFC 9000, section 9). Raises
        `AddressInvalid`, `PortInUse` and `BindFailed`; the old address stays then."""
        engine = self._running()
        listen = checked_address(listen)
        try:
            engine.rebind(listen)
        except NativeError as error:
            raise AddressInvalid(listen, str(error)) from None
        except OSError as error:
            raise _bind_failed(listen, error) from None
        self.kick()

    def offer(self, hello: HelloOffer) -> None:
        """Say this in later HELLOs; connections that exist are not told."""
        self._hello = Hello.of(hello, self._hello.instance)

    # --- connecting

    async def dial(
        self, addresses: str | Sequence[str], node_id: NodeId, *, timeout_s: float = math.inf
    ) -> Connection:
        """An open connection to this very node: the existing one, or a new one that both sides
        accepted. Of several addresses, best first, the first that is admitted wins. `timeout_s`
        bounds them all together. Raises `DialFailed`, `AddressInvalid`, `EndpointStopped`."""
        self._running()
        existing = self._peers.get(node_id)
        if existing is not None:
            await trio.lowlevel.checkpoint()
            return existing
        checked = checked_addresses(addresses)
        if node_id == self.identity.node_id:
            refused = Closure(
                cause=Cause.REFUSED,
                refusal=RefusalReason.SAME_KEY,
                detail="this is our own NodeId",
            )
            raise DialFailed(refused)
        if len(checked) == 1 and timeout_s == math.inf:
            return await self._dial(checked[0], node_id)  # the usual case needs no tasks
        return await first_admitted(
            checked, lambda address: self._dial(address, node_id), timeout_s=timeout_s
        )

    async def _dial(self, address: str, node_id: NodeId) -> Connection:
        engine = self._running()
        try:
            handle = engine.connect(address, node_id)
        except (OSError, NativeError) as error:
            raise AddressInvalid(address, str(error)) from None
        done = trio.Event()
        handshake = _Handshake(
            handle=handle,
            exchange=HelloExchange(self._hello, dialled=True),
            expected=node_id,
            done=done,
        )
        self._handshakes[handle] = handshake
        self.kick()
        try:
            await done.wait()
        except trio.Cancelled:
            self._abandon(handshake)
            raise
        match handshake.outcome:
            case Connection() as connection:
                return connection
            case Closure(reason=CloseReason.DUPLICATE) as closure:
                return await self._twin(node_id, closure)
            case Closure() as closure:
                raise DialFailed(closure)
            case None:
                raise EndpointStopped("the endpoint was stopped")

    async def accept(self) -> Connection:
        """The next connection that a peer dialled and both sides accepted."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._running()
        while True:
            while not self._accepted:
                if self._arrival.is_set():
                    self._arrival = trio.Event()
                await self._arrival.wait()
                self._running()
            connection = self._accepted.popleft()
            if connection.closure is None:
                # Whoever is cancelled from here on still gets what nobody else could.
                await trio.lowlevel.cancel_shielded_checkpoint()
                return connection

    # --- callbacks, all run inside the pump

    def on_frame(self, callback: FrameCallback) -> None:
        """Call for every frame of a channel with `(connection, kind, frame_type, payload)`."""
        self._on_frame.append(callback)

    def on_turn(self, callback: Callable[[], object]) -> None:
        """Call once after each turn that brought frames or news on a watched descriptor."""
        self._on_turn.append(callback)

    def on_connection(self, callback: ConnectionCallback) -> None:
        """Call for every connection once it is admitted, dialled or accepted."""
        self._on_connection.append(callback)

    def on_closed(self, callback: ConnectionCallback) -> None:
        """Call for every admitted connection once it has ended. When a connection takes another
        one's place, the old one's end is told before the new one's start."""
        self._on_closed.append(callback)

    def watch(self, fd: int, callback: Callable[[], object]) -> None:
        """Call while `fd` is readable; it wakes the same wait as packets do."""
        self._watched[fd] = callback
        if self._engine is not None:
            self._engine.watch(fd)

    def unwatch(self, fd: int) -> None:
        """Undo `watch`, before the descriptor is closed."""
        del self._watched[fd]
        if self._engine is not None:
            self._engine.unwatch(fd)

    def serve(self, method: str, handler: Handler) -> None:
        """Answer calls: `async handler(connection, argument) -> answer`; see `transport.rpc`."""
        self.calls.serve(method, handler)

    # --- sending

    def broadcast_nowait(
        self,
        connections: Sequence[Connection],
        kind: ChannelKind,
        frame_type: int,
        *parts: Part,
    ) -> list[Connection]:
        """The same frame to many, its bytes held once. Returns those that did not take it because
        they ended or their channel is full. Raises `FrameTooLong`."""
        handles = {connection.handle: connection for connection in connections}
        try:
            left_out = self.engine.send_many(tuple(handles), kind, frame_type, *parts)
        except quic.FrameTooLong:
            raise FrameTooLong("the frame is over the limit") from None
        self.kick()
        return [handles[handle] for handle in left_out]

    def kick(self) -> None:
        """Have what was queued sent when the tasks that are ready have run."""
        self._flusher.wanted = True

    # --- what is going on

    def statistics(self) -> EndpointStatistics:
        """Counters since `run` began."""
        engine = self.engine
        return EndpointStatistics.of(
            engine.statistics(),
            refused=self._hello_refused,
            calls=self.calls,
            network=self._network.read(engine, self._connections),
            connections=len(self._connections),
            handshakes=len(self._handshakes),
            streams=sum(connection.stream_count for connection in self._connections.values()),
            turns_late_total=self._turns_late,
            backpressure_seconds_total=self.backpressure_s,
            datagrams_unread_total=self.datagrams_unread,
            kernel_receive_drops_total=receive_drops(engine.address()),
            handshake_seconds=self._handshake_times.read(),
            handshakes_ended_total=self._handshakes_ended,
            engine_info=self.config.engine,
        )

    # --- the pump

    async def _pump(self, engine: Engine) -> None:
        fd = engine.fileno()
        while not self._closing:
            more, events = engine.step(RECEIVE_BATCHES_PER_TURN)
            if events:
                began_s = perf_counter()
                self._dispatch(events)
                self._turns_late += perf_counter() - began_s > TURN_LATE_S
                self._flusher.wanted = True
            self._flusher.check()
            timeout_s = engine.timeout()
            if more:
                await trio.lowlevel.checkpoint()
            elif timeout_s is None:
                await trio.lowlevel.wait_readable(fd)
            else:
                with trio.move_on_after(timeout_s):
                    await trio.lowlevel.wait_readable(fd)

    def _dispatch(self, events: Sequence[tuple[int, int, int, int, bytes | str | None]]) -> None:
        connections = self._connections
        turn = False
        for kind, handle, a, b, payload in events:
            connection = connections.get(handle)
            if kind == _FRAME:
                assert isinstance(payload, bytes)
                if a == _CONTROL:
                    self._control(handle, b, payload)
                elif connection is not None:
                    turn = True
                    channel = _CHANNELS[a]
                    for callback in self._on_frame:
                        callback(connection, channel, b, payload)
            elif kind == _WATCHED:
                watcher = self._watched.get(a)
                if watcher is not None:
                    turn = True
                    watcher()
            elif kind == _CONNECTED:
                assert isinstance(payload, bytes)
                self._connected(handle, dialled=bool(a), spki=payload)
            elif kind == _CLOSED:
                assert isinstance(payload, str)
                self.connection_closed(handle, Closure.of(a, b, payload))
            elif connection is None:
                continue
            elif kind == _OPENED:
                connection.stream_opened(a, b)
            elif kind in (_READABLE, _WRITABLE):
                connection.stream_news(a)
            elif kind == _FINISHED:
                connection.stream_finished(a)
            elif kind == _STOPPED:
                connection.stream_stopped(a)
            elif kind == _AVAILABLE:
                connection.streams_available()
            elif kind == _DATAGRAM:
                connection.datagrams_arrived()
            elif kind == _DATAGRAM_ROOM:
                connection.datagram_room()
            elif kind == _MOVED:
                assert isinstance(payload, str)
                connection.moved(payload)
        if turn:
            for turned in self._on_turn:
                turned()

    # --- from a proven key to an admitted connection

    def _connected(self, handle: int, *, dialled: bool, spki: bytes) -> None:
        handshake = self._handshakes.get(handle)
        if handshake is None:
            if dialled:
                return  # given up meanwhile
            handshake = _Handshake(
                handle=handle, exchange=HelloExchange(self._hello, dialled=False)
            )
            self._handshakes[handle] = handshake
        try:
            handshake.public_key = PublicKey.from_spki(spki)
        except KeyInvalid as error:
            self._refuse(handshake, CloseReason.BAD_HELLO, f"key: {error}")
            return
        if handshake.public_key.node_id == self.identity.node_id:
            self._refuse(handshake, CloseReason.SAME_KEY, "both nodes run with the same key")
        elif dialled:
            self._say(handshake, ControlType.HELLO, encode_hello(handshake.exchange.ours))

    def _control(self, handle: int, frame_type: int, body: bytes) -> None:
        handshake = self._handshakes.get(handle)
        if handshake is None:
            connection = self._connections.get(handle)
            if connection is not None:
                connection.control_received(frame_type, body)
            return
        if handshake.public_key is None:
            return  # refused in this very turn
        try:
            step = handshake.exchange.receive(frame_type, body)
            self._judge(handshake)
        except MalformedHello as error:
            self._refuse(handshake, CloseReason.BAD_HELLO, str(error))
        except HelloRefused as error:
            self._refuse(handshake, error.reason, str(error))
        except PeerRefused as error:
            self._refuse(handshake, CloseReason.NOT_ADMITTED, error.reason)
        else:
            if step is Step.AWAIT_READY:
                self._say(handshake, ControlType.HELLO, encode_hello(handshake.exchange.ours))
            elif step is Step.ADMITTED:
                if handshake.exchange.dialled and not self._say(handshake, ControlType.READY, b""):
                    return
                self._admit(handshake)

    def _judge(self, handshake: _Handshake) -> None:
        """What does not depend on the form of HELLO: the verifier and the rule of duplicates."""
        public_key, theirs = handshake.public_key, handshake.exchange.theirs
        assert public_key is not None
        assert theirs is not None
        self.verifier.verify_peer(public_key.node_id, public_key, theirs)
        existing = self._peers.get(public_key.node_id)
        if existing is not None:
            dialled = handshake.exchange.dialled
            dialler = self.identity.node_id if dialled else public_key.node_id
            new = Candidate(dialler=dialler, instance=theirs.instance)
            if not replaces(new, existing.candidate):
                raise HelloRefused(CloseReason.DUPLICATE, "another connection stays")

    def _admit(self, handshake: _Handshake) -> None:
        public_key, theirs = handshake.public_key, handshake.exchange.theirs
        assert public_key is not None
        assert theirs is not None
        handle, engine = handshake.handle, self.engine
        existing = self._peers.get(public_key.node_id)
        if existing is not None:
            existing.close_now(CloseReason.DUPLICATE, "another connection takes its place")
        del self._handshakes[handle]
        self._ended(handshake, HandshakeResult.ADMITTED)
        connection = Connection(
            self,
            handle=handle,
            dialled=handshake.exchange.dialled,
            public_key=public_key,
            hello=theirs,
            remote_address=engine.remote_address(handle) or "",
        )
        self._connections[handle] = connection
        self._peers[connection.peer] = connection
        engine.admit(handle)
        connection.admitted()
        _log.debug(
            "transport.connected",
            peer=connection.peer.hex()[:16],
            address=connection.remote_address,
            dialled=connection.dialled,
            roles=theirs.roles,
        )
        if not connection.dialled:
            self._accepted.append(connection)
        self._arrival.set()
        for callback in self._on_connection:
            callback(connection)
        self._settle(handshake, connection)

    def _refuse(self, handshake: _Handshake, reason: CloseReason, detail: str) -> None:
        refusal = HELLO_REFUSALS[reason]
        self._hello_refused[refusal] += 1
        key = handshake.public_key
        peer = None if key is None else key.node_id.hex()[:16]
        _log.info("transport.peer_refused", reason=refusal.value, peer=peer, detail=detail)
        if self._handshakes.pop(handshake.handle, None) is not None:
            self._ended(handshake, HandshakeResult.REFUSED)
        handshake.public_key = None
        detail = detail[:CLOSE_DETAIL_CHARS_MAX]
        self.engine.close(handshake.handle, reason, detail)
        self._settle(handshake, Closure(cause=Cause.LOCAL, reason=reason, detail=detail))

    def connection_closed(self, handle: int, closure: Closure) -> None:
        """A connection ended, on whichever side; later news about it is nobody's."""
        handshake = self._handshakes.pop(handle, None)
        if handshake is not None:
            self._ended(handshake, HandshakeResult.FAILED)
            self._settle(handshake, closure)
            return
        connection = self._connections.pop(handle, None)
        if connection is None:
            return
        self._network.ended(self.engine, handle)
        if self._peers.get(connection.peer) is connection:
            del self._peers[connection.peer]
        if connection in self._accepted:
            self._accepted.remove(connection)
        connection.set_closed(closure)
        _log.debug("transport.closed", peer=connection.peer.hex()[:16], closure=str(closure))
        for callback in self._on_closed:
            callback(connection)

    # --- small things

    def _bind(self) -> Engine:
        listen = self._listen or "[::]:0"
        try:
            return self._engine_factory(self.identity, listen, self.config)
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortInUse(listen, "another process holds it") from None
            problem = os.strerror(error.errno) if error.errno else str(error)
            raise BindFailed(listen, problem) from None

    def _warn(self) -> None:
        """What an operator may have left on by mistake."""
        if self.config.key_log_path:
            _log.warning(
                "transport.key_log_is_on",
                path=self.config.key_log_path,
                meaning="whoever reads this file reads all traffic of this node",
            )
        if self.config.qlog_folder:
            _log.warning(
                "transport.qlog_is_on",
                folder=self.config.qlog_folder,
                meaning="traces slow this node and show whom it talks to",
            )

    def _shut_down(self) -> None:
        """Say goodbye to whoever is left; the packets leave now or never."""
        if self._closed.is_set():
            return
        self._closing = True
        self._flusher.stop()
        engine = self._engine
        assert engine is not None
        goodbye = Closure(cause=Cause.LOCAL, reason=CloseReason.SHUTDOWN)
        for handle in (*self._handshakes, *self._connections):
            engine.close(handle, CloseReason.SHUTDOWN, "the node stops")
            self.connection_closed(handle, goodbye)
        try:
            engine.flush()
        finally:
            engine.release()
            self._arrival.set()
            self._closed.set()

    def _running(self) -> Engine:
        if self._closing:
            raise EndpointStopped("the endpoint was stopped")
        return self.engine

    def _say(self, handshake: _Handshake, frame_type: ControlType, body: bytes) -> bool:
        """False if the peer cannot be told, which then ends or has ended."""
        try:
            self.engine.send(handshake.handle, StreamKind.CONTROL, frame_type, body)
        except quic.ConnectionGone:
            return False  # a late turn: the peer's goodbye is among its events
        except quic.QueueFull:
            detail = "the peer allows no control stream"
            self._refuse(handshake, CloseReason.BAD_HELLO, detail)
            return False
        self.kick()
        return True

    def _ended(self, handshake: _Handshake, result: HandshakeResult) -> None:
        """Count it; not called twice for one handshake."""
        key_exchange, signature, _, _ = self.engine.session(handshake.handle) or (0, 0, 0, 0)
        names = (
            result,
            key_exchange_name(key_exchange),
            signature_name(signature),
        )
        self._handshakes_ended[names] = self._handshakes_ended.get(names, 0) + 1
        if handshake.exchange.dialled and result is HandshakeResult.ADMITTED:
            self._handshake_times.observe(trio.current_time() - handshake.began_s)

    def _settle(self, handshake: _Handshake, outcome: Connection | Closure) -> None:
        if handshake.outcome is None:
            handshake.outcome = outcome
            if handshake.done is not None:
                handshake.done.set()

    def _abandon(self, handshake: _Handshake) -> None:
        """The task in `dial` was cancelled; a connection that is there already stays."""
        if self._handshakes.pop(handshake.handle, None) is not None and not self._closing:
            self._ended(handshake, HandshakeResult.GIVEN_UP)
            self.engine.close(handshake.handle, CloseReason.UNUSED, "the dialler gave up")
            self.kick()

    async def _twin(self, node_id: NodeId, closure: Closure) -> Connection:
        """Our dial lost against a connection the peer dialled; that one is about to arrive."""
        with trio.move_on_after(self.config.admission_timeout_s):
            while node_id not in self._peers:
                if self._arrival.is_set():
                    self._arrival = trio.Event()
                await self._arrival.wait()
                self._running()
            return self._peers[node_id]
        raise DialFailed(closure)


def _bind_failed(listen: str, error: OSError) -> BindFailed:
    if error.errno == errno.EADDRINUSE:
        return PortInUse(listen, "another process holds it")
    return BindFailed(listen, os.strerror(error.errno or 0))


def checked_address(address: str) -> str:
    """The address itself; raises `AddressInvalid` unless it is an IPv6 address with port."""
    host, separator, port = address.rpartition(":")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > 65_535:
        raise AddressInvalid(address, "not an address with port")
    if not (host.startswith("[") and host.endswith("]")):
        if host.count(".") == 3 and host.replace(".", "").isdigit():
            raise AddressInvalid(address, "an IPv4 address; STOQ is IPv6 only")
        raise AddressInvalid(address, "not an IPv6 address in brackets")
    if host.lower().startswith("[::ffff:") and "." in host:
        raise AddressInvalid(address, "an IPv4 address in IPv6 clothes; STOQ is IPv6 only")
    return address


def checked_addresses(addresses: str | Sequence[str]) -> tuple[str, ...]:
    """Each address once, in order; raises `AddressInvalid`, also for none or too many."""
    listed = (addresses,) if isinstance(addresses, str) else tuple(addresses)
    if not 1 <= len(listed) <= DIAL_ADDRESSES_MAX:
        problem = f"{len(listed)} addresses; one to {DIAL_ADDRESSES_MAX} can be dialled"
        raise AddressInvalid(", ".join(listed[:DIAL_ADDRESSES_MAX]), problem)
    return tuple(dict.fromkeys(map(checked_address, listed)))


__all__ = [
    "ConnectionCallback",
    "Endpoint",
    "FrameCallback",
    "TransportError",
    "checked_address",
    "checked_addresses",
]
