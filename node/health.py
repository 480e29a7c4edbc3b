"""Registry of health items: what can be wrong with a running node, and what to do about it.

Declared once; `/readyz`, `status`, logs and metrics show the same texts. An item is judged from a
`Status` alone, so everything here is a pure function. `/livez` is none of this: it fails only when
a restart would help.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from node.status import Status

BLOCKS_BEHIND_MAX: Final = 64  # one window: beyond it a node takes no part in agreement
VIEW_CHANGE_GRACE_MS: Final = 3_000
STALL_INTERVALS: Final = 3  # idle blocks missed before we call it a stall
CLOCK_OFFSET_MS_MAX: Final = 250  # half of what delays a vote (design 7)
DISK_WARNING_PERCENT: Final = 10
DISK_ERROR_PERCENT: Final = 2
MEMPOOL_FULL_PERCENT: Final = 90


class Severity(StrEnum):
    """How bad it is for this node's users."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthItem:
    """One thing that can be wrong. `blocks_ready` items make `/readyz` answer 503."""

    code: str
    title: str
    severity: Severity
    blocks_ready: bool
    next_step: str
    depends_on: tuple[str, ...] = ()  # shown only when none of these is found
    judge: Callable[[Status], str | None]  # the detail text, or None when all is well


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """An item that is not well now."""

    item: HealthItem
    detail: str

    @property
    def blocks_ready(self) -> bool:
        """True when this alone makes the node not ready."""
        return self.item.blocks_ready

    @property
    def mark(self) -> str:
        """One character for the text form."""
        return {Severity.ERROR: "!", Severity.WARNING: "~", Severity.INFO: "i"}[self.item.severity]

    def to_json(self) -> dict[str, Any]:
        """Render for `/readyz?verbose` and `/status`."""
        return {
            "code": self.item.code,
            "title": self.item.title,
            "severity": self.item.severity.value,
            "blocks_ready": self.item.blocks_ready,
            "detail": self.detail,
            "next_step": self.item.next_step,
        }

    @staticmethod
    def from_json(document: Mapping[str, Any]) -> Finding:
        """Read what `to_json` wrote, also for an item this version does not know."""
        item = HealthItem(
            code=document["code"],
            title=document["title"],
            severity=Severity(document["severity"]),
            blocks_ready=document["blocks_ready"],
            next_step=document["next_step"],
            judge=_never,
        )
        return Finding(item=item, detail=document["detail"])


def findings(status: Status) -> tuple[Finding, ...]:
    """Judge every item, the ones that block readiness first, consequences of others left out."""
    found = {
        item.code: Finding(item=item, detail=detail)
        for item in ITEMS
        if (detail := item.judge(status)) is not None
    }
    shown = [
        finding
        for finding in found.values()
        if not any(code in found for code in finding.item.depends_on)
    ]
    return tuple(sorted(shown, key=lambda finding: not finding.blocks_ready))


def ready(found: Sequence[Finding]) -> bool:
    """Say whether nothing found blocks readiness."""
    return not any(finding.blocks_ready for finding in found)


def _never(_status: Status) -> str | None:
    return None


def _starting(status: Status) -> str | None:
    return "rebuilding the state from disk" if status.phase == "starting" else None


def _stopping(status: Status) -> str | None:
    return "finishing what was begun" if status.phase == "stopping" else None


def _recovering(status: Status) -> str | None:
    if status.phase != "recovering":
        return None
    return f"own votes lost; at block {status.height:,} of {status.height_known:,}"


def _quorum(status: Status) -> str | None:
    if status.validators_connected >= status.quorum:
        return None
    return f"{status.validators_connected} of {status.quorum} needed validators reachable"


def _catching_up(status: Status) -> str | None:
    behind = status.height_known - status.height
    if status.phase != "catching-up" and behind <= BLOCKS_BEHIND_MAX:
        return None
    return f"{max(behind, 0):,} blocks behind"


def _stalled(status: Status) -> str | None:
    if not status.last_block_ms or status.phase != "running":
        return None
    quiet = status.now_ms - status.last_block_ms
    limit = STALL_INTERVALS * status.idle_block_interval_ms
    return f"no block for {quiet // 1000} s" if quiet > limit else None


def _view_change(status: Status) -> str | None:
    if status.view_change_ms <= VIEW_CHANGE_GRACE_MS:
        return None
    return f"electing a primary for {status.view_change_ms / 1000:.1f} s (view {status.view})"


def _conservation(status: Status) -> str | None:
    if not status.conservation_error:
        return None
    return f"accounts differ from the supply by {status.conservation_error}"


def _peers_missing(status: Status) -> str | None:
    missing = [peer.name for peer in status.peers if not peer.connected]
    if not missing:
        return None
    shown = ", ".join(missing[:4]) + (f" and {len(missing) - 4} more" if len(missing) > 4 else "")
    return f"not connected: {shown}"


def _clock(status: Status) -> str | None:
    if abs(status.clock_offset_ms) <= CLOCK_OFFSET_MS_MAX:
        return None
    return f"{status.clock_offset_ms:+} ms against the other nodes"


def _disk_percent(status: Status) -> int:
    return 100 * status.disk_free_bytes // max(status.disk_size_bytes, 1)


def _disk_full(status: Status) -> str | None:
    free = _disk_percent(status)
    return f"{free} % free" if free < DISK_ERROR_PERCENT else None


def _disk_low(status: Status) -> str | None:
    free = _disk_percent(status)
    return f"{free} % free" if free < DISK_WARNING_PERCENT else None


def _mempool(status: Status) -> str | None:
    limit = status.mempool_count_max * MEMPOOL_FULL_PERCENT // 100
    return f"{status.mempool_count:,} waiting" if status.mempool_count > limit else None


def _record(status: Status) -> str | None:
    count = status.records_damaged
    return (
        None if not count else f"{count} record{'s' if count > 1 else ''} cannot be read any more"
    )


def _no_lie(status: Status) -> str | None:
    if status.faults_tolerated:
        return None
    return f"{status.validators} validators tolerate no lie"


def _cosigners(status: Status) -> str | None:
    """Full sets are never short: W is at most n - f."""
    sure = status.log_cosigners - status.faults_tolerated
    if not status.log_cosigners_needed or sure >= status.log_cosigners_needed:
        return None
    return (
        f"{status.log_cosigners} of {status.validators} validators cosign, "
        f"{status.log_cosigners_needed} are needed and {status.faults_tolerated} may fail"
    )


def _issuers(status: Status) -> str | None:
    if not status.log_cosigners_needed or status.log_issuers > status.faults_tolerated:
        return None
    return (
        f"{status.log_issuers} of {status.validators} validators issue, and "
        f"{status.faults_tolerated} may fail"
    )


ITEMS: Final = (
    HealthItem(
        code="starting",
        title="Node is starting",
        severity=Severity.INFO,
        blocks_ready=True,
        next_step="no action needed",
        judge=_starting,
    ),
    HealthItem(
        code="stopping",
        title="Node is stopping",
        severity=Severity.INFO,
        blocks_ready=True,
        next_step="start it again with `hypermesh node run`",
        judge=_stopping,
    ),
    HealthItem(
        code="recovering",
        title="Node lost its voting record and must not vote yet",
        severity=Severity.WARNING,
        blocks_ready=True,
        next_step="no action needed while a quorum of other nodes is up",
        judge=_recovering,
    ),
    HealthItem(
        code="quorum-missing",
        title="Too few validators are reachable to agree on anything",
        severity=Severity.ERROR,
        blocks_ready=True,
        next_step="start the missing nodes; check addresses in [peers] and firewalls for UDP",
        depends_on=("starting", "stopping"),
        judge=_quorum,
    ),
    HealthItem(
        code="catching-up",
        title="Node fetches blocks it missed",
        severity=Severity.INFO,
        blocks_ready=True,
        next_step="no action needed",
        depends_on=("starting", "stopping", "recovering"),
        judge=_catching_up,
    ),
    HealthItem(
        code="stalled",
        title="No block was agreed for a long time",
        severity=Severity.ERROR,
        blocks_ready=True,
        next_step="see `hypermesh cluster status` or the other nodes' status for who is missing",
        depends_on=("quorum-missing", "catching-up"),
        judge=_stalled,
    ),
    HealthItem(
        code="view-change",
        title="Validators are electing a new primary",
        severity=Severity.WARNING,
        blocks_ready=False,
        next_step="no action needed unless it lasts; then check the network between validators",
        depends_on=("quorum-missing", "starting"),
        judge=_view_change,
    ),
    HealthItem(
        code="conservation-broken",
        title="The sum of all accounts is not the supply",
        severity=Severity.ERROR,
        blocks_ready=True,
        next_step="stop this node, keep its home folder, report it: this is a defect",
        judge=_conservation,
    ),
    HealthItem(
        code="disk-full",
        title="The disk is nearly full",
        severity=Severity.ERROR,
        blocks_ready=False,
        next_step="free space now: the node stops rather than vote without a record",
        judge=_disk_full,
    ),
    HealthItem(
        code="disk-low",
        title="The disk is filling up",
        severity=Severity.WARNING,
        blocks_ready=False,
        next_step="free space or move the home folder to a bigger disk",
        depends_on=("disk-full",),
        judge=_disk_low,
    ),
    HealthItem(
        code="peers-missing",
        title="Some known nodes are not connected",
        severity=Severity.WARNING,
        blocks_ready=False,
        next_step="check that they run and that their address in [peers] is right",
        depends_on=("quorum-missing", "starting", "stopping"),
        judge=_peers_missing,
    ),
    HealthItem(
        code="clock-offset",
        title="This machine's clock differs from the others",
        severity=Severity.WARNING,
        blocks_ready=False,
        next_step="run a time service such as chrony or systemd-timesyncd",
        judge=_clock,
    ),
    HealthItem(
        code="mempool-full",
        title="Many payloads wait to be agreed",
        severity=Severity.WARNING,
        blocks_ready=False,
        next_step="slow the clients down, or add processor cores",
        judge=_mempool,
    ),
    HealthItem(
        code="cosigners-short",
        title="Too few validators have a cosigner key to be sure of cosigned checkpoints",
        severity=Severity.WARNING,
        blocks_ready=False,
        next_step="move validators that have none to homes with log keys: "
        "`hypermesh validator propose --rotate NAME=HOME`",
        judge=_cosigners,
    ),
    HealthItem(
        code="issuers-short",
        title="Too few validators have an issuing certificate to be sure of new certificates",
        severity=Severity.WARNING,
        blocks_ready=False,
        next_step="move validators to homes whose issuing key the root certified (`hypermesh ca "
        "sign-issuer`): `hypermesh validator propose --rotate NAME=HOME`",
        judge=_issuers,
    ),
    HealthItem(
        code="record-damaged",
        title="A certificate in consensus.db is damaged",
        severity=Severity.ERROR,
        blocks_ready=False,
        next_step="look at the disk; the next start refuses this file: while all others are up, "
        "recover this node as after a lost disk",
        judge=_record,
    ),
    HealthItem(
        code="no-lie-tolerated",
        title="So few validators tolerate a crash at most, not a lie",
        severity=Severity.INFO,
        blocks_ready=False,
        next_step="run at least 4 validators where they do not trust each other",
        judge=_no_lie,
    ),
)
