"""Error cases of h3spec that reach our code, as packets that no honest QUIC library sends.

Each breaks one rule of RFC 9000, 9001, 9221 or 8446 and must be answered with the error code of
that rule; nothing of the breaker reaches the application, and honest connections are not disturbed.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import pytest
import trio
from aioquic._buffer import Buffer
from aioquic.quic.packet import (
    QuicErrorCode,
    QuicFrameType,
    QuicTransportParameters,
    pull_quic_transport_parameters,
    push_quic_transport_parameters,
)
from aioquic.tls import CipherSuite, Epoch

from transport import Connection, Endpoint, Identity, RefusalReason
from transport.core.events import Cause
from transport.tests.conftest import Start
from transport.tests.wild import Tamper, Wild, varint

PROTOCOL_VIOLATION = QuicErrorCode.PROTOCOL_VIOLATION
FRAME_ENCODING = QuicErrorCode.FRAME_ENCODING_ERROR
TRANSPORT_PARAMETER = QuicErrorCode.TRANSPORT_PARAMETER_ERROR
STREAM_STATE = QuicErrorCode.STREAM_STATE_ERROR
STREAM_LIMIT = QuicErrorCode.STREAM_LIMIT_ERROR
FLOW_CONTROL = QuicErrorCode.FLOW_CONTROL_ERROR
FINAL_SIZE = QuicErrorCode.FINAL_SIZE_ERROR
CRYPTO_BUFFER = QuicErrorCode.CRYPTO_BUFFER_EXCEEDED
TLS_ALERT = 0x100  # RFC 9001, section 4.8
UNEXPECTED_MESSAGE, DECODE_ERROR, DECRYPT_ERROR = 10, 50, 51
MISSING_EXTENSION, NO_APPLICATION_PROTOCOL = 109, 120

SUITES = [
    CipherSuite.AES_128_GCM_SHA256,
    CipherSuite.AES_256_GCM_SHA384,
    CipherSuite.CHACHA20_POLY1305_SHA256,
]
LONG_RESERVED, SHORT_RESERVED = 0x0C, 0x18  # RFC 9000, sections 17.2 and 17.3.1
UNKNOWN_FRAME = 0x21
BIDIRECTIONAL_OF_CLIENT, BIDIRECTIONAL_OF_SERVER = 4, 1
ONE_WAY_OF_CLIENT, ONE_WAY_OF_SERVER = 2, 3
STREAM, STREAM_WITH_OFFSET, STREAM_WITH_END = 0x0A, 0x0E, 0x0B  # all with a length


def stream(number: int, data: bytes = b"x") -> bytes:
    return varint(STREAM, number, len(data)) + data


def new_connection_id(*, sequence: int, retire: int, size: int = 8) -> bytes:
    head = varint(QuicFrameType.NEW_CONNECTION_ID, sequence, retire) + bytes([size])
    return head + b"\x07" * size + b"\x08" * 16


@pytest.fixture
async def acceptor(start: Start, identities: list[Identity]) -> Endpoint:
    return await start(identities[0])


def refused_only(endpoint: Endpoint, *reasons: RefusalReason) -> None:
    """The breaker was counted once, under one of these, and nobody is connected."""
    refused = {r: n for r, n in endpoint.statistics().refused_total.items() if n}
    assert sum(refused.values()) == 1
    assert refused.keys() <= set(reasons)
    assert endpoint.connections == ()


async def admitted(wild: Wild, acceptor: Endpoint) -> Connection:
    await wild.join()
    return await acceptor.accept()


# --- Initial packets: before any key exchange

FORBIDDEN_EARLY = {
    "RESET_STREAM": varint(QuicFrameType.RESET_STREAM, 0, 0, 0),
    "STOP_SENDING": varint(QuicFrameType.STOP_SENDING, 0, 0),
    "NEW_TOKEN": varint(QuicFrameType.NEW_TOKEN, 1) + b"t",
    "STREAM": stream(0),
    "MAX_DATA": varint(QuicFrameType.MAX_DATA, 1),
    "MAX_STREAM_DATA": varint(QuicFrameType.MAX_STREAM_DATA, 0, 1),
    "MAX_STREAMS": varint(QuicFrameType.MAX_STREAMS_BIDI, 1),
    "DATA_BLOCKED": varint(QuicFrameType.DATA_BLOCKED, 1),
    "STREAM_DATA_BLOCKED": varint(QuicFrameType.STREAM_DATA_BLOCKED, 0, 1),
    "STREAMS_BLOCKED": varint(QuicFrameType.STREAMS_BLOCKED_UNI, 1),
    "NEW_CONNECTION_ID": new_connection_id(sequence=1, retire=0),
    "RETIRE_CONNECTION_ID": varint(QuicFrameType.RETIRE_CONNECTION_ID, 0),
    "PATH_CHALLENGE": varint(QuicFrameType.PATH_CHALLENGE) + bytes(8),
    "PATH_RESPONSE": varint(QuicFrameType.PATH_RESPONSE) + bytes(8),
    "HANDSHAKE_DONE": varint(QuicFrameType.HANDSHAKE_DONE),
    "DATAGRAM": varint(QuicFrameType.DATAGRAM_WITH_LENGTH, 1) + b"d",
}
MALFORMED_EARLY = {
    "unknown frame": varint(UNKNOWN_FRAME),
    "CRYPTO cut short": varint(QuicFrameType.CRYPTO, 0, 5_000) + b"x",
}


@pytest.mark.parametrize("frame", FORBIDDEN_EARLY)
async def test_a_frame_that_no_initial_packet_may_carry(
    acceptor: Endpoint, identities: list[Identity], frame: str
) -> None:
    """RFC 9000, section 12.4, table 3."""
    async with Wild(identities[1], acceptor.address) as wild:
        await wild.send(Epoch.INITIAL, FORBIDDEN_EARLY[frame])
        assert (await wild.told(talk=False)).error_code == PROTOCOL_VIOLATION
    refused_only(acceptor, RefusalReason.BAD_INITIAL, RefusalReason.TLS_FAILURE)


@pytest.mark.parametrize("frame", MALFORMED_EARLY)
async def test_an_initial_packet_that_cannot_be_parsed(
    acceptor: Endpoint, identities: list[Identity], frame: str
) -> None:
    async with Wild(identities[1], acceptor.address) as wild:
        await wild.send(Epoch.INITIAL, MALFORMED_EARLY[frame])
        assert (await wild.told(talk=False)).error_code == FRAME_ENCODING
    refused_only(acceptor, RefusalReason.BAD_INITIAL, RefusalReason.TLS_FAILURE)


async def test_more_handshake_bytes_than_anybody_needs(
    acceptor: Endpoint, identities: list[Identity]
) -> None:
    """RFC 9000, section 7.5: nothing is buffered at an offset far ahead."""
    far = varint(QuicFrameType.CRYPTO, 1 << 24, 1) + b"x"
    async with Wild(identities[1], acceptor.address) as wild:
        await wild.send(Epoch.INITIAL, far)
        assert (await wild.told(talk=False)).error_code == CRYPTO_BUFFER
    refused_only(acceptor, RefusalReason.BAD_INITIAL, RefusalReason.TLS_FAILURE)


@pytest.mark.rust_only("aioquic answers some of these")
async def test_reserved_bits_in_a_first_packet_deserve_no_answer(
    acceptor: Endpoint, identities: list[Identity]
) -> None:
    """RFC 9000, section 17.2: an error once there is a connection; before that, a stranger."""
    async with Wild(identities[1], acceptor.address) as wild:
        await wild.send(Epoch.INITIAL, varint(QuicFrameType.PING), reserved=LONG_RESERVED)
        with trio.fail_after(10):
            while not any(acceptor.statistics().refused_total.values()):
                await trio.lowlevel.checkpoint()
    refused_only(acceptor, RefusalReason.BAD_INITIAL)


async def test_reserved_bits_of_a_long_header(
    acceptor: Endpoint, identities: list[Identity]
) -> None:
    async with Wild(identities[1], acceptor.address) as wild:
        await wild.has_handshake_keys()
        await wild.send(Epoch.HANDSHAKE, varint(QuicFrameType.PING), reserved=LONG_RESERVED)
        assert (await wild.told(talk=False)).error_code == PROTOCOL_VIOLATION
    refused_only(acceptor, RefusalReason.TLS_FAILURE)


# --- ClientHello


@dataclass(frozen=True, slots=True)
class _Changed:
    """Transport parameters as they are, but for these; None takes one away."""

    changes: dict[str, object]

    def __call__(self, parameters: bytes) -> bytes:
        parsed = pull_quic_transport_parameters(Buffer(data=parameters))
        for name, value in self.changes.items():
            setattr(parsed, name, value)
        buffer = Buffer(capacity=4_096)
        push_quic_transport_parameters(buffer, parsed)
        return buffer.data


def appended(number: int, value: bytes) -> Tamper:
    return lambda parameters: parameters + varint(number, len(value)) + value


def changed(**changes: object) -> Tamper:
    assert all(hasattr(QuicTransportParameters(), name) for name in changes)
    return _Changed(changes)


BAD_PARAMETERS: dict[str, Tamper] = {
    "no initial_source_connection_id": changed(initial_source_connection_id=None),
    "another initial_source_connection_id": changed(initial_source_connection_id=b"\x09" * 8),
    "original_destination_connection_id": changed(original_destination_connection_id=b"\x09" * 8),
    "retry_source_connection_id": changed(retry_source_connection_id=b"\x09" * 8),
    "stateless_reset_token": changed(stateless_reset_token=b"\x09" * 16),
    "preferred_address": appended(0x0D, bytes(24) + b"\x04abcd" + bytes(16)),
    "max_udp_payload_size below 1200": changed(max_udp_payload_size=1_199),
    "ack_delay_exponent above 20": changed(ack_delay_exponent=21),
    "max_ack_delay of 2^14": changed(max_ack_delay=1 << 14),
    "active_connection_id_limit below 2": changed(active_connection_id_limit=1),
    "initial_max_streams_bidi above 2^60": changed(initial_max_streams_bidi=(1 << 60) + 1),
    "initial_max_streams_uni above 2^60": changed(initial_max_streams_uni=(1 << 60) + 1),
    "a parameter twice": appended(0x01, varint(10)),
    "a parameter cut short": lambda parameters: parameters[:-1],
    "disable_active_migration with a value": appended(0x0C, b"\x00"),
}


# What aioquic itself lets pass, or refuses with another code.
LENIENT = {
    "a parameter twice",
    "ACK of what was never sent",
    "a second final size",
    "bytes beyond the final size",
    "a reset that contradicts the final size",
    "NEW_CONNECTION_ID that retires itself",
}


def faults(names: Iterable[str]) -> list[Any]:
    """Each as a parameter; some only for the default engine."""
    mark = pytest.mark.rust_only("aioquic is more lenient, or says it otherwise")
    return [pytest.param(name, marks=mark if name in LENIENT else ()) for name in names]


@pytest.mark.parametrize("fault", faults(BAD_PARAMETERS))
async def test_transport_parameters_that_break_a_rule(
    acceptor: Endpoint, identities: list[Identity], fault: str
) -> None:
    """RFC 9000, sections 7.3, 7.4 and 18.2."""
    async with Wild(identities[1], acceptor.address, parameters=BAD_PARAMETERS[fault]) as wild:
        assert (await wild.told()).error_code == TRANSPORT_PARAMETER
    refused_only(acceptor, RefusalReason.TLS_FAILURE)


async def test_a_client_hello_without_transport_parameters(
    acceptor: Endpoint, identities: list[Identity]
) -> None:
    """RFC 9001, section 8.2."""
    async with Wild(identities[1], acceptor.address, parameters=lambda _: None) as wild:
        assert (await wild.told()).error_code == TLS_ALERT + MISSING_EXTENSION
    refused_only(acceptor, RefusalReason.TLS_FAILURE)


@pytest.mark.parametrize("alpn", [[], ["h3"], ["stoq/2"]], ids=["none", "h3", "stoq/2"])
async def test_no_protocol_in_common(
    acceptor: Endpoint, identities: list[Identity], alpn: list[str]
) -> None:
    """RFC 9001, section 8.1."""
    async with Wild(identities[1], acceptor.address, alpn=alpn) as wild:
        assert (await wild.told()).error_code == TLS_ALERT + NO_APPLICATION_PROTOCOL
    refused_only(acceptor, RefusalReason.OTHER_PROTOCOL)


# --- Handshake packets


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (stream(0), PROTOCOL_VIOLATION),
        (varint(QuicFrameType.MAX_DATA, 1), PROTOCOL_VIOLATION),
        (varint(QuicFrameType.HANDSHAKE_DONE), PROTOCOL_VIOLATION),
        (new_connection_id(sequence=1, retire=0), PROTOCOL_VIOLATION),
        (varint(UNKNOWN_FRAME), FRAME_ENCODING),
    ],
    ids=["STREAM", "MAX_DATA", "HANDSHAKE_DONE", "NEW_CONNECTION_ID", "unknown frame"],
)
async def test_a_frame_that_no_handshake_packet_may_carry(
    acceptor: Endpoint, identities: list[Identity], frames: bytes, code: int
) -> None:
    async with Wild(identities[1], acceptor.address) as wild:
        await wild.has_handshake_keys()
        await wild.send(Epoch.HANDSHAKE, frames)
        assert (await wild.told(talk=False)).error_code == code
    refused_only(acceptor, RefusalReason.TLS_FAILURE)


@pytest.mark.parametrize(
    ("message", "alert"),
    [
        (b"\x14\x00\x00\x20" + bytes(32), UNEXPECTED_MESSAGE),
        (b"\x05\x00\x00\x00", UNEXPECTED_MESSAGE),
        (b"\x18\x00\x00\x01\x00", UNEXPECTED_MESSAGE),
        (b"\x0b\x00\x00\x03\x00\x00\x00\x01", DECODE_ERROR),
    ],
    ids=["Finished first", "EndOfEarlyData", "KeyUpdate", "Certificate of zero bytes"],
)
async def test_a_tls_message_that_does_not_belong_into_the_handshake(
    acceptor: Endpoint, identities: list[Identity], message: bytes, alert: int
) -> None:
    """RFC 9001, sections 6 and 8.3; RFC 8446, section 4."""
    async with Wild(identities[1], acceptor.address) as wild:
        await wild.has_handshake_keys()
        frame = varint(QuicFrameType.CRYPTO, 0, len(message)) + message
        await wild.send(Epoch.HANDSHAKE, frame)
        assert (await wild.told(talk=False)).error_code == TLS_ALERT + alert
    assert acceptor.connections == ()


# --- 1-RTT packets of an admitted peer

ONE_RTT_FAULTS: dict[str, tuple[bytes, int]] = {
    "unknown frame": (varint(UNKNOWN_FRAME), FRAME_ENCODING),
    "HANDSHAKE_DONE from a client": (varint(QuicFrameType.HANDSHAKE_DONE), PROTOCOL_VIOLATION),
    "NEW_TOKEN from a client": (varint(QuicFrameType.NEW_TOKEN, 1) + b"t", PROTOCOL_VIOLATION),
    "ACK of what was never sent": (
        varint(QuicFrameType.ACK, 1 << 40, 0, 0, 0),
        PROTOCOL_VIOLATION,
    ),
    "ACK below zero": (varint(QuicFrameType.ACK, 1, 0, 0, 5), FRAME_ENCODING),
    "STREAM on our own one-way stream": (stream(ONE_WAY_OF_SERVER), STREAM_STATE),
    "STREAM on a stream we never opened": (stream(BIDIRECTIONAL_OF_SERVER), STREAM_STATE),
    "RESET_STREAM on our own one-way stream": (
        varint(QuicFrameType.RESET_STREAM, ONE_WAY_OF_SERVER, 0, 0),
        STREAM_STATE,
    ),
    "STOP_SENDING on a stream we cannot send on": (
        varint(QuicFrameType.STOP_SENDING, ONE_WAY_OF_CLIENT, 0),
        STREAM_STATE,
    ),
    "STOP_SENDING on a stream we never opened": (
        varint(QuicFrameType.STOP_SENDING, BIDIRECTIONAL_OF_SERVER, 0),
        STREAM_STATE,
    ),
    "MAX_STREAM_DATA on a stream we never opened": (
        varint(QuicFrameType.MAX_STREAM_DATA, BIDIRECTIONAL_OF_SERVER, 1),
        STREAM_STATE,
    ),
    "MAX_STREAM_DATA on a stream we cannot send on": (
        varint(QuicFrameType.MAX_STREAM_DATA, ONE_WAY_OF_CLIENT, 1),
        STREAM_STATE,
    ),
    "a stream beyond the limit": (stream(4 * 100_000), STREAM_LIMIT),
    "a one-way stream beyond the limit": (stream(4 * 100_000 + 2), STREAM_LIMIT),
    "bytes beyond the window of a stream": (
        varint(STREAM_WITH_OFFSET, BIDIRECTIONAL_OF_CLIENT, 1 << 40, 1) + b"x",
        FLOW_CONTROL,
    ),
    "RESET_STREAM beyond the window": (
        varint(QuicFrameType.RESET_STREAM, BIDIRECTIONAL_OF_CLIENT, 0, 1 << 40),
        FLOW_CONTROL,
    ),
    "a second final size": (
        varint(STREAM_WITH_END, BIDIRECTIONAL_OF_CLIENT, 4)
        + b"four"
        + varint(STREAM_WITH_END, BIDIRECTIONAL_OF_CLIENT, 5)
        + b"fives",
        FINAL_SIZE,
    ),
    "bytes beyond the final size": (
        varint(STREAM_WITH_END, BIDIRECTIONAL_OF_CLIENT, 4)
        + b"four"
        + varint(STREAM_WITH_OFFSET, BIDIRECTIONAL_OF_CLIENT, 4, 1)
        + b"x",
        FINAL_SIZE,
    ),
    "a reset that contradicts the final size": (
        varint(STREAM_WITH_END, BIDIRECTIONAL_OF_CLIENT, 4)
        + b"four"
        + varint(QuicFrameType.RESET_STREAM, BIDIRECTIONAL_OF_CLIENT, 0, 3),
        FINAL_SIZE,
    ),
    "MAX_STREAMS above 2^60": (
        varint(QuicFrameType.MAX_STREAMS_BIDI, (1 << 60) + 1),
        FRAME_ENCODING,
    ),
    "STREAMS_BLOCKED above 2^60": (
        varint(QuicFrameType.STREAMS_BLOCKED_BIDI, (1 << 60) + 1),
        FRAME_ENCODING,
    ),
    "NEW_CONNECTION_ID that retires itself": (
        new_connection_id(sequence=10, retire=11),
        FRAME_ENCODING,
    ),
    "NEW_CONNECTION_ID without an id": (
        new_connection_id(sequence=10, retire=0, size=0),
        FRAME_ENCODING,
    ),
    "NEW_CONNECTION_ID of 21 bytes": (
        new_connection_id(sequence=10, retire=0, size=21),
        FRAME_ENCODING,
    ),
    "RETIRE_CONNECTION_ID of one never made": (
        varint(QuicFrameType.RETIRE_CONNECTION_ID, 1_000_000),
        PROTOCOL_VIOLATION,
    ),
    "a STREAM frame cut short": (varint(STREAM, 4, 100) + b"x", FRAME_ENCODING),
    "CRYPTO far ahead": (varint(QuicFrameType.CRYPTO, 1 << 24, 1) + b"x", CRYPTO_BUFFER),
}


@pytest.mark.parametrize("fault", faults(ONE_RTT_FAULTS))
async def test_an_admitted_peer_breaks_a_rule(
    acceptor: Endpoint, identities: list[Identity], fault: str
) -> None:
    frames, code = ONE_RTT_FAULTS[fault]
    async with Wild(identities[1], acceptor.address) as wild:
        connection = await admitted(wild, acceptor)
        await wild.send(Epoch.ONE_RTT, frames)
        assert (await wild.told()).error_code == code
    await connection.closed.wait()
    assert connection.closure is not None
    assert connection.closure.cause is Cause.TRANSPORT
    assert connection.closure.detail
    assert acceptor.connections == ()


async def test_reserved_bits_of_a_short_header(
    acceptor: Endpoint, identities: list[Identity]
) -> None:
    """RFC 9000, section 17.3.1."""
    async with Wild(identities[1], acceptor.address) as wild:
        await admitted(wild, acceptor)
        await wild.send(Epoch.ONE_RTT, varint(QuicFrameType.PING), reserved=SHORT_RESERVED)
        assert (await wild.told()).error_code == PROTOCOL_VIOLATION


@pytest.mark.parametrize(
    "message",
    [
        b"\x18\x00\x00\x01\x00",
        b"\x05\x00\x00\x00",
        b"\x14\x00\x00\x20" + bytes(32),
        b"\xff\x00\x00\x00",
    ],
    ids=["KeyUpdate", "EndOfEarlyData", "Finished again", "garbage"],
)
async def test_a_tls_message_that_does_not_belong_after_the_handshake(
    acceptor: Endpoint, identities: list[Identity], message: bytes
) -> None:
    """RFC 9001, section 6: QUIC has its own key update, and TLS messages of it are errors."""
    async with Wild(identities[1], acceptor.address) as wild:
        connection = await admitted(wild, acceptor)
        frame = varint(QuicFrameType.CRYPTO, 0, len(message)) + message
        await wild.send(Epoch.ONE_RTT, frame)
        code = (await wild.told()).error_code
    assert code in (TLS_ALERT + UNEXPECTED_MESSAGE, TLS_ALERT + DECODE_ERROR)
    await connection.closed.wait()


@pytest.mark.rust_only("aioquic ends with another code, or none")
async def test_a_rule_breaker_disturbs_nobody_else(
    start: Start, acceptor: Endpoint, identities: list[Identity]
) -> None:
    dialler = await start(identities[2])
    ours = await dialler.dial(acceptor.address, acceptor.identity.node_id)
    theirs = await acceptor.accept()
    for frames, _ in list(ONE_RTT_FAULTS.values())[:5]:
        async with Wild(identities[1], acceptor.address) as wild:
            await admitted(wild, acceptor)
            await wild.send(Epoch.ONE_RTT, frames)
            await wild.told()
    stream_to = await ours.open_uni()
    await stream_to.send_last(b"still here")
    assert await (await theirs.accept_uni()).receive_some() == b"still here"


@pytest.mark.parametrize("suite", SUITES, ids=lambda suite: suite.name)
async def test_the_same_client_is_welcome_when_it_keeps_the_rules(
    acceptor: Endpoint, identities: list[Identity], suite: CipherSuite
) -> None:
    """Otherwise every refusal above might have another reason."""
    async with Wild(identities[1], acceptor.address, suites=[suite]) as wild:
        connection = await admitted(wild, acceptor)
        wild.quic.send_stream_data(4, b"\x00hello", end_stream=True)
        wild.quic.request_key_update()
        await wild.flush()
        incoming = await connection.accept_stream()
        assert await incoming.receive_some() == b"hello"
    assert connection.closure is None
    assert not any(acceptor.statistics().refused_total.values())
