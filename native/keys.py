"""Secret keys: making, signing, verifying, and the files they live in. For runtimes only.

Falcon is computed by the extension, ML-DSA by `cryptography`. A key file is text that names its
algorithm; it is created with mode 0600, never written over, and on disk when `save` returns.
Python cannot wipe its own byte strings: a Falcon secret stays inside the extension, which wipes it,
and passes through Python only while a file is read or written.

A key file reads:

    -----BEGIN HYPERMESH SECRET KEY-----
    Algorithm: falcon-512
    Node: <NodeId in hex>
    Seal: none | scrypt-n=32768-r=8-p=1 aes-256-gcm <salt in hex>

    <base64 of the secret, or of nonce || ciphertext || tag>
    -----END HYPERMESH SECRET KEY-----

The three header lines are authenticated by the seal.
"""

import base64
import binascii
import contextlib
import os
import stat
from pathlib import Path
from typing import Final, Protocol

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from native._native import FalconSigner, FalconVerifier, MLDSASigner, verify_many
from native.errors import (
    KeyFileError,
    KeyFileExists,
    KeyInvalid,
    KeySealed,
    SignatureInvalid,
)
from native.limits import KEY_FILE_SIZE_BYTES_MAX, SCRYPT_MEMORY_BYTES_MAX
from native.values import Algorithm, NodeId, PublicKey, Signature

__all__ = [
    "FalconSigner",
    "FalconVerifier",
    "MLDSASigner",
    "SecretKey",
    "Verifier",
    "verifier",
    "verify",
    "verify_many",
]


class Verifier(Protocol):
    """A prepared public key."""

    def verify(self, message: bytes, signature: bytes) -> None:
        """Return when the signature holds; raise `SignatureInvalid` otherwise."""


class SecretKey:
    """A secret key of any algorithm, ready to sign.

    It has no useful `repr`, cannot be pickled, and compares by identity.
    """

    __slots__ = ("_signer", "public")

    public: PublicKey

    def __init__(self, signer: "FalconSigner | _MLDSASigner") -> None:
        """Wrap a signer; use `generate`, `from_bytes` or `load`."""
        self._signer = signer
        self.public = PublicKey(algorithm=_algorithm_of(signer), raw=signer.public)

    @classmethod
    def generate(cls, algorithm: Algorithm) -> "SecretKey":
        """Draw a fresh key from the operating system's randomness."""
        match algorithm:
            case Algorithm.FALCON_512:
                return cls(FalconSigner.generate(512))
            case Algorithm.FALCON_1024:
                return cls(FalconSigner.generate(1024))
            case Algorithm.ML_DSA_44 | Algorithm.ML_DSA_65:
                return cls(_MLDSASigner(algorithm, os.urandom(ML_DSA_SEED_SIZE_BYTES)))

    @classmethod
    def from_bytes(cls, algorithm: Algorithm, secret: bytes) -> "SecretKey":
        """Decode an encoded Falcon secret key or an ML-DSA seed; raises `KeyInvalid`."""
        if not algorithm.is_falcon:
            return cls(_MLDSASigner(algorithm, secret))
        key = cls(FalconSigner(secret))
        if key.algorithm is not algorithm:
            raise KeyInvalid(f"this is a {key.algorithm.name_text} key")
        return key

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm of the key."""
        return self.public.algorithm

    @property
    def node_id(self) -> NodeId:
        """NodeId of the public key."""
        return self.public.node_id

    @property
    def falcon_signer(self) -> FalconSigner:
        """The signer inside the extension, for worker threads and the transport."""
        if isinstance(self._signer, FalconSigner):
            return self._signer
        raise KeyInvalid(f"{self.algorithm.name_text} keys have no Falcon signer")

    @property
    def handshake_signer(self) -> FalconSigner | MLDSASigner:
        """What proves this key in a handshake; raises `KeyInvalid` where it cannot be a node."""
        if isinstance(self._signer, FalconSigner):
            return self._signer
        if self.algorithm is Algorithm.ML_DSA_65:
            return MLDSASigner(self._signer.export_secret())
        raise KeyInvalid(f"{self.algorithm.name_text} keys do not authenticate nodes")

    def sign(self, message: bytes) -> Signature:
        """Sign; the caller puts a domain string and the chain id into the message."""
        return Signature(self._signer.sign(message))

    def export_secret(self) -> bytes:
        """The encoded secret, for another engine; it cannot be wiped from Python's memory."""
        return self._signer.export_secret()

    def save(self, path: Path, passphrase: str | None = None) -> None:
        """Write a new key file and make it durable; raises `KeyFileExists`, `KeyFileError`.

        With a passphrase the secret is sealed with scrypt and AES-256-GCM.
        """
        _write_new(path, _render(self, passphrase))

    @classmethod
    def load(cls, path: Path, passphrase: str | None = None) -> "SecretKey":
        """Read a key file; raises `KeyFileError`, `KeySealed`."""
        try:
            return _parse(_read(path), passphrase)
        except KeySealed as error:
            raise KeySealed(f"{path}: {error}") from None
        except (KeyFileError, KeyInvalid) as error:
            raise KeyFileError(f"{path}: {error}") from None

    def __reduce__(self) -> str:
        """Refuse to be pickled."""
        raise TypeError("a secret key is not pickled")


def verifier(public: PublicKey) -> Verifier:
    """Prepare a public key for many verifications."""
    if public.algorithm.is_falcon:
        return FalconVerifier(public.raw)
    return _MLDSAVerifier(public)


def verify(public: PublicKey, message: bytes, signature: bytes) -> None:
    """Check one signature; raises `SignatureInvalid`."""
    verifier(public).verify(message, signature)


class _MLDSASigner:
    """An ML-DSA key made from its 32-byte seed (FIPS 204)."""

    __slots__ = ("_key", "algorithm", "public")

    def __init__(self, algorithm: Algorithm, seed: bytes) -> None:
        if len(seed) != ML_DSA_SEED_SIZE_BYTES:
            raise KeyInvalid(f"an ML-DSA seed has {ML_DSA_SEED_SIZE_BYTES} bytes, not {len(seed)}")
        self._key: mldsa.MLDSA44PrivateKey | mldsa.MLDSA65PrivateKey = (
            mldsa.MLDSA44PrivateKey.from_seed_bytes(seed)
            if algorithm is Algorithm.ML_DSA_44
            else mldsa.MLDSA65PrivateKey.from_seed_bytes(seed)
        )
        self.algorithm = algorithm
        self.public: bytes = self._key.public_key().public_bytes_raw()

    def sign(self, message: bytes) -> bytes:
        return self._key.sign(message)

    def export_secret(self) -> bytes:
        return self._key.private_bytes_raw()


class _MLDSAVerifier:
    __slots__ = ("_key",)

    def __init__(self, public: PublicKey) -> None:
        self._key: mldsa.MLDSA44PublicKey | mldsa.MLDSA65PublicKey = (
            mldsa.MLDSA44PublicKey.from_public_bytes(public.raw)
            if public.algorithm is Algorithm.ML_DSA_44
            else mldsa.MLDSA65PublicKey.from_public_bytes(public.raw)
        )

    def verify(self, message: bytes, signature: bytes) -> None:
        try:
            self._key.verify(signature, message)
        except InvalidSignature:
            raise SignatureInvalid("the signature is not valid") from None


def _algorithm_of(signer: FalconSigner | _MLDSASigner) -> Algorithm:
    if isinstance(signer, _MLDSASigner):
        return signer.algorithm
    return Algorithm.FALCON_512 if signer.degree == 512 else Algorithm.FALCON_1024


def _render(key: SecretKey, passphrase: str | None) -> bytes:
    secret = key.export_secret()
    head = f"Algorithm: {key.algorithm.name_text}\nNode: {key.node_id.hex()}\n"
    if passphrase is None:
        head += "Seal: none\n"
    else:
        salt = os.urandom(SALT_SIZE_BYTES)
        head += f"Seal: scrypt-n={SCRYPT_N}-r={SCRYPT_R}-p={SCRYPT_P} aes-256-gcm {salt.hex()}\n"
        nonce = os.urandom(NONCE_SIZE_BYTES)
        cipher = AESGCM(_stretch(passphrase, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P))
        secret = nonce + cipher.encrypt(nonce, secret, head.encode())
    text = base64.b64encode(secret).decode()
    lines = "\n".join(text[at : at + 64] for at in range(0, len(text), 64))
    return f"{ARMOUR_BEGIN}\n{head}\n{lines}\n{ARMOUR_END}\n".encode()


def _parse(data: bytes, passphrase: str | None) -> SecretKey:
    try:
        lines = data.decode("ascii").splitlines()
        begin, algorithm_line, node_line, seal_line, blank, *body, end = lines
        secret = base64.b64decode("".join(body), validate=True)
    except (ValueError, binascii.Error):
        raise KeyFileError("this is not a whole key file") from None
    head = f"{algorithm_line}\n{node_line}\n{seal_line}\n"
    if (begin, blank, end) != (ARMOUR_BEGIN, "", ARMOUR_END):
        raise KeyFileError("this is not a whole key file")
    algorithm = Algorithm.from_name(_field(algorithm_line, "Algorithm"))
    seal = _field(seal_line, "Seal")
    if seal != "none":
        secret = _unseal(secret, seal, head, passphrase)
    key = SecretKey.from_bytes(algorithm, secret)
    if key.node_id.hex() != _field(node_line, "Node"):
        raise KeyFileError("the secret does not belong to the node named in the file")
    return key


def _unseal(sealed: bytes, seal: str, head: str, passphrase: str | None) -> bytes:
    if passphrase is None:
        raise KeySealed("the key is sealed and no passphrase was given")
    try:
        stretching, cipher_name, salt_text = seal.split(" ")
        kind, *parameters = stretching.split("-")
        n, r, p = (
            int(text.removeprefix(f"{name}=")) for name, text in zip("nrp", parameters, strict=True)
        )
        salt = bytes.fromhex(salt_text)
    except ValueError:
        raise KeyFileError(f"unknown seal {seal!r}") from None
    if (kind, cipher_name) != ("scrypt", "aes-256-gcm"):
        raise KeyFileError(f"unknown seal {seal!r}")
    if n < 2 or n & (n - 1) or not 1 <= r <= 32 or not 1 <= p <= 16:
        raise KeyFileError(f"unknown seal {seal!r}")
    if 128 * n * r > SCRYPT_MEMORY_BYTES_MAX:
        raise KeyFileError("the seal asks for more memory than this program gives")
    cipher = AESGCM(_stretch(passphrase, salt, n, r, p))
    nonce, ciphertext = sealed[:NONCE_SIZE_BYTES], sealed[NONCE_SIZE_BYTES:]
    if len(nonce) != NONCE_SIZE_BYTES:
        raise KeyFileError("this is not a whole key file")
    try:
        return cipher.decrypt(nonce, ciphertext, head.encode())
    except InvalidTag:
        raise KeySealed("the passphrase is wrong or the file was changed") from None


def _field(line: str, name: str) -> str:
    label, separator, value = line.partition(": ")
    if (label, separator) != (name, ": "):
        raise KeyFileError(f"the line {name!r} is missing")
    return value


def _stretch(passphrase: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    return Scrypt(salt=salt, length=32, n=n, r=r, p=p).derive(passphrase.encode())


def _write_new(path: Path, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW
    try:
        descriptor = os.open(path, flags, 0o600)
    except FileExistsError:
        raise KeyFileExists(f"{path} exists already") from None
    except OSError as error:
        raise KeyFileError(f"cannot create {path}: {error.strerror}") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, 0o600)  # whatever the umask says
            file.write(data)
            file.flush()
            os.fsync(descriptor)
        folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
    except OSError as error:
        with contextlib.suppress(OSError):
            path.unlink()
        raise KeyFileError(f"cannot write {path}: {error.strerror}") from None


def _read(path: Path) -> bytes:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        raise KeyFileError(f"cannot be read: {error.strerror}") from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise KeyFileError("this is not a regular file")
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if status.st_mode & 0o077:
            raise KeyFileError(
                f"its mode {stat.S_IMODE(status.st_mode):04o} lets others read it; run chmod 600"
            )
        data = file.read(KEY_FILE_SIZE_BYTES_MAX + 1)
    if len(data) > KEY_FILE_SIZE_BYTES_MAX:
        raise KeyFileError("this is too long for a key file")
    return data


ARMOUR_BEGIN: Final = "-----BEGIN HYPERMESH SECRET KEY-----"
ARMOUR_END: Final = "-----END HYPERMESH SECRET KEY-----"
ML_DSA_SEED_SIZE_BYTES: Final = 32
NONCE_SIZE_BYTES: Final = 12
SALT_SIZE_BYTES: Final = 16
# 32 MiB and about 80 ms: a wallet command may take that, a guesser pays it each time.
SCRYPT_N: Final = 32_768
SCRYPT_R: Final = 8
SCRYPT_P: Final = 1
