"""Two endpoints, end to end over real sockets."""

import trio

from native.batches import Batch
from transport import (
    ChannelKind,
    CloseReason,
    Connection,
    Identity,
)
from transport.tests.conftest import Start


async def pair(start: Start, identities: list[Identity]) -> tuple[Connection, Connection]:
    """A dialled connection and its other end."""
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    ours = await dialler.dial(acceptor.address, identities[1].node_id)
    return ours, await acceptor.accept()


async def test_both_ends_know_each_other(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)
    assert (ours.peer, theirs.peer) == (identities[1].node_id, identities[0].node_id)
    assert ours.public_key.spki == identities[1].public_key.spki
    assert ours.dialled
    assert not theirs.dialled
    assert ours.hello.chain_name == "test"


async def test_frames_arrive_whole_and_in_order(start: Start, identities: list[Identity]) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    seen: list[tuple[ChannelKind, int, bytes]] = []
    turn = trio.Event()
    acceptor.on_frame(lambda _, kind, frame_type, body: seen.append((kind, frame_type, body)))
    acceptor.on_turn(lambda: len(seen) >= 4 and turn.set())
    connection = await dialler.dial(acceptor.address, identities[1].node_id)
    votes = connection.channel(ChannelKind.VOTES)
    votes.send_nowait(1, b"a", b"b")
    votes.send_nowait(2)
    votes.send_nowait(3, b"x" * 3_000_000, memoryview(b"y"))
    connection.channel(ChannelKind.BULK).send_nowait(4, bytearray(b"bulk"))
    await turn.wait()
    assert [frame for frame in seen if frame[0] is ChannelKind.VOTES] == [
        (ChannelKind.VOTES, 1, b"ab"),
        (ChannelKind.VOTES, 2, b""),
        (ChannelKind.VOTES, 3, b"x" * 3_000_000 + b"y"),
    ]
    assert (ChannelKind.BULK, 4, b"bulk") in seen


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


async def test_a_close_carries_its_reason(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)
    await ours.close(CloseReason.UNUSED, "idle")
    await theirs.closed.wait()
    assert theirs.close_reason is not None
    assert (theirs.close_reason.reason, theirs.close_reason.detail) == (CloseReason.UNUSED, "idle")
