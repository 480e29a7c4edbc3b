"""Every metric of the node, declared once, and the page Prometheus scrapes.

Names are `hypermesh_<package>_<noun>_<unit>[_total]` in base units. Two sources feed the page: the
instruments of `Metrics`, which hot paths update, and the frozen `statistics()` values of the rooms,
which are read when somebody scrapes. Labels come from closed sets only, never from peers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

from node.limits import METRIC_LABELS_MAX
from node.version import version

if TYPE_CHECKING:
    from collections.abc import Sequence

    from prometheus_client.metrics_core import Metric

    from node.health import Finding
    from node.status import Status

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
PHASES: Final = ("prepare", "commit", "execute", "persist", "certify")
LATENCY_BUCKETS_S: Final = (
    0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
CRYPTO_BUCKETS_S: Final = (
    0.000005, 0.00001, 0.00002, 0.00005, 0.0001, 0.0002, 0.0005, 0.001, 0.005,
)  # fmt: skip
COUNT_BUCKETS: Final = (0, 1, 4, 16, 64, 256, 1024, 4096, 16384)
LABEL_OTHER: Final = "other"
READY_NAME: Final = "hypermesh_node_ready"
READY_TEXT: Final = "1 while a health item is well, by item"
# Fields of the rooms that a gauge of the status shows already, under its own name.
REPEATED: Final = frozenset(
    {
        "hypermesh_caesar_conservation_error",
        "hypermesh_caesar_height",
        "hypermesh_consensus_certified",
        "hypermesh_consensus_executed",
        "hypermesh_trustchain_height",
        "hypermesh_trustchain_size",
    }
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a second line for every counter


@dataclass(frozen=True, slots=True, kw_only=True)
class GaugeRow:
    """One gauge read from a `Status`."""

    name: str
    text: str
    read: Callable[[Status], float]


STATUS_GAUGES: Final = (
    GaugeRow(
        name="hypermesh_consensus_height",
        text="Newest executed block",
        read=lambda s: s.height,
    ),
    GaugeRow(
        name="hypermesh_consensus_height_known",
        text="Highest certified block this node has heard of",
        read=lambda s: s.height_known,
    ),
    GaugeRow(name="hypermesh_consensus_view", text="Current view", read=lambda s: s.view),
    GaugeRow(
        name="hypermesh_consensus_voting",
        text="1 while this node votes",
        read=lambda s: s.voting,
    ),
    GaugeRow(
        name="hypermesh_consensus_validators",
        text="Validators of the current set",
        read=lambda s: s.validators,
    ),
    GaugeRow(
        name="hypermesh_consensus_validators_connected",
        text="Validators reachable, this node included",
        read=lambda s: s.validators_connected,
    ),
    GaugeRow(
        name="hypermesh_consensus_stalled",
        text="1 while something should be executed and is not; `stall` in the status says why",
        read=lambda s: bool(s.stall),
    ),
    GaugeRow(
        name="hypermesh_consensus_view_change_seconds",
        text="How long the present view change has been going on, 0 for none",
        read=lambda s: s.view_change_ms / 1000,
    ),
    GaugeRow(
        name="hypermesh_mempool_payloads_count",
        text="Payloads waiting to be agreed",
        read=lambda s: s.mempool_count,
    ),
    GaugeRow(
        name="hypermesh_mempool_payloads_bytes",
        text="Bytes of payloads waiting to be agreed",
        read=lambda s: s.mempool_bytes,
    ),
    GaugeRow(
        name="hypermesh_mempool_oldest_seconds",
        text="Age of the oldest payload waiting to be executed, 0 for none",
        read=lambda s: s.mempool_oldest_ms / 1000,
    ),
    GaugeRow(
        name="hypermesh_transport_peers_count",
        text="Connected peers",
        read=lambda s: sum(peer.connected for peer in s.peers),
    ),
    GaugeRow(
        name="hypermesh_trustchain_log_entries_count",
        text="Certificates in the log",
        read=lambda s: s.log_size,
    ),
    GaugeRow(
        name="hypermesh_caesar_conservation_error_units",
        text="Sum of all accounts minus the supply; anything but 0 is a defect",
        read=lambda s: s.conservation_error,
    ),
    GaugeRow(
        name="hypermesh_node_uptime_seconds",
        text="Time since start",
        read=lambda s: s.uptime_ms / 1000,
    ),
    GaugeRow(
        name="hypermesh_node_resident_memory_bytes",
        text="Resident memory of the process",
        read=lambda s: s.rss_bytes,
    ),
    GaugeRow(
        name="hypermesh_node_disk_free_bytes",
        text="Free space where the home folder is",
        read=lambda s: s.disk_free_bytes,
    ),
    GaugeRow(
        name="hypermesh_node_clock_offset_seconds",
        text="This clock against the median of the peers' clocks",
        read=lambda s: s.clock_offset_ms / 1000,
    ),
)


class Metrics:
    """The instruments that code updates, and the registry that renders everything.

    Create one per process. `watch` adds a room: its `statistics()` value becomes metrics whose
    names are the field names.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry(auto_describe=False)
        self.consensus_phase_seconds = self._histogram(
            "hypermesh_consensus_phase_seconds",
            "Time of one phase of a block, by phase",
            LATENCY_BUCKETS_S,
            ["phase"],
        )
        self.consensus_commit_seconds = self._histogram(
            "hypermesh_consensus_commit_seconds",
            "Time from a block's proposal, as this node saw it, to its execution",
            LATENCY_BUCKETS_S,
        )
        self.consensus_batch_payloads_count = self._histogram(
            "hypermesh_consensus_batch_payloads", "Payloads in a batch", COUNT_BUCKETS
        )
        self.consensus_batch_bytes = Counter(
            "hypermesh_consensus_batch_bytes",
            "Bytes of payloads agreed",
            registry=self.registry,
        )
        self.consensus_view_changes = Counter(
            "hypermesh_consensus_view_changes",
            "Views this node has entered after a change",
            registry=self.registry,
        )
        self.consensus_misbehaviour = Counter(
            "hypermesh_consensus_misbehaviour",
            "Faults of peers, by kind",
            ["kind"],
            registry=self.registry,
        )
        self.store_sync_seconds = self._histogram(
            "hypermesh_consensus_store_sync_seconds",
            "Time of one commit, by database; that of the state is not synced",
            LATENCY_BUCKETS_S,
            ["database"],
        )
        self.falcon_sign_seconds = self._histogram(
            "hypermesh_native_falcon_sign_seconds", "Time of one Falcon signature", CRYPTO_BUCKETS_S
        )
        self.falcon_verify_seconds = self._histogram(
            "hypermesh_native_falcon_verify_seconds",
            "Time of one Falcon check, mean of its batch",
            CRYPTO_BUCKETS_S,
        )
        self.payloads = Counter(
            "hypermesh_node_payloads",
            "Payloads executed, by application and outcome",
            ["application", "outcome"],
            registry=self.registry,
        )
        self.payloads_refused = Counter(
            "hypermesh_mempool_payloads_refused",
            "Payloads not admitted, by reason",
            ["reason"],
            registry=self.registry,
        )
        self.certificates = Counter(
            "hypermesh_trustchain_certificates",
            "Certificate operations, by outcome",
            ["outcome"],
            registry=self.registry,
        )
        self.http_requests = Counter(
            "hypermesh_node_http_requests",
            "HTTP requests, by route and status class",
            ["route", "status"],
            registry=self.registry,
        )
        self.http_request_seconds = self._histogram(
            "hypermesh_node_http_request_seconds", "Time of one HTTP request", LATENCY_BUCKETS_S
        )
        self.http_in_flight_count = Gauge(
            "hypermesh_node_http_in_flight_count",
            "HTTP requests being served",
            registry=self.registry,
        )
        self.label_overflow = Counter(
            "hypermesh_metrics_label_overflow",
            "Labels counted as 'other' because a metric had too many",
            registry=self.registry,
        )
        ProcessCollector(namespace="hypermesh_node", registry=self.registry)
        for phase in PHASES:
            self.consensus_phase_seconds.labels(phase)
        self._declared = frozenset(
            sample_family
            for family in self.registry.collect()
            for sample_family in (family.name, f"{family.name}_total")
        )
        self._rooms: dict[str, Callable[[], object]] = {}
        self._status: Callable[[], tuple[Status, Sequence[Finding]]] | None = None
        self.registry.register(self)

    def watch(self, room: str, statistics: Callable[[], object]) -> None:
        """Expose the frozen dataclass that `statistics` returns as hypermesh_<room>_<field>.

        A field that ends in `_total` is a counter; a mapping of texts to numbers gets the label
        `kind`; enumerations and other fields that are no numbers are left out.
        """
        self._rooms[room] = statistics

    def watch_status(self, status: Callable[[], tuple[Status, Sequence[Finding]]]) -> None:
        """Expose the node's status and which health items are not well."""
        self._status = status

    def render(self) -> bytes:
        """Return the page that is scraped."""
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        """Nothing is known before the first scrape; asked by the registry when it registers us."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Read every watched source; called by the registry."""
        build = GaugeMetricFamily(
            "hypermesh_node_build_info", "Version of the software", labels=["version"]
        )
        build.add_metric([version()], 1)
        yield build
        seen = set(self._declared)
        if self._status:
            yield from self._collect_status(*self._status(), seen)
        for room, statistics in self._rooms.items():
            yield from self._collect_room(room, statistics(), seen)

    def _collect_status(
        self, status: Status, found: Sequence[Finding], seen: set[str]
    ) -> Iterator[Metric]:
        from node.health import ITEMS

        for row in STATUS_GAUGES:
            seen.add(row.name)
            yield GaugeMetricFamily(row.name, row.text, value=row.read(status))
        bad = {finding.item.code for finding in found}
        seen.add(READY_NAME)
        items = GaugeMetricFamily(READY_NAME, READY_TEXT, labels=["item"])
        for item in ITEMS:
            items.add_metric([item.code], item.code not in bad)
        yield items

    def _collect_room(self, room: str, value: object, seen: set[str]) -> Iterator[Metric]:
        if not is_dataclass(value):
            return
        for item in fields(value):
            name, scale = _base_unit(f"hypermesh_{room}_{item.name}")
            content = getattr(value, item.name)
            if name in seen or name in REPEATED:  # an instrument or the status says it already
                continue
            seen.add(name)
            text = f"{room}: {item.name.removesuffix('_total').replace('_', ' ')}"
            labelled = isinstance(content, Mapping)
            if not labelled and not isinstance(content, (int, float)):
                continue
            if isinstance(content, Enum):  # the number of a member says nothing
                continue
            family: Any = CounterMetricFamily if name.endswith("_total") else GaugeMetricFamily
            metric = family(name, text, labels=["kind"] if labelled else [])
            if not labelled:
                metric.add_metric([], content * scale)
            else:
                for kind, number in self._bounded(content).items():
                    metric.add_metric([kind], number * scale)
            yield metric

    def _bounded(self, content: Mapping[Any, Any]) -> dict[str, float]:
        """Keep the first labels of a mapping and add the rest up as "other"."""
        kept: dict[str, float] = {}
        for key, number in content.items():
            if not isinstance(number, (int, float)):
                continue
            kind = str(getattr(key, "value", key))
            if len(kept) >= METRIC_LABELS_MAX and kind not in kept:
                self.label_overflow.inc()
                kind = LABEL_OTHER
            kept[kind] = kept.get(kind, 0) + number
        return kept

    def _histogram(
        self, name: str, text: str, buckets: Sequence[float], labels: Sequence[str] = ()
    ) -> Histogram:
        return Histogram(name, text, labels, buckets=buckets, registry=self.registry)


def _base_unit(name: str) -> tuple[str, float]:
    """Turn a field in milliseconds into seconds: name and factor."""
    if name.endswith("_ms"):
        return f"{name[:-3]}_seconds", 0.001
    return name, 1
