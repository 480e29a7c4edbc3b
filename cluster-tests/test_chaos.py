"""Hurt a real cluster in several ways at once, then compare all it holds with all it said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import Purse
from bench.network import Network
from chaos.client import read_history
from chaos.linearizability import add, linearizable, read
from chaos.manifest import Manifest
from chaos.mesh import mesh
from chaos.perturbations import PRIMARY, Kind, Perturbation
from chaos.run import campaign, play, recording
from node.runtime.api import ReadMode


def test_a_cut_off_primary_a_killed_backup_and_a_lossy_network_lose_nothing(
    tmp_path: Path,
) -> None:
    manifest = Manifest(
        seed=1,
        nodes=4,
        rate=100.0,
        seconds=7.0,
        perturbations=(
            Perturbation(kind=Kind.LOSS, at_s=0.5, duration_s=5.5, amount=0.02),
            Perturbation(kind=Kind.CUT, at_s=1.0, duration_s=2.0, nodes=(PRIMARY,)),
            Perturbation(kind=Kind.KILL, at_s=4.0, duration_s=1.0, nodes=(3,)),
        ),
    )
    with mesh(tmp_path, nodes=4, seed=1) as hurt:
        purse = Purse.fill(hurt.network, accounts=32)
        links_before = hurt.links.delivered()
        played = play(hurt, purse, manifest)
        delivered = hurt.links.delivered() - links_before
    assert len(played.acknowledged) == played.report.sent == 700
    assert {one.mode for one in played.reads} == set(ReadMode), "not read in every mode meanwhile"
    assert delivered > 1_000, "the nodes do not talk through the links"


def test_payments_and_reads_through_one_node_are_linearizable(whole: Network, purse: Purse) -> None:
    member = whole.backups()[0]
    before = purse.received()
    plan = purse.plan(targets=[member], rate=25.0, seconds=3.0)
    with recording(plan, purse, [member]) as load:
        load.go()
        report = purse.book(load.report())
    acknowledged, reads = read_history(plan)
    assert report.outcomes == {"0": 75}
    assert len(reads) > 10
    history = [
        *(add(1, invoked=one.invoked, answered=one.answered) for one in acknowledged),
        *(read(one.balance, invoked=one.invoked, answered=one.answered) for one in reads),
    ]
    assert linearizable(history, before)
    last = max(reads, key=lambda one: one.invoked)
    stale = read(before, invoked=last.answered + 1, answered=last.answered + 2)
    assert not linearizable([*history, stale], before), "the checker sees nothing"


@pytest.mark.soak
@pytest.mark.parametrize(("nodes", "seed"), [(4, 1), (7, 1)])
def test_drawn_perturbations_lose_nothing(nodes: int, seed: int, tmp_path: Path) -> None:
    assert campaign([nodes], seconds=80, seed=seed, kept=tmp_path) == 0
