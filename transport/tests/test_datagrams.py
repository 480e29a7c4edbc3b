"""Datagrams between two endpoints: limits, queues, the end."""

import pytest
import trio

from transport import CloseReason, Identity
from transport.errors import (
    ConnectionEnded,
    DatagramQueueFull,
    DatagramTooLong,
)
from transport.tests.conftest import Start, pair


async def test_a_datagram_arrives_whole_up_to_the_size_of_a_packet(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    size = ours.datagram_bytes_max
    assert size is not None
    assert size > 1_000
    with trio.fail_after(10):
        for data in (b"", b"one", b"x" * 1_000):
            ours.send_datagram_nowait(data)
            assert await theirs.receive_datagram() == data
        await theirs.send_datagram(b"back")
        assert await ours.receive_datagram() == b"back"
    with pytest.raises(DatagramTooLong, match="2000 bytes"):
        ours.send_datagram_nowait(bytes(2_000))


async def test_a_sender_waits_for_room_or_is_told_that_there_is_none(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities, datagram_queue_bytes_max=65_536)

    def fill() -> None:
        for _ in range(100):
            ours.send_datagram_nowait(bytes(1_000))

    with pytest.raises(DatagramQueueFull):
        fill()
    received = 0
    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:

            async def send() -> None:
                for number in range(200):
                    await ours.send_datagram(number.to_bytes(2) + bytes(998))
                await ours.ping()
                nursery.cancel_scope.cancel()

            nursery.start_soon(send)
            while True:
                received += len(await theirs.receive_datagram())
    assert received > 100_000


async def test_datagrams_that_nobody_reads_make_room_for_later_ones(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities, datagram_queue_bytes_max=65_536)
    with trio.fail_after(10):
        for number in range(120):
            await ours.send_datagram(number.to_bytes(2) + bytes(998))
            if number % 10 == 9:
                await ours.ping()
        first = await theirs.receive_datagram()
    assert int.from_bytes(first[:2]) >= 120 - 66
    assert theirs.statistics().datagrams_dropped >= 50


async def test_what_came_before_the_end_is_read_and_then_the_end(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    with trio.fail_after(10):
        ours.send_datagram_nowait(b"last words")
        await ours.ping()
        await ours.close(CloseReason.UNUSED)
        await theirs.closed.wait()
        assert await theirs.receive_datagram() == b"last words"
        with pytest.raises(ConnectionEnded):
            await theirs.receive_datagram()
    with pytest.raises(ConnectionEnded):
        ours.send_datagram_nowait(b"too late")
    with pytest.raises(ConnectionEnded):
        await ours.send_datagram(b"too late")
    assert ours.datagram_bytes_max is None


async def test_waiting_for_a_datagram_ends_with_the_connection(
    start: Start, identities: list[Identity], nursery: trio.Nursery
) -> None:
    ours, theirs = await pair(start, identities)
    nursery.start_soon(ours.close)
    with trio.fail_after(10), pytest.raises(ConnectionEnded):
        await theirs.receive_datagram()


@pytest.mark.parametrize("engine", ["rust", "aioquic"])
async def test_datagrams_that_travel_with_the_last_of_hello_are_not_lost(
    start: Start, identities: list[Identity], engine: str
) -> None:
    """The dialler is admitted before the acceptor knows, so its first datagrams come early."""
    dialler = await start(identities[0], engine=engine)
    acceptor = await start(identities[1], engine=engine)
    dialler.on_connection(lambda connection: connection.send_datagram_nowait(b"early"))
    ours = await dialler.dial(acceptor.address, identities[1].node_id)
    theirs = await acceptor.accept()
    with trio.fail_after(10):
        assert await theirs.receive_datagram() == b"early"
        for number in range(3):
            ours.send_datagram_nowait(bytes((number,)))
            assert await theirs.receive_datagram() == bytes((number,))
