"""Drawn runs: the same for the same seed, survivable, and every kind of fault occurs."""

from __future__ import annotations

from collections import Counter

import pytest

from chaos.manifest import OF_LINKS, Manifest, draw
from chaos.perturbations import (
    FLAP_PERIOD_S,
    FORGETS,
    NEEDS_SHIM,
    Kind,
    Perturbation,
    moments,
)

SEEDS = range(400)


def test_a_seed_draws_the_same_run_again_and_another_seed_another() -> None:
    assert draw(7, nodes=4, rate=100.0) == draw(7, nodes=4, rate=100.0)
    assert draw(7, nodes=4, rate=100.0) != draw(8, nodes=4, rate=100.0)


@pytest.mark.parametrize("nodes", [4, 7, 21])
def test_a_manifest_is_read_as_it_was_written(nodes: int) -> None:
    for seed in SEEDS:
        manifest = draw(seed, nodes=nodes, rate=100.0)
        assert Manifest.from_json(manifest.to_json()) == manifest


@pytest.mark.parametrize("nodes", [4, 7, 21])
def test_runs_stay_within_what_a_cluster_must_survive(nodes: int) -> None:
    for seed in SEEDS:
        manifest = draw(seed, nodes=nodes, rate=100.0)
        forget = [one for one in manifest.perturbations if one.kind in FORGETS]
        assert sum(len(one.nodes) for one in forget) <= 1, "two nodes lose their memory"
        named = Counter(
            at for one in manifest.perturbations if one.kind not in OF_LINKS for at in one.nodes
        )
        del named[-1]  # the primary, whoever that is
        assert all(at < nodes for at in named)
        for one in manifest.perturbations:
            assert one.at_s + one.duration_s < manifest.seconds, "it goes on after the load"
            assert one.kind is not Kind.CUT_PAIR or len(set(one.nodes)) == 2


def test_every_kind_is_drawn_and_none_that_cannot_be_had() -> None:
    drawn = {one.kind for seed in SEEDS for one in draw(seed, nodes=4, rate=1.0).perturbations}
    assert drawn == set(Kind)
    without = {
        one.kind
        for seed in SEEDS
        for one in draw(seed, nodes=4, rate=1.0, shim=False).perturbations
    }
    assert without == set(Kind) - NEEDS_SHIM


def test_beginnings_and_ends_are_in_the_order_of_time_and_a_flap_ends_joined() -> None:
    kill = Perturbation(kind=Kind.KILL, at_s=2.0, duration_s=3.0, nodes=(1,))
    flap = Perturbation(kind=Kind.FLAP, at_s=1.0, duration_s=3 * FLAP_PERIOD_S, nodes=(2,))
    line = moments((kill, flap))
    assert [moment.at_s for moment in line] == sorted(moment.at_s for moment in line)
    assert [moment.begins for moment in line if moment.perturbation is kill] == [True, False]
    flapping = [moment.begins for moment in line if moment.perturbation is flap]
    assert flapping == [True, False, True, False]
