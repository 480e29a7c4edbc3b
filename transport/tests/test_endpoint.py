"""Two endpoints, end to end over real sockets: identity, channels, callbacks, closing."""

import contextlib
import os

import pytest
import trio
import trio.testing

from native.batches import Batch
from native.errors import KeyInvalid
from native.keys import SecretKey
from native.values import Algorithm
from transport import (
    ChannelKind,
    CloseReason,
    Connection,
    Endpoint,
    Identity,
    RefusalReason,
)
from transport.errors import (
    AddressInvalid,
    ChannelFull,
    ConnectionEnded,
    EndpointStopped,
    FrameTooLong,
    PortInUse,
)
from transport.tests.conftest import Start, offer, pair


async def test_both_ends_know_each_other(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)
    assert (ours.peer, theirs.peer) == (identities[1].node_id, identities[0].node_id)
    assert ours.public_key.spki == identities[1].public_key.spki
    assert ours.dialled
    assert not theirs.dialled
    assert ours.hello.chain_name == "test"
    label = b"EXPORTER-test"
    assert ours.export_keying_material(label) == theirs.export_keying_material(label)
    assert ours.statistics().mtu_bytes >= 1_200


async def test_hello_carries_what_the_layers_above_say(
    start: Start, identities: list[Identity]
) -> None:
    said = offer(roles=("validator",), capabilities=("a", "b"), context=b"epoch", credential=b"c")
    dialler = await start(identities[0], hello=said)
    acceptor = await start(identities[1])
    await dialler.dial(acceptor.address, identities[1].node_id)
    hello = (await acceptor.accept()).hello
    assert (hello.roles, hello.capabilities) == (("validator",), ("a", "b"))
    assert (hello.context, hello.credential) == (b"epoch", b"c")


async def test_keys_of_both_sizes_connect(start: Start, identities: list[Identity]) -> None:
    large = Identity(SecretKey.generate(Algorithm.FALCON_1024))
    first, second = await start(large), await start(identities[0])
    connection = await second.dial(first.address, large.node_id)
    assert connection.public_key.algorithm is Algorithm.FALCON_1024
    other_end = await first.accept()
    await connection.close()
    await other_end.closed.wait()
    assert (await first.dial(second.address, identities[0].node_id)).dialled


@pytest.mark.parametrize("algorithm", [Algorithm.FALCON_1024, Algorithm.ML_DSA_65])
async def test_every_algorithm_dials_and_accepts(
    start: Start, identities: list[Identity], algorithm: Algorithm
) -> None:
    other = Identity(SecretKey.generate(algorithm))
    ours, theirs = await pair(start, [other, identities[0]])
    assert theirs.public_key.algorithm is algorithm
    assert (await pair(start, [identities[0], other]))[0].public_key.algorithm is algorithm
    assert ours.engine.session(ours.handle) == (0x11EC, 0xFEDC, 0, 0)


def test_a_key_that_authenticates_no_node_is_no_identity() -> None:
    with pytest.raises(KeyInvalid, match="ml-dsa-44"):
        Identity(SecretKey.generate(Algorithm.ML_DSA_44))


async def test_a_second_connection_resumes_the_session_with_the_same_peer(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    resumed = []
    for _ in range(3):
        ours = await dialler.dial(acceptor.address, identities[1].node_id)
        theirs = await acceptor.accept()
        assert (ours.peer, theirs.peer) == (identities[1].node_id, identities[0].node_id)
        sessions = [end.engine.session(end.handle) for end in (ours, theirs)]
        assert sessions[0] == sessions[1]
        assert sessions[0] is not None
        resumed.append(sessions[0][2])
        await ours.close()
        await theirs.closed.wait()
    assert resumed == [0, 1, 1]
    assert acceptor.statistics().refused_total[RefusalReason.REPLAYED_TICKET] == 0


async def test_a_restarted_acceptor_falls_back_to_a_full_handshake_and_counts_it(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    ours = await dialler.dial(acceptor.address, identities[1].node_id)
    await ours.close()
    again = await start(identities[1])
    ours = await dialler.dial(again.address, identities[1].node_id)
    session = ours.engine.session(ours.handle)
    assert session is not None
    assert session[2] == 0
    assert again.statistics().refused_total[RefusalReason.REPLAYED_TICKET] == 1


async def test_without_resumption_every_handshake_is_full(
    start: Start, identities: list[Identity]
) -> None:
    dialler = await start(identities[0])
    acceptor = await start(identities[1], resumption=False)
    for _ in range(2):
        ours = await dialler.dial(acceptor.address, identities[1].node_id)
        session = ours.engine.session(ours.handle)
        assert session is not None
        assert session[2] == 0
        await ours.close()


async def test_frames_arrive_whole_and_in_order(start: Start, identities: list[Identity]) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    seen: list[tuple[ChannelKind, int, bytes]] = []
    done = trio.Event()
    acceptor.on_frame(lambda _, kind, frame_type, body: seen.append((kind, frame_type, body)))
    acceptor.on_turn(lambda: len(seen) >= 4 and done.set())
    connection = await dialler.dial(acceptor.address, identities[1].node_id)
    votes = connection.channel(ChannelKind.VOTES)
    votes.send_nowait(1, b"a", b"b")
    votes.send_nowait(2)
    votes.send_nowait(3, b"x" * 3_000_000, memoryview(b"y"))
    connection.channel(ChannelKind.BULK).send_nowait(4, bytearray(b"bulk"))
    await done.wait()
    assert [frame for frame in seen if frame[0] is ChannelKind.VOTES] == [
        (ChannelKind.VOTES, 1, b"ab"),
        (ChannelKind.VOTES, 2, b""),
        (ChannelKind.VOTES, 3, b"x" * 3_000_000 + b"y"),
    ]
    assert (ChannelKind.BULK, 4, b"bulk") in seen


async def test_frames_sent_in_one_turn_share_packets(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    seen: list[bytes] = []
    turns: list[int] = []
    done = trio.Event()
    acceptor.on_frame(lambda _connection, _kind, _type, body: seen.append(body))
    acceptor.on_turn(lambda: turns.append(len(seen)) or (len(seen) == 100 and done.set()))  # type: ignore[func-returns-value]
    connection = await dialler.dial(acceptor.address, identities[1].node_id)
    await trio.testing.wait_all_tasks_blocked(0.02)
    before = dialler.statistics().datagrams_sent_total
    for _ in range(100):
        connection.channel(ChannelKind.VOTES).send_nowait(1, b"x" * 100)
    await done.wait()
    assert dialler.statistics().datagrams_sent_total - before < 30
    assert len(turns) < 30


async def test_a_batch_travels_as_its_body(start: Start, identities: list[Identity]) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    seen: list[bytes] = []
    turn = trio.Event()
    acceptor.on_frame(lambda _connection, _kind, _type, body: seen.append(body))
    acceptor.on_turn(turn.set)
    connection = await dialler.dial(acceptor.address, identities[1].node_id)
    batch = Batch.of([b"one", b"two" * 3000])
    left_out = dialler.broadcast_nowait([connection], ChannelKind.BULK, 9, b"head", batch)
    await turn.wait()
    assert left_out == []
    assert seen == [b"head" + batch.body]


async def test_a_full_channel_refuses_and_recovers(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities, channel_queue_bytes_max=65_536)
    bulk = ours.channel(ChannelKind.BULK)
    sent = 0
    with contextlib.suppress(ChannelFull):
        while True:
            bulk.send_nowait(1, bytes(50_000))
            sent += 1
    assert 0 < bulk.queued_bytes <= 65_536
    assert ours.endpoint.broadcast_nowait([ours], ChannelKind.BULK, 1, bytes(50_000)) == [ours]
    received = 0
    done = trio.Event()

    def count(*_: object) -> None:
        nonlocal received
        received += 1
        if received == sent:
            done.set()

    theirs.endpoint.on_frame(count)
    with trio.fail_after(10):
        await done.wait()
    assert bulk.queued_bytes == 0


async def test_frames_over_the_limit_are_not_sent(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities, frame_size_bytes_max=1_024)
    with pytest.raises(FrameTooLong):
        ours.channel(ChannelKind.VOTES).send_nowait(1, bytes(1_024))
    ours.channel(ChannelKind.VOTES).send_nowait(1, bytes(1_023))
    assert theirs.closure is None


async def test_a_close_carries_its_reason_after_what_was_sent(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    received: list[int] = []
    theirs.endpoint.on_frame(lambda *frame: received.append(len(frame[3])))
    ours.channel(ChannelKind.BULK).send_nowait(1, bytes(8_000_000))
    await ours.close(CloseReason.UNUSED, "idle")
    await theirs.closed.wait()
    assert received == [8_000_000]
    assert theirs.close_reason is not None
    assert (theirs.close_reason.reason, theirs.close_reason.detail) == (CloseReason.UNUSED, "idle")
    with pytest.raises(ConnectionEnded, match="idle"):
        theirs.channel(ChannelKind.VOTES).send_nowait(1)


async def test_callbacks_tell_start_and_end(start: Start, identities: list[Identity]) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    told: list[tuple[str, Connection]] = []
    for endpoint in (dialler, acceptor):
        endpoint.on_connection(lambda connection: told.append(("open", connection)))
        endpoint.on_closed(lambda connection: told.append(("closed", connection)))
    ours = await dialler.dial(acceptor.address, identities[1].node_id)
    theirs = await acceptor.accept()
    assert dialler.peer(identities[1].node_id) is ours
    await ours.close()
    await theirs.closed.wait()
    assert sorted(kind for kind, _ in told) == ["closed", "closed", "open", "open"]
    assert told.index(("open", ours)) < told.index(("closed", ours))
    assert dialler.peer(identities[1].node_id) is None


async def test_a_foreign_descriptor_wakes_the_same_wait(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = await start(identities[0])
    reader, writer = os.pipe()
    try:
        got = trio.Event()
        turn = trio.Event()

        def read() -> None:
            assert os.read(reader, 16) == b"x"
            got.set()

        endpoint.watch(reader, read)
        endpoint.on_turn(turn.set)
        os.write(writer, b"x")
        await got.wait()
        await turn.wait()
        endpoint.unwatch(reader)
        os.write(writer, b"y")
        await trio.testing.wait_all_tasks_blocked(0.01)
    finally:
        os.close(reader)
        os.close(writer)


async def test_a_taken_port_is_named(start: Start, identities: list[Identity]) -> None:
    first = await start(identities[0])
    second = Endpoint(identities[1], listen=first.address, hello=offer(), verifier=first.verifier)
    with pytest.raises(PortInUse) as failure:
        await second.run()
    assert first.address in failure.value.hint


async def test_a_stopped_endpoint_says_goodbye(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)
    await ours.endpoint.close(CloseReason.SHUTDOWN, "maintenance")
    await theirs.closed.wait()
    assert str(theirs.closure) == "shutdown (by the peer): maintenance"
    with pytest.raises(EndpointStopped):
        await ours.endpoint.dial(theirs.endpoint.address, theirs.endpoint.identity.node_id)
    with pytest.raises(EndpointStopped):
        await ours.endpoint.accept()


async def test_a_dial_that_is_cancelled_leaves_nothing(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = await start(identities[0])
    with trio.move_on_after(0.01):
        await endpoint.dial("[::1]:1", identities[1].node_id)
    assert endpoint.statistics().handshakes == 0


async def test_every_task_that_accepts_gets_its_connection_and_hears_of_the_end(
    start: Start, identities: list[Identity]
) -> None:
    acceptor = await start(identities[0])
    accepted: list[Connection] = []
    stopped = 0

    async def accept() -> None:
        nonlocal stopped
        try:
            accepted.append(await acceptor.accept())
        except EndpointStopped:
            stopped += 1

    with trio.fail_after(10):
        async with trio.open_nursery() as tasks:
            for _ in range(4):
                tasks.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked()
            for identity in identities[1:3]:
                await (await start(identity)).dial(acceptor.address, identities[0].node_id)
            while len(accepted) < 2:
                await trio.lowlevel.checkpoint()
            await acceptor.close()
    assert stopped == 2


async def test_a_move_to_an_address_that_is_none_is_refused(
    start: Start, identities: list[Identity]
) -> None:
    endpoint = await start(identities[0])
    before = endpoint.address
    with pytest.raises(AddressInvalid):
        endpoint.rebind("[zzz]:1")
    assert endpoint.address == before


async def test_a_cancelled_accept_leaves_the_connection_to_the_next(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    await dialler.dial(acceptor.address, identities[1].node_id)
    with trio.fail_after(5):
        while not acceptor.connections:
            await trio.lowlevel.checkpoint()
        with trio.CancelScope() as scope:
            scope.cancel()
            await acceptor.accept()
        assert scope.cancelled_caught
        assert await acceptor.accept() is acceptor.connections[0]


@pytest.mark.parametrize("engine", ["rust", "aioquic"])
async def test_a_closed_endpoint_gives_its_port_back_at_once(
    start: Start, identities: list[Identity], engine: str
) -> None:
    """Whoever still holds the endpoint, or one of its connections, does not hold the port."""
    ours, theirs = await pair(start, identities, engine=engine)
    stream = await theirs.open_stream()
    acceptor = theirs.endpoint
    address, sent = acceptor.address, acceptor.statistics().datagrams_sent_total
    await acceptor.close()
    again = await start(identities[1], listen=address, engine=engine)
    assert again.address == acceptor.address == address
    assert acceptor.statistics().datagrams_sent_total >= sent
    assert acceptor.statistics().receive_buffer_bytes > 0
    assert acceptor.connections == ()
    with pytest.raises(trio.BrokenResourceError):
        await stream.send_all(b"late")
    with pytest.raises(ConnectionEnded):
        await theirs.call("echo")
    assert theirs.statistics().packets_sent == 0
    with trio.fail_after(10):
        await ours.closed.wait()
        assert await ours.endpoint.dial(address, identities[1].node_id)
