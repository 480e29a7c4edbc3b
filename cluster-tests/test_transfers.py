"""Transfers under load while everybody is well, and while one node after the other is not."""

from __future__ import annotations

import time
from collections.abc import Callable

from bench.load import Load, Purse
from bench.network import Network, until

StartLoad = Callable[..., Load]


def settled(network: Network, purse: Purse) -> None:
    """Everybody is ready, agrees on one state, and no unit of money appeared or vanished."""
    network.wait_ready(timeout_s=60)
    network.agreed_root()
    assert network.conservation_error() == 0
    assert purse.received() == purse.units, "applied transfers and the sink's balance differ"


def test_transfers_under_load_conserve_money_and_leave_equal_roots(
    whole: Network, purse: Purse, load: StartLoad
) -> None:
    report = purse.book(load(rate=400, seconds=3).report())
    assert report.outcomes == {"0": report.sent}
    assert report.applied > 1_000
    settled(whole, purse)


def test_a_killed_backup_is_not_missed_and_catches_up(
    whole: Network, purse: Purse, load: StartLoad
) -> None:
    victim = whole.backups()[-1]
    others = [member for member in whole.members if member is not victim]
    view = others[0].view()
    running = load(rate=200, seconds=4, targets=others)
    whole.wait_height(whole.height() + 20, others)
    victim.kill()
    height = whole.height()
    whole.wait_height(height + 10, others)
    victim.start()
    report = purse.book(running.report())
    assert report.outcomes == {"0": report.sent}
    assert others[0].view() == view, "a backup's death must not change the view"
    settled(whole, purse)


def test_a_killed_primary_is_replaced_and_nothing_is_lost(
    whole: Network, purse: Purse, load: StartLoad
) -> None:
    victim = whole.primary()
    others = [member for member in whole.members if member is not victim]
    view = others[0].view()
    running = load(rate=200, seconds=6, targets=others)
    whole.wait_height(whole.height() + 20, others)
    victim.kill()
    until(lambda: others[0].view() > view, "view change", timeout_s=20)
    whole.wait_height(whole.height() + 10, others)
    victim.start()
    report = purse.book(running.report())
    assert report.outcomes == {"0": report.sent}
    settled(whole, purse)


def test_a_node_paused_for_five_seconds_comes_back(
    whole: Network, purse: Purse, load: StartLoad
) -> None:
    victim = whole.backups()[0]
    others = [member for member in whole.members if member is not victim]
    running = load(rate=100, seconds=5, targets=others)
    height = whole.height()
    paused = time.monotonic()
    victim.pause()
    try:
        whole.wait_height(height + 10, others)
        until(lambda: time.monotonic() - paused >= 5, "five seconds of pause", timeout_s=12)
    finally:
        victim.resume()
    report = purse.book(running.report())
    assert report.outcomes == {"0": report.sent}
    whole.wait_height(whole.height(), timeout_s=60)
    settled(whole, purse)


def test_nothing_acknowledged_is_lost_when_every_node_is_killed_at_once(
    whole: Network, purse: Purse, load: StartLoad
) -> None:
    running = load(rate=300, seconds=5)
    whole.wait_height(whole.height() + 50)
    for member in whole.members:
        member.kill_soon()
    for member in whole.members:
        member.kill()
    whole.up(timeout_s=60)
    report = purse.book(running.report())
    assert report.outcomes == {"0": report.sent}
    assert report.retries > 0, "the generator did not notice that every node died"
    settled(whole, purse)
