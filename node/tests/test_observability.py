"""Health, status, logs and metrics: what an operator sees."""

from __future__ import annotations

import io
import json
import logging as standard_logging
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
import structlog

from consensus.core.quorum import faults, weak_quorum
from consensus.core.types import Phase
from node import logging
from node.health import ITEMS, Finding, findings, ready
from node.limits import METRIC_LABELS_MAX
from node.metrics import Metrics
from node.runtime.service import phase_word
from node.status import PHASES, duration, from_json, to_json, to_text
from node.tests.fake_node import STATUS

assert standard_logging.__name__ == "logging"


def codes(**changes: object) -> list[str]:
    return [item.item.code for item in findings(replace(STATUS, **changes))]  # type: ignore[arg-type]


LOG_ROLES: dict[str, object] = {
    "log_cosigners": 4,
    "log_cosigners_needed": 2,
    "log_issuers": 4,
}


@pytest.mark.parametrize("members", range(1, 65))
def test_a_set_whose_members_all_have_log_keys_is_short_of_nothing(members: int) -> None:
    roles = {"log_cosigners": members, "log_issuers": members}
    needed = {"log_cosigners_needed": weak_quorum(members), "faults_tolerated": faults(members)}
    found = codes(**roles, **needed)
    assert not {"cosigners-short", "issuers-short"} & set(found)


def test_a_healthy_node_has_no_findings() -> None:
    assert findings(STATUS) == ()
    assert ready(())


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"phase": "starting"}, ["starting"]),
        ({"phase": "stopping"}, ["stopping"]),
        ({"phase": "recovering", "height_known": 500}, ["recovering"]),
        ({"phase": "catching-up"}, ["catching-up"]),
        ({"height_known": 200}, ["catching-up"]),
        ({"validators_connected": 2}, ["quorum-missing"]),
        ({"last_block_ms": STATUS.now_ms - 60_000}, ["stalled"]),
        ({"view_change_ms": 5_000}, ["view-change"]),
        ({"conservation_error": -1}, ["conservation-broken"]),
        ({"disk_free_bytes": 1}, ["disk-full"]),
        ({"disk_free_bytes": 5}, ["disk-low"]),
        ({"clock_offset_ms": -300}, ["clock-offset"]),
        ({"mempool_count": 950}, ["mempool-full"]),
        ({"records_damaged": 2}, ["record-damaged"]),
        ({"faults_tolerated": 0, "validators": 1}, ["no-lie-tolerated"]),
        ({"peers": (replace(STATUS.peers[0], connected=False),)}, ["peers-missing"]),
        (LOG_ROLES | {"log_cosigners": 3, "log_issuers": 2}, []),
        (LOG_ROLES | {"log_cosigners": 2}, ["cosigners-short"]),
        (LOG_ROLES | {"log_cosigners": 0}, ["cosigners-short"]),
        (LOG_ROLES | {"log_issuers": 1}, ["issuers-short"]),
        (LOG_ROLES | {"log_issuers": 0}, ["issuers-short"]),
    ],
)
def test_what_is_wrong_is_found_and_consequences_are_left_out(
    changes: dict[str, object], expected: list[str]
) -> None:
    assert codes(**changes) == expected


@pytest.mark.parametrize(
    ("phase", "catching_up", "word"),
    [
        (Phase.STARTING, False, "starting"),
        (Phase.STARTING, True, "catching-up"),
        (Phase.SEEKING, False, "recovering"),
        (Phase.SEEKING, True, "recovering"),
        (Phase.RECOVERING, True, "recovering"),
        (Phase.VOTING, True, "catching-up"),
        (Phase.VOTING, False, "running"),
    ],
)
def test_a_lost_voting_record_is_recovering_from_the_first_moment(
    phase: Phase, catching_up: bool, word: str
) -> None:
    assert phase_word(phase, catching_up=catching_up) == word
    assert word in PHASES


def test_every_item_can_be_found_and_says_what_to_do() -> None:
    assert len({item.code for item in ITEMS}) == len(ITEMS)
    known = {item.code for item in ITEMS}
    for item in ITEMS:
        assert item.title
        assert item.next_step
        assert set(item.depends_on) <= known - {item.code}


def test_what_blocks_readiness_comes_first() -> None:
    found = findings(replace(STATUS, clock_offset_ms=999, phase="catching-up"))
    assert [item.blocks_ready for item in found] == [True, False]
    assert not ready(found)


def test_status_survives_json() -> None:
    changed = replace(STATUS, phase="catching-up", height=10)
    document = json.loads(json.dumps(to_json(changed, findings(changed))))
    assert document["supply"] == "1000000000000000000"
    assert document["ready"] is False
    assert from_json(document) == changed
    assert Finding.from_json(document["health"][0]).detail == "32 blocks behind"
    assert from_json(document | {"news": 1}) == changed
    assert STATUS.phase in PHASES


def test_status_is_one_screen_with_the_reasons_first() -> None:
    changed = replace(STATUS, phase="catching-up", height=10, height_known=422)
    text = to_text(changed, findings(changed))
    lines = text.splitlines()
    assert lines[0].startswith("node n0 (validator)  v0.1.0  up 3h12m")
    assert lines[0].endswith("NOT READY")
    assert "catching-up" in lines[1]
    assert "412 blocks behind" in lines[1]
    assert "height 10 / 422" in text
    assert len(lines) < 24
    assert to_text(STATUS, ()).splitlines()[0].endswith("READY")


@pytest.mark.parametrize(
    ("milliseconds", "text"),
    [(0, "0s"), (59_999, "59s"), (65_000, "1m05s"), (11_520_000, "3h12m"), (90_000_000, "1d01h")],
)
def test_time_spans_are_short(milliseconds: int, text: str) -> None:
    assert duration(milliseconds) == text


# --- logs ---


@pytest.fixture
def clean_logging() -> Iterator[None]:
    yield
    structlog.reset_defaults()


@pytest.mark.usefixtures("clean_logging")
def test_a_console_line_has_time_level_event_and_fields() -> None:
    stream = io.StringIO()
    logging.configure(stream=stream)
    structlog.get_logger().info("block.committed", height=18_204, view=3, note="two words")
    line = stream.getvalue()
    assert line[8:].startswith(" INFO    block.committed  height=18204 view=3 note=")
    assert line.endswith('note="two words"\n')


@pytest.mark.usefixtures("clean_logging")
def test_json_lines_carry_the_same_keys() -> None:
    stream = io.StringIO()
    logging.configure(form="json", stream=stream)
    structlog.get_logger().warning("peer.lost", peer=b"\xab", reasons=("a", "b"))
    event = json.loads(stream.getvalue())
    assert event.pop("time").endswith("Z")
    assert event == {
        "event": "peer.lost",
        "level": "warning",
        "peer": "ab",
        "reasons": ["a", "b"],
    }


@pytest.mark.usefixtures("clean_logging")
def test_less_severe_events_are_not_written() -> None:
    stream = io.StringIO()
    logging.configure(level="warning", stream=stream)
    structlog.get_logger().info("block.committed")
    assert stream.getvalue() == ""


@pytest.mark.usefixtures("clean_logging")
@pytest.mark.parametrize("form", ["json", "console"])
def test_secrets_never_reach_the_output(form: str) -> None:
    stream = io.StringIO()
    logging.configure(form=form, stream=stream)
    pem = "x -----BEGIN ENCRYPTED PRIVATE KEY-----\nPLANTED\n-----END ENCRYPTED PRIVATE KEY-----"
    structlog.get_logger().error(
        "wallet.opened",
        passphrase="PLANTED",
        secret_key=b"PLANTED",
        nested={"api_token": "PLANTED"},
        text=pem,
    )
    assert "PLANTED" not in stream.getvalue()
    assert b"PLANTED".hex() not in stream.getvalue()


@pytest.mark.usefixtures("clean_logging")
def test_an_exception_is_written_with_its_trace() -> None:
    stream = io.StringIO()
    logging.configure(stream=stream)
    try:
        raise RuntimeError("planted defect")
    except RuntimeError:
        structlog.get_logger().exception("http.crashed")
    assert "planted defect" in stream.getvalue()
    assert "Traceback" in stream.getvalue()


# --- metrics ---


@dataclass(frozen=True, slots=True, kw_only=True)
class RoomStatistics:
    """What a room might count."""

    phase: Phase = Phase.VOTING
    executed: int = 1
    bytes_sent_total: int = 7
    queue_bytes: int = 3
    refusals_total: dict[str, int] = field(default_factory=dict)
    timeout_ms: int = 1_500
    view_changes_total: int = 4
    height: int = 1
    text: str = "not a number"


def test_the_page_shows_status_rooms_and_instruments() -> None:
    metrics = Metrics()
    metrics.watch_status(lambda: (STATUS, findings(replace(STATUS, phase="starting"))))
    metrics.watch("transport", lambda: RoomStatistics(refusals_total={"wrong chain": 2}))
    metrics.consensus_phase_seconds.labels("prepare").observe(0.003)
    page = metrics.render().decode()
    for line in (
        "hypermesh_consensus_height 42.0",
        "hypermesh_consensus_view 3.0",
        "hypermesh_transport_peers_count 3.0",
        "hypermesh_node_resident_memory_bytes 8.8e+07",
        'hypermesh_node_ready{item="starting"} 0.0',
        'hypermesh_node_ready{item="disk-low"} 1.0',
        "hypermesh_transport_bytes_sent_total 7.0",
        "hypermesh_transport_queue_bytes 3.0",
        'hypermesh_transport_refusals_total{kind="wrong chain"} 2.0',
        'hypermesh_consensus_phase_seconds_bucket{le="0.005",phase="prepare"} 1.0',
    ):
        assert line in page, line


def test_every_metric_follows_the_naming_rule() -> None:
    metrics = Metrics()
    metrics.watch_status(lambda: (STATUS, ()))
    names = [
        line.split()[2]
        for line in metrics.render().decode().splitlines()
        if line.startswith("# TYPE ")
    ]
    assert len(names) > 30
    rooms = (
        "consensus",
        "mempool",
        "transport",
        "trustchain",
        "caesar",
        "native",
        "node",
        "metrics",
    )
    for name in names:
        assert name.startswith(tuple(f"hypermesh_{room}_" for room in rooms)), name
        assert "_ms" not in name, name


def test_no_metric_appears_twice_and_times_are_seconds() -> None:
    metrics = Metrics()
    metrics.watch_status(lambda: (STATUS, ()))
    metrics.watch("consensus", RoomStatistics)
    page = metrics.render().decode()
    families = [line.split()[2] for line in page.splitlines() if line.startswith("# TYPE ")]
    assert len(set(families)) == len(families)
    assert "hypermesh_consensus_height 42.0" in page
    assert "hypermesh_consensus_view_changes_total 0.0" in page
    assert "hypermesh_consensus_timeout_seconds 1.5" in page
    assert "hypermesh_consensus_phase " not in page  # the number of a member says nothing
    assert "hypermesh_consensus_executed" not in page  # the height under another name
    assert "_created" not in page


def test_labels_are_bounded_and_the_overflow_is_counted() -> None:
    metrics = Metrics()
    many = {f"reason-{at}": 1 for at in range(METRIC_LABELS_MAX + 10)}
    metrics.watch("transport", lambda: RoomStatistics(refusals_total=many))
    page = metrics.render().decode()
    assert page.count("hypermesh_transport_refusals_total{") == METRIC_LABELS_MAX + 1
    assert 'kind="other"} 10.0' in page
    assert "hypermesh_metrics_label_overflow_total 10.0" in metrics.render().decode()
