"""What an application of the agreed order must offer.

Consensus orders payloads without knowing what they mean; an application gives them meaning. This
module is the door between the two, owned by the consumer. An application never opens a database,
reads a clock or sees a socket: it declares its rows, returns what changed, and is rebuilt from it.

Outcome codes, one byte per payload:

- 0: applied, final receipt;
- 1 to 127: *failed*, final receipt, the fee is paid and the lane sequence consumed;
- 128 to 255: *refused*, no receipt, state untouched; the payload may appear again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from consensus.core.messages import BlockHeader
    from consensus.core.types import Height
    from consensus.core.validators import ValidatorSet
    from native.batches import Batch
    from native.values import Digest

CODE_APPLIED: Final = 0
CODE_FAILED_MAX: Final = 127  # above it no receipt exists


def has_receipt(code: int) -> bool:
    """Say whether an outcome code is final (applied or failed) rather than refused."""
    return code <= CODE_FAILED_MAX


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A batch in its place: what an application executes."""

    header: BlockHeader
    batch: Batch


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One lazily written cache row: key is the application's dense number, unique per table."""

    table: str
    key: int
    value: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Executed:
    """What executing one block did to one application.

    `positions`, `ids` (32 bytes each) and `codes` (one byte each) run in parallel: the place of a
    payload in the batch, the id its receipt is found by, and its outcome. `delta` carries absolute
    values, so replaying it twice, or over newer rows, ends in the same state. `next_validators` is
    the set of the next epoch when this block changes it: at most one application may return one.
    """

    root: Digest
    delta: bytes
    positions: Sequence[int]
    ids: bytes
    codes: bytes
    next_validators: ValidatorSet | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """Admission advice: one outcome code a payload, 0 to admit, and the ids of their receipts.

    An id is the one `execute` will report for the same payload.
    """

    codes: bytes
    ids: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """What a state snapshot of one application consists of.

    `opening` is what its root is the hash of; `parts` commit to one chunk each. Together they are
    proven against the application root before a single chunk is at hand.
    """

    opening: bytes
    parts: tuple[bytes, ...]


class Application(Protocol):
    """A deterministic state machine driven by blocks.

    `execute` is total: a bad payload becomes a refused or failed outcome, never an exception. All
    methods but `check` and `prepare` are called on one thread, one at a time.
    """

    @property
    def name(self) -> str:
        """Short name: a metric label and the owner of its rows."""
        ...

    @property
    def tag(self) -> int:
        """First byte of every payload that belongs to this application."""
        ...

    @property
    def sender_at(self) -> int | None:
        """Where in a well-formed payload 8 bytes name its sender; None when nothing does.

        Places in a batch are shared out fairly among senders. The bytes prove nothing.
        """
        ...

    @property
    def repeated_codes(self) -> frozenset[int]:
        """Advice codes that a payload which was executed may get when it comes again."""
        ...

    @property
    def malformed_codes(self) -> frozenset[int]:
        """Refusals that need no state: undecodable, of another chain, oversized.

        A primary that proposes many such payloads is deposed, so nothing that a client can bring
        about by changing the state may be among them. `execute` gives one of these codes to a
        payload exactly when `well_formed` says no.
        """
        ...

    def well_formed(self, batch: Batch, positions: Sequence[int]) -> bytes:
        """Say by one byte a payload, 1 or 0, which may be in custody at all.

        The only check between validators, and cheap: no signature, no state. Any thread.
        """
        ...

    def genesis(self) -> Digest:
        """Enter the state after genesis and return its application root."""
        ...

    def check(self, batch: Batch, positions: Sequence[int]) -> Advice:
        """Say what would become of each payload now. Any thread, never binding."""
        ...

    def prepare(self, batch: Batch) -> None:
        """Start decoding and signature checks early. Any thread; changes no state."""
        ...

    def execute(self, block: Block, positions: Sequence[int]) -> Executed:
        """Apply the payloads at `positions` in order."""
        ...

    def row_count(self) -> int:
        """How many rows `rows` can return in all."""
        ...

    def rows(self, first: int, count: int) -> Sequence[Row]:
        """Return at most `count` current rows from cursor `first` on, for the write-back cache."""
        ...

    def load(self, rows: Iterable[Row], deltas: Iterable[tuple[Height, bytes]]) -> Digest:
        """Rebuild the state from cache rows and later deltas, and return its application root.

        Called instead of `genesis` after a restart. Rows overlay the state after genesis: none at
        all means that no write-back has happened yet. `deltas` rise in height without a gap and
        reach back at least to the oldest row's write.
        """
        ...

    # --- snapshots: everything the next block needs, in chunks that are checked one by one

    def cut(self) -> bytes:
        """Keep the state after the newest block readable for `next_chunk`, and open its root.

        Cheap: nothing is copied before later blocks overwrite it. A second cut replaces the first.
        """
        ...

    def next_chunk(self) -> bytes | None:
        """Read the next chunk of the cut; None, and the cut is over, when there is none left.

        Chunks depend on the state alone: every node cuts the same ones.
        """
        ...

    def end_cut(self) -> None:
        """Forget the cut."""
        ...

    def measure(self, chunk: bytes) -> bytes:
        """Say what a chunk commits to. Any thread; raises `SnapshotInvalid`.

        A chunk belongs to an outline if and only if this is its part.
        """
        ...

    def check_outline(self, root: Digest, outline: Outline) -> None:
        """Prove an outline against an application root. Any thread; raises `SnapshotInvalid`."""
        ...

    def restore(self, outline: Outline, chunks: Iterable[bytes]) -> Digest:
        """Enter the state that checked chunks hold, in the order of their parts; return its root.

        Called instead of `genesis` or in place of the present state. Raises `SnapshotInvalid`, and
        then the state is the one before.
        """
        ...
