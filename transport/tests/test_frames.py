"""Frames and HELLO survive any bytes and any chunking."""

import contextlib
import dataclasses
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.core.events import CloseReason
from transport.core.frames import (
    ControlType,
    FrameDecoder,
    Request,
    decode_error,
    encode_error,
    encode_frame,
)
from transport.core.hello import (
    TRANSITIONS,
    Hello,
    HelloExchange,
    HelloOffer,
    Step,
    decode_hello,
    encode_hello,
    judge,
)
from transport.core.pool import Candidate, backoff_s, replaces
from transport.errors import HelloRefused, MalformedFrame, MalformedHello
from transport.limits import DIAL_BACKOFF_S_MAX, DIAL_BACKOFF_S_MIN

frames = st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8)
words = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=64)
hellos = st.builds(
    Hello,
    chain_id=st.binary(min_size=32, max_size=32),
    chain_name=words,
    roles=st.lists(words, max_size=4).map(tuple),
    capabilities=st.lists(words, max_size=4).map(tuple),
    context=st.binary(max_size=1_024),
    credential=st.binary(max_size=500),
    instance=st.binary(min_size=16, max_size=16),
)


@given(frames, st.integers(1, 64))
def test_frames_come_out_whatever_the_chunks(sent: list[tuple[int, bytes]], size: int) -> None:
    wire = b"".join(encode_frame(kind, body) for kind, body in sent)
    decoder = FrameDecoder(size_max=301)
    seen = [
        frame for at in range(0, len(wire), size) for frame in decoder.feed(wire[at : at + size])
    ]
    assert seen == sent
    assert decoder.pending_bytes == 0


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_any_bytes_are_frames_or_refused(chunks: list[bytes]) -> None:
    decoder = FrameDecoder(size_max=64)
    try:
        for chunk in chunks:
            decoder.feed(chunk)
            assert decoder.pending_bytes <= 64 + 4
    except MalformedFrame:
        pass


@given(st.from_regex(r"\A[a-z.]{1,128}\Z"), st.integers(0, 2**32 - 1), st.binary(max_size=99))
def test_requests_survive_the_wire(method: str, timeout_ms: int, argument: bytes) -> None:
    request = Request(method=method, timeout_ms=timeout_ms, argument=argument)
    assert Request.decode(request.encode()) == request


@given(st.binary(max_size=64))
def test_any_bytes_are_a_request_or_refused(body: bytes) -> None:
    try:
        request = Request.decode(body)
    except MalformedFrame:
        return
    assert request.encode() == body


text = st.text(st.characters(exclude_categories=["Cs"]))


@given(text, text)
def test_errors_survive_the_wire(code_text: str, message: str) -> None:
    body = encode_error(code_text, message)
    assert decode_error(body) == (code_text[:128], message[:4_096])


@given(st.binary(max_size=64))
def test_any_bytes_are_an_error_answer_or_refused(body: bytes) -> None:
    with contextlib.suppress(MalformedFrame):
        decode_error(body)


@given(hellos)
def test_hello_survives_the_wire(hello: Hello) -> None:
    assert decode_hello(encode_hello(hello)) == hello


@given(hellos, st.data())
def test_a_changed_hello_is_another_or_refused(hello: Hello, data: st.DataObject) -> None:
    body = bytearray(encode_hello(hello))
    at = data.draw(st.integers(0, len(body) - 1))
    body[at] ^= data.draw(st.integers(1, 255))
    try:
        changed = decode_hello(bytes(body))
    except (MalformedHello, HelloRefused):
        return
    assert encode_hello(changed) == bytes(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_a_hello_or_refused(body: bytes) -> None:
    try:
        hello = decode_hello(body)
    except (MalformedHello, HelloRefused):
        return
    assert encode_hello(hello) == body


def hello(**changes: object) -> Hello:
    offer = HelloOffer(chain_id=bytes(32), chain_name="main")
    return dataclasses.replace(Hello.of(offer, bytes(16)), **changes)  # type: ignore[arg-type]


def test_another_chain_is_named_with_both_ids() -> None:
    with pytest.raises(HelloRefused) as refusal:
        judge(hello(), hello(chain_id=b"\xab" * 32, chain_name="other"))
    assert refusal.value.reason is CloseReason.OTHER_CHAIN
    assert "main-00000000" in str(refusal.value)
    assert "other-abababab" in str(refusal.value)


@pytest.mark.parametrize("dialled", [True, False])
@pytest.mark.parametrize("step", Step)
@pytest.mark.parametrize("frame", [*ControlType, 99])
def test_only_the_table_moves_the_exchange(step: Step, frame: int, dialled: bool) -> None:
    exchange = HelloExchange(hello(), dialled=dialled)
    exchange.step = step
    body = encode_hello(hello()) if frame == ControlType.HELLO else b""
    known = {(s, int(f), d): after for (s, f, d), after in TRANSITIONS.items()}
    expected = known.get((step, frame, dialled))
    if expected is None:
        with pytest.raises(MalformedHello):
            exchange.receive(frame, body)
        assert exchange.step is step
    else:
        assert exchange.receive(frame, body) is expected


def test_ready_carries_nothing() -> None:
    exchange = HelloExchange(hello(), dialled=False)
    exchange.receive(ControlType.HELLO, encode_hello(hello()))
    with pytest.raises(MalformedHello):
        exchange.receive(ControlType.READY, b"x")


@given(st.binary(min_size=1), st.binary(min_size=1), st.booleans())
def test_both_ends_keep_the_same_connection(small: bytes, large: bytes, same: bool) -> None:
    first = Candidate(dialler=small, instance=b"i")
    second = Candidate(dialler=large, instance=b"i")
    if small != large:
        assert replaces(first, second) is not replaces(second, first)
    if same:
        assert not replaces(first, first)
        assert replaces(Candidate(dialler=large, instance=b"restarted"), first)


@given(st.integers(0, 10_000), st.floats(0, 1, exclude_max=True))
def test_backing_off_is_bounded(attempt: int, jitter: float) -> None:
    assert 0 < backoff_s(attempt, jitter) <= DIAL_BACKOFF_S_MAX


def test_backing_off_doubles_up_to_the_bound_and_two_nodes_do_not_keep_step() -> None:
    waits = [backoff_s(attempt, 0.0) for attempt in range(20)]
    assert waits[0] == DIAL_BACKOFF_S_MIN / 2
    for before, after in pairwise(waits):
        assert after == min(2 * before, DIAL_BACKOFF_S_MAX / 2)
    assert backoff_s(3, 0.9) > 1.8 * waits[3]
