"""Connections by NodeId: dialled when somebody wants one, kept where they must not be missing.

    connection = await pool.connection(node_id)

A connection to a node is dialled once, however many tasks ask. Those that nobody has used for a
while are closed, and so is the one used least recently when the pool is full; kept ones never are.
A connection is in use while a stream or a call is open on it, or frames wait: who only sends frames
keeps the node.
"""

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog
import trio

from native.values import NodeId
from transport.core.events import ChannelKind, CloseReason
from transport.core.pool import backoff_s
from transport.errors import (
    AddressUnknown,
    EndpointStopped,
    PoolFull,
    TransportError,
)
from transport.limits import (
    DIAL_TIMEOUT_S,
    POOL_CONNECTIONS_MAX,
    POOL_IDLE_TIMEOUT_S,
)
from transport.runtime.connection import Connection
from transport.runtime.endpoint import Endpoint, checked_addresses

_log = structlog.get_logger("transport.pool")


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolStatistics:
    """Counters (`_total`) since the pool was made, and gauges."""

    nodes: int  # whose addresses are known
    kept: int
    connections: int  # that the pool counts against its bound
    dialling: int
    dials_total: int
    dials_failed_total: int
    reused_total: int
    evicted_idle_total: int
    evicted_full_total: int


@dataclass(slots=True, kw_only=True, eq=False)
class _Dial:
    """An attempt that several tasks may wait for."""

    over: trio.Event = field(default_factory=trio.Event)
    error: TransportError | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class _Node:
    """What the pool knows of one node."""

    addresses: tuple[str, ...]
    kept: bool = False
    keeper: trio.CancelScope | None = None
    dial: _Dial | None = None
    attempt: int = 0
    not_before_s: float = 0.0
    changed: trio.Event = field(default_factory=trio.Event)  # the addresses
    trying: trio.CancelScope | None = None  # of an attempt at addresses that may change
    used_s: float = 0.0
    counted: bool = False  # against `connections_max`


class Pool:
    """Both ends of a pair may run one: the rule of duplicates leaves a single connection."""

    def __init__(
        self,
        endpoint: Endpoint,
        addresses: Mapping[NodeId, str | Sequence[str]],
        *,
        keep: Collection[NodeId] | None = None,
        connections_max: int = POOL_CONNECTIONS_MAX,
        idle_timeout_s: float = POOL_IDLE_TIMEOUT_S,
    ) -> None:
        """`keep` names the nodes that `run` keeps connected; without it, all of `addresses`."""
        self._endpoint: Final = endpoint
        self._connections_max: Final = connections_max
        self._idle_timeout_s: Final = idle_timeout_s
        self._nodes: dict[NodeId, _Node] = {}
        self._nursery: trio.Nursery | None = None
        self._random = random.SystemRandom()
        self._counts = dict.fromkeys(
            ("dials", "dials_failed", "reused", "evicted_idle", "evicted_full"), 0
        )
        for node_id, places in addresses.items():
            if node_id != endpoint.identity.node_id:
                self.set_addresses(node_id, places)
        for node_id in self._nodes if keep is None else keep:
            if node_id != endpoint.identity.node_id:
                self.keep(node_id)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Keep what is to be kept and close what is idle, until cancelled."""
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                for node_id, node in self._nodes.items():
                    if node.kept:
                        self._start_keeper(node_id, node)
                task_status.started()
                while True:
                    await trio.sleep(self._idle_timeout_s / 4)
                    self._close_idle()
            finally:
                self._nursery = None

    async def connection(self, node_id: NodeId) -> Connection:
        """An open connection to this node; dials if there is none, after the pause that earlier
        failures ask for. Raises `DialFailed`, `AddressUnknown`, `PoolFull`, `EndpointStopped`."""
        await trio.lowlevel.checkpoint()
        connection = self._existing(node_id)
        if connection is not None:
            self._counts["reused"] += 1
            return connection
        return await self._connect(node_id)

    # --- what is known may change at any time

    def set_addresses(self, node_id: NodeId, addresses: str | Sequence[str]) -> None:
        """Where to dial this node from now on, best first. An open connection stays. Raises
        `AddressInvalid`."""
        checked = checked_addresses(addresses)
        node = self._nodes.setdefault(node_id, _Node(addresses=checked))
        if node.addresses != checked:
            node.addresses, node.attempt, node.not_before_s = checked, 0, 0.0
            node.changed.set()
            node.changed = trio.Event()
            if node.trying is not None:
                node.trying.cancel()

    def keep(self, node_id: NodeId) -> None:
        """Have `run` keep a connection to this node. Raises `AddressUnknown`."""
        node = self._node(node_id)
        if not node.kept:
            node.kept = True
            self._start_keeper(node_id, node)

    def release(self, node_id: NodeId) -> None:
        """Undo `keep`: the connection is closed once it is idle."""
        node = self._nodes.get(node_id)
        if node is not None:
            node.kept = False
            if node.keeper is not None:
                node.used_s = trio.current_time()
                node.keeper.cancel()
                node.keeper = None

    def forget(self, node_id: NodeId) -> None:
        """Know no address of this node any more; an open connection stays, and is no longer the
        pool's."""
        self.release(node_id)
        self._nodes.pop(node_id, None)

    def statistics(self) -> PoolStatistics:
        """What the pool does."""
        nodes = self._nodes.values()
        return PoolStatistics(
            nodes=len(self._nodes),
            kept=sum(node.kept for node in nodes),
            connections=len(self._counted()),
            dialling=sum(node.dial is not None for node in nodes),
            dials_total=self._counts["dials"],
            dials_failed_total=self._counts["dials_failed"],
            reused_total=self._counts["reused"],
            evicted_idle_total=self._counts["evicted_idle"],
            evicted_full_total=self._counts["evicted_full"],
        )

    # --- dialling

    def _node(self, node_id: NodeId) -> _Node:
        node = self._nodes.get(node_id)
        if node is None:
            raise AddressUnknown(node_id.hex()[:16])
        return node

    def _existing(self, node_id: NodeId) -> Connection | None:
        connection = self._endpoint.peer(node_id)
        node = self._nodes.get(node_id)
        if connection is not None and node is not None:
            node.used_s = trio.current_time()
        return connection

    async def _connect(self, node_id: NodeId) -> Connection:
        """Dial, or wait for the task that does. If that one is cancelled, another goes on."""
        while True:
            connection = self._existing(node_id)
            if connection is not None:
                return connection
            node = self._node(node_id)
            if node.dial is None:
                return await self._lead(node_id, node)
            dial = node.dial
            await dial.over.wait()
            if dial.error is not None:
                raise dial.error

    async def _lead(self, node_id: NodeId, node: _Node) -> Connection:
        self._make_room()
        dial = node.dial = _Dial()
        try:
            await self._pause(node)
            connection = self._existing(node_id)  # the peer may have dialled meanwhile
            if connection is None:
                connection = await self._dial(node_id, node)
        except TransportError as error:
            dial.error = error
            raise
        else:
            node.attempt = 0
            node.used_s = trio.current_time()
            node.not_before_s = node.used_s + backoff_s(0, self._random.random())
            node.counted = connection.dialled
            return connection
        finally:
            node.dial = None
            dial.over.set()

    async def _pause(self, node: _Node) -> None:
        """Until the next attempt is due; new addresses are tried at once."""
        while (pause_s := node.not_before_s - trio.current_time()) > 0:
            changed = node.changed
            with trio.move_on_after(pause_s):
                await changed.wait()

    async def _dial(self, node_id: NodeId, node: _Node) -> Connection:
        """One attempt; the first failure and every tenth are worth a line."""
        self._counts["dials"] += 1
        try:
            while True:  # again only if the addresses have changed under way
                tried = node.addresses
                with trio.CancelScope() as node.trying:
                    return await self._endpoint.dial(tried, node_id, timeout_s=DIAL_TIMEOUT_S)
        except EndpointStopped:
            raise
        except TransportError as error:
            problem = error
        finally:
            node.trying = None
        self._counts["dials_failed"] += 1
        if node.attempt % 10 == 0:
            _log.info(
                "transport.dial_failed",
                peer=node_id.hex()[:16],
                addresses=tried,
                attempt=node.attempt + 1,
                problem=str(problem),
            )
        pause_s = backoff_s(node.attempt, self._random.random())
        node.not_before_s = trio.current_time() + pause_s
        node.attempt += 1
        raise problem

    # --- keeping

    def _start_keeper(self, node_id: NodeId, node: _Node) -> None:
        if self._nursery is not None:
            node.keeper = trio.CancelScope()
            name = f"transport.pool {node_id.hex()[:8]}"
            self._nursery.start_soon(self._keep, node_id, node.keeper, name=name)

    async def _keep(self, node_id: NodeId, scope: trio.CancelScope) -> None:
        with scope:
            while True:
                try:
                    connection = await self._connect(node_id)
                except EndpointStopped:
                    return  # closed on purpose; nothing can be kept any more
                except PoolFull:
                    await trio.sleep(backoff_s(16, self._random.random()))
                except TransportError:
                    continue  # counted and told; the next attempt waits for its time
                else:
                    await connection.closed.wait()

    # --- making room

    def _counted(self) -> dict[NodeId, Connection | None]:
        """What fills the pool: connections it dialled that are open (None: being dialled)."""
        filling: dict[NodeId, Connection | None] = {}
        for node_id, node in self._nodes.items():
            connection = self._endpoint.peer(node_id)
            if node.dial is not None:
                filling[node_id] = None
            elif node.counted and connection is not None and connection.dialled:
                filling[node_id] = connection
            else:
                node.counted = False
        return filling

    def _make_room(self) -> None:
        filling = self._counted()
        if len(filling) < self._connections_max:
            return
        idle = self._idle(filling)
        if not idle:
            raise PoolFull(f"all {len(filling)} connections of the pool are in use")
        oldest = min(idle, key=lambda node_id: self._nodes[node_id].used_s)
        self._counts["evicted_full"] += 1
        idle[oldest].close_now(CloseReason.UNUSED, "another peer needs its place")

    def _close_idle(self) -> None:
        now_s = trio.current_time()
        filling = self._counted()
        idle = self._idle(filling)
        for node_id, connection in filling.items():
            node = self._nodes[node_id]
            if node_id not in idle:
                node.used_s = now_s
            elif connection is not None and now_s - node.used_s >= self._idle_timeout_s:
                self._counts["evicted_idle"] += 1
                connection.close_now(CloseReason.UNUSED, "unused")

    def _idle(self, filling: Mapping[NodeId, Connection | None]) -> dict[NodeId, Connection]:
        return {
            node_id: connection
            for node_id, connection in filling.items()
            if connection is not None
            and not self._nodes[node_id].kept
            and not connection.stream_count
            and not any(connection.channel(kind).queued_bytes for kind in ChannelKind)
        }
