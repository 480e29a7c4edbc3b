"""Keeps one connection to each of a set of peers, dialling again with back-off."""

import random
from collections.abc import Mapping

import structlog
import trio

from native.values import NodeId
from transport.core.pool import backoff_s
from transport.errors import ConnectionEnded, EndpointStopped, TransportError
from transport.limits import DIAL_TIMEOUT_S
from transport.runtime.connection import Connection
from transport.runtime.endpoint import Endpoint

_log = structlog.get_logger("transport.pool")


class Pool:
    """Both ends of a pair may run one: the rule of duplicates leaves a single connection."""

    def __init__(self, endpoint: Endpoint, addresses: Mapping[NodeId, str]) -> None:
        self._endpoint = endpoint
        self._addresses = {
            node_id: address
            for node_id, address in addresses.items()
            if node_id != endpoint.identity.node_id
        }
        self._random = random.SystemRandom()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep connecting until cancelled."""
        async with trio.open_nursery() as nursery:
            for node_id, address in self._addresses.items():
                name = f"transport.pool {node_id.hex()[:8]}"
                nursery.start_soon(self._keep, node_id, address, name=name)
            task_status.started()

    async def _keep(self, node_id: NodeId, address: str) -> None:
        attempt = 0
        while True:
            connection = await self._dial(node_id, address, attempt)
            if connection is not None:
                attempt = 0
                await connection.closed.wait()
            await trio.sleep(backoff_s(attempt, self._random.random()))
            attempt += 1

    async def _dial(self, node_id: NodeId, address: str, attempt: int) -> Connection | None:
        """One attempt; the first failure and every tenth are worth a line."""
        problem = f"no answer within {DIAL_TIMEOUT_S:g} s"
        try:
            with trio.move_on_after(DIAL_TIMEOUT_S):
                return await self._endpoint.dial(address, node_id)
        except EndpointStopped:
            raise
        except (ConnectionEnded, TransportError) as error:
            problem = str(error)
        if attempt % 10 == 0:
            _log.info(
                "transport.dial_failed",
                peer=node_id.hex()[:16],
                address=address,
                attempt=attempt + 1,
                problem=problem,
            )
        return None
