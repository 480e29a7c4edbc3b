"""The keys and certificates a network starts with: what `cluster new` calls.

Everything is drawn in one go, on one machine, for a network that starts there. The root key belongs
on another machine afterwards; it is written encrypted and no node ever reads it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import mldsa
from cryptography.x509.oid import NameOID

from native.errors import NativeError
from native.keys import SecretKey
from native.values import Algorithm
from trustchain import limits
from trustchain.core.bundle import pem
from trustchain.core.certificates import Certificate, key_id_of
from trustchain.core.genesis import EnrolmentKey, LogGenesis
from trustchain.core.keys import SubjectKey
from trustchain.core.oids import KeyAlgorithm
from trustchain.errors import KeyFileError, MalformedDER
from trustchain.runtime.keyfiles import RootKey, load_root_key, subject_key, write_key, write_new

ISSUING_KEY_FILE: Final = "issuing.key"
COSIGNER_KEY_FILE: Final = "cosigner.key"
ENROLMENT_KEY_FILE: Final = "enrolment.key"
ROOT_KEY_FILE: Final = "root-key.pem"
ROOT_CERTIFICATE_FILE: Final = "root.pem"

_REQUEST_HINT: Final = "name the issuing.pub that `hypermesh ca request` wrote on the new node"
_ROOT_HINT: Final = f"put {ROOT_KEY_FILE} and {ROOT_CERTIFICATE_FILE} of one network side by side"

_DOCUMENTATION_ENTERPRISE: Final = 32473  # RFC 5612


@dataclass(frozen=True, slots=True)
class ValidatorKeys:
    """What one validator keeps; each in a file of its own."""

    issuing: SecretKey
    cosigner: SecretKey

    @staticmethod
    def draw() -> ValidatorKeys:
        """Draw both keys."""
        return ValidatorKeys(
            issuing=SecretKey.generate(Algorithm.ML_DSA_65),
            cosigner=SecretKey.generate(Algorithm.ML_DSA_44),
        )

    def save(self, folder: Path, passphrase: str | None = None) -> None:
        """Write both key files into a node's `keys/` folder; raises KeyFileError."""
        try:
            self.issuing.save(folder / ISSUING_KEY_FILE, passphrase)
            self.cosigner.save(folder / COSIGNER_KEY_FILE, passphrase)
        except NativeError as error:
            raise KeyFileError(str(error)) from error


@dataclass(frozen=True, slots=True)
class Ceremony:
    """Everything that was drawn, and the log section of genesis that pins it."""

    genesis: LogGenesis
    root: RootKey
    validators: tuple[ValidatorKeys, ...]
    enrolment: SecretKey

    def save_root(self, folder: Path, passphrase: str) -> None:
        """Write the encrypted root key and its certificate; raises KeyFileError."""
        write_key(folder / ROOT_KEY_FILE, self.root, passphrase)
        certificate = pem(self.genesis.root_certificate).encode("ascii")
        write_new(folder / ROOT_CERTIFICATE_FILE, certificate, mode=0o644)

    def save_enrolment(self, folder: Path, passphrase: str | None = None) -> Path:
        """Write the enrolment key and return its path; raises KeyFileError."""
        path = folder / ENROLMENT_KEY_FILE
        try:
            self.enrolment.save(path, passphrase)
        except NativeError as error:
            raise KeyFileError(str(error)) from error
        return path


def hold_ceremony(
    validators: Sequence[str],
    *,
    trust_domain: str,
    now_s: int,
    patterns: Sequence[str] = ("*",),
    ca_id: str | None = None,
    leaf_life_s: int = limits.LEAF_LIFE_S,
) -> Ceremony:
    """Draw all keys of a new network and certify the issuing keys.

    `validators` are their names in the order of genesis. `patterns` say which names the one
    enrolment key may grant. Raises MalformedGenesis for arguments that make no valid genesis.
    """
    root, root_certificate = make_root(f"{trust_domain} root", now_s=now_s)
    keys = tuple(ValidatorKeys.draw() for _ in validators)
    enrolment = SecretKey.generate(Algorithm.FALCON_512)
    genesis = LogGenesis(
        ca_id=ca_id or f"{_DOCUMENTATION_ENTERPRISE}.{1_000 + secrets.randbelow(1 << 31)}",
        log_number=1,
        trust_domain=trust_domain,
        cosigner_keys=tuple(own.cosigner.public.raw for own in keys),
        root_certificate=root_certificate,
        issuing_certificates=tuple(
            make_issuing(
                f"{trust_domain} issuing {name}",
                own.issuing.public.raw,
                root=root,
                root_certificate=root_certificate,
                now_s=now_s,
            )
            for name, own in zip(validators, keys, strict=True)
        ),
        enrolment_keys=(
            EnrolmentKey(label="first", spki=enrolment.public.spki, patterns=tuple(patterns)),
        ),
        leaf_life_s=leaf_life_s,
    )
    return Ceremony(genesis, root, keys, enrolment)


def make_root(name: str, *, now_s: int) -> tuple[RootKey, bytes]:
    """Draw a root key (ML-DSA-87) and sign its own certificate of ten years, DER."""
    root = mldsa.MLDSA87PrivateKey.generate()
    key_id = key_id_of(subject_key(root))
    builder = _authority(name, name, now_s=now_s, life_s=limits.ROOT_LIFE_S, path_length=1)
    certificate = (
        builder.public_key(root.public_key())
        .add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
        .sign(root, None)
    )
    return root, certificate.public_bytes(serialization.Encoding.DER)


def make_issuing(
    name: str, public: bytes, *, root: RootKey, root_certificate: bytes, now_s: int
) -> bytes:
    """Sign the certificate of a validator's issuing key (raw ML-DSA-65) for three years, DER."""
    issuer_name = _common_name(root_certificate)
    key_id = key_id_of(SubjectKey.of(KeyAlgorithm.ML_DSA_65, public))
    builder = _authority(
        name, issuer_name, now_s=now_s, life_s=limits.ISSUING_LIFE_S, path_length=0
    )
    certificate = (
        builder.public_key(mldsa.MLDSA65PublicKey.from_public_bytes(public))
        .add_extension(x509.SubjectKeyIdentifier(key_id), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier(key_id_of(subject_key(root)), None, None), critical=False
        )
        .sign(root, None)
    )
    return certificate.public_bytes(serialization.Encoding.DER)


def public_key_pem(raw: bytes) -> str:
    """Write the public half of an issuing key (raw ML-DSA-65) as PEM, to be certified."""
    key = mldsa.MLDSA65PublicKey.from_public_bytes(raw)
    form = serialization.PublicFormat.SubjectPublicKeyInfo
    return key.public_bytes(serialization.Encoding.PEM, form).decode("ascii")


def certify_issuing(request: str, *, name: str, folder: Path, passphrase: str, now_s: int) -> bytes:
    """Sign the certificate of a joining validator's issuing key with the offline root, DER.

    `request` is what `public_key_pem` wrote, `folder` what `Ceremony.save_root` made. Raises
    KeyFileError. The holder of the key proves it when the validator joins.
    """
    try:
        public = serialization.load_pem_public_key(request.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise KeyFileError("the request is not a public key in PEM", hint=_REQUEST_HINT) from error
    if not isinstance(public, mldsa.MLDSA65PublicKey):
        raise KeyFileError("the key to certify is not an ML-DSA-65 key", hint=_REQUEST_HINT)
    root = load_root_key(folder / ROOT_KEY_FILE, passphrase)
    file = folder / ROOT_CERTIFICATE_FILE
    try:
        with file.open("rb") as opened:
            text = opened.read(limits.KEY_FILE_SIZE_BYTES_MAX).decode()
        root_certificate = certificate_of_pem(text)
        known = Certificate.decode(root_certificate)
        domain = _common_name(root_certificate).removesuffix(" root")
    except (OSError, UnicodeDecodeError, MalformedDER) as error:
        raise KeyFileError(f"{file}: {error}", hint=_ROOT_HINT) from error
    if known.key.spki != subject_key(root).spki:
        raise KeyFileError(
            f"{folder}: root key and root certificate do not belong together", hint=_ROOT_HINT
        )
    return make_issuing(
        f"{domain} issuing {name}",
        public.public_bytes_raw(),
        root=root,
        root_certificate=root_certificate,
        now_s=now_s,
    )


def certificate_of_pem(text: str) -> bytes:
    """Read the one certificate of a PEM text, DER; raises MalformedDER."""
    try:
        found = x509.load_pem_x509_certificates(text.encode())
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedDER(f"not a certificate in PEM: {error}") from error
    if len(found) != 1:
        raise MalformedDER(f"{len(found)} certificates where one was expected")
    return found[0].public_bytes(serialization.Encoding.DER)


def _common_name(certificate: bytes) -> str:
    """The one common name of a certificate's subject; raises MalformedDER."""
    try:
        subject = x509.load_der_x509_certificate(certificate).subject
        [common] = subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    except (ValueError, x509.InvalidVersion) as error:
        raise MalformedDER("the subject of the certificate has no single common name") from error
    return str(common.value)


def _authority(
    name: str, issuer: str, *, now_s: int, life_s: int, path_length: int
) -> x509.CertificateBuilder:
    start_s = now_s - limits.BACKDATE_S
    return (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.fromtimestamp(start_s, UTC))
        .not_valid_after(datetime.fromtimestamp(start_s + life_s, UTC))
        .add_extension(x509.BasicConstraints(ca=True, path_length=path_length), critical=True)
        .add_extension(
            x509.KeyUsage(
                digital_signature=False,
                content_commitment=False,
                key_encipherment=False,
                data_encipherment=False,
                key_agreement=False,
                key_cert_sign=True,
                crl_sign=True,
                encipher_only=False,
                decipher_only=False,
            ),
            critical=True,
        )
    )
