"""The comparison finds what it must find: each property, broken by hand."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.load import Plan
from chaos.checks import (
    Log,
    Violation,
    fullest,
    lanes_in_order,
    nothing_lost,
    promises_named,
    reads_exact,
    reads_linearizable,
    reads_monotone,
    reads_of_a_session,
    real_time_order,
    same_logs,
)
from chaos.client import Acknowledged, Read
from node.runtime.api import ReadMode

IDS = [bytes([at]) * 32 for at in range(4)]
HEADERS = {height: (b"header %d" % height, b"root %d" % height) for height in (11, 12, 13)}
LOG = Log(
    headers=HEADERS,
    receipts={IDS[0]: (11, 0), IDS[1]: (12, 0), IDS[2]: (12, 0), IDS[3]: (13, 0)},
)
ACKNOWLEDGED = [
    Acknowledged(0, 1.0, 1.5, 0, 11, True, "n0"),
    Acknowledged(1, 1.6, 2.0, 0, 12, True, "n0"),
    Acknowledged(2, 1.6, 2.1, 0, 13, False, "n1"),
    Acknowledged(3, 1.7, 3.0, 0, 13, True, "n1"),
]
READS = [Read(0, 1.0, 1.1, 10, 5), Read(0, 2.0, 2.1, 12, 8), Read(1, 2.0, 2.1, 11, 6)]


def at_height(node: int, invoked: float, height: int, balance: int) -> Read:
    return _read(node, invoked, height, balance, ReadMode.AT_HEIGHT)


def linearizable_read(node: int, invoked: float, height: int, balance: int) -> Read:
    return _read(node, invoked, height, balance, ReadMode.LINEARIZABLE)


def _read(node: int, invoked: float, height: int, balance: int, mode: ReadMode) -> Read:
    return Read(node, invoked, invoked + 0.05, height, balance, mode, mode)


def test_a_history_that_is_well_passes() -> None:
    same_logs([LOG, LOG], above=10, through=13)
    nothing_lost(ACKNOWLEDGED, IDS, [LOG, LOG])
    real_time_order(ACKNOWLEDGED, IDS, LOG)
    reads_exact(READS, IDS, LOG, before=5, above=10)
    reads_monotone(READS, forgot=())
    told = [*READS, at_height(1, 1.52, 11, 6), at_height(0, 2.05, 12, 8), at_height(2, 3.1, 13, 9)]
    reads_of_a_session(told, ACKNOWLEDGED, IDS, LOG)
    told += [linearizable_read(at, 1.4 + at / 2, 11 + at, (6, 7, 8, 9)[at]) for at in range(4)]
    reads_linearizable(told, ACKNOWLEDGED, IDS, LOG, before=5)
    promises_named(told)
    for strands in (1, 2, 4):
        lanes_in_order(_plan(strands), IDS, LOG)


def test_blocks_that_differ_or_are_missing_are_found() -> None:
    other = replace(LOG, headers=HEADERS | {12: (b"another", b"root 12")})
    with pytest.raises(Violation, match="S1: block 12"):
        same_logs([LOG, other], above=10, through=13)
    short = replace(LOG, headers={11: HEADERS[11], 12: HEADERS[12]})
    with pytest.raises(Violation, match=r"block 13 is missing on \[1\]"):
        same_logs([LOG, short], above=10, through=13)
    with pytest.raises(Violation, match="S3"):
        same_logs([LOG, replace(LOG, receipts={})], above=10, through=13)


def test_a_node_may_lack_what_is_below_its_snapshot_and_nothing_else() -> None:
    def since(first: int) -> Log:
        return replace(
            LOG,
            headers={at: header for at, header in HEADERS.items() if at >= first},
            receipts={key: found for key, found in LOG.receipts.items() if found[0] >= first},
        )

    same_logs([since(12), LOG, since(13)], above=10, through=13)
    nothing_lost(ACKNOWLEDGED, IDS, [since(12), LOG, since(13)])
    assert fullest([since(12), LOG]) is LOG
    stands = replace(since(12), receipts=since(13).receipts)
    same_logs([stands, LOG], above=10, through=13)
    nothing_lost(ACKNOWLEDGED, IDS, [stands, LOG])
    with pytest.raises(Violation, match="S3"):
        same_logs([replace(LOG, receipts=since(12).receipts), LOG], above=10, through=13)
    with pytest.raises(Violation, match=r"block 11 is missing on \[0, 1\]"):
        same_logs([since(12), since(13)], above=10, through=13)
    with pytest.raises(Violation, match="S3"):
        same_logs([replace(since(12), receipts={}), LOG], above=10, through=13)
    with pytest.raises(Violation, match="S9: payload 3, acknowledged, is not on node 0"):
        nothing_lost(ACKNOWLEDGED, IDS, [replace(since(12), receipts={}), LOG])


def test_an_acknowledged_payload_that_is_gone_or_came_out_otherwise_is_found() -> None:
    gone = replace(LOG, receipts={k: v for k, v in LOG.receipts.items() if k != IDS[1]})
    with pytest.raises(Violation, match="S9: payload 1, acknowledged, is not on node 1"):
        nothing_lost(ACKNOWLEDGED, IDS, [LOG, gone])
    for wrong in ((12, 9), (13, 0), (11, 0)):  # result; later than told; not where it was told
        with pytest.raises(Violation, match="S9: payload 1"):
            nothing_lost(ACKNOWLEDGED, IDS, [replace(LOG, receipts=LOG.receipts | {IDS[1]: wrong})])


def test_an_order_against_real_time_is_found() -> None:
    swapped = replace(LOG, receipts=LOG.receipts | {IDS[0]: (12, 0), IDS[1]: (11, 0)})
    with pytest.raises(Violation, match="S10: payload 1"):
        real_time_order(ACKNOWLEDGED, IDS, swapped)
    same_block = replace(LOG, receipts=LOG.receipts | {IDS[1]: (11, 0)})
    with pytest.raises(Violation, match="S10: payload 1"):
        real_time_order(ACKNOWLEDGED, IDS, same_block)


def test_a_lane_out_of_order_or_with_a_gap_is_found() -> None:
    for broken in (
        LOG.receipts | {IDS[1]: (10, 0)},
        {k: v for k, v in LOG.receipts.items() if k != IDS[1]},
    ):
        with pytest.raises(Violation, match="S4"):
            lanes_in_order(_plan(1), IDS, replace(LOG, receipts=broken))


def test_a_read_that_shows_what_never_was_is_found() -> None:
    with pytest.raises(Violation, match="node 1 showed 7 at height 11, the log gives 6"):
        reads_exact([Read(1, 0.0, 0.1, 11, 7)], IDS, LOG, before=5, above=10)


def test_reads_that_go_back_are_found_unless_the_node_lost_its_disk() -> None:
    back = [*READS, Read(0, 3.0, 3.1, 11, 6)]
    with pytest.raises(Violation, match="node 0 showed height 12 and then 11"):
        reads_monotone(back, forgot=())
    reads_monotone(back, forgot={0})


def test_a_stale_read_at_a_height_is_found() -> None:
    told_before = [at_height(2, 2.05, 11, 6)]  # payload 1 was answered at 2.0 and is in block 12
    with pytest.raises(
        Violation, match=r"G4: node 2 showed height 11 to a client .* answered at 12"
    ):
        reads_of_a_session(told_before, ACKNOWLEDGED, IDS, LOG)
    back = [at_height(0, 0.5, 12, 8), at_height(1, 0.6, 11, 6)]
    with pytest.raises(Violation, match="the session showed height 12 and then 11"):
        reads_of_a_session(back, ACKNOWLEDGED, IDS, LOG)


def test_a_stale_linearizable_read_is_found() -> None:
    stale = [linearizable_read(0, 2.2, 12, 7)]  # three payments were answered before it
    with pytest.raises(Violation, match="G4: no order"):
        reads_linearizable(stale, ACKNOWLEDGED, IDS, LOG, before=5)
    reads_linearizable(stale, ACKNOWLEDGED, IDS, LOG, before=5, wrong_clocks={0})
    other_nodes = [linearizable_read(1, 1.7, 13, 9), linearizable_read(2, 1.9, 12, 8)]
    with pytest.raises(Violation, match="G4: no order"):
        reads_linearizable(other_nodes, ACKNOWLEDGED, IDS, LOG, before=5)
    invented = [linearizable_read(1, 3.5, 13, 10)]
    with pytest.raises(Violation, match="G4: no order"):
        reads_linearizable(invented, ACKNOWLEDGED, IDS, LOG, before=5)


def test_a_read_of_another_mode_than_asked_for_is_found() -> None:
    read = replace(linearizable_read(0, 2.2, 12, 8), promised=ReadMode.LOCAL)
    with pytest.raises(Violation, match="was asked linearizable and promised local"):
        promises_named([read])


def _plan(strands: int) -> Plan:
    return Plan(folder=str(Path()), chain_id="", chain_name="", strands=strands, mode="open")
