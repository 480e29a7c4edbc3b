"""What running nodes show of themselves."""

from __future__ import annotations

from collections import Counter

from bench.network import Network


def test_a_node_shows_the_handshakes_and_paths_of_its_transport_once(whole: Network) -> None:
    member = whole.members[0]
    assert member.metric("hypermesh_transport_connections") >= 1
    assert member.metric("hypermesh_transport_handshakes_ended_total") >= 1
    assert member.metric("hypermesh_transport_packets_sent_total") > 0
    assert member.metric("hypermesh_transport_engine_info") == 1
    assert member.metric("hypermesh_transport_rtt_seconds") > 0
    page = member.get("/metrics").text
    names = Counter(line.split()[2] for line in page.splitlines() if line.startswith("# TYPE "))
    assert [name for name, count in names.items() if count > 1] == []
