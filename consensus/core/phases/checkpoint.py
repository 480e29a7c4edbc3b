"""CHECKPOINT: every executed block gets a certificate, one vote round later (bft.md 3.5).

The low watermark h is the newest block with a certificate, whoever executed it. A replica whose own
block differs from a certified one stops voting for good. What a block needed to be agreed on is
dropped when a certificate at or above it becomes durable, never after mere execution.
"""

from typing import TYPE_CHECKING

from consensus.core import catch_up, certificates, epochs, evidence, recovery
from consensus.core.effects import Drop, Persist, Vote
from consensus.core.messages import BlockCertificate, Checkpoint, VoteVector
from consensus.core.phases import prepare, propose, view_change
from consensus.core.records import Anchor, ExecutedBlock, Tip
from consensus.core.types import Height, Phase, ReplicaIndex, Sequence
from consensus.limits import AHEAD_BLOCKS_MAX, ANCHOR_BLOCKS, WINDOW_BLOCKS

if TYPE_CHECKING:
    from consensus.core.replica import Replica


def on_checkpoint(
    replica: "Replica", signer: ReplicaIndex, leaf: Checkpoint, vector: VoteVector, index: int
) -> None:
    """Count one CHECKPOINT leaf, also for blocks this replica has not executed yet."""
    height = leaf.height
    if not replica.certified < height <= replica.last_of(AHEAD_BLOCKS_MAX):
        return
    votes = replica.checkpoints.setdefault(height, {})
    known = votes.get(signer)
    if known is not None:
        if known[0] != leaf:
            replica.accuse(
                signer, evidence.of_vote(known[1], known[2]), evidence.of_vote(vector, index)
            )
        return
    votes[signer] = (leaf, vector, index)
    _count(replica, leaf)


def _count(replica: "Replica", leaf: Checkpoint) -> None:
    votes = replica.checkpoints[leaf.height]
    if len(votes) < replica.quorum:
        return
    same = [(who, found, place) for who, (other, found, place) in votes.items() if other == leaf]
    if len(same) >= replica.quorum:
        adopt(replica, certificates.block_certificate(leaf, same, replica.quorum))


def count_own(replica: "Replica") -> None:
    """Count what was cast in an earlier life, when no vote of others will come to be counted with.

    A chain of one may have died between its vote and the certificate that it makes.
    """
    if replica.quorum == 1:
        for height in sorted(replica.checkpoints):
            for leaf, _, _ in list(replica.checkpoints.get(height, {}).values()):
                _count(replica, leaf)


def cast(replica: "Replica") -> None:
    """Vote for every executed block above h that this replica has not voted for."""
    if replica.phase is not Phase.VOTING:
        return
    for height in sorted(replica.uncertified):
        if height > replica.cast_through and height > replica.certified:
            block = replica.uncertified[height]
            replica.cast_through = height
            replica.emit(
                Vote(
                    leaf=Checkpoint(
                        epoch=replica.committee.epoch,
                        height=height,
                        header_hash=block.header_hash,
                        state_root=block.state_root,
                        next_set=epochs.next_set_at(replica, height),
                    )
                )
            )


def agrees(replica: "Replica", block: ExecutedBlock) -> bool:
    """Compare an own block with the certificate of its height, if that is the newest one."""
    certificate = replica.certificate
    if certificate is None or certificate.height != block.height:
        return True
    claim = certificate.checkpoint
    mine = [block.header_hash, block.state_root]
    theirs = [claim.header_hash, claim.state_root]
    if claim.epoch == replica.committee.epoch:
        mine.append(epochs.next_set_at(replica, block.height))
        theirs.append(claim.next_set)
    if mine == theirs:
        replica.confirm(block.height)
        return True
    replica.diverge(
        f"the state after block {block.height} differs from the certified one",
        below=block.height if claim.header_hash == block.header_hash else None,
        block=block,
    )
    return False


def adopt(replica: "Replica", certificate: BlockCertificate) -> None:
    """h moves up: make the certificate durable, drop what it covers, go on above it."""
    height = certificate.height
    if (
        height <= replica.certified
        or replica.is_void(height)
        or certificate.checkpoint.epoch != replica.committee.epoch
    ):
        return
    own = replica.uncertified.get(height)
    window_end = replica.certified + WINDOW_BLOCKS
    replica.certificate = certificate
    replica.certified = height
    replica.next_sequence = max(replica.next_sequence, Sequence(height + 1))
    # Durable also when our state differs, so that the next life halts here again.
    replica.emit(Persist(record=Tip(certificate=certificate)))
    if own is not None and not agrees(replica, own):
        return
    if height == replica.executed and not agrees(replica, replica.tip):
        return
    if height // ANCHOR_BLOCKS > replica.anchor:
        replica.anchor = height // ANCHOR_BLOCKS
        replica.emit(Persist(record=Anchor(certificate=certificate)))
    replica.emit(Drop(through=Height(height)))
    replica.drop_below_floor()
    epochs.certified(replica, certificate)
    epochs.enter_if_due(replica)
    if certificate.checkpoint.epoch != replica.committee.epoch or replica.phase is Phase.HALTED:
        return
    recovery.on_certified(replica)
    catch_up.fetch(replica)
    propose.take_early(replica)
    if any(place > window_end for place in replica.instances):
        prepare.progress_all(replica)
    view_change.rotate(replica)
    propose.propose(replica)
