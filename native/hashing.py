"""SHA-256 and the Merkle trees of RFC 9162 section 2.1.

Many hashes travel as one byte string of 32 bytes each; proofs are tuples of hashes, leaf side
first. Functions named `verify_...` raise `ProofInvalid` and return nothing.
"""

import hashlib

from native._native import (
    MerkleTree,
    consistency_proof,
    inclusion_proof,
    leaf_hashes,
    merkle_root_of_hashes,
    verify_consistency,
    verify_inclusion,
)
from native._native import leaf_hash as _leaf_hash
from native._native import merkle_root as _merkle_root
from native.errors import ProofInvalid
from native.values import Digest

__all__ = [
    "EMPTY_ROOT",
    "HASH_SIZE_BYTES",
    "MerkleTree",
    "ProofInvalid",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "leaf_hashes",
    "merkle_root",
    "merkle_root_of_hashes",
    "sha256",
    "verify_consistency",
    "verify_inclusion",
]

HASH_SIZE_BYTES = 32
EMPTY_ROOT = Digest(hashlib.sha256(b"").digest())


def sha256(*parts: bytes) -> Digest:
    """SHA-256 of the concatenated parts."""
    return Digest(hashlib.sha256(b"".join(parts)).digest())


def leaf_hash(data: bytes) -> Digest:
    """`SHA-256(0x00 || data)`."""
    return Digest(_leaf_hash(data))


def merkle_root(leaves: list[bytes] | tuple[bytes, ...]) -> Digest:
    """Root over payloads; no payloads give `EMPTY_ROOT`."""
    return Digest(_merkle_root(leaves))
