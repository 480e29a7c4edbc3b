"""The validator registry as an application of the agreed order.

Decides who votes (`core.validators`) and hands the next set to consensus with the block that orders
it. The state is small and immutable: a block replaces it, so queries on any thread see one block.
Its delta is a header's hash, and the whole rest only when something was decided.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from caesar.core import validators
from caesar.core.changes import (
    TAG,
    SignedChange,
    ValidatorPayload,
    decode_validator_payload,
)
from caesar.core.validators import Registry, Verdict, Vouch
from caesar.errors import StateDamaged, ValidatorPayloadMalformed
from caesar.limits import JOIN_AGE_BLOCKS_MAX, REGISTRY_SIZE_BYTES_MAX
from consensus.application import Advice, Executed, Outline, Row
from consensus.errors import SnapshotInvalid
from native import FalconVerifier
from native.codec import Value, decode, encode
from native.errors import NativeError
from native.hashing import HASH_SIZE_BYTES, sha256
from native.values import Digest

if TYPE_CHECKING:
    from consensus.application import Block
    from consensus.core.evidence import Offence
    from consensus.core.types import Height
    from consensus.core.validators import Validator
    from native.batches import Batch
    from native.values import NodeId, PublicKey, Signature

TABLE: Final = "validators"


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorStatistics:
    """A reading for status, metrics and the debug bundle."""

    epoch: int
    members: int
    pending: int  # 1 while an ordered change has not taken effect
    tombstones: int
    changes_total: int  # ordered since the process started
    refused_total: int


@dataclass(slots=True)
class _Counts:
    changes_total: int = 0
    refused_total: int = 0


@dataclass(frozen=True, slots=True)
class _State:
    """A registry with its body's bytes and hash, which stay until something is decided."""

    registry: Registry
    body: bytes
    body_hash: Digest
    root: Digest


def _state_of(registry: Registry) -> _State:
    body = encode(registry.body())
    digest = Digest(sha256(body))
    return _State(registry, body, digest, validators.root(digest, registry.headers))


class ValidatorsApplication:
    """The registry behind `consensus.application.Application`."""

    name: Final = "validators"
    tag: Final = TAG
    sender_at: Final = None
    repeated_codes: Final = validators.REPEATED
    malformed_codes: Final = frozenset((int(Verdict.MALFORMED), int(Verdict.WRONG_CHAIN)))

    def __init__(
        self,
        chain_id: Digest,
        genesis: Sequence[Validator],
        *,
        vouch: Vouch = validators.nobody_vouches,
    ) -> None:
        self._chain_id = chain_id
        self._vouch = vouch
        self._genesis = validators.genesis(genesis)
        self._state = _state_of(self._genesis)
        self._counts = _Counts()

    # --- consensus.application.Application

    def genesis(self) -> Digest:
        """Enter the state after genesis: its validators, epoch 0."""
        self._state = _state_of(self._genesis)
        return self._state.root

    def check(self, batch: Batch, positions: Sequence[int]) -> Advice:
        """Judge each payload as if it were alone in the next block; advice only."""
        registry = self._state.registry
        height = registry.height + 1
        codes, ids = bytearray(), []
        for position in positions:
            payload, identifier = _read(batch.payload(position))
            verdict = Verdict.MALFORMED
            if payload is not None:
                _, verdict = self._apply(registry, payload, height)
            codes.append(verdict)
            ids.append(identifier)
        return Advice(codes=bytes(codes), ids=b"".join(ids))

    def prepare(self, batch: Batch) -> None:
        """Do nothing: such payloads are few."""

    def well_formed(self, batch: Batch, positions: Sequence[int]) -> bytes:
        """Which payloads decode and name this chain."""
        found = bytearray()
        for position in positions:
            payload, _ = _read(batch.payload(position))
            found.append(payload is not None and payload.chain_id == self._chain_id)
        return bytes(found)

    def execute(self, block: Block, positions: Sequence[int]) -> Executed:
        """Decide the payloads of one block, in order."""
        before = self._state.registry
        height = int(block.header.height)
        registry = entered = validators.begin(before, int(block.header.epoch))
        codes, ids = bytearray(), []
        for position in positions:
            payload, identifier = _read(block.batch.payload(position))
            verdict = Verdict.MALFORMED
            if payload is not None:
                registry, verdict = self._apply(registry, payload, height)
                if verdict is Verdict.APPLIED and isinstance(payload, SignedChange):
                    self._counts.changes_total += 1
            codes.append(verdict)
            ids.append(identifier)
        self._counts.refused_total += len(codes) - codes.count(Verdict.APPLIED)
        registry = validators.end(registry, height, block.header.hash)
        changed = registry.decided(before)
        if changed:
            self._state = _state_of(registry)
        else:
            known = self._state
            root = validators.root(known.body_hash, registry.headers)
            self._state = _State(registry, known.body, known.body_hash, root)
        ordered = registry.pending is not None and entered.pending is None
        return Executed(
            root=self._state.root,
            delta=encode((height, block.header.hash, self._state.body if changed else None)),
            positions=tuple(positions),
            ids=b"".join(ids),
            codes=bytes(codes),
            next_validators=registry.pending.next if ordered and registry.pending else None,
        )

    def row_count(self) -> int:
        """The whole state is one row."""
        return 1

    def rows(self, first: int, count: int) -> Sequence[Row]:
        """Return the state as of the last block."""
        if first > 0 or count < 1:
            return []
        state = self._state
        return [Row(table=TABLE, key=0, value=encode((state.body, state.registry.headers)))]

    def load(self, rows: Iterable[Row], deltas: Iterable[tuple[Height, bytes]]) -> Digest:
        """Rebuild the state; raises `StateDamaged`."""
        body = encode(self._genesis.body())
        headers: dict[int, Digest] = {}
        for row in rows:
            if row.table != TABLE or row.key != 0:
                raise StateDamaged(f"the validator registry has no row {row.table!r} {row.key}")
            match _decoded(row.value):
                case (bytes(stored), tuple(known)):
                    body = stored
                    headers.update(_headers(known))
                case _:
                    raise StateDamaged("the row of the validator registry has an unknown form")
        for height, delta in deltas:
            match _decoded(delta):
                case (int(at), bytes(header_hash), changed) if (
                    at == height
                    and len(header_hash) == HASH_SIZE_BYTES
                    and (changed is None or isinstance(changed, bytes))
                ):
                    headers[at] = Digest(header_hash)
                    body = body if changed is None else changed
                case _:
                    raise StateDamaged(f"the delta of block {height} has an unknown form")
        newest = max(headers, default=0)
        recent = tuple(
            [
                (at, headers[at])
                for at in range(max(1, newest - JOIN_AGE_BLOCKS_MAX + 1), newest + 1)
                if at in headers
            ]
        )
        if len(recent) != min(newest, JOIN_AGE_BLOCKS_MAX):
            raise StateDamaged("the validator registry misses the header of a recent block")
        registry = validators.read_registry(_decoded(body), recent)
        self._state = _state_of(registry)
        return self._state.root

    # --- snapshots: the state is small, so that what opens its root is all of it

    def cut(self) -> bytes:
        """Return the whole state; it is immutable."""
        return self.rows(0, 1)[0].value

    def next_chunk(self) -> bytes | None:
        """There are no chunks."""
        return None

    def end_cut(self) -> None:
        """Nothing is kept for a cut."""

    def measure(self, chunk: bytes) -> bytes:
        """Refuse: no chunk belongs to this application."""
        raise SnapshotInvalid(f"the validator registry has no chunks, and none of {len(chunk)} B")

    def check_outline(self, root: Digest, outline: Outline) -> None:
        """Read the state and compare its root."""
        if self._opened(outline)._state.root != root:
            raise SnapshotInvalid("the opening belongs to another application root")

    def restore(self, outline: Outline, chunks: Iterable[bytes]) -> Digest:
        """Enter the state that the opening is."""
        if list(chunks):
            raise SnapshotInvalid("the validator registry has no chunks")
        self._state = self._opened(outline)._state
        return self._state.root

    def _opened(self, outline: Outline) -> ValidatorsApplication:
        found = ValidatorsApplication(self._chain_id, self._genesis.present.members)
        try:
            found.load([Row(table=TABLE, key=0, value=outline.opening)], [])
        except StateDamaged as error:
            raise SnapshotInvalid(str(error)) from None
        if outline.parts:
            raise SnapshotInvalid("the validator registry has no chunks")
        return found

    # --- questions, any thread

    @property
    def registry(self) -> Registry:
        """The state after the last executed block."""
        return self._state.registry

    def knows(self, offender: NodeId, offence: Offence) -> bool:
        """Whether this offence was proven already."""
        return self._state.registry.knows(offender, offence)

    def statistics(self) -> ValidatorStatistics:
        """A reading for status, metrics and the debug bundle."""
        registry = self._state.registry
        return ValidatorStatistics(
            epoch=int(registry.present.epoch),
            members=len(registry.present.members),
            pending=int(registry.pending is not None),
            tombstones=len(registry.tombstones),
            changes_total=self._counts.changes_total,
            refused_total=self._counts.refused_total,
        )

    # --- inside

    def _apply(
        self, registry: Registry, payload: ValidatorPayload, height: int
    ) -> tuple[Registry, Verdict]:
        return validators.apply(
            registry,
            payload,
            chain_id=self._chain_id,
            height=height,
            verify=verify,
            vouch=self._vouch,
        )


def verify(key: PublicKey, message: bytes, signature: Signature) -> bool:
    """Whether this Falcon key made the signature; no other kind of key votes."""
    if not key.algorithm.is_falcon:
        return False
    try:
        FalconVerifier(key.raw).verify(message, signature)
    except NativeError:
        return False
    return True


def _read(payload: bytes) -> tuple[ValidatorPayload | None, bytes]:
    """A payload with the id of its receipt; None and the hash of what cannot be read."""
    try:
        decoded = decode_validator_payload(payload)
    except ValidatorPayloadMalformed:
        return None, sha256(payload)
    return decoded, decoded.id


def _decoded(data: bytes) -> Value:
    try:
        return decode(data, size_max=REGISTRY_SIZE_BYTES_MAX)
    except NativeError as error:
        raise StateDamaged(str(error)) from None


def _headers(value: Sequence[Value]) -> Iterable[tuple[int, Digest]]:
    for entry in value:
        match entry:
            case (int(height), bytes(header_hash)) if len(header_hash) == HASH_SIZE_BYTES:
                yield height, Digest(header_hash)
            case _:
                raise StateDamaged("the validator registry keeps headers in an unknown form")
