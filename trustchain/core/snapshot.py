"""State snapshots of the log: its records in runs, each the subtree of the record tree it is.

A chunk holds `SNAPSHOT_RECORDS_PER_CHUNK` records, the last one the rest. Since that number is a
power of two, the chunk roots combine to the root of the record tree as leaf hashes do (RFC 9162
section 2.1.1). Names, request ids and the tree over the entries follow from the records.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from consensus.errors import SnapshotInvalid
from native import codec
from native.hashing import EMPTY_ROOT, HASH_SIZE_BYTES, MerkleTree, leaf_hash
from native.values import Digest
from trustchain import limits
from trustchain.core.log import application_root


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What an application root of the log is the hash of."""

    size: int
    log_root: bytes
    record_root: bytes

    @property
    def root(self) -> Digest:
        """The application root."""
        return application_root(self.size, self.log_root, self.record_root)

    def encode(self) -> bytes:
        """Return the canonical form."""
        return codec.encode((self.size, self.log_root, self.record_root))

    @staticmethod
    def decode(data: bytes) -> Opening:
        """Decode the canonical form; raises SnapshotInvalid."""
        match _decoded(data, limits.SNAPSHOT_PART_SIZE_BYTES_MAX + HASH_SIZE_BYTES):
            case (int(size), bytes(log_root), bytes(record_root)) if (
                size <= limits.LOG_INDEX_MAX and len(log_root) == HASH_SIZE_BYTES
            ):
                return Opening(size=size, log_root=log_root, record_root=record_root)
            case _:
                raise SnapshotInvalid("the opening of the log's root has an unknown form")


def encode_chunk(first: int, records: Sequence[bytes]) -> bytes:
    """Join a run of records that begins at index `first`."""
    return codec.encode((first, tuple(records)))


def decode_chunk(chunk: bytes) -> tuple[int, tuple[bytes, ...]]:
    """Split a run of records; raises SnapshotInvalid."""
    match _decoded(chunk, limits.SNAPSHOT_CHUNK_SIZE_BYTES_MAX):
        case (int(first), tuple(found)) if (
            first % limits.SNAPSHOT_RECORDS_PER_CHUNK == 0
            and 0 < len(found) <= limits.SNAPSHOT_RECORDS_PER_CHUNK
        ):
            records = tuple(item for item in found if isinstance(item, bytes))
            if len(records) == len(found):
                return first, records
    raise SnapshotInvalid("the chunk is not a run of records")


def measure(chunk: bytes) -> bytes:
    """Return what a chunk commits to: where it begins, how many, and their subtree's root."""
    first, records = decode_chunk(chunk)
    tree = MerkleTree(b"".join([leaf_hash(record) for record in records]))
    return codec.encode((first, len(records), tree.root()))


def check(root: Digest, opening: bytes, parts: Sequence[bytes]) -> None:
    """Combine the parts to the record root that the application root opens to."""
    opened = Opening.decode(opening)
    if opened.root != root:
        raise SnapshotInvalid("the opening belongs to another application root")
    step = limits.SNAPSHOT_RECORDS_PER_CHUNK
    if len(parts) != -(-opened.size // step):
        raise SnapshotInvalid(f"{len(parts)} parts do not hold {opened.size} records")
    roots: list[bytes] = []
    for number, part in enumerate(parts):
        first = number * step
        expected = (first, min(step, opened.size - first))
        match _decoded(part, limits.SNAPSHOT_PART_SIZE_BYTES_MAX):
            case (int(begins), int(count), bytes(found)) if (begins, count) == expected and len(
                found
            ) == HASH_SIZE_BYTES:
                roots.append(found)
            case _:
                raise SnapshotInvalid(f"part {number} is not the run of records {expected}")
    combined = MerkleTree(b"".join(roots)).root() if roots else EMPTY_ROOT
    if combined != opened.record_root:
        raise SnapshotInvalid("the parts do not make up the records")


def _decoded(data: bytes, size_max: int) -> codec.Value:
    try:
        return codec.decode(data, size_max=size_max)
    except codec.CodecError as error:
        raise SnapshotInvalid(str(error)) from None
