"""Payloads that come again: what was executed is never called refused before the disk was asked."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from consensus.application import Advice
from consensus.core.types import Phase
from native.batches import Batch, Mempool
from native.hashing import sha256
from node.metrics import Metrics
from node.runtime.api import Outcome, Overloaded, Unavailable
from node.runtime.intake import Intake
from node.runtime.receipts import Receipt
from node.runtime.submissions import CODE_MEMPOOL_FULL, DISK_LOOKUPS_MAX, Submissions

SEQUENCE_USED = 139
HEIGHT = 7


class Router:
    """Every payload was seen before."""

    applications = (SimpleNamespace(tag=1, name="any"),)

    def check(self, batch: Batch) -> Advice:
        ids = b"".join(sha256(batch.payload(at)) for at in range(len(batch)))
        return Advice(codes=bytes([SEQUENCE_USED]) * len(batch), ids=ids)

    def repeated(self, _tag: int, code: int) -> bool:
        return code == SEQUENCE_USED


class Executor:
    """Holds receipts on its disk, for all but one id."""

    height = 0

    def __init__(self, unknown: bytes) -> None:
        self.unknown = unknown
        self.searches = 0
        self.news = trio.Event()

    def receipt_nowait(
        self,
        identifier: bytes,  # noqa: ARG002
        *,
        oldest: int = 0,  # noqa: ARG002
        newest: int | None = None,  # noqa: ARG002
    ) -> Receipt | None:
        return None

    async def receipt(self, identifier: bytes) -> Receipt | None:
        await trio.lowlevel.checkpoint()
        self.searches += 1
        if identifier == self.unknown:
            return None
        return Receipt(id=identifier, height=HEIGHT, position=0, code=0, tag=1)


class Knows(Executor):
    """Has one receipt in memory."""

    def __init__(self) -> None:
        super().__init__(unknown=b"")

    def receipt_nowait(
        self, identifier: bytes, *, oldest: int = 0, newest: int | None = None
    ) -> Receipt | None:
        if identifier != sha256(b"known") or not oldest <= HEIGHT <= (newest or HEIGHT):
            return None
        return Receipt(id=identifier, height=HEIGHT, position=0, code=0, tag=1)


def executed(height: int) -> Any:
    """A block without payloads, as the executor posts it."""
    header = SimpleNamespace(height=height)
    return SimpleNamespace(header=header, outcome=SimpleNamespace(executed=()))


class Driver:
    """A replica that is up to date."""

    def custody_changed(self) -> None:
        pass

    @property
    def replica(self) -> Any:
        return self

    def statistics(self) -> Any:
        return self

    catching_up = False
    phase = Phase.VOTING


class Open:
    """A router that admits everything."""

    applications = ()

    def check(self, batch: Batch) -> Advice:
        ids = b"".join(sha256(batch.payload(at)) for at in range(len(batch)))
        return Advice(codes=bytes(len(batch)), ids=ids)

    def repeated(self, _tag: int, _code: int) -> bool:
        return False


class Deaf:
    """Links that lead nowhere."""

    def broadcast_nowait(self, *_: object) -> None:
        pass


def opened(
    nursery: trio.Nursery,
    driver: Driver,
    *,
    places: int,
    router: Any = None,
    executor: Executor | None = None,
) -> Submissions:
    found: Any = router or Open()
    intake = Intake(
        router=found,
        mempool=Mempool(places, 100_000),
        driver=cast(Any, driver),
        links=cast(Any, Deaf()),
        me=0,
        now_ms=lambda: 0,
        pause_s=0.0,
    )
    nursery.start_soon(intake.run)
    return Submissions(
        router=found,
        receipts=cast(Any, executor or Executor(unknown=b"")),
        driver=cast(Any, driver),
        intake=intake,
        metrics=Metrics(),
    )


async def test_what_finds_no_place_is_refused_by_name_and_nothing_is_lost_in_silence(
    nursery: trio.Nursery,
) -> None:
    submissions = opened(nursery, Driver(), places=2)
    payloads = [b"\x01payment %d" % at for at in range(3)]
    answer = await submissions.submit(Batch.of(payloads), wait=False, timeout_s=0)
    assert answer.outcomes == bytes([Outcome.PENDING, Outcome.PENDING, Outcome.REFUSED])
    assert answer.codes[2] == CODE_MEMPOOL_FULL
    with pytest.raises(Overloaded, match="as many payloads as it may"):
        await submissions.submit(Batch.of([b"\x01one more"]), wait=False, timeout_s=0)
    again = Batch.of([payloads[0], b"\x01one more"])
    with pytest.raises(Overloaded):
        await submissions.submit(again, wait=True, timeout_s=0)
    assert submissions.waiting == 0


@pytest.mark.parametrize("phase", [Phase.STARTING, Phase.SEEKING, Phase.RECOVERING])
async def test_a_node_that_cannot_know_how_old_its_state_is_refuses_no_payload_for_good(
    nursery: trio.Nursery, phase: Phase
) -> None:
    driver = Driver()
    driver.phase = phase
    submissions = opened(nursery, driver, places=10)
    with pytest.raises(Unavailable, match="does not know yet how far"):
        await submissions.submit(Batch.of([b"\x01new"]), wait=False, timeout_s=0)


async def test_a_node_that_catches_up_or_observes_takes_no_payload(
    nursery: trio.Nursery,
) -> None:
    late, observer = Driver(), Driver()
    late.catching_up = True
    observer.phase = Phase.OBSERVING
    for driver in (late, observer):
        submissions = opened(nursery, driver, places=2)
        with pytest.raises(Unavailable, match="takes no payloads"):
            await submissions.submit(Batch.of([b"\x01payment"]), wait=False, timeout_s=0)
        driver.catching_up, driver.phase = False, Phase.VOTING
        answer = await submissions.submit(Batch.of([b"\x01payment"]), wait=False, timeout_s=0)
        assert answer.outcomes == bytes([Outcome.PENDING])  # the refusal left nothing behind


async def test_what_no_search_was_left_for_is_pending_and_answered_when_it_comes_again(
    nursery: trio.Nursery,
) -> None:
    payloads = [b"\x01payment %d" % at for at in range(DISK_LOOKUPS_MAX + 3)]
    executor = Executor(unknown=bytes(sha256(payloads[0])))
    submissions = opened(nursery, Driver(), places=100, router=Router(), executor=executor)
    answer = await submissions.submit(Batch.of(payloads), wait=True, timeout_s=1.0)
    assert executor.searches == DISK_LOOKUPS_MAX
    assert answer.outcomes[0] == Outcome.REFUSED
    assert set(answer.outcomes[1:DISK_LOOKUPS_MAX]) == {Outcome.APPLIED}
    assert set(answer.outcomes[DISK_LOOKUPS_MAX:]) == {Outcome.PENDING}
    again = await submissions.submit(
        Batch.of(payloads[DISK_LOOKUPS_MAX:]), wait=True, timeout_s=1.0
    )
    assert set(again.outcomes) == {Outcome.APPLIED}
    assert set(again.heights) == {HEIGHT}


async def test_what_another_node_executed_is_answered_once_its_block_is_executed_here(
    nursery: trio.Nursery,
) -> None:
    executor = Knows()
    submissions = opened(nursery, Driver(), places=2, executor=executor)
    ids = sha256(b"known") + sha256(b"unknown")
    with trio.move_on_after(0):
        await submissions.outcomes(ids, height=HEIGHT, timeout_s=60)
        raise AssertionError("this node has not executed that block")
    late = await submissions.outcomes(ids, height=HEIGHT, timeout_s=0)
    assert late.outcomes == bytes([Outcome.APPLIED, Outcome.PENDING])
    answers: list[Any] = []

    async def ask() -> None:
        answers.append(await submissions.outcomes(ids, height=HEIGHT, timeout_s=60))

    async with trio.open_nursery() as asking:
        asking.start_soon(ask)
        await wait_all_tasks_blocked()
        assert not answers
        executor.height = HEIGHT
        submissions.on_block(executed(HEIGHT))
        executor.news.set()
    [answer] = answers
    assert answer.outcomes == bytes([Outcome.APPLIED, Outcome.PENDING])
    assert answer.heights == (HEIGHT, 0)
    assert answer.ids == ids
