"""One connection per peer, whoever dials, through restarts."""

import trio
import trio.testing

from transport import CloseReason, Connection, Endpoint, Identity, Pool
from transport.core.events import Cause, EventKind
from transport.tests.adversary import Adversary
from transport.tests.conftest import Start


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
