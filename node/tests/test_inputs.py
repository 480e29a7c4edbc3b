"""Files that a person names and that are something else: an error with a next step, always."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from node.client import NodeClient
from node.cluster.manifest import Cluster
from node.errors import InputMissing, InputUnreadable, UnexpectedAnswer
from node.inputs import input_text, parse_json
from node.tests.conftest import PASSPHRASE
from node.tests.test_cli import NOWHERE, refused, run
from trustchain.limits import BUNDLE_SIZE_BYTES_MAX

if TYPE_CHECKING:
    from collections.abc import Callable

DEEP = 100_000
DAMAGED = {
    "binary": bytes(range(256)) * 8,
    "deep": b"[" * DEEP + b"]" * DEEP,
    "deep object": b'{"version":1,"a":' * DEEP,
    "deep TOML": b"a = " + b"[" * DEEP + b"]" * DEEP,
    "empty": b"",
    "text": b"hello\n",
    "a number": b"7",
}
COMMANDS: dict[str, Callable[[Path, Cluster], list[object]]] = {
    "cert show": lambda file, _: ["cert", "show", file],
    "cert verify": lambda file, net: ["cert", "verify", file, "--genesis", net.genesis],
    "cert verify --cosigners": lambda file, net: [
        *("cert", "verify", file.with_name("any"), "--genesis", net.genesis),
        *("--cosigners", file),
    ],
    "cert verify --genesis": lambda file, _: [
        *("cert", "verify", file.with_name("any"), "--genesis", file)
    ],
    "cert issue --enrolment-key": lambda file, net: [
        *("cert", "issue", "--name", "a.mesh", "--genesis", net.genesis, "--node", NOWHERE),
        *("--out", file.with_name("a"), "--enrolment-key", file),
    ],
    "cert issue --key-file": lambda file, net: [
        *("cert", "issue", "--name", "a.mesh", "--genesis", net.genesis, "--node", NOWHERE),
        *("--out", file.with_name("a"), "--enrolment-key", net.enrolment_key, "--key-file", file),
    ],
    "ctlog verify --from": lambda file, net: [
        *("ctlog", "verify", "--from", file, "--genesis", net.genesis, "--node", NOWHERE)
    ],
    "ca sign-issuer": lambda file, net: [
        *("ca", "sign-issuer", file, "--name", "n4", "--root", net.folder / "offline"),
        *("--out", file.with_name("out"), "--passphrase-file", file.with_name("passphrase")),
    ],
    "ca sign-issuer --passphrase-file": lambda file, net: [
        *("ca", "sign-issuer", file.with_name("any"), "--name", "n4"),
        *("--root", net.folder / "offline", "--out", file.with_name("out")),
        *("--passphrase-file", file),
    ],
    "chain verify-header": lambda file, net: [
        *("chain", "verify-header", file, "--genesis", net.genesis)
    ],
    "chain snapshot --genesis": lambda file, _: [
        *("chain", "snapshot", file.with_name("copy"), "--genesis", file, "--home", file.parent)
    ],
    "validator approve": lambda file, _: ["validator", "approve", file, "--node", NOWHERE],
    "validator submit": lambda file, _: ["validator", "submit", file, "--node", NOWHERE],
    "config show": lambda file, _: ["config", "show", "--config", file],
}


@pytest.mark.parametrize("damage", DAMAGED)
@pytest.mark.parametrize("command", COMMANDS)
def test_no_file_makes_a_command_fail_without_saying_why(
    command: str, damage: str, made_cluster: Cluster, tmp_path: Path
) -> None:
    file = tmp_path / "file"
    file.write_bytes(DAMAGED[damage])
    (tmp_path / "any").write_text("hello\n")
    (tmp_path / "passphrase").write_text(PASSPHRASE)
    for name in ("file", "passphrase"):
        (tmp_path / name).chmod(0o600)
    if (command, damage) == ("config show", "empty"):
        return  # nothing set is a configuration
    done = run(*COMMANDS[command](file, made_cluster), "--output", "json")
    assert done.exit_code not in (0, 130), done.output
    document = json.loads(done.stderr.splitlines()[-1])["error"]
    assert document["code"] != "HM-D-001", document
    assert document["next_step"]
    if damage == "binary":
        assert str(file) in document["message"]


def test_a_file_is_read_up_to_its_limit_only(tmp_path: Path) -> None:
    file = tmp_path / "file"

    def read(size_max: int) -> str:
        return input_text(file, size_max=size_max, what="a note", hint="write one")

    with pytest.raises(InputMissing):
        read(1)
    file.write_text("räm")
    assert read(4) == "räm"
    with pytest.raises(InputUnreadable, match="longer than 3 bytes") as caught:
        read(3)
    assert caught.value.hint == "write one"
    file.write_bytes(b"abc\xff")
    with pytest.raises(InputUnreadable, match="not a note: byte 3 is not text"):
        read(4)
    with pytest.raises(InputMissing):
        input_text(tmp_path, size_max=1, what="a note", hint="write one")
    with file.open("wb") as endless:
        endless.truncate(1 << 40)  # sparse; reading it whole would take the machine down
    with pytest.raises(InputUnreadable):
        read(BUNDLE_SIZE_BYTES_MAX)


def test_json_that_is_nested_too_deeply_is_a_value_error() -> None:
    for name in ("deep", "deep object"):
        with pytest.raises(ValueError, match="nested"):
            parse_json(DAMAGED[name])
    assert parse_json('{"a":1}', pairs=tuple) == (("a", 1),)


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", '{"port": Infinity}'])
def test_what_is_no_number_in_json_is_none_here(text: str) -> None:
    with pytest.raises(ValueError, match="is no number"):
        parse_json(text)


def test_a_path_through_a_file_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "old.txt").write_text("x")
    with pytest.raises(InputMissing, match="no such file"):
        input_text(tmp_path / "old.txt" / "x", size_max=10, what="a text", hint="")


@pytest.mark.parametrize(
    ("line", "why"), [(b"\xff\xfe\n", "not text in UTF-8"), (b"x" * 70_000, "is longer than")]
)
def test_a_passphrase_of_stdin_is_bounded_text(tmp_path: Path, line: bytes, why: str) -> None:
    where = ("--wallets", tmp_path)
    text = refused(
        *("wallet", "new", "w1", "--passphrase-file", "-", *where),
        stdin=line,
        code=2,
        error="HM-D-002",
    )
    assert why in text


@pytest.mark.parametrize(
    "ask",
    [
        lambda client: client.epoch_links(1),
        lambda client: client.validators(),
        lambda client: client.log_inclusion(0),
        lambda client: client.log_consistency(1),
    ],
)
@pytest.mark.parametrize("answer", [{}, {"links": 5, "members": {}, "hashes": "00"}])
def test_an_answer_of_another_form_is_said(
    ask: Callable[[NodeClient], object], answer: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(NodeClient, "_json", lambda *_: answer)
    with NodeClient("http://[::1]:1") as client, pytest.raises(UnexpectedAnswer, match="proper"):
        ask(client)
