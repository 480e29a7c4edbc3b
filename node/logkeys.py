"""The log keys in a home folder: cosigner key, issuing key, and the certificate of the latter.

A founder's were made with the network. A node that joins makes its own here; the holder of the
offline root certifies the issuing key (`hypermesh ca sign-issuer`), or does not, and then the node
cosigns and issues nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from native.errors import NativeError
from native.keys import SecretKey
from native.values import Algorithm
from node.errors import KeyMismatch
from node.home import Home, require_private, write_replacing
from node.inputs import bounded_text
from node.limits import SECRET_FILE_SIZE_BYTES_MAX
from node.preflight import read_genesis
from trustchain.core.genesis import LogGenesis
from trustchain.errors import MalformedDER
from trustchain.runtime.ceremony import certificate_of_pem, public_key_pem
from trustchain.runtime.credentials import (
    acceptable,
    check_issuing,
    make_credentials,
    make_evidence,
)

if TYPE_CHECKING:
    from consensus.core.validators import Validator
    from node.core.genesis import Genesis


def make_log_keys(home: Home) -> Path:
    """Make the keys that are not there yet; return the file that the root's holder wants.

    It always has the public half of the issuing key that is there.
    """
    for path, algorithm in (
        (home.cosigner_key, Algorithm.ML_DSA_44),
        (home.issuing_key, Algorithm.ML_DSA_65),
    ):
        if not path.exists():
            SecretKey.generate(algorithm).save(path)
    wanted = public_key_pem(_load(home.issuing_key).public.raw).encode()
    request = home.issuing_request
    if not request.exists() or request.read_bytes() != wanted:  # its key was lost, or it was edited
        write_replacing(request, wanted)
    return request


def issuing_certificate(home: Home, log: LogGenesis) -> bytes:
    """The certificate of the issuing key, DER; empty without one. Raises `KeyMismatch`."""
    path = home.issuing_certificate
    if not path.exists():
        return b""
    try:
        encoded = certificate_of_pem(bounded_text(path, SECRET_FILE_SIZE_BYTES_MAX))
        issuing = check_issuing(log, encoded)
    except (MalformedDER, ValueError) as error:
        raise KeyMismatch(
            f"{path}: {error}", hint="have it made again: hypermesh ca sign-issuer"
        ) from None
    if issuing.key.spki != _load(home.issuing_key).public.spki:
        raise KeyMismatch(
            f"{path} is the certificate of another key than {home.issuing_key.name}",
            hint=f"have {home.issuing_request} certified: hypermesh ca sign-issuer",
        )
    return encoded


def credentials_of(home: Home, log: LogGenesis) -> bytes:
    """What is proposed for the node of this home; empty when it has no cosigner key."""
    if not home.cosigner_key.exists():
        return b""
    return make_credentials(_load(home.cosigner_key).public.raw, issuing_certificate(home, log))


@dataclass(frozen=True, slots=True, kw_only=True)
class Joiner:
    """The secrets of a node that joins, and what they show."""

    secret: SecretKey
    home: Home

    def evidence(self, chain_id: bytes, credentials: bytes) -> bytes:
        """Show that this home holds the keys that were approved; raises KeyFileError if not."""
        if not credentials:
            return b""
        genesis = read_genesis(self.home.genesis)
        certificate = issuing_certificate(self.home, genesis.log)
        return make_evidence(
            chain_id,
            spki=self.secret.public.spki,
            credentials=credentials,
            cosigner=_load(self.home.cosigner_key),
            issuing=_load(self.home.issuing_key) if certificate else None,
            issuing_certificate=certificate,
        )


def voucher(genesis: Genesis) -> Callable[[Validator, bytes, Sequence[Validator]], bool]:
    """Judge the credentials of joiners, for the registry of validators."""

    def vouch(joiner: Validator, evidence: bytes, others: Sequence[Validator]) -> bool:
        return acceptable(
            genesis.log,
            genesis.chain_id,
            spki=joiner.key.spki,
            credentials=joiner.credentials,
            evidence=evidence,
            others=[other.credentials for other in others],
        )

    return vouch


def _load(path: Path) -> SecretKey:
    require_private(path)
    try:
        return SecretKey.load(path)
    except NativeError as error:
        raise KeyMismatch(str(error), hint="restore the keys folder from your backup") from None
