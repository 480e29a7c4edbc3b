"""The vectors of the wire profile, computed twice: by the code, and by hand as the page says."""

import hashlib
import ipaddress
import json
from pathlib import Path
from typing import Any

import msgpack
import pytest

from native.values import Algorithm, PublicKey
from transport.core.frames import (
    CallType,
    ControlType,
    FrameDecoder,
    Request,
    decode_error,
    decode_observed,
    encode_error,
    encode_frame,
    encode_observed,
)
from transport.core.hello import Hello, decode_hello, encode_hello

VECTORS: dict[str, Any] = json.loads(
    (Path(__file__).parent / "vectors" / "stoq.json").read_text(encoding="utf-8")
)
FRAMES = {row["name"]: bytes.fromhex(row["hex"]) for row in VECTORS["frames"]}
HELLO = Hello(
    chain_id=bytes(range(32)),
    chain_name="demo",
    roles=("validator",),
    capabilities=("sync",),
    context=b"\x01\x02",
    credential=b"\x03",
    instance=bytes(range(16)),
)


def _body(name: str, frame_type: int) -> bytes:
    ((found, body),) = FrameDecoder(size_max=1_024).feed(FRAMES[name])
    assert found == frame_type
    return body


@pytest.mark.parametrize("row", VECTORS["keys"], ids=lambda row: str(row["algorithm"]))
def test_a_key_has_one_encoding_and_one_node_id(row: dict[str, Any]) -> None:
    raw = bytes.fromhex(row["raw_first_byte"]).ljust(row["raw_size_bytes"], b"\x00")
    key = PublicKey(algorithm=Algorithm(row["algorithm"]), raw=raw)
    assert (key.algorithm.oid, key.algorithm.tls_scheme) == (row["oid"], row["scheme"])
    spki = bytes.fromhex(row["spki_prefix"]) + raw
    assert key.spki == spki
    assert len(spki) == row["spki_size_bytes"]
    by_hand = hashlib.sha256(b"hypermesh/node/v1" + spki).hexdigest()
    assert by_hand == row["node_id"] == bytes(key.node_id).hex()


def test_hello_is_a_positional_array() -> None:
    body = _body("HELLO", ControlType.HELLO)
    by_hand = msgpack.packb(
        [
            1,
            bytes(range(32)),
            "demo",
            ["validator"],
            ["sync"],
            b"\x01\x02",
            b"\x03",
            bytes(range(16)),
        ]
    )
    assert body == by_hand == encode_hello(HELLO)
    assert decode_hello(body) == HELLO


def test_the_other_control_frames_are_fixed_bytes() -> None:
    assert _body("READY", ControlType.READY) == b""
    observed = _body("OBSERVED [2001:db8::7]:9292", ControlType.OBSERVED)
    by_hand = ipaddress.IPv6Address("2001:db8::7").packed + (9292).to_bytes(2)
    assert observed == by_hand == encode_observed("[2001:db8::7]:9292")
    assert decode_observed(observed) == "[2001:db8::7]:9292"
    assert _body("PING", ControlType.PING) == _body("PONG", ControlType.PONG) == bytes(7) + b"\x01"


def test_a_call_is_a_request_and_one_answer() -> None:
    body = _body("REQUEST echo, 10000 ms, argument 'hi'", CallType.REQUEST)
    assert body == (10_000).to_bytes(4) + b"\x04echo" + b"hi"
    assert Request.decode(body) == Request(method="echo", timeout_ms=10_000, argument=b"hi")
    assert _body("RESULT 'hi'", CallType.RESULT) == b"hi"
    error = _body("ERROR unknown_method", CallType.ERROR)
    by_hand = msgpack.packb(["unknown_method", "no method 'x'"])
    assert error == by_hand == encode_error("unknown_method", "no method 'x'")
    assert decode_error(error) == ("unknown_method", "no method 'x'")


def test_the_length_counts_the_type_and_the_body() -> None:
    frame = FRAMES["channel frame of type 7, body 'vote'"]
    assert frame == bytes.fromhex("0000000507") + b"vote" == encode_frame(7, b"vote")
