"""Counters, configuration, and the names shared with the engine."""

import socket
import time
from dataclasses import fields
from pathlib import Path

import pytest
import structlog
import trio
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import ValidationError

from native.quic import QUIC_CAUSES, QUIC_EVENTS, QUIC_REFUSALS
from transport import ChannelKind, Endpoint, Identity, TransportConfig
from transport.core.events import (
    ENGINE_REFUSALS,
    HELLO_REFUSALS,
    Cause,
    CloseReason,
    EventKind,
    RefusalReason,
)
from transport.core.measures import DurationCounter, Spread, kernel_drops
from transport.errors import DialFailed
from transport.identity import AcceptAll
from transport.limits import TURN_LATE_S
from transport.metrics import METRICS, EndpointStatistics, TransportMetrics
from transport.runtime.engines.settings import engine_settings
from transport.runtime.kernel import link_mtu_bytes, receive_drops
from transport.tests.conftest import ENGINE, Start, offer, pair


def test_the_engine_and_the_transport_use_the_same_names() -> None:
    assert tuple(reason.value for reason in ENGINE_REFUSALS) == QUIC_REFUSALS
    assert tuple(cause.name.lower() for cause in Cause) == QUIC_CAUSES
    assert tuple(kind.name.lower() for kind in EventKind) == QUIC_EVENTS
    assert {*ENGINE_REFUSALS, *HELLO_REFUSALS.values()} == set(RefusalReason)


def test_an_unknown_close_code_has_a_name() -> None:
    assert CloseReason.of(2**40) is CloseReason.UNKNOWN


def test_every_counter_is_declared() -> None:
    assert set(METRICS) == {field.name for field in fields(EndpointStatistics)}


async def test_a_scrape_shows_every_reason(start: Start, identities: list[Identity]) -> None:
    endpoint = await start(identities[0])
    registry = CollectorRegistry()
    TransportMetrics(endpoint.statistics, registry)
    text = generate_latest(registry).decode()
    for reason in RefusalReason:
        assert f'hypermesh_transport_refused_total{{reason="{reason.value}"}} 0.0' in text
    assert "hypermesh_transport_connections 0.0" in text


async def test_a_scrape_shows_what_connections_went_through(
    start: Start, identities: list[Identity]
) -> None:
    ours, _ = await pair(start, identities)
    registry = CollectorRegistry()
    TransportMetrics(ours.endpoint.statistics, registry)

    def value(name: str, **labels: str) -> float:
        found = registry.get_sample_value(f"hypermesh_transport_{name}", labels)
        assert found is not None, name
        return found

    admitted = {
        "result": "admitted",
        "key_exchange": "X25519MLKEM768",
        "signature": "falconpadded512",
    }
    with trio.fail_after(10):
        await ours.ping()
        assert value("handshakes_ended_total", **admitted) == 1
        assert value("handshake_seconds_count") == 1
        assert 0 < value("handshake_seconds_sum") < 10
        assert value("handshake_seconds_bucket", le="+Inf") == 1
        assert value("mtu_bytes", statistic="minimum") >= 1_200
        assert 0 < value("rtt_seconds", statistic="median") < 10
        assert value("engine_info", engine=ENGINE) == 1
        sent = value("packets_sent_total")
        assert sent > 0
        with pytest.raises(DialFailed):
            await ours.endpoint.dial(ours.remote_address, identities[2].node_id)
        failed = {"result": "failed", "key_exchange": "unknown", "signature": "unknown"}
        assert value("handshakes_ended_total", **failed) == 1
        await ours.close()
        assert value("packets_sent_total") >= sent
        assert value("rtt_seconds", statistic="maximum") == 0


async def test_senders_that_wait_for_a_slow_reader_are_seen(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities, stream_window_bytes=65_536)
    with trio.fail_after(10):
        stream = await ours.open_uni()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.send_all, bytes(20_000_000))
            incoming = await theirs.accept_uni()
            await theirs.ping()
            assert await incoming.receive_some(1_000)
            nursery.cancel_scope.cancel()
    assert ours.endpoint.statistics().backpressure_seconds_total > 0.0


async def test_a_callback_that_holds_the_pump_up_is_seen(
    start: Start, identities: list[Identity]
) -> None:
    ours, theirs = await pair(start, identities)

    def busy(*_: object) -> None:
        began_s = time.perf_counter()
        while time.perf_counter() - began_s < 1.2 * TURN_LATE_S:
            pass

    before = theirs.endpoint.statistics().turns_late_total
    theirs.endpoint.on_frame(busy)
    ours.channel(ChannelKind.VOTES).send_nowait(1, b"")
    with trio.fail_after(10):
        await ours.ping()
        while theirs.endpoint.statistics().turns_late_total == before:
            await trio.lowlevel.checkpoint()


UDP6 = """\
  sl  local_address                         remote_address                        st tx_queue \
rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops
 7: 00000000000000000000000001000000:244C 00000000000000000000000000000000:0000 07 \
00000000:00000000 00:00000000 00000000  1000        0 4711 2 0000000000000000 3
 8: 00000000000000000000000001000000:244C 00000000000000000000000000000000:0000 07 \
00000000:00000000 00:00000000 00000000  1000        0 4712 2 0000000000000000 50
 9: B80D0120000000000000000002000000:244C 00000000000000000000000000000000:0000 07 \
00000000:00000000 00:00000000 00000000  1000        0 4711 2 0000000000000000 700
10: broken
"""


def test_drops_are_those_of_our_socket_only() -> None:
    ours = frozenset({4711})
    assert kernel_drops(UDP6, "[::1]:9292", ours, byteorder="little") == 3
    assert kernel_drops(UDP6, "[2001:db8::2]:9292", ours, byteorder="little") == 700
    assert kernel_drops(UDP6, "[::1]:9293", ours, byteorder="little") == 0
    assert kernel_drops(UDP6, "[::1]:9292", frozenset(), byteorder="little") == 0


def test_the_kernel_counts_what_a_full_socket_loses() -> None:
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as full:
        full.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2_048)
        full.bind(("::1", 0))
        port = full.getsockname()[1]
        assert receive_drops(f"[::1]:{port}") == 0
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as source:
            for _ in range(50):
                source.sendto(bytes(1_000), ("::1", port))
        assert receive_drops(f"[::1]:{port}") > 10


def test_durations_and_spreads_count_what_they_are_given() -> None:
    counter = DurationCounter((0.1, 1.0))
    for seconds in (0.05, 0.1, 0.5, 7.0):
        counter.observe(seconds)
    read = counter.read()
    assert read.buckets == ((0.1, 2), (1.0, 3))
    assert read.count == 4
    assert read.total_s == pytest.approx(7.65)
    assert Spread.of([3, 1, 2]) == Spread(minimum=1, median=2, maximum=3)
    assert Spread.of([]) == Spread()


def test_metrics_register_before_the_endpoint_runs(identities: list[Identity]) -> None:
    endpoint = Endpoint(identities[0], listen=None, hello=offer(), verifier=AcceptAll())
    registry = CollectorRegistry()
    TransportMetrics(endpoint.statistics, registry)
    assert generate_latest(registry) == b""


@pytest.mark.parametrize(
    "wrong",
    [{"engine": "carrier pigeon"}, {"mtu_bytes_max": 1_199}, {"no_such_key": 1}, {"idle": -1}],
)
def test_configuration_is_strict(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TransportConfig.model_validate(wrong)


def test_every_field_of_the_configuration_says_what_it_is() -> None:
    for name, field in TransportConfig.model_fields.items():
        assert field.description, name
        assert field.description.endswith("."), name


def interface(folder: Path, name: str, *, flags: int, state: str, mtu: int) -> None:
    place = folder / name
    place.mkdir()
    for file, text in (("flags", hex(flags)), ("operstate", state), ("mtu", str(mtu))):
        (place / file).write_text(text + "\n")


def test_the_mtu_of_the_link_is_that_of_the_widest_interface_that_is_up(tmp_path: Path) -> None:
    assert link_mtu_bytes(tmp_path) == 1_452
    interface(tmp_path, "lo", flags=0x9, state="unknown", mtu=65_536)
    assert link_mtu_bytes(tmp_path) == 32_000
    interface(tmp_path, "narrow", flags=0x1003, state="up", mtu=1_000)
    assert link_mtu_bytes(tmp_path) == 1_200
    interface(tmp_path, "jumbo", flags=0x1003, state="up", mtu=9_000)
    interface(tmp_path, "unplugged", flags=0x1003, state="down", mtu=16_000)
    interface(tmp_path, "off", flags=0x1002, state="unknown", mtu=16_000)
    (tmp_path / "bonding_masters").write_text("")
    assert link_mtu_bytes(tmp_path) == 8_952


def test_an_engine_is_told_the_mtu_of_the_link() -> None:
    settings = engine_settings(TransportConfig(mtu_bytes_max="link"))
    assert settings.mtu_bytes_max == link_mtu_bytes()
    assert 1_200 <= settings.mtu_bytes_max <= 32_000


async def test_a_key_log_and_traces_are_warned_of(
    start: Start, identities: list[Identity], tmp_path: Path
) -> None:
    with structlog.testing.capture_logs() as silent:
        await start(identities[0])
    assert [line for line in silent if line["log_level"] == "warning"] == []
    with structlog.testing.capture_logs() as loud:
        await start(identities[0], key_log_path=str(tmp_path / "keys"), qlog_folder=str(tmp_path))
    warned = [line["event"] for line in loud if line["log_level"] == "warning"]
    assert warned == ["transport.key_log_is_on", "transport.qlog_is_on"]


async def test_packets_of_a_connection_between_two_scrapes_count(
    start: Start, identities: list[Identity]
) -> None:
    ours, _ = await pair(start, identities)
    await ours.close()
    assert ours.endpoint.statistics().packets_sent_total > 0
