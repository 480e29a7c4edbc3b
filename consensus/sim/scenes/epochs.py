"""The border of two epochs: sets that nobody decided on, last blocks that nobody certified."""

from dataclasses import replace

from consensus.core.messages import Checkpoint, EpochLink, Message, VoteVector
from consensus.core.types import NO_DIGEST, Epoch, ReplicaIndex
from consensus.core.validators import ValidatorSet
from consensus.sim import membership
from consensus.sim.checker import require
from consensus.sim.liars import Liar, liar_with
from consensus.sim.membership import convince, propose_set
from consensus.sim.node import validator
from consensus.sim.run import HEALING_US_MAX, describe
from consensus.sim.scenes.stage import Staged, opened


def forged_links(liar: Liar, _peer: ReplicaIndex, message: Message) -> list[Message] | None:
    """A set of the liar's making beside a genuine certificate that does not name it."""
    certificate = liar.replica.certificate
    if certificate is None or not liar.bold():
        return None
    liar.count("forged epoch link")
    members = list(range(liar.cluster.members))
    after = ValidatorSet(
        epoch=Epoch(certificate.checkpoint.epoch + 1),
        members=tuple([validator(node) for node in (*members[1:], members[0])]),
    )
    if liar.world.random.random() < 0.5:
        named = replace(certificate.checkpoint, next_set=after.hash)
        certificate = replace(certificate, checkpoint=named)
    return [message, EpochLink(certificate=certificate, validators=after)]


def set_nobody_decided(seed: int) -> None:
    """A liar shows the others how an epoch ended that has not ended."""
    stage = opened(seed, (4, 7), {seed % 4: liar_with(forged_links)})
    stage.pay_for(500, 20)
    stage.run(800)
    entered = [node.replica.committee.epoch for node in stage.honest]
    require(not any(entered), f"epochs {entered} began, nobody decided on a set")
    stage.finish()
    for node in stage.honest:
        convince(stage, node)


def last_block_uncertified(seed: int) -> None:
    """Every node has executed the last block of an epoch, and no certificate of it exists."""
    stage = Staged(seed, (3, 4)[seed % 2], {}, spares=1)
    random = stage.world.random
    for node in stage.nodes:
        node.check_wire = True
    stage.start()
    stage.run(60)
    members = list(range(stage.members))
    propose_set(stage, (*members[1:], stage.members), 1)
    stage.rules.append(
        lambda _source, _target, message: (
            isinstance(message, VoteVector)
            and any(
                isinstance(leaf, Checkpoint) and leaf.next_set != NO_DIGEST
                for leaf in message.leaves
            )
        )
    )
    stage.run(4_000)
    for _ in range(random.randrange(3)):
        stage.crash(random.randrange(stage.members))
        stage.run(random.randrange(50, 300))
    stage.rules.clear()
    payload = stage.pay()
    within = HEALING_US_MAX // 1_000
    require(
        stage.run(within, lambda: membership.converged(stage, payload)),
        f"liveness: not converged {within // 1_000} s after the end of an epoch: {describe(stage)}",
    )
    for node in stage.honest:
        convince(stage, node)
    stage.checker.durable()
