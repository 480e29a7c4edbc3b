"""Turn what `make bench` printed into docs/benchmarks.md: `python scripts/benchmarks.py FILE`.

Figures are copied, never typed. A goal that was missed is shown like one that was met.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

PAGE: Final = Path(__file__).parents[1] / "docs" / "benchmarks.md"
AT_LEAST: Final = {
    "tx_per_s_saturated": 3_000,
    "stoq_mb_per_s": 400,
    "stoq_over_aioquic": 20,
}
AT_MOST: Final = {
    "cluster_up_s": 5,
    "rss_mb_per_node": 150,
    "restart_s": 10,
    "falcon512_sign_p50_us": 400,
    "falcon512_verify_p50_us": 20,
    "certificate_issue_p50_ms": 100,
    "primary_kill_gap_ms": 1_500,
    "conservation_error": 0,
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
    documents = [json.loads(path.read_text()) for path in parser.parse_args().file]
    results = [result for document in documents for result in document["results"]]
    machine = _machine(documents[0]["machine"])
    PAGE.write_text(f"{LEAD}\n## Machine\n\n{machine}\n\n## Figures\n\n{_figures(results)}\n")
    print(f"wrote {PAGE.name}: {len(results)} figures")
    return 0


def _machine(facts: Mapping[str, Any]) -> str:
    rows = [f"| {name.replace('_', ' ')} | {value} |" for name, value in facts.items()]
    return "\n".join(["| | |", "|---|---|", *rows])


def _figures(results: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| figure | value | goal | conditions |", "|---|---:|---|---|"]
    for result in results:
        value = f"{result['value']:g}" if result["value"] < 10_000 else f"{result['value']:,.0f}"
        lines.append(
            f"| `{result['name']}` | {value} {result['unit']} | {_goal(result)} "
            f"| {result['conditions']} |"
        )
    return "\n".join(lines)


def _goal(result: Mapping[str, Any]) -> str:
    name, value = result["name"], result["value"]
    if name in AT_LEAST:
        return _verdict(f"≥ {AT_LEAST[name]:,}", value >= AT_LEAST[name])
    most = AT_MOST.get(name)
    if name in AT_MOST_AT_100 and result["conditions"].startswith("at 100/s"):
        most = AT_MOST_AT_100[name]
    return "" if most is None else _verdict(f"≤ {most:,}", value <= most)


def _verdict(goal: str, held: bool) -> str:
    return f"{goal}, {'met' if held else '**missed**'}"


if __name__ == "__main__":
    sys.exit(main())
