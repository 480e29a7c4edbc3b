"""The cases of quic-interop-runner under their names, over our own proxy instead of a simulator.

Pass criteria are the runner's; sizes and times are scaled down, and `make soak` runs them in full.
What the runner reads from packet captures is read here from counters: those of the proxy, which
sees every datagram, and those of the engines. HTTP/3, version 2 and 0-RTT are no part of STOQ.
"""

import ipaddress
import shutil
import sys
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, TypeAlias

import pytest
import trio
from aioquic.tls import CipherSuite

from native.values import Algorithm
from transport import CloseReason, Connection, Identity, RefusalReason
from transport.core.impairment import CLEAN, Impairment, Loss
from transport.errors import AddressInvalid, DialFailed
from transport.runtime.proxy import Datagram, Direction
from transport.tests.conftest import Start
from transport.tests.links import (
    PAIRINGS,
    PATIENCE_S,
    Linked,
    exchange,
    identity,
    linked,
    payload,
    send,
)
from transport.tests.wild import Wild

MB = 1 << 20
LONG_HEADER = 0x80
CONNECTION_ID_BYTES = 8
RESUMED, KEY_UPDATES = 2, 3  # places in a `SessionTuple`
KEYS = [(Algorithm.FALCON_512, number) for number in range(2)]


def keys() -> list[Any]:
    return [identity(*key) for key in KEYS]


def size_of(mb: float) -> pytest.MarkDecorator:
    """A parameter with a short form for every run and the runner's own size for `make soak`."""
    return pytest.mark.parametrize(
        "size",
        [pytest.param(MB // 4, id="short"), pytest.param(int(mb * MB), marks=SOAK, id="full")],
    )


SOAK = pytest.mark.soak
CLIENTS = pytest.mark.parametrize(
    "clients", [pytest.param(4, id="short"), pytest.param(50, marks=SOAK, id="full")]
)


Lay: TypeAlias = Callable[..., Awaitable[Linked]]


@pytest.fixture(
    params=[
        pytest.param(pairing, marks=() if pairing == ("rust", "rust") else SOAK)
        for pairing in PAIRINGS
    ],
    ids="-".join,
)
async def lay(request: pytest.FixtureRequest, start: Start, nursery: trio.Nursery) -> Lay:
    """`await lay(impairment, ...)`: two endpoints and a link, for every pairing of engines."""

    async def lay_link(impairment: Impairment = CLEAN, **options: Any) -> Linked:
        return await linked(start, nursery, keys(), impairment, engines=request.param, **options)

    return lay_link


async def clean_run(link: Linked, size: int = 1_000) -> tuple[Connection, Connection]:
    """Connect, move some data, and see one handshake without Retry or refusal on either side."""
    ours, theirs = await link.connect()
    await exchange(ours, theirs, size)
    for endpoint in (link.dialler, link.acceptor):
        counted = endpoint.statistics()
        assert counted.handshakes_completed_total == 1
        assert not any(counted.refused_total.values())
    return ours, theirs


async def test_handshake(lay: Lay) -> None:
    link = await lay()
    await clean_run(link)
    assert link.acceptor.statistics().retries_sent_total == 0
    assert link.proxy.statistics().clients == 1


@size_of(10)
async def test_transfer(lay: Lay, size: int) -> None:
    """Three files at a time, through windows much smaller than they are."""
    link = await lay(stream_window_bytes=65_536, connection_window_bytes=100_000)
    ours, theirs = await clean_run(link)
    files = [payload(size * share // 10, share) for share in (2, 3, 5)]
    received: list[bytes] = []

    async def download() -> None:
        received.append(await drained(theirs))

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as transfers:
            for file in files:
                transfers.start_soon(upload, ours, file)
                transfers.start_soon(download)
    assert sorted(received) == sorted(files)


async def upload(source: Connection, data: bytes) -> None:
    stream = await source.open_uni()
    await stream.send_last(data)
    await stream.aclose()


async def drained(target: Connection) -> bytes:
    """Everything of the next stream."""
    incoming = await target.accept_uni()
    data = b"".join([part async for part in incoming])
    await incoming.aclose()
    return data


@pytest.mark.parametrize(
    "rtt_s", [pytest.param(0.4, id="short"), pytest.param(1.5, marks=SOAK, id="full")]
)
async def test_longrtt(lay: Lay, rtt_s: float) -> None:
    """The first flight is repeated before an answer can come; it is still one handshake."""
    link = await lay(Impairment(delay_s=rtt_s / 2), admission_timeout_s=30)
    initials = 0

    def count(seen: Datagram) -> bool:
        nonlocal initials
        initials += seen.direction is Direction.TO_TARGET and seen.data[0] & 0xF0 == 0xC0
        return False

    link.proxy.drop_when(count)
    ours, _ = await clean_run(link)
    assert initials > 2  # a ClientHello takes two
    assert ours.statistics().rtt_s == pytest.approx(rtt_s, rel=0.2)


@pytest.mark.parametrize(
    "count", [pytest.param(400, id="short"), pytest.param(1_999, marks=SOAK, id="full")]
)
async def test_multiplexing(lay: Lay, count: int) -> None:
    """Many small files, each on a stream of its own; far fewer streams are allowed at a time."""
    link = await lay(streams_max=64)
    ours, theirs = await clean_run(link)
    files = {payload(32, number) for number in range(count)}

    async def upload_all(some: Iterable[bytes]) -> None:
        for file in some:
            await upload(ours, file)

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as transfers:
            ordered = sorted(files)
            for lane in range(16):
                transfers.start_soon(upload_all, ordered[lane::16])
            received = {await drained(theirs) for _ in range(count)}
    assert received == files


async def test_retry(lay: Lay) -> None:
    """The dialler proves its address before anything else is spent on it."""
    link = await lay(retry="always")
    tokens: list[bool] = []

    def look(seen: Datagram) -> bool:
        if seen.direction is Direction.TO_TARGET and seen.data[0] & 0xF0 == 0xC0:
            tokens.append(token_size(seen.data) > 0)
        return False

    link.proxy.drop_when(look)
    await clean_run(link)
    assert link.acceptor.statistics().retries_sent_total >= 1
    assert tokens[0] is False
    assert tokens[-1] is True


def token_size(initial: bytes) -> int:
    """Bytes of the token of an Initial packet (RFC 9000, section 17.2.2)."""
    at = 5
    for _ in range(2):  # both connection ids
        at += 1 + initial[at]
    width = 1 << (initial[at] >> 6)
    return int.from_bytes(initial[at : at + width]) & ((1 << (8 * width - 2)) - 1)


async def test_resumption(lay: Lay) -> None:
    """The second connection to the same node skips certificates, and says so on both sides."""
    link = await lay()
    flights = [0, 0]  # bytes of the server's handshake, by connection
    resumed = 0

    def add(seen: Datagram) -> bool:
        if seen.direction is Direction.TO_CLIENT and seen.data[0] & LONG_HEADER:
            flights[resumed] += len(seen.data)
        return False

    link.proxy.drop_when(add)
    for resumed in (0, 1):
        ours, theirs = await link.connect()
        await exchange(ours, theirs, 1_000)
        assert (ours.peer, theirs.peer) == (
            link.acceptor.identity.node_id,
            link.dialler.identity.node_id,
        )
        for side in (ours, theirs):
            session = side.engine.session(side.handle)
            assert session is not None
            assert session[RESUMED] == resumed
        ours.close_now(CloseReason.UNUSED)
        with trio.fail_after(PATIENCE_S):
            await theirs.closed.wait()
    assert flights[1] < flights[0] - 500  # key and signature, less the padding of two Initials


@pytest.mark.parametrize(
    "outage_s", [pytest.param(0.4, id="short"), pytest.param(2.0, marks=SOAK, id="full")]
)
async def test_blackhole(lay: Lay, outage_s: float) -> None:
    """A transfer survives an outage of the link and finishes soon after."""
    link = await lay(Impairment(rate_bytes_per_s=2 * MB))
    ours, theirs = await clean_run(link)
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as transfers:
            transfers.start_soon(send, ours, theirs, payload(MB))
            await until(lambda: link.proxy.statistics().to_target.bytes_received > MB // 4)
            link.proxy.blackhole()
            await trio.sleep(outage_s)  # the outage itself, not a wait for something
            assert link.proxy.statistics().to_target.lost[Loss.PARTITIONED] > 0
            link.proxy.blackhole(False)
    assert ours.closure is None


async def until(condition: Any) -> None:
    with trio.fail_after(PATIENCE_S):
        while not condition():
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize(
    "algorithm",
    [
        pytest.param(Algorithm.FALCON_512, id="short"),
        pytest.param(Algorithm.FALCON_1024, marks=SOAK, id="full"),
        pytest.param(Algorithm.ML_DSA_65, marks=SOAK, id="longest"),
    ],
)
@pytest.mark.parametrize("heard", [1, 2], ids=["half a ClientHello", "a ClientHello"])
async def test_amplificationlimit(
    start: Start, nursery: trio.Nursery, algorithm: Algorithm, heard: int
) -> None:
    """However long a silent client's handshake stays open, it never gets more than three times
    what it sent (RFC 9000, section 8.1)."""
    both = [identity(algorithm, number) for number in range(2)]
    link = await linked(start, nursery, both, admission_timeout_s=0.8)
    from_client = from_server = 0
    worst = 0.0

    def watch(seen: Datagram) -> bool:
        nonlocal from_client, from_server, worst
        if seen.direction is Direction.TO_TARGET and seen.number <= heard:
            from_client += len(seen.data)
            return False
        if seen.direction is Direction.TO_CLIENT:
            from_server += len(seen.data)
            worst = max(worst, from_server / from_client)
        return True

    link.proxy.drop_when(watch)
    with pytest.raises(DialFailed):
        await link.dialler.dial(link.proxy.address, link.acceptor.identity.node_id)
    reason = RefusalReason.HANDSHAKE_TIMEOUT
    await until(lambda: link.acceptor.statistics().refused_total[reason] == 1)
    assert from_client == heard * 1_200
    assert 0 < worst <= 3


@CLIENTS
async def test_handshakeloss(lay: Lay, clients: int) -> None:
    await many_handshakes(lay, Impairment(drop=0.3), clients)


@CLIENTS
async def test_handshakecorruption(lay: Lay, clients: int) -> None:
    await many_handshakes(lay, Impairment(corrupt=0.3), clients)


async def many_handshakes(lay: Lay, impairment: Impairment, clients: int) -> None:
    """One connection after another, each with a small file, whatever the link does to them."""
    link = await lay(impairment, seed=5, admission_timeout_s=30)
    for number in range(clients):
        ours, theirs = await link.connect()
        with trio.fail_after(PATIENCE_S):
            await send(ours, theirs, payload(1_000, number))
        ours.close_now(CloseReason.UNUSED)
        theirs.close_now(CloseReason.UNUSED)
    assert link.acceptor.statistics().handshakes_completed_total == clients
    counted = link.proxy.statistics()
    assert counted.to_target.lost_total + counted.to_target.corrupted > 0


@size_of(2)
async def test_transferloss(lay: Lay, size: int) -> None:
    link = await lay(Impairment(drop=0.02, delay_s=0.005))
    ours, theirs = await link.connect()
    await exchange(ours, theirs, size)
    assert link.proxy.statistics().to_target.lost[Loss.CHANCE] > 0
    assert ours.statistics().packets_lost > 0


@size_of(2)
async def test_transfercorruption(lay: Lay, size: int) -> None:
    link = await lay(Impairment(corrupt=0.02, delay_s=0.005))
    ours, theirs = await link.connect()
    await exchange(ours, theirs, size)
    assert link.proxy.statistics().to_client.corrupted > 0
    assert ours.closure is theirs.closure is None


async def test_ipv6(lay: Lay) -> None:
    """IPv6 is all there is; IPv4 is refused with words, whichever way it is written."""
    link = await lay()
    ours, theirs = await clean_run(link)
    assert ours.remote_address.startswith("[::1]:")
    assert theirs.remote_address.startswith("[::1]:")
    for address in ("127.0.0.1:9292", "[::ffff:127.0.0.1]:9292"):
        with pytest.raises(AddressInvalid, match="IPv6 only"):
            await link.dialler.dial(address, identity(Algorithm.FALCON_512, 2).node_id)


def seen_from(connection: Connection) -> str:
    """Where the engine now believes the peer to be."""
    address = connection.engine.remote_address(connection.handle)
    assert address is not None
    return address


@size_of(10)
async def test_rebind_port(lay: Lay, size: int) -> None:
    """A NAT forgets the port again and again in the middle of transfers."""
    link = await lay()
    ours, theirs = await clean_run(link)
    seen = {seen_from(theirs)}
    for _ in range(5):
        async with trio.open_nursery() as transfers:
            transfers.start_soon(exchange, ours, theirs, size // 5)
            link.proxy.rebind()
        seen.add(seen_from(theirs))
    assert len(seen) == 6
    assert link.acceptor.statistics().handshakes_completed_total == 1


@pytest.mark.parametrize("size", [1 << 20])
async def test_rebind_addr(lay: Lay, size: int) -> None:
    """Not only the port, also the address changes; the acceptor has the new one proven."""
    if not has_second_loopback():
        await in_a_network_of_its_own("test_rebind_addr")
        return
    link = await lay()
    ours, theirs = await clean_run(link)
    async with trio.open_nursery() as transfers:
        transfers.start_soon(exchange, ours, theirs, size)
        link.proxy.rebind(SECOND_LOOPBACK)
    assert seen_from(theirs).startswith(f"[{SECOND_LOOPBACK}]:")
    await exchange(ours, theirs, size)
    assert link.acceptor.statistics().handshakes_completed_total == 1


SECOND_LOOPBACK = "fd5a:109::1"


def has_second_loopback() -> bool:
    """Whether this is the network that `in_a_network_of_its_own` makes."""
    number = ipaddress.IPv6Address(SECOND_LOOPBACK).packed.hex()
    lines = Path("/proc/net/if_inet6").read_text().splitlines()
    return any(line.startswith(number) and line.endswith(" lo") for line in lines)


async def in_a_network_of_its_own(test: str) -> None:
    """Run one test again where the loopback has a second address that nobody else sees."""
    script = (
        f"ip link set lo up && ip -6 address add {SECOND_LOOPBACK}/128 dev lo nodad && "
        f"exec {sys.executable} -m pytest -q -p no:cacheprovider {__file__} -k {test}"
    )
    words = ["unshare", "--map-root-user", "--net", "sh", "-c", script]
    if shutil.which("unshare") is None or shutil.which("ip") is None:
        pytest.skip("needs unshare and ip")
    with trio.fail_after(60):
        done = await trio.run_process(words, capture_stdout=True, capture_stderr=True, check=False)
    if b"Operation not permitted" in done.stderr:
        pytest.skip("this machine lets nobody make a network namespace")
    assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
    assert b" passed" in done.stdout


@size_of(2)
async def test_connectionmigration(lay: Lay, size: int) -> None:
    """The dialler moves on purpose: to a new socket, and to a connection id nobody has seen."""
    link = await lay()
    names: set[bytes] = set()

    def note(seen: Datagram) -> bool:
        if seen.direction is Direction.TO_TARGET and not seen.data[0] & LONG_HEADER:
            names.add(seen.data[1 : 1 + CONNECTION_ID_BYTES])
        return False

    link.proxy.drop_when(note)
    ours, theirs = await clean_run(link)
    before, seen = set(names), seen_from(theirs)
    async with trio.open_nursery() as transfers:
        transfers.start_soon(exchange, ours, theirs, size)
        link.dialler.engine.rebind("[::1]:0")
    await exchange(ours, theirs, size)
    assert seen_from(theirs) != seen
    assert names - before
    assert link.proxy.statistics().clients == 2
    assert link.acceptor.statistics().handshakes_completed_total == 1


@size_of(2)
async def test_keyupdate(lay: Lay, size: int) -> None:
    """Either side changes keys in the middle of a transfer, and again once that is settled."""
    link = await lay()
    ours, theirs = await clean_run(link)
    for side in (ours, theirs, ours):
        async with trio.open_nursery() as transfers:
            transfers.start_soon(exchange, ours, theirs, size)
            side.engine.update_key(side.handle)
        assert ours.closure is theirs.closure is None
    session = ours.engine.session(ours.handle)
    assert session is not None
    assert session[KEY_UPDATES] >= 2


async def test_chacha20(start: Start, identities: list[Identity]) -> None:
    """A client that offers nothing else is served. It is not one of our engines, which offer all
    three suites."""
    acceptor = await start(identities[0])
    suites = [CipherSuite.CHACHA20_POLY1305_SHA256]
    async with Wild(identities[1], acceptor.address, suites=suites) as client:
        await client.join()
        connection = await acceptor.accept()
        data = payload(100_000)
        client.quic.send_stream_data(4, b"\x00" + data, end_stream=True)
        received: list[bytes] = []

        async def receive() -> None:
            incoming = await connection.accept_stream()
            received.append(b"".join([part async for part in incoming]))

        async with trio.open_nursery() as transfers:
            transfers.start_soon(receive)
            await client.pump(lambda: bool(received))
        assert received == [data]
        assert client.quic.tls.key_schedule is not None
        assert client.quic.tls.key_schedule.cipher_suite == suites[0]


@pytest.mark.parametrize("mark", [0.0, 0.05], ids=["calm", "congested"])
async def test_ecn(start: Start, nursery: trio.Nursery, mark: float) -> None:
    """Both sides allow marks, and a marked link slows the sender down without losing anything."""
    link = await linked(start, nursery, keys())
    ours, theirs = await link.connect()
    link.proxy.impair(Impairment(mark=mark, delay_s=0.002))
    await exchange(ours, theirs, MB // 2)
    counted = link.proxy.statistics()
    for capable, side in zip(
        counted.ecn_capable, (counted.to_target, counted.to_client), strict=True
    ):
        assert capable > side.datagrams_received * 0.9
    assert (counted.ecn_marked[0] > 0) == (mark > 0)
    assert (congestion_events(ours) > 0) == (mark > 0)
    assert counted.to_target.lost_total == counted.to_client.lost_total == 0


def congestion_events(connection: Connection) -> int:
    path = connection.engine.path(connection.handle)
    assert path is not None
    return path[-1]


@pytest.mark.parametrize(
    ("size", "rate"),
    [
        pytest.param(MB, 2_500_000, id="short"),
        pytest.param(10_000_000, 1_250_000, marks=SOAK, id="full"),
    ],
)
async def test_goodput(lay: Lay, size: int, rate: int) -> None:
    """Most of a bottleneck with 30 ms of round trip carries data."""
    link = await lay(
        Impairment(rate_bytes_per_s=rate, delay_s=0.015, queue_bytes_max=100_000),
    )
    ours, theirs = await link.connect()
    began = trio.current_time()
    with trio.fail_after(PATIENCE_S):
        await send(ours, theirs, payload(size))
    assert size / (trio.current_time() - began) > 0.6 * rate


@pytest.mark.parametrize(
    ("size", "rate"),
    [
        pytest.param(MB, 2_500_000, id="short"),
        pytest.param(25_000_000, 5_000_000, marks=SOAK, id="full"),
    ],
)
async def test_crosstraffic(start: Start, nursery: trio.Nursery, size: int, rate: int) -> None:
    """Two transfers through one bottleneck: neither starves, together they fill it."""
    link = await linked(
        start,
        nursery,
        keys(),
        Impairment(rate_bytes_per_s=rate, delay_s=0.015, queue_bytes_max=100_000),
    )
    other = await start(identity(Algorithm.FALCON_512, 2))
    ours, theirs = await link.connect()
    competing = await other.dial(link.proxy.address, link.acceptor.identity.node_id)
    its_end = await link.acceptor.accept()
    done_at: list[float] = []

    async def timed(source: Connection, target: Connection, seed: int) -> None:
        await send(source, target, payload(size, seed))
        done_at.append(trio.current_time())

    began = trio.current_time()
    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as transfers:
            transfers.start_soon(timed, ours, theirs, 1)
            transfers.start_soon(timed, competing, its_end, 2)
    first, last = (moment - began for moment in done_at)
    assert 2 * size / last > 0.6 * rate
    assert first > 0.2 * last  # the winner did not have the link alone until it was done
