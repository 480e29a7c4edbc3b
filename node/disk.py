"""A disk that takes no more while the node runs: what it looks like, and what to tell.

A failed commit ends the process, because nothing may leave it that is not durable. So a full, read-
only or failing disk is an error with a next step, and not a defect of the software.
"""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import apsw

from node.errors import DiskFailed

WRITE_ERRORS: Final = (apsw.FullError, apsw.IOError, apsw.ReadOnlyError, apsw.CantOpenError)
FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
FAILING: Final = FULL | {errno.EROFS, errno.EIO}


def disk_failure(error: BaseException, data: Path) -> DiskFailed | None:
    """Say that the disk below `data` failed, if that is all that `error` says."""
    causes = list(_leaves(error))
    if not all(_of_the_disk(cause) for cause in causes):
        return None
    free_mb = shutil.disk_usage(data).free // 1_000_000
    return DiskFailed(
        f"the files in {data} cannot be written: {causes[0]} ({free_mb:,} MB are free)",
        hint="make room or replace the disk, then start the node again: it goes on where it "
        "stopped",
    )


def is_full(error: OSError) -> bool:
    """Whether there is no room; then the databases cannot be written either."""
    return error.errno in FULL


def _of_the_disk(cause: BaseException) -> bool:
    if isinstance(cause, OSError):
        return cause.errno in FAILING
    return isinstance(cause, WRITE_ERRORS)


def _leaves(error: BaseException) -> Iterator[BaseException]:
    if isinstance(error, BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _leaves(inner)
    else:
        yield error
