"""What this room counts: one frozen snapshot, and its Prometheus form.

Labels are few and fixed; a NodeId is never one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Final, Protocol

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from transport.core.events import RefusalReason
from transport.core.measures import Durations, Spread
from transport.errors import EndpointStopped

HANDSHAKE_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0)


class HandshakeResult(StrEnum):
    """How the way from a dial, or a proven key, to admission ended."""

    ADMITTED = "admitted"
    REFUSED = "refused"  # by us, after HELLO
    FAILED = "failed"  # by the peer, the network, or time
    GIVEN_UP = "given_up"  # by the task that dialled


class CallCounts(Protocol):
    """What a server of calls counts."""

    @property
    def active(self) -> int: ...
    @property
    def served_total(self) -> int: ...
    @property
    def refused_total(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkCounts:
    """What the paths of all connections show together."""

    packets_sent_total: int
    packets_lost_total: int
    black_holes_total: int
    rtt_seconds: Spread
    mtu_bytes: Spread
    congestion_window_bytes: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointStatistics:
    """Counters (`_total`) since the endpoint began to run, and gauges."""

    connections: int
    handshakes: int
    streams: int
    calls_active: int
    calls_served_total: int
    calls_refused_total: int
    handshakes_completed_total: int
    retries_sent_total: int
    datagrams_received_total: int
    datagrams_sent_total: int
    bytes_received_total: int
    bytes_sent_total: int
    receive_calls_total: int
    send_calls_total: int
    send_errors_total: int
    frames_received_total: int
    frames_sent_total: int
    turns_total: int
    receive_buffer_bytes: int
    send_buffer_bytes: int
    gso_segments: int
    ecn_received_total: int
    streams_throttled_total: int
    memory_granted_bytes: int
    turns_late_total: int
    backpressure_seconds_total: float
    packets_sent_total: int
    packets_lost_total: int
    black_holes_total: int
    datagrams_unread_total: int
    kernel_receive_drops_total: int
    rtt_seconds: Spread
    mtu_bytes: Spread
    congestion_window_bytes: Spread
    handshake_seconds: Durations
    handshakes_ended_total: Mapping[tuple[HandshakeResult, str, str], int]
    engine_info: str
    refused_total: Mapping[RefusalReason, int]

    @classmethod
    def of(
        cls,
        engine: Mapping[str, int | dict[str, int]],
        *,
        refused: Mapping[RefusalReason, int],
        calls: CallCounts,
        network: NetworkCounts,
        connections: int,
        handshakes: int,
        streams: int,
        turns_late_total: int,
        backpressure_seconds_total: float,
        datagrams_unread_total: int,
        kernel_receive_drops_total: int,
        handshake_seconds: Durations,
        handshakes_ended_total: Mapping[tuple[HandshakeResult, str, str], int],
        engine_info: str,
    ) -> "EndpointStatistics":
        """Join the engine's counters with those kept above it."""
        by_engine = engine["refused"]
        assert isinstance(by_engine, dict)

        def number(name: str) -> int:
            value = engine[name]
            assert isinstance(value, int)
            return value

        return cls(
            connections=connections,
            handshakes=handshakes,
            streams=streams,
            calls_active=calls.active,
            calls_served_total=calls.served_total,
            calls_refused_total=calls.refused_total,
            handshakes_completed_total=number("handshakes_completed"),
            retries_sent_total=number("retries_sent"),
            datagrams_received_total=number("datagrams_received"),
            datagrams_sent_total=number("datagrams_sent"),
            bytes_received_total=number("bytes_received"),
            bytes_sent_total=number("bytes_sent"),
            receive_calls_total=number("receive_calls"),
            send_calls_total=number("send_calls"),
            send_errors_total=number("send_errors"),
            frames_received_total=number("frames_received"),
            frames_sent_total=number("frames_sent"),
            turns_total=number("steps"),
            receive_buffer_bytes=number("receive_buffer_bytes"),
            send_buffer_bytes=number("send_buffer_bytes"),
            gso_segments=number("gso_segments"),
            ecn_received_total=number("ecn_received"),
            streams_throttled_total=number("streams_throttled"),
            memory_granted_bytes=number("memory_granted_bytes"),
            turns_late_total=turns_late_total,
            backpressure_seconds_total=backpressure_seconds_total,
            packets_sent_total=network.packets_sent_total,
            packets_lost_total=network.packets_lost_total,
            black_holes_total=network.black_holes_total,
            datagrams_unread_total=datagrams_unread_total,
            kernel_receive_drops_total=kernel_receive_drops_total,
            rtt_seconds=network.rtt_seconds,
            mtu_bytes=network.mtu_bytes,
            congestion_window_bytes=network.congestion_window_bytes,
            handshake_seconds=handshake_seconds,
            handshakes_ended_total=dict(handshakes_ended_total),
            engine_info=engine_info,
            refused_total={
                reason: by_engine.get(reason.value, 0) + refused.get(reason, 0)
                for reason in RefusalReason
            },
        )


# name -> help; the one declaration that documents are rendered from
METRICS: Final = {
    "connections": "Admitted connections that are open",
    "handshakes": "Connections that are not admitted yet",
    "streams": "Open raw streams and calls",
    "calls_active": "Calls being served",
    "calls_served_total": "Calls answered",
    "calls_refused_total": "Calls given up or refused before a handler answered",
    "handshakes_completed_total": "Peers that proved their key",
    "retries_sent_total": "Diallers asked to prove their address",
    "datagrams_received_total": "UDP datagrams received",
    "datagrams_sent_total": "UDP datagrams sent",
    "bytes_received_total": "UDP payload received",
    "bytes_sent_total": "UDP payload sent",
    "receive_calls_total": "recvmmsg calls",
    "send_calls_total": "sendmsg calls",
    "send_errors_total": "Datagrams the kernel refused to send",
    "frames_received_total": "Frames received on channels",
    "frames_sent_total": "Frames queued on channels",
    "turns_total": "Turns of the pump",
    "receive_buffer_bytes": "Socket receive buffer granted by the kernel",
    "send_buffer_bytes": "Socket send buffer granted by the kernel",
    "ecn_received_total": "UDP datagrams that carried an ECN mark",
    "streams_throttled_total": "Times a peer's streams had to wait because it had reset too many",
    "memory_granted_bytes": "Windows granted to all peers together",
    "turns_late_total": "Turns of the pump that held everything else up for more than 50 ms",
    "backpressure_seconds_total": "Time that senders on streams waited for the peer to read",
    "packets_sent_total": "QUIC packets sent on admitted connections",
    "packets_lost_total": "QUIC packets of admitted connections taken for lost",
    "black_holes_total": "Times a path stopped carrying large packets",
    "datagrams_unread_total": "Unreliable datagrams dropped because nobody read them in time",
    "kernel_receive_drops_total": "UDP datagrams that found the socket's buffer full",
    "rtt_seconds": "Round trip over the connections, by statistic",
    "mtu_bytes": "Largest packet over the connections, by statistic",
    "congestion_window_bytes": "Congestion window over the connections, by statistic",
    "handshake_seconds": "Time from a dial to admission",
    "handshakes_ended_total": "Handshakes, by result, key exchange and signature of the peer",
    "engine_info": "The engine that moves packets",
    "gso_segments": "Datagrams one send call may carry; 1 means no GSO",
    "refused_total": "Peers and datagrams that never reached the application, by reason",
}
PREFIX: Final = "hypermesh_transport_"


class TransportMetrics(Collector):
    """Reads `statistics()` when it is scraped; costs nothing in between."""

    def __init__(
        self, statistics: Callable[[], EndpointStatistics], registry: CollectorRegistry
    ) -> None:
        self._statistics = statistics
        registry.register(self)

    def describe(self) -> Iterator[Metric]:
        """Names only, so that registering needs no running endpoint."""
        for name, text in METRICS.items():
            yield _family(name, text)

    def collect(self) -> Iterator[Metric]:
        """One family per field; nothing while the endpoint does not run."""
        try:
            statistics = self._statistics()
        except EndpointStopped:
            return
        for field in fields(statistics):
            family = _family(field.name, METRICS[field.name])
            value = getattr(statistics, field.name)
            if isinstance(family, HistogramMetricFamily):
                buckets = [(str(bound_s), count) for bound_s, count in value.buckets]
                family.add_metric([], [*buckets, ("+Inf", value.count)], value.total_s)
            elif isinstance(value, Spread):
                for name in SPREAD:
                    family.add_metric([name], getattr(value, name))
            elif isinstance(value, Mapping):
                for labels, count in value.items():
                    family.add_metric([labels] if isinstance(labels, str) else labels, count)
            elif isinstance(value, str):
                family.add_metric([value], 1)
            else:
                family.add_metric([], value)
            yield family


SPREAD: Final = ("minimum", "median", "maximum")
LABELS: Final = {
    "refused_total": ("reason",),
    "handshakes_ended_total": ("result", "key_exchange", "signature"),
    "rtt_seconds": ("statistic",),
    "mtu_bytes": ("statistic",),
    "congestion_window_bytes": ("statistic",),
    "engine_info": ("engine",),
}


def metric_type(name: str) -> str:
    """Prometheus' word for what a field of `EndpointStatistics` becomes."""
    if name == "handshake_seconds":
        return "histogram"
    return "counter" if name.endswith("_total") else "gauge"


def _family(
    name: str, text: str
) -> CounterMetricFamily | GaugeMetricFamily | HistogramMetricFamily:
    labels = LABELS.get(name, ())
    match metric_type(name):
        case "histogram":
            return HistogramMetricFamily(PREFIX + name, text)
        case "counter":
            return CounterMetricFamily(PREFIX + name.removesuffix("_total"), text, labels=labels)
        case _:
            return GaugeMetricFamily(PREFIX + name, text, labels=labels)
