"""Raw streams behave as trio's streams do, and push back."""

import pytest
import trio
import trio.testing

from transport import ChannelKind, CloseReason, Identity
from transport.errors import ConnectionEnded
from transport.tests.conftest import Start, pair


async def test_a_conversation_on_one_stream(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)
    stream = await ours.open_stream()
    await stream.send_all(b"question")
    await stream.send_eof()
    other = await theirs.accept_stream()
    asked = b"".join([part async for part in other])
    await other.send_all(asked[::-1])
    await other.aclose()
    assert b"".join([part async for part in stream]) == b"noitseuq"
    await stream.aclose()
    assert (ours.stream_count, theirs.stream_count) == (0, 0)


async def test_both_sides_open_streams(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)
    one_way = await theirs.open_uni()
    await one_way.send_all(b"news")
    await one_way.aclose()
    incoming = await ours.accept_uni()
    assert b"".join([part async for part in incoming]) == b"news"


async def test_a_reader_that_sleeps_stops_the_writer(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(
        start, identities, stream_window_bytes=65_536, connection_window_bytes=65_536
    )
    stream = await ours.open_uni()
    size = 40 << 20  # more than the windows of both sides
    sent = trio.Event()

    async def write() -> None:
        await stream.send_all(bytes(size))
        await stream.aclose()
        sent.set()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        incoming = await theirs.accept_uni()
        await trio.testing.wait_all_tasks_blocked(0.02)
        assert not sent.is_set()
        received = 0
        while part := await incoming.receive_some():
            received += len(part)
        assert received == size
        await sent.wait()


async def test_a_reader_that_leaves_breaks_the_writer(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    stream = await ours.open_uni()
    await stream.send_all(b"x")
    incoming = await theirs.accept_uni()
    await incoming.aclose()
    with pytest.raises(trio.BrokenResourceError, match="reads no further"):
        await stream.send_all(bytes(1 << 28))


async def test_an_aborted_stream_is_not_a_finished_one(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    stream = await ours.open_uni()
    await stream.send_all(b"x")
    incoming = await theirs.accept_uni()
    assert await incoming.receive_some() == b"x"
    stream.abort(5)
    with pytest.raises(trio.BrokenResourceError, match="code 5"):
        await incoming.receive_some()


async def test_a_closed_connection_breaks_its_streams(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    stream = await ours.open_stream()
    await stream.send_all(b"x")
    other = await theirs.accept_stream()
    await other.receive_some()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.close, CloseReason.UNUSED, "enough")
        with pytest.raises(trio.BrokenResourceError, match="enough") as broken:
            await other.receive_some()
    assert isinstance(broken.value.__cause__, ConnectionEnded)
    for waiting in (ours.open_stream, theirs.accept_stream, theirs.accept_uni, theirs.open_uni):
        with pytest.raises(ConnectionEnded, match="enough"):
            await waiting()


async def test_two_tasks_may_not_read_one_stream(start: Start, identities: list[Identity]) -> None:
    ours, _ = await pair(start, identities)
    stream = await ours.open_stream()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.receive_some)
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(trio.BusyResourceError):
            await stream.receive_some()
        nursery.cancel_scope.cancel()


async def test_a_closed_stream_stays_closed(start: Start, identities: list[Identity]) -> None:
    ours, _ = await pair(start, identities)
    stream = await ours.open_stream()
    await stream.aclose()
    await stream.aclose()
    with pytest.raises(trio.ClosedResourceError):
        await stream.send_all(b"x")
    with pytest.raises(trio.ClosedResourceError):
        await stream.receive_some()


async def test_a_peer_that_uses_its_first_streams_may_open_all_of_them(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities, streams_max=128)
    with trio.fail_after(10):
        streams = [await ours.open_stream() for _ in range(120)]
        for number, stream in enumerate(streams):
            await stream.send_last(number.to_bytes(2))
        others = [await theirs.accept_stream() for _ in streams]
        heard = [int.from_bytes(await other.receive_some()) for other in others]
    assert sorted(heard) == list(range(120))


async def test_a_stream_read_to_its_end_gives_the_peer_its_credit_back(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(
        start, identities, stream_window_bytes=65_536, connection_window_bytes=65_536
    )
    with trio.fail_after(10):
        for _ in range(20):
            stream = await ours.open_stream()
            await stream.send_last(bytes(60_000))
            other = await theirs.accept_stream()
            assert sum([len(part) async for part in other]) == 60_000


async def test_streams_over_the_limit_wait_for_a_free_one(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities, streams_max=8)
    streams = [await ours.open_uni() for _ in range(8)]
    with trio.move_on_after(0.02) as waiting:
        await ours.open_uni()
    assert waiting.cancelled_caught
    for stream in streams[:2]:  # QUIC tells of new room an eighth at a time
        await stream.aclose()
        assert await (await theirs.accept_uni()).receive_some() == b""
    with trio.fail_after(5):
        await ours.open_uni()


async def test_tasks_that_wait_for_one_stream_share_it_out(
    start: Start, identities: list[Identity]
) -> None:
    """The one that comes too late goes on waiting."""
    ours, theirs = await pair(start, identities)
    accepted: list[bytes] = []

    async def accept() -> None:
        stream = await theirs.accept_stream()
        accepted.append(await stream.receive_some())

    with trio.fail_after(10):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(accept)
            await trio.testing.wait_all_tasks_blocked(0.02)
            for data in (b"one", b"two"):
                await (await ours.open_stream()).send_all(data)
                while data not in accepted:
                    await trio.lowlevel.checkpoint()
    assert accepted == [b"one", b"two"]


async def test_two_tasks_may_close_one_connection(start: Start, identities: list[Identity]) -> None:
    """Neither waits longer than the other."""
    ours, _ = await pair(start, identities, close_timeout_s=30.0)
    ours.channel(ChannelKind.BULK).send_nowait(1, b"last")
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(2):
                nursery.start_soon(ours.close)


@pytest.mark.parametrize("congestion", ["cubic", "bbr"])
@pytest.mark.rust_only("has no cap on the rate")
async def test_a_cap_on_the_rate_holds(
    start: Start, identities: list[Identity], congestion: str
) -> None:
    """Whatever the controller would allow, no connection sends more than the cap and its burst."""
    rate, size = 4_000_000, 2_000_000
    config = {"send_rate_bytes_per_s_max": rate, "congestion": congestion}
    ours, theirs = await pair(start, identities, **config)
    stream = await ours.open_uni()

    async def send() -> None:
        await stream.send_all(bytes(size))
        await stream.aclose()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        received = await theirs.accept_uni()
        began_s, moved = trio.current_time(), 0
        with trio.fail_after(10):
            while data := await received.receive_some():
                moved += len(data)
        took_s = trio.current_time() - began_s
    assert moved == size
    assert took_s > 0.9 * (size - rate / 20) / rate
