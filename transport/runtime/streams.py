"""Raw application streams in trio's terms, with back-pressure from the peer's flow control.

Closing a sending half is graceful: everything written is delivered. `abort()` is not. An ended
connection breaks every stream of it (`trio.BrokenResourceError`).
"""

from typing import TYPE_CHECKING

import trio

from native.quic import ConnectionGone, StreamClosed, StreamReset, StreamStopped
from transport.core.engine import Buffer
from transport.core.streams import ResetCode
from transport.errors import ConnectionEnded
from transport.limits import READ_SIZE_BYTES, STREAM_PRIORITY_MAX, STREAM_PRIORITY_MIN

if TYPE_CHECKING:
    from transport.runtime.connection import Connection


class _Half:
    """What both directions share: whose stream it is and how to wait for the engine."""

    def __init__(self, connection: "Connection", stream: int) -> None:
        self._connection = connection
        self._engine = connection.engine
        self._handle = connection.handle
        self.number = stream
        self._news: trio.Event | None = None  # while a task waits
        self._busy = False
        self._closed = False

    def wake(self) -> None:
        """The engine has news for this half."""
        if self._news is not None:
            self._news.set()

    async def _wait(self) -> None:
        if self._news is None or self._news.is_set():
            self._news = trio.Event()
        await self._news.wait()

    def _ended(self) -> ConnectionEnded | None:
        """What to raise from, when the stream broke because the connection ended."""
        closure = self._connection.closure
        return None if closure is None else ConnectionEnded(closure)

    def _broken(self, why: str) -> trio.BrokenResourceError:
        return trio.BrokenResourceError(str(self._connection.closure or why))

    def _enter(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        if self._busy:
            raise trio.BusyResourceError("another task is using this stream")


class SendStream(_Half, trio.abc.SendStream):
    """The sending direction of a stream."""

    async def send_all(self, data: Buffer) -> None:
        """Hand everything to the engine, waiting while the peer's windows are full."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._enter()
        self._busy = True
        try:
            await self._write_from(data, 0)
            await trio.lowlevel.cancel_shielded_checkpoint()
        finally:
            self._busy = False

    async def send_last(self, data: Buffer, offset: int = 0) -> None:
        """`send_all` from `offset`, and finish in one turn, so that the end travels with the data.
        A checkpoint only if it has to wait: whoever sends a call waits for its answer next."""
        self._enter()
        self._busy = True
        try:
            await self._write_from(data, offset)
        finally:
            self._busy = False
        if not self.finish_nowait():
            await self._finish()

    async def wait_send_all_might_not_block(self) -> None:
        """Returns at once; `send_all` itself waits for room."""
        await trio.lowlevel.checkpoint()
        self._enter()

    def set_priority(self, priority: int) -> None:
        """Send this before streams of a lower priority; 0 is what a stream begins with."""
        if not STREAM_PRIORITY_MIN <= priority <= STREAM_PRIORITY_MAX:
            raise ValueError(f"a priority is from {STREAM_PRIORITY_MIN} to {STREAM_PRIORITY_MAX}")
        self._engine.set_priority(self._handle, self.number, priority)

    async def aclose(self) -> None:
        """Say that no more comes. What was written is still delivered."""
        await self._finish()
        self._connection.forget(self)

    def abort(self, code: int = ResetCode.CANCELLED) -> None:
        """Abandon what was not delivered; the peer sees the code."""
        if not self._closed:
            self._closed = True
            self._engine.reset(self._handle, self.number, code)
            self._connection.kick()
        self.wake()

    async def _write_from(self, data: Buffer, offset: int) -> None:
        size = memoryview(data).nbytes
        while offset < size:
            taken = self.write_nowait(data, offset)
            offset += taken
            if not taken:
                await self._wait_for_room()

    async def _wait_for_room(self) -> None:
        began_s = trio.current_time()
        try:
            await self._wait()
        finally:
            self._connection.endpoint.backpressure_s += trio.current_time() - began_s

    def write_nowait(self, data: Buffer, offset: int = 0) -> int:
        """Hand the engine what it takes from `offset` on; how many bytes that was."""
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")
        try:
            taken = self._engine.write(self._handle, self.number, data, offset)
        except StreamStopped as error:
            raise self._broken(f"the peer reads no further (code {error.args[0]})") from error
        except (ConnectionGone, StreamClosed):
            raise self._broken("the connection is over") from self._ended()
        if taken:
            self._connection.kick()
        return taken

    async def _finish(self) -> None:
        if self._closed:
            await trio.lowlevel.checkpoint()
            return
        try:
            while not self.finish_nowait():
                await self._wait()
        except trio.Cancelled:
            self.abort()
            raise
        await trio.lowlevel.checkpoint()

    def finish_nowait(self) -> bool:
        """Finish, unless the kind of the stream has still to be written."""
        try:
            if not self._engine.finish(self._handle, self.number):
                return False
        except (StreamStopped, ConnectionGone, StreamClosed):
            pass  # nobody wants the end
        self._closed = True
        self.wake()
        self._connection.kick()
        return True


class ReceiveStream(_Half, trio.abc.ReceiveStream):
    """The receiving direction of a stream."""

    def __init__(self, connection: "Connection", stream: int) -> None:
        super().__init__(connection, stream)
        self._finished = False
        self._expired = False

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """At least one byte, in order; `b""` once the peer finished."""
        if max_bytes is not None and max_bytes < 1:
            raise ValueError("max_bytes must be at least 1")
        await trio.lowlevel.checkpoint_if_cancelled()
        data = await self.receive_soon(max_bytes or READ_SIZE_BYTES)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    async def receive_soon(self, max_bytes: int) -> bytes:
        """`receive_some` that is a checkpoint only if it has to wait."""
        self._enter()
        self._busy = True
        try:
            while not self._finished:
                data, self._finished = self._read(max_bytes)
                if data or self._finished:
                    self._connection.kick()  # the peer may send as much again
                if data:
                    return data
                if self._expired:
                    raise trio.TooSlowError
                if not self._finished:
                    await self._wait()
            return b""
        finally:
            self._busy = False

    def expire(self) -> None:
        """End `receive_soon` with `trio.TooSlowError`, unless something is there."""
        self._expired = True
        self.wake()

    def receive_nowait(self, max_bytes: int) -> bytes:
        """What has arrived, in order, up to `max_bytes`; `b""` if nothing has."""
        self._enter()
        if self._finished:
            return b""
        data, self._finished = self._read(max_bytes)
        self._connection.kick()
        return data

    async def receive_into(self, buffer: bytearray | memoryview) -> int:
        """Like `receive_some`, straight into the caller's memory: how many bytes came; 0 once the
        peer finished."""
        if not memoryview(buffer).nbytes:
            raise ValueError("an empty buffer")
        await trio.lowlevel.checkpoint_if_cancelled()
        self._enter()
        self._busy = True
        try:
            while not self._finished:
                size, self._finished = self._read_into(buffer)
                if size or self._finished:
                    self._connection.kick()  # the peer may send as much again
                if size:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                    return size
                if not self._finished:
                    await self._wait()
            await trio.lowlevel.cancel_shielded_checkpoint()
            return 0
        finally:
            self._busy = False

    async def aclose(self) -> None:
        """Want no more; the peer is told if it has not finished."""
        self.stop()
        self._connection.forget(self)
        await trio.lowlevel.checkpoint()

    def stop(self, code: int = ResetCode.CANCELLED) -> None:
        """Ask the peer to send no more."""
        if not self._closed:
            self._closed = True
            if not self._finished:
                self._engine.stop(self._handle, self.number, code)
                self._connection.kick()
        self.wake()

    def _read(self, size: int) -> tuple[bytes, bool]:
        self._check_open()
        try:
            return self._engine.read(self._handle, self.number, size)
        except (StreamReset, ConnectionGone, StreamClosed) as error:
            raise self._unreadable(error) from self._cause(error)

    def _read_into(self, buffer: bytearray | memoryview) -> tuple[int, bool]:
        self._check_open()
        try:
            return self._engine.read_into(self._handle, self.number, buffer)
        except (StreamReset, ConnectionGone, StreamClosed) as error:
            raise self._unreadable(error) from self._cause(error)

    def _check_open(self) -> None:
        if self._closed:
            raise trio.ClosedResourceError("this stream was closed")

    def _unreadable(self, error: Exception) -> trio.BrokenResourceError:
        if isinstance(error, StreamReset):
            return self._broken(f"the peer gave the stream up (code {error.args[0]})")
        return self._broken("the connection is over")

    def _cause(self, error: Exception) -> Exception | None:
        return error if isinstance(error, StreamReset) else self._ended()


class BidirectionalStream(trio.abc.HalfCloseableStream):
    """Both directions of one stream."""

    def __init__(self, connection: "Connection", stream: int) -> None:
        self.sender = SendStream(connection, stream)
        self.receiver = ReceiveStream(connection, stream)
        self.number = stream
        self._waiting: trio.CancelScope | None = None
        self._stopped = False
        self.expired = False

    async def send_all(self, data: Buffer) -> None:
        """See `SendStream.send_all`."""
        await self.sender.send_all(data)

    async def wait_send_all_might_not_block(self) -> None:
        """See `SendStream.wait_send_all_might_not_block`."""
        await self.sender.wait_send_all_might_not_block()

    async def send_eof(self) -> None:
        """Finish the sending direction only."""
        await self.sender._finish()

    async def send_last(self, data: Buffer, offset: int = 0) -> None:
        """See `SendStream.send_last`."""
        await self.sender.send_last(data, offset)

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """See `ReceiveStream.receive_some`."""
        return await self.receiver.receive_some(max_bytes)

    async def receive_into(self, buffer: bytearray | memoryview) -> int:
        """See `ReceiveStream.receive_into`."""
        return await self.receiver.receive_into(buffer)

    def set_priority(self, priority: int) -> None:
        """See `SendStream.set_priority`."""
        self.sender.set_priority(priority)

    async def aclose(self) -> None:
        """Finish sending and want no more."""
        self.receiver.stop()
        try:
            await self.sender._finish()
        finally:
            self.sender._connection.forget(self)

    def abort(self, code: int = ResetCode.CANCELLED) -> None:
        """Give both directions up at once."""
        self.sender.abort(code)
        self.receiver.stop(code)
        self.sender._connection.forget(self)

    def wake(self) -> None:
        """The engine has news for one of the halves."""
        self.sender.wake()
        self.receiver.wake()

    def cancel_when_stopped(self, scope: trio.CancelScope | None) -> None:
        """Cancel what is done for a peer that no longer waits, or whose connection ended; None
        when nothing is done any more."""
        self._waiting = scope
        if self._stopped and scope is not None:
            scope.cancel()

    def set_stopped(self) -> None:
        """The peer reads no further."""
        self._stopped = True
        if self._waiting is not None:
            self._waiting.cancel()

    def expire(self) -> None:
        """The peer's own deadline has passed."""
        self.expired = True
        self.set_stopped()
