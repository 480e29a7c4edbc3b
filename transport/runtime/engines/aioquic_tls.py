"""What STOQ needs of TLS and aioquic does not have, added without touching aioquic itself.

Post-quantum key exchange (X25519MLKEM768 and nothing else), Falcon and ML-DSA signatures, raw
public keys both ways (RFC 7250), a key from both sides, and the exporter of RFC 8446, section 7.5.

The handshake functions of aioquic are bound again with names of our own: the code is theirs, the
groups and algorithms it looks up are ours. A plain `QuicConnection` in the same process sees
nothing of it. That leans on the inside of aioquic, hence the check of version and signatures.
"""

import inspect
import ssl
from collections.abc import Callable
from enum import IntEnum
from types import FunctionType, SimpleNamespace
from typing import Any, Final

import aioquic
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic import connection as quic
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.packet import QuicErrorCode
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import mldsa, mlkem, x25519
from pqcrypto.sign import falcon_padded_512, falcon_padded_1024

from native.errors import KeyInvalid
from native.keys import SecretKey
from native.values import Algorithm, NodeId, PublicKey
from transport.core.events import RefusalReason
from transport.limits import HANDSHAKE_MESSAGE_BYTES_MAX
from transport.runtime.engines.aioquic_sessions import Sessions

AIOQUIC_VERSION: Final = "1.7.2"
ALPN: Final = "stoq/1"
X25519MLKEM768: Final = 0x11EC
SCHEMES: Final = {
    algorithm.tls_scheme: algorithm
    for algorithm in (Algorithm.FALCON_512, Algorithm.FALCON_1024, Algorithm.ML_DSA_65)
}
_EXTENSION_CLIENT_KEY_TYPE: Final = 19
_EXTENSION_SERVER_KEY_TYPE: Final = 20
_RAW_KEY: Final = 2
_ENCAPSULATION_KEY_BYTES: Final = 1_184
_CIPHERTEXT_BYTES: Final = 1_088
_X25519_BYTES: Final = 32
_FALCON: Final = {
    Algorithm.FALCON_512: falcon_padded_512,
    Algorithm.FALCON_1024: falcon_padded_1024,
}
_PARAMETERS: Final[tuple[tuple[Callable[..., Any], tuple[str, ...]], ...]] = (
    (tls.Context._client_send_hello, ("self", "output_buf")),
    (tls.Context._client_handle_hello, ("self", "input_buf", "output_buf")),
    (tls.Context._client_handle_encrypted_extensions, ("self", "input_buf")),
    (tls.Context._client_handle_certificate, ("self", "input_buf")),
    (tls.Context._client_handle_finished, ("self", "input_buf", "output_buf")),
    (tls.Context._server_handle_hello, ("self", "input_buf", "initial_buf", "handshake_buf")),
    (tls.Context._server_handle_certificate, ("self", "input_buf")),
    (tls.Context._server_handle_finished, ("self", "input_buf", "output_buf")),
    (tls.Context._check_certificate_verify_signature, ("self", "verify")),
    (tls.Context._set_peer_certificate, ("self", "certificate")),
    (tls.Context._setup_traffic_protection, ("self", "direction", "epoch", "label")),
    (tls.Context._signature_algorithms_for_private_key, ("self",)),
    (quic.QuicConnection._initialize, ("self", "peer_cid")),
    (quic.QuicConnection._write_connection_limits, ("self", "builder", "space")),
    (quic.QuicConnection._write_stream_limits, ("self", "builder", "space", "stream")),
)


class OverlayMismatch(ImportError):
    """The installed aioquic is not the one this overlay was written for."""


def check_overlay(version: str = aioquic.__version__) -> None:
    """Raise `OverlayMismatch` unless the hooks below are where they were."""
    if version != AIOQUIC_VERSION:
        raise OverlayMismatch(f"aioquic {version} is installed; STOQ needs {AIOQUIC_VERSION}")
    for function, expected in _PARAMETERS:
        if tuple(inspect.signature(function).parameters) != expected:
            raise OverlayMismatch(f"{function.__qualname__} of aioquic has other parameters")


check_overlay()


class Refused(tls.Alert):
    """A handshake that fails for a reason of ours."""

    def __init__(self, reason: RefusalReason, description: tls.AlertDescription, text: str) -> None:
        super().__init__(text)
        self.reason: Final = reason
        self.description = description


# --- key exchange


class HybridShare:
    """What one side sends: ML-KEM's part, then X25519's."""

    def __init__(self, data: bytes) -> None:
        self.data: Final = data

    @classmethod
    def from_public_bytes(cls, data: bytes) -> "HybridShare":
        """Raises `ValueError`."""
        sizes = (_ENCAPSULATION_KEY_BYTES + _X25519_BYTES, _CIPHERTEXT_BYTES + _X25519_BYTES)
        if len(data) not in sizes:
            raise ValueError("a key share of another length")
        return cls(bytes(data))

    def public_bytes(self, *_: object) -> bytes:
        """The bytes as they travel."""
        return self.data


class _LateShare(HybridShare):
    """A server's share: known once it has seen the client's."""

    def __init__(self, owner: "HybridSecret") -> None:
        self._owner = owner

    def public_bytes(self, *_: object) -> bytes:
        return self._owner.share()


class HybridSecret:
    """Our half of one exchange, in the place where aioquic keeps an X25519 key."""

    def __init__(self) -> None:
        self._x25519 = x25519.X25519PrivateKey.generate()
        self._mlkem: mlkem.MLKEM768PrivateKey | None = None
        self._ciphertext = b""

    @classmethod
    def generate(cls) -> "HybridSecret":
        """A fresh one; ML-KEM's key is drawn only when it is needed."""
        return cls()

    def share(self) -> bytes:
        """Ours: a ciphertext if we have answered, else an encapsulation key."""
        ours = self._x25519.public_key().public_bytes_raw()
        if self._ciphertext:
            return self._ciphertext + ours
        if self._mlkem is None:
            self._mlkem = mlkem.MLKEM768PrivateKey.generate()
        return self._mlkem.public_key().public_bytes_raw() + ours

    def public_key(self) -> HybridShare:
        """Our share, computed when it is written."""
        return _LateShare(self)

    def exchange(self, peer: HybridShare) -> bytes:
        """The secret, ML-KEM's part first; raises `Refused` for a share that is not valid."""
        try:
            return self._agree(peer.public_bytes())
        except ValueError as error:
            raise Refused(
                RefusalReason.BAD_KEY_SHARE,
                tls.AlertDescription.illegal_parameter,
                f"key share: {error}",
            ) from None

    def _agree(self, data: bytes) -> bytes:
        head, theirs = data[:-_X25519_BYTES], data[-_X25519_BYTES:]
        other = x25519.X25519PublicKey.from_public_bytes(theirs)
        if self._mlkem is not None:
            if len(head) != _CIPHERTEXT_BYTES:
                raise ValueError("not a ciphertext of ML-KEM-768")
            shared = self._mlkem.decapsulate(head)
        else:
            if len(head) != _ENCAPSULATION_KEY_BYTES:
                raise ValueError("not an encapsulation key of ML-KEM-768")
            key = mlkem.MLKEM768PublicKey.from_public_bytes(head)
            shared, self._ciphertext = key.encapsulate()
        return shared + self._x25519.exchange(other)


# --- signatures


class RawKey:
    """A public key in the place where aioquic keeps a certificate."""

    def __init__(self, spki: bytes) -> None:
        self._spki = spki

    def public_bytes(self, *_: object) -> bytes:
        """The SPKI."""
        return self._spki


class Signer:
    """Signs CertificateVerify with our identity."""

    def __init__(self, secret: SecretKey) -> None:
        self.algorithm: Final = secret.algorithm
        if self.algorithm not in SCHEMES.values():
            raise KeyInvalid(f"{self.algorithm.name_text} keys do not sign handshakes")
        self.key: Final = RawKey(secret.public.spki)
        self._secret = secret.export_secret()

    def sign(self, data: bytes) -> bytes:
        """A signature over `data`."""
        falcon = _FALCON.get(self.algorithm)
        if falcon is not None:
            return bytes(falcon.sign(self._secret, bytes(data)))
        return mldsa.MLDSA65PrivateKey.from_seed_bytes(self._secret).sign(bytes(data))


def signature_holds(key: PublicKey, data: bytes, signature: bytes) -> bool:
    """Whether a signature of exactly the right length is one over `data`."""
    if len(signature) != key.algorithm.signature_size_bytes:
        return False
    falcon = _FALCON.get(key.algorithm)
    if falcon is not None:
        return bool(falcon.verify(key.raw, data, signature))
    try:
        mldsa.MLDSA65PublicKey.from_public_bytes(key.raw).verify(signature, data)
    except InvalidSignature:
        return False
    return True


# --- the functions of aioquic, bound again


def _with_names(function: Callable[..., Any], names: dict[str, Any]) -> Any:
    assert isinstance(function, FunctionType)
    bound = FunctionType(
        function.__code__, names, function.__name__, function.__defaults__, function.__closure__
    )
    bound.__kwdefaults__ = function.__kwdefaults__
    return bound


def _checked_client_hello(buffer: Buffer) -> tls.ClientHello:
    """What a client offers, refused for the first thing it lacks."""
    hello = tls.pull_client_hello(buffer)
    if X25519MLKEM768 not in (hello.supported_groups or ()):
        raise Refused(
            RefusalReason.CLASSICAL_ONLY,
            tls.AlertDescription.handshake_failure,
            "no post-quantum key exchange was offered",
        )
    shares = [share for group, share in hello.key_share or () if group == X25519MLKEM768]
    if not shares:
        raise Refused(
            RefusalReason.CLASSICAL_ONLY,
            tls.AlertDescription.handshake_failure,
            "no post-quantum key share was sent",  # aioquic knows no HelloRetryRequest
        )
    if any(len(share) != _ENCAPSULATION_KEY_BYTES + _X25519_BYTES for share in shares):
        raise Refused(
            RefusalReason.BAD_KEY_SHARE,
            tls.AlertDescription.illegal_parameter,
            "a key share of the wrong length",
        )
    if not set(SCHEMES) & set(hello.signature_algorithms or ()):
        raise Refused(
            RefusalReason.NO_RAW_KEY,
            tls.AlertDescription.handshake_failure,
            "no post-quantum signature scheme was offered",
        )
    if ALPN not in (hello.alpn_protocols or ()):
        raise Refused(
            RefusalReason.OTHER_PROTOCOL,
            tls.AlertDescription.no_application_protocol,
            "stoq/1 was not offered",
        )
    offered = dict(hello.other_extensions)
    for extension in (_EXTENSION_CLIENT_KEY_TYPE, _EXTENSION_SERVER_KEY_TYPE):
        value = offered.get(extension, b"")
        if value[:1] != bytes((len(value) - 1 & 0xFF,)) or _RAW_KEY not in value[1:]:
            raise Refused(
                RefusalReason.NO_RAW_KEY,
                tls.AlertDescription.unsupported_certificate,
                "raw public keys were not offered",
            )
    hello.early_data = False  # whatever a resuming peer would like
    return hello


def _no_parameters(_: int) -> tuple[()]:
    return ()


class _Group(IntEnum):
    """The groups that aioquic tells apart, with ours in the place of X25519."""

    SECP256R1 = 0x0017
    SECP384R1 = 0x0018
    SECP521R1 = 0x0019
    X25519 = X25519MLKEM768
    X448 = 0x001E
    GREASE = 0xAAAA


_TLS_NAMES: Final[dict[str, Any]] = {
    **vars(tls),
    "Group": _Group,
    "x25519": SimpleNamespace(X25519PublicKey=HybridShare, X25519PrivateKey=HybridSecret),
    "signature_algorithm_params": _no_parameters,
    "pull_client_hello": _checked_client_hello,
}
for _name in ("decode_public_key", "encode_public_key"):
    _TLS_NAMES[_name] = _with_names(getattr(tls, _name), _TLS_NAMES)


class StoqContext(tls.Context):
    """TLS 1.3 as STOQ speaks it."""

    def __init__(self, is_client: bool, **settings: Any) -> None:
        self._extensions: list[tuple[int, bytes]] = []
        key_types = b"\x01\x02" if is_client else b"\x02"
        self._key_types = [
            (_EXTENSION_CLIENT_KEY_TYPE, key_types),
            (_EXTENSION_SERVER_KEY_TYPE, key_types),
        ]
        super().__init__(is_client=is_client, **settings)
        self._supported_groups = [_Group(X25519MLKEM768)]  # type: ignore[list-item]
        self._signature_algorithms = list(SCHEMES)
        self._max_early_data = None
        self.expected: NodeId | None = None
        self.peer: PublicKey | None = None
        self._peer_of_ticket: PublicKey | None = None
        self.fault: RefusalReason | None = None
        self._exporter_secret = b""

    _client_send_hello = _with_names(tls.Context._client_send_hello, _TLS_NAMES)
    _client_handle_hello = _with_names(tls.Context._client_handle_hello, _TLS_NAMES)
    _client_handle_finished = _with_names(tls.Context._client_handle_finished, _TLS_NAMES)
    _server_handle_hello = _with_names(tls.Context._server_handle_hello, _TLS_NAMES)

    @property
    def handshake_extensions(self) -> list[tuple[int, bytes]]:
        """Extensions of the hello: those of QUIC, and the types of keys."""
        return self._extensions + self._key_types

    @handshake_extensions.setter
    def handshake_extensions(self, value: list[tuple[int, bytes]]) -> None:
        self._extensions = value

    @property
    def _request_client_certificate(self) -> bool:
        """aioquic asks this after it has decided whether to resume; a session has the key."""
        return not self._is_client and not self._session_resumed

    @_request_client_certificate.setter
    def _request_client_certificate(self, _: bool) -> None:
        """Not for aioquic to say."""

    def use_sessions(
        self, sessions: Sessions, session: tuple[tls.SessionTicket, PublicKey] | None
    ) -> None:
        """Resume what can be resumed, and remember this session for the next time. A dialler says
        which one it drew."""
        if not self._is_client:
            self.get_session_ticket_cb = lambda ticket: self._redeemed(sessions, ticket)
            self.new_session_ticket_cb = lambda ticket: sessions.give(ticket, self._proven())
            return
        self.new_session_ticket_cb = lambda ticket: sessions.keep(ticket, self._proven())
        if session is not None:
            self.session_ticket, self._peer_of_ticket = session

    def _redeemed(self, sessions: Sessions, ticket: bytes) -> tls.SessionTicket | None:
        session = sessions.redeem(ticket)
        if session is None:
            return None
        found, self._peer_of_ticket = session
        return found

    def _proven(self) -> PublicKey:
        assert self.peer is not None
        return self.peer

    def _resume(self) -> None:
        """Take over the peer of a session that both sides have shown to know."""
        peer = self._peer_of_ticket
        if peer is None or self.expected not in (None, peer.node_id):
            raise Refused(
                RefusalReason.WRONG_KEY,
                tls.AlertDescription.bad_certificate,
                "the session is one with another node",
            )
        self.peer = peer

    def handle_message(self, input_data: bytes, output_buf: dict[tls.Epoch, Buffer]) -> None:
        """As aioquic does, and remember why it failed."""
        try:
            super().handle_message(input_data, output_buf)
            announced = int.from_bytes(self._receive_buffer[1:4])
            if len(self._receive_buffer) >= 4 and announced > HANDSHAKE_MESSAGE_BYTES_MAX:
                self._receive_buffer = b""
                raise tls.AlertDecodeError("a handshake message over the limit")
        except Refused as refused:
            self.fault = self.fault or refused.reason  # the first one; what follows is noise
            raise
        except tls.AlertNoApplicationProtocol:
            self.fault = self.fault or RefusalReason.OTHER_PROTOCOL
            raise
        except tls.Alert:
            self.fault = self.fault or RefusalReason.TLS_FAILURE
            raise
        except (ValueError, AssertionError, TypeError) as error:
            self.fault = self.fault or RefusalReason.TLS_FAILURE
            raise tls.AlertDecodeError("a handshake message of no known form") from error

    def export(self, label: bytes, context: bytes, length: int) -> bytes:
        """Secret both ends derive alike (RFC 8446, section 7.5)."""
        assert self.key_schedule is not None
        algorithm = self.key_schedule.algorithm
        secret = tls.hkdf_expand_label(
            algorithm=algorithm,
            secret=self._exporter_secret,
            label=label,
            hash_value=_digest(algorithm, b""),
            length=algorithm.digest_size,
        )
        return tls.hkdf_expand_label(
            algorithm=algorithm,
            secret=secret,
            label=b"exporter",
            hash_value=_digest(algorithm, context),
            length=length,
        )

    def _setup_traffic_protection(
        self, direction: tls.Direction, epoch: tls.Epoch, label: bytes
    ) -> None:
        super()._setup_traffic_protection(direction, epoch, label)
        if label == b"s ap traffic":  # the exporter's secret is of the same moment
            assert self.key_schedule is not None
            self._exporter_secret = self.key_schedule.derive_secret(b"exp master")

    def _client_handle_encrypted_extensions(self, input_buf: Buffer) -> None:
        super()._client_handle_encrypted_extensions(input_buf)
        if self._session_resumed:
            self._resume()
            return
        answered = dict(self.received_extensions or ())
        for extension in (_EXTENSION_CLIENT_KEY_TYPE, _EXTENSION_SERVER_KEY_TYPE):
            if answered.get(extension) != bytes((_RAW_KEY,)):
                raise Refused(
                    RefusalReason.NO_RAW_KEY,
                    tls.AlertDescription.unsupported_certificate,
                    "raw public keys were not selected",
                )

    def _client_handle_certificate(self, input_buf: Buffer) -> None:
        _check_not_empty(input_buf)
        if self._certificate_request is None:
            raise Refused(
                RefusalReason.NO_PEER_KEY,
                tls.AlertDescription.missing_extension,
                "the acceptor does not want our key",
            )
        super()._client_handle_certificate(input_buf)

    def _server_handle_certificate(self, input_buf: Buffer) -> None:
        _check_not_empty(input_buf)
        super()._server_handle_certificate(input_buf)

    def _server_handle_finished(self, input_buf: Buffer, output_buf: Buffer) -> None:
        if self._session_resumed:
            self._resume()
        if self.peer is None:
            raise Refused(
                RefusalReason.NO_PEER_KEY,
                tls.AlertDescription.certificate_required,
                "the peer has proven no key",
            )
        super()._server_handle_finished(input_buf, output_buf)

    def _set_peer_certificate(self, certificate: tls.Certificate) -> None:
        spki = bytes(certificate.certificates[0][0])
        try:
            if len(certificate.certificates) != 1:
                raise KeyInvalid("more than one key")
            key = PublicKey.from_spki(spki)
            if key.algorithm not in SCHEMES.values():
                raise KeyInvalid(f"{key.algorithm.name_text} keys do not sign handshakes")
        except KeyInvalid as error:
            raise Refused(
                RefusalReason.BAD_KEY_ENCODING,
                tls.AlertDescription.bad_certificate,
                f"the peer's key: {error}",
            ) from None
        if self.expected is not None and key.node_id != self.expected:
            raise Refused(
                RefusalReason.WRONG_KEY,
                tls.AlertDescription.bad_certificate,
                "the peer's key has another NodeId than the one that was dialled",
            )
        self.peer = key
        self._peer_certificate = RawKey(spki)  # type: ignore[assignment]
        self._peer_certificate_chain = []

    def _check_certificate_verify_signature(self, verify: tls.CertificateVerify) -> None:
        assert self.peer is not None
        assert self.key_schedule is not None
        context = tls.SERVER_CONTEXT_STRING if self._is_client else tls.CLIENT_CONTEXT_STRING
        signed = bytes(self.key_schedule.certificate_verify_data(context))
        if verify.algorithm != self.peer.algorithm.tls_scheme or not signature_holds(
            self.peer, signed, bytes(verify.signature)
        ):
            raise Refused(
                RefusalReason.BAD_SIGNATURE,
                tls.AlertDescription.decrypt_error,
                "the peer does not own the key it shows",
            )

    def _signature_algorithms_for_private_key(self) -> list[Any]:
        signer = self.certificate_private_key
        assert isinstance(signer, Signer)
        return [signer.algorithm.tls_scheme]


def _digest(algorithm: hashes.HashAlgorithm, data: bytes) -> bytes:
    digest = hashes.Hash(algorithm)
    digest.update(data)
    return digest.finalize()


def _check_not_empty(buffer: Buffer) -> None:
    position = buffer.tell()
    shown = tls.pull_certificate(buffer)
    buffer.seek(position)
    if not shown.certificates:
        raise Refused(
            RefusalReason.NO_PEER_KEY,
            tls.AlertDescription.certificate_required,
            "the peer shows no key",
        )


class _TLSModule(SimpleNamespace):
    """The module `tls` as `QuicConnection._initialize` sees it."""


_QUIC_NAMES: Final[dict[str, Any]] = {
    **vars(quic),
    "tls": _TLSModule(**{**vars(tls), "Context": StoqContext}),
}


class StoqConnection(quic.QuicConnection):
    """A QUIC connection with the TLS above, and receive windows that wait for the reader."""

    def __init__(
        self,
        *,
        configuration: QuicConfiguration,
        expected: NodeId | None = None,
        sessions: Sessions | None = None,
        patience_s: float = 0.0,
        **how: Any,
    ) -> None:
        self.priorities: dict[int, int] = {}  # streams that are not served in turn
        super().__init__(configuration=configuration, **how)
        self._expected = expected
        self._sessions = sessions
        # Drawn once: after a Retry, TLS begins anew with the same ticket.
        self._session = sessions.use(expected) if sessions and expected else None
        self._patience_s = patience_s  # with a handshake; its owner gives up by itself
        self.count_unread: Callable[[], dict[bool, int]] = dict  # ended streams, by direction
        self.unread: dict[int, int] = {}  # bytes of each stream its owner has not taken yet
        self.packets_lost = 0
        self.congestion_events = 0
        self._report_lost = self._loss._on_packets_lost
        self._loss._on_packets_lost = self._packets_lost  # type: ignore[method-assign]

    def _packets_lost(self, *, packets: Any, congestion_event: bool = True, **how: Any) -> None:
        packets = list(packets)
        if congestion_event and packets:
            self.packets_lost += len(packets)
            self.congestion_events += 1
        self._report_lost(packets=packets, congestion_event=congestion_event, **how)

    @property
    def _streams_queue(self) -> list[Any]:
        """The streams in the order in which the next packet serves them."""
        if self.priorities:
            self._served.sort(key=lambda stream: -self.priorities.get(stream.stream_id, 0))
        return self._served

    @_streams_queue.setter
    def _streams_queue(self, streams: list[Any]) -> None:
        self._served = streams

    _plain_initialize = _with_names(quic.QuicConnection._initialize, _QUIC_NAMES)

    def _initialize(self, peer_cid: bytes) -> None:
        self._plain_initialize(peer_cid)
        context = self.context
        assert context is not None
        context.expected = self._expected
        if self._sessions is not None:
            context.use_sessions(self._sessions, self._session)

    def _idle_timeout(self) -> float:
        timeout_s = super()._idle_timeout()
        return timeout_s if self._handshake_complete else max(timeout_s, self._patience_s)

    @property
    def context(self) -> StoqContext | None:
        """TLS, once it has begun."""
        context = getattr(self, "tls", None)
        return context if isinstance(context, StoqContext) else None

    # aioquic doubles a window when half of it was received, read or not. Here a window moves on by
    # what was read; the counters are hidden while aioquic writes, so that it has nothing to double.

    def _write_connection_limits(self, builder: Any, space: Any) -> None:
        limit = self._local_max_data
        window = self._configuration.max_data
        if limit.used + window - limit.value >= window // 4:
            waiting = sum(self.unread.values()) + sum(
                stream.receiver.highest_offset - stream.receiver.starting_offset()
                for stream in self._streams.values()
                if not stream.receiver.is_finished
            )
            target = limit.used + window - waiting
            if target - limit.value >= window // 4:
                limit.value = target
        used, limit.used = limit.used, 0
        # A stream that has ended lets the peer open another one only when it was read.
        streams = (self._local_max_streams_bidi, self._local_max_streams_uni)
        earned = [allowed.value for allowed in streams]
        if any(allowed.value != allowed.sent for allowed in streams):
            unread = self.count_unread()
            for allowed, bidirectional in zip(streams, (True, False), strict=True):
                held_back = unread.get(bidirectional, 0)
                allowed.value = max(allowed.sent, allowed.value - held_back)
        try:
            super()._write_connection_limits(builder, space)
        finally:
            limit.used = used
            for allowed, value in zip(streams, earned, strict=True):
                allowed.value = value

    def _write_stream_limits(self, builder: Any, space: Any, stream: Any) -> None:
        receiver = stream.receiver
        if stream.max_stream_data_local and not receiver.is_finished:
            window = self._configuration.max_stream_data
            read = receiver.starting_offset() - self.unread.get(stream.stream_id, 0)
            if read + window - stream.max_stream_data_local >= window // 4:
                stream.max_stream_data_local = read + window
        highest, receiver.highest_offset = receiver.highest_offset, 0
        try:
            super()._write_stream_limits(builder, space, stream)
        finally:
            receiver.highest_offset = highest


def configuration(signer: Signer, *, dialling: bool, **settings: Any) -> QuicConfiguration:
    """What every STOQ connection has in common."""
    return QuicConfiguration(
        is_client=dialling,
        alpn_protocols=[ALPN],
        certificate=signer.key,
        private_key=signer,
        verify_mode=ssl.CERT_NONE,  # keys are judged above, not by authorities
        supported_versions=[1],
        connection_id_length=8,
        initial_rtt=0.05,  # as quinn has it: how soon a lost first packet is sent again
        **settings,
    )


def handshake_reason(connection: StoqConnection, error_code: int) -> RefusalReason:
    """Why a handshake that we ended failed."""
    context = connection.context
    if context is not None and context.fault is not None:
        return context.fault
    if error_code == QuicErrorCode.NO_ERROR:
        return RefusalReason.HANDSHAKE_TIMEOUT
    return RefusalReason.TLS_FAILURE
