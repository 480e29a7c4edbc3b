"""Everything that can be checked about a home folder before a node starts, without a network.

`config check` shows all results; `node run` refuses to start at the first that failed. Nothing here
changes or creates a file.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from consensus.limits import SNAPSHOTS_KEPT
from node.config.load import ConfigInvalid, Loaded, Problem, load_config
from node.config.schema import NodeConfig, split_address
from node.errors import (
    AlreadyRunning,
    DatabaseInvalid,
    ExitCode,
    HomeIncomplete,
    KeyMismatch,
    KeyUnreadable,
    NodeError,
)
from node.home import Home, default_home, require_private
from node.inputs import bounded_text
from node.limits import GENESIS_FILE_SIZE_BYTES_MAX
from node.processes import Listen, PortHolder, command_line, require_free

if TYPE_CHECKING:
    from native.keys import SecretKey
    from node.core.genesis import Genesis

SQLITE_MAGIC = b"SQLite format 3\0"
PEERLESS_VALIDATORS_MAX = 2  # recovery asks a quorum of others, which so few do not have


class State(StrEnum):
    """Result of one check."""

    OK = "ok"
    WARNING = "warn"
    FAILED = "fail"
    SKIPPED = "skip"


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One thing that was looked at."""

    name: str
    state: State
    detail: str
    code: str = ""
    next_step: str = ""


@dataclass(slots=True, kw_only=True)
class Inspection:
    """All checks of one home folder, and what they read on the way."""

    home: Home
    checks: list[Check] = field(default_factory=list)
    errors: list[NodeError] = field(default_factory=list)
    loaded: Loaded | None = None
    genesis: Genesis | None = None
    node_key: SecretKey | None = None

    @property
    def ok(self) -> bool:
        """True when nothing failed; warnings do not count."""
        return not self.errors

    @property
    def problems(self) -> tuple[Problem, ...]:
        """Everything wrong with the configuration, one by one."""
        return tuple(
            problem
            for error in self.errors
            if isinstance(error, ConfigInvalid)
            for problem in error.problems
        )

    @property
    def exit_code(self) -> int:
        """Exit code of the first failure."""
        return int(self.errors[0].exit_code) if self.errors else int(ExitCode.OK)

    def failed(self, *names: str) -> bool:
        """Say whether one of these checks did not succeed."""
        return any(
            check.name in names and check.state in (State.FAILED, State.SKIPPED)
            for check in self.checks
        )


def inspect(
    home: Path | None,
    config: Path | None = None,
    flags: Sequence[str] = (),
    *,
    environment: Mapping[str, str] | None = None,
    ports: bool = True,
) -> Inspection:
    """Run every check and return all results; raises nothing that a check can hold."""
    result = Inspection(home=Home(home or default_home()))
    steps: list[tuple[str, tuple[str, ...], Callable[[], str | Check]]] = [
        ("home", (), lambda: _home(result)),
        ("configuration", (), lambda: _configuration(result, config, flags, environment)),
        ("genesis", ("home",), lambda: _genesis(result)),
        ("node key", ("home",), lambda: _node_key(result)),
        ("identity", ("configuration", "genesis", "node key"), lambda: _identity(result)),
        (
            "validator keys",
            ("configuration", "genesis", "identity"),
            lambda: _validator_keys(result),
        ),
        ("peers", ("configuration", "genesis", "node key"), lambda: _peers(result)),
        ("pruning", ("configuration",), lambda: _pruning(result)),
        ("databases", ("home", "node key"), lambda: _databases(result)),
        ("process", ("home",), lambda: _process(result)),
    ]
    if ports:
        steps.append(("ports", ("configuration", "process"), lambda: _ports(result)))
    for name, needed, step in steps:
        if result.failed(*needed):
            detail = f"needs {', '.join(item for item in needed if result.failed(item))}"
            result.checks.append(Check(name=name, state=State.SKIPPED, detail=detail))
            continue
        try:
            done = step()
        except NodeError as error:
            result.errors.append(error)
            done = Check(
                name=name,
                state=State.FAILED,
                detail=error.message,
                code=error.code,
                next_step=error.hint,
            )
        if isinstance(done, str):
            done = Check(name=name, state=State.OK, detail=done)
        result.checks.append(done)
    return result


def _home(result: Inspection) -> str:
    result.home.require_folder()
    return str(result.home.path)


def _configuration(
    result: Inspection,
    config: Path | None,
    flags: Sequence[str],
    environment: Mapping[str, str] | None,
) -> str:
    path = config or result.home.config
    result.loaded = load_config(path, environment=environment, flags=flags)
    return f"{path}, {len(result.loaded.origins)} keys set"


def _genesis(result: Inspection) -> str:
    result.genesis = read_genesis(result.home.genesis)
    count = len(result.genesis.validators)
    return f"{result.genesis.label}, {count} validator{'s' if count > 1 else ''}"


def read_genesis(path: Path) -> Genesis:
    """Read a genesis file; raise `HomeIncomplete` or `GenesisInvalid`."""
    from node.core.genesis import HINT, Genesis
    from node.errors import GenesisInvalid

    try:
        text = bounded_text(path, GENESIS_FILE_SIZE_BYTES_MAX)
    except FileNotFoundError:
        raise HomeIncomplete(
            f"{path}: missing", hint="copy genesis.json from another node of the chain"
        ) from None
    except (OSError, ValueError) as error:
        raise GenesisInvalid(f"{path}: cannot be read: {error}", hint=HINT) from None
    return Genesis.from_json(text)


def _node_key(result: Inspection) -> str:
    require_private(result.home.node_key)
    result.node_key = load_key(result.home.node_key)
    return f"node id {result.node_key.node_id.hex()}"


def load_key(path: Path, passphrase: str | None = None) -> SecretKey:
    """Read a key file; raise `KeyUnreadable` with the reason."""
    from native.errors import NativeError
    from native.keys import SecretKey

    try:
        return SecretKey.load(path, passphrase)
    except (NativeError, OSError) as error:
        raise KeyUnreadable(str(error), hint=getattr(error, "hint", "check the file")) from None


def _identity(result: Inspection) -> str:
    assert result.genesis is not None
    assert result.node_key is not None
    index = result.genesis.validator_index(result.node_key.node_id)
    if index is None and _observes(result):
        return f"observer of {result.genesis.label}"
    if index is None:
        raise KeyMismatch(
            f"keys/node.key is not the key of any validator of {result.genesis.label}",
            hint="check that genesis.json and keys/ belong together",
        )
    return f"validator {index} of {result.genesis.label}"


def _observes(result: Inspection) -> bool:
    assert result.loaded is not None
    return result.loaded.config.node.role == "observer"


def _validator_keys(result: Inspection) -> str:
    assert result.genesis is not None
    assert result.node_key is not None
    if _observes(result):
        return _joiner_keys(result)
    require_private(result.home.cosigner_key)
    require_private(result.home.issuing_key)
    index = result.genesis.validator_index(result.node_key.node_id)
    assert index is not None
    from trustchain.core.certificates import Certificate

    cosigner = load_key(result.home.cosigner_key).public
    issuing = load_key(result.home.issuing_key).public
    log = result.genesis.log
    if cosigner.raw != log.cosigner_keys[index]:
        raise KeyMismatch(
            f"keys/cosigner.key is not the cosigner key of validator {index}",
            hint="restore the keys folder that was made together with keys/node.key",
        )
    if issuing.spki != Certificate.decode(log.issuing_certificates[index]).key.spki:
        raise KeyMismatch(
            f"keys/issuing.key does not belong to the issuing certificate of validator {index}",
            hint="restore the keys folder that was made together with keys/node.key",
        )
    return "cosigner and issuing key belong to genesis"


def _joiner_keys(result: Inspection) -> str:
    """What a home that was made with `--join` brings; homes of older versions have no log keys."""
    from node.logkeys import issuing_certificate

    assert result.genesis is not None
    if not result.home.cosigner_key.exists():
        return "no cosigner key: as a validator this node would vote but not cosign"
    require_private(result.home.cosigner_key)
    load_key(result.home.cosigner_key)
    if not issuing_certificate(result.home, result.genesis.log):
        return "cosigner key, but no issuing certificate"
    return "cosigner key and issuing certificate"


def _pruning(result: Inspection) -> str | Check:
    """A node keeps every block from its oldest snapshot on, whatever the limits say."""
    assert result.loaded is not None
    storage = result.loaded.config.storage
    limited = storage.retain_blocks or storage.retain_days or storage.retain_bytes
    kept = SNAPSHOTS_KEPT * storage.snapshot_blocks
    if not limited:
        return "off: every block is kept"
    if storage.snapshot_blocks == 0:
        return Check(
            name="pruning",
            state=State.WARNING,
            detail="blocks are forgotten below a snapshot only, and storage.snapshot_blocks is 0",
            next_step="set storage.snapshot_blocks as on the other nodes, or no retain_ limit",
        )
    if 0 < storage.retain_blocks < kept:
        return Check(
            name="pruning",
            state=State.WARNING,
            detail=f"storage.retain_blocks is {storage.retain_blocks:,}, but the newest "
            f"{SNAPSHOTS_KEPT} snapshots keep up to {kept:,} blocks",
            next_step=f"set storage.retain_blocks to {kept:,} or more, or cut snapshots more often",
        )
    return "old blocks are forgotten, below the oldest snapshot only"


def _peers(result: Inspection) -> str | Check:
    assert result.loaded is not None
    assert result.genesis is not None
    assert result.node_key is not None
    own = result.node_key.node_id.hex()
    known = result.loaded.config.peers
    if own in known:
        return Check(
            name="peers",
            state=State.WARNING,
            detail="[peers] lists this node itself",
            next_step=f'remove "{own[:16]}…" from [peers]',
        )
    missing = [
        validator.name
        for validator in result.genesis.validators
        if validator.node_id.hex() not in known and validator.node_id.hex() != own
    ]
    if missing:
        return Check(
            name="peers",
            state=State.WARNING,
            detail=f"no address for {', '.join(missing)}: they must dial this node",
            next_step='add "<node id>" = "[address]:port" under [peers]',
        )
    return f"{len(known)} addresses"


def _databases(result: Inspection) -> str | Check:
    database = result.home.consensus_database
    if not database.is_file():
        return Check(
            name="databases",
            state=State.WARNING,
            detail=f"{database} does not exist although the node has a key: its disk was lost",
            next_step="with so few validators it will never vote again, because no peers can tell "
            "what it has signed; make a new chain"
            if peerless(result)
            else "none: once started it recovers from its peers and votes when that is safe; "
            "never copy an old consensus.db here",
        )
    for path in (database, result.home.state_database):
        if not path.exists():
            continue
        try:
            with path.open("rb") as file:
                head = file.read(len(SQLITE_MAGIC))
        except OSError as error:
            raise DatabaseInvalid(
                f"{path}: {error.strerror}", hint="check the owner and mode of the data folder"
            ) from None
        if head != SQLITE_MAGIC:
            raise DatabaseInvalid(
                f"{path} is not a database: it is damaged or was replaced",
                hint=way_out(result, path),
            )
    size = sum(path.stat().st_size for path in result.home.data.iterdir() if path.is_file())
    return f"{size / 1e6:.1f} MB"


def way_out(result: Inspection, path: Path) -> str:
    """What to do about a damaged database; only peers can vouch for a lost voting record."""
    if path == result.home.state_database:
        return f"move {path} away and start: the blocks are executed again"
    if peerless(result):
        return (
            f"stop here: only {path} says what this node has signed, and with so few validators no "
            "peers can tell instead; keep the file and make a new chain"
        )
    return f"move {path} away and start: the node recovers from its peers"


def peerless(result: Inspection) -> bool:
    """Say whether the chain has too few validators for a node to recover from its peers."""
    found = result.genesis
    return found is not None and len(found.validators) <= PEERLESS_VALIDATORS_MAX


def _process(result: Inspection) -> str:
    holder = running_holder(result.home)
    if holder is not None:
        raise AlreadyRunning(
            f"{result.home.path} is already run by {holder}",
            hint="stop that process first; two processes with one key would contradict each other",
        )
    return "nobody runs this home"


def running_holder(home: Home) -> PortHolder | None:
    """Return the process that holds the home's lock, or None."""
    import fcntl

    try:
        file = home.lock_file.open("rb")
    except OSError:
        return None
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            with contextlib.suppress(ValueError):
                pid = int(file.read(20) or b"0")
                return PortHolder(pid=pid, command=command_line(pid))
            return PortHolder(pid=None, command="")
    return None


def take_lock(home: Home) -> int:
    """Hold the home's lock until the process ends; return the descriptor. Raise if it is held."""
    import fcntl

    home.run.mkdir(mode=0o755, exist_ok=True)
    descriptor = os.open(home.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        holder = running_holder(home)
        raise AlreadyRunning(
            f"{home.path} is already run by {holder}", hint="stop that process first"
        ) from None
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, str(os.getpid()).encode(), 0)
    return descriptor


def listens(config: NodeConfig) -> list[Listen]:
    """Return what a node with this configuration binds."""
    host, port = split_address(config.transport.listen)
    found = [Listen(host=host, port=port, protocol="udp", key="transport.listen")]
    if config.http.enabled:
        host, port = split_address(config.http.listen)
        found.append(Listen(host=host, port=port, protocol="tcp", key="http.listen"))
    return found


def _ports(result: Inspection) -> str:
    assert result.loaded is not None
    wanted = listens(result.loaded.config)
    require_free(*wanted)
    return ", ".join(str(listen) for listen in wanted)
