"""The disk of one simulated node: what survives a crash, and nothing else."""

from dataclasses import dataclass, field

from consensus.core.messages import BatchHeader, BlockHeader
from consensus.core.records import (
    Accepted,
    Birth,
    ExecutedBlock,
    Record,
    reborn,
    record_key,
    record_sequence,
)
from consensus.core.tick import Tick
from native.values import Digest

Body = tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredBlock:
    """One row of `state.db`."""

    header: BlockHeader
    batch: BatchHeader
    block: ExecutedBlock
    payloads: Body


@dataclass(slots=True)
class Disk:
    """`consensus.db` (records and bodies) and `state.db` (blocks)."""

    records: dict[tuple[int, int], Record] = field(default_factory=dict)
    bodies: dict[Digest, Body] = field(default_factory=dict)
    blocks: list[StoredBlock] = field(default_factory=list)

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
        for record in tick.records:
            self.records[record_key(record)] = record
            if isinstance(record, Accepted):
                root = record.pre_prepare.header.payload_root
                if root not in self.bodies:
                    self.bodies[root] = bodies[root]
        if tick.drop is not None:
            self.drop(tick.drop)

    def drop(self, through: int) -> None:
        for key in [
            key for key, record in self.records.items() if 1 <= record_sequence(record) <= through
        ]:
            del self.records[key]

    def write_block(self, stored: StoredBlock) -> None:
        """One transaction of `state.db`; the body is in the block store by then."""
        self.blocks.append(stored)
        self.bodies[stored.batch.payload_root] = stored.payloads

    def copy(self) -> "Disk":
        """A backup."""
        return Disk(dict(self.records), dict(self.bodies), list(self.blocks))
