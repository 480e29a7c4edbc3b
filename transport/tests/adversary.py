"""A peer that proves its key and then does whatever a test wants, straight on an engine."""

import dataclasses

import trio

from native.quic import QuicEngine
from transport import Identity, TransportConfig
from transport.core.engine import EngineEvent
from transport.core.events import EventKind, StreamKind
from transport.core.frames import ControlType
from transport.core.hello import Hello, encode_hello
from transport.runtime.engines.settings import engine_settings
from transport.tests.conftest import offer


class Adversary:
    """Dials, waits for events, and sends what it likes."""

    def __init__(self, identity: Identity, streams_max: int | None = None) -> None:
        polite = engine_settings(TransportConfig(admission_timeout_s=60, idle_timeout_s=60))
        self.engine = QuicEngine(
            identity.signer,
            "[::1]:0",
            dataclasses.replace(
                polite,
                control_frame_bytes_max=1 << 20,  # more than a polite peer sends
                frame_bytes_max=1 << 28,
                channel_queue_bytes_max=1 << 28,
                send_window_bytes=1 << 25,
                streams_max=polite.streams_max if streams_max is None else streams_max,
            ),
        )
        self.seen: list[EngineEvent] = []

    async def event(self, kind: EventKind) -> EngineEvent:
        """The next event of a kind; earlier ones of other kinds are kept in `seen`."""
        with trio.fail_after(10):
            while True:
                for position, event in enumerate(self.seen):
                    if event[0] == kind:
                        return self.seen.pop(position)
                await trio.lowlevel.wait_readable(self.engine.fileno())
                self.seen += self.engine.step(16)[1]

    async def connect(self, address: str, node_id: bytes) -> int:
        """Up to the proven key; no HELLO yet."""
        handle = self.engine.connect(address, node_id)
        self.engine.flush()
        await self.event(EventKind.CONNECTED)
        return handle

    def say(self, handle: int, frame_type: int, body: bytes) -> None:
        """One frame on the control stream."""
        self.engine.send(handle, StreamKind.CONTROL, frame_type, body)
        self.engine.flush()

    async def admitted(self, address: str, node_id: bytes) -> int:
        """A connection like any other, up to the point where it misbehaves."""
        handle = await self.connect(address, node_id)
        self.say(handle, ControlType.HELLO, encode_hello(Hello.of(offer(), b"\x01" * 16)))
        await self.event(EventKind.FRAME)
        self.say(handle, ControlType.READY, b"")
        self.engine.admit(handle)
        return handle
