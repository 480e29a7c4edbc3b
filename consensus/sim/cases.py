"""One case of a campaign: a kind of run and its number. Equal cases are equal runs."""

from dataclasses import dataclass
from enum import Enum
from typing import assert_never

from consensus.sim import crashpoints, membership, twins
from consensus.sim.faults import Focus
from consensus.sim.run import Outcome, simulate, size_of


class Kind(Enum):
    """What a number means."""

    SWARM = "swarm"  # a seed: a mix of all faults
    DISK = "disk"  # a seed: disk faults and crashes in every run
    TWINS = "twins"  # a scenario of `twins`
    CRASH = "crash"  # a point of `crashpoints`
    MEMBERS = "members"  # a seed: the set changes under faults


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """`members` is None where the number decides it."""

    kind: Kind
    number: int
    members: int | None = None

    @property
    def command(self) -> str:
        """What replays it."""
        size = "" if self.members is None else f" --n {self.members}"
        return (
            f"python -m consensus.sim --kind {self.kind.value} --seed {self.number}{size} --trace"
        )

    def play(self, trace: list[str] | None = None) -> Outcome:
        """Raises `Violation` when a property does not hold."""
        members = size_of(self.number) if self.members is None else self.members
        match self.kind:
            case Kind.SWARM:
                return simulate(self.number, members, trace=trace)
            case Kind.DISK:
                return simulate(self.number, members, trace=trace, focus=Focus.DISK)
            case Kind.TWINS:
                return twins.play(self.number, trace=trace)
            case Kind.CRASH:
                return crashpoints.play(self.number, trace=trace)
            case Kind.MEMBERS:
                members = self.members or membership.size_of(self.number)
                return membership.simulate_changes(self.number, members, trace=trace)
            case _:
                assert_never(self.kind)
