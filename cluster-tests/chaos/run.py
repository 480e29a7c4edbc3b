"""Plays manifests against real clusters: one in a test, or drawn ones for as long as you like.

    python -m chaos.run --seconds 1800 --seed 7
    python -m chaos.run --manifest failed/manifest.json

A run is: prepare, load, hurt, heal, settle, compare everything. What failed is kept in a folder
with its manifest and the logs of the nodes, and the next run gets a fresh cluster. The last line
sums up.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from bench.load import Load, Plan, Purse
from bench.network import Member
from caesar.core.addresses import address_text
from chaos import checks
from chaos.client import Acknowledged, Read, read_history
from chaos.manifest import Manifest, draw
from chaos.mesh import START_TIMEOUT_S, Mesh, wait_until
from chaos.perturbations import (
    CLEAN_EXIT,
    ENDS_BY_ITSELF,
    FORGETS,
    Hand,
    Kind,
    Perturbation,
    moments,
)
from chaos.shim import compiler
from node.limits import CLOCK_APART_MS_MAX
from node.runtime.load import Report

ACCOUNTS: Final = 32
LANES: Final = 8
RUNS_PER_CLUSTER_MAX: Final = 24  # lanes of the purse, and a look at a fresh start now and then
ANSWER_TIMEOUT_S: Final = 300.0
RATES: Final = {4: 150.0, 7: 60.0, 21: 10.0}  # of two cores that also carry the proxies
SHARES: Final = {4: 0.5, 7: 0.35, 21: 0.15}  # of the time
SEEDS_PER_SIZE: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What came out of a run whose checks all held."""

    manifest: Manifest
    report: Report
    acknowledged: tuple[Acknowledged, ...]
    reads: tuple[Read, ...]
    exits: tuple[tuple[Kind, int, int], ...]
    height: int
    began: float  # CLOCK_MONOTONIC of the start of the load
    settled_s: float  # from the last healing until all nodes were whole

    def longest_silence_s(self) -> float:
        """The longest time without any answer."""
        times = sorted({one.answered for one in self.acknowledged})
        return max((b - a for a, b in itertools.pairwise(times)), default=0.0)


def play(mesh: Mesh, purse: Purse, manifest: Manifest) -> Played:
    """Play one manifest and check everything. Raises `Violation` or `WaitExpired`."""
    assert mesh.size == manifest.nodes, "the manifest is for a cluster of another size"
    hand = Hand(mesh)
    hand.prepare(manifest.perturbations)
    above, before = mesh.network.height(), purse.received()
    plan = purse.plan(
        targets=mesh.members, rate=manifest.rate, seconds=manifest.seconds, lanes=LANES
    )
    with recording(plan, purse, mesh.members) as load:
        load.go()
        began = time.monotonic()
        for moment in moments(manifest.perturbations):
            wait_until(began + moment.at_s)
            (hand.begin if moment.begins else hand.end)(moment.perturbation)
        hand.finish()
        mesh.heal()
        healed = time.monotonic()
        report = purse.book(load.report(timeout_s=ANSWER_TIMEOUT_S))
    through = checks.settle(mesh)
    settled_s = time.monotonic() - healed
    acknowledged, reads = read_history(plan)
    ids = checks.identifiers(plan)
    logs = [checks.read_log(member, above=above, through=through) for member in mesh.members]
    checks.same_logs(logs, above=above, through=through)
    whole = checks.fullest(logs)
    checks.nothing_lost(acknowledged, ids, logs)
    checks.real_time_order(acknowledged, ids, whole)
    checks.lanes_in_order(plan, ids, whole)
    checks.reads_exact(reads, ids, whole, before=before, above=above)
    forgot = {at for one in manifest.perturbations if one.kind in FORGETS for at in one.nodes}
    checks.reads_monotone(reads, forgot=forgot)
    checks.promises_named(reads)
    checks.reads_of_a_session(reads, acknowledged, ids, whole)
    wrong_clocks = {at for one in manifest.perturbations if _is_off(one) for at in one.nodes}
    checks.reads_linearizable(
        reads, acknowledged, ids, whole, before=before, wrong_clocks=wrong_clocks
    )
    if report.outcomes != {"0": report.sent}:
        raise checks.Violation(f"L1: not every payload was applied: {report.outcomes}")
    if purse.received() - before != report.applied:
        raise checks.Violation("S11: applied transfers and the sink's balance differ")
    for kind, at, code in hand.exits:
        if (code == CLEAN_EXIT) == (kind in ENDS_BY_ITSELF):
            raise checks.Violation(f"node {at} ended with {code} after {kind}")
    return Played(
        manifest=manifest,
        report=report,
        acknowledged=tuple(acknowledged),
        reads=tuple(reads),
        exits=tuple(hand.exits),
        height=through,
        began=began,
        settled_s=settled_s,
    )


def _is_off(one: Perturbation) -> bool:
    """Whether a node's clock is further from the others than linearizable reads bear."""
    return one.kind is Kind.CLOCK and abs(one.amount) * 1000 > CLOCK_APART_MS_MAX


def recording(plan: Plan, purse: Purse, readers: Sequence[Member]) -> Load:
    """The client of a plan; it reads the sink's account through these nodes meanwhile."""
    paths = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    return Load(
        plan,
        module="chaos.client",
        arguments=[address_text(purse.sink), *(member.url for member in readers)],
        environment={"PYTHONPATH": os.pathsep.join(path for path in paths if path)},
    )


@dataclass(slots=True, kw_only=True)
class Score:
    """What the campaign has done so far."""

    passed: int = 0
    failed: int = 0
    acknowledged: int = 0
    kinds: Counter[Kind] = field(default_factory=Counter)
    sizes: Counter[int] = field(default_factory=Counter)
    settled_s: list[float] = field(default_factory=list)

    def add(self, played: Played) -> None:
        """Count a run that held."""
        self.passed += 1
        self.acknowledged += len(played.acknowledged)
        self.kinds.update(one.kind for one in played.manifest.perturbations)
        self.sizes[played.manifest.nodes] += 1
        self.settled_s.append(played.settled_s)

    def line(self, seconds: float, seed: int) -> str:
        """The last line of a campaign."""
        sizes = ", ".join(f"{count} on {nodes}" for nodes, count in sorted(self.sizes.items()))
        worst = max(self.settled_s, default=0.0)
        return (
            f"chaos: seed {seed}, {seconds:.0f} s, {self.passed + self.failed} runs "
            f"({sizes or 'none'} nodes whole), {sum(self.kinds.values())} perturbations of "
            f"{len(self.kinds)} kinds, {self.acknowledged} acknowledged payloads compared, whole "
            f"again after at most {worst:.1f} s: {self.passed} passed, {self.failed} failed"
        )


def campaign(
    sizes: Sequence[int], *, seconds: float, seed: int, kept: Path, runs: int | None = None
) -> int:
    """Draw and play until the time of each size is over; return how many runs failed."""
    score = Score()
    started = time.monotonic()
    total = sum(SHARES[nodes] for nodes in sizes)
    for nodes in sizes:
        deadline = time.monotonic() + seconds * SHARES[nodes] / total
        manifests = (
            draw(
                seed * SEEDS_PER_SIZE + number,
                nodes=nodes,
                rate=RATES[nodes],
                shim=compiler() is not None,
            )
            for number in range(runs or SEEDS_PER_SIZE)
        )
        while time.monotonic() < deadline and _one_cluster(manifests, nodes, deadline, score, kept):
            pass
    if score.passed + score.failed == 0:
        print("chaos: no run was played", flush=True)
        return 1
    print(score.line(time.monotonic() - started, seed), flush=True)
    return score.failed


def _one_cluster(
    manifests: Iterator[Manifest], nodes: int, deadline: float, score: Score, kept: Path
) -> bool:
    """Play on one fresh cluster until something fails; False when no manifest is left."""
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-chaos-"))
    mesh = Mesh.create(folder, nodes=nodes, seed=nodes)
    try:
        try:
            mesh.up()
            purse = Purse.fill(mesh.network, accounts=ACCOUNTS)
        except Exception:
            score.failed += 1
            mesh.keep_logs(kept / f"{nodes}-start")
            print(f"{traceback.format_exc()}\n  FAILED to start, kept in {kept}/{nodes}-start")
            return False
        for _ in range(RUNS_PER_CLUSTER_MAX):
            if time.monotonic() >= deadline:
                return True
            manifest = next(manifests, None)
            if manifest is None:
                return False
            if not _one_run(mesh, purse, manifest, score, kept):
                return True
        return True
    finally:
        mesh.close()
        shutil.rmtree(folder, ignore_errors=True)


def _one_run(mesh: Mesh, purse: Purse, manifest: Manifest, score: Score, kept: Path) -> bool:
    print(
        f"n={manifest.nodes} seed {manifest.seed}: "
        + "; ".join(str(one) for one in manifest.perturbations),
        flush=True,
    )
    try:
        played = play(mesh, purse, manifest)
    except Exception:
        score.failed += 1
        place = kept / f"{manifest.nodes}-{manifest.seed}"
        mesh.keep_logs(place)
        (place / "manifest.json").write_text(manifest.to_json())
        (place / "failure.txt").write_text(traceback.format_exc())
        print(f"{traceback.format_exc()}\n  FAILED, kept in {place}: {manifest.to_json()}")
        sys.stdout.flush()
        return False
    score.add(played)
    print(
        f"  held: {len(played.acknowledged)} acknowledged, height {played.height}, longest "
        f"silence {played.longest_silence_s():.2f} s, whole after {played.settled_s:.1f} s",
        flush=True,
    )
    return True


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m chaos.run", description="hurt real clusters")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--seed", type=int, default=int(time.time()) % 1_000_000)
    parser.add_argument("--nodes", default="4,7,21", help="sizes, with commas between")
    parser.add_argument("--runs", type=int, help="at most so many of each size")
    parser.add_argument("--manifest", type=Path, help="play this one, on a fresh cluster")
    parser.add_argument("--kept", type=Path, default=Path("chaos-failures"))
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # no node is left behind
    if arguments.manifest:
        manifest = Manifest.from_json(arguments.manifest.read_text())
        score = Score()
        _one_cluster(
            iter([manifest]),
            manifest.nodes,
            time.monotonic() + START_TIMEOUT_S,
            score,
            arguments.kept,
        )
        return score.failed
    sizes = [int(nodes) for nodes in arguments.nodes.split(",")]
    print(f"chaos: seed {arguments.seed}, {arguments.seconds:g} s, nodes {sizes}", flush=True)
    failed = campaign(
        sizes,
        seconds=arguments.seconds,
        seed=arguments.seed,
        kept=arguments.kept,
        runs=arguments.runs,
    )
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
