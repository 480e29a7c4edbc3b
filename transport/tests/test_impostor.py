"""What a dialler makes of packets from somebody who sees its first ones but holds no key.

Version Negotiation and Retry are not authenticated, and the keys of Initial packets are public
(RFC 9000, section 21; RFC 9001, section 5.2): a forged one may cost a connection attempt at most.
"""

import socket

import pytest
import trio
from aioquic._buffer import Buffer
from aioquic.quic.crypto import CryptoPair
from aioquic.quic.packet import (
    QuicFrameType,
    QuicHeader,
    QuicPacketType,
    encode_quic_retry,
    encode_quic_version_negotiation,
    pull_quic_header,
)

from transport import Identity, RefusalReason
from transport.errors import DialFailed
from transport.tests.conftest import Start
from transport.tests.wild import RawBuilder, varint

VERSION = 1
UNKNOWN_VERSION = 0x1A2A3A4A
OUR_NAME = b"\x05" * 8
TOKEN = b"proof"


class Impostor:
    """A socket where a node was expected."""

    def __init__(self) -> None:
        self._channel = trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        self.heard: list[QuicHeader] = []

    async def run(self, answers: list[str], task_status: trio.TaskStatus[str]) -> None:
        """Answer the dialler's first packet with these, and note all headers."""
        await self._channel.bind(("::1", 0))
        task_status.started(f"[::1]:{self._channel.getsockname()[1]}")
        with self._channel:
            while True:
                data, source = await self._channel.recvfrom(65_536)
                header = pull_quic_header(Buffer(data=data), host_cid_length=8)
                self.heard.append(header)
                while answers:
                    await self._channel.sendto(forged(answers.pop(0), header), source)


def forged(answer: str, first: QuicHeader) -> bytes:
    ours, theirs = first.destination_cid, first.source_cid
    match answer:
        case "versions that nobody speaks":
            return encode_quic_version_negotiation(ours, theirs, [UNKNOWN_VERSION])
        case "a list with the version that was dialled":
            return encode_quic_version_negotiation(ours, theirs, [UNKNOWN_VERSION, VERSION])
        case "Retry":
            return encode_quic_retry(VERSION, OUR_NAME, theirs, ours, TOKEN)
        case "Retry with a broken seal":
            sealed = encode_quic_retry(VERSION, OUR_NAME, theirs, ours, TOKEN)
            return sealed[:-1] + bytes([sealed[-1] ^ 1])
        case "Retry without a token":
            return encode_quic_retry(VERSION, OUR_NAME, theirs, ours, b"")
        case "a short header with the right name":
            return b"\x40" + theirs + bytes(40)
        case "a forbidden frame":
            return initial(first, varint(QuicFrameType.HANDSHAKE_DONE))
        case "an unknown frame":
            return initial(first, varint(0x21))
        case "a broken ServerHello":
            garbage = b"\x02\x00\x00\x04abcd"
            return initial(first, varint(QuicFrameType.CRYPTO, 0, len(garbage)) + garbage)
        case "a close":
            return initial(first, varint(QuicFrameType.TRANSPORT_CLOSE, 2, 0, 0))
    raise AssertionError(answer)


def initial(first: QuicHeader, frames: bytes) -> bytes:
    """A server's Initial packet, under keys that whoever saw the dialler's can derive."""
    keys = CryptoPair()
    keys.setup_initial(cid=first.destination_cid, is_client=False, version=VERSION)
    builder = RawBuilder(
        host_cid=OUR_NAME,
        peer_cid=first.source_cid,
        version=VERSION,
        is_client=False,
        max_datagram_size=1_200,
    )
    builder.start_packet(QuicPacketType.INITIAL, keys)
    builder.push(frames)
    [datagram] = builder.flush()[0]
    return datagram


async def dialled(
    start: Start, nursery: trio.Nursery, identities: list[Identity], *answers: str
) -> tuple[RefusalReason | None, list[QuicHeader]]:
    """Why the dial failed, and what the dialler sent."""
    dialler = await start(identities[0], admission_timeout_s=0.4)
    impostor = Impostor()
    address = await nursery.start(impostor.run, list(answers))
    with trio.fail_after(10), pytest.raises(DialFailed) as failure:
        await dialler.dial(address, identities[1].node_id)
    refusal = failure.value.closure.refusal
    assert refusal is not None
    assert dialler.statistics().refused_total[refusal] == 1
    assert dialler.connections == ()
    return refusal, impostor.heard


async def test_a_node_that_speaks_other_versions_only(
    start: Start, nursery: trio.Nursery, identities: list[Identity]
) -> None:
    refusal, _ = await dialled(start, nursery, identities, "versions that nobody speaks")
    assert refusal is RefusalReason.OTHER_QUIC_VERSION


@pytest.mark.parametrize(
    "answer",
    [
        "a list with the version that was dialled",
        "Retry with a broken seal",
        "Retry without a token",
        "a short header with the right name",
    ],
)
async def test_a_forged_packet_that_must_be_ignored(
    start: Start, nursery: trio.Nursery, identities: list[Identity], answer: str
) -> None:
    """RFC 9000, sections 6.2 and 17.2.5.2: the dialler goes on as if nothing had come."""
    refusal, heard = await dialled(start, nursery, identities, answer)
    assert refusal is RefusalReason.HANDSHAKE_TIMEOUT
    assert len(heard) > 2  # both halves of the ClientHello, and then again
    assert {header.token for header in heard} == {b""}
    assert len({header.destination_cid for header in heard}) == 1


async def test_only_the_first_retry_counts(
    start: Start, nursery: trio.Nursery, identities: list[Identity]
) -> None:
    """RFC 9000, section 17.2.5.2."""
    refusal, heard = await dialled(start, nursery, identities, "Retry", "Retry with a broken seal")
    assert refusal is RefusalReason.HANDSHAKE_TIMEOUT
    assert heard[0].token == b""
    assert (heard[-1].token, heard[-1].destination_cid) == (TOKEN, OUR_NAME)


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("a forbidden frame", RefusalReason.TLS_FAILURE),
        ("an unknown frame", RefusalReason.TLS_FAILURE),
        ("a broken ServerHello", RefusalReason.TLS_FAILURE),
        ("a close", RefusalReason.REFUSED_BY_PEER),
    ],
)
async def test_an_initial_packet_that_ends_the_attempt(
    start: Start,
    nursery: trio.Nursery,
    identities: list[Identity],
    answer: str,
    reason: RefusalReason,
) -> None:
    refusal, _ = await dialled(start, nursery, identities, answer)
    assert refusal is reason
