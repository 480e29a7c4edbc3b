"""One connection per peer, whoever dials, through restarts."""

import pytest
import trio
import trio.testing

from transport import CloseReason, Connection, Endpoint, Identity, Pool
from transport.core.events import Cause, EventKind
from transport.errors import AddressUnknown, DialFailed, PoolFull
from transport.tests.adversary import Adversary
from transport.tests.conftest import Start

SILENT = "[::1]:9"  # nobody listens there, and nothing says so


async def test_dialling_a_connected_peer_returns_the_connection(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    first = await dialler.dial(acceptor.address, identities[1].node_id)
    assert await dialler.dial(acceptor.address, identities[1].node_id) is first
    theirs = await acceptor.accept()
    assert await acceptor.dial(dialler.address, identities[0].node_id) is theirs


async def test_of_simultaneous_dials_the_smaller_nodes_one_stays(
    start: Start, identities: list[Identity]
) -> None:
    small, large = await start(identities[0]), await start(identities[1])
    results: list[Connection] = []

    async def dial(source: Endpoint, target: Endpoint) -> None:
        results.append(await source.dial(target.address, target.identity.node_id))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(dial, small, large)
        nursery.start_soon(dial, large, small)
    with trio.fail_after(5):
        while not (len(small.connections) == len(large.connections) == 1):
            await trio.lowlevel.checkpoint()
        await trio.testing.wait_all_tasks_blocked(0.02)
    (ours,), (theirs,) = small.connections, large.connections
    assert ours.dialled
    assert not theirs.dialled
    for lost in results:
        if lost.closure is not None:
            assert lost.closure.reason is CloseReason.DUPLICATE


async def test_a_restarted_peer_takes_its_own_place(
    start: Start, identities: list[Identity]
) -> None:
    """Nobody waits for a timeout: the new HELLO shows that the old connection is dead."""
    stays = await start(identities[0])
    killed = Adversary(identities[1])
    await killed.admitted(stays.address, identities[0].node_id)
    old = await stays.accept()
    del killed  # nothing of it is ever heard again, and another process starts with its key
    restarted = await start(identities[1])
    await restarted.dial(stays.address, identities[0].node_id)
    await old.closed.wait()
    new = stays.peer(identities[1].node_id)
    assert new is not None
    assert new is not old


@pytest.mark.rust_only("sends no stateless reset")
async def test_a_connection_from_a_former_life_is_reset_at_once(
    start: Start, identities: list[Identity]
) -> None:
    """A restarted node answers what it has forgotten with resets that its peers trust."""
    killed = Adversary(identities[1])
    stays = Adversary(identities[0])
    handle = stays.engine.connect(killed.engine.address(), identities[1].node_id)
    stays.engine.flush()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(killed.event, EventKind.CONNECTED)
        await stays.event(EventKind.CONNECTED)
    address = killed.engine.address()
    del killed
    await start(identities[1], listen=address)
    stays.say(handle, 1, bytes(1_000))
    closed = await stays.event(EventKind.CLOSED)
    assert Cause(closed[2]) is Cause.RESET


async def test_pools_on_both_ends_settle_and_heal(
    start: Start, identities: list[Identity], nursery: trio.Nursery
) -> None:
    nodes = [await start(identity) for identity in identities[:3]]
    addresses = {node.identity.node_id: node.address for node in nodes}
    for node in nodes:
        await nursery.start(Pool(node, addresses).run)

    async def settled() -> None:
        with trio.fail_after(10):
            while any(len(node.connections) != 2 for node in nodes):
                await trio.lowlevel.checkpoint()

    await settled()
    await nodes[0].connections[0].close(CloseReason.UNUSED)
    await settled()


async def test_tasks_that_want_one_node_share_one_dial(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    pool = Pool(dialler, {identities[1].node_id: [SILENT, acceptor.address]}, keep=())
    found: list[Connection] = []

    async def want() -> None:
        found.append(await pool.connection(identities[1].node_id))

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            for _ in range(10):
                nursery.start_soon(want)
        found.append(await pool.connection(identities[1].node_id))
    assert len(found) == 11
    assert len(set(map(id, found))) == 1
    statistics = pool.statistics()
    assert (statistics.dials_total, statistics.reused_total, statistics.connections) == (1, 1, 1)


async def test_when_the_task_that_dials_is_cancelled_another_goes_on(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    pool = Pool(dialler, {identities[1].node_id: acceptor.address}, keep=())
    found: list[Connection] = []

    async def want(scope: trio.CancelScope) -> None:
        with scope:
            found.append(await pool.connection(identities[1].node_id))

    first, second = trio.CancelScope(), trio.CancelScope()
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(want, first)
            while not pool.statistics().dialling:
                await trio.lowlevel.checkpoint()
            nursery.start_soon(want, second)
            first.cancel()
    assert len(found) == 1
    assert pool.statistics().dialling == 0


async def test_a_node_without_an_address_is_an_error_and_new_addresses_count_at_once(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    wrong = await start(identities[2])
    peer = identities[1].node_id
    pool = Pool(dialler, {}, keep=())
    with pytest.raises(AddressUnknown):
        await pool.connection(peer)
    with pytest.raises(AddressUnknown):
        pool.keep(peer)
    pool.set_addresses(peer, wrong.address)
    with trio.fail_after(5):
        for _ in range(2):
            with pytest.raises(DialFailed):
                await pool.connection(peer)
        pool.set_addresses(peer, acceptor.address)
        connection = await pool.connection(peer)
    assert connection.remote_address == acceptor.address
    statistics = pool.statistics()
    assert (statistics.dials_total, statistics.dials_failed_total) == (3, 2)
    pool.forget(peer)
    assert pool.statistics().nodes == 0
    assert connection.closure is None


async def test_a_full_pool_closes_what_was_used_least_recently(
    start: Start, identities: list[Identity]
) -> None:
    dialler = await start(identities[0])
    nodes = [await start(identity) for identity in identities[1:4]]
    one, two, three = (node.identity.node_id for node in nodes)
    addresses = {node.identity.node_id: node.address for node in nodes}
    pool = Pool(dialler, addresses, keep=(), connections_max=2)
    with trio.fail_after(5):
        first = await pool.connection(one)
        second = await pool.connection(two)
        assert await pool.connection(one) is first
        third = await pool.connection(three)
        assert second.closure is not None
        assert second.closure.reason is CloseReason.UNUSED
        assert first.closure is None
        busy = [await first.open_stream(), await third.open_stream()]
        with pytest.raises(PoolFull):
            await pool.connection(two)
        busy[0].abort()
        await pool.connection(two)
    assert first.closure is not None
    assert third.closure is None
    assert pool.statistics().evicted_full_total == 2


async def test_idle_connections_are_closed_and_those_in_use_or_kept_are_not(
    start: Start, identities: list[Identity], nursery: trio.Nursery
) -> None:
    dialler = await start(identities[0])
    nodes = [await start(identity) for identity in identities[1:4]]
    idle, used, kept = (node.identity.node_id for node in nodes)
    addresses = {node.identity.node_id: node.address for node in nodes}
    pool = Pool(dialler, addresses, keep=[kept], idle_timeout_s=0.04)
    await nursery.start(pool.run)
    with trio.fail_after(5):
        in_use = await pool.connection(used)
        stream = await in_use.open_stream()
        unused = await pool.connection(idle)
        always = await pool.connection(kept)
        await unused.closed.wait()
        assert in_use.closure is None
        assert always.closure is None
        stream.abort()
        await in_use.closed.wait()
        pool.release(kept)
        await always.closed.wait()
    assert pool.statistics().evicted_idle_total == 3
    assert pool.statistics().kept == 0


async def test_a_kept_node_follows_a_change_of_its_address(
    start: Start, identities: list[Identity], nursery: trio.Nursery
) -> None:
    dialler = await start(identities[0])
    peer = identities[1].node_id
    pool = Pool(dialler, {peer: SILENT}, keep=())
    await nursery.start(pool.run)
    pool.keep(peer)
    acceptor = await start(identities[1])
    with trio.fail_after(5):
        pool.set_addresses(peer, [SILENT, acceptor.address])
        while dialler.peer(peer) is None:
            await trio.lowlevel.checkpoint()
        first = dialler.peer(peer)
        assert first is not None
        await acceptor.close()
        await first.closed.wait()
        elsewhere = await start(identities[1])
        pool.set_addresses(peer, elsewhere.address)
        again = await pool.connection(peer)
    assert again.remote_address == elsewhere.address
    assert pool.statistics().dials_failed_total <= 1  # no time was lost at the silent address


async def test_a_pool_names_every_address_that_it_could_not_use(
    start: Start, identities: list[Identity], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those that are silent when the pool's patience ends, before a handshake's does."""
    monkeypatch.setattr("transport.runtime.pool.DIAL_TIMEOUT_S", 0.5)
    dialler, wrong = await start(identities[0]), await start(identities[2])
    peer = identities[1].node_id
    pool = Pool(dialler, {peer: [SILENT, wrong.address]}, keep=())
    with trio.fail_after(5), pytest.raises(DialFailed) as caught:
        await pool.connection(peer)
    assert "no answer within 0.5 s" in caught.value.problems[SILENT]
    assert "wrong_key" in caught.value.problems[wrong.address]
    assert caught.value.closure.name == "wrong_key"


async def test_an_address_that_changes_back_under_way_is_no_failure(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    peer = identities[1].node_id
    pool = Pool(dialler, {peer: acceptor.address}, keep=())
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(pool.connection, peer)
            while not dialler.statistics().handshakes:
                await trio.lowlevel.checkpoint()
            pool.set_addresses(peer, SILENT)
            pool.set_addresses(peer, acceptor.address)
    assert pool.statistics().dials_failed_total == 0


async def test_a_pool_outlives_the_close_of_its_endpoint(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    pool = Pool(dialler, {identities[1].node_id: acceptor.address})
    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            await nursery.start(pool.run)
            await pool.connection(identities[1].node_id)
            await dialler.close()
            while pool.statistics().dialling:
                await trio.lowlevel.checkpoint()
            await trio.testing.wait_all_tasks_blocked(0.1)
            nursery.cancel_scope.cancel()
