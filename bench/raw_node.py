"""A validator for the raw row of the benchmark, UNSAFE on purpose: nothing is written to a disk.

The agreement, the transport and the mempool are the real ones. The store is memory, the application
hashes the batches and knows no payload, and nothing checks who sent one. It exists only here: no
configuration of `hypermesh node run` leads to it. One argument: the JSON file that `bench.raw`
writes. Prints "ready" once every validator is connected.
"""

from __future__ import annotations

import gc
import hashlib
import json
import secrets
import sys
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import trio

from consensus.core import wire
from consensus.core.effects import Fault
from consensus.core.frames import FrameType
from consensus.core.messages import BatchHeader, BlockHeader, FetchBodies
from consensus.core.records import Birth, Record
from consensus.core.replica import Replica, genesis_block
from consensus.core.types import Committee, Instant, ReplicaIndex, Timing
from consensus.runtime.driver import Driver, Request
from consensus.runtime.links import Links
from consensus.runtime.store import Body, CommitFailed, Committed
from native import Completions, FalconVerifier, Mempool
from native.batches import ADDED, DUPLICATE, Batch
from native.codec import decode, encode
from native.keys import SecretKey
from native.values import Digest
from node.runtime.alarm import Alarm
from node.runtime.api import Outcome
from node.runtime.assemble import GC_THRESHOLDS, SWITCH_INTERVAL_S
from node.runtime.load import quiet
from transport import AcceptAll, ChannelKind, Connection, Endpoint, HelloOffer, Identity
from transport.errors import RPCError

CHAIN_ID: Final = Digest(hashlib.sha256(b"raw benchmark").digest())
CHAIN_NAME: Final = "raw"
PENDING_MAX: Final = 1_000_000
PENDING_BYTES_MAX: Final = 1 << 30
HASH_BYTES: Final = 32
RECENT_MAX: Final = 256  # executed bodies that a slower validator may still ask for


@dataclass(eq=False, slots=True)
class Waiter:
    """One call that waits until all its payloads are executed."""

    left: int
    done: trio.Event = field(default_factory=trio.Event)


class Forgetful:
    """A record store that keeps nothing, and an application that hashes batches."""

    def __init__(self, completions: Completions) -> None:
        self._completions = completions
        self._root = Digest(bytes(HASH_BYTES))

    def load(self, _bounds: wire.Bounds) -> list[Record]:
        """Nothing was kept."""
        return []

    def commit_soon(
        self, serial: int, _records: Sequence[Record], _bodies: Sequence[Body], _drop: int | None
    ) -> None:
        """Claim that it is durable."""
        self._completions.post(0, Committed(serial=serial, commit_s=0.0, group=1))

    def execute_soon(self, header: BlockHeader, _agreed: BatchHeader, batch: Batch) -> None:
        """Hash the batch onto the root."""
        self._root = Digest(hashlib.sha256(self._root + batch.root).digest())
        self._completions.post(0, (header, batch, self._root))

    def prepare(self, _batch: Batch) -> None:
        """Nothing to check."""

    def well_formed(self, batch: Batch) -> bytes:
        """Everything is."""
        return b"\1" * len(batch)


class Silent:
    """An observer that counts nothing."""

    def signed(self, _seconds: float) -> None: ...
    def verified(self, _seconds: float) -> None: ...
    def committed(self, _seconds: float) -> None: ...
    def phase(self, _name: str, _seconds: float) -> None: ...
    def agreed(self, _payloads: int, _size_bytes: int, _seconds: float | None) -> None: ...
    def view_changed(self) -> None: ...
    def misbehaved(self, fault: Fault) -> None:
        raise RuntimeError(f"a validator of the benchmark misbehaved: {fault}")


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1_000


def _now() -> Instant:
    return Instant(monotonic_us=_monotonic_us(), unix_ms=time.time_ns() // 1_000_000)


class RawNode:
    """One validator."""

    def __init__(self, keys: Sequence[SecretKey], ports: Sequence[int], me: int) -> None:
        members = [key.node_id for key in keys]
        self.me = me
        self.recent: dict[Digest, Batch] = {}
        self.whole = trio.Event()
        self.waiting: dict[bytes, list[Waiter]] = {}
        self.done: set[bytes] = set()  # what was executed in the recent blocks
        self.completions = Completions()
        self.mempool = Mempool(PENDING_MAX, PENDING_BYTES_MAX)
        self.endpoint = Endpoint(
            Identity(keys[me]),
            listen=f"[::1]:{ports[me]}",
            hello=HelloOffer(chain_id=CHAIN_ID, chain_name=CHAIN_NAME, roles=("validator",)),
            verifier=AcceptAll(),
        )
        self.links = Links(
            self.endpoint,
            members,
            {member: f"[::1]:{port}" for member, port in zip(members, ports, strict=True)},
            me=me,
            on_up=self.peer_up,
            on_down=lambda peer: self.driver.peer_down(peer),
        )
        self.alarm = Alarm(lambda: self.driver.timers_due(), _monotonic_us)
        forgetful = Forgetful(self.completions)
        birth = Birth(chain_id=CHAIN_ID, node_id=Digest(members[me]), incarnation=1)
        self.driver = Driver(
            Replica(
                Committee(chain_id=CHAIN_ID, members=len(members), me=ReplicaIndex(me)),
                Timing(),
                boot=secrets.randbelow(2**63) + 1,
                tip=genesis_block(CHAIN_ID, 1_000, Digest(bytes(HASH_BYTES))),
                records=[birth],
            ),
            bounds=wire.Bounds(chain_id=CHAIN_ID, members=len(members)),
            secret=keys[me],
            verifiers=[FalconVerifier(key.public.raw) for key in keys],
            links=self.links,
            store=forgetful,
            execution=forgetful,
            admission=forgetful,
            mempool=self.mempool,
            observer=Silent(),
            clock=_now,
            seconds=time.perf_counter,
            wake_at=self.alarm.set,
            serve=self.serve,
            certified=lambda _certificate: None,
        )
        self.endpoint.on_frame(
            lambda connection, _kind, frame_type, payload: self.driver.frame_received(
                connection, frame_type, payload
            )
        )
        self.endpoint.on_turn(self.driver.turn)
        self.endpoint.watch(self.completions.fileno(), self.drain)
        self.endpoint.serve("caesar.submit", self.submit)
        self.endpoint.serve("node.outcomes", self.outcomes)

    async def run(self) -> None:
        """Run until cancelled."""
        async with trio.open_nursery() as nursery:
            await nursery.start(self.endpoint.run)
            self.driver.start([])
            nursery.start_soon(self.links.run)
            nursery.start_soon(self.alarm.run)
            await self.whole.wait()
            gc.collect()
            gc.freeze()
            gc.set_threshold(*GC_THRESHOLDS)
            print("ready", flush=True)

    def peer_up(self, peer: int) -> None:
        """Count who is there."""
        self.driver.peer_up(peer)
        if len(self.links.connected) == self.driver.replica.members - 1:
            self.whole.set()

    def serve(self, peer: int, request: Request) -> None:
        """Give bodies that are still held; nobody catches up in a benchmark."""
        if isinstance(request, FetchBodies):
            for root in request.payload_roots:
                body = self.driver.body(root) or self.recent.get(root)
                if body is not None:
                    self.links.send_nowait(peer, ChannelKind.BULK, FrameType.BODY, body)

    def drain(self) -> None:
        """Hand on what is durable and what is executed."""
        executed: deque[tuple[BlockHeader, Batch, Digest]] = deque()
        for _, value in self.completions.drain():
            if isinstance(value, Committed | CommitFailed):
                self.driver.committed(value)
            else:
                executed.append(value)
        for header, batch, root in executed:
            self.driver.executed(header, batch, root, b"\1" * len(batch))
            self.recent[batch.root] = batch
            hashes = batch.hashes
            keys = [hashes[at : at + HASH_BYTES] for at in range(0, len(hashes), HASH_BYTES)]
            self.done.update(keys)
            if len(self.recent) > RECENT_MAX:
                oldest = self.recent.pop(next(iter(self.recent))).hashes
                self.done.difference_update(
                    oldest[at : at + HASH_BYTES] for at in range(0, len(oldest), HASH_BYTES)
                )
            for key in keys:
                for waiter in self.waiting.pop(key, ()):
                    waiter.left -= 1
                    if not waiter.left:
                        waiter.done.set()

    async def submit(self, _connection: Connection, request: bytes) -> bytes:
        """Admit everything, send it to all, answer once it is executed."""
        batch = Batch.parse(request)
        statuses = self.mempool.add(batch, None, self.me, _monotonic_us() // 1_000)
        waiter = Waiter(left=0)
        hashes = batch.hashes
        for at, status in enumerate(statuses):
            if status in (ADDED, DUPLICATE):
                waiter.left += 1
                key = hashes[at * HASH_BYTES : (at + 1) * HASH_BYTES]
                self.waiting.setdefault(key, []).append(waiter)
        added = bytes(status == ADDED for status in statuses)
        if 1 in added:
            chosen = batch if 0 not in added else batch.select(added)
            self.links.broadcast_nowait(ChannelKind.BULK, FrameType.PAYLOADS, chosen)
            self.driver.custody_changed()
        if waiter.left:
            await waiter.done.wait()
        return self._answer(hashes)

    async def outcomes(self, _connection: Connection, request: bytes) -> bytes:
        """Answer once everything that another node executed is executed here too."""
        match decode(request, size_max=len(request)):
            case (int(), bytes(hashes)):
                waiter = Waiter(left=0)
                for at in range(0, len(hashes), HASH_BYTES):
                    key = hashes[at : at + HASH_BYTES]
                    if key not in self.done:
                        waiter.left += 1
                        self.waiting.setdefault(key, []).append(waiter)
                if waiter.left:
                    await waiter.done.wait()
                return self._answer(hashes)
        raise RPCError("malformed", "wanted: [height, the hashes of 32 bytes each]")

    @staticmethod
    def _answer(hashes: bytes) -> bytes:
        count = len(hashes) // HASH_BYTES
        return encode((0, bytes(count), bytes([Outcome.APPLIED]) * count, hashes))


def main() -> None:
    plan = json.loads(Path(sys.argv[1]).read_text())
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    quiet()
    keys = [SecretKey.load(Path(path)) for path in plan["keys"]]
    trio.run(RawNode(keys, plan["ports"], int(sys.argv[2])).run)


if __name__ == "__main__":
    main()
