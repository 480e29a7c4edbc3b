"""Turn what `make bench` printed into docs/benchmarks.md: `python scripts/benchmarks.py FILE`.

Figures are copied, never typed. A goal that was missed is shown like one that was met. With
`--part`, figures that FILE does not have stay as the page has them, and so does the machine.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

sys.path.insert(0, str(Path(__file__).parents[1]))

from bench.run import SUITES

PAGE: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"
PROSE: Final = "\n## STOQ"  # written by hand, from here to the end of the page
AT_LEAST: Final = {
    "tx_per_s_saturated": 3_000,
    "bft_n4_signed_tx_per_s": 20_000,
    "bft_n4_raw_op_per_s": 120_000,
    "bft_n7_signed_tx_per_s": 10_000,
    "bft_n21_signed_tx_per_s": 3_000,
    "stoq_1452_mb_per_s": 500,
    "stoq_1452_over_aioquic": 35,
    "stoq_1452_over_rust_loop": 0.75,
    "stoq_8900_mb_per_s": 1_000,
    "stoq_8900_over_rust_loop": 0.6,
    "stoq_32000_mb_per_s": 1_200,
    "stoq_accepts_per_s": 400,
    "aioquic_engine_mb_per_s": 60,
}
AT_MOST: Final = {
    "stoq_8900_spread_percent": 25,
    "stoq_handshake_first_p50_ms": 4,
    "stoq_handshake_later_p50_ms": 1,
    "stoq_rpc_p50_us": 150,
    "stoq_idle_connection_kb": 40,
    "bft_n4_idle_p50_ms": 3.5,
    "bft_n4_4000_p50_ms": 7,
    "bft_n4_4000_p99_ms": 40,
    "bft_n4_cpu_ms_per_op": 0.11,
    "bft_n4_rss_mb": 100,
    "bft_n21_rss_mb": 100,
    "cluster_up_s": 5,
    "rss_mb_per_node": 150,
    "restart_s": 10,
    "falcon512_sign_p50_us": 400,
    "falcon512_verify_p50_us": 20,
    "certificate_issue_p50_ms": 100,
    "primary_kill_gap_ms": 300,
    "conservation_error": 0,
}
FLOORS: Final = {  # what a release needs; the goal is what it aims at
    "bft_n4_signed_tx_per_s": 10_000,
    "bft_n4_raw_op_per_s": 40_000,
    "bft_n7_signed_tx_per_s": 5_000,
    "bft_n21_signed_tx_per_s": 1_200,
    "bft_n4_idle_p50_ms": 6,
    "bft_n4_4000_p50_ms": 15,
    "bft_n4_4000_p99_ms": 100,
    "bft_n4_cpu_ms_per_op": 0.18,
    "bft_n4_rss_mb": 130,
    "bft_n21_rss_mb": 130,
}
AT_MOST_AT_100: Final = {"tx_latency_p50_ms": 15, "tx_latency_p99_ms": 120}
LEAD: Final = """# Benchmarks

Printed by `make bench` and copied here by `scripts/benchmarks.py`; each figure stands with its
conditions. Everything, the load generator included, runs on the one machine below.

- Arrivals are open-loop with intended-send times: a stall is charged to all who waited.
- An operation counts when its client has the outcome of the executed block.
- Client signatures and durability are stated.
- A run during which the machine itself stood still is measured again.
- Figures that miss their goal are shown too; [the profile](profile.md) says where their time goes.
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, nargs="+", help="what `make bench` printed")
    parser.add_argument("--part", action="store_true", help="keep the figures that FILE lacks")
    options = parser.parse_args()
    documents = [json.loads(path.read_text()) for path in options.file]
    results = [result for document in documents for result in document["results"]]
    page = PAGE.read_text()
    machine = _machine(documents[0]["machine"])
    rows = _rows(results)
    if options.part:
        machine = page.split("## Machine\n\n")[1].split("\n\n")[0]
        rows = _merged(rows, page)
    figures = "\n".join(["| figure | value | goal | conditions |", "|---|---:|---|---|", *rows])
    _, separator, prose = page.partition(PROSE)
    PAGE.write_text(
        f"{LEAD}\n## Machine\n\n{machine}\n\n## Figures\n\n{figures}\n{separator}{prose}"
    )
    print(f"wrote {PAGE.name}: {len(results)} figures")
    return 0


def _merged(rows: Sequence[str], page: str) -> list[str]:
    """The new rows, and those of the page whose figure still exists and is not among them."""
    order = [name for suite in SUITES for name in suite.names]
    told = {_figure(row) for row in rows}
    kept = [
        row
        for row in page.splitlines()
        if row.startswith("| `") and _figure(row) in order and _figure(row) not in told
    ]
    return sorted([*rows, *kept], key=lambda row: order.index(_figure(row)))


def _figure(row: str) -> str:
    return row.split("`")[1]


def _machine(facts: Mapping[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _rows(results: Sequence[Mapping[str, Any]]) -> list[str]:
    lines = []
    for result in results:
        value = f"{result['value']:g}" if result["value"] < 10_000 else f"{result['value']:,.0f}"
        lines.append(
            f"| `{result['name']}` | {value} {result['unit']} | {_goal(result)} "
            f"| {result['conditions']} |"
        )
    return lines


def _goal(result: Mapping[str, Any]) -> str:
    name, value = result["name"], result["value"]
    if name in AT_LEAST:
        floor = name in FLOORS and value >= FLOORS[name]
        return _verdict(f"≥ {AT_LEAST[name]:,}", value >= AT_LEAST[name], name, floor)
    most = AT_MOST.get(name)
    if name in AT_MOST_AT_100 and result["conditions"].startswith("at 100/s"):
        most = AT_MOST_AT_100[name]
    floor = name in FLOORS and value <= FLOORS[name]
    return "" if most is None else _verdict(f"≤ {most:,}", value <= most, name, floor)


def _verdict(goal: str, held: bool, name: str, floor_held: bool) -> str:
    if held:
        return f"{goal}, met"
    if name in FLOORS:
        return f"{goal}, missed; floor {FLOORS[name]:,} {'met' if floor_held else '**missed**'}"
    return f"{goal}, **missed**"


if __name__ == "__main__":
    sys.exit(main())
