"""Door to the compiled module."""

from native._native import (
    NativeError,
    falcon512_keygen,
    falcon512_sign,
    falcon512_verify,
    merkle_root,
)

__all__ = [
    "NativeError",
    "falcon512_keygen",
    "falcon512_sign",
    "falcon512_verify",
    "merkle_root",
]
