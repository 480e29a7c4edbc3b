"""The long version: one primary after the other dies while transfers go on. `make soak` runs it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import pytest

from bench.load import Load, Purse
from bench.network import Network, until

StartLoad = Callable[..., Load]
ROUNDS: Final = 10


@pytest.mark.soak
def test_one_primary_after_the_other_is_killed_and_nothing_is_lost(
    whole: Network, purse: Purse, load: StartLoad
) -> None:
    for _ in range(ROUNDS):
        victim = whole.primary()
        others = [member for member in whole.members if member is not victim]
        view = others[0].view()
        running = load(rate=200, seconds=8, targets=others)
        whole.wait_height(whole.height() + 20, others)
        victim.kill()
        until(lambda: others[0].view() > view, "view change", timeout_s=30)  # noqa: B023 - waited for here
        victim.start()
        report = purse.book(running.report())
        assert report.outcomes == {"0": report.sent}
        whole.wait_ready(timeout_s=60)
        whole.agreed_root(timeout_s=60)
        assert whole.conservation_error() == 0
        assert purse.received() == purse.units
