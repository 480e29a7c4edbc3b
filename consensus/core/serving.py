"""Answering `FetchBlocks` from the stores: what the runtime does without asking the core."""

from collections.abc import Callable, Iterable

from consensus.core.messages import BatchHeader, BlockCertificate, BlockHeader, Blocks
from consensus.core.types import Height
from consensus.limits import HEADERS_PER_REPLY_MAX


def blocks_from(
    first: Height,
    *,
    executed: Height,
    certificates: Iterable[BlockCertificate],
    load: Callable[[Height], tuple[BlockHeader, BatchHeader] | None],
) -> Blocks | None:
    """Headers from `first` to the highest certificate that one reply reaches, or None.

    `certificates` are those of the `Tip` and `Anchor` records; `load` reads one executed block.
    """
    last = first + HEADERS_PER_REPLY_MAX - 1
    usable = [
        certificate
        for certificate in certificates
        if first <= certificate.height <= min(executed, last)
    ]
    if not usable or first < 1:
        return None
    certificate = max(usable, key=_height)
    headers: list[BlockHeader] = []
    batches: list[BatchHeader] = []
    for height in range(first, certificate.height + 1):
        block = load(Height(height))
        if block is None:
            return None
        headers.append(block[0])
        batches.append(block[1])
    return Blocks(headers=tuple(headers), batches=tuple(batches), certificate=certificate)


def _height(certificate: BlockCertificate) -> int:
    return certificate.height
