"""A run as a file: how many nodes, how much load, and what is done to them when.

`draw` makes one from a seed, the same for the same seed and size. It draws what a cluster must
survive: links and processes may fail in any number, but at most one node at a time loses what it
signed, and everything ends before the run does. The file is JSON; a failed run prints its own.
"""

from __future__ import annotations

import json
import random
from dataclasses import asdict, dataclass
from typing import Final

from chaos.perturbations import FORGETS, NEEDS_SHIM, PRIMARY, Kind, Perturbation

BEGIN_S: Final = 1.0  # of load before the first perturbation
SPREAD_S: Final = 8.0  # within which they begin
QUIET_S: Final = 3.0  # of load after the last
DURATIONS_S: Final = (1.0, 2.0, 4.0, 8.0)
MOST: Final = 4  # perturbations of a run
OF_LINKS: Final = frozenset(
    {
        *(Kind.CUT, Kind.CUT_ONE_WAY, Kind.CUT_PAIR, Kind.FLAP),
        *(Kind.LOSS, Kind.DELAY, Kind.CAP, Kind.REGIONS),
    }
)
OF_ALL: Final = frozenset({Kind.KILL_ALL, Kind.ROLL, Kind.LOSS, Kind.DELAY, Kind.CAP, Kind.REGIONS})


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """One run."""

    seed: int  # also of the links' luck
    nodes: int
    rate: float  # payloads a second, open loop
    seconds: float
    perturbations: tuple[Perturbation, ...]

    def to_json(self) -> str:
        """As it is printed and read again."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read what `to_json` wrote."""
        document = json.loads(text)
        perturbations = tuple(
            Perturbation(**{**one, "kind": Kind(one["kind"]), "nodes": tuple(one["nodes"])})
            for one in document.pop("perturbations")
        )
        return cls(perturbations=perturbations, **document)


def draw(seed: int, *, nodes: int, rate: float, shim: bool = True) -> Manifest:
    """Draw a run; `shim` says whether disk errors and clocks can be had."""
    luck = random.Random(f"{seed} {nodes}")
    faulty = (nodes - 1) // 3
    kinds = [kind for kind in Kind if shim or kind not in NEEDS_SHIM]
    free = list(range(nodes))  # of process faults
    luck.shuffle(free)
    chosen: list[Perturbation] = []
    for _ in range(luck.randint(1, MOST)):
        taken = {one.kind for one in chosen}
        left = [kind for kind in kinds if kind not in taken]
        if taken & FORGETS:
            left = [kind for kind in left if kind not in FORGETS]
        if taken & OF_LINKS & OF_ALL:  # two of them would undo each other
            left = [kind for kind in left if kind not in OF_LINKS & OF_ALL]
        if {Kind.KILL_ALL, Kind.ROLL} & taken:
            left = [kind for kind in left if kind in OF_LINKS]
        elif taken - OF_LINKS:
            left = [kind for kind in left if kind not in (Kind.KILL_ALL, Kind.ROLL)]
        kind = luck.choice(left)
        chosen.append(
            Perturbation(
                kind=kind,
                at_s=round(BEGIN_S + luck.random() * SPREAD_S, 1),
                duration_s=luck.choice(DURATIONS_S),
                nodes=_nodes(kind, luck, nodes, faulty, free),
                amount=_amount(kind, luck),
            )
        )
    chosen.sort(key=lambda one: one.at_s)
    last = max(one.at_s + one.duration_s for one in chosen)
    return Manifest(
        seed=seed, nodes=nodes, rate=rate, seconds=last + QUIET_S, perturbations=tuple(chosen)
    )


def _nodes(
    kind: Kind, luck: random.Random, nodes: int, faulty: int, free: list[int]
) -> tuple[int, ...]:
    if kind in OF_ALL:
        return ()
    if kind is Kind.CUT_PAIR:
        return tuple(luck.sample(range(nodes), 2))
    if kind in OF_LINKS:
        if luck.random() < 0.3:
            return (PRIMARY,)
        return tuple(
            sorted(luck.sample(range(nodes), luck.randint(1, max(faulty + 1, nodes // 2))))
        )
    if kind is Kind.PAUSE and luck.random() < 0.3:
        return (PRIMARY,)
    many = 1 if kind in FORGETS else luck.randint(1, max(1, min(faulty, len(free))))
    picked = tuple(sorted(free[:many]))
    del free[:many]
    return picked or (luck.randrange(nodes),)


def _amount(kind: Kind, luck: random.Random) -> float:
    match kind:
        case Kind.SLOW:
            return luck.choice((0.2, 0.5))
        case Kind.SLOW_DISK:
            return luck.choice((0.008, 0.1, 0.5))
        case Kind.CLOCK:
            return luck.choice((-600.0, -6.0, -0.4, 0.4, 6.0, 600.0))
        case Kind.LOSS:
            return luck.choice((0.01, 0.05, 0.2))
        case Kind.DELAY:
            return luck.choice((0.01, 0.05, 0.15))
        case Kind.CAP:
            return luck.choice((250_000.0, 1_000_000.0))
        case _:
            return 0.0
