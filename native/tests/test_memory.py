"""The heap is given back where the C library is glibc; elsewhere the calls do nothing."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

PROGRAM = """
import os
from native import memory

def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

blocks = [bytes([1]) * 10_000 for _ in range(4_000)]
kept = blocks[::100]
del blocks
before = resident()
memory.give_back()
print(before - resident())
assert all(block == bytes([1]) * 10_000 for block in kept)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another allocator")
def test_free_pages_between_used_ones_are_given_back() -> None:
    """In a process of its own: what is free here depends on the tests before."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    assert int(done.stdout) > 20_000_000
