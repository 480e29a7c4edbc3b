"""Falcon against its oracle, every flipped byte, ML-DSA, and key files."""

import os
import pickle
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pqcrypto.sign.falcon_padded_512
import pqcrypto.sign.falcon_padded_1024
import pytest
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from native import keys
from native._native import FalconSigner, FalconVerifier, verify_many
from native.errors import (
    KeyFileError,
    KeyFileExists,
    KeyInvalid,
    KeySealed,
    LimitExceeded,
    SignatureInvalid,
)
from native.keys import SecretKey
from native.values import Algorithm, PublicKey

ORACLES: dict[int, ModuleType] = {
    512: pqcrypto.sign.falcon_padded_512,
    1024: pqcrypto.sign.falcon_padded_1024,
}
SIGNERS = {degree: FalconSigner.generate(degree) for degree in ORACLES}
degrees = st.sampled_from(sorted(ORACLES))


@given(degrees, st.binary(max_size=300))
@settings(max_examples=60)
def test_what_we_sign_the_oracle_accepts(degree: int, message: bytes) -> None:
    signer = SIGNERS[degree]
    signature = signer.sign(message)
    FalconVerifier(signer.public).verify(message, signature)
    assert ORACLES[degree].verify(signer.public, message, signature)
    assert not ORACLES[degree].verify(signer.public, message + b"x", signature)


@given(degrees, st.binary(max_size=300))
@settings(max_examples=30)
def test_what_the_oracle_signs_we_accept(degree: int, message: bytes) -> None:
    public, secret = ORACLES[degree].generate_keypair()
    FalconVerifier(public).verify(message, ORACLES[degree].sign(secret, message))
    adopted = FalconSigner(secret)
    assert (adopted.degree, adopted.public) == (degree, public)
    assert ORACLES[degree].verify(public, message, adopted.sign(message))


def flips(data: bytes) -> Iterator[bytes]:
    """Every byte with one bit flipped, another bit for each place; then all bits of the head."""
    for at in range(len(data)):
        yield data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
    for bit in range(8):
        yield bytes([data[0] ^ 1 << bit]) + data[1:]


@pytest.mark.parametrize("degree", sorted(ORACLES))
def test_every_flipped_byte_is_refused(degree: int) -> None:
    signer = SIGNERS[degree]
    verifier = FalconVerifier(signer.public)
    message = bytes(range(200))
    signature = signer.sign(message)
    jobs = [(verifier, message, wrong) for wrong in flips(signature)]
    jobs += [(verifier, wrong, signature) for wrong in flips(message)]
    refused_keys = 0
    for wrong in flips(signer.public):
        try:
            jobs.append((FalconVerifier(wrong), message, signature))
        except KeyInvalid:
            refused_keys += 1
    assert refused_keys >= 8, "a changed header is no key"
    assert verify_many(jobs) == bytes(len(jobs))
    assert verify_many([(verifier, message, signature)]) == b"\1"


@pytest.mark.parametrize("degree", sorted(ORACLES))
def test_a_damaged_secret_key_is_refused(degree: int) -> None:
    secret = SIGNERS[degree].export_secret()
    for wrong in list(flips(secret))[::17]:
        with pytest.raises(KeyInvalid):
            FalconSigner(wrong)


@pytest.mark.parametrize("degree", sorted(ORACLES))
def test_a_signature_of_another_length_is_refused(degree: int) -> None:
    signer = SIGNERS[degree]
    verifier, signature = FalconVerifier(signer.public), signer.sign(b"x")
    for wrong in (b"", signature[:-1], signature + b"\0", signature[1:], bytes(len(signature))):
        with pytest.raises(SignatureInvalid):
            verifier.verify(b"x", wrong)


@pytest.mark.parametrize(
    "wrong", [b"", b"short", bytes(897), bytes(1281), b"\x59" + b"\xff" * 1280]
)
def test_what_is_no_key_is_refused(wrong: bytes) -> None:
    with pytest.raises(KeyInvalid):
        FalconSigner(wrong)
    with pytest.raises(KeyInvalid):
        FalconVerifier(wrong)
    with pytest.raises(KeyInvalid):
        FalconSigner.generate(256)


def test_too_many_signatures_in_one_call_are_refused() -> None:
    verifier = FalconVerifier(SIGNERS[512].public)
    with pytest.raises(LimitExceeded):
        verify_many([(verifier, b"", b"")] * 65_537)
    assert verify_many([]) == b""


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_every_algorithm_signs_verifies_and_survives_a_file(
    algorithm: Algorithm, tmp_path: Path
) -> None:
    key = SecretKey.generate(algorithm)
    path = tmp_path / "node.key"
    key.save(path)
    assert path.stat().st_mode & 0o777 == 0o600
    assert f"Algorithm: {algorithm.name_text}\n" in path.read_text()
    loaded = SecretKey.load(path)
    assert (loaded.public, loaded.algorithm) == (key.public, algorithm)
    signature = loaded.sign(b"message")
    assert len(signature) == algorithm.signature_size_bytes
    keys.verify(key.public, b"message", signature)
    with pytest.raises(SignatureInvalid):
        keys.verify(key.public, b"massage", signature)
    with pytest.raises(SignatureInvalid):
        keys.verify(key.public, b"message", signature[:-1])


@pytest.mark.parametrize("algorithm", [Algorithm.ML_DSA_44, Algorithm.ML_DSA_65])
def test_our_der_of_an_ml_dsa_key_is_that_of_cryptography(algorithm: Algorithm) -> None:
    public = SecretKey.generate(algorithm).public
    theirs = load_der_public_key(public.spki)
    encoded = theirs.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert encoded == public.spki
    assert PublicKey.from_spki(encoded) == public


def test_a_sealed_key_opens_with_its_passphrase_only(tmp_path: Path) -> None:
    key, path = SecretKey.generate(Algorithm.FALCON_512), tmp_path / "wallet.key"
    key.save(path, "correct horse")
    assert SecretKey.load(path, "correct horse").public == key.public
    for passphrase in (None, "", "wrong"):
        with pytest.raises(KeySealed):
            SecretKey.load(path, passphrase)
    text = path.read_text()
    path.write_text(text.replace("r=8", "r=1", 1))
    with pytest.raises(KeySealed):
        SecretKey.load(path, "correct horse")
    path.write_text(text.replace("n=32768", "n=1073741824", 1))
    with pytest.raises(KeyFileError, match="memory"):
        SecretKey.load(path, "correct horse")


def test_a_key_file_is_never_written_over(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    path.write_text("precious")
    with pytest.raises(KeyFileExists):
        SecretKey.generate(Algorithm.FALCON_512).save(path)
    link = tmp_path / "link.key"
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(KeyFileExists):
        SecretKey.generate(Algorithm.FALCON_512).save(link)
    with pytest.raises(KeyFileError):
        SecretKey.generate(Algorithm.FALCON_512).save(tmp_path / "missing" / "node.key")
    assert path.read_text() == "precious"


def test_a_key_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "node.key"
    SecretKey.generate(Algorithm.FALCON_512).save(path)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        SecretKey.load(path)


def test_a_damaged_key_file_is_refused(tmp_path: Path) -> None:
    key, path = SecretKey.generate(Algorithm.FALCON_512), tmp_path / "node.key"
    key.save(path)
    text = path.read_text()
    other = SecretKey.generate(Algorithm.FALCON_512).node_id.hex()
    for wrong in (
        "",
        text[:-20],
        text[20:],
        text.replace("falcon-512", "falcon-1024"),
        text.replace("falcon-512", "rsa"),
        text.replace(key.node_id.hex(), other),
        text.replace("Seal: none", "Seal: rot13"),
        text.replace("Node: ", "Name: "),
        "x" * 20_000,
    ):
        path.write_text(wrong)
        with pytest.raises(KeyFileError):
            SecretKey.load(path)
    with pytest.raises(KeyFileError):
        SecretKey.load(tmp_path)
    with pytest.raises(KeyFileError):
        SecretKey.load(tmp_path / "missing")
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(KeyFileError, match="regular"):
        SecretKey.load(tmp_path / "pipe")


def test_secrets_do_not_leak_through_repr_or_pickle() -> None:
    key = SecretKey.generate(Algorithm.FALCON_512)
    assert key.export_secret().hex() not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)
    with pytest.raises(KeyInvalid):
        SecretKey.from_bytes(Algorithm.FALCON_1024, key.export_secret())
    with pytest.raises(KeyInvalid):
        SecretKey.from_bytes(Algorithm.ML_DSA_65, b"short")
    with pytest.raises(KeyInvalid):
        SecretKey.generate(Algorithm.ML_DSA_65).falcon_signer  # noqa: B018
