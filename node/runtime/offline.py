"""The state of a node that does not run: snapshots exported, checked, restored; blocks replayed.

A snapshot folder is trusted as far as genesis reaches: its links are followed from the keys of
genesis, its certificate is checked against the set they lead to, its outline against the state root
of the certificate, each chunk against the outline.
"""

from __future__ import annotations

import functools
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING

from caesar.runtime.application import LedgerApplication
from caesar.runtime.validators import ValidatorsApplication
from consensus.core.epochs import Epochs
from consensus.core.light import Lineage
from consensus.core.records import certified_height
from consensus.errors import SnapshotInvalid
from consensus.limits import (
    LINKS_SIZE_BYTES_MAX,
    MESSAGE_BYTES_MAX,
)
from consensus.runtime.store import adopt_certificate
from node.core.snapshotfiles import LINKS, MANIFEST, chunk_name, read_lineage, read_manifest
from node.errors import SnapshotMissing, WouldOverwrite
from node.home import write_replacing
from node.inputs import bounded_bytes
from node.runtime.executor import all_rows, open_state
from node.runtime.membership import genesis_set
from node.runtime.replay import execute_again, newest_block
from node.runtime.router import Router
from node.runtime.snapshots import missing_chunks, read_chunk
from node.runtime.store import StateStore, StoredBlock
from trustchain.runtime.application import LogApplication

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from consensus.core.messages import Manifest
    from native.values import Digest
    from node.core.genesis import Genesis
    from node.core.outlines import Outlines
    from node.home import Home
    from node.stopped import StoppedNode


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """A snapshot folder in which everything is proven."""

    folder: Path
    manifest: Manifest
    outlines: Outlines
    size_bytes: int
    lineage: Lineage

    @property
    def height(self) -> int:
        """The block whose state it is."""
        return int(self.manifest.height)


def router_of(genesis: Genesis) -> Router:
    """The applications of a chain, at genesis."""
    chain_id = genesis.chain_id
    router = Router(
        [
            LedgerApplication(chain_id, genesis.ledger),
            LogApplication(chain_id, genesis.log),
            ValidatorsApplication(chain_id, genesis_set(genesis).members),
        ]
    )
    router.genesis()
    return router


def check(folder: Path, genesis: Genesis, router: Router) -> Checked:
    """Look through a snapshot folder; raises `SnapshotInvalid` for whatever is wrong."""
    lineage = Lineage.at_genesis(genesis.chain_id, genesis_set(genesis))
    try:
        data = bounded_bytes(folder / MANIFEST, MESSAGE_BYTES_MAX)
        if (folder / LINKS).exists():  # an earlier version wrote none, nor knew a second epoch
            lineage = read_lineage(bounded_bytes(folder / LINKS, LINKS_SIZE_BYTES_MAX), lineage)
    except (OSError, ValueError) as error:
        raise SnapshotInvalid(f"{folder} is no snapshot: {error}") from None
    manifest = read_manifest(data, lineage)
    outlines = router.check_outlines(manifest.state_root, manifest.outline)
    missing = missing_chunks(folder, outlines, router)
    if missing:
        raise SnapshotInvalid(
            f"{len(missing)} of {outlines.chunk_count} chunks are missing or damaged, "
            f"the first is {chunk_name(missing[0])}"
        )
    size = sum((folder / chunk_name(n)).stat().st_size for n in range(outlines.chunk_count))
    return Checked(
        folder=folder, manifest=manifest, outlines=outlines, size_bytes=size, lineage=lineage
    )


def newest(home: Home) -> Path:
    """The folder of a home's newest complete snapshot; raises `SnapshotMissing`."""
    found = [
        path
        for path in (home.snapshots.iterdir() if home.snapshots.exists() else ())
        if path.name.isdigit() and (path / MANIFEST).exists()
    ]
    if not found:
        raise SnapshotMissing(
            f"{home.path} has no snapshot yet",
            hint="one is cut every storage.snapshot_blocks blocks while the node runs; wait, or "
            "lower that number and restart",
        )
    return max(found, key=lambda path: int(path.name))


def export(source: Path, target: Path, genesis: Genesis) -> Checked:
    """Copy a snapshot and check the copy; raises `WouldOverwrite` if there is something already."""
    if target.exists() and any(target.iterdir()):
        raise WouldOverwrite(f"{target} is not empty", hint="name a folder that does not exist yet")
    shutil.copytree(source, target, dirs_exist_ok=True)
    write_replacing(target / "genesis.json", genesis.to_json().encode())
    return check(target, genesis, router_of(genesis))


def restore(source: Path, home: Home, genesis: Genesis) -> Checked:
    """Give a stopped node the state of a snapshot, its certificate durable before.

    Raises `SnapshotInvalid`, and `WouldOverwrite` if the node's own state is newer.
    """
    router = router_of(genesis)
    checked = check(source, genesis, router)
    store = StateStore(home.state_database, chain_id=genesis.chain_id)
    try:
        if store.height >= checked.height:
            raise WouldOverwrite(
                f"{home.state_database} holds block {store.height} already, the snapshot is of "
                f"block {checked.height}",
                hint="nothing to do; to go back, move state.db away first",
            )
        if home.consensus_database.exists():
            adopt_certificate(
                home.consensus_database,
                checked.manifest.run.certificate,
                Epochs(chain_id=genesis.chain_id, sets=(genesis_set(genesis),)),
                checked.lineage.links,
            )
        root = router.restore(checked.outlines, functools.partial(read_chunk, source))
        if root != checked.manifest.state_root:
            raise SnapshotInvalid("the restored state has another root than the certificate says")
        run = checked.manifest.run
        block = StoredBlock.of(run.headers[0], run.batches[0], root)
        store.enter(block, all_rows(router))
    finally:
        store.close()
    return checked


def replay(node: StoppedNode, progress: Callable[[int], None]) -> Digest:
    """Execute again every block that a stopped node's `consensus.db` holds above its state.

    `progress` is told now and then up to which block it is. Return the state root after the newest.
    Raises what `execute_again` raises, if blocks up to the newest certificate are missing too.
    """
    genesis, state, store = node.genesis, node.state, node.store
    router = router_of(genesis)
    root = open_state(router, state)
    height = state.height
    through = max(store.agreed_through(height), certified_height(node.records()))
    if through <= height:
        return root
    tip = newest_block(state, genesis, root, node.bounds)
    return execute_again(
        router, state, store, tip, through=through, bounds=node.bounds, progress=progress
    )
