"""Whole clusters under faults. A failing case prints the command that replays it exactly."""

from collections import Counter

import pytest

from consensus.core import quorum as quorums
from consensus.core import replica as replicas
from consensus.errors import ConsensusError
from consensus.sim.campaign import sweep
from consensus.sim.checker import Violation
from consensus.sim.run import SIZES, Planted, simulate

SEEDS_PER_SIZE = 100
SOMETIMES = (
    "NEW-VIEW sent",
    "NEW-VIEW with a null batch",
    "NEW-VIEW from several checkpoints",
    "VIEW-CHANGE with prepared batches",
    "VIEW-CHANGE with certificates of several views",
    "bodies by digest",
    "bodies fetched",
    "catch_up.finished",
    "crashes between execution and vote",
    "crashes between sync and send",
    "crashes that lost a write",
    "custody forwarded",
    "disks lost",
    "fault bad_new_view",
    "fault equivocation",
    "lies: NEW-VIEW with null for a batch",
    "lies: NEW-VIEW without its last batch",
    "lies: VIEW-CHANGE without certificates",
    "lies: two batches for one place",
    "lies: wrong state root",
    "messages cut",
    "messages delayed",
    "messages dropped",
    "messages muffled",
    "messages repeated",
    "old backups restored, both files",
    "old backups restored, consensus.db",
    "states lost",
    "partitions, both",
    "partitions, one node",
    "partitions, one way",
    "payloads sent to some nodes only",
    "replica.amnesia_found",
    "replica.recovered",
    "replica.recovery_bound",
    "runs with a crash of all",
    "runs with liars",
    "vectors with several leaves",
)


@pytest.mark.timeout(400)
def test_no_property_fails_in_many_runs_and_every_fault_occurs() -> None:
    counters: Counter[str] = Counter()
    cases = [(seed, members) for seed in range(SEEDS_PER_SIZE) for members in SIZES]
    failures = sweep(cases, counters)
    assert not failures, "\n".join(
        f"python -m consensus.sim --seed {seed} --n {members} --trace: {text}"
        for seed, members, text in failures
    )
    assert counters["runs"] == len(cases) >= 500
    never = [name for name in SOMETIMES if not counters[name]]
    assert not never, f"the fault mix never produced: {never}"


@pytest.mark.parametrize(("seed", "members"), [(3, 4), (11, 7), (5, 1)])
def test_equal_seeds_give_equal_runs(seed: int, members: int) -> None:
    first: list[str] = []
    second: list[str] = []
    assert simulate(seed, members, trace=first) == simulate(seed, members, trace=second)
    assert first == second


def _found(members: int, planted: Planted, seeds: int) -> bool:
    for seed in range(seeds):
        try:
            simulate(seed, members, planted=planted)
        except (Violation, ConsensusError):
            return True
    return False


@pytest.mark.parametrize(
    ("members", "planted"),
    [
        (4, Planted(count_before_durable=True)),
        (3, Planted(drop_after_execution=True)),
        (4, Planted(forget_votes=True)),
    ],
    ids=["vote counts before it is durable", "records dropped after execution", "votes forgotten"],
)
def test_a_planted_bug_is_found(members: int, planted: Planted) -> None:
    assert _found(members, planted, 100)


@pytest.mark.parametrize("members", [2, 3, 5])
def test_the_naive_quorum_is_found(members: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def naive(size: int) -> int:
        return 2 * quorums.faults(size) + 1

    monkeypatch.setattr(quorums, "quorum", naive)
    monkeypatch.setattr(replicas, "quorum", naive)
    assert _found(members, Planted(liar_leads=members == 5), 100)


@pytest.mark.parametrize("members", [4, 5, 7])
def test_a_lying_first_primary_does_no_harm(members: int) -> None:
    assert not _found(members, Planted(liar_leads=True), 15)
