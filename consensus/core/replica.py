"""One replica: inputs in, effects out.

`Replica` is the whole state of one member of the agreement and the dispatch of its inputs; each
phase of the protocol is a module of functions over it (`phases/`), so the page that describes a
phase is the page that implements it.

How the runtime drives it, in the order safety needs:

1. Build it with `Replica(...)` from the records of `consensus.db` and the tip of `state.db`, then
   feed `Started` before anything else.
2. Feed verified inputs (duties in `inputs.py`), each with the present time; never call `step`
   from inside the handling of its own effects.
3. Give every list of effects to `tick.Gather` and follow the life of a tick in `tick.py`.
4. Serve `FetchBlocks` and `FetchBodies` from the stores without asking the core.
"""

from collections.abc import Iterable, Sequence as Seq
from dataclasses import dataclass

from native.values import Digest

from consensus.core.effects import Effect
from consensus.core.inputs import Input
from consensus.core.records import ExecutedBlock, Record
from consensus.core.types import (
    GENESIS_HEIGHT,
    Committee,
    Height,
    Instant,
    Number,
    Phase,
    Timing,
    View,
)


def genesis_block(chain_id: Digest, time_ms: int, state_root: Digest) -> ExecutedBlock:
    """What block 1 is built on: the chain id stands for the hash of the missing header 0."""
    return ExecutedBlock(
        height=GENESIS_HEIGHT, header_hash=chain_id, time_ms=time_ms, state_root=state_root
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """A snapshot for `status`, metrics and the debug bundle."""

    view: View
    in_view_change: bool
    is_primary: bool
    phase: Phase
    executed: Height
    certified: Height
    in_flight: int
    view_changes_total: int
    request_timeout_ms: int
    catching_up: bool
    first_sequence: int  # S of a recovery, 0 otherwise
    last_number: Number
    votes_late: int
    misbehaviour_total: int


class Replica:
    """One member of the agreement. See the module text for how to drive it."""

    def __init__(
        self,
        committee: Committee,
        timing: Timing,
        *,
        boot: int,
        tip: ExecutedBlock,
        uncertified: Seq[ExecutedBlock] = (),
        records: Iterable[Record] = (),
        disk_lost: bool = False,
    ) -> None:
        """Rebuild a replica from what is durable.

        `boot` is random and non-zero, new at every start: answers of an earlier life are known by
        it. `tip` is the newest block of `state.db` (or `genesis_block`), `uncertified` the blocks
        up to and including it that are above the newest certificate in `records` (more is
        harmless). `disk_lost`: the birth record was missing and has just been written again.
        Raises `BirthMissing` and `WrongChain`.
        """
        raise NotImplementedError

    def step(self, message: Input, now: Instant) -> list[Effect]:
        """Apply one input. Never blocks, never raises for bad peers: see `Misbehaved`.

        Raises `InvariantError` for a bug of ours: the process must stop at once.
        """
        raise NotImplementedError

    @property
    def number_floor(self) -> Number:
        """Every message signed from now on is numbered above this."""
        raise NotImplementedError

    def take_peer_stamps(self) -> list[Record]:
        """Highest-numbered messages of peers that changed since the last call (for `tick`)."""
        raise NotImplementedError

    def wants_body(self, payload_root: Digest) -> bool:
        """Whether a BODY frame with this root was asked for; others are dropped unread."""
        raise NotImplementedError

    def statistics(self) -> Statistics:
        raise NotImplementedError
