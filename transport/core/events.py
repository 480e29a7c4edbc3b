"""Names for what happens on the wire: kinds of streams, reasons to close, reasons to refuse.

The numbers of `StreamKind` and `CloseReason` are protocol; those of `EventKind` and `Cause` are the
border to the engine and may change with it.
"""

from dataclasses import dataclass
from enum import IntEnum, StrEnum
from typing import Final

# numbers of TLS -> names in statistics and metric labels
_KEY_EXCHANGES: Final = {0x11EC: "X25519MLKEM768"}
_SIGNATURES: Final = {0xFEDC: "falconpadded512", 0xFEDF: "falconpadded1024", 0x0905: "mldsa65"}
_UNKNOWN: Final = "unknown"  # as before the end of a handshake


def key_exchange_name(group: int) -> str:
    """IANA's name of a TLS group of this profile."""
    return _KEY_EXCHANGES.get(group, _UNKNOWN)


def signature_name(scheme: int) -> str:
    """The name of a TLS signature scheme of this profile."""
    return _SIGNATURES.get(scheme, _UNKNOWN)


class StreamKind(IntEnum):
    """First byte of every stream but stream 0."""

    RAW = 0
    VOTES = 1
    BULK = 2
    RPC = 3
    CONTROL = 255  # stream 0, which carries no kind byte


class ChannelKind(IntEnum):
    """Framed one-way streams that live as long as the connection."""

    VOTES = 1
    BULK = 2


class EventKind(IntEnum):
    """What an engine reports."""

    CONNECTED = 0
    FRAME = 1
    OPENED = 2
    READABLE = 3
    WRITABLE = 4
    FINISHED = 5
    STOPPED = 6
    AVAILABLE = 7
    CLOSED = 8
    WATCHED = 9
    DATAGRAM = 10
    DATAGRAM_ROOM = 11
    MOVED = 12


class Cause(IntEnum):
    """How a connection ended."""

    LOCAL = 0
    PEER = 1
    REFUSED = 2
    TIMED_OUT = 3
    RESET = 4
    TRANSPORT = 5


class CloseReason(IntEnum):
    """Why one side closed on purpose; the number travels with the close."""

    SHUTDOWN = 0
    PROTOCOL_VIOLATION = 1
    BAD_HELLO = 2
    OTHER_CHAIN = 3
    OTHER_VERSION = 4
    DUPLICATE = 5
    NOT_ADMITTED = 6
    HELLO_TIMEOUT = 7
    OVERLOADED = 8
    UNUSED = 9
    SAME_KEY = 10
    UNKNOWN = 255  # a code this version has no name for

    @classmethod
    def of(cls, code: int) -> "CloseReason":
        """Name a code from the wire."""
        return cls(code) if code in cls._value2member_map_ else cls.UNKNOWN


class RefusalReason(StrEnum):
    """Why a peer, or bytes, never reached the application. Counted, and a metric label."""

    WRONG_KEY = "wrong_key"
    BAD_SIGNATURE = "bad_signature"
    BAD_KEY_ENCODING = "bad_key_encoding"
    NO_PEER_KEY = "no_peer_key"
    CLASSICAL_ONLY = "classical_only"
    NO_RAW_KEY = "no_raw_key"
    OTHER_PROTOCOL = "other_protocol"
    TLS_FAILURE = "tls_failure"
    NOT_QUIC = "not_quic"
    OTHER_QUIC_VERSION = "other_quic_version"
    STRAY_PACKET = "stray_packet"
    BAD_INITIAL = "bad_initial"
    HANDSHAKE_TIMEOUT = "handshake_timeout"
    HELLO_TIMEOUT = "hello_timeout"
    REFUSED_BY_PEER = "refused_by_peer"
    CONNECTIONS_FULL = "connections_full"
    HANDSHAKES_FULL = "handshakes_full"
    PROTOCOL_VIOLATION = "protocol_violation"
    PREFIX_CONNECTIONS_FULL = "prefix_connections_full"
    PREFIX_HANDSHAKES_FULL = "prefix_handshakes_full"
    HANDSHAKE_RATE = "handshake_rate"
    MEMORY_FULL = "memory_full"
    SHORT_INITIAL = "short_initial"
    REPLAYED_TICKET = "replayed_ticket"
    BAD_KEY_SHARE = "bad_key_share"
    # from here on: judged after the handshake, by HELLO
    BAD_HELLO = "bad_hello"
    OTHER_CHAIN = "other_chain"
    OTHER_VERSION = "other_version"
    NOT_ADMITTED = "not_admitted"
    DUPLICATE = "duplicate"
    SAME_KEY = "same_key"


_REASONS = tuple(RefusalReason)
ENGINE_REFUSALS: tuple[RefusalReason, ...] = _REASONS[: _REASONS.index(RefusalReason.BAD_HELLO)]

HELLO_REFUSALS: dict[CloseReason, RefusalReason] = {
    CloseReason.BAD_HELLO: RefusalReason.BAD_HELLO,
    CloseReason.OTHER_CHAIN: RefusalReason.OTHER_CHAIN,
    CloseReason.OTHER_VERSION: RefusalReason.OTHER_VERSION,
    CloseReason.NOT_ADMITTED: RefusalReason.NOT_ADMITTED,
    CloseReason.DUPLICATE: RefusalReason.DUPLICATE,
    CloseReason.SAME_KEY: RefusalReason.SAME_KEY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Closure:
    """How and why a connection ended.

    `reason` is set for a close on purpose (`Cause.LOCAL`, `Cause.PEER`), `refusal` when the
    handshake failed.
    """

    cause: Cause
    reason: CloseReason | None = None
    refusal: RefusalReason | None = None
    detail: str = ""

    @classmethod
    def of(cls, cause: int, code: int, detail: str) -> "Closure":
        """From an engine's event."""
        match Cause(cause):
            case Cause.LOCAL | Cause.PEER as known:
                return cls(cause=known, reason=CloseReason.of(code), detail=detail)
            case Cause.REFUSED as known:
                return cls(cause=known, refusal=ENGINE_REFUSALS[code], detail=detail)
            case known:
                return cls(cause=known, detail=detail)

    @property
    def name(self) -> str:
        """One word for logs and tables."""
        if self.reason is not None:
            return self.reason.name.lower()
        if self.refusal is not None:
            return self.refusal.value
        return self.cause.name.lower()

    def __str__(self) -> str:
        """The word, who said it, and the detail if there is one."""
        who = {Cause.LOCAL: " (by us)", Cause.PEER: " (by the peer)"}.get(self.cause, "")
        return f"{self.name}{who}" + (f": {self.detail}" if self.detail else "")
