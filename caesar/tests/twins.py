"""Slow twins: the sum tree by its definition, and the whole ledger in a page.

The reference ledger knows addresses and dictionaries only: no columns, numbers, caches or Rust.
"""

import hashlib
from dataclasses import dataclass, field

from caesar.core.addresses import Address
from caesar.core.receipts import Outcome
from caesar.core.transactions import SignedTransaction, decode_transaction
from caesar.errors import TransactionMalformed
from caesar.limits import SUPPLY, U64_MAX
from native.codec import encode
from native.errors import NativeError
from native.keys import verify
from native.values import Algorithm, PublicKey

EMPTY = (bytes(32), 0)


def sha256(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def sum_tree_root(leaves: list[tuple[bytes, int, bytes]], depth: int = 0) -> tuple[bytes, int]:
    """Root and sum over `(key, sum, value)`, word by word as caesar-catalog-ui.md 3.11 says."""
    if not leaves:
        return EMPTY
    if len(leaves) == 1:
        key, amount, value = leaves[0]
        return sha256(b"\x00", key, amount.to_bytes(8, "big"), sha256(value)), amount
    sides: tuple[list[tuple[bytes, int, bytes]], list[tuple[bytes, int, bytes]]] = ([], [])
    for leaf in leaves:
        sides[leaf[0][depth // 8] >> (7 - depth % 8) & 1].append(leaf)
    (left, left_sum), (right, right_sum) = (sum_tree_root(side, depth + 1) for side in sides)
    node = sha256(b"\x01", left, left_sum.to_bytes(8, "big"), right, right_sum.to_bytes(8, "big"))
    return node, left_sum + right_sum


def address_of_raw(key: bytes) -> bytes:
    prefix = bytes.fromhex("3082038f300706052bce0f03100382038200")
    return sha256(b"hypermesh/account/v1", prefix, key)


def refusal_of_bytes(payload: bytes, chain_id: bytes) -> tuple[Outcome, SignedTransaction | None]:
    """What bytes alone decide, signature aside."""
    try:
        signed = decode_transaction(payload)
    except TransactionMalformed:
        return Outcome.UNDECODABLE, None
    transaction = signed.transaction
    if transaction.chain_id != chain_id:
        return Outcome.WRONG_CHAIN, signed
    if any(operation.amount == 0 for operation in transaction.operations):
        return Outcome.ZERO_AMOUNT, signed
    if any(operation.recipient == transaction.sender for operation in transaction.operations):
        return Outcome.SELF_TRANSFER, signed
    if signed.key is not None and address_of_raw(signed.key) != transaction.sender:
        return Outcome.KEY_MISMATCH, signed
    return Outcome.APPLIED, signed


def signature_holds(key: bytes, signed: SignedTransaction) -> bool:
    try:
        public = PublicKey(algorithm=Algorithm.FALCON_512, raw=key)
        verify(public, signed.transaction.signed_bytes, signed.signature)
    except NativeError:
        return False
    return True


@dataclass
class ReferenceLedger:
    """Balances by address; `b"fees"` and `b"treasury"` are system accounts."""

    chain_id: bytes
    fee: int
    valid_for: int
    balances: dict[bytes, int] = field(default_factory=dict)
    keys: dict[bytes, bytes] = field(default_factory=dict)
    lanes: dict[bytes, dict[int, int]] = field(default_factory=dict)
    receipts: dict[bytes, Outcome] = field(default_factory=dict)

    def apply(self, payload: bytes, height: int) -> Outcome:
        outcome = self._apply(payload, height)
        if outcome.is_final:
            transaction_id = decode_transaction(payload).transaction.id
            assert transaction_id not in self.receipts
            self.receipts[transaction_id] = outcome
        assert sum(self.balances.values()) == SUPPLY
        return outcome

    def _apply(self, payload: bytes, height: int) -> Outcome:
        outcome, signed = refusal_of_bytes(payload, self.chain_id)
        if outcome is not Outcome.APPLIED or signed is None:
            return outcome
        transaction, sender = signed.transaction, signed.transaction.sender
        key = self.keys.get(sender, signed.key)
        if key is not None and not signature_holds(key, signed):
            return Outcome.BAD_SIGNATURE
        if sender not in self.balances:
            return Outcome.UNKNOWN_SENDER
        if key is None:
            return Outcome.KEY_MISSING
        if transaction.valid_until < height:
            return Outcome.EXPIRED
        if transaction.valid_until > height + self.valid_for:
            return Outcome.VALID_TOO_LONG
        fee = self.fee * len(transaction.operations)
        if transaction.max_fee < fee:
            return Outcome.FEE_ABOVE_MAXIMUM
        lanes = self.lanes.setdefault(sender, {})
        expected = lanes.get(transaction.lane, 0)
        if transaction.sequence < expected:
            return Outcome.SEQUENCE_USED
        if transaction.sequence > expected:
            return Outcome.SEQUENCE_AHEAD
        if self.balances[sender] < fee:
            return Outcome.CANNOT_PAY_FEE
        lanes[transaction.lane] = expected + 1
        self.keys[sender] = key
        self.balances[sender] -= fee
        self.balances[b"fees"] += fee
        total = sum(operation.amount for operation in transaction.operations)
        if total + fee > U64_MAX:
            return Outcome.AMOUNT_OVERFLOW
        if self.balances[sender] < total:
            return Outcome.INSUFFICIENT_FUNDS
        for operation in transaction.operations:
            self.balances[sender] -= operation.amount
            old = self.balances.get(operation.recipient, 0)
            self.balances[operation.recipient] = old + operation.amount
        return Outcome.APPLIED

    def tree_root(self) -> tuple[bytes, int]:
        """The Merkle-sum root over everything above."""
        leaves = []
        for name, balance in self.balances.items():
            lanes = tuple(sorted(self.lanes.get(name, {}).items()))
            value = encode((1, balance, int(name in self.keys), lanes))
            if name in (b"fees", b"treasury"):
                key = sha256(b"\x02", sha256(b"hypermesh/system/v1", name))
            else:
                key = sha256(b"\x01", name)
            leaves.append((key, balance, value))
        return sum_tree_root(leaves)


def reference(
    chain_id: bytes, fee: int, valid_for: int, rich: dict[Address, int]
) -> ReferenceLedger:
    """The reference ledger after genesis."""
    ledger = ReferenceLedger(chain_id=chain_id, fee=fee, valid_for=valid_for)
    ledger.balances = {b"fees": 0, b"treasury": SUPPLY - sum(rich.values())}
    ledger.balances.update(rich.items())
    return ledger
