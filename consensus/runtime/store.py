"""`consensus.db`: what was agreed, and everything that ever left under this node's key.

The file is created only by the command that creates the key (`create_consensus_store`), together
with a birth record; opening never creates it, so a deleted file is recognised as disk loss
(reference 3.9). One thread writes; a tick's records are one transaction and ticks that queue up
behind a slow disk share one (group commit). A failed commit is reported and the process must end.

The driver sees two methods, `load` and `commit_soon` (`RecordStore`), so that a preallocated append
file can take this one's place.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol

import apsw

from consensus.errors import ConsensusError

if TYPE_CHECKING:
    from native import Completions

FORMAT_VERSION: Final = 1
PAGE_CACHE_KIB: Final = 2_000  # records are written once and read at start only
WAL_CHECKPOINT_PAGES: Final = 4_000  # 16 MB: a checkpoint about every second under full load
COMMIT_GROUP_MAX: Final = 64  # ticks in one transaction: bounds what a crash can make us re-send

SCHEMA: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE record(
    kind INTEGER NOT NULL,
    key INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY(kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE body(digest BLOB PRIMARY KEY, sequence INTEGER NOT NULL, value BLOB NOT NULL) STRICT;
CREATE INDEX body_sequence ON body(sequence);
CREATE TABLE block(height INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT;
"""


class ConsensusStoreMissing(ConsensusError):
    """The node has a key but no `consensus.db`: its disk was lost, or the home is not complete."""

    code = "HM-B-020"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} does not exist although the node has a key")
        self.path = path

    @property
    def hint(self) -> str:
        """The way out."""
        return (
            "if the disk was lost, run `hypermesh node rekey --recover` to create an empty store that"
            " recovers from its peers; never copy another node's file here"
        )


class ConsensusStoreDamaged(ConsensusError):
    """`consensus.db` cannot be trusted: damaged, of another chain or key, or of another format."""

    code = "HM-B-021"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem

    @property
    def hint(self) -> str:
        """The way out."""
        return "move the file away and recover the node from its peers; do not edit it"
