"""What this room raises. Every class carries a stable `code` and a `hint`, the next step.

The first eight are made by the extension, so that Rust can raise them; the others concern key
files and exist only in Python.
"""

from typing import ClassVar

from native._native import (
    BatchInvalid,
    CodecError,
    KeyInvalid,
    LimitExceeded,
    NativeError,
    ProofInvalid,
    SignatureInvalid,
)

__all__ = [
    "BatchInvalid",
    "CodecError",
    "KeyFileError",
    "KeyFileExists",
    "KeyInvalid",
    "KeySealed",
    "LimitExceeded",
    "NativeError",
    "ProofInvalid",
    "SignatureInvalid",
]


class KeyFileError(NativeError):
    """A key file is missing, damaged, or readable by others."""

    code: ClassVar[str] = "HM-N-010"
    hint: ClassVar[str] = "restore the file from your backup; keep its mode at 0600"


class KeyFileExists(KeyFileError):
    """A key is never written over another file."""

    code: ClassVar[str] = "HM-N-011"
    hint: ClassVar[str] = "choose another path, or move the existing key away first"


class KeySealed(KeyFileError):
    """The key file is sealed and the passphrase is missing or wrong."""

    code: ClassVar[str] = "HM-N-012"
    hint: ClassVar[str] = "give the passphrase the key was sealed with"
