"""What can be done to a cluster, as data, and how it is done and undone.

A perturbation names nodes by number; `PRIMARY` is whoever leads when it begins. Everything that is
begun is ended: a killed node is started again, a cut link joined. A node whose disk fails is
expected to end by itself, and is started again with a whole disk.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Final, assert_never

from bench.network import WaitExpired
from chaos.links import Link, regions
from chaos.mesh import START_TIMEOUT_S, Mesh
from transport.core.impairment import CLEAN, Impairment

PRIMARY: Final = -1
FLAP_PERIOD_S: Final = 1.0
CLEAN_EXIT: Final = 0


class Kind(StrEnum):
    """Everything that is done; the value is what a manifest says."""

    KILL = "kill"  # SIGKILL, later started again
    KILL_ALL = "kill-all"
    RESTART = "restart"  # SIGTERM, later started again
    ROLL = "rolling-restart"  # one node after the other, each ready before the next
    PAUSE = "pause"
    SLOW = "slow"  # runs `amount` of the time
    WIPE = "wipe"  # killed, its data deleted
    RESTORE = "restore-backup"  # killed, its data replaced by those from before the run
    DISK_FULL = "disk-full"
    SYNC_ERROR = "fsync-error"
    SLOW_DISK = "slow-fsync"  # each takes `amount` seconds longer
    CLOCK = "clock-skew"  # by `amount` seconds
    CUT = "partition"  # the nodes from the rest
    CUT_ONE_WAY = "one-way-partition"  # what the nodes send is lost, not what they are sent
    CUT_PAIR = "non-transitive-partition"  # two nodes from each other; both reach the rest
    FLAP = "flapping-partition"  # the nodes from the rest, and back, every second
    LOSS = "loss"  # `amount` of all datagrams
    DELAY = "delay"  # `amount` seconds, and half as much jitter, on all links
    CAP = "bandwidth-cap"  # `amount` bytes a second on all links
    REGIONS = "regions"  # the nodes spread over five regions


NEEDS_SHIM: Final = frozenset({Kind.SYNC_ERROR, Kind.SLOW_DISK, Kind.CLOCK})
FORGETS: Final = frozenset({Kind.WIPE, Kind.RESTORE})  # at most one node at a time may
ENDS_BY_ITSELF: Final = frozenset({Kind.DISK_FULL, Kind.SYNC_ERROR})


@dataclass(frozen=True, slots=True, kw_only=True)
class Perturbation:
    """One thing done for a while. Times count from the start of the load."""

    kind: Kind
    at_s: float
    duration_s: float
    nodes: tuple[int, ...] = ()
    amount: float = 0.0

    def __str__(self) -> str:
        who = ",".join("primary" if at == PRIMARY else f"n{at}" for at in self.nodes)
        amount = f" {self.amount:g}" if self.amount else ""
        return f"{self.at_s:g}s {self.kind}{amount} {who or 'all'} for {self.duration_s:g}s"


@dataclass(frozen=True, slots=True, kw_only=True)
class Moment:
    """A beginning or an end, on the time line of a run."""

    at_s: float
    begins: bool
    perturbation: Perturbation


def moments(perturbations: tuple[Perturbation, ...]) -> list[Moment]:
    """Every beginning and end in the order of time; a flapping partition has many."""
    found: list[Moment] = []
    for perturbation in perturbations:
        end = perturbation.at_s + perturbation.duration_s
        if perturbation.kind is Kind.FLAP:
            at, begins = perturbation.at_s, True
            while at < end:
                found.append(Moment(at_s=at, begins=begins, perturbation=perturbation))
                at, begins = at + FLAP_PERIOD_S, not begins
        else:
            found.append(Moment(at_s=perturbation.at_s, begins=True, perturbation=perturbation))
        found.append(Moment(at_s=end, begins=False, perturbation=perturbation))
    return sorted(found, key=lambda moment: (moment.at_s, moment.begins))


class Hand:
    """Does and undoes perturbations of one run, and remembers what it saw."""

    def __init__(self, mesh: Mesh) -> None:
        self.mesh = mesh
        self.exits: list[tuple[Kind, int, int]] = []  # kind, node, exit code
        self._backups: dict[int, Path] = {}
        self._resolved: dict[Perturbation, Perturbation] = {}
        self._aside = ThreadPoolExecutor(max_workers=1, thread_name_prefix="rolling-restart")
        self._rolling: Future[None] | None = None

    def prepare(self, perturbations: tuple[Perturbation, ...]) -> None:
        """Before the load: the backups that will be put back."""
        for perturbation in perturbations:
            if perturbation.kind is Kind.RESTORE:
                for at in perturbation.nodes:
                    self.mesh.stop(at)
                    self._backups[at] = self.mesh.back_up(at)
                    self.mesh.start(at)
                self.mesh.network.wait_ready(timeout_s=START_TIMEOUT_S)

    def begin(self, perturbation: Perturbation) -> None:
        """Do it. What names the primary means the same node until its end."""
        mesh = self.mesh
        known = self._resolved.get(perturbation)
        one = self._resolved[perturbation] = known or self._resolve(perturbation)
        match one.kind:
            case Kind.KILL:
                mesh.kill(*one.nodes)
            case Kind.KILL_ALL:
                mesh.kill(*range(mesh.size))
            case Kind.RESTART:
                for at in self._running(one):
                    self.exits.append((one.kind, at, mesh.stop(at)))
            case Kind.ROLL:
                # Beside what comes next: a node may not get ready before a partition has ended.
                self._rolling = self._aside.submit(self._roll)
            case Kind.PAUSE:
                for at in self._running(one):
                    mesh.pause(at)
            case Kind.SLOW:
                for at in self._running(one):
                    mesh.slow(at, one.amount)
            case Kind.WIPE:
                for at in one.nodes:
                    mesh.wipe(at)
            case Kind.RESTORE:
                for at in one.nodes:
                    mesh.restore(at, self._backups[at])
            case Kind.DISK_FULL:
                for at in self._running(one):
                    mesh.fill_disk(at)
            case Kind.SYNC_ERROR:
                for at in one.nodes:
                    mesh.shims[at].fail_syncs()
            case Kind.SLOW_DISK:
                for at in one.nodes:
                    mesh.shims[at].slow_syncs(one.amount)
            case Kind.CLOCK:
                for at in one.nodes:
                    mesh.shims[at].skew(one.amount)
            case Kind.CUT | Kind.CUT_ONE_WAY | Kind.CUT_PAIR | Kind.FLAP:
                mesh.links.cut(self._links(one))
            case Kind.LOSS | Kind.DELAY | Kind.CAP:
                mesh.links.impair(mesh.links.all(), _impairment(one))
            case Kind.REGIONS:
                regions(mesh.links, mesh.size)
            case _:
                assert_never(one.kind)

    def end(self, perturbation: Perturbation) -> None:
        """Undo it."""
        mesh = self.mesh
        one = self._resolved[perturbation]
        match one.kind:
            case Kind.KILL | Kind.RESTART | Kind.WIPE | Kind.RESTORE:
                mesh.start(*one.nodes)
            case Kind.KILL_ALL:
                mesh.start()
            case Kind.ROLL:
                pass
            case Kind.PAUSE:
                for at in one.nodes:
                    mesh.resume(at)
            case Kind.SLOW:
                for at in one.nodes:
                    mesh.quicken(at)
            case Kind.DISK_FULL | Kind.SYNC_ERROR:
                for at in one.nodes:
                    self._replace_disk(one.kind, at)
            case Kind.SLOW_DISK | Kind.CLOCK:
                for at in one.nodes:
                    mesh.shims[at].heal()
            case Kind.CUT | Kind.CUT_ONE_WAY | Kind.CUT_PAIR | Kind.FLAP:
                mesh.links.join(self._links(one))
            case Kind.LOSS | Kind.DELAY | Kind.CAP | Kind.REGIONS:
                mesh.links.impair(mesh.links.all(), CLEAN)
            case _:
                assert_never(one.kind)

    def finish(self) -> None:
        """Wait for what goes on by itself; everything else has been undone. Raises its error."""
        try:
            if self._rolling is not None:
                self._rolling.result()
        finally:
            self._aside.shutdown()

    def _roll(self) -> None:
        mesh = self.mesh
        for at in range(mesh.size):
            if mesh.members[at].running:
                self.exits.append((Kind.ROLL, at, mesh.stop(at)))
            mesh.start(at)
            mesh.network.wait_ready([mesh.members[at]], timeout_s=START_TIMEOUT_S)

    def _resolve(self, perturbation: Perturbation) -> Perturbation:
        if PRIMARY not in perturbation.nodes:
            return perturbation
        with contextlib.suppress(ValueError, StopIteration):  # nobody answers: take the first
            primary = self.mesh.members.index(self.mesh.network.primary())
            return replace(perturbation, nodes=(primary,))
        return replace(perturbation, nodes=(0,))

    def _running(self, perturbation: Perturbation) -> Iterator[int]:
        return (at for at in perturbation.nodes if self.mesh.members[at].running)

    def _links(self, one: Perturbation) -> list[Link]:
        links = self.mesh.links
        if one.kind is Kind.CUT_ONE_WAY:
            return links.leaving(one.nodes)
        if one.kind is Kind.CUT_PAIR:
            a, b = one.nodes
            return [(a, b), (b, a)]
        return links.between(one.nodes)

    def _replace_disk(self, kind: Kind, at: int) -> None:
        """The node should have ended; if nothing was written meanwhile, it is killed."""
        try:
            self.exits.append((kind, at, self.mesh.ended(at, timeout_s=2)))
        except (WaitExpired, ChildProcessError):
            self.mesh.kill(at)
        if self.mesh.shims:
            self.mesh.shims[at].heal()
        self.mesh.start(at)


def _impairment(one: Perturbation) -> Impairment:
    if one.kind is Kind.LOSS:
        return Impairment(drop=one.amount)
    if one.kind is Kind.DELAY:
        return Impairment(delay_s=one.amount, jitter_s=one.amount / 2)
    return Impairment(rate_bytes_per_s=one.amount)
