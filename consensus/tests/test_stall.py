"""The line that explains a stall names what is missing and who has not given it."""

from consensus.core.inputs import CustodyChanged, PeerLost, Timer, TimerFired
from consensus.core.stall import explain, quiet_us
from consensus.core.types import Height, Instant, Phase, ReplicaIndex, View
from consensus.tests import samples
from consensus.tests.test_replica import START_MS, Bench, status


def line(bench: Bench) -> str:
    return explain(bench.replica, lambda index: f"n{index}")


def test_a_replica_that_has_just_started_names_who_is_silent() -> None:
    bench = Bench(1, started=False)
    bench.hear(0, status(0))
    text = line(bench)
    assert "waits for the status of 2 others, none from n2, n3" in text
    assert text.endswith("n0 in view 0 at block 0, n2 silent, n3 silent")


def test_a_silent_primary_is_named() -> None:
    bench = Bench(1)
    bench.feed(PeerLost(peer=ReplicaIndex(0)))
    text = line(bench)
    assert text.startswith("primary n0 has proposed nothing for block 1; ")
    assert "n0 not connected" in text
    assert "n1 (this node) in view 0 at block 0" in text


def test_missing_votes_are_counted_and_their_signers_named() -> None:
    bench = Bench(1)
    bench.propose(1)
    assert line(bench).startswith("block 1 has 1 of 3 PREPARE votes, none from n1, n2, n3; ")
    bench.own(samples.prepare(0, 1), 1)
    bench.hear_votes(samples.prepare(0, 1), 2)
    assert line(bench).startswith("block 1 has 0 of 3 COMMIT votes, none from n0, n1, n2, n3; ")
    bench.hear_votes(samples.commit(0, 1), 0, 2)
    assert line(bench).startswith("block 1 has 2 of 3 COMMIT votes, none from n1, n3; ")


def test_a_missing_body_is_said() -> None:
    bench = Bench(1)
    bench.hear(0, samples.pre_prepare(0, 1))
    assert line(bench).startswith("the body of block 1 is missing")


def test_a_view_change_says_who_wants_it_and_then_who_must_announce_it() -> None:
    bench = Bench(3)
    bench.hear(1, samples.view_change(1, 1))
    bench.hear(2, samples.view_change(1, 2))  # W want it: joined, its own is not durable yet
    text = line(bench)
    assert text.startswith("a change to view 1 has 2 of 3 VIEW-CHANGEs, none from n0, n3; ")
    bench.hear(0, samples.view_change(1, 0))
    assert line(bench).startswith("enough want view 1, and its primary n1 has not announced it; ")


def test_peers_in_other_views_and_phases_are_shown_where_they_are() -> None:
    bench = Bench(1)
    bench.hear(3, status(3, view=View(4), phase=Phase.RECOVERING, executed=Height(7)))
    assert "n3 recovering in view 4 at block 7" in line(bench)


def test_a_halted_replica_says_so() -> None:
    bench = Bench(1)
    bench.replica.halt("its data differs")
    assert line(bench).startswith("this node has stopped voting for good")


def test_a_payload_is_missed_at_once_and_an_idle_block_when_it_is_due() -> None:
    bench = Bench(1)
    idle_us = bench.replica.timing.idle_block_interval_ms * 1_000
    at = Instant(monotonic_us=1_000_000 + idle_us, unix_ms=START_MS)
    assert quiet_us(bench.replica, at, 1_000_000) == 0
    later = Instant(monotonic_us=at.monotonic_us + 7_000_000, unix_ms=START_MS)
    assert quiet_us(bench.replica, later, 1_000_000) == 7_000_000
    assert quiet_us(bench.replica, later, 5_000_000) == 3_000_000  # nothing is due before the start
    came = 2_000_000
    bench.feed(CustodyChanged(pending=3, pending_bytes=90, oldest_us=came))
    assert quiet_us(bench.replica, at, 1_000_000) == at.monotonic_us - came


def test_explaining_changes_nothing() -> None:
    bench = Bench(1)
    bench.propose(1)
    before = bench.replica.statistics()
    line(bench)
    assert bench.replica.statistics() == before
    assert bench.feed(TimerFired(timer=Timer.CLOCK)) is not None
