"""Real processes for ring 3: networks with ports of their own, load, and what to print on failure.

One network of four is made for all tests, every link of it through a proxy; each test leaves it
whole. Waits are for conditions, with a deadline; ports are checked free first and a taken one names
its holder.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from typing import Any

import pytest

from bench.load import Load, Purse
from bench.network import Member, Network
from chaos.mesh import Mesh

StartNetwork = Callable[..., Network]
StartLoad = Callable[..., Load]


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartNetwork]:
    """Make networks that end with the file: `start(nodes=4)`, or `start(nodes=4, run=False)`."""
    made: list[Network] = []

    def make(*, nodes: int, run: bool = True) -> Network:
        folder = tmp_path_factory.mktemp(f"cluster{nodes}-")
        created = Network.create(folder, nodes=nodes, name=f"t{len(made)}")
        made.append(created)
        _shown.append(created)
        if run:
            created.up()
        return created

    yield make
    for created in made:
        created.destroy()
        _shown.remove(created)


@pytest.fixture(scope="session")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mesh]:
    """Four validators, running."""
    made = Mesh.create(tmp_path_factory.mktemp("mesh"), nodes=4, seed=1)
    _shown.append(made.network)
    try:
        made.up()
        yield made
    finally:
        made.close()
        _shown.remove(made.network)


@pytest.fixture(scope="session")
def purse(mesh: Mesh) -> Purse:
    """Funded accounts of the four validators' ledger."""
    return Purse.fill(mesh.network, accounts=32)


@pytest.fixture
def whole(mesh: Mesh) -> Network:
    """The four validators, all of them up and ready, whatever the test before did."""
    mesh.heal()
    mesh.network.wait_ready(timeout_s=60)
    return mesh.network


@pytest.fixture
def load(whole: Network, purse: Purse) -> Iterator[StartLoad]:
    """Start generators that end with the test: `load(rate=200, seconds=5, targets=...)`."""
    running: list[Load] = []

    def begin(*, targets: list[Member] | None = None, **options: Any) -> Load:
        plan = purse.plan(targets=targets or whole.members, **options)
        generator = Load(plan)
        running.append(generator)
        generator.go()
        return generator

    yield begin
    for generator in running:
        generator.close()


_shown: list[Network] = []


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport() -> Generator[None, Any, None]:
    """Add each node's state and the end of its log to a failure."""
    outcome = yield
    report = outcome.get_result()
    if report.failed and _shown:
        report.sections.append(("nodes", "\n".join(created.describe() for created in _shown)))
