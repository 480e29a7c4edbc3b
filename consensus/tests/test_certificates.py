"""An epoch that is over certifies nothing outside its blocks, whoever still has its keys."""

from dataclasses import replace

import pytest

from consensus.core.certificates import was_in_epoch
from consensus.core.messages import Checkpoint
from consensus.core.types import NO_DIGEST, Height
from consensus.tests import samples
from native.values import Digest

NAMED = Digest(b"n" * 32)


def claim(height: int, next_set: Digest) -> Checkpoint:
    return replace(samples.certificate(height).checkpoint, next_set=next_set)


@pytest.mark.parametrize(
    ("height", "next_set", "base", "end", "was"),
    [
        (64, NO_DIGEST, 64, None, False),
        (65, NO_DIGEST, 64, None, True),
        (1, NO_DIGEST, None, None, True),
        (200, NAMED, 64, None, True),  # may be its last one: nobody knows yet
        (199, NO_DIGEST, 64, 200, True),
        (199, NAMED, 64, 200, False),
        (200, NAMED, 64, 200, True),
        (200, NO_DIGEST, 64, 200, False),
        (201, NO_DIGEST, 64, 200, False),
        (201, NAMED, None, 200, False),
    ],
)
def test_only_blocks_above_the_base_and_up_to_the_end_were_in_an_epoch(
    height: int, next_set: Digest, base: int | None, end: int | None, *, was: bool
) -> None:
    found = was_in_epoch(
        claim(height, next_set),
        base=None if base is None else Height(base),
        end=None if end is None else Height(end),
    )
    assert found is was
