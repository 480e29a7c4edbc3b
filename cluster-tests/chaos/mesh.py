"""A cluster under test: real processes, links through proxies, and a handle on every fault.

`Mesh` does things to nodes and links and knows how to undo them; what to do when is decided by
`perturbations.py`, whether all went well by `checks.py`. Nothing here needs a privilege.
"""

from __future__ import annotations

import contextlib
import os
import re
import resource
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from bench.network import Member, Network, until
from chaos.links import Links
from chaos.shim import Shim, built

START_TIMEOUT_S: Final = 120.0  # 21 interpreters start on two cores
SLOW_PERIOD_S: Final = 0.1  # of the duty cycle of a slow node
DISK_SPARE_BYTES: Final = 65_536  # room for the log of a node whose disk is full

_ADDRESS: Final = re.compile(r'"([0-9a-f]{64})" = "[^"]*"')


@dataclass(slots=True, kw_only=True)
class Mesh:
    """Nodes, links and shims of one cluster. Nodes are named by their number."""

    network: Network
    links: Links
    shims: list[Shim]  # empty where there is no C compiler
    _slow: dict[int, threading.Event] = field(default_factory=dict)
    _slowing: dict[int, threading.Thread] = field(default_factory=dict)

    @classmethod
    def create(cls, folder: Path, *, nodes: int, seed: int, name: str = "chaos") -> Mesh:
        """Make the files, start the proxies, and let each node's address table name them."""
        network = Network.create(folder, nodes=nodes, name=name)
        links = Links([member.address for member in network.members], seed=seed)
        numbers = {member.node_id: at for at, member in enumerate(network.members)}
        for at, member in enumerate(network.members):

            def proxied(found: re.Match[str], source: int = at) -> str:
                return f'"{found[1]}" = "{links.address(source, numbers[found[1]])}"'

            text, count = _ADDRESS.subn(proxied, member.home.config.read_text())
            assert count == nodes - 1, "each node's address table names every other node"
            member.home.config.write_text(text)
        library = built(folder)
        shims = (
            [Shim(library=library, control=folder / f"shim{at}") for at in range(nodes)]
            if library
            else []
        )
        for at, shim in enumerate(shims):
            network.members[at] = replace(network.members[at], environment=shim.environment)
        return cls(network=network, links=links, shims=shims)

    @property
    def members(self) -> list[Member]:
        """The nodes, by number."""
        return self.network.members

    @property
    def size(self) -> int:
        """How many nodes there are."""
        return len(self.network.members)

    # -- processes

    def start(self, *nodes: int) -> None:
        """Start these nodes, or all, unless they run."""
        for at in nodes or range(self.size):
            self.members[at].start()

    def up(self) -> None:
        """Start every node and wait until all are ready."""
        self.start()
        self.network.wait_ready(timeout_s=START_TIMEOUT_S)

    def kill(self, *nodes: int) -> None:
        """SIGKILL, all of them at the same moment."""
        running = [self.members[at] for at in nodes if self.members[at].running]
        for member in running:
            member.kill_soon()
        for member in running:
            member.kill()

    def stop(self, node: int) -> int:
        """SIGTERM; return the exit code."""
        found = self.members[node].process
        assert found is not None, f"{self.members[node].name} runs"
        found.signal(signal.SIGTERM)
        return self.ended(node, timeout_s=30)

    def ended(self, node: int, *, timeout_s: float) -> int:
        """Wait until a node's process has ended by itself; return its exit code."""
        member = self.members[node]
        found = member.last_process
        assert found is not None, f"{member.name} was started"
        codes: list[int] = []

        def gone() -> bool:
            pid, status = os.waitpid(found.pid, os.WNOHANG)
            if pid:
                codes.append(os.waitstatus_to_exitcode(status))
            return bool(pid)

        until(gone, f"{member.name} ended", timeout_s=timeout_s)
        return codes[0]

    def pause(self, node: int) -> None:
        """SIGSTOP."""
        self.members[node].pause()

    def resume(self, node: int) -> None:
        """SIGCONT, if it runs."""
        if self.members[node].running:
            self.members[node].resume()

    def slow(self, node: int, share: float) -> None:
        """Let a node run only this share of the time, until `quicken` or its death."""
        self.quicken(node)
        done = self._slow[node] = threading.Event()
        found = self.members[node].process

        def cycle() -> None:
            while found is not None and found.signal(signal.SIGSTOP):
                done.wait(SLOW_PERIOD_S * (1 - share))
                found.signal(signal.SIGCONT)
                if done.wait(SLOW_PERIOD_S * share):
                    return

        thread = self._slowing[node] = threading.Thread(target=cycle, name=f"slow{node}")
        thread.start()

    def quicken(self, node: int) -> None:
        """End `slow`."""
        if done := self._slow.pop(node, None):
            done.set()
            self._slowing.pop(node).join()

    # -- disks

    def wipe(self, node: int) -> None:
        """Kill a node and delete its data folder: it has forgotten what it signed."""
        self.kill(node)
        shutil.rmtree(self.members[node].home.data)

    def back_up(self, node: int) -> Path:
        """Copy a stopped node's data folder; return where the copy is."""
        place = self.network.folder / f"backup{node}"
        shutil.rmtree(place, ignore_errors=True)
        shutil.copytree(self.members[node].home.data, place)
        return place

    def restore(self, node: int, backup: Path) -> None:
        """Kill a node and put an old copy of its data in place."""
        self.wipe(node)
        shutil.copytree(backup, self.members[node].home.data)

    def fill_disk(self, node: int) -> None:
        """Let no file of a running node grow beyond a little more than its log has now."""
        found = self.members[node].process
        assert found is not None, "a disk is filled under a running node"
        log = self.members[node].home.log_file
        room = log.stat().st_size + DISK_SPARE_BYTES
        _, hard = resource.prlimit(found.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(found.pid, resource.RLIMIT_FSIZE, (room, hard))

    # -- everything

    def heal(self) -> None:
        """Undo every fault that can be undone and start what does not run; wait for nothing."""
        for at in list(self._slow):
            self.quicken(at)
        for shim in self.shims:
            shim.heal()
        self.links.heal()
        for at, member in enumerate(self.members):
            found = member.process
            if found is not None and found.paused:
                self.resume(at)
        self.start()

    def close(self) -> None:
        """End every process of this mesh."""
        for at in list(self._slow):
            self.quicken(at)
        self.network.destroy()
        self.links.close()

    def keep_logs(self, folder: Path) -> None:
        """Copy each node's log and configuration for a look after a failure."""
        folder.mkdir(parents=True, exist_ok=True)
        for member in self.members:
            for source in (member.home.log_file, member.home.config):
                with contextlib.suppress(OSError):
                    shutil.copy(source, folder / f"{member.name}-{source.name}")
        (folder / "nodes.txt").write_text(self.network.describe())


@contextlib.contextmanager
def mesh(folder: Path, *, nodes: int, seed: int, start: bool = True) -> Iterator[Mesh]:
    """A mesh for the length of a `with`; nothing of it runs afterwards."""
    made = Mesh.create(folder, nodes=nodes, seed=seed)
    try:
        if start:
            made.up()
        yield made
    finally:
        made.close()


def wait_until(moment: float) -> None:
    """Sleep until CLOCK_MONOTONIC shows this; faults have times, not conditions."""
    time.sleep(max(0.0, moment - time.monotonic()))
