"""What must hold whatever transactions say. A broken invariant is our bug and stops the process."""

from caesar.limits import SUPPLY, U64_MAX
from consensus.errors import InvariantError, invariant

__all__ = ["InvariantError", "check_amount", "check_conservation", "invariant"]


def check_conservation(state_sum: int) -> None:
    """I1 and I10: what all leaves of the tree sum up to is the supply, exactly."""
    invariant(state_sum == SUPPLY, f"the ledger holds {state_sum} base units instead of {SUPPLY}")


def check_amount(amount: int) -> None:
    """Every amount that moves is an unsigned number of 64 bits."""
    invariant(0 <= amount <= U64_MAX, "an amount left 64 bits")
