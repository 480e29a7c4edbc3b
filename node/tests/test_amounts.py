from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from node.amounts import AMOUNT_MAX, amount_text, parse_amount
from node.errors import InvalidArgument


@given(st.integers(1, AMOUNT_MAX))
def test_an_amount_survives_its_text(amount: int) -> None:
    assert parse_amount(amount_text(amount).replace(",", "")) == amount


@given(st.text(max_size=14))
def test_any_text_is_an_amount_or_refused(text: str) -> None:
    try:
        amount = parse_amount(text)
    except InvalidArgument:
        return
    assert 0 < amount <= AMOUNT_MAX


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("1", 10**9),
        ("0.000000001", 1),
        ("12.5", 12_500_000_000),
        ("1_000", 10**12),
        ("1000000000", AMOUNT_MAX),
    ],
)
def test_amounts_are_caes_with_nine_decimals(text: str, amount: int) -> None:
    assert parse_amount(text) == amount


def test_thousands_are_grouped_and_needless_zeros_left_out() -> None:
    assert amount_text(1_234_500_000_000) == "1,234.5"
    assert amount_text(0) == "0"
