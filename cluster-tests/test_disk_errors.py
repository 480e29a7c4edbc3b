"""A node whose disk fails stops at once, says why, and is whole again with a good disk."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.load import Load, Purse
from chaos.checks import settle
from chaos.mesh import Mesh

StartLoad = Callable[..., Load]
FAILED = 1
STOPPED = ("HM-D-210", "cannot be written", "start the node again")


def ends_and_comes_back(
    mesh: Mesh, purse: Purse, load: StartLoad, fault: Callable[[int], None], *words: str
) -> None:
    """Break one node's disk under load: it ends with these words, the others do not care."""
    network = mesh.network
    victim = network.backups()[-1]
    at = mesh.members.index(victim)
    others = [member for member in network.members if member is not victim]
    length = len(victim.home.log_file.read_text())
    running = load(rate=100, seconds=4, targets=others)
    network.wait_height(network.height() + 10, others)
    fault(at)
    assert mesh.ended(at, timeout_s=20) == FAILED
    said = victim.home.log_file.read_text()[length:]
    for word in words:
        assert word in said, f"{word!r} is not in:\n{said}"
    assert "Traceback" not in said, said
    mesh.heal()
    report = purse.book(running.report())
    assert report.outcomes == {"0": report.sent}
    settle(mesh)


@pytest.mark.usefixtures("whole")
def test_a_full_disk(mesh: Mesh, purse: Purse, load: StartLoad) -> None:
    ends_and_comes_back(mesh, purse, load, mesh.fill_disk, *STOPPED)


@pytest.mark.usefixtures("whole")
def test_a_failing_fsync(mesh: Mesh, purse: Purse, load: StartLoad) -> None:
    if not mesh.shims:
        pytest.skip("no C compiler: fsync errors need a preloaded library")
    ends_and_comes_back(mesh, purse, load, lambda at: mesh.shims[at].fail_syncs(), *STOPPED)
