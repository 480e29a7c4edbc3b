"""Dialling one node at several addresses: whoever is admitted first wins."""

import math
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import trio

from transport.core.events import Cause, Closure
from transport.errors import ConnectionEnded, DialFailed, EndpointStopped, TransportError
from transport.limits import DIAL_STAGGER_S

Won = TypeVar("Won")


async def first_admitted(
    addresses: Sequence[str],
    dial: Callable[[str], Awaitable[Won]],
    *,
    timeout_s: float = math.inf,
) -> Won:
    """Try the addresses in order, the next one when the last has failed or has had its head start
    (RFC 8305, section 5). The first success cancels the others. Raises `DialFailed` with every
    address' problem, those that time did not suffice for included, and `EndpointStopped`; for a
    single address its own problem."""
    won: list[Won] = []
    problems: dict[str, TransportError] = {}

    async def attempt(address: str, over: trio.Event) -> None:
        try:
            won.append(await dial(address))
        except TransportError as error:
            problems[address] = error
            over.set()
        else:
            nursery.cancel_scope.cancel()

    with trio.move_on_after(timeout_s) as limit:
        async with trio.open_nursery() as nursery:
            for address in addresses:
                over = trio.Event()
                nursery.start_soon(attempt, address, over)
                with trio.move_on_after(DIAL_STAGGER_S):
                    await over.wait()
                if any(isinstance(problem, EndpointStopped) for problem in problems.values()):
                    break
    if won:
        return won[0]
    for problem in problems.values():
        if isinstance(problem, EndpointStopped):
            raise problem
    if limit.cancelled_caught:
        silence = Closure(cause=Cause.TIMED_OUT, detail=f"no answer within {timeout_s:g} s")
        for address in addresses:
            problems.setdefault(address, DialFailed(silence))
    if len(addresses) == 1:
        raise problems[addresses[0]]
    raise _failed(problems)


def _failed(problems: dict[str, TransportError]) -> DialFailed:
    """The closure that says most: somebody's refusal before nobody's answer."""
    closures = [
        problem.closure for problem in problems.values() if isinstance(problem, ConnectionEnded)
    ]
    closures.sort(key=lambda closure: closure.name in ("timed_out", "handshake_timeout"))
    closure = closures[0] if closures else Closure(cause=Cause.TRANSPORT)
    return DialFailed(closure, {address: str(problem) for address, problem in problems.items()})
