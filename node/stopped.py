"""The files of a stopped node, opened for one command.

Holding the home's lock for that long is what makes it safe: a node cannot start meanwhile, and a
running one is refused before a file is touched.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.core.epochs import Epochs
from consensus.core.wire import Bounds
from consensus.runtime.store import ConsensusStore
from native import Completions
from node.errors import HomeIncomplete
from node.home import Home
from node.preflight import read_genesis, take_lock
from node.runtime.membership import genesis_set
from node.runtime.store import StateStore

if TYPE_CHECKING:
    from pathlib import Path

    from consensus.core.records import Record
    from node.core.genesis import Genesis


@dataclass(frozen=True, slots=True, kw_only=True)
class StoppedNode:
    """Both databases of a home whose node does not run. No writing thread is started."""

    home: Home
    genesis: Genesis
    state: StateStore
    store: ConsensusStore

    def records(self) -> list[Record]:
        """Every record; raises `CorruptRecord`. The sets of later epochs are among them."""
        members = len(self.genesis.validators)
        return self.store.load(Bounds(chain_id=self.genesis.chain_id, members=members))

    def epochs(self) -> Epochs:
        """The set of every epoch this node has entered, as its records prove them."""
        return Epochs.of(self.genesis.chain_id, genesis_set(self.genesis), self.records())

    @property
    def bounds(self) -> Bounds:
        """What a decoder must know of the newest epoch."""
        return self.epochs().bounds()


@contextmanager
def stopped_node(folder: Path, *, state_may_be_lost: bool = False) -> Iterator[StoppedNode]:
    """Open the files; raises `AlreadyRunning`, `HomeIncomplete`, `StoreDamaged` and the like.

    A lost `state.db` is made anew, at genesis, where that is allowed.
    """
    home = Home(folder)
    home.require_folder()
    genesis = read_genesis(home.genesis)
    for path in (home.consensus_database, home.state_database):
        lost = state_may_be_lost and path == home.state_database
        if not path.is_file() and not lost:
            raise HomeIncomplete(
                f"{path}: missing",
                hint="start the node once; `hypermesh node run` says what a missing database means",
            )
    lock = take_lock(home)
    try:
        store = ConsensusStore(
            home.consensus_database, Completions(), token=0, clock=time.perf_counter
        )
        try:
            state = StateStore(home.state_database, chain_id=genesis.chain_id)
            try:
                yield StoppedNode(
                    home=home,
                    genesis=genesis,
                    state=state,
                    store=store,
                )
            finally:
                state.close()
        finally:
            store.close()
    finally:
        os.close(lock)
