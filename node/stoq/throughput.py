"""Throughput between two nodes, on a chain of its own so that no real one is touched."""

from __future__ import annotations

import hashlib
import resource
import time
from dataclasses import dataclass
from typing import Final

import trio

from native.keys import SecretKey
from native.values import Algorithm, NodeId
from transport import AcceptAll, Connection, Endpoint, HelloOffer, Identity, TransportConfig

CHUNK_BYTES: Final = 1 << 20
SIZE_BYTES_MAX: Final = 1 << 36  # 64 GiB: a minute at 1 GB/s
STREAMS_MAX: Final = 256
_CHAIN_ID: Final = hashlib.sha256(b"hypermesh/stoq-bench/v1").digest()
MEGA: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class ThroughputReport:
    """One transfer from here to there. MB is 1,000,000 bytes; CPU is of this side only."""

    bytes_moved: int
    streams: int
    seconds: float
    mb_per_s: float
    mb_per_cpu_s: float
    path_mtu_bytes: int
    round_trip_ms: float
    packets_sent: int
    packets_lost: int


def endpoint(listen: str | None, config: TransportConfig) -> Endpoint:
    """An endpoint with a key made for the occasion."""
    return Endpoint(
        Identity(SecretKey.generate(Algorithm.FALCON_512)),
        listen=listen,
        hello=HelloOffer(chain_id=_CHAIN_ID, chain_name="stoq-bench"),
        verifier=AcceptAll(),
        config=config,
    )


async def serve(acceptor: Endpoint) -> None:
    """Swallow what peers send and tell them how much came, until cancelled."""
    async with trio.open_nursery() as nursery:
        while True:
            nursery.start_soon(_swallow_all, await acceptor.accept())


async def _swallow_all(connection: Connection) -> None:
    from transport.errors import ConnectionEnded

    try:
        async with trio.open_nursery() as nursery:
            while True:
                nursery.start_soon(_swallow, await connection.accept_stream())
    except* (ConnectionEnded, trio.BrokenResourceError):
        pass  # the peer is done


async def _swallow(stream: trio.abc.HalfCloseableStream) -> None:
    received = 0
    while data := await stream.receive_some():
        received += len(data)
    await stream.send_all(received.to_bytes(8))
    await stream.send_eof()


async def run(
    address: str, node_id: NodeId, *, size_bytes: int, streams: int, config: TransportConfig
) -> ThroughputReport:
    """Send `size_bytes` over that many streams; raises what `Endpoint.dial` raises."""
    dialler = endpoint(None, config)
    chunk = bytes(CHUNK_BYTES)
    moved = 0

    async def send(stream: trio.abc.HalfCloseableStream, share: int) -> None:
        nonlocal moved
        while share:
            part = chunk if share >= CHUNK_BYTES else chunk[:share]
            await stream.send_all(part)
            share -= len(part)
        await stream.send_eof()
        answer = b""
        while data := await stream.receive_some():
            answer += data
        moved += int.from_bytes(answer)

    async with trio.open_nursery() as nursery:
        await nursery.start(dialler.run)
        connection = await dialler.dial(address, node_id)
        opened = [await connection.open_stream() for _ in range(streams)]
        began, cpu = time.perf_counter(), _cpu_s()
        async with trio.open_nursery() as senders:
            for number, stream in enumerate(opened):
                share = size_bytes // streams + (number < size_bytes % streams)
                senders.start_soon(send, stream, share)
        seconds, cpu_s = time.perf_counter() - began, _cpu_s() - cpu
        path = connection.statistics()
        await connection.close()
        nursery.cancel_scope.cancel()
    return ThroughputReport(
        bytes_moved=moved,
        streams=streams,
        seconds=seconds,
        mb_per_s=moved / seconds / MEGA,
        mb_per_cpu_s=moved / max(cpu_s, 1e-6) / MEGA,
        path_mtu_bytes=path.mtu_bytes,
        round_trip_ms=path.rtt_s * 1000,
        packets_sent=path.packets_sent,
        packets_lost=path.packets_lost,
    )


def _cpu_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime
