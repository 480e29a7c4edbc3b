"""STOQ's speed, beside plain aioquic, the same engine in a pure Rust loop, and raw UDP.

Two processes on `[::1]`, each on its own core; the client uploads through the public trio API and
the server measures from the first byte to the last. Every round runs all stacks once, so that a
busy moment of the machine hits all of them: compare ratios, and MB per CPU-second.

    python bench/stoq.py [NAME ...]
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Final, get_args

if __package__ in {None, ""}:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from bench import aioquic_ends, rust_ends, stoq_ends, udp_ends
from bench.processes import MEGA, Transfer, between
from bench.report import Result, Suite, progress, rounded
from bench.stoq_ends import Plan
from transport import TransportConfig

ROUNDS: Final = 3
AIOQUIC_BYTES: Final = 16 << 20
FIRST_DIALS: Final = 9
LATER_DIALS: Final = 100
ACCEPTS: Final = 400
DIALLERS_AT_ONCE: Final = 16
IDLE_CONNECTIONS: Final = 1_000
CALLS: Final = 1_000
CALL_BYTES: Final = 200
FRAME_BYTES: Final = 1_000
# An acceptor that one /64 may use alone: everything here comes from one address.
OPEN_HOUSE: Final = {
    "connections_max": 4_096,
    "connections_per_prefix_max": 4_096,
    "handshakes_max": 1_024,
    "handshakes_per_prefix_max": 1_024,
    "idle_timeout_s": 60.0,
}


# A session that is resumed signs nothing: not what a handshake figure is about.
WHOLE: Final = {"resumption": False}


@dataclass(frozen=True, slots=True)
class Line:
    """One throughput figure and how a run of it is made."""

    name: str  # before `_mb_per_s`
    transfer: Callable[[], Transfer]
    conditions: str


def _stoq(**values: Any) -> Transfer:
    plan = Plan(**values)
    moved, seconds, cpu_s = between(stoq_ends.server, stoq_ends.upload, plan)
    return Transfer(bytes_moved=moved, seconds=seconds, cpu_s=cpu_s)


def _aioquic() -> Transfer:
    plan = Plan(size=AIOQUIC_BYTES)
    moved, seconds, cpu_s = between(aioquic_ends.server, aioquic_ends.upload, plan)
    return Transfer(bytes_moved=moved, seconds=seconds, cpu_s=cpu_s)


def _bulk(mtu: int, mebibytes: int) -> Line:
    return Line(
        f"stoq_{mtu}",
        partial(_stoq, mtu=mtu, size=mebibytes << 20),
        f"one stream, path MTU up to {mtu}, {mebibytes} MiB, trio API on both ends, mutual "
        "Falcon-512, X25519MLKEM768",
    )


def _loop(mtu: int, mebibytes: int) -> Line:
    return Line(
        f"rust_loop_{mtu}",
        partial(rust_ends.loop, mtu, mebibytes << 20),
        f"the same engine and transfer in a loop without Python, {mebibytes} MiB",
    )


# Measured in rounds, in this order, so that what is compared stands side by side.
LINES: tuple[Line, ...] = (
    _bulk(1_452, 512),
    _loop(1_452, 512),
    Line(
        "aioquic_1452",
        _aioquic,
        f"{AIOQUIC_BYTES >> 20} MiB; aioquic 1.7.2 on asyncio, X25519, P-256 certificate",
    ),
    _bulk(8_900, 1_024),
    _loop(8_900, 1_024),
    _bulk(32_000, 1_024),
    _loop(32_000, 1_024),
    Line("udp_gso", partial(rust_ends.udp, 1_452), "1452-byte datagrams, no QUIC, GSO and GRO"),
)
if "aioquic" in get_args(TransportConfig.model_fields["engine"].annotation):
    LINES += (
        Line(
            "aioquic_engine",
            partial(_stoq, mtu=16_000, size=64 << 20, settings={"engine": "aioquic"}),
            "our engine on aioquic, path MTU 16000, 64 MiB, trio API on both ends",
        ),
    )
# Each measured once: they show a shape, no floor hangs on them.
SHAPES: Final = (
    Line("stoq_streams_100", partial(_stoq, streams=100, size=200 << 20), "100 streams"),
    Line(
        "stoq_streams_1000",
        partial(
            _stoq, streams=1_000, size=250 << 20, message=1 << 18, settings={"streams_max": 1_024}
        ),
        "1,000 streams of 256 kB",
    ),
    *(
        Line(
            f"stoq_message_{size}",
            partial(_stoq, message=size, size=mebibytes << 20),
            f"one stream, `send_all` of {size} bytes",
        )
        for size, mebibytes in ((64, 2), (1_024, 32), (16_384, 256), (1 << 20, 512))
    ),
    Line("stoq_connections_10", partial(_stoq, connections=10, size=250 << 20), "10 connections"),
    Line(
        "stoq_connections_100",
        partial(_stoq, connections=100, size=200 << 20, settings=OPEN_HOUSE),
        "100 connections",
    ),
    Line(
        "stoq_one_core",
        partial(_stoq, one_core=True, size=256 << 20),
        "one stream, both ends on one core",
    ),
)
RATIOS: Final = (
    ("stoq_1452_over_aioquic", "stoq_1452", "aioquic_1452"),
    ("stoq_1452_over_rust_loop", "stoq_1452", "rust_loop_1452"),
    ("stoq_8900_over_rust_loop", "stoq_8900", "rust_loop_8900"),
)


def run(wanted: frozenset[str]) -> Iterator[Result]:
    """Yield the figures that are wanted."""
    needed = {line for name, *lines in RATIOS if name in wanted for line in lines}
    if "stoq_8900_spread_percent" in wanted:
        needed.add("stoq_8900")
    runs = _rounds([line for line in LINES if line.name in needed or _names(line) & wanted])
    for line in LINES:
        if line.name in runs:
            yield from _figures(line, runs[line.name])
    for name, above, below in RATIOS:
        if name in wanted:
            yield from _ratio(name, runs, above, below)
    if "stoq_8900_spread_percent" in wanted:
        speeds = [transfer.mb_per_s for transfer in runs["stoq_8900"]]
        yield Result(
            name="stoq_8900_spread_percent",
            value=rounded((max(speeds) - min(speeds)) / statistics.median(speeds) * 100),
            unit="%",
            conditions=f"(largest - smallest) / median of the {ROUNDS} runs of stoq_8900_mb_per_s",
        )
    for line in SHAPES:
        if _names(line) & wanted:
            yield from _figures(line, [line.transfer()])
    for names, measure in LONE:
        if names & wanted:
            yield from measure()


def _names(line: Line) -> frozenset[str]:
    return frozenset((f"{line.name}_mb_per_s", f"{line.name}_mb_per_cpu_s"))


def _rounds(lines: Sequence[Line]) -> dict[str, list[Transfer]]:
    runs: dict[str, list[Transfer]] = {line.name: [] for line in lines}
    for number in range(ROUNDS):
        for line in lines:
            transfer = line.transfer()
            runs[line.name].append(transfer)
            progress(f"  round {number + 1}/{ROUNDS}: {line.name} {transfer.mb_per_s:.4g} MB/s")
    return runs


def _figures(line: Line, runs: Sequence[Transfer]) -> Iterator[Result]:
    conditions = f"[::1], two processes, {line.conditions}"
    if len(runs) > 1:
        conditions += f"; median of {len(runs)}, all stacks in turn"
    yield Result(
        name=f"{line.name}_mb_per_s",
        value=rounded(statistics.median(transfer.mb_per_s for transfer in runs)),
        unit="MB/s",
        conditions=conditions,
    )
    yield Result(
        name=f"{line.name}_mb_per_cpu_s",
        value=rounded(statistics.median(transfer.mb_per_cpu_s for transfer in runs)),
        unit="MB/cpu-s",
        conditions="user and system time of both ends together, same runs",
    )


def _ratio(name: str, runs: dict[str, list[Transfer]], above: str, below: str) -> Iterator[Result]:
    def over(value: Callable[[Transfer], float]) -> float:
        """The median of the rounds' ratios: what slows a round slows both sides of it."""
        pairs = zip(runs[above], runs[below], strict=True)
        return rounded(statistics.median(value(one) / value(other) for one, other in pairs))

    by_cpu = over(lambda transfer: transfer.mb_per_cpu_s)
    yield Result(
        name=name,
        value=over(lambda transfer: transfer.mb_per_s),
        unit="times",
        conditions=f"{above} / {below}, median of the ratios of {ROUNDS} rounds; by CPU-seconds "
        f"{by_cpu}",
    )


# --- figures that are no throughput


def _handshake_first() -> Iterator[Result]:
    plan = Plan(count=1, settings=WHOLE)
    took = [between(stoq_ends.server, stoq_ends.handshakes, plan)[0] for _ in range(FIRST_DIALS)]
    yield Result(
        name="stoq_handshake_first_p50_ms",
        value=rounded(statistics.median(took) * 1_000),
        unit="ms",
        conditions=f"first dial of a process to a process that has accepted none, {FIRST_DIALS} "
        "pairs: QUIC, mutual Falcon-512, X25519MLKEM768 and both HELLOs, as the caller of dial() "
        "waits",
    )


def _handshake_later() -> Iterator[Result]:
    plan = Plan(count=LATER_DIALS + 1, settings=WHOLE)
    took = between(stoq_ends.server, stoq_ends.handshakes, plan)[1:]
    yield Result(
        name="stoq_handshake_later_p50_ms",
        value=rounded(statistics.median(took) * 1_000),
        unit="ms",
        conditions=f"{LATER_DIALS} further dials of one process, no session resumed",
    )
    took = between(stoq_ends.server, stoq_ends.handshakes, Plan(count=LATER_DIALS + 1))[1:]
    yield Result(
        name="stoq_handshake_resumed_p50_ms",
        value=rounded(statistics.median(took) * 1_000),
        unit="ms",
        conditions=f"{LATER_DIALS} further dials that resume a session: a new key exchange, no "
        "signature",
    )


def _accepts() -> Iterator[Result]:
    plan = Plan(count=ACCEPTS, connections=DIALLERS_AT_ONCE, settings=OPEN_HOUSE | WHOLE)
    seconds, cpu_s = between(stoq_ends.server, stoq_ends.accepts, plan)
    yield Result(
        name="stoq_accepts_per_s",
        value=rounded(ACCEPTS / seconds),
        unit="1/s",
        conditions=f"{ACCEPTS} connections of {DIALLERS_AT_ONCE} diallers at once, accepted by one "
        "core and dialled by the other, no session resumed",
    )
    yield Result(
        name="stoq_accepts_per_cpu_s",
        value=rounded(ACCEPTS / cpu_s),
        unit="1/cpu-s",
        conditions="by the processor time of the acceptor alone, opening and closing, same run",
    )


def _rpc() -> Iterator[Result]:
    """Calls on two cores, on one, and datagrams alone, in turn. On two, the machine's time to wake
    the other core is in both figures; on one there is none, only work."""
    apart = Plan(count=CALLS, message=CALL_BYTES)
    together = replace(apart, one_core=True)
    measured: dict[str, list[float]] = {"apart": [], "together": [], "udp": [], "trio": []}
    for _ in range(ROUNDS):
        measured["apart"] += between(stoq_ends.server, stoq_ends.calls, apart)
        measured["together"] += between(stoq_ends.server, stoq_ends.calls, together)
        measured["udp"] += between(udp_ends.server, udp_ends.round_trips, apart)
        measured["trio"] += between(udp_ends.trio_server, udp_ends.trio_round_trips, apart)
    calls = f"{ROUNDS} x {CALLS} calls one after the other, {CALL_BYTES}-byte argument and answer, "
    for name, key, conditions in (
        ("stoq_rpc_p50_us", "apart", f"{calls}[::1], two processes on two cores"),
        ("stoq_rpc_one_core_p50_us", "together", f"{calls}both processes on one core"),
        (
            "udp_round_trip_p50_us",
            "udp",
            f"{CALL_BYTES}-byte datagrams there and back between two cores, without QUIC, same run",
        ),
        ("trio_udp_round_trip_p50_us", "trio", "the same through trio's own sockets"),
    ):
        yield Result(
            name=name,
            value=rounded(statistics.median(measured[key]) * MEGA),
            unit="us",
            conditions=conditions,
        )


def _frame() -> Iterator[Result]:
    took = between(stoq_ends.server, stoq_ends.frames, Plan(count=CALLS, message=FRAME_BYTES))
    yield Result(
        name="stoq_frame_p50_us",
        value=rounded(statistics.median(took) * MEGA / 2),
        unit="us",
        conditions=f"half of the time a lone {FRAME_BYTES}-byte vote frame takes there and back, "
        f"{CALLS} times, [::1], two processes",
    )


def _idle() -> Iterator[Result]:
    plan = Plan(connections=IDLE_CONNECTIONS, settings=OPEN_HOUSE)
    grown = between(stoq_ends.server, stoq_ends.idle, plan)
    yield Result(
        name="stoq_idle_connection_kb",
        value=rounded(grown / 1_000),
        unit="kB",
        conditions=f"resident memory of the acceptor per connection, {IDLE_CONNECTIONS} of them, "
        "admitted and otherwise unused",
    )


LONE: Final[tuple[tuple[frozenset[str], Callable[[], Iterator[Result]]], ...]] = (
    (frozenset({"stoq_handshake_first_p50_ms"}), _handshake_first),
    (frozenset({"stoq_handshake_later_p50_ms", "stoq_handshake_resumed_p50_ms"}), _handshake_later),
    (frozenset({"stoq_accepts_per_s", "stoq_accepts_per_cpu_s"}), _accepts),
    (
        frozenset(
            {
                "stoq_rpc_p50_us",
                "stoq_rpc_one_core_p50_us",
                "udp_round_trip_p50_us",
                "trio_udp_round_trip_p50_us",
            }
        ),
        _rpc,
    ),
    (frozenset({"stoq_frame_p50_us"}), _frame),
    (frozenset({"stoq_idle_connection_kb"}), _idle),
)

SUITE: Final = Suite(
    group="stoq",
    names=(
        *(name for line in LINES for name in sorted(_names(line), reverse=True)),
        *(name for name, *_ in RATIOS),
        "stoq_8900_spread_percent",
        *(name for line in SHAPES for name in sorted(_names(line), reverse=True)),
        *(name for names, _ in LONE for name in sorted(names, reverse=True)),
    ),
    run=run,
)


if __name__ == "__main__":
    for result in run(SUITE.wanted(sys.argv[1:])):
        print(f"{result.name:32} {result.value:>10} {result.unit:10} {result.conditions}")
