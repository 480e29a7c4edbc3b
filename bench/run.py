"""Run the benchmark: progress on stderr, one JSON document on stdout.

python bench/run.py                       every figure
python bench/run.py --only stoq,tx_per    figures by name, prefix or group
python bench/run.py --list                names by group
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path

if __package__ in {None, ""}:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import agreement, bft, certificates, falcon, snapshots, stoq
from bench.report import Result, Suite, machine, progress

SUITES: tuple[Suite, ...] = (
    falcon.SUITE,
    stoq.SUITE,
    bft.SUITE,
    agreement.SUITE,
    certificates.SUITE,
    snapshots.SUITE,
)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _parse(arguments)
    if options.list:
        for suite in SUITES:
            print(f"{suite.group}: {' '.join(suite.names)}")
        return 0
    facts = machine()
    results: list[Result] = []
    failed: list[str] = []
    for suite in SUITES:
        wanted = suite.wanted(options.only)
        if not wanted:
            continue
        started = time.monotonic()
        progress(f"{suite.group}: {', '.join(sorted(wanted))}")
        try:
            for result in suite.run(wanted):
                if result.name in wanted:
                    results.append(result)
                    progress(
                        f"  {result.name} = {result.value} {result.unit}  ({result.conditions})"
                    )
        except Exception:  # a suite that fails must not cost the figures of the others
            traceback.print_exc()
            failed.append(suite.group)
        progress(f"{suite.group}: {time.monotonic() - started:.1f} s")
    document = {"machine": facts, "results": [dataclasses.asdict(result) for result in results]}
    print(json.dumps(document, indent=2))
    for group in failed:
        progress(f"{group} FAILED, see above; its figures are missing")
    return 1 if failed else 0


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="bench/run.py", description="HyperMesh benchmark")
    parser.add_argument(
        "--only",
        type=lambda text: [token.strip() for token in text.split(",") if token.strip()],
        default=[],
        metavar="NAME,...",
        help="names, prefixes or groups",
    )
    parser.add_argument("--list", action="store_true", help="list the names and stop")
    options = parser.parse_args(arguments)
    unknown = [
        token for token in options.only if not any(suite.wanted([token]) for suite in SUITES)
    ]
    if unknown:
        parser.error(f"no figure is called or starts with {', '.join(unknown)}; see --list")
    return options


if __name__ == "__main__":
    sys.exit(main())
