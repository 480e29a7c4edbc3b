"""The newest block certificates, kept so that proofs can wait for theirs.

A block's certificate is made one vote round after its execution. A reader that took a proof at some
height waits here until that height, or a block above it, is certified.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

import trio

from consensus.core.messages import BlockCertificate

CERTIFICATES_KEPT_MAX: Final = 256  # the blocks of the last seconds, 0.6 MB at n = 4


class CertificateBoard:
    """Certificates by height. Lives on the loop."""

    def __init__(self) -> None:
        self._kept: OrderedDict[int, BlockCertificate] = OrderedDict()
        self._news = trio.Event()
        self.newest = 0

    def post(self, certificate: BlockCertificate) -> None:
        """Keep a certificate that is durable here, and wake who waits for it."""
        height = int(certificate.height)
        self._kept[height] = certificate
        self.newest = max(self.newest, height)
        while len(self._kept) > CERTIFICATES_KEPT_MAX:
            self._kept.popitem(last=False)
        self._news.set()
        self._news = trio.Event()

    def at(self, height: int) -> BlockCertificate | None:
        """The certificate of exactly this block, if it is kept."""
        return self._kept.get(height)

    async def wait(self, height: int) -> BlockCertificate | None:
        """The certificate of this block; None once a later one came without it.

        Wants a time limit around it: without a quorum no certificate comes.
        """
        while (found := self._kept.get(height)) is None and self.newest <= height:
            await self._news.wait()
        return found
