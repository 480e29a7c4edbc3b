"""The ledger as a state machine: `apply(height, transactions) -> Applied` moves it, nothing else.

No clock, no randomness, no I/O: the same blocks give the same roots on every node. Between two
blocks the committed state is in `accounts` (Rust: tree, rows, deltas); Python holds the balances
and lanes the rules work on.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from caesar.core.accounts import SYSTEM_NAMES, TREASURY, Balances
from caesar.core.genesis import LedgerGenesis
from caesar.core.invariants import check_conservation, invariant
from caesar.core.proofs import Commitment
from caesar.core.rules import parameters_at
from caesar.core.transfers import Rules, advise, execute
from caesar.errors import StateDamaged
from caesar.limits import SUPPLY
from native.batches import Batch
from native.errors import NativeError
from native.hashing import EMPTY_ROOT
from native.ledger import Accounts, Transactions
from native.values import Digest

GENESIS_HEIGHT: Final = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Applied:
    """What one block did: one outcome code a transaction, and absolute values of what changed."""

    commitment: Commitment
    codes: bytes
    delta: bytes


class Ledger:
    """The whole state of Caesar on one chain, entered at genesis."""

    __slots__ = ("_balances", "_genesis", "accounts", "commitment")

    def __init__(self, chain_id: Digest, genesis: LedgerGenesis) -> None:
        """Issue the supply as genesis says."""
        self._genesis = genesis
        self.accounts = Accounts(chain_id)
        self._balances = Balances()
        for name in SYSTEM_NAMES:
            self._balances.open(self.accounts.insert_system(name))
        self._balances.issue(TREASURY, genesis.treasury)
        for address, amount in genesis.allocations:
            account = self.accounts.insert(address)
            self._balances.open(account)
            self._balances.issue(account, amount)
        self.commitment, _ = self._commit(GENESIS_HEIGHT, EMPTY_ROOT)

    def decode(self, batch: Batch, positions: Sequence[int] | None = None) -> Transactions:
        """Decode and verify the payloads at `positions`, or all that carry the ledger's tag.

        Any thread; changes no state. Good signatures are remembered and not checked again.
        """
        return self.accounts.transactions(batch, positions)

    def apply(self, height: int, transactions: Transactions) -> Applied:
        """Execute one block. Total: a bad transaction has an outcome, never an exception."""
        invariant(height > self.commitment.height, "blocks are applied in order of height")
        rules = Rules.at(self._genesis.parameters, height)
        codes = execute(transactions, self.accounts, self._balances, rules)
        receipt_root = transactions.receipt_root(height, codes, rules.fee)
        self.commitment, delta = self._commit(height, Digest(receipt_root))
        return Applied(commitment=self.commitment, codes=codes, delta=delta)

    def advise(self, transactions: Transactions) -> bytes:
        """Admission advice for the next block, one code a transaction; any thread."""
        rules = Rules.at(self._genesis.parameters, self.commitment.height + 1)
        return advise(transactions, self._balances, rules)

    def restore(
        self,
        rows: Sequence[tuple[int, bytes]],
        deltas: Sequence[bytes],
        head: tuple[int, Digest] | None,
    ) -> None:
        """Replace the state by stored rows and later deltas; raises `StateDamaged`."""
        try:
            tree_root, state_sum = self.accounts.load(rows, deltas, head)
        except NativeError as error:
            raise StateDamaged(str(error)) from None
        height, _, _, receipt_root = self.accounts.head()
        if state_sum != SUPPLY:
            raise StateDamaged(f"the stored accounts hold {state_sum} base units, not {SUPPLY}")
        self._balances = Balances(*self.accounts.export())
        self.commitment = self._commitment(height, tree_root, state_sum, receipt_root)

    def enter(self, commitment: Commitment, chunks: Iterable[bytes]) -> None:
        """Replace the state by that of a snapshot; raises `StateDamaged` and changes nothing."""
        self.accounts.restore_begin()
        try:
            for chunk in chunks:
                self.accounts.restore_part(chunk)
            tree_root, state_sum = self.accounts.restore_finish(
                commitment.height, commitment.receipt_root
            )
        except NativeError as error:
            raise StateDamaged(str(error)) from None
        self._balances = Balances(*self.accounts.export())
        self.commitment = self._commitment(
            commitment.height, tree_root, state_sum, commitment.receipt_root
        )

    def _commit(self, height: int, receipt_root: Digest) -> tuple[Commitment, bytes]:
        changed, consumed = self._balances.drain()
        (tree_root, state_sum), delta = self.accounts.commit(
            height, receipt_root, changed, consumed
        )
        check_conservation(state_sum)
        return self._commitment(height, tree_root, state_sum, receipt_root), delta

    def _commitment(
        self, height: int, tree_root: bytes, state_sum: int, receipt_root: bytes
    ) -> Commitment:
        return Commitment(
            height=height,
            tree_root=Digest(tree_root),
            state_sum=state_sum,
            receipt_root=Digest(receipt_root),
            parameters_hash=parameters_at(self._genesis.parameters, height).digest,
        )
