"""Both QUIC engines in one network: the wire is one, whoever implements it."""

from __future__ import annotations

from collections.abc import Callable

from bench.network import Network, until


def test_a_node_on_the_reference_engine_is_a_node_like_any_other(
    start: Callable[..., Network],
) -> None:
    network = start(nodes=4, run=False)
    other = network.members[1]
    text = other.home.config.read_text()
    assert text.count("[transport]\n") == 1
    other.home.config.write_text(text.replace("[transport]\n", '[transport]\nengine = "aioquic"\n'))
    network.up()

    def all_connected() -> bool:
        statuses = [member.status() for member in network.members]
        return all(
            status is not None and all(peer["connected"] for peer in status["peers"])
            for status in statuses
        )

    until(all_connected, "all nodes connected", timeout_s=15)
    status = other.status()
    assert status is not None
    assert {peer["key_exchange"] for peer in status["peers"]} == {"X25519MLKEM768"}
    page = other.get("/metrics").text
    assert 'hypermesh_transport_engine_info{engine="aioquic"} 1' in page
    network.wait_height(network.height() + 1, timeout_s=30)
