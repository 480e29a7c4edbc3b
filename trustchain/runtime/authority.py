"""A validator's issuing key: the X.509 form of entries that are already in the log.

The key cannot mint anything by itself: it signs only what it derives from an entry, and verifiers
ask for the log's proof as well. Two validators may both sign one entry, each under its own name.

The key's certificate is in genesis, or in a file that came with the node's admission to the set. A
node whose certificate is not in the roster of the present epoch does not issue.
"""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Final

from native.errors import NativeError
from native.keys import SecretKey
from native.values import Algorithm
from trustchain.core.bundle import Bundle
from trustchain.core.certificates import Certificate, LogReference, certificate, tbs_certificate
from trustchain.core.checkpoint import Checkpoint
from trustchain.core.entries import Entry
from trustchain.core.genesis import LogGenesis
from trustchain.core.log import Record
from trustchain.core.roster import Roster
from trustchain.errors import HeadUnknown, KeyFileError, MalformedDER
from trustchain.metrics import AuthorityStatistics
from trustchain.runtime.application import LogApplication
from trustchain.runtime.credentials import check_issuing

SIGNED_KEPT_COUNT: Final = 256  # certificates asked for again: a retry, `cert show`; 1.5 MB


class Authority:
    """Signs the X.509 form of entries with one validator's issuing key. Not thread-safe."""

    def __init__(
        self,
        application: LogApplication,
        key: SecretKey,
        *,
        certificate: bytes | None = None,
        roster: Roster | None = None,
    ) -> None:
        genesis = application.log_genesis
        self._application = application
        self._key = key
        self._signed_total = 0
        self._issuer = _own_certificate(genesis, key, certificate)
        self._roster = roster or Roster.of_genesis(genesis)
        self._signed: OrderedDict[int, bytes] = OrderedDict()

    @classmethod
    def load(
        cls,
        path: Path,
        application: LogApplication,
        *,
        certificate: bytes | None = None,
        roster: Roster | None = None,
        passphrase: str | None = None,
    ) -> Authority:
        """Read the issuing key from its file; raises KeyFileError.

        `certificate` is DER, of a validator that joined; a founder's is in genesis.
        """
        try:
            key = SecretKey.load(path, passphrase)
        except NativeError as error:
            raise KeyFileError(str(error)) from error
        return cls(application, key, certificate=certificate, roster=roster)

    def enter(self, roster: Roster) -> None:
        """The next epoch begins: whoever is in its roster issues from now on."""
        self._roster = roster

    @property
    def is_seated(self) -> bool:
        """Whether this node issues in the present epoch."""
        return self._roster.issues(self._issuer.encoded)

    @property
    def issuing_certificate(self) -> bytes:
        """The certificate of the issuing key, DER."""
        return self._issuer.encoded

    def certificate(self, index: int) -> bytes:
        """Return the X.509 form of an entry, DER; raises EntryUnknown."""
        known = self._signed.get(index)
        if known is None:
            known = self._sign(self._application.entry(index))
            self._signed[index] = known
            while len(self._signed) > SIGNED_KEPT_COUNT:
                self._signed.popitem(last=False)
        return known

    def bundle(self, index: int, checkpoint: Checkpoint) -> Bundle:
        """Join certificate, inclusion proof and a checkpoint that contains the entry.

        Raises EntryUnknown, or HeadUnknown when the checkpoint does not reach the entry.
        """
        if checkpoint.size <= index:
            raise HeadUnknown(f"a checkpoint of {checkpoint.size} does not contain entry {index}")
        return Bundle(
            chain=(self.certificate(index), self._issuer.encoded),
            index=index,
            proof=self._application.inclusion_proof(index, checkpoint.size),
            checkpoint=checkpoint,
        )

    def statistics(self) -> AuthorityStatistics:
        """Return the figures `/metrics` shows."""
        return AuthorityStatistics(certificates_signed_total=self._signed_total)

    def _sign(self, record: Record) -> bytes:
        genesis = self._application.log_genesis
        tbs = tbs_certificate(
            Entry.decode(record.entry),
            record.key,
            log_number=genesis.log_number,
            reference=LogReference(origin=genesis.origin, index=record.index),
            issuer=self._issuer,
        )
        self._signed_total += 1
        return certificate(tbs, self._key.sign(tbs))


def _own_certificate(genesis: LogGenesis, key: SecretKey, encoded: bytes | None) -> Certificate:
    """Check the issuing certificate of this key, or find it in genesis."""
    if key.algorithm is not Algorithm.ML_DSA_65:
        raise KeyFileError(f"the issuing key is a {key.algorithm.name_text} key, not ML-DSA-65")
    if encoded is not None:
        try:
            issuing = check_issuing(genesis, encoded)
        except MalformedDER as error:
            raise KeyFileError(f"issuing certificate: {error}") from error
        if issuing.key.spki != key.public.spki:
            raise KeyFileError("the issuing certificate is of another key")
        return issuing
    for known in genesis.issuing_certificates:
        issuing = Certificate.decode(known)
        if issuing.key.spki == key.public.spki:
            return issuing
    raise KeyFileError("genesis has no certificate for this issuing key")
