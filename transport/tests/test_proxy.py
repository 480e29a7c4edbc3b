"""The proxy carries what its links decide, over real sockets."""

import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, TypeAlias

import pytest
import trio

from transport.core.impairment import Impairment, Loss
from transport.errors import AddressInvalid, BindFailed, EndpointStopped
from transport.runtime.proxy import Datagram, Direction, Proxy

StartProxy: TypeAlias = Callable[..., Awaitable[Proxy]]
ANY = ("::1", 0)


class Peer:
    """A plain socket with a bound on waiting."""

    def __init__(self, channel: trio.socket.SocketType) -> None:
        self.channel = channel

    @property
    def port(self) -> int:
        port: int = self.channel.getsockname()[1]
        return port

    @property
    def address(self) -> str:
        return f"[::1]:{self.port}"

    async def send(self, data: bytes, address: str) -> None:
        await self.channel.sendto(data, ("::1", int(address.rpartition(":")[2])))

    async def receive(self) -> tuple[bytes, str]:
        with trio.fail_after(10):
            data, (_, port, *_) = await self.channel.recvfrom(65_536)
            return data, f"[::1]:{port}"


async def peer() -> Peer:
    channel = trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    await channel.bind(ANY)
    return Peer(channel)


@pytest.fixture
async def target() -> AsyncIterator[Peer]:
    made = await peer()
    yield made
    made.channel.close()


@pytest.fixture
async def client() -> AsyncIterator[Peer]:
    made = await peer()
    yield made
    made.channel.close()


@pytest.fixture
async def through(target: Peer, nursery: trio.Nursery) -> StartProxy:
    """`await through(...)` gives a running proxy in front of `target`."""

    async def start_proxy(impairment: Impairment | None = None, **options: Any) -> Proxy:
        proxy = Proxy(target.address, seed=7, both=impairment or Impairment(), **options)
        await nursery.start(proxy.run)
        return proxy

    return start_proxy


async def settled(condition: Callable[[], bool]) -> None:
    with trio.fail_after(10):
        while not condition():
            await trio.lowlevel.checkpoint()


async def test_question_and_answer_pass(through: StartProxy, target: Peer, client: Peer) -> None:
    proxy = await through()
    await client.send(b"question", proxy.address)
    data, source = await target.receive()
    assert (data, source != client.address) == (b"question", True)
    await target.send(b"a longer answer", source)
    assert await client.receive() == (b"a longer answer", proxy.address)
    counted = proxy.statistics()
    assert (counted.to_target.bytes_received, counted.to_client.bytes_received) == (8, 15)
    assert (counted.clients, counted.send_errors) == (1, 0)


async def test_each_client_has_a_port_of_its_own(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through()
    other = await peer()
    sources = []
    for sender, data in ((client, b"one"), (other, b"other"), (client, b"one")):
        await sender.send(data, proxy.address)
        sources.append((await target.receive())[1])
    assert sources[0] == sources[2] != sources[1]
    await target.send(b"for the other", sources[1])
    assert (await other.receive())[0] == b"for the other"
    other.channel.close()


async def test_a_delay_is_kept(through: StartProxy, target: Peer, client: Peer) -> None:
    proxy = await through(Impairment(delay_s=0.03))
    began = trio.current_time()
    for data in (b"1", b"2"):
        await client.send(data, proxy.address)
    assert [(await target.receive())[0] for _ in range(2)] == [b"1", b"2"]
    assert trio.current_time() - began >= 0.03


async def test_datagrams_overtake_each_other(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through(Impairment(reorder=0.3, reorder_s=0.01))
    sent = [bytes([n]) for n in range(40)]
    for data in sent:
        await client.send(data, proxy.address)
    received = [(await target.receive())[0] for _ in sent]
    assert received != sent
    assert sorted(received) == sent


async def test_losses_and_copies_are_counted(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through(Impairment(drop=0.2, duplicate=0.2, corrupt=0.2))
    for _ in range(200):
        await client.send(bytes(10), proxy.address)
    await settled(lambda: proxy.statistics().to_target.datagrams_received == 200)
    counted = proxy.statistics().to_target
    received = [(await target.receive())[0] for _ in range(counted.datagrams_delivered)]
    assert counted.lost[Loss.CHANCE] > 0 < counted.duplicated
    assert len(received) == 200 - counted.lost_total + counted.duplicated
    assert any(data != bytes(10) for data in received)


async def test_a_rate_stretches_a_burst_and_a_full_queue_loses(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through(Impairment(rate_bytes_per_s=200_000, queue_bytes_max=6_000))
    began = trio.current_time()
    for _ in range(20):
        await client.send(bytes(1_000), proxy.address)
    await settled(lambda: proxy.statistics().to_target.datagrams_received == 20)
    counted = proxy.statistics().to_target
    for _ in range(counted.datagrams_delivered):
        await target.receive()
    assert counted.lost[Loss.QUEUE_FULL] == 20 - counted.datagrams_delivered > 0
    assert trio.current_time() - began >= counted.bytes_delivered / 200_000


async def test_what_is_larger_than_the_path_vanishes(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through(Impairment(mtu_bytes=1_280))
    for size in (1_281, 1_280):
        await client.send(bytes(size), proxy.address)
    assert len((await target.receive())[0]) == 1_280
    assert proxy.statistics().to_target.lost[Loss.TOO_LARGE] == 1


async def test_a_new_port_keeps_the_client(through: StartProxy, target: Peer, client: Peer) -> None:
    proxy = await through()
    await client.send(b"before", proxy.address)
    _, old = await target.receive()
    proxy.rebind()
    await client.send(b"after", proxy.address)
    data, new = await target.receive()
    assert (data, old != new) == (b"after", True)
    await target.send(b"to the old port", old)
    await target.send(b"to the new port", new)
    assert (await client.receive())[0] == b"to the new port"
    assert proxy.statistics().rebinds == 1


async def test_one_way_partition_and_black_hole(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through()
    proxy.partition(Direction.TO_CLIENT)
    await client.send(b"heard", proxy.address)
    _, source = await target.receive()
    await target.send(b"not heard", source)
    await settled(lambda: proxy.statistics().to_client.lost[Loss.PARTITIONED] == 1)
    proxy.blackhole()
    await client.send(b"lost", proxy.address)
    await settled(lambda: proxy.statistics().to_target.lost[Loss.PARTITIONED] == 1)
    proxy.blackhole(False)
    await target.send(b"healed", source)
    assert (await client.receive())[0] == b"healed"


async def test_scripts_see_and_drop(through: StartProxy, target: Peer, client: Peer) -> None:
    proxy = await through()
    seen: list[Datagram] = []
    proxy.drop_nth(Direction.TO_TARGET, 1, 3)

    def watch(datagram: Datagram) -> bool:
        seen.append(datagram)
        return datagram.data == b"unwanted"

    proxy.drop_when(watch)
    for data in (b"1", b"2", b"3", b"unwanted", b"5"):
        await client.send(data, proxy.address)
    assert [(await target.receive())[0] for _ in range(2)] == [b"2", b"5"]
    assert [datagram.number for datagram in seen] == [2, 4, 5]
    assert proxy.statistics().to_target.lost[Loss.SCRIPTED] == 3


async def test_one_direction_is_impaired_while_it_runs(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through(Impairment(drop=1))
    await client.send(b"lost", proxy.address)
    await settled(lambda: proxy.statistics().to_target.lost[Loss.CHANCE] == 1)
    proxy.impair(Impairment(), Direction.TO_TARGET)
    await client.send(b"heard", proxy.address)
    data, source = await target.receive()
    assert data == b"heard"
    await target.send(b"lost", source)
    await settled(lambda: proxy.statistics().to_client.lost[Loss.CHANCE] == 1)


async def test_ecn_marks_are_carried_and_made(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through()
    target.channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVTCLASS, 1)
    seen = []
    for mark, ecn in ((0.0, 2), (1.0, 2), (1.0, 0)):
        proxy.impair(Impairment(mark=mark))
        client.channel.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_TCLASS, ecn)
        await client.send(b"x", proxy.address)
        with trio.fail_after(10):
            _, ancillary, _, _ = await target.channel.recvmsg(10, 100)
        seen.append(struct.unpack("i", ancillary[0][2])[0] & 3)
    assert seen == [2, 3, 0]  # only what allows it is marked
    assert proxy.statistics().ecn_capable == (2, 0)
    assert proxy.statistics().ecn_marked == (1, 0)


async def test_the_client_silent_longest_makes_room(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through(clients_max=2)
    others = [await peer() for _ in range(2)]
    for sender in (client, *others):
        await sender.send(b"x", proxy.address)
        _, source = await target.receive()
    assert proxy.statistics().clients == 2
    assert proxy.statistics().clients_evicted == 1
    await target.send(b"to the newest", source)
    assert (await others[1].receive())[0] == b"to the newest"
    for other in others:
        other.channel.close()


async def test_a_target_that_is_gone_and_another_one(
    through: StartProxy, target: Peer, client: Peer
) -> None:
    proxy = await through()
    gone = await peer()
    proxy.retarget(gone.address)
    gone.channel.close()
    for _ in range(3):  # the kernel answers the first with an error that shows at the second
        await client.send(b"nobody", proxy.address)
    await settled(lambda: proxy.statistics().to_target.datagrams_received == 3)
    proxy.retarget(target.address)
    await client.send(b"somebody", proxy.address)
    assert (await target.receive())[0] == b"somebody"


async def test_it_says_what_is_wrong_with_an_address(nursery: trio.Nursery) -> None:
    with pytest.raises(AddressInvalid, match="IPv6 only"):
        Proxy("127.0.0.1:9292", seed=1)
    stopped = Proxy("[::1]:9", seed=1)
    with pytest.raises(EndpointStopped):
        _ = stopped.address
    first = Proxy("[::1]:9", seed=1)
    await nursery.start(first.run)
    with pytest.raises(BindFailed):
        await Proxy("[::1]:9", seed=1, listen=first.address).run()
