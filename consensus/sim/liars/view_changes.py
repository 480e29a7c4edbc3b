"""Tricks with VIEW-CHANGE and NEW-VIEW (bft.md 10)."""

from dataclasses import replace
from typing import TYPE_CHECKING

from consensus.core.messages import Message, NewView, Status, ViewChange, VoteVector, null_batch
from consensus.core.types import Epoch, Number, ReplicaIndex, View

if TYPE_CHECKING:
    from consensus.sim.liars.liar import Liar


def bare_view_change(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    if not isinstance(message, ViewChange) or message.signer != liar.index or not liar.bold():
        return None
    liar.count("VIEW-CHANGE without certificates")
    return [liar.sealed(replace(message, prepared=()))]


def odd_view_change(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """Stale, doubled, of another epoch, lower, without certificates, or much too large."""
    if not isinstance(message, ViewChange) or message.signer != liar.index or not liar.bold():
        return None
    random = liar.world.random
    kind = random.choice(("stale", "two", "epoch", "lower", "holes", "huge"))
    liar.count(f"VIEW-CHANGE, {kind}")
    match kind:
        case "stale":
            odd = replace(message, view=View(max(0, message.view - 1)))
        case "two":
            return [message, liar.sealed(replace(message, prepared=message.prepared[1:]))]
        case "epoch":
            odd = replace(message, epoch=Epoch(message.epoch + 1))
        case "lower":
            odd = replace(message, certificate=None)
        case "holes":
            odd = replace(message, prepared=message.prepared[::2])
        case _:
            odd = replace(message, prepared=message.prepared * 70)
    return [liar.sealed(odd)]


def floods_views(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """VIEW-CHANGEs for ever higher views."""
    if not isinstance(message, VoteVector | Status) or not liar.bold():
        return None
    replica = liar.replica
    liar.count("view numbers far ahead")
    step = liar.world.random.choice((1, 2, 100, 10**6))
    flood = ViewChange(
        epoch=Epoch(0),
        view=View(replica.view + step),
        signer=liar.index,
        number=Number(replica.last_number + liar.world.random.randrange(1, 1_000)),
        certificate=replica.certificate,
        prepared=(),
    )
    return [message, liar.sealed(flood)]


def bent_new_view(liar: "Liar", _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """One lie for each view, the same to everybody: a batch left out, or null in its place."""
    if not isinstance(message, NewView) or not message.proposals or message.signer != liar.index:
        return None
    if message.view not in liar.new_view_lies:
        kind = liar.world.random.choice(("short", "null", "null", "other"))
        liar.new_view_lies[message.view] = kind
        match kind:
            case "short":
                liar.count("NEW-VIEW without its last batch")
            case "null":
                liar.count("NEW-VIEW with null for a batch")
            case _:
                liar.count("NEW-VIEW with another batch")
    proposals = message.proposals
    first = proposals[0]
    match liar.new_view_lies[message.view]:
        case "short":
            proposals = proposals[:-1]
        case "null":
            header = null_batch(liar.cluster.chain_id, first.epoch, first.sequence)
            proposals = (liar.sealed(replace(first, header=header)), *proposals[1:])
        case _:
            header = replace(first.header, proposed_ms=first.header.proposed_ms + 1)
            proposals = (liar.sealed(replace(first, header=header)), *proposals[1:])
    return [liar.sealed(replace(message, proposals=proposals))]


def odd_new_view(liar: "Liar", peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """V of another view, V too small, or a good one that only half of them get."""
    if not isinstance(message, NewView) or message.signer != liar.index:
        return None
    kind = ("stale V", "Q - 1", "to half")[message.view % 3]
    liar.count(f"NEW-VIEW, {kind}")
    if kind == "to half":
        return [] if liar.side(peer) else None
    changes = message.view_changes
    if kind == "Q - 1":
        changes = changes[:-1]
    else:
        old = replace(changes[0], view=View(max(0, message.view - 1)))
        changes = (liar.sealed(old) if old.signer == liar.index else old, *changes[1:])
    return [liar.sealed(replace(message, view_changes=changes))]
