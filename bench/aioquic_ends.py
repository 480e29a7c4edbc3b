"""Both ends of a transfer over plain aioquic, as its documents show it: asyncio and X.509 with a
throw-away certificate, its datagram size set to the path MTU of the other stacks."""

from __future__ import annotations

import asyncio
import datetime
import os
import ssl
import tempfile
import time
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import Any, Final

from bench.processes import cpu_s, pin
from bench.stoq_ends import Plan

CHUNK_BYTES: Final = 1 << 18
BUFFER_BYTES: Final = 8 << 20  # aioquic's send buffer has no bound of its own


def _configuration(plan: Plan, *, client: bool) -> Any:
    from aioquic.quic.configuration import QuicConfiguration

    return QuicConfiguration(
        is_client=client,
        alpn_protocols=["bench"],
        max_data=32 << 20,
        max_stream_data=16 << 20,
        max_datagram_size=plan.mtu,
        verify_mode=ssl.CERT_NONE if client else None,
        server_name="localhost" if client else None,
    )


def server(pipe: Pipe, plan: Plan) -> None:
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.asyncio.server import serve
    from aioquic.quic.events import QuicEvent, StreamDataReceived

    pin(0)

    class Sink(QuicConnectionProtocol):
        moved = 0
        started = began_cpu_s = 0.0

        def quic_event_received(self, event: QuicEvent) -> None:
            if not isinstance(event, StreamDataReceived):
                return
            if not self.moved:
                self.started, self.began_cpu_s = time.perf_counter(), cpu_s()
            self.moved += len(event.data)
            if event.end_stream:
                seconds = time.perf_counter() - self.started
                used_cpu_s = cpu_s() - self.began_cpu_s
                answer = f"{self.moved} {seconds} {used_cpu_s}".encode()
                self._quic.send_stream_data(event.stream_id, answer, end_stream=True)
                self.transmit()

    async def main() -> None:
        configuration = _configuration(plan, client=False)
        with tempfile.TemporaryDirectory() as folder:
            configuration.load_cert_chain(*_throw_away_certificate(Path(folder)))
        port = _free_port()
        server = await serve("::1", port, configuration=configuration, create_protocol=Sink)
        pipe.send(port)
        await asyncio.to_thread(pipe.recv)
        server.close()

    asyncio.run(main())


def upload(pipe: Pipe, plan: Plan) -> None:
    from aioquic.asyncio.client import connect
    from aioquic.asyncio.protocol import QuicConnectionProtocol
    from aioquic.quic.events import QuicEvent, StreamDataReceived

    pin(1)
    port = pipe.recv()
    chunk = os.urandom(CHUNK_BYTES)

    class Source(QuicConnectionProtocol):
        """Fills the send buffer again whenever aioquic transmits."""

        left = plan.size
        stream: int | None = None
        answer: asyncio.Future[bytes]

        def begin(self) -> None:
            self.answer = asyncio.get_running_loop().create_future()
            self.stream = self._quic.get_next_available_stream_id()
            self.left -= len(chunk)
            self._quic.send_stream_data(self.stream, chunk)
            self.transmit()

        def transmit(self) -> None:
            while self.stream is not None and self.left and self._buffered() < BUFFER_BYTES:
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
            "::1", port, configuration=_configuration(plan, client=True), create_protocol=Source
        ) as client:
            assert isinstance(client, Source)
            began_cpu_s = cpu_s()
            client.begin()
            moved, seconds, server_cpu_s = (await asyncio.wait_for(client.answer, 100)).split()
            pipe.send((int(moved), float(seconds), float(server_cpu_s) + cpu_s() - began_cpu_s))

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
