"""Worker threads and the descriptor their results come through."""

import select
import threading
from typing import Any

import pytest

from native._native import FalconSigner, FalconVerifier
from native.batches import Batch
from native.errors import BatchInvalid, LimitExceeded, NativeError
from native.workers import Completions, Workers


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


def test_workers_sign_verify_and_parse() -> None:
    completions = Completions()
    workers = Workers(2, completions)
    signer = FalconSigner.generate(512)
    verifier = FalconVerifier(signer.public)
    batch = Batch.of([b"one", b"two"])
    workers.sign(1, signer, b"vote")
    workers.parse_batch(2, batch.body)
    workers.parse_batch(3, b"junk", urgent=True)
    signature = signer.sign(b"x")
    workers.verify_many(4, [(verifier, b"x", signature), (verifier, b"y", signature)])
    results = dict(wait_for(completions, 4))
    verifier.verify(b"vote", results[1])
    assert results[2].root == batch.root
    assert isinstance(results[3], BatchInvalid)
    assert results[4] == b"\1\0"
    workers.close()


def test_closed_workers_take_nothing_and_closing_twice_is_fine() -> None:
    completions = Completions()
    workers = Workers(1, completions)
    workers.close()
    workers.close()
    with pytest.raises(NativeError, match="closed"):
        workers.parse_batch(1, bytes(4))
    assert workers.waiting() == 0


def test_bounds_are_typed_refusals() -> None:
    completions = Completions()
    for threads in (0, 65):
        with pytest.raises(LimitExceeded):
            Workers(threads, completions)
    workers = Workers(1, completions)
    with pytest.raises(BatchInvalid):
        workers.parse_batch(1, bytes(8_388_609))
    signer = FalconSigner.generate(512)
    job = (FalconVerifier(signer.public), b"x", signer.sign(b"x"))
    workers.verify_many(0, [job] * 20_000)  # keeps the only thread busy
    while workers.waiting():
        pass
    for token in range(4096):
        workers.verify_many(token, [job])
    with pytest.raises(LimitExceeded):
        workers.sign(9999, signer, b"x")
    workers.close()


def test_a_value_that_is_never_drained_is_freed_with_its_queue() -> None:
    class Witness:
        freed = 0

        def __del__(self) -> None:
            Witness.freed += 1

    completions = Completions()
    completions.post(1, Witness())
    del completions
    assert Witness.freed == 1
