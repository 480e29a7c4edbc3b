"""Does everybody certify the chain that one node shows?

A node is followed; beside it others are asked for the same block with its certificate. A fork shows
itself only in this way: to each follower alone its own node looks well. Both sides are verified
from genesis, so a witness cannot raise an alarm by inventing something. A block that is the same on
both sides is enough for all blocks below it; a witness that is behind, or does not answer, proves
nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from consensus.errors import ProofInvalid
from node.errors import ChainInvalid, NodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consensus.core.messages import BlockHeader
    from node.chain import ChainSource


@dataclass(slots=True, kw_only=True, eq=False)
class Witness:
    """Another node, and how far it certifies the same chain."""

    name: str
    chain: ChainSource
    agreed: int = 0
    trouble: str = ""  # why the newest comparison with it did not happen


class Witnesses:
    """Compares blocks of one node with those of others."""

    def __init__(self, main: ChainSource, others: Sequence[Witness]) -> None:
        self._main = main
        self.others = tuple(others)

    def compare(self, height: int, shown: bytes) -> Witness | None:
        """Return a witness that certifies another block at `height`; None while there is none.

        `shown` is the hash of the block that the followed node gave out. Raises `ChainInvalid` when
        that node itself does not certify it. Before there is a certificate nothing is compared.
        """
        own = _certified(self._main, height)
        if own is None:
            return None
        if own.hash != shown:
            raise ChainInvalid(
                f"block {height} is certified with another hash than the one that was shown",
                hint="do not believe this node; follow another one",
            )
        for witness in self.others:
            try:
                theirs = _certified(witness.chain, height)
            except NodeError as error:
                witness.trouble = str(error)
                continue
            witness.trouble = "" if theirs is not None else f"it has no certificate for {height:,}"
            if theirs is None:
                continue
            if theirs.hash != own.hash:
                return witness
            witness.agreed = max(witness.agreed, height)
        return None


def _certified(chain: ChainSource, height: int) -> BlockHeader | None:
    """The header of a block that a quorum of its time has certified; None before that."""
    run = chain.run(height)
    if run is None:
        return None
    try:
        block = chain.lineage.verify_header(run.proof).header
    except ProofInvalid as error:
        raise ChainInvalid(
            f"block {height} is not proven: {error}", hint="ask another node"
        ) from error
    if block.height != height:
        raise ChainInvalid(
            f"block {block.height} was given for block {height}", hint="ask another node"
        )
    return block
