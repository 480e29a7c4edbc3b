"""The control stream of an admitted connection: round trips on request, and seen addresses."""

from typing import TYPE_CHECKING

import trio

from native import quic
from transport.core.events import CloseReason, StreamKind
from transport.core.frames import PING_SIZE_BYTES, ControlType, decode_observed, encode_observed
from transport.core.rates import Bucket
from transport.errors import MalformedFrame
from transport.limits import (
    CONTROL_FRAMES_AT_ONCE_MAX,
    CONTROL_FRAMES_PER_S_MAX,
    CONTROL_QUEUE_BYTES_MAX,
    OBSERVED_PER_S_MAX,
    PINGS_OUTSTANDING_MAX,
    PINGS_PER_S_MAX,
)

if TYPE_CHECKING:
    from transport.runtime.connection import Connection


class _Ping:
    """One question that is under way."""

    __slots__ = ("answered", "rtt_s", "sent_s")

    def __init__(self, sent_s: float) -> None:
        self.sent_s = sent_s
        self.rtt_s: float | None = None
        self.answered = trio.Event()


class Control:
    """Answers what the peer asks; asks for us. A peer that breaks a rule is cut off."""

    def __init__(self, connection: "Connection") -> None:
        self._connection = connection
        self.observed_address: str | None = None
        self._pings: dict[bytes, _Ping] = {}
        self._asked = 0
        self._room = trio.Event()
        self._ours = Bucket(per_s_max=PINGS_PER_S_MAX, at_once_max=PINGS_OUTSTANDING_MAX)
        self._tellings = Bucket(per_s_max=OBSERVED_PER_S_MAX, at_once_max=OBSERVED_PER_S_MAX)
        self._theirs = Bucket(
            per_s_max=CONTROL_FRAMES_PER_S_MAX, at_once_max=CONTROL_FRAMES_AT_ONCE_MAX
        )

    async def ping(self) -> float:
        """Ask, and wait for the answer; waits first while as many questions are under way as the
        peer has to bear."""
        await trio.lowlevel.checkpoint()
        while True:
            if self._connection.closure is not None:
                raise self._connection.ended()
            if len(self._pings) >= PINGS_OUTSTANDING_MAX:
                if self._room.is_set():
                    self._room = trio.Event()
                await self._room.wait()
            elif (pause_s := self._ours.wait_s(trio.current_time())) > 0.0:
                await trio.sleep(pause_s)
            else:
                break
        ping = _Ping(trio.current_time())
        self._ours.take(ping.sent_s)
        self._asked += 1
        token = self._asked.to_bytes(PING_SIZE_BYTES)
        # It stays if this task is cancelled: the answer still comes, and has been asked for.
        self._pings[token] = ping
        self._say(ControlType.PING, token)
        await ping.answered.wait()
        if ping.rtt_s is None:
            raise self._connection.ended()
        return ping.rtt_s

    def tell_address(self) -> None:
        """Tell the peer where we see it; not at every packet of one whose address flaps."""
        if self._connection.remote_address and self._tellings.take(trio.current_time()):
            body = encode_observed(self._connection.remote_address)
            self._say(ControlType.OBSERVED, body)

    def received(self, frame_type: int, body: bytes) -> None:
        """A control frame after HELLO."""
        try:
            self._receive(frame_type, body)
        except MalformedFrame as error:
            self._connection.close_now(CloseReason.PROTOCOL_VIOLATION, str(error))

    def ended(self) -> None:
        """No answer comes any more."""
        self._room.set()
        for ping in self._pings.values():
            ping.answered.set()
        self._pings.clear()

    def _receive(self, frame_type: int, body: bytes) -> None:
        now_s = trio.current_time()
        if frame_type == ControlType.PONG:
            ping = self._pings.pop(body, None)
            if ping is None:
                raise MalformedFrame("a PONG that answers no PING")
            ping.rtt_s = now_s - ping.sent_s
            ping.answered.set()
            self._room.set()
            return
        if frame_type not in (ControlType.PING, ControlType.OBSERVED):
            raise MalformedFrame(f"control frame {frame_type} after HELLO")
        if not self._theirs.take(now_s):
            raise MalformedFrame("control frames over the rate")
        if frame_type == ControlType.OBSERVED:
            self.observed_address = decode_observed(body)
        elif len(body) != PING_SIZE_BYTES:
            raise MalformedFrame("a PING of the wrong size")
        else:
            self._say(ControlType.PONG, body)

    def _say(self, frame_type: ControlType, body: bytes) -> None:
        connection = self._connection
        if connection.closure is not None:
            return
        engine, handle = connection.engine, connection.handle
        if engine.queued_bytes(handle, StreamKind.CONTROL) > CONTROL_QUEUE_BYTES_MAX:
            detail = "the peer asks on the control stream and does not read it"
            connection.close_now(CloseReason.PROTOCOL_VIOLATION, detail)
            return
        try:
            engine.send(handle, StreamKind.CONTROL, frame_type, body)
        except quic.ConnectionGone:
            return  # its end is told in this turn
        connection.kick()
