"""Public keys, their one DER form, and NodeIds."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

import native
from native._native import FalconSigner, spki_decode, spki_encode
from native.errors import KeyInvalid
from native.hashing import sha256
from native.tests import twins
from native.values import Algorithm, NodeId, PublicKey

KEYS = {512: FalconSigner.generate(512).public, 1024: FalconSigner.generate(1024).public}


@given(st.sampled_from(Algorithm), st.binary(min_size=1, max_size=32))
def test_spki_is_the_der_of_the_twin(algorithm: Algorithm, seed: bytes) -> None:
    size = algorithm.public_size_bytes
    raw = (seed * size)[:size]
    spki = spki_encode(algorithm.name_text, raw)
    assert spki == twins.spki(algorithm.oid, raw)
    assert spki_decode(spki) == (algorithm.name_text, raw)


def test_falcon_keys_have_the_sizes_of_the_profile() -> None:
    small = PublicKey(algorithm=Algorithm.FALCON_512, raw=KEYS[512])
    large = PublicKey(algorithm=Algorithm.FALCON_1024, raw=KEYS[1024])
    assert (len(small.spki), len(large.spki)) == (915, 1811)
    assert PublicKey.from_spki(small.spki) == small
    assert small.node_id == NodeId(sha256(b"hypermesh/node/v1", small.spki))
    assert small.node_id != large.node_id


@pytest.mark.parametrize("at", range(18))
def test_no_other_der_of_a_key_is_accepted(at: int) -> None:
    spki = bytearray(PublicKey(algorithm=Algorithm.FALCON_512, raw=KEYS[512]).spki)
    for bit in range(8):
        spki[at] ^= 1 << bit
        with pytest.raises(KeyInvalid):
            PublicKey.from_spki(bytes(spki))
        spki[at] ^= 1 << bit
    for wrong in (bytes(spki) + b"\0", bytes(spki[:-1]), bytes(spki[at + 1 :]), b""):
        with pytest.raises(KeyInvalid):
            PublicKey.from_spki(wrong)


def test_a_key_with_a_null_parameter_is_not_canonical() -> None:
    inner = twins.der(0x30, twins.oid("1.3.9999.3.16") + b"\x05\x00")
    with pytest.raises(KeyInvalid):
        PublicKey.from_spki(twins.der(0x30, inner + twins.der(0x03, b"\0" + KEYS[512])))


def test_a_coefficient_beyond_the_modulus_is_no_key() -> None:
    with pytest.raises(KeyInvalid):
        PublicKey(algorithm=Algorithm.FALCON_512, raw=b"\x09" + b"\xff" * 896)
    with pytest.raises(KeyInvalid):
        PublicKey(algorithm=Algorithm.FALCON_512, raw=KEYS[1024])


def test_names_are_stable() -> None:
    assert [item.name_text for item in Algorithm] == [
        "falcon-512",
        "falcon-1024",
        "ml-dsa-44",
        "ml-dsa-65",
    ]
    assert Algorithm.from_name("falcon-512") is Algorithm.FALCON_512
    assert Algorithm.FALCON_512.tls_scheme == 0xFEDC
    with pytest.raises(KeyInvalid):
        Algorithm.from_name("fn-dsa-512")


def test_the_door_loads_neither_keys_nor_sockets() -> None:
    code = (
        "import sys, native, native.codec, native.hashing, native.values; "
        "print([name for name in ('native.keys', 'native.quic', 'cryptography', 'socket') "
        "if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert native.NativeError.code == "HM-N-000"
