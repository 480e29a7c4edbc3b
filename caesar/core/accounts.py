"""Balances and lanes, by dense account number, while blocks execute.

`move` is the only way to touch a balance. Numbers are given in order of creation, so they are the
same on every node; 0 and 1 are system accounts, which no transaction can name. Addresses, keys and
the tree of the committed state live in `native._native.Accounts`.
"""

from collections.abc import Iterable
from typing import Final

from caesar.core.invariants import InvariantError, check_amount

FEES: Final = 0  # what transactions paid; rewards will come from here
TREASURY: Final = 1  # what genesis did not allocate
SYSTEM_NAMES: Final = (b"fees", b"treasury")

LANE_BITS: Final = 8


def slot_of(account: int, lane: int) -> int:
    """Key of one lane of one account in `Balances.sequences`."""
    return account << LANE_BITS | lane


class Balances:
    """Balances, next sequences, and which of them changed since the last `drain`."""

    __slots__ = ("_balances", "_touched", "_touched_slots", "sequences")

    def __init__(
        self, balances: Iterable[int] = (), sequences: Iterable[tuple[int, int, int]] = ()
    ) -> None:
        """Start from committed balances in order of number and `(account, lane, next)`."""
        self._balances = list(balances)
        self.sequences = {slot_of(account, lane): after for account, lane, after in sequences}
        self._touched: set[int] = set()
        self._touched_slots: set[int] = set()

    def __len__(self) -> int:
        """Number of accounts."""
        return len(self._balances)

    def __getitem__(self, account: int) -> int:
        """Balance of an account."""
        return self._balances[account]

    def open(self, account: int) -> None:
        """Add the next account, empty."""
        if account != len(self._balances):
            raise InvariantError("accounts are numbered in order of creation")
        self._balances.append(0)
        self._touched.add(account)

    def issue(self, account: int, amount: int) -> None:
        """Genesis only: put a part of the supply where it starts."""
        check_amount(amount)
        self._balances[account] += amount
        self._touched.add(account)

    def move(self, debit: int, credit: int, amount: int) -> None:
        """Take an amount from one account and give it to another."""
        balances = self._balances
        left = balances[debit] - amount
        if left < 0 or amount < 0:
            raise InvariantError("a balance would fall below zero")
        balances[debit] = left
        balances[credit] += amount
        touched = self._touched
        touched.add(debit)
        touched.add(credit)

    def consume(self, slot: int, sequence: int) -> None:
        """Use up the sequence a lane waits for."""
        self.sequences[slot] = sequence + 1
        self._touched_slots.add(slot)

    def drain(self) -> tuple[list[tuple[int, int]], list[tuple[int, int, int]]]:
        """Return `(account, balance)` and `(account, lane, next)` of what changed, in order."""
        balances, sequences = self._balances, self.sequences
        changed = [(account, balances[account]) for account in sorted(self._touched)]
        consumed = [
            (slot >> LANE_BITS, slot & 0xFF, sequences[slot])
            for slot in sorted(self._touched_slots)
        ]
        self._touched.clear()
        self._touched_slots.clear()
        return changed, consumed
