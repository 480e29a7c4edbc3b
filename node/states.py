"""Where the states of two nodes differ: application by application, then down the ledger's tree.

The ledger's tree is the one of `caesar.core.proofs`: each answer is the way from the root to one
key, so its siblings name both children of every node on it. Where the two ways differ is followed
to the left first; each question goes one turn to the right, so a million accounts take about twenty
questions. Nothing is proved here: both nodes are believed, which is what their operator wants.
"""

from __future__ import annotations

import base64
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from caesar.core.accounts import SYSTEM_NAMES
from caesar.core.addresses import Address, address_text
from caesar.core.transactions import TAG as LEDGER_TAG
from native.codec import decode
from native.errors import NativeError
from native.hashing import sha256
from native.ledger import system_tree_key
from node.errors import StatesMoving, UnexpectedAnswer
from node.limits import (
    STATE_PATH_SIZE_BYTES_MAX,
    STATE_QUESTIONS_MAX,
    STATES_MEET_ATTEMPTS_MAX,
    STATES_MEET_PAUSE_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from node.client import NodeClient

KEY_BITS: Final = 256
START: Final = bytes(32)
EMPTY: Final = (bytes(32), 0)

Summed = tuple[bytes, int]
Leaf = tuple[bytes, int, bytes]  # key, sum, hash of the value


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """One node's answer: the way from the root of its tree to a key."""

    height: int
    roots: dict[int, bytes]
    key: bytes
    terminal: Leaf | None
    siblings: tuple[Summed, ...]
    address: bytes | None

    levels: tuple[Summed, ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        """Hash the way once, from the leaf up."""
        value = EMPTY
        if self.terminal is not None:
            key, total, content = self.terminal
            value = (sha256(b"\0", key, _u64(total), content), total)
        found = [value]
        for level in range(len(self.siblings) - 1, -1, -1):
            pair = (value, self.siblings[level])
            left, right = pair[::-1] if bit(self.key, level) else pair
            joined = sha256(b"\1", left[0], _u64(left[1]), right[0], _u64(right[1]))
            value = (joined, left[1] + right[1])
            found.append(value)
        object.__setattr__(self, "levels", tuple(reversed(found)))

    def at(self, depth: int) -> Summed:
        """Hash and sum of the subtree of the first `depth` bits of the key."""
        return self.levels[min(depth, self.depth)]

    @property
    def depth(self) -> int:
        """At this depth and below there is one leaf or none."""
        return len(self.siblings)


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """What differs at one height. `key` is a place of the ledger's tree, if it is there."""

    height: int
    applications: tuple[int, ...]
    key: bytes | None = None
    account: str = ""  # address, or name of a system account
    first: Leaf | None = None
    second: Leaf | None = None
    questions: int = 0


def compare(
    first: NodeClient, second: NodeClient, *, pause: Callable[[float], None] = time.sleep
) -> Difference:
    """Find out where two nodes differ; raises `StatesMoving` when they do not stand at one height.

    `applications` is empty when the states are the same.
    """
    for _ in range(STATES_MEET_ATTEMPTS_MAX):
        one, other = ask(first, START), ask(second, START)
        if one.height == other.height:
            found = _differ(first, second, one, other)
            if found is not None:
                return found
        pause(STATES_MEET_PAUSE_S)
    raise StatesMoving(
        f"{first.url} is at block {one.height} and {second.url} at block {other.height}, and they "
        "did not stand still at one block",
        hint="try again when no payloads come in; a halted node stays where it is, so stop the "
        "others at its block, or compare its files",
    )


def _differ(first: NodeClient, second: NodeClient, one: Way, other: Way) -> Difference | None:
    """Compare at one height; None when a node moved on meanwhile."""
    tags = sorted(one.roots.keys() | other.roots.keys())
    differing = tuple([tag for tag in tags if one.roots.get(tag) != other.roots.get(tag)])
    difference = Difference(height=one.height, applications=differing)
    if LEDGER_TAG not in differing or one.at(0) == other.at(0):
        return difference
    search = _Search(lambda key: ask(first, key), lambda key: ask(second, key), one.height)
    key = search.differing(one, other)
    if key is None:
        return None
    left, right = search.both(key)
    if search.moved:
        return None
    leaves = [
        way.terminal if way.terminal and way.terminal[0] == key else None for way in (left, right)
    ]
    addresses = [
        way.address
        for way, leaf in zip((left, right), leaves, strict=True)
        if leaf is not None and way.address is not None
    ]
    return Difference(
        height=one.height,
        applications=differing,
        key=key,
        account=address_text(Address(addresses[0])) if addresses else _system_name(key),
        first=leaves[0],
        second=leaves[1],
        questions=search.questions,
    )


class _Search:
    """Follows a difference down two trees of one height."""

    def __init__(
        self, first: Callable[[bytes], Way], second: Callable[[bytes], Way], height: int
    ) -> None:
        self._sides = (first, second)
        self._height = height
        self.questions = 0
        self.moved = False

    def both(self, key: bytes) -> tuple[Way, Way]:
        one, other = (self._ask(side, key) for side in self._sides)
        return one, other

    def _ask(self, side: Callable[[bytes], Way], key: bytes) -> Way:
        self.questions += 1
        way = side(key)
        self.moved = self.moved or way.height != self._height
        return way

    def differing(self, one: Way, other: Way) -> bytes | None:
        """A key whose leaf differs, the roots of both ways being different; None if one moved."""
        depth, key = 0, one.key
        while not self.moved and self.questions < STATE_QUESTIONS_MAX:
            if depth >= one.depth or depth >= other.depth:
                return self._last(one, other, key, depth)
            if one.at(depth + 1) != other.at(depth + 1):
                depth += 1  # on the way, which turns left wherever nobody forced it right
                continue
            key = flip(key, depth)
            depth += 1
            one, other = self.both(key)
        return None

    def _last(self, one: Way, other: Way, key: bytes, depth: int) -> bytes | None:
        """One side has a single leaf, or none, below these bits."""
        lone, many = (one, self._sides[1]) if depth >= one.depth else (other, self._sides[0])
        if lone.terminal is None or not same_bits(lone.terminal[0], key, depth):
            return self._any_leaf(many, key, depth)
        mine = lone.terminal
        way = self._ask(many, mine[0])
        if way.terminal != mine:
            return mine[0]
        for level in range(depth, way.depth):
            if way.siblings[level] != EMPTY:
                return self._any_leaf(many, flip(mine[0], level), level + 1)
        return None

    def _any_leaf(self, side: Callable[[bytes], Way], key: bytes, depth: int) -> bytes | None:
        """The key of some leaf below the first `depth` bits of `key`, which are not empty."""
        key = cut(key, depth)
        while not self.moved and self.questions < STATE_QUESTIONS_MAX:
            way = self._ask(side, key)
            if way.terminal is not None:
                return way.terminal[0]
            if way.depth <= depth:
                return None
            key = flip(key, way.depth - 1)  # the empty side was asked: the other one is not
        return None


def ask(client: NodeClient, key: bytes) -> Way:
    """Ask a node for the way to a key of its ledger's tree."""
    document = client.state_path(key.hex())
    try:
        return read_way(document, key)
    except (KeyError, TypeError, ValueError, OverflowError, NativeError):
        raise UnexpectedAnswer(
            f"{client.url} answered with what is no way down a tree",
            hint="check that it is a HyperMesh node of the same version",
        ) from None


def read_way(document: dict[str, Any], key: bytes) -> Way:
    """Decode what the route answers."""
    value = decode(base64.b64decode(document["path"]), size_max=STATE_PATH_SIZE_BYTES_MAX)
    match value:
        case (1, tuple(terminal), tuple(siblings)) if len(siblings) <= KEY_BITS:
            pass
        case _:
            raise ValueError("a path of an unknown form")
    return Way(
        height=int(document["height"]),
        roots={int(tag): bytes.fromhex(root) for tag, root in document["roots"].items()},
        key=key,
        terminal=_leaf(terminal),
        siblings=tuple([_sibling(entry) for entry in siblings]),
        address=None if document["address"] is None else bytes.fromhex(document["address"]),
    )


def _leaf(value: tuple[Any, ...]) -> Leaf | None:
    match value:
        case ():
            return None
        case (bytes(key), int(total), bytes(content)) if len(key) == len(content) == 32:
            return key, total, content
        case _:
            raise ValueError("a leaf of an unknown form")


def _sibling(value: Any) -> Summed:
    match value:
        case (b"", 0):
            return EMPTY
        case (bytes(digest), int(total)) if len(digest) == 32:
            return digest, total
        case _:
            raise ValueError("a sibling of an unknown form")


def _system_name(key: bytes) -> str:
    names = {system_tree_key(name): name.decode() for name in SYSTEM_NAMES}
    return names.get(key, "")


def _u64(value: int) -> bytes:
    return value.to_bytes(8, "big")


def bit(key: bytes, at: int) -> int:
    """Bit `at` of a key, the most significant bit of byte 0 first."""
    return key[at // 8] >> (7 - at % 8) & 1


def cut(key: bytes, bits: int) -> bytes:
    """The first bits of a key, and zeros."""
    number = int.from_bytes(key, "big") >> (KEY_BITS - bits) << (KEY_BITS - bits)
    return number.to_bytes(32, "big")


def flip(key: bytes, at: int) -> bytes:
    """The bits before `at`, the other bit there, and zeros."""
    number = int.from_bytes(cut(key, at + 1), "big") ^ 1 << (KEY_BITS - 1 - at)
    return number.to_bytes(32, "big")


def same_bits(one: bytes, other: bytes, bits: int) -> bool:
    """Whether two keys begin alike."""
    return cut(one, bits) == cut(other, bits)
