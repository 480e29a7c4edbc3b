"""Is a history of concurrent operations on one object linearizable? (Wing and Gong 1993)

The search tries every operation that may come first, applies it to a sequential model, and goes on;
states seen before are not tried again (Lowe 2017). Two choices lose nothing: a read that fits is
taken at once, and of operations that do the same the one answered first. So payments of one amount
and reads take one step each, whatever overlaps; operations that differ cost exponential time.

An operation without an answer may have taken effect at any time after its invocation, or never.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

State = TypeVar("State")


class Hashable(Protocol):
    """What states must be."""

    def __hash__(self) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation(Generic[State]):
    """One call. `apply` gives the state after it, or None when its answer contradicts the state."""

    name: str  # operations of one name do the same
    invoked: float
    answered: float  # infinity: no answer
    apply: Callable[[State], State | None]
    changes: bool = True  # False: a read, which never gives another state


def linearizable(history: Sequence[Operation[State]], initial: State) -> bool:
    """Say whether some order that respects real time explains every answer."""
    operations = sorted(history, key=lambda operation: operation.invoked)
    everything = (1 << len(operations)) - 1
    required = sum(
        1 << at for at, operation in enumerate(operations) if operation.answered < math.inf
    )
    seen: set[tuple[int, State]] = set()
    stack: list[tuple[int, State]] = [(0, initial)]
    while stack:
        done, state = stack.pop()
        if done & required == required:
            return True
        if (done, state) in seen:
            continue
        seen.add((done, state))
        earliest = math.inf  # the first answer among what is left: nothing invoked later may go
        choices: dict[str, int] = {}  # one operation of each name
        left = everything & ~done
        while left:
            at = (left & -left).bit_length() - 1
            left &= left - 1
            operation = operations[at]
            if operation.invoked > earliest:
                break
            earliest = min(earliest, operation.answered)
            other = choices.get(operation.name)
            if other is None or operation.answered < operations[other].answered:
                choices[operation.name] = at
        steps = [
            (operations[at].changes, (done | 1 << at, after))
            for at in choices.values()
            if (after := operations[at].apply(state)) is not None
        ]
        reads = [step for changes, step in steps if not changes]
        stack.extend(reads[:1] or [step for _, step in steps])
    return False


def write(value: int, *, invoked: float, answered: float = math.inf) -> Operation[int]:
    """A register is set."""
    return Operation(
        name=f"write {value}", invoked=invoked, answered=answered, apply=lambda _: value
    )


def add(amount: int, *, invoked: float, answered: float = math.inf) -> Operation[int]:
    """An account is paid."""
    return Operation(
        name=f"add {amount}",
        invoked=invoked,
        answered=answered,
        apply=lambda balance: balance + amount,
    )


def read(value: int, *, invoked: float, answered: float) -> Operation[int]:
    """A register or an account is read."""
    return Operation(
        name=f"read {value}",
        invoked=invoked,
        answered=answered,
        apply=lambda held: held if held == value else None,
        changes=False,
    )
