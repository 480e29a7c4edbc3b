"""Networks of one, three and seven validators commit."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from bench.load import Load, Purse
from bench.network import Network

StartNetwork = Callable[..., Network]


@pytest.mark.parametrize(("nodes", "count"), [(1, 20), (3, 20), (7, 20)])
def test_a_network_of_this_size_commits(start: StartNetwork, nodes: int, count: int) -> None:
    network = start(nodes=nodes, run=False)
    try:
        network.up(timeout_s=60)
        purse = Purse.fill(network, accounts=4)
        with Load(purse.plan(targets=network.members, rate=50, seconds=count / 50)) as load:
            load.go()
            report = purse.book(load.report())
        assert report.outcomes == {"0": report.sent}
        network.agreed_root(timeout_s=30)
        assert network.conservation_error() == 0
    finally:
        network.destroy()
