"""Both ends of what is measured over STOQ, through the public trio API.

One server process accepts everything that the client processes here do; what they bring is in the
`Plan`. Times of a transfer are the server's, from the first byte to the last.
"""

from __future__ import annotations

import gc
import os
import resource
import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio

from bench.processes import cpu_s, pin

if TYPE_CHECKING:
    from transport import Connection, Endpoint

CHUNK_BYTES: Final = 1 << 20
CHAIN: Final = bytes(32)
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What one pair of processes does. Sizes in bytes."""

    mtu: int = 1_452
    size: int = 1 << 29  # of all streams together
    message: int = CHUNK_BYTES  # what one `send_all` is given
    streams: int = 1  # per connection
    connections: int = 1
    count: int = 0  # of handshakes, calls, frames
    one_core: bool = False
    settings: dict[str, Any] = field(default_factory=dict)  # of `TransportConfig`


@dataclass(slots=True)
class _Progress:
    """Of one transfer, over all its streams."""

    moved: int = 0
    began: float = 0.0
    began_cpu_s: float = 0.0


def server(pipe: Pipe, plan: Plan) -> None:
    """Accept whatever a client below wants."""
    from native.quic import QuicEngine

    pin(0)
    _raise_descriptor_limit()
    endpoint = _endpoint(plan, "[::1]:0")
    progress = _Progress()

    async def echo(_: Any, argument: bytes) -> bytes:
        return argument

    async def usage(_: Any, __: bytes) -> bytes:
        return f"{cpu_s()} {_resident_bytes()} {len(endpoint.connections)}".encode()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            if plan.settings.get("engine") == "aioquic" and isinstance(endpoint.engine, QuicEngine):
                raise RuntimeError("this is not the engine that was asked for")
            endpoint.serve("echo", echo)
            endpoint.serve("usage", usage)
            endpoint.on_frame(
                lambda connection, kind, number, body: connection.channel(kind).send_nowait(
                    number, body
                )
            )
            pipe.send((endpoint.address, bytes(endpoint.identity.node_id)))
            nursery.start_soon(_accept, endpoint, progress)
            await trio.to_thread.run_sync(pipe.recv, abandon_on_cancel=True)
            nursery.cancel_scope.cancel()

    trio.run(main)


async def _accept(endpoint: Endpoint, progress: _Progress) -> None:
    async with trio.open_nursery() as nursery:
        while True:
            connection = await endpoint.accept()
            if "bulk" in connection.hello.capabilities:
                nursery.start_soon(_sink_all, connection, progress)


async def _sink_all(connection: Connection, progress: _Progress) -> None:
    from transport.errors import ConnectionEnded

    async with trio.open_nursery() as nursery:
        while True:
            try:
                stream = await connection.accept_stream()
            except ConnectionEnded:
                return
            nursery.start_soon(_sink, stream, progress)


async def _sink(stream: Any, progress: _Progress) -> None:
    while data := await stream.receive_some():
        if not progress.moved:
            progress.began, progress.began_cpu_s = time.perf_counter(), cpu_s()
        progress.moved += len(data)
    seconds = time.perf_counter() - progress.began
    used_cpu_s = cpu_s() - progress.began_cpu_s
    await stream.send_last(f"{progress.moved} {seconds} {used_cpu_s}".encode())


def upload(pipe: Pipe, plan: Plan) -> None:
    """Send `size` bytes; says bytes, seconds and the processor time of both ends."""
    pin(0 if plan.one_core else 1)
    address, node_id = pipe.recv()
    _raise_descriptor_limit()
    endpoints = [_endpoint(plan, None, bulk=True) for _ in range(plan.connections)]
    message = os.urandom(plan.message)
    messages = plan.size // plan.connections // plan.streams // plan.message
    answers: list[tuple[int, float, float]] = []

    async def send(connection: Connection) -> None:
        stream = await connection.open_stream()
        for _ in range(messages):
            await stream.send_all(message)
        await stream.send_eof()
        moved, seconds, server_cpu_s = (await stream.receive_some()).split()
        answers.append((int(moved), float(seconds), float(server_cpu_s)))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            connections = []
            for endpoint in endpoints:
                await nursery.start(endpoint.run)
                connections.append(await endpoint.dial(address, node_id))
            began_cpu_s = cpu_s()
            async with trio.open_nursery() as senders:
                for connection in connections:
                    for _ in range(plan.streams):
                        senders.start_soon(send, connection)
            moved, seconds, server_cpu_s = max(answers)
            pipe.send((moved, seconds, server_cpu_s + cpu_s() - began_cpu_s))
            nursery.cancel_scope.cancel()

    trio.run(main)


def handshakes(pipe: Pipe, plan: Plan) -> None:
    """Dial `count` times one after the other; says how long each took."""
    pin(1)
    address, node_id = pipe.recv()
    endpoint = _endpoint(plan, None)
    took: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            for _ in range(plan.count):
                started = time.perf_counter()
                connection = await endpoint.dial(address, node_id)
                took.append(time.perf_counter() - started)
                await connection.close()
            nursery.cancel_scope.cancel()

    trio.run(main)
    pipe.send(took)


def accepts(pipe: Pipe, plan: Plan) -> None:
    """Dial `count` times from `connections` endpoints at once; says the seconds and the processor
    time that the server used meanwhile."""
    pin(1)
    address, node_id = pipe.recv()
    endpoints = [_endpoint(plan, None) for _ in range(plan.connections)]
    watcher = _endpoint(plan, None)

    async def dial(endpoint: Endpoint) -> None:
        for _ in range(plan.count // plan.connections):
            await (await endpoint.dial(address, node_id)).close()

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for endpoint in (watcher, *endpoints):
                await nursery.start(endpoint.run)
            watching = await watcher.dial(address, node_id)
            before_cpu_s = float((await watching.call("usage")).split()[0])
            started = time.perf_counter()
            async with trio.open_nursery() as diallers:
                for endpoint in endpoints:
                    diallers.start_soon(dial, endpoint)
            seconds = time.perf_counter() - started
            used_cpu_s = float((await watching.call("usage")).split()[0]) - before_cpu_s
            pipe.send((seconds, used_cpu_s))
            nursery.cancel_scope.cancel()

    trio.run(main)


def idle(pipe: Pipe, plan: Plan) -> None:
    """Open `connections` and leave them alone; says by how many bytes each made the server grow."""
    pin(1)
    address, node_id = pipe.recv()
    _raise_descriptor_limit()
    endpoints = [_endpoint(plan, None) for _ in range(plan.connections)]
    watcher = _endpoint(plan, None)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(watcher.run)
            watching = await watcher.dial(address, node_id)
            await watching.call("usage")  # what a first call brings is not a connection's
            _, before, open_before = map(float, (await watching.call("usage")).split())
            for endpoint in endpoints:
                await nursery.start(endpoint.run)
                await endpoint.dial(address, node_id)
            _, after, open_after = map(float, (await watching.call("usage")).split())
            pipe.send((after - before) / (open_after - open_before))
            nursery.cancel_scope.cancel()

    trio.run(main)


def calls(pipe: Pipe, plan: Plan) -> None:
    """Call `count` times, one after the other; says how long each took."""
    pin(0 if plan.one_core else 1)
    address, node_id = pipe.recv()
    endpoint = _endpoint(plan, None)
    took: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            connection = await endpoint.dial(address, node_id)
            argument = bytes(plan.message)
            for _ in range(plan.count):
                started = time.perf_counter()
                await connection.call("echo", argument)
                took.append(time.perf_counter() - started)
            nursery.cancel_scope.cancel()

    trio.run(main)
    pipe.send(took)


def frames(pipe: Pipe, plan: Plan) -> None:
    """Send lone frames that come back; says how long there and back took."""
    from transport import ChannelKind

    pin(1)
    address, node_id = pipe.recv()
    endpoint = _endpoint(plan, None)
    took: list[float] = []

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(endpoint.run)
            back = trio.Event()
            endpoint.on_frame(lambda *_: back.set())
            connection = await endpoint.dial(address, node_id)
            votes = connection.channel(ChannelKind.VOTES)
            for _ in range(plan.count):
                back = trio.Event()
                started = time.perf_counter()
                votes.send_nowait(1, bytes(plan.message))
                await back.wait()
                took.append(time.perf_counter() - started)
            nursery.cancel_scope.cancel()

    trio.run(main)
    pipe.send(took)


def _endpoint(plan: Plan, listen: str | None, *, bulk: bool = False) -> Endpoint:
    from native.keys import SecretKey
    from native.values import Algorithm
    from transport import AcceptAll, Endpoint, HelloOffer, Identity, TransportConfig

    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(30))
    return Endpoint(
        Identity(SecretKey.generate(Algorithm.FALCON_512)),
        listen=listen,
        hello=HelloOffer(
            chain_id=CHAIN, chain_name="bench", capabilities=("bulk",) if bulk else ()
        ),
        verifier=AcceptAll(),
        config=TransportConfig(mtu_bytes_max=plan.mtu, **plan.settings),
    )


def _resident_bytes() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES


def _raise_descriptor_limit() -> None:
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
