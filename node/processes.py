"""Who runs and who holds a port, read from /proc.

A process id alone is not an identity: the kernel reuses it. The pair (pid, start time) is, and it
is what we record and compare before we send a signal.
"""

from __future__ import annotations

import contextlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from node.errors import PortInUse

PROC: Final = Path("/proc")
TCP_LISTEN: Final = "0A"  # state column of /proc/net/tcp6

Protocol = Literal["udp", "tcp"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """One process, by its pid and the clock tick it started at."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        """True while this very process exists and any of its threads is not a zombie.

        A killed process whose last thread is still in a system call holds its ports until then.
        """
        if process(self.pid) != self:
            return False
        if process_state(self.pid) != "Z":
            return True
        try:
            return len(os.listdir(PROC / str(self.pid) / "task")) > 1
        except OSError:
            return False

    @property
    def paused(self) -> bool:
        """True while it is stopped by a signal."""
        return self.alive and process_state(self.pid) in "Tt"

    def signal(self, number: int) -> bool:
        """Send a signal if this very process still exists; say whether it was sent."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, number)
        except ProcessLookupError:
            return False
        return True


@dataclass(frozen=True, slots=True, kw_only=True)
class PortHolder:
    """The process that holds a port, as far as the system lets us see."""

    pid: int | None
    command: str

    def __str__(self) -> str:
        if self.pid is None:
            return "a process of another user"
        return f"process {self.pid} ({self.command})"


@dataclass(frozen=True, slots=True, kw_only=True)
class Listen:
    """One address a node wants to bind."""

    host: str
    port: int
    protocol: Protocol
    key: str  # the configuration key it comes from

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port} ({self.protocol.upper()})"


def process(pid: int) -> Process | None:
    """Return the process that has this pid now, or None."""
    fields = _stat(pid)
    return Process(pid=pid, started=int(fields[19])) if fields else None


def process_state(pid: int) -> str:
    """Return the state letter of /proc/PID/stat, or an empty string."""
    fields = _stat(pid)
    return fields[0] if fields else ""


def command_line(pid: int) -> str:
    """Return the command line of a process, shortened to what identifies it."""
    try:
        words = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").split(b"\0")
    except OSError:
        return "unknown"
    text = " ".join(word.decode(errors="replace") for word in words)
    return text if len(text) <= 120 else text[:117] + "..."


def resident_bytes(pid: int) -> int:
    """Return the resident memory of a process, 0 when it is gone."""
    try:
        pages = int((PROC / str(pid) / "statm").read_text().split()[1])
    except (OSError, IndexError, ValueError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def holder_of(port: int, protocol: Protocol) -> PortHolder | None:
    """Return who holds a local port, or None when nobody does."""
    inodes = _socket_inodes(port, protocol)
    if not inodes:
        return None
    wanted = {f"socket:[{inode}]" for inode in inodes}
    for folder in PROC.iterdir():
        if not folder.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            for descriptor in (folder / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if os.readlink(descriptor) in wanted:
                        pid = int(folder.name)
                        return PortHolder(pid=pid, command=command_line(pid))
    return PortHolder(pid=None, command="")


def taken(listen: Listen) -> PortHolder | None:
    """Try to bind; return who is in the way, or None when the address is free."""
    kind = socket.SOCK_DGRAM if listen.protocol == "udp" else socket.SOCK_STREAM
    with socket.socket(socket.AF_INET6, kind) as trial:
        trial.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        if listen.protocol == "tcp":
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((listen.host, listen.port))
            if listen.protocol == "tcp":
                trial.listen(1)
        except OSError as error:
            found = holder_of(listen.port, listen.protocol)
            return found or PortHolder(pid=None, command=error.strerror or "unknown")
    return None


def require_free(*addresses: Listen) -> None:
    """Raise `PortInUse` that names every taken address and its holder."""
    problems = [(listen, holder) for listen in addresses if (holder := taken(listen))]
    if problems:
        lines = [f"{listen} is held by {holder}" for listen, holder in problems]
        keys = ", ".join(dict.fromkeys(listen.key for listen, _ in problems))
        raise PortInUse("; ".join(lines), hint=f"stop that process, or set {keys} to a free port")


def _stat(pid: int) -> list[str] | None:
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()


def _socket_inodes(port: int, protocol: Protocol) -> set[str]:
    found: set[str] = set()
    for name in (protocol, f"{protocol}6"):
        try:
            lines = (PROC / "net" / name).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            listening = protocol == "udp" or fields[3] == TCP_LISTEN
            if listening and int(fields[1].rsplit(":", 1)[1], 16) == port:
                found.add(fields[9])
    return found
