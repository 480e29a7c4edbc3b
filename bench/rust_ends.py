"""The yardsticks without Python: the same engine in a plain loop, and raw UDP."""

from __future__ import annotations

import functools
import json
import subprocess
from pathlib import Path
from typing import Any, Final

from bench.processes import ANSWER_TIMEOUT_S, Transfer, cores

TOP: Final = Path(__file__).parents[1]
PROGRAMS: Final = TOP / "target" / "release" / "examples"
UDP_SECONDS: Final = 0.5


@functools.cache
def build() -> None:
    """Compile both programs, with the profile that the extension is installed with."""
    arguments = ["cargo", "build", "--quiet", "--release", "--no-default-features"]
    for name in ("quic_loop", "udp_gso"):
        arguments += ["--example", name]
    arguments += ["--manifest-path", str(TOP / "native" / "Cargo.toml")]
    arguments += ["--target-dir", str(TOP / "target")]
    subprocess.run(arguments, check=True)


def loop(mtu: int, size: int) -> Transfer:
    """Upload `size` bytes over one stream of one connection."""
    build()
    arguments = [str(PROGRAMS / "quic_loop"), "server", "--mtu", str(mtu), "--core", _core(0)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        try:
            there = _line(server)
            client = [str(PROGRAMS / "quic_loop"), "client", "--mtu", str(mtu), "--core", _core(1)]
            client += ["--mebibytes", str(size >> 20)]
            client += ["--address", there["address"], "--node-id", there["node_id"]]
            answer = json.loads(_output(client))
        finally:
            server.kill()
    return Transfer(bytes_moved=answer["bytes"], seconds=answer["seconds"], cpu_s=answer["cpu_s"])


def udp(mtu: int) -> Transfer:
    """Send as fast as the kernel takes it, without QUIC."""
    build()
    arguments = [str(PROGRAMS / "udp_gso"), "receiver", "--core", _core(0)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as receiver:
        try:
            there = _line(receiver)
            sender = [str(PROGRAMS / "udp_gso"), "sender", "--mtu", str(mtu), "--core", _core(1)]
            sender += ["--address", there["address"], "--seconds", str(UDP_SECONDS)]
            sent = json.loads(_output(sender))
            arrived = _line(receiver)
        finally:
            receiver.kill()
    return Transfer(
        bytes_moved=arrived["bytes"],
        seconds=arrived["seconds"],
        cpu_s=arrived["cpu_s"] + sent["cpu_s"],
    )


def _core(position: int) -> str:
    available = cores()
    return str(available[position % len(available)])


def _line(process: subprocess.Popen[str]) -> dict[str, Any]:
    assert process.stdout is not None
    parsed: dict[str, Any] = json.loads(process.stdout.readline())
    return parsed


def _output(arguments: list[str]) -> str:
    done = subprocess.run(
        arguments, check=True, stdout=subprocess.PIPE, text=True, timeout=ANSWER_TIMEOUT_S
    )
    return done.stdout
