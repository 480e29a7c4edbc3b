"""What a node refuses to start with, in words that tell the next step."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator

import pytest

from bench.network import COMMAND, Member, Network, port_holder

StartNetwork = Callable[..., Network]

OK, FAILED, CONFIGURATION, UNSAFE = 0, 1, 3, 6


@pytest.fixture(scope="module")
def idle(start: StartNetwork) -> Network:
    """One validator that was up once and is stopped."""
    network = start(nodes=1)
    network.members[0].stop()
    return network


@pytest.fixture
def home(idle: Network) -> Iterator[Member]:
    """Its member, with the home as it was before the test afterwards."""
    member = idle.members[0]
    saved = idle.folder / "saved"
    shutil.copytree(member.home.path, saved)
    yield member
    shutil.rmtree(member.home.path)
    saved.rename(member.home.path)


def refused(network: Network, member: Member, *words: str) -> int:
    """Run the node in the foreground; it must end by itself and say these words on stderr."""
    completed = network.command(
        "node", "run", "--home", str(member.home.path), code=None, timeout_s=20
    )
    assert completed.returncode != OK, f"{COMMAND} started"
    assert completed.stdout == ""
    assert "Traceback" not in completed.stderr
    for word in words:
        assert word in completed.stderr, f"{word!r} is not in:\n{completed.stderr}"
    return completed.returncode


def test_wrong_genesis(idle: Network, home: Member, start: StartNetwork) -> None:
    other = start(nodes=1, run=False)
    shutil.copy(other.members[0].home.genesis, home.home.genesis)
    code = refused(idle, home, "genesis")
    assert code in {CONFIGURATION, UNSAFE}


def test_stoq_port_taken_names_the_holder(idle: Network, home: Member) -> None:
    with port_holder(home.manifest.stoq_port):
        refused(idle, home, f"process {os.getpid()}", "transport.listen")


@pytest.mark.parametrize("name", ["consensus.db", "state.db"])
def test_corrupt_database(idle: Network, home: Member, name: str) -> None:
    path = home.home.data / name
    data = bytearray(path.read_bytes())
    data[:100] = b"\xff" * 100
    path.write_bytes(data)
    for suffix in ("-wal", "-shm"):
        path.with_name(name + suffix).unlink(missing_ok=True)
    refused(idle, home, name)


def test_truncated_database(idle: Network, home: Member) -> None:
    path = home.home.data / "state.db"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2 + 100])
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    refused(idle, home, "state.db")


def test_a_secret_that_others_can_read(idle: Network, home: Member) -> None:
    home.home.node_key.chmod(0o644)
    refused(idle, home, "chmod 600")


def test_a_second_process_on_the_same_home(idle: Network, home: Member) -> None:
    home.start()
    idle.wait_ready()
    try:
        refused(idle, home, "process")
    finally:
        home.stop()


def test_an_unknown_key_names_file_line_and_nearest_key(idle: Network, home: Member) -> None:
    text = home.home.config.read_text()
    home.home.config.write_text(text.replace("idle_block_interval_ms", "idle_block_intervl_ms"))
    assert refused(idle, home, "node.toml", "idle_block_interval_ms") == CONFIGURATION
