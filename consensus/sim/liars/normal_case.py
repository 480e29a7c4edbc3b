"""Tricks with batches and votes: equivocation, votes without a reason, odd batches (bft.md 10)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from consensus.core.messages import (
    EMPTY_ROOT,
    Checkpoint,
    Commit,
    Leaf,
    Message,
    Prepare,
    PrePrepare,
    Status,
    VoteVector,
)
from consensus.core.types import Epoch, Height, Number, ReplicaIndex, Sequence, View
from consensus.limits import WINDOW_BLOCKS
from consensus.sim.liars.trick import noise
from native.values import Digest

if TYPE_CHECKING:
    from consensus.sim.liars.liar import Liar


def equivocates(liar: "Liar", peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Two batches for one place, each half of the cluster gets one, with votes for both."""
    if isinstance(message, PrePrepare) and message.signer == liar.index:
        forged = _forge(liar, message, liar.side(peer))
        if forged is not None:
            liar.count("two batches for one place")
            return [forged]
    elif isinstance(message, VoteVector) and message.signer == liar.index and liar.side(peer):
        bent = _bent_votes(liar, message, liar.side(peer))
        if bent.leaves == message.leaves or message.number % 4:
            return [bent]
        liar.count("both votes to one peer")
        return [bent, message]
    return None


def equivocates_to_each(liar: "Liar", peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Another batch for every receiver."""
    if isinstance(message, PrePrepare) and message.signer == liar.index:
        forged = _forge(liar, message, peer + 1)
        if forged is not None:
            liar.count("another batch for each")
            return [forged]
    return None


def equivocates_to_f(liar: "Liar", peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """f nodes get one batch, the rest another."""
    if isinstance(message, PrePrepare) and message.signer == liar.index and peer == 1:
        forged = _forge(liar, message, 1)
        if forged is not None:
            liar.count("another batch for f of them")
            return [forged]
    return None


def _forge(liar: "Liar", message: PrePrepare, story: int) -> PrePrepare | None:
    """The other batch for the same place; decided once for each place and story."""
    if not story:
        return None
    place = (message.view, message.sequence, story)
    if place in liar.forged:
        return liar.forged[place]
    if not liar.bold():
        return None
    header = replace(
        message.header,
        proposed_ms=message.header.proposed_ms + story,
        payload_root=EMPTY_ROOT,
    )
    forged = liar.sealed(replace(message, header=header, number=Number(message.number)))
    liar.forged[place] = forged
    return forged


def _bent_votes(liar: "Liar", vector: VoteVector, story: int) -> VoteVector:
    """Votes for the forged batches instead, at once for both phases."""
    leaves: list[Leaf] = []
    for leaf in vector.leaves:
        forged = None
        if not isinstance(leaf, Checkpoint):
            forged = liar.forged.get((leaf.view, leaf.sequence, story))
        if forged is None or isinstance(leaf, Checkpoint):
            leaves.append(leaf)
        else:
            leaves.append(replace(leaf, digest=forged.digest))
    for (_, sequence, told), forged in list(liar.forged.items())[-4:]:
        if sequence > liar.replica.certified and told == story:
            for kind in (Prepare, Commit):
                vote = kind(
                    epoch=forged.epoch,
                    view=forged.view,
                    sequence=forged.sequence,
                    digest=forged.digest,
                )
                if vote not in leaves:
                    leaves.append(vote)
    return liar.sealed(replace(vector, leaves=tuple(leaves)))


def votes_too_much(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Double PREPAREs, COMMITs without a certificate, votes for what nobody proposed."""
    if not isinstance(message, VoteVector) or message.signer != liar.index or not liar.bold():
        return None
    random = liar.world.random
    more: list[Leaf] = []
    for leaf in message.leaves:
        if isinstance(leaf, Prepare):
            more.append(
                Commit(epoch=leaf.epoch, view=leaf.view, sequence=leaf.sequence, digest=leaf.digest)
            )
            if random.random() < 0.5:
                liar.count("double PREPARE")
                more.append(replace(leaf, digest=noise(random)))
        elif isinstance(leaf, Commit):
            more.append(replace(leaf, sequence=Sequence(leaf.sequence + 1), digest=noise(random)))
    if not more:
        return None
    liar.count("votes without a reason")
    return [liar.sealed(replace(message, leaves=(*message.leaves, *more)))]


def votes_far_ahead(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Votes and batches for places and views nobody will reach."""
    if not isinstance(message, VoteVector | Status):
        return None
    random = liar.world.random
    replica = liar.replica
    leaves: list[Leaf] = []
    for _ in range(80):
        sequence = Sequence(
            replica.executed + random.choice((60, 130, 1_000, 2**40)) + random.randrange(900)
        )
        view = View(replica.view + random.choice((0, 1, 7, 2**30)))
        kind = random.choice((Prepare, Commit))
        leaves.append(kind(epoch=Epoch(0), view=view, sequence=sequence, digest=noise(random)))
        leaves.append(
            Checkpoint(
                epoch=Epoch(0),
                height=Height(sequence),
                header_hash=noise(random),
                state_root=noise(random),
            )
        )
    liar.count("votes far ahead")
    vector = VoteVector(
        epoch=Epoch(0),
        signer=liar.index,
        number=Number(replica.last_number + 1),
        leaves=tuple(leaves),
    )
    return [message, liar.sealed(vector)]


def bad_batches(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Batches of the past and of the future, batches again, batches at the top of the window."""
    if not isinstance(message, PrePrepare) or message.signer != liar.index or not liar.bold():
        return None
    random = liar.world.random
    header = message.header
    kind = random.choice(("stale", "future", "far future", "again", "jump", "unknown body"))
    liar.count(f"batch, {kind}")
    match kind:
        case "stale":
            header = replace(header, proposed_ms=max(0, header.proposed_ms - 60_000))
        case "future":
            header = replace(header, proposed_ms=header.proposed_ms + 2_000)
        case "far future":
            header = replace(header, proposed_ms=2**62)
        case "again":
            root = random.choice(list(liar.bodies))
            header = replace(header, payload_root=root)
        case "jump":
            top = Sequence(liar.replica.certified + WINDOW_BLOCKS)
            return [message, liar.sealed(replace(message, header=replace(header, sequence=top)))]
        case _:
            header = replace(header, payload_root=noise(random))
    return [liar.sealed(replace(message, header=header))]


def proposes_again(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Every third batch is one that was executed before; everybody is told the same."""
    if not isinstance(message, PrePrepare) or message.signer != liar.index or message.sequence % 3:
        return None
    old = [stored.batch.payload_root for stored in liar.disk.blocks if stored.payloads]
    if not old:
        return None
    liar.count("an executed batch again")
    header = replace(message.header, payload_root=old[0])
    return [liar.sealed(replace(message, header=header))]


def wrong_roots(liar: "Liar", peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """CHECKPOINTs with a wrong root, the same to all or another to each."""
    if not isinstance(message, VoteVector) or message.signer != liar.index or not liar.bold():
        return None
    root = Digest(bytes([peer + 1]) * 32) if liar.world.random.random() < 0.5 else Digest(bytes(32))
    leaves = tuple(
        [
            replace(leaf, state_root=root) if isinstance(leaf, Checkpoint) else leaf
            for leaf in message.leaves
        ]
    )
    if leaves == message.leaves:
        return None
    liar.count("wrong state root")
    return [liar.sealed(replace(message, leaves=leaves))]
