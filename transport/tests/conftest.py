"""Endpoints on `[::1]` with ephemeral ports, on the engine that `HYPERMESH_TEST_ENGINE` names."""

import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import trio

from native.keys import SecretKey
from native.values import Algorithm
from transport import AcceptAll, Connection, Endpoint, HelloOffer, Identity, TransportConfig
from transport.identity import PeerVerifier

CHAIN = b"\x07" * 32
ENGINE = os.environ.get("HYPERMESH_TEST_ENGINE", "rust")
Start: TypeAlias = Callable[..., Awaitable[Endpoint]]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out what the reference engine is known not to do."""
    for item in items:
        mark = item.get_closest_marker("rust_only")
        if mark is not None and ENGINE != "rust":
            item.add_marker(pytest.mark.skip(reason=mark.args[0]))


@pytest.fixture(scope="session")
def identities() -> list[Identity]:
    """Four Falcon-512 keys, by ascending NodeId."""
    keys = [Identity(SecretKey.generate(Algorithm.FALCON_512)) for _ in range(4)]
    return sorted(keys, key=lambda identity: identity.node_id)


def offer(**changes: Any) -> HelloOffer:
    """What a test node says."""
    return HelloOffer(**{"chain_id": CHAIN, "chain_name": "test", **changes})


@pytest.fixture
async def start(nursery: trio.Nursery) -> Start:
    """`await start(identity, ...)` gives a running endpoint on `[::1]`."""

    async def start_endpoint(
        identity: Identity,
        *,
        listen: str | None = "[::1]:0",
        hello: HelloOffer | None = None,
        verifier: PeerVerifier | None = None,
        **config: Any,
    ) -> Endpoint:
        endpoint = Endpoint(
            identity,
            listen=listen,
            hello=hello or offer(),
            verifier=verifier or AcceptAll(),
            config=TransportConfig(**{"engine": ENGINE, **config}),
        )
        await nursery.start(endpoint.run)
        return endpoint

    return start_endpoint


async def pair(
    start: Start, identities: list[Identity], **config: Any
) -> tuple[Connection, Connection]:
    """A connection and its other end."""
    dialler, acceptor = await start(identities[0], **config), await start(identities[1], **config)
    ours = await dialler.dial(acceptor.address, identities[1].node_id)
    return ours, await acceptor.accept()
