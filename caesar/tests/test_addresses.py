"""Address texts: BIP 350 and what people mistype."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caesar.core.addresses import (
    ADDRESS_TEXT_LENGTH,
    Address,
    address_of,
    address_text,
    parse_address,
)
from caesar.errors import AddressInvalid
from caesar.tests.twins import address_of_raw
from caesar.tests.worlds import wallet

# Computed with the formulas of BIP 350 by a program that also accepts its vector `a1lqfn3a`.
ZEROS = "hm1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqust94a"


@given(st.binary(min_size=32, max_size=32))
def test_an_address_comes_back_from_its_text(raw: bytes) -> None:
    text = address_text(Address(raw))
    assert text.startswith("hm1")
    assert len(text) == ADDRESS_TEXT_LENGTH
    assert parse_address(text) == raw
    assert parse_address(text.upper()) == raw


@given(st.binary(min_size=32, max_size=32), st.integers(3, 60), st.sampled_from("qpzry9x8"))
def test_one_mistyped_character_is_always_found(raw: bytes, at: int, character: str) -> None:
    text = address_text(Address(raw))
    if text[at] != character:
        with pytest.raises(AddressInvalid):
            parse_address(text[:at] + character + text[at + 1 :])


@pytest.mark.parametrize(
    "text",
    ["", "hm", "hm1", "hm1qqqq", "bc1" + "q" * 58, "hm1" + "b" * 58, "hm1" + "q" * 58, "1" * 61],
)
def test_what_is_no_address_is_refused_with_a_next_step(text: str) -> None:
    with pytest.raises(AddressInvalid) as caught:
        parse_address(text)
    assert caught.value.code == "HM-L-301"
    assert "hm1" in caught.value.hint


def test_mixed_case_is_refused() -> None:
    text = address_text(Address(bytes(32)))
    with pytest.raises(AddressInvalid, match="lower case or upper case"):
        parse_address("H" + text[1:])


def test_the_text_is_that_of_bip_350() -> None:
    assert address_text(Address(bytes(32))) == ZEROS


def test_an_address_is_the_hash_of_the_spki() -> None:
    public = wallet("alice").public
    assert address_of(public) == address_of_raw(public.raw)
