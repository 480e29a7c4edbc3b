"""What was allocated in many threads is given back."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, sys, threading
from native import Batch
from native.memory import bound_allocator

def resident_mb():
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6

if sys.argv[1] == "bound" and not bound_allocator(
    2, mmap_threshold_bytes=262_144, trim_threshold_bytes=262_144
):
    sys.exit(3)
Batch.of([bytes(60_000)] * 10)  # a large block that is freed raises the thresholds, left to itself
before = resident_mb()
gate = threading.Barrier(8)

def work():
    kept = []
    for number in range(60):
        kept.append(Batch.of([bytes([number]) * 60_000] * 3))
        kept.append(Batch.of([bytes([number]) * 600]))
        if number % 2:
            del kept[::2]
    gate.wait()
    del kept

threads = [threading.Thread(target=work) for _ in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
print(resident_mb() - before)
"""


def kept_mb(mode: str) -> float:
    found = subprocess.run(
        [sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=False
    )
    if found.returncode == 3:
        pytest.skip("the C library is not glibc")
    assert found.returncode == 0, found.stderr
    return float(found.stdout)


def test_freed_blocks_are_given_back() -> None:
    assert kept_mb("bound") < kept_mb("free") / 2
