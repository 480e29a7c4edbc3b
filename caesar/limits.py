"""Bounds of the ledger, with their reasons. Those of the wire live where Rust enforces them."""

from typing import Final

from native.limits import OPERATIONS_MAX, SIGN_THREADS_MAX, TRANSACTION_SIZE_BYTES_MAX

__all__ = [
    "ACCOUNT_PROOF_SIZE_BYTES_MAX",
    "ALLOCATIONS_MAX",
    "CAES",
    "HEAD_ROW_SIZE_BYTES_MAX",
    "LANES_MAX",
    "OPENING_SIZE_BYTES_MAX",
    "OPERATIONS_MAX",
    "PART_SIZE_BYTES_MAX",
    "SIGN_THREADS_MAX",
    "SUPPLY",
    "TRANSACTION_SIZE_BYTES_MAX",
    "TRANSFER_FEE_MAX",
    "U64_MAX",
    "VALID_FOR_BLOCKS_LEAST",
    "VALID_FOR_BLOCKS_MOST",
]

SUPPLY: Final = 10**18  # base units; below 2**60, so no sum of balances overflows 64 bits
CAES: Final = 10**9  # base units in one CAES
U64_MAX: Final = 2**64 - 1

LANES_MAX: Final = 256  # a lane is one byte
ALLOCATIONS_MAX: Final = 1_000_000  # a genesis that still loads in seconds

TRANSFER_FEE_MAX: Final = CAES  # no operation ever costs more than one CAES
VALID_FOR_BLOCKS_LEAST: Final = 100  # a person needs some seconds between signing and sending
VALID_FOR_BLOCKS_MOST: Final = 100_000_000  # months of blocks: bounds what a mempool may keep

ACCOUNT_PROOF_SIZE_BYTES_MAX: Final = 16_384  # 256 levels of 43 bytes and the account
HEAD_ROW_SIZE_BYTES_MAX: Final = 64  # a version, a height and a hash take 45
OPENING_SIZE_BYTES_MAX: Final = 256  # a height, a sum and four hashes take 154
PART_SIZE_BYTES_MAX: Final = 128  # a part's prefix, hash, sum and two counts take 88
