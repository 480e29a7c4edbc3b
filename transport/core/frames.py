"""Frames and what the transport itself puts into them: control frames and calls.

Frame = u32 big-endian length of type and body, u8 type, body. Channels are split in the engine; the
decoder here serves calls and is the readable twin that tests compare with.
"""

from dataclasses import dataclass
from enum import IntEnum
from ipaddress import IPv6Address
from typing import Final

from native.codec import CodecError, decode, encode
from transport.errors import MalformedFrame
from transport.limits import RPC_ERROR_CHARS_MAX, RPC_METHOD_CHARS_MAX

HEADER_SIZE_BYTES: Final = 5
PING_SIZE_BYTES: Final = 8
OBSERVED_SIZE_BYTES: Final = 18  # an IPv6 address and a port
_LENGTH_SIZE_BYTES: Final = 4
_TIMEOUT_MS_MAX: Final = 2**32 - 1


class ControlType(IntEnum):
    """Frames of the control stream."""

    HELLO = 1
    READY = 2  # the dialler has accepted the acceptor's HELLO
    OBSERVED = 3  # where the sender sees the receiver; after admission and after every move
    PING = 4
    PONG = 5  # the body of the PING it answers


class CallType(IntEnum):
    """Frames of a call's stream: one REQUEST, answered by one RESULT or ERROR."""

    REQUEST = 1
    RESULT = 2
    ERROR = 3


def encode_frame(frame_type: int, body: bytes) -> bytes:
    """One frame, ready to be written."""
    return (len(body) + 1).to_bytes(_LENGTH_SIZE_BYTES) + bytes((frame_type,)) + body


def lone_frame(data: bytes) -> tuple[int, bytes] | None:
    """Type and body, if `data` is exactly one frame; the decoder judges everything else."""
    if len(data) < HEADER_SIZE_BYTES:
        return None
    if int.from_bytes(data[:_LENGTH_SIZE_BYTES]) != len(data) - _LENGTH_SIZE_BYTES:
        return None
    return data[_LENGTH_SIZE_BYTES], data[HEADER_SIZE_BYTES:]


class FrameDecoder:
    """Cuts bytes that arrive in any chunks into `(type, body)`; refuses before it stores."""

    __slots__ = ("_buffer", "_size_max")

    def __init__(self, *, size_max: int) -> None:
        self._buffer = bytearray()
        self._size_max = size_max

    @property
    def pending_bytes(self) -> int:
        """Bytes of the frame that has begun and not ended."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Every frame that `data` completes; raises `MalformedFrame`."""
        self._buffer += data
        frames: list[tuple[int, bytes]] = []
        position = 0
        while len(self._buffer) - position >= _LENGTH_SIZE_BYTES:
            length = int.from_bytes(self._buffer[position : position + _LENGTH_SIZE_BYTES])
            if length == 0:
                raise MalformedFrame("frame without a type")
            if length > self._size_max:
                raise MalformedFrame(f"frame of {length} bytes is over the limit")
            end = position + _LENGTH_SIZE_BYTES + length
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[position + HEADER_SIZE_BYTES : end])
            frames.append((self._buffer[position + _LENGTH_SIZE_BYTES], body))
            position = end
        del self._buffer[:position]
        return frames


def encode_observed(address: str) -> bytes:
    """Body of an OBSERVED frame, from `[address]:port`. A zone means nothing to the peer."""
    host, _, port = address.rpartition(":")
    return IPv6Address(host.strip("[]").partition("%")[0]).packed + int(port).to_bytes(2)


def decode_observed(body: bytes) -> str:
    """`[address]:port`; raises `MalformedFrame`."""
    if len(body) != OBSERVED_SIZE_BYTES:
        raise MalformedFrame("an OBSERVED of the wrong size")
    return f"[{IPv6Address(body[:16])}]:{int.from_bytes(body[16:])}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a caller asks: a method, its argument, and how long it will wait."""

    method: str
    timeout_ms: int
    argument: bytes

    def encode(self) -> bytes:
        """Body of a REQUEST frame."""
        name = self.method.encode()
        timeout = min(self.timeout_ms, _TIMEOUT_MS_MAX).to_bytes(4)
        return timeout + bytes((len(name),)) + name + self.argument

    @classmethod
    def decode(cls, body: bytes) -> "Request":
        """Raises `MalformedFrame`."""
        if len(body) < 5 or len(body) < 5 + body[4] or not 0 < body[4] <= RPC_METHOD_CHARS_MAX:
            raise MalformedFrame("request without a method")
        end = 5 + body[4]
        try:
            method = body[5:end].decode("ascii")
        except UnicodeDecodeError:
            raise MalformedFrame("method names are ASCII") from None
        return cls(method=method, timeout_ms=int.from_bytes(body[:4]), argument=body[end:])


def encode_error(code_text: str, message: str) -> bytes:
    """Body of an ERROR frame; long words are cut."""
    return encode((code_text[:RPC_METHOD_CHARS_MAX], message[:RPC_ERROR_CHARS_MAX]))


def decode_error(body: bytes) -> tuple[str, str]:
    """Code and message of an ERROR frame; raises `MalformedFrame`."""
    try:
        value = decode(body, size_max=8 * RPC_ERROR_CHARS_MAX)
    except CodecError as error:
        raise MalformedFrame(f"error answer: {error}") from None
    match value:
        case (str(code_text), str(message)):
            return code_text, message
        case _:
            raise MalformedFrame("error answer of an unknown form")
