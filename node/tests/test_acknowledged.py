"""Nothing is told of a block before the replica took it, nor of one above a state that differs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from consensus.core.effects import Execute
from consensus.core.records import ExecutedBlock
from consensus.core.types import Height, Phase
from consensus.tests import samples
from consensus.tests.test_replica import Bench, agreed_block, claim, executed
from native.batches import Batch
from native.hashing import sha256
from native.values import Digest
from node.runtime.acknowledged import Acknowledged, HeldBack
from node.runtime.api import Outcome, Submission, Unavailable
from node.runtime.executor import ExecutedBlock as DurableBlock
from node.runtime.receipts import Receipt
from node.runtime.submissions import Submissions
from node.tests.test_submissions import Driver, Open, Router, opened

PAYLOAD = b"\x01payment"
KEY = bytes(sha256(PAYLOAD))


class Executor:
    """Holds one receipt, of a block whose height the test sets, in memory or on disk."""

    def __init__(self) -> None:
        self.height = 0
        self.on_disk = False

    def receipt_nowait(
        self, identifier: bytes, *, oldest: int = 0, newest: int | None = None
    ) -> Receipt | None:
        if self.height < oldest or (newest is not None and self.height > newest):
            return None
        return None if self.on_disk else self.held(identifier)

    async def receipt(self, identifier: bytes) -> Receipt | None:
        await trio.lowlevel.checkpoint()
        return self.held(identifier)

    def held(self, identifier: bytes) -> Receipt | None:
        if identifier != KEY:
            return None
        return Receipt(id=identifier, height=self.height, position=0, code=0, tag=1)


class Node:
    """A real replica, fed by hand, and what is told on its word."""

    def __init__(self) -> None:
        self.bench = Bench(1)
        self.replica = self.bench.replica
        self.executor = Executor()
        self.acknowledged = Acknowledged(self.replica, cast("Any", self.executor))

    def agree(self, height: int) -> Execute:
        return agreed_block(self.bench, height)

    def drain(self, execute: Execute) -> None:
        """The block is durable, and the turn in which the replica takes it is not over."""
        self.acknowledged.executed(
            DurableBlock(
                header=execute.header,
                batch=Batch.of([PAYLOAD]),
                outcome=cast("Any", None),
                receipts=b"",
                execute_s=0.0,
                commit_s=0.0,
            )
        )

    def told(self) -> list[int]:
        return [int(block.header.height) for block in self.acknowledged.take()]

    def submissions(self, nursery: trio.Nursery, router: object) -> Submissions:
        driver = Driver()
        driver.phase = self.replica.phase
        return opened(
            nursery, driver, places=10, router=router, executor=cast("Any", self.acknowledged)
        )


def taken(submissions: Submissions, execute: Execute, key: bytes) -> None:
    """The replica took a block, in which the payload with this id was applied."""
    done = SimpleNamespace(tag=1, ids=key, codes=bytes(1))
    outcome = SimpleNamespace(executed=((1, done),))
    submissions.on_block(cast("Any", SimpleNamespace(header=execute.header, outcome=outcome)))


def differing(at: int, through: int) -> Node:
    """Executed through a block, when a certificate shows that the state after `at` differs."""
    node = Node()
    for height in range(1, through + 1):
        execute = node.agree(height)
        node.drain(execute)
        node.bench.feed(executed(execute))
    assert node.told() == list(range(1, through + 1))
    own = node.replica.uncertified[samples.header(at).height]
    node.bench.hear_votes(claim(own, root=b"x" * 32), 0, 2, 3)
    assert node.replica.phase is Phase.HALTED
    return node


def test_a_block_is_told_of_after_the_replica_took_it() -> None:
    node = Node()
    execute = node.agree(1)
    node.drain(execute)
    assert node.told() == []
    node.bench.feed(executed(execute))
    assert node.told() == [1]
    assert node.told() == []


def test_whoever_waits_for_a_height_hears_of_each_move_once() -> None:
    node = Node()
    news = node.acknowledged.news
    assert node.told() == []
    assert not news.is_set()
    execute = node.agree(1)
    node.drain(execute)
    node.bench.feed(executed(execute))
    assert node.told() == [1]
    assert news.is_set()
    assert node.told() == []
    assert not node.acknowledged.news.is_set()
    differing_news = node.acknowledged.news
    node.bench.hear_votes(claim(node.replica.uncertified[Height(1)], root=b"x" * 32), 0, 2, 3)
    assert node.told() == []
    assert differing_news.is_set(), "the height fell"


def test_blocks_that_one_commit_made_durable_are_told_of_up_to_the_one_that_differs() -> None:
    node = Node()
    first = node.agree(1)
    node.bench.feed(executed(first))
    second = node.agree(2)
    theirs = ExecutedBlock(
        height=second.header.height,
        header_hash=second.header.hash,
        time_ms=second.header.time_ms,
        state_root=Digest(b"x" * 32),
    )
    node.bench.hear_votes(claim(theirs), 0, 2, 3)
    node.drain(first)
    node.drain(second)
    node.bench.feed(executed(second))
    assert node.replica.phase is Phase.HALTED
    assert node.told() == [1]
    assert node.told() == []


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize(("height", "answered"), [(2, True), (3, False), (4, False)])
async def test_no_receipt_is_found_at_or_above_a_state_that_differs(
    on_disk: bool, height: int, answered: bool
) -> None:
    node = differing(3, 4)
    node.executor.on_disk, node.executor.height = on_disk, height
    if answered:
        found = await node.acknowledged.receipt(KEY)
        assert found is not None
        assert found.height == height
    else:
        with pytest.raises(HeldBack):
            await node.acknowledged.receipt(KEY)
    if not on_disk and not answered:
        with pytest.raises(HeldBack):
            node.acknowledged.receipt_nowait(KEY)


@pytest.mark.parametrize("on_disk", [False, True])
async def test_what_the_replica_has_not_taken_yet_is_pending_and_not_refused(
    nursery: trio.Nursery, on_disk: bool
) -> None:
    node = Node()
    node.executor.on_disk, node.executor.height = on_disk, 1
    execute = node.agree(1)
    submissions = node.submissions(nursery, Router())
    answer = await submissions.submit(Batch.of([PAYLOAD]), wait=True, timeout_s=0)
    assert answer.outcomes == bytes([Outcome.PENDING])
    node.bench.feed(executed(execute))
    answer = await submissions.submit(Batch.of([PAYLOAD]), wait=True, timeout_s=0)
    assert answer.outcomes == bytes([Outcome.APPLIED])


@pytest.mark.parametrize("on_disk", [False, True])
async def test_who_asks_again_for_what_the_replica_has_not_taken_yet_waits_like_the_first(
    nursery: trio.Nursery, on_disk: bool
) -> None:
    node = Node()
    node.executor.on_disk, node.executor.height = on_disk, 1
    execute = node.agree(1)
    submissions = node.submissions(nursery, Router())
    answers: list[Submission] = []

    async def ask() -> None:
        batch = Batch.of([PAYLOAD])
        answers.append(await submissions.submit(batch, wait=True, timeout_s=60))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert not answers
    assert submissions.waiting == 1
    node.bench.feed(executed(execute))
    taken(submissions, execute, KEY)
    await wait_all_tasks_blocked()
    assert [answer.outcomes for answer in answers] == [bytes([Outcome.APPLIED])]
    assert submissions.waiting == 0


async def test_a_call_waits_for_what_a_slow_look_finds_after_the_rest_was_answered(
    nursery: trio.Nursery,
) -> None:
    node, other = Node(), b"\x01another"
    other_key = bytes(sha256(other))
    node.executor.height = 1
    execute = node.agree(1)
    submissions = node.submissions(nursery, Router())

    def in_memory(identifier: bytes, **_heights: object) -> Receipt | None:
        return (
            None
            if identifier == KEY
            else Receipt(id=other_key, height=1, position=0, code=0, tag=1)
        )

    async def on_disk(identifier: bytes) -> Receipt | None:
        taken(submissions, execute, other_key)
        return node.executor.held(identifier)

    node.executor.receipt_nowait, node.executor.receipt = in_memory, on_disk  # type: ignore[method-assign]
    answers: list[Submission] = []

    async def ask() -> None:
        batch = Batch.of([other, PAYLOAD])
        answers.append(await submissions.submit(batch, wait=True, timeout_s=60))

    nursery.start_soon(ask)
    await wait_all_tasks_blocked()
    assert not answers
    node.bench.feed(executed(execute))
    taken(submissions, execute, KEY)
    await wait_all_tasks_blocked()
    assert [answer.outcomes for answer in answers] == [bytes([Outcome.APPLIED] * 2)]


async def test_a_halted_node_takes_no_payload(nursery: trio.Nursery) -> None:
    submissions = differing(1, 2).submissions(nursery, Open())
    with pytest.raises(Unavailable, match="stopped for good"):
        await submissions.submit(Batch.of([PAYLOAD]), wait=False, timeout_s=0)


@pytest.mark.parametrize(
    ("height", "outcome"), [(2, Outcome.APPLIED), (3, Outcome.PENDING), (4, Outcome.PENDING)]
)
async def test_what_another_node_says_was_executed_is_not_confirmed_from_there_on(
    nursery: trio.Nursery, height: int, outcome: Outcome
) -> None:
    node = differing(3, 4)
    node.executor.height = height
    submissions = node.submissions(nursery, Open())
    answer = await submissions.outcomes(KEY, height=height, timeout_s=0)
    assert answer.outcomes == bytes([outcome])
