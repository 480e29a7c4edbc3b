"""A small ledger of its own making, and the history of its clients: the exact oracle (bft.md 11).

Replies name the block, so linearizability needs no search: play the one log into a fresh ledger,
compare every reply (S4, S9), and compare the order of blocks with real time (S10).
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from consensus.sim.checker import require
from consensus.sim.disk import StoredBlock
from consensus.sim.node import Node

WITHOUT_EFFECT: Final = ("known", "refused")
SNAPSHOT_BLOCKS: Final = 4  # often, so that short runs restart from one


def signature(body: bytes) -> bytes:
    """What only the client of a payload can make."""
    return hashlib.sha256(b"client" + body).digest()[:8]


def payment(source: int, target: int, amount: int, unique: int) -> bytes:
    """A signed payload that moves money."""
    body = b"%d %d %d %d" % (source, target, amount, unique)
    return body + b" " + signature(body)


def is_signed(payload: bytes) -> bool:
    """Whether the client itself made these bytes."""
    return signature(payload[:-9]) == payload[-8:]


@dataclass(slots=True)
class Ledger:
    """Balances that start at 100, and payloads that take effect once."""

    may_apply: Callable[[bytes], bool] = is_signed
    balances: dict[int, int] = field(default_factory=dict)
    seen: set[bytes] = field(default_factory=set)

    def apply(self, payload: bytes) -> str:
        """What the client is told."""
        if not self.may_apply(payload):
            return "refused"
        if payload in self.seen:
            return "known"
        self.seen.add(payload)
        words = payload[:-9].split()
        if len(words) != 4 or not all(word.isdigit() for word in words):
            return "read"
        source, target, amount = int(words[0]), int(words[1]), int(words[2])
        balance = self.balances.get(source, 100)
        if balance < amount:
            return "failed"
        self.balances[source] = balance - amount
        self.balances[target] = self.balances.get(target, 100) + amount
        return f"left {balance - amount}"

    def snapshot(self) -> "Snapshot":
        """All that a restart needs, the payloads that have had their effect included."""
        return Snapshot(balances=dict(self.balances), seen=frozenset(self.seen))


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """The state of a ledger after one block."""

    balances: dict[int, int]
    seen: frozenset[bytes]

    def restored(self, may_apply: Callable[[bytes], bool]) -> Ledger:
        """A ledger that goes on from here."""
        return Ledger(may_apply=may_apply, balances=dict(self.balances), seen=set(self.seen))


@dataclass(slots=True)
class Operation:
    """One call of a client, and what came of it."""

    payload: bytes
    invoked_us: int
    responded_us: int | None = None
    height: int = 0
    ordered: bool = True  # False: it saw the state after `height`, and is in no block


@dataclass(slots=True)
class History:
    """What clients saw."""

    operations: list[Operation] = field(default_factory=list)
    replies: dict[bytes, tuple[int, str]] = field(default_factory=dict)

    def replied(self, node: int, payload: bytes, height: int, result: str) -> None:
        """An honest node executed a payload; it takes effect once, refusals have none."""
        if result in WITHOUT_EFFECT:
            return
        first = self.replies.setdefault(payload, (height, result))
        require(
            first == (height, result),
            f"state: node {node} replies {result} at {height}, another replied {first}",
        )

    def check(self, log: dict[int, StoredBlock]) -> None:
        """Every reply is what the one log says, and no order contradicts real time."""
        reference = Ledger()
        expected: dict[bytes, tuple[int, str]] = {}
        for height in sorted(log):
            for payload in log[height].payloads:
                result = reference.apply(payload)
                if result not in WITHOUT_EFFECT:
                    expected.setdefault(payload, (height, result))
        for payload, (height, result) in self.replies.items():
            require(is_signed(payload), f"unsigned payload took effect at {height}: {result}")
            require(
                expected.get(payload) == (height, result),
                f"acknowledged payload lost at {height}, or its result {result} was another",
            )
        require(
            sum(reference.balances.values()) == 100 * len(reference.balances),
            "conservation: money came from nowhere",
        )
        self._real_time()

    def _real_time(self) -> None:
        done = [one for one in self.operations if one.responded_us is not None]
        for later in done:
            for earlier in done:
                if earlier.responded_us is None or earlier.responded_us >= later.invoked_us:
                    continue
                require(
                    earlier.height < later.height + (not later.ordered),
                    f"real time: answered at {earlier.height} before the call that was answered "
                    f"at {later.height}",
                )


class LedgerNode(Node):
    """A node whose application is the ledger, on top of the hash chain.

    It keeps the state after every few blocks and starts from the newest one that is left.
    """

    history: History | None = None
    accepts: Callable[[bytes], bool] = staticmethod(is_signed)

    def start(self) -> None:
        self.snapshots: dict[int, Snapshot] = getattr(self, "snapshots", {})
        self._restore()
        super().start()

    def _restore(self) -> None:
        """From the newest snapshot at or below the last block, and the blocks after it."""
        blocks = self.disk.blocks
        self.snapshots = {
            height: snapshot for height, snapshot in self.snapshots.items() if height <= len(blocks)
        }
        self.applied = max(self.snapshots, default=0)
        self.ledger = Ledger(may_apply=self.accepts)
        if self.applied:
            self.ledger = self.snapshots[self.applied].restored(self.accepts)
        for stored in blocks[self.applied :]:
            self._apply(stored)

    def state_replaced(self) -> None:
        """Apply what a fetched snapshot says was executed; others answered for it."""
        self.snapshots = {}
        self.ledger = Ledger(may_apply=self.accepts)
        self.applied = len(self.disk.blocks)
        for stored in self.disk.blocks:
            for payload in stored.payloads:
                self.ledger.apply(payload)

    def _apply(self, stored: StoredBlock) -> None:
        self.applied += 1
        # What a fetched snapshot says was executed, others answered for, at heights of their own.
        answers = self.honest and not stored.is_from_snapshot
        for payload in stored.payloads:
            result = self.ledger.apply(payload)
            if self.history is not None and answers:
                self.history.replied(self.index, payload, stored.header.height, result)
        if self.applied % SNAPSHOT_BLOCKS == 0:
            self.snapshots[self.applied] = self.ledger.snapshot()

    def _store_block(self, stored: StoredBlock) -> None:
        super()._store_block(stored)
        if self.applied != len(self.disk.blocks) - 1:
            self._restore()
        else:
            self._apply(stored)
