"""`hypermesh stoq`: what an operator sees, also when the network or the words are wrong."""

from __future__ import annotations

import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
import trio

from native.values import NodeId
from node.cli import app
from node.stoq.netcheck import Grade, netcheck
from node.stoq.ping import ping
from node.stoq.throughput import endpoint, run, serve
from transport import TransportConfig
from transport.errors import DialFailed

if TYPE_CHECKING:
    from collections.abc import Callable

STRANGER = "ab" * 32


def command(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    with pytest.raises(SystemExit) as ended:
        app(["stoq", *words], prog_name="hypermesh")
    code = ended.value.code
    shown = capsys.readouterr()
    assert isinstance(code, int)
    return code, shown.out, shown.err


@pytest.mark.parametrize(
    ("words", "code", "told"),
    [
        (("ping", "127.0.0.1:9292", STRANGER), 2, "IPv6 only"),
        (("ping", "[::1]", STRANGER), 2, "[::1]:9292"),
        (("ping", "[::1]:9292", "12ab"), 2, "64 hexadecimal digits"),
        (("ping", "[::1]:9292", "zz" * 32), 2, "64 hexadecimal digits"),
        (("ping", "[::1]:9292", STRANGER, "--count", "0"), 2, "count"),
        (("ping", "[::1]:9292", STRANGER, "--timeout", "soon"), 2, "60s"),
        (("bench", "--congestion", "reno"), 2, "bbr"),
        (("bench", "[::1]:9"), 2, "name both"),
        (("bench", "[::1]:9", "12"), 2, "64 hexadecimal digits"),
        (("netcheck", "--peer", "10.0.0.1:1"), 2, "IPv6 only"),
    ],
)
def test_wrong_words_are_told_what_is_right(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: int, told: str
) -> None:
    ended, _, errors = command(capsys, *words)
    assert ended == code
    assert told in errors


def test_a_silent_address_is_given_up_in_time(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as silent:
        silent.bind(("::1", 0))
        address = f"[::1]:{silent.getsockname()[1]}"
        ended, _, errors = command(capsys, "ping", address, STRANGER, "--timeout", "300ms")
    assert ended == 4
    assert "netcheck" in errors or "nobody answers" in errors


def with_acceptor(check: Callable[[Any], Any]) -> Any:
    """Run a check against an endpoint that swallows what it gets."""

    async def main() -> Any:
        acceptor = endpoint("[::1]:0", TransportConfig())
        async with trio.open_nursery() as nursery:
            await nursery.start(acceptor.run)
            nursery.start_soon(serve, acceptor)
            with trio.fail_after(20):
                answer = await check(acceptor)
            nursery.cancel_scope.cancel()
        return answer

    return trio.run(main)


def test_a_ping_shows_the_path_and_how_the_key_was_proven() -> None:
    async def check(acceptor: Any) -> Any:
        node_id = acceptor.identity.node_id
        return await ping(acceptor.address, node_id, count=3, timeout_s=5, mtu_bytes_max=1_452)

    report = with_acceptor(check)
    assert (report.key_exchange, report.signature) == ("X25519MLKEM768", "falconpadded512")
    assert report.dials == 3
    assert report.path_mtu_bytes == 1_452
    assert 0 < report.round_trip_ms_min <= report.round_trip_ms_median <= report.round_trip_ms_max
    assert report.handshake_ms_later is not None


@pytest.mark.parametrize("timeout_s", [0.3, 90.0])
def test_a_ping_works_with_any_patience(timeout_s: float) -> None:
    async def check(acceptor: Any) -> Any:
        node_id = acceptor.identity.node_id
        return await ping(
            acceptor.address, node_id, count=1, timeout_s=timeout_s, mtu_bytes_max=1_452
        )

    assert with_acceptor(check).dials == 1


def test_a_ping_of_another_node_than_named_is_refused() -> None:
    async def check(acceptor: Any) -> Any:
        wrong = NodeId(bytes.fromhex(STRANGER))
        with pytest.raises(DialFailed, match="wrong_key"):
            await ping(acceptor.address, wrong, count=1, timeout_s=5, mtu_bytes_max=1_452)
        return True

    assert with_acceptor(check)


def test_throughput_counts_what_arrived() -> None:
    size = 10_000_001

    async def check(acceptor: Any) -> Any:
        node_id = acceptor.identity.node_id
        return await run(
            acceptor.address, node_id, size_bytes=size, streams=3, config=TransportConfig()
        )

    report = with_acceptor(check)
    assert (report.bytes_moved, report.streams) == (size, 3)
    assert report.mb_per_s > 0
    assert report.packets_sent > size // 1_452


def test_the_local_bench_prints_json(capsys: pytest.CaptureFixture[str]) -> None:
    ended, shown, _ = command(capsys, "bench", "--size-mb", "5", "--output", "json")
    assert ended == 0
    assert json.loads(shown)["bytes_moved"] == 5_000_000


def test_netcheck_judges_this_machine(capsys: pytest.CaptureFixture[str]) -> None:
    ended, shown, _ = command(capsys, "netcheck", "--output", "json")
    findings = {finding["name"]: finding for finding in json.loads(shown)}
    assert ended == 0
    assert findings["IPv6 loopback"]["grade"] == "ok"
    assert {"UDP GSO", "UDP GRO", "receive buffer", "send buffer", "MTU of lo"} <= set(findings)


def test_a_buffer_that_the_kernel_does_not_grant_is_told_with_the_setting_to_change() -> None:
    findings = {finding.name: finding for finding in netcheck(buffer_bytes=1 << 30)}
    assert findings["receive buffer"].grade is Grade.WARN
    assert findings["receive buffer"].advice == f"sysctl -w net.core.rmem_max={1 << 30}"
    assert "wmem_max" in findings["send buffer"].advice
