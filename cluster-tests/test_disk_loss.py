"""A node that forgot what it signed does not vote until it is safe, and then rejoins by itself."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bench.load import Load, Purse
from bench.network import Member, Network, until

StartLoad = Callable[..., Load]


def test_a_node_whose_data_folder_is_deleted_is_silent_until_safe_and_rejoins(
    whole: Network, purse: Purse, load: StartLoad
) -> None:
    victim = whole.backups()[-1]
    others = [member for member in whole.members if member is not victim]
    purse.book(load(rate=200, seconds=2).report())
    victim.kill()
    shutil.rmtree(victim.home.data)
    victim.start()
    silent_then_back(whole, victim, others, purse, load)


@pytest.mark.soak  # each run of `make chaos` that draws `restore-backup` does the same
def test_a_node_whose_old_backup_is_restored_is_silent_until_safe_and_rejoins(
    whole: Network, purse: Purse, load: StartLoad, tmp_path: Path
) -> None:
    victim = whole.backups()[0]
    others = [member for member in whole.members if member is not victim]
    victim.stop()
    shutil.copytree(victim.home.data, tmp_path / "data")
    victim.start()
    whole.wait_ready()
    purse.book(load(rate=200, seconds=2).report())
    victim.kill()
    shutil.rmtree(victim.home.data)
    shutil.copytree(tmp_path / "data", victim.home.data)
    victim.start()
    silent_then_back(whole, victim, others, purse, load)


@pytest.mark.parametrize(("nodes", "from_block"), [(1, 0), (1, 1), (4, 1)])
def test_all_lose_their_newest_state_and_execute_it_again(
    start: Callable[..., Network], tmp_path: Path, nodes: int, from_block: int
) -> None:
    """As after a power cut, or for a validator that is alone, a lost file: nobody can be asked."""
    network = start(nodes=nodes)
    old = {member.name: tmp_path / member.name for member in network.members}
    if from_block:
        for member in network.members:
            member.stop()
            shutil.copytree(member.home.data, old[member.name])
        for member in network.members:
            member.start()
        network.wait_ready()
    purse = Purse.fill(network, accounts=4)
    network.agreed_root()
    received, height = purse.received(), network.height()
    assert received > 0
    held = {at: network.members[0].block(at) for at in range(1, height + 1)}
    for member in network.members:
        member.kill()
    for member in network.members:
        for path in member.home.data.glob("state.db*"):
            path.unlink()
        for path in old[member.name].glob("state.db*") if from_block else ():
            shutil.copy(path, member.home.data)
    for member in network.members:
        member.start()
    network.wait_ready()
    for member in network.members:
        for at, block in held.items():
            again = member.block(at)
            assert block is not None
            assert again is not None
            assert again["state_root"] == block["state_root"]
    assert purse.received() == received
    assert network.conservation_error() == 0


def silent_then_back(
    network: Network, victim: Member, others: list[Member], purse: Purse, load: StartLoad
) -> None:
    """The victim answers, does not vote before it recovered, and is whole in the end."""
    phases: list[str] = []

    def back() -> bool:
        status = victim.status()
        if status is None:
            return False
        phases.append(status["phase"])
        if status["voting"]:
            assert int(status["height"]) > 0, "votes before it knows anything"
        return bool(status["voting"]) and victim.ready()

    running = load(rate=100, seconds=5, targets=others)
    until(back, f"{victim.name} votes again", timeout_s=60)
    assert any(phase != "running" for phase in phases), "it voted without recovering first"
    purse.book(running.report())
    network.agreed_root()
    assert network.conservation_error() == 0
