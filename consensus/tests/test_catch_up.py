"""A replica that is behind hands out several certified blocks at once, in order, and compares."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from consensus.core.effects import Effect, Execute, Halt, Send
from consensus.core.inputs import BodyHeld, Executed, Started, Timer, TimerFired
from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockHeader,
    Blocks,
    EpochLink,
    FetchBodies,
)
from consensus.core.records import Anchor, Birth, Diverged, EpochBegun, ExecutedBlock, Record, Tip
from consensus.core.replica import Replica
from consensus.core.tick import Gather
from consensus.core.types import Committee, Epoch, Height, Instant, Timing, View
from consensus.core.validators import ValidatorSet
from consensus.limits import EXECUTE_AHEAD_BLOCKS_MAX
from consensus.sim.node import validator
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


def _found_by_the_next_header() -> tuple[Bench, list[Effect]]:
    bench, waiting = behind()
    return bench, report(bench, waiting[0], Digest(b"x" * 32))


def _found_by_other_headers() -> tuple[Bench, list[Effect]]:
    """Block 1 was executed here; what follows at the others has another parent."""
    bench, waiting = behind()
    for one in waiting[:2]:
        report(bench, one)
    replica = bench.replica
    replica.fetched.clear()
    replica.executing = None
    replica.executing_after.clear()
    replica.tip = replace(replica.tip, header_hash=Digest(b"o" * 32))
    replica.uncertified[replica.tip.height] = replica.tip
    batch = samples.batch(3, bytes(EMPTY_ROOT))
    header = replace(waiting[2].header, parent=Digest(b"p" * 32))
    certificate = samples.certificate(3, header.hash)
    return bench, bench.hear(
        2, Blocks(headers=(header,), batches=(batch,), certificate=certificate)
    )


def _found_by_the_header_of_an_agreed_batch() -> tuple[Bench, list[Effect]]:
    bench, waiting = behind()
    for one in waiting[:2]:
        report(bench, one)
    replica = bench.replica
    replica.executing = None
    replica.executing_after.clear()
    replica.tip = replace(replica.tip, time_ms=replica.tip.time_ms + 10**15)
    replica.uncertified[replica.tip.height] = replica.tip
    return bench, bench.feed(BodyHeld(payload_root=EMPTY_ROOT, size_bytes=0))


@pytest.mark.parametrize(
    "found",
    [
        _found_by_the_next_header,
        _found_by_other_headers,
        _found_by_the_header_of_an_agreed_batch,
    ],
)
def test_whatever_showed_that_the_state_differs_the_next_life_halts_too(
    found: Callable[[], tuple[Bench, list[Effect]]],
) -> None:
    bench, effects = found()
    assert any(isinstance(effect, Halt) for effect in effects)
    gather = Gather()
    gather.add(effects)
    tick = gather.last_tick(bench.replica)
    assert tick is not None
    replica, again = _next_life(bench, tick.records, bench.replica.tip)
    assert any(isinstance(effect, Halt) and "earlier life" in effect.reason for effect in again)
    assert replica.acknowledged == bench.replica.acknowledged
    repaired = replace(bench.replica.tip, state_root=Digest(b"y" * 32))
    _, again = _next_life(bench, tick.records, repaired)
    assert not any(isinstance(effect, Halt) for effect in again)


def _next_life(
    bench: Bench, records: Sequence[Record], *blocks: ExecutedBlock, epoch: Epoch = samples.EPOCH
) -> tuple[Replica, list[Effect]]:
    known = bench.replica.certificate
    held: list[Record] = [Birth(chain_id=samples.CHAIN, node_id=STATE, incarnation=1), *records]
    if known is not None:
        held.append(Tip(certificate=known))
    replica = Replica(
        Committee(chain_id=samples.CHAIN, members=4, me=bench.me, epoch=epoch),
        Timing(),
        boot=78,
        tip=blocks[-1],
        uncertified=blocks,
        records=held,
    )
    return replica, replica.step(Started(), Instant(monotonic_us=1, unix_ms=1))


def _own(height: int) -> ExecutedBlock:
    """A block of this node that is the one of `samples.certificate`."""
    return ExecutedBlock(
        height=Height(height),
        header_hash=samples.header(height).hash,
        time_ms=height,
        state_root=STATE,
    )


def _found_at(block: ExecutedBlock) -> Diverged:
    return Diverged(
        height=block.height,
        header_hash=block.header_hash,
        state_root=block.state_root,
        sound_through=Height(block.height - 1),
    )


@pytest.mark.parametrize(
    ("found", "held"),
    [
        (63, Tip(certificate=samples.certificate(63))),
        (64, Anchor(certificate=samples.certificate(64))),
        (63, Anchor(certificate=samples.certificate(64))),
        (63, Tip(certificate=samples.certificate(65))),
    ],
    ids=["of it", "of it, an anchor", "of the next block", "of the newest block"],
)
def test_a_difference_that_was_none_by_a_certificate_held_halts_nobody(
    found: int, held: Record
) -> None:
    """Wrong software found it. Our block is the certified one, or one that is built on it is."""
    blocks = [_own(height) for height in (62, 63, 64, 65)]
    record = _found_at(blocks[found - 62])
    replica, effects = _next_life(Bench(1), [record, held], *blocks)
    assert not any(isinstance(effect, Halt) for effect in effects)
    assert replica.acknowledged == 65


def test_the_certificate_that_an_epoch_began_with_disproves_a_difference_too() -> None:
    blocks = [_own(height) for height in (63, 64, 65)]
    members = tuple([validator(node) for node in range(4)])
    after = ValidatorSet(epoch=Epoch(1), members=members)
    last = samples.certificate(64)
    link = EpochLink(
        certificate=replace(last, checkpoint=replace(last.checkpoint, next_set=after.hash)),
        validators=after,
    )
    for found, halts in ((64, False), (65, True)):
        record = _found_at(blocks[found - 63])
        replica, effects = _next_life(
            Bench(1), [EpochBegun(link=link), record], *blocks, epoch=Epoch(1)
        )
        assert any(isinstance(effect, Halt) for effect in effects) == halts
        assert replica.acknowledged == (64 if halts else 65)


@pytest.mark.parametrize(
    "held",
    [
        Tip(certificate=samples.certificate(62)),
        Tip(certificate=samples.certificate(66)),
        Anchor(certificate=samples.certificate(64, b"x" * 32)),
    ],
    ids=["of an earlier block", "of one not executed here", "of another block"],
)
def test_a_difference_that_no_certificate_held_disproves_halts_again(held: Record) -> None:
    blocks = [_own(height) for height in (62, 63, 64, 65)]
    replica, effects = _next_life(Bench(1), [_found_at(blocks[1]), held], *blocks)
    assert any(isinstance(effect, Halt) and "earlier life" in effect.reason for effect in effects)
    assert replica.acknowledged == 62


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
