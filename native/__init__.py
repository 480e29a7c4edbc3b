"""The lowest layer: shared values, canonical bytes, hashes, and the compiled module behind them.

Cores import `native.values`, `native.codec`, `native.hashing` and `native.batches`; they must not
import `native.keys` or `native.quic`, which need randomness and sockets. This door loads neither.
"""

from native._native import FalconVerifier, verify_many
from native.batches import Batch, Mempool
from native.completions import Completions
from native.errors import NativeError
from native.values import Algorithm, Amount, Digest, NodeId, PublicKey, Signature

__all__ = [
    "Algorithm",
    "Amount",
    "Batch",
    "Completions",
    "Digest",
    "FalconVerifier",
    "Mempool",
    "NativeError",
    "NodeId",
    "PublicKey",
    "Signature",
    "verify_many",
]
