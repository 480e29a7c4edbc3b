"""Is this machine's network fit for STOQ? Each finding says what was seen and what to do."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final

from transport.limits import MTU_BYTES_DEFAULT, SOCKET_BUFFER_BYTES
from transport.runtime.endpoint import checked_address

IP_UDP_HEADER_BYTES: Final = 48  # IPv6 and UDP
MTU_BYTES_USUAL: Final = 1_500
_UDP_SEGMENT: Final = 103  # linux/udp.h
_UDP_GRO: Final = 104
_INTERFACES: Final = Path("/sys/class/net")
_NO_IPV6: Final = (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL, errno.ENETUNREACH)


class Grade(StrEnum):
    """How a finding is to be taken."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at; `advice` is empty when all is well."""

    name: str
    grade: Grade
    seen: str
    advice: str = ""


def netcheck(peer: str | None = None, *, buffer_bytes: int = SOCKET_BUFFER_BYTES) -> list[Finding]:
    """Look at everything; raises `AddressInvalid` for a peer that is no IPv6 address."""
    if peer is not None:
        peer = checked_address(peer)
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            probe.bind(("::1", 0))
            return [
                _loopback(probe),
                _reach(peer),
                *_interfaces(),
                _segmentation(probe),
                _coalescing(probe),
                _buffer(probe, socket.SO_RCVBUF, "receive buffer", "rmem", buffer_bytes),
                _buffer(probe, socket.SO_SNDBUF, "send buffer", "wmem", buffer_bytes),
            ]
    except OSError as error:
        seen = os.strerror(error.errno or 0)
        advice = "enable IPv6: sysctl net.ipv6.conf.all.disable_ipv6=0"
        return [Finding(name="IPv6", grade=Grade.FAIL, seen=seen, advice=advice)]


def _loopback(probe: socket.socket) -> Finding:
    probe.settimeout(1)
    try:
        probe.sendto(b"netcheck", probe.getsockname())
        answered = probe.recv(16) == b"netcheck"
    except OSError:
        answered = False
    if answered:
        return Finding(name="IPv6 loopback", grade=Grade.OK, seen="a datagram came back")
    return Finding(
        name="IPv6 loopback",
        grade=Grade.FAIL,
        seen="a datagram to [::1] did not come back",
        advice="let the firewall accept UDP on the lo interface",
    )


def _reach(peer: str | None) -> Finding:
    """Whether there is a route; connecting a UDP socket sends nothing."""
    host, _, port = (peer or "[2001:db8::1]:9292").rpartition(":")
    name = "route to the peer" if peer else "route to other networks"
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((host.strip("[]"), int(port)))
            return Finding(name=name, grade=Grade.OK, seen=f"from [{probe.getsockname()[0]}]")
        except OSError as error:
            grade = Grade.FAIL if peer and error.errno in _NO_IPV6 else Grade.WARN
            return Finding(
                name=name,
                grade=grade,
                seen=os.strerror(error.errno or 0),
                advice="give this machine a global IPv6 address and a default route; "
                "nodes on the same machine do not need one",
            )


def _interfaces() -> Iterator[Finding]:
    try:
        names = sorted(path.name for path in _INTERFACES.iterdir())
    except OSError:
        return
    for name in names:
        try:
            mtu = int((_INTERFACES / name / "mtu").read_text())
            up = (_INTERFACES / name / "operstate").read_text().strip() in ("up", "unknown")
        except (OSError, ValueError):
            continue
        if not up:
            continue
        usable = mtu - IP_UDP_HEADER_BYTES
        if mtu < MTU_BYTES_USUAL:
            grade, advice = Grade.WARN, "each packet carries less; look for a tunnel on the way"
        elif usable > MTU_BYTES_DEFAULT and name != "lo":
            grade = Grade.OK
            advice = f"where every hop carries it, set transport.path_mtu_bytes_max to {usable}"
        else:
            grade, advice = Grade.OK, ""
        seen = f"{mtu} bytes, {usable} for QUIC"
        yield Finding(name=f"MTU of {name}", grade=grade, seen=seen, advice=advice)


def _segmentation(probe: socket.socket) -> Finding:
    return _option(probe, _UDP_SEGMENT, "UDP GSO", "sending costs three to four times the CPU")


def _coalescing(probe: socket.socket) -> Finding:
    return _option(probe, _UDP_GRO, "UDP GRO", "receiving costs more CPU")


def _option(probe: socket.socket, option: int, name: str, cost: str) -> Finding:
    try:
        probe.setsockopt(socket.IPPROTO_UDP, option, 1)
        probe.setsockopt(socket.IPPROTO_UDP, option, 0)
    except OSError as error:
        seen = f"{os.strerror(error.errno or 0)}: {cost}"
        advice = "use Linux 5.0 or newer, outside a sandbox that hides the option"
        return Finding(name=name, grade=Grade.WARN, seen=seen, advice=advice)
    return Finding(name=name, grade=Grade.OK, seen="the kernel has it")


def _buffer(probe: socket.socket, option: int, name: str, key: str, asked: int) -> Finding:
    probe.setsockopt(socket.SOL_SOCKET, option, asked)
    granted = probe.getsockopt(socket.SOL_SOCKET, option) // 2  # Linux reports the double
    seen = f"{granted:,} of {asked:,} bytes granted"
    if granted >= asked:
        return Finding(name=name, grade=Grade.OK, seen=seen)
    return Finding(
        name=name,
        grade=Grade.WARN,
        seen=f"{seen}: bursts will be lost",
        advice=f"sysctl -w net.core.{key}_max={asked}",
    )
