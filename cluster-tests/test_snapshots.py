"""Snapshots between real processes: a lost node joins peers that pruned, and a folder restores."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from bench.load import Load, Purse
from bench.network import Member, Network, until
from node.core.snapshotfiles import MANIFEST

StartLoad = Callable[..., Load]

EVERY = 64  # blocks between two snapshots


def cut_often(network: Network) -> None:
    """Restart all nodes with a short period."""
    for member in network.members:
        member.stop()
        with member.home.config.open("a") as file:
            file.write(f"\n[storage]\nsnapshot_blocks = {EVERY}\n")
    network.up()


def newest(member: Member) -> int:
    """Height of a node's newest complete snapshot; 0 if it has none."""
    folders = member.home.snapshots.iterdir() if member.home.snapshots.exists() else ()
    names = [folder.name for folder in folders if (folder / MANIFEST).exists()]
    return max((int(name) for name in names if name.isdigit()), default=0)


def prune(member: Member) -> None:
    """Forget the blocks below the newest snapshot, as an operator's limits would."""
    database = apsw.Connection(str(member.home.state_database))
    with database:
        database.execute("DELETE FROM block WHERE height<?", (newest(member),))
    database.close()


@pytest.mark.soak
def test_a_lost_node_takes_a_snapshot_from_peers_that_pruned_and_a_folder_restores_another(
    whole: Network, purse: Purse, load: StartLoad, tmp_path: Path
) -> None:
    network = whole
    cut_often(network)
    victim, other, *_ = network.backups()
    rest = [member for member in network.members if member is not victim]
    running = load(rate=200, seconds=4)
    purse.book(running.report())
    until(
        lambda: min(newest(member) for member in network.members) >= EVERY,
        "every node has a snapshot",
        timeout_s=30,
    )

    # A running node's snapshot is copied, and every byte of the copy is checked.
    backup = tmp_path / "backup"
    copied = network.answer("chain", "snapshot", str(backup), "--home", str(other.home.path))
    assert copied["height"] >= EVERY

    for member in network.members:
        member.stop()
    for member in rest:
        prune(member)
    shutil.rmtree(victim.home.data)
    network.up(timeout_s=60)
    network.wait_ready(timeout_s=60)
    assert newest(victim) >= EVERY, "it serves the snapshot it fetched"
    assert "snapshot.restored" in victim.home.log_file.read_text()
    purse.book(load(rate=100, seconds=2).report())
    network.agreed_root()
    assert network.conservation_error() == 0

    # The copy gives a node that lost state.db its state; blocks above it come from the others.
    other.stop()
    other.home.state_database.unlink()
    shutil.rmtree(other.home.snapshots)
    restored = network.answer("chain", "restore", str(backup), "--home", str(other.home.path))
    assert restored["state_root"] == copied["state_root"]
    other.start()
    network.wait_ready(timeout_s=60)
    network.agreed_root()
    damaged = next(backup.glob("*.chunk"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    other.stop()
    other.home.state_database.unlink()
    network.command("chain", "restore", str(backup), "--home", str(other.home.path), code=1)
