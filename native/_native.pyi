"""Typed contract of the compiled module: one section per subject."""

from collections.abc import Sequence
from typing import ClassVar, final

__all__ = [
    "BATCH_PAYLOADS_MAX",
    "BATCH_SIZE_BYTES_MAX",
    "CODEC_DEPTH_MAX",
    "CODEC_SIZE_BYTES_MAX",
    "MERKLE_LEAVES_MAX",
    "PAYLOAD_SIZE_BYTES_MAX",
    "PROOF_HASHES_MAX",
    "VERIFY_JOBS_MAX",
    "BatchInvalid",
    "CodecError",
    "FalconSigner",
    "FalconVerifier",
    "KeyInvalid",
    "LimitExceeded",
    "MerkleTree",
    "NativeError",
    "ProofInvalid",
    "SignatureInvalid",
    "WorkerFailed",
    "codec_decode",
    "codec_encode",
    "consistency_proof",
    "inclusion_proof",
    "leaf_hash",
    "leaf_hashes",
    "merkle_root",
    "merkle_root_of_hashes",
    "spki_decode",
    "spki_encode",
    "verify_consistency",
    "verify_inclusion",
    "verify_many",
]

# --- errors

class NativeError(Exception):
    code: ClassVar[str]
    hint: ClassVar[str]

class CodecError(NativeError): ...
class KeyInvalid(NativeError): ...
class SignatureInvalid(NativeError): ...
class ProofInvalid(NativeError): ...
class BatchInvalid(NativeError): ...
class LimitExceeded(NativeError): ...
class WorkerFailed(NativeError): ...

# --- limits

CODEC_SIZE_BYTES_MAX: int
CODEC_DEPTH_MAX: int
MERKLE_LEAVES_MAX: int
PROOF_HASHES_MAX: int
VERIFY_JOBS_MAX: int
PAYLOAD_SIZE_BYTES_MAX: int
BATCH_PAYLOADS_MAX: int
BATCH_SIZE_BYTES_MAX: int

# --- codec

def codec_encode(value: object) -> bytes: ...
def codec_decode(data: bytes, size_max: int) -> object: ...

# --- hashing

def leaf_hash(data: bytes) -> bytes: ...
def leaf_hashes(leaves: Sequence[bytes]) -> bytes: ...
def merkle_root(leaves: Sequence[bytes]) -> bytes: ...
def merkle_root_of_hashes(hashes: bytes) -> bytes: ...
def inclusion_proof(hashes: bytes, index: int) -> tuple[bytes, ...]: ...
def verify_inclusion(
    leaf_hash: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> None: ...
def consistency_proof(hashes: bytes, old_size: int) -> tuple[bytes, ...]: ...
def verify_consistency(
    old_size: int, new_size: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> None: ...

@final
class MerkleTree:
    """Append-only tree over leaf hashes; knows the root and proofs of every past size.

    Questions about leaves it does not have raise `NativeError`.
    """

    def __new__(cls, hashes: bytes | None = None) -> MerkleTree: ...
    @property
    def size(self) -> int: ...
    def append_many(self, hashes: bytes) -> None: ...
    def leaf(self, index: int) -> bytes: ...
    def root(self, size: int | None = None) -> bytes: ...
    def subtree(self, start: int, end: int) -> bytes: ...
    def inclusion_proof(self, index: int, size: int | None = None) -> tuple[bytes, ...]: ...
    def consistency_proof(
        self, old_size: int, new_size: int | None = None
    ) -> tuple[bytes, ...]: ...
    def __len__(self) -> int: ...

# --- falcon

@final
class FalconSigner:
    """A Falcon-512 or -1024 secret key, expanded and wiped when dropped."""

    def __new__(cls, secret: bytes) -> FalconSigner: ...
    @staticmethod
    def generate(degree: int) -> FalconSigner: ...
    @property
    def degree(self) -> int: ...
    @property
    def public(self) -> bytes: ...
    def export_secret(self) -> bytes: ...
    def sign(self, message: bytes) -> bytes: ...

@final
class FalconVerifier:
    """A decoded Falcon public key; `verify` raises `SignatureInvalid`."""

    def __new__(cls, public: bytes) -> FalconVerifier: ...
    @property
    def degree(self) -> int: ...
    @property
    def public(self) -> bytes: ...
    def verify(self, message: bytes, signature: bytes) -> None: ...

def verify_many(jobs: Sequence[tuple[FalconVerifier, bytes, bytes]]) -> bytes: ...

# --- spki

def spki_encode(algorithm: str, raw: bytes) -> bytes: ...
def spki_decode(spki: bytes) -> tuple[str, bytes]: ...
