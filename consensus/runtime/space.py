"""Space in a SQLite file: how much of it holds something, and giving the rest back to the disk.

Deleting rows only makes pages free inside the file. A file made with `auto_vacuum=INCREMENTAL` can
give them back in slices, each a small transaction that moves pages from the end of the file into
free ones and shortens it. A file made before that setting keeps its size (its free pages are used
again) until `rebuild` has written it anew once.

Some free pages stay: a node that forgets a block for each new one would otherwise move pages all
day that the next block fills anyway.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import apsw

if TYPE_CHECKING:
    from pathlib import Path

INCREMENTAL: Final = 2  # the number SQLite gives to auto_vacuum=INCREMENTAL
FREE_PAGES_KEPT: Final = 1_024  # 4 MiB: more than a second of blocks at full load
RETURN_PAGES_MAX: Final = 256  # 1 MiB in one transaction: a few milliseconds on the writing thread


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Pages of one file, without its write-ahead log."""

    page_bytes: int
    pages: int
    free_pages: int
    shrinks: bool  # made with auto_vacuum=INCREMENTAL

    @property
    def used_bytes(self) -> int:
        """What the file holds; its size on disk is this and the free pages."""
        return (self.pages - self.free_pages) * self.page_bytes

    @property
    def returnable_pages(self) -> int:
        """Free pages beyond those that are kept for the next blocks."""
        return max(0, self.free_pages - FREE_PAGES_KEPT) if self.shrinks else 0


def prepare(database: apsw.Connection) -> None:
    """Make a new, still empty file one that can shrink. Before its first table is created."""
    database.execute(f"PRAGMA auto_vacuum={INCREMENTAL}").fetchall()


def usage(database: apsw.Connection) -> Usage:
    """How full a file is now."""
    page_bytes, pages, free, kind = (
        int(str(database.execute(f"PRAGMA {name}").fetchall()[0][0]))
        for name in ("page_size", "page_count", "freelist_count", "auto_vacuum")
    )
    return Usage(page_bytes=page_bytes, pages=pages, free_pages=free, shrinks=kind == INCREMENTAL)


def give_back(database: apsw.Connection) -> int:
    """Give one slice of free pages back to the disk; return how many bytes, 0 when done."""
    found = usage(database)
    pages = min(found.returnable_pages, RETURN_PAGES_MAX)
    if not pages:
        return 0
    database.execute(f"PRAGMA incremental_vacuum({pages})").fetchall()
    return pages * found.page_bytes


def rebuild(path: Path) -> Usage:
    """Write a file of a stopped node anew, as small as it can be, and able to shrink from then on.

    Needs as much free disk as the file holds; a crash leaves the old file.
    """
    database = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    try:
        database.execute("PRAGMA synchronous=FULL").fetchall()
        database.execute(f"PRAGMA auto_vacuum={INCREMENTAL}").fetchall()
        database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        return usage(database)
    finally:
        database.close()
