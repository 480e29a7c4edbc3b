from __future__ import annotations

import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from pathlib import Path

import pytest

from node.cluster import operate
from node.cluster.create import (
    create_cluster,
    create_single,
    node_toml,
    shared_view_timeout_ms,
)
from node.cluster.manifest import Cluster, Member, check_layout, check_rotation, find_cluster
from node.core.genesis import Genesis
from node.errors import (
    ClusterExists,
    ClusterNotFound,
    ClusterStartFailed,
    HomeExists,
    InvalidArgument,
    NodeError,
    NodeNotFound,
    PortInUse,
)
from node.home import Home, write_replacing
from node.limits import VIEW_TIMEOUT_MS
from node.preflight import inspect, read_genesis
from node.processes import Listen, Process, command_line, holder_of, process, require_free, taken
from node.tests.conftest import PASSPHRASE, free_base_port
from trustchain.core.names import grants


def test_a_cluster_is_found_by_name_and_by_path(made_cluster: Cluster) -> None:
    by_name = find_cluster("demo", made_cluster.folder.parent)
    assert by_name == made_cluster
    assert find_cluster(str(made_cluster.folder)) == made_cluster
    with pytest.raises(ClusterNotFound, match="there is no cluster"):
        find_cluster("nothing", made_cluster.folder.parent)
    with pytest.raises(NodeNotFound, match="has no node 'n9'"):
        made_cluster.member("n9")


def test_each_node_owns_ten_ports(made_cluster: Cluster) -> None:
    base = made_cluster.base_port
    assert [member.stoq_port for member in made_cluster.members] == [
        base + 2,
        base + 12,
        base + 22,
        base + 32,
    ]
    assert made_cluster.members[3].url == f"http://[::1]:{base + 33}"


def test_secrets_are_private_and_the_root_key_is_not_in_a_home(made_cluster: Cluster) -> None:
    secret = [path for path in made_cluster.folder.rglob("*") if path.suffix == ".key"]
    assert len(secret) == 4 * 3 + 2  # node, cosigner, issuing; enrolment, treasury
    for path in (*secret, made_cluster.offline / "root-key.pem"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert b"ENCRYPTED" in (made_cluster.offline / "root-key.pem").read_bytes()
    assert not (made_cluster.offline / "passphrase").exists()  # one was given
    for member in made_cluster.members:
        assert not list(member.home.path.rglob("root*"))


def test_every_home_of_a_new_cluster_passes_all_checks(made_cluster: Cluster) -> None:
    for member in made_cluster.members:
        result = inspect(member.home.path)
        assert result.ok, result.errors
        assert all(check.state == "ok" for check in result.checks)


@pytest.mark.parametrize(
    ("nodes", "cores", "times"),
    [(4, 2, 1), (7, 2, 1), (8, 2, 2), (21, 2, 5), (21, 8, 1), (1, 1, 1)],
)
def test_nodes_that_crowd_a_machine_are_more_patient(nodes: int, cores: int, times: int) -> None:
    assert shared_view_timeout_ms(nodes, cores) == times * VIEW_TIMEOUT_MS


def test_only_a_patience_that_is_no_default_is_written() -> None:
    write = functools.partial(node_toml, name="n0", base_port=9290, host="::1", peers={})
    usual, patient = write(), write(view_timeout_ms=5 * VIEW_TIMEOUT_MS)
    assert "[consensus]" not in usual
    assert tomllib.loads(patient)["consensus"] == {"view_timeout_ms": 5 * VIEW_TIMEOUT_MS}


def test_a_cluster_is_never_made_over_another(made_cluster: Cluster) -> None:
    with pytest.raises(ClusterExists):
        create_cluster(
            made_cluster.folder, name="demo", nodes=1, base_port=9290, passphrase=PASSPHRASE
        )
    assert find_cluster(str(made_cluster.folder)) == made_cluster


def test_a_failure_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr("node.cluster.create._write_home", fail)
    with pytest.raises(OSError, match="disk full"):
        create_cluster(
            tmp_path / "x" / "demo", name="demo", nodes=1, base_port=9290, passphrase=None
        )
    assert list((tmp_path / "x").iterdir()) == []


def test_the_enrolment_key_grants_names_of_the_mesh_and_no_others(made_cluster: Cluster) -> None:
    genesis = Genesis.from_json(made_cluster.genesis.read_text())
    [key] = genesis.log.enrolment_keys
    for name in ("alice.mesh", "web.demo.mesh"):
        assert any(grants(pattern, name) for pattern in key.patterns)
    for name in ("mesh", "example.net", "mesh.example.net"):
        assert not any(grants(pattern, name) for pattern in key.patterns)


@pytest.mark.parametrize("blocks", [-1, 1, 63, 1_000_000_001])
def test_a_turn_too_short_or_too_long_is_refused(blocks: int) -> None:
    with pytest.raises(InvalidArgument):
        check_rotation(blocks)


@pytest.mark.parametrize(("nodes", "base"), [(0, 9290), (65, 9290), (4, 1000), (4, 65_500)])
def test_a_cluster_that_cannot_be_laid_out_is_refused(nodes: int, base: int) -> None:
    with pytest.raises(InvalidArgument):
        check_layout(nodes, base)


def test_a_single_node_is_a_whole_home(tmp_path: Path) -> None:
    base = free_base_port(1)
    create_single(tmp_path / "dev", name="dev", chain="dev", base_port=base, passphrase=None)
    assert (tmp_path / "dev/offline/passphrase").stat().st_mode & 0o777 == 0o600
    assert inspect(tmp_path / "dev").ok
    with pytest.raises(HomeExists):
        create_single(tmp_path / "dev", name="dev", chain="dev", base_port=base, passphrase=None)


# --- checks before a start ---


@pytest.fixture
def home(made_cluster: Cluster, tmp_path: Path) -> Home:
    """A copy of a validator's home that a test may break."""
    shutil.copytree(made_cluster.members[0].home.path, tmp_path / "home")
    return Home(tmp_path / "home")


def codes(home: Home) -> dict[str, str]:
    result = inspect(home.path, ports=False)
    return {check.name: check.code or check.state.value for check in result.checks}


def test_a_missing_genesis_is_named(home: Home) -> None:
    home.genesis.unlink()
    found = codes(home)
    assert found["genesis"] == "HM-D-202"
    assert found["identity"] == "skip"


def test_a_genesis_of_another_network_is_refused(home: Home, tmp_path: Path) -> None:
    create_single(tmp_path / "x", name="x", chain="x", base_port=9290, passphrase=PASSPHRASE)
    shutil.copy(tmp_path / "x/genesis.json", home.genesis)
    assert codes(home)["identity"] == "HM-D-204"


def test_a_damaged_genesis_is_refused(home: Home) -> None:
    home.genesis.write_text(home.genesis.read_text()[:-100])
    assert codes(home)["genesis"] == "HM-D-201"


def test_missing_and_readable_keys_are_refused(home: Home) -> None:
    home.node_key.chmod(0o644)
    assert codes(home)["node key"] == "HM-D-205"
    home.node_key.unlink()
    assert codes(home)["node key"] == "HM-D-202"


def test_a_damaged_key_is_refused(home: Home) -> None:
    home.node_key.write_text("-----BEGIN NONSENSE-----\n")
    assert codes(home)["node key"] == "HM-D-209"


@pytest.mark.parametrize("name", ["cosigner.key", "issuing.key"])
def test_keys_of_another_validator_are_refused(
    home: Home, made_cluster: Cluster, name: str
) -> None:
    (home.keys / name).unlink()
    shutil.copy(made_cluster.members[1].home.keys / name, home.keys / name)
    assert codes(home)["validator keys"] == "HM-D-204"


def test_a_role_that_does_not_exist_is_refused(home: Home) -> None:
    text = home.config.read_text().replace('"validator"', '"sentry"')
    home.config.write_text(text)
    assert codes(home)["configuration"] == "HM-D-101"


def test_a_lost_disk_is_a_warning_and_a_damaged_database_is_refused(home: Home) -> None:
    home.state_database.write_bytes(b"not a database at all")
    assert codes(home)["databases"] == "HM-D-207"
    home.state_database.unlink()
    home.consensus_database.unlink()
    assert codes(home)["databases"] == "warn"


def test_the_way_out_of_damage_only_promises_peers_where_they_can_help(
    home: Home, tmp_path: Path
) -> None:
    home.consensus_database.write_bytes(b"not a database at all")
    assert "recovers from its peers" in next_step(home)
    create_single(tmp_path / "x", name="x", chain="x", base_port=9290, passphrase=PASSPHRASE)
    alone = Home(tmp_path / "x")
    alone.consensus_database.write_bytes(b"not a database at all")
    assert "no peers can tell" in next_step(alone)
    alone.consensus_database.unlink()
    assert "no peers can tell" in next_step(alone)


def next_step(home: Home) -> str:
    [found] = [item for item in inspect(home.path, ports=False).checks if item.name == "databases"]
    return found.next_step


def test_missing_peers_are_a_warning(home: Home) -> None:
    text = home.config.read_text().splitlines()
    home.config.write_text("\n".join(text[:-1]) + "\n")
    assert codes(home)["peers"] == "warn"


def test_a_home_that_is_run_already_is_refused(home: Home) -> None:
    code = (
        "import sys, time; from pathlib import Path; from node.home import Home; "
        "from node.preflight import take_lock; take_lock(Home(Path(sys.argv[1]))); "
        "print('locked', flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(home.path)], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == "locked\n"
        result = inspect(home.path, ports=False)
        [error] = result.errors
        assert error.code == "HM-D-208"
        assert f"process {child.pid}" in error.message
        child.kill()
    assert codes(home)["process"] == "ok"


def test_a_genesis_that_is_not_there_says_where_to_get_it(tmp_path: Path) -> None:
    with pytest.raises(NodeError) as caught:
        read_genesis(tmp_path / "genesis.json")
    assert "copy genesis.json" in caught.value.hint


# --- ports and processes ---


def test_the_process_that_holds_a_port_is_named() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as holder:
        holder.bind(("::1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        listen = Listen(host="::1", port=port, protocol="tcp", key="http.listen")
        found = holder_of(port, "tcp")
        assert found is not None
        assert found.pid == os.getpid()
        assert found.command == command_line(os.getpid())
        with pytest.raises(PortInUse) as caught:
            require_free(listen)
        assert f"process {os.getpid()}" in str(caught.value)
        assert "http.listen" in caught.value.hint
    assert taken(listen) is None
    assert holder_of(port, "tcp") is None


def test_a_udp_port_is_checked_too() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as holder:
        holder.bind(("::1", 0))
        port = holder.getsockname()[1]
        found = taken(Listen(host="::1", port=port, protocol="udp", key="transport.listen"))
        assert found is not None
        assert found.pid == os.getpid()


def test_a_pid_with_another_start_time_is_another_process() -> None:
    own = process(os.getpid())
    assert own is not None
    assert own.alive
    stranger = Process(pid=own.pid, started=own.started + 1)
    assert not stranger.alive
    assert not stranger.signal(signal.SIGKILL)  # or this test would not end
    assert process(2**22 + 1) is None


@pytest.fixture
def member(tmp_path: Path) -> Member:
    base = free_base_port(1)
    home = Home(tmp_path / "n0")
    home.run.mkdir(parents=True)
    return Member(name="n0", node_id="ab" * 32, home=home, stoq_port=base + 2, http_port=base + 3)


def pretend(member: Member, *words: str) -> subprocess.Popen[bytes]:
    """Start some program and record it as the node's process."""
    child = subprocess.Popen(words)
    found = process(child.pid)
    assert found is not None
    document = {"pid": found.pid, "started": found.started}
    write_replacing(member.process_file, json.dumps(document).encode())
    return child


def test_a_node_is_paused_resumed_and_killed(member: Member) -> None:
    with pretend(member, "sleep", "60") as child:
        operate.perturb(member, operate.Action.PAUSE)
        deadline = time.monotonic() + 5
        while not operate.inspect(member).paused and time.monotonic() < deadline:
            time.sleep(0.01)
        assert operate.inspect(member).word == "paused"
        operate.perturb(member, operate.Action.RESUME)
        while operate.inspect(member).paused and time.monotonic() < deadline:
            time.sleep(0.01)
        assert operate.inspect(member).word == "starting"
        operate.perturb(member, operate.Action.KILL)
        assert operate.inspect(member).word == "down"
        child.wait(5)
    with pytest.raises(NodeError, match="does not run"):
        operate.perturb(member, operate.Action.KILL)


def test_stop_asks_first_and_kills_after_the_time_is_over(member: Member) -> None:
    with pretend(member, "sleep", "60") as child:
        assert operate.stop([member], timeout_s=5) == {"n0": "stopped"}
        child.wait(5)
    deaf = (
        "import signal, time; signal.signal(15, signal.SIG_IGN); print(flush=True); time.sleep(60)"
    )
    child = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    with child:
        assert child.stdout is not None
        child.stdout.readline()
        found = process(child.pid)
        assert found is not None
        document = {"pid": found.pid, "started": found.started}
        write_replacing(member.process_file, json.dumps(document).encode())
        assert operate.stop([member], timeout_s=0.2) == {"n0": "killed"}
        child.wait(5)
    assert operate.stop([member]) == {}


def test_starting_names_who_holds_a_port_and_starts_nothing(member: Member) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_STREAM) as holder:
        holder.bind(("::1", member.http_port))
        holder.listen()
        with pytest.raises(PortInUse, match=f"process {os.getpid()}"):
            operate.start([member])
    assert operate.running_process(member) is None
    assert not member.home.log_file.exists()


def test_a_node_that_does_not_stay_up_is_reported_with_its_log(member: Member) -> None:
    [started] = operate.start([member])
    assert started is member
    with pytest.raises(ClusterStartFailed) as caught:
        operate.wait_ready([member], timeout_s=30)
    assert "n0 did not stay up" in str(caught.value)
    assert "node.toml" in str(caught.value)  # the log says what is missing
    assert operate.running_process(member) is None
