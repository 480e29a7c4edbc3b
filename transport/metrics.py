"""What this room counts: one frozen snapshot, and its Prometheus form.

Labels are few and fixed; a NodeId is never one.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Final

from prometheus_client import Metric
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry

from transport.core.events import RefusalReason


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
    refused_total: Mapping[RefusalReason, int]

    @classmethod
    def of(
        cls,
        engine: Mapping[str, int | dict[str, int]],
        *,
        refused: Mapping[RefusalReason, int],
        connections: int,
        handshakes: int,
        streams: int,
        calls_active: int,
        calls_served_total: int,
        calls_refused_total: int,
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
            calls_active=calls_active,
            calls_served_total=calls_served_total,
            calls_refused_total=calls_refused_total,
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
        """One family per counter."""
        statistics = self._statistics()
        for field in fields(statistics):
            family = _family(field.name, METRICS[field.name])
            value = getattr(statistics, field.name)
            if isinstance(value, Mapping):
                for reason, count in value.items():
                    family.add_metric([reason.value], count)
            else:
                family.add_metric([], value)
            yield family


def _family(name: str, text: str) -> CounterMetricFamily | GaugeMetricFamily:
    labels = ["reason"] if name == "refused_total" else []
    if name.endswith("_total"):
        return CounterMetricFamily(PREFIX + name.removesuffix("_total"), text, labels=labels)
    return GaugeMetricFamily(PREFIX + name, text, labels=labels)
