"""Says in one line, about every ten seconds, why nothing is executed; silent while all is well.

The same text is in the status, so that `node status` answers before anybody reads a log.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog
import trio

from consensus.core.stall import explain, quiet_us
from node.limits import STALL_AFTER_S, STALL_LOG_INTERVAL_S

if TYPE_CHECKING:
    from collections.abc import Callable

    from consensus.core.replica import Replica
    from consensus.core.types import Instant
    from node.runtime.membership import Membership

log = structlog.get_logger("consensus")


class StallWatch:
    """Watches one replica. Lives on the loop."""

    def __init__(
        self, replica: Replica, membership: Membership, clock: Callable[[], Instant]
    ) -> None:
        """`membership` knows the names of the validators by their replica index."""
        self._replica = replica
        self._membership = membership
        self._clock = clock
        self._started_us = clock().monotonic_us

    def text(self) -> str:
        """Why nothing is executed; empty while all is well."""
        quiet_s = quiet_us(self._replica, self._clock(), self._started_us) / 1e6
        if quiet_s < STALL_AFTER_S:
            return ""
        waiting = self._replica.pending
        what = f"{waiting:,} payloads wait" if waiting else "an idle block is overdue"
        reason = explain(self._replica, self._name)
        return f"{what}, nothing executed for {quiet_s:.0f} s: {reason}"

    async def run(self) -> None:
        """Log the reason of a stall again and again while it lasts, and once that it is over."""
        stalled = False
        while True:
            await trio.sleep(STALL_LOG_INTERVAL_S)
            reason = self.text()
            if reason:
                log.info("consensus.stalled", detail=reason)
            elif stalled:
                log.info("consensus.goes_on", height=int(self._replica.executed))
            stalled = bool(reason)

    def _name(self, index: int) -> str:
        members = self._membership.validators
        return members[index].name if index < len(members) else f"validator {index}"
