"""Control frames after admission: round trips, seen addresses; keys, sockets, priorities."""

import pytest
import trio

from transport import CloseReason, Connection, Identity
from transport.core.events import EventKind
from transport.core.frames import ControlType, decode_observed, encode_observed
from transport.core.rates import Bucket
from transport.errors import AddressInvalid, ConnectionEnded, MalformedFrame, PortInUse
from transport.limits import CONTROL_FRAMES_AT_ONCE_MAX, PINGS_OUTSTANDING_MAX
from transport.tests.adversary import Adversary
from transport.tests.conftest import Start, pair


async def until_observed(connection: Connection, address: str) -> None:
    with trio.fail_after(10):
        while connection.observed_address != address:
            await trio.lowlevel.checkpoint()


def test_an_observed_address_survives_the_wire_without_its_zone() -> None:
    assert decode_observed(encode_observed("[::1]:9292")) == "[::1]:9292"
    assert decode_observed(encode_observed("[fe80::1%3]:65535")) == "[fe80::1]:65535"
    assert encode_observed("[2001:db8::2]:258").hex() == "20010db80000000000000000000000020102"


@pytest.mark.parametrize("size", [0, 17, 19])
def test_an_observed_of_another_size_is_malformed(size: int) -> None:
    with pytest.raises(MalformedFrame):
        decode_observed(bytes(size))


def test_a_bucket_gives_what_it_holds_and_what_time_adds() -> None:
    bucket = Bucket(per_s_max=10, at_once_max=2)
    assert [bucket.take(5.0) for _ in range(3)] == [True, True, False]
    assert bucket.wait_s(5.0) == pytest.approx(0.1)
    assert bucket.take(5.11)
    assert not bucket.take(5.12)
    assert [bucket.take(99.0) for _ in range(3)] == [True, True, False]


async def test_both_ends_learn_where_the_other_sees_them(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    await until_observed(ours, ours.endpoint.address)
    await until_observed(theirs, theirs.endpoint.address)


async def test_a_ping_takes_time_and_many_at_once_are_answered(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    times: list[float] = []

    async def ping() -> None:
        times.append(await ours.ping())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(2 * PINGS_OUTSTANDING_MAX):
                nursery.start_soon(ping)
        assert 0.0 < await theirs.ping() < 5.0
    assert len(times) == 2 * PINGS_OUTSTANDING_MAX
    assert all(0.0 < rtt_s < 5.0 for rtt_s in times)


async def test_a_ping_given_up_leaves_the_connection_alone(
    start: Start, identities: list[Identity]
) -> None:
    ours, _ = await pair(start, identities)
    with trio.CancelScope() as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ours.ping)
            await trio.lowlevel.checkpoint()
            await trio.lowlevel.checkpoint()
            scope.cancel()
    with trio.fail_after(10):
        assert await ours.ping() > 0.0
    assert ours.closure is None


async def test_a_ping_ends_with_its_connection(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)

    async def ping_on() -> None:
        while True:
            await ours.ping()

    theirs.close_now(CloseReason.UNUSED)
    with trio.fail_after(10), pytest.raises(ConnectionEnded):
        await ping_on()


@pytest.mark.parametrize(
    ("frame_type", "body"),
    [
        (ControlType.PONG, bytes(8)),
        (ControlType.PING, bytes(7)),
        (ControlType.OBSERVED, bytes(17)),
        (ControlType.HELLO, b""),
        (ControlType.READY, b""),
        (99, b""),
    ],
)
async def test_a_control_frame_against_the_rules_ends_the_connection(
    start: Start, identities: list[Identity], frame_type: int, body: bytes
) -> None:
    node = await start(identities[0])
    peer = Adversary(identities[1])
    handle = await peer.admitted(node.address, identities[0].node_id)
    with trio.fail_after(10):
        connection = await node.accept()
        peer.say(handle, frame_type, body)
        await connection.closed.wait()
    assert connection.closure is not None
    assert connection.closure.reason is CloseReason.PROTOCOL_VIOLATION


async def test_a_flood_of_pings_ends_the_connection_and_a_few_do_not(
    start: Start, identities: list[Identity]
) -> None:
    node = await start(identities[0])
    peer = Adversary(identities[1])
    handle = await peer.admitted(node.address, identities[0].node_id)
    with trio.fail_after(10):
        connection = await node.accept()
        peer.say(handle, ControlType.PING, b"12345678")
        while (await peer.event(EventKind.FRAME))[3] != ControlType.PONG:
            pass
        assert connection.closure is None
        for _ in range(CONTROL_FRAMES_AT_ONCE_MAX + 100):
            peer.say(handle, ControlType.PING, bytes(8))
        await connection.closed.wait()
    assert connection.closure is not None
    assert connection.closure.detail == "control frames over the rate"


async def test_a_node_that_moves_keeps_its_connections_and_its_peers_follow(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    before = theirs.remote_address
    await until_observed(ours, before)
    ours.endpoint.rebind("[::1]:0")
    assert ours.endpoint.address != before
    with trio.fail_after(10):
        assert await ours.ping() > 0.0
        while theirs.remote_address == before:
            await trio.lowlevel.checkpoint()
    assert theirs.remote_address == ours.endpoint.address
    await until_observed(ours, ours.endpoint.address)
    assert ours.closure is None


async def test_a_node_that_cannot_move_stays_where_it_is(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    before = ours.endpoint.address
    with pytest.raises(PortInUse):
        ours.endpoint.rebind(theirs.endpoint.address)
    with pytest.raises(AddressInvalid):
        ours.endpoint.rebind("127.0.0.1:0")
    assert ours.endpoint.address == before
    with trio.fail_after(10):
        assert await ours.ping() > 0.0


async def test_keys_are_changed_under_way_and_counted(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    with trio.fail_after(10):
        for number in range(1, 4):
            # Nothing happens before the peer has shown that it knows the last keys.
            while ours.statistics().key_updates < number:
                ours.update_key()
                await ours.ping()
        assert await theirs.ping() > 0.0
    assert ours.statistics().key_updates == 3
    ours.close_now(CloseReason.UNUSED)
    with pytest.raises(ConnectionEnded):
        ours.update_key()


async def test_statistics_name_what_the_connection_rests_on(
    start: Start, identities: list[Identity]
) -> None:
    ours, _ = await pair(start, identities)
    await ours.ping()
    statistics = ours.statistics()
    assert statistics.engine == ours.endpoint.config.engine
    assert statistics.key_exchange == "X25519MLKEM768"
    assert statistics.signature == "falconpadded512"
    assert not statistics.resumed
    assert 0.0 < statistics.rtt_min_s <= statistics.rtt_s + 1.0
    assert statistics.congestion_events == 0


async def test_bytes_are_received_into_the_callers_memory(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    sent = bytes(range(256)) * 400
    stream = await ours.open_stream()
    stream.set_priority(5)
    with pytest.raises(ValueError, match="a priority is from"):
        stream.set_priority(10)
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_last, sent)
            incoming = await theirs.accept_stream()
            received, buffer = bytearray(), bytearray(10_000)
            with pytest.raises(ValueError, match="an empty buffer"):
                await incoming.receive_into(bytearray())
            while size := await incoming.receive_into(buffer):
                received += buffer[:size]
            assert await incoming.receive_into(buffer) == 0
        incoming.abort()
        with pytest.raises(trio.ClosedResourceError):
            await incoming.receive_into(buffer)
    assert received == sent
