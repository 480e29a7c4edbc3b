"""Disk errors and a wrong clock for one node, through a small preloaded library.

The library is built by the test with the system's C compiler; where there is none, `built` says so
and nothing that needs it is tried. Each node maps a control file of its own, so a fault begins and
ends while it runs. Only CLOCK_REALTIME lies; timeouts go on as they should.
"""

from __future__ import annotations

import errno
import shutil
import struct
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

SOURCE: Final = Path(__file__).with_name("shim.c")
CONTROL: Final = struct.Struct("=6q")  # `struct control` of the source
FOR_EVER: Final = -1


def compiler() -> str | None:
    """The C compiler of this machine, or None."""
    return next((found for name in ("cc", "gcc", "clang") if (found := shutil.which(name))), None)


def built(folder: Path) -> Path | None:
    """Build the library in `folder`, or return None where there is no C compiler."""
    found = compiler()
    if found is None:
        return None
    library = folder / "shim.so"
    if not library.exists():
        subprocess.run(
            [found, "-O2", "-Wall", "-shared", "-fPIC", "-o", str(library), str(SOURCE), "-ldl"],
            check=True,
        )
    return library


@dataclass(slots=True, kw_only=True)
class Shim:
    """The faults of one node. Each setting is written as a whole; the node sees it at once."""

    library: Path
    control: Path
    clock_offset_ns: int = 0
    clock_rate_ppm: int = 0
    sync_failures: int = 0
    sync_delay_us: int = 0

    def __post_init__(self) -> None:
        """Begin without any fault."""
        self.control.write_bytes(bytes(CONTROL.size))

    @property
    def environment(self) -> dict[str, str]:
        """What a node is started with."""
        return {"LD_PRELOAD": str(self.library), "CHAOS_SHIM": str(self.control)}

    def skew(self, seconds: float, *, rate_ppm: int = 0) -> None:
        """Set the clock forwards or backwards by so much, and let it run fast or slow."""
        self.clock_offset_ns, self.clock_rate_ppm = round(seconds * 1e9), rate_ppm
        self._write()

    def fail_syncs(self, count: int = FOR_EVER) -> None:
        """Let the next fsyncs fail with EIO."""
        self.sync_failures = count
        self._write()

    def slow_syncs(self, seconds: float) -> None:
        """Let each fsync take so much longer."""
        self.sync_delay_us = round(seconds * 1e6)
        self._write()

    def heal(self) -> None:
        """No fault any more."""
        self.clock_offset_ns = self.clock_rate_ppm = self.sync_failures = self.sync_delay_us = 0
        self._write()

    def _write(self) -> None:
        values = CONTROL.pack(
            self.clock_offset_ns,
            self.clock_rate_ppm,
            time.time_ns(),
            errno.EIO,
            self.sync_failures,
            self.sync_delay_us,
        )
        with self.control.open("r+b") as file:
            file.write(values)
