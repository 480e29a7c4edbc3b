"""Requests wait in one queue, a few of each peer."""

import trio
import trio.testing

from consensus.runtime.requests import Requests


async def test_too_many_of_one_peer_or_of_all_are_dropped_and_counted() -> None:
    requests: Requests[str] = Requests(waiting_max=3, per_peer_max=2)
    for peer in (1, 1, 1, 2, 3):
        requests.put_nowait(peer, f"of {peer}")
    assert (requests.waiting, requests.dropped_total) == (3, 2)


async def test_a_request_that_fails_gives_its_place_back_and_the_others_go_on() -> None:
    requests: Requests[str] = Requests(waiting_max=8, per_peer_max=1)
    served: list[tuple[int, str]] = []

    async def serve(peer: int, request: str) -> None:
        if request == "bad":
            raise ValueError(request)
        served.append((peer, request))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(requests.answer, serve)
        requests.put_nowait(1, "bad")
        requests.put_nowait(2, "good")
        await trio.testing.wait_all_tasks_blocked()
        requests.put_nowait(1, "again")
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    assert served == [(2, "good"), (1, "again")]
    assert requests.dropped_total == 0
