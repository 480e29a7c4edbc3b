"""What a cluster on this machine is: `cluster.json` in a folder beside the nodes' homes.

<clusters>/<name>/  cluster.json  genesis.json  n0/ n1/ …  enrolment.key  wallets/  offline/
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from node.errors import ClusterNotFound, InvalidArgument, NodeNotFound
from node.home import Home, data_folder, write_new
from node.inputs import parse_json
from node.limits import (
    CLUSTER_NODES_MAX,
    CLUSTER_PORTS_PER_NODE,
    ROTATION_BLOCKS_MAX,
    ROTATION_BLOCKS_MIN,
)
from node.processes import Listen

MANIFEST_VERSION: Final = 1
STOQ_PORT_OFFSET: Final = 2
HTTP_PORT_OFFSET: Final = 3
NAME_PATTERN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node of a cluster."""

    name: str
    node_id: str
    home: Home
    stoq_port: int
    http_port: int

    @property
    def url(self) -> str:
        """Where its HTTP interface is."""
        return f"http://[::1]:{self.http_port}"

    @property
    def listens(self) -> tuple[Listen, Listen]:
        """The addresses it binds."""
        return (
            Listen(host="::1", port=self.stoq_port, protocol="udp", key="transport.listen"),
            Listen(host="::1", port=self.http_port, protocol="tcp", key="http.listen"),
        )

    @property
    def process_file(self) -> Path:
        """Which process `cluster up` started: `{"pid": …, "started": …}`."""
        return self.home.run / "process.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """A cluster as its manifest describes it."""

    folder: Path
    name: str
    chain: str
    base_port: int
    members: tuple[Member, ...]

    @property
    def genesis(self) -> Path:
        """The genesis all its nodes share."""
        return self.folder / "genesis.json"

    @property
    def enrolment_key(self) -> Path:
        """Key that authorises certificates."""
        return self.folder / "enrolment.key"

    @property
    def wallets(self) -> Path:
        """Folder of the wallets that genesis pays."""
        return self.folder / "wallets"

    @property
    def offline(self) -> Path:
        """Folder of what the operator should move away: the root key and its passphrase."""
        return self.folder / "offline"

    def member(self, name: str) -> Member:
        """Return the node of this name, or raise."""
        for member in self.members:
            if member.name == name:
                return member
        names = ", ".join(member.name for member in self.members)
        raise NodeNotFound(f"cluster {self.name} has no node {name!r}", hint=f"its nodes: {names}")

    def save(self) -> None:
        """Write the manifest; raises FileExistsError over another one."""
        document = {
            "version": MANIFEST_VERSION,
            "name": self.name,
            "chain": self.chain,
            "base_port": self.base_port,
            "nodes": [{"name": member.name, "node_id": member.node_id} for member in self.members],
        }
        write_new(self.folder / "cluster.json", json.dumps(document, indent=2).encode() + b"\n")


def member_at(folder: Path, index: int, node_id: str, base_port: int) -> Member:
    """Lay out one node: ports by the fixed layout, home by its name."""
    base = base_port + CLUSTER_PORTS_PER_NODE * index
    return Member(
        name=f"n{index}",
        node_id=node_id,
        home=Home(folder / f"n{index}"),
        stoq_port=base + STOQ_PORT_OFFSET,
        http_port=base + HTTP_PORT_OFFSET,
    )


def clusters_folder(chosen: Path | None = None) -> Path:
    """Return --dir, $HYPERMESH_CLUSTERS, or the default."""
    if chosen is not None:
        return chosen
    variable = os.environ.get("HYPERMESH_CLUSTERS")
    return Path(variable).expanduser() if variable else data_folder() / "clusters"


def check_name(name: str) -> str:
    """Return a usable cluster name or raise."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} is not a cluster name",
            hint="1 to 32 lower-case letters, digits and inner hyphens, for example 'demo'",
        )
    return name


def check_node_name(name: str) -> str:
    """Return a usable node name or raise."""
    if not NAME_PATTERN.fullmatch(name):
        raise InvalidArgument(
            f"{name!r} is not a node name",
            hint="1 to 32 lower-case letters, digits and inner hyphens, for example 'n0'",
        )
    return name


def check_layout(nodes: int, base_port: int) -> None:
    """Raise unless so many nodes fit from this port on."""
    if not 1 <= nodes <= CLUSTER_NODES_MAX:
        raise InvalidArgument(
            f"a cluster has 1 to {CLUSTER_NODES_MAX} nodes, not {nodes}",
            hint="4 nodes tolerate one faulty node; try --nodes 4",
        )
    last = base_port + CLUSTER_PORTS_PER_NODE * nodes
    if not (base_port >= 1024 and last <= 65_535):
        raise InvalidArgument(
            f"ports {base_port} to {last} do not fit between 1024 and 65535",
            hint="each node takes ten ports; try --base-port 9290",
        )


def check_rotation(rotation_blocks: int) -> None:
    """Raise unless primaries may take turns of so many blocks."""
    least, most = ROTATION_BLOCKS_MIN, ROTATION_BLOCKS_MAX
    if rotation_blocks and not least <= rotation_blocks <= most:
        raise InvalidArgument(
            f"a primary leads {least} to {most} blocks, not {rotation_blocks}",
            hint="0 keeps a primary until it fails; try --rotation-blocks 1000",
        )


def find_cluster(name: str, folder: Path | None = None) -> Cluster:
    """Read a cluster by its name, or by the path of its folder."""
    place = Path(name) if "/" in name else clusters_folder(folder) / check_name(name)
    manifest = place / "cluster.json"
    if not manifest.is_file():
        raise ClusterNotFound(
            f"there is no cluster at {place}",
            hint=f"make one with `hypermesh cluster new {place.name}`, or name the folder of all "
            "clusters with --dir",
        )
    try:
        document = parse_json(manifest.read_bytes())
        base_port = int(document["base_port"])
        members = tuple(
            member_at(place, index, str(node["node_id"]), base_port)
            for index, node in enumerate(document["nodes"])
        )
        found = Cluster(
            folder=place,
            name=str(document["name"]),
            chain=str(document["chain"]),
            base_port=base_port,
            members=members,
        )
    except (ValueError, KeyError, TypeError) as error:
        raise ClusterNotFound(
            f"{manifest} is damaged: {error}", hint="restore the file, or make a new cluster"
        ) from None
    return found
