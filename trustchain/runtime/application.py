"""The issuance log as an application of the agreed order.

Payloads come in, entries go out: `execute` checks the requester's proof of possession and the
authorisation again on every validator, lets `core.log` decide, and appends. Signature checks of a
payload are remembered between admission and execution, because they depend on its bytes alone.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from consensus.application import Advice, Executed, Outline, Row
from consensus.errors import SnapshotInvalid
from native.hashing import sha256
from native.values import Digest
from trustchain import limits
from trustchain.core import snapshot
from trustchain.core.epoch_end import EpochEnd, epoch_end
from trustchain.core.genesis import LogGenesis
from trustchain.core.keys import SubjectKey, check_signature_form
from trustchain.core.log import Head, IssuanceLog, Record, decode_delta, encode_delta
from trustchain.core.outcomes import Outcome
from trustchain.core.requests import PAYLOAD_TAG, Kind, Operation, Refused, judge_form
from trustchain.core.snapshot import Opening
from trustchain.errors import MalformedDER, MalformedOperation, StateCorrupt
from trustchain.metrics import Counts, LogStatistics
from trustchain.runtime.signatures import SignatureInvalid, verify_signature

if TYPE_CHECKING:
    from consensus.application import Block
    from consensus.core.types import Height
    from native.batches import Batch

RECORDS_TABLE: Final = "log"


@dataclass(frozen=True, slots=True)
class _Judged:
    """What the bytes of a payload alone decide; `operation` and `key` are set when it may pass."""

    outcome: Outcome
    operation: Operation | None = None
    key: SubjectKey | None = None

    def receipt_id(self, payload: bytes) -> bytes:
        """The request hash, or the hash of a payload that has none."""
        if self.operation is None or self.key is None:
            return sha256(payload)
        return self.operation.request_hash


class LogApplication:
    """TrustChain behind `consensus.application.Application`.

    Queries read immutable records and may come from any thread; they see a block as soon as it is
    executed, which is before the replica stands by it. Whoever lets something leave the process
    waits for `Cosigner.wait_cosigned` first.
    """

    name: Final = "trustchain"
    tag: Final = PAYLOAD_TAG
    sender_at: Final = None

    def __init__(self, chain_id: bytes, genesis: LogGenesis) -> None:
        self._chain_id = chain_id
        self._genesis = genesis
        self._operations = Counts()
        self._log = IssuanceLog(genesis)
        self._heads: tuple[Head, ...] = ()  # replaced, never changed: read on other threads
        self._time_s = 0
        self._cut = (0, 0)  # next record of the cut, and how many it has
        self._judged: OrderedDict[bytes, _Judged] = OrderedDict()
        self._judged_lock = threading.Lock()

    repeated_codes: Final = frozenset((int(Outcome.ALREADY_ISSUED),))
    malformed_codes: Final = frozenset((int(Outcome.MALFORMED), int(Outcome.WRONG_CHAIN)))

    # --- consensus.application.Application

    def genesis(self) -> Digest:
        """Enter the state after genesis: an empty log."""
        self._reset()
        return self._log.application_root

    def check(self, batch: Batch, positions: Sequence[int]) -> Advice:
        """Say what would become of each payload now; advice only."""
        codes = bytearray()
        ids: list[bytes] = []
        for position in positions:
            payload = batch.payload(position)
            judged = self._judge(payload)
            codes.append(
                judged.outcome
                if judged.operation is None
                else self._log.judge(judged.operation, self._time_s)
            )
            ids.append(judged.receipt_id(payload))
        return Advice(codes=bytes(codes), ids=b"".join(ids))

    def prepare(self, batch: Batch) -> None:
        """Do nothing: certificates are few, and `check` has left its results behind."""

    def well_formed(self, batch: Batch, positions: Sequence[int]) -> bytes:
        """Which payloads decode and name this chain."""
        return bytes([self._is_well_formed(batch.payload(position)) for position in positions])

    def execute(self, block: Block, positions: Sequence[int]) -> Executed:
        """Append the entries of one block."""
        time_s = block.header.time_ms // 1000
        height = int(block.header.height)
        ids: list[bytes] = []
        codes = bytearray()
        appended: list[bytes] = []
        for position in positions:
            payload = block.batch.payload(position)
            judged = self._judge(payload)
            outcome = judged.outcome
            if judged.operation is not None and judged.key is not None:
                outcome = self._log.judge(judged.operation, time_s)
                if outcome is Outcome.ISSUED:
                    record = self._log.append(
                        judged.operation, judged.key, height=height, time_s=time_s
                    )
                    appended.append(self._log.stored(record.index))
            ids.append(judged.receipt_id(payload))
            codes.append(outcome)
        self._time_s = time_s
        if appended:
            head = Head(height=height, size=self._log.size, root=self._log.root(), time_s=time_s)
            self._heads = (*self._heads[1 - limits.HEADS_KEPT_COUNT :], head)
        self._operations.add_outcomes(bytes(codes))
        return Executed(
            root=self._log.application_root,
            delta=encode_delta(appended),
            positions=tuple(positions),
            ids=b"".join(ids),
            codes=bytes(codes),
        )

    def row_count(self) -> int:
        """One row an entry."""
        return self._log.size

    def rows(self, first: int, count: int) -> Sequence[Row]:
        """Return the records from index `first` on; they never change once written."""
        last = min(first + count, self._log.size)
        return [
            Row(table=RECORDS_TABLE, key=index, value=self._log.stored(index))
            for index in range(first, last)
        ]

    def load(self, rows: Iterable[Row], deltas: Iterable[tuple[Height, bytes]]) -> Digest:
        """Rebuild the log from rows and deltas; raises StateCorrupt when an entry is missing."""
        records: dict[int, bytes] = {}
        for row in rows:
            if row.table != RECORDS_TABLE:
                raise StateCorrupt(f"row of table {row.table!r}")
            records[row.key] = row.value
        for _, delta in deltas:
            for data in decode_delta(delta):
                records[Record.decode(data).index] = data
        self._reset()
        for index in range(len(records)):
            if index not in records:
                raise StateCorrupt(f"entry {index} of {len(records)} is missing")
            self._log.restore(records[index])
        self._enter(self._log)
        return self._log.application_root

    # --- snapshots

    def cut(self) -> bytes:
        """Remember how long the log is now: what it holds never changes."""
        self._cut = (0, self._log.size)
        return self.opening().encode()

    def next_chunk(self) -> bytes | None:
        """Read the next run of records."""
        first, size = self._cut
        if first >= size:
            return None
        last = min(first + limits.SNAPSHOT_RECORDS_PER_CHUNK, size)
        self._cut = (last, size)
        return snapshot.encode_chunk(first, [self._log.stored(i) for i in range(first, last)])

    def end_cut(self) -> None:
        """Forget the cut."""
        self._cut = (0, 0)

    def measure(self, chunk: bytes) -> bytes:
        """Say what a run of records commits to."""
        return snapshot.measure(chunk)

    def check_outline(self, root: Digest, outline: Outline) -> None:
        """Combine the parts to the record tree that the application root opens to."""
        snapshot.check(root, outline.opening, outline.parts)

    def restore(self, outline: Outline, chunks: Iterable[bytes]) -> Digest:
        """Enter the state of a snapshot; the tree over the entries is built again."""
        opened = Opening.decode(outline.opening)
        log = IssuanceLog(self._genesis)
        try:
            for chunk in chunks:
                for record in snapshot.decode_chunk(chunk)[1]:
                    log.restore(record)
        except StateCorrupt as error:
            raise SnapshotInvalid(str(error)) from None
        if log.application_root != opened.root:
            raise SnapshotInvalid("the chunks make up another log than the outline says")
        self._heads, self._time_s, self._cut = (), 0, (0, 0)
        self._enter(log)
        return log.application_root

    # --- queries

    @property
    def log_genesis(self) -> LogGenesis:
        """What this log started from."""
        return self._genesis

    @property
    def chain_id(self) -> bytes:
        """The network whose requests are taken."""
        return self._chain_id

    @property
    def application_root(self) -> Digest:
        """What validators agree on after the newest block."""
        return self._log.application_root

    @property
    def size(self) -> int:
        """How many entries the log has."""
        return self._log.size

    def root(self, size: int | None = None) -> bytes:
        """Return the root of the tree at this size, or now; raises HeadUnknown."""
        return self._log.root(size)

    def head(self) -> Head | None:
        """Return the head after the newest block with entries, if there is one."""
        heads = self._heads
        return heads[-1] if heads else None

    def heads_since(self, size: int, *, height_max: int) -> list[Head]:
        """Return heads larger than `size` of blocks up to a height, oldest first.

        Only the newest `HEADS_KEPT_COUNT` heads are remembered.
        """
        return [head for head in self._heads if head.size > size and head.height <= height_max]

    def entry(self, index: int) -> Record:
        """Return one entry; raises EntryUnknown."""
        return self._log.record(index)

    def entry_of_request(self, request_id: bytes) -> Record:
        """Return the entry a request id got; raises EntryUnknown."""
        return self._log.record(self._log.index_of_request(request_id))

    def entry_of_name(self, name: str) -> Record:
        """Return the newest entry that carries a name; raises EntryUnknown."""
        return self._log.record(self._log.index_of_name(name))

    def inclusion_proof(self, index: int, size: int) -> tuple[bytes, ...]:
        """Prove that an entry is in the tree of this size; raises HeadUnknown."""
        return self._log.inclusion_proof(index, size)

    def consistency_proof(self, old_size: int, new_size: int) -> tuple[bytes, ...]:
        """Prove that one tree continues another; raises HeadUnknown."""
        return self._log.consistency_proof(old_size, new_size)

    def opening(self) -> Opening:
        """What the present application root is the hash of."""
        log, size = self._log, self._log.size
        return Opening(size=size, log_root=log.root(size), record_root=log.record_root(size))

    def epoch_end(self, height: int, *, of: int) -> EpochEnd:
        """Prove the size after the block at `height`, to whoever knows a log of `of` entries."""
        return epoch_end(self._log, height, of=of)

    def statistics(self) -> LogStatistics:
        """Return the figures `/status` shows."""
        head = self.head()
        return LogStatistics(
            size=self.size,
            root=self.root(),
            height=0 if head is None else head.height,
            operations_total=self._operations.reading(),
        )

    # --- inside

    def _reset(self) -> None:
        self._log = IssuanceLog(self._genesis)
        self._heads = ()
        self._time_s = 0
        self._cut = (0, 0)

    def _enter(self, log: IssuanceLog) -> None:
        """Go on with a log that was rebuilt."""
        self._log = log
        head = log.head()
        if head is not None:
            self._heads = (head,)
            self._time_s = head.time_s

    def _is_well_formed(self, payload: bytes) -> bool:
        try:
            return Operation.decode(payload).chain_id == self._chain_id
        except MalformedOperation:
            return False

    def _judge(self, payload: bytes) -> _Judged:
        found = sha256(payload)
        with self._judged_lock:
            judged = self._judged.get(found)
        if judged is None:
            judged = self._judge_anew(payload)
            with self._judged_lock:
                self._judged[found] = judged
                while len(self._judged) > limits.JUDGED_KEPT_COUNT:
                    self._judged.popitem(last=False)
        return judged

    def _judge_anew(self, payload: bytes) -> _Judged:
        """Apply every rule that needs the payload alone; deterministic."""
        try:
            operation = Operation.decode(payload)
            key = judge_form(operation, self._chain_id)
            self._check_signatures(operation, key)
        except MalformedOperation:
            return _Judged(Outcome.MALFORMED)
        except Refused as refusal:
            return _Judged(refusal.outcome)
        return _Judged(Outcome.ISSUED, operation, key)

    def _check_signatures(self, operation: Operation, key: SubjectKey) -> None:
        authority = self._authority(operation, key)
        try:
            check_signature_form(authority.algorithm, operation.authorisation)
            verify_signature(authority, operation.authorised_message, operation.authorisation)
        except (MalformedDER, SignatureInvalid):
            raise Refused(Outcome.AUTHORISATION_INVALID) from None
        try:
            verify_signature(key, operation.request_info, operation.request_signature)
        except SignatureInvalid:
            raise Refused(Outcome.POSSESSION_UNPROVEN) from None

    def _authority(self, operation: Operation, key: SubjectKey) -> SubjectKey:
        """Find the key that must have authorised; a renewal's is the key it certifies."""
        if operation.kind is Kind.RENEW:
            if operation.authority != key.spki_hash:
                raise Refused(Outcome.RENEWAL_KEY_CHANGED)
            return key
        enrolment = self._genesis.enrolment_key(operation.authority)
        if enrolment is None:
            raise Refused(Outcome.ENROLMENT_KEY_UNKNOWN)
        return enrolment.key
