"""Payload to application: many applications behind the one that consensus sees.

A payload's first byte names its application. The router hands each application the positions that
are its own, and hashes the application roots into one state root:

    state root = SHA-256("hypermesh/state/v1" || canonical [[tag, application root], ...])

with tags rising. A payload no application claims is refused with `CODE_NO_APPLICATION`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.application import Advice, Outline
from consensus.errors import InvariantError, SnapshotInvalid, invariant
from consensus.limits import SNAPSHOT_CHUNK_BYTES_MAX
from native.codec import decode, encode
from native.hashing import sha256
from native.values import Digest
from node.core.outlines import ApplicationOutline, Outlines
from node.runtime.receipts import ID_SIZE_BYTES, id_at

if TYPE_CHECKING:
    from consensus.application import Application, Block, Executed, Row
    from consensus.core.types import Height
    from consensus.core.validators import ValidatorSet
    from native.batches import Batch

STATE_DOMAIN: Final = b"hypermesh/state/v1"
CODE_NO_APPLICATION: Final = 255  # refused: the first byte names no application of this chain
DELTA_SIZE_BYTES_MAX: Final = (
    64 << 20
)  # our own bytes read back: a block is at most 1 MiB of payloads


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a block did: the state root after it, the outcome of each payload, what to store.

    `codes` has one byte for every payload of the batch; `deltas` is one blob that `split_deltas`
    takes apart again. `malformed` counts the payloads that no primary should have proposed.
    `next_validators` is what the block decided about who votes next, if it did.
    """

    state_root: Digest
    codes: bytes
    executed: Sequence[tuple[int, Executed]]
    deltas: bytes
    malformed: int
    next_validators: ValidatorSet | None


def state_root(roots: Iterable[tuple[int, Digest]]) -> Digest:
    """Hash application roots, rising by tag, into the state root a block certificate signs."""
    return Digest(sha256(STATE_DOMAIN + encode(tuple(sorted(roots)))))


@dataclass(slots=True, kw_only=True)
class _Cut:
    """A state that is being read: what opens its roots, and whose chunks are left."""

    openings: dict[int, bytes]
    roots: dict[int, Digest]
    left: list[int]


class Router:
    """The applications of a chain by payload tag. Not thread safe but for `check` and `prepare`."""

    def __init__(self, applications: Sequence[Application]) -> None:
        self._applications = {a.tag: a for a in sorted(applications, key=lambda a: a.tag)}
        if len(self._applications) != len(applications):
            raise InvariantError("two applications claim one payload tag")
        self._roots: dict[int, Digest] = {}
        self._cut: _Cut | None = None

    @property
    def applications(self) -> Sequence[Application]:
        """The applications, rising by tag."""
        return tuple(self._applications.values())

    @property
    def roots(self) -> Sequence[tuple[int, Digest]]:
        """The application roots behind the current state root, for proofs."""
        return tuple(self._roots.items())

    @property
    def sender_at(self) -> Sequence[tuple[int, int]]:
        """Where payloads name their sender, by tag, for the mempool."""
        named = ((tag, a.sender_at) for tag, a in self._applications.items())
        return [(tag, offset) for tag, offset in named if offset is not None]

    def genesis(self) -> Digest:
        """Put every application at genesis and return the state root after it."""
        self._roots = {tag: a.genesis() for tag, a in self._applications.items()}
        return self.state_root

    @property
    def state_root(self) -> Digest:
        """The state root after the newest executed block."""
        return state_root(self._roots.items())

    def check(self, batch: Batch) -> Advice:
        """Admission advice for every payload; a payload that is nobody's has the id 0."""
        codes = bytearray([CODE_NO_APPLICATION]) * len(batch)
        ids = bytearray(ID_SIZE_BYTES * len(batch))
        for application, positions in self._split(batch):
            advice = application.check(batch, positions)
            if len(positions) == len(batch):
                return advice
            for at, position in enumerate(positions):
                codes[position] = advice.codes[at]
                ids[position * ID_SIZE_BYTES : (position + 1) * ID_SIZE_BYTES] = id_at(
                    advice.ids, at
                )
        return Advice(codes=bytes(codes), ids=bytes(ids))

    def repeated(self, tag: int, code: int) -> bool:
        """Whether an executed payload of this application gets this code when it comes again."""
        application = self._applications.get(tag)
        return application is not None and code in application.repeated_codes

    def prepare(self, batch: Batch) -> None:
        """Let the applications start their decoding and signature checks. Any thread."""
        for application in self._applications.values():
            application.prepare(batch)

    def well_formed(self, batch: Batch) -> bytes:
        """Say by one byte a payload, 1 or 0, which may be in custody. Any thread."""
        found = bytearray(len(batch))
        for application, positions in self._split(batch):
            answer = application.well_formed(batch, positions)
            if len(positions) == len(batch):
                return answer
            for at, position in enumerate(positions):
                found[position] = answer[at]
        return bytes(found)

    def execute(self, block: Block) -> Outcome:
        """Execute one block in every application, in tag order."""
        codes = bytearray([CODE_NO_APPLICATION]) * len(block.batch)
        split = {application.tag: positions for application, positions in self._split(block.batch)}
        executed: list[tuple[int, Executed]] = []
        malformed = len(block.batch)
        following: ValidatorSet | None = None
        for tag, application in self._applications.items():
            result = application.execute(block, split.get(tag, ()))
            for position, code in zip(result.positions, result.codes, strict=True):
                codes[position] = code
            bad = sum(map(result.codes.count, sorted(application.malformed_codes)))
            malformed -= len(result.codes) - bad
            self._roots[tag] = result.root
            executed.append((tag, result))
            if result.next_validators is not None:
                invariant(following is None, "one application decides who votes")
                following = result.next_validators
        return Outcome(
            state_root=self.state_root,
            codes=bytes(codes),
            executed=executed,
            deltas=encode(tuple((tag, result.delta) for tag, result in executed)),
            malformed=malformed,
            next_validators=following,
        )

    def load(
        self, rows: dict[int, Iterable[Row]], deltas: Iterable[tuple[Height, bytes]]
    ) -> Digest:
        """Rebuild every application from its rows and the deltas after them."""
        by_tag: dict[int, list[tuple[Height, bytes]]] = {tag: [] for tag in self._applications}
        for height, blob in deltas:
            for tag, delta in split_deltas(blob):
                by_tag[tag].append((height, delta))
        for tag, application in self._applications.items():
            self._roots[tag] = application.load(rows.get(tag, ()), by_tag[tag])
        return self.state_root

    # --- snapshots

    def cut(self) -> None:
        """Keep the state after the newest block readable for `next_chunk`."""
        self._cut = _Cut(
            openings={tag: a.cut() for tag, a in self._applications.items()},
            roots=dict(self._roots),
            left=list(self._applications),
        )

    def next_chunk(self) -> tuple[int, bytes] | None:
        """Read the next chunk of the cut with its application's tag; None when all is read."""
        cut = self._cut
        while cut is not None and cut.left:
            tag = cut.left[0]
            chunk = self._applications[tag].next_chunk()
            if chunk is not None:
                return tag, chunk
            cut.left.pop(0)
        return None

    def end_cut(self) -> None:
        """Forget the cut."""
        self._cut = None
        for application in self._applications.values():
            application.end_cut()

    def outlines(self, parts: Sequence[tuple[int, bytes]]) -> Outlines:
        """Put together the outlines of the cut from the parts of its chunks, in their order."""
        if self._cut is None:
            raise InvariantError("there is no cut to outline")
        cut = self._cut
        return Outlines(
            applications=tuple(
                ApplicationOutline(
                    tag=tag,
                    root=cut.roots[tag],
                    outline=Outline(
                        opening=opening, parts=tuple(part for owner, part in parts if owner == tag)
                    ),
                )
                for tag, opening in cut.openings.items()
            )
        )

    def measure(self, tag: int, chunk: bytes) -> bytes:
        """Say what a chunk commits to. Any thread; raises `SnapshotInvalid`."""
        if len(chunk) > SNAPSHOT_CHUNK_BYTES_MAX:
            raise SnapshotInvalid(f"a chunk of {len(chunk)} bytes")
        return self._applications[tag].measure(chunk)

    def check_outlines(self, root: Digest, data: bytes) -> Outlines:
        """Prove outlines against a state root. Any thread; raises `SnapshotInvalid`."""
        outlines = Outlines.decode(data)
        if [entry.tag for entry in outlines.applications] != list(self._applications):
            raise SnapshotInvalid("the snapshot is of other applications than this chain has")
        if state_root(outlines.roots) != root:
            raise SnapshotInvalid("the snapshot belongs to another state root")
        for entry in outlines.applications:
            self._applications[entry.tag].check_outline(entry.root, entry.outline)
        return outlines

    def restore(self, outlines: Outlines, chunk: Callable[[int], bytes]) -> Digest:
        """Enter the state of a snapshot; `chunk` reads one by its number."""
        self.end_cut()
        for entry, first in zip(outlines.applications, outlines.firsts(), strict=True):
            numbers = range(first, first + len(entry.outline.parts))
            self._roots[entry.tag] = self._applications[entry.tag].restore(
                entry.outline, (chunk(number) for number in numbers)
            )
        return self.state_root

    def _split(self, batch: Batch) -> Iterable[tuple[Application, Sequence[int]]]:
        tags = batch.tags
        for tag, application in self._applications.items():
            if tags.count(tag) == len(tags):
                if tags:
                    yield application, range(len(tags))
            elif tag in tags:
                yield application, [i for i, found in enumerate(tags) if found == tag]


def split_deltas(blob: bytes) -> Iterable[tuple[int, bytes]]:
    """Take one block's stored deltas apart: (application tag, delta) rising by tag."""
    decoded = decode(blob, size_max=DELTA_SIZE_BYTES_MAX)
    if not isinstance(decoded, tuple):
        raise InvariantError("a stored delta is not a list")
    for entry in decoded:
        match entry:
            case (int(tag), bytes(delta)):
                yield tag, delta
            case _:
                raise InvariantError("a stored delta entry is not [tag, bytes]")
