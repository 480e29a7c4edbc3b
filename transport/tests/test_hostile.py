"""Strangers and peers that mean harm: what they can cost is bounded, and others do not notice."""

import contextlib
import os
import socket
import stat
from pathlib import Path

import pytest
import trio
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import QuicProtocolVersion

from native.quic import StreamClosed, StreamStopped
from transport import Connection, Endpoint, Identity, RefusalReason
from transport.core.events import EventKind, StreamKind
from transport.errors import BindFailed, DialFailed
from transport.limits import RPC_MESSAGE_SIZE_BYTES_MAX, RPC_PENDING_BYTES_PER_CONNECTION_MAX
from transport.tests.adversary import Adversary
from transport.tests.conftest import Start, pair
from transport.tests.test_refusals import port_of

RESETS_BURST_S = 10  # what the engine lets a peer save up


def initial_packet(*, size: int = 1_200, connection_id: bytes | None = None) -> bytes:
    """An Initial packet as a stranger can make it: sealed with the public Initial keys, carrying
    the start of a ClientHello that never goes on."""
    destination = connection_id or os.urandom(8)
    start_of_hello = b"\x01\x00\x06\x00\x03\x03" + os.urandom(32)
    frames = b"\x06\x00" + bytes([len(start_of_hello)]) + start_of_hello
    header = b"\xc3\x00\x00\x00\x01\x08" + destination + b"\x08" + os.urandom(8) + b"\x00"
    length = size - len(header) - 2  # packet number, payload and tag
    payload = frames.ljust(length - 4 - 16, b"\x00")
    header += (0x4000 | length).to_bytes(2) + bytes(4)
    crypto = CryptoPair()
    crypto.setup_initial(destination, is_client=True, version=QuicProtocolVersion.VERSION_1)
    packet = crypto.encrypt_packet(header, payload, 0)
    assert len(packet) == size
    return packet


def udp() -> socket.socket:
    return socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)


async def refused(endpoint: Endpoint, reason: RefusalReason, count: int = 1) -> None:
    with trio.fail_after(10):
        while endpoint.statistics().refused_total[reason] < count:
            await trio.lowlevel.checkpoint()


# --- strangers


@pytest.mark.parametrize("size", [100, 600, 1_199])
async def test_an_initial_in_a_small_datagram_is_dropped(
    start: Start, identities: list[Identity], size: int
) -> None:
    endpoint = await start(identities[0])
    with udp() as stranger:
        stranger.settimeout(0)
        stranger.sendto(initial_packet(size=size), ("::1", port_of(endpoint.address)))
        await refused(endpoint, RefusalReason.SHORT_INITIAL)
        with pytest.raises(BlockingIOError):
            stranger.recv(2_000)


async def test_the_second_initial_must_be_as_large_as_the_first(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = await start(identities[0])
    connection_id = os.urandom(8)
    with udp() as stranger:
        target = ("::1", port_of(endpoint.address))
        stranger.sendto(initial_packet(connection_id=connection_id), target)
        stranger.sendto(initial_packet(connection_id=connection_id, size=1_199), target)
        await refused(endpoint, RefusalReason.SHORT_INITIAL)
    assert sum(endpoint.statistics().refused_total.values()) == 1


async def flood(
    start: Start, identities: list[Identity], *, packets: int, per_s: int
) -> tuple[Endpoint, int]:
    """Spoofed Initials at a rate, while two nodes keep calling each other; the calls they made."""
    ours, theirs = await pair(start, identities, handshakes_max=16)
    acceptor = theirs.endpoint

    async def echo(_: Connection, argument: bytes) -> bytes:
        return argument

    acceptor.serve("echo", echo)
    target = ("::1", port_of(acceptor.address))
    prepared = [initial_packet() for _ in range(packets)]
    calls = 0
    finished = False

    async def call() -> None:
        nonlocal calls
        while not finished:
            with trio.fail_after(5):
                assert await ours.call("echo", b"still there") == b"still there"
            calls += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(call)
        with udp() as stranger:
            began = trio.current_time()
            for number, packet in enumerate(prepared):
                stranger.sendto(packet, target)
                if number % 50 == 0:
                    await trio.sleep_until(began + number / per_s)
                assert len(acceptor.connections) == 1
        finished = True
    assert ours.closure is None
    return acceptor, calls


async def test_spoofed_initials_leave_existing_connections_working(
    start: Start, identities: list[Identity]
) -> None:
    acceptor, calls = await flood(start, identities, packets=5_000, per_s=10_000)
    assert calls > 10
    assert (
        acceptor.statistics().retries_sent_total > 100
    )  # asked for proof instead of keeping state


@pytest.mark.soak
async def test_spoofed_initials_for_long_leave_existing_connections_working(
    start: Start, identities: list[Identity]
) -> None:
    acceptor, calls = await flood(start, identities, packets=100_000, per_s=10_000)
    assert calls > 200
    assert acceptor.statistics().retries_sent_total > 10_000


async def test_half_open_handshakes_are_bounded_and_end(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = await start(identities[0], handshakes_max=8, retry="never", admission_timeout_s=0.3)
    with udp() as stranger:
        for _ in range(100):
            stranger.sendto(initial_packet(), ("::1", port_of(endpoint.address)))
        await refused(endpoint, RefusalReason.HANDSHAKES_FULL, 92)
        await refused(endpoint, RefusalReason.HANDSHAKE_TIMEOUT, 8)
    other = await start(identities[1])
    assert (await other.dial(endpoint.address, identities[0].node_id)).closure is None


async def test_retry_when_always_asked_for(start: Start, identities: list[Identity]) -> None:
    acceptor = await start(identities[0], retry="always")
    dialler = await start(identities[1])
    await dialler.dial(acceptor.address, identities[0].node_id)
    # ClientHello takes two datagrams, and each is asked when both wait in the socket.
    assert acceptor.statistics().retries_sent_total in (1, 2)


async def test_one_network_has_a_share_of_the_connections_only(
    start: Start, identities: list[Identity]
) -> None:
    acceptor = await start(identities[0], connections_per_prefix_max=2)
    first, second = await start(identities[1]), await start(identities[2])
    ours = await first.dial(acceptor.address, identities[0].node_id)
    await second.dial(acceptor.address, identities[0].node_id)
    third = await start(identities[3])
    with pytest.raises(DialFailed):
        await third.dial(acceptor.address, identities[0].node_id)
    await refused(acceptor, RefusalReason.PREFIX_CONNECTIONS_FULL)
    await ours.close()
    with trio.fail_after(10):
        while True:  # the closed one drains for a few round trips
            try:
                await third.dial(acceptor.address, identities[0].node_id)
            except DialFailed:
                continue
            break


# --- peers


async def test_a_slow_reader_cannot_make_us_hold_more_than_the_windows(
    start: Start, identities: list[Identity]
) -> None:
    windows = {
        "stream_window_bytes": 1 << 18,
        "connection_window_bytes": 1 << 19,
        "send_window_bytes": 1 << 19,
    }
    ours, theirs = await pair(start, identities, **windows)
    stream = await ours.open_uni()
    taken = 0

    async def send() -> None:
        nonlocal taken
        while True:
            await stream.send_all(bytes(1 << 14))
            taken += 1 << 14

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        reader = await theirs.accept_uni()  # which nobody reads
        with trio.fail_after(10):
            while taken < (1 << 18) - (1 << 15):  # the window is a whole number of writes less
                await trio.lowlevel.checkpoint()
        for _ in range(50):  # calls pass meanwhile, and nothing more is taken
            with pytest.raises(Exception, match="unknown_method"):
                await ours.call("none")
        assert taken <= (1 << 18) + (1 << 19)
        nursery.cancel_scope.cancel()
    await reader.aclose()


async def test_memory_of_all_peers_together_is_bounded(
    start: Start, identities: list[Identity]
) -> None:
    limit = 4 << 20
    acceptor = await start(identities[0], memory_bytes_max=limit)
    granted = []
    for identity in identities[1:]:
        dialler = await start(identity)
        connection = await dialler.dial(acceptor.address, identities[0].node_id)
        other_end = await acceptor.accept()
        granted.append(acceptor.statistics().memory_granted_bytes)
        stream = await connection.open_stream()
        await stream.send_all(b"works with a small window as well" * 1_000)
        await stream.send_eof()
        received = await other_end.accept_stream()
        size = 0
        while data := await received.receive_some():
            size += len(data)
        assert size == 33_000
    assert granted == sorted(granted)
    assert granted[-1] <= limit


@pytest.mark.rust_only("bounds streams that nobody has read instead")
async def test_a_peer_that_opens_and_resets_streams_for_ever_has_to_wait(
    start: Start, identities: list[Identity]
) -> None:
    per_s = 5
    endpoint = await start(identities[0], stream_resets_per_s_max=per_s, streams_max=64)
    other = Adversary(identities[1])
    handle = await other.admitted(endpoint.address, identities[0].node_id)
    connection = await endpoint.accept()
    opened = 0
    began = trio.current_time()
    with trio.fail_after(10):
        while endpoint.statistics().streams_throttled_total == 0:
            stream = other.engine.open(handle, True, StreamKind.RAW)
            if stream is not None:
                opened += 1
                other.engine.reset(handle, stream, 0)
                other.engine.stop(handle, stream, 0)
            other.engine.flush()
            other.seen += other.engine.step(16)[1]
            while connection._arrived[True]:
                theirs = await connection.accept_stream()
                with pytest.raises(trio.BrokenResourceError):
                    await theirs.receive_some()
                await theirs.aclose()
            await trio.lowlevel.checkpoint()
    allowed = per_s * (RESETS_BURST_S + trio.current_time() - began) + 2 * 64
    assert opened <= allowed
    honest = await start(identities[2])
    assert (await honest.dial(endpoint.address, identities[0].node_id)).closure is None


async def test_a_spoofed_close_does_not_end_a_connection(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    with udp() as stranger:
        for _ in range(20):
            packet = b"\x40" + os.urandom(60)
            stranger.sendto(packet, ("::1", port_of(theirs.endpoint.address)))
    await refused(theirs.endpoint, RefusalReason.NOT_QUIC, 20)
    assert ours.closure is None
    assert theirs.closure is None


# --- traces


@pytest.mark.parametrize(("engine", "suffix"), [("rust", ".sqlog"), ("aioquic", ".qlog")])
async def test_traces_are_written_for_their_owner_only(
    start: Start, identities: list[Identity], tmp_path: Path, engine: str, suffix: str
) -> None:
    ours, theirs = await pair(start, identities, qlog_folder=str(tmp_path), engine=engine)
    await ours.close()
    await theirs.closed.wait()
    with trio.fail_after(10):
        while len(os.listdir(tmp_path)) < 2:
            await trio.lowlevel.checkpoint()
    traces = os.listdir(tmp_path)
    assert {Path(name).suffix for name in traces} == {suffix}
    assert len(traces) >= 2
    for name in traces:
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o600


async def test_the_key_log_is_written_for_its_owner_only(
    start: Start, identities: list[Identity], tmp_path: Path
) -> None:
    path = tmp_path / "keys.log"
    await pair(start, identities, key_log_path=str(path))
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    with open(path, encoding="ascii") as file:  # noqa: ASYNC230 - four short lines a connection
        labels = {line.split()[0] for line in file}
    assert {"CLIENT_TRAFFIC_SECRET_0", "SERVER_TRAFFIC_SECRET_0"} <= labels


@pytest.mark.parametrize("engine", ["rust", "aioquic"])
async def test_a_key_log_that_others_can_read_is_refused(
    start: Start, identities: list[Identity], tmp_path: Path, engine: str
) -> None:
    path = tmp_path / "keys.log"
    os.close(os.open(path, os.O_CREAT, 0o644))
    with pytest.raises(BindFailed, match="chmod 600"):
        await start(identities[0], key_log_path=str(path), engine=engine)


@pytest.mark.parametrize("engine", ["rust", "aioquic"])
async def test_a_trace_that_cannot_be_written_costs_no_connection(
    start: Start, identities: list[Identity], tmp_path: Path, engine: str
) -> None:
    folder = tmp_path / "traces"
    dialler = await start(identities[0], qlog_folder=str(folder), engine=engine)
    acceptor = await start(identities[1], qlog_folder=str(folder), engine=engine)
    await (await dialler.dial(acceptor.address, identities[1].node_id)).close()
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    os.rename(folder, tmp_path / "gone")
    await (await dialler.dial(acceptor.address, identities[1].node_id)).close()


async def test_every_connection_has_a_trace_of_its_own(
    start: Start, identities: list[Identity], tmp_path: Path
) -> None:
    acceptor = await start(identities[1])
    for _ in range(2):
        dialler = await start(identities[0], qlog_folder=str(tmp_path))
        for _ in range(2):
            await (await dialler.dial(acceptor.address, identities[1].node_id)).close()
        await dialler.close()
    assert len(os.listdir(tmp_path)) == 4


@pytest.mark.parametrize("engine", ["rust", "aioquic"])
async def test_a_key_log_that_is_no_file_is_refused(
    start: Start, identities: list[Identity], tmp_path: Path, engine: str
) -> None:
    path = tmp_path / "keys.log"
    os.mkfifo(path, 0o600)
    with pytest.raises(BindFailed):
        await start(identities[0], key_log_path=str(path), engine=engine)


@pytest.mark.parametrize("engine", ["rust", "aioquic"])
async def test_frames_that_never_end_cannot_hold_more_memory_than_there_is(
    start: Start, identities: list[Identity], engine: str
) -> None:
    endpoint = await start(identities[0], memory_bytes_max=8 << 20, engine=engine)
    other = Adversary(identities[1])
    handle = await other.admitted(endpoint.address, identities[0].node_id)
    await endpoint.accept()
    other.engine.send(handle, StreamKind.BULK, 1, bytes((16 << 20) - 2))
    other.engine.flush()
    await other.event(EventKind.CLOSED)
    assert endpoint.statistics().refused_total[RefusalReason.MEMORY_FULL] == 1
    assert endpoint.statistics().memory_granted_bytes <= 8 << 20
    honest = await start(identities[2])
    assert (await honest.dial(endpoint.address, identities[0].node_id)).closure is None


async def test_requests_that_never_end_cannot_hold_more_memory_than_their_share(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = await start(identities[0])
    other = Adversary(identities[1])
    handle = await other.admitted(endpoint.address, identities[0].node_id)
    await endpoint.accept()
    size = RPC_MESSAGE_SIZE_BYTES_MAX - 1
    part = size.to_bytes(4) + b"\x01" + bytes(size - 2)  # one byte is missing
    waiting = {}
    for _ in range(5):
        stream = other.engine.open(handle, True, StreamKind.RPC)
        assert stream is not None
        waiting[stream] = 0
    with trio.fail_after(20):
        while endpoint.statistics().calls_refused_total == 0:
            for stream, offset in waiting.items():
                if offset < len(part):
                    with contextlib.suppress(StreamStopped, StreamClosed):
                        taken = other.engine.write(handle, stream, part, offset)
                        waiting[stream] += taken
            other.engine.flush()
            other.seen += other.engine.step(16)[1]
            await trio.lowlevel.checkpoint()
    assert endpoint.calls.pending_bytes <= RPC_PENDING_BYTES_PER_CONNECTION_MAX


@pytest.mark.rust_only("bounds streams that nobody has read instead")
async def test_calls_that_are_refused_count_as_reset(
    start: Start, identities: list[Identity]
) -> None:
    """A peer whose calls are refused for ever is made to wait, whoever gave them up."""
    endpoint = await start(identities[0], rpc_calls_max=1, stream_resets_per_s_max=1)
    other = Adversary(identities[1])
    handle = await other.admitted(endpoint.address, identities[0].node_id)
    await endpoint.accept()
    held = other.engine.open(handle, True, StreamKind.RPC)
    assert held is not None
    with trio.fail_after(10):
        while endpoint.statistics().streams_throttled_total == 0:
            stream = other.engine.open(handle, True, StreamKind.RPC)
            other.engine.flush()
            await trio.lowlevel.checkpoint()
            other.seen += other.engine.step(16)[1]
            if stream is not None:
                other.engine.reset(handle, stream, 0)
                other.engine.stop(handle, stream, 0)
    assert endpoint.statistics().streams_throttled_total == 1
