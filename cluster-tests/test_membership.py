"""Real processes while the validator set changes: 4 to 5 to 4 and 4 to 7 to 4, under payments.

The tools of an auditor follow: proofs, checks of running and stopped nodes, snapshots.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
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


def joiner(network: Network, index: int = 4) -> Member:
    """A node of its own home that observes the chain; the one before it names its peers."""
    name = f"n{index}"
    home = network.path / name
    made = network.command(
        *("node", "init", "--home", str(home), "--name", name),
        *("--base-port", str(network.base + 10 * index)),
        *("--join", str(network.members[-1].home.path), "--output", "json"),
    )
    node_id = json.loads(made.stdout)["node_id"]
    member = Member(manifest=manifest.member_at(network.path, index, node_id, network.base))
    network.members.append(member)
    return member


def key_of(network: Network, member: Member) -> str:
    return network.command("validator", "key", "--home", str(member.home.path)).stdout.strip()


def change(
    network: Network, name: str, *words: str, approve: list[str], join: Sequence[Member] = ()
) -> None:
    """Propose, approve with these homes, submit."""
    file = str(network.folder / f"{name}.json")
    node = ("--node", next(m for m in network.members[3:] if m.running).url)
    network.command("validator", "propose", file, *words, *node)
    for home in approve:
        path = str(network.path / home)
        network.command("validator", "approve", file, "--home", path, "--yes", *node)
    joiners = [word for member in join for word in ("--joiner", str(member.home.path))]
    network.command("validator", "submit", file, *joiners, *node)


@pytest.mark.timeout(300)
def test_the_set_grows_to_five_and_shrinks_to_four_under_payments(start: StartNetwork) -> None:
    network = start(nodes=4)
    purse = Purse.fill(network, accounts=8)
    founders = list(network.members)
    new = joiner(network)
    new.start()
    until(lambda: new.height() >= founders[0].height() - 1, "the observer follows", timeout_s=30)
    assert status(new)["role"] == "observer"
    assert not status(new)["voting"]

    with Load(purse.plan(targets=founders, rate=40, seconds=15)) as load:
        load.go()
        change(
            network,
            "grow",
            *("--add", f"n4={key_of(network, new)}"),
            approve=["n0", "n1", "n2", "n3"],
            join=[new],
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


def pay(purse: Purse, targets: list[Member], seconds: int = 3) -> None:
    """Payments through these nodes, all of them applied."""
    with Load(purse.plan(targets=targets, rate=30, seconds=seconds)) as load:
        load.go()
        report = purse.book(load.report())
    assert report.outcomes == {"0": report.sent}


def last_number(network: Network, member: Member) -> int:
    """Of the newest thing that a stopped node has signed."""
    found = network.answer("store", "inspect", str(member.home.path))
    return int(found["last_number"])


@pytest.mark.soak
@pytest.mark.timeout(420)
def test_four_become_seven_and_four_others_and_every_tool_follows(
    start: StartNetwork, tmp_path: Path
) -> None:
    network = start(nodes=4, run=False)
    for member in network.members:
        with member.home.config.open("a") as file:
            file.write("\n[storage]\nsnapshot_blocks = 64\n")
    network.up()
    founders = list(network.members)
    purse = Purse.fill(network, accounts=8)
    joiners = [joiner(network, index) for index in (4, 5, 6)]
    for member in joiners:
        member.start()
    everybody = list(network.members)
    until(
        lambda: min(m.height() for m in joiners) >= founders[0].height() - 1,
        "the observers follow",
        timeout_s=30,
    )
    with Load(purse.plan(targets=founders, rate=30, seconds=15)) as load:
        load.go()
        adds = [word for m in joiners for word in ("--add", f"{m.name}={key_of(network, m)}")]
        change(network, "seven", *adds, approve=["n0", "n1", "n2"], join=joiners)
        in_epoch(everybody, 1)
        report = purse.book(load.report())
    assert report.outcomes == {"0": report.sent}
    until(lambda: all(status(m)["voting"] for m in everybody), "all seven vote", timeout_s=30)

    # Two of seven may die at any moment now.
    for member in founders[:2]:
        member.kill()
    pay(purse, everybody[3:])
    for member in founders[:2]:
        member.start()
    network.wait_ready()
    names = [member.name for member in everybody[2:]]
    change(network, "five", *("--remove", "n0", "--remove", "n1"), approve=names)
    in_epoch(everybody, 2)
    change(network, "four", *("--remove", "n2"), approve=names)
    in_epoch(everybody, 3)
    present, gone = everybody[3:], everybody[:3]
    assert {status(member)["role"] for member in gone} == {"observer"}
    until(lambda: all(status(m)["voting"] for m in present), "all four vote", timeout_s=30)

    # A removed node follows and signs nothing.
    founders[0].stop()
    signed, height = last_number(network, founders[0]), network.members[3].height()
    founders[0].start()
    pay(purse, present)
    until(lambda: founders[0].height() > height, "a removed node follows", timeout_s=20)
    founders[0].stop()
    assert last_number(network, founders[0]) == signed
    founders[0].start()

    # Auditors begin with genesis and reach the newest epoch.
    trust = ("--genesis", str(founders[0].home.genesis))
    last, old = everybody[6], str(everybody[4].home.path)
    for member in (last, gone[1]):
        assert network.answer("chain", "verify", "--node", member.url, *trust)["epoch"] == 3
        shown = network.answer("chain", "validators", "--node", member.url, *trust)
        assert [each["name"] for each in shown["members"]] == ["n3", "n4", "n5", "n6"]
    everybody[4].stop()
    assert network.answer("chain", "verify", "--files", old, *trust)["epoch"] == 3
    assert network.answer("store", "verify", old)["signatures"] > 0
    everybody[4].start()
    for height, links in (("1", 0), ("latest", 3)):
        proof = tmp_path / f"{height}.proof"
        words = ("block", height, "--out", str(proof), "--node", last.url, *trust)
        network.answer("chain", "prove", *words)
        assert len(json.loads(proof.read_text())["links"]) == links
        network.answer("chain", "verify-header", str(proof), *trust)
    both = (last.url, gone[1].url)
    assert network.answer("chain", "forensics", *both, *trust) == {"fork": None}

    # A snapshot of this epoch gives a new observer its state and the sets.
    pay(purse, present)
    backup = tmp_path / "backup"
    home = str(gone[2].home.path)
    network.answer("chain", "snapshot", str(backup), "--home", home, *trust)
    late = joiner(network, 7)
    restored = network.answer("chain", "restore", str(backup), "--home", str(late.home.path))
    late.start()
    in_epoch([late], 3)
    assert status(late)["height_oldest"] >= restored["height"]

    # A validator that lost its votes in this epoch, and kept its state, recovers and votes again.
    victim = everybody[5]
    victim.stop()
    for path in victim.home.consensus_database.parent.glob("consensus.db*"):
        path.unlink()
    victim.start()
    in_epoch([victim], 3)
    until(lambda: status(victim)["voting"] or pay(purse, present), "it votes", timeout_s=60)
    network.agreed_root(timeout_s=30)
    assert network.conservation_error() == 0


@pytest.mark.soak
@pytest.mark.timeout(600)
def test_every_founder_is_replaced_while_payments_go_on(start: StartNetwork) -> None:
    network = start(nodes=4)
    purse = Purse.fill(network, accounts=8)
    present = list(network.members)
    for step in range(4):
        new, leaving = joiner(network, 4 + step), present[0]
        new.start()
        until(
            lambda at=new, old=leaving: at.height() >= old.height() - 1, "it follows", timeout_s=30
        )
        with Load(purse.plan(targets=present[1:], rate=30, seconds=10)) as load:
            load.go()
            words = ("--remove", leaving.name, "--add", f"{new.name}={key_of(network, new)}")
            approve = [member.name for member in present]
            change(network, f"step{step}", *words, approve=approve, join=[new])
            present = [*present[1:], new]
            in_epoch(present, step + 1)
            report = purse.book(load.report())
        assert report.outcomes == {"0": report.sent}
        until(lambda at=new: status(at)["voting"], "the new one votes", timeout_s=30)
        leaving.stop()
    network.agreed_root(present, timeout_s=30)
    assert network.conservation_error(present) == 0
    genesis = str(present[0].home.genesis)
    words = ("chain", "verify", "--node", present[-1].url, "--genesis", genesis)
    assert network.answer(*words)["epoch"] == 4


def follows(new: Member, other: Member) -> None:
    until(lambda: new.height() >= other.height() - 1, f"{new.name} follows", timeout_s=30)


def votes(new: Member) -> None:
    until(lambda: status(new)["voting"], f"{new.name} votes", timeout_s=20)


def certify(network: Network, member: Member) -> None:
    """The holder of the offline root certifies the issuing key of a node that joins."""
    offline, keys = network.path / "offline", member.home.path / "keys"
    network.command(
        *("ca", "sign-issuer", str(keys / "issuing.pub"), "--name", member.name),
        *("--root", str(offline), *network.passphrase),
        *("--out", str(keys / "issuing.pem")),
    )


@pytest.mark.soak
@pytest.mark.timeout(420)
def test_certificates_are_issued_after_every_founder_was_replaced(
    start: StartNetwork, tmp_path: Path
) -> None:
    network = start(nodes=4)
    genesis = ("--genesis", str(network.path / "genesis.json"))

    def issue(name: str, member: Member, code: int = 0) -> Any:
        return network.answer(
            *("cert", "issue", "--name", name, "--key", "ed25519", "--out", str(tmp_path / name)),
            *("--enrolment-key", str(network.path / "enrolment.key")),
            *(*genesis, "--node", member.url),
            code=code,
        )

    founders = list(network.members)
    first = issue("first.mesh", founders[0])
    assert first["verified"]
    members = list(founders)
    for at, founder in enumerate(founders):
        new = joiner(network, 4 + at)
        certify(network, new)
        new.start()
        follows(new, members[-1])
        words = ("--remove", founder.name, "--add", f"{new.name}={key_of(network, new)}")
        change(network, f"c{at}", *words, approve=[m.name for m in members], join=[new])
        members = [*members[1:], new]
        in_epoch([member for member in network.members if member.running], at + 1)
        votes(new)
        # The new one issues, at once; the one that left does not, and says so.
        made = issue(f"epoch{at + 1}.mesh", new)
        assert made["verified"]
        assert made["cosigners_needed"] == 2
        refused = network.command(
            *("cert", "show", "--index", str(made["index"]), "--node", founder.url), code=None
        )
        assert refused.returncode != 0
        assert "hands out no certificates" in refused.stderr
        if at > 1:
            founders[at - 2].stop()
    for founder in founders[2:]:
        founder.stop()

    # Nobody of genesis is left. Certificates of all epochs hold for who has genesis only.
    last = issue("last.mesh", members[0])
    assert last["verified"]
    cosigners = str(tmp_path / "cosigners.json")
    known = network.answer(
        "cert", "cosigners", "--out", cosigners, *genesis, "--node", members[1].url
    )
    assert (known["epoch"], known["validators"], known["issuers"]) == (4, 4, 4)
    assert known["ends"] == [1, 2, 3, 4]
    for name in ("first", "epoch1", "epoch2", "epoch3", "epoch4", "last"):
        bundle = str(tmp_path / f"{name}.mesh.pem")
        verified = network.answer("cert", "verify", bundle, "--cosigners", cosigners, *genesis)
        assert verified["verified"]
    bundle = str(tmp_path / "last.mesh.pem")
    assert network.command("cert", "verify", bundle, *genesis, code=None).returncode != 0
    # After a restart of all the newest head is cosigned again, by the present set alone.
    for member in members:
        member.stop()
    for member in members:
        member.start()
    network.wait_ready(members)
    again = network.answer("ctlog", "head", *genesis, "--node", members[2].url)
    assert (again["size"], again["cosigners_needed"]) == (6, 2)
    status = network.answer("node", "status", "--node", members[2].url)
    roles = ("log_cosigners", "log_cosigners_needed", "log_issuers")
    assert [status[name] for name in roles] == [4, 2, 4]
