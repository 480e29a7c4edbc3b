"""`state.db`: what execution made of the agreed order. This module owns its only connection.

Layout: a block is one row with its header, the state root after it, and the sorted receipts blob; a
delta is one row beside it; `row` is a lazily written cache of application state. A restart is the
rows plus every delta after the oldest of them.

A commit is not synced: a power cut, unlike a kill, takes the newest blocks away. Each of them is in
`consensus.db` before this node votes for what execution made of it, and is executed again at the
next start (decision 0014). What was there when the file was opened, or before `sync` or a
checkpoint of the log, stays.

Every method runs on the executor thread. A failed commit ends the process: the state in memory
would be ahead of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Self

import apsw

from consensus.application import Row
from consensus.core.types import Height
from consensus.runtime import space
from consensus.runtime.transaction import transaction
from native.codec import encode
from native.hashing import sha256
from node.errors import ExitCode, NodeError
from node.limits import STATE_CHECK_SIZE_BYTES_MAX
from node.runtime.receipts import Receipt, find_receipt

if TYPE_CHECKING:
    from pathlib import Path

    from consensus.core.messages import BatchHeader, BlockHeader

FORMAT_VERSION: Final = 1
PAGE_CACHE_KIB: Final = 2_000  # pages kept by SQLite; the state itself lives in the applications
WAL_CHECKPOINT_PAGES: Final = 2_000  # 8 MB: about one second of writing at 3,000 transfers/s
WRITE_BACK_ROWS_PER_BLOCK: Final = 128  # a contiguous slice small enough not to delay a commit
WRITE_BACK_PERIOD_BLOCKS: Final = 1_024  # between two write-back cycles: bounds the restart replay
WRITE_BACK_CYCLE_BLOCKS_MAX: Final = 8_192  # of one cycle: slices grow above a million rows

SCHEMA: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE block(
    height INTEGER PRIMARY KEY,
    header BLOB NOT NULL,
    batch BLOB NOT NULL,
    state_root BLOB NOT NULL,
    receipts BLOB NOT NULL
) STRICT;
CREATE TABLE delta(height INTEGER PRIMARY KEY, value BLOB NOT NULL) STRICT;
CREATE TABLE row(
    tag INTEGER NOT NULL,
    name TEXT NOT NULL,
    key INTEGER NOT NULL,
    value BLOB NOT NULL,
    PRIMARY KEY(tag, name, key)
) STRICT, WITHOUT ROWID;
"""

# Through this view a block is one statement, transaction and commit included. The interpreter is
# given up and taken back once rather than for every row, which costs more than the rows do.
BLOCK_VIEW: Final = """
CREATE TEMP VIEW executed AS
    SELECT height, header, batch, state_root, receipts, NULL AS delta FROM block;
CREATE TEMP TRIGGER executed_block INSTEAD OF INSERT ON executed BEGIN
    INSERT INTO block VALUES(NEW.height, NEW.header, NEW.batch, NEW.state_root, NEW.receipts);
    INSERT INTO delta VALUES(NEW.height, NEW.delta);
END;
"""
WRITE_BLOCK: Final = "INSERT INTO executed VALUES(?,?,?,?,?,?)"


class StateStoreError(NodeError):
    """`state.db` cannot be used: damaged, of another chain, or of another format."""

    code = "HM-D-020"
    exit_code = ExitCode.CONFIGURATION

    def __init__(self, path: Path, problem: str, hint: str) -> None:
        super().__init__(f"{path}: {problem}", hint=hint)
        self.path = path
        self.problem = problem


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """One executed block as `state.db` keeps it: canonical block header and batch header."""

    height: int
    header: bytes
    batch: bytes
    state_root: bytes
    receipts: bytes

    @classmethod
    def of(
        cls, header: BlockHeader, agreed: BatchHeader, state_root: bytes, receipts: bytes = b""
    ) -> Self:
        """What is kept of a block that execution made of an agreed batch."""
        return cls(
            height=int(header.height),
            header=encode(header.value()),
            batch=encode(agreed.value()),
            state_root=state_root,
            receipts=receipts,
        )


class StateStore:
    """The write connection of `state.db` and the readers that share its thread."""

    def __init__(self, path: Path, *, chain_id: bytes) -> None:
        """Open or create the file and check that it belongs to `chain_id`.

        Raises `StateStoreError` for a damaged file, another chain's file, or an unknown format.
        """
        self._path = path
        self._alone: tuple[int | bytes, ...] | None = None  # a block that waits for its commit
        try:
            self._db = apsw.Connection(str(path))
            if not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                space.prepare(self._db)
            # EXTRA while the file is made: a rollback journal whose deletion a power cut undoes
            # would take the whole file back to nothing.
            self._db.execute(
                f"PRAGMA synchronous=EXTRA; PRAGMA journal_mode=WAL;"
                f"PRAGMA synchronous=NORMAL; PRAGMA temp_store=MEMORY;"
                f"PRAGMA cache_size=-{PAGE_CACHE_KIB};"
                f"PRAGMA wal_autocheckpoint={WAL_CHECKPOINT_PAGES}"
            ).fetchall()  # a statement after the first runs only when rows are read
            if not self._db.execute("SELECT 1 FROM sqlite_schema").fetchone():
                with transaction(self._db):
                    self._db.execute(SCHEMA)
                    self._put_meta("format", FORMAT_VERSION)
                    self._put_meta("chain_id", chain_id)
                    self._put_meta("floor", 0)
                    self._put_meta("cycle", 0)
            self._check()
            if self._meta("format") != FORMAT_VERSION:
                raise StateStoreError(path, "unknown format", "use the version that wrote it")
            if self._meta("chain_id") != chain_id:
                raise StateStoreError(path, "belongs to another chain", "use this chain's own home")
            self._floor = self._integer("floor")
            self._cycle = self._integer("cycle")
            self._oldest = self.first or 1
            self._db.execute(BLOCK_VIEW).fetchall()
            self.sync()  # a life that was killed may have written what nothing keeps yet
        except (apsw.CorruptError, apsw.NotADBError, apsw.SQLError) as error:
            raise self.damaged(f"damaged ({error})") from error

    def _check(self) -> None:
        """Look at every page of a file small enough; in a bigger one damage shows when read."""
        if self._path.stat().st_size > STATE_CHECK_SIZE_BYTES_MAX:
            return
        found = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if found is None or found[0] != "ok":
            raise self.damaged(
                f"damaged (quick_check: {'no answer' if found is None else found[0]})"
            )

    @property
    def path(self) -> Path:
        """Where the file is."""
        return self._path

    @property
    def height(self) -> int:
        """Height of the newest executed block; 0 is genesis."""
        found = self._db.execute("SELECT max(height) FROM block").fetchone()
        return int(found[0]) if found and found[0] is not None else 0

    @property
    def first(self) -> int:
        """Height of the oldest block that is held; 0 while there is none."""
        found = self._db.execute("SELECT min(height) FROM block").fetchone()
        return int(found[0]) if found and found[0] is not None else 0

    def write(
        self, block: StoredBlock, delta: bytes, slices: Iterable[tuple[int, Sequence[Row]]]
    ) -> None:
        """Commit one block with its receipts, its delta and a slice of cache rows."""
        self.write_later(block, delta, slices)
        self.commit()

    def write_later(
        self, block: StoredBlock, delta: bytes, slices: Iterable[tuple[int, Sequence[Row]]]
    ) -> None:
        """Write one block; `commit` ends its transaction, together with others written so."""
        values = (
            block.height,
            block.header,
            block.batch,
            block.state_root,
            block.receipts,
            delta,
        )
        rows = [(tag, row.table, row.key, row.value) for tag, found in slices for row in found]
        if not rows and self._alone is None and not self._db.in_transaction:
            self._alone = values  # if no other comes, it and its commit are one statement
            return
        if not self._db.in_transaction:
            self._db.execute("BEGIN IMMEDIATE")
        with self._rolled_back_on_error():
            first, self._alone = self._alone, None
            if first is not None:
                self._db.execute(WRITE_BLOCK, first)
            self._db.execute(WRITE_BLOCK, values)
            if rows:
                self._db.executemany("INSERT OR REPLACE INTO row VALUES(?,?,?,?)", rows)

    def commit(self) -> None:
        """End the transaction of `write_later`: a kill takes nothing of it, a power cut may."""
        alone, self._alone = self._alone, None
        if alone is not None:
            self._db.execute(WRITE_BLOCK, alone)
            return
        with self._rolled_back_on_error():
            self._db.execute("COMMIT")

    def sync(self) -> None:
        """Make everything written so far durable: from now on no power cut takes it."""
        with self._synced(), transaction(self._db):
            self._put_meta("synced", self.height)

    @contextmanager
    def _synced(self) -> Iterator[None]:
        """Transactions that are durable, and with them all before: the log is one file."""
        self._db.execute("PRAGMA synchronous=FULL").fetchall()
        try:
            yield
        finally:
            self._db.execute("PRAGMA synchronous=NORMAL").fetchall()

    @contextmanager
    def _rolled_back_on_error(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def finish_cycle(self, started: int, height: int) -> None:
        """A write-back cycle that began after block `started` is complete at block `height`.

        Every row there was then dates from `started` or later, and newer rows are in the deltas
        after it, so deltas up to it are no longer needed.
        """
        with transaction(self._db):
            self._put_meta("floor", started)
            self._put_meta("cycle", height)
            self._db.execute("DELETE FROM delta WHERE height<=?", (started,))
        self._floor, self._cycle = started, height

    def enter(self, block: StoredBlock, rows: Iterable[tuple[int, Row]]) -> None:
        """Replace everything by the state after one block, in one transaction that is durable."""
        with self._synced(), transaction(self._db):
            for table in ("block", "delta", "row"):
                self._db.execute(f"DELETE FROM {table}")
            self._db.execute(
                "INSERT INTO block VALUES(?,?,?,?,?)",
                (block.height, block.header, block.batch, block.state_root, block.receipts),
            )
            self._db.executemany(
                "INSERT INTO row VALUES(?,?,?,?)",
                ((tag, row.table, row.key, row.value) for tag, row in rows),
            )
            self._put_meta("floor", block.height)
            self._put_meta("cycle", block.height)
        self._floor = self._cycle = self._oldest = block.height
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()  # as large as the state

    @property
    def cycle(self) -> int:
        """Height at which the newest complete write-back cycle ended."""
        return self._cycle

    def rows(self, tag: int) -> Iterator[Row]:
        """Every cache row of one application, by table and key."""
        for name, key, value in self._read(
            "SELECT name, key, value FROM row WHERE tag=? ORDER BY name, key", (tag,)
        ):
            yield Row(table=str(name), key=int(key), value=bytes(value))

    def deltas(self) -> Iterator[tuple[Height, bytes]]:
        """Every delta a restart must replay, rising in height without a gap.

        Raises `StateStoreError` if one is missing or unreadable.
        """
        expected = self._floor + 1
        for height, value in self._read("SELECT height, value FROM delta ORDER BY height"):
            if height != expected:
                raise self.damaged(f"delta of block {expected} is missing")
            expected += 1
            yield Height(height), bytes(value)

    def block(self, height: int) -> StoredBlock | None:
        """One executed block, or None if it is not (or no longer) held."""
        found = next(
            self._read(
                "SELECT header, batch, state_root, receipts FROM block WHERE height=?", (height,)
            ),
            None,
        )
        if found is None:
            return None
        header, batch, state_root, receipts = (bytes(column) for column in found)
        return StoredBlock(
            height=height, header=header, batch=batch, state_root=state_root, receipts=receipts
        )

    def headers(self, first: int, last: int) -> list[tuple[bytes, bytes]]:
        """Block and batch headers from `first` on, without a gap; none if `first` was pruned."""
        found: list[tuple[bytes, bytes]] = []
        for height, header, batch in self._read(
            "SELECT height, header, batch FROM block WHERE height BETWEEN ? AND ? ORDER BY height",
            (first, last),
        ):
            if height != first + len(found):
                break
            found.append((bytes(header), bytes(batch)))
        return found

    def height_of(self, header_hash: bytes, *, first: int, last: int) -> int | None:
        """The block of a run whose header has this hash; what was pruned is passed over."""
        for height, header in self._read(
            "SELECT height, header FROM block WHERE height BETWEEN ? AND ?", (first, last)
        ):
            if sha256(bytes(header)) == header_hash:
                return int(height)
        return None

    def check_pages(self) -> str:
        """Look at every page and index of the file; "ok", or what is wrong first."""
        found = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        return str(found[0][0]) if found else "no answer"

    def take_back(self, check: Callable[[], None]) -> None:
        """Undo the newest block if `check` accepts the state without it; else change nothing."""
        height = self.height
        with transaction(self._db):
            self._db.execute("DELETE FROM block WHERE height=?", (height,))
            self._db.execute("DELETE FROM delta WHERE height=?", (height,))
            check()

    @property
    def oldest(self) -> int:
        """The lowest block that is held; 1 until one was pruned or a state was entered."""
        return self._oldest

    def prune(self, through: int) -> int:
        """Forget the blocks up to `through` with their receipts, in one transaction.

        Returns how many. The state does not depend on them: it is rows and deltas.
        """
        with transaction(self._db):
            self._db.execute("DELETE FROM block WHERE height<=?", (through,))
            forgotten = self._db.changes()
        self._oldest = max(self._oldest, through + 1)
        return forgotten

    def usage(self) -> space.Usage:
        """How full the file is."""
        return space.usage(self._db)

    def give_back(self) -> int:
        """Give a slice of free space back to the disk; return the bytes."""
        return space.give_back(self._db)

    def receipt(self, identifier: bytes, *, newest: int, count_max: int) -> Receipt | None:
        """Find a receipt among at most `count_max` blocks from `newest` downwards."""
        for height, blob in self._read(
            "SELECT height, receipts FROM block WHERE height<=? AND height>? AND receipts!=x''"
            " ORDER BY height DESC",
            (newest, newest - count_max),
        ):
            found = find_receipt(bytes(blob), identifier, int(height))
            if found is not None:
                return found
        return None

    def receipts(self, height: int) -> bytes:
        """The sorted receipts blob of one block; empty if it has none."""
        found = self.block(height)
        return b"" if found is None else found.receipts

    def damaged(self, problem: str) -> StateStoreError:
        """The error of a file whose content cannot be trusted, with the way out."""
        return StateStoreError(
            self._path,
            problem,
            "stop the node, move state.db away and start again: blocks are executed again",
        )

    def close(self) -> None:
        """Close the connection; the write-ahead log is folded into the file."""
        self._db.close()

    def _read(self, query: str, values: tuple[int, ...] = ()) -> Iterator[tuple[Any, ...]]:
        """Rows of a query; damage that only reading finds becomes `StateStoreError`."""
        try:
            yield from self._db.execute(query, values)
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise self.damaged(f"damaged ({error})") from error

    def _meta(self, key: str) -> object:
        found = self._db.execute("SELECT value FROM meta WHERE key=?", (key,)).fetchone()
        return None if found is None else found[0]

    def _integer(self, key: str) -> int:
        value = self._meta(key)
        if not isinstance(value, int):
            raise StateStoreError(self._path, f"meta key {key} is not a number", "restore a backup")
        return value

    def _put_meta(self, key: str, value: int | bytes) -> None:
        self._db.execute("INSERT OR REPLACE INTO meta VALUES(?,?)", (key, value))
