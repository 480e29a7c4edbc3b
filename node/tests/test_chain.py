"""The chain and store commands against real nodes, running and stopped.

Two processes serve the whole module; the tests run in the order they are written, and those on
files come after the nodes have stopped.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import apsw
import httpx
import pytest
import trio

from caesar.core.addresses import Address, address_text
from consensus.core.epochs import Epochs
from consensus.core.messages import Checkpoint, VoteVector
from consensus.core.records import OwnVotes, Tip
from consensus.core.types import Epoch, Height, Number, ReplicaIndex
from consensus.core.validators import ValidatorSet
from consensus.limits import (
    BATCH_SIZE_BYTES_MAX,
    HEADER_PROOF_SIZE_BYTES_MAX,
    LINKS_MAX,
    LINKS_SIZE_BYTES_MAX,
)
from native.keys import SecretKey
from native.values import Digest, Signature
from node.chain import StoredChain, lineage_of, verify_chain, verify_proof_file
from node.client import NodeClient
from node.cluster import operate
from node.cluster.create import create_cluster
from node.cluster.manifest import Cluster
from node.errors import AlreadyRunning, ChainInvalid, DatabaseInvalid, RollbackUnsafe
from node.inspection import verify_stores
from node.limits import HTTP_FOLLOWERS_MAX, PROOF_FILE_SIZE_BYTES_MAX
from node.preflight import read_genesis, take_lock
from node.rollback import roll_back
from node.stopped import StoppedNode, stopped_node
from node.tests.conftest import PASSPHRASE, free_base_port
from node.tests.test_cli import answer, refused, run
from node.tests.test_openapi import faults

ADDRESS = address_text(Address(bytes(range(32))))  # well-formed; nobody has its key


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster of two that makes an empty block every half second."""
    folder = tmp_path_factory.mktemp("live") / "two"
    made = create_cluster(
        folder, name="two", nodes=2, base_port=free_base_port(2), passphrase=PASSPHRASE
    )
    for member in made.members:
        text = member.home.config.read_text()
        assert "idle_block_interval_ms = 2000" in text
        text = text.replace("interval_ms = 2000", "interval_ms = 500")
        member.home.config.write_text(text.replace("[http]\n", "[http]\ndebug = true\n"))
    yield made
    operate.stop(made.members, timeout_s=10)


@pytest.fixture(scope="module")
def url(live: Cluster) -> str:
    operate.start(live.members)
    operate.wait_ready(live.members, timeout_s=30)
    return live.members[0].url


@pytest.fixture(scope="module")
def secret(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("secret") / "passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    path.chmod(0o600)
    return path


@pytest.fixture(scope="module")
def payment(live: Cluster, url: str, secret: Path) -> dict[str, Any]:
    words = ("wallet", "send", "--from", "treasury", "--amount", "12.5", "--node", url)
    more = ("--passphrase-file", secret, "--wallets", live.wallets, "--to", ADDRESS)
    made: dict[str, Any] = answer(*words, *more)
    assert made["outcome"] == "applied"
    return made


# --- a running node


def test_what_a_running_node_shows_of_its_chain(
    live: Cluster, url: str, payment: dict[str, Any]
) -> None:
    shown = answer("chain", "head", "--node", url)
    assert shown["height"] >= payment["height"]
    assert shown["height_oldest"] == 1
    assert answer("chain", "block", payment["height"], "--node", url)["payloads"] == 1
    found = answer("chain", "tx", payment["id"], "--node", url)
    assert (found["height"], found["outcome"]) == (payment["height"], "applied")
    who = answer("chain", "validators", "--node", url)
    assert (who["quorum"], who["members"][0]["connected"]) == (2, True)
    assert who["members"][0]["node_id"] == live.members[0].node_id
    assert "place 0 of block" in run("chain", "tx", payment["id"], "--node", url).stdout
    assert "quorum 2" in run("chain", "validators", "--node", url).stdout
    refused("chain", "tx", "00" * 32, "--node", url, code=1, error="HM-D-915")
    refused("chain", "block", 10**9, "--node", url, code=1, error="HM-D-604")
    refused("chain", "block", "-1x", "--node", url, code=2, error="HM-D-002")


def test_a_running_chain_is_followed_from_any_height_past_its_tip(
    url: str, payment: dict[str, Any]
) -> None:
    with NodeClient(url) as client:
        newest = client.status()[0].height
        blocks = list(islice(client.follow(1), newest + 2))  # two that are not there yet
        assert [block["height"] for block in blocks] == list(range(1, newest + 3))
        paid = blocks[payment["height"] - 1]
        assert (paid["applied"], paid["payload_ids"]) == (1, [payment["id"]])
        assert paid["hash"] == client.block(payment["height"])["hash"]
        later = client.blocks(newest + 1_000, timeout_s=0.01, limit=5)
        assert (later["blocks"], later["next_from"]) == ([], newest + 1_000)


def test_followers_have_places_of_their_own_and_no_more(url: str) -> None:
    async def main() -> list[int]:
        codes: list[int] = []

        async def wait() -> None:
            answered = await client.get(f"/api/v1/blocks?from={10**9}&timeout_ms=1500")
            codes.append(answered.status_code)

        async with (
            httpx.AsyncClient(base_url=url, trust_env=False) as client,
            trio.open_nursery() as nursery,
        ):
            for _ in range(HTTP_FOLLOWERS_MAX + 2):
                nursery.start_soon(wait)
        return sorted(codes)

    assert trio.run(main) == [200] * HTTP_FOLLOWERS_MAX + [503] * 2


def test_a_running_chain_verifies_from_genesis(live: Cluster, url: str) -> None:
    report = answer("chain", "verify", "--node", url, "--genesis", live.genesis)
    assert report["oldest"] == 1
    assert report["certified"] >= report["newest"] - 1
    assert report["payloads"] >= 1
    assert report["bodies"] == report["certified"]
    assert "hold" in run("chain", "verify", "--node", url, "--genesis", live.genesis).stdout


def test_the_validators_a_node_shows_are_proven_from_genesis(
    live: Cluster, made_cluster: Cluster, url: str
) -> None:
    words = ("chain", "validators", "--node", url)
    shown = answer(*words, "--genesis", live.genesis)
    genesis = read_genesis(live.genesis)
    assert [each["name"] for each in shown["members"]] == [each.name for each in genesis.validators]
    refused(*words, "--genesis", made_cluster.genesis, code=1, error="HM-D-911")


def test_a_chain_of_other_keys_does_not_verify(made_cluster: Cluster, url: str) -> None:
    words = ("chain", "verify", "--node", url, "--genesis", made_cluster.genesis)
    refused(*words, code=1, error="HM-D-911")


@pytest.mark.parametrize("kind", ["block", "tx", "account"])
def test_a_proof_file_is_checked_offline_and_falls_with_any_change(
    live: Cluster,
    made_cluster: Cluster,
    url: str,
    payment: dict[str, Any],
    tmp_path: Path,
    kind: str,
) -> None:
    subject = {"block": payment["height"], "tx": payment["id"], "account": ADDRESS}[kind]
    file = tmp_path / "proof.json"
    trust = ("--genesis", live.genesis)
    made = answer("chain", "prove", kind, subject, "--out", file, "--node", url, *trust)
    shown = answer("chain", "verify-header", file, *trust)
    assert made == shown | {"file": str(file)}
    match kind:
        case "account":
            assert (shown["balance"], shown["exists"]) == ("12500000000", True)
        case "tx":
            assert (shown["id"], shown["height"]) == (payment["id"], payment["height"])
        case _:
            assert shown["height"] == payment["height"]
    other = ("--genesis", made_cluster.genesis)
    refused("chain", "verify-header", file, *other, code=1, error="HM-D-912")
    document = json.loads(file.read_text())
    genesis = read_genesis(live.genesis)
    for name, value in document.items():
        for changed in _changes(value):
            text = json.dumps(document | {name: changed})
            if (kind, name) == ("tx", "height"):
                continue  # the header says it; the file only helps a reader
            with pytest.raises(Exception, match="does not hold") as caught:
                verify_proof_file(text, genesis)
            assert caught.value.__class__.__name__ == "ProofFileInvalid", (name, changed)


def test_a_proof_file_holds_every_link_there_may_be() -> None:
    proof = HEADER_PROOF_SIZE_BYTES_MAX + BATCH_SIZE_BYTES_MAX + LINKS_SIZE_BYTES_MAX
    assert proof * 4 // 3 + 8 * LINKS_MAX < PROOF_FILE_SIZE_BYTES_MAX


def _changes(value: object) -> list[object]:
    """Other values of the same type, and one of another."""
    match value:
        case int():
            return [value + 1, None]
        case list():
            return [[*value, "00" * 32], [1]]
        case str():
            middle = len(value) // 2
            letter = "A" if value[middle] != "A" else "B"
            return [value[:middle] + letter + value[middle + 1 :], value[:-8], 7]
    raise AssertionError(value)


def test_nothing_is_proved_of_what_is_not_there(live: Cluster, url: str, tmp_path: Path) -> None:
    words = ("--out", tmp_path / "p", "--node", url, "--genesis", live.genesis)
    refused("chain", "prove", "tx", "00" * 32, *words, code=1, error="HM-D-604")
    refused("chain", "prove", "soul", "x", *words, code=2, error="HM-D-002")
    assert not (tmp_path / "p").exists()


@pytest.mark.usefixtures("payment")
def test_reads_say_which_promise_they_keep(url: str) -> None:
    local = answer("wallet", "balance", ADDRESS, "--node", url)
    assert (local["read"], local["balance"]) == ("local", "12500000000")
    at = answer("wallet", "balance", ADDRESS, "--node", url, "--min-height", local["height"] + 1)
    assert at["read"] == "at-height"
    assert at["height"] > local["height"]
    before = answer("chain", "head", "--node", url)["height"]
    words = ("wallet", "balance", ADDRESS, "--node", url)
    newest = answer(*words, "--linearizable")
    assert newest["read"] == "linearizable"
    assert newest["height"] > before
    late = ("--min-height", 10**6, "--timeout", "100ms")
    refused(*words, *late, code=5, error="HM-D-609")
    refused(*words, "--linearizable", "--timeout", "100ms", code=5, error="HM-D-609")
    refused(*words, "--linearizable", "--min-height", 3, code=2, error="HM-D-002")
    with NodeClient(url) as client:
        both = client._send("GET", f"/api/v1/accounts/{ADDRESS}?linearizable=1&min_height=2")
    assert both.json()["code"] == "HM-D-602"


@pytest.mark.usefixtures("payment")
def test_nodes_that_agree_have_one_state(live: Cluster) -> None:
    urls = [member.url for member in live.members]
    found = answer("chain", "diff-state", *urls)
    assert found["same"]
    assert found["height"] > 0


@pytest.mark.usefixtures("payment")
def test_nodes_that_agree_have_one_chain(live: Cluster) -> None:
    urls = [member.url for member in live.members]
    words = ("chain", "forensics", *urls, "--genesis", live.genesis)
    assert answer(*words) == {"fork": None}


def test_answers_of_a_real_node_have_the_forms_of_its_document(
    url: str, payment: dict[str, Any]
) -> None:
    block = f"/api/v1/blocks/{payment['height']}"
    paths = {
        "/status": "/status",
        "/readyz": "/readyz?verbose",
        "/debug/agreement": "/debug/agreement",
        "/api/v1/mempool": "/api/v1/mempool",
        "/api/v1/ledger": "/api/v1/ledger",
        "/api/v1/validators": "/api/v1/validators",
        "/api/v1/accounts/{address}": f"/api/v1/accounts/{ADDRESS}?prove=1",
        "/api/v1/accounts/{address}/history": f"/api/v1/accounts/{ADDRESS}/history",
        "/api/v1/receipts/{id}": f"/api/v1/receipts/{payment['id']}",
        "/api/v1/transactions/{id}/proof": f"/api/v1/transactions/{payment['id']}/proof",
        "/api/v1/blocks": "/api/v1/blocks?from=1",
        "/api/v1/blocks/{height}": block,
        "/api/v1/headers/{height}": "/api/v1/headers/1",
        "/api/v1/epochs/{first}": "/api/v1/epochs/1",
        "/api/v1/state/{key}": f"/api/v1/state/{'00' * 32}",
        "/api/v1/openapi.json": "/api/v1/openapi.json",
    }
    with httpx.Client(base_url=url, trust_env=False) as client:
        document = client.get("/api/v1/openapi.json").json()
        for path, asked in paths.items():
            good = document["paths"][path]["get"]["responses"]["200"]
            answered = client.get(asked)
            assert answered.status_code == 200, asked
            schema = good["content"]["application/json"]["schema"]
            assert faults(answered.json(), schema) == [], asked


@pytest.mark.usefixtures("payment")
def test_a_witness_that_certifies_the_same_chain_is_named_with_its_height(live: Cluster) -> None:
    one, other = (member.url for member in live.members)
    words = ("chain", "follow", "--from", 1, "--count", 12, "--node", one, "--genesis")
    result = run(*words, live.genesis, "--witness", other)
    assert result.exit_code == 0, result.output
    assert len(result.stdout.splitlines()) == 12
    assert f"{other} certifies the same chain up to block" in result.stderr
    assert "up to block 0" not in result.stderr


@pytest.mark.usefixtures("payment")
def test_a_block_is_found_by_its_hash_on_a_real_node(url: str) -> None:
    by_height = answer("chain", "block", 2, "--node", url)
    assert answer("chain", "block", by_height["hash"], "--node", url) == by_height
    assert answer("chain", "block", by_height["hash"].upper(), "--node", url) == by_height
    refused("chain", "block", "00" * 32, "--node", url, code=1, error="HM-D-604")


def test_what_waits_and_what_is_missing_is_shown_while_a_validator_is_paused(
    live: Cluster, url: str, secret: Path
) -> None:
    operate.perturb(live.members[1], operate.Action.PAUSE)
    try:
        words = ("wallet", "send", "--from", "treasury", "--to", ADDRESS, "--amount", "1")
        more = ("--passphrase-file", secret, "--wallets", live.wallets, "--node", url)
        sent = answer(*words, *more, "--no-wait")
        assert sent["outcome"] == "pending"
        page = answer("node", "mempool", "--node", url)
        (waiting,) = page["items"]
        assert (waiting["id"], waiting["source"]) == (sent["id"], "n0")
        assert page["size_bytes"] == waiting["size_bytes"] > 700
        with NodeClient(url) as client:
            now, _ = client.status()
        assert now.mempool_oldest_ms >= waiting["age_ms"] > 0
        shown = answer("node", "agreement", "--node", url)
        while not (
            "n1" in _missing(shown) or shown["view_changes"]
        ):  # the primary may be the paused one
            shown = answer("node", "agreement", "--node", url)
        assert (shown["quorum"], shown["members"]) == (2, 2)
        assert [change["name"] for change in shown["view_changes"]] in ([], ["n0"])
        assert shown["timers"]
        assert sent["id"] in run("node", "mempool", "--node", url).stdout
        assert "timers" in run("node", "agreement", "--node", url).stdout
    finally:
        operate.perturb(live.members[1], operate.Action.RESUME)
    with NodeClient(url) as client:
        for block in client.follow(shown["executed"] + 1):
            if sent["id"] in block["payload_ids"]:
                break
        executed = client.receipt(sent["id"])
        assert executed is not None
        assert executed["outcome"] == "applied"
        assert client.waiting(0, limit=10)["items"] == []


def _missing(shown: dict[str, Any]) -> list[str]:
    return [name for place in shown["places"] for name in place["missing"]]


@pytest.mark.usefixtures("url")
def test_files_of_a_running_node_are_left_alone(live: Cluster) -> None:
    home = live.members[0].home.path
    for words in (
        ("chain", "verify", "--files", home),
        ("chain", "prune", "--files", home, "--yes"),
        ("chain", "rollback", "--files", home, "--yes"),
        ("chain", "replay", "--files", home),
        ("store", "inspect", home),
        ("store", "verify", home),
    ):
        refused(*words, code=6, error="HM-D-208")


# --- a stopped one


@pytest.fixture(scope="module")
def stopped(live: Cluster, url: str, payment: dict[str, Any]) -> Path:  # noqa: ARG001
    """The home of a node that was stopped when its newest block was certified.

    While blocks are made that is luck, so the nodes are started again to make hardly any.
    """
    assert operate.stop(live.members, timeout_s=10) == {"n0": "stopped", "n1": "stopped"}
    _pace(live, 500, 60_000)
    operate.start(live.members)
    operate.wait_ready(live.members, timeout_s=30)
    _until_certified(live.members[0].url)
    assert operate.stop(live.members, timeout_s=10) == {"n0": "stopped", "n1": "stopped"}
    _pace(live, 60_000, 500)
    return live.members[0].home.path


def _pace(live: Cluster, before_ms: int, after_ms: int) -> None:
    for member in live.members:
        text = member.home.config.read_text()
        assert text.count(f"interval_ms = {before_ms}\n") == 1
        member.home.config.write_text(
            text.replace(f"interval_ms = {before_ms}\n", f"interval_ms = {after_ms}\n")
        )


def _until_certified(url: str) -> None:
    """Wait until the newest block of a node has a durable certificate there."""
    deadline = time.monotonic() + 30
    with NodeClient(url) as client:
        while time.monotonic() < deadline:
            height = client.status()[0].height
            found = client._send("GET", f"/api/v1/headers/{height}")
            if found.status_code == 200 and client.status()[0].height == height:
                return
            time.sleep(0.05)
    raise AssertionError("the newest block is not certified")


@pytest.fixture
def home(stopped: Path, tmp_path: Path) -> Path:
    """A copy to spoil."""
    copy = tmp_path / "home"
    shutil.copytree(stopped, copy)
    return copy


def test_the_files_of_a_stopped_node_hold(stopped: Path) -> None:
    shown = answer("store", "inspect", stopped)
    assert shown["records"]["Birth"]["count"] == 1
    assert shown["records"]["LastNumber"]["count"] == 1
    assert shown["last_number"] > 0
    assert shown["blocks"]["certified"] == shown["blocks"]["newest"]
    assert all(found["shrinks"] for found in shown["files"].values())
    checked = answer("store", "verify", stopped)
    assert checked["newest"] == shown["blocks"]["newest"]
    assert checked["bodies"] == shown["blocks"]["bodies"] >= 1
    assert checked["signatures"] >= 2
    assert answer("chain", "verify", "--files", stopped)["newest"] == checked["newest"]
    for words in (("store", "inspect", stopped), ("store", "verify", stopped)):
        text = run(*words)
        assert text.exit_code == 0
        assert text.stdout
        assert bytes(64).hex() not in text.stdout


def test_damage_is_found_by_name(home: Path) -> None:
    files = (home / "data" / "consensus.db", home / "data" / "state.db")
    changes = (
        (files[0], "UPDATE body SET data=zeroblob(length(data))", "the body at sequence"),
        (files[0], "UPDATE record SET data=x'00' WHERE kind=2", "record of kind 2"),
        (files[1], "UPDATE block SET header=zeroblob(9) WHERE height=1", "header is damaged"),
        (files[1], "UPDATE block SET state_root=zeroblob(32) WHERE height=1", "block 1: "),
        (files[0], "DELETE FROM body", "body is missing"),
    )
    for path, statement, message in changes:
        kept = path.read_bytes()
        database = apsw.Connection(str(path))
        database.execute(statement)
        database.close()
        with stopped_node(home) as node, pytest.raises(Exception, match=message) as caught:
            verify_stores(node)
        assert isinstance(caught.value, DatabaseInvalid | ChainInvalid), statement
        path.write_bytes(kept)


def test_a_signature_that_is_not_ours_is_found(home: Path) -> None:
    with stopped_node(home) as node:
        store = node.store
        store.start()
        vector = VoteVector(
            epoch=Epoch(0),
            signer=ReplicaIndex(0),
            number=Number(1),
            leaves=(_checkpoint(10**6),),
            signature=Signature(bytes(666)),
        )
        store.commit_soon(1, [OwnVotes(vector=vector)], [], None)
        store.stop()
    with stopped_node(home) as node, pytest.raises(DatabaseInvalid, match="signature of n0"):
        verify_stores(node)


def _checkpoint(height: int) -> Checkpoint:
    return Checkpoint(
        epoch=Epoch(0),
        height=Height(height),
        header_hash=Digest(bytes(32)),
        state_root=Digest(bytes(32)),
    )


def test_pruning_a_stopped_node_asks_first_and_keeps_what_must_stay(home: Path) -> None:
    words = ("chain", "prune", "--files", home, "--keep-blocks", 2000)
    refused(*words, code=6, error="HM-D-405")
    found = answer(*words, "--yes")
    assert (found["blocks_pruned"], found["height_oldest"]) == (0, 1)
    assert found["size_bytes"] <= found["size_bytes_before"]
    assert answer("store", "verify", home)["oldest"] == 1


def test_a_lost_state_is_made_again_from_what_was_agreed(home: Path) -> None:
    with stopped_node(home) as node:
        agreed = node.store.agreed_through(0)
        [tip] = [record for record in node.records() if isinstance(record, Tip)]
        assert 0 < tip.certificate.height <= agreed <= node.state.height
        before = [node.state.block(at) for at in range(1, agreed + 1)]
    newest = before[-1]
    assert newest is not None
    for path in (home / "data").glob("state.db*"):
        path.unlink()
    words = ("chain", "replay", "--files", home)
    made = {"height": agreed, "state_root": newest.state_root.hex()}
    assert answer(*words) == made | {"height_before": 0}
    assert answer(*words) == made | {"height_before": agreed}, "nothing was left to do"
    with stopped_node(home) as node:
        assert [node.state.block(at) for at in range(1, agreed + 1)] == before


def test_a_certified_block_is_taken_back_and_its_root_is_that_of_before(home: Path) -> None:
    with stopped_node(home) as node:
        height = node.state.height
        before = node.state.block(height - 1)
        numbers = [row for row in node.records() if "Number" in type(row).__name__]
    assert answer("chain", "rollback", "--files", home, "--yes") == {"height": height - 1}
    with stopped_node(home) as node:
        assert node.state.height == height - 1
        assert node.state.block(height - 1) == before
        after = [row for row in node.records() if "Number" in type(row).__name__]
        assert after == numbers
        report = verify_chain(StoredChain(node, lineage_of(node.genesis)))
        assert report.newest == height - 1


def test_a_block_this_node_has_voted_for_is_not_taken_back(home: Path) -> None:
    with stopped_node(home) as node:
        height = node.state.height
        secret = SecretKey.load(home / "keys" / "node.key")
        vector = VoteVector(
            epoch=Epoch(0),
            signer=ReplicaIndex(0),
            number=Number(1),
            leaves=(_checkpoint(height),),
        )
        signed = vector.signed(Signature(secret.sign(vector.signed_bytes(node.genesis.chain_id))))
        store = node.store
        store.start()
        store.commit_soon(1, [OwnVotes(vector=signed)], [], None)
        store.stop()
    database = apsw.Connection(str(home / "data" / "consensus.db"))
    database.execute("DELETE FROM record WHERE kind=10")  # no certificate covers the vote
    database.close()
    with stopped_node(home) as node, pytest.raises(RollbackUnsafe, match="has voted"):
        roll_back(node)
    with stopped_node(home) as node:
        assert node.state.height == height


def test_a_block_whose_effects_are_in_the_rows_is_not_taken_back(home: Path) -> None:
    database = apsw.Connection(str(home / "data" / "state.db"))
    (height,) = database.execute("SELECT max(height) FROM block").fetchall()[0]
    database.execute(
        "UPDATE block SET state_root=zeroblob(32) WHERE height=?", (int(str(height)) - 1,)
    )
    database.close()
    with stopped_node(home) as node, pytest.raises(RollbackUnsafe, match="cannot be rebuilt"):
        roll_back(node)
    with stopped_node(home) as node:
        assert node.state.height == height


def test_a_certified_block_of_a_lone_validator_is_not_taken_back(home: Path) -> None:
    """Nobody could give it back."""

    class Lone(StoppedNode):
        """The newest epoch is counted, not genesis."""

        def epochs(self) -> Epochs:
            first = super().epochs().newest
            return Epochs(
                chain_id=self.genesis.chain_id,
                sets=(first, ValidatorSet(epoch=Epoch(1), members=first.members[:1])),
            )

    with stopped_node(home) as node:
        lone = Lone(home=node.home, genesis=node.genesis, state=node.state, store=node.store)
        with pytest.raises(RollbackUnsafe, match="no other validator"):
            roll_back(lone)


def test_a_lock_is_held_while_files_are_open(home: Path) -> None:
    from node.home import Home

    with stopped_node(home), pytest.raises(AlreadyRunning):
        take_lock(Home(home))
    os.close(take_lock(Home(home)))


def test_a_node_goes_on_after_its_newest_block_was_taken_back(live: Cluster, stopped: Path) -> None:
    """Last: it starts the module's node again."""
    height = answer("chain", "rollback", "--files", stopped, "--yes")["height"]
    operate.start(live.members)
    operate.wait_ready(live.members, timeout_s=30)
    with NodeClient(live.members[0].url) as client:
        client.wait_ready(timeout_s=30, height=height + 2)
    report = answer("chain", "verify", "--node", live.members[0].url, "--genesis", live.genesis)
    assert report["certified"] > height
