"""The words of the protocol: quantities with their own types, and the reader's time.

A sequence number and a height are the same number (one batch, one block), but a sequence is what
is being agreed on and a height is what has been executed.
"""

from dataclasses import dataclass
from enum import IntEnum
from typing import Final, NewType

from native.values import Digest

Epoch = NewType("Epoch", int)
View = NewType("View", int)
Sequence = NewType("Sequence", int)
Height = NewType("Height", int)
ReplicaIndex = NewType("ReplicaIndex", int)
Number = NewType("Number", int)  # of a signed message: runs per signer, never repeats


class Phase(IntEnum):
    """What a replica may do with its key (bft.md 3.9). Only VOTING signs anything."""

    STARTING = 0  # waits for STATUS from Q - 1 others
    VOTING = 1
    SEEKING = 2  # lost its memory and asks how far it may have voted
    RECOVERING = 3  # knows the bound and waits until a block at it is certified
    HALTED = 4


NO_DIGEST: Final = Digest(bytes(32))
GENESIS_HEIGHT: Final = Height(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Instant:
    """Now, twice: `monotonic_us` drives timers, `unix_ms` is what a primary proposes."""

    monotonic_us: int
    unix_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Every duration the core uses. The defaults are for a LAN or one machine."""

    request_timeout_ms: int = 1_000  # T before anything was measured
    request_timeout_ms_min: int = 500  # floor of the adaptive T
    request_timeout_ms_max: int = 4_000  # cap of the adaptive T, before doubling
    idle_block_interval_ms: int = 10_000
    batch_interval_ms: int = 5  # between batches when some are in flight
    status_interval_ms: int = 300  # STATUS while something is stuck
    heartbeat_interval_ms: int = 3_000  # STATUS when all is well: tells late nodes they are late
    fetch_retry_ms: int = 150
    chunk_timeout_ms: int = 2_000  # a server that needs longer for a chunk has failed once
    recovery_block_interval_ms: int = 20  # empty batches while a validator is recovering


@dataclass(frozen=True, slots=True, kw_only=True)
class Committee:
    """Who votes in one epoch, and which of them this replica is."""

    chain_id: Digest
    members: int
    me: ReplicaIndex
    epoch: Epoch = Epoch(0)
    rotation_blocks: int = 0  # a primary leads this many blocks, then the next one; 0 for ever

    def primary(self, view: View) -> ReplicaIndex:
        """The one primary of a view."""
        return ReplicaIndex(view % self.members)
