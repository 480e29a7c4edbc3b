"""Failure modes of UDP paths that were met before: one test each (reference, section 15)."""

import socket

import pytest
import trio

from transport import ChannelKind, Connection, Identity
from transport.core.impairment import Impairment, Loss
from transport.limits import MTU_BYTES_MIN, SOCKET_BUFFER_BYTES
from transport.runtime.proxy import Datagram, Direction
from transport.tests.conftest import Start, pair
from transport.tests.links import Linked, exchange, linked


@pytest.mark.parametrize("mtu_bytes", [1_200, 1_452, 8_900, 16_300, 65_000])
async def test_no_send_fails_whatever_the_path_allows(
    start: Start, identities: list[Identity], mtu_bytes: int
) -> None:
    """A GSO batch over 65,507 bytes would vanish, and look like a black hole."""
    ours, theirs = await pair(start, identities, mtu_bytes_max=mtu_bytes)
    size = 24 << 20
    done = trio.Event()
    received = 0

    def count(*frame: object) -> None:
        nonlocal received
        body = frame[3]
        assert isinstance(body, bytes)
        received += len(body)
        if received == size:
            done.set()

    theirs.endpoint.on_frame(count)
    for _ in range(24):
        ours.channel(ChannelKind.BULK).send_nowait(1, bytes(1 << 20))
    with trio.fail_after(10):
        await done.wait()
    assert ours.endpoint.statistics().send_errors_total == 0
    assert ours.statistics().black_holes == 0
    assert 1_200 <= ours.statistics().mtu_bytes <= mtu_bytes


async def test_the_granted_socket_buffers_are_reported(
    start: Start, identities: list[Identity]
) -> None:
    small = await start(identities[0], socket_buffer_bytes=65_536)
    large = await start(identities[1], socket_buffer_bytes=SOCKET_BUFFER_BYTES)
    granted = small.statistics().receive_buffer_bytes
    assert 65_536 <= granted <= large.statistics().receive_buffer_bytes


async def test_buffers_the_kernel_does_not_grant_are_not_claimed(
    start: Start, identities: list[Identity]
) -> None:
    """Whoever believed in a gigabyte would not know why bursts are lost."""
    wanted = 1 << 30
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as plain:
        granted = []
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            plain.setsockopt(socket.SOL_SOCKET, option, wanted)
            granted.append(plain.getsockopt(socket.SOL_SOCKET, option))
    counted = (await start(identities[0], socket_buffer_bytes=wanted)).statistics()
    assert [counted.receive_buffer_bytes, counted.send_buffer_bytes] == granted


@pytest.mark.parametrize("lost", [(1,), (2,), (1, 2), (1, 4)], ids=str)
async def test_a_client_hello_with_a_part_lost(
    start: Start, nursery: trio.Nursery, identities: list[Identity], lost: tuple[int, ...]
) -> None:
    """It takes two datagrams; a server that has one of them waits for the other."""
    link = await linked(start, nursery, identities)
    link.proxy.drop_nth(Direction.TO_TARGET, *lost)
    ours, theirs = await link.connect()
    await exchange(ours, theirs, 10_000)
    assert link.proxy.statistics().to_target.lost[Loss.SCRIPTED] == len(lost)
    assert link.acceptor.statistics().handshakes_completed_total == 1
    assert not any(link.acceptor.statistics().refused_total.values())


@pytest.mark.parametrize("lost", [1, 2, 3, 4])
async def test_a_server_flight_with_a_part_lost(
    start: Start, nursery: trio.Nursery, identities: list[Identity], lost: int
) -> None:
    link = await linked(start, nursery, identities)
    link.proxy.drop_nth(Direction.TO_CLIENT, lost)
    ours, theirs = await link.connect()
    await exchange(ours, theirs, 10_000)
    assert link.proxy.statistics().to_client.lost[Loss.SCRIPTED] == 1


@pytest.mark.parametrize("mtu_bytes", [8_900, 16_300, 65_000])
async def test_a_large_mtu_does_not_hang_the_handshake_on_a_small_path(
    start: Start, nursery: trio.Nursery, identities: list[Identity], mtu_bytes: int
) -> None:
    """Every connection starts at what all paths carry, and only then looks for more."""
    link = await linked(
        start,
        nursery,
        identities,
        Impairment(mtu_bytes=MTU_BYTES_MIN),
        mtu_bytes_max=mtu_bytes,
    )
    early: list[int] = []

    def watch(seen: Datagram) -> bool:
        if seen.data[0] & 0x80:
            early.append(len(seen.data))
        return False

    link.proxy.drop_when(watch)
    ours, theirs = await link.connect()
    await exchange(ours, theirs, 100_000)
    assert max(early) <= MTU_BYTES_MIN
    assert ours.statistics().mtu_bytes == MTU_BYTES_MIN
    assert ours.statistics().black_holes == 0


async def climbed(link: Linked, mtu_bytes: int) -> tuple[Connection, Connection]:
    """A connection that has found the size of its path."""
    ours, theirs = await link.connect()
    with trio.fail_after(10):
        while ours.statistics().mtu_bytes < mtu_bytes:
            await exchange(ours, theirs, 100_000)
    return ours, theirs


async def test_bursts_of_loss_are_not_taken_for_a_smaller_path(
    start: Start, nursery: trio.Nursery, identities: list[Identity]
) -> None:
    """Quinn's issue 2791: the MTU fell to the minimum for a minute, and speed with it."""
    link = await linked(start, nursery, identities, mtu_bytes_max=8_900)
    ours, theirs = await climbed(link, 8_000)
    reached = ours.statistics().mtu_bytes
    burst = 0

    def lose(seen: Datagram) -> bool:
        """Every fiftieth large datagram and the four after it."""
        nonlocal burst
        if seen.direction is Direction.TO_CLIENT or len(seen.data) < MTU_BYTES_MIN:
            return False
        burst += 1
        return burst % 50 < 5

    link.proxy.drop_when(lose)
    await exchange(ours, theirs, 4 << 20)
    assert link.proxy.statistics().to_target.lost[Loss.SCRIPTED] > 20
    assert ours.statistics().black_holes == 0
    assert ours.statistics().mtu_bytes >= reached


async def test_a_path_that_becomes_smaller_is_noticed(
    start: Start, nursery: trio.Nursery, identities: list[Identity]
) -> None:
    """The other side of that coin: a real black hole must not stop the connection."""
    link = await linked(start, nursery, identities, mtu_bytes_max=8_900)
    ours, theirs = await climbed(link, 8_000)
    link.proxy.impair(Impairment(mtu_bytes=1_400))
    await exchange(ours, theirs, 1 << 20)
    assert ours.statistics().black_holes >= 1
    assert MTU_BYTES_MIN <= ours.statistics().mtu_bytes <= 1_400
