"""What the kernel counts about our sockets and links. Linux only; elsewhere it counts nothing."""

import os
import sys
from pathlib import Path

from transport.core.measures import kernel_drops

_DESCRIPTORS = Path("/proc/self/fd")
_UDP6 = Path("/proc/net/udp6")


def receive_drops(address: str) -> int:
    """Datagrams that found the receive buffer of our socket at this address full."""
    try:
        return kernel_drops(
            _UDP6.read_text("ascii"), address, _our_sockets(), byteorder=sys.byteorder
        )
    except (OSError, ValueError):
        return 0


def _our_sockets() -> frozenset[int]:
    inodes: set[int] = set()
    for name in os.listdir(_DESCRIPTORS):
        try:
            target = os.readlink(_DESCRIPTORS / name)
        except OSError:
            continue  # closed meanwhile
        if target.startswith("socket:["):
            inodes.add(int(target[8:-1]))
    return frozenset(inodes)
