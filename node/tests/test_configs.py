"""The files in configs/ work with the commands as they are."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from typer.main import get_command

from node.cli import app
from node.config import load_config
from node.config.load import environment_name, schema_keys
from node.errors import ExitCode
from node.limits import CLUSTER_BASE_PORT, CLUSTER_PORTS_PER_NODE
from node.metrics import Metrics

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
EXAMPLES = ("single.toml", "validator.toml", "cluster-4.toml")
UNIT = CONFIGS / "systemd" / "hypermesh.service"
SCRAPE = CONFIGS / "prometheus" / "prometheus.yml"
ALERTS = SCRAPE.with_name("alerts.yml")


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_loads_and_explains_itself(name: str) -> None:
    path = CONFIGS / name
    loaded = load_config(path)
    assert loaded.origins
    text = path.read_text()
    assert text.count("#") >= 5
    for command in re.findall(r"^#   hypermesh (.*?)(?:   .*)?$", text, re.MULTILINE):
        assert_command_exists(shlex.split(command))
    for variable in re.findall(r"HYPERMESH_[A-Z_]+", text):
        assert variable in {environment_name(key) for key in schema_keys()}


def test_every_example_is_tested() -> None:
    assert {path.name for path in CONFIGS.glob("*.toml")} == set(EXAMPLES)


def test_the_cluster_example_follows_the_fixed_layout_of_ports() -> None:
    config = load_config(CONFIGS / "cluster-4.toml").config
    base = CLUSTER_BASE_PORT
    own = base + CLUSTER_PORTS_PER_NODE
    assert config.transport.listen == f"[::1]:{own + 2}"
    assert config.http.listen == f"[::1]:{own + 3}"
    assert len(config.peers) == 3


def assert_command_exists(words: list[str]) -> None:
    """Parse a command line down to its options, without running it."""
    group = get_command(app)
    command = group
    for word in words:
        found = getattr(command, "commands", {}).get(word)
        if found is None:
            break
        command = found
    assert not hasattr(command, "commands"), words
    options = {option for parameter in command.params for option in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word.partition("=")[0] in options, (words, word)


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(
        strict=False, interpolation=None, delimiters=("=",), comment_prefixes=("#",)
    )
    parser.optionxform = str  # type: ignore[assignment, method-assign]
    parser.read(UNIT)
    return parser


def test_the_unit_starts_the_node_and_only_restarts_what_a_restart_helps() -> None:
    service = unit()["Service"]
    words = shlex.split(service["ExecStart"])
    assert_command_exists(words[words.index("hypermesh") + 1 :])
    [setting] = [word for word in words if "=" in word]
    load_config(None, flags=[setting])
    kept_down = {int(code) for code in service["RestartPreventExitStatus"].split()}
    assert kept_down == {ExitCode.USAGE, ExitCode.CONFIGURATION, ExitCode.UNSAFE}
    assert "%S/hypermesh" in service["ExecStart"]
    assert service["StateDirectory"] == "hypermesh"
    assert "AF_INET6" in service["RestrictAddressFamilies"]
    assert int(service["TimeoutStopSec"]) > 5
    assert service["ProtectSystem"] == "strict"
    for line in re.findall(r"^#   hypermesh (.*?)(?:   .*)?$", UNIT.read_text(), re.MULTILINE):
        assert_command_exists(shlex.split(line))


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_accepts_the_unit() -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(UNIT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Unknown" not in done.stderr, done.stderr
    assert "Failed to parse" not in done.stderr, done.stderr


def test_prometheus_scrapes_the_nodes_of_a_local_cluster() -> None:
    text = SCRAPE.read_text()
    document = simple_yaml(text)
    [job] = document["scrape_configs"]
    assert job["metrics_path"] == "/metrics"
    [group] = job["static_configs"]
    ports = [int(target.rpartition(":")[2]) for target in group["targets"]]
    assert ports == [CLUSTER_BASE_PORT + CLUSTER_PORTS_PER_NODE * at + 3 for at in range(4)]


@pytest.mark.parametrize("file", [SCRAPE, ALERTS], ids=["scrape", "alerts"])
def test_the_metrics_that_scrape_file_and_alerts_name_exist(file: Path) -> None:
    from node.tests.fake_node import FakeNode

    names = set(re.findall(r"hypermesh_[a-z_]+", file.read_text()))
    names = {re.sub(r"_(sum|count)$", "", name) if "seconds" in name else name for name in names}
    assert len(names) >= 4
    page = FakeNode().metrics_text().decode() + Metrics().render().decode()
    assert {name for name in names if f"# TYPE {name} " not in page} == set()


def simple_yaml(text: str) -> dict:  # type: ignore[type-arg]
    """Read the little of YAML that the file uses: nested maps and lists of scalars or maps."""
    lines = [
        line for line in text.splitlines() if line.strip() and not line.strip().startswith("#")
    ]
    value, rest = _block(lines, _indent(lines[0]))
    assert rest == []
    assert isinstance(value, dict)
    return value


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _block(lines: list[str], indent: int) -> tuple[object, list[str]]:
    if lines[0].strip().startswith("- "):
        items: list[object] = []
        while lines and _indent(lines[0]) == indent and lines[0].strip().startswith("- "):
            first = lines[0].strip()[2:]
            if ":" in first and not first.startswith('"'):
                inner, lines = _block([" " * (indent + 2) + first, *lines[1:]], indent + 2)
                items.append(inner)
            else:
                items.append(first.strip('"'))
                lines = lines[1:]
        return items, lines
    found: dict[str, object] = {}
    while lines and _indent(lines[0]) == indent:
        key, colon, text = lines[0].strip().partition(":")
        assert colon, lines[0]
        lines = lines[1:]
        if text.strip():
            found[key] = text.strip().strip('"')
        else:
            found[key], lines = _block(lines, _indent(lines[0]))
    return found, lines
