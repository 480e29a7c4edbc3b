"""PKCS#8 files: keys that other tools must be able to read.

Node-side keys (issuing, cosigner, enrolment) use the key files of `native.keys`; this is for the
root key, which is always encrypted, and for the key of a requester.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa

from trustchain import limits
from trustchain.core.keys import SubjectKey
from trustchain.errors import KeyFileError

RequesterKey: TypeAlias = (
    ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey | mldsa.MLDSA65PrivateKey
)
RootKey: TypeAlias = mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey


def subject_key(key: RequesterKey | RootKey) -> SubjectKey:
    """Return the public key of a private one in our form."""
    public = key.public_key()
    return SubjectKey.decode(
        public.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


def write_key(path: Path, key: RequesterKey | RootKey, passphrase: str | None) -> None:
    """Write a PKCS#8 PEM file of mode 0600; never over another file. Raises KeyFileError."""
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if passphrase is not None:
        protection = serialization.BestAvailableEncryption(passphrase.encode())
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection
    )
    write_new(path, data, mode=0o600)


def load_requester_key(path: Path, passphrase: str | None = None) -> RequesterKey:
    """Read the key of a requester; raises KeyFileError."""
    key = _load(path, passphrase)
    p256 = isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1)
    if p256 or isinstance(key, ed25519.Ed25519PrivateKey | mldsa.MLDSA65PrivateKey):
        return key  # type: ignore[return-value]
    raise KeyFileError(f"{path}: not an ML-DSA-65, Ed25519 or P-256 key")


def load_root_key(path: Path, passphrase: str) -> RootKey:
    """Read the root key; raises KeyFileError."""
    key = _load(path, passphrase)
    if isinstance(key, mldsa.MLDSA65PrivateKey | mldsa.MLDSA87PrivateKey):
        return key
    raise KeyFileError(f"{path}: not an ML-DSA-65 or ML-DSA-87 key")


def write_new(path: Path, data: bytes, *, mode: int) -> None:
    """Create a file that did not exist and make it durable; raises KeyFileError."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, mode)
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error


def read_private(path: Path) -> bytes:
    """Read a small file that nobody else may read; raises KeyFileError."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            data = file.read(limits.KEY_FILE_SIZE_BYTES_MAX + 1)
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from error
    if mode & 0o077:
        raise KeyFileError(f"{path}: mode {mode:04o} lets others read it; run chmod 600")
    if len(data) > limits.KEY_FILE_SIZE_BYTES_MAX:
        raise KeyFileError(f"{path}: too long for a key file")
    return data


def _load(path: Path, passphrase: str | None) -> object:
    secret = None if passphrase is None else passphrase.encode()
    try:
        return serialization.load_pem_private_key(read_private(path), secret)
    except TypeError as error:
        raise KeyFileError(f"{path}: passphrase missing, or given for an open key") from error
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError(f"{path}: not a PKCS#8 key, or the passphrase is wrong") from error
