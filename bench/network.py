"""A cluster of real processes, made and driven through the `hypermesh` command.

Used by the benchmark, the demonstration and the cluster tests. It waits for conditions, never for
time, and every wait has a deadline and says what it was waiting for.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Final, TypeVar

import httpx

from node.cluster import manifest, operate
from node.home import Home
from node.processes import Listen, Process, require_free, taken

PORTS_PER_NODE: Final = 10
BLOCK_PORTS: Final = 100  # ten nodes; bigger clusters take several blocks
STOQ_OFFSET: Final = 2
HTTP_OFFSET: Final = 3
BASE_PORT_FIRST: Final = 21_000  # below the range the kernel hands out by itself
BASE_PORT_LAST: Final = 31_000
POLL_S: Final = 0.02
COMMAND_TIMEOUT_S: Final = 60.0
CLOCK_TICKS_PER_S: Final = os.sysconf("SC_CLK_TCK")
COMMAND: Final = str(Path(sys.executable).with_name("hypermesh"))
PASSPHRASE: Final = "correct horse battery staple"  # of throw-away wallets

_http: Final = httpx.Client(trust_env=False, verify=False, timeout=3)  # plain HTTP on [::1]

Answer = TypeVar("Answer")


class WaitExpired(AssertionError):
    """A condition did not come true before its deadline."""


class CommandFailed(AssertionError):
    """A `hypermesh` command ended with another exit code than expected."""

    def __init__(self, completed: subprocess.CompletedProcess[str]) -> None:
        self.completed = completed
        super().__init__(
            f"{' '.join(completed.args[1:])}: exit {completed.returncode}\n"
            f"{completed.stdout}{completed.stderr}"
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What a process has used so far."""

    cpu_s: float
    rss_mb: float


def usage_of(pid: int) -> Usage:
    """Return CPU seconds, user and system, and resident memory of a process so far."""
    words = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return Usage(
        cpu_s=(int(words[11]) + int(words[12])) / CLOCK_TICKS_PER_S,
        rss_mb=pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
    )


def until(
    condition: Callable[[], Answer | None], what: str, *, timeout_s: float, poll_s: float = POLL_S
) -> Answer:
    """Return the first true answer of `condition`; raise `WaitExpired` at the deadline."""
    deadline = time.monotonic() + timeout_s
    while True:
        answer = condition()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise WaitExpired(f"{what}: not within {timeout_s:g} s (last answer {answer!r})")
        time.sleep(poll_s)


def listens(base: int, nodes: int) -> list[Listen]:
    """Return every address a cluster with this base port binds."""
    firsts = [base + PORTS_PER_NODE * index for index in range(nodes)]
    stoq = [
        Listen(host="::1", port=first + STOQ_OFFSET, protocol="udp", key="transport.listen")
        for first in firsts
    ]
    http = [
        Listen(host="::1", port=first + HTTP_OFFSET, protocol="tcp", key="http.listen")
        for first in firsts
    ]
    return [*stoq, *http]


def free_base_port(nodes: int) -> int:
    """Return a base port whose whole block is free, reserved for this process while it lives.

    When no block is free, name who holds the first one.
    """
    needed = -(-nodes * PORTS_PER_NODE // BLOCK_PORTS)
    blocks = (BASE_PORT_LAST - BASE_PORT_FIRST) // BLOCK_PORTS - needed + 1
    start = os.getpid() + time.monotonic_ns() // 1_000_000
    for step in range(blocks):
        base = BASE_PORT_FIRST + (start + step) % blocks * BLOCK_PORTS
        reserved = all(_reserve(base + BLOCK_PORTS * more) for more in range(needed))
        if reserved and not any(taken(listen) for listen in listens(base, nodes)):
            return base
    require_free(*listens(BASE_PORT_FIRST, nodes))
    raise WaitExpired("every block of ports is reserved by another run")


def _reserve(base: int) -> bool:
    """Lock a block against other runs that have looked, but not bound yet."""
    folder = Path(tempfile.gettempdir()) / f"hypermesh-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    lock = (folder / str(base)).open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return False
    _reserved.append(lock)
    return True


_reserved: Final[list[IO[str]]] = []  # closed, and so given back, when this process ends


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One node of a network: its home, its addresses, its process."""

    manifest: manifest.Member
    environment: Mapping[str, str] = field(default_factory=dict, compare=False)  # of its process

    @property
    def name(self) -> str:
        """The name `cluster new` gave it."""
        return self.manifest.name

    @property
    def node_id(self) -> str:
        """Hexadecimal NodeId."""
        return self.manifest.node_id

    @property
    def home(self) -> Home:
        """Its home folder."""
        return self.manifest.home

    @property
    def url(self) -> str:
        """Where its HTTP is."""
        return self.manifest.url

    @property
    def address(self) -> str:
        """Where its STOQ is."""
        return f"[::1]:{self.manifest.stoq_port}"

    # -- process

    @property
    def process(self) -> Process | None:
        """The running process."""
        return operate.running_process(self.manifest)

    @property
    def last_process(self) -> Process | None:
        """The process that was started last, also while it is dying."""
        try:
            document = json.loads(self.manifest.process_file.read_text())
            return Process(pid=int(document["pid"]), started=int(document["started"]))
        except (OSError, ValueError, KeyError):
            return None

    @property
    def running(self) -> bool:
        """True while its process exists."""
        return self.process is not None

    def start(self) -> None:
        """Start it unless it runs, with its log in the home; ports are checked first."""
        operate.start([self.manifest], environment=self.environment)

    def signal(self, number: int) -> None:
        """Send a signal; the node must be running."""
        found = self.process
        if found is None or not found.signal(number):
            raise WaitExpired(f"{self.name} is not running")

    def kill(self) -> None:
        """SIGKILL, and wait until the process is gone."""
        found = self.process or self.last_process
        if found is None:
            return
        found.signal(signal.SIGKILL)
        until(lambda: _gone(found), f"{self.name} killed", timeout_s=10, poll_s=0.001)

    def stop(self, timeout_s: float = 15.0) -> float:
        """SIGTERM; return the seconds until the process was gone."""
        found = self.process
        if found is None:
            return 0.0
        began = time.monotonic()
        found.signal(signal.SIGTERM)
        until(lambda: _gone(found), f"{self.name} stopped", timeout_s=timeout_s)
        return time.monotonic() - began

    def kill_soon(self) -> None:
        """SIGKILL without waiting, so that several die at the same moment."""
        self.signal(signal.SIGKILL)

    @property
    def paused(self) -> bool:
        """True while it is stopped by a signal."""
        found = self.process
        return found is not None and found.paused

    def pause(self) -> None:
        """SIGSTOP."""
        self.signal(signal.SIGSTOP)

    def resume(self) -> None:
        """SIGCONT."""
        self.signal(signal.SIGCONT)

    def usage(self) -> Usage:
        """Return CPU seconds and resident memory so far."""
        found = self.process
        if found is None:
            raise WaitExpired(f"{self.name} is not running")
        return usage_of(found.pid)

    def log_tail(self, lines: int = 20) -> str:
        """Return the end of the log."""
        try:
            return "\n".join(self.home.log_file.read_text(errors="replace").splitlines()[-lines:])
        except OSError:
            return "(no log)"

    # -- HTTP

    def get(self, path: str, **parameters: Any) -> httpx.Response:
        """GET a path; transport errors pass through."""
        return _http.get(self.url + path, params=parameters or None, timeout=10)

    def status(self) -> dict[str, Any] | None:
        """Return `/status`, or None while nobody answers."""
        try:
            answer = _http.get(self.url + "/status")
        except httpx.HTTPError:
            return None
        if answer.status_code != httpx.codes.OK:
            return None
        document: dict[str, Any] = answer.json()
        return document

    def height(self) -> int:
        """Return the newest executed height, -1 while nobody answers."""
        status = self.status()
        return -1 if status is None else int(status["height"])

    def view(self) -> int:
        """Return its current view, -1 while nobody answers."""
        status = self.status()
        return -1 if status is None else int(status["view"])

    def ready(self) -> bool:
        """True once `/readyz` says so."""
        try:
            return _http.get(self.url + "/readyz").status_code == httpx.codes.OK
        except httpx.HTTPError:
            return False

    def block(self, height: int) -> dict[str, Any] | None:
        """Return one block, or None while it is not there."""
        try:
            answer = self.get(f"/api/v1/blocks/{height}")
        except httpx.HTTPError:
            return None
        if answer.status_code != httpx.codes.OK:
            return None
        document: dict[str, Any] = answer.json()
        return document

    def metric(self, name: str) -> float:
        """Return a metric of `/metrics`, summed over its labels; 0 when it is absent."""
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in self.get("/metrics").text.splitlines()
            if line.startswith((f"{name} ", f"{name}{{"))
        )


@dataclass(slots=True, kw_only=True)
class Network:
    """Some nodes that belong together, below one folder of their own."""

    name: str
    folder: Path
    base: int
    members: list[Member] = field(default_factory=list)
    cluster: manifest.Cluster | None = None

    @classmethod
    def create(
        cls, folder: Path, *, nodes: int, name: str = "mesh", options: Sequence[str] = ()
    ) -> Network:
        """Run `cluster new` with a free block of ports; nothing is started."""
        base = free_base_port(nodes)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "passphrase").write_text(PASSPHRASE + "\n")
        (folder / "passphrase").chmod(0o600)
        network = cls(name=name, folder=folder, base=base)
        network.command(
            *("cluster", "new", name, "--nodes", str(nodes), "--base-port", str(base)),
            *network.passphrase,
            *options,
        )
        network.cluster = manifest.find_cluster(name, network.clusters)
        network.members = [Member(manifest=member) for member in network.cluster.members]
        return network

    @property
    def environment(self) -> dict[str, str]:
        """Keeps commands away from the user's own clusters and wallets."""
        inherited = {
            key: text for key, text in os.environ.items() if not key.startswith("HYPERMESH_")
        }
        return inherited | {
            "HYPERMESH_CLUSTERS": str(self.clusters),
            "XDG_DATA_HOME": str(self.folder),
            "NO_COLOR": "1",
            "COLUMNS": "200",
        }

    @property
    def passphrase(self) -> tuple[str, str]:
        """The option that opens its wallets."""
        return ("--passphrase-file", str(self.folder / "passphrase"))

    @property
    def clusters(self) -> Path:
        """Where its cluster folder is."""
        return self.folder / "clusters"

    @property
    def path(self) -> Path:
        """The cluster's folder."""
        return self.clusters / self.name

    def command(
        self, *arguments: str, code: int | None = 0, timeout_s: float = COMMAND_TIMEOUT_S
    ) -> subprocess.CompletedProcess[str]:
        """Run `hypermesh`; raise `CommandFailed` on another exit code (None: any will do)."""
        completed = subprocess.run(
            [COMMAND, *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
        )
        if code is not None and completed.returncode != code:
            raise CommandFailed(completed)
        return completed

    def answer(self, *arguments: str, code: int | None = 0) -> Any:
        """Run `hypermesh … --output json` and return what it printed."""
        completed = self.command(*arguments, "--output", "json", code=code)
        return json.loads(completed.stdout)

    def up(self, *, timeout_s: float = 30.0) -> None:
        """Start every node and wait until each is ready."""
        for member in self.members:
            member.start()
        self.wait_ready(timeout_s=timeout_s)

    def wait_ready(
        self, members: Sequence[Member] | None = None, *, timeout_s: float = 30.0
    ) -> None:
        """Wait until the members are ready."""
        chosen = self.members if members is None else members
        try:
            until(
                lambda: all(member.ready() for member in chosen),
                f"{[member.name for member in chosen]} ready",
                timeout_s=timeout_s,
                poll_s=0.05,
            )
        except WaitExpired as problem:
            raise WaitExpired(f"{problem}\n{self.describe(chosen)}") from None

    def wait_height(
        self, height: int, members: Sequence[Member] | None = None, *, timeout_s: float = 30.0
    ) -> None:
        """Wait until every member has executed a height."""
        chosen = self.members if members is None else members
        try:
            until(
                lambda: all(member.height() >= height for member in chosen),
                f"{[member.name for member in chosen]} at height {height}",
                timeout_s=timeout_s,
                poll_s=0.05,
            )
        except WaitExpired as problem:
            raise WaitExpired(f"{problem}\n{self.describe(chosen)}") from None

    def height(self) -> int:
        """Return the highest executed height anybody has."""
        return max(member.height() for member in self.members)

    def primary(self) -> Member:
        """Return the member the highest view names as primary."""
        statuses = [status for member in self.members if (status := member.status())]
        newest = max(statuses, key=lambda status: int(status["view"]))
        return next(member for member in self.members if member.name == newest["primary"])

    def backups(self) -> list[Member]:
        """Return every member but the primary."""
        primary = self.primary()
        return [member for member in self.members if member is not primary]

    def agreed_root(
        self, members: Sequence[Member] | None = None, *, timeout_s: float = 20.0
    ) -> str:
        """Wait for a common height, compare roots and parents there, return the state root."""
        chosen = self.members if members is None else members
        height = max(member.height() for member in chosen)
        self.wait_height(height, chosen, timeout_s=timeout_s)
        blocks = {
            member.name: until(
                lambda member=member: member.block(height),  # type: ignore[misc]
                f"block {height} of {member.name}",
                timeout_s=timeout_s,
            )
            for member in chosen
        }
        roots = {name: (block["state_root"], block["hash"]) for name, block in blocks.items()}
        if len(set(roots.values())) != 1:
            raise AssertionError(f"state differs at height {height}: {roots}")
        return str(next(iter(roots.values()))[0])

    def conservation_error(self, members: Sequence[Member] | None = None) -> int:
        """Return the largest conservation error any member reports."""
        chosen = self.members if members is None else members
        errors = []
        for member in chosen:
            status = until(member.status, f"status of {member.name}", timeout_s=10)
            errors.append(abs(int(status["conservation_error"])))
        return max(errors)

    @property
    def chain(self) -> str:
        """Name of the chain with the first digits of its id."""
        assert self.cluster is not None
        return self.cluster.chain

    @property
    def chain_id(self) -> str:
        """Hexadecimal id of the chain, as a member tells it."""
        for member in self.members:
            if status := member.status():
                return str(status["chain_id"])
        raise WaitExpired("nobody tells the chain id")

    def account(self, address: str) -> dict[str, Any]:
        """Return an account as the first member that answers sees it."""
        for member in self.members:
            if member.running:
                document: dict[str, Any] = member.get(f"/api/v1/accounts/{address}").json()
                return document
        raise WaitExpired("nobody runs")

    def describe(self, members: Sequence[Member] | None = None) -> str:
        """Return one line a member and the end of its log, for failures."""
        lines = []
        for member in self.members if members is None else members:
            status = member.status() or {}
            shown = {
                key: status.get(key)
                for key in ("phase", "height", "height_known", "view", "voting", "ready", "health")
            }
            lines.append(f"--- {member.name} running={member.running} {shown}")
            lines.append(member.log_tail())
        return "\n".join(lines)

    def destroy(self) -> None:
        """End every process of this network, also paused ones; files stay for a look."""
        for member in self.members:
            found = member.process
            if found is not None:
                found.signal(signal.SIGCONT)
                found.signal(signal.SIGKILL)
                with contextlib.suppress(WaitExpired):
                    until(lambda found=found: _gone(found), "killed", timeout_s=5)  # type: ignore[misc]


@contextlib.contextmanager
def network(
    folder: Path, *, nodes: int, name: str = "mesh", options: Sequence[str] = (), start: bool = True
) -> Iterator[Network]:
    """A network for the length of a `with`; nothing of it runs afterwards."""
    created = Network.create(folder, nodes=nodes, name=name, options=options)
    try:
        if start:
            created.up()
        yield created
    finally:
        created.destroy()


def port_holder(port: int) -> socket.socket:
    """Return a socket that holds a UDP port on [::1], for tests of a taken one."""
    holder = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    holder.bind(("::1", port))
    return holder


def _gone(found: Process) -> bool:
    """True once the process and all its threads are gone: until then they hold its ports."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(found.pid, os.WNOHANG)
    return not found.alive
