"""Strict DER (X.690 section 10): a bounded reader and a small writer.

The reader accepts only what the writer could have written: definite and minimal lengths, minimal
integers, single-byte tags, nothing left over. It has no recursion of its own; each nested `Reader`
counts against one depth and one element budget, so hostile bytes cost bounded work. It is used
inside `execute`: library parsers may change between versions, this one is part of the agreement.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Final

from trustchain import limits
from trustchain.errors import MalformedDER

BOOLEAN: Final = 0x01
INTEGER: Final = 0x02
BIT_STRING: Final = 0x03
OCTET_STRING: Final = 0x04
OBJECT_IDENTIFIER: Final = 0x06
UTF8_STRING: Final = 0x0C
UTC_TIME: Final = 0x17
GENERALIZED_TIME: Final = 0x18
SEQUENCE: Final = 0x30
SET: Final = 0x31

_ARC_SIZE_BYTES_MAX: Final = 9  # one arc of 63 bits
_TAG_NUMBER_HIGH: Final = 0x1F
_LENGTH_BYTES_MAX: Final = 3


class _Budget:
    """Elements left to read in one document, shared by its nested readers."""

    __slots__ = ("left",)

    def __init__(self) -> None:
        self.left = limits.DER_ELEMENTS_COUNT_MAX


class Reader:
    """A cursor over the elements of one document or of one constructed element in it."""

    __slots__ = ("_budget", "_data", "_depth", "_end", "_position")

    def __init__(self, data: bytes, *, size_max: int = limits.DER_SIZE_BYTES_MAX) -> None:
        if len(data) > size_max:
            raise MalformedDER(f"{len(data)} bytes, at most {size_max} are read")
        self._data = data
        self._position = 0
        self._end = len(data)
        self._depth = 0
        self._budget = _Budget()

    @property
    def position(self) -> int:
        """Offset of the next element in the document."""
        return self._position

    def more(self) -> bool:
        """Say whether an element follows."""
        return self._position < self._end

    def next_is(self, tag: int) -> bool:
        """Say whether the next element has this tag."""
        return self._position < self._end and self._data[self._position] == tag

    def close(self) -> None:
        """Raise unless everything was read."""
        if self._position != self._end:
            raise MalformedDER(f"{self._end - self._position} bytes left over")

    def tag(self) -> int:
        """Return the tag of the next element without reading it."""
        if self._position >= self._end:
            raise MalformedDER("ends early")
        return self._data[self._position]

    def content(self, tag: int) -> bytes:
        """Read one element with this tag and return its contents octets."""
        start, end = self._advance(tag)
        return self._data[start:end]

    def encoded(self, tag: int) -> bytes:
        """Read one element with this tag and return all its bytes, header included.

        The contents are not looked into: read them with a reader of their own if they matter.
        """
        begin = self._position
        _, end = self._advance(tag)
        return self._data[begin:end]

    def enter(self, tag: int) -> Reader:
        """Read one constructed element with this tag and return a reader of its contents."""
        if self._depth >= limits.DER_DEPTH_MAX:
            raise MalformedDER(f"nested deeper than {limits.DER_DEPTH_MAX}")
        start, end = self._advance(tag)
        inner = Reader.__new__(Reader)
        inner._data = self._data
        inner._position = start
        inner._end = end
        inner._depth = self._depth + 1
        inner._budget = self._budget
        return inner

    def sequence(self) -> Reader:
        """Enter a SEQUENCE."""
        return self.enter(SEQUENCE)

    def unsigned(self, *, bits_max: int = 512) -> int:
        """Read a non-negative INTEGER in its shortest form."""
        data = self.content(INTEGER)
        if not data or len(data) > bits_max // 8 + 1:
            raise MalformedDER("integer of unexpected size")
        if data[0] & 0x80:
            raise MalformedDER("negative integer")
        if len(data) > 1 and data[0] == 0 and not data[1] & 0x80:
            raise MalformedDER("integer is not in its shortest form")
        value = int.from_bytes(data, "big")
        if value.bit_length() > bits_max:
            raise MalformedDER("integer is too large")
        return value

    def boolean(self) -> bool:
        """Read a BOOLEAN: 0x00 or 0xFF, nothing else is DER."""
        data = self.content(BOOLEAN)
        if data not in (b"\x00", b"\xff"):
            raise MalformedDER("boolean is neither 00 nor FF")
        return data == b"\xff"

    def oid(self) -> str:
        """Read an OBJECT IDENTIFIER in dotted form."""
        return oid_text(self.content(OBJECT_IDENTIFIER))

    def octet_aligned_bits(self) -> bytes:
        """Read a BIT STRING without unused bits and return its octets."""
        data = self.content(BIT_STRING)
        if not data or data[0] != 0:
            raise MalformedDER("bit string is not made of whole octets")
        return data[1:]

    def _advance(self, tag: int) -> tuple[int, int]:
        """Step over one element; return where its contents start and end."""
        data, position, limit = self._data, self._position, self._end
        self._budget.left -= 1
        if self._budget.left < 0:
            raise MalformedDER(f"more than {limits.DER_ELEMENTS_COUNT_MAX} elements")
        if limit - position < 2:
            raise MalformedDER("ends early")
        found = data[position]
        if found != tag:
            raise MalformedDER(f"element {found:#04x} where {tag:#04x} was expected")
        if found & _TAG_NUMBER_HIGH == _TAG_NUMBER_HIGH:
            raise MalformedDER("tags of several bytes are not used here")
        length = data[position + 1]
        start = position + 2
        if length & 0x80:
            count = length & 0x7F
            if not 1 <= count <= _LENGTH_BYTES_MAX or limit - start < count:
                raise MalformedDER("length is indefinite, too long or cut")
            length = int.from_bytes(data[start : start + count], "big")
            if length < 0x80 or data[start] == 0:
                raise MalformedDER("length is not in its shortest form")
            start += count
        if limit - start < length:
            raise MalformedDER("element is cut")
        self._position = start + length
        return start, start + length


def oid_text(data: bytes) -> str:
    """Return the dotted form of OBJECT IDENTIFIER contents."""
    if not data or data[-1] & 0x80 or len(data) > 64:
        raise MalformedDER("object identifier is empty, cut or too long")
    arcs: list[int] = []
    value = length = 0
    for byte in data:
        if length == 0 and byte == 0x80:
            raise MalformedDER("object identifier arc has a leading zero")
        length += 1
        if length > _ARC_SIZE_BYTES_MAX:
            raise MalformedDER("object identifier arc is too large")
        value = value << 7 | byte & 0x7F
        if not byte & 0x80:
            arcs.append(value)
            value = length = 0
    first = min(arcs[0] // 40, 2)
    return ".".join(str(arc) for arc in (first, arcs[0] - 40 * first, *arcs[1:]))


def element(tag: int, *parts: bytes) -> bytes:
    """Write one element."""
    content = parts[0] if len(parts) == 1 else b"".join(parts)
    length = len(content)
    if length < 0x80:
        return bytes((tag, length)) + content
    size = (length.bit_length() + 7) // 8
    return bytes((tag, 0x80 | size)) + length.to_bytes(size, "big") + content


def sequence(*parts: bytes) -> bytes:
    """Write a SEQUENCE."""
    return element(SEQUENCE, *parts)


def unsigned(value: int) -> bytes:
    """Write a non-negative INTEGER."""
    return element(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def bits(octets: bytes) -> bytes:
    """Write a BIT STRING of whole octets."""
    return element(BIT_STRING, b"\x00", octets)


@lru_cache(maxsize=256)
def oid(dotted: str) -> bytes:
    """Write an OBJECT IDENTIFIER given in dotted form."""
    return element(OBJECT_IDENTIFIER, _oid_contents(dotted))


def relative_oid_contents(dotted: str) -> bytes:
    """Return the contents of a RELATIVE-OID: each arc in base 128."""
    return b"".join(_arc(int(arc)) for arc in dotted.split("."))


def _oid_contents(dotted: str) -> bytes:
    first, second, *rest = (int(arc) for arc in dotted.split("."))
    return b"".join(_arc(arc) for arc in (first * 40 + second, *rest))


def _arc(value: int) -> bytes:
    out = bytearray((value & 0x7F,))
    while value := value >> 7:
        out.append(0x80 | value & 0x7F)
    return bytes(reversed(out))
