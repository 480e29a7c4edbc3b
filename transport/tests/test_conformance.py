"""One wire: what both engines carry for each other, over good and bad links.

A slice runs with every `make test`; `make soak` runs the whole matrix.
"""

from collections.abc import Callable
from dataclasses import dataclass

import pytest
import trio

from native.values import Algorithm
from transport import Connection
from transport.core.impairment import CLEAN, Impairment, LinkStatistics, Loss
from transport.runtime.proxy import Proxy
from transport.tests.conftest import Start
from transport.tests.links import PAIRINGS, closes_cleanly, exchange, identity, linked, payload

MB = 1 << 20
MIXED = [pairing for pairing in PAIRINGS if len(set(pairing)) > 1]
ALGORITHMS = [Algorithm.FALCON_512, Algorithm.FALCON_1024, Algorithm.ML_DSA_65]


@dataclass(frozen=True, slots=True, kw_only=True)
class Condition:
    """A kind of link, and how its counters show that it was one."""

    impairment: Impairment = CLEAN
    shows: Callable[[LinkStatistics], bool]
    rebinds: int = 0


CONDITIONS = {
    "clean": Condition(shows=lambda counted: counted.lost_total == 0),
    "loss": Condition(
        impairment=Impairment(drop=0.02), shows=lambda counted: counted.lost[Loss.CHANCE] > 0
    ),
    "reordering": Condition(
        impairment=Impairment(reorder=0.05, reorder_s=0.003),
        shows=lambda counted: counted.reordered > 0,
    ),
    "duplication": Condition(
        impairment=Impairment(duplicate=0.1), shows=lambda counted: counted.duplicated > 0
    ),
    "rtt_50_ms": Condition(
        impairment=Impairment(delay_s=0.025), shows=lambda counted: counted.lost_total == 0
    ),
    "rebinding": Condition(rebinds=3, shows=lambda counted: counted.datagrams_delivered > 0),
}


def named(pairing: tuple[str, str]) -> str:
    return "-".join(pairing)


async def rebind_while(proxy: Proxy, source: Connection, target: Connection, times: int) -> None:
    """New ports in the middle of transfers, each of them seen by the acceptor."""
    for _ in range(times):
        before = target.engine.remote_address(target.handle)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(exchange, source, target, MB // 4)
            proxy.rebind()
        assert target.engine.remote_address(target.handle) != before


async def conforms(
    start: Start,
    nursery: trio.Nursery,
    *,
    pairing: tuple[str, str],
    condition: Condition,
    algorithm: Algorithm,
    size: int,
    seed: int = 1,
) -> None:
    keys = [identity(algorithm, 0), identity(algorithm, 1)]
    link = await linked(
        start,
        nursery,
        keys,
        condition.impairment,
        seed=seed,
        engines=pairing,
        admission_timeout_s=30,
    )
    ours, theirs = await link.connect()
    assert (ours.peer, theirs.peer) == (keys[1].node_id, keys[0].node_id)
    assert ours.export_keying_material(b"test") == theirs.export_keying_material(b"test")
    await exchange(ours, theirs, size)
    await rebind_while(link.proxy, ours, theirs, condition.rebinds)
    counted = link.proxy.statistics()
    assert condition.shows(counted.to_target)
    assert condition.shows(counted.to_client)
    if condition.impairment.delay_s:
        assert ours.statistics().rtt_s >= 2 * condition.impairment.delay_s
    # Nobody sends the end again (RFC 9000, section 10.2.1): it needs a link that loses nothing.
    link.proxy.impair(CLEAN)
    await closes_cleanly(ours, theirs)


@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("pairing", [*MIXED, ("rust", "rust")], ids=named)
async def test_engines_understand_each_other_over_a_link(
    start: Start, nursery: trio.Nursery, pairing: tuple[str, str], condition: str
) -> None:
    await conforms(
        start,
        nursery,
        pairing=pairing,
        condition=CONDITIONS[condition],
        algorithm=Algorithm.FALCON_512,
        size=MB // 2,
    )


@pytest.mark.parametrize("algorithm", ALGORITHMS[1:], ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("pairing", PAIRINGS, ids=named)
async def test_every_kind_of_key_proves_itself_to_both_engines(
    start: Start, nursery: trio.Nursery, pairing: tuple[str, str], algorithm: Algorithm
) -> None:
    await conforms(
        start,
        nursery,
        pairing=pairing,
        condition=CONDITIONS["clean"],
        algorithm=algorithm,
        size=MB,
    )


@pytest.mark.soak
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("condition", CONDITIONS)
@pytest.mark.parametrize("algorithm", ALGORITHMS, ids=lambda algorithm: algorithm.name)
@pytest.mark.parametrize("pairing", PAIRINGS, ids=named)
async def test_the_whole_matrix(
    start: Start,
    nursery: trio.Nursery,
    pairing: tuple[str, str],
    algorithm: Algorithm,
    condition: str,
    seed: int,
) -> None:
    await conforms(
        start,
        nursery,
        pairing=pairing,
        condition=CONDITIONS[condition],
        algorithm=algorithm,
        size=4 * MB,
        seed=seed,
    )


async def test_calls_and_channels_cross_a_bad_link(start: Start, nursery: trio.Nursery) -> None:
    keys = [identity(Algorithm.FALCON_512, 0), identity(Algorithm.FALCON_512, 1)]
    link = await linked(
        start,
        nursery,
        keys,
        Impairment(drop=0.05, duplicate=0.05, reorder=0.05, corrupt=0.02, reorder_s=0.003),
        admission_timeout_s=30,
    )
    ours, _ = await link.connect()

    async def reversed_argument(_: Connection, argument: bytes) -> bytes:
        return argument[::-1]

    link.acceptor.serve("reverse", reversed_argument)
    for number in range(10):
        question = payload(20_000, number)
        assert await ours.call("reverse", question, timeout_s=20) == question[::-1]
    assert link.proxy.statistics().to_target.corrupted > 0
