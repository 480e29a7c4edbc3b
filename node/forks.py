"""Two nodes, two chains: where they part, and who signed both.

Only certificates and headers are needed, which every node keeps. A fork needs more than f liars;
the verdict names at least f + 1 of them, with the two statements of each, or says it is not whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.core.forensics import Verdict, investigate

if TYPE_CHECKING:
    from consensus.core.light import LightClient
    from node.chain import ChainSource, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """The first block that two certified chains do not share, and who is to blame."""

    height: int
    verdict: Verdict


def find_fork(one: ChainSource, other: ChainSource, client: LightClient) -> Fork | None:
    """Compare two chains as far as both are held and certified; None when they are one chain.

    Once chains have parted they stay apart, so the place is found by halving.
    """
    low, high = max(one.oldest, other.oldest), min(one.newest, other.newest)
    while high >= low and (one.run(high) is None or other.run(high) is None):
        high -= 1  # the newest blocks have no certificate yet
    if high < low or _same(one, other, high):
        return None
    while low < high:
        middle = (low + high) // 2
        if _same(one, other, middle):
            low = middle + 1
        else:
            high = middle
    runs = [run for run in (one.run(low), other.run(low)) if run is not None]
    verdict = investigate(
        [run.proof.certificate for run in runs],
        chain_id=client.chain_id,
        members=len(client.validators.members),
        epoch=client.validators.epoch,
        check=client.check,
        headers=[header for run in runs for header in run.proof.headers],
    )
    return Fork(height=low, verdict=verdict)


def _same(one: ChainSource, other: ChainSource, height: int) -> bool:
    first, second = one.run(height), other.run(height)
    return _hash(first) == _hash(second)


def _hash(run: Run | None) -> bytes | None:
    return None if run is None else run.proof.headers[0].hash
