"""A Byzantine node: an honest replica inside, and a tongue that splits its messages.

It equivocates as primary (two batches for one place, each half of the cluster gets one, with votes
for both), omits certificates from its VIEW-CHANGEs, forges NEW-VIEWs, and stays silent at times.
Everything it says is signed with its own key, as a real liar could do; it cannot forge others.
"""

from dataclasses import replace
from typing import TYPE_CHECKING

from consensus.core.messages import (
    BatchHeader,
    Checkpoint,
    Commit,
    NewView,
    Prepare,
    PrePrepare,
    ViewChange,
    VoteVector,
    null_batch,
)
from consensus.core.tick import Outgoing
from consensus.core.types import Number, ReplicaIndex
from consensus.sim.node import Node, payload_root, sign
from native.values import Digest

if TYPE_CHECKING:
    from consensus.sim.run import Cluster


class Liar(Node):
    """Never held to the checker's rules."""

    def __init__(self, cluster: "Cluster", index: int) -> None:
        super().__init__(cluster, index)
        self.honest = False
        self.boldness = 0.5
        self._forged: dict[tuple[int, int], PrePrepare] = {}
        self._new_view_lies: dict[int, str] = {}

    def send(self, peer: ReplicaIndex, outgoing: Outgoing) -> None:
        random = self.world.random
        if random.random() < 0.05:
            return
        message = outgoing.message
        other_half = peer % 2 == 1
        if isinstance(message, PrePrepare) and message.signer == self.index:
            forged = self._forge(message)
            if forged is not None and other_half:
                self.world.counters["lies: two batches for one place"] += 1
                self.cluster.carry(self.index, peer, forged, ())
                return
        elif isinstance(message, VoteVector) and message.signer == self.index and other_half:
            bent = self._bend(message)
            self.cluster.carry(self.index, peer, bent, None)
            if bent.leaves == message.leaves or message.number % 4:
                return
            self.world.counters["lies: both votes to one peer"] += 1
        elif (
            isinstance(message, ViewChange)
            and message.signer == self.index
            and random.random() < self.boldness
        ):
            self.world.counters["lies: VIEW-CHANGE without certificates"] += 1
            bare = replace(message, prepared=())
            signed = bare.signed(sign(self.index, bare.signed_bytes(self.cluster.chain_id)))
            self.cluster.carry(self.index, peer, signed, None)
            return
        elif isinstance(message, NewView) and message.proposals and message.signer == self.index:
            self.cluster.carry(self.index, peer, self._bend_new_view(message), None)
            return
        super().send(peer, outgoing)

    def _bend_new_view(self, message: NewView) -> NewView:
        """One lie for each view, the same to everybody: a batch left out, or null in its place."""
        chain_id = self.cluster.chain_id
        if message.view not in self._new_view_lies:
            kind = self.world.random.choice(("short", "null", "null"))
            self._new_view_lies[message.view] = kind
            if kind == "short":
                self.world.counters["lies: NEW-VIEW without its last batch"] += 1
            elif kind == "null":
                self.world.counters["lies: NEW-VIEW with null for a batch"] += 1
        kind = self._new_view_lies[message.view]
        proposals = message.proposals
        if kind == "short":
            proposals = proposals[:-1]
        elif kind == "null":
            first = proposals[0]
            header = null_batch(chain_id, first.epoch, first.sequence)
            null = replace(first, header=header)
            proposals = (null.signed(sign(self.index, null.signed_bytes(chain_id))), *proposals[1:])
        bent = replace(message, proposals=proposals)
        return bent.signed(sign(self.index, bent.signed_bytes(chain_id)))

    def _forge(self, message: PrePrepare) -> PrePrepare | None:
        """The other batch for the same place; decided once for each place."""
        place = (message.view, message.sequence)
        if place in self._forged:
            return self._forged[place]
        if self.world.random.random() >= self.boldness:
            return None
        header = message.header
        other = BatchHeader(
            chain_id=header.chain_id,
            epoch=header.epoch,
            sequence=header.sequence,
            proposed_ms=header.proposed_ms + 1,
            payload_root=payload_root(()),
        )
        forged = replace(message, header=other, number=Number(message.number))
        forged = forged.signed(sign(self.index, forged.signed_bytes(self.cluster.chain_id)))
        self._forged[place] = forged
        return forged

    def _bend(self, vector: VoteVector) -> VoteVector:
        """Votes for the forged batches instead, at once for both phases; wrong checkpoints."""
        leaves: list[Prepare | Commit | Checkpoint] = []
        for leaf in vector.leaves:
            if isinstance(leaf, Checkpoint):
                if self.world.random.random() < self.boldness:
                    self.world.counters["lies: wrong state root"] += 1
                    leaf = replace(leaf, state_root=Digest(bytes(32)))
                leaves.append(leaf)
                continue
            forged = self._forged.get((leaf.view, leaf.sequence))
            leaves.append(leaf if forged is None else replace(leaf, digest=forged.digest))
        for (view, sequence), forged in list(self._forged.items())[-4:]:
            if sequence > self.replica.certified:
                for kind in (Prepare, Commit):
                    leaf = kind(
                        epoch=forged.epoch,
                        view=forged.view,
                        sequence=forged.sequence,
                        digest=forged.digest,
                    )
                    if view >= 0 and leaf not in leaves:
                        leaves.append(leaf)
        bent = replace(vector, leaves=tuple(leaves))
        return bent.signed(sign(self.index, bent.signed_bytes(self.cluster.chain_id)))
