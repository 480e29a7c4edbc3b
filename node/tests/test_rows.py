"""The page of feature rows is complete, and what it cites exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "reference" / "consensus-rows.md").read_text()
LENGTHS = {"A": 15, "B": 9, "C": 10, "D": 8, "E": 5, "F": 4, "G": 6, "H": 5, "I": 4, "J": 8}
ROWS = re.findall(r"^\| ([A-K]\d+) [^|]*\| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE)
TESTS = sorted(set(re.findall(r"`([\w/-]+\.py)::(\w+)`", PAGE)))


def test_every_row_is_there_once_and_in_order() -> None:
    expected = [f"{part}{at}" for part, last in LENGTHS.items() for at in range(1, last + 1)]
    assert [name for name, _, _ in ROWS if name[0] != "K"] == expected
    assert [name for name, _, _ in ROWS if name[0] == "K"] == ["K8", "K9", "K10", "K11", "K12"]
    assert len(ROWS) == len(re.findall(r"^\| [A-Z]\d", PAGE, re.MULTILINE))


@pytest.mark.parametrize(("name", "what", "shown"), ROWS, ids=[row[0] for row in ROWS])
def test_a_row_is_shown_or_says_why_not(name: str, what: str, shown: str) -> None:
    if "::" not in shown and ".txt" not in shown and "figure" not in shown:
        assert re.search(r"not (built|tested)", what), name


@pytest.mark.parametrize(("path", "name"), TESTS, ids=[name for _, name in TESTS])
def test_a_test_that_is_cited_exists(path: str, name: str) -> None:
    assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE)


def test_cited_cases_and_figures_exist() -> None:
    cases = re.findall(r"`([\w/]+\.txt)`", PAGE)
    figures = re.findall(r"figure `(\w+)`", PAGE)
    assert cases
    assert figures
    assert [path for path in cases if not (ROOT / path).is_file()] == []
    sources = "\n".join(path.read_text() for path in (ROOT / "bench").glob("*.py"))
    assert [name for name in figures if f'"{name}"' not in sources] == []
