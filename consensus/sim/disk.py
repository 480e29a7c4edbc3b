"""The disk of one simulated node: what survives a crash, and nothing else."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random

from consensus.core.messages import BatchHeader, BlockHeader
from consensus.core.records import (
    AGREED_KIND,
    Accepted,
    Agreed,
    Birth,
    ExecutedBlock,
    Record,
    Row,
    encode_record,
    reborn,
    record_key,
    record_sequence,
)
from consensus.core.tick import Tick
from consensus.errors import CorruptRecord
from native.hashing import merkle_root
from native.values import Digest

Body = tuple[bytes, ...]
Place = tuple[int, int]  # kind and key of a record


def payload_root(payloads: Iterable[bytes]) -> Digest:
    """What a body is named by."""
    return Digest(merkle_root(list(payloads)))


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """One row of `state.db`."""

    header: BlockHeader
    batch: BatchHeader
    block: ExecutedBlock
    payloads: Body

    @property
    def is_from_snapshot(self) -> bool:
        """Whether a fetched snapshot stands for it: then the header is that of the snapshot."""
        return self.header.height != self.block.height


@dataclass(slots=True)
class Disk:
    """`consensus.db` (records and bodies) and `state.db` (blocks)."""

    records: dict[Place, Record] = field(default_factory=dict)
    bodies: dict[Digest, Body] = field(default_factory=dict)
    blocks: list[StoredBlock] = field(default_factory=list)
    damaged: dict[Place, bytes] = field(default_factory=dict)  # where other bytes are than written
    misread: tuple[Place, bytes] | None = None  # what will be read there instead, once
    misdirect: Random | None = None  # one record of the next write lands in another's place

    @property
    def is_damaged(self) -> bool:
        """Whether reading again would help nothing."""
        return bool(self.damaged) or not all(map(self._has_body, self.records.values()))

    def read(self) -> list[tuple[int, bytes]]:
        """Kind and data of every record but those of `agreed`, which a start does not load.

        Raises `CorruptRecord` for what is not as it was written.
        """
        stored = dict(self.damaged)
        if self.misread is not None:
            stored[self.misread[0]] = self.misread[1]
            self.misread = None
        rows: list[tuple[int, bytes]] = []
        for place, record in self.records.items():
            if isinstance(record, Agreed):
                continue
            row = encode_record(record)
            if place in stored:
                row = Row.read(row.kind, row.key, row.sequence, stored[place])
            if not self._has_body(record):
                raise CorruptRecord(f"the body of {place} is damaged")
            rows.append((row.kind, row.data))
        return rows

    @property
    def places(self) -> list[Place]:
        """Where damage is done, in order: records that a start loads."""
        return sorted(place for place in self.records if place[0] != AGREED_KIND)

    def agreed(self, height: int) -> BatchHeader | None:
        """The batch of a block that was executed, as `consensus.db` keeps it."""
        record = self.records.get((AGREED_KIND, height))
        return record.header if isinstance(record, Agreed) else None

    def lose_blocks(self, count: int, *, floor: int) -> int:
        """A power cut takes the newest blocks above `floor` out of `state.db`; return how many.

        Not the one that a snapshot stands for, nor what is below it: those were synced.
        """
        lost = 0
        while lost < count and len(self.blocks) > floor:
            if self.blocks[-1].is_from_snapshot:
                break
            self.blocks.pop()
            lost += 1
        return lost

    def _has_body(self, record: Record) -> bool:
        if not isinstance(record, Accepted):
            return True
        root = record.pre_prepare.header.payload_root
        body = self.bodies.get(root)
        return body is None or payload_root(body) == root

    def moved_away(self, chain_id: Digest, node_id: Digest) -> None:
        """A new `consensus.db` in the place of one that could not be read."""
        self.records.clear()
        self.bodies.clear()
        self.damaged.clear()
        self.born_again(chain_id, node_id)

    def born(self, chain_id: Digest, node_id: Digest) -> None:
        """The store made together with the key."""
        birth = Birth(chain_id=chain_id, node_id=node_id, incarnation=1)
        self.records[record_key(birth)] = birth

    def born_again(self, chain_id: Digest, node_id: Digest) -> None:
        """The store made after the first one was lost."""
        for record in reborn(chain_id, node_id, 2):
            self.records[record_key(record)] = record

    def write_tick(self, tick: Tick, bodies: dict[Digest, Body]) -> None:
        """One transaction."""
        before = None if self.misdirect is None else dict(self.records)
        for record in tick.records:
            self.records[record_key(record)] = record
            self.damaged.pop(record_key(record), None)
            if isinstance(record, Accepted):
                root = record.pre_prepare.header.payload_root
                if root not in self.bodies:
                    self.bodies[root] = bodies[root]
        if tick.drop is not None:
            self.drop(tick.drop)
        if before is not None:
            self._misdirect(tick.records, before)

    def _misdirect(self, written: Iterable[Record], before: dict[Place, Record]) -> None:
        """One of the records just written is in the place of another, and its own has the old."""
        luck = self.misdirect
        assert luck is not None
        by_place = {record_key(record): record for record in written}
        others = [place for place in self.places if place not in by_place]
        candidates = [place for place in self.places if place in by_place]
        if not others or not candidates:
            return
        place = luck.choice(candidates)
        self.damaged[luck.choice(others)] = encode_record(by_place[place]).stored
        self.misdirect = None
        if place in before:
            self.records[place] = before[place]
        else:
            del self.records[place]

    def drop(self, through: int) -> None:
        for key in [
            key for key, record in self.records.items() if 1 <= record_sequence(record) <= through
        ]:
            del self.records[key]
            self.damaged.pop(key, None)

    def write_block(self, stored: StoredBlock) -> None:
        """One transaction of `state.db`; the body is in the block store by then."""
        self.blocks.append(stored)
        self.bodies[stored.batch.payload_root] = stored.payloads

    def copy(self) -> "Disk":
        """A backup."""
        return Disk(dict(self.records), dict(self.bodies), list(self.blocks))
