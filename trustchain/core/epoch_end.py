"""How long the log was when an epoch ended, proven from any later state of it.

Every record says in which block its entry was appended, and the application root commits to all
records. So the last record at or below the epoch's last block and the first one above it, both
proven to be neighbours in the record tree, show the size at that block: no old state is needed.
The former also says when the newest certificate of the epoch began.
"""

from __future__ import annotations

from dataclasses import dataclass

from native import codec
from native.errors import ProofInvalid
from native.hashing import HASH_SIZE_BYTES, leaf_hash, verify_inclusion
from trustchain import limits
from trustchain.core.log import IssuanceLog, Record
from trustchain.core.roster import Ended
from trustchain.core.snapshot import Opening
from trustchain.errors import EpochEndUnproven, StateCorrupt


@dataclass(frozen=True, slots=True, kw_only=True)
class ProvenRecord:
    """A stored record and its way up the record tree."""

    record: bytes
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EpochEnd:
    """Where the log stood after a block: its size, with the records on both sides."""

    size: int
    before: ProvenRecord | None  # the last one of the tree of this size; None when it is empty
    after: ProvenRecord | None  # the next one; None when there is none yet

    def verify(self, opening: Opening, height: int) -> Ended:
        """Return where the log stood after the block at `height`; raises EpochEndUnproven.

        `opening` is of a certified state at or after that block.
        """
        if not 0 <= self.size <= opening.size:
            raise EpochEndUnproven(f"a log of {self.size} entries ends an epoch of {opening.size}")
        if (self.before is None) != (self.size == 0):
            raise EpochEndUnproven("the last entry of the epoch is missing")
        if (self.after is None) != (self.size == opening.size):
            raise EpochEndUnproven("the first entry after the epoch is missing")
        if self.after is not None and _record(self.after, self.size, opening).height <= height:
            raise EpochEndUnproven(f"entry {self.size} is not younger than block {height}")
        if self.before is None:
            return Ended(size=0)
        last = _record(self.before, self.size - 1, opening)
        if last.height > height:
            raise EpochEndUnproven(f"entry {self.size - 1} is younger than block {height}")
        return Ended(size=self.size, not_before_s=last.not_before_s)

    def encode(self) -> bytes:
        """Return the canonical bytes."""
        return codec.encode((self.size, _value(self.before), _value(self.after)))

    @staticmethod
    def decode(data: bytes) -> EpochEnd:
        """Read the canonical bytes, or raise EpochEndUnproven."""
        try:
            value = codec.decode(data, size_max=limits.EPOCH_END_SIZE_BYTES_MAX)
        except codec.CodecError as error:
            raise EpochEndUnproven(str(error)) from error
        match value:
            case (int(size), before, after):
                return EpochEnd(size=size, before=_proven(before), after=_proven(after))
        raise EpochEndUnproven("the end of an epoch has an unknown form")


def epoch_end(log: IssuanceLog, height: int, *, of: int) -> EpochEnd:
    """Prove the size after the block at `height` to whoever knows the log of `of` entries."""
    low, high = 0, of
    while low < high:  # heights never fall from one record to the next
        middle = (low + high) // 2
        if log.record(middle).height <= height:
            low = middle + 1
        else:
            high = middle
    return EpochEnd(
        size=low,
        before=_prove(log, low - 1, of) if low > 0 else None,
        after=_prove(log, low, of) if low < of else None,
    )


def _prove(log: IssuanceLog, index: int, of: int) -> ProvenRecord:
    return ProvenRecord(record=log.stored(index), path=log.record_proof(index, of))


def _record(proven: ProvenRecord, index: int, opening: Opening) -> Record:
    try:
        verify_inclusion(
            leaf_hash(proven.record), index, opening.size, proven.path, opening.record_root
        )
        return Record.decode(proven.record)
    except (ProofInvalid, StateCorrupt) as error:
        raise EpochEndUnproven(f"entry {index}: {error}") from error


def _value(proven: ProvenRecord | None) -> codec.Value:
    return None if proven is None else (proven.record, proven.path)


def _proven(value: codec.Value) -> ProvenRecord | None:
    match value:
        case None:
            return None
        case (bytes(record), tuple(path)) if len(path) <= limits.PROOF_HASHES_COUNT_MAX and all(
            isinstance(step, bytes) and len(step) == HASH_SIZE_BYTES for step in path
        ):
            return ProvenRecord(
                record=record, path=tuple(step for step in path if isinstance(step, bytes))
            )
    raise EpochEndUnproven("a record has an unknown form")
