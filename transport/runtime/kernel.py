"""What the kernel counts about our sockets and links. Linux only; elsewhere it counts nothing."""

import os
import sys
from pathlib import Path

from transport.core.measures import kernel_drops
from transport.limits import (
    IPV6_UDP_HEADER_BYTES,
    MTU_BYTES_DEFAULT,
    MTU_BYTES_LINK_MAX,
    MTU_BYTES_MIN,
)

_DESCRIPTORS = Path("/proc/self/fd")
_UDP6 = Path("/proc/net/udp6")
_LINKS = Path("/sys/class/net")
_FLAG_UP = 0x1
_FLAG_LOOPBACK = 0x8


def link_mtu_bytes(links: Path = _LINKS) -> int:
    """The largest UDP payload that an interface takes which is up. Loopback counts only where
    nothing else is up; without any interface it is Ethernet's."""
    found: dict[bool, list[int]] = {True: [], False: []}
    for link in links.glob("*"):
        try:
            flags = int((link / "flags").read_text("ascii"), 16)
            state = (link / "operstate").read_text("ascii").strip()
            mtu = int((link / "mtu").read_text("ascii"))
        except (OSError, ValueError):
            continue  # not an interface, or gone meanwhile
        if flags & _FLAG_UP and state != "down":
            found[bool(flags & _FLAG_LOOPBACK)].append(mtu)
    mtus = found[False] or found[True]
    if not mtus:
        return MTU_BYTES_DEFAULT
    return max(MTU_BYTES_MIN, min(MTU_BYTES_LINK_MAX, max(mtus) - IPV6_UDP_HEADER_BYTES))


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
