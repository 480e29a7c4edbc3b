"""Bounds of the ledger, with their reasons. Those of the wire live where Rust enforces them."""

from typing import Final

from consensus.limits import WINDOW_BLOCKS
from native.limits import (
    OPERATIONS_MAX,
    PAYLOAD_SIZE_BYTES_MAX,
    SIGN_THREADS_MAX,
    TRANSACTION_SIZE_BYTES_MAX,
)

__all__ = [
    "ACCOUNT_PROOF_SIZE_BYTES_MAX",
    "ALLOCATIONS_MAX",
    "AUTOMATIC_MEMBERS_MIN",
    "CAES",
    "CHANGE_VALID_BLOCKS_MAX",
    "EVIDENCE_AGE_BLOCKS_MAX",
    "HEAD_ROW_SIZE_BYTES_MAX",
    "JOINERS_PER_CHANGE_MAX",
    "JOIN_AGE_BLOCKS_MAX",
    "LANES_MAX",
    "OPENING_SIZE_BYTES_MAX",
    "OPERATIONS_MAX",
    "PART_SIZE_BYTES_MAX",
    "REGISTRY_SIZE_BYTES_MAX",
    "SIGN_THREADS_MAX",
    "SUPPLY",
    "TRANSACTION_SIZE_BYTES_MAX",
    "TRANSFER_FEE_MAX",
    "U64_MAX",
    "VALIDATOR_NAME_LENGTH_MAX",
    "VALIDATOR_PAYLOAD_SIZE_BYTES_MAX",
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

VALIDATOR_PAYLOAD_SIZE_BYTES_MAX: Final = (
    PAYLOAD_SIZE_BYTES_MAX  # 43 approvals and 16 joiners, 2 if they issue
)
VALIDATOR_NAME_LENGTH_MAX: Final = 32  # as in genesis: shown in prompts and log lines
JOINERS_PER_CHANGE_MAX: Final = 16  # 1.7 kB each with key and proof; one payload must hold them
JOIN_AGE_BLOCKS_MAX: Final = WINDOW_BLOCKS  # further back a joiner would have to catch up first
CHANGE_VALID_BLOCKS_MAX: Final = 10_000_000  # a day of 100 blocks a second, for operators to meet
EVIDENCE_AGE_BLOCKS_MAX: Final = 1_000_000  # hours under full load, months when idle
AUTOMATIC_MEMBERS_MIN: Final = 4  # below it no lie is tolerated: people decide, not a proof
REGISTRY_SIZE_BYTES_MAX: Final = 16_777_216  # our own bytes read back: three sets, all tombstones
