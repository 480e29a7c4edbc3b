"""Canonical msgpack: the one byte form of everything that is hashed or signed.

Positional arrays, byte strings, UTF-8 text, numbers from 0 to 2**64 - 1, true, false and nil, each
in its shortest form. No maps, floats, negative numbers or extension types. What decodes re-encodes
to the same bytes.
"""

from collections.abc import Sequence
from typing import TypeAlias, cast

from native._native import codec_decode, codec_encode
from native.errors import CodecError

__all__ = ["CodecError", "Value", "decode", "encode"]

Value: TypeAlias = "Sequence[Value] | bytes | int | str | bool | None"


def encode(value: Value) -> bytes:
    """Encode tuples, lists, bytes, ints, text, bools and None; raises `CodecError`."""
    return codec_encode(value)


def decode(data: bytes, *, size_max: int) -> Value:
    """Decode canonical bytes of at most `size_max`; arrays come back as tuples.

    Raises `CodecError` for anything that `encode` would not have written.
    """
    return cast(Value, codec_decode(data, size_max))
