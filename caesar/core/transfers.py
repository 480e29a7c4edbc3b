"""What one transaction does: the order of the checks, the fee, and the moves.

A check that refuses leaves everything as it was. Once the fee is paid and the sequence consumed the
outcome is final, whatever comes after; a transaction's operations apply all or none. Operations
only ever debit the sender, so knowing the total beforehand is enough to need no rollback.
"""

from dataclasses import dataclass
from typing import Final

from caesar.core.accounts import FEES, Balances, slot_of
from caesar.core.receipts import Outcome
from caesar.core.rules import Parameters, parameters_at
from caesar.limits import U64_MAX
from native.ledger import Accounts, Transactions

# Plain numbers: an enum member costs four times as much in the loop over a block.
_APPLIED: Final = int(Outcome.APPLIED)
_INSUFFICIENT_FUNDS: Final = int(Outcome.INSUFFICIENT_FUNDS)
_AMOUNT_OVERFLOW: Final = int(Outcome.AMOUNT_OVERFLOW)
_EXPIRED: Final = int(Outcome.EXPIRED)
_VALID_TOO_LONG: Final = int(Outcome.VALID_TOO_LONG)
_FEE_ABOVE_MAXIMUM: Final = int(Outcome.FEE_ABOVE_MAXIMUM)
_SEQUENCE_USED: Final = int(Outcome.SEQUENCE_USED)
_SEQUENCE_AHEAD: Final = int(Outcome.SEQUENCE_AHEAD)
_CANNOT_PAY_FEE: Final = int(Outcome.CANNOT_PAY_FEE)
_REFUSED_MIN: Final = int(Outcome.UNDECODABLE)

# Statuses of the columns, set by native/src/transaction.rs; refusals stand there by their number.
PLAIN: Final = 0
ODD: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """The parameters in force, worked out for one height."""

    height: int
    horizon: int  # highest valid_until that is accepted
    fee: int  # per operation

    @classmethod
    def at(cls, parameters: Parameters, height: int) -> "Rules":
        """The rules for the block at `height`."""
        current = parameters_at(parameters, height)
        return cls(
            height=height,
            horizon=height + current.valid_for_blocks_max,
            fee=current.transfer_fee,
        )


def execute(
    transactions: Transactions, accounts: Accounts, balances: Balances, rules: Rules
) -> bytes:
    """Apply a block's transactions in order and return one outcome a transaction."""
    codes = bytearray(transactions.statuses)
    fee = rules.fee
    move = balances.move
    for index, (
        status,
        sender,
        recipient,
        amount,
        lane,
        sequence,
        valid_until,
        max_fee,
    ) in enumerate(zip(*transactions.columns(), strict=True)):
        if status == PLAIN:
            code = _charge(
                balances, rules, sender, lane, sequence, valid_until, max_fee, fee, amount
            )
            if code == _APPLIED:
                move(sender, recipient, amount)
            codes[index] = code
        elif status == ODD:
            codes[index] = _execute_odd(transactions, index, accounts, balances, rules)
    return bytes(codes)


def advise(transactions: Transactions, balances: Balances, rules: Rules) -> bytes:
    """Say which transactions could not execute now; what may still become right is admitted."""
    codes = bytearray(transactions.statuses)
    for index, (status, sender, _, _, lane, sequence, valid_until, max_fee) in enumerate(
        zip(*transactions.columns(), strict=True)
    ):
        if status == PLAIN:
            codes[index] = _advice(
                balances, rules, sender, lane, sequence, valid_until, max_fee, rules.fee
            )
        elif status == ODD:
            code, known, _, lane_, sequence_, until, cap, operations = transactions.resolve(index)
            if code == _APPLIED and known < len(balances):
                code = _advice(
                    balances, rules, known, lane_, sequence_, until, cap,
                    rules.fee * len(operations),
                )  # fmt: skip
            codes[index] = code
    return bytes(codes)


def _execute_odd(
    transactions: Transactions, index: int, accounts: Accounts, balances: Balances, rules: Rules
) -> int:
    """A first transaction with its key, several operations, or a recipient without account."""
    code, sender, key, lane, sequence, valid_until, max_fee, operations = transactions.resolve(
        index
    )
    if code != _APPLIED:
        return code
    fee = rules.fee * len(operations)
    total = sum(amount for _, _, amount in operations)
    code = _charge(balances, rules, sender, lane, sequence, valid_until, max_fee, fee, total)
    if code < _REFUSED_MIN and key is not None:
        accounts.put_key(sender, key)
    if code == _APPLIED:
        for _, address, amount in operations:
            recipient = accounts.find(address)
            if recipient is None:
                recipient = accounts.insert(address)
                balances.open(recipient)
            balances.move(sender, recipient, amount)
    return code


def _charge(
    balances: Balances,
    rules: Rules,
    sender: int,
    lane: int,
    sequence: int,
    valid_until: int,
    max_fee: int,
    fee: int,
    total: int,
) -> int:
    """Refuse, or take fee and sequence and say whether the operations may follow."""
    if valid_until < rules.height:
        return _EXPIRED
    if valid_until > rules.horizon:
        return _VALID_TOO_LONG
    if max_fee < fee:
        return _FEE_ABOVE_MAXIMUM
    slot = slot_of(sender, lane)
    expected = balances.sequences.get(slot, 0)
    if sequence != expected:
        return _SEQUENCE_USED if sequence < expected else _SEQUENCE_AHEAD
    available = balances[sender]
    if available < fee:
        return _CANNOT_PAY_FEE
    balances.consume(slot, sequence)
    balances.move(sender, FEES, fee)
    if total + fee > U64_MAX:
        return _AMOUNT_OVERFLOW
    if available - fee < total:
        return _INSUFFICIENT_FUNDS
    return _APPLIED


def _advice(
    balances: Balances,
    rules: Rules,
    sender: int,
    lane: int,
    sequence: int,
    valid_until: int,
    max_fee: int,
    fee: int,
) -> int:
    """The refusals of `_charge` that time does not heal, and an account that cannot pay."""
    if valid_until < rules.height:
        return _EXPIRED
    if valid_until > rules.horizon:
        return _VALID_TOO_LONG
    if max_fee < fee:
        return _FEE_ABOVE_MAXIMUM
    if sequence < balances.sequences.get(slot_of(sender, lane), 0):
        return _SEQUENCE_USED
    if balances[sender] < fee:
        return _CANNOT_PAY_FEE
    return _APPLIED
