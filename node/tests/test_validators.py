"""The registry inside a node: routed, stored, replayed, asked, fed with what the core proves."""
# ruff: noqa: ARG001  pytest-trio finds the virtual clock among the arguments of a test

from __future__ import annotations

from pathlib import Path

import pytest
import trio
import trio.testing

from caesar.core.changes import decode_validator_payload
from caesar.core.transactions import SENDER_AT
from caesar.core.validators import Verdict
from caesar.runtime.application import LedgerApplication
from caesar.runtime.validators import ValidatorsApplication
from caesar.tests.validator_worlds import RegistryWorld, key, lie, node, nodes
from caesar.tests.worlds import CHAIN, genesis, pay
from consensus.application import Block
from consensus.core.replica import genesis_block
from native.batches import Batch
from native.codec import encode
from node.limits import ACCUSATIONS_WAITING_MAX, ACCUSE_INTERVAL_S
from node.runtime.accuser import Accuser
from node.runtime.api import Outcome, Submission, Unavailable
from node.runtime.executor import all_rows, open_state
from node.runtime.membership import decision
from node.runtime.receipts import find_receipt, pack_receipts
from node.runtime.router import Router
from node.runtime.service import validators_view
from node.runtime.store import StateStore, StoredBlock

# --- routed, stored, replayed


def router() -> tuple[Router, ValidatorsApplication]:
    registry = ValidatorsApplication(CHAIN, nodes(7))
    return Router([registry, LedgerApplication(CHAIN, genesis())]), registry


def blocks() -> list[Block]:
    """A lie, a removal by proof, a rotation, payments in between."""
    net = RegistryWorld(nodes(7))
    net.skip(2)
    net.execute(pay(sequence=0), net.accuse("n3"), b"\x03rubbish")
    net.settle()
    net.execute(net.sign(net.change(rotations=[node("n1", "k1")])), pay(sequence=1))
    net.settle()
    net.execute(pay(sequence=2))
    return net.blocks


BLOCKS = blocks()


def test_a_restart_anywhere_ends_in_the_same_state_root(tmp_path: Path) -> None:
    """Executed through, or reopened from rows and deltas at every 13th block: one root."""
    straight, _ = router()
    straight.genesis()
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    running, registry = router()
    assert open_state(running, store) == straight.state_root
    for block in BLOCKS:
        expected = straight.execute(block)
        outcome = running.execute(block)
        assert outcome == expected
        height = int(block.header.height)
        rows = [(registry.tag, list(registry.rows(0, 9)))] if height % 29 == 0 else []
        store.write(
            StoredBlock(
                height=height,
                header=encode(block.header.value()),
                batch=b"b",
                state_root=outcome.state_root,
                receipts=pack_receipts(outcome.executed),
            ),
            outcome.deltas,
            rows,
        )
        if height % 13 == 0:
            store.close()
            store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
            running, registry = router()
            assert open_state(running, store) == outcome.state_root
    store.close()
    assert registry.statistics().epoch == 2


def test_the_router_hands_on_the_next_set_and_the_outcome_of_each_payload() -> None:
    running, registry = router()
    running.genesis()
    for block in BLOCKS[:2]:
        assert running.execute(block).next_validators is None
    outcome = running.execute(BLOCKS[2])
    assert outcome.codes == bytes([0, Verdict.APPLIED, Verdict.MALFORMED])
    assert outcome.malformed == 1
    assert outcome.next_validators is not None
    assert [entry.name for entry in outcome.next_validators.members] == [
        "n0",
        "n1",
        "n2",
        "n4",
        "n5",
        "n6",
    ]
    blob = pack_receipts(outcome.executed)
    evidence = decode_validator_payload(BLOCKS[2].batch.payload(1)).id
    receipt = find_receipt(blob, evidence, 3)
    assert receipt is not None
    assert (receipt.tag, receipt.code) == (registry.tag, 0)


def test_the_state_alone_says_what_was_decided(tmp_path: Path) -> None:
    """A node that starts on a restored state never held the block that decided."""
    store = StateStore(tmp_path / "state.db", chain_id=CHAIN)
    running, _ = router()
    open_state(running, store)
    tip = genesis_block(CHAIN, 0, running.state_root)
    for block in BLOCKS[:5]:
        outcome = running.execute(block)
        if outcome.next_validators is not None:
            chosen = outcome.next_validators
        stored = StoredBlock(
            height=int(block.header.height),
            header=encode(block.header.value()),
            batch=b"",
            state_root=outcome.state_root,
            receipts=b"",
        )
        if block is BLOCKS[4]:
            store.enter(stored, all_rows(running))
    again, restored = router()
    nothing = decision(tip, restored)
    open_state(again, store)
    store.close()
    assert nothing is None
    found = decision(tip, restored)
    assert found is not None
    assert (found.height, found.next_validators) == (3, chosen)


def test_payments_name_their_sender_to_the_mempool_and_changes_none() -> None:
    running, _ = router()
    assert running.sender_at == [(LedgerApplication(CHAIN, genesis()).tag, SENDER_AT)]


def test_only_well_formed_payloads_of_this_chain_come_into_custody() -> None:
    running, _ = router()
    running.genesis()
    foreign = RegistryWorld(nodes(7)).accuse("n1")
    foreign = foreign.replace(bytes(CHAIN), b"y" * 32, 1)
    batch = Batch.of([BLOCKS[2].batch.payload(1), b"\x03rubbish", foreign])
    assert running.well_formed(batch) == bytes([1, 0, 0])
    assert list(running.check(batch).codes) == [
        Verdict.APPLIED,
        Verdict.MALFORMED,
        Verdict.WRONG_CHAIN,
    ]


def test_the_view_shows_the_set_the_next_one_and_the_offences() -> None:
    running, registry = router()
    running.genesis()
    for block in BLOCKS[:3]:
        running.execute(block)
    view = validators_view(registry.registry, "demo-2a2a2a2a", CHAIN)
    assert (view.height, view.epoch, view.quorum, view.removals_max) == (3, 0, 5, 2)
    assert [member.tombstone for member in view.members] == [False] * 3 + [True] + [False] * 3
    assert view.pending is not None
    assert (view.pending.ordered_at, view.pending.effective_after) == (3, 67)
    assert view.pending.automatic
    assert len(view.pending.members) == 6
    (offence,) = view.offences
    assert (offence.name, offence.offence, offence.height) == ("n3", "two commits", 3)


# --- what the core proves is submitted


class Orders:
    """Stands in for the submissions of a node: orders at once, or says why not."""

    def __init__(self, net: RegistryWorld) -> None:
        self.net = net
        self.refusals = 0
        self.times: list[float] = []

    async def submit(self, batch: Batch, *, wait: bool, timeout_s: float) -> Submission:
        assert wait
        assert timeout_s > 0
        await trio.lowlevel.checkpoint()
        self.times.append(trio.current_time())
        if self.refusals:
            self.refusals -= 1
            raise Unavailable("catching up", hint="wait")
        done = self.net.execute(batch.payload(0))
        applied = done.codes == bytes([Verdict.APPLIED])
        return Submission(
            ids=done.ids,
            outcomes=bytes([Outcome.APPLIED if applied else Outcome.REFUSED]),
            codes=done.codes,
            heights=(self.net.height,),
        )


@pytest.fixture
def orders() -> Orders:
    net = RegistryWorld(nodes(4))
    net.skip(2)
    return Orders(net)


def accuser(orders: Orders) -> Accuser:
    members = orders.net.members
    return Accuser(
        orders,  # type: ignore[arg-type]
        orders.net.application,
        chain_id=CHAIN,
        node_id_of=lambda index, epoch: (
            members[index].node_id if epoch == 0 and index < len(members) else None
        ),
    )


async def test_a_proof_is_ordered_once(
    orders: Orders, autojump_clock: trio.testing.MockClock
) -> None:
    found = accuser(orders)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        for _ in range(3):
            found.accuse_nowait(2, lie("n2"))
        await trio.sleep(5)
        assert found.waiting == 0
        found.accuse_nowait(2, lie("n2", place=6))  # proven already
        assert found.waiting == 0
        await trio.sleep(5)
        nursery.cancel_scope.cancel()
    assert len(orders.times) == 1
    assert [entry.name for entry in orders.net.registry.tombstones] == ["n2"]


async def test_a_proof_that_could_not_be_ordered_is_tried_again(
    orders: Orders, autojump_clock: trio.testing.MockClock
) -> None:
    orders.refusals = 3
    found = accuser(orders)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(found.run)
        found.accuse_nowait(1, lie("n1"))
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert len(orders.times) == 4
    assert all(
        after - before >= ACCUSE_INTERVAL_S
        for before, after in zip(orders.times, orders.times[1:], strict=False)
    )
    assert orders.net.application.knows(key("n1").node_id, lie("n1").offence)


async def test_evidence_against_nobody_and_a_flood_are_dropped(orders: Orders) -> None:
    found = accuser(orders)
    found.accuse_nowait(9, lie("n1"))
    found.accuse_nowait(1, lie("n1", epoch=5))
    assert found.waiting == 0
    for _ in range(ACCUSATIONS_WAITING_MAX * 2):
        found.accuse_nowait(1, lie("n1"))
    assert found.waiting == 1
    await trio.lowlevel.checkpoint()
