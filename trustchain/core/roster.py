"""Who may cosign and issue in an epoch: each validator's cosigner key and issuing certificate.

Founders' are in genesis. A validator that joins later brings *credentials*, canonical

    [1, cosigner key, SHA-256 of the issuing certificate or nothing]

which the ordered change names, its operators approve and the set of the epoch contains, so that
the link to the epoch certifies them. Its *evidence*, `[1, cosigner signature, issuing certificate,
issuing signature]`, shows that it holds both keys; the signatures are over "hypermesh/log-keys/v1"
|| chain id || msgpack [SPKI of the node, credentials]. Without an issuing certificate a validator
cosigns and does not issue.

Nothing here checks a signature: the runtime does.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from consensus.core.quorum import weak_quorum
from native import codec
from native.hashing import HASH_SIZE_BYTES, sha256
from trustchain import limits
from trustchain.core.checkpoint import SIGNATURE_SIZE_BYTES
from trustchain.core.genesis import LogGenesis
from trustchain.core.oids import FORM_OF, KeyAlgorithm
from trustchain.errors import MalformedCredentials

VERSION: Final = 1
POSSESSION_DOMAIN: Final = b"hypermesh/log-keys/v1"

_COSIGNER_KEY_SIZE_BYTES: Final = FORM_OF[KeyAlgorithm.ML_DSA_44].key_size
_ISSUING_SIGNATURE_SIZE_BYTES: Final = FORM_OF[KeyAlgorithm.ML_DSA_65].signature_size_max


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """What a validator set says of the log keys of a member that joined."""

    cosigner_key: bytes  # raw ML-DSA-44
    issuing_hash: bytes = b""  # SHA-256 of the issuing certificate; empty: it issues nothing

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode((VERSION, self.cosigner_key, self.issuing_hash))

    @staticmethod
    def decode(data: bytes) -> Credentials:
        """Read the canonical bytes, or raise MalformedCredentials."""
        match _decoded(data, "credentials"):
            case (1, bytes(key), bytes(issuing)) if len(key) == _COSIGNER_KEY_SIZE_BYTES and len(
                issuing
            ) in (0, HASH_SIZE_BYTES):
                found = Credentials(cosigner_key=key, issuing_hash=issuing)
                if found.encode() == data:
                    return found
        raise MalformedCredentials("credentials: fields are not those of version 1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """What shows that a validator holds the keys of its credentials."""

    cosigner_signature: bytes
    issuing_certificate: bytes = b""  # DER
    issuing_signature: bytes = b""

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode(
            (VERSION, self.cosigner_signature, self.issuing_certificate, self.issuing_signature)
        )

    @staticmethod
    def decode(data: bytes) -> Evidence:
        """Read the canonical bytes, or raise MalformedCredentials."""
        match _decoded(data, "evidence"):
            case (1, bytes(cosigner), bytes(certificate), bytes(issuing)) if len(
                cosigner
            ) == SIGNATURE_SIZE_BYTES and len(issuing) == (
                _ISSUING_SIGNATURE_SIZE_BYTES if certificate else 0
            ):
                found = Evidence(
                    cosigner_signature=cosigner,
                    issuing_certificate=certificate,
                    issuing_signature=issuing,
                )
                if found.encode() == data:
                    return found
        raise MalformedCredentials("evidence: fields are not those of version 1")


def possession_message(chain_id: bytes, spki: bytes, credentials: bytes) -> bytes:
    """What both keys of a joining validator sign: for this chain, this node and each other."""
    return POSSESSION_DOMAIN + chain_id + codec.encode((spki, credentials))


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """The log keys of one validator."""

    name: str  # on a checkpoint
    cosigner_key: bytes
    issuing_hash: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Roster:
    """The log keys of one epoch, in the validators' order; None for one who joined without."""

    epoch: int
    seats: tuple[Seat | None, ...]

    @staticmethod
    def of_genesis(genesis: LogGenesis) -> Roster:
        """The roster of epoch 0."""
        members = [(place, b"") for place in range(len(genesis.cosigner_keys))]
        return Roster.of(genesis, 0, members)

    @staticmethod
    def of(genesis: LogGenesis, epoch: int, members: Iterable[tuple[int | None, bytes]]) -> Roster:
        """The roster of an epoch from its members: place in genesis if any, and credentials.

        Credentials that do not decode give no seat, nor does a cosigner key for the second time.
        """
        seats: list[Seat | None] = []
        taken: set[bytes] = set()
        for place, credentials in members:
            seat = _founder(genesis, place) if place is not None else _joined(genesis, credentials)
            if seat is not None and seat.cosigner_key in taken:
                seat = None
            if seat is not None:
                taken.add(seat.cosigner_key)
            seats.append(seat)
        return Roster(epoch=epoch, seats=tuple(seats))

    @property
    def needed(self) -> int:
        """W: how many cosignatures of this roster make a checkpoint count.

        Seats that are empty count as validators: any f of the set may lie.
        """
        return weak_quorum(len(self.seats))

    def place_of(self, cosigner_key: bytes) -> int | None:
        """Whose cosigner key this is; None for a key that is not, or no longer, in the set."""
        for place, seat in enumerate(self.seats):
            if seat is not None and seat.cosigner_key == cosigner_key:
                return place
        return None

    def issues(self, certificate: bytes) -> bool:
        """Whether a validator of this set issues under this certificate."""
        found = sha256(certificate)
        return any(seat is not None and seat.issuing_hash == found for seat in self.seats)


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """Where the log stood when an epoch ended."""

    size: int
    not_before_s: int = -1  # when its last entry begins to be valid; -1: it had none


@dataclass(frozen=True, slots=True, kw_only=True)
class Speaker:
    """A roster that is heard on a tree, and what it can certify with it."""

    roster: Roster
    not_before_s_max: int | None = None  # latest start of a certificate; None: any


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The rosters of all epochs from genesis on, and where the log stood when each ended.

    `ends[e]` is the log after the last block of epoch e. The roster of an epoch is heard on trees
    up to that size, and for certificates that began no later than the last entry of the epoch:
    block time never falls, so no entry of the epoch begins after its last one. Neither shows that a
    tree is the log's own. W keys of an epoch that is over can therefore still make up a tree whose
    certificates bear an old date; since a life is bounded, all of them have expired one leaf life
    after that last entry began, whoever holds the keys by then.

    A later roster speaks for smaller trees as well, because it has the same log. The last roster
    has no end; without a known end an earlier one is not heard.
    """

    rosters: tuple[Roster, ...]
    ends: tuple[Ended, ...] = ()

    @staticmethod
    def of_genesis(genesis: LogGenesis) -> Succession:
        """What genesis alone tells."""
        return Succession(rosters=(Roster.of_genesis(genesis),))

    @property
    def newest(self) -> Roster:
        """The roster of the last epoch that is known."""
        return self.rosters[-1]

    def speaking_for(self, size: int) -> tuple[Speaker, ...]:
        """Whose cosignatures count for a tree of this size, the newest first.

        So the first that suffices also lets a certificate begin the latest.
        """
        earlier = [
            Speaker(roster=roster, not_before_s_max=end.not_before_s)
            for roster, end in zip(self.rosters[:-1], self.ends, strict=False)
            if size <= end.size
        ]
        return (Speaker(roster=self.newest), *reversed(earlier))


def _founder(genesis: LogGenesis, place: int) -> Seat:
    return Seat(
        name=genesis.cosigner_names[place],
        cosigner_key=genesis.cosigner_keys[place],
        issuing_hash=sha256(genesis.issuing_certificates[place]),
    )


def _joined(genesis: LogGenesis, data: bytes) -> Seat | None:
    if not data:
        return None
    try:
        credentials = Credentials.decode(data)
    except MalformedCredentials:
        return None
    return Seat(
        name=genesis.cosigner_name_of(credentials.cosigner_key),
        cosigner_key=credentials.cosigner_key,
        issuing_hash=credentials.issuing_hash,
    )


def _decoded(data: bytes, what: str) -> codec.Value:
    try:
        return codec.decode(data, size_max=limits.EVIDENCE_SIZE_BYTES_MAX)
    except codec.CodecError as error:
        raise MalformedCredentials(f"{what}: {error}") from error
