"""Datagrams of one connection: bounded queues, and tasks that wait at them."""

from collections import deque
from typing import TYPE_CHECKING

import trio

from native import quic
from transport.core.engine import Buffer
from transport.errors import DatagramQueueFull, DatagramsUnsupported, DatagramTooLong
from transport.limits import DATAGRAMS_RECEIVED_MAX

if TYPE_CHECKING:
    from transport.runtime.connection import Connection


class Datagrams:
    """What came and was not read, oldest first, and where senders wait for room."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._arrival = trio.Event()
        self._room = trio.Event()
        self.dropped = 0

    def send_nowait(self, data: Buffer) -> None:
        """Queue one, or raise."""
        connection = self._connection
        try:
            taken = connection.engine.send_datagram(connection.handle, data)
        except quic.FrameTooLong:
            raise DatagramTooLong(
                f"{memoryview(data).nbytes} bytes do not fit into one packet"
            ) from None
        except quic.DatagramsUnsupported:
            raise DatagramsUnsupported("the peer takes no datagrams") from None
        except quic.ConnectionGone:
            raise connection.ended() from None
        if not taken:
            raise DatagramQueueFull("the queue of datagrams is full")
        connection.kick()

    async def send(self, data: Buffer) -> None:
        """Queue one once there is room."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while True:
            # Asked for before the attempt: the engine tells of room once, after it said no.
            if self._room.is_set():
                self._room = trio.Event()
            try:
                self.send_nowait(data)
            except DatagramQueueFull:
                await self._room.wait()
            else:
                break
        await trio.lowlevel.cancel_shielded_checkpoint()

    async def receive(self) -> bytes:
        """The oldest; those that came before the end can be read after it."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._waiting:
            if self._connection.closure is not None:
                raise self._connection.ended()
            if self._arrival.is_set():
                self._arrival = trio.Event()
            await self._arrival.wait()
        data = self._waiting.popleft()
        self._waiting_bytes -= len(data)
        await trio.lowlevel.cancel_shielded_checkpoint()
        return data

    def arrived(self) -> None:
        """Take over what waits in the engine; the oldest make room."""
        connection = self._connection
        try:
            taken = connection.engine.receive_datagrams(connection.handle)
        except quic.ConnectionGone:
            return  # its end follows in this turn
        self._waiting.extend(taken)
        self._waiting_bytes += sum(map(len, taken))
        bytes_max = connection.endpoint.config.datagram_queue_bytes_max
        while len(self._waiting) > DATAGRAMS_RECEIVED_MAX or self._waiting_bytes > bytes_max:
            self._waiting_bytes -= len(self._waiting.popleft())
            self.dropped += 1
            connection.endpoint.datagrams_unread += 1
        self._arrival.set()

    def room(self) -> None:
        """The engine takes datagrams again."""
        self._room.set()

    def ended(self) -> None:
        """Nothing comes and nothing goes any more."""
        self._arrival.set()
        self._room.set()
