"""Reaching one node over QUIC: does it answer, does it prove its key, how far is it?

A probe dials with a key made for the occasion and stops before HELLO: any node answers that, on
whatever chain, and no connection of a running node is disturbed.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import trio

from native.keys import SecretKey
from native.quic import QuicEngine
from native.values import Algorithm, NodeId
from transport import CloseReason, Closure, Identity, TransportConfig
from transport.core.events import Cause, EventKind, key_exchange_name, signature_name
from transport.errors import DialFailed
from transport.limits import RECEIVE_BATCHES_PER_TURN
from transport.runtime.endpoint import checked_address
from transport.runtime.engines.settings import engine_settings

if TYPE_CHECKING:
    from transport.core.engine import EngineEvent

ADMISSION_TIMEOUT_S_MAX: Final = 60.0  # what an engine can be told
MTU_SETTLE_S: Final = 1.0  # path MTU discovery is done by then, or the path is bad
PING_COUNT_MAX: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class PingReport:
    """What a few dials of one node showed. Times are milliseconds."""

    address: str
    node_id: str
    dials: int
    handshake_ms_first: float
    handshake_ms_later: float | None
    round_trip_ms_min: float
    round_trip_ms_median: float
    round_trip_ms_max: float
    path_mtu_bytes: int
    key_exchange: str
    signature: str
    resumed: int


class _Probe:
    """One engine with a key of its own, driven by hand."""

    def __init__(self, config: TransportConfig) -> None:
        identity = Identity(SecretKey.generate(Algorithm.FALCON_512))
        self.engine = QuicEngine(identity.signer, "[::]:0", engine_settings(config))
        self.engine.refuse_all()

    async def turn(self) -> list[EngineEvent]:
        await trio.lowlevel.wait_readable(self.engine.fileno())
        return self.engine.step(RECEIVE_BATCHES_PER_TURN)[1]

    async def dial(self, address: str, node_id: NodeId) -> tuple[int, float]:
        """A connection whose key is proven, and how long that took in seconds."""
        began = time.perf_counter()
        handle = self.engine.connect(address, node_id)
        self.engine.flush()
        while True:
            for kind, connection, cause, code, detail in await self.turn():
                if connection != handle:
                    continue
                if kind == EventKind.CONNECTED:
                    return handle, time.perf_counter() - began
                if kind == EventKind.CLOSED:
                    raise DialFailed(Closure.of(cause, code, str(detail)))

    async def settle(self, handle: int) -> None:
        """Let path MTU discovery finish."""
        with trio.move_on_after(MTU_SETTLE_S):
            while self.engine.path(handle) is not None:
                await self.turn()


async def ping(
    address: str, node_id: NodeId, *, count: int, timeout_s: float, mtu_bytes_max: int
) -> PingReport:
    """Dial `count` times; raises `AddressInvalid`, `DialFailed`, `trio.TooSlowError`."""
    address = checked_address(address)
    # Our own engine must outlast what we wait for it; the peer's patience is the peer's.
    patience_s = min(timeout_s + 2 * MTU_SETTLE_S, ADMISSION_TIMEOUT_S_MAX)
    probe = _Probe(TransportConfig(mtu_bytes_max=mtu_bytes_max, admission_timeout_s=patience_s))
    took, trips, resumed, mtu = [], [], 0, 0
    session = None
    for number in range(count):
        with trio.fail_after(timeout_s + MTU_SETTLE_S):
            handle, handshake_s = await probe.dial(address, node_id)
            took.append(handshake_s * 1000)
            if number == 0:
                await probe.settle(handle)
            path, session = probe.engine.path(handle), probe.engine.session(handle)
        if path is None or session is None:
            raise DialFailed(
                Closure(
                    cause=Cause.TIMED_OUT, detail="it ended the connection while it was measured"
                )
            )
        trips.append(path[0] * 1000)
        mtu = max(mtu, path[2])
        resumed += session[2]
        probe.engine.close(handle, CloseReason.UNUSED, "a ping")
        probe.engine.flush()
    assert session is not None
    return PingReport(
        address=address,
        node_id=node_id.hex(),
        dials=count,
        handshake_ms_first=took[0],
        handshake_ms_later=statistics.median(took[1:]) if count > 1 else None,
        round_trip_ms_min=min(trips),
        round_trip_ms_median=statistics.median(trips),
        round_trip_ms_max=max(trips),
        path_mtu_bytes=mtu,
        key_exchange=key_exchange_name(session[0]),
        signature=signature_name(session[1]),
        resumed=resumed,
    )
