"""What the ledger counts. The node renders these; nothing here knows a metrics library."""

from dataclasses import dataclass, field

from caesar.core.receipts import Outcome


@dataclass(slots=True, kw_only=True)
class LedgerMetrics:
    """Counters since the process started."""

    outcomes_total: dict[Outcome, int] = field(default_factory=dict)  # executed, by outcome
    advice_refused_total: int = 0  # payloads that `check` advised against

    def count(self, codes: bytes) -> None:
        """Add the outcomes of one block."""
        for code in set(codes):
            outcome = Outcome(code)
            self.outcomes_total[outcome] = self.outcomes_total.get(outcome, 0) + codes.count(code)


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerStatistics:
    """A reading of ledger and counters at one moment."""

    height: int
    accounts: int
    applied_total: int
    failed_total: int
    refused_total: int
    advice_refused_total: int
    conservation_error: int  # base units; anything but 0 stops the node
