"""`hypermesh validator`: a change from proposal to order, and every way it is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from caesar.core.changes import APPROVAL_DOMAIN, Accusation
from caesar.tests.validator_worlds import lie
from consensus.core.types import Epoch
from consensus.core.validators import Validator, ValidatorSet
from native.hashing import sha256
from native.keys import SecretKey
from native.values import Algorithm
from node.changes import ChangeFile, Present, explain, propose
from node.cluster.create import create_cluster
from node.cluster.manifest import Cluster
from node.core.genesis import Genesis
from node.errors import UnexpectedAnswer
from node.home import Home, default_home
from node.logkeys import credentials_of
from node.runtime.api import Outcome
from node.tests.conftest import PASSPHRASE, free_base_port
from node.tests.fake_node import Served
from node.tests.registering_node import RegisteringNode
from node.tests.test_cli import NOWHERE, answer, refused, run
from trustchain.core.roster import Credentials
from trustchain.runtime.ceremony import certificate_of_pem


@pytest.fixture(scope="module")
def served_module(made_cluster: Cluster) -> Iterator[Served]:
    with Served(RegisteringNode.of(made_cluster)) as found:
        yield found


@pytest.fixture
def net(served_module: Served, made_cluster: Cluster) -> RegisteringNode:
    """The served node, back at genesis."""
    node = served_module.node
    assert isinstance(node, RegisteringNode)
    node.application.genesis()
    node.executed.clear()
    node.epoch = 0
    node.outcome = Outcome.APPLIED
    node.execute([])
    del made_cluster
    return node


@pytest.fixture
def at(net: RegisteringNode, served_module: Served) -> list[str]:
    """Where the node is, for a command line."""
    del net
    return ["--node", served_module.url]


@pytest.fixture
def homes(made_cluster: Cluster) -> list[Path]:
    return [member.home.path for member in made_cluster.members]


@pytest.fixture
def joiner(tmp_path: Path) -> Path:
    """A home folder with a key of its own."""
    home = tmp_path / "new"
    (home / "keys").mkdir(parents=True)
    SecretKey.generate(Algorithm.FALCON_512).save(home / "keys" / "node.key")
    return home


@pytest.fixture
def change(tmp_path: Path) -> Path:
    return tmp_path / "change.json"


Approve = Callable[[Path], None]


@pytest.fixture
def approve_all(homes: list[Path], at: list[str]) -> Approve:
    def approve(file: Path) -> None:
        for home in homes[:3]:
            answer("validator", "approve", file, "--home", home, "--yes", *at)

    return approve


def members(at: list[str]) -> list[str]:
    return [entry["name"] for entry in answer("validator", "status", *at)["members"]]


def test_a_node_is_replaced(
    net: RegisteringNode,
    at: list[str],
    homes: list[Path],
    joiner: Path,
    change: Path,
) -> None:
    text = answer("validator", "key", "--home", joiner)["key"]
    words = ("--remove", "n3", "--add", f"n4={text}")
    made = answer("validator", "propose", change, *words, *at)
    assert (made["members"], made["approvals_needed"]) == (["n0", "n1", "n2", "n4"], 3)
    for count, home in enumerate(homes[:3], start=1):
        shown = run("validator", "approve", change, "--home", home, "--yes", *at)
        assert shown.exit_code == 0, shown.output
        assert f"{count} of 3 approvals" in shown.stdout
        assert "remove   n3" in shown.stderr
        assert "add      n4" in shown.stderr
        assert "validators 4 become 4, quorum 3 becomes 3" in shown.stderr
    done = answer("validator", "submit", change, "--joiner", joiner, *at)
    assert done["outcome"] == "applied"
    assert done["id"] == made["id"]
    assert done["effective_after"] == done["height"] + 64
    assert "votes after block" in run("validator", "status", *at).stdout
    assert members(at) == ["n0", "n1", "n2", "n3"]
    net.settle()
    assert members(at) == ["n0", "n1", "n2", "n4"]


def test_a_key_is_rotated(
    net: RegisteringNode, at: list[str], joiner: Path, change: Path, approve_all: Approve
) -> None:
    answer("validator", "propose", change, "--rotate", f"n1={joiner}", *at)
    approve_all(change)
    answer("validator", "submit", change, "--joiner", joiner, *at)
    net.settle()
    found = answer("validator", "status", *at)["members"][1]
    secret = SecretKey.load(joiner / "keys" / "node.key")
    assert (found["name"], found["node_id"]) == ("n1", secret.node_id.hex())


def test_four_grow_to_seven(
    net: RegisteringNode, at: list[str], tmp_path: Path, change: Path, approve_all: Approve
) -> None:
    words: list[object] = []
    joiners: list[object] = []
    for number in (4, 5, 6):
        home = tmp_path / f"n{number}"
        (home / "keys").mkdir(parents=True)
        SecretKey.generate(Algorithm.FALCON_512).save(home / "keys" / "node.key")
        words += ["--add", f"n{number}={home}"]
        joiners += ["--joiner", home]
    answer("validator", "propose", change, *words, *at)
    approve_all(change)
    answer("validator", "submit", change, *joiners, *at)
    net.settle()
    assert answer("validator", "status", *at)["quorum"] == 5


def test_an_approval_counts_once_and_a_forged_one_never(
    at: list[str], homes: list[Path], change: Path
) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    for _ in range(3):
        found = answer("validator", "approve", change, "--home", homes[1], "--yes", *at)
        assert found["approvals"] == 1
    document = json.loads(change.read_text())
    document["approvals"] += [
        {"name": name, "signature": document["approvals"][0]["signature"]} for name in ("n0", "n2")
    ]
    change.write_text(json.dumps(document))
    refused("validator", "submit", change, *at, code=2, error="HM-D-803")


def test_what_is_signed_is_the_change_and_not_the_file(
    at: list[str], homes: list[Path], change: Path
) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    answer("validator", "approve", change, "--home", homes[0], "--yes", *at)
    document = json.loads(change.read_text())
    document["remove"] = ["n2"]
    change.write_text(json.dumps(document))
    found = answer("validator", "approve", change, "--home", homes[1], "--yes", *at)
    assert found["approvals"] == 1  # the first approved another change
    assert ChangeFile.read(change).change.signed_bytes.startswith(APPROVAL_DOMAIN)


def test_nothing_is_signed_without_a_yes(at: list[str], homes: list[Path], change: Path) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    before = change.read_text()
    found = run("validator", "approve", change, "--home", homes[0], *at)
    assert found.exit_code != 0
    assert "remove   n3" in found.stderr
    assert change.read_text() == before


def test_a_stranger_cannot_approve(
    at: list[str], change: Path, joiner: Path, made_cluster: Cluster
) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    (joiner / "genesis.json").write_text(made_cluster.genesis.read_text())
    words = ("validator", "approve", change, "--home", joiner, "--yes", *at)
    refused(*words, code=7, error="HM-D-804")


def test_a_home_of_another_network_cannot_approve(
    at: list[str], change: Path, tmp_path: Path
) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    other = create_cluster(
        tmp_path / "other",
        name="other",
        nodes=1,
        base_port=free_base_port(1),
        passphrase=PASSPHRASE,
    )
    home = other.members[0].home.path
    words = ("validator", "approve", change, "--home", home, "--yes", *at)
    refused(*words, code=6, error="HM-D-802")


def test_a_change_of_an_earlier_set_is_refused(
    net: RegisteringNode, at: list[str], change: Path, tmp_path: Path, approve_all: Approve
) -> None:
    late = tmp_path / "late.json"
    answer("validator", "propose", change, "--remove", "n3", *at)
    answer("validator", "propose", late, "--remove", "n0", *at)
    approve_all(change)
    approve_all(late)
    answer("validator", "submit", change, *at)
    refused("validator", "submit", late, *at, code=1, error="HM-V-133")
    net.settle()
    refused("validator", "submit", late, *at, code=6, error="HM-D-802")


def test_a_joiner_without_its_home_is_named(
    at: list[str], change: Path, joiner: Path, approve_all: Approve
) -> None:
    answer("validator", "propose", change, "--add", f"n4={joiner}", *at)
    approve_all(change)
    assert "n4" in refused("validator", "submit", change, *at, code=7, error="HM-D-804")


def test_a_change_that_is_not_ordered_in_time_is_open(
    net: RegisteringNode, at: list[str], change: Path, approve_all: Approve
) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    approve_all(change)
    net.outcome = Outcome.PENDING
    words = ("validator", "submit", change, "--timeout", "1s", *at)
    refused(*words, code=5, error="HM-D-805")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        ((), 2, "HM-D-803"),
        (("--remove", "n9"), 2, "HM-D-803"),
        (("--remove", "n0", "--remove", "n1"), 2, "HM-D-803"),
        (("--remove", "n0", "--remove", "n0"), 2, "HM-D-803"),
        (("--remove", "n0", "--valid-for", "99999999"), 2, "HM-D-803"),
        (("--add", "n4"), 2, "HM-D-002"),
        (("--add", "N4=x"), 2, "HM-D-002"),
        (("--add", "n4=bm8ga2V5"), 2, "HM-D-002"),
        (("--rotate", "n1=no-folder"), 2, "HM-D-002"),
    ],
)
def test_a_proposal_that_makes_no_sense_is_refused(
    words: tuple[str, ...], code: int, error: str, at: list[str], change: Path
) -> None:
    refused("validator", "propose", change, *words, *at, code=code, error=error)
    assert not change.exists()


def test_a_proposal_never_replaces_a_file(at: list[str], change: Path) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    before = change.read_text()
    words = ("validator", "propose", change, "--remove", "n2", *at)
    refused(*words, code=2, error="HM-D-002")
    assert change.read_text() == before


@pytest.mark.parametrize(
    "damage",
    [
        lambda document: document.pop("base_set"),
        lambda document: document.update(extra=1),
        lambda document: document.update(version=2),
        lambda document: document.update(base_epoch=-1),
        lambda document: document.update(remove=[3]),
        lambda document: document.update(add=[{"name": "n4", "key": "AAAA"}]),
        lambda document: document.update(approvals=[{"name": "n0"}]),
        lambda document: document.update(chain_id="00"),
    ],
)
def test_a_damaged_file_is_refused(
    damage: Callable[[dict[str, Any]], object], at: list[str], homes: list[Path], change: Path
) -> None:
    answer("validator", "propose", change, "--remove", "n3", *at)
    document = json.loads(change.read_text())
    damage(document)
    change.write_text(json.dumps(document))
    words = ("validator", "approve", change, "--home", homes[0], "--yes", *at)
    refused(*words, code=2, error="HM-D-801")


def test_evidence_is_listed(net: RegisteringNode, at: list[str], homes: list[Path]) -> None:
    assert answer("validator", "evidence", *at) == []
    assert "no lie" in run("validator", "evidence", *at).stdout
    secret = SecretKey.load(homes[2] / "keys" / "node.key")
    proof = lie("n2", chain_id=net.genesis.chain_id, secret=secret)
    payload = Accusation(
        chain_id=net.genesis.chain_id, offender=secret.node_id, proof=proof
    ).encode()
    assert net.execute([payload]).codes == b"\0"
    (found,) = answer("validator", "evidence", *at)
    assert (found["name"], found["offence"]) == ("n2", "two commits")
    assert "lied" in run("validator", "status", *at).stdout
    assert "two commits" in run("validator", "evidence", *at).stdout


def test_a_node_that_lies_about_its_set_is_not_believed(net: RegisteringNode) -> None:
    document = {
        "chain": net.genesis.label,
        "chain_id": net.genesis.chain_id.hex(),
        "height": 1,
        "epoch": 0,
        "hash": bytes(32).hex(),
        "members": [],
        "pending": None,
    }
    with pytest.raises(UnexpectedAnswer, match="hash"):
        Present.of(document, "http://[::1]:1")
    with pytest.raises(UnexpectedAnswer, match="cannot be read"):
        Present.of({**document, "epoch": "x"}, "http://[::1]:1")


@pytest.mark.parametrize("verb", ["status", "evidence"])
def test_a_node_that_is_not_there_is_said(verb: str) -> None:
    refused("validator", verb, "--node", NOWHERE, code=4, error="HM-D-301")


def test_files_that_are_not_there_are_said(tmp_path: Path) -> None:
    missing = tmp_path / "none.json"
    for verb in ("approve", "submit"):
        refused("validator", verb, missing, "--node", NOWHERE, code=2, error="HM-D-004")
    refused("validator", "key", "--home", missing, code=3, error="HM-D-202")


# --- log keys of a joiner


@pytest.fixture
def newcomer(made_cluster: Cluster, tmp_path: Path) -> Path:
    """A home made with `node init --join`."""
    home = tmp_path / "n4"
    known = made_cluster.members[0].home.path
    words = ("--home", home, "--name", "n4", "--base-port", free_base_port(1), "--join", known)
    answer("node", "init", *words)
    return home


def certify(cluster: Cluster, home: Path) -> Path:
    """Have the holder of the offline root certify the issuing key of a home."""
    out = home / "keys" / "issuing.pem"
    secret = home / "passphrase"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    words = ("--name", "n4", "--root", cluster.folder / "offline", "--passphrase-file", secret)
    made = answer("ca", "sign-issuer", home / "keys" / "issuing.pub", *words, "--out", out)
    assert made["name"] == "n4"
    return out


def credentials(at: list[str]) -> Credentials:
    (member,) = [
        entry for entry in answer("validator", "status", *at)["members"] if entry["name"] == "n4"
    ]
    return Credentials.decode(base64.b64decode(member["credentials"]))


@pytest.mark.parametrize("issues", [True, False])
def test_a_joiner_brings_its_log_keys(
    issues: bool,
    net: RegisteringNode,
    at: list[str],
    newcomer: Path,
    change: Path,
    made_cluster: Cluster,
    approve_all: Approve,
) -> None:
    if issues:
        certificate = certificate_of_pem(certify(made_cluster, newcomer).read_text())
    text = answer("validator", "key", "--home", newcomer)["key"]
    shown = run("validator", "propose", change, "--add", f"n4={text}", *at)
    assert ("cosigns and issues" if issues else "cosigns but does not issue") in shown.stdout
    approve_all(change)
    done = answer("validator", "submit", change, "--joiner", newcomer, *at)
    assert done["outcome"] == "applied"
    net.settle()
    found = credentials(at)
    own = SecretKey.load(newcomer / "keys" / "cosigner.key")
    assert found.cosigner_key == own.public.raw
    assert found.issuing_hash == (sha256(certificate) if issues else b"")


def test_more_joiners_with_issuing_certificates_than_one_payload_holds_are_refused_with_a_number(
    net: RegisteringNode,
    at: list[str],
    tmp_path: Path,
    made_cluster: Cluster,
    approve_all: Approve,
) -> None:
    known = made_cluster.members[0].home.path
    adds: list[tuple[object, ...]] = []
    joiners: list[tuple[object, ...]] = []
    for number in range(4, 9):
        home = tmp_path / f"n{number}"
        words = ("--home", home, "--name", home.name, "--base-port", free_base_port(1))
        answer("node", "init", *words, "--join", known)
        certify(made_cluster, home)
        adds.append(("--add", f"n{number}={home}"))
        joiners.append(("--joiner", home))

    def submit(count: int) -> list[object]:
        file = tmp_path / f"{count}.json"
        answer("validator", "propose", file, *[word for add in adds[:count] for word in add], *at)
        approve_all(file)
        return [file, *[word for joiner in joiners[:count] for word in joiner], *at]

    said = refused("validator", "submit", *submit(5), code=2, error="HM-D-803")
    assert "65,536 fit" in said
    assert "16,000 bytes" in said
    assert answer("validator", "submit", *submit(4))["outcome"] == "applied"
    size = len(net.executed[-1].batch.payload(0)) - 3 * 700  # without the approvals
    assert 4 * 15_000 < size < 4 * 16_000  # what the hint says
    net.settle()
    assert credentials(at).issuing_hash


def test_a_home_folder_is_proposed_with_its_log_keys(
    net: RegisteringNode, at: list[str], newcomer: Path, change: Path, approve_all: Approve
) -> None:
    answer("validator", "propose", change, "--rotate", f"n2={newcomer}", *at)
    text = change.read_text()
    assert ChangeFile.read(change).text() == text
    approve_all(change)
    answer("validator", "submit", change, "--joiner", newcomer, *at)
    net.settle()
    rotated = answer("validator", "status", *at)["members"][2]
    assert rotated["name"] == "n2"
    assert rotated["credentials"]


def test_keys_that_changed_after_the_approval_are_refused(
    at: list[str],
    newcomer: Path,
    change: Path,
    made_cluster: Cluster,
    approve_all: Approve,
) -> None:
    answer("validator", "propose", change, "--add", f"n4={newcomer}", *at)
    approve_all(change)
    certify(made_cluster, newcomer)  # approved was a node that does not issue
    refused("validator", "submit", change, "--joiner", newcomer, *at, code=1, error="HM-A-008")


def test_a_cosigner_key_that_another_validator_has_is_refused_before_anybody_approves(
    net: RegisteringNode,
    at: list[str],
    homes: list[Path],
    newcomer: Path,
    joiner: Path,
    change: Path,
    approve_all: Approve,
) -> None:
    def said(*words: object) -> None:
        text = refused("validator", *words, code=2, error="HM-D-803")
        assert "brings the cosigner key of" in text
        assert "ca request" in text
        assert not change.exists()

    text = answer("validator", "key", "--home", newcomer)["key"]
    spki = answer("validator", "key", "--home", joiner)["key"].partition(".")[0]
    copied = f"n5={spki}.{text.partition('.')[2]}"
    both = ("--add", f"n4={text}", "--add", copied)
    said("propose", change, *both, *at)  # two that join with one key
    answer("validator", "propose", change, "--add", f"n4={text}", *at)
    approve_all(change)
    answer("validator", "submit", change, "--joiner", newcomer, *at)
    net.settle()
    change.unlink()
    said("propose", change, "--add", copied, *at)  # a joiner's that votes
    founder = base64.b64encode(
        Credentials(cosigner_key=net.genesis.log.cosigner_keys[1]).encode()
    ).decode()
    taken = ("--add", f"n5={spki}.{founder}")
    said("propose", change, *taken, "--home", homes[0], *at)
    # A founder's key stands in genesis, so it is seen where genesis is: by whoever approves.
    answer("validator", "propose", change, *taken, *at)
    shown = refused(
        *("validator", "approve", change, "--home", homes[0], "--yes", *at),
        code=2,
        error="HM-D-803",
    )
    assert "founder n1" in shown
    change.unlink()
    damaged = base64.b64encode(b"no keys").decode()
    refused(
        *("validator", "propose", change, "--add", f"n5={spki}.{damaged}", *at),
        code=2,
        error="HM-D-803",
    )


def test_a_certificate_of_another_root_or_key_is_refused(
    newcomer: Path, made_cluster: Cluster, tmp_path: Path
) -> None:
    other = create_cluster(
        tmp_path / "other",
        name="other",
        nodes=1,
        base_port=free_base_port(1),
        passphrase=PASSPHRASE,
    )
    certify(other, newcomer)
    refused("validator", "key", "--home", newcomer, code=3, error="HM-D-204")
    (newcomer / "keys" / "issuing.pem").unlink()
    certify(made_cluster, newcomer)
    (newcomer / "keys" / "issuing.key").unlink()
    SecretKey.generate(Algorithm.ML_DSA_65).save(newcomer / "keys" / "issuing.key")
    refused("validator", "key", "--home", newcomer, code=3, error="HM-D-204")


def test_a_home_without_log_keys_gets_them_and_keeps_those_it_has(
    at: list[str], joiner: Path, made_cluster: Cluster
) -> None:
    (joiner / "genesis.json").write_text(made_cluster.genesis.read_text())
    shown = run("validator", "key", "--home", joiner)
    assert "would vote but not cosign" in shown.stderr
    first = answer("ca", "request", "--home", joiner)
    assert first["key"].startswith("-----BEGIN PUBLIC KEY-----")
    again = answer("ca", "request", "--home", joiner)
    assert again == first
    assert "." in answer("validator", "key", "--home", joiner)["key"]
    del at


def test_after_a_lost_issuing_key_the_new_one_is_what_is_asked_for(
    newcomer: Path, made_cluster: Cluster
) -> None:
    certificate = certify(made_cluster, newcomer)
    lost = answer("ca", "request", "--home", newcomer)["key"]
    (newcomer / "keys" / "issuing.key").unlink()
    asked = answer("ca", "request", "--home", newcomer)
    assert asked["key"] != lost
    assert Path(asked["request"]).read_text() == asked["key"]
    refused("validator", "key", "--home", newcomer, code=3, error="HM-D-204")  # the old one's
    certificate.unlink()
    certify(made_cluster, newcomer)
    answer("validator", "key", "--home", newcomer)
    for damaged in (b"no key", b"\xff\xfe", b""):
        Path(asked["request"]).write_bytes(damaged)
        assert answer("ca", "request", "--home", newcomer) == asked


def test_only_an_issuing_key_is_certified(made_cluster: Cluster, tmp_path: Path) -> None:
    secret = tmp_path / "passphrase"
    secret.write_text(PASSPHRASE)
    secret.chmod(0o600)
    text = tmp_path / "text.pub"
    text.write_text("no key")
    offline, out = made_cluster.folder / "offline", tmp_path / "out.pem"
    words = ("--name", "n4", "--passphrase-file", secret, "--out", out, "--root")
    refused("ca", "sign-issuer", text, *words, offline, code=1, error="HM-A-008")
    refused("ca", "sign-issuer", text, *words, tmp_path, code=1, error="HM-A-008")
    assert not out.exists()


def test_who_approves_is_told_what_is_left_of_the_log(
    net: RegisteringNode,
    at: list[str],
    homes: list[Path],
    newcomer: Path,
    joiner: Path,
    tmp_path: Path,
    made_cluster: Cluster,
) -> None:
    def told(name: str, *words: object) -> str:
        file = tmp_path / f"{name}.json"
        answer("validator", "propose", file, *words, *at)
        return run("validator", "approve", file, "--home", homes[0], "--yes", *at).stderr

    (joiner / "genesis.json").write_text(made_cluster.genesis.read_text())
    without = told("without", "--remove", "n3", "--add", f"n4={joiner}")
    assert "3 of 4 would cosign, 2 are needed; 3 would issue" in without
    cosigns = told("cosigns", "--remove", "n3", "--add", f"n4={newcomer}")
    assert "4 of 4 would cosign, 2 are needed; 3 would issue" in cosigns
    assert "NOBODY" not in cosigns
    genesis = net.genesis
    members = [replace(newcomer_of(newcomer, genesis), name="m0")]
    present = Present.of(
        {
            "chain": "demo",
            "chain_id": genesis.chain_id.hex(),
            "epoch": 3,
            "height": 9,
            "hash": ValidatorSet(epoch=Epoch(3), members=tuple(members)).hash.hex(),
            "members": [
                {
                    "name": entry.name,
                    "key": base64.b64encode(entry.key.spki).decode(),
                    "credentials": base64.b64encode(entry.credentials).decode(),
                    "tombstone": False,
                }
                for entry in members
            ],
            "pending": None,
        },
        "here",
    )
    stranger = Validator(name="m1", key=SecretKey.generate(Algorithm.FALCON_512).public)
    change = propose(present, removes=["m0"], adds=[stranger], rotations=[], valid_for=100)
    text = explain(present, change, genesis)
    assert "0 of 1 would cosign, 1 are needed; 0 would issue" in text
    assert "NO CHECKPOINT" in text
    assert "NOBODY" in text


def newcomer_of(home: Path, genesis: Genesis) -> Validator:
    """The node of a home, as it is proposed."""
    found = Home(home)
    return Validator(
        name="n4",
        key=SecretKey.load(found.node_key).public,
        credentials=credentials_of(found, genesis.log),
    )


def test_a_damaged_genesis_that_nobody_named_stops_no_proposal(
    at: list[str], change: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Home(tmp_path / "hypermesh" / "node")
    home.path.mkdir(parents=True)
    home.genesis.write_text("{}")
    monkeypatch.delenv("HYPERMESH_HOME", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    assert default_home() == home.path
    answer("validator", "propose", change, "--remove", "n3", *at)
    refused(
        *("validator", "propose", tmp_path / "other.json", "--remove", "n3", *at),
        *("--home", home.path),
        code=3,
        error="HM-D-201",
    )
