"""What TrustChain counts, declared once."""

from __future__ import annotations

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from trustchain.core.outcomes import Outcome

_COSIGN_BUCKETS_S: Final = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 1.0, 5.0)


class TrustChainMetrics:
    """The metrics of one node, registered where the node says."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.operations: Final = Counter(
            "hypermesh_trustchain_operations_total",
            "Ordered operations by outcome",
            ["outcome"],
            registry=registry,
        )
        self.log_size: Final = Gauge(
            "hypermesh_trustchain_log_size", "Entries in the log", registry=registry
        )
        self.cosigned_size: Final = Gauge(
            "hypermesh_trustchain_cosigned_size",
            "Size of the newest checkpoint that counts",
            registry=registry,
        )
        self.cosignatures: Final = Counter(
            "hypermesh_trustchain_cosignatures_total",
            "Cosignatures by what became of them",
            ["result"],
            registry=registry,
        )
        self.cosign_wait: Final = Histogram(
            "hypermesh_trustchain_cosign_seconds",
            "From own cosignature to a checkpoint that counts",
            buckets=_COSIGN_BUCKETS_S,
            registry=registry,
        )
        self.certificates: Final = Counter(
            "hypermesh_trustchain_certificates_signed_total",
            "X.509 forms signed by this node",
            registry=registry,
        )

    def executed(self, codes: bytes | bytearray, *, size: int) -> None:
        """Count the outcomes of one block."""
        for code in codes:
            self.operations.labels(Outcome(code).name.lower()).inc()
        self.log_size.set(size)
