"""Offline verification of a bundle: no network, no clock, nothing trusted but genesis.

The validators of later epochs are trusted as far as a `Succession` says, which its owner proved
from genesis.

A certificate holds when its chain leads to the root, it is valid at the given time and for the
given name, the entry it is the X.509 form of is in the checkpointed log and lives no longer than
genesis allows, and enough validators of one epoch cosigned that checkpoint: of the newest, or of an
earlier one in which the certificate can have been issued. Each rule that fails raises its own
error; nothing returns False.
"""

from __future__ import annotations

from dataclasses import dataclass

from native.errors import ProofInvalid
from native.hashing import verify_inclusion
from trustchain.core.bundle import Bundle
from trustchain.core.certificates import (
    ISSUING_ALGORITHM,
    Certificate,
    LogReference,
    derive_entry,
    serial_number,
    tbs_certificate,
)
from trustchain.core.checkpoint import Checkpoint, cosigned_message, cosigner_key_id
from trustchain.core.entries import Entry
from trustchain.core.genesis import LogGenesis
from trustchain.core.keys import SubjectKey
from trustchain.core.oids import FORM_OF, KeyAlgorithm
from trustchain.core.roster import Roster, Speaker, Succession
from trustchain.errors import (
    ChainInvalid,
    CosignersLeft,
    Expired,
    MalformedBundle,
    MalformedDER,
    NameMismatch,
    NotInLog,
    NotYetValid,
    ProfileInvalid,
    QuorumMissing,
    WrongLog,
)
from trustchain.runtime.signatures import SignatureInvalid, verify_signature


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What a verified bundle says."""

    index: int
    serial: int
    permanent_id: bytes
    names: tuple[str, ...]
    key: SubjectKey
    not_before_s: int
    not_after_s: int
    checkpoint_size: int
    checkpoint_root: bytes
    cosigners: tuple[str, ...]  # known cosigners whose signature holds


def verify_bundle(
    bundle: str | Bundle,
    genesis: LogGenesis,
    *,
    at_s: int,
    name: str | None = None,
    succession: Succession | None = None,
) -> Verified:
    """Verify a certificate bundle at a time, and for a name if one is given.

    `succession` is what a client that followed the epochs knows; else genesis alone is. Raises
    MalformedBundle, or the VerificationError of the first rule that does not hold.
    """
    if isinstance(bundle, str):
        bundle = Bundle.decode(bundle)
    if len(bundle.chain) != 2:
        raise MalformedBundle("a chain is a leaf and its issuing certificate")
    leaf, issuing = (_decode(encoded) for encoded in bundle.chain)
    _check_reference(leaf, bundle, genesis)
    _check_chain(leaf, issuing, genesis, at_s)
    entry = _check_profile(leaf, issuing, genesis)
    _check_time("certificate", leaf, at_s)
    names = _names(entry)
    if name is not None and name not in names:
        raise NameMismatch(f"the certificate is for {', '.join(names)}, not for {name}")
    _check_inclusion(entry, bundle)
    _check_life(entry, genesis)
    cosigners, speaker = _count(
        bundle.checkpoint, genesis, succession or Succession.of_genesis(genesis)
    )
    _check_epoch(entry, speaker)
    return Verified(
        index=bundle.index,
        serial=leaf.serial,
        permanent_id=entry.permanent_id,
        names=names,
        key=leaf.key,
        not_before_s=leaf.not_before_s,
        not_after_s=leaf.not_after_s,
        checkpoint_size=bundle.checkpoint.size,
        checkpoint_root=bundle.checkpoint.root,
        cosigners=cosigners,
    )


def verify_checkpoint(
    checkpoint: Checkpoint, genesis: LogGenesis, succession: Succession | None = None
) -> tuple[str, ...]:
    """Return the names of the validators that cosigned a checkpoint, at least W of one epoch.

    Only epochs that speak for a tree of this size are counted, each for itself. Unknown cosigners
    are ignored; a known one whose signature does not hold is fatal.

    Says nothing of what is in the tree. If the epoch is over, its keys may have made the tree up
    since: `verify_bundle` looks at the date of the certificate as well.
    """
    return _count(checkpoint, genesis, succession or Succession.of_genesis(genesis))[0]


def _count(
    checkpoint: Checkpoint, genesis: LogGenesis, succession: Succession
) -> tuple[tuple[str, ...], Speaker]:
    """Return who makes a checkpoint count, and as which roster: the newest that suffices."""
    if checkpoint.origin != genesis.origin:
        raise WrongLog(f"the checkpoint is of {checkpoint.origin}, not of {genesis.origin}")
    speakers = succession.speaking_for(checkpoint.size)
    keys = {
        (seat.name, cosigner_key_id(seat.name, seat.cosigner_key)): seat.cosigner_key
        for speaker in speakers
        for seat in speaker.roster.seats
        if seat is not None
    }
    valid: dict[str, bytes] = {}
    for cosignature in checkpoint.cosignatures:
        raw = keys.get((cosignature.name, cosignature.key_id))
        if raw is None:
            continue
        message = cosigned_message(
            name=cosignature.name,
            timestamp_s=cosignature.timestamp_s,
            origin=checkpoint.origin,
            end=checkpoint.size,
            root=checkpoint.root,
        )
        try:
            verify_signature(
                SubjectKey.of(KeyAlgorithm.ML_DSA_44, raw), message, cosignature.signature
            )
        except SignatureInvalid as error:
            raise QuorumMissing(f"the cosignature of {cosignature.name} is not valid") from error
        valid[cosignature.name] = raw

    def of(roster: Roster) -> tuple[str, ...]:
        return tuple(name for name, raw in valid.items() if roster.place_of(raw) is not None)

    for speaker in speakers:
        if len(cosigned := of(speaker.roster)) >= speaker.roster.needed:
            return cosigned, speaker
    newest = succession.newest
    raise QuorumMissing(
        f"{len(of(newest))} known validators of epoch {newest.epoch} cosigned, {newest.needed} are "
        "needed"
    )


def _decode(encoded: bytes) -> Certificate:
    try:
        return Certificate.decode(encoded)
    except MalformedDER as error:
        raise MalformedBundle(f"certificate: {error}") from error


def _check_reference(leaf: Certificate, bundle: Bundle, genesis: LogGenesis) -> None:
    """The leaf, the proof and the serial number must speak of one entry of this log."""
    try:
        reference = leaf.log_reference
    except MalformedDER as error:
        raise NotInLog(f"the certificate names no log entry: {error}") from error
    if reference.origin != genesis.origin:
        raise WrongLog(f"the certificate is of {reference.origin}, not of {genesis.origin}")
    if reference.index != bundle.index:
        raise NotInLog(f"the proof is for entry {bundle.index}, not {reference.index}")
    if leaf.serial != serial_number(log_number=genesis.log_number, index=bundle.index):
        raise NotInLog("the serial number is not that of the entry")


def _check_chain(leaf: Certificate, issuing: Certificate, genesis: LogGenesis, at_s: int) -> None:
    root = Certificate.decode(genesis.root_certificate)
    try:
        issuing.check_authority(path_length_max=0)
        if issuing.authority_key_id != root.subject_key_id:
            raise ChainInvalid("the issuing certificate names another root key")
        if leaf.authority_key_id != issuing.subject_key_id:
            raise ChainInvalid("the certificate names another issuing key")
    except MalformedDER as error:
        raise ChainInvalid(str(error)) from error
    if issuing.issuer != root.subject or leaf.issuer != issuing.subject:
        raise ChainInvalid("issuer and subject do not link the chain")
    if issuing.key.algorithm is not ISSUING_ALGORITHM:
        raise ChainInvalid("the issuing key is not an ML-DSA-65 key")
    _check_signature("issuing certificate", issuing, root.key)
    _check_signature("certificate", leaf, issuing.key)
    _check_time("root certificate", root, at_s)
    _check_time("issuing certificate", issuing, at_s)


def _check_signature(what: str, signed: Certificate, key: SubjectKey) -> None:
    if signed.signature_oid != FORM_OF[key.algorithm].signature_oid:
        raise ChainInvalid(f"the {what} is signed with another algorithm than its issuer's key")
    try:
        verify_signature(key, signed.tbs, signed.signature)
    except SignatureInvalid as error:
        raise ChainInvalid(f"the signature of the {what} does not hold") from error


def _check_time(what: str, certificate: Certificate, at_s: int) -> None:
    if at_s < certificate.not_before_s:
        raise NotYetValid(f"the {what} starts {certificate.not_before_s - at_s} s later")
    if at_s > certificate.not_after_s:
        raise Expired(f"the {what} ended {at_s - certificate.not_after_s} s ago")


def _check_profile(leaf: Certificate, issuing: Certificate, genesis: LogGenesis) -> Entry:
    """Derive the entry; the certificate must be exactly what the entry's X.509 form is."""
    try:
        entry = derive_entry(leaf, ca_id=genesis.ca_id)
        expected = tbs_certificate(
            entry,
            leaf.key,
            log_number=genesis.log_number,
            reference=LogReference(origin=genesis.origin, index=leaf.log_reference.index),
            issuer=issuing,
        )
    except MalformedDER as error:
        raise ProfileInvalid(str(error)) from error
    if expected != leaf.tbs:
        raise ProfileInvalid("the certificate is not the X.509 form of its entry")
    return entry


def _names(entry: Entry) -> tuple[str, ...]:
    try:
        return entry.names
    except MalformedDER as error:
        raise ProfileInvalid(str(error)) from error


def _check_inclusion(entry: Entry, bundle: Bundle) -> None:
    checkpoint = bundle.checkpoint
    try:
        verify_inclusion(entry.leaf, bundle.index, checkpoint.size, bundle.proof, checkpoint.root)
    except ProofInvalid as error:
        raise NotInLog("the entry is not in the checkpointed log") from error


def _check_life(entry: Entry, genesis: LogGenesis) -> None:
    """Only this bounds for how long keys of a past epoch can certify with a date of that epoch."""
    life_s = entry.not_after_s - entry.not_before_s
    if life_s > genesis.leaf_life_s:
        raise ProfileInvalid(f"a life of {life_s} s; the log issues at most {genesis.leaf_life_s}")


def _check_epoch(entry: Entry, speaker: Speaker) -> None:
    """What began after the last entry of an epoch was not issued in it, whoever signs it now."""
    limit = speaker.not_before_s_max
    if limit is not None and entry.not_before_s > limit:
        raise CosignersLeft(
            f"only validators of epoch {speaker.roster.epoch} cosigned, and the certificate began "
            f"{entry.not_before_s - limit} s after the last one of that epoch"
        )
