"""Calls: one bidirectional stream each, with a deadline, cancellation and typed refusals.

The caller writes one REQUEST frame and finishes; the server answers one RESULT or ERROR frame. A
caller that gives up resets the stream, which cancels the handler.
"""

from collections.abc import Awaitable, Callable
from contextvars import copy_context
from functools import partial
from math import ceil
from typing import TYPE_CHECKING, Final, TypeAlias

import structlog
import trio

from native.quic import StreamReset, StreamStopped
from transport.core.frames import (
    CallType,
    FrameDecoder,
    Request,
    decode_error,
    encode_error,
    encode_frame,
    lone_frame,
)
from transport.core.streams import ResetCode
from transport.errors import ConnectionEnded, FrameTooLong, MalformedFrame, RPCError, RPCTimeout
from transport.limits import (
    READ_SIZE_BYTES,
    RPC_CALLS_PER_CONNECTION_MAX,
    RPC_MESSAGE_SIZE_BYTES_MAX,
    RPC_METHOD_CHARS_MAX,
    RPC_PENDING_BYTES_MAX,
    RPC_PENDING_BYTES_PER_CONNECTION_MAX,
    RPC_REQUEST_TIMEOUT_S,
    RPC_WORKERS_IDLE_MAX,
)
from transport.runtime.deadlines import Deadlines
from transport.runtime.streams import BidirectionalStream

if TYPE_CHECKING:
    from transport.runtime.connection import Connection

Handler: TypeAlias = "Callable[[Connection, bytes], Awaitable[bytes]]"

_LATE: Final = ResetCode.TIMEOUT.name.lower()
_log = structlog.get_logger("transport.rpc")


async def call(
    connection: "Connection", method: str, argument: bytes, *, timeout_s: float
) -> bytes:
    """See `Connection.call`."""
    request = Request(method=method, timeout_ms=max(1, ceil(timeout_s * 1000)), argument=argument)
    body = request.encode()
    if len(body) >= RPC_MESSAGE_SIZE_BYTES_MAX:
        raise FrameTooLong(f"the argument of {method} is over the limit")
    frame = encode_frame(CallType.REQUEST, body)
    late_s = trio.current_time() + timeout_s
    deadlines = connection.endpoint.deadlines
    stream = connection.open_call_nowait()
    try:
        if stream is None:
            with trio.fail_at(late_s):
                stream = await connection.open_call()
        taken = stream.sender.write_nowait(frame)
        if taken < len(frame) or not stream.sender.finish_nowait():
            with trio.fail_at(late_s):
                await stream.send_last(frame, taken)
        deadlines.add(stream.receiver, late_s)
        kind, answer = await _read_frame(stream)
    except trio.TooSlowError:
        raise RPCTimeout(method, timeout_s) from None
    except trio.BrokenResourceError as error:
        if isinstance(error.__cause__, ConnectionEnded):
            raise error.__cause__ from None
        reason = _given_up(error)
        if reason == _LATE:
            raise RPCTimeout(method, timeout_s) from None
        raise RPCError(reason, f"the peer gave up the call of {method}") from None
    finally:
        if stream is not None:
            deadlines.discard(stream.receiver)
            stream.abort()
    match kind:
        case CallType.RESULT:
            return answer
        case CallType.ERROR:
            raise RPCError(*decode_error(answer))
        case _:
            raise MalformedFrame(f"answer of an unknown type {kind}")


class _Overloaded(Exception):
    """What has begun to arrive is more than there is room for."""


class _Pending:
    """Bytes of one request that has begun, counted against its connection's share and the whole."""

    def __init__(self, server: "CallServer", connection: "Connection") -> None:
        self._server = server
        self._connection = connection
        self._held = 0

    def hold(self, size: int) -> None:
        """The request has grown to `size` bytes; raises `_Overloaded`."""
        if not self._server.hold(self._connection, size - self._held):
            raise _Overloaded
        self._held = size

    def release(self) -> None:
        """The request is whole, or given up."""
        self._server.hold(self._connection, -self._held)
        self._held = 0


class CallServer:
    """Runs handlers for calls from any connection, at most `calls_max` at a time."""

    def __init__(self, calls_max: int, deadlines: Deadlines) -> None:
        self._deadlines = deadlines
        self._handlers: Final[dict[str, Handler]] = {}
        self._calls_max = calls_max
        self._nursery: trio.Nursery | None = None
        self._context = copy_context()
        self._idle: Final[list[trio.lowlevel.Task]] = []
        self._handed: Final[dict[trio.lowlevel.Task, tuple[Connection, BidirectionalStream]]] = {}
        self._active_by: dict[Connection, int] = {}
        self._pending_by: dict[Connection, int] = {}
        self.pending_bytes = 0
        self.active = 0
        self.served_total = 0
        self.refused_total = 0

    def serve(self, method: str, handler: Handler) -> None:
        """Answer calls of `method` from now on; a second handler takes the first one's place."""
        if not method or len(method) > RPC_METHOD_CHARS_MAX or not method.isascii():
            raise ValueError("a method name is 1 to 128 ASCII characters")
        self._handlers[method] = handler

    def start(self, nursery: trio.Nursery) -> None:
        """Where handlers run."""
        self._nursery = nursery
        self._context = copy_context()

    def accept(self, connection: "Connection", stream: BidirectionalStream) -> None:
        """Take a stream the peer opened for a call."""
        theirs = self._active_by.get(connection, 0)
        if (
            self._nursery is None
            or self.active >= self._calls_max
            or theirs >= RPC_CALLS_PER_CONNECTION_MAX
        ):
            self.refused_total += 1
            stream.abort(ResetCode.OVERLOADED)
            return
        self.active += 1
        self._active_by[connection] = theirs + 1
        if self._idle:
            worker = self._idle.pop()
            worker.context = self._context.copy()
            self._handed[worker] = (connection, stream)
            trio.lowlevel.reschedule(worker)
        else:
            spawn = partial(
                self._nursery.start_soon, self._work, connection, stream, name="transport.rpc"
            )
            self._context.copy().run(spawn)

    def hold(self, connection: "Connection", more: int) -> bool:
        """Count bytes of requests that have begun; False, and nothing counted, when too many."""
        theirs = self._pending_by.get(connection, 0) + more
        if more > 0 and (
            theirs > RPC_PENDING_BYTES_PER_CONNECTION_MAX
            or self.pending_bytes + more > RPC_PENDING_BYTES_MAX
        ):
            return False
        self.pending_bytes += more
        if theirs:
            self._pending_by[connection] = theirs
        else:
            self._pending_by.pop(connection, None)
        return True

    async def _work(self, connection: "Connection", stream: BidirectionalStream) -> None:
        """Serve this call and those that come later: a task and a cancel scope for each would cost
        more than most calls do. A call that is cancelled takes the worker along. Each call has the
        context variables of `start`, whatever the last one has set."""
        me = trio.lowlevel.current_task()

        def leave(_: object) -> trio.lowlevel.Abort:
            self._idle.remove(me)
            return trio.lowlevel.Abort.SUCCEEDED

        try:
            with trio.CancelScope() as scope:
                while True:
                    await self._serve(connection, stream, scope)
                    if len(self._idle) >= RPC_WORKERS_IDLE_MAX:
                        return
                    self._idle.append(me)
                    await trio.lowlevel.wait_task_rescheduled(leave)
                    connection, stream = self._handed.pop(me)
        except Exception:  # what a nursery in a handler makes of a failure and a cancellation
            _log.exception("rpc.handler_failed")

    async def _serve(
        self, connection: "Connection", stream: BidirectionalStream, scope: trio.CancelScope
    ) -> None:
        try:
            await self._answer(connection, stream, scope)
            self.served_total += 1
        except MalformedFrame:
            self.refused_total += 1
            stream.abort(ResetCode.MALFORMED)
        except _Overloaded:
            self.refused_total += 1
            stream.abort(ResetCode.OVERLOADED)
        except trio.BrokenResourceError:
            self.refused_total += 1  # the caller is gone
        except trio.Cancelled:
            self.refused_total += 1
            stream.abort(ResetCode.TIMEOUT if stream.expired else ResetCode.CANCELLED)
            raise
        finally:
            self.active -= 1
            left = self._active_by.pop(connection) - 1
            if left:
                self._active_by[connection] = left
            stream.abort()

    async def _answer(
        self, connection: "Connection", stream: BidirectionalStream, scope: trio.CancelScope
    ) -> None:
        # Most requests came with the packet that opened their stream.
        data = stream.receiver.receive_nowait(READ_SIZE_BYTES)
        frame = lone_frame(data)
        if frame is None:
            pending = _Pending(self, connection)
            try:
                with trio.fail_after(RPC_REQUEST_TIMEOUT_S):
                    frame = await _read_frame(stream, data, pending.hold)
            except trio.TooSlowError:
                raise MalformedFrame("a call whose request did not come") from None
            finally:
                pending.release()
        kind, body = frame
        if kind != CallType.REQUEST:
            raise MalformedFrame(f"call of an unknown type {kind}")
        request = Request.decode(body)
        handler = self._handlers.get(request.method)
        if handler is None:
            answer = _error("unknown_method", f"no method {request.method!r}")
        else:
            answer = await self._run(handler, connection, stream, request, scope)
        await stream.send_last(answer)

    async def _run(
        self,
        handler: Handler,
        connection: "Connection",
        stream: BidirectionalStream,
        request: Request,
        scope: trio.CancelScope,
    ) -> bytes:
        """The handler's answer as a frame; it is cancelled when nobody waits any more."""
        stream.cancel_when_stopped(scope)
        self._deadlines.add(stream, trio.current_time() + request.timeout_ms / 1000)
        try:
            result = await handler(connection, request.argument)
            if len(result) >= RPC_MESSAGE_SIZE_BYTES_MAX:
                return _error("too_large", "the answer is over the limit")
            return encode_frame(CallType.RESULT, result)
        except RPCError as error:
            return _error(error.code_text, error.message)
        except Exception:
            _log.exception("rpc.handler_failed", method=request.method)
            return _error("internal", "the handler failed; see the log of that node")
        finally:
            stream.cancel_when_stopped(None)
            self._deadlines.discard(stream)


def _given_up(error: trio.BrokenResourceError) -> str:
    """Why the server abandoned the stream, as an error code."""
    cause = error.__cause__
    known = isinstance(cause, StreamReset | StreamStopped) and cause.args[0] in set(ResetCode)
    return ResetCode(cause.args[0]).name.lower() if cause is not None and known else "cancelled"


def _error(code_text: str, message: str) -> bytes:
    return encode_frame(CallType.ERROR, encode_error(code_text, message))


async def _read_frame(
    stream: BidirectionalStream, data: bytes = b"", hold: Callable[[int], None] | None = None
) -> tuple[int, bytes]:
    """The one frame of this direction, which `data` begins; raises `MalformedFrame`. A checkpoint
    only if it has to wait. `hold` hears how many bytes wait for the rest, and may raise."""
    if not data:
        data = await stream.receiver.receive_soon(READ_SIZE_BYTES)
    frame = lone_frame(data)
    if frame is not None:
        return frame
    decoder = FrameDecoder(size_max=RPC_MESSAGE_SIZE_BYTES_MAX)
    while data:
        frames = decoder.feed(data)
        if len(frames) > 1 or (frames and decoder.pending_bytes):
            raise MalformedFrame("more than one frame in a call")
        if frames:
            return frames[0]
        if hold is not None:
            hold(decoder.pending_bytes)
        data = await stream.receiver.receive_soon(READ_SIZE_BYTES)
    raise MalformedFrame("a call that ended before its frame")
