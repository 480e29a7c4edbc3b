"""The generated pages of docs/reference say what the code says."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

from transport.metrics import EndpointStatistics

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


def test_the_wire_profile_shows_every_vector() -> None:
    page = (PAGES / "stoq.md").read_text()
    vectors = json.loads((ROOT / "transport" / "tests" / "vectors" / "stoq.json").read_text())
    assert len(vectors["keys"]) == 3
    assert all(row["node_id"] in page and row["spki_prefix"] in page for row in vectors["keys"])
    assert all(row["hex"] in page for row in vectors["frames"])
    assert "{{" not in page


def test_every_room_has_its_limits_on_the_page_with_value_and_reason() -> None:
    page = (PAGES / "limits.md").read_text()
    for room in ("native", "transport", "consensus", "caesar", "trustchain", "node"):
        assert f"## {room}\n" in page
    assert "| HANDSHAKES_MAX | 64 |  | half of it triggers Retry" in page
    assert "| PROOF_HASHES_MAX | 128 |  | A proof in a tree" in page


def test_the_metrics_that_the_tuning_guide_names_exist() -> None:
    text = (ROOT / "docs" / "how-to" / "tune-stoq.md").read_text()
    named = set(re.findall(r"hypermesh_transport_(\w+)", text))
    assert named
    assert named <= {field.name for field in fields(EndpointStatistics)}
