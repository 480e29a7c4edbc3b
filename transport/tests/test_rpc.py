"""Calls: answers, typed refusals, deadlines, cancellation, limits."""

from contextvars import ContextVar

import pytest
import trio

from transport import AcceptAll, CloseReason, Connection, Endpoint, Identity
from transport.core.frames import CallType, Request, encode_frame
from transport.errors import ConnectionEnded, FrameTooLong, RPCError, RPCTimeout
from transport.limits import RPC_MESSAGE_SIZE_BYTES_MAX
from transport.runtime import rpc
from transport.runtime.streams import BidirectionalStream
from transport.tests.conftest import Start, offer, pair


class Hang:
    """A handler that never answers; shows that it was called, and cancelled."""

    def __init__(self) -> None:
        self.entered = trio.Event()
        self.cancelled = trio.Event()

    async def __call__(self, _: Connection, __: bytes) -> bytes:
        self.entered.set()
        try:
            await trio.sleep_forever()
        finally:
            self.cancelled.set()
        raise AssertionError


async def test_a_call_is_answered(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)

    async def echo(connection: Connection, argument: bytes) -> bytes:
        assert connection is theirs
        return argument * 2

    theirs.endpoint.serve("echo", echo)
    assert await ours.call("echo", b"ab") == b"abab"
    assert await ours.call("echo", bytes(3_000_000)) == bytes(6_000_000)
    assert (ours.stream_count, theirs.stream_count) == (0, 0)
    assert theirs.endpoint.statistics().calls_served_total == 2


async def test_both_sides_call(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)

    async def name(connection: Connection, _: bytes) -> bytes:
        return connection.peer

    ours.endpoint.serve("name", name)
    theirs.endpoint.serve("name", name)
    assert await ours.call("name") == identities[0].node_id
    assert await theirs.call("name") == identities[1].node_id


async def test_a_typed_refusal_reaches_the_caller(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)

    async def refuse(_: Connection, argument: bytes) -> bytes:
        raise RPCError("insufficient_funds", argument.decode())

    theirs.endpoint.serve("pay", refuse)
    with pytest.raises(RPCError) as refusal:
        await ours.call("pay", b"have 3, need 5")
    assert (refusal.value.code_text, refusal.value.message) == (
        "insufficient_funds",
        "have 3, need 5",
    )


async def test_an_unknown_method_and_a_broken_handler(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)

    async def breaks(_: Connection, __: bytes) -> bytes:
        raise KeyError("secret detail")

    theirs.endpoint.serve("breaks", breaks)
    with pytest.raises(RPCError, match="unknown_method"):
        await ours.call("nothing")
    with pytest.raises(RPCError, match="internal") as failure:
        await ours.call("breaks")
    assert "secret" not in str(failure.value)


async def test_a_deadline_ends_the_call_and_the_handler(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    forever = Hang()
    theirs.endpoint.serve("forever", forever)
    with pytest.raises(RPCTimeout):
        await ours.call("forever", timeout_s=0.05)
    await forever.cancelled.wait()


async def test_cancelling_the_caller_cancels_the_handler(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)
    forever = Hang()
    theirs.endpoint.serve("forever", forever)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.call, "forever")
        await forever.entered.wait()
        nursery.cancel_scope.cancel()
    with trio.fail_after(5):
        await forever.cancelled.wait()


async def test_calls_over_the_limit_are_refused(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities, rpc_calls_max=1)
    forever = Hang()
    theirs.endpoint.serve("forever", forever)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.call, "forever")
        await forever.entered.wait()
        with pytest.raises(RPCError, match="overloaded"):
            await ours.call("forever")
        nursery.cancel_scope.cancel()


async def test_one_peer_cannot_take_all_places(
    start: Start, identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "RPC_CALLS_PER_CONNECTION_MAX", 1)
    ours, theirs = await pair(start, identities)
    forever = Hang()
    theirs.endpoint.serve("forever", forever)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.call, "forever")
        await forever.entered.wait()
        with pytest.raises(RPCError, match="overloaded"):
            await ours.call("forever")
        nursery.cancel_scope.cancel()


async def test_a_call_whose_request_never_comes_gives_its_place_back(
    start: Start, identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rpc, "RPC_REQUEST_TIMEOUT_S", 0.05)
    ours, theirs = await pair(start, identities)
    stream = await ours.open_call()
    await stream.send_all(encode_frame(CallType.REQUEST, bytes(100))[:20])
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError):
        await stream.receive_some()
    assert theirs.endpoint.calls.active == 0


async def test_an_argument_over_the_limit_is_not_sent(
    start: Start, identities: list[Identity]
) -> None:
    ours, _ = await pair(start, identities)
    with pytest.raises(FrameTooLong):
        await ours.call("echo", bytes(RPC_MESSAGE_SIZE_BYTES_MAX))


async def test_a_lost_connection_ends_the_call(start: Start, identities: list[Identity]) -> None:
    ours, theirs = await pair(start, identities)

    async def hang_up(connection: Connection, _: bytes) -> bytes:
        connection.close_now(CloseReason.UNUSED, "enough")
        await trio.sleep_forever()
        return b""

    theirs.endpoint.serve("hang_up", hang_up)
    with pytest.raises(ConnectionEnded, match="enough"):
        await ours.call("hang_up")


@pytest.mark.parametrize(
    "wire",
    [
        b"",
        b"\x00\x00\x00\x00",
        encode_frame(CallType.RESULT, b""),
        encode_frame(CallType.REQUEST, b""),
        encode_frame(CallType.REQUEST, Request(method="m", timeout_ms=1, argument=b"").encode())
        + b"more",
    ],
)
async def test_a_malformed_call_is_given_up(
    start: Start, identities: list[Identity], wire: bytes
) -> None:
    ours, theirs = await pair(start, identities)
    stream = await ours.open_call()
    await stream.send_all(wire)
    await stream.send_eof()
    with pytest.raises(trio.BrokenResourceError, match="code 2"):
        await stream.receive_some()
    assert theirs.closure is None
    assert theirs.endpoint.statistics().calls_refused_total == 1


async def test_calls_that_share_a_task_share_nothing_else(
    start: Start, identities: list[Identity]
) -> None:
    """Neither the cancellation of a call nor the context variables of one reach a later one."""
    ours, theirs = await pair(start, identities)
    variable: ContextVar[str] = ContextVar("variable", default="unset")

    async def remember(_: Connection, argument: bytes) -> bytes:
        before = variable.get()
        variable.set(argument.decode())
        return before.encode()

    hang = Hang()
    theirs.endpoint.serve("remember", remember)
    theirs.endpoint.serve("hang", hang)
    assert await ours.call("remember", b"first") == b"unset"
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.call, "hang")
        await hang.entered.wait()
        nursery.cancel_scope.cancel()
    await hang.cancelled.wait()
    for argument in (b"second", b"third"):
        assert await ours.call("remember", argument) == b"unset"
    assert theirs.endpoint.calls.active == 0
    assert theirs.endpoint.calls.served_total == 3
    assert theirs.endpoint.calls.refused_total == 1


async def test_a_handler_that_ends_as_it_is_cancelled_harms_no_later_call(
    start: Start, identities: list[Identity]
) -> None:
    """The caller gives up while the handler does not look: the next call is served all the same."""
    ours, theirs = await pair(start, identities)
    entered, released = trio.Event(), trio.Event()

    async def stubborn(_: Connection, __: bytes) -> bytes:
        entered.set()
        with trio.CancelScope(shield=True):
            await released.wait()
        return b"done"

    theirs.endpoint.serve("stubborn", stubborn)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ours.call, "stubborn")
        await entered.wait()
        nursery.cancel_scope.cancel()
    stream = next(iter(theirs._streams.values()))
    assert isinstance(stream, BidirectionalStream)
    with trio.fail_after(5):
        while not stream._stopped:
            await trio.lowlevel.checkpoint()
    released.set()
    assert await ours.call("stubborn") == b"done"


async def test_a_caller_that_only_claims_to_wait_is_cut_off_in_time(
    start: Start, identities: list[Identity]
) -> None:
    """The deadline in the request holds on the server, too."""
    ours, theirs = await pair(start, identities)
    hang = Hang()
    theirs.endpoint.serve("hang", hang)
    stream = await ours.open_call()
    body = Request(method="hang", timeout_ms=50, argument=b"").encode()
    await stream.send_last(encode_frame(CallType.REQUEST, body))
    with trio.fail_after(5):
        await hang.cancelled.wait()
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
    stream.abort()


async def test_a_handler_that_breaks_in_any_way_harms_only_its_call(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)

    async def wrong(_: Connection, __: bytes) -> bytes:
        return None  # type: ignore[return-value]

    async def group(_: Connection, __: bytes) -> bytes:
        async def child() -> None:
            try:
                await trio.sleep_forever()
            finally:
                raise ValueError("cleanup failed")

        async with trio.open_nursery() as nursery:
            nursery.start_soon(child)
        return b""

    async def echo(_: Connection, argument: bytes) -> bytes:
        return argument

    for name, handler in (("wrong", wrong), ("group", group), ("echo", echo)):
        theirs.endpoint.serve(name, handler)
    with pytest.raises(RPCError, match="internal"):
        await ours.call("wrong")
    with pytest.raises(RPCTimeout):
        await ours.call("group", timeout_s=0.05)
    assert await ours.call("echo", b"still here") == b"still here"
    assert theirs.endpoint.calls.active == 0


@pytest.mark.parametrize("timeout_s", [0.0015, 0.0509, 0.1])
async def test_a_call_that_is_late_says_so_whoever_notices_first(
    start: Start, identities: list[Identity], timeout_s: float
) -> None:
    ours, theirs = await pair(start, identities)
    hang = Hang()
    theirs.endpoint.serve("hang", hang)
    with pytest.raises(RPCTimeout):
        await ours.call("hang", timeout_s=timeout_s)
    stream = await ours.open_call()  # a caller whose clock runs slower than the server's
    ours.endpoint.deadlines.add(stream.receiver, trio.current_time() + 10)
    body = Request(method="hang", timeout_ms=20, argument=b"").encode()
    await stream.send_last(encode_frame(CallType.REQUEST, body))
    with trio.fail_after(5), pytest.raises(trio.BrokenResourceError, match="code 3"):
        await stream.receive_some()
    stream.abort()


async def test_a_handler_that_calls_while_its_endpoint_stops_does_not_hold_it_up(
    nursery: trio.Nursery, start: Start, identities: list[Identity]
) -> None:
    caller = await start(identities[0])
    server = Endpoint(identities[1], listen="[::1]:0", hello=offer(), verifier=AcceptAll())
    entered, failed, stopped = trio.Event(), trio.Event(), trio.Event()
    scope = trio.CancelScope()

    async def run(task_status: trio.TaskStatus[Endpoint]) -> None:
        with scope:
            await server.run(task_status=task_status)
        stopped.set()

    slow = Hang()

    async def tidy(connection: Connection, _: bytes) -> bytes:
        entered.set()
        try:
            await trio.sleep_forever()
        finally:
            with trio.CancelScope(shield=True):
                with pytest.raises(ConnectionEnded):
                    await connection.call("slow")
                failed.set()
        raise AssertionError

    async def ask() -> None:
        with pytest.raises(ConnectionEnded):
            await ours.call("tidy")

    caller.serve("slow", slow)
    await nursery.start(run)
    server.serve("tidy", tidy)
    ours = await caller.dial(server.address, identities[1].node_id)
    nursery.start_soon(ask)
    with trio.fail_after(5):
        await entered.wait()
        scope.cancel()
        await stopped.wait()
        await ours.closed.wait()
    assert failed.is_set()


async def test_what_a_callback_sets_does_not_reach_a_call(
    start: Start, identities: list[Identity]
) -> None:
    variable: ContextVar[str] = ContextVar("variable", default="unset")
    caller, server = await start(identities[0]), await start(identities[1])
    server.on_connection(lambda _: variable.set("by a callback"))

    async def read(_: Connection, __: bytes) -> bytes:
        return variable.get().encode()

    server.serve("read", read)
    ours = await caller.dial(server.address, identities[1].node_id)
    assert await ours.call("read") == b"unset"
    assert await ours.call("read") == b"unset"
