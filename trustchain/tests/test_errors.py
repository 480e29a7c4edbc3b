"""Every error of this package says what to do next."""

from __future__ import annotations

import pytest

from trustchain import errors
from trustchain.errors import RequestRefused, TrustChainError

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, TrustChainError)
    and kind not in (TrustChainError, RequestRefused)
]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.code)
def test_an_error_has_a_next_step_of_its_own(kind: type[TrustChainError]) -> None:
    assert kind("x").hint != TrustChainError("x").hint


def test_codes_are_used_once() -> None:
    assert len({kind.code for kind in KINDS}) == len(KINDS)
