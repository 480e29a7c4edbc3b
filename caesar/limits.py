"""Bounds of the ledger, with their reasons. Rust keeps its own copy of the wire bounds."""

from typing import Final

SUPPLY: Final = 10**18  # base units; below 2**60, so no sum of balances overflows 64 bits
CAES: Final = 10**9  # base units in one CAES
U64_MAX: Final = 2**64 - 1

TRANSACTION_SIZE_BYTES_MAX: Final = 8_192  # 64 operations, a key and a signature take 4.6 KB
OPERATIONS_MAX: Final = 64
LANES_MAX: Final = 256  # a lane is one byte
ALLOCATIONS_MAX: Final = 1_000_000  # a genesis that still loads in seconds

TRANSFER_FEE_MAX: Final = CAES  # no operation ever costs more than one CAES
VALID_FOR_BLOCKS_LEAST: Final = 100  # a person needs some seconds between signing and sending
VALID_FOR_BLOCKS_MOST: Final = 100_000_000  # months of blocks: bounds what a mempool may keep

ACCOUNT_PROOF_SIZE_BYTES_MAX: Final = 16_384  # 256 levels of 43 bytes and the account
HEAD_ROW_SIZE_BYTES_MAX: Final = 64  # a version, a height and a hash take 45
SIGN_THREADS_MAX: Final = 64  # more than any machine we meet has cores
