"""A bad link in user space: a UDP proxy in front of one target, for tests and rehearsals.

    proxy = Proxy(acceptor.address, seed=1, both=Impairment(drop=0.02))
    await nursery.start(proxy.run)
    connection = await dialler.dial(proxy.address, acceptor.identity.node_id)

Every client address gets a socket of its own towards the target, as behind a NAT. All of them share
one link per direction, so that connections compete for its rate. It needs no privileges, and no
help from the kernel but two IPv6 sockets; it forwards ECN marks.

It is not fast: some 20,000 datagrams per second. The same seed gives the same decisions for the
same datagrams, but two runs of a protocol over real sockets seldom send the same datagrams.
"""

import errno
import heapq
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final, NamedTuple, Self, TypeAlias

import trio

from transport.core.impairment import CLEAN, Impairment, Link, LinkStatistics, Loss, mix
from transport.errors import BindFailed, EndpointStopped
from transport.limits import (
    PROXY_CLIENTS_MAX,
    PROXY_DATAGRAMS_PER_TURN,
    PROXY_IN_FLIGHT_BYTES_MAX,
    SOCKET_BUFFER_BYTES,
    UDP_PAYLOAD_BYTES_MAX,
)
from transport.runtime.endpoint import checked_address

_Address: TypeAlias = tuple[str, int]
_ECN_BITS: Final = 0b11
_ECN_CAPABLE: Final = (0b01, 0b10)  # RFC 3168, section 5
_CONGESTION_EXPERIENCED: Final = 0b11
_PASSING: Final = (
    errno.EAGAIN,
    errno.ENOBUFS,
    errno.ECONNREFUSED,
    errno.ENETUNREACH,
    errno.EHOSTUNREACH,
    errno.EMSGSIZE,
)


class Direction(IntEnum):
    """Where a datagram goes."""

    TO_TARGET = 0
    TO_CLIENT = 1


class Datagram(NamedTuple):
    """What a script sees of one datagram; `number` counts its direction, from 1."""

    direction: Direction
    number: int
    data: bytes
    ecn: int


Script: TypeAlias = Callable[[Datagram], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProxyStatistics:
    """Counters since `run` began. `bytes_received` of a link is what that side really sent."""

    to_target: LinkStatistics
    to_client: LinkStatistics
    clients: int
    clients_evicted: int
    rebinds: int
    send_errors: int
    ecn_capable: tuple[int, int]  # datagrams that allow marks, by direction
    ecn_marked: tuple[int, int]  # those that were marked here


@dataclass(slots=True, kw_only=True, eq=False)
class _Client:
    """One client address and its way to the target."""

    address: _Address
    upstream: socket.socket
    heard_at: float = 0.0


@dataclass(slots=True, order=True)
class _InFlight:
    deliver_at: float
    number: int
    direction: Direction = field(compare=False)
    client: _Client = field(compare=False)
    data: bytes = field(compare=False)
    ecn: int = field(compare=False)


class Proxy:
    """See the module. Changes while it runs take effect with the next datagram."""

    def __init__(
        self,
        target: str,
        *,
        seed: int,
        listen: str = "[::1]:0",
        both: Impairment = CLEAN,
        clients_max: int = PROXY_CLIENTS_MAX,
    ) -> None:
        self._target = _parsed(target)
        self._listen = _parsed(listen)
        self._clients_max = clients_max
        self._links = (Link(seed, both), Link(mix(seed) + 1, both))
        self._source: _Address = ("::", 0)
        self._scripts: list[Script] = []
        self._partitioned = [False, False]
        self._socket: socket.socket | None = None
        self._nursery: trio.Nursery | None = None
        self._clients: dict[_Address, _Client] = {}
        self._in_flight: list[_InFlight] = []
        self._in_flight_bytes = 0
        self._in_flight_number = 0
        self._earlier = trio.Event()  # something is due before what the courier waits for
        self._received = [0, 0]
        self._ecn_capable = [0, 0]
        self._ecn_marked = [0, 0]
        self._clients_evicted = self._rebinds = self._send_errors = 0

    async def run(self, *, task_status: trio.TaskStatus[Self] = trio.TASK_STATUS_IGNORED) -> None:
        """Forward until cancelled. Raises `BindFailed`."""
        with self._bound(self._listen) as listener:
            self._socket = listener
            try:
                async with trio.open_nursery() as nursery:
                    self._nursery = nursery
                    nursery.start_soon(self._deliver, name="proxy.deliver")
                    task_status.started(self)
                    await self._read(listener, Direction.TO_TARGET, None)
            finally:
                self._nursery = self._socket = None
                for client in self._clients.values():
                    client.upstream.close()
                self._clients.clear()
                self._in_flight.clear()

    # --- what a test asks and changes

    @property
    def address(self) -> str:
        """Where clients dial; raises `EndpointStopped` before `run`."""
        if self._socket is None:
            raise EndpointStopped("the proxy is not running")
        host, port = self._socket.getsockname()[:2]
        return f"[{host}]:{port}"

    def impair(self, impairment: Impairment, *directions: Direction) -> None:
        """Have a link like this from now on: both directions, or those that are named."""
        for direction in directions or tuple(Direction):
            self._links[direction].impairment = impairment

    def partition(self, direction: Direction, cut: bool = True) -> None:
        """Lose everything of one direction, or stop doing so. Datagrams on their way arrive."""
        self._partitioned[direction] = cut

    def blackhole(self, cut: bool = True) -> None:
        """Lose everything of both directions, or stop doing so."""
        for direction in Direction:
            self.partition(direction, cut)

    def rebind(self, host: str | None = None) -> None:
        """Reach the target from new source ports, as a NAT that forgot does; with `host`, from
        that local address. What the target sends to the old ones is lost."""
        if host is not None:
            self._source = (host, 0)
        self._rebinds += 1
        for client in self._clients.values():
            _close(client.upstream)
            client.upstream = self._dialled()
            self._start_reading(client)

    def retarget(self, target: str) -> None:
        """Forward to another address from now on, from new source ports."""
        self._target = _parsed(target)
        self.rebind()

    def drop_when(self, script: Script) -> None:
        """Lose datagrams for which this gives true. It sees every datagram that is not lost to an
        earlier script, so it may also just watch."""
        self._scripts.append(script)

    def drop_nth(self, direction: Direction, *numbers: int) -> None:
        """Lose these datagrams of a direction, counted from 1 since `run` began."""
        self.drop_when(lambda seen: seen.direction is direction and seen.number in numbers)

    def statistics(self) -> ProxyStatistics:
        """Counters since `run` began."""
        return ProxyStatistics(
            to_target=self._links[Direction.TO_TARGET].statistics(),
            to_client=self._links[Direction.TO_CLIENT].statistics(),
            clients=len(self._clients),
            clients_evicted=self._clients_evicted,
            rebinds=self._rebinds,
            send_errors=self._send_errors,
            ecn_capable=(self._ecn_capable[0], self._ecn_capable[1]),
            ecn_marked=(self._ecn_marked[0], self._ecn_marked[1]),
        )

    # --- sockets to links

    async def _read(
        self, source: socket.socket, direction: Direction, client: _Client | None
    ) -> None:
        while source.fileno() >= 0:
            try:
                await trio.lowlevel.wait_readable(source)
            except trio.ClosedResourceError:  # we left this port
                return
            now = trio.current_time()
            for _ in range(PROXY_DATAGRAMS_PER_TURN):
                try:
                    data, ancillary, _, address = source.recvmsg(
                        UDP_PAYLOAD_BYTES_MAX, socket.CMSG_SPACE(4)
                    )
                except BlockingIOError:
                    break
                except OSError as error:  # an ICMP answer to something we sent
                    if source.fileno() < 0:
                        return
                    if error.errno not in _PASSING:
                        raise
                    continue
                sender = client or self._client(address[:2])
                sender.heard_at = now
                self._pass(direction, sender, data, _ecn_of(ancillary), now)

    def _pass(
        self, direction: Direction, client: _Client, data: bytes, ecn: int, now: float
    ) -> None:
        self._received[direction] += 1
        self._ecn_capable[direction] += ecn in _ECN_CAPABLE
        link = self._links[direction]
        seen = Datagram(direction, self._received[direction], data, ecn)
        if any(script(seen) for script in self._scripts):
            return link.lose(data, Loss.SCRIPTED)
        if self._partitioned[direction]:
            return link.lose(data, Loss.PARTITIONED)
        if self._in_flight_bytes + len(data) > PROXY_IN_FLIGHT_BYTES_MAX:
            return link.lose(data, Loss.QUEUE_FULL)
        for delivery in link.decide(data, now):
            marked = ecn
            if delivery.marked and ecn in _ECN_CAPABLE:
                marked = _CONGESTION_EXPERIENCED
                self._ecn_marked[direction] += 1
            if delivery.deliver_at <= now:
                self._send(direction, client, delivery.data, marked)
                continue
            self._in_flight_number += 1
            self._in_flight_bytes += len(delivery.data)
            due, number = delivery.deliver_at, self._in_flight_number
            item = _InFlight(due, number, direction, client, delivery.data, marked)
            if not self._in_flight or item < self._in_flight[0]:
                self._earlier.set()
            heapq.heappush(self._in_flight, item)
        return None

    # --- links to sockets

    async def _deliver(self) -> None:
        while True:
            while self._in_flight and self._in_flight[0].deliver_at <= trio.current_time():
                item = heapq.heappop(self._in_flight)
                self._in_flight_bytes -= len(item.data)
                self._send(item.direction, item.client, item.data, item.ecn)
            self._earlier = trio.Event()
            with trio.CancelScope() as scope:
                if self._in_flight:
                    scope.deadline = self._in_flight[0].deliver_at
                await self._earlier.wait()

    def _send(self, direction: Direction, client: _Client, data: bytes, ecn: int) -> None:
        listener = self._socket
        if listener is None or self._clients.get(client.address) is not client:
            return
        marks = [(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, struct.pack("i", ecn))]
        try:
            if direction is Direction.TO_TARGET:
                client.upstream.sendmsg([data], marks)
            else:
                listener.sendmsg([data], marks, 0, client.address)
        except OSError as error:  # nobody listens there now, or a full buffer: a loss like others
            if error.errno not in _PASSING:
                raise
            self._send_errors += 1

    # --- clients

    def _client(self, address: _Address) -> _Client:
        known = self._clients.get(address)
        if known is not None:
            return known
        if len(self._clients) >= self._clients_max:
            silent = min(self._clients.values(), key=lambda client: client.heard_at)
            _close(silent.upstream)
            del self._clients[silent.address]
            self._clients_evicted += 1
        client = _Client(address=address, upstream=self._dialled())
        self._clients[address] = client
        self._start_reading(client)
        return client

    def _start_reading(self, client: _Client) -> None:
        if self._nursery is not None:
            self._nursery.start_soon(
                self._read, client.upstream, Direction.TO_CLIENT, client, name="proxy.read"
            )

    def _dialled(self) -> socket.socket:
        upstream = self._bound(self._source)
        upstream.connect(self._target)
        return upstream

    def _bound(self, address: _Address) -> socket.socket:
        bound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
            bound.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_DONTFRAG, 1)
            for buffer in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                bound.setsockopt(socket.SOL_SOCKET, buffer, SOCKET_BUFFER_BYTES)
            bound.setblocking(False)
            bound.bind(address)
        except OSError as error:
            bound.close()
            raise BindFailed(f"[{address[0]}]:{address[1]}", str(error)) from error
        return bound


def _close(upstream: socket.socket) -> None:
    trio.lowlevel.notify_closing(upstream)
    upstream.close()


def _parsed(address: str) -> _Address:
    host, _, port = checked_address(address).rpartition(":")
    return host[1:-1], int(port)


def _ecn_of(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.IPPROTO_IPV6, socket.IPV6_TCLASS):
            value: int = struct.unpack("i", data)[0]
            return value & _ECN_BITS
    return 0
