"""Hand-written cases of section 3.6 and 3.9 of the reference, as text files."""

from pathlib import Path

import pytest

from consensus.sim.checker import Violation
from consensus.sim.script import play

SCENARIOS = sorted((Path(__file__).parent / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_scenario_plays_out_as_written(path: Path) -> None:
    play(path.read_text())


def test_a_mismatch_shows_the_line_and_the_state_of_all_nodes() -> None:
    with pytest.raises(Violation, match="expect height 7 of 0") as caught:
        play("nodes 4\nrun 20\nexpect height 7 of 0\n")
    assert "0: VOTING view 0" in str(caught.value)


def test_there_are_scenarios() -> None:
    assert len(SCENARIOS) >= 10
