"""Signatures that were checked and held, so that a certificate is not checked again and again.

A NEW-VIEW of 21 members carries 1,787 signatures, of which 97 differ; the STATUS of every peer
carries the same block certificate, made of votes that came one by one before. Only what held is
remembered, under the whole statement: a bad signature can neither enter nor displace a good answer.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from consensus.core.messages import EpochJob

SIGNATURES_KEPT_MAX: Final = 4_096  # 3 to 4 MB; three vectors of 21 members for each of 64 places


class Checked:
    """A bounded memory; the oldest makes room."""

    def __init__(self) -> None:
        self._held: dict[EpochJob, None] = {}

    def __contains__(self, job: "EpochJob") -> bool:
        return job in self._held

    def __len__(self) -> int:
        return len(self._held)

    def keep(self, jobs: "Iterable[EpochJob]") -> None:
        """These hold."""
        for job in jobs:
            self._held[job] = None
        for _ in range(len(self._held) - SIGNATURES_KEPT_MAX):
            del self._held[next(iter(self._held))]
