"""Tricks that need not understand what they bend: old messages, and changed fields (bft.md 10)."""

from dataclasses import fields, is_dataclass, replace
from typing import TYPE_CHECKING, TypeVar, cast

from consensus.core.messages import Message, NewView, PrePrepare, ViewChange, VoteVector
from consensus.core.types import ReplicaIndex
from consensus.limits import NUMBER_MAX, WINDOW_BLOCKS

if TYPE_CHECKING:
    from random import Random

    from consensus.sim.liars.liar import Liar

T = TypeVar("T")


def replays(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """What it once heard, of anybody, again."""
    if not liar.heard or not liar.bold():
        return None
    liar.count("replayed message")
    return [message, liar.world.random.choice(liar.heard)]


def mutates(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """One field a little different, then signed again."""
    if not liar.bold():
        return None
    changed = mutated(message, liar.world.random)
    match changed:
        case PrePrepare():
            changed = liar.sealed(changed)
        case VoteVector():
            changed = liar.sealed(changed)
        case ViewChange():
            changed = liar.sealed(changed)
        case NewView():
            changed = liar.sealed(changed)
    liar.count("mutated field")
    return [changed]


def mutated(value: T, random: "Random") -> T:
    """A copy of a message in which one field, however deep, is off by a little."""
    return cast("T", _mutated(value, random))


def _mutated(value: object, random: "Random") -> object:
    if is_dataclass(value) and not isinstance(value, type):
        names = [entry.name for entry in fields(value) if entry.init]
        name = random.choice(names)
        return replace(value, **{name: _mutated(getattr(value, name), random)})
    if isinstance(value, tuple):
        return _mutated_rows(value, random)
    if isinstance(value, bool):
        return not value
    if isinstance(value, int):
        step = random.choice(
            (-1, 1, -WINDOW_BLOCKS, WINDOW_BLOCKS, -value, 1 << random.randrange(63))
        )
        changed = min(max(0, int(value) + step), NUMBER_MAX)
        try:
            return type(value)(changed)
        except ValueError:
            return value
    if isinstance(value, bytes) and value:
        at = random.randrange(len(value))
        flipped = bytes([value[at] ^ 1 << random.randrange(8)])
        return type(value)(value[:at] + flipped + value[at + 1 :])
    return value


def _mutated_rows(value: tuple[object, ...], random: "Random") -> tuple[object, ...]:
    if not value:
        return value
    at = random.randrange(len(value))
    match random.randrange(4):
        case 0:
            return value[:at] + value[at + 1 :]
        case 1:
            return (*value, value[at])
        case _:
            return (*value[:at], _mutated(value[at], random), *value[at + 1 :])
