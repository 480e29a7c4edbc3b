"""What a figure is, and the facts of the machine it was measured on."""

from __future__ import annotations

import os
import platform
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

Value = float | int

PERCENT: Final = 100
PAUSE_PERIOD_S: Final = 0.02
PAUSE_MS_MAX: Final = 500.0
ATTEMPTS_MAX: Final = 3  # of a run during which the machine paused


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One figure with the conditions it holds under."""

    name: str
    value: Value
    unit: str
    conditions: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Suite:
    """A group of figures that are measured together.

    `run` gets the names that are wanted, so that it can skip a phase nobody asked for.
    """

    group: str
    names: tuple[str, ...]
    run: Callable[[frozenset[str]], Iterator[Result]]

    def wanted(self, only: Sequence[str]) -> frozenset[str]:
        """Return the names that the choice asks for; an empty choice asks for all."""
        if not only:
            return frozenset(self.names)
        return frozenset(
            name
            for name in self.names
            if any(name.startswith(token) or self.group == token for token in only)
        )


def progress(text: str) -> None:
    """Tell the person who waits what is happening."""
    print(f"bench: {text}", file=sys.stderr, flush=True)


class Pauses:
    """Watches whether the machine itself stood still, for the length of a `with`.

    A virtual machine may be stopped for seconds; a latency measured meanwhile says nothing.
    """

    def __init__(self) -> None:
        self.longest_ms = 0.0
        self._done = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._watcher.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._watcher.join()

    @property
    def excessive(self) -> bool:
        """True when a run should be repeated."""
        return self.longest_ms > PAUSE_MS_MAX

    def _watch(self) -> None:
        while True:
            began = time.monotonic()
            if self._done.wait(PAUSE_PERIOD_S):
                return
            late = time.monotonic() - began - PAUSE_PERIOD_S
            self.longest_ms = max(self.longest_ms, late * 1000)


def rounded(value: float) -> Value:
    """Return the value with four significant digits; more would be noise."""
    return float(f"{value:.4g}")


def machine() -> dict[str, str | int | float]:
    """Return what a reader needs to compare figures with those of another machine."""
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        "kernel": platform.release(),
        "architecture": platform.machine(),
        "python": platform.python_version(),
        "load_average_at_start": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or "unknown"
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or "unknown"
