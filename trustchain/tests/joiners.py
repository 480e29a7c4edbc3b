"""Validators that join later: their log keys, and the rosters of the epochs they make."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

from native.hashing import leaf_hash
from native.keys import SecretKey
from native.values import Algorithm
from trustchain.core.certificates import Certificate, LogReference, certificate, tbs_certificate
from trustchain.core.entries import leaf_entry
from trustchain.core.genesis import LogGenesis
from trustchain.core.roster import Roster
from trustchain.runtime.ceremony import Ceremony, ValidatorKeys, make_issuing
from trustchain.runtime.credentials import make_credentials, make_evidence
from trustchain.tests.network import CHAIN_ID, NOW_S


@dataclass(frozen=True, kw_only=True)
class Joiner:
    """A node with its keys, and its issuing certificate if the root's holder signed one."""

    spki: bytes
    keys: ValidatorKeys
    certificate: bytes

    @property
    def credentials(self) -> bytes:
        return make_credentials(self.keys.cosigner.public.raw, self.certificate)

    def evidence(self, chain_id: bytes = CHAIN_ID) -> bytes:
        return make_evidence(
            chain_id,
            spki=self.spki,
            credentials=self.credentials,
            cosigner=self.keys.cosigner,
            issuing=self.keys.issuing if self.certificate else None,
            issuing_certificate=self.certificate,
        )


@cache
def keys(_name: str) -> ValidatorKeys:
    """Log keys a name, drawn once a test run."""
    return ValidatorKeys.draw()


def joiner(name: str, ceremony: Ceremony, *, spki: bytes = b"", issues: bool = True) -> Joiner:
    """The node of this name; the key of the node itself is made up unless it is given."""
    own = keys(name)
    certificate = make_issuing(
        f"demo.mesh issuing {name}",
        own.issuing.public.raw,
        root=ceremony.root,
        root_certificate=ceremony.genesis.root_certificate,
        now_s=NOW_S,
    )
    return Joiner(
        spki=spki or _node_spki(name), keys=own, certificate=certificate if issues else b""
    )


@cache
def _node_spki(_name: str) -> bytes:
    return bytes(SecretKey.generate(Algorithm.FALCON_512).public.spki)


def roster(ceremony: Ceremony, epoch: int, *members: int | Joiner | None) -> Roster:
    """A roster of founders by place, joiners, and validators without log keys."""
    return Roster.of(
        ceremony.genesis,
        epoch,
        [
            (member, b"")
            if isinstance(member, int)
            else (None, b"" if member is None else member.credentials)
            for member in members
        ],
    )


def made_up(
    genesis: LogGenesis,
    issuing: SecretKey,
    issuing_certificate: bytes,
    not_before_s: int,
    life_s: int,
) -> tuple[tuple[bytes, bytes], bytes]:
    """A chain for entry 0 that no block ordered, and the root of the log of this one entry."""
    key = Certificate.decode(genesis.root_certificate).key  # any will do
    entry = leaf_entry(
        ca_id=genesis.ca_id,
        trust_domain=genesis.trust_domain,
        permanent_id=key.node_id,
        names=["bank.mesh"],
        key=key,
        not_before_s=not_before_s,
        not_after_s=not_before_s + life_s,
    )
    tbs = tbs_certificate(
        entry,
        key,
        log_number=genesis.log_number,
        reference=LogReference(origin=genesis.origin, index=0),
        issuer=Certificate.decode(issuing_certificate),
    )
    chain = (certificate(tbs, issuing.sign(tbs)), issuing_certificate)
    return chain, bytes(leaf_hash(entry.encode()))
