"""Damage on a disk: found at the start, never voted on, and the way out leads back to voting."""

from collections.abc import Callable
from functools import partial

import pytest

from consensus.core.records import CHECKSUM_SIZE_BYTES, Row
from consensus.core.types import Phase
from consensus.sim import damage
from consensus.sim.checker import Violation, property_of
from consensus.sim.script import Stage

VICTIM = 2


def staged(seed: int = 0) -> Stage:
    """Four nodes that have executed a few payloads."""
    stage = Stage(4)
    stage.luck = damage.luck_of(seed, 4)
    stage.start()
    for number in range(5):
        submit(stage, b"payload %d" % number)
        stage.world.run_until(stage.world.now_us + 40_000)
    return stage


def submit(stage: Stage, payload: bytes) -> None:
    stage.checker.injected.add(payload)
    for node in stage.nodes:
        node.take_payloads((payload,))


def whole_again(stage: Stage) -> bool:
    return all(node.up and node.replica.phase is Phase.VOTING for node in stage.nodes)


@pytest.mark.parametrize("kind", damage.KINDS)
@pytest.mark.parametrize("seed", range(2))
def test_a_node_refuses_to_start_on_it_and_recovers(kind: str, seed: int) -> None:
    stage = staged(seed)
    submit(stage, b"in flight")
    stage.world.run_until(stage.world.now_us + 2_000)
    damage.damage(stage, VICTIM, kind)
    submit(stage, b"written meanwhile")
    counters = stage.world.counters
    stage.world.run_until(
        stage.world.now_us + 8_000_000, lambda: bool(counters["starts refused for damage"])
    )
    assert counters[kind] == counters["starts refused for damage"] == 1
    assert stage.world.run_until(stage.world.now_us + 30_000_000, partial(whole_again, stage))
    submit(stage, b"afterwards")
    stage.world.run_until(stage.world.now_us + 1_000_000)
    assert b"afterwards" in stage.checker.acknowledged
    stage.checker.durable()
    memory_lost = kind != damage.MISREAD
    assert counters["replica.recovered"] == memory_lost
    assert (VICTIM in stage.forgetful) == memory_lost


def test_damage_waits_until_nobody_else_has_forgotten() -> None:
    stage = staged()
    stage.wipe(1)
    damage.damage(stage, VICTIM, damage.FLIPPED)
    assert stage.nodes[VICTIM].up
    assert not stage.world.counters[damage.FLIPPED]


def _trusting(row: Callable[..., Row]) -> Callable[..., Row]:
    def read(kind: int, key: int, sequence: int, stored: bytes) -> Row:
        data = stored[CHECKSUM_SIZE_BYTES:]
        return row(kind=kind, key=key, sequence=sequence, data=data)

    return read


def test_a_store_that_checks_nothing_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Row, "read", _trusting(Row))
    stage = staged()
    damage.damage(stage, VICTIM, damage.FLIPPED)
    with pytest.raises(Violation, match="starts on a damaged record") as caught:
        stage.world.run_until(stage.world.now_us + 8_000_000)
    assert property_of(caught.value) == "S14 replay"
