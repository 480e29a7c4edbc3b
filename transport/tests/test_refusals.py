"""Whoever must not reach the application does not, and is counted with a reason."""

import dataclasses
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

import pytest
import trio
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.connection import QuicConnection
from aioquic.quic.events import ConnectionTerminated

from native.values import NodeId, PublicKey
from transport import (
    AcceptAll,
    CloseReason,
    Endpoint,
    Hello,
    Identity,
    RefusalReason,
    TransportConfig,
)
from transport.core.engine import Engine, EngineEvent
from transport.core.events import EventKind, StreamKind
from transport.core.frames import ControlType
from transport.core.hello import encode_hello
from transport.errors import AddressInvalid, DialFailed, PeerRefused
from transport.limits import HELLO_SIZE_BYTES_MAX
from transport.runtime.engines import make_engine
from transport.tests.adversary import Adversary
from transport.tests.conftest import ENGINE, Start, offer


def watched(endpoint: Endpoint) -> Endpoint:
    """Fail when anything of a peer reaches the application."""

    def reached(*_: object) -> None:
        pytest.fail("a refused peer reached the application")

    endpoint.on_connection(reached)
    endpoint.on_frame(reached)
    return endpoint


async def counted(endpoint: Endpoint, reason: RefusalReason, count: int = 1) -> None:
    """Wait until the refusal is counted, and see that nothing else is."""
    with trio.fail_after(10):
        while endpoint.statistics().refused_total[reason] < count:
            await trio.lowlevel.checkpoint()
    refused = {r: n for r, n in endpoint.statistics().refused_total.items() if n}
    assert refused == {reason: count}
    assert endpoint.connections == ()


def port_of(address: str) -> int:
    return int(address.rpartition(":")[2])


async def test_bytes_that_are_not_quic(start: Start, identities: list[Identity]) -> None:
    endpoint = watched(await start(identities[0]))
    target = ("::1", port_of(endpoint.address))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        for datagram in (b"GET / HTTP/1.1\r\n\r\n", b"\x00" * 1200, b"\x80" + b"\xff" * 1300):
            sender.sendto(datagram, target)
    await counted(endpoint, RefusalReason.NOT_QUIC, 3)


async def test_an_initial_packet_with_garbage_inside(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = watched(await start(identities[0]))
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as sender:
        head = b"\xc3\x00\x00\x00\x01\x08" + b"\x01" * 8 + b"\x00\x00\x44\x9e"
        sender.sendto(head + b"\xaa" * (1200 - len(head)), ("::1", port_of(endpoint.address)))
    await counted(endpoint, RefusalReason.BAD_INITIAL)


async def aioquic_dial(endpoint: Endpoint, alpn: str) -> ConnectionTerminated:
    """What a stock aioquic client, which offers classical groups only, is told."""
    client = QuicConnection(
        configuration=QuicConfiguration(
            is_client=True, alpn_protocols=[alpn], verify_mode=ssl.CERT_NONE, server_name="x"
        )
    )
    target = ("::1", port_of(endpoint.address))
    now = 0.0
    client.connect(target, now=now)
    with trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as channel, trio.fail_after(10):
        await channel.bind(("::1", 0))
        while True:
            for data, _ in client.datagrams_to_send(now=now):
                await channel.sendto(data, target)
            while event := client.next_event():
                if isinstance(event, ConnectionTerminated):
                    return event
            data, _ = await channel.recvfrom(65_536)
            client.receive_datagram(data, target, now=now)
            now = client.get_timer() or now  # a closed connection is reported when it has drained
            client.handle_timer(now=now)


async def test_a_classical_only_offer(start: Start, identities: list[Identity]) -> None:
    endpoint = watched(await start(identities[0]))
    told = await aioquic_dial(endpoint, "stoq/1")
    assert told.error_code == 0x128  # handshake_failure
    await counted(endpoint, RefusalReason.CLASSICAL_ONLY)


async def test_another_node_than_the_one_dialled(start: Start, identities: list[Identity]) -> None:
    dialler, acceptor = watched(await start(identities[0])), watched(await start(identities[1]))
    with pytest.raises(DialFailed) as failure:
        await dialler.dial(acceptor.address, identities[2].node_id)
    assert failure.value.closure.refusal is RefusalReason.WRONG_KEY
    assert "NodeId" in failure.value.hint
    await counted(dialler, RefusalReason.WRONG_KEY)
    await counted(acceptor, RefusalReason.REFUSED_BY_PEER)


async def test_another_chain_is_told_both_ids(start: Start, identities: list[Identity]) -> None:
    dialler = watched(await start(identities[0], hello=offer(chain_id=b"\x08" * 32)))
    acceptor = watched(await start(identities[1]))
    with pytest.raises(DialFailed) as failure:
        await dialler.dial(acceptor.address, identities[1].node_id)
    assert failure.value.closure.reason is CloseReason.OTHER_CHAIN
    assert "07" * 32 in str(failure.value)
    assert "08" * 32 in str(failure.value)
    await counted(acceptor, RefusalReason.OTHER_CHAIN)


class Refuse:
    """A verifier with a short list."""

    def verify_peer(self, node_id: NodeId, public_key: PublicKey, hello: Hello) -> None:
        assert public_key.node_id == node_id
        raise PeerRefused(f"not on the list of {hello.chain_name}")


async def test_a_peer_the_verifier_does_not_want(start: Start, identities: list[Identity]) -> None:
    dialler = watched(await start(identities[0]))
    acceptor = watched(await start(identities[1], verifier=Refuse()))
    with pytest.raises(DialFailed, match="not on the list of test"):
        await dialler.dial(acceptor.address, identities[1].node_id)
    await counted(acceptor, RefusalReason.NOT_ADMITTED)


async def test_an_acceptor_the_dialler_does_not_want(
    start: Start, identities: list[Identity]
) -> None:
    dialler = watched(await start(identities[0], verifier=Refuse()))
    acceptor = watched(await start(identities[1], verifier=AcceptAll()))
    with pytest.raises(DialFailed):
        await dialler.dial(acceptor.address, identities[1].node_id)
    await counted(dialler, RefusalReason.NOT_ADMITTED)


async def test_two_nodes_with_one_key(start: Start, identities: list[Identity]) -> None:
    first, second = watched(await start(identities[0])), watched(await start(identities[0]))
    with pytest.raises(DialFailed, match="same_key"):
        await first.dial(second.address, identities[0].node_id)
    other = Adversary(identities[0])
    await other.connect(second.address, identities[0].node_id)
    closed = await other.event(EventKind.CLOSED)
    assert closed[3] == CloseReason.SAME_KEY
    await counted(second, RefusalReason.SAME_KEY)


async def test_a_peer_that_never_says_hello(start: Start, identities: list[Identity]) -> None:
    endpoint = watched(await start(identities[0], admission_timeout_s=0.2))
    other = Adversary(identities[1])
    await other.connect(endpoint.address, identities[0].node_id)
    closed = await other.event(EventKind.CLOSED)
    assert closed[3] == CloseReason.HELLO_TIMEOUT
    await counted(endpoint, RefusalReason.HELLO_TIMEOUT)


async def test_a_peer_that_never_finishes_the_handshake(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = watched(await start(identities[0], admission_timeout_s=0.2))
    other = Adversary(identities[1])
    other.engine.connect(endpoint.address, identities[0].node_id)
    other.engine.flush()  # and then nothing
    await counted(endpoint, RefusalReason.HANDSHAKE_TIMEOUT)


def hello_with(**changes: object) -> bytes:
    return encode_hello(dataclasses.replace(Hello.of(offer(), bytes(16)), **changes))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frame_type", "body", "reason"),
    [
        (ControlType.HELLO, b"", RefusalReason.BAD_HELLO),
        (ControlType.HELLO, b"\xc1", RefusalReason.BAD_HELLO),
        (ControlType.HELLO, hello_with() + b"\x00", RefusalReason.BAD_HELLO),
        (ControlType.HELLO, hello_with(chain_id=b"short"), RefusalReason.BAD_HELLO),
        (ControlType.HELLO, hello_with(chain_name="x" * 65), RefusalReason.BAD_HELLO),
        (ControlType.HELLO, hello_with(chain_name="a\nb"), RefusalReason.BAD_HELLO),
        (ControlType.HELLO, hello_with(roles=("r",) * 33), RefusalReason.BAD_HELLO),
        (ControlType.HELLO, hello_with(context=bytes(1_025)), RefusalReason.BAD_HELLO),
        (ControlType.HELLO, hello_with(version=2), RefusalReason.OTHER_VERSION),
        (ControlType.READY, b"", RefusalReason.BAD_HELLO),
        (77, b"", RefusalReason.BAD_HELLO),
        (ControlType.HELLO, bytes(HELLO_SIZE_BYTES_MAX), RefusalReason.PROTOCOL_VIOLATION),
    ],
)
async def test_a_bad_hello(
    start: Start,
    identities: list[Identity],
    frame_type: int,
    body: bytes,
    reason: RefusalReason,
) -> None:
    endpoint = watched(await start(identities[0]))
    other = Adversary(identities[1])
    handle = await other.connect(endpoint.address, identities[0].node_id)
    other.say(handle, frame_type, body)
    closed = await other.event(EventKind.CLOSED)
    assert closed[4] != ""
    await counted(endpoint, reason)


class Late:
    """An engine whose turns come so late that a peer's goodbye is in the turn of its `first`."""

    def __init__(self, engine: Engine, first: EventKind) -> None:
        self._engine = engine
        self._first = first
        self._held: list[EngineEvent] = []
        self.holds = trio.Event()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self, budget: int) -> tuple[bool, list[EngineEvent]]:
        more, events = self._engine.step(budget)
        self._held += events
        kinds = {event[0] for event in self._held}
        if self._first in kinds and EventKind.CLOSED not in kinds:
            self.holds.set()
            return more, []
        events, self._held = self._held, []
        return more, events


@pytest.mark.parametrize("dials", [False, True])
async def test_a_peer_that_is_gone_when_it_is_greeted_ends_only_itself(
    nursery: trio.Nursery, identities: list[Identity], dials: bool
) -> None:
    first = EventKind.CONNECTED if dials else EventKind.FRAME
    made: list[Late] = []

    def late(identity: Identity, listen: str, config: TransportConfig) -> Engine:
        made.append(Late(make_engine(identity, listen, config), first))
        return cast("Engine", made[0])

    config = TransportConfig.model_validate({"engine": ENGINE})
    endpoint = Endpoint(
        identities[0],
        listen="[::1]:0",
        hello=offer(),
        verifier=AcceptAll(),
        config=config,
        engine_factory=late,
    )
    await nursery.start(endpoint.run)
    other = Adversary(identities[1])
    async with trio.open_nursery() as dialling:
        if dials:
            dialling.start_soon(refused_dial, endpoint, other.engine.address(), identities[1])
            handle = (await other.event(EventKind.CONNECTED))[1]
        else:
            handle = await other.connect(endpoint.address, identities[0].node_id)
            other.say(handle, ControlType.HELLO, hello_with())
        await made[0].holds.wait()
        other.engine.close(handle, CloseReason.UNUSED, "changed my mind")
        other.engine.flush()
        with trio.fail_after(10):
            while not endpoint.statistics().handshakes_ended_total:
                await trio.lowlevel.checkpoint()
    assert endpoint.connections == ()


async def test_a_peer_that_allows_no_stream_is_left(
    start: Start, identities: list[Identity], nursery: trio.Nursery
) -> None:
    endpoint = watched(await start(identities[0]))
    other = Adversary(identities[1], streams_max=0)
    nursery.start_soon(refused_dial, endpoint, other.engine.address(), identities[1])
    assert (await other.event(EventKind.CLOSED))[3] == CloseReason.BAD_HELLO
    await counted(endpoint, RefusalReason.BAD_HELLO)


async def refused_dial(endpoint: Endpoint, address: str, other: Identity) -> None:
    with pytest.raises(DialFailed):
        await endpoint.dial(address, other.node_id)


async def test_frames_before_hello_stay_outside(start: Start, identities: list[Identity]) -> None:
    endpoint = watched(await start(identities[0], admission_timeout_s=0.3))
    other = Adversary(identities[1])
    handle = await other.connect(endpoint.address, identities[0].node_id)
    other.engine.send(handle, StreamKind.VOTES, 1, b"vote")
    other.engine.send(handle, StreamKind.BULK, 1, b"body" * 1000)
    other.engine.open(handle, True, StreamKind.RPC)
    other.engine.flush()
    await other.event(EventKind.CLOSED)
    await counted(endpoint, RefusalReason.HELLO_TIMEOUT)


async def broken(
    start: Start, identities: list[Identity], misbehave: Callable[[Adversary, int], object]
) -> None:
    """An admitted peer that violates the protocol is cut off, and counted."""
    endpoint = await start(identities[0])
    other = Adversary(identities[1])
    handle = await other.admitted(endpoint.address, identities[0].node_id)
    connection = await endpoint.accept()
    misbehave(other, handle)
    other.engine.flush()
    closed = await other.event(EventKind.CLOSED)
    assert closed[3] == CloseReason.PROTOCOL_VIOLATION
    await connection.closed.wait()
    assert endpoint.connections == ()


async def test_a_frame_over_the_limit(start: Start, identities: list[Identity]) -> None:
    def misbehave(other: Adversary, handle: int) -> None:
        other.engine.send(handle, StreamKind.VOTES, 1, bytes(17 << 20))

    await broken(start, identities, misbehave)


@pytest.mark.parametrize(
    ("bidirectional", "kind"),
    [(True, 9), (False, 9), (True, StreamKind.VOTES), (False, StreamKind.RPC)],
)
async def test_a_stream_of_an_unknown_kind(
    start: Start, identities: list[Identity], bidirectional: bool, kind: int
) -> None:
    await broken(
        start, identities, lambda other, handle: other.engine.open(handle, bidirectional, kind)
    )


async def test_a_second_channel_of_one_kind(start: Start, identities: list[Identity]) -> None:
    def misbehave(other: Adversary, handle: int) -> None:
        for _ in range(2):
            other.engine.open(handle, False, StreamKind.BULK)

    await broken(start, identities, misbehave)


async def test_control_frames_after_hello(start: Start, identities: list[Identity]) -> None:
    await broken(start, identities, lambda other, handle: other.say(handle, 1, hello_with()))


async def test_more_connections_than_the_limit(start: Start, identities: list[Identity]) -> None:
    acceptor = await start(identities[0], connections_max=1)
    first, second = await start(identities[1]), watched(await start(identities[2]))
    await first.dial(acceptor.address, identities[0].node_id)
    with pytest.raises(DialFailed):
        await second.dial(acceptor.address, identities[0].node_id)
    assert acceptor.statistics().refused_total[RefusalReason.CONNECTIONS_FULL] >= 1


async def test_an_endpoint_that_only_dials_accepts_nobody(
    start: Start, identities: list[Identity]
) -> None:
    silent = watched(await start(identities[0], listen=None))
    dialler = watched(await start(identities[1]))
    target = silent.address.replace("[::]", "[::1]")
    with pytest.raises(DialFailed):
        await dialler.dial(target, identities[0].node_id)


async def test_more_handshakes_than_the_limit_must_prove_their_address(
    start: Start, identities: list[Identity]
) -> None:
    acceptor = await start(identities[0], handshakes_max=2, admission_timeout_s=30)
    idle = Adversary(identities[1])
    await idle.connect(acceptor.address, identities[0].node_id)  # half of the limit
    dialler = await start(identities[2])
    await dialler.dial(acceptor.address, identities[0].node_id)
    assert acceptor.statistics().retries_sent_total >= 1


@pytest.mark.parametrize(
    "address",
    ["127.0.0.1:9292", "[::ffff:127.0.0.1]:9292", "::1:9292", "[::1]", "[::1]:x", "localhost:1"],
)
async def test_addresses_that_are_not_ipv6(
    start: Start, identities: list[Identity], address: str
) -> None:
    with pytest.raises(AddressInvalid) as failure:
        await start(identities[0], listen=address)
    assert "[::1]:9292" in failure.value.hint
    endpoint = await start(identities[0])
    with pytest.raises(AddressInvalid):
        await endpoint.dial(address, identities[1].node_id)
