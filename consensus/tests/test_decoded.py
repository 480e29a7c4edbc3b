"""What was decoded before is the same again, whoever sends it and in whatever message."""

import dataclasses

import pytest

from consensus.core import frames, wire
from consensus.core.decoded import Decoded
from consensus.core.messages import ViewChange, signatures
from consensus.core.wire import Bounds
from consensus.errors import MalformedMessage
from consensus.tests import samples
from native.codec import Value, encode
from native.values import Digest

CHAIN = Digest(b"c" * 32)


@pytest.fixture
def bounds() -> Bounds:
    plain = Bounds(chain_id=CHAIN, members=4)
    return dataclasses.replace(plain, decoded=Decoded())


def test_a_certificate_is_one_object_in_every_message_that_holds_it(bounds: Bounds) -> None:
    change, certificate = samples.view_change(1, 2), samples.certificate(3)
    first = wire.view_change(change.value(), bounds)
    assert wire.view_change(change.value(), bounds) is first
    assert first == change
    assert wire.block_certificate(certificate.value(), bounds) == certificate
    new_view = samples.new_view(1)
    _, kind, data = frames.encode(new_view)
    one, other = (frames.decode(kind, data, bounds) for _ in range(2))
    assert one == other == new_view
    assert one is not other
    assert all(
        first is second for first, second in zip(one.view_changes, other.view_changes, strict=True)
    )


def test_the_statements_of_signatures_are_those_of_a_fresh_object(bounds: Bounds) -> None:
    for message in samples.messages():
        _, kind, data = frames.encode(message)
        fresh = frames.decode(kind, data, Bounds(chain_id=CHAIN, members=4))
        for _ in range(2):
            known = frames.decode(kind, data, bounds)
            assert known == fresh
            assert signatures(known, CHAIN) == signatures(fresh, CHAIN)
    other = Digest(b"d" * 32)
    change = wire.view_change(samples.view_change(1, 2).value(), bounds)
    assert signatures(change, other) != signatures(change, CHAIN)


def test_bytes_that_differ_in_one_place_are_not_taken_for_known_ones(bounds: Bounds) -> None:
    value = samples.view_change(1, 2).value()
    assert isinstance(wire.view_change(value, bounds), ViewChange)
    for at in range(len(value) - 1):  # any bytes are a signature until it is checked
        wrong: tuple[Value, ...] = (*value[:at], True if value[at] == 1 else b"?", *value[at + 1 :])
        with pytest.raises(MalformedMessage):
            wire.view_change(wrong, bounds)


def test_the_memory_is_bounded_and_forgets_what_was_longest_unused() -> None:
    parts: list[Value] = [(number, b"x" * 40) for number in range(8)]
    room = sum(len(encode(part)) for part in parts[:4])
    decoded = Decoded(room)
    made: list[Value] = []

    def read(value: Value) -> Value:
        made.append(value)
        return value

    for part in parts[:4]:
        decoded.get(part, read, "kind")
    decoded.get(parts[0], read, "kind")
    assert made == parts[:4]
    decoded.get(parts[4], read, "kind")
    assert len(decoded) == 4
    decoded.get(parts[0], read, "kind")
    decoded.get(parts[1], read, "kind")
    assert made == [*parts[:5], parts[1]]
    decoded.get((9, b"x" * room), read, "kind")
    assert len(decoded) == 4
    few = Decoded(room, parts_max=2)  # small parts become large objects
    for part in parts:
        few.get(part, read, "kind")
    assert len(few) == 2


def test_readers_of_different_kinds_share_no_result() -> None:
    decoded = Decoded()
    value: Value = (1, 2)
    assert decoded.get(value, lambda value: ("first", value), "first") == ("first", value)
    assert decoded.get(value, lambda value: ("second", value), "second") == ("second", value)
