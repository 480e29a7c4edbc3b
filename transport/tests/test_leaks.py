"""Connections come and go; nothing of them stays."""

import gc
import os
import resource
import tracemalloc

import pytest
import trio
from trio.lowlevel import current_statistics

from transport import Endpoint, Identity
from transport.tests.conftest import ENGINE, Start


def descriptors() -> int:
    """Open ones of this process."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes() -> int:
    """What this process holds now."""
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * resource.getpagesize()


async def cycle(dialler: Endpoint, acceptor: Endpoint) -> None:
    """Connect, use everything a little, close; until both ends have forgotten it."""
    with trio.fail_after(10):
        ours = await dialler.dial(acceptor.address, acceptor.identity.node_id)
        theirs = await acceptor.accept()
        ours.send_datagram_nowait(b"datagram")
        await ours.ping()
        stream = await ours.open_stream()
        await stream.send_last(b"stream")
        incoming = await theirs.accept_stream()
        assert await incoming.receive_some() == b"stream"
        incoming.abort()
        stream.abort()
        await ours.close()
        await theirs.closed.wait()


async def cycles_leave_nothing(start: Start, identities: list[Identity], count: int) -> int:
    """Bytes of memory that the process grew by, of which Python knows nothing that counts."""
    # Tickets are kept, up to a limit; on the reference engine as objects of Python.
    resumption = ENGINE == "rust"
    dialler = await start(identities[0], resumption=resumption)
    acceptor = await start(identities[1], resumption=resumption)
    for _ in range(20):  # caches, pools of buffers and lazy imports fill once
        await cycle(dialler, acceptor)
    gc.collect()
    tasks, open_before, held = current_statistics().tasks_living, descriptors(), resident_bytes()
    tracemalloc.start()
    traced, _ = tracemalloc.get_traced_memory()
    try:
        for _ in range(count):
            await cycle(dialler, acceptor)
        for endpoint in (dialler, acceptor):
            with trio.fail_after(10):  # an engine answers late packets for three timeouts
                while endpoint.statistics().memory_granted_bytes:
                    await trio.lowlevel.checkpoint()
        gc.collect()
        grown = tracemalloc.get_traced_memory()[0] - traced
    finally:
        tracemalloc.stop()
    assert current_statistics().tasks_living == tasks
    assert descriptors() == open_before
    for endpoint in (dialler, acceptor):
        statistics = endpoint.statistics()
        assert (statistics.connections, statistics.handshakes, statistics.streams) == (0, 0, 0)
    assert grown < 200_000, f"{grown} bytes of Python objects stayed after {count} connections"
    return resident_bytes() - held


async def test_two_hundred_connections_leave_nothing_behind(
    start: Start, identities: list[Identity]
) -> None:
    assert await cycles_leave_nothing(start, identities, 200) < 30_000_000


@pytest.mark.soak
async def test_ten_thousand_connections_leave_nothing_behind(
    start: Start, identities: list[Identity]
) -> None:
    assert await cycles_leave_nothing(start, identities, 10_000) < 50_000_000
