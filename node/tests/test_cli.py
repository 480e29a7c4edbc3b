"""Every command, with right and with wrong input, against a node that exists only in memory."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import apsw
import pytest
from typer.main import get_command
from typer.testing import CliRunner, Result

from caesar.core.addresses import parse_address
from caesar.core.transactions import decode_transaction
from consensus.runtime.store import StoreDamaged
from native.keys import SecretKey, verify
from native.quic import ConnectionGone
from native.values import Algorithm, PublicKey
from node.cli import app
from node.cluster.manifest import Cluster
from node.errors import EXIT_CODE_MEANING
from node.runtime.api import Outcome
from node.tests.certifying_node import CertifyingNode
from node.tests.conftest import PASSPHRASE, free_base_port
from node.tests.fake_node import CHAIN_ID, FakeNode, Served
from trustchain.client import generate_key, write_key
from trustchain.core.oids import KeyAlgorithm

NOWHERE = "http://[::1]:1"


@pytest.fixture(scope="module")
def served(made_cluster: Cluster) -> Iterator[Served]:
    with Served(CertifyingNode.of(made_cluster)) as found:
        yield found


@pytest.fixture
def node(served: Served) -> FakeNode:
    """The served node, put back to how it began."""
    fresh = FakeNode()
    for name in ("now", "outcome", "code", "balance"):
        setattr(served.node, name, getattr(fresh, name))
    served.node.submitted.clear()
    return served.node


@pytest.fixture
def secret(tmp_path: Path) -> str:
    path = tmp_path / "passphrase"
    path.write_text(f"{PASSPHRASE}\n")
    path.chmod(0o600)
    return str(path)


def run(*words: object, stdin: str | bytes | None = None) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words], input=stdin)


def answer(*words: object, code: int = 0) -> Any:
    """Run with --output json and return what went to stdout."""
    result = run(*words, "--output", "json")
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def refused(*words: object, code: int, error: str, stdin: str | bytes | None = None) -> str:
    """Run twice, as text and as JSON: both must end alike, with the data stream empty."""
    text = run(*words, stdin=stdin)
    assert text.exit_code == code, text.output
    assert text.stdout == ""
    assert f"[{error}]" in text.stderr
    as_json = run(*words, "--output", "json", stdin=stdin)
    assert as_json.exit_code == code
    assert as_json.stdout == ""
    document = json.loads(as_json.stderr.splitlines()[-1])["error"]
    assert document["code"] == error
    assert document["exit_code"] == code
    assert document["next_step"]
    return text.stderr


# --- the tree ---


def commands() -> list[tuple[str, ...]]:
    group: Any = get_command(app)
    return [(noun, verb) for noun, sub in group.commands.items() for verb in sub.commands]


def test_the_nouns_and_verbs_are_those_of_the_design() -> None:
    found: dict[str, set[str]] = {}
    for noun, verb in commands():
        found.setdefault(noun, set()).add(verb)
    assert found == {
        "node": {"init", "run", "status", "wait", "mempool", "agreement"},
        "config": {"check", "show"},
        "store": {"inspect", "verify"},
        "chain": {
            "head",
            "block",
            "follow",
            "tx",
            "validators",
            "verify",
            "prove",
            "verify-header",
            "diff-state",
            "forensics",
            "snapshot",
            "restore",
            "prune",
            "replay",
            "rollback",
        },
        "cluster": {"new", "up", "down", "status", "wait", "perturb", "destroy"},
        "wallet": {"new", "balance", "send", "history"},
        "cert": {"issue", "show", "verify", "cosigners"},
        "ca": {"request", "sign-issuer"},
        "ctlog": {"head", "proof", "verify"},
        "stoq": {"ping", "bench", "netcheck", "peers"},
        "load": {"run"},
        "validator": {"status", "evidence", "key", "propose", "approve", "submit"},
    }


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_command_shows_examples_and_exit_codes(words: tuple[str, ...]) -> None:
    result = run(*words, "--help")
    assert result.exit_code == 0
    assert f"$ hypermesh {' '.join(words)}" in result.stdout
    for code in EXIT_CODE_MEANING:
        assert f"{code.value}" in result.stdout
    assert "--output" in result.stdout


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_every_example_is_a_command_that_parses(words: tuple[str, ...]) -> None:
    command: Any = get_command(app)
    for word in words:
        command = command.commands[word]
    shown = [line for line in command.epilog.splitlines() if line.startswith("  $ hypermesh ")]
    assert shown
    for line in shown:
        arguments = shlex.split(line.replace("\\[", "["))[4:]
        with command.make_context(words[-1], arguments, resilient_parsing=False):
            pass


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_an_unknown_option_is_a_usage_error_in_both_forms(words: tuple[str, ...]) -> None:
    assert "--nonsense" in refused(*words, "--nonsense", code=2, error="HM-D-002")


def test_an_unknown_command_and_no_command_are_usage_errors() -> None:
    assert run("nonsense").exit_code == 2
    assert run("node", "nonsense").exit_code == 2
    for words in ((), ("node",)):
        bare = run(*words)
        assert bare.exit_code == 2
        assert bare.stdout == ""
        assert "Usage" in bare.stderr


@pytest.mark.parametrize("words", [("node", "run"), ("config", "check"), ("config", "show")])
def test_the_help_names_the_default_configuration_file(words: tuple[str, ...]) -> None:
    assert "HOME/node.toml" in run(*words, "--help").stdout


def test_the_version_is_printed() -> None:
    result = run("--version")
    assert result.exit_code == 0
    assert result.stdout.startswith("hypermesh ")


def test_help_does_not_load_what_only_commands_need() -> None:
    code = (
        "import sys; from node.cli import app; from typer.main import get_command; "
        "get_command(app); print([m for m in ('trio', 'httpx', 'pydantic', 'cryptography', "
        "'starlette', 'structlog', 'native._native') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# --- finding a node ---


NODE_COMMANDS: list[tuple[str, ...]] = [
    ("node", "status"),
    ("node", "wait", "--timeout", "1ms"),
    ("wallet", "balance", "hm1placeholder"),
    ("wallet", "history", "hm1placeholder"),
    ("cert", "show", "--index", "0"),
    ("ctlog", "proof", "0"),
]


@pytest.fixture(scope="module")
def address(made_cluster: Cluster) -> str:
    found: str = json.loads((made_cluster.wallets / "treasury.json").read_text())["address"]
    return found


@pytest.mark.parametrize("words", NODE_COMMANDS, ids=" ".join)
def test_a_node_that_does_not_answer_is_exit_code_4(words: tuple[str, ...], address: str) -> None:
    words = tuple(address if word == "hm1placeholder" else word for word in words)
    assert NOWHERE in refused(*words, "--node", NOWHERE, code=4, error="HM-D-301")


@pytest.mark.parametrize("words", NODE_COMMANDS, ids=" ".join)
def test_a_wrong_selector_is_a_usage_error(words: tuple[str, ...], address: str) -> None:
    words = tuple(address if word == "hm1placeholder" else word for word in words)
    refused(*words, "--node", "localhost:9293", code=2, error="HM-D-305")
    refused(*words, "--cluster", "nothing", code=2, error="HM-D-403")
    refused(*words, "--cluster", "No Such", code=2, error="HM-D-002")
    refused(*words, "--home", "/nonexistent/home", code=3, error="HM-D-202")


def test_the_environment_names_a_node(
    served: Served, node: FakeNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HYPERMESH_NODE", served.url)
    assert answer("node", "status")["name"] == node.now.name
    assert refused("node", "status", "--node", NOWHERE, code=4, error="HM-D-301")


def test_a_home_names_its_running_node(served: Served, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/api.json").write_text(json.dumps({"url": served.url}))
    assert answer("node", "status", "--home", tmp_path)["height"] == 42


def test_something_else_at_the_address_is_named(tmp_path: Path) -> None:
    code = (
        "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.SimpleHTTPRequestHandler);"
        "print(s.server_port, flush=True); s.serve_forever()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        cwd=tmp_path,
    ) as child:
        assert child.stdout is not None
        port = child.stdout.readline().strip()
        url = f"http://127.0.0.1:{port}"
        assert "not a" not in refused("node", "status", "--node", url, code=4, error="HM-D-303")
        child.kill()


# --- node ---


def test_status_shows_a_ready_node(served: Served, node: FakeNode) -> None:
    result = run("node", "status", "--node", served.url)
    assert result.exit_code == 0
    assert "READY" in result.stdout
    assert result.stderr == ""
    assert answer("node", "status", "--node", served.url)["supply"] == str(node.now.supply)


def test_a_node_that_is_not_ready_is_exit_code_5_with_the_reason(
    served: Served, node: FakeNode
) -> None:
    node.set(phase="catching-up", height=2)
    result = run("node", "status", "--node", served.url)
    assert result.exit_code == 5
    assert "catching-up" in result.stdout
    assert answer("node", "status", "--node", served.url, code=5)["ready"] is False
    text = refused(
        "node", "wait", "--node", served.url, "--timeout", "10ms", code=5, error="HM-D-302"
    )
    assert "catching-up: 40 blocks behind" in text


def test_wait_ends_when_the_node_is_ready(served: Served, node: FakeNode) -> None:
    waited = answer("node", "wait", "--ready", "--height", "42", "--node", served.url)
    assert waited == {"name": node.now.name, "ready": True, "height": 42}
    refused(
        "node", "wait", "--height", "43", "--node", served.url, "--timeout", "10ms",
        code=5, error="HM-D-302",
    )  # fmt: skip


@pytest.mark.parametrize("time_text", ["", "10", "ten", "-1s", "1.2.3s", "s"])
def test_a_time_without_a_unit_is_a_usage_error(time_text: str) -> None:
    refused("node", "wait", "--timeout", time_text, code=2, error="HM-D-002")


def test_init_makes_a_home_and_never_touches_it_again(tmp_path: Path) -> None:
    home = tmp_path / "dev"
    made = answer("node", "init", "--home", home, "--name", "dev")
    assert made["role"] == "validator"
    assert made["chain"].startswith("single-")
    refused("node", "init", "--home", home, code=6, error="HM-D-203")
    text = refused(
        "node", "init", "--home", tmp_path / "y", "--genesis", home / "genesis.json",
        code=2, error="HM-D-002",
    )  # fmt: skip
    assert "--genesis" in text
    refused("node", "init", "--home", tmp_path / "y", "--name", "N 0", code=2, error="HM-D-002")
    refused("node", "init", "--home", tmp_path / "y", "--chain", "A", code=2, error="HM-D-002")
    refused("node", "init", "--home", tmp_path / "y", "--base-port", "5", code=2, error="HM-D-002")
    assert not (tmp_path / "y").exists()


def test_run_refuses_before_it_starts_anything(tmp_path: Path, made_cluster: Cluster) -> None:
    missing = run("node", "run", "--home", tmp_path / "none")
    assert missing.exit_code == 3
    assert "[HM-D-202]" in missing.stderr
    assert not (tmp_path / "none").exists()
    home = tmp_path / "home"
    shutil.copytree(made_cluster.members[0].home.path, home)
    wrong = refused("node", "run", "--home", home, "--set", "log.level=loud", code=3,
                    error="HM-D-101")  # fmt: skip
    assert "log.level" in wrong
    (home / "genesis.json").unlink()
    assert run("node", "run", "--home", home).exit_code == 3
    assert not (home / "run/node.lock").exists()


def test_run_reports_what_stops_the_node_with_its_own_code(
    tmp_path: Path, made_cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    shutil.copytree(made_cluster.members[0].home.path, home)
    failures = [
        (apsw.CorruptError("malformed"), 3, "HM-D-207"),
        (StoreDamaged(home, "damaged (quick_check)"), 3, "HM-B-021"),
        (KeyboardInterrupt(), 130, None),
        (RuntimeError("planted"), 1, "HM-D-001"),
        (ConnectionGone(), 1, "HM-D-001"),
        (ExceptionGroup("tasks", [StoreDamaged(home, "late")]), 3, "HM-B-021"),
    ]
    for failure, code, name in failures:

        async def fail(*_: object, failure: BaseException = failure) -> None:
            raise failure

        monkeypatch.setattr("node.runtime.assemble.run_node", fail)
        result = run("node", "run", "--home", home)
        assert result.exit_code == code, result.output
        assert name is None or f"[{name}]" in result.stderr
        assert result.stdout == ""


def test_a_damaged_voting_record_promises_no_peers_to_a_chain_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "dev"
    base = free_base_port(1)
    answer("node", "init", "--home", home, "--base-port", base)

    async def fail(*_: object) -> None:
        raise StoreDamaged(home / "data/consensus.db", "damaged (quick_check)")

    monkeypatch.setattr("node.runtime.assemble.run_node", fail)
    text = refused("node", "run", "--home", home, code=3, error="HM-D-207")
    assert "no peers can tell" in text


# --- config ---


def test_config_check_lists_every_check(made_cluster: Cluster, tmp_path: Path) -> None:
    home = tmp_path / "home"
    shutil.copytree(made_cluster.members[1].home.path, home)
    good = answer("config", "check", "--home", home)
    assert good["ok"] is True
    (home / "keys/node.key").chmod(0o640)
    bad = answer("config", "check", "--home", home, code=6)
    [failed] = [check for check in bad["checks"] if check["state"] == "fail"]
    assert failed["code"] == "HM-D-205"
    assert failed["next_step"] == f"chmod 600 {home}/keys/node.key"
    text = run("config", "check", "--home", home)
    assert "fail  node key" in text.stdout
    (home / "node.toml").write_text("[log]\nlevl = 1\n[http]\nenabled = 3\n")
    wrong = answer("config", "check", "--home", home, code=3)
    assert [(item["code"], item["place"]) for item in wrong["problems"]] == [
        ("HM-D-104", "line 2"),
        ("HM-D-106", "line 4"),
    ]


@pytest.mark.parametrize(
    ("lines", "state", "words"),
    [
        ("", "ok", "every block is kept"),
        ("retain_blocks = 8192", "ok", "below the oldest snapshot"),
        ("retain_days = 9", "ok", "below the oldest snapshot"),
        ("retain_blocks = 2047", "warn", "keep up to 2,048 blocks"),
        ("retain_days = 9\nsnapshot_blocks = 0", "warn", "snapshot_blocks is 0"),
    ],
)
def test_config_check_warns_of_limits_that_snapshots_override(
    made_cluster: Cluster, tmp_path: Path, lines: str, state: str, words: str
) -> None:
    path = tmp_path / "node.toml"
    path.write_text(f"[storage]\n{lines}\n")
    home = made_cluster.members[1].home.path
    shown = json.loads(
        run("config", "check", "--home", home, "--config", path, "--output", "json").stdout
    )
    [check] = [check for check in shown["checks"] if check["name"] == "pruning"]
    assert check["state"] == state
    assert words in check["detail"]


def test_config_show_names_origins_and_explains_keys(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text('[log]\nlevel = "debug"\n')
    shown = run("config", "show", "--config", path, "--origin").stdout
    assert f"# {path}:2" in shown
    rows = {row["key"]: row for row in answer("config", "show", "--config", path)}
    assert rows["log.level"]["value"] == "debug"
    assert rows["log.format"]["origin"] == "default"
    assert "patience" in run("config", "show", "--key", "consensus.view_timeout_ms").stdout
    text = refused("config", "show", "--key", "log.levle", code=2, error="HM-D-002")
    assert "did you mean log.level?" in text


def test_a_wrong_configuration_is_exit_code_3_with_every_problem(tmp_path: Path) -> None:
    path = tmp_path / "node.toml"
    path.write_text("[log]\nlevl = 1\n[http]\nenabled = 3\n")
    text = refused("config", "show", "--config", path, code=3, error="HM-D-101")
    assert "Did you mean log.level?" in text
    assert "http.enabled = 3" in text
    as_json = run("config", "show", "--config", path, "-o", "json")
    problems = json.loads(as_json.stderr)["error"]["problems"]
    assert [problem["code"] for problem in problems] == ["HM-D-104", "HM-D-106"]


# --- cluster ---


def test_a_cluster_is_made_and_destroyed(tmp_path: Path) -> None:
    folder = ("--dir", tmp_path)
    made = answer("cluster", "new", "tiny", "--nodes", "1", "--base-port", "23450", *folder)
    assert made["nodes"][0]["url"] == "http://[::1]:23453"
    assert (tmp_path / "tiny/offline/passphrase").exists()
    refused("cluster", "new", "tiny", *folder, code=6, error="HM-D-402")
    status = answer("cluster", "status", "tiny", *folder, code=4)
    assert status["nodes"][0]["state"] == "down"
    refused("cluster", "wait", "tiny", "--ready", *folder, code=5, error="HM-D-302")
    assert answer("cluster", "down", "tiny", *folder)["nodes"] == {"n0": "not running"}
    refused("cluster", "destroy", "tiny", *folder, code=6, error="HM-D-405", stdin="")
    assert (tmp_path / "tiny").exists()
    assert answer("cluster", "destroy", "tiny", "--yes", *folder)["destroyed"] is True
    assert not (tmp_path / "tiny").exists()


@pytest.mark.parametrize("verb", ["up", "down", "status", "wait", "destroy"])
def test_a_cluster_that_is_not_there_is_named(verb: str, tmp_path: Path) -> None:
    refused("cluster", verb, "nothing", "--dir", tmp_path, code=2, error="HM-D-403")


@pytest.mark.parametrize(
    "words",
    [
        ("cluster", "new", "Demo"),
        ("cluster", "new", "demo", "--nodes", "0"),
        ("cluster", "new", "demo", "--nodes", "many"),
        ("cluster", "new", "demo", "--base-port", "80"),
        ("cluster", "new", "demo", "--base-port", "65500"),
        ("cluster", "up", "demo", "--timeout", "soon"),
        ("cluster", "down", "demo", "--timeout", "soon"),
        ("cluster", "wait", "demo", "--timeout", "soon"),
        ("cluster", "wait", "demo", "--height", "high"),
        ("cluster", "perturb", "demo", "eat", "n0"),
        ("cluster", "perturb", "demo", "kill", "n0", "--then", "sleep"),
        ("cluster", "perturb", "demo", "kill"),
        ("cluster", "perturb", "demo", "kill", "n0", "--height", "+10"),
    ],
    ids=" ".join,
)
def test_wrong_arguments_of_cluster_are_usage_errors(
    words: tuple[str, ...], made_cluster: Cluster
) -> None:
    refused(*words, "--dir", made_cluster.folder.parent, code=2, error="HM-D-002")


def test_perturbing_what_does_not_run_or_exist_is_refused(made_cluster: Cluster) -> None:
    folder = ("--dir", made_cluster.folder.parent)
    refused("cluster", "perturb", "demo", "kill", "n9", *folder, code=2, error="HM-D-305")
    refused("cluster", "perturb", "demo", "kill", "n0", *folder, code=1, error="HM-D-406")


# --- wallet ---


def test_a_wallet_is_sealed_and_never_overwritten(tmp_path: Path, secret: str) -> None:
    folder = ("--wallets", tmp_path / "w")
    made = answer("wallet", "new", "alice", "--passphrase-file", secret, *folder)
    parse_address(made["address"])
    key_file = Path(made["key_file"])
    assert key_file.stat().st_mode & 0o777 == 0o600
    assert "scrypt" in key_file.read_text()
    refused(
        "wallet", "new", "alice", "--passphrase-file", secret, *folder, code=6, error="HM-D-501"
    )
    refused("wallet", "new", "bob", *folder, code=2, error="HM-D-503", stdin="")
    refused("wallet", "new", "Bob!", *folder, code=2, error="HM-D-002")
    empty = tmp_path / "empty"
    empty.write_text("")
    empty.chmod(0o600)
    refused("wallet", "new", "bob", "--passphrase-file", empty, *folder, code=2, error="HM-D-503")
    Path(secret).chmod(0o644)
    refused("wallet", "new", "bob", "--passphrase-file", secret, *folder, code=6, error="HM-D-205")
    missing = tmp_path / "missing"
    refused("wallet", "new", "bob", "--passphrase-file", missing, *folder, code=2, error="HM-D-503")
    piped = run("wallet", "new", "bob", "--passphrase-file", "-", *folder, stdin="from stdin\n")
    assert piped.exit_code == 0, piped.output


@pytest.fixture
def pay(served: Served, made_cluster: Cluster, secret: str) -> tuple[object, ...]:
    """A payment out of the treasury, but for its amount and recipient."""
    return (
        "wallet", "send", "--from", "treasury", "--node", served.url,
        "--wallets", made_cluster.wallets, "--passphrase-file", secret,
    )  # fmt: skip


@pytest.fixture
def alice(tmp_path: Path, secret: str) -> str:
    made = answer(
        "wallet", "new", "alice", "--passphrase-file", secret, "--wallets", tmp_path / "alice"
    )
    found: str = made["address"]
    return found


def test_a_payment_is_signed_here_and_sent(
    pay: tuple[object, ...], node: FakeNode, alice: str
) -> None:
    paid = answer(*pay, "--to", alice, "--amount", "12.5", "--lane", "0", "--memo", "rent")
    assert paid["outcome"] == "applied"
    assert paid["amount"] == "12500000000"
    [payload] = node.submitted
    signed = decode_transaction(payload)
    transaction = signed.transaction
    assert transaction.chain_id == CHAIN_ID
    assert transaction.sequence == 4
    assert transaction.operations[0].recipient == parse_address(alice)
    assert signed.key is not None  # the account has none on the ledger yet
    key = PublicKey(algorithm=Algorithm.FALCON_512, raw=signed.key)
    verify(key, transaction.signed_bytes, signed.signature)
    assert PASSPHRASE not in json.dumps(paid)


def test_a_dry_run_sends_nothing(pay: tuple[object, ...], node: FakeNode, alice: str) -> None:
    shown = answer(*pay, "--to", alice, "--amount", "1", "--dry-run")
    decode_transaction(bytes.fromhex(shown["transaction"]))
    assert node.submitted == []


def test_a_refused_payment_shows_the_ledgers_own_code(
    pay: tuple[object, ...], node: FakeNode, alice: str
) -> None:
    node.outcome, node.code = Outcome.REFUSED, 131
    text = refused(*pay, "--to", alice, "--amount", "1", code=1, error="HM-L-131")
    assert "next: do better" in text
    node.outcome, node.code = Outcome.FAILED, 2
    refused(*pay, "--to", alice, "--amount", "1", code=1, error="HM-L-002")


def test_a_payment_whose_fate_is_open_is_exit_code_5(
    pay: tuple[object, ...], node: FakeNode, alice: str
) -> None:
    node.outcome = Outcome.PENDING
    text = refused(*pay, "--to", alice, "--amount", "1", code=5, error="HM-D-506")
    assert "do not send it again" in text
    sent = answer(*pay, "--to", alice, "--amount", "1", "--no-wait")
    assert sent["outcome"] == "pending"


@pytest.mark.parametrize("amount", ["0", "-1", "1e3", "1,5", "0.0000000001", "x", "", "9999999999"])
def test_an_amount_that_cannot_be_paid_is_a_usage_error(
    pay: tuple[object, ...], alice: str, amount: str
) -> None:
    refused(*pay, "--to", alice, f"--amount={amount}", code=2, error="HM-D-002")


def test_wrong_parties_of_a_payment_are_refused(
    pay: tuple[object, ...], node: FakeNode, alice: str, address: str, tmp_path: Path
) -> None:
    wrong_sum = alice[:-1] + ("q" if alice.endswith("x") else "x")
    refused(*pay, "--to", wrong_sum, "--amount", "1", code=2, error="HM-L-301")
    refused(*pay, "--to", "nobody", "--amount", "1", code=2, error="HM-D-502")
    refused(*pay, "--to", address, "--amount", "1", code=2, error="HM-D-002")
    wrong = tmp_path / "wrong"
    wrong.write_text("not the passphrase\n")
    wrong.chmod(0o600)
    refused(*pay[:-1], wrong, "--to", alice, "--amount", "1", code=7, error="HM-D-504")
    assert node.submitted == []


@pytest.fixture
def load(served: Served, made_cluster: Cluster, secret: str) -> tuple[object, ...]:
    """Load out of the treasury, but for its recipient and schedule."""
    return (
        "load", "run", "--from", "treasury", "--node", served.url,
        "--wallets", made_cluster.wallets, "--passphrase-file", secret,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        (("--rate", "5", "--ramp", "1:2"), "exclude each other"),
        (("--rate", "5", "--in-flight", "100"), "exclude each other"),
        (("--rate", "0.5", "--for", "1s"), "leaves nothing after"),
        (("--rate", "-5"), "above 0"),
        (("--ramp", "100"), "not a ramp"),
        (("--ramp", "0:100"), "above 0"),
        (("--rate", "1000000"), "10,000,000 transfers"),
        (("--in-flight", "0"), "between 1 and"),
        (("--for", "ten"), "not a time"),
        (("--report", "/nowhere/at/all.json"), "cannot be written"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_schedule_is_a_usage_error(
    load: tuple[object, ...], node: FakeNode, alice: str, options: tuple[str, ...], problem: str
) -> None:
    assert problem in refused(*load, "--to", alice, *options, code=2, error="HM-D-002")
    assert not node.submitted


def test_a_payer_that_cannot_pay_for_a_load_is_told_before_anything_is_signed(
    load: tuple[object, ...], node: FakeNode, alice: str
) -> None:
    node.balance = 1_000_000
    problem = refused(*load, "--to", alice, "--rate", "1000", code=2, error="HM-D-002")
    assert "10,000 transfers" in problem
    assert not node.submitted


def test_a_load_needs_a_node_that_speaks_stoq(
    load: tuple[object, ...], node: FakeNode, alice: str
) -> None:
    node.set(stoq="[::1]:1")
    refused(*load, "--to", alice, "--rate", "1", "--for", "2s", code=4, error="HM-D-301")
    assert len(node.submitted) == 2  # what carries the key, once in each form of the output


def test_balance_and_history_are_shown(served: Served, made_cluster: Cluster) -> None:
    where = ("--node", served.url, "--wallets", made_cluster.wallets)
    assert answer("wallet", "balance", "treasury", *where)["caes"] == "12.5"
    assert (
        run("wallet", "balance", "treasury", *where).stdout
        == "12.5 CAES at height 42 (local read)\n"
    )
    page = answer("wallet", "history", "treasury", "--limit", "1", *where)
    assert len(page["items"]) == 1
    shown = run("wallet", "history", "treasury", *where)
    assert "-1.5" in shown.stdout
    assert "more: --before 7" in shown.stderr
    refused("wallet", "balance", "nobody", *where, code=2, error="HM-D-502")
    refused("wallet", "history", "treasury", "--limit", "0", *where, code=2, error="HM-D-002")


# --- certificates ---


@pytest.fixture
def trust(served: Served, made_cluster: Cluster) -> tuple[object, ...]:
    return ("--node", served.url, "--genesis", made_cluster.genesis)


@pytest.mark.parametrize("key", ["ml-dsa-65", "ed25519", "p-256"])
def test_a_certificate_is_issued_verified_and_written(
    trust: tuple[object, ...], made_cluster: Cluster, tmp_path: Path, key: str
) -> None:
    base = tmp_path / "alice"
    issued = answer(
        "cert", "issue", "--name", f"{key}.mesh", "--key", key, "--out", base,
        "--enrolment-key", made_cluster.enrolment_key, *trust,
    )  # fmt: skip
    assert issued["verified"] is True
    assert issued["algorithm"] == key
    assert (tmp_path / "alice.key").stat().st_mode & 0o777 == 0o600
    file, genesis = tmp_path / "alice.pem", ("--genesis", made_cluster.genesis)
    verified = answer("cert", "verify", file, "--name", f"{key}.mesh", *genesis)
    assert verified["names"] == [f"{key}.mesh"]
    assert len(verified["cosigners"]) == 4
    shown = answer("cert", "show", file)
    assert shown["index"] == issued["index"]
    assert shown["verified"] is False
    saved = tmp_path / "again.pem"
    again = run("cert", "show", "--index", issued["index"], "--save", saved, *trust[:2])
    assert "names" in again.stdout
    assert answer("cert", "verify", saved, *genesis)["index"] == issued["index"]
    refused("cert", "show", "--index", "0", "--save", saved, *trust[:2], code=2, error="HM-D-002")
    refused("cert", "show", file, "--save", tmp_path / "y.pem", code=2, error="HM-D-002")
    refused("cert", "verify", file, "--name", "bob.mesh", *genesis, code=1, error="HM-A-105")
    refused("cert", "verify", file, "--at", "1", *genesis, code=1, error="HM-A-103")
    refused(
        "cert", "issue", "--name", "x.mesh", "--out", base,
        "--enrolment-key", made_cluster.enrolment_key, *trust, code=2, error="HM-D-002",
    )  # fmt: skip


def test_a_certificate_of_another_network_does_not_verify(
    trust: tuple[object, ...], made_cluster: Cluster, tmp_path: Path
) -> None:
    answer(
        "cert", "issue", "--name", "other.mesh", "--out", tmp_path / "a",
        "--enrolment-key", made_cluster.enrolment_key, *trust,
    )  # fmt: skip
    answer("node", "init", "--home", tmp_path / "dev")
    other = tmp_path / "dev/genesis.json"
    refused("cert", "verify", tmp_path / "a.pem", "--genesis", other, code=1, error="HM-A-106")
    text = (tmp_path / "a.pem").read_text()
    (tmp_path / "b.pem").write_text(text.replace("A", "B", 1))
    trusted = ("--genesis", made_cluster.genesis)
    assert run("cert", "verify", tmp_path / "b.pem", *trusted).exit_code == 1
    (tmp_path / "c.pem").write_bytes(b"\xff\xfe")
    refused("cert", "verify", tmp_path / "c.pem", *trusted, code=2, error="HM-D-005")
    (tmp_path / "d.pem").write_text("-----BEGIN NOTHING-----\n")
    assert "cert show --index N --save FILE" in refused(
        "cert", "show", tmp_path / "d.pem", code=1, error="HM-A-005"
    )


def test_an_input_file_that_is_not_there_is_a_usage_error_everywhere(
    trust: tuple[object, ...], made_cluster: Cluster, tmp_path: Path
) -> None:
    none, genesis = tmp_path / "none", made_cluster.genesis
    issue = ("cert", "issue", "--name", "x.mesh", "--out", tmp_path / "x", *trust)
    for words in (
        ("cert", "show", none),
        ("cert", "verify", none, "--genesis", genesis),
        ("cert", "verify", genesis, "--genesis", none),
        ("ctlog", "head", "--genesis", none),
        ("ctlog", "verify", "--from", none, *trust),
        ("config", "check", "--config", none),
        ("config", "show", "--config", none),
        ("node", "run", "--home", tmp_path, "--config", none),
        (*issue, "--enrolment-key", none),
        (*issue, "--enrolment-key", made_cluster.enrolment_key, "--key-file", none),
    ):
        assert str(none) in refused(*words, code=2, error="HM-D-004")
    assert list(tmp_path.glob("x.*")) == []


def test_the_key_is_on_disk_before_a_certificate_is_ordered(
    served: Served, trust: tuple[object, ...], made_cluster: Cluster, tmp_path: Path
) -> None:
    assert isinstance(served.node, CertifyingNode)
    size = served.node.application.size
    issue = ("cert", "issue", "--name", "kept.mesh", "--enrolment-key", made_cluster.enrolment_key)
    text = refused(*issue, "--out", tmp_path / "none/x", *trust, code=2, error="HM-D-002")
    assert str(tmp_path / "none") in text
    assert served.node.application.size == size
    nowhere = ("--node", NOWHERE, *trust[2:])
    lost = run(*issue, "--out", tmp_path / "x", *nowhere)
    assert lost.exit_code == 4
    assert f"--key-file {tmp_path}/x.key" in lost.stderr
    text = refused(*issue, "--out", tmp_path / "x", *trust, code=2, error="HM-D-002")
    assert f"--key-file {tmp_path}/x.key" in text
    again = answer(
        *issue, "--out", tmp_path / "x", "--key-file", tmp_path / "x.key", *trust
    )  # fmt: skip
    assert again["key"] == str(tmp_path / "x.key")
    assert (tmp_path / "x.pem").exists()


def test_wrong_requests_for_certificates_are_refused(
    trust: tuple[object, ...], made_cluster: Cluster, tmp_path: Path
) -> None:
    enrolment = ("--enrolment-key", made_cluster.enrolment_key)
    out = ("--out", tmp_path / "x")
    issue = ("cert", "issue", *out)
    refused(*issue, *trust, *enrolment, code=2, error="HM-D-002")  # no name
    refused(
        *issue, "--name", "x.mesh", "--key", "rsa", *trust, *enrolment, code=2, error="HM-D-002"
    )
    refused(*issue, "--name", "X!", *trust, *enrolment, code=2, error="HM-A-002")
    refused(*issue, "--name", "x.mesh", *trust, code=2, error="HM-D-002")  # no enrolment key
    node_key = made_cluster.members[0].home.node_key
    refused(
        *issue, "--name", "x.mesh", *trust, "--enrolment-key", made_cluster.genesis,
        code=1, error="HM-A-008",
    )  # fmt: skip
    refused("cert", "show", code=2, error="HM-D-002")
    refused("cert", "verify", made_cluster.genesis, code=2, error="HM-D-002")  # nothing to trust
    assert not list(tmp_path.glob("x.*"))
    own = tmp_path / "own.key"
    write_key(own, generate_key(KeyAlgorithm.ED25519), None)
    refused(
        *issue, "--name", "x.mesh", *trust, "--enrolment-key", node_key, "--key-file", own,
        code=1, error="HM-A-138",
    )  # fmt: skip
    refused(
        *issue, "--name", "x.example", *trust, *enrolment, "--key-file", own,
        code=1, error="HM-A-140",
    )  # fmt: skip


def test_the_log_is_shown_proved_and_verified(
    trust: tuple[object, ...], made_cluster: Cluster, tmp_path: Path
) -> None:
    def issue(name: str) -> int:
        issued = answer(
            "cert", "issue", "--name", name, "--out", tmp_path / name,
            "--enrolment-key", made_cluster.enrolment_key, *trust,
        )  # fmt: skip
        return int(issued["index"])

    first = issue("first.mesh")
    saved = tmp_path / "old.checkpoint"
    head = answer("ctlog", "head", "--save", saved, *trust)
    assert head["size"] == first + 1
    issue("second.mesh")
    verified = answer("ctlog", "verify", "--from", saved, "--index", first, *trust)
    assert verified["consistent_from"] == first + 1
    assert verified["included"] == first
    assert "nothing rewritten" in run("ctlog", "verify", "--from", saved, *trust).stdout
    assert answer("ctlog", "proof", first, "--node", trust[1])["index"] == first
    broken = tmp_path / "broken"
    broken.write_text(saved.read_text()[:-20])
    assert run("ctlog", "verify", "--from", broken, *trust).exit_code == 1
    text = refused(
        "ctlog", "verify", "--from", made_cluster.genesis, *trust, code=1, error="HM-A-006"
    )
    assert "ctlog head --save FILE" in text
    refused("ctlog", "proof", "-1", "--node", trust[1], code=2, error="HM-D-002")


def test_a_change_of_validators_during_the_check_is_no_fault_of_the_log(
    made_cluster: Cluster, tmp_path: Path
) -> None:
    class Changing(CertifyingNode):
        """Once its epochs were asked for, another set cosigns."""

        async def epoch_links(self, first: int, count_max: int) -> tuple[int, tuple[bytes, ...]]:
            self.cosigners = [SecretKey.generate(Algorithm.ML_DSA_44) for _ in self.cosigners]
            return await super().epoch_links(first, count_max)

    made = CertifyingNode.of(made_cluster)
    for words in (("head",), ("verify",), ("verify", "--index", "0")):
        node = Changing(**{item.name: getattr(made, item.name) for item in fields(made)})
        with Served(node) as served:
            trust = ("--node", served.url, "--genesis", made_cluster.genesis)
            if not made.application.size:
                answer(
                    "cert", "issue", "--name", "a.mesh", "--out", tmp_path / "a",
                    "--enrolment-key", made_cluster.enrolment_key, *trust,
                )  # fmt: skip
                node.cosigners = made.cosigners
            assert answer("ctlog", *words, *trust)["size"] == 1


def test_a_log_that_was_rewritten_or_shrank_is_found_out(
    trust: tuple[object, ...], made_cluster: Cluster, tmp_path: Path
) -> None:
    def issue(name: str, *where: object) -> None:
        answer(
            "cert", "issue", "--name", name, "--out", tmp_path / name, "--key", "ed25519",
            "--enrolment-key", made_cluster.enrolment_key, *where,
        )  # fmt: skip

    for name in ("one.mesh", "two.mesh"):
        issue(name, *trust)
    saved, fork = tmp_path / "saved.checkpoint", tmp_path / "fork.checkpoint"
    answer("ctlog", "head", "--save", saved, *trust)
    with Served(CertifyingNode.of(made_cluster)) as served:
        there = ("--node", served.url, "--genesis", made_cluster.genesis)
        issue("three.mesh", *there)
        answer("ctlog", "head", "--save", fork, *there)
        text = refused("ctlog", "verify", "--from", saved, *there, code=1, error="HM-D-702")
        assert "shrank" in text
    refused("ctlog", "verify", "--from", fork, *trust, code=1, error="HM-D-702")


# --- chain ---


def test_blocks_are_followed_one_a_line(served: Served, node: FakeNode) -> None:
    words = ("chain", "follow", "--from", 40, "--count", 3, "--node", served.url)
    lines = run(*words).stdout.splitlines()
    assert [line.split()[0] for line in lines] == ["40", "41", "42"]
    as_json = [json.loads(line) for line in run(*words, "-o", "json").stdout.splitlines()]
    assert [block["height"] for block in as_json] == [40, 41, 42]
    node.set(height_oldest=41)
    assert "41" in refused(*words, code=1, error="HM-D-610")


def test_blocks_of_two_chains_are_not_followed_as_one(served: Served, node: FakeNode) -> None:
    node.forked_at = 41
    try:
        result = run("chain", "follow", "--from", 40, "--count", 3, "--node", served.url)
    finally:
        node.forked_at = 0
    assert result.exit_code != 0
    assert result.stdout.splitlines()[0].startswith("40 ")
    assert len(result.stdout.splitlines()) == 1
    assert "does not follow" in result.stderr
