"""Hurt a real cluster in several ways at once, then compare all it holds with all it said."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.load import Purse
from chaos.manifest import Manifest
from chaos.mesh import Mesh
from chaos.perturbations import PRIMARY, Kind, Perturbation
from chaos.run import campaign, play


@pytest.mark.usefixtures("whole")
def test_a_cut_off_primary_a_killed_backup_and_a_lossy_network_lose_nothing(
    mesh: Mesh, purse: Purse
) -> None:
    manifest = Manifest(
        seed=1,
        nodes=4,
        rate=100.0,
        seconds=8.0,
        perturbations=(
            Perturbation(kind=Kind.LOSS, at_s=0.5, duration_s=6.0, amount=0.02),
            Perturbation(kind=Kind.CUT, at_s=1.0, duration_s=2.0, nodes=(PRIMARY,)),
            Perturbation(kind=Kind.KILL, at_s=4.0, duration_s=1.0, nodes=(3,)),
        ),
    )
    links_before = mesh.links.delivered()
    played = play(mesh, purse, manifest)
    assert len(played.acknowledged) == played.report.sent == 800
    assert played.reads, "nobody read the account meanwhile"
    assert mesh.links.delivered() > links_before + 1_000, "the nodes do not talk through the links"


@pytest.mark.soak
@pytest.mark.parametrize(("nodes", "seed"), [(4, 1), (7, 1)])
def test_drawn_perturbations_lose_nothing(nodes: int, seed: int, tmp_path: Path) -> None:
    assert campaign([nodes], seconds=80, seed=seed, kept=tmp_path) == 0
