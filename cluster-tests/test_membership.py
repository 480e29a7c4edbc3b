"""Real processes while the validator set changes: 4 to 5 to 4, with payments and restarts."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from bench.load import Load, Purse
from bench.network import Member, Network, until
from node.cluster import manifest

StartNetwork = Callable[..., Network]
EPOCH_TIMEOUT_S = 60.0  # 64 empty blocks at 20 ms and a certificate, on a loaded machine


def in_epoch(members: list[Member], epoch: int) -> None:
    def reached() -> bool:
        found = [member.status() for member in members]
        return all(status is not None and status["epoch"] >= epoch for status in found)

    until(reached, f"epoch {epoch}", timeout_s=EPOCH_TIMEOUT_S)


def status(member: Member) -> dict[str, Any]:
    found = member.status()
    assert found is not None
    return found


def joiner(network: Network) -> Member:
    """A node of its own home that observes the chain."""
    home = network.path / "n4"
    made = network.command(
        *("node", "init", "--home", str(home), "--name", "n4"),
        *("--base-port", str(network.base + 40), "--join", str(network.path / "n0")),
        *("--output", "json"),
    )
    node_id = json.loads(made.stdout)["node_id"]
    member = Member(manifest=manifest.member_at(network.path, 4, node_id, network.base))
    network.members.append(member)
    member.start()
    return member


def change(network: Network, name: str, *words: str, approve: list[str], join: str = "") -> None:
    """Propose, approve with these homes, submit."""
    file = str(network.folder / f"{name}.json")
    node = ("--node", network.members[1].url)
    network.command("validator", "propose", file, *words, *node)
    for home in approve:
        path = str(network.path / home)
        network.command("validator", "approve", file, "--home", path, "--yes", *node)
    network.command("validator", "submit", file, *(("--joiner", join) if join else ()), *node)


@pytest.mark.timeout(300)
def test_the_set_grows_to_five_and_shrinks_to_four_under_payments(start: StartNetwork) -> None:
    network = start(nodes=4)
    purse = Purse.fill(network, accounts=8)
    founders = list(network.members)
    new = joiner(network)
    until(lambda: new.height() >= founders[0].height() - 1, "the observer follows", timeout_s=30)
    assert status(new)["role"] == "observer"
    assert not status(new)["voting"]

    with Load(purse.plan(targets=founders, rate=40, seconds=15)) as load:
        load.go()
        key = network.command("validator", "key", "--home", str(new.home.path)).stdout.strip()
        change(
            network,
            "grow",
            *("--add", f"n4={key}"),
            approve=["n0", "n1", "n2", "n3"],
            join=str(new.home.path),
        )
        in_epoch(network.members, 1)
        report = purse.book(load.report())
    assert report.outcomes == {"0": report.sent}
    until(lambda: status(new)["voting"], "the joiner votes", timeout_s=20)
    assert status(new)["role"] == "validator"
    assert {status(member)["validators"] for member in network.members} == {5}

    # Quorums are of four now, so the joiner's votes are needed when another node is down.
    founders[0].kill()
    with Load(purse.plan(targets=founders[1:], rate=20, seconds=3)) as load:
        load.go()
        report = purse.book(load.report())
    assert report.outcomes == {"0": report.sent}
    founders[0].start()
    network.wait_ready()

    change(network, "shrink", *("--remove", "n0"), approve=["n0", "n1", "n2", "n3"])
    in_epoch(network.members, 2)
    assert status(founders[0])["role"] == "observer"
    assert {status(member)["validators"] for member in network.members} == {4}
    # Every process starts again in the epoch that its records prove.
    for member in network.members:
        member.stop()
        member.start()
    in_epoch(network.members, 2)
    with Load(purse.plan(targets=founders[1:], rate=20, seconds=3)) as load:
        load.go()
        report = purse.book(load.report())
    assert report.outcomes == {"0": report.sent}
    network.agreed_root(timeout_s=30)
    assert network.conservation_error() == 0
