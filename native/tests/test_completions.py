"""The descriptor that results of other threads come through."""

import select
import threading
from typing import Any

from native.completions import Completions


def readable(completions: Completions, timeout_s: float) -> bool:
    return bool(select.select([completions], [], [], timeout_s)[0])


def wait_for(completions: Completions, count: int) -> list[tuple[int, Any]]:
    results: list[tuple[int, Any]] = []
    while len(results) < count:
        assert readable(completions, 10), "no result within 10 s"
        results += completions.drain()
    return results


def test_posted_values_come_back_in_order() -> None:
    completions = Completions()
    assert not readable(completions, 0)
    marker = object()
    completions.post(1, marker)
    completions.post(2**64 - 1, None)
    assert readable(completions, 0)
    assert len(completions) == 2
    assert completions.drain() == [(1, marker), (2**64 - 1, None)]
    assert not readable(completions, 0)
    assert completions.drain() == []


def test_any_thread_may_post() -> None:
    completions = Completions()

    def post_many() -> None:
        for number in range(500):
            completions.post(number, threading.get_ident())

    threads = [threading.Thread(target=post_many) for _ in range(4)]
    for thread in threads:
        thread.start()
    results = wait_for(completions, 2000)
    for thread in threads:
        thread.join()
    assert sorted(token for token, _ in results) == sorted([*range(500)] * 4)


def test_a_value_that_is_never_drained_is_freed_with_its_queue() -> None:
    class Witness:
        freed = 0

        def __del__(self) -> None:
            Witness.freed += 1

    completions = Completions()
    completions.post(1, Witness())
    del completions
    assert Witness.freed == 1
