"""A replica that is behind hands out several certified blocks at once, in order, and compares."""

from consensus.core.effects import Effect, Execute, Halt, Send
from consensus.core.inputs import Executed, Timer, TimerFired
from consensus.core.messages import EMPTY_ROOT, BatchHeader, BlockHeader, Blocks, FetchBodies
from consensus.core.types import Height, View
from consensus.limits import EXECUTE_AHEAD_BLOCKS_MAX
from consensus.tests import samples
from consensus.tests.test_replica import Bench
from native.values import Digest

COUNT = 40
STATE = Digest(b"t" * 32)  # after every block, as in the certificates of `samples`


def behind() -> tuple[Bench, list[Execute]]:
    """A replica that has just been sent certified headers; all their bodies are empty."""
    bench = Bench(1)
    headers: list[BlockHeader] = []
    batches: list[BatchHeader] = []
    parent, time_ms = bench.replica.tip.header_hash, 0
    for height in range(1, COUNT + 1):
        batch = samples.batch(height, bytes(EMPTY_ROOT))
        time_ms = max(time_ms + 1, batch.proposed_ms)
        header = BlockHeader(
            chain_id=samples.CHAIN,
            height=Height(height),
            epoch=samples.EPOCH,
            parent=parent,
            batch=batch.digest,
            time_ms=time_ms,
            state_root=bench.replica.tip.state_root if height == 1 else STATE,
        )
        headers.append(header)
        batches.append(batch)
        parent = header.hash
    blocks = Blocks(
        headers=tuple(headers),
        batches=tuple(batches),
        certificate=samples.certificate(COUNT, parent),
    )
    return bench, executes(bench.hear(2, blocks))


def executes(effects: list[Effect]) -> list[Execute]:
    return [effect for effect in effects if isinstance(effect, Execute)]


def report(bench: Bench, execute: Execute, state: Digest = STATE) -> list[Effect]:
    header = execute.header
    return bench.feed(Executed(height=header.height, header_hash=header.hash, state_root=state))


def test_many_certified_blocks_are_handed_out_in_one_step() -> None:
    _, first = behind()
    assert [int(one.header.height) for one in first] == list(range(1, EXECUTE_AHEAD_BLOCKS_MAX + 2))
    assert all(one.after_persist for one in first), "the certificate must be durable before"


def test_all_are_executed_in_order_and_there_are_always_some_waiting() -> None:
    bench, waiting = behind()
    done: list[int] = []
    while waiting:
        one = waiting.pop(0)
        done.append(int(one.header.height))
        waiting += executes(report(bench, one))
        assert len(waiting) >= min(EXECUTE_AHEAD_BLOCKS_MAX // 2, COUNT - done[-1])
    assert done == list(range(1, COUNT + 1))
    assert bench.replica.executed == COUNT
    assert not bench.replica.fetched


def test_a_state_that_the_next_certified_header_contradicts_halts_the_node() -> None:
    bench, waiting = behind()
    effects = report(bench, waiting[0], Digest(b"x" * 32))
    assert any(isinstance(effect, Halt) and "block 1" in effect.reason for effect in effects)
    assert executes(effects) == []


def asked_for_bodies(effects: list[Effect]) -> list[int]:
    return [
        effect.peer
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, FetchBodies)
    ]


def test_the_body_of_a_live_proposal_is_asked_of_its_proposer_first() -> None:
    for primary in range(1, 4):
        bench = Bench(0)
        bench.replica.view = View(primary)
        bench.hear(primary, samples.pre_prepare(primary, 1))
        bench.late_us = 1_000_000
        assert asked_for_bodies(bench.feed(TimerFired(timer=Timer.FETCH))) == [primary]


def test_who_does_not_answer_is_asked_again_after_all_others() -> None:
    bench = Bench(0)
    bench.replica.view = View(1)
    bench.hear(1, samples.pre_prepare(1, 1))
    asked: list[int] = []
    for _ in range(8):
        bench.late_us += 1_000_000
        for alive in (2, 3):
            bench.hear(alive, samples.vector(alive, samples.commit(1, 9)))
        asked += asked_for_bodies(bench.feed(TimerFired(timer=Timer.FETCH)))
    assert asked[0] == 1  # it proposed that, and has died
    assert sorted(set(asked[1:])) == [2, 3]
