"""Two copies of one node with one key: the enumeration of scenarios, and what a copy is."""

import math

import pytest

from consensus.core import quorum as quorums
from consensus.core import replica as replicas
from consensus.core.messages import VoteVector
from consensus.sim import twins
from consensus.sim.checker import Violation
from consensus.sim.twins import MEMBERS, PARTITIONS, ROUNDS_MAX, Scenario, scenario


def test_partitions_are_all_of_two_or_three_parts() -> None:
    # Stirling numbers of the second kind: S(5, 2) = 15, S(5, 3) = 25.
    assert len(PARTITIONS) == len(set(PARTITIONS)) == 40
    assert sum(max(parts) == 1 for parts in PARTITIONS) == 15
    assert sum(max(parts) == 2 for parts in PARTITIONS) == 25


def test_even_numbers_enumerate_every_scenario_of_one_and_two_rounds() -> None:
    one = MEMBERS * len(PARTITIONS)
    two = MEMBERS * len(PARTITIONS) ** 2
    found = [scenario(2 * place) for place in range(one + two)]
    assert {len(plan.rounds) for plan in found[:one]} == {1}
    assert {len(plan.rounds) for plan in found[one:]} == {2}
    assert len({(plan.twin, plan.rounds) for plan in found}) == one + two
    assert len(scenario(2 * (one + two)).rounds) == 3


def test_odd_numbers_go_through_scenarios_of_eight_rounds_without_repeating() -> None:
    found = [scenario(2 * place + 1) for place in range(5_000)]
    assert {len(plan.rounds) for plan in found} == {ROUNDS_MAX}
    assert len({(plan.twin, plan.rounds) for plan in found}) == 5_000
    assert {plan.twin for plan in found} == set(range(MEMBERS))
    assert all({plan.rounds[turn] for plan in found} == set(PARTITIONS) for turn in range(8))
    assert math.gcd(twins._STRIDE, twins._DEEP) == 1


def test_copies_of_a_primary_propose_different_batches_for_one_place() -> None:
    """Each copy with one other node: neither half is a quorum, the halves saw two proposals."""
    split = Scenario(twin=0, rounds=((0, 0, 1, 2, 2),))
    place = next(
        number for number in range(0, 2 * MEMBERS * len(PARTITIONS), 2) if scenario(number) == split
    )
    result = twins.play(place)
    assert result.counters["fault equivocation"] > 0
    assert len(set(result.heights[1:4])) == 1


def test_equal_numbers_give_equal_runs() -> None:
    assert twins.play(4_321) == twins.play(4_321)


def test_a_copy_is_not_told_what_the_other_signed() -> None:
    cluster = twins.TwinCluster(0, scenario(0))
    cluster.start()
    cluster.world.run_until(cluster.world.now_us + 50_000)
    copy = cluster.nodes[MEMBERS]
    before = copy.replica.statistics()
    copy.receive(
        copy.index,
        VoteVector(epoch=copy.replica.committee.epoch, signer=copy.index, number=99, leaves=()),  # type: ignore[arg-type]
        None,
    )
    assert copy.replica.statistics() == before


def test_a_quorum_that_two_halves_can_have_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """With Q = 2 of 4 each copy commits its own batch with the one honest node of its part."""
    for module in (quorums, replicas):
        monkeypatch.setattr(module, "quorum", lambda _members: 2)
    assert any(_disagree(number) for number in range(60))


def _disagree(number: int) -> bool:
    try:
        twins.play(number)
    except Violation as violation:
        return str(violation).startswith("agreement")
    return False
