"""Snapshots without a running node: what is copied is checked, what is restored is certified."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import apsw
import pytest

from consensus.application import Block
from consensus.core import wire
from consensus.core.certificates import block_certificate
from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockHeader,
    Blocks,
    Checkpoint,
    Manifest,
    VoteVector,
)
from consensus.core.records import TIP_KIND
from consensus.core.types import Epoch, Height, Number, ReplicaIndex
from consensus.core.types import Sequence as Place
from consensus.errors import SnapshotInvalid
from native.batches import Batch
from native.keys import SecretKey
from node.cluster.manifest import Cluster
from node.core.genesis import Genesis
from node.core.snapshotfiles import MANIFEST, chunk_name
from node.errors import SnapshotMissing, WouldOverwrite
from node.home import Home
from node.runtime import offline
from node.runtime.executor import open_state
from node.runtime.store import StateStore

HEIGHT = 64


@dataclass(frozen=True, kw_only=True)
class Chain:
    """A stopped node with one snapshot, made by hand and signed with the cluster's keys."""

    home: Home
    genesis: Genesis
    source: Path
    manifest: Manifest


def certified(
    genesis: Genesis,
    header: BlockHeader,
    batch: BatchHeader,
    root: bytes,
    secrets: Sequence[SecretKey],
) -> Blocks:
    leaf = Checkpoint(
        epoch=Epoch(0),
        height=header.height,
        header_hash=header.hash,
        state_root=type(header.hash)(root),
    )
    votes = []
    for index, secret in enumerate(secrets):
        vector = VoteVector(
            epoch=Epoch(0), signer=ReplicaIndex(index), number=Number(9), leaves=(leaf,)
        )
        signed = vector.signed(secret.sign(vector.signed_bytes(genesis.chain_id)))
        votes.append((ReplicaIndex(index), signed, 0))
    certificate = block_certificate(leaf, votes, len(votes))
    return Blocks(headers=(header,), batches=(batch,), certificate=certificate)


@pytest.fixture
def chain(made_cluster: Cluster, tmp_path: Path) -> Chain:
    member = made_cluster.members[0]
    shutil.copytree(member.home.path, tmp_path / "home")
    home = Home(tmp_path / "home")
    genesis = Genesis.from_json(made_cluster.genesis.read_text())
    router = offline.router_of(genesis)
    for height in range(1, HEIGHT + 1):
        batch = BatchHeader(
            chain_id=genesis.chain_id,
            epoch=Epoch(0),
            sequence=Place(height),
            proposed_ms=genesis.time_ms + height,
            payload_root=EMPTY_ROOT,
        )
        header = BlockHeader(
            chain_id=genesis.chain_id,
            height=Height(height),
            epoch=Epoch(0),
            parent=genesis.chain_id,
            batch=batch.digest,
            time_ms=genesis.time_ms + height,
            state_root=router.state_root,
        )
        router.execute(Block(header=header, batch=Batch.of([])))
    source = home.snapshots / str(HEIGHT)
    source.mkdir(parents=True)
    router.cut()
    parts: list[tuple[int, bytes]] = []
    while (found := router.next_chunk()) is not None:
        (source / chunk_name(len(parts))).write_bytes(found[1])
        parts.append((found[0], router.measure(*found)))
    secrets = [SecretKey.load(one.home.node_key) for one in made_cluster.members[:3]]
    manifest = Manifest(
        run=certified(genesis, header, batch, router.state_root, secrets),
        outline=router.outlines(parts).encode(),
    )
    (source / MANIFEST).write_bytes(wire.encode_manifest(manifest))
    return Chain(home=home, genesis=genesis, source=source, manifest=manifest)


def tip_of(home: Home) -> int:
    with contextlib.closing(apsw.Connection(str(home.consensus_database))) as database:
        found = database.execute("SELECT data FROM record WHERE kind=?", (TIP_KIND,)).fetchone()
    return 0 if found is None else len(bytes(found[0]))


def test_a_copy_is_checked_and_restored_into_an_empty_node(chain: Chain, tmp_path: Path) -> None:
    assert offline.newest(chain.home) == chain.source
    copied = offline.export(chain.source, tmp_path / "copy", chain.genesis)
    assert copied.height == HEIGHT
    assert copied.manifest == chain.manifest
    assert not tip_of(chain.home)
    restored = offline.restore(tmp_path / "copy", chain.home, chain.genesis)
    assert restored.height == HEIGHT
    assert tip_of(chain.home), "the certificate is in consensus.db"
    store = StateStore(chain.home.state_database, chain_id=chain.genesis.chain_id)
    assert (store.height, store.first) == (HEIGHT, HEIGHT)
    assert open_state(offline.router_of(chain.genesis), store) == chain.manifest.state_root
    store.close()


def test_nothing_is_overwritten(chain: Chain, tmp_path: Path) -> None:
    offline.restore(chain.source, chain.home, chain.genesis)
    with pytest.raises(WouldOverwrite, match="block 64 already"):
        offline.restore(chain.source, chain.home, chain.genesis)
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "something").touch()
    with pytest.raises(WouldOverwrite, match="not empty"):
        offline.export(chain.source, tmp_path / "used", chain.genesis)


def test_a_damaged_chunk_is_named_and_nothing_is_restored(chain: Chain) -> None:
    chunk = chain.source / chunk_name(0)
    chunk.write_bytes(chunk.read_bytes()[:-1])
    with pytest.raises(SnapshotInvalid, match=r"00000\.chunk"):
        offline.restore(chain.source, chain.home, chain.genesis)
    assert not tip_of(chain.home)


def test_a_certificate_of_other_keys_is_refused(chain: Chain) -> None:
    strangers = [SecretKey.generate(chain.genesis.validators[0].key.algorithm) for _ in range(3)]
    run = chain.manifest.run
    forged = certified(
        chain.genesis, run.headers[0], run.batches[0], chain.manifest.state_root, strangers
    )
    (chain.source / MANIFEST).write_bytes(
        wire.encode_manifest(Manifest(run=forged, outline=chain.manifest.outline))
    )
    with pytest.raises(SnapshotInvalid, match="signature"):
        offline.restore(chain.source, chain.home, chain.genesis)


def test_a_folder_that_is_no_snapshot_says_so(chain: Chain, tmp_path: Path) -> None:
    router = offline.router_of(chain.genesis)
    with pytest.raises(SnapshotInvalid, match="no snapshot"):
        offline.check(tmp_path, chain.genesis, router)
    (chain.source / MANIFEST).write_bytes(b"junk")
    with pytest.raises(SnapshotInvalid, match="manifest"):
        offline.check(chain.source, chain.genesis, router)
    shutil.rmtree(chain.home.snapshots)
    with pytest.raises(SnapshotMissing):
        offline.newest(chain.home)
