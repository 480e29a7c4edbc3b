"""Checks ahead of execution: once, in time, and never lost."""

import threading
from collections.abc import Iterator

import pytest

from native.batches import Batch
from node.runtime.preparation import INLINE_PAYLOADS_MAX, OPEN_BATCHES_MAX, Preparation


def batch(first: int) -> Batch:
    return Batch.of([b"%d-%d" % (first, at) for at in range(INLINE_PAYLOADS_MAX + 1)])


class Check:
    """A check that waits until it is let go."""

    def __init__(self) -> None:
        self.checked: list[bytes] = []
        self.begun = threading.Event()
        self.go = threading.Event()

    def well_formed(self, found: Batch) -> bytes:
        return b"\1" * len(found)

    def prepare(self, found: Batch) -> None:
        self.begun.set()
        assert self.go.wait(5)
        self.checked.append(found.root)


@pytest.fixture
def check() -> Check:
    return Check()


@pytest.fixture
def preparation(check: Check) -> Iterator[Preparation]:
    made = Preparation(check)
    made.start()
    yield made
    check.go.set()
    made.stop()


def test_execution_waits_for_a_check_that_runs(preparation: Preparation, check: Check) -> None:
    preparation.prepare(batch(1))
    assert check.begun.wait(5)
    settled = threading.Thread(target=preparation.settle, args=(batch(1),))
    settled.start()
    assert settled.is_alive()
    check.go.set()
    settled.join(5)
    assert check.checked == [batch(1).root]


def test_execution_takes_over_a_check_that_has_not_begun(
    preparation: Preparation, check: Check
) -> None:
    preparation.prepare(batch(1))
    assert check.begun.wait(5)
    preparation.prepare(batch(2))
    preparation.settle(batch(2))  # at once: the thread is busy with the first
    check.go.set()
    preparation.settle(batch(1))
    preparation.stop()
    assert batch(2).root not in check.checked


def test_a_small_batch_is_left_to_the_execution(preparation: Preparation, check: Check) -> None:
    small = Batch.of([b"payload"] * INLINE_PAYLOADS_MAX)
    preparation.prepare(small)
    preparation.settle(small)
    check.go.set()
    preparation.stop()
    assert check.checked == []


def test_what_a_check_raises_stops_the_execution() -> None:
    begun = threading.Event()

    class Broken(Check):
        def prepare(self, _found: Batch) -> None:
            begun.set()
            raise ZeroDivisionError

    preparation = Preparation(Broken())
    preparation.start()
    preparation.prepare(batch(1))
    assert begun.wait(5)
    with pytest.raises(ZeroDivisionError):
        preparation.settle(batch(1))
    preparation.stop()


def test_no_more_batches_wait_than_agreement_needs(preparation: Preparation, check: Check) -> None:
    preparation.prepare(batch(0))
    assert check.begun.wait(5)
    for number in range(1, 3 * OPEN_BATCHES_MAX):
        preparation.prepare(batch(number))
    check.go.set()
    preparation.stop()
    assert len(check.checked) <= OPEN_BATCHES_MAX
