"""The issuance log: a deterministic state machine from operations to entries.

It knows who holds a name, which request has which index, and the tree over the entries. It checks
no signature (its caller did) and reads no clock: block time is an argument. Everything is rebuilt
from the records, one an entry, which are also what is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from native import codec
from native.hashing import EMPTY_ROOT, MerkleTree, leaf_hash, sha256
from native.values import Digest
from trustchain import limits
from trustchain.core import oids
from trustchain.core.entries import leaf_entry
from trustchain.core.genesis import LogGenesis
from trustchain.core.keys import SubjectKey, node_id_of
from trustchain.core.outcomes import Outcome
from trustchain.core.requests import Kind, Operation
from trustchain.errors import EntryUnknown, HeadUnknown, StateCorrupt

ROOT_DOMAIN: Final = b"hypermesh/trustchain/root/v2"


@dataclass(frozen=True, kw_only=True)
class Record:
    """One entry of the log with what belongs to it. No slots: its key is decoded once and kept."""

    index: int
    height: int
    request_id: bytes
    request_hash: bytes
    permanent_id: bytes
    names: tuple[str, ...]
    spki: bytes
    not_before_s: int
    not_after_s: int
    entry: bytes
    log_format: str = oids.LOG_FORMAT

    @cached_property
    def key(self) -> SubjectKey:
        """The certified key."""
        return SubjectKey.decode(self.spki)

    def encode(self) -> bytes:
        """Return the stored form."""
        return codec.encode(
            (
                self.log_format,
                self.index,
                self.height,
                self.request_id,
                self.request_hash,
                self.permanent_id,
                self.names,
                self.spki,
                self.not_before_s,
                self.not_after_s,
                self.entry,
            )
        )

    @staticmethod
    def decode(data: bytes) -> Record:
        """Decode the stored form, or raise StateCorrupt."""
        try:
            fields = codec.decode(data, size_max=limits.OPERATION_SIZE_BYTES_MAX)
        except codec.CodecError as error:
            raise StateCorrupt(f"record: {error}") from error
        match fields:
            case (
                oids.LOG_FORMAT,
                int(index),
                int(height),
                bytes(request_id),
                bytes(request_hash),
                bytes(permanent_id),
                tuple(names),
                bytes(spki),
                int(not_before_s),
                int(not_after_s),
                bytes(entry),
            ):
                return Record(
                    index=index,
                    height=height,
                    request_id=request_id,
                    request_hash=request_hash,
                    permanent_id=permanent_id,
                    names=tuple(str(name) for name in names),
                    spki=spki,
                    not_before_s=not_before_s,
                    not_after_s=not_after_s,
                    entry=entry,
                )
        raise StateCorrupt("record: fields are not those of its format")


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """The log after a block that appended entries."""

    height: int
    size: int
    root: bytes
    time_s: int  # block time


@dataclass(frozen=True, slots=True)
class _Holding:
    """Who holds a name, and the newest entry that carries it."""

    permanent_id: bytes
    index: int


def application_root(size: int, log_root: bytes, record_root: bytes) -> Digest:
    """Hash what validators agree on: how many entries, the tree over them, and their records."""
    return sha256(ROOT_DOMAIN + size.to_bytes(8, "big") + log_root + record_root)


class IssuanceLog:
    """The log and everything that decides about its next entry."""

    def __init__(self, genesis: LogGenesis) -> None:
        self._genesis = genesis
        self._tree = MerkleTree()
        self._records: list[bytes] = []
        self._record_tree = MerkleTree()
        self._requests: dict[bytes, tuple[bytes, int]] = {}
        self._holdings: dict[str, _Holding] = {}

    @property
    def genesis(self) -> LogGenesis:
        """What the log started from."""
        return self._genesis

    @property
    def size(self) -> int:
        """How many entries there are."""
        return len(self._records)

    @property
    def application_root(self) -> Digest:
        """What validators agree on after each block: the tree and every record behind it."""
        return application_root(self.size, self.root(), self.record_root())

    def record_root(self, size: int | None = None) -> bytes:
        """Return the root of the tree over the records, which say more than their entries."""
        if size is None:
            size = self.size
        return bytes(self._record_tree.root(size)) if size else bytes(EMPTY_ROOT)

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the tree at this size, or now."""
        if size is None:
            size = self.size
        if not 0 <= size <= self.size:
            raise HeadUnknown(f"the log has {self.size} entries, not {size}")
        return bytes(self._tree.root(size)) if size else bytes(EMPTY_ROOT)

    def head(self) -> Head | None:
        """Return the head that the newest entry's block left behind."""
        if not self._records:
            return None
        last = self.record(self.size - 1)
        return Head(
            height=last.height,
            size=self.size,
            root=self.root(),
            time_s=last.not_before_s + self._genesis.backdate_s,
        )

    def judge(self, operation: Operation, time_s: int) -> Outcome:
        """Say what would become of a well-formed, correctly signed operation at this time."""
        known = self._requests.get(operation.request_id)
        if known is not None:
            same = known[0] == operation.request_hash
            return Outcome.ALREADY_ISSUED if same else Outcome.REQUEST_ID_TAKEN
        if self.size > limits.LOG_INDEX_MAX or time_s > limits.TIME_S_MAX:
            return Outcome.LOG_FULL
        if operation.kind is Kind.RENEW:
            return self._judge_renewal(operation, time_s)
        return self._judge_issue(operation)

    def append(self, operation: Operation, key: SubjectKey, *, height: int, time_s: int) -> Record:
        """Append the entry of an operation that `judge` accepted: the moment of issuance."""
        permanent_id = key.node_id
        not_before_s = max(0, time_s - self._genesis.backdate_s)
        not_after_s = min(not_before_s + self._genesis.leaf_life_s, limits.TIME_S_MAX)
        entry = leaf_entry(
            ca_id=self._genesis.ca_id,
            trust_domain=self._genesis.trust_domain,
            permanent_id=permanent_id,
            names=operation.names,
            key=key,
            not_before_s=not_before_s,
            not_after_s=not_after_s,
        )
        record = Record(
            index=self.size,
            height=height,
            request_id=operation.request_id,
            request_hash=operation.request_hash,
            permanent_id=permanent_id,
            names=operation.names,
            spki=key.spki,
            not_before_s=not_before_s,
            not_after_s=not_after_s,
            entry=entry.encode(),
        )
        self._insert(record, record.encode())
        return record

    def restore(self, data: bytes) -> None:
        """Append a stored record; raises StateCorrupt unless it is the next one."""
        record = Record.decode(data)
        if record.index != self.size:
            raise StateCorrupt(f"record {record.index} where {self.size} was expected")
        self._insert(record, data)

    def record(self, index: int) -> Record:
        """Return one entry's record, or raise EntryUnknown."""
        return Record.decode(self.stored(index))

    def stored(self, index: int) -> bytes:
        """Return one record in its stored form, or raise EntryUnknown."""
        if not 0 <= index < len(self._records):
            raise EntryUnknown(f"the log has {len(self._records)} entries, none at {index}")
        return self._records[index]

    def index_of_request(self, request_id: bytes) -> int:
        """Return the index a request id got, or raise EntryUnknown."""
        known = self._requests.get(request_id)
        if known is None:
            raise EntryUnknown(f"no entry for request {request_id.hex()}")
        return known[1]

    def index_of_name(self, name: str) -> int:
        """Return the newest entry that carries a name, or raise EntryUnknown."""
        holding = self._holdings.get(name)
        if holding is None:
            raise EntryUnknown(f"no entry for the name {name}")
        return holding.index

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Prove that an entry is in the tree of this size (RFC 9162 section 2.1.3)."""
        if not 0 <= index < size <= self.size:
            raise HeadUnknown(f"no entry {index} in a tree of {size}; the log has {self.size}")
        return tuple(self._tree.inclusion_proof(index, size))

    def record_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Prove that a record is the one of an entry, in the record tree of this size."""
        if not 0 <= index < size <= self.size:
            raise HeadUnknown(f"no record {index} of {size}; the log has {self.size}")
        return tuple(self._record_tree.inclusion_proof(index, size))

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Prove that one tree continues another (RFC 9162 section 2.1.4)."""
        if not 0 <= old_size <= new_size <= self.size:
            raise HeadUnknown(f"no sizes {old_size} to {new_size}; the log has {self.size}")
        return tuple(self._tree.consistency_proof(old_size, new_size)) if old_size else ()

    def _judge_issue(self, operation: Operation) -> Outcome:
        enrolment = self._genesis.enrolment_key(operation.authority)
        if enrolment is None:
            return Outcome.ENROLMENT_KEY_UNKNOWN
        if not all(enrolment.grants(name) for name in operation.names):
            return Outcome.NAME_NOT_GRANTED
        return Outcome.NAME_TAKEN if self._held_by_others(operation) else Outcome.ISSUED

    def _judge_renewal(self, operation: Operation, time_s: int) -> Outcome:
        if operation.renewed is None or operation.renewed >= self.size:
            return Outcome.RENEWAL_UNKNOWN
        renewed = self.record(operation.renewed)
        if renewed.spki != operation.spki:
            return Outcome.RENEWAL_KEY_CHANGED
        if time_s > renewed.not_after_s + self._genesis.renewal_grace_s:
            return Outcome.RENEWAL_TOO_LATE
        if not set(operation.names) <= set(renewed.names):
            return Outcome.RENEWAL_NAME_ADDED
        return Outcome.NAME_TAKEN if self._held_by_others(operation) else Outcome.ISSUED

    def _held_by_others(self, operation: Operation) -> bool:
        holder = node_id_of(operation.spki)
        return any(
            (holding := self._holdings.get(name)) is not None and holding.permanent_id != holder
            for name in operation.names
        )

    def _insert(self, record: Record, data: bytes) -> None:
        self._tree.append_many(leaf_hash(record.entry))
        self._records.append(data)
        self._record_tree.append_many(leaf_hash(data))
        self._requests[record.request_id] = (record.request_hash, record.index)
        for name in record.names:
            self._holdings[name] = _Holding(record.permanent_id, record.index)


def encode_delta(records: Sequence[bytes]) -> bytes:
    """Join what one block appended; records carry their index, so replaying them is harmless."""
    return codec.encode(tuple(records)) if records else b""


def decode_delta(data: bytes) -> tuple[bytes, ...]:
    """Split what one block appended, or raise StateCorrupt."""
    if not data:
        return ()
    try:
        records = codec.decode(data, size_max=limits.DELTA_SIZE_BYTES_MAX)
    except codec.CodecError as error:
        raise StateCorrupt(f"delta: {error}") from error
    if not isinstance(records, tuple) or not all(isinstance(item, bytes) for item in records):
        raise StateCorrupt("delta: not a list of records")
    return tuple(item for item in records if isinstance(item, bytes))
