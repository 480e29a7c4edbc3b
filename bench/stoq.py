"""STOQ throughput and handshakes, beside plain aioquic in the same run.

Two processes on `[::1]`, one connection, one stream; the client uploads through the public trio
API and the server measures from the first byte to the last. Runs of both stacks are interleaved, so
that a busy moment of the machine hits both. aioquic is used as its documents show: asyncio, X.509
with a throw-away certificate, its datagram size set to the same path MTU.

    python bench/stoq.py
"""

from __future__ import annotations

import asyncio
import datetime
import multiprocessing
import os
import resource
import ssl
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

if __package__ in {None, ""}:
    sys.path.insert(0, str(Path(__file__).parents[1]))

import structlog
import trio

from bench.report import Result, Suite, progress, rounded

MTU_BYTES: Final = 1_452
RUNS: Final = 5
STOQ_BYTES: Final = 1 << 30
AIOQUIC_BYTES: Final = 64 << 20
CHUNK_BYTES: Final = 1 << 20
HANDSHAKES: Final = 100
AIOQUIC_BUFFER_BYTES: Final = 8 << 20  # aioquic's send buffer has no bound of its own
MEGA: Final = 1e6


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What one upload took."""

    bytes_moved: int
    seconds: float
    cpu_s: float  # user and system time of both processes

    @property
    def mb_per_s(self) -> float:
        """Goodput in 10^6 bytes."""
        return self.bytes_moved / self.seconds / MEGA


def run(wanted: frozenset[str]) -> Iterator[Result]:
    """Yield the figures that are wanted."""
    conditions = f"[::1], one connection, one stream, path MTU {MTU_BYTES}, two processes"
    ours: list[Transfer] = []
    theirs: list[Transfer] = []
    for number in range(RUNS):
        if wanted & {"stoq_mb_per_s", "stoq_mb_per_cpu_s", "stoq_over_aioquic"}:
            ours.append(_transfer(_stoq_server, _stoq_client, STOQ_BYTES))
            progress(f"  run {number + 1}/{RUNS}: stoq {ours[-1].mb_per_s:.0f} MB/s")
        if wanted & {"aioquic_mb_per_s", "stoq_over_aioquic"}:
            theirs.append(_transfer(_aioquic_server, _aioquic_client, AIOQUIC_BYTES))
            progress(f"  run {number + 1}/{RUNS}: aioquic {theirs[-1].mb_per_s:.1f} MB/s")
    if ours:
        size = f"{STOQ_BYTES >> 20} MiB, median of {RUNS}, trio API on both ends"
        yield Result(
            name="stoq_mb_per_s",
            value=rounded(_median(ours)),
            unit="MB/s",
            conditions=f"{conditions}, {size}; mutual Falcon-512, X25519MLKEM768",
        )
        per_cpu = statistics.median(run.bytes_moved / run.cpu_s / MEGA for run in ours)
        yield Result(
            name="stoq_mb_per_cpu_s",
            value=rounded(per_cpu),
            unit="MB/cpu-s",
            conditions=f"{conditions}, {size}; user and system time of both ends together",
        )
    if theirs:
        yield Result(
            name="aioquic_mb_per_s",
            value=rounded(_median(theirs)),
            unit="MB/s",
            conditions=f"{conditions}, {AIOQUIC_BYTES >> 20} MiB, median of {RUNS}, interleaved "
            "with the runs of stoq; aioquic 1.7.2 on asyncio, X25519, P-256 certificate",
        )
    if ours and theirs:
        yield Result(
            name="stoq_over_aioquic",
            value=rounded(_median(ours) / _median(theirs)),
            unit="times",
            conditions="stoq_mb_per_s / aioquic_mb_per_s of this run",
        )
    if "stoq_handshake_p50_ms" in wanted:
        took = _between(_stoq_server, _stoq_handshakes, HANDSHAKES)
        yield Result(
            name="stoq_handshake_p50_ms",
            value=rounded(statistics.median(took) * 1000),
            unit="ms",
            conditions=f"{HANDSHAKES} dials, [::1], two processes: QUIC, mutual Falcon-512, "
            "X25519MLKEM768 and both HELLOs, as the caller of dial() waits",
        )
    if "stoq_rpc_p50_us" in wanted:
        took = _between(_stoq_server, _stoq_calls, 1_000)
        yield Result(
            name="stoq_rpc_p50_us",
            value=rounded(statistics.median(took) * MEGA),
            unit="us",
            conditions="1000 calls one after the other, 64-byte argument and answer, [::1], two "
            "processes",
        )
    if "stoq_frame_p50_us" in wanted:
        took = _between(_stoq_server, _stoq_frames, 1_000)
        yield Result(
            name="stoq_frame_p50_us",
            value=rounded(statistics.median(took) * MEGA / 2),
            unit="us",
            conditions="half of the time a lone 1 kB vote frame takes there and back, 1000 times, "
            "[::1], two processes",
        )


def _median(transfers: list[Transfer]) -> float:
    return statistics.median(transfer.mb_per_s for transfer in transfers)


# --- two processes


def _between(server: Callable[..., None], client: Callable[..., None], count: int) -> Any:
    """Run a server and a client; returns what the client says."""
    context = multiprocessing.get_context("spawn")
    server_end, server_pipe = context.Pipe()
    client_end, client_pipe = context.Pipe()
    first = context.Process(target=server, args=(server_pipe,), daemon=True)
    second = context.Process(target=client, args=(client_pipe, count), daemon=True)
    first.start()
    second.start()
    server_pipe.close()  # so that a process that dies is noticed at once
    client_pipe.close()
    try:
        client_end.send(_receive(server_end))
        answer = _receive(client_end)
        server_end.send("stop")
        return answer
    finally:
        for process in (second, first):
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()


def _receive(pipe: Pipe) -> Any:
    if not pipe.poll(120):
        raise TimeoutError("the other process says nothing")
    return pipe.recv()


def _transfer(server: Callable[..., None], client: Callable[..., None], size: int) -> Transfer:
    moved, seconds, cpu_s = _between(server, client, size)
    return Transfer(bytes_moved=moved, seconds=seconds, cpu_s=cpu_s)


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# --- stoq


def _stoq_endpoint(listen: str | None) -> Any:
    from native.keys import SecretKey
    from native.values import Algorithm
    from transport import AcceptAll, Endpoint, HelloOffer, Identity, TransportConfig

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    return Endpoint(
        Identity(SecretKey.generate(Algorithm.FALCON_512)),
        listen=listen,
        hello=HelloOffer(chain_id=bytes(32), chain_name="bench"),
        verifier=AcceptAll(),
        config=TransportConfig(mtu_bytes_max=MTU_BYTES),
    )


def _stoq_server(pipe: Pipe) -> None:
    _pin(0)
    endpoint = _stoq_endpoint("[::1]:0")

    async def echo(_: Any, argument: bytes) -> bytes:
        return argument

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            endpoint.serve("echo", echo)
            endpoint.on_frame(
                lambda connection, kind, number, body: connection.channel(kind).send_nowait(
                    number, body
                )
            )
            pipe.send((endpoint.address, bytes(endpoint.identity.node_id)))
            nursery.start_soon(_stoq_sink, endpoint)
            await trio.to_thread.run_sync(pipe.recv, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def _stoq_sink(endpoint: Any) -> None:
    while True:
        connection = await endpoint.accept()
        if "bulk" not in connection.hello.capabilities:
            continue
        stream = await connection.accept_stream()
        moved = len(await stream.receive_some())
        started, cpu = time.perf_counter(), _cpu_s()
        while data := await stream.receive_some():
            moved += len(data)
        seconds, cpu_s = time.perf_counter() - started, _cpu_s() - cpu
        await stream.send_all(f"{moved} {seconds} {cpu_s}".encode())
        await stream.send_eof()


def _stoq_client(pipe: Pipe, size: int) -> None:
    _pin(1)
    address, node_id = pipe.recv()
    endpoint = _stoq_endpoint(None)
    chunk = os.urandom(CHUNK_BYTES)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            connection = await endpoint.dial(address, node_id)
            stream = await connection.open_stream()
            cpu = _cpu_s()
            for _ in range(size // CHUNK_BYTES):
                await stream.send_all(chunk)
            await stream.send_eof()
            answer = await stream.receive_some()
            moved, seconds, server_cpu_s = answer.split()
            pipe.send((int(moved), float(seconds), float(server_cpu_s) + _cpu_s() - cpu))
            nursery.cancel_scope.cancel()

    from transport import HelloOffer

    endpoint.offer(HelloOffer(chain_id=bytes(32), chain_name="bench", capabilities=("bulk",)))
    trio.run(main)


def _stoq_handshakes(pipe: Pipe, count: int) -> None:
    _pin(1)
    address, node_id = pipe.recv()
    endpoint = _stoq_endpoint(None)
    took: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            for _ in range(count):
                started = time.perf_counter()
                connection = await endpoint.dial(address, node_id)
                took.append(time.perf_counter() - started)
                await connection.close()
            nursery.cancel_scope.cancel()

    trio.run(main)
    pipe.send(took)


def _stoq_calls(pipe: Pipe, count: int) -> None:
    _pin(1)
    address, node_id = pipe.recv()
    endpoint = _stoq_endpoint(None)
    took: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            connection = await endpoint.dial(address, node_id)
            for _ in range(count):
                started = time.perf_counter()
                await connection.call("echo", bytes(64))
                took.append(time.perf_counter() - started)
            nursery.cancel_scope.cancel()

    trio.run(main)
    pipe.send(took)


def _stoq_frames(pipe: Pipe, count: int) -> None:
    _pin(1)
    address, node_id = pipe.recv()
    endpoint = _stoq_endpoint(None)
    took: list[float] = []

    async def main() -> None:
        from transport import ChannelKind

        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            back = trio.Event()
            endpoint.on_frame(lambda *_: back.set())
            connection = await endpoint.dial(address, node_id)
            votes = connection.channel(ChannelKind.VOTES)
            for _ in range(count):
                back = trio.Event()
                started = time.perf_counter()
                votes.send_nowait(1, bytes(1_000))
                await back.wait()
                took.append(time.perf_counter() - started)
            nursery.cancel_scope.cancel()

    trio.run(main)
    pipe.send(took)


# --- aioquic


def _aioquic_configuration(*, client: bool) -> Any:
    from aioquic.quic.configuration import QuicConfiguration

    return QuicConfiguration(
        is_client=client,
        alpn_protocols=["bench"],
        max_data=32 << 20,
        max_stream_data=16 << 20,
        max_datagram_size=MTU_BYTES,
        verify_mode=ssl.CERT_NONE if client else None,
        server_name="localhost" if client else None,
    )


def _aioquic_server(pipe: Pipe) -> None:
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.asyncio.server import serve
    from aioquic.quic.events import QuicEvent, StreamDataReceived

    _pin(0)

    class Sink(QuicConnectionProtocol):
        moved = 0
        started = cpu = 0.0

        def quic_event_received(self, event: QuicEvent) -> None:
            if not isinstance(event, StreamDataReceived):
                return
            if not self.moved:
                self.started, self.cpu = time.perf_counter(), _cpu_s()
            self.moved += len(event.data)
            if event.end_stream:
                seconds, cpu_s = time.perf_counter() - self.started, _cpu_s() - self.cpu
                answer = f"{self.moved} {seconds} {cpu_s}".encode()
                self._quic.send_stream_data(event.stream_id, answer, end_stream=True)
                self.transmit()

    async def main() -> None:
        configuration = _aioquic_configuration(client=False)
        with tempfile.TemporaryDirectory() as folder:
            configuration.load_cert_chain(*_throw_away_certificate(Path(folder)))
        port = _free_port()
        server = await serve("::1", port, configuration=configuration, create_protocol=Sink)
        pipe.send(port)
        await asyncio.to_thread(pipe.recv)
        server.close()

    asyncio.run(main())


def _aioquic_client(pipe: Pipe, size: int) -> None:
    from aioquic.asyncio.client import connect
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.quic.events import QuicEvent, StreamDataReceived

    _pin(1)
    port = pipe.recv()
    chunk = os.urandom(CHUNK_BYTES >> 2)

    class Source(QuicConnectionProtocol):
        """Fills the send buffer again whenever aioquic transmits."""

        left = size
        stream: int | None = None
        answer: asyncio.Future[bytes]

        def begin(self) -> None:
            self.answer = asyncio.get_running_loop().create_future()
            self.stream = self._quic.get_next_available_stream_id()
            self.left -= len(chunk)
            self._quic.send_stream_data(self.stream, chunk)
            self.transmit()

        def transmit(self) -> None:
            while self.stream is not None and self.left and self._buffered() < AIOQUIC_BUFFER_BYTES:
                part = chunk[: min(self.left, len(chunk))]
                self.left -= len(part)
                self._quic.send_stream_data(self.stream, part, end_stream=not self.left)
            super().transmit()

        def _buffered(self) -> int:
            assert self.stream is not None
            return len(self._quic._streams[self.stream].sender._buffer)

        def quic_event_received(self, event: QuicEvent) -> None:
            if isinstance(event, StreamDataReceived) and event.end_stream:
                self.answer.set_result(event.data)

    async def main() -> None:
        async with connect(
            "::1", port, configuration=_aioquic_configuration(client=True), create_protocol=Source
        ) as client:
            assert isinstance(client, Source)
            cpu = _cpu_s()
            client.begin()
            moved, seconds, server_cpu_s = (await asyncio.wait_for(client.answer, 100)).split()
            pipe.send((int(moved), float(seconds), float(server_cpu_s) + _cpu_s() - cpu))

    asyncio.run(main())


def _throw_away_certificate(folder: Path) -> tuple[Path, Path]:
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now)
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    certificate_path, key_path = folder / "certificate.pem", folder / "key.pem"
    certificate_path.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    key_path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return certificate_path, key_path


def _free_port() -> int:
    import socket

    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        probe.bind(("::1", 0))
        return int(probe.getsockname()[1])


def _pin(position: int) -> None:
    """Give each end its own core, for both stacks alike."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[position % len(cores)]})


SUITE: Final = Suite(
    group="stoq",
    names=(
        "stoq_mb_per_s",
        "stoq_mb_per_cpu_s",
        "aioquic_mb_per_s",
        "stoq_over_aioquic",
        "stoq_handshake_p50_ms",
        "stoq_rpc_p50_us",
        "stoq_frame_p50_us",
    ),
    run=run,
)


if __name__ == "__main__":
    for result in run(frozenset(SUITE.names)):
        print(f"{result.name:24} {result.value:>10} {result.unit:10} {result.conditions}")
