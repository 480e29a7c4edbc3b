"""TLS of the aioquic engine between two ends in memory: what it proves and what it refuses."""

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from cryptography.hazmat.primitives.asymmetric import x25519

from native.keys import SecretKey
from native.values import Algorithm, NodeId
from transport.core.events import RefusalReason
from transport.runtime.engines import aioquic_tls
from transport.runtime.engines.aioquic_sessions import Sessions
from transport.runtime.engines.aioquic_tls import (
    OverlayMismatch,
    RawKey,
    Signer,
    StoqConnection,
    check_overlay,
    configuration,
)

CLIENT = ("::1", 1)
SERVER = ("::1", 2)


@cache
def secrets(algorithm: Algorithm) -> tuple[SecretKey, SecretKey]:
    return SecretKey.generate(algorithm), SecretKey.generate(algorithm)


def secret(algorithm: Algorithm, number: int) -> SecretKey:
    return secrets(algorithm)[number]


@cache
def signer(algorithm: Algorithm, number: int) -> Signer:
    return Signer(secret(algorithm, number))


class Pair:
    """A dialler and an acceptor with a wire that loses nothing."""

    def __init__(
        self,
        *,
        algorithm: Algorithm = Algorithm.FALCON_512,
        expected: NodeId | None = None,
        client_signer: Any = None,
        server_signer: Any = None,
        tamper: Callable[["Pair"], None] | None = None,
        client_sessions: Sessions | None = None,
        server_sessions: Sessions | None = None,
    ) -> None:
        self.now = 1.0
        node = secret(algorithm, 1).node_id
        self.client = StoqConnection(
            configuration=configuration(client_signer or signer(algorithm, 0), dialling=True),
            expected=expected or node,
            sessions=client_sessions,
        )
        self.client.connect(SERVER, now=self.now)
        self.server = StoqConnection(
            configuration=configuration(server_signer or signer(algorithm, 1), dialling=False),
            sessions=server_sessions,
            original_destination_connection_id=self.client.original_destination_connection_id,
        )
        if tamper is not None:
            tamper(self)
        for _ in range(8):
            self.turn()

    def turn(self) -> None:
        self.now += 0.01
        for data, _ in self.client.datagrams_to_send(now=self.now):
            self.server.receive_datagram(data, CLIENT, now=self.now)
        for data, _ in self.server.datagrams_to_send(now=self.now):
            self.client.receive_datagram(data, SERVER, now=self.now)

    @property
    def faults(self) -> tuple[RefusalReason | None, RefusalReason | None]:
        client, server = self.client.context, self.server.context
        return (client.fault if client else None, server.fault if server else None)


@pytest.mark.parametrize(
    "algorithm", [Algorithm.FALCON_512, Algorithm.FALCON_1024, Algorithm.ML_DSA_65]
)
def test_both_ends_prove_their_keys_and_export_the_same_secret(algorithm: Algorithm) -> None:
    pair = Pair(algorithm=algorithm)
    client, server = pair.client.context, pair.server.context
    assert client is not None
    assert server is not None
    assert client.peer == secret(algorithm, 1).public
    assert server.peer == secret(algorithm, 0).public
    assert pair.faults == (None, None)
    exported = client.export(b"label", b"context", 32)
    assert exported == server.export(b"label", b"context", 32)
    assert exported != client.export(b"label", b"other", 32)


def test_another_node_than_the_one_dialled_is_refused() -> None:
    pair = Pair(expected=secret(Algorithm.FALCON_512, 0).node_id)
    assert pair.faults == (RefusalReason.WRONG_KEY, None)


class Forger(Signer):
    """Signs, and then changes what it signed."""

    def __init__(self, key: SecretKey, change: Callable[[bytes], bytes]) -> None:
        super().__init__(key)
        self._change = change

    def sign(self, data: bytes) -> bytes:
        return self._change(super().sign(data))


@pytest.mark.parametrize(
    "change",
    [
        lambda signature: signature[:-40] + bytes((signature[-40] ^ 1,)) + signature[-39:],
        lambda signature: signature + b"\0",
        lambda signature: signature[:-1],
        lambda _: b"",
    ],
    ids=["tampered", "longer", "shorter", "empty"],
)
@pytest.mark.parametrize("algorithm", [Algorithm.FALCON_512, Algorithm.ML_DSA_65])
def test_a_signature_that_is_not_exactly_right_is_refused(
    algorithm: Algorithm, change: Callable[[bytes], bytes]
) -> None:
    forged = Pair(algorithm=algorithm, server_signer=Forger(secret(algorithm, 1), change))
    assert forged.faults == (RefusalReason.BAD_SIGNATURE, None)
    forged = Pair(algorithm=algorithm, client_signer=Forger(secret(algorithm, 0), change))
    assert forged.faults == (None, RefusalReason.BAD_SIGNATURE)


def test_a_key_in_another_encoding_is_refused() -> None:
    class Loose(Signer):
        def __init__(self, key: SecretKey) -> None:
            super().__init__(key)
            self.__dict__["key"] = RawKey(key.public.spki + b"\0")

    pair = Pair(client_signer=Loose(secret(Algorithm.FALCON_512, 0)))
    assert pair.faults == (None, RefusalReason.BAD_KEY_ENCODING)


def test_a_dialler_that_shows_no_key_is_refused() -> None:
    def hide(pair: Pair) -> None:
        assert pair.client.context is not None
        pair.client.context.certificate = None

    assert Pair(tamper=hide).faults == (None, RefusalReason.NO_PEER_KEY)


def test_a_dialler_that_offers_no_raw_keys_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for types in ([], [(19, b"\x01\x00"), (20, b"\x01\x00")], [(19, b"\x01\x02")]):
        original = aioquic_tls.StoqContext.__init__

        def without(
            self: aioquic_tls.StoqContext,
            is_client: bool,
            *,
            offered: list[tuple[int, bytes]] = types,
            init: Callable[..., None] = original,
            **settings: Any,
        ) -> None:
            init(self, is_client, **settings)
            if is_client:
                self._key_types = offered

        with monkeypatch.context() as patch:
            patch.setattr(aioquic_tls.StoqContext, "__init__", without)
            assert Pair().faults == (None, RefusalReason.NO_RAW_KEY)


def test_an_acceptor_that_selects_no_raw_keys_is_refused() -> None:
    original = aioquic_tls.StoqContext.__init__

    def without(self: aioquic_tls.StoqContext, is_client: bool, **settings: Any) -> None:
        original(self, is_client, **settings)
        if not is_client:
            self._key_types = []

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aioquic_tls.StoqContext, "__init__", without)
        assert Pair().faults == (RefusalReason.NO_RAW_KEY, None)


def server_answer(hello: QuicConnection, server: QuicConnection) -> None:
    for data, _ in hello.datagrams_to_send(now=1.0):
        server.receive_datagram(data, CLIENT, now=1.0)


@pytest.mark.parametrize("alpn", ["stoq/1", "h3"])
def test_a_classical_dialler_is_refused(alpn: str) -> None:
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=[alpn]))
    client.connect(SERVER, now=1.0)
    server = StoqConnection(
        configuration=configuration(signer(Algorithm.FALCON_512, 1), dialling=False),
        original_destination_connection_id=client.original_destination_connection_id,
    )
    server_answer(client, server)
    assert server.context is not None
    assert server.context.fault is RefusalReason.CLASSICAL_ONLY


def test_another_protocol_is_refused() -> None:
    settings = configuration(signer(Algorithm.FALCON_512, 0), dialling=True)
    settings.alpn_protocols = ["h3"]
    client = StoqConnection(configuration=settings)
    client.connect(SERVER, now=1.0)
    server = StoqConnection(
        configuration=configuration(signer(Algorithm.FALCON_512, 1), dialling=False),
        original_destination_connection_id=client.original_destination_connection_id,
    )
    server_answer(client, server)
    assert server.context is not None
    assert server.context.fault is RefusalReason.OTHER_PROTOCOL


def test_a_key_of_ml_kem_that_is_not_reduced_is_refused() -> None:
    class Bad(aioquic_tls.HybridSecret):
        def share(self) -> bytes:
            return b"\xff" * 1184 + super().share()[1184:]

    names = aioquic_tls._TLS_NAMES["x25519"]
    original = names.X25519PrivateKey
    names.X25519PrivateKey = Bad
    try:
        pair = Pair()
    finally:
        names.X25519PrivateKey = original
    assert pair.faults == (None, RefusalReason.BAD_KEY_SHARE)


def test_shares_of_another_length_are_refused() -> None:
    with pytest.raises(ValueError, match="length"):
        aioquic_tls.HybridShare.from_public_bytes(b"\0" * 1215)
    ours = aioquic_tls.HybridSecret.generate()
    with pytest.raises(aioquic_tls.Refused, match="encapsulation key"):
        ours.exchange(aioquic_tls.HybridShare.from_public_bytes(b"\x01" * 1120))


def test_another_version_of_aioquic_is_refused() -> None:
    check_overlay("1.7.2")
    with pytest.raises(OverlayMismatch, match=r"9\.9\.9"):
        check_overlay("9.9.9")


def test_a_plain_connection_of_aioquic_keeps_its_groups() -> None:
    assert vars(tls)["x25519"] is x25519
    assert int(tls.Group.X25519) == 0x1D
    client = QuicConnection(configuration=QuicConfiguration(alpn_protocols=["h3"]))
    client.connect(SERVER, now=1.0)
    sent = client._crypto_streams[tls.Epoch.INITIAL].sender._buffer
    hello = tls.pull_client_hello(Buffer(data=bytes(sent)))
    assert 0x1D in (hello.supported_groups or ())
    assert 0x11EC not in (hello.supported_groups or ())


def test_windows_wait_for_the_reader() -> None:
    pair = Pair()
    stream = pair.client.get_next_available_stream_id()
    window = pair.server.configuration.max_stream_data
    pair.client.send_stream_data(stream, bytes(3 * window))
    received = 0
    for _ in range(2_000):
        pair.turn()
        while (event := pair.server.next_event()) is not None:
            data = getattr(event, "data", b"")
            received += len(data)
            pair.server.unread[stream] = received
        if received >= window:
            break
    assert received == window
    for _ in range(20):
        pair.turn()
    assert pair.server.next_event() is None


def test_a_handshake_message_over_the_limit_is_not_kept() -> None:
    pair = Pair()
    context = pair.server.context
    assert context is not None
    with pytest.raises(tls.AlertDecodeError, match="over the limit"):
        context.handle_message(b"\x0b\xff\xff\xff" + bytes(1_000), {})
    assert context._receive_buffer == b""
    assert context.fault is RefusalReason.TLS_FAILURE


def test_an_acceptor_that_asks_for_no_key_is_refused() -> None:
    class Modest(aioquic_tls.StoqContext):
        _request_client_certificate = False

    def modest(pair: Pair) -> None:
        original = pair.server._plain_initialize

        def initialize(peer_cid: bytes) -> None:
            original(peer_cid)
            pair.server.tls.__class__ = Modest

        pair.server._plain_initialize = initialize

    assert Pair(tamper=modest).faults == (RefusalReason.NO_PEER_KEY, None)


@pytest.mark.parametrize(
    "algorithm", [Algorithm.FALCON_512, Algorithm.FALCON_1024, Algorithm.ML_DSA_65]
)
def test_a_resumed_session_is_with_the_same_node_and_has_secrets_of_its_own(
    algorithm: Algorithm,
) -> None:
    ours, theirs = Sessions(), Sessions()
    first, second = (
        Pair(algorithm=algorithm, client_sessions=ours, server_sessions=theirs) for _ in range(2)
    )
    assert second.faults == (None, None)
    exported = []
    for pair, resumed in ((first, False), (second, True)):
        client, server = pair.client.context, pair.server.context
        assert client is not None
        assert server is not None
        assert (client.session_resumed, server.session_resumed) == (resumed, resumed)
        assert client.peer == secret(algorithm, 1).public
        assert server.peer == secret(algorithm, 0).public
        exported.append(client.export(b"label", b"context", 32))
        assert exported[-1] == server.export(b"label", b"context", 32)
    assert exported[0] != exported[1]


def test_a_ticket_that_was_used_before_is_not_resumed_and_counted() -> None:
    ours, theirs = Sessions(), Sessions()
    Pair(client_sessions=ours, server_sessions=theirs)
    session = ours.use(secret(Algorithm.FALCON_512, 1).node_id)
    assert session is not None
    for times in range(3):
        stubborn = Sessions()
        stubborn.keep(*session)
        pair = Pair(client_sessions=stubborn, server_sessions=theirs)
        assert pair.faults == (None, None)
        assert pair.server.context is not None
        assert pair.server.context.session_resumed is (times == 0)
        assert pair.server.context.peer == secret(Algorithm.FALCON_512, 0).public
        assert theirs.refused == times


def test_a_session_with_another_node_is_refused() -> None:
    """Whoever can hand a dialler a ticket under a wrong name does not become that node."""
    ours, theirs = Sessions(), Sessions()
    Pair(client_sessions=ours, server_sessions=theirs)
    session = ours.use(secret(Algorithm.FALCON_512, 1).node_id)
    assert session is not None
    impersonated = SecretKey.generate(Algorithm.FALCON_512).public
    ours.keep(session[0], impersonated)
    ours._keys[impersonated.node_id] = session[1]
    pair = Pair(expected=impersonated.node_id, client_sessions=ours, server_sessions=theirs)
    assert pair.faults[0] is RefusalReason.WRONG_KEY
    assert pair.client.context is not None
    assert pair.client.context.peer is None


def test_an_acceptor_that_forgot_its_sessions_shakes_hands_in_full() -> None:
    ours = Sessions()
    Pair(client_sessions=ours, server_sessions=Sessions())
    forgetful = Sessions()
    pair = Pair(client_sessions=ours, server_sessions=forgetful)
    assert pair.faults == (None, None)
    assert pair.server.context is not None
    assert not pair.server.context.session_resumed
    assert forgetful.refused == 1


def test_a_dialler_that_is_sent_back_by_a_retry_still_resumes() -> None:
    """TLS begins anew then, with the ticket that the first ClientHello had."""
    ours, theirs = Sessions(), Sessions()
    Pair(client_sessions=ours, server_sessions=theirs)
    session = ours.use(secret(Algorithm.FALCON_512, 1).node_id)
    assert session is not None
    only = Sessions()
    only.keep(*session)

    def again(pair: Pair) -> None:
        pair.client._connect(now=pair.now)

    pair = Pair(client_sessions=only, server_sessions=theirs, tamper=again)
    assert pair.faults == (None, None)
    assert pair.server.context is not None
    assert pair.server.context.session_resumed
