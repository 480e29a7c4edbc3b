"""What a node says about itself, as one frozen value and as one screen of text.

The same value feeds `/status`, `node status`, `cluster status` and the health items.
"""

from __future__ import annotations

from dataclasses import MISSING, asdict, dataclass, fields
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from node.health import Finding

PHASES: Final = ("starting", "recovering", "catching-up", "running", "stopping")


@dataclass(frozen=True, slots=True, kw_only=True)
class PeerStatus:
    """One other validator, as seen from here."""

    name: str
    node_id: str
    address: str
    connected: bool
    round_trip_ms: float | None = None
    remote_address: str = ""
    dialled: bool = False
    path_mtu_bytes: int = 0
    key_exchange: str = ""
    signature: str = ""
    resumed: bool = False
    streams: int = 0
    packets_lost: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """State of one node at one moment. Times are milliseconds; digests are hexadecimal."""

    name: str
    role: str
    node_id: str
    version: str
    chain: str  # name-xxxxxxxx
    chain_id: str
    phase: str  # one of PHASES
    uptime_ms: int
    now_ms: int  # unix time of this status
    height: int
    height_known: int  # the highest certified height this node has heard of
    state_root: str
    epoch: int = 0  # of the validator set
    epoch_last: int = 0  # its last block, 0 while no other set is decided on
    view: int
    primary: str
    voting: bool  # False while starting or recovering
    view_change_ms: int  # how long the current view change has been going on, 0 for none
    last_block_ms: int  # unix time the newest block was executed at, 0 for none yet
    idle_block_interval_ms: int
    validators: int
    quorum: int
    faults_tolerated: int  # lies, not crashes
    validators_connected: int  # this node included when it is a validator
    peers: tuple[PeerStatus, ...]
    mempool_count: int
    mempool_count_max: int
    mempool_bytes: int
    log_size: int
    supply: int
    conservation_error: int
    transactions_total: int
    rss_bytes: int
    disk_free_bytes: int
    disk_size_bytes: int
    clock_offset_ms: int  # median of peers' clocks against ours
    data_format: int
    stoq: str
    http: str
    log_cosigners: int = 0  # validators of the present set whose cosignatures count
    log_cosigners_needed: int = 0  # W: so many of them make a checkpoint count
    log_issuers: int = 0  # validators of the present set that have an issuing certificate
    height_oldest: int = 1  # the lowest block that was not pruned
    mempool_oldest_ms: int = 0  # age of the oldest payload that waits, 0 for none
    records_damaged: int = 0  # certificates in consensus.db found damaged since the start
    stall: str = ""  # why nothing is executed although something should be; empty while all is well


def to_json(status: Status, findings: Sequence[Finding]) -> dict[str, Any]:
    """Render for `/status` and `--output json`; amounts are decimal strings."""
    document = asdict(status)
    document["peers"] = [asdict(peer) for peer in status.peers]
    for name in ("supply", "conservation_error"):
        document[name] = str(document[name])
    document["ready"] = not any(finding.blocks_ready for finding in findings)
    document["health"] = [finding.to_json() for finding in findings]
    return document


def from_json(document: Mapping[str, Any]) -> Status:
    """Read what `to_json` wrote; unknown keys are ignored, so an older reader still works."""
    values = {
        item.name: document[item.name]
        for item in fields(Status)
        if item.default is MISSING or item.name in document
    }
    for name in ("supply", "conservation_error"):
        values[name] = int(values[name])
    names = {item.name for item in fields(PeerStatus)}
    values["peers"] = tuple(
        PeerStatus(**{key: value for key, value in peer.items() if key in names})
        for peer in document["peers"]
    )
    return Status(**values)


def to_text(status: Status, findings: Sequence[Finding]) -> str:
    """Render one screen: why not ready first, each reason with its next step."""
    ready = not any(finding.blocks_ready for finding in findings)
    title = (
        f"node {status.name} ({status.role})  v{status.version}  up {duration(status.uptime_ms)}"
    )
    lines = [f"{title:<72}{'READY' if ready else 'NOT READY'}"]
    lines += [
        f"  {finding.mark} {finding.item.code:<20} {finding.detail:<44} {finding.item.next_step}"
        for finding in findings
    ]
    lines.append("")
    behind = f" / {status.height_known:,}" if status.height_known > status.height else ""
    connected = sum(peer.connected for peer in status.peers)
    disk = 100 - 100 * status.disk_free_bytes // max(status.disk_size_bytes, 1)
    lines.append(
        f"height {status.height:,}{behind}   epoch {status.epoch}   "
        f"view {status.view} (primary {status.primary})   "
        f"peers {connected} of {len(status.peers)}   clock {status.clock_offset_ms:+} ms"
    )
    lines.append(
        f"chain  {status.chain}   validators {status.validators}, quorum {status.quorum}, "
        f"tolerates {status.faults_tolerated} faulty   "
        f"{'voting' if status.voting else 'not voting'}"
    )
    lines.append(
        f"ledger {status.transactions_total:,} transactions   waiting {status.mempool_count:,}"
        f"{_oldest(status)}   "
        f"certificates {status.log_size:,}   conservation error {status.conservation_error}"
    )
    lines.append(
        f"memory {status.rss_bytes // 1_000_000} MB   disk {disk} % full   "
        f"data format {status.data_format}   STOQ {status.stoq}   HTTP {status.http or 'off'}"
    )
    if status.stall:
        lines.insert(-4, f"stall  {status.stall}")
    lines.append(f"root   {status.state_root}")
    lines.append(f"id     {status.node_id}")
    return "\n".join(lines)


def _oldest(status: Status) -> str:
    return f" (oldest {duration(status.mempool_oldest_ms)})" if status.mempool_count else ""


def duration(milliseconds: int) -> str:
    """Write a time span in its two biggest units: 3h12m, 4m05s, 12s."""
    seconds = milliseconds // 1000
    days, hours, minutes = seconds // 86_400, seconds // 3600 % 24, seconds // 60 % 60
    if days:
        return f"{days}d{hours:02}h"
    if hours:
        return f"{hours}h{minutes:02}m"
    if minutes:
        return f"{minutes}m{seconds % 60:02}s"
    return f"{seconds}s"
