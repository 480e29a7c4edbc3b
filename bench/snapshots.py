"""State snapshots and catch-up: cut, check and restore a large state; gain on a running network."""

from __future__ import annotations

import secrets
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.load import Load, Purse
from bench.network import Network, until
from bench.report import Result, Suite, percentile, progress, rounded
from caesar.core.accounts import SYSTEM_NAMES, TREASURY
from caesar.core.addresses import Address, address_of
from caesar.core.genesis import LedgerGenesis
from caesar.core.transactions import TAG as LEDGER_TAG
from caesar.limits import SUPPLY
from caesar.runtime.application import LedgerApplication
from consensus.core.types import Height
from native.codec import encode
from native.values import Algorithm, Digest, PublicKey
from node.core.outlines import Outlines
from node.core.snapshotfiles import chunk_name
from node.runtime.executor import all_rows, open_state
from node.runtime.router import Router
from node.runtime.snapshots import missing_chunks
from node.runtime.store import StateStore, StoredBlock

ACCOUNTS: Final = 1_000_000
KEYED: Final = 100_000  # who has sent something; a key is 897 bytes
CHAIN: Final = Digest(bytes(32))
LIVE_RATE: Final = 1_000  # transfers per second while a node catches up
AWAY_S: Final = 8
GROUP: Final = "snapshots"


def run(wanted: frozenset[str]) -> Iterator[Result]:
    """Yield the figures of one large state, then those of a network."""
    if any(name.startswith("snapshot_") for name in wanted):
        yield from _state()
    if "catch_up_ratio" in wanted:
        yield _catch_up()


def _router() -> Router:
    return Router([LedgerApplication(CHAIN, LedgerGenesis())])


def _key(number: int) -> bytes:
    """A well-formed Falcon-512 key that nobody can sign with: the number is in two coefficients."""
    low, high = number & 0x1FFF, number >> 13
    return b"\x09" + (low << 42 | high << 28).to_bytes(7, "big") + bytes(889)


def _delta() -> bytes:
    """A block that opens all accounts from the treasury; the form is that of `accounts.rs`."""
    first = len(SYSTEM_NAMES)
    numbers = range(first, first + ACCOUNTS)
    keys = [PublicKey(algorithm=Algorithm.FALCON_512, raw=_key(number)) for number in range(KEYED)]
    ids = [address_of(key) for key in keys]
    ids += [Address(secrets.token_bytes(32)) for _ in range(ACCOUNTS - KEYED)]
    balances = [(TREASURY, SUPPLY - 7 * ACCOUNTS), *((number, 7) for number in numbers)]
    return b"".join(
        (
            struct.pack(">BQ32sII", 1, 1, bytes(32), first, ACCOUNTS),
            *(b"\x01" + identifier for identifier in ids),
            struct.pack(">I", KEYED),
            *(struct.pack(">I", first + at) + key.raw for at, key in enumerate(keys)),
            struct.pack(">I", len(balances)),
            *(struct.pack(">IQ", number, balance) for number, balance in balances),
            struct.pack(">I", KEYED),
            *(struct.pack(">IBQ", first + at, 0, 5) for at in range(KEYED)),
        )
    )


def _state() -> Iterator[Result]:
    progress(f"  a state of {ACCOUNTS:,} accounts, {KEYED:,} of them with a key")
    router = _router()
    root = router.load({}, [(Height(1), encode(((LEDGER_TAG, _delta()),)))])
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        slices_ms: list[float] = []
        parts: list[tuple[int, bytes]] = []
        size = 0
        began = time.perf_counter()
        router.cut()
        while True:
            before = time.perf_counter()
            found = router.next_chunk()
            slices_ms.append((time.perf_counter() - before) * 1_000)
            if found is None:
                break
            (folder / chunk_name(len(parts))).write_bytes(found[1])
            parts.append((found[0], router.measure(*found)))
            size += len(found[1])
        outline = router.outlines(parts).encode()
        router.end_cut()
        conditions = (
            f"{ACCOUNTS:,} accounts, {KEYED:,} with a key, {len(parts)} chunks, {size >> 20} MiB"
        )
        yield Result(
            name="snapshot_cut_1m_s",
            value=rounded(time.perf_counter() - began),
            unit="s",
            conditions=f"{conditions}; without the pauses between two slices",
        )
        yield Result(
            name="snapshot_cut_slice_p99_ms",
            value=rounded(percentile(slices_ms, 99)),
            unit="ms",
            conditions=f"{conditions}; how long a block may wait, most {max(slices_ms):.1f} ms",
        )
        yield _restore(_router(), root, outline, folder, conditions)


def _restore(router: Router, root: Digest, outline: bytes, folder: Path, conditions: str) -> Result:
    began = time.perf_counter()
    outlines: Outlines = router.check_outlines(root, outline)
    if missing_chunks(folder, outlines, router):
        raise AssertionError("a chunk that was just written is missing")
    checked = time.perf_counter()
    router.restore(outlines, lambda index: (folder / chunk_name(index)).read_bytes())
    restored = time.perf_counter()
    store = StateStore(folder / "state.db", chain_id=CHAIN)
    block = StoredBlock(
        height=1, header=encode(()), batch=encode(()), state_root=root, receipts=b""
    )
    store.enter(block, all_rows(router))
    written = time.perf_counter()
    if open_state(router, store) != root:
        raise AssertionError("the restored state has another root")
    store.close()
    return Result(
        name="snapshot_restore_1m_s",
        value=rounded(time.perf_counter() - began),
        unit="s",
        conditions=f"{conditions}; outline proven, chunks checked, state.db written, read "
        f"again and its root compared ({checked - began:.1f} + {restored - checked:.1f} + "
        f"{written - restored:.1f} + {time.perf_counter() - written:.1f} s); without the network",
    )


def _catch_up() -> Result:
    with tempfile.TemporaryDirectory() as name:
        network = Network.create(Path(name), nodes=4, name="catchup")
        try:
            network.up()
            purse = Purse.fill(network, accounts=64)
            late = network.backups()[-1]
            others = [member for member in network.members if member is not late]
            late.kill()
            load = Load(purse.plan(targets=others, rate=LIVE_RATE, seconds=AWAY_S + 30))
            load.go()
            time.sleep(AWAY_S)
            late.start()
            until(lambda: late.status() is not None, "the late node answers", timeout_s=30)
            first, live_first, began = late.height, others[0].height, time.perf_counter()
            until(lambda: late.height >= others[0].height - 2, "it caught up", timeout_s=30)
            took = time.perf_counter() - began
            gained, live = late.height - first, others[0].height - live_first
            load.close()
        finally:
            network.destroy()
    return Result(
        name="catch_up_ratio",
        value=rounded(gained / max(1, live)),
        unit="",
        conditions=f"4 nodes, {LIVE_RATE} transfers/s going on; one was away for {AWAY_S} s: "
        f"{gained} blocks in {took:.1f} s, the others made {live}",
    )


SUITE: Final = Suite(
    group=GROUP,
    names=(
        "snapshot_cut_1m_s",
        "snapshot_cut_slice_p99_ms",
        "snapshot_restore_1m_s",
        "catch_up_ratio",
    ),
    run=run,
)
