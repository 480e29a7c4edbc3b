"""What may be told of executed blocks: receipts, news, cosignatures, once the replica took them.

A block is written to `state.db` before the replica hears of it, and durable in `consensus.db`, with
its votes, before it is executed. Only the replica knows whether the
state after it is the certified one, so nobody is told of a block before the turn in which the
replica took it, nor of any block above a state that turned out to differ: such a node halts.
The blocks themselves and the state stay readable, for whoever looks for the difference.

Waiting callers are woken after the driver's turn and in the same turn of the transport: that costs
no time, because what they send leaves when that turn is over anyway.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from consensus.core.replica import Replica
    from node.runtime.executor import ExecutedBlock, Executor
    from node.runtime.receipts import Receipt


class HeldBack(Exception):
    """There is a receipt, but the replica has not taken its block, or found that it differs."""


class Acknowledged:
    """The executed blocks that the replica stands by. Lives on the loop."""

    def __init__(self, replica: Replica, executor: Executor) -> None:
        self._replica = replica
        self._executor = executor
        self._waiting: deque[ExecutedBlock] = deque()  # what one turn drains, and no more
        self._seen = self.height
        self.news = trio.Event()  # set, and another one put in its place, when the height changes

    @property
    def height(self) -> int:
        """The newest block that may be told of; it falls when the state turns out to differ."""
        return int(self._replica.acknowledged)

    def executed(self, block: ExecutedBlock) -> None:
        """A block is executed, and the replica will hear of it in this turn."""
        self._waiting.append(block)

    def take(self) -> list[ExecutedBlock]:
        """The blocks to be told of now, in order; asked for when the replica's turn is over.

        The height moves without any when a snapshot was entered, and when the state differs.
        """
        if self._seen != self.height:
            self._seen = self.height
            news, self.news = self.news, trio.Event()
            news.set()
        taken: list[ExecutedBlock] = []
        while self._waiting and int(self._waiting[0].header.height) <= self.height:
            taken.append(self._waiting.popleft())
        return taken

    def receipt_nowait(
        self, identifier: bytes, *, oldest: int = 0, newest: int | None = None
    ) -> Receipt | None:
        """See `Executor.receipt_nowait`. Raises `HeldBack`."""
        return self._told(self._executor.receipt_nowait(identifier, oldest=oldest, newest=newest))

    async def receipt(self, identifier: bytes) -> Receipt | None:
        """See `Executor.receipt`. Raises `HeldBack` and `SearchBusy`."""
        return self._told(await self._executor.receipt(identifier))

    def _told(self, found: Receipt | None) -> Receipt | None:
        if found is not None and found.height > self.height:
            raise HeldBack
        return found
