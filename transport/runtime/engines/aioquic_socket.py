"""A UDP socket of plain Python, with the segmentation of Linux where the kernel has it."""

import contextlib
import errno
import socket
import struct
from collections import Counter, deque
from typing import Final, TypeAlias

from native.errors import NativeError
from transport.core.engine import EngineSettings

Address: TypeAlias = tuple[str, int, int, int]

_UDP_LEVEL: Final = 17
_UDP_SEGMENT: Final = 103
_UDP_GRO: Final = 104
_GSO_BYTES_MAX: Final = 65_507
_RECEIVE_BYTES_MAX: Final = 65_536
_COUNTED: Final = (
    "datagrams_received",
    "receive_calls",
    "bytes_received",
    "datagrams_sent",
    "send_calls",
    "bytes_sent",
    "send_errors",
    "ecn_received",
)


def parsed(text: str) -> Address:
    """An IPv6 address with port, as in `[::1]:9292`; raises `NativeError`."""
    host, _, port = text.rpartition(":")
    if not (host.startswith("[") and host.endswith("]") and port.isdecimal()):
        raise NativeError("not an IPv6 address with port, as in [::1]:9292")
    plain, _, scope = host[1:-1].partition("%")
    try:
        socket.inet_pton(socket.AF_INET6, plain)
    except OSError:
        raise NativeError("not an IPv6 address with port, as in [::1]:9292") from None
    if int(port) > 65_535 or (scope and not scope.isdecimal()):
        raise NativeError("not an IPv6 address with port, as in [::1]:9292")
    return plain, int(port), 0, int(scope or 0)


def shown(address: Address) -> str:
    """The text of an address."""
    host = address[0].partition("%")[0]
    scope = f"%{address[3]}" if address[3] else ""
    return f"[{host}{scope}]:{address[1]}"


class DatagramSocket:
    """Sends many datagrams of one size at a time if the kernel can."""

    def __init__(self, listen: Address, settings: EngineSettings) -> None:
        """Raises `OSError`."""
        self._socket: Final = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        try:
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            size = settings.socket_buffer_bytes
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
            self._socket.bind(listen)
            self._socket.setblocking(False)
        except OSError:
            self._socket.close()
            raise
        host, port, flow, scope = self._socket.getsockname()
        self.address: Final[Address] = (host, port, flow, scope)
        option = self._socket.getsockopt
        self.buffers_bytes: Final = (  # granted; the kernel may give less than was asked for
            option(socket.SOL_SOCKET, socket.SO_RCVBUF),
            option(socket.SOL_SOCKET, socket.SO_SNDBUF),
        )
        self.segments = settings.gso_segments_max
        try:
            self._socket.setsockopt(_UDP_LEVEL, _UDP_SEGMENT, 0)  # does the kernel know it?
        except OSError:
            self.segments = 1
        with contextlib.suppress(OSError):
            self._socket.setsockopt(_UDP_LEVEL, _UDP_GRO, 1)
        self._counters: Counter[str] = Counter()

    def fileno(self) -> int:
        """The descriptor; -1 once it is closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Give the port back. What is asked of it afterwards is what it was."""
        self._socket.close()

    def counted(self) -> dict[str, int]:
        """Counters by name."""
        return {name: self._counters[name] for name in _COUNTED}

    def take_counters(self, other: "DatagramSocket") -> None:
        """Go on counting where another socket stopped."""
        self._counters.update(other._counters)

    def receive(self, datagrams_max: int) -> list[tuple[bytes, Address]]:
        """What waits; a pending ICMP error counts as nothing, timers deal with its connection."""
        received: list[tuple[bytes, Address]] = []
        for _ in range(datagrams_max):  # calls, not datagrams: empty ones cost as much
            if len(received) >= datagrams_max:
                break
            try:
                data, ancillary, _, remote = self._socket.recvmsg(
                    _RECEIVE_BYTES_MAX, socket.CMSG_SPACE(4)
                )
            except BlockingIOError:
                break
            except OSError:
                continue
            self._counters["receive_calls"] += 1
            self._counters["bytes_received"] += len(data)
            size = len(data)
            for level, kind, value in ancillary:
                if (level, kind) == (_UDP_LEVEL, _UDP_GRO) and len(value) >= 4:
                    size = struct.unpack_from("=i", value)[0]
            address: Address = (remote[0], remote[1], 0, remote[3])
            for at in range(0, len(data), max(size, 1)):
                received.append((data[at : at + size], address))
                self._counters["datagrams_received"] += 1
        return received

    def send(self, queue: deque[tuple[bytes, Address]]) -> bool:
        """Send from the queue; False: no room now, the rest stays."""
        while queue:
            run = self._run(queue)
            data, remote = queue[0]
            try:
                if run == 1:
                    self._socket.sendto(data, remote)
                else:
                    parts = [queue[at][0] for at in range(run)]
                    segment = (_UDP_LEVEL, _UDP_SEGMENT, struct.pack("=H", len(data)))
                    self._socket.sendmsg(parts, [segment], 0, remote)
            except BlockingIOError:
                return False
            except OSError as error:
                if run > 1 and error.errno in (errno.EIO, errno.EINVAL, errno.EMSGSIZE):
                    self.segments = 1  # the device cannot: one by one from now on
                    continue
                self._counters["send_errors"] += 1
            else:
                self._counters["send_calls"] += 1
            for _ in range(run):
                sent, _ = queue.popleft()
                self._counters["datagrams_sent"] += 1
                self._counters["bytes_sent"] += len(sent)
        return True

    def _run(self, queue: deque[tuple[bytes, Address]]) -> int:
        """How many from the front go out in one call: equal sizes, the last may be smaller."""
        first, remote = queue[0]
        count, total = 1, len(first)
        if self.segments == 1:
            return 1
        for data, other in list_from_second(queue, self.segments):
            total += len(data)
            if other != remote or len(data) > len(first) or total > _GSO_BYTES_MAX:
                break
            count += 1
            if len(data) < len(first):
                break
        return count


def list_from_second(queue: deque[tuple[bytes, Address]], end: int) -> list[tuple[bytes, Address]]:
    """Items one up to `end` of a queue."""
    return [queue[at] for at in range(1, min(end, len(queue)))]
