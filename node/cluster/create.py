"""Make the files of a network: keys, genesis, homes, enrolment key, treasury wallet, root key.

Everything is made in a folder beside the final one and renamed at the end, so a failure leaves
nothing half made. Each secret is written once, with mode 0600.
"""

from __future__ import annotations

import os
import secrets
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from node.cluster.manifest import Cluster, Member, member_at
from node.config.explain import toml_value
from node.errors import ClusterExists, HomeExists
from node.home import Home, write_new
from node.limits import NODES_PER_CORE_AT_EASE, VIEW_TIMEOUT_MS
from node.wallet import create_wallet

if TYPE_CHECKING:
    from native.keys import SecretKey
    from node.core.genesis import Genesis
    from trustchain.runtime.ceremony import Ceremony, ValidatorKeys

TRUST_DOMAIN: Final = "mesh"
ENROLMENT_PATTERNS: Final = (f"*.{TRUST_DOMAIN}",)  # alice.mesh, web.demo.mesh, and no name outside
TREASURY_NAME: Final = "treasury"
TREASURY_CAES: Final = 100_000_000  # of 10^9; the rest stays with the ledger's own treasury
PASSPHRASE_FILE: Final = "passphrase"
LOCAL_IDLE_BLOCK_INTERVAL_MS: Final = 2_000  # `wait --height +10` ends while somebody watches


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeHome:
    """What `node init` made."""

    node_id: str
    chain: str
    role: str
    notes: tuple[str, ...] = ()


def create_cluster(
    folder: Path,
    *,
    name: str,
    nodes: int,
    base_port: int,
    passphrase: str | None,
    rotation_blocks: int = 0,
) -> Cluster:
    """Make a cluster of `nodes` validators in `folder`.

    Without a passphrase a random one is made and left beside the root key. Raises `ClusterExists`
    and `GenesisInvalid`.
    """
    if folder.exists():
        raise ClusterExists(
            f"{folder} exists already",
            hint=f"choose another name, or remove it with `hypermesh cluster destroy {name}`",
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = folder.with_name(f".{folder.name}.{secrets.token_hex(4)}")
    unfinished.mkdir(mode=0o700)
    try:
        made = _make(
            unfinished,
            name=name,
            nodes=nodes,
            base_port=base_port,
            secret=passphrase,
            rotation_blocks=rotation_blocks,
        )
        unfinished.rename(folder)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise
    return Cluster(
        folder=folder,
        name=name,
        chain=made.chain,
        base_port=base_port,
        members=tuple(
            member_at(folder, at, member.node_id, base_port)
            for at, member in enumerate(made.members)
        ),
    )


def create_single(
    folder: Path, *, name: str, chain: str, base_port: int, passphrase: str | None
) -> MadeHome:
    """Make a home that is a chain of one validator; the secrets for later lie inside it."""
    _require_new(folder)
    folder.mkdir(parents=True, exist_ok=True)
    secret = _root_folder(folder / "offline", passphrase)
    treasury = create_wallet(folder / "wallets", TREASURY_NAME, secret)
    key, ceremony, genesis = _genesis(chain, (name,), treasury.address)
    ceremony.save_root(folder / "offline", secret)
    ceremony.save_enrolment(folder)
    home = Home(folder)
    _write_home(
        home,
        genesis=genesis,
        key=key[0],
        validator_keys=ceremony.validators[0],
        config=node_toml(name=name, base_port=base_port, host="::1", peers={}),
    )
    return MadeHome(
        node_id=key[0].node_id.hex(),
        chain=genesis.label,
        role="validator",
        notes=(
            f"Move {folder / 'offline'} to a safe place: it holds the root key of all "
            "certificates. The node never needs it.",
        ),
    )


def create_observer(folder: Path, *, name: str, base_port: int, known: Path) -> MadeHome:
    """Make the home of a node that joins the chain of another home, and observes at first.

    The genesis and the addresses are taken from `known`, the home of a node of that chain. Its
    keys of the certificate log are made as well; they count once it is voted in.
    """
    from native.keys import SecretKey
    from native.values import Algorithm
    from node.config.load import load_config
    from node.logkeys import make_log_keys
    from node.preflight import load_key, read_genesis
    from trustchain.runtime.ceremony import ValidatorKeys

    _require_new(folder)
    other = Home(known)
    genesis = read_genesis(other.genesis)
    config = load_config(other.config).config
    peers = {str(node_id): str(address) for node_id, address in config.peers.items()}
    peers[load_key(other.node_key).node_id.hex()] = str(config.transport.listen)
    folder.mkdir(parents=True, exist_ok=True)
    key = SecretKey.generate(Algorithm.FALCON_512)
    _write_home(
        Home(folder),
        genesis=genesis,
        key=key,
        validator_keys=ValidatorKeys.draw(),
        config=node_toml(
            name=name,
            base_port=base_port,
            host="::1",
            peers=peers,
            role="observer",
            idle_block_interval_ms=config.consensus.idle_block_interval_ms,
        ),
    )
    request = make_log_keys(Home(folder))
    return MadeHome(
        node_id=key.node_id.hex(),
        chain=genesis.label,
        role="observer",
        notes=(
            f"To issue certificates as a validator, have {request} certified before it is "
            "proposed: hypermesh ca sign-issuer.",
        ),
    )


def node_toml(
    *,
    name: str,
    base_port: int,
    host: str,
    peers: dict[str, str],
    idle_block_interval_ms: int | None = None,
    view_timeout_ms: int = VIEW_TIMEOUT_MS,
    role: str = "validator",
) -> str:
    """Write the configuration of a new home: only what is not a default."""
    from node.cluster.manifest import HTTP_PORT_OFFSET, STOQ_PORT_OFFSET

    lines = [
        "# One node of a HyperMesh network. Every key and its default: hypermesh config show",
        "",
        "[node]",
        f"name = {toml_value(name)}",
        f'role = "{role}"',
        "",
        "[transport]",
        f'listen = "[{host}]:{base_port + STOQ_PORT_OFFSET}"',
        "",
        "[http]",
        f'listen = "[::1]:{base_port + HTTP_PORT_OFFSET}"',
        "",
        *_consensus(idle_block_interval_ms, view_timeout_ms),
        "[peers]",
        *(f"{toml_value(node_id)} = {toml_value(address)}" for node_id, address in peers.items()),
    ]
    return "\n".join(lines) + "\n"


def _consensus(idle_block_interval_ms: int | None, view_timeout_ms: int) -> list[str]:
    lines = []
    if idle_block_interval_ms:
        lines += [
            "# Lively for trying things out; the default is 10000.",
            f"idle_block_interval_ms = {idle_block_interval_ms}",
        ]
    if view_timeout_ms != VIEW_TIMEOUT_MS:
        lines += [
            f"# Many nodes share the cores of this machine; the default is {VIEW_TIMEOUT_MS}.",
            f"view_timeout_ms = {view_timeout_ms}",
        ]
    return ["[consensus]", *lines, ""] if lines else []


def shared_view_timeout_ms(nodes: int, cores: int) -> int:
    """Patience with a primary where all nodes of a cluster share one machine.

    The default once for every `NODES_PER_CORE_AT_EASE` nodes of each core, rounded down: agreement
    under load takes as much longer. Nodes without that patience depose honest primaries.
    """
    return VIEW_TIMEOUT_MS * max(1, nodes // (NODES_PER_CORE_AT_EASE * cores))


def _make(
    folder: Path,
    *,
    name: str,
    nodes: int,
    base_port: int,
    secret: str | None,
    rotation_blocks: int,
) -> Cluster:
    names = tuple(f"n{at}" for at in range(nodes))
    secret = _root_folder(folder / "offline", secret)
    treasury = create_wallet(folder / "wallets", TREASURY_NAME, secret)
    keys, ceremony, genesis = _genesis(name, names, treasury.address, rotation_blocks)
    ceremony.save_root(folder / "offline", secret)
    ceremony.save_enrolment(folder)
    write_new(folder / "genesis.json", genesis.to_json().encode())
    members = [member_at(folder, at, key.node_id.hex(), base_port) for at, key in enumerate(keys)]
    for member, key, own in zip(members, keys, ceremony.validators, strict=True):
        _write_home(
            member.home,
            genesis=genesis,
            key=key,
            validator_keys=own,
            config=node_toml(
                name=member.name,
                base_port=member.stoq_port - 2,
                host="::1",
                peers=_peers_of(member, members),
                idle_block_interval_ms=LOCAL_IDLE_BLOCK_INTERVAL_MS,
                view_timeout_ms=shared_view_timeout_ms(nodes, os.cpu_count() or 1),
            ),
        )
    cluster = Cluster(
        folder=folder,
        name=name,
        chain=genesis.label,
        base_port=base_port,
        members=tuple(members),
    )
    cluster.save()
    return cluster


def _genesis(
    name: str, validators: Sequence[str], treasury: str, rotation_blocks: int = 0
) -> tuple[list[SecretKey], Ceremony, Genesis]:
    """Draw all keys and put their public halves into a genesis."""
    from caesar.core.addresses import parse_address
    from caesar.core.genesis import LedgerGenesis
    from native.keys import SecretKey
    from native.values import Algorithm, Amount
    from node.amounts import UNIT
    from node.core.genesis import Genesis, GenesisValidator
    from trustchain.runtime.ceremony import hold_ceremony

    now_ms = time.time_ns() // 1_000_000
    keys = [SecretKey.generate(Algorithm.FALCON_512) for _ in validators]
    ceremony = hold_ceremony(
        validators,
        trust_domain=TRUST_DOMAIN,
        now_s=now_ms // 1000,
        patterns=ENROLMENT_PATTERNS,
    )
    allocation = (parse_address(treasury), Amount(TREASURY_CAES * UNIT))
    genesis = Genesis(
        name=name,
        time_ms=now_ms,
        validators=tuple(
            GenesisValidator(name=own, key=key.public)
            for own, key in zip(validators, keys, strict=True)
        ),
        log=ceremony.genesis,
        ledger=LedgerGenesis(allocations=(allocation,)),
        rotation_blocks=rotation_blocks,
    )
    return keys, ceremony, genesis


def _write_home(
    home: Home,
    *,
    genesis: Genesis,
    key: SecretKey,
    validator_keys: ValidatorKeys,
    config: str,
) -> None:
    from consensus.runtime.store import create_consensus_store
    from native.values import Digest

    home.path.mkdir(mode=0o700, exist_ok=True)
    for folder in (home.keys, home.data, home.run, home.logs):
        folder.mkdir(mode=0o700, exist_ok=True)
    write_new(home.config, config.encode())
    write_new(home.genesis, genesis.to_json().encode())
    validator_keys.save(home.keys)
    create_consensus_store(
        home.consensus_database, chain_id=genesis.chain_id, node_id=Digest(key.node_id)
    )
    key.save(home.node_key)  # last: a home with a node key is a whole home


def _root_folder(folder: Path, passphrase: str | None) -> str:
    """Make the folder for the root key; return its passphrase, drawn here if none was given."""
    folder.mkdir(mode=0o700)
    if passphrase is None:
        passphrase = secrets.token_urlsafe(24)
        write_new(folder / PASSPHRASE_FILE, f"{passphrase}\n".encode(), mode=0o600)
    return passphrase


def _peers_of(member: Member, members: Sequence[Member]) -> dict[str, str]:
    return {other.node_id: f"[::1]:{other.stoq_port}" for other in members if other is not member}


def _require_new(folder: Path) -> None:
    home = Home(folder)
    if home.node_key.exists() or home.config.exists():
        raise HomeExists(
            f"{folder} already holds a node",
            hint="choose another --home; a key that has voted must never be replaced",
        )
