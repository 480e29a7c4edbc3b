"""A power cut of everybody, when some executed what came before their first vote as observers."""

from __future__ import annotations

from random import Random
from typing import cast

import pytest

from consensus.sim.membership import propose_set
from consensus.sim.scenes.stage import Staged


class EveryBlock:
    """Luck by which each crash is a power cut that takes all that was not synced."""

    def random(self) -> float:
        return 0.0

    def randrange(self, _first: int, _last: int) -> int:
        return 10_000


def power_cut(stage: Staged) -> None:
    stage.power = cast("Random", EveryBlock())
    before = [len(node.disk.blocks) for node in stage.nodes]
    for node in stage.nodes:
        node.crash()
    assert any(len(n.disk.blocks) < count for n, count in zip(stage.nodes, before, strict=True))


@pytest.mark.parametrize("seed", [3, 4])
def test_who_joined_goes_on_without_the_founder_that_they_learned_from(seed: int) -> None:
    stage = Staged(seed, 1, {}, spares=3)
    stage.start()
    stage.run(60)
    for _ in range(5):
        stage.pay()
        stage.run(50)
    propose_set(stage, (0, 1, 2, 3), 1)
    assert stage.run(
        60_000,
        lambda: all(
            node.replica.committee.epoch == 1 and node.replica.certified > node.replica.base + 3
            for node in stage.nodes
        ),
    )
    power_cut(stage)
    joined = stage.nodes[1:]
    for node in joined:
        node.start()
    reached = min(node.replica.executed for node in joined)
    assert reached > 0
    stage.pay(1, 2, 3)
    stage.run(30_000)
    assert min(node.replica.executed for node in joined) > max(
        reached, *(node.replica.base for node in joined)
    )


def test_four_that_replaced_all_founders_go_on_without_them() -> None:
    stage = Staged(5, 4, {}, spares=4)
    stage.start()
    stage.run(60)
    members = [0, 1, 2, 3]
    for step in range(4):
        members = [member for member in members if member != step] + [4 + step]
        propose_set(stage, tuple(members), step + 1)

        def there(epoch: int = step + 1, present: tuple[int, ...] = tuple(members)) -> bool:
            replicas = [stage.nodes[member].replica for member in present]
            return all(one.committee.epoch == epoch and one.executed > one.base for one in replicas)

        for _ in range(40):
            if stage.run(3_000, there):
                break
            stage.pay(*members)
        assert there()
    power_cut(stage)
    new = [stage.nodes[member] for member in members]
    for node in new:
        node.start()
    reached = [node.replica.executed for node in new]
    assert min(reached) > 0
    stage.pay(*members)
    stage.run(30_000)
    assert min(node.replica.executed for node in new) > max(reached)
