"""A client that proves its key and then breaks the rules of QUIC, on the wire.

It is aioquic with the little of TLS that STOQ needs, written apart from both engines so that their
mistakes are not its own. It verifies nothing: whoever it dials is the one under test.
"""

import socket
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import trio
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated, HandshakeCompleted
from aioquic.quic.packet import QuicFrameType, QuicPacketType
from aioquic.quic.packet_builder import QuicPacketBuilder
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519

from native.keys import FalconSigner
from transport import Hello, Identity
from transport.core.frames import ControlType
from transport.core.hello import encode_hello
from transport.tests.conftest import offer

X25519MLKEM768 = 0x11EC
FALCON_PADDED_512 = 0xFEDC
CERTIFICATE_TYPES = (19, 20)  # RFC 7250: the client's and the server's
RAW_PUBLIC_KEY = 2
MLKEM_CIPHERTEXT_BYTES = 1_088

Tamper = Callable[[bytes], bytes]

_PACKETS = {
    tls.Epoch.INITIAL: QuicPacketType.INITIAL,
    tls.Epoch.HANDSHAKE: QuicPacketType.HANDSHAKE,
    tls.Epoch.ONE_RTT: QuicPacketType.ONE_RTT,
}


def varint(*numbers: int) -> bytes:
    """QUIC's integers, one after the other."""
    parts = []
    for number in numbers:
        width = next(width for width in (1, 2, 4, 8) if number < 1 << (8 * width - 2))
        parts.append((number | (width.bit_length() - 1) << (8 * width - 2)).to_bytes(width))
    return b"".join(parts)


def _same(value: bytes) -> bytes:
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgery:
    """What to lie about in the handshake; the default is the truth."""

    certificates: Callable[[bytes], list[bytes]] = lambda spki: [spki]
    signed: Tamper = _same  # the bytes that are signed
    signature: Tamper = _same
    scheme: int = FALCON_PADDED_512
    share: Tamper = _same
    certificate_types: bytes = bytes([RAW_PUBLIC_KEY])


class _TLS(tls.Context):
    """TLS 1.3 with one key exchange, one signature scheme and raw public keys."""

    identity: Identity
    forgery: Forgery

    def _client_send_hello(self, output_buf: Buffer) -> None:
        self._mlkem = mlkem.MLKEM768PrivateKey.generate()
        self._x25519 = x25519.X25519PrivateKey.generate()
        share = (
            self._mlkem.public_key().public_bytes_raw()
            + self._x25519.public_key().public_bytes_raw()
        )
        types = self.forgery.certificate_types
        hello = tls.ClientHello(
            random=self.client_random,
            legacy_session_id=b"",
            cipher_suites=[int(suite) for suite in self._cipher_suites],
            legacy_compression_methods=self._legacy_compression_methods,
            alpn_protocols=self._alpn_protocols,
            key_share=[(X25519MLKEM768, self.forgery.share(share))],
            server_name=None,
            signature_algorithms=[FALCON_PADDED_512],
            supported_groups=[X25519MLKEM768],
            supported_versions=self._supported_versions,
            other_extensions=[
                *self.handshake_extensions,
                *((kind, bytes([len(types)]) + types) for kind in CERTIFICATE_TYPES if types),
            ],
        )
        self._key_schedule_proxy = tls.KeyScheduleProxy(self._cipher_suites)
        self._key_schedule_proxy.extract(None)
        with tls.push_message(self._key_schedule_proxy, output_buf):
            tls.push_client_hello(output_buf, hello)
        self._set_state(tls.State.CLIENT_EXPECT_SERVER_HELLO)

    def _client_handle_hello(
        self,
        input_buf: Buffer,
        output_buf: Buffer,  # noqa: ARG002 - aioquic's signature
    ) -> None:
        hello = tls.pull_server_hello(input_buf)
        assert self._key_schedule_proxy is not None
        assert hello.key_share is not None
        self.key_schedule = self._key_schedule_proxy.select(tls.CipherSuite(hello.cipher_suite))
        answer = hello.key_share[1]
        ciphertext, point = answer[:MLKEM_CIPHERTEXT_BYTES], answer[MLKEM_CIPHERTEXT_BYTES:]
        shared = self._mlkem.decapsulate(ciphertext) + self._x25519.exchange(
            x25519.X25519PublicKey.from_public_bytes(point)
        )
        self.key_schedule.update_hash(input_buf.data)
        self.key_schedule.extract(shared)
        for direction, label in (
            (tls.Direction.DECRYPT, b"s hs traffic"),
            (tls.Direction.ENCRYPT, b"c hs traffic"),
        ):
            self._setup_traffic_protection(direction, tls.Epoch.HANDSHAKE, label)
        self._set_state(tls.State.CLIENT_EXPECT_ENCRYPTED_EXTENSIONS)

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        pass

    def _check_certificate_verify_signature(self, verify: tls.CertificateVerify) -> None:
        pass

    def _client_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        tls.pull_finished(input_buf)
        assert self.key_schedule is not None
        assert self._certificate_request is not None
        self.key_schedule.update_hash(input_buf.data)
        self.key_schedule.extract(None)
        self._setup_traffic_protection(tls.Direction.DECRYPT, tls.Epoch.ONE_RTT, b"s ap traffic")
        next_key = self.key_schedule.derive_secret(b"c ap traffic")
        forgery = self.forgery
        certificates = forgery.certificates(self.identity.public_key.spki)
        with tls.push_message(self.key_schedule, output_buf):
            tls.push_certificate(
                output_buf,
                tls.Certificate(
                    request_context=self._certificate_request.request_context,
                    certificates=[(one, b"") for one in certificates],
                ),
            )
        if certificates:
            signed = self.key_schedule.certificate_verify_data(tls.CLIENT_CONTEXT_STRING)
            signer = self.identity.signer
            assert isinstance(signer, FalconSigner)
            signature = forgery.signature(signer.sign(forgery.signed(signed)))
            with tls.push_message(self.key_schedule, output_buf):
                verify = tls.CertificateVerify(algorithm=forgery.scheme, signature=signature)
                tls.push_certificate_verify(output_buf, verify)
        with tls.push_message(self.key_schedule, output_buf):
            proof = self.key_schedule.finished_verify_data(self._enc_key)  # type: ignore[arg-type]
            tls.push_finished(output_buf, tls.Finished(verify_data=proof))
        self._enc_key = next_key
        self.update_traffic_key_cb(
            tls.Direction.ENCRYPT, tls.Epoch.ONE_RTT, self.key_schedule.cipher_suite, next_key
        )
        self._set_state(tls.State.CLIENT_POST_HANDSHAKE)


class _QUIC(QuicConnection):
    """With our TLS, and transport parameters as a test wants them."""

    identity: Identity
    forgery: Forgery
    parameters: Callable[[bytes], bytes | None]

    def _initialize(self, peer_cid: bytes) -> None:
        super()._initialize(peer_cid)
        self.tls.__class__ = _TLS
        assert isinstance(self.tls, _TLS)
        self.tls.identity = self.identity
        self.tls.forgery = self.forgery
        [(kind, parameters)] = self.tls.handshake_extensions
        changed = self.parameters(parameters)
        self.tls.handshake_extensions = [] if changed is None else [(kind, changed)]


class Wild:
    """One connection attempt from one socket; use as an asynchronous context manager."""

    def __init__(
        self,
        identity: Identity,
        address: str,
        *,
        alpn: Sequence[str] = ("stoq/1",),
        parameters: Callable[[bytes], bytes | None] = _same,
        forgery: Forgery | None = None,
        suites: list[tls.CipherSuite] | None = None,
    ) -> None:
        self.quic = _QUIC(
            configuration=QuicConfiguration(
                is_client=True,
                alpn_protocols=list(alpn) or None,
                verify_mode=ssl.CERT_NONE,
                cipher_suites=suites,
                max_datagram_frame_size=65_535,
            )
        )
        self.quic.identity = identity
        self.quic.parameters = parameters
        self.quic.forgery = forgery or Forgery()
        self.completed = False
        self._target = ("::1", int(address.rpartition(":")[2]))
        self._channel = trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)

    async def __aenter__(self) -> Self:
        await self._channel.bind(("::1", 0))
        self.quic.connect(self._target, now=trio.current_time())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._channel.close()

    async def complete(self) -> None:
        """An ordinary handshake, up to a confirmed one."""
        await self.pump(lambda: self.completed and self.quic._handshake_confirmed)

    async def join(self) -> None:
        """A handshake and HELLO: admitted like anybody else."""
        await self.complete()
        hello = encode_hello(Hello.of(offer(), bytes(16)))
        for kind, body in ((ControlType.HELLO, hello), (ControlType.READY, b"")):
            frame = (1 + len(body)).to_bytes(4) + bytes([kind]) + body
            self.quic.send_stream_data(0, frame)
        await self.pump(lambda: 0 in self.quic._streams and self._heard_hello())

    async def has_handshake_keys(self) -> None:
        """ClientHello out, the server's flight in, nothing of ours after it."""
        await self.flush()
        crypto = self.quic._cryptos
        await self.pump(lambda: crypto[tls.Epoch.HANDSHAKE].send.is_valid(), talk=False)

    async def flush(self) -> None:
        """Send what is queued."""
        for data, _ in self.quic.datagrams_to_send(now=trio.current_time()):
            await self._channel.sendto(data, self._target)

    async def told(self, *, talk: bool = True) -> ConnectionTerminated:
        """What the peer says when it closes the connection."""
        await self.pump(lambda: self.quic._close_event is not None, talk=talk)
        assert self.quic._close_event is not None
        return self.quic._close_event

    async def pump(self, until: Callable[[], bool], *, talk: bool = True) -> None:
        """Send and receive until something holds; `talk=False` only listens."""
        with trio.fail_after(10):
            while not until():
                now = trio.current_time()
                if talk:
                    await self.flush()
                due = self.quic.get_timer() if talk else None
                with trio.move_on_at(now + 10 if due is None else due) as waiting:
                    data = await self._channel.recv(65_536)
                now = trio.current_time()
                if waiting.cancelled_caught:
                    self.quic.handle_timer(now=now)
                else:
                    self.quic.receive_datagram(data, self._target, now=now)
                self._note()

    async def send(self, epoch: tls.Epoch, frames: bytes, *, reserved: int = 0) -> None:
        """One packet with exactly these frames, and reserved bits if they are wanted."""
        quic = self.quic
        builder = RawBuilder(
            host_cid=quic.host_cid,
            is_client=True,
            max_datagram_size=1_200 if epoch is tls.Epoch.INITIAL else 65_000,
            packet_number=quic._packet_number,
            peer_cid=quic._peer_cid.cid,
            peer_token=b"",
            version=quic._version or 1,
        )
        crypto: Any = quic._cryptos[epoch]
        if reserved:
            crypto = _Reserved(crypto, reserved)
        builder.start_packet(_PACKETS[epoch], crypto)
        builder.push(frames)
        datagrams, _ = builder.flush()
        quic._packet_number = builder.packet_number
        for data in datagrams:
            await self._channel.sendto(data, self._target)

    def crypto_frame(self, epoch: tls.Epoch, data: bytes) -> bytes:
        """TLS bytes where the peer expects the next ones."""
        sent = self.quic._crypto_streams[epoch].sender._buffer_stop
        return varint(QuicFrameType.CRYPTO, sent, len(data)) + data

    def _heard_hello(self) -> bool:
        return self.quic._streams[0].receiver._buffer_start > 0

    def _note(self) -> None:
        while event := self.quic.next_event():
            self.completed = self.completed or isinstance(event, HandshakeCompleted)


class RawBuilder(QuicPacketBuilder):
    """Packets of bytes rather than of frames."""

    def push(self, frames: bytes) -> None:
        """Bytes as they are, legal or not."""
        self._buffer.push_bytes(frames)
        assert self._packet is not None
        self._packet.is_ack_eliciting = True


class _Reserved:
    """Sets reserved bits where header protection does not yet hide them."""

    def __init__(self, crypto: Any, bits: int) -> None:
        self._crypto, self._bits = crypto, bits

    def __getattr__(self, name: str) -> Any:
        return getattr(self._crypto, name)

    def encrypt_packet(self, header: bytes, payload: bytes, number: int) -> bytes:
        marked = bytes([header[0] | self._bits]) + header[1:]
        sealed: bytes = self._crypto.encrypt_packet(marked, payload, number)
        return sealed
