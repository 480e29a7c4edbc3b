"""`hypermesh load run` against real nodes."""

from __future__ import annotations

from pathlib import Path

from bench.load import Purse
from bench.network import Network
from caesar.core.addresses import address_text


def test_a_load_is_sent_to_every_node_and_reported(
    whole: Network, purse: Purse, tmp_path: Path
) -> None:
    sink = address_text(purse.sink)
    before = purse.received()
    histogram, report = tmp_path / "latency.csv", tmp_path / "load.json"
    found = whole.answer(
        "load", "run", "--cluster", whole.name, "--from", "treasury", "--to", sink,
        "--ramp", "20:60", "--for", "3s", "--lanes", "16", "--histogram", str(histogram),
        "--report", str(report), *whole.passphrase,
    )  # fmt: skip
    assert found["applied"] == found["sent"] == 120
    assert found["outcomes"] == {"0": 120}
    assert len(found["targets"]) == len(whole.members)
    assert purse.received() - before == 120
    purse.units += 120
    assert [window["at_s"] for window in found["windows"]] == [0.0, 1.0, 2.0]
    title, *rows = histogram.read_text().splitlines()
    assert title == "le_ms,count"
    counted = sum(int(row.split(",")[1]) for row in rows)
    assert counted == sum(count for _, count in found["histogram"])
    assert 0 < counted < 120  # the first second warms up
    assert f'"applied": {120}' in report.read_text()
