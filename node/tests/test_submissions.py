"""Payloads that come again: what was executed is never called refused before the disk was asked."""

from typing import Any, cast

import trio

from consensus.application import Advice
from native.batches import Batch, Mempool
from native.hashing import sha256
from node.metrics import Metrics
from node.runtime.api import Outcome
from node.runtime.receipts import Receipt
from node.runtime.submissions import DISK_LOOKUPS_MAX, Submissions

SEQUENCE_USED = 139
HEIGHT = 7


class Router:
    """Every payload was seen before."""

    def check(self, batch: Batch) -> Advice:
        ids = b"".join(sha256(batch.payload(at)) for at in range(len(batch)))
        return Advice(codes=bytes([SEQUENCE_USED]) * len(batch), ids=ids)

    def repeated(self, _tag: int, code: int) -> bool:
        return code == SEQUENCE_USED


class Executor:
    """Holds receipts on its disk, for all but one id."""

    def __init__(self, unknown: bytes) -> None:
        self.unknown = unknown
        self.searches = 0

    def receipt_nowait(self, _identifier: bytes) -> Receipt | None:
        return None

    async def receipt(self, identifier: bytes) -> Receipt | None:
        await trio.lowlevel.checkpoint()
        self.searches += 1
        if identifier == self.unknown:
            return None
        return Receipt(id=identifier, height=HEIGHT, position=0, code=0, tag=1)


class Driver:
    """A replica that is up to date."""

    @property
    def replica(self) -> Any:
        return self

    def statistics(self) -> Any:
        return self

    catching_up = False


async def test_what_no_search_was_left_for_is_pending_and_answered_when_it_comes_again() -> None:
    payloads = [b"\x01payment %d" % at for at in range(DISK_LOOKUPS_MAX + 3)]
    executor = Executor(unknown=bytes(sha256(payloads[0])))
    submissions = Submissions(
        router=cast(Any, Router()),
        executor=cast(Any, executor),
        mempool=Mempool(100, 100_000),
        driver=cast(Any, Driver()),
        links=cast(Any, None),
        me=0,
        metrics=Metrics(),
        now_ms=lambda: 0,
    )
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
