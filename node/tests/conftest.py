"""Fixtures shared by the tests of the daemon."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog

from node.cluster.create import create_cluster
from node.cluster.manifest import Cluster
from node.processes import Listen, taken

PASSPHRASE = "correct horse"


def free_base_port(nodes: int) -> int:
    """Return a base port from which a cluster fits now."""
    for base in range(20_000, 60_000, 100):
        listens = [
            listen
            for at in range(nodes)
            for listen in (
                Listen(host="::1", port=base + 10 * at + 2, protocol="udp", key=""),
                Listen(host="::1", port=base + 10 * at + 3, protocol="tcp", key=""),
            )
        ]
        if not any(taken(listen) for listen in listens):
            return base
    raise AssertionError("no free ports")


@pytest.fixture(scope="session")
def made_cluster(tmp_path_factory: pytest.TempPathFactory) -> Cluster:
    """A cluster that was made once and never started; tests must not change it."""
    return create_cluster(
        tmp_path_factory.mktemp("clusters") / "demo",
        name="demo",
        nodes=4,
        base_port=free_base_port(4),
        passphrase=PASSPHRASE,
    )


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Keep every test away from the operator's own files and environment."""
    for name in ("HOME", "CLUSTERS", "WALLETS", "NODE"):
        monkeypatch.delenv(f"HYPERMESH_{name}", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "xdg"))
    yield
    structlog.reset_defaults()
