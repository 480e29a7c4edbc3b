"""Start, stop and hurt the processes of a cluster.

A process is identified by pid and start time, both recorded when we start it, so a signal can never
reach a stranger that got the same pid later.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from node.client import NodeClient
from node.cluster.manifest import Cluster, Member
from node.errors import ClusterStartFailed, NodeError, NotReady, NotRunning
from node.home import write_replacing
from node.inputs import parse_json
from node.limits import CLUSTER_STOP_TIMEOUT_S
from node.processes import Process, process, require_free
from node.status import Status

POLL_INTERVAL_S: Final = 0.05
PATIENT_INTERVAL_S: Final = 0.25
EAGER_S: Final = 3.0
LOG_TAIL_LINES: Final = 6


class Action(StrEnum):
    """What can be done to a running node."""

    KILL = "kill"
    PAUSE = "pause"
    RESUME = "resume"
    RESTART = "restart"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberState:
    """One node as seen from outside: its process, and its status if it answers."""

    member: Member
    process: Process | None
    paused: bool
    status: Status | None
    ready: bool
    reason: str  # why it is not ready

    @property
    def word(self) -> str:
        """One word for a table."""
        if self.process is None:
            return "down"
        if self.paused:
            return "paused"
        if self.status is None:
            return "starting"
        return "ready" if self.ready else "not ready"


def running_process(member: Member) -> Process | None:
    """Return the node's process if the one we started still lives."""
    try:
        document = parse_json(member.process_file.read_bytes())
        recorded = Process(pid=int(document["pid"]), started=int(document["started"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return recorded if recorded.alive else None


def start(
    members: Sequence[Member], *, environment: Mapping[str, str] | None = None
) -> list[Member]:
    """Start every node that does not run; check all ports first. Return what was started.

    `environment` is added to that of this process.
    """
    stopped = [member for member in members if running_process(member) is None]
    require_free(*(listen for member in stopped for listen in member.listens))
    for member in stopped:
        _spawn(member, environment or {})
    return stopped


def wait_ready(
    members: Sequence[Member],
    *,
    timeout_s: float,
    height: int = 0,
    on_ready: Callable[[Member, Status], None] | None = None,
) -> None:
    """Wait until every node is ready and at `height`.

    Raises `ClusterStartFailed` when processes ended, `NotReady` when time is over; both name each
    node and its reason. Nodes that run are left running.
    """
    began = time.monotonic()
    deadline = began + timeout_s
    waiting = list(members)
    while True:
        reasons: dict[str, str] = {}
        for member in list(waiting):
            state = inspect(member)
            if state.process is None:
                continue
            if state.ready and state.status and state.status.height >= height:
                waiting.remove(member)
                if on_ready:
                    on_ready(member, state.status)
            else:
                at = f"height {state.status.height:,} of {height:,}" if state.status else ""
                reasons[member.name] = state.reason or at or "starting"
        dead = [member for member in waiting if running_process(member) is None]
        if dead and len(dead) == len(waiting):
            raise ClusterStartFailed(_obituary(dead), hint=_START_HINT)
        if not waiting:
            return
        if time.monotonic() >= deadline:
            if dead:
                raise ClusterStartFailed(_obituary(dead), hint=_START_HINT)
            raise NotReady(
                f"not ready within {timeout_s:g} s: "
                + "; ".join(f"{name}: {reason}" for name, reason in reasons.items()),
                hint="see `hypermesh cluster status`, or wait longer with --timeout",
            )
        # Eager at first; a long wait must not take the processor from the nodes it waits for.
        time.sleep(POLL_INTERVAL_S if time.monotonic() - began < EAGER_S else PATIENT_INTERVAL_S)


def inspect(member: Member, *, timeout_s: float = 2.0) -> MemberState:
    """Look at one node."""
    found = running_process(member)
    paused = found is not None and found.paused
    status, ready, reason = None, False, "" if found else "not running"
    if found and paused:
        reason = "paused by a signal"
    elif found:
        try:
            with NodeClient(member.url, timeout_s=timeout_s) as client:
                status, items = client.status()
            blocking = [item for item in items if item.blocks_ready]
            ready = not blocking
            reason = "; ".join(f"{item.item.code}: {item.detail}" for item in blocking)
        except NodeError:
            reason = "does not answer yet"
    return MemberState(
        member=member, process=found, paused=paused, status=status, ready=ready, reason=reason
    )


def stop(members: Sequence[Member], *, timeout_s: float = CLUSTER_STOP_TIMEOUT_S) -> dict[str, str]:
    """Stop nodes together: SIGTERM, then SIGKILL. Return how each ended, by name."""
    running = [(member, found) for member in members if (found := running_process(member))]
    for _, found in running:
        if found.paused:
            found.signal(signal.SIGCONT)
        found.signal(signal.SIGTERM)
    ended: dict[str, str] = {}
    deadline = time.monotonic() + timeout_s
    for member, found in running:
        killed = not _gone(found, deadline)
        if killed:
            found.signal(signal.SIGKILL)
            _gone(found, time.monotonic() + 5.0)
        ended[member.name] = "killed" if killed else "stopped"
        _forget(member)
    return ended


def perturb(member: Member, action: Action) -> None:
    """Hurt or heal one node. Raises `NodeError` when there is nothing to act on."""
    found = running_process(member)
    if found is None and action is not Action.RESTART:
        raise NotRunning(
            f"{member.name} does not run",
            hint=f"start it: hypermesh cluster perturb … restart {member.name}",
        )
    match action:
        case Action.KILL:
            assert found is not None
            found.signal(signal.SIGKILL)
            _gone(found, time.monotonic() + 5.0)
            _forget(member)
        case Action.PAUSE:
            assert found is not None
            found.signal(signal.SIGSTOP)
        case Action.RESUME:
            assert found is not None
            found.signal(signal.SIGCONT)
        case Action.RESTART:
            stop([member])
            start([member])


def highest(cluster: Cluster) -> int:
    """Return the highest block any node of the cluster has now."""
    states = [inspect(member) for member in cluster.members]
    heights = [state.status.height for state in states if state.status]
    if not heights:
        raise NotReady(
            f"no node of {cluster.name} answers", hint=f"hypermesh cluster up {cluster.name}"
        )
    return max(heights)


def _spawn(member: Member, environment: Mapping[str, str]) -> None:
    home = member.home
    home.logs.mkdir(exist_ok=True)
    home.run.mkdir(exist_ok=True)
    home.api_file.unlink(missing_ok=True)
    with home.log_file.open("ab") as log:
        child = subprocess.Popen(
            [sys.executable, "-m", "node.cli", "node", "run", "--home", str(home.path.resolve())],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, "PYTHONPATH": _import_path(), **environment},
        )
    found = process(child.pid)
    if found is None:
        raise ClusterStartFailed(_obituary([member]), hint=_START_HINT)
    document = {"pid": found.pid, "started": found.started}
    write_replacing(member.process_file, json.dumps(document).encode() + b"\n")
    child.returncode = 0  # it is on its own: do not reap or warn about it here


def _import_path() -> str:
    """Let the child find this very code, also when it runs from a source tree."""
    import node

    own = os.path.dirname(os.path.dirname(os.path.abspath(node.__file__)))
    others = os.environ.get("PYTHONPATH", "")
    return os.pathsep.join(path for path in (own, others) if path)


def _gone(found: Process, deadline: float) -> bool:
    while found.alive:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(found.pid, os.WNOHANG)
        if time.monotonic() >= deadline:
            return False
        time.sleep(POLL_INTERVAL_S / 5)
    return True


def _forget(member: Member) -> None:
    member.process_file.unlink(missing_ok=True)
    member.home.api_file.unlink(missing_ok=True)


def _obituary(members: Sequence[Member]) -> str:
    lines = []
    for member in members:
        tail: list[str] = []
        with contextlib.suppress(OSError):
            tail = member.home.log_file.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        shown = "".join(f"\n    {line}" for line in tail) or " it wrote no log"
        lines.append(f"{member.name} did not stay up:{shown}")
    return "\n".join(lines)


_START_HINT = (
    "repair what the log says, then run `hypermesh cluster up` again; nodes that run stay up"
)
