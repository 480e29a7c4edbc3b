"""Two nodes, two chains: where they part, and who signed both.

Only certificates and headers are needed, which every node keeps. A fork needs more than f liars;
the verdict names at least f + 1 of them, with the two statements of each, or says it is not whole.
They are members of the epoch of the block where the chains part: a certificate of a later epoch was
signed by others, so the link that ends the epoch stands in for it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.core.forensics import Verdict, investigate

if TYPE_CHECKING:
    from consensus.core.messages import BlockCertificate
    from consensus.core.validators import ValidatorSet
    from node.chain import ChainSource, Run


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """The first block that two certified chains do not share, and who is to blame."""

    height: int
    validators: ValidatorSet  # of the verdict's indexes
    verdict: Verdict


def find_fork(one: ChainSource, other: ChainSource) -> Fork | None:
    """Compare two chains as far as both are held and certified; None when they are one chain.

    Once chains have parted they stay apart, so the place is found by halving.
    """
    low, high = max(one.oldest, other.oldest), min(one.newest, other.newest)
    while high >= low and (one.run(high) is None or other.run(high) is None):
        high -= 1  # the newest blocks have no certificate yet
    if high < low or _same(one, other, high):
        return _other_sets(one, other)
    while low < high:
        middle = (low + high) // 2
        if _same(one, other, middle):
            low = middle + 1
        else:
            high = middle
    found = [(side, run) for side in (one, other) if (run := side.run(low)) is not None]
    epoch = min(int(run.proof.headers[0].epoch) for _, run in found)
    certificates = [_in_epoch(epoch, side, run) for side, run in found]
    return _fork(low, epoch, one, certificates, [run for _, run in found])


def _other_sets(one: ChainSource, other: ChainSource) -> Fork | None:
    """One chain of blocks, but links that name other sets: a fork that begins with an epoch."""
    for first, second in zip(one.lineage.links, other.lineage.links, strict=False):
        if (first.base, first.validators.hash) != (second.base, second.validators.hash):
            certificates = [first.certificate, second.certificate]
            height = int(min(first.base, second.base))
            return _fork(height, int(first.epoch) - 1, one, certificates, [])
    return None


def _in_epoch(epoch: int, side: ChainSource, run: Run) -> BlockCertificate:
    certificate, links = run.proof.certificate, side.lineage.links
    if certificate.checkpoint.epoch > epoch and epoch < len(links):
        return links[epoch].certificate
    return certificate


def _fork(
    height: int,
    epoch: int,
    side: ChainSource,
    certificates: list[BlockCertificate],
    runs: list[Run],
) -> Fork:
    client = side.lineage.clients[epoch]
    verdict = investigate(
        certificates,
        chain_id=client.chain_id,
        members=len(client.validators.members),
        epoch=client.validators.epoch,
        check=client.check,
        headers=[header for run in runs for header in run.proof.headers],
    )
    return Fork(height=height, validators=client.validators, verdict=verdict)


def _same(one: ChainSource, other: ChainSource, height: int) -> bool:
    first, second = one.run(height), other.run(height)
    return _hash(first) == _hash(second)


def _hash(run: Run | None) -> bytes | None:
    return None if run is None else run.proof.headers[0].hash
