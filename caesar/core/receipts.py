"""Outcomes of transactions and the receipts of those that are final.

*Applied* and *failed* are final: fee paid, lane sequence consumed, a receipt exists. *Refused*
leaves the state untouched and no receipt; the same bytes may appear again until `valid_until`.
The numbers are part of the protocol (the receipt root covers them) and never change their meaning.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from native.codec import encode
from native.hashing import merkle_root
from native.values import Amount, Digest

RECEIPT_VERSION: Final = 1
REFUSED_MIN: Final = 128


class Outcome(IntEnum):
    """What became of a transaction."""

    APPLIED = 0
    INSUFFICIENT_FUNDS = 1
    AMOUNT_OVERFLOW = 2

    UNDECODABLE = 128
    WRONG_CHAIN = 129
    ZERO_AMOUNT = 130
    SELF_TRANSFER = 131
    KEY_MISMATCH = 132
    BAD_SIGNATURE = 133
    UNKNOWN_SENDER = 134
    KEY_MISSING = 135
    EXPIRED = 136
    VALID_TOO_LONG = 137
    FEE_ABOVE_MAXIMUM = 138
    SEQUENCE_USED = 139
    SEQUENCE_AHEAD = 140
    CANNOT_PAY_FEE = 141

    @property
    def code(self) -> str:
        """Stable code, such as `HM-L-139`."""
        return f"HM-L-{self.value:03d}"

    @property
    def is_final(self) -> bool:
        """Whether a receipt exists."""
        return self.value < REFUSED_MIN

    @property
    def kind(self) -> str:
        """`applied`, `failed` or `refused`."""
        if self is Outcome.APPLIED:
            return "applied"
        return "failed" if self.is_final else "refused"

    @property
    def text(self) -> str:
        """What happened, in one sentence."""
        return _TEXTS[self][0]

    @property
    def hint(self) -> str:
        """The next step, in one sentence."""
        return _TEXTS[self][1]


_TEXTS: Final[dict[Outcome, tuple[str, str]]] = {
    Outcome.APPLIED: ("the transfer was made", "nothing to do"),
    Outcome.INSUFFICIENT_FUNDS: (
        "the account could pay the fee but not the amount",
        "send less, or receive funds first, with a new sequence",
    ),
    Outcome.AMOUNT_OVERFLOW: (
        "the amounts and the fee exceed 64 bits",
        "send less than the supply of 1,000,000,000 CAES",
    ),
    Outcome.UNDECODABLE: (
        "the bytes are not a transaction",
        "build the transaction with this version's wallet",
    ),
    Outcome.WRONG_CHAIN: (
        "the transaction was signed for another network",
        "point the wallet at the network you mean and sign again",
    ),
    Outcome.ZERO_AMOUNT: ("an amount is zero", "send at least one base unit"),
    Outcome.SELF_TRANSFER: (
        "sender and recipient are the same account",
        "check the recipient's address",
    ),
    Outcome.KEY_MISMATCH: (
        "the key that came along does not belong to the sender's address",
        "sign with the wallet that owns the address",
    ),
    Outcome.BAD_SIGNATURE: (
        "the signature does not fit transaction and key",
        "sign again with the wallet that owns the address",
    ),
    Outcome.UNKNOWN_SENDER: (
        "the sender has no account yet",
        "receive funds first: the first transfer to an address opens its account",
    ),
    Outcome.KEY_MISSING: (
        "the account has no key on the ledger yet",
        "send the first transaction together with the account's key",
    ),
    Outcome.EXPIRED: (
        "the block height is past the transaction's valid_until",
        "sign again with a later valid_until",
    ),
    Outcome.VALID_TOO_LONG: (
        "valid_until is too far ahead of the block height",
        "sign again with a valid_until within the limit of the network's parameters",
    ),
    Outcome.FEE_ABOVE_MAXIMUM: (
        "the fee is above the max_fee of the transaction",
        "sign again with a higher max_fee",
    ),
    Outcome.SEQUENCE_USED: (
        "the lane's sequence was consumed already",
        "look up the receipt of this transaction id; if there is none, sign with the next sequence",
    ),
    Outcome.SEQUENCE_AHEAD: (
        "an earlier sequence of this lane is still missing",
        "send the missing transaction first, then this one again",
    ),
    Outcome.CANNOT_PAY_FEE: (
        "the account cannot pay the fee",
        "receive funds first",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """Proof that a transaction's outcome is final; a leaf of the block's receipt tree."""

    transaction_id: Digest
    height: int
    outcome: Outcome
    fee: Amount

    def encode(self) -> bytes:
        """Canonical bytes: what the receipt root covers."""
        return encode(
            (RECEIPT_VERSION, self.transaction_id, self.height, self.outcome.value, self.fee)
        )


def receipt_root(receipts: list[Receipt]) -> Digest:
    """Root over the receipts of one block (RFC 9162), in order."""
    return merkle_root([receipt.encode() for receipt in receipts])
