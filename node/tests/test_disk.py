"""A failing disk is told from a defect."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import apsw
import pytest

from node.disk import disk_failure


def test_a_full_disk_is_no_defect_and_says_what_to_do(tmp_path: Path) -> None:
    error = ExceptionGroup("nursery", [ExceptionGroup("inner", [apsw.FullError("disk is full")])])
    failed = disk_failure(error, tmp_path)
    assert failed is not None
    assert "disk is full" in str(failed)
    assert str(tmp_path) in str(failed)
    assert "start the node again" in failed.hint


def test_both_databases_may_fail_at_once(tmp_path: Path) -> None:
    error = ExceptionGroup("nursery", [apsw.IOError("disk I/O error"), apsw.FullError("full")])
    assert disk_failure(error, tmp_path) is not None


def test_a_defect_beside_a_failed_write_stays_a_defect(tmp_path: Path) -> None:
    assert disk_failure(ExceptionGroup("x", [apsw.IOError("x"), KeyError("y")]), tmp_path) is None
    assert disk_failure(apsw.SQLError("no such table"), tmp_path) is None
    assert disk_failure(OSError(errno.ENOENT, "no such file"), tmp_path) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
def test_a_file_that_a_failing_disk_does_not_take_is_no_defect(tmp_path: Path, number: int) -> None:
    failed = disk_failure(OSError(number, os.strerror(number)), tmp_path)
    assert failed is not None
    assert os.strerror(number) in str(failed)
