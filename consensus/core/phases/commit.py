"""COMMIT and execution: committed batches become blocks, strictly in order (bft.md 3.2, 3.10).

Committed = prepared here, and COMMIT leaves of Q replicas in the same view. What is committed stays
so through every view change. A block is handed out only when its predecessor has been reported as
executed, and at once only when our own COMMIT (and with it the prepared certificate) is durable.
Certified blocks that were fetched are handed out several at a time, always in their order.
"""

from typing import TYPE_CHECKING

from consensus.core import catch_up, custody, epochs, recovery, transfer
from consensus.core.effects import Execute, Persist
from consensus.core.inputs import Executed
from consensus.core.instance import Ballot, Instance
from consensus.core.messages import BatchHeader, BlockHeader, Commit, PrePrepare, VoteVector
from consensus.core.phases import checkpoint, prepare, propose
from consensus.core.records import Agreed, ExecutedBlock
from consensus.core.types import NOBODY, Height, Phase, ReplicaIndex, Sequence
from consensus.errors import invariant
from consensus.limits import EXECUTE_AHEAD_BLOCKS_MAX, IN_FLIGHT_BLOCKS_MAX

if TYPE_CHECKING:
    from consensus.core.replica import Replica


def on_commit(
    replica: "Replica", signer: ReplicaIndex, leaf: Commit, vector: VoteVector, index: int
) -> Instance | None:
    """Count one COMMIT; the instance if it may move now."""
    view = leaf.view
    if view < replica.view:
        replica.votes_late += 1
        return None
    instance = replica.instance(leaf.sequence)
    if instance is None:
        return None
    ballot = Ballot(view, leaf.digest, vector, index)
    if view > replica.view:
        kept = instance.later_commits.get(signer)
        if kept is None or kept.view < view:
            instance.later_commits[signer] = ballot
        elif kept.view == view and kept.digest != leaf.digest:
            prepare.accuse(replica, signer, kept, ballot)
        return None
    counted = instance.commits.get(signer)
    if counted is not None:
        if counted.digest != leaf.digest:
            prepare.accuse(replica, signer, counted, ballot)
        return None
    instance.commits[signer] = ballot
    return instance if instance.prepared else None


def progress(replica: "Replica", instance: Instance, accepted: PrePrepare) -> None:
    """PREPARED to COMMITTED."""
    mask = instance.voters(instance.commits, accepted.digest)
    if mask.bit_count() < replica.quorum:
        return
    instance.committed = True
    if instance.batch is None:
        instance.batch = accepted.header
        if instance.sequence == replica.executed + 1:
            execute_next(replica)
    else:
        invariant(instance.batch.digest == accepted.digest, "two batches committed at one place")


def execute_next(replica: "Replica") -> None:
    """Hand out the next block if what it needs is here and nothing is being executed."""
    if replica.transfer.restoring:
        return
    if replica.executing is not None:
        _execute_ahead(replica)
        return
    height = replica.executed + 1
    if replica.is_void(height):
        return  # void: agreed on beyond the end of its epoch
    instance = replica.instances.get(height)
    fetched = replica.fetched.get(height)
    batch: BatchHeader
    if fetched is not None:
        batch = fetched[1]
    elif instance is not None and instance.batch is not None:
        batch = instance.batch
    else:
        return
    if not replica.holds(batch.payload_root):
        catch_up.want_body(replica, batch.payload_root)
        return
    parent = replica.tip
    header = header_above(parent, batch)
    if fetched is not None and fetched[0].hash != header.hash:
        replica.diverge(f"block {height} of this node differs from the certified one")
        return
    if fetched is not None:
        replica.confirm(parent.height)
    committed = instance is not None and instance.batch is not None
    at_once = committed and instance is not None and replica.me in instance.commits
    if instance is not None:
        instance.batch = batch
    replica.executing = (header, batch)
    replica.emit(Execute(header=header, batch=batch, after_persist=not at_once))
    _execute_ahead(replica)


def header_above(parent: ExecutedBlock, batch: BatchHeader) -> BlockHeader:
    """The header of the block that execution makes of a batch after its parent."""
    return BlockHeader(
        chain_id=batch.chain_id,
        height=Height(parent.height + 1),
        epoch=batch.epoch,
        parent=parent.header_hash,
        batch=batch.digest,
        time_ms=max(parent.time_ms + 1, batch.proposed_ms),
        state_root=parent.state_root,
    )


def _execute_ahead(replica: "Replica") -> None:
    """Hand out certified blocks behind the one that is executed: their headers are known.

    One turn and one tick then serve many blocks. Otherwise a replica that is behind needs as long
    for a block as those that agree on it, and never reaches them while there is load.
    """
    ahead = replica.executing_after
    if replica.executing is None or len(ahead) > EXECUTE_AHEAD_BLOCKS_MAX // 2:
        return
    if transfer.complete(replica):
        return  # the state is taken over as soon as nothing is executed
    newest = ahead[-1][0] if ahead else replica.executing[0]
    while len(ahead) < EXECUTE_AHEAD_BLOCKS_MAX:
        fetched = replica.fetched.get(newest.height + 1)
        if fetched is None or not replica.holds(fetched[1].payload_root):
            return
        header, batch = fetched
        if header.parent != newest.hash:
            return  # what is executed now is compared with its certificate first
        instance = replica.instances.get(header.height)
        if instance is not None:
            instance.batch = batch
        ahead.append(fetched)
        replica.emit(Execute(header=header, batch=batch, after_persist=True))
        newest = header


def on_executed(replica: "Replica", executed: Executed) -> None:
    """A block was executed, and its transaction in `state.db` is over."""
    invariant(replica.executing is not None, "only what was handed out is executed")
    assert replica.executing is not None
    header, batch = replica.executing
    invariant(
        header.height == executed.height and header.hash == executed.header_hash,
        "the executed block is the one handed out",
    )
    ahead = replica.executing_after
    replica.executing = ahead.popleft() if ahead else None
    now = replica.now.monotonic_us
    block = ExecutedBlock(
        height=header.height,
        header_hash=header.hash,
        time_ms=header.time_ms,
        state_root=executed.state_root,
        next_validators=executed.next_validators,
    )
    replica.tip = block
    replica.executed_us = now
    was_fetched = replica.fetched.pop(header.height, None) is not None
    replica.next_sequence = max(replica.next_sequence, Sequence(header.height + 1))
    epochs.decided(replica, header.epoch, block)
    if replica.phase is Phase.HALTED or not checkpoint.agrees(replica, block):
        return
    if replica.executing is not None and replica.executing[0].state_root != block.state_root:
        replica.diverge(
            f"the state after block {block.height} differs from the certified one",
            below=block.height,
        )
        return
    if header.height > replica.certified:
        replica.uncertified[header.height] = block
    if replica.me != NOBODY:
        # Durable with our CHECKPOINT vote or before it, so no certificate rests on `state.db`.
        replica.emit(Persist(record=Agreed(header=batch)))
    if header.height == replica.behind_through and replica.phase is Phase.VOTING:
        recovery.take_part(replica)
    instance = replica.instances.get(header.height)
    if instance is not None and instance.committed:
        custody.on_block(replica, instance.accepted_us)
        if not instance.reproposed:
            replica.crowded = executed.full
    custody.judge_batch(replica, executed.payloads, executed.malformed)
    checkpoint.cast(replica)
    if header.height <= replica.certified:
        if was_fetched and instance is None:
            replica.release_bodies({batch.payload_root})
        replica.drop_below_floor()
    transfer.finish(replica)
    execute_next(replica)
    catch_up.fetch(replica)
    waiting = replica.instances.get(header.height + IN_FLIGHT_BLOCKS_MAX)
    if waiting is not None:
        prepare.progress(replica, waiting)
    propose.propose(replica)
    custody.arm(replica)
    epochs.enter_if_due(replica)


def go_on(replica: "Replica") -> None:
    """The state is another one: execute and fetch what follows it."""
    execute_next(replica)
    catch_up.fetch(replica)
    custody.arm(replica)
