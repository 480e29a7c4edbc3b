"""Whatever bytes arrive, the decoders of this room give a value or refuse it by name.

`make fuzz` runs these with many examples; the corpus keeps what was interesting once.
"""

from pathlib import Path

import pytest
from aioquic import tls
from aioquic._buffer import Buffer
from aioquic.quic.connection import QuicConnectionError
from hypothesis import given
from hypothesis import strategies as st

from native.codec import encode
from native.values import Algorithm
from transport.core import frames
from transport.core.hello import Hello, HelloExchange, decode_hello, encode_hello
from transport.errors import HelloRefused, MalformedFrame, MalformedHello
from transport.runtime.engines.aioquic_tls import StoqConnection, configuration
from transport.tests.conftest import offer
from transport.tests.test_aioquic_overlay import signer

CORPUS = Path(__file__).parent / "corpus"
VALUES = st.recursive(
    st.integers(0, 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20) | st.none(),
    lambda inner: st.lists(inner, max_size=9).map(tuple),
    max_leaves=20,
)


def check_hello(data: bytes) -> None:
    try:
        hello = decode_hello(data)
    except (MalformedHello, HelloRefused):
        return
    assert encode_hello(hello) == data


def check_frames(data: bytes) -> None:
    decoder = frames.FrameDecoder(size_max=1_000)
    try:
        whole = decoder.feed(data)
    except MalformedFrame:
        return
    written = b"".join(frames.encode_frame(kind, body) for kind, body in whole)
    assert data[: len(written)] == written
    assert decoder.pending_bytes == len(data) - len(written)


def check_request(data: bytes) -> None:
    try:
        request = frames.Request.decode(data)
    except MalformedFrame:
        return
    assert request.encode() == data


def check_error(data: bytes) -> None:
    try:
        code_text, message = frames.decode_error(data)
    except MalformedFrame:
        return
    assert isinstance(code_text, str)
    assert isinstance(message, str)


def check_exchange(data: bytes) -> None:
    exchange = HelloExchange(Hello.of(offer(), bytes(16)), dialled=False)
    for frame_type in data[:2]:
        try:
            exchange.receive(frame_type, data[2:])
        except (MalformedHello, HelloRefused):
            return


def check_handshake(data: bytes) -> None:
    """The overlay refuses with an alert, and keeps no more than it was given."""
    acceptor = StoqConnection(
        configuration=configuration(signer(Algorithm.FALCON_512, 1), dialling=False),
        original_destination_connection_id=bytes(8),
    )
    acceptor._version = 1
    acceptor._initialize(bytes(8))
    context = acceptor.context
    assert context is not None
    try:
        context.handle_message(data, {epoch: Buffer(capacity=8_192) for epoch in tls.Epoch})
    except tls.Alert:
        assert context.fault is not None
    except QuicConnectionError:  # transport parameters, which aioquic judges itself
        assert data[:1] == b"\x01"
    assert len(context._receive_buffer) <= len(data)


CHECKS = {
    "hello": check_hello,
    "frames": check_frames,
    "request": check_request,
    "error": check_error,
    "exchange": check_exchange,
    "handshake": check_handshake,
}


@pytest.mark.parametrize("name", CHECKS)
def test_the_corpus_is_handled(name: str) -> None:
    entries = sorted((CORPUS / name).iterdir())
    assert entries
    for path in entries:
        CHECKS[name](path.read_bytes())


@given(st.binary(max_size=300) | VALUES.map(encode))
def test_hello(data: bytes) -> None:
    check_hello(data)


@given(st.binary(max_size=3_000))
def test_frames(data: bytes) -> None:
    check_frames(data)


@given(st.binary(max_size=300))
def test_requests(data: bytes) -> None:
    check_request(data)


@given(st.binary(max_size=300) | VALUES.map(encode))
def test_errors(data: bytes) -> None:
    check_error(data)


@given(st.binary(max_size=300) | VALUES.map(lambda value: b"\x01\x02" + encode(value)))
def test_the_exchange(data: bytes) -> None:
    check_exchange(data)


MESSAGES = st.tuples(st.sampled_from([1, 2, 8, 11, 13, 15, 20]), st.binary(max_size=600)).map(
    lambda message: bytes([message[0]]) + len(message[1]).to_bytes(3) + message[1]
)


@given(st.binary(max_size=600) | MESSAGES)
def test_handshake_messages_of_the_overlay(data: bytes) -> None:
    check_handshake(data)
