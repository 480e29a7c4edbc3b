"""What this room raises across its border. A peer's fault is counted, not raised, unless the caller
waits for that very peer.

Streams raise trio's own `BrokenResourceError` and `ClosedResourceError`, with one of these as the
cause where there is more to say.
"""

from collections.abc import Mapping

from transport.core.events import CloseReason, Closure


class TransportError(Exception):
    """Root of this room's errors."""

    code = "HM-T-000"

    @property
    def hint(self) -> str:
        """The next step, in one sentence."""
        return "see the log of this node"


class AddressInvalid(TransportError):
    """An address that STOQ cannot use; IPv4 is the usual case."""

    code = "HM-T-001"

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"{address!r}: {problem}")
        self.address = address

    @property
    def hint(self) -> str:
        return "write an IPv6 address with port, as in [::1]:9292"


class EndpointStopped(TransportError):
    """The endpoint is not running, not yet or no longer."""

    code = "HM-T-002"

    @property
    def hint(self) -> str:
        return "start it with `await nursery.start(endpoint.run)` and keep the nursery open"


class BindFailed(TransportError):
    """The listen address cannot be bound."""

    code = "HM-T-003"

    def __init__(self, address: str, problem: str) -> None:
        super().__init__(f"cannot listen on {address}: {problem}")
        self.address = address

    @property
    def hint(self) -> str:
        return "use an address of this machine; `ip -6 address` lists them"


class PortInUse(BindFailed):
    """The listen address is taken by another process."""

    code = "HM-T-004"

    @property
    def hint(self) -> str:
        return f"stop the process that holds {self.address}, or set another transport.listen"


class ConnectionEnded(TransportError):
    """The connection is over; `closure` says how."""

    code = "HM-T-005"

    def __init__(self, closure: Closure) -> None:
        super().__init__(str(closure))
        self.closure = closure

    @property
    def hint(self) -> str:
        return "dial again; a pool does so by itself"


class DialFailed(ConnectionEnded):
    """No connection to the node that was asked for came about. `problems` has a text for every
    address that was tried, if they were several; `closure` is the one that says most."""

    code = "HM-T-006"

    def __init__(self, closure: Closure, problems: Mapping[str, str] | None = None) -> None:
        super().__init__(closure)
        self.problems = dict(problems or {})

    def __str__(self) -> str:
        """Every address with its problem, or the only problem."""
        if not self.problems:
            return super().__str__()
        return "; ".join(f"{address}: {problem}" for address, problem in self.problems.items())

    @property
    def hint(self) -> str:
        return _DIAL_HINTS.get(self.closure.name, "check the peer's log and both genesis files")


_DIAL_HINTS = {
    "wrong_key": "another node answers at this address: correct the address or the NodeId",
    "handshake_timeout": "nobody answers: check that the peer runs and UDP reaches its port",
    "timed_out": "nobody answers: check that the peer runs and UDP reaches its port",
    "other_chain": "both nodes need the same genesis.json",
    "other_version": "bring both nodes to the same release",
    "not_admitted": "the peer's policy refuses this node: see the detail",
    "same_key": "two nodes run with one key: give each its own home folder",
}


class ChannelFull(TransportError):
    """A channel's queue is at its limit: the peer reads more slowly than we send."""

    code = "HM-T-007"

    @property
    def hint(self) -> str:
        return "drop or delay what is not a vote, or close the connection"


class FrameTooLong(TransportError):
    """A frame is over its size limit; nothing was sent."""

    code = "HM-T-008"

    @property
    def hint(self) -> str:
        return "split it; the limits stand in transport/limits.py"


class PeerRefused(TransportError):
    """Raised by a `PeerVerifier` that does not want this peer; the words are sent to it."""

    code = "HM-T-009"

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class MalformedHello(TransportError):
    """Bytes from a peer that are no HELLO."""

    code = "HM-T-010"


class HelloRefused(TransportError):
    """A well-formed HELLO from a peer we do not connect to."""

    code = "HM-T-011"

    def __init__(self, reason: CloseReason, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class MalformedFrame(TransportError):
    """Bytes from a peer that are no frame, or a frame of a form we do not know."""

    code = "HM-T-012"


class RPCError(TransportError):
    """A call was answered with an error. `code_text` is stable and meant for programs.

    Handlers raise it to refuse; any other exception of theirs reaches the caller as `internal`.
    """

    code = "HM-T-013"

    def __init__(self, code_text: str, message: str = "") -> None:
        super().__init__(f"{code_text}: {message}" if message else code_text)
        self.code_text = code_text
        self.message = message


class RPCTimeout(RPCError):
    """No answer within the caller's deadline; the call may or may not have run."""

    code = "HM-T-014"

    def __init__(self, method: str, timeout_s: float) -> None:
        super().__init__("timeout", f"{method} gave no answer within {timeout_s:g} s")

    @property
    def hint(self) -> str:
        return "ask again if the method is idempotent, or give it more time"


class DatagramTooLong(TransportError):
    """A datagram does not fit into one packet of this path; nothing was sent."""

    code = "HM-T-015"

    @property
    def hint(self) -> str:
        return "keep to `connection.datagram_bytes_max`, or use a stream"


class DatagramsUnsupported(TransportError):
    """The peer takes no datagrams."""

    code = "HM-T-016"

    @property
    def hint(self) -> str:
        return "use a stream or a channel; `connection.datagram_bytes_max` is None for such a peer"


class DatagramQueueFull(TransportError):
    """Datagrams are made faster than they leave; nothing was queued."""

    code = "HM-T-017"

    @property
    def hint(self) -> str:
        return "drop it, or wait for room with `await connection.send_datagram(data)`"


class AddressUnknown(TransportError):
    """A pool was asked for a node that it knows no address of."""

    code = "HM-T-018"

    def __init__(self, peer: str) -> None:
        super().__init__(f"no address of node {peer} is known")

    @property
    def hint(self) -> str:
        return "tell the pool with `pool.set_addresses(node_id, addresses)`"


class PoolFull(TransportError):
    """Every connection of a pool is in use; none can make room."""

    code = "HM-T-019"

    @property
    def hint(self) -> str:
        return "finish streams and calls that are open, or make the pool with more connections"
