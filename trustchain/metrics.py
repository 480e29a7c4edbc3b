"""What TrustChain counts. The node renders these; nothing here knows a metrics library."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from trustchain.core.outcomes import Outcome


@dataclass(slots=True)
class Counts:
    """Events since the process started, by kind."""

    by_kind: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, count: int = 1) -> None:
        """Count one kind of event."""
        self.by_kind[kind] = self.by_kind.get(kind, 0) + count

    def add_outcomes(self, codes: bytes) -> None:
        """Count the outcomes of one block."""
        for code in set(codes):
            self.add(Outcome(code).name.lower(), codes.count(code))

    def reading(self) -> dict[str, int]:
        """A copy that no longer changes."""
        return dict(self.by_kind)


@dataclass(frozen=True, slots=True, kw_only=True)
class LogStatistics:
    """The log at one moment."""

    size: int
    root: bytes
    height: int  # of the newest entry's block
    operations_total: Mapping[str, int]  # executed, by outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignerStatistics:
    """Checkpoints and cosignatures at one moment."""

    name: str
    epoch: int  # whose validators cosign
    seated: int  # 1 while this node is one of them
    needed: int  # cosignatures that make a checkpoint count
    signed_size: int
    cosigned_size: int  # of the newest checkpoint that counts
    cosignatures: int  # on the newest checkpoint that counts
    collecting: int  # tree heads that do not count yet, and the one that does
    waiting: int  # requests for a checkpoint
    pushes: int  # in flight
    cosign_ms: float  # from own cosignature to counting, the newest time
    cosignatures_total: Mapping[str, int]  # of others, by what became of them


@dataclass(frozen=True, slots=True, kw_only=True)
class AuthorityStatistics:
    """X.509 signing at one moment."""

    certificates_signed_total: int
