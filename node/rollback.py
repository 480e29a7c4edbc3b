"""Taking back the newest block of a stopped node: its execution, never its agreement.

For a node whose software executed a block wrongly: with other software it executes the same agreed
batch again. What this node has said under its keys must stay true, so it is refused when

- the node has cast a CHECKPOINT vote for the block that no certificate covers yet: executing again
  could make it vote for another result. Below a certificate it never votes again, and follows it;
- the block is certified and there is no other validator: a node fetches what it lacks below a
  certificate from its peers;
- the block carries certificate operations: the node may have cosigned the log that holds them.

The signing record is only read. The state without the block is rebuilt and its root compared before
anything changes, because cache rows may already hold what the block did.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from consensus.core import wire
from consensus.core.messages import EMPTY_ROOT, Checkpoint
from consensus.core.records import OwnVotes, certified_height
from consensus.limits import MESSAGE_BYTES_MAX
from native.batches import Batch
from node.errors import RollbackUnsafe
from node.runtime.executor import open_state
from node.runtime.membership import genesis_set
from node.runtime.store import StateStoreError

if TYPE_CHECKING:
    from node.stopped import StoppedNode


def roll_back(node: StoppedNode) -> int:
    """Undo the newest block and return the height before it; raises `RollbackUnsafe`."""
    from caesar.runtime.application import LedgerApplication
    from caesar.runtime.validators import ValidatorsApplication
    from node.runtime.router import Router
    from trustchain.runtime.application import LogApplication

    height = node.state.height
    if height == 0:
        raise RollbackUnsafe("the node is at genesis", hint="there is no block to take back")
    _refuse_if_voted(node, height)
    _refuse_if_cosigned(node, height)
    if height > 1 and node.state.block(height - 1) is None:
        raise RollbackUnsafe(
            f"block {height - 1} is not held any more",
            hint="move state.db away and start the node: it starts again from its peers",
        )
    genesis = node.genesis

    def check() -> None:
        router = Router(
            [
                LedgerApplication(genesis.chain_id, genesis.ledger),
                LogApplication(genesis.chain_id, genesis.log),
                ValidatorsApplication(
                    genesis.chain_id,
                    genesis_set(genesis).members,
                ),
            ]
        )
        try:
            open_state(router, node.state)
        except StateStoreError as error:
            raise RollbackUnsafe(
                f"the state before block {height} cannot be rebuilt from the files: cache rows "
                f"already hold what the block did ({error.problem})",
                hint="move state.db away and start the node: all blocks are executed again",
            ) from None

    node.state.take_back(check)
    return height - 1


def _refuse_if_voted(node: StoppedNode, height: int) -> None:
    records = node.records()
    if certified_height(records) >= height:
        if len(node.epochs().newest.members) == 1:
            raise RollbackUnsafe(
                f"block {height} is certified and no other validator could give it back",
                hint="move state.db away and start the node: all blocks are executed again",
            )
        return
    for record in records:
        if isinstance(record, OwnVotes):
            for leaf in record.vector.leaves:
                if isinstance(leaf, Checkpoint) and leaf.height >= height:
                    raise RollbackUnsafe(
                        f"this node has voted for the state after block {leaf.height}, and no "
                        "certificate covers that vote yet: it could contradict itself",
                        hint="start the node and stop it once the block is certified (see "
                        "`hypermesh chain head`), or leave the block as it is",
                    )


def _refuse_if_cosigned(node: StoppedNode, height: int) -> None:
    from trustchain.runtime.application import LogApplication

    block = node.state.block(height)
    assert block is not None
    agreed = wire.batch_header(wire.decode_value(block.batch, MESSAGE_BYTES_MAX), node.bounds)
    if agreed.payload_root == EMPTY_ROOT:
        return
    body = node.store.body_now(height, agreed.payload_root)
    tag = LogApplication(node.genesis.chain_id, node.genesis.log).tag
    if body is None or tag in Batch.parse(body).tags:
        what = "is not held" if body is None else "carries certificate operations"
        raise RollbackUnsafe(
            f"the batch of block {height} {what}, and this node may have cosigned the log after it",
            hint="leave the block as it is, or rebuild the node from its peers under a new key",
        )
