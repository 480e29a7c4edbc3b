"""Is a history of concurrent operations on one object linearizable? (Wing and Gong 1993)

The search tries every operation that may come first, applies it to a sequential model, and goes on;
states seen before are not tried again (Lowe 2017). It is exponential in the number of operations
that overlap, so histories are cut where nothing is pending and must have bounded concurrency.

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

    name: str
    invoked: float
    answered: float  # infinity: no answer
    apply: Callable[[State], State | None]


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
        for at, operation in enumerate(operations):
            if done >> at & 1:
                continue
            if operation.invoked > earliest:
                break
            earliest = min(earliest, operation.answered)
        left = everything & ~done
        while left:
            at = (left & -left).bit_length() - 1
            left &= left - 1
            operation = operations[at]
            if operation.invoked > earliest:
                break
            after = operation.apply(state)
            if after is not None:
                stack.append((done | 1 << at, after))
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
    )
