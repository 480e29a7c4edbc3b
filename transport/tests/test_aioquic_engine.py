"""What the reference engine owes to hostile peers, as the default one does."""

import os
import socket

import pytest
import trio

from transport import Identity, RefusalReason
from transport.limits import DATAGRAMS_RECEIVED_MAX, HANDSHAKES_PER_PREFIX_MAX
from transport.tests.conftest import Start, pair
from transport.tests.test_hostile import initial_packet, refused, udp
from transport.tests.test_refusals import port_of


async def test_one_network_is_granted_a_share_of_the_memory(
    start: Start, identities: list[Identity]
) -> None:
    limit = 8 << 20
    acceptor = await start(identities[0], engine="aioquic", memory_bytes_max=limit)
    granted = []
    for identity in identities[1:]:
        dialler = await start(identity)
        await dialler.dial(acceptor.address, identities[0].node_id)
        granted.append(acceptor.statistics().memory_granted_bytes)
    assert granted == sorted(granted)
    assert granted[-1] <= limit // 2


async def test_whoever_spoofs_a_network_cannot_lock_it_out(
    start: Start, identities: list[Identity]
) -> None:
    acceptor = await start(identities[0], engine="aioquic", admission_timeout_s=30)
    with udp() as stranger:
        target = ("::1", port_of(acceptor.address))
        for _ in range(4 * HANDSHAKES_PER_PREFIX_MAX):
            stranger.sendto(initial_packet(), target)
            await trio.lowlevel.checkpoint()
        with trio.fail_after(10):
            while acceptor.statistics().retries_sent_total < 2 * HANDSHAKES_PER_PREFIX_MAX:
                await trio.lowlevel.checkpoint()
    honest = await start(identities[1])
    assert (await honest.dial(acceptor.address, identities[0].node_id)).closure is None
    assert acceptor.statistics().refused_total[RefusalReason.PREFIX_HANDSHAKES_FULL] == 0


async def test_bad_initials_leave_no_trace_behind(
    start: Start, identities: list[Identity], tmp_path: os.PathLike[str]
) -> None:
    acceptor = await start(identities[0], engine="aioquic", qlog_folder=str(tmp_path))
    broken = bytearray(initial_packet())
    broken[-1] ^= 1  # the seal
    with udp() as stranger:
        for _ in range(20):
            broken[6:14] = os.urandom(8)
            stranger.sendto(broken, ("::1", port_of(acceptor.address)))
        await refused(acceptor, RefusalReason.BAD_INITIAL, 20)
    assert acceptor.engine._qlog._traces == []  # type: ignore[attr-defined]


async def test_empty_datagrams_are_bounded_like_others(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities, engine="aioquic")
    link = theirs.engine._links[theirs.handle]  # type: ignore[attr-defined]
    link.datagrams_told = True  # nobody takes them
    for _ in range(DATAGRAMS_RECEIVED_MAX + 200):
        ours.send_datagram_nowait(b"")
    with trio.fail_after(20):
        while len(link.datagrams) < DATAGRAMS_RECEIVED_MAX:
            await trio.lowlevel.checkpoint()
        await ours.ping()
    assert len(link.datagrams) == DATAGRAMS_RECEIVED_MAX


@pytest.mark.parametrize("engine", ["rust", "aioquic"])
async def test_keys_can_be_updated_again_and_again(
    start: Start, identities: list[Identity], engine: str
) -> None:
    """Asked for faster than the peer can answer, they still change one at a time."""
    ours, theirs = await pair(start, identities, engine=engine)
    with trio.fail_after(10):
        for _ in range(3):
            for end in (ours, theirs):
                end.update_key()
                end.update_key()
                assert await end.ping() > 0
    assert ours.statistics().key_updates >= 1


async def test_a_flood_of_empty_udp_datagrams_does_not_stop_the_turn(
    start: Start, identities: list[Identity]
) -> None:
    acceptor = await start(identities[0], engine="aioquic")
    with udp() as stranger:
        stranger.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        for _ in range(2_000):
            stranger.sendto(b"", ("::1", port_of(acceptor.address)))
    dialler = await start(identities[1])
    assert (await dialler.dial(acceptor.address, identities[0].node_id)).closure is None
