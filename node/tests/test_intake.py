"""Taking payloads in: together when the node is busy, at once when it is not, and none lost."""
# ruff: noqa: ARG001  pytest-trio finds the virtual clock among the arguments of a test

from collections.abc import Sequence
from typing import Any, cast

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from consensus.application import Advice
from consensus.limits import BATCH_PAYLOADS_MAX, BATCH_SIZE_BYTES_MAX
from native.batches import ADDED, DUPLICATE, FULL, SKIPPED, Batch, Mempool
from native.hashing import sha256
from node.runtime.api import Overloaded
from node.runtime.intake import TOGETHER_PAYLOADS_MAX, Admitted, Intake
from node.runtime.receipts import id_at

PAUSE_S = 0.5
BAD = b"\x01bad"
REFUSED = 139


class Router:
    """Refuses one payload; counts its checks."""

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.broken = False

    def check(self, batch: Batch) -> Advice:
        if self.broken:
            raise ValueError("broken")
        self.sizes.append(len(batch))
        payloads = [batch.payload(at) for at in range(len(batch))]
        return Advice(
            codes=bytes(REFUSED if payload == BAD else 0 for payload in payloads),
            ids=b"".join(map(sha256, payloads)),
        )


class Network:
    """Driver and links: what was sent, and how often the driver turned."""

    def __init__(self) -> None:
        self.sent: list[Batch] = []
        self.turns = 0

    def broadcast_nowait(self, _kind: object, _type: object, batch: Batch) -> None:
        self.sent.append(batch)

    def custody_changed(self) -> None:
        self.turns += 1


class Node:
    """An intake and what is around it."""

    def __init__(self, nursery: trio.Nursery, places: int = 10_000) -> None:
        self.router = Router()
        self.network = Network()
        self.mempool = Mempool(places, 100_000_000)
        self.answers: list[Admitted] = []
        self.intake = Intake(
            router=cast(Any, self.router),
            mempool=self.mempool,
            driver=cast(Any, self.network),
            links=cast(Any, self.network),
            me=3,
            now_ms=lambda: 0,
            pause_s=PAUSE_S,
        )
        nursery.start_soon(self.intake.run)

    async def admit(self, payloads: Sequence[bytes]) -> None:
        await self.intake.admit(Batch.of(payloads), self.answers.append)

    def payloads_sent(self) -> list[bytes]:
        return [one.payload(at) for one in self.network.sent for at in range(len(one))]


def numbered(count: int, first: int = 0) -> list[bytes]:
    return [b"\x01%d" % at for at in range(first, first + count)]


async def test_a_call_on_an_idle_node_is_taken_in_before_anything_else_runs(
    nursery: trio.Nursery,
) -> None:
    node = Node(nursery)
    with trio.testing.assert_no_checkpoints():
        await node.admit([b"\x01a", BAD])
    [taken] = node.answers
    assert taken.statuses == bytes([ADDED, SKIPPED])
    assert taken.codes == bytes([0, REFUSED])
    assert id_at(taken.ids, 1) == sha256(BAD)
    assert node.payloads_sent() == [b"\x01a"]


async def test_calls_of_a_busy_node_share_check_frame_and_turn(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = Node(nursery)
    await node.admit([b"\x01first"])
    await node.admit([b"\x01second"])  # the first pause has not begun yet
    began = trio.current_time()
    async with trio.open_nursery() as calls:
        for at in range(5):
            calls.start_soon(node.admit, numbered(3, 3 * at))
    assert trio.current_time() - began == pytest.approx(PAUSE_S)
    assert node.router.sizes == [1, 1, 15]
    assert node.network.turns == len(node.network.sent) == 3
    assert sorted(node.payloads_sent()[2:]) == sorted(numbered(15))
    for taken in node.answers[2:]:
        assert taken.statuses == bytes([ADDED] * 3)


async def test_each_call_gets_the_answers_to_its_own_payloads(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = Node(nursery, places=3)
    await node.admit([b"\x01first"])
    answers: dict[bytes, Admitted] = {}

    async def admit(*payloads: bytes) -> None:
        batch = Batch.of(payloads)

        def admitted(taken: Admitted) -> None:
            answers[payloads[0]] = taken

        await node.intake.admit(batch, admitted)

    async with trio.open_nursery() as calls:
        calls.start_soon(admit, b"\x01first", b"\x01x")
        await wait_all_tasks_blocked()
        calls.start_soon(admit, BAD, b"\x01y")
        await wait_all_tasks_blocked()
        calls.start_soon(admit, b"\x01z")
    assert answers[b"\x01first"].statuses == bytes([DUPLICATE, ADDED])
    assert answers[BAD].statuses == bytes([SKIPPED, ADDED])
    assert answers[b"\x01z"].statuses == bytes([FULL])
    assert id_at(answers[BAD].ids, 1) == sha256(b"\x01y")


async def test_much_does_not_wait(nursery: trio.Nursery, autojump_clock: MockClock) -> None:
    node = Node(nursery)
    await node.admit([b"\x01first"])
    await node.admit([b"\x01second"])
    began = trio.current_time()
    await node.admit(numbered(TOGETHER_PAYLOADS_MAX))
    assert trio.current_time() == began


async def test_frames_are_such_as_a_validator_accepts(nursery: trio.Nursery) -> None:
    node = Node(nursery)
    await node.admit([*numbered(BATCH_PAYLOADS_MAX + 5), BAD, b"\x01last"])
    assert [len(one) for one in node.network.sent] == [BATCH_PAYLOADS_MAX, 6]
    assert node.payloads_sent() == [*numbered(BATCH_PAYLOADS_MAX + 5), b"\x01last"]
    big = [b"\x01%d" % at + bytes(60_000) for at in range(40)]
    await node.admit(big)
    assert node.payloads_sent()[-40:] == big
    assert all(one.size <= BATCH_SIZE_BYTES_MAX for one in node.network.sent)


async def test_a_call_that_was_given_up_is_forgotten(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = Node(nursery)
    await node.admit([b"\x01first"])
    await node.admit([b"\x01second"])
    with trio.move_on_after(PAUSE_S / 2):
        await node.admit(numbered(TOGETHER_PAYLOADS_MAX - 1))
    await trio.sleep(PAUSE_S)
    assert len(node.answers) == len(node.network.sent) == 2
    began = trio.current_time()
    await node.admit([b"\x01third"])
    await node.admit([b"\x01fourth"])
    assert trio.current_time() - began == pytest.approx(PAUSE_S), "nothing counts as waiting"
    assert node.payloads_sent()[-2:] == [b"\x01third", b"\x01fourth"]


async def test_calls_beyond_a_bound_are_refused(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = Node(nursery, places=100_000)
    await node.admit([b"\x01first"])
    refused = 0

    async def admit(first: int) -> None:
        nonlocal refused
        try:
            await node.admit(numbered(4_000, first))
        except Overloaded:
            refused += 1

    async with trio.open_nursery() as calls:
        for at in range(6):
            calls.start_soon(admit, 4_000 * at)
    assert refused == 1
    assert len(node.payloads_sent()) == 1 + 5 * 4_000


async def test_a_check_that_fails_is_its_callers_error_and_the_next_one_is_taken(
    nursery: trio.Nursery, autojump_clock: MockClock
) -> None:
    node = Node(nursery)
    await node.admit([b"\x01first"])
    node.router.broken = True
    with pytest.raises(ValueError, match="broken"):
        await node.admit([b"\x01second"])
    node.router.broken = False
    await node.admit([b"\x01third"])
    assert node.payloads_sent() == [b"\x01first", b"\x01third"]
