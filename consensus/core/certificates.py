"""Making certificates out of votes that were counted, and what blocks they can be of.

Decoded certificates were checked by `wire.py` (distinct signers, a quorum of them) and by the
runtime (signatures); nothing is left to check here.
"""

from collections.abc import Iterable

from consensus.core.messages import (
    BlockCertificate,
    Checkpoint,
    PreparedCertificate,
    PrePrepare,
    VoteProof,
    VoteVector,
)
from consensus.core.types import NO_DIGEST, Height, ReplicaIndex
from native.hashing import inclusion_proof, leaf_hash
from native.values import Digest


def vote_proof(vector: VoteVector, index: int) -> VoteProof:
    """One leaf of a vector, made transferable."""
    size = len(vector.encoded)
    path: tuple[Digest, ...] = ()
    if size > 1:
        hashes = b"".join([leaf_hash(leaf) for leaf in vector.encoded])
        path = tuple([Digest(step) for step in inclusion_proof(hashes, index)])
    return VoteProof(
        signer=vector.signer,
        number=vector.number,
        index=index,
        size=size,
        path=path,
        signature=vector.signature,
    )


def prepared_certificate(
    pre_prepare: PrePrepare, votes: Iterable[tuple[ReplicaIndex, VoteVector, int]], needed: int
) -> PreparedCertificate:
    """PRE-PREPARE and PREPAREs of `needed` others; the primary's own PREPARE never counts."""
    chosen = sorted(votes, key=_signer)[:needed]
    return PreparedCertificate(
        pre_prepare=pre_prepare,
        votes=tuple([vote_proof(vector, index) for _, vector, index in chosen]),
    )


def block_certificate(
    checkpoint: Checkpoint, votes: Iterable[tuple[ReplicaIndex, VoteVector, int]], needed: int
) -> BlockCertificate:
    """CHECKPOINT leaves of `needed` replicas for one block."""
    chosen = sorted(votes, key=_signer)[:needed]
    return BlockCertificate(
        checkpoint=checkpoint,
        votes=tuple([vote_proof(vector, index) for _, vector, index in chosen]),
    )


def was_in_epoch(checkpoint: Checkpoint, *, base: Height | None, end: Height | None) -> bool:
    """Whether the block of a CHECKPOINT was one of its epoch; None where a bound is not known.

    The keys of a set stay good for signatures, but an epoch has no block at or below its base, the
    last one of the epoch before. Nor has it one above its end, which alone names the next set.
    """
    height = checkpoint.height
    if base is not None and height <= base:
        return False
    if end is None:
        return True
    return height < end if checkpoint.next_set == NO_DIGEST else height == end


def _signer(vote: tuple[ReplicaIndex, VoteVector, int]) -> int:
    return vote[0]
