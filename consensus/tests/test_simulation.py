"""Whole clusters under faults. A failing case prints the command that replays it exactly."""

import pytest

from consensus.core import quorum as quorums
from consensus.core import replica as replicas
from consensus.errors import ConsensusError
from consensus.sim.checker import Violation
from consensus.sim.faults import _cut
from consensus.sim.membership import members_of, propose_set
from consensus.sim.run import Planted, simulate
from consensus.sim.scenes.stage import Staged


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


def test_a_primary_that_joined_later_is_isolated_too() -> None:
    """In a later epoch the indexes of replicas are not those of nodes, nor bounded by the first."""
    stage = Staged(0, 4, {}, spares=1)
    stage.start()
    stage.run(50)
    for number, nodes in enumerate(([0, 1, 2, 3, 4], [4, 0, 1, 2, 3])):
        propose_set(stage, nodes, number)
        assert stage.run(20_000, lambda wanted=nodes: members_of(stage) == wanted)  # type: ignore[misc]
        stage.run(200)
    alone = {(4, other) for other in range(4)} | {(other, 4) for other in range(4)}
    assert _cut(stage, "primary isolated") == alone
