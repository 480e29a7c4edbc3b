"""One validator's cosignatures on checkpoints, and the collection of everybody's.

After a block with entries is executed here, this validator signs the new checkpoint and pushes the
cosignature to the others; `W` of them on one root make the checkpoint count. Nothing is stored: a
cosigner signs only roots of blocks it has on disk, so after a restart it signs the same head again,
and pushes until the checkpoint counts. A push is answered with what the sender may have missed.

Cosignatures are those of the present epoch: when the next one begins, `enter` takes its roster, all
its members sign the newest head again, and a node that left signs no more. The checkpoint that
counted before stays the newest until the new roster has made one count that is not shorter.

Everything here runs on the trio thread. Cosignatures prove themselves, so the sender of a push is
only a name in a log line.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog
import trio

from native import codec
from native.errors import NativeError
from native.keys import SecretKey
from native.values import Algorithm
from trustchain import limits
from trustchain.core.checkpoint import (
    SIGNATURE_SIZE_BYTES,
    Checkpoint,
    Cosignature,
    cosigned_message,
    cosigner_key_id,
)
from trustchain.core.keys import SubjectKey
from trustchain.core.log import Head
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.roster import Roster, Seat
from trustchain.errors import CosignerBusy, KeyFileError, MalformedCheckpoint
from trustchain.metrics import CosignerStatistics, Counts
from trustchain.runtime.application import LogApplication
from trustchain.runtime.signatures import SignatureInvalid, verify_signature

log = structlog.get_logger(__name__)

METHOD = "trustchain.cosign"
MESSAGE_VERSION = 1
MESSAGE_VERSION_EPOCHS = 2  # with the epoch whose places are meant


class Broadcast(Protocol):
    """Calls one RPC method on every other validator that can be reached.

    Returns the answers that came; one that fails or takes too long is left out.
    """

    def __call__(self, method: str, body: bytes, /) -> Awaitable[Iterable[bytes] | None]:
        """Send `body` to all."""
        ...


@dataclass(frozen=True, slots=True)
class _Item:
    """One cosignature on its way between validators."""

    place: int
    size: int
    root: bytes
    timestamp_s: int
    signature: bytes


@dataclass(slots=True)
class _Collected:
    """Cosignatures on one (size, root), by the place of their validator."""

    items: dict[int, _Item] = field(default_factory=dict)
    signed_at: float = math.nan  # when this validator signed


class Cosigner:
    """Signs, pushes, collects and waits; `run` is its only task."""

    def __init__(
        self,
        application: LogApplication,
        key: SecretKey,
        *,
        broadcast: Broadcast,
        roster: Roster | None = None,
    ) -> None:
        genesis = application.log_genesis
        if key.algorithm is not Algorithm.ML_DSA_44:
            raise KeyFileError(f"the cosigner key is a {key.algorithm.name_text} key")
        self._application = application
        self._genesis = genesis
        self._key = key
        self._roster = roster or Roster.of_genesis(genesis)
        self._keys = _keys(self._roster)
        self._place = self._roster.place_of(key.public.raw)
        self._broadcast = broadcast
        self._received = Counts()
        self._cosign_ms = 0.0
        self._height = -1  # newest block that is executed here
        self._signed: Head | None = None
        self._counted: tuple[int, bytes] | None = None
        self._earlier: Checkpoint | None = None  # the newest one that an earlier roster made count
        self._collected: dict[tuple[int, bytes], _Collected] = {}
        self._outbox: deque[_Item] = deque(maxlen=limits.COSIGN_ITEMS_COUNT_MAX)
        self._pushes = 0
        self._waiting = 0
        self._wake = trio.Event()
        self._counts = trio.Event()

    @classmethod
    def load(
        cls,
        path: Path,
        application: LogApplication,
        *,
        broadcast: Broadcast,
        roster: Roster | None = None,
        passphrase: str | None = None,
    ) -> Cosigner:
        """Read the cosigner key from its file; raises KeyFileError."""
        try:
            key = SecretKey.load(path, passphrase)
        except NativeError as error:
            raise KeyFileError(str(error)) from error
        return cls(application, key, broadcast=broadcast, roster=roster)

    @property
    def name(self) -> str:
        """The name of this validator on a checkpoint; empty while its key is in no seat."""
        return "" if self._place is None else self._seat(self._place).name

    @property
    def is_seated(self) -> bool:
        """Whether the key of this node cosigns in the present epoch."""
        return self._place is not None

    # --- called by the node

    def enter(self, roster: Roster) -> None:
        """The next epoch begins: its validators cosign from now on."""
        self._earlier = self.checkpoint()
        self._roster = roster
        self._keys = _keys(roster)
        self._place = roster.place_of(self._key.public.raw)
        self._signed = None
        self._counted = None
        self._collected.clear()
        self._outbox.clear()
        self._wake.set()

    def on_block_committed(self, height: int) -> None:
        """Say that everything up to this block is executed here. Cheap; signs later."""
        if height > self._height:
            self._height = height
            self._wake.set()

    def on_state_differs(self, height: int) -> None:
        """Say that the state after this block is not the agreed one.

        No later head is signed, no signature on one is given to anyone again, and none counts here.
        """
        if height >= self._height:
            return
        self._height = height
        self._outbox.clear()
        self._signed = None
        sound = self._application.heads_since(0, height_max=height)
        sound_size = sound[-1].size if sound else 0
        for (size, _), collected in self._collected.items():
            if size > sound_size and self._place is not None:
                collected.items.pop(self._place, None)
        if self._counted is not None and self._counted[0] > sound_size:
            self._counted = None
        if self._earlier is not None and self._earlier.size > sound_size:
            self._earlier = None
        self._wake.set()

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Sign and push until cancelled."""
        async with trio.open_nursery() as nursery:
            task_status.started()
            while True:
                await self._sign_new_heads()
                self._push_some(nursery)
                with trio.move_on_after(self._patience_s()) as patience:
                    await self._wake.wait()
                self._wake = trio.Event()
                if patience.cancelled_caught:
                    self._offer_again()

    async def on_cosign(self, sender: bytes, body: bytes) -> bytes:
        """Take a push of another validator; answer with own cosignatures on the same heads.

        Raises MalformedCheckpoint for bytes that are no push.
        """
        epoch, items = _decode_items(body)
        for item in items:
            self._take(epoch, item, sender)
            await trio.lowlevel.checkpoint()
        self._clean()
        answer = [own for item in items if (own := self._own(item.size, item.root)) is not None]
        return _encode_items(self._roster.epoch, answer)

    async def wait_cosigned(self, size: int) -> Checkpoint:
        """Wait for a checkpoint that counts and has at least this size.

        Wants a time limit around it: without W validators up this never returns. Raises
        CosignerBusy when too many wait already.
        """
        if self._waiting >= limits.COSIGN_WAITERS_COUNT_MAX:
            raise CosignerBusy(f"{self._waiting} requests wait for a cosigned checkpoint")
        self._waiting += 1
        try:
            while True:
                checkpoint = self.checkpoint()
                if checkpoint is not None and checkpoint.size >= size:
                    return checkpoint
                await self._counts.wait()
        finally:
            self._waiting -= 1

    def checkpoint(self) -> Checkpoint | None:
        """Return the newest checkpoint that counts, with the cosignatures so far."""
        if self._counted is None:
            return self._earlier
        size, root = self._counted
        items = self._collected[self._counted].items
        places = sorted(items)[: max(limits.COSIGNATURES_COUNT_USUAL, self._roster.needed)]
        return Checkpoint(
            origin=self._genesis.origin,
            size=size,
            root=root,
            cosignatures=tuple(self._line(items[place]) for place in places),
        )

    def statistics(self) -> CosignerStatistics:
        """Return the figures `/status` shows."""
        checkpoint = self.checkpoint()
        return CosignerStatistics(
            name=self.name,
            epoch=self._roster.epoch,
            seated=int(self.is_seated),
            needed=self._roster.needed,
            signed_size=0 if self._signed is None else self._signed.size,
            cosigned_size=0 if checkpoint is None else checkpoint.size,
            cosignatures=0 if checkpoint is None else self._cosignatures(checkpoint),
            collecting=len(self._collected),
            waiting=self._waiting,
            pushes=self._pushes,
            cosign_ms=self._cosign_ms,
            cosignatures_total=self._received.reading(),
        )

    def _cosignatures(self, checkpoint: Checkpoint) -> int:
        """How many there are, also beyond what a checkpoint carries."""
        if self._counted is None:
            return len(checkpoint.cosignatures)
        return len(self._collected[self._counted].items)

    # --- signing and pushing

    async def _sign_new_heads(self) -> None:
        epoch, place = self._roster.epoch, self._place
        if place is None:
            return
        signed = 0 if self._signed is None else self._signed.size
        heads = self._application.heads_since(signed, height_max=self._height)
        for head in heads[-limits.COSIGN_HEADS_COUNT_MAX :]:  # a newer head covers the older
            await trio.lowlevel.checkpoint()  # a signature takes half a millisecond
            if self._place != place or self._roster.epoch != epoch:
                return  # another epoch began meanwhile, and `enter` has woken this task
            if head.height > self._height:
                break  # its state turned out to differ meanwhile
            item = _Item(
                place,
                head.size,
                head.root,
                head.time_s,
                self._key.sign(self._message(place, head.size, head.root, head.time_s)),
            )
            self._signed = head
            collected = self._collected.setdefault((head.size, head.root), _Collected())
            collected.signed_at = trio.current_time()
            self._outbox.append(item)
            self._add(item)
        self._clean()

    def _push_some(self, nursery: trio.Nursery) -> None:
        if self._outbox and self._pushes < limits.COSIGN_PUSHES_IN_FLIGHT_MAX:
            body = _encode_items(self._roster.epoch, self._outbox)
            self._outbox.clear()
            self._pushes += 1
            nursery.start_soon(self._push, body, name="trustchain.cosigner.push")

    async def _push(self, body: bytes) -> None:
        try:
            answers = await self._broadcast(METHOD, body)
            for answer in answers or ():
                try:
                    epoch, items = _decode_items(answer)
                except MalformedCheckpoint:
                    self._received.add("malformed")
                    continue
                for item in items:
                    self._take(epoch, item, None)
            self._clean()
        finally:
            self._pushes -= 1
            self._wake.set()

    def _patience_s(self) -> float:
        """How long to sleep: for ever when the own newest head counts, else until a repeat."""
        signed, counted = self._signed, self._counted
        behind = signed is not None and (counted is None or counted[0] < signed.size)
        return limits.COSIGN_REPEAT_S if behind else math.inf

    def _offer_again(self) -> None:
        if self._signed is not None and not self._outbox:
            own = self._own(self._signed.size, self._signed.root)
            if own is not None:
                self._outbox.append(own)

    # --- collecting

    def _own(self, size: int, root: bytes) -> _Item | None:
        collected = self._collected.get((size, root))
        if collected is None or self._place is None:
            return None
        return collected.items.get(self._place)

    def _take(self, epoch: int, item: _Item, sender: bytes | None) -> None:
        """Add another validator's cosignature if it is new, plausible and valid."""
        if epoch != self._roster.epoch:
            self._received.add("other_epoch")
            return
        key = self._keys[item.place] if 0 <= item.place < len(self._keys) else None
        if key is None or item.place == self._place:
            self._received.add("unknown")
            return
        known = self._collected.get((item.size, item.root))
        if known is not None and item.place in known.items:
            return
        ahead = item.size - self._application.size
        behind = 0 if self._counted is None else self._counted[0] - item.size
        if ahead > limits.COSIGN_AHEAD_COUNT_MAX or behind > 0:
            self._received.add("far")
            return
        try:
            verify_signature(
                key,
                self._message(item.place, item.size, item.root, item.timestamp_s),
                item.signature,
            )
        except SignatureInvalid:
            self._received.add("invalid")
            peer = "answer" if sender is None else sender.hex()[:16]
            log.warning("cosignature.invalid", peer=peer, place=item.place, size=item.size)
            return
        self._received.add("taken")
        self._add(item)

    def _add(self, item: _Item) -> None:
        key = (item.size, item.root)
        collected = self._collected.setdefault(key, _Collected())
        collected.items[item.place] = item
        if len(collected.items) < self._roster.needed:
            return
        if self._place not in collected.items:
            return  # not executed here yet; signing it will count it
        if self._counted is not None and item.size <= self._counted[0]:
            return
        if self._earlier is not None and item.size < self._earlier.size:
            return  # signed again for this epoch, but whoever watches saw a longer log
        self._counted = key
        self._counts.set()
        self._counts = trio.Event()
        self._cosign_ms = (trio.current_time() - collected.signed_at) * 1_000

    def _clean(self) -> None:
        """Forget heads below the one that counts, and the farthest when there are too many."""
        floor = 0 if self._counted is None else self._counted[0]
        for key in [key for key in self._collected if key[0] < floor]:
            del self._collected[key]
        while len(self._collected) > limits.COSIGN_PENDING_COUNT_MAX:
            self._collected.pop(max(key for key in self._collected if key != self._counted))

    def _message(self, place: int, size: int, root: bytes, timestamp_s: int) -> bytes:
        return cosigned_message(
            name=self._seat(place).name,
            timestamp_s=timestamp_s,
            origin=self._genesis.origin,
            end=size,
            root=root,
        )

    def _line(self, item: _Item) -> Cosignature:
        seat = self._seat(item.place)
        return Cosignature(
            name=seat.name,
            key_id=cosigner_key_id(seat.name, seat.cosigner_key),
            timestamp_s=item.timestamp_s,
            signature=item.signature,
        )

    def _seat(self, place: int) -> Seat:
        seat = self._roster.seats[place]
        assert seat is not None  # only keys of seats get into `items`
        return seat


def _keys(roster: Roster) -> list[SubjectKey | None]:
    """Decoded cosigner keys by place."""
    return [
        None if seat is None else SubjectKey.of(KeyAlgorithm.ML_DSA_44, seat.cosigner_key)
        for seat in roster.seats
    ]


def _encode_items(epoch: int, items: Iterable[_Item]) -> bytes:
    fields = [
        (item.place, item.size, item.root, item.timestamp_s, item.signature) for item in items
    ]
    if epoch == 0:
        return codec.encode((MESSAGE_VERSION, fields))
    return codec.encode((MESSAGE_VERSION_EPOCHS, epoch, fields))


def _decode_items(body: bytes) -> tuple[int, list[_Item]]:
    """The epoch whose places the items mean, and the items; version 1 is of the founders."""
    try:
        message = codec.decode(body, size_max=limits.COSIGN_MESSAGE_SIZE_BYTES_MAX)
    except codec.CodecError as error:
        raise MalformedCheckpoint(f"cosignatures: {error}") from error
    match message:
        case (1, tuple(listed)) if len(listed) <= limits.COSIGN_ITEMS_COUNT_MAX:
            return 0, [_item(fields) for fields in listed]
        case (2, int(epoch), tuple(listed)) if (
            epoch > 0 and len(listed) <= limits.COSIGN_ITEMS_COUNT_MAX
        ):
            return epoch, [_item(fields) for fields in listed]
    raise MalformedCheckpoint("cosignatures: not a message of version 1 or 2")


def _item(fields: object) -> _Item:
    match fields:
        case (int(place), int(size), bytes(root), int(timestamp_s), bytes(signature)) if (
            0 < size <= limits.LOG_INDEX_MAX + 1
            and len(root) == 32
            and timestamp_s <= limits.TIME_S_MAX
            and len(signature) == SIGNATURE_SIZE_BYTES
        ):
            return _Item(place, size, root, timestamp_s, signature)
    raise MalformedCheckpoint("cosignatures: an item is not of its form")
