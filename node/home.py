"""The home folder of a node: where every file is, and how secrets are written.

A read-only command never creates any of these.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

from node.errors import FileModeUnsafe, HomeIncomplete


@dataclass(frozen=True, slots=True)
class Home:
    """Paths inside one node's home folder; nothing is read or created by asking for one."""

    path: Path

    @property
    def config(self) -> Path:
        """The one TOML file."""
        return self.path / "node.toml"

    @property
    def genesis(self) -> Path:
        """The trust input, equal on all nodes."""
        return self.path / "genesis.json"

    @property
    def keys(self) -> Path:
        """Folder of the secrets, mode 0700."""
        return self.path / "keys"

    @property
    def node_key(self) -> Path:
        """Falcon key the node is."""
        return self.keys / "node.key"

    @property
    def cosigner_key(self) -> Path:
        """Key that signs log checkpoints."""
        return self.keys / "cosigner.key"

    @property
    def issuing_key(self) -> Path:
        """Key that signs the X.509 form of certificates."""
        return self.keys / "issuing.key"

    @property
    def issuing_request(self) -> Path:
        """Public half of the issuing key of a node that joins: what the root is to certify."""
        return self.keys / "issuing.pub"

    @property
    def issuing_certificate(self) -> Path:
        """Certificate of the issuing key of a node that joined; a founder's is in genesis."""
        return self.keys / "issuing.pem"

    @property
    def data(self) -> Path:
        """Folder of the databases."""
        return self.path / "data"

    @property
    def consensus_database(self) -> Path:
        """What was agreed. Created only together with the node key."""
        return self.data / "consensus.db"

    @property
    def state_database(self) -> Path:
        """What execution made of it."""
        return self.data / "state.db"

    @property
    def snapshots(self) -> Path:
        """Folder of state snapshots, our own and the one that is being fetched."""
        return self.data / "snapshots"

    @property
    def run(self) -> Path:
        """Folder of what a running process tells others."""
        return self.path / "run"

    @property
    def api_file(self) -> Path:
        """Where the running node's HTTP is: `{"url": …, "pid": …}`."""
        return self.run / "api.json"

    @property
    def lock_file(self) -> Path:
        """Held by the process that runs this home."""
        return self.run / "node.lock"

    @property
    def logs(self) -> Path:
        """Folder of log files that cluster management writes."""
        return self.path / "logs"

    @property
    def log_file(self) -> Path:
        """Log of a node that cluster management started."""
        return self.logs / "node.log"

    def require_folder(self) -> None:
        """Raise `HomeIncomplete` unless the folder is there."""
        if not self.path.is_dir():
            raise HomeIncomplete(
                f"{self.path}: no such home folder",
                hint=f"create it with `hypermesh node init --home {self.path}`, or name another "
                "with --home",
            )


def default_home() -> Path:
    """Return $HYPERMESH_HOME, else the folder the XDG rules give."""
    chosen = os.environ.get("HYPERMESH_HOME")
    return Path(chosen).expanduser() if chosen else data_folder() / "node"


def data_folder() -> Path:
    """Return `hypermesh` below $XDG_DATA_HOME (default ~/.local/share)."""
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path.home() / ".local" / "share") / "hypermesh"


def write_new(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Create `path` with `data`, durable; raise FileExistsError rather than overwrite."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    sync_folder(path.parent)


def write_replacing(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Replace `path` in one step: a reader sees the old or the new content, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    try:
        write_new(temporary, data, mode=mode)
        temporary.replace(path)
        sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_folder(path: Path) -> None:
    """Make creations and renames in a folder durable."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def require_private(path: Path) -> None:
    """Raise unless `path` exists and only its owner may read it."""
    try:
        mode = stat.S_IMODE(path.stat().st_mode)
    except FileNotFoundError:
        raise HomeIncomplete(
            f"{path}: missing",
            hint="restore the keys folder from your backup; a new key would be another node",
        ) from None
    if mode & 0o077:
        raise FileModeUnsafe(
            f"{path}: mode {mode:04o} lets others read a secret", hint=f"chmod 600 {path}"
        )
