"""Agreement without client signatures, disk and ledger: four of `bench.raw_node` and a generator.

What is left is what the agreement itself costs: transport, hashing, votes. The votes are signed
with Falcon-512 like everywhere. UNSAFE, and labelled so in the conditions.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.load import FRAME, Load, Plan
from bench.network import free_base_port
from bench.raw_node import CHAIN_ID, CHAIN_NAME
from bench.report import Result, progress, rounded
from consensus.core.quorum import weak_quorum
from native.keys import SecretKey
from native.values import Algorithm
from node.runtime.load import Report, Target

NODES: Final = 4
PAYLOAD_BYTES: Final = 250
IN_FLIGHT: Final = (500, 1_000, 2_000, 4_000)
P50_MS_MAX: Final = 15.0
SECONDS: Final = 6.0
RATE_MAX: Final = 100_000
CALL_SIZE: Final = 125


def measure(name: str) -> Result:
    """The highest rate at a median of at most 15 ms."""
    reports: list[tuple[int, Report]] = []
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-raw-"))
    try:
        with _network(folder) as targets:
            for number, in_flight in enumerate(IN_FLIGHT):
                reports.append((in_flight, _load(folder / str(number), targets, in_flight)))
                progress(f"  {in_flight} in flight: {reports[-1][1].tx_per_s:g}/s")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    quick = [entry for entry in reports if entry[1].p50_ms <= P50_MS_MAX] or reports[:1]
    in_flight, best = max(quick, key=lambda entry: entry[1].tx_per_s)
    others = ", ".join(
        f"{report.tx_per_s:g}/s at p50 {report.p50_ms:g} ms with {count} in flight"
        for count, report in reports
    )
    return Result(
        name=name,
        value=rounded(best.tx_per_s),
        unit="op/s",
        conditions=f"UNSAFE, benchmark only: {PAYLOAD_BYTES} B payloads without client signature, "
        f"no disk, null application; n={NODES}, votes signed with Falcon-512; {in_flight} in "
        f"flight, p50 {best.p50_ms:g} ms, p99 {best.p99_ms:g} ms, counted at "
        f"{weak_quorum(NODES)} nodes that answered alike; best with p50 <= {P50_MS_MAX:g} ms of "
        f"{others}",
    )


@contextlib.contextmanager
def _network(folder: Path) -> Iterator[tuple[Target, ...]]:
    """Four raw validators for the length of a `with`."""
    base = free_base_port(NODES)
    keys = [SecretKey.generate(Algorithm.FALCON_512) for _ in range(NODES)]
    files = [folder / f"{index}.key" for index in range(NODES)]
    for key, file in zip(keys, files, strict=True):
        key.save(file)
    ports = [base + 10 * index + 2 for index in range(NODES)]
    plan = folder / "raw.json"
    plan.write_text(json.dumps({"keys": [str(file) for file in files], "ports": ports}))
    nodes = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.raw_node", str(plan), str(index)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )
        for index in range(NODES)
    ]
    try:
        for node in nodes:
            assert node.stdout
            if node.stdout.readline().strip() != "ready":
                raise RuntimeError(f"a raw validator ended with {node.wait()}")
        yield tuple(
            Target(node_id=key.node_id.hex(), address=f"[::1]:{port}")
            for key, port in zip(keys, ports, strict=True)
        )
    finally:
        for node in nodes:
            node.kill()
            node.wait()


def _load(folder: Path, targets: tuple[Target, ...], in_flight: int) -> Report:
    folder.mkdir()
    slots = in_flight // CALL_SIZE
    plan = Plan(
        folder=str(folder),
        chain_id=CHAIN_ID.hex(),
        chain_name=CHAIN_NAME,
        strands=slots,
        mode="saturate",
        seconds=SECONDS,
        warm_up_s=SECONDS / 4,
        in_flight=in_flight,
        call_size=CALL_SIZE,
        answers=weak_quorum(len(targets)),
        targets=targets,
    )
    with plan.payloads_file.open("wb") as file:
        head = FRAME.pack(PAYLOAD_BYTES)
        rest = bytes(PAYLOAD_BYTES - 12)
        for index in range(int(RATE_MAX * SECONDS)):
            file.write(head + struct.pack(">IQ", in_flight, index) + rest)
    with Load(plan) as load:
        load.go()
        return load.report()
