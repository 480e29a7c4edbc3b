"""Tricks with certificates in which only the liar has voted (bft.md 10).

It signs with its own key only, so what it forges has too few signers, or one of them twice.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockCertificate,
    Blocks,
    Checkpoint,
    Leaf,
    Message,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    RecoveryAnswer,
    Status,
    ViewChange,
    VoteProof,
    VoteVector,
)
from consensus.core.types import Epoch, Height, Number, ReplicaIndex, Sequence, View
from consensus.sim.liars.trick import noise

if TYPE_CHECKING:
    from consensus.sim.liars.liar import Liar


def forged_certificates(
    liar: "Liar", _peer: ReplicaIndex, message: Message
) -> list[Message] | None:
    """A VIEW-CHANGE with a prepared certificate in which only this node has voted."""
    if not isinstance(message, ViewChange) or message.signer != liar.index:
        return None
    members = liar.cluster.members
    leads = [view for view in range(message.view) if view % members == liar.index]
    base = message.height
    view = View(leads[-1] if leads else max(0, message.view - 1))
    signer = ReplicaIndex(view % members)
    entries: list[PreparedCertificate] = []
    for sequence in range(base + 1, base + 1 + liar.world.random.randint(1, 4)):
        kind = liar.world.random.choice(("short", "double", "of another view"))
        header = BatchHeader(
            chain_id=liar.cluster.chain_id,
            epoch=message.epoch,
            sequence=Sequence(sequence),
            proposed_ms=liar.now().unix_ms,
            payload_root=EMPTY_ROOT,
        )
        proposal = PrePrepare(
            view=view, signer=signer, number=Number(message.number + sequence), header=header
        )
        leaf = Prepare(
            epoch=message.epoch,
            view=view if kind != "of another view" else View(view + 1),
            sequence=proposal.sequence,
            digest=proposal.digest,
        )
        vote = _own_proof(liar, leaf, Number(message.number + 100 + sequence))
        count = 1 if kind == "short" else liar.replica.quorum - 1
        entries.append(
            PreparedCertificate(pre_prepare=liar.sealed(proposal), votes=(vote,) * count)
        )
        liar.count(f"forged certificate, {kind}")
    return [liar.sealed(replace(message, prepared=tuple(entries)))]


def forged_tip(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """STATUS, answers and blocks with a block certificate that only this node has signed."""
    if not isinstance(message, Status | RecoveryAnswer | Blocks) or not liar.bold():
        return None
    random = liar.world.random
    leaf = Checkpoint(
        epoch=Epoch(0),
        height=Height(liar.replica.certified + random.choice((1, 1, 2, 40))),
        header_hash=noise(random),
        state_root=noise(random),
    )
    vote = _own_proof(liar, leaf, Number(liar.replica.last_number + 1))
    count = random.choice((1, liar.replica.quorum - 1, liar.replica.quorum))
    liar.count("forged block certificate")
    forged = BlockCertificate(checkpoint=leaf, votes=(vote,) * count)
    return [replace(message, certificate=forged)]


def _own_proof(liar: "Liar", leaf: Leaf, number: Number) -> VoteProof:
    vector = liar.sealed(
        VoteVector(epoch=leaf.epoch, signer=liar.index, number=number, leaves=(leaf,))
    )
    return VoteProof(
        signer=liar.index, number=number, index=0, size=1, path=(), signature=vector.signature
    )
