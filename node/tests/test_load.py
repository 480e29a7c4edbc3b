"""The load generator against channels that exist only in memory."""

import itertools
import math
from collections import Counter
from collections.abc import Sequence

import pytest
import trio
from trio.testing import MockClock

from native import codec
from native.hashing import sha256
from node.runtime.api import Outcome
from node.runtime.load import (
    APPLIED,
    CALL_PAUSE_S,
    CALLS_PER_NODE_MAX,
    COALESCE_S,
    NO_ANSWER,
    PENDING,
    AlikeChannel,
    Answer,
    CallFailed,
    Generator,
    Report,
    Schedule,
    histogram,
    percentile,
)
from node.runtime.submissions import CODE_MEMPOOL_FULL


class Node:
    """Answers every call after a while; remembers when it got what."""

    def __init__(self, takes_s: float = 0.01, *, full: int = 0, down: bool = False) -> None:
        self.takes_s = takes_s
        self.full = full
        self.down = down
        self.got: list[tuple[float, bytes]] = []

    async def submit(self, payloads: Sequence[bytes]) -> Sequence[int]:
        if self.down:
            raise CallFailed("down")
        now = trio.current_time()
        await trio.sleep(self.takes_s)
        if self.full:
            self.full -= 1
            return [CODE_MEMPOOL_FULL] * len(payloads)
        self.got += [(now, payload) for payload in payloads]
        return [APPLIED] * len(payloads)


def numbered(count: int) -> list[bytes]:
    return [b"%d" % index for index in range(count)]


def run(schedule: Schedule, nodes: Sequence[Node], count: int) -> tuple[Generator, Report]:
    async def main() -> tuple[Generator, Report]:
        generator = Generator(schedule, nodes, numbered(count))
        started = trio.current_time()
        await generator.run()
        return generator, generator.report(started, trio.current_time(), 0.0)

    return trio.run(main, clock=MockClock(autojump_threshold=0.0))


def test_an_open_loop_sends_at_the_intended_moments() -> None:
    node = Node(0.5)
    schedule = Schedule(strands=100, rate=10.0, seconds=2.0)
    _, report = run(schedule, [node], schedule.count)
    first = node.got[0][0]
    assert [at - first for at, _ in node.got] == pytest.approx([n / 10 for n in range(20)])
    assert report.applied == report.sent == 20
    assert report.p50_ms == pytest.approx(500, abs=1)


def test_latency_counts_from_the_intended_moment_also_when_a_strand_is_busy() -> None:
    _, report = run(Schedule(strands=1, rate=10.0, seconds=1.0), [Node(1.0)], 10)
    assert report.max_ms > 1800  # the second waited 0.9 s for the first, and then took 1 s


def test_a_strand_keeps_its_order() -> None:
    node = Node(0.03)
    run(Schedule(strands=3, rate=100.0, seconds=1.0), [node], 100)
    for strand in range(3):
        mine = [int(payload) for _, payload in node.got if int(payload) % 3 == strand]
        assert mine == sorted(mine)


def test_a_ramp_meets_both_rates() -> None:
    schedule = Schedule(strands=1, rate=10.0, rate_end=30.0, seconds=10.0)
    due = [schedule.due_s(index) for index in range(schedule.count)]
    assert schedule.count == 200
    assert due[1] == pytest.approx(1 / 10, rel=0.02)
    assert due[-1] - due[-2] == pytest.approx(1 / 30, rel=0.02)
    assert due[-1] < 10.0
    falling = Schedule(strands=1, rate=30.0, rate_end=10.0, seconds=10.0)
    assert falling.due_s(falling.count - 1) == pytest.approx(10.0, abs=0.2)


def test_saturation_keeps_so_many_in_flight() -> None:
    node = Node(0.1)
    schedule = Schedule(strands=4, mode="saturate", seconds=1.0, in_flight=8, call_size=2)
    _, report = run(schedule, [node], 1_000)
    assert report.tx_per_s == pytest.approx(80)  # 8 in each tenth of a second


def test_a_full_node_is_asked_again_and_a_dead_one_left() -> None:
    full, dead = Node(full=2), Node(down=True)
    _, report = run(Schedule(strands=2, rate=10.0, seconds=1.0), [dead, full], 10)
    assert report.applied == 10
    assert report.retries >= 3


def test_what_nobody_answers_is_counted_as_such() -> None:
    _, report = run(Schedule(strands=1, rate=1.0, seconds=1.0), [Node(down=True)], 1)
    assert report.applied == 0
    assert report.outcomes == {str(NO_ANSWER): 1}
    assert math.isnan(report.p50_ms)


class Ledger:
    """A node that took payloads, or knows what became of those another one took."""

    def __init__(self, *outcomes: Outcome, codes: bytes = b"", down: bool = False) -> None:
        self.said = bytes(outcomes)
        self.codes = codes or bytes(len(outcomes))
        self.down = down
        self.asked: list[tuple[int, bytes]] = []

    async def ask(self, payloads: Sequence[bytes]) -> Answer:
        ids = b"".join(map(sha256, payloads))
        return Answer(height=7, codes=self.codes, outcomes=self.said, ids=ids)

    async def outcomes(self, height: int, ids: bytes) -> Answer:
        self.asked.append((height, ids))
        if self.down:
            raise CallFailed("down")
        return Answer(height=height, codes=self.codes, outcomes=self.said, ids=ids)


def alike(first: Ledger, *others: Ledger) -> Sequence[int]:
    return trio.run(AlikeChannel(first, others).submit, numbered(len(first.said)))


def test_an_outcome_of_several_nodes_counts_when_they_agree() -> None:
    applied, failed, refused = Outcome.APPLIED, Outcome.FAILED, Outcome.REFUSED
    other = Ledger(applied, failed, codes=bytes([0, 5]))
    first = Ledger(applied, refused, failed, codes=bytes([0, 139, 5]))
    assert alike(first, other, other) == [0, 139, 5]
    ids = sha256(b"0") + sha256(b"2")
    assert other.asked == [(7, ids), (7, ids)], "only what was executed is asked for"
    assert alike(Ledger(applied), Ledger(Outcome.PENDING)) == [PENDING]
    assert alike(Ledger(Outcome.PENDING)) == [PENDING]
    with pytest.raises(CallFailed, match="down"):
        alike(Ledger(applied), Ledger(applied, down=True))
    with pytest.raises(CallFailed, match="two nodes say 0 and 5"):
        alike(Ledger(applied), Ledger(failed, codes=bytes([5])))


def test_an_answer_has_a_code_an_outcome_and_an_id_for_each_payload() -> None:
    answer = codec.encode((7, bytes(2), bytes([Outcome.APPLIED] * 2), bytes(64)))
    assert Answer.decode(answer, 2).verdicts() == [APPLIED, APPLIED]
    for data in (
        codec.encode((7, bytes(1), bytes(1), bytes(32))),
        codec.encode((7, bytes(2), bytes(1), bytes(64))),
        codec.encode((7, bytes(2), bytes(2), bytes(32))),
        codec.encode((7, bytes(2), bytes(2))),
    ):
        with pytest.raises(CallFailed, match="the answer"):
            Answer.decode(data, 2)


def test_what_is_due_while_enough_calls_are_in_flight_shares_the_next_one() -> None:
    node = Node(1.0)
    schedule = Schedule(strands=1_000, rate=100.0, seconds=1.0)
    run(schedule, [node], 100)
    moments = Counter(at for at, _ in node.got)
    assert len(moments) == CALLS_PER_NODE_MAX + 1, "eight went, the rest together"
    assert moments[max(moments)] > 80


def test_calls_that_overlap_are_a_pause_apart_and_one_on_an_idle_line_goes_at_once() -> None:
    node = Node(0.05)
    run(Schedule(strands=1_000, rate=1_000.0, seconds=1.0), [node], 1_000)
    moments = sorted({at for at, _ in node.got})
    gaps = [after - before for before, after in itertools.pairwise(moments)]
    assert min(gaps) >= CALL_PAUSE_S - 1e-9
    assert max(gaps) <= CALL_PAUSE_S + 2 * COALESCE_S
    quiet = Node(0.01)
    run(Schedule(strands=1_000, rate=50.0, seconds=1.0), [quiet], 50)
    assert len({at for at, _ in quiet.got}) == 50


def test_warm_up_is_left_out_of_the_latencies() -> None:
    generator, report = run(
        Schedule(strands=10, rate=10.0, seconds=2.0, warm_up_s=1.0), [Node()], 20
    )
    assert len(generator.latencies_ms(0.0)) == report.applied == 20
    started = min(intended for intended, _ in generator.samples)
    assert len(generator.latencies_ms(started + 1.0)) == 10


def test_a_histogram_counts_every_latency_below_its_bound() -> None:
    took = [0.05, 0.1, 1.0, 1.05, 900.0]
    found = histogram(took)
    assert sum(count for _, count in found) == len(took)
    assert found[0] == (0.1, 2)
    for below in (1.0, 1.05, 900.0):
        bound = next(bound for bound, _ in found if bound >= below)
        assert bound < below * 1.1
    assert histogram([]) == []


def test_percentiles_are_nearest_ranks() -> None:
    assert percentile([1.0, 2.0, 3.0, 4.0], 50) == 2.0
    assert percentile([1.0, 2.0, 3.0, 4.0], 100) == 4.0
    with pytest.raises(ValueError, match="no samples"):
        percentile([], 50)
