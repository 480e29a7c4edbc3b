"""What may be set, and nothing else: unknown keys are errors.

Every field's description is the text that `config show` and the reference print. What cannot be
changed safely is not a key.
"""

from __future__ import annotations

import re
from ipaddress import AddressValueError, IPv4Address, IPv6Address
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PlainValidator

from consensus.limits import SNAPSHOT_PERIOD_BLOCKS
from node.limits import RETAIN_BLOCKS_MIN, VIEW_TIMEOUT_MS

ADDRESS_EXAMPLE: Final = '"[::1]:9292"'
NAME_PATTERN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
NODE_ID_PATTERN: Final = re.compile(r"[0-9a-f]{64}")
PATH_MTU_BYTES_MIN: Final = 1_200  # RFC 9000, section 14
PATH_MTU_BYTES_MAX: Final = 65_000


def split_address(text: str) -> tuple[str, int]:
    """Split `[host]:port` into an IPv6 host and a port; a ValueError says what is wrong."""
    host, separator, port = text.rpartition(":")
    bracketed = host.startswith("[") and host.endswith("]")
    bare = host[1:-1] if bracketed else host
    if separator and _is_ipv4(bare):
        raise ValueError(
            f"{bare} is IPv4 and HyperMesh is IPv6 only. Write the IPv6 address of this machine, "
            f"for example {ADDRESS_EXAMPLE}, or [::] for all of them"
        )
    if not (separator and bracketed):
        raise ValueError(
            f"not an address: an IPv6 address in brackets, a colon and a port, for example "
            f"{ADDRESS_EXAMPLE}"
        )
    try:
        IPv6Address(bare)
    except AddressValueError:
        raise ValueError(f"{bare} is not an IPv6 address. Example: {ADDRESS_EXAMPLE}") from None
    if not port.isascii() or not port.isdigit() or not 1 <= int(port) <= 65_535:
        raise ValueError(f"the port must be 1 to 65535, not {port!r}. Example: {ADDRESS_EXAMPLE}")
    return bare, int(port)


def _is_ipv4(text: str) -> bool:
    try:
        IPv4Address(text.removeprefix("::ffff:"))
    except AddressValueError:
        return False
    return True


def _address(text: str) -> str:
    split_address(text)
    return text


def _name(text: str) -> str:
    if not NAME_PATTERN.fullmatch(text):
        raise ValueError(
            "a name is 1 to 32 lower-case letters, digits and inner hyphens, for example 'n0'"
        )
    return text


def _node_id(text: str) -> str:
    if not NODE_ID_PATTERN.fullmatch(text):
        raise ValueError(
            "a node id is 64 lower-case hexadecimal digits, as `hypermesh node status` shows it"
        )
    return text


def _path_mtu(value: object) -> int | Literal["link"]:
    """One check for both forms, so that a wrong value is one problem."""
    if value == "link":
        return "link"
    if isinstance(value, str) and value.isascii() and value.isdecimal() and len(value) <= 5:
        value = int(value)
    if isinstance(value, int) and PATH_MTU_BYTES_MIN <= value <= PATH_MTU_BYTES_MAX:
        return value
    raise ValueError(
        f'must be from {PATH_MTU_BYTES_MIN:,} to {PATH_MTU_BYTES_MAX:,}, or "link" for what the '
        "interfaces of this machine carry"
    )


def _retain_blocks(value: int) -> int:
    if value and value < RETAIN_BLOCKS_MIN:
        raise ValueError(f"must be 0 (keep all) or at least {RETAIN_BLOCKS_MIN:,}")
    return value


RetainBlocks = Annotated[int, Field(ge=0, le=2**53), AfterValidator(_retain_blocks)]
PathMTU = Annotated[int | Literal["link"], PlainValidator(_path_mtu)]
Address = Annotated[str, AfterValidator(_address)]
Name = Annotated[str, AfterValidator(_name)]
NodeIdText = Annotated[str, AfterValidator(_node_id)]


class Section(BaseModel):
    """Base of every table: frozen, strict, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, hide_input_in_errors=True)


class NodeSection(Section):
    """Who this node is."""

    name: Name = Field(default="n0", description="Name shown in logs and status.")
    role: Literal["validator", "observer"] = Field(
        default="validator",
        description="How the node starts. A validator is named by genesis. An observer follows "
        "and serves the chain, and votes once it has been voted in (`hypermesh validator`).",
    )


class TransportSection(Section):
    """STOQ: how nodes reach each other."""

    listen: Address = Field(
        default="[::]:9292", description="IPv6 address and UDP port other nodes dial."
    )
    engine: Literal["rust", "aioquic"] = Field(
        default="rust",
        description="Which QUIC engine carries the connections. aioquic is the reference: the same "
        "wire, slowly, without path MTU discovery and ECN.",
    )
    path_mtu_bytes_max: PathMTU = Field(
        default=1452,
        description="Biggest UDP payload that path MTU discovery may try. Raise it only on "
        'networks with jumbo frames, or write "link": the largest MTU of the interfaces that are '
        "up, less headers.",
    )
    idle_timeout_ms: int = Field(
        default=10_000,
        ge=1_000,
        le=120_000,
        description="Silence after which a connection counts as lost.",
    )
    congestion: Literal["cubic", "bbr"] = Field(
        default="cubic",
        description="Congestion controller. BBR is faster where packets are lost for other reasons "
        "than congestion, as on wireless links.",
    )
    retry: Literal["auto", "always", "never"] = Field(
        default="auto",
        description="When a dialler must prove its address first: under load, always or never. "
        "Related metric: hypermesh_transport_retries_sent_total.",
    )
    resumption: bool = Field(
        default=True,
        description="Whether a peer seen before may skip the signatures of the handshake. Early "
        "data stays off.",
    )
    connections_max: int = Field(
        default=256,
        ge=8,
        le=65_536,
        description="Connections at a time; one /64 gets at most half of them. Related metric: "
        "hypermesh_transport_connections.",
    )
    memory_mib_max: int = Field(
        default=2_048,
        ge=64,
        le=1_048_576,
        description="What the windows of all peers together may make this node hold. Related "
        "metric: hypermesh_transport_memory_granted_bytes.",
    )
    key_log_path: str = Field(
        default="",
        description="File that gets the secrets of every connection, for Wireshark. Whoever reads "
        "it reads all traffic: for finding faults on test networks only. Empty is off.",
    )
    qlog_folder: str = Field(
        default="",
        description="Folder that gets a trace of every connection, for qvis. Slows the node and "
        "shows whom it talks to. Empty is off.",
    )


class ConsensusSection(Section):
    """Agreement. All validators of a cluster should use the same values."""

    view_timeout_ms: int = Field(
        default=VIEW_TIMEOUT_MS,
        ge=100,
        le=60_000,
        description="First patience with a primary before a view change; adapts upwards. Raise it "
        "when validators are far apart. Related metric: hypermesh_consensus_view_changes_total.",
    )
    idle_block_interval_ms: int = Field(
        default=10_000,
        ge=500,
        le=600_000,
        description="An idle primary proposes an empty batch this often, so that a dead one is "
        "noticed.",
    )


class MempoolSection(Section):
    """Payloads waiting to be agreed."""

    count_max: int = Field(
        default=50_000, ge=100, le=1_000_000, description="Waiting payloads at most."
    )
    size_bytes_max: int = Field(
        default=64 * 1024 * 1024,
        ge=1024 * 1024,
        le=4 * 1024 * 1024 * 1024,
        description="Bytes of waiting payloads at most; more are refused with a typed answer.",
    )


class StorageSection(Section):
    """Databases in the home folder."""

    durability: Literal["sync", "async"] = Field(
        default="sync",
        description="sync: nothing is sent before it is on disk. async is unsafe and for "
        "benchmarks only.",
    )
    retain_blocks: RetainBlocks = Field(
        default=0,
        description=f"Blocks that are kept at most, {RETAIN_BLOCKS_MIN:,} or more; 0 keeps all. A "
        "block that any of the three limits gives up is forgotten with its body and its receipts; "
        "the ledger and the certificate log lose nothing. Related metric: "
        "hypermesh_node_pruner_oldest_height.",
    )
    retain_days: int = Field(
        default=0,
        ge=0,
        le=36_500,
        description="Days that a block is kept at most, counted in block time; 0 keeps all. The "
        f"newest {RETAIN_BLOCKS_MIN:,} blocks always stay.",
    )
    retain_bytes: int = Field(
        default=0,
        ge=0,
        le=2**60,
        description="What both databases together may hold before old blocks are forgotten; 0 "
        f"keeps all. The state and the newest {RETAIN_BLOCKS_MIN:,} blocks always stay.",
    )
    snapshot_blocks: int = Field(
        default=SNAPSHOT_PERIOD_BLOCKS,
        ge=0,
        le=1_048_576,
        description="A state snapshot is cut every so many blocks, for nodes that are far behind; "
        "0 cuts none. The newest two are kept. Equal on all nodes, so that several can serve one.",
    )


class HTTPSection(Section):
    """The HTTP interface: API, health, status and metrics."""

    enabled: bool = Field(default=True, description="Serve HTTP at all.")
    listen: Address = Field(
        default="[::1]:9293",
        description="IPv6 address and TCP port. Keep it on [::1] unless a firewall stands before "
        "it: there is no login yet.",
    )
    in_flight_max: int = Field(
        default=32,
        ge=1,
        le=256,
        description="Requests served at once; more are answered 503 with Retry-After.",
    )
    body_size_bytes_max: int = Field(
        default=1024 * 1024, ge=4_096, le=1024 * 1024, description="Biggest request body."
    )
    hosts: tuple[str, ...] = Field(
        default=(),
        strict=False,
        description="Further Host names that write requests may carry, beside localhost and the "
        "listen address.",
    )
    debug: bool = Field(
        default=False,
        description="Serve /debug, which shows what this node holds of the agreement. No secrets.",
    )


class LogSection(Section):
    """What is written to stderr."""

    level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="Least severe level that is written."
    )
    format: Literal["console", "json"] = Field(
        default="console", description="console for people, json for machines; same keys."
    )


class NodeConfig(Section):
    """Everything one node's `node.toml` may say."""

    node: NodeSection = Field(default_factory=NodeSection)
    transport: TransportSection = Field(default_factory=TransportSection)
    consensus: ConsensusSection = Field(default_factory=ConsensusSection)
    mempool: MempoolSection = Field(default_factory=MempoolSection)
    storage: StorageSection = Field(default_factory=StorageSection)
    http: HTTPSection = Field(default_factory=HTTPSection)
    log: LogSection = Field(default_factory=LogSection)
    peers: dict[NodeIdText, Address] = Field(
        default_factory=dict,
        description='Where other nodes are: node id = "[address]:port". Genesis says who they '
        "are; addresses may change without a new genesis.",
    )
