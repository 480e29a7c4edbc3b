"""The canonical codec against msgpack-python."""

from collections.abc import Callable
from typing import cast

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from native.codec import Value, decode, encode
from native.errors import CodecError
from native.tests import twins

values = st.recursive(
    st.integers(0, 2**64 - 1) | st.binary(max_size=300) | st.text(max_size=80) | st.booleans()
    | st.none(),
    lambda inner: st.lists(inner, max_size=20).map(tuple),
    max_leaves=30,
)  # fmt: skip


@given(values)
def test_encoding_is_what_msgpack_writes_and_comes_back(value: Value) -> None:
    data = encode(value)
    assert data == twins.encode(value)
    assert decode(data, size_max=len(data)) == value


@given(st.binary(max_size=40))
def test_what_decodes_reencodes_to_the_same_bytes(data: bytes) -> None:
    try:
        value = decode(data, size_max=40)
    except CodecError:
        return
    assert encode(value) == data == twins.encode(value)
    assert twins.decode(data) == value


@given(values, st.data())
def test_every_prefix_and_every_suffix_is_refused(value: Value, data: st.DataObject) -> None:
    encoded = encode(value)
    cut = data.draw(st.integers(0, len(encoded) - 1))
    with pytest.raises(CodecError):
        decode(encoded[:cut], size_max=len(encoded))
    with pytest.raises(CodecError):
        decode(encoded + b"\0", size_max=len(encoded) + 1)


@pytest.mark.parametrize(
    "value", [-1, 2**64, 1.5, {}, {1: 2}, object(), (1, -1), bytearray(b"x"), "\ud800"]
)
def test_values_without_canonical_form_are_refused(value: object) -> None:
    with pytest.raises(CodecError):
        encode(cast(Value, value))


@pytest.mark.parametrize(
    "data",
    [
        msgpack.packb(-1),
        msgpack.packb(1.0),
        msgpack.packb({}),
        msgpack.packb(msgpack.ExtType(1, b"x")),
        msgpack.packb(msgpack.Timestamp(1)),
        b"\xcd\x00\x01",
        b"\xc5\x00\x01x",
        b"\xd9\x01x",
        b"\xdc\x00\x01\x01",
        b"\xa1\xff",
        b"\xdd\xff\xff\xff\xff",
        b"",
    ],
)
def test_other_forms_are_refused(data: bytes) -> None:
    with pytest.raises(CodecError):
        decode(data, size_max=100)


def nested(depth: int) -> Value:
    value: Value = 0
    for _ in range(depth):
        value = (value,)
    return value


def test_depth_and_size_are_bounded() -> None:
    assert decode(encode(nested(16)), size_max=17) == nested(16)
    refusals: list[Callable[[], object]] = [
        lambda: encode(nested(17)),
        lambda: decode(b"\x91" * 17 + b"\0", size_max=100),
        lambda: decode(b"\x91" * 100_000 + b"\0", size_max=200_000),
        lambda: decode(bytes(11), size_max=10),
    ]
    for refused in refusals:
        with pytest.raises(CodecError):
            refused()


def test_a_list_that_contains_itself_is_refused() -> None:
    loop: list[object] = []
    loop.append(loop)
    with pytest.raises(CodecError, match="deep"):
        encode(cast(Value, loop))


def test_lists_come_back_as_tuples_and_errors_carry_code_and_hint() -> None:
    assert decode(encode([1, [b"x"]]), size_max=10) == (1, (b"x",))
    with pytest.raises(CodecError) as caught:
        decode(b"\xc1", size_max=1)
    assert caught.value.code == "HM-N-001"
    assert "canonical" in caught.value.hint
