"""A light client: headers checked from genesis with certificates only (bft.md S12, row F1).

A `LightClient` holds one value, the validator set of the newest epoch it has reached, and trusts
nothing else: no node, no clock. A `Lineage` keeps the client of every epoch, for who audits blocks
of all of them. A block is accepted when Q of that set signed a CHECKPOINT leaf for it, or when
it is an ancestor of such a block by parent header hashes. `advance` moves to the next epoch with
the old quorum's certificate of the block that names the next set by its hash (bft.md 3.8).

It is not protected against a set that lost its keys long ago: whoever holds Q old keys can sign
another future. A client that has been away for long compares the newest height it trusts.

Every check raises `ProofInvalid`; none returns a verdict that could be forgotten.
"""

from collections.abc import Callable, Iterable
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from consensus.core import wire
from consensus.core.certificates import was_in_epoch
from consensus.core.messages import (
    BlockCertificate,
    BlockHeader,
    EpochLink,
    SignatureJob,
    path_length,
)
from consensus.core.quorum import quorum
from consensus.core.types import NO_DIGEST, Height
from consensus.core.validators import ValidatorSet
from consensus.errors import MalformedMessage, ProofInvalid
from consensus.limits import (
    HEADER_PROOF_SIZE_BYTES_MAX,
    HEADERS_PER_REPLY_MAX,
    LEAVES_PER_VECTOR_MAX,
    LINKS_MAX,
    LINKS_SIZE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
)
from native import FalconVerifier, verify_many
from native.codec import encode
from native.errors import NativeError
from native.values import Digest

PROOF_VERSION: Final = 1
FIRST_HEIGHT: Final = Height(1)

Check = Callable[[Seq[SignatureJob]], bytes]
"""One byte a job, 1 where the signature holds. A signer is an index into one validator set."""


def falcon_check(validators: ValidatorSet) -> Check:
    """The check of a real chain; raises `ProofInvalid` for a set with a key that is no Falcon."""
    try:
        verifiers = [FalconVerifier(member.key.raw) for member in validators.members]
    except NativeError as error:
        raise ProofInvalid(f"a validator's key cannot be used: {error}") from None

    def check(jobs: Seq[SignatureJob]) -> bytes:
        return verify_many([(verifiers[signer], signed, mark) for signer, signed, mark in jobs])

    return check


@dataclass(frozen=True, slots=True, kw_only=True)
class HeaderProof:
    """A header and what proves it: the headers above it up to a certified one.

    `headers` rise without a gap; the first is the one that is proved, the last is certified.
    """

    headers: tuple[BlockHeader, ...]
    certificate: BlockCertificate

    def encode(self) -> bytes:
        """Canonical bytes for wire and file."""
        return encode(
            (
                PROOF_VERSION,
                tuple([header.value() for header in self.headers]),
                self.certificate.value(),
            )
        )


def decode_header_proof(data: bytes, bounds: wire.Bounds) -> HeaderProof:
    """Decode without checking; raises `ProofInvalid`."""
    try:
        version, headers, certificate = wire.fields(
            wire.decode_value(data, HEADER_PROOF_SIZE_BYTES_MAX), 3
        )
        if wire.number(version) != PROOF_VERSION:
            raise MalformedMessage("written by another version")
        return HeaderProof(
            headers=tuple(
                [
                    wire.block_header(entry, bounds)
                    for entry in wire.rows(headers, HEADERS_PER_REPLY_MAX, 1)
                ]
            ),
            certificate=wire.block_certificate(certificate, bounds),
        )
    except MalformedMessage as error:
        raise ProofInvalid(f"not a proof of a header of this chain: {error}") from None


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustedBlock:
    """A block that a quorum executed."""

    header: BlockHeader
    state_root: Digest  # after the block


@dataclass(frozen=True, slots=True, kw_only=True)
class LightClient:
    """What is trusted: a chain, the validator set of one epoch, and that epoch's first height."""

    chain_id: Digest
    validators: ValidatorSet
    first: Height = FIRST_HEIGHT
    check: Check

    @classmethod
    def at_genesis(cls, chain_id: Digest, validators: ValidatorSet) -> "LightClient":
        """Begin with the keys that genesis names."""
        return cls(chain_id=chain_id, validators=validators, check=falcon_check(validators))

    def verify_certificate(self, certificate: BlockCertificate) -> None:
        """Q distinct members of the trusted set signed this CHECKPOINT; else `ProofInvalid`."""
        checkpoint = certificate.checkpoint
        if checkpoint.epoch != self.validators.epoch:
            raise ProofInvalid(
                f"the certificate is of epoch {checkpoint.epoch}, trusted is epoch "
                f"{self.validators.epoch}"
            )
        if not was_in_epoch(checkpoint, base=Height(self.first - 1), end=None):
            raise ProofInvalid(
                f"a certificate of epoch {checkpoint.epoch} for block {checkpoint.height}, but "
                f"that epoch begins at block {self.first}"
            )
        members = len(self.validators.members)
        needed = quorum(members)
        seen: set[int] = set()
        for vote in certificate.votes:
            if not 0 <= vote.signer < members or vote.signer in seen:
                raise ProofInvalid(f"the certificate counts signer {vote.signer} twice or wrongly")
            seen.add(vote.signer)
            if not 0 <= vote.index < vote.size <= LEAVES_PER_VECTOR_MAX or len(
                vote.path
            ) != path_length(vote.index, vote.size):
                raise ProofInvalid(f"the vote of signer {vote.signer} has a path of another shape")
        if len(seen) < needed:
            raise ProofInvalid(f"{len(seen)} signers, a quorum is {needed} of {members}")
        jobs = [vote.job(self.chain_id, checkpoint) for vote in certificate.votes]
        for vote, valid in zip(certificate.votes, self.check(jobs), strict=True):
            if not valid:
                raise ProofInvalid(f"the signature of signer {vote.signer} is not valid")

    def verify_header(self, proof: HeaderProof) -> TrustedBlock:
        """The first header of the proof is of an agreed block; else `ProofInvalid`.

        Ancestors may be of earlier epochs: the certified block commits to them by their hashes.
        """
        headers, checkpoint = proof.headers, proof.certificate.checkpoint
        if not 1 <= len(headers) <= HEADERS_PER_REPLY_MAX:
            raise ProofInvalid(f"{len(headers)} headers; 1 to {HEADERS_PER_REPLY_MAX} are allowed")
        last = headers[-1]
        if (last.height, last.epoch) != (checkpoint.height, checkpoint.epoch):
            raise ProofInvalid("the certificate is of another height than the last header")
        for header, above in pairwise(headers):
            if above.height != header.height + 1 or above.parent != header.hash:
                raise ProofInvalid(f"block {above.height} does not follow block {header.height}")
        if headers[0].height < 1 or any(header.chain_id != self.chain_id for header in headers):
            raise ProofInvalid("a header of another chain, or of no block")
        if last.hash != checkpoint.header_hash:
            raise ProofInvalid("the certificate is of another block than the last header")
        self.verify_certificate(proof.certificate)
        after = checkpoint.state_root if len(headers) == 1 else headers[1].state_root
        return TrustedBlock(header=headers[0], state_root=after)

    def advance(
        self,
        certificate: BlockCertificate,
        validators: ValidatorSet,
        check: Callable[[ValidatorSet], Check] = falcon_check,
    ) -> "LightClient":
        """Trust the next epoch: the old quorum certified the block that names its set.

        The set is checked against the hash, so it may come from anybody. Certificates of the new
        epoch at or below that block are refused from then on, and so is the old epoch as a whole.
        """
        self.verify_certificate(certificate)
        named = certificate.checkpoint.next_set
        if named == NO_DIGEST:
            raise ProofInvalid(f"block {certificate.height} does not end its epoch")
        if validators.hash != named:
            raise ProofInvalid(f"block {certificate.height} names another validator set")
        if validators.epoch != self.validators.epoch + 1 or not validators.members:
            raise ProofInvalid(
                f"the set is of epoch {validators.epoch}, next is {self.validators.epoch + 1}"
            )
        return LightClient(
            chain_id=self.chain_id,
            validators=validators,
            first=Height(certificate.height + 1),
            check=check(validators),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Lineage:
    """A client for every epoch from genesis on, each proven by the link from the one before.

    An epoch whose end is known has no certificate above its last block, which alone names a set.
    """

    clients: tuple[LightClient, ...]
    links: tuple[EpochLink, ...] = ()

    @classmethod
    def at_genesis(cls, chain_id: Digest, validators: ValidatorSet) -> "Lineage":
        """Begin with the keys that genesis names."""
        return cls(clients=(LightClient.at_genesis(chain_id, validators),))

    @property
    def newest(self) -> LightClient:
        """The client of the last epoch that is proven."""
        return self.clients[-1]

    @property
    def bounds(self) -> wire.Bounds:
        """What a decoder must know of this chain; epochs that are not proven yet are refused."""
        sizes = [len(client.validators.members) for client in self.clients]
        return wire.Bounds(
            chain_id=self.newest.chain_id, members=sizes[-1], earlier=tuple(sizes[:-1])
        )

    def through(self, epoch: int) -> "Lineage":
        """As far as one epoch and no further."""
        return Lineage(clients=self.clients[: epoch + 1], links=self.links[:epoch])

    def followed(self, links: Iterable[EpochLink]) -> "Lineage":
        """With the epochs that these links prove, one after another; else `ProofInvalid`."""
        lineage = self
        for link in links:
            client = lineage.newest.advance(link.certificate, link.validators)
            lineage = Lineage(clients=(*lineage.clients, client), links=(*lineage.links, link))
        return lineage

    def decoded(self, rows: Iterable[bytes]) -> "Lineage":
        """With the epochs of encoded links; else `ProofInvalid`. Each needs the set before it."""
        lineage = self
        for data in rows:
            try:
                link = wire.epoch_link(wire.decode_value(data, MESSAGE_BYTES_MAX), lineage.bounds)
            except MalformedMessage as error:
                raise ProofInvalid(
                    f"not the link to epoch {len(lineage.clients)}: {error}"
                ) from None
            lineage = lineage.followed([link])
        return lineage

    def client_of(self, certificate: BlockCertificate) -> LightClient:
        """Who can check a certificate; `ProofInvalid` if its epoch is unknown or was over."""
        checkpoint = certificate.checkpoint
        epoch = int(checkpoint.epoch)
        if epoch >= len(self.clients):
            raise ProofInvalid(
                f"the certificate is of epoch {epoch}, proven is epoch {len(self.links)}"
            )
        if epoch < len(self.links):
            end = self.links[epoch].base
            if not was_in_epoch(checkpoint, base=None, end=end):
                raise ProofInvalid(
                    f"a certificate of epoch {epoch} for block {checkpoint.height}, but that epoch "
                    f"ends with block {end}, and only that one names a set"
                )
            ended = self.links[epoch].certificate.checkpoint
            if checkpoint.height == end and checkpoint != ended:
                raise ProofInvalid(
                    f"another certificate for block {end} than the one that ended epoch {epoch}"
                )
        return self.clients[epoch]

    def verify_certificate(self, certificate: BlockCertificate) -> None:
        """As `LightClient.verify_certificate`, in any epoch that is proven."""
        self.client_of(certificate).verify_certificate(certificate)

    def verify_header(self, proof: HeaderProof) -> TrustedBlock:
        """As `LightClient.verify_header`, in any epoch that is proven."""
        return self.client_of(proof.certificate).verify_header(proof)


def encode_links(links: Iterable[EpochLink]) -> bytes:
    """Canonical bytes of the links from genesis on, for a file."""
    return encode(tuple([encode(link.value()) for link in links]))


def decode_links(data: bytes) -> tuple[bytes, ...]:
    """The links of a file, each still encoded (see `Lineage.decoded`); raises `ProofInvalid`."""
    links = []
    try:
        for row in wire.rows(wire.decode_value(data, LINKS_SIZE_BYTES_MAX), LINKS_MAX):
            if not isinstance(row, bytes):
                raise MalformedMessage("expected bytes")
            links.append(row)
    except MalformedMessage as error:
        raise ProofInvalid(f"not the links of a chain: {error}") from None
    return tuple(links)
