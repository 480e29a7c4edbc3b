"""What a snapshot of the whole state consists of: the outlines of all applications, rising by tag.

Chunks are numbered through all applications. Nothing here knows what is in one: the applications
prove their outlines against their roots, and the roots hash to the state root.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from consensus.application import Outline
from consensus.errors import SnapshotInvalid
from consensus.limits import SNAPSHOT_CHUNKS_MAX, SNAPSHOT_OUTLINE_BYTES_MAX
from native.codec import Value, decode, encode
from native.errors import NativeError
from native.hashing import HASH_SIZE_BYTES
from native.values import Digest

FORMAT_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ApplicationOutline:
    """One application's share of a snapshot."""

    tag: int
    root: Digest
    outline: Outline


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlines:
    """A whole snapshot without its chunks."""

    applications: tuple[ApplicationOutline, ...]

    @property
    def roots(self) -> Sequence[tuple[int, Digest]]:
        """The application roots that the state root is the hash of."""
        return [(entry.tag, entry.root) for entry in self.applications]

    @property
    def chunk_count(self) -> int:
        """How many chunks there are in all."""
        return sum(len(entry.outline.parts) for entry in self.applications)

    def part(self, index: int) -> tuple[int, bytes]:
        """Return whose chunk this is, and what it must commit to."""
        for entry in self.applications:
            if index < len(entry.outline.parts):
                return entry.tag, entry.outline.parts[index]
            index -= len(entry.outline.parts)
        raise SnapshotInvalid("the snapshot has no chunk of this number")

    def firsts(self) -> Sequence[int]:
        """Return the number of each application's first chunk."""
        counts = [len(entry.outline.parts) for entry in self.applications]
        return list(accumulate([0, *counts[:-1]]))

    def encode(self) -> bytes:
        """Return the canonical form."""
        entries = [
            (entry.tag, entry.root, entry.outline.opening, entry.outline.parts)
            for entry in self.applications
        ]
        return encode((FORMAT_VERSION, tuple(entries)))

    @staticmethod
    def decode(data: bytes) -> Outlines:
        """Decode the canonical form; raises `SnapshotInvalid`."""
        try:
            decoded = decode(data, size_max=SNAPSHOT_OUTLINE_BYTES_MAX)
        except NativeError as error:
            raise SnapshotInvalid(str(error)) from None
        match decoded:
            case (int(version), tuple(entries)) if version == FORMAT_VERSION:
                found = tuple([_entry(entry) for entry in entries])
            case _:
                raise SnapshotInvalid("the outline has an unknown form")
        tags = [entry.tag for entry in found]
        if tags != sorted(set(tags)):
            raise SnapshotInvalid("the applications of the outline are not in order")
        outlines = Outlines(applications=found)
        if outlines.chunk_count > SNAPSHOT_CHUNKS_MAX:
            raise SnapshotInvalid(f"more than {SNAPSHOT_CHUNKS_MAX} chunks")
        return outlines


def _entry(value: Value) -> ApplicationOutline:
    match value:
        case (int(tag), bytes(root), bytes(opening), tuple(found)) if len(root) == HASH_SIZE_BYTES:
            parts = tuple(item for item in found if isinstance(item, bytes))
            if len(parts) == len(found):
                return ApplicationOutline(
                    tag=tag, root=Digest(root), outline=Outline(opening=opening, parts=parts)
                )
    raise SnapshotInvalid("an application of the outline has an unknown form")
