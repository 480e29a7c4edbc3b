"""Deadlines of calls, on a clock of the test's own."""

import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from transport.runtime.deadlines import Deadlines


class Call:
    def __init__(self, name: str, log: list[tuple[str, float]]) -> None:
        self._name = name
        self._log = log

    def expire(self) -> None:
        self._log.append((self._name, trio.current_time()))


async def test_each_expires_in_its_time_whatever_the_order(autojump_clock: MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    began_s = trio.current_time()
    log: list[tuple[str, float]] = []
    deadlines = Deadlines()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        await wait_all_tasks_blocked()
        late, soon, answered = (Call(name, log) for name in ("late", "soon", "answered"))
        deadlines.add(late, began_s + 5)
        deadlines.add(answered, began_s + 2)
        deadlines.add(soon, began_s + 1)
        deadlines.discard(answered)
        deadlines.discard(answered)  # twice does no harm
        await trio.sleep(10)
        nursery.cancel_scope.cancel()
    assert [(name, round(at_s - began_s)) for name, at_s in log] == [("soon", 1), ("late", 5)]


async def test_what_is_late_already_expires_at_once(autojump_clock: MockClock) -> None:
    assert autojump_clock.autojump_threshold == 0
    log: list[tuple[str, float]] = []
    deadlines = Deadlines()
    deadlines.add(Call("early bird", log), trio.current_time() - 1)  # before anybody looks
    async with trio.open_nursery() as nursery:
        nursery.start_soon(deadlines.run)
        await wait_all_tasks_blocked()
        deadlines.add(Call("late", log), trio.current_time())
        await wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert [name for name, _ in log] == ["early bird", "late"]
