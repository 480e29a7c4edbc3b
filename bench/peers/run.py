"""Measure CometBFT and relab/hotstuff beside us: A B C A B C in one run, on this machine.

python bench/peers/run.py [--rounds 3]     JSON on stdout, progress on stderr

Needs Go 1.25 or newer; the peers are built from their Go modules into a cache folder
($XDG_CACHE_HOME/hypermesh-peers) the first time. Their rows are easier than ours, which the
conditions say: CometBFT runs its in-memory key-value store with unsigned transactions, tuned for
one machine; relab/hotstuff runs all replicas in one process without a disk.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import json
import math
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

if __package__ in {None, ""}:
    sys.path.insert(0, str(Path(__file__).parents[2]))

from bench import agreement
from bench.network import usage_of
from bench.report import Result, machine, progress, rounded

SOURCES: Final = Path(__file__).parent
COMETBFT: Final = "github.com/cometbft/cometbft/cmd/cometbft@v0.40.0"
NODES: Final = 4
RPC_PORT: Final = 26657
TUNING: Final = ("-mode", "tuned", "-gossip", "10ms", "-flush", "5ms")
START_TIMEOUT_S: Final = 60.0
SECONDS: Final = 15
WARM_UP_S: Final = 3
SATURATING_RATE: Final = 14_000
HOTSTUFF: Final = (
    "--replicas", "4", "--clients", "1", "--batch-size", "100", "--max-concurrent", "400",
    "--payload-size", "250", "--consensus", "chainedhotstuff", "--leader-rotation", "fixed",
    "--crypto", "ecdsa", "--metrics", "client-latency,throughput",
    "--measurement-interval", "1s", "--log-level", "error", "--duration", f"{SECONDS}s",
)  # fmt: skip
OURS: Final = frozenset(
    {
        "bft_n4_idle_p50_ms",
        "bft_n4_4000_p50_ms",
        "bft_n4_4000_p99_ms",
        "bft_n4_signed_tx_per_s",
        "bft_n4_cpu_ms_per_op",
    }
)
BETWEEN_ROWS: Final = re.compile(r"[,\s]*")
UNITS: Final = {"ms": "ms", "s": "tx/s", "op": "ms", "mb": "MB"}

Round = dict[str, float]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="bench/peers/run.py", description="peers beside us")
    parser.add_argument("--rounds", type=int, default=3, help="of each system, interleaved")
    options = parser.parse_args(arguments)
    binaries = build()
    systems: tuple[Callable[[Path], Round], ...] = (cometbft, hotstuff, ours)
    found: dict[str, list[float]] = {}
    for number in range(options.rounds):
        for system in systems:
            progress(f"round {number + 1} of {options.rounds}: {system.__name__}")
            for name, value in system(binaries).items():
                progress(f"  {name} = {value:g}")
                found.setdefault(name, []).append(value)
    results = [
        Result(
            name=name,
            value=rounded(statistics.median(values)),
            unit=UNITS[name.rpartition("_")[2]],
            conditions=f"median of {len(values)} interleaved rounds, min {min(values):g}, max "
            f"{max(values):g}; {_conditions(name)}",
        )
        for name, values in found.items()
    ]
    document = {"machine": machine(), "results": [dataclasses.asdict(row) for row in results]}
    print(json.dumps(document, indent=2))
    return 0


def _conditions(name: str) -> str:
    if name.startswith("cometbft"):
        return (
            "CometBFT v0.40.0, n=4, ed25519 validators, in-memory kvstore, unsigned transactions "
            f"of 250 B to one node, tuned ({' '.join(TUNING[2:])}, no commit time-out, no recheck)"
        )
    if name.startswith("hotstuff"):
        return "relab/hotstuff v0.5.0, n=4 in one process, no disk, unsigned payloads of 250 B"
    return "ours: n=4, client-signed Falcon-512, fsync before vote, counted at 2 nodes alike"


# --- building


def build() -> Path:
    """Build what is missing; returns the folder of the binaries."""
    if shutil.which("go") is None:
        raise SystemExit("make bench-peers needs Go 1.25 or newer on the PATH")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hypermesh-peers"
    binaries = cache / "bin"
    binaries.mkdir(parents=True, exist_ok=True)
    if not (binaries / "cometbft").exists():
        _go(cache, {"GOBIN": str(binaries)}, "install", COMETBFT)
    for name, package in (
        ("cometbft", "."),
        ("hotstuff", "github.com/relab/hotstuff/cmd/hotstuff"),
    ):
        binary = binaries / (f"{name}-load" if package == "." else name)
        if binary.exists():
            continue
        copy = cache / f"{name}-source"  # `go mod tidy` writes, and not into the repository
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(SOURCES / name, copy)
        _go(copy, {}, "mod", "tidy")
        _go(copy, {}, "build", "-o", str(binary), package)
    return binaries


def _go(folder: Path, environment: dict[str, str], *words: str) -> None:
    progress(f"  go {' '.join(words)}")
    subprocess.run(
        ["go", *words], cwd=folder, env={**os.environ, **environment}, check=True, stdout=sys.stderr
    )


# --- CometBFT


def cometbft(binaries: Path) -> Round:
    """Idle, at 4,000/s, and saturated; a fresh network each."""
    with _cometbft_network(binaries):
        idle = _json(binaries, "seq", "-n", "100", "-gap", "100ms", "-T", f"{SECONDS}s")
    steady = _cometbft_load(binaries, 4_000, "-c", "2")
    saturated = _cometbft_load(binaries, SATURATING_RATE, "-c", "2", "-batch", "100")
    return {
        "cometbft_n4_idle_p50_ms": float(idle["p50"]),
        "cometbft_n4_4000_p50_ms": float(steady["p50"]),
        "cometbft_n4_tx_per_s": float(saturated["committed_tps"]),
        "cometbft_n4_cpu_ms_per_op": saturated["cpu_s"] * 1e3 / saturated["applied"],
        "cometbft_n4_rss_mb": saturated["rss_mb"],
    }


def _cometbft_load(binaries: Path, rate: int, *options: str) -> dict[str, Any]:
    """What `analyze` says, with `applied`, and `cpu_s` and `rss_mb` of the nodes (sum, largest)."""
    with _cometbft_network(binaries) as (folder, pids):
        events = folder / "events.csv"
        before_s = sum(usage_of(pid).cpu_s for pid in pids)
        sent = _json(
            binaries, "load", "-r", str(rate), "-T", f"{SECONDS}s", "-o", str(events), *options
        )
        used = [usage_of(pid) for pid in pids]
        data = folder / "node0" / "data"
    # The database can be read once the nodes have ended; its folder is kept until then.
    start = int(sent["start_ns"])
    try:
        found = _json(
            binaries, "analyze", "-data", str(data), "-events", str(events), "-warm",
            str(WARM_UP_S), "-start", str(start), "-end", str(start + SECONDS * 10**9),
        )  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return found | {
        "applied": float(found["committed_total"]),
        "cpu_s": sum(usage.cpu_s for usage in used) - before_s,
        "rss_mb": max(usage.rss_mb for usage in used),
    }


@contextlib.contextmanager
def _cometbft_network(binaries: Path) -> Iterator[tuple[Path, list[int]]]:
    """Four nodes for the length of a `with`, their folder, which stays, and their pids."""
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-peers-"))
    subprocess.run(
        [binaries / "cometbft-load", "gennet", "-n", str(NODES), "-o", folder, *TUNING], check=True
    )
    nodes = []
    for index in range(NODES):
        with (folder / f"node{index}.log").open("wb") as log:
            command = [str(binaries / "cometbft"), "start", "--home", str(folder / f"node{index}")]
            nodes.append(subprocess.Popen(command, stdout=log, stderr=log))
    try:
        _wait_until_connected()
        yield folder, [node.pid for node in nodes]
    finally:
        for node in nodes:
            node.send_signal(signal.SIGTERM)
        for node in nodes:
            try:
                node.wait(10)
            except subprocess.TimeoutExpired:
                node.kill()
                node.wait()


def _wait_until_connected() -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, ValueError, KeyError):
            if all(
                int(_rpc(index, "net_info")["n_peers"]) == NODES - 1 for index in range(NODES)
            ) and int(_rpc(0, "status")["sync_info"]["latest_block_height"]):
                return
        time.sleep(0.2)
    raise RuntimeError(f"the CometBFT network did not start within {START_TIMEOUT_S:g} s")


def _rpc(index: int, path: str) -> dict[str, Any]:
    url = f"http://127.0.0.{index + 2}:{RPC_PORT}/{path}"
    with urllib.request.urlopen(url, timeout=2) as answer:
        result: dict[str, Any] = json.load(answer)["result"]
    return result


def _json(binaries: Path, *words: str) -> dict[str, Any]:
    completed = subprocess.run(
        [binaries / "cometbft-load", *words], check=True, stdout=subprocess.PIPE, text=True
    )
    document: dict[str, Any] = json.loads(completed.stdout.splitlines()[-1])
    return document


# --- relab/hotstuff


def hotstuff(binaries: Path) -> Round:
    """Saturated with 400 commands in flight; it has no open loop."""
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-peers-"))
    try:
        subprocess.run(
            [binaries / "hotstuff", "run", *HOTSTUFF, "--output", folder / "out"],
            check=True,
            stdout=subprocess.DEVNULL,
        )
        [file] = (folder / "out").rglob("measurements.json")
        rows = [
            (int(row.get("Count", 0)), float(row["Latency"]))
            for row in _whole_rows(file.read_text())
            if row["@type"].endswith("LatencyMeasurement")
        ][2:-1]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    count = sum(row[0] for row in rows)
    if not count:
        raise RuntimeError("relab/hotstuff reported no command")
    mean = math.fsum(row[0] * row[1] for row in rows) / count
    return {"hotstuff_n4_op_per_s": count / len(rows), "hotstuff_n4_mean_ms": mean}


def _whole_rows(text: str) -> Iterator[dict[str, Any]]:
    """The rows of a JSON array whose end may be missing: it ends now and then without flushing."""
    at = text.index("[") + 1
    while (between := BETWEEN_ROWS.match(text, at)) and between.end() < len(text):
        try:
            row, at = json.JSONDecoder().raw_decode(text, between.end())
        except json.JSONDecodeError:
            return
        yield row


# --- ours


def ours(_binaries: Path) -> Round:
    """The same figures that `make bench` prints."""
    return {row.name: float(row.value) for row in agreement.run(OURS) if row.name in OURS}


if __name__ == "__main__":
    sys.exit(main())
