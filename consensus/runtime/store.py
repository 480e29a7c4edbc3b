"""`consensus.db`: what was agreed, and everything that ever left under this node's key.

The file is created by the command that creates the key (`create_consensus_store`), with a birth
record. Opening never creates it as new: a key without its file has lost its disk, and
`recreate_consensus_store` then writes the birth record *together with* an unfinished recovery, so
that no crash in between can pass for a first start (reference 3.9).

One thread writes. A tick is one transaction; ticks that queue up behind a slow disk share one. A
failed commit is posted as `CommitFailed` and the process must end. The driver needs two methods,
`commit_soon` and `load` (`RecordStore`), so that a preallocated append file can take this place.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, Protocol, TypeVar, cast

import apsw
import trio

from consensus.core.epochs import Epochs, shown
from consensus.core.records import (
    ACCEPTED_KIND,
    AGREED_KIND,
    ANCHOR_KIND,
    TIP_KIND,
    Agreed,
    Birth,
    Record,
    Row,
    Tip,
    decode_record,
    decode_records,
    encode_record,
    reborn,
)
from consensus.errors import ConsensusError, CorruptRecord
from consensus.limits import ANCHOR_BLOCKS
from consensus.runtime import space
from consensus.runtime.transaction import transaction
from native.batches import Batch
from native.errors import BatchInvalid, LimitExceeded

if TYPE_CHECKING:
    from consensus.core.messages import BatchHeader, BlockCertificate, EpochLink
    from consensus.core.wire import Bounds
    from native import Completions
    from native.values import Digest

T = TypeVar("T")

FORMAT_VERSION: Final = 2
PAGE_CACHE_KIB: Final = 2_000  # records are written once and read at start only
WAL_CHECKPOINT_PAGES: Final = 4_000  # 16 MB: a checkpoint about every second under full load
STORE_CHECK_SIZE_BYTES_MAX: Final = 64 * 1024 * 1024  # checked whole at each start: 50 ms
COMMIT_GROUP_MAX: Final = 64  # ticks in one transaction; more would only delay the first

SCHEMA: Final = """
CREATE TABLE meta(key TEXT PRIMARY KEY, value ANY NOT NULL) STRICT, WITHOUT ROWID;
CREATE TABLE record(
    kind INTEGER NOT NULL,
    key INTEGER NOT NULL,
    sequence INTEGER NOT NULL,
    data BLOB NOT NULL,
    PRIMARY KEY(kind, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE body(sequence INTEGER NOT NULL, root BLOB NOT NULL, data BLOB NOT NULL) STRICT;
CREATE UNIQUE INDEX body_place ON body(sequence, root);
CREATE INDEX body_root ON body(root);
"""


# Through this view a tick is one statement, transaction and commit included. The interpreter is
# given up and taken back once rather than for every row, which costs more than the rows do.
TICK_VIEW: Final = """
CREATE TEMP VIEW tick AS SELECT kind, key, sequence, data, NULL AS root FROM record;
CREATE TEMP TRIGGER tick_record INSTEAD OF INSERT ON tick WHEN NEW.kind > 0 BEGIN
    INSERT OR REPLACE INTO record VALUES(NEW.kind, NEW.key, NEW.sequence, NEW.data);
END;
CREATE TEMP TRIGGER tick_body INSTEAD OF INSERT ON tick WHEN NEW.kind = 0 BEGIN
    INSERT OR REPLACE INTO body VALUES(NEW.sequence, NEW.root, NEW.data);
END;
CREATE TEMP TRIGGER tick_drop INSTEAD OF INSERT ON tick WHEN NEW.kind < 0 BEGIN
    DELETE FROM record WHERE sequence BETWEEN 1 AND NEW.sequence;
END;
"""
RECORDS_OF_A_START: Final = (
    f"SELECT kind, key, sequence, data FROM record WHERE kind!={int(AGREED_KIND)}"
)
TICK_BODY: Final = 0  # real kinds begin at 1
TICK_DROP: Final = -1
# Rows of a statement: five values each, and SQLite takes 32,766. A tick is filled up to the next of
# these with rows that no trigger looks at, 0.3 µs each. A statement stays prepared and keeps what
# was last bound to it, a body of up to a megabyte: so there are few.
TICK_ROWS: Final = (16, 64, 512)
TICK_COLUMNS: Final = 5
WRITE_TICK: Final = {
    rows: f"INSERT INTO tick VALUES{','.join(['(?,?,?,?,?)'] * rows)}" for rows in TICK_ROWS
}


class StoreDamaged(ConsensusError):
    """`consensus.db` cannot be trusted: damaged, of another format, chain or key."""

    code = "HM-B-021"

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: {problem}")
        self.path = path
        self.problem = problem

    @property
    def hint(self) -> str:
        """The way out."""
        return (
            "move the file, its -wal and its -shm away and start the node: it recovers from its "
            "peers before it votes"
        )


class StoreExists(ConsensusError):
    """Creating a store over an existing one would forget what this key has signed."""

    code = "HM-B-022"

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists")
        self.path = path

    @property
    def hint(self) -> str:
        """The way out."""
        return "use another home folder; a signing record is never replaced"


@dataclass(frozen=True, slots=True, kw_only=True)
class Body:
    """A batch body to be written with the tick that accepts it."""

    sequence: int
    root: Digest
    batch: Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Committed:
    """The tick with this serial, and all before it, are on the disk."""

    serial: int
    commit_s: float
    group: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CommitFailed:
    """The disk refused: nothing of that tick may leave, the process must stop."""

    error: BaseException


class RecordStore(Protocol):
    """What the driver needs of a durable store."""

    def load(self, bounds: Bounds) -> list[Record]:
        """Every record, in no particular order. Raises `CorruptRecord`."""
        ...

    def commit_soon(
        self, serial: int, records: Sequence[Record], bodies: Sequence[Body], drop: int | None
    ) -> None:
        """Write all of it in one transaction; `Committed` or `CommitFailed` is posted."""
        ...


def create_consensus_store(path: Path, *, chain_id: Digest, node_id: Digest) -> None:
    """Create the store of a new key with its birth record, file and folder synced.

    Raises `StoreExists` if there is one.
    """
    _create(path, [Birth(chain_id=chain_id, node_id=node_id, incarnation=1)])


def recreate_consensus_store(path: Path, *, chain_id: Digest, node_id: Digest) -> None:
    """Create the store of a key that has lost its disk: it must recover before it votes."""
    _create(path, reborn(chain_id, node_id, 2))


def adopt_certificate(
    path: Path, certificate: BlockCertificate, genesis: Epochs, links: Sequence[EpochLink] = ()
) -> None:
    """Make a certificate the newest one of a stopped node's store, unless it knows a newer one.

    `links` prove its epoch from `genesis`; those the store does not have are entered with it. What
    state transfer does while the node runs, before `state.db` is replaced. Raises `StoreDamaged`.
    """
    try:
        with contextlib.closing(
            apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
        ) as database:
            database.execute("PRAGMA synchronous=FULL").fetchall()
            records = decode_records(_read(database), genesis.bounds())
            if any(
                isinstance(record, Tip) and record.certificate.height >= certificate.height
                for record in records
            ):
                return
            entered = shown(Epochs.of(genesis.chain_id, genesis.newest, records), links, records)
            with transaction(database):
                _insert(database, [*entered, Tip(certificate=certificate)])
    except apsw.Error as error:
        raise StoreDamaged(path, f"damaged ({error})") from error


def _create(path: Path, records: Iterable[Record]) -> None:
    if path.exists():
        raise StoreExists(path)
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    # SQLite would replay a write-ahead log left beside a lost file over the new one.
    for left in (f"{path}-wal", f"{path}-shm"):
        Path(left).unlink(missing_ok=True)
    _sync(path.parent)
    # Under another name first: a crash leaves either no store or a whole one.
    unfinished = path.with_suffix(".new")
    unfinished.unlink(missing_ok=True)
    database = apsw.Connection(str(unfinished))
    space.prepare(database)
    # Now, not at the first start: a rollback journal whose deletion a power cut undoes would roll
    # back what was written since. The folder is synced below, after the last journal is gone.
    database.execute("PRAGMA journal_mode=WAL").fetchall()
    with transaction(database):
        database.execute(SCHEMA)
        database.execute("INSERT INTO meta VALUES('format', ?)", (FORMAT_VERSION,))
        _insert(database, records)
    database.close()
    unfinished.chmod(0o600)
    _sync(unfinished)
    unfinished.rename(path)
    _sync(path.parent)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _insert(database: apsw.Connection, records: Iterable[Record]) -> None:
    rows = [encode_record(record) for record in records]
    database.executemany(
        "INSERT OR REPLACE INTO record VALUES(?,?,?,?)",
        [(row.kind, row.key, row.sequence, row.stored) for row in rows],
    )


def _read(database: apsw.Connection) -> list[tuple[int, bytes]]:
    """Kind and data of every record of a start; raises `CorruptRecord` for a damaged one."""
    found = cast(
        "Iterable[tuple[int, int, int, bytes]]",
        database.execute(RECORDS_OF_A_START),
    )
    rows = [Row.read(kind, key, sequence, bytes(stored)) for kind, key, sequence, stored in found]
    return [(row.kind, row.data) for row in rows]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Tick:
    serial: int
    records: Sequence[Record]
    bodies: Sequence[Body]
    drop: int | None


_Value = int | bytes | None


class ConsensusStore:
    """The SQLite store. Reads for peers share the writing thread and so see whole ticks."""

    def __init__(
        self,
        path: Path,
        completions: Completions,
        *,
        token: int,
        clock: Callable[[], float],
        durable: bool = True,
    ) -> None:
        """Open an existing store; raises `StoreDamaged`. `durable=False` is for benchmarks only."""
        self._path = path
        self._completions = completions
        self._token = token
        self._clock = clock
        self._jobs: SimpleQueue[_Tick | Callable[[], None] | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="consensus-store", daemon=True)
        try:
            self._db = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
            self._db.execute(
                f"PRAGMA journal_mode=WAL; PRAGMA synchronous={'FULL' if durable else 'OFF'};"
                f"PRAGMA temp_store=MEMORY; PRAGMA cache_size=-{PAGE_CACHE_KIB};"
                f"PRAGMA wal_autocheckpoint={WAL_CHECKPOINT_PAGES}"
            ).fetchall()  # a statement after the first runs only when rows are read
            found = self._db.execute("SELECT value FROM meta WHERE key='format'").fetchone()
            healthy = self._check()
            self._db.execute(TICK_VIEW).fetchall()
        except apsw.Error as error:
            raise StoreDamaged(path, f"damaged ({error})") from error
        if found is None or found[0] != FORMAT_VERSION:
            raise StoreDamaged(path, "written by another version")
        if healthy is None or healthy[0] != "ok":
            raise StoreDamaged(path, "damaged (quick_check)")

    def _check(self) -> tuple[object, ...] | None:
        """Look at every page of a file small enough, and at the records of any.

        Records are what safety rests on and are few; each has a checksum, which `load` looks at. A
        body is named by its hash: a damaged one is found when it is read, at the start if it is not
        executed yet, or refused by the peer that asked for it.
        """
        small = self._path.stat().st_size <= STORE_CHECK_SIZE_BYTES_MAX
        return self._db.execute(f"PRAGMA quick_check({'1' if small else 'record'})").fetchone()

    def start(self) -> None:
        """Start the writing thread."""
        self._thread.start()

    def load(self, bounds: Bounds) -> list[Record]:
        """Every record but those of `agreed`. Called before `start`. Raises `CorruptRecord`."""
        return decode_records(_read(self._db), bounds)

    def agreed(self, sequence: int, bounds: Bounds) -> BatchHeader | None:
        """The batch of a block that was executed. Only before `start`. Raises `CorruptRecord`."""
        found = self._db.execute(
            "SELECT sequence, data FROM record WHERE kind=? AND key=?", (AGREED_KIND, sequence)
        ).fetchone()
        if found is None:
            return None
        row = Row.read(AGREED_KIND, sequence, int(str(found[0])), bytes(found[1]))
        record = decode_record(AGREED_KIND, row.data, bounds)
        return record.header if isinstance(record, Agreed) else None

    def agreed_through(self, height: int, *, count_max: int | None = None) -> int:
        """Up to which block `agreed` knows every batch above `height`. Only before `start`.

        Looks at `count_max` blocks at most.
        """
        for (key,) in self._db.execute(
            "SELECT key FROM record WHERE kind=? AND key>? ORDER BY key LIMIT ?",
            (AGREED_KIND, height, -1 if count_max is None else count_max),
        ):
            if key != height + 1:
                break
            height += 1
        return height

    def agreed_count(self, first: int, last: int) -> int:
        """At how many of these places `agreed` knows the batch. As `prune`."""
        [(count,)] = self._db.execute(
            "SELECT count(*) FROM record WHERE kind=? AND key BETWEEN ? AND ?",
            (AGREED_KIND, first, last),
        ).fetchall()
        return int(str(count))

    def keep_agreed(self, batches: Iterable[BatchHeader]) -> None:
        """Keep batches of blocks that were executed, in one transaction. As `prune`."""
        with transaction(self._db):
            _insert(self._db, (Agreed(header=header) for header in batches))

    def bodies(self, after: int) -> list[tuple[int, Batch]]:
        """(sequence, body) of what was accepted above `after`. Called before `start`.

        So are bodies below it that a record accepted, which was certified before it was executed.
        Raises `StoreDamaged` for a body that is not the one its record accepted.
        """
        rows = self._db.execute(
            "SELECT sequence, root, data FROM body WHERE sequence>?1 OR sequence IN "
            "(SELECT key FROM record WHERE kind=?2) ORDER BY sequence",
            (after, int(ACCEPTED_KIND)),
        )
        return [(int(at), self._body(int(at), bytes(root), bytes(data))) for at, root, data in rows]

    def _body(self, sequence: int, root: bytes, data: bytes) -> Batch:
        with contextlib.suppress(BatchInvalid, LimitExceeded):
            batch = Batch.parse(data)
            if batch.root == root:
                return batch
        raise StoreDamaged(self._path, f"the body of block {sequence} is damaged")

    def check_pages(self) -> str:
        """Look at every page and index of the file; "ok", or what is wrong first."""
        found = self._db.execute("PRAGMA integrity_check(1)").fetchall()
        return str(found[0][0]) if found else "no answer"

    def bodies_now(self) -> Iterator[tuple[int, bytes, bytes]]:
        """Sequence, root and bytes of every body. Only before `start`."""
        for sequence, root, data in self._db.execute(
            "SELECT sequence, root, data FROM body ORDER BY sequence"
        ):
            yield int(sequence), bytes(root), bytes(data)

    def count_bodies(self) -> int:
        """How many bodies are held. Only before `start`."""
        return int(str(self._db.execute("SELECT count(*) FROM body").fetchall()[0][0]))

    def close(self) -> None:
        """Close the file of a store that was never started."""
        self._db.close()

    def body_now(self, sequence: int, root: bytes) -> bytes | None:
        """Read one body directly. Only before `start`. Raises `StoreDamaged`."""
        try:
            found = self._db.execute(
                "SELECT data FROM body WHERE sequence=? AND root=?", (sequence, root)
            ).fetchone()
        except (apsw.CorruptError, apsw.NotADBError) as error:
            raise StoreDamaged(self._path, f"damaged ({error})") from error
        return None if found is None else bytes(found[0])

    def batch_now(self, sequence: int, root: bytes) -> Batch | None:
        """One body as a batch. Only before `start`. Raises `StoreDamaged` if it is another one."""
        data = self.body_now(sequence, root)
        return None if data is None else self._body(sequence, root, data)

    async def body(self, sequence: int, root: bytes | None = None) -> bytes | None:
        """The body agreed (or accepted) at `sequence`, or None."""
        return await self._ask(
            "SELECT data FROM body WHERE sequence=?1 AND (?2 IS NULL OR root=?2)", (sequence, root)
        )

    async def body_by_root(self, root: bytes) -> bytes | None:
        """Find a body by its payload root."""
        return await self._ask("SELECT data FROM body WHERE root=?", (root,))

    async def certificates(self, height: int) -> list[bytes | CorruptRecord]:
        """Kept block certificates around and above `height`: two anchors, and the tip's.

        In the place of one that is not as it was written, what is wrong with it.
        """
        key = height // ANCHOR_BLOCKS

        def read() -> list[bytes | CorruptRecord]:
            found = cast(
                "Iterable[tuple[int, int, int, bytes]]",
                self._db.execute(
                    "SELECT kind, key, sequence, data FROM record "
                    "WHERE kind=?1 AND key IN (?2, ?2 + 1) OR kind=?3 ORDER BY kind=?3, key",
                    (ANCHOR_KIND, key, TIP_KIND),
                ),
            )
            return [
                _intact(kind, at, sequence, bytes(stored)) for kind, at, sequence, stored in found
            ]

        return await self.run(read)

    def prune(self, through: int) -> int:
        """Forget the bodies up to `through`, in one transaction; return how many.

        Their batches go too. Other records stay: what protects this node's votes and certificates
        is never pruned. On the writing thread (`run`), or before `start`.
        """
        with transaction(self._db):
            self._db.execute("DELETE FROM body WHERE sequence<=?", (through,))
            forgotten = self._db.changes()
            self._db.execute("DELETE FROM record WHERE kind=? AND key<=?", (AGREED_KIND, through))
            return forgotten

    def usage(self) -> space.Usage:
        """How full the file is. On the writing thread, or before `start`."""
        return space.usage(self._db)

    def give_back(self) -> int:
        """Give a slice of free space back to the disk; return the bytes. As `prune`."""
        return space.give_back(self._db)

    async def run(self, function: Callable[[], T]) -> T:
        """Run `function` on the writing thread between two transactions and return its result."""
        done = trio.Event()
        loop = trio.lowlevel.current_trio_token()
        answer: list[T] = []
        failure: list[Exception] = []

        def job() -> None:
            try:
                answer.append(function())
            except Exception as error:
                failure.append(error)
            loop.run_sync_soon(done.set)

        self._jobs.put(job)
        await done.wait()
        if failure:
            if isinstance(failure[0], apsw.CorruptError | apsw.NotADBError):
                raise StoreDamaged(self._path, f"damaged ({failure[0]})") from failure[0]
            raise failure[0]
        return answer[0]

    async def _ask(self, statement: str, values: tuple[int | bytes | None, ...]) -> bytes | None:
        """First column of the first row."""

        def read() -> bytes | None:
            found = self._db.execute(statement, values).fetchone()
            return None if found is None else bytes(found[0])

        return await self.run(read)

    def commit_soon(
        self, serial: int, records: Sequence[Record], bodies: Sequence[Body], drop: int | None
    ) -> None:
        """Write one tick; `Committed` or `CommitFailed` is posted to the completions."""
        self._jobs.put(_Tick(serial=serial, records=records, bodies=bodies, drop=drop))

    def stop(self) -> None:
        """Write what is queued, close the file and join the thread."""
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        try:
            self._work()
        except BaseException as error:
            self._completions.post(self._token, CommitFailed(error=error))
        finally:
            self._db.close()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            if not isinstance(job, _Tick):
                job()
                continue
            group, after = self._group(job)
            began = self._clock()
            self._write(group)
            self._completions.post(
                self._token,
                Committed(
                    serial=group[-1].serial, commit_s=self._clock() - began, group=len(group)
                ),
            )
            if after is _STOP:
                break
            if callable(after):
                after()

    def _group(self, first: _Tick) -> tuple[list[_Tick], object]:
        """Take the ticks that wait behind `first`, and what came after them."""
        group = [first]
        while len(group) < COMMIT_GROUP_MAX:
            try:
                job = self._jobs.get_nowait()
            except Empty:
                break
            if not isinstance(job, _Tick):
                return group, _STOP if job is None else job
            group.append(job)
        return group, None

    def _write(self, group: Sequence[_Tick]) -> None:
        rows = [row for tick in group for row in _rows(tick)]
        if len(rows) <= TICK_ROWS[-1]:
            self._put(rows)
            return
        with transaction(self._db):
            for start in range(0, len(rows), TICK_ROWS[-1]):
                self._put(rows[start : start + TICK_ROWS[-1]])

    def _put(self, rows: Sequence[tuple[_Value, ...]]) -> None:
        """Write rows of `tick`, in order; a transaction of its own unless there is one."""
        count = next(count for count in TICK_ROWS if len(rows) <= count)
        values = [value for row in rows for value in row]
        values += [None] * (TICK_COLUMNS * count - len(values))
        self._db.execute(WRITE_TICK[count], values)


def _intact(kind: int, key: int, sequence: int, stored: bytes) -> bytes | CorruptRecord:
    try:
        return Row.read(kind, key, sequence, stored).data
    except CorruptRecord as error:
        return error


def _rows(tick: _Tick) -> list[tuple[_Value, ...]]:
    """What a tick writes, in the columns of the view."""
    encoded = [encode_record(record) for record in tick.records]
    rows: list[tuple[_Value, ...]] = [
        (row.kind, row.key, row.sequence, row.stored, None) for row in encoded
    ]
    rows += [(TICK_BODY, None, body.sequence, body.batch.body, body.root) for body in tick.bodies]
    if tick.drop is not None:
        rows.append((TICK_DROP, None, tick.drop, None, None))
    return rows


_STOP: Final = object()
