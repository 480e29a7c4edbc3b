"""Remembers what was decoded, for parts of messages that come again and again.

A block certificate is in the STATUS and the VIEW-CHANGE of everybody who has it, and a VIEW-CHANGE
is sent by its author, by whoever helps, and once more in the NEW-VIEW. With 21 members a view
change brings a node some 800 certificates of 14 votes, of which 21 differ; making their objects
took most of its time. What came before is the same object again, with the statements that its
signatures are for.
"""

from collections import OrderedDict
from collections.abc import Callable
from hashlib import sha256
from typing import Any, TypeVar

from consensus.limits import DECODED_PARTS_MAX, DECODED_SIZE_BYTES_MAX
from native.codec import Value, encode

T = TypeVar("T")


class Decoded:
    """A bounded memory of one decoder's results; what was longest unused makes room.

    The key is the hash of the canonical bytes, so a hit is what decoding would give. Not for
    several threads.
    """

    def __init__(
        self, size_bytes_max: int = DECODED_SIZE_BYTES_MAX, parts_max: int = DECODED_PARTS_MAX
    ) -> None:
        self._size_bytes_max = size_bytes_max
        self._parts_max = parts_max
        self._size_bytes = 0
        self._held: OrderedDict[tuple[object, bytes], tuple[Any, int]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._held)

    def get(self, value: Value, read: Callable[[Value], T], kind: object) -> T:
        """What `read` makes of `value`, or made of it before. Raises what `read` raises."""
        data = encode(value)
        key = (kind, sha256(data).digest())
        held = self._held.get(key)
        if held is not None:
            self._held.move_to_end(key)
            found: T = held[0]
            return found
        made = read(value)
        if len(data) <= self._size_bytes_max:
            self._held[key] = made, len(data)
            self._size_bytes += len(data)
            while self._size_bytes > self._size_bytes_max or len(self._held) > self._parts_max:
                _, (_, size_bytes) = self._held.popitem(last=False)
                self._size_bytes -= size_bytes
        return made
