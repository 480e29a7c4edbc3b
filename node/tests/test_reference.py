"""The generated pages of docs/reference say what the code says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "reference"


def test_the_generated_pages_are_current() -> None:
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "reference.py", "--check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def test_what_an_operator_looks_up_is_there() -> None:
    assert "hypermesh_node_ready" in (PAGES / "metrics.md").read_text()
    assert "## GET /api/v1/ctlog/proof" in (PAGES / "http.md").read_text()
