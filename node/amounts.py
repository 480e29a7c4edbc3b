"""Amounts as people write them: CAES with up to nine decimals, never a float."""

from __future__ import annotations

import re
from typing import Final

from node.errors import InvalidArgument

DECIMALS: Final = 9
UNIT: Final = 10**DECIMALS
AMOUNT_MAX: Final = 10**18
_PATTERN: Final = re.compile(r"(\d{1,10})(?:\.(\d{1,9}))?")


def parse_amount(text: str) -> int:
    """Read "12.5" as base units; raise `InvalidArgument` for anything else, also for zero."""
    match = _PATTERN.fullmatch(text.replace("_", ""))
    if match is None or not text.isascii():
        raise InvalidArgument(
            f"{text!r} is not an amount",
            hint="write CAES with at most nine decimals, for example 12.5",
        )
    amount = int(match[1]) * UNIT + int((match[2] or "").ljust(DECIMALS, "0"))
    if not 0 < amount <= AMOUNT_MAX:
        raise InvalidArgument(
            f"{text} CAES cannot be paid", hint="more than 0, and at most 1000000000, exist"
        )
    return amount


def amount_text(amount: int) -> str:
    """Write base units as CAES, without needless zeros."""
    whole, rest = divmod(amount, UNIT)
    decimals = f".{rest:09}".rstrip("0") if rest else ""
    return f"{whole:,}{decimals}"
