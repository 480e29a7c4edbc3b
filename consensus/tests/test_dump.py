"""The dump shows who voted for what, who did not, and where everybody is."""

from dataclasses import asdict

from consensus.core.dump import AgreementDump, dump
from consensus.core.inputs import CustodyChanged, PeerLost
from consensus.core.stall import explain
from consensus.core.types import Height, ReplicaIndex, View
from consensus.limits import WINDOW_BLOCKS
from consensus.tests import samples
from consensus.tests.test_replica import Bench, status


def shown(bench: Bench) -> AgreementDump:
    return dump(bench.replica, lambda index: f"n{index}", bench.replica.now)


def test_a_place_names_its_voters_and_those_whose_vote_is_missing() -> None:
    bench = Bench(1)
    bench.propose(1)
    bench.hear_votes(samples.prepare(0, 1), 2)
    (place,) = shown(bench).places
    assert (place.sequence, place.prepared, place.committed) == (1, False, False)
    assert place.digest == bench.replica.instances[1].pre_prepare.digest.hex()  # type: ignore[union-attr]
    assert place.body_held
    assert (place.prepares, place.missing) == (("n0", "n2"), ("n1", "n3"))
    bench.own(samples.prepare(0, 1), 1)
    bench.hear_votes(samples.commit(0, 1), 2)
    (place,) = shown(bench).places
    assert place.prepared
    assert (place.commits, place.missing) == (("n2",), ("n0", "n1", "n3"))


def test_votes_are_shown_before_their_proposal_comes() -> None:
    bench = Bench(1)
    bench.hear_votes(samples.prepare(0, 2), 3)
    (place,) = shown(bench).places
    assert (place.sequence, place.digest, place.body_held) == (2, "", False)
    assert place.prepares == ("n3",)


def test_a_view_change_shows_who_wants_it() -> None:
    bench = Bench(3)
    bench.hear(1, samples.view_change(1, 1))
    bench.hear(2, samples.view_change(1, 2))
    found = shown(bench)
    assert not found.active
    assert (found.view, found.primary) == (1, "n1")
    assert [(change.name, change.view) for change in found.view_changes] == [("n1", 1), ("n2", 1)]


def test_others_are_shown_where_they_said_they_are() -> None:
    bench = Bench(1)
    bench.hear(3, status(3, view=View(4), executed=Height(7)))
    bench.feed(PeerLost(peer=ReplicaIndex(0)))
    at = {peer.name: peer for peer in shown(bench).peers}
    assert sorted(at) == ["n0", "n2", "n3"]
    assert (at["n3"].view, at["n3"].executed, at["n3"].status_age_ms) == (4, 7, 0)
    assert not at["n0"].connected


def test_what_waits_and_how_far_agreement_may_go_is_shown() -> None:
    bench = Bench(1)
    now = bench.replica.now.monotonic_us
    bench.feed(CustodyChanged(pending=3, pending_bytes=30, oldest_us=now - 2_000_000))
    found = shown(bench)
    assert (found.pending, found.oldest_ms) == (3, 2_000)
    assert found.watermark_high == found.certified + WINDOW_BLOCKS
    assert found.waits_for == explain(bench.replica, lambda index: f"n{index}")


def test_the_dump_holds_no_bytes() -> None:
    bench = Bench(1)
    bench.propose(1)
    bench.hear_votes(samples.prepare(0, 1), 2)

    def leaves(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for item in value.values() for leaf in leaves(item)]
        if isinstance(value, tuple | list):
            return [leaf for item in value for leaf in leaves(item)]
        return [value]

    kinds = {type(leaf) for leaf in leaves(asdict(shown(bench)))}
    assert kinds <= {str, int, bool, type(None)}
