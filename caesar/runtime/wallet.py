"""Signing transactions: for the wallet commands and, in bulk, for the load generator.

Here and not in the core, because a Falcon signature draws fresh randomness. Signing takes about
0.2 ms; `sign_transfers` spreads it over threads without the interpreter lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from caesar.core.addresses import Address, address_of
from caesar.core.transactions import SignedTransaction, Transaction, Transfer
from caesar.limits import SIGN_THREADS_MAX
from native.keys import SecretKey
from native.ledger import sign_transactions
from native.values import Amount, Digest

DEFAULT_MAX_FEE: Final = Amount(1_000_000)  # 0.001 CAES: generous, and only the fee is taken


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """A transaction ready to send."""

    payload: bytes
    id: Digest


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferOrder:
    """One transfer to sign in bulk; `signer` is an index into the list of keys."""

    signer: int
    recipient: Address
    amount: Amount
    sequence: int
    valid_until: int
    lane: int = 0
    max_fee: Amount = DEFAULT_MAX_FEE
    carries_key: bool = False


def sign_transaction(
    secret: SecretKey, transaction: Transaction, *, carries_key: bool = False
) -> Signed:
    """Sign any transaction; `carries_key` puts the key on the ledger with it."""
    signed = SignedTransaction(
        transaction=transaction,
        signature=secret.sign(transaction.signed_bytes),
        key=secret.public.raw if carries_key else None,
    )
    return Signed(payload=signed.encode(), id=transaction.id)


def sign_transfer(
    secret: SecretKey,
    *,
    chain_id: Digest,
    recipient: Address,
    amount: Amount,
    sequence: int,
    valid_until: int,
    lane: int = 0,
    max_fee: Amount = DEFAULT_MAX_FEE,
    memo_hash: bytes = b"",
    carries_key: bool = False,
) -> Signed:
    """Sign one transfer from the account that `secret` owns."""
    transaction = Transaction(
        chain_id=chain_id,
        sender=address_of(secret.public),
        lane=lane,
        sequence=sequence,
        valid_until=valid_until,
        max_fee=max_fee,
        operations=(Transfer(recipient=recipient, amount=amount),),
        memo_hash=memo_hash,
    )
    return sign_transaction(secret, transaction, carries_key=carries_key)


def sign_transfers(
    secrets: Sequence[SecretKey],
    orders: Sequence[TransferOrder],
    *,
    chain_id: Digest,
    threads: int = 2,
) -> list[bytes]:
    """Sign many transfers and return their payloads in order. Orders of one key side by side
    keep the threads out of each other's way."""
    jobs = [
        (
            order.signer,
            order.lane,
            order.sequence,
            order.valid_until,
            order.max_fee,
            [(order.recipient, order.amount)],
            b"",
            order.carries_key,
        )
        for order in orders
    ]
    signers = [secret.falcon_signer for secret in secrets]
    return sign_transactions(chain_id, signers, jobs, min(threads, SIGN_THREADS_MAX))


class TransactionBuilder:
    """Signs one account's transfers on one lane, counting the sequence up."""

    def __init__(
        self,
        secret: SecretKey,
        *,
        chain_id: Digest,
        sequence: int,
        has_key: bool,
        lane: int = 0,
        max_fee: Amount = DEFAULT_MAX_FEE,
    ) -> None:
        """Start from what `AccountView` says: `next_sequence(lane)` and `has_key`."""
        self._secret = secret
        self._chain_id = chain_id
        self._has_key = has_key
        self._lane = lane
        self._max_fee = max_fee
        self.sequence = sequence
        self.address = address_of(secret.public)

    def transfer(self, recipient: Address, amount: Amount, *, valid_until: int) -> Signed:
        """Sign the next transfer. The key comes along until the account is known to have it."""
        signed = sign_transfer(
            self._secret,
            chain_id=self._chain_id,
            recipient=recipient,
            amount=amount,
            sequence=self.sequence,
            valid_until=valid_until,
            lane=self._lane,
            max_fee=self._max_fee,
            carries_key=not self._has_key,
        )
        self.sequence += 1
        return signed

    def key_is_known(self) -> None:
        """Stop sending the key along: a transaction of this account has a receipt."""
        self._has_key = True
