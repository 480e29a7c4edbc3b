"""Two endpoints with a bad link between them, and data that shows when it is damaged."""

import hashlib
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, get_args

import trio

from native.keys import SecretKey
from native.values import Algorithm
from transport import Connection, Endpoint, Identity, TransportConfig
from transport.core.impairment import CLEAN, Impairment
from transport.runtime.proxy import Proxy
from transport.tests.conftest import Start

ENGINES: tuple[str, ...] = get_args(TransportConfig.model_fields["engine"].annotation)
PAIRINGS = list(itertools.product(ENGINES, ENGINES))  # dialler and acceptor
PATIENCE_S = 30  # what a busy machine may take for the longest of these transfers
_MADE: dict[tuple[Algorithm, int], Identity] = {}


def identity(algorithm: Algorithm, number: int = 0) -> Identity:
    """A key of this algorithm, made once per run of the tests."""
    place = (algorithm, number)
    if place not in _MADE:
        _MADE[place] = Identity(SecretKey.generate(algorithm))
    return _MADE[place]


@dataclass(frozen=True, slots=True, kw_only=True)
class Linked:
    """A dialler, an acceptor, and the proxy that the dialler takes for the acceptor."""

    dialler: Endpoint
    acceptor: Endpoint
    proxy: Proxy

    async def connect(self) -> tuple[Connection, Connection]:
        """Both ends of a connection through the proxy."""
        with trio.fail_after(PATIENCE_S):
            ours = await self.dialler.dial(self.proxy.address, self.acceptor.identity.node_id)
            return ours, await self.acceptor.accept()


async def linked(
    start: Start,
    nursery: trio.Nursery,
    identities: Sequence[Identity],
    impairment: Impairment = CLEAN,
    *,
    seed: int = 1,
    engines: tuple[str, str] = ("rust", "rust"),
    **config: Any,
) -> Linked:
    """Running endpoints and a running proxy; `engines` are the dialler's and the acceptor's."""
    dialler = await start(identities[0], engine=engines[0], **config)
    acceptor = await start(identities[1], engine=engines[1], **config)
    proxy = Proxy(acceptor.address, seed=seed, both=impairment)
    await nursery.start(proxy.run)
    return Linked(dialler=dialler, acceptor=acceptor, proxy=proxy)


def payload(size: int, seed: int = 0) -> bytes:
    """Bytes without a pattern, so that a shift or a swap shows."""
    return hashlib.shake_128(seed.to_bytes(8)).digest(size)


async def send(source: Connection, target: Connection, data: bytes) -> None:
    """One stream with this data, checked at the other end."""
    stream = await source.open_uni()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(stream.send_last, data)
        incoming = await target.accept_uni()
        parts = [part async for part in incoming]
    assert b"".join(parts) == data
    await incoming.aclose()
    await stream.aclose()


async def exchange(ours: Connection, theirs: Connection, size: int) -> None:
    """So many bytes in both directions at a time."""
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(send, ours, theirs, payload(size, 1))
            nursery.start_soon(send, theirs, ours, payload(size, 2))


async def closes_cleanly(ours: Connection, theirs: Connection) -> None:
    """The acceptor's end says what the dialler's did."""
    with trio.fail_after(PATIENCE_S):
        await ours.close(detail="all said")
        await theirs.closed.wait()
    assert theirs.closure is not None
    assert theirs.closure.detail == "all said"
