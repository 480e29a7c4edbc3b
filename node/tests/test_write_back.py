"""The write-back cycle ends in a bounded number of blocks, however fast the state grows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from consensus.tests import samples
from native import Completions
from native.batches import Batch
from node.runtime import executor as executors
from node.runtime.executor import Executor, open_state
from node.runtime.router import Router
from node.runtime.store import StateStore
from node.tests.test_snapshots import AUTHORITY, certificate_payload
from trustchain.runtime.application import LogApplication

PERIOD_BLOCKS = 3
CYCLE_BLOCKS = 5
BLOCKS = 60
GROWTH = 3  # rows a block, more than one slice holds


def opened(folder: Path) -> tuple[Router, StateStore, bytes]:
    router = Router([LogApplication(samples.CHAIN, AUTHORITY.genesis)])
    state = StateStore(folder / "state.db", chain_id=samples.CHAIN)
    return router, state, open_state(router, state)


async def test_a_cycle_ends_although_more_rows_are_added_than_a_slice_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(executors, "WRITE_BACK_ROWS_PER_BLOCK", 1)
    monkeypatch.setattr(executors, "WRITE_BACK_PERIOD_BLOCKS", PERIOD_BLOCKS)
    monkeypatch.setattr(executors, "WRITE_BACK_CYCLE_BLOCKS_MAX", CYCLE_BLOCKS)
    router, state, _ = opened(tmp_path)
    executor = Executor(router, state, Completions(), token=1, clock=lambda: 0.0)
    executor.start()
    deltas = []
    for height in range(1, BLOCKS + 1):
        header = replace(samples.header(height), state_root=router.state_root)
        batch = Batch.of([certificate_payload(f"n{height}-{at}.mesh") for at in range(GROWTH)])
        executor.execute_soon(header, samples.batch(height), batch)
        deltas.append(await executor.run(lambda: len(list(state.deltas()))))
    executor.stop()
    # What a restart replays: everything since the last whole cycle began.
    assert max(deltas) <= 2 * CYCLE_BLOCKS + PERIOD_BLOCKS + 1
    assert router.applications[0].row_count() == BLOCKS * GROWTH
    again, state, root = opened(tmp_path)
    assert root == router.state_root
    assert again.applications[0].row_count() == BLOCKS * GROWTH
    state.close()
