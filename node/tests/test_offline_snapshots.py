"""Snapshots without a running node: what is copied is checked, what is restored is certified."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import apsw
import pytest

from consensus.application import Block
from consensus.core import wire
from consensus.core.certificates import block_certificate
from consensus.core.epochs import Epochs
from consensus.core.light import encode_links
from consensus.core.messages import (
    EMPTY_ROOT,
    BatchHeader,
    BlockHeader,
    Blocks,
    Checkpoint,
    EpochLink,
    Manifest,
    VoteVector,
)
from consensus.core.records import (
    TIP_KIND,
    Record,
    Recovery,
    Retired,
    Row,
    ViewEntered,
    decode_records,
    encode_record,
)
from consensus.core.types import NO_DIGEST, Epoch, Height, Number, ReplicaIndex, View
from consensus.core.types import Sequence as Place
from consensus.core.validators import Validator, ValidatorSet
from consensus.errors import SnapshotInvalid
from consensus.limits import MESSAGE_BYTES_MAX
from native.batches import Batch
from native.keys import SecretKey
from native.values import Digest
from node.cluster.manifest import Cluster
from node.core.genesis import Genesis
from node.core.snapshotfiles import LINKS, MANIFEST, chunk_name
from node.errors import SnapshotMissing, WouldOverwrite
from node.home import Home
from node.runtime import offline
from node.runtime.executor import open_state
from node.runtime.membership import genesis_set
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
    *,
    epoch: int = 0,
    next_set: Digest = NO_DIGEST,
) -> Blocks:
    leaf = Checkpoint(
        epoch=Epoch(epoch),
        next_set=next_set,
        height=header.height,
        header_hash=header.hash,
        state_root=type(header.hash)(root),
    )
    votes = []
    for index, secret in enumerate(secrets, start=epoch):
        vector = VoteVector(
            epoch=Epoch(epoch), signer=ReplicaIndex(index), number=Number(9), leaves=(leaf,)
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


def test_a_chunk_longer_than_any_is_not_read_to_its_end(chain: Chain) -> None:
    with (chain.source / chunk_name(0)).open("r+b") as file:
        file.truncate(1 << 40)  # a file with a hole: reading all of it would not end well
    with pytest.raises(SnapshotInvalid, match=r"00000\.chunk"):
        offline.restore(chain.source, chain.home, chain.genesis)


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
    with (chain.source / MANIFEST).open("wb") as file:
        file.truncate(MESSAGE_BYTES_MAX + 1)
    with pytest.raises(SnapshotInvalid, match="is longer than"):
        offline.check(chain.source, chain.genesis, router)
    shutil.rmtree(chain.home.snapshots)
    with pytest.raises(SnapshotMissing):
        offline.newest(chain.home)


# --- after a change of the validators


@pytest.fixture
def changed(chain: Chain, made_cluster: Cluster) -> Chain:
    """The same snapshot, certified in epoch 1 by n1, n2, n3 and n4; n0 has left."""
    secrets = [SecretKey.load(member.home.node_key) for member in made_cluster.members]
    secrets.append(SecretKey.generate(chain.genesis.validators[0].key.algorithm))
    following = ValidatorSet(
        epoch=Epoch(1),
        members=tuple(Validator(name=f"n{at}", key=secrets[at].public) for at in range(1, 5)),
    )
    run = chain.manifest.run
    batch, header = run.batches[0], run.headers[0]
    last = replace(header, height=Height(HEIGHT - 1))
    link = EpochLink(
        certificate=certified(
            chain.genesis, last, batch, header.state_root, secrets[:3], next_set=following.hash
        ).certificate,
        validators=following,
    )
    later = replace(batch, epoch=Epoch(1))
    manifest = Manifest(
        run=certified(
            chain.genesis,
            replace(header, epoch=Epoch(1), batch=later.digest),
            later,
            chain.manifest.state_root,
            secrets[2:],
            epoch=1,
        ),
        outline=chain.manifest.outline,
    )
    (chain.source / MANIFEST).write_bytes(wire.encode_manifest(manifest))
    (chain.source / LINKS).write_bytes(encode_links([link]))
    return replace(chain, manifest=manifest)


def records_of(chain: Chain) -> tuple[Epochs, list[Record]]:
    genesis = Epochs(chain_id=chain.genesis.chain_id, sets=(genesis_set(chain.genesis),))
    with contextlib.closing(apsw.Connection(str(chain.home.consensus_database))) as database:
        found = cast(
            "list[tuple[int, int, int, bytes]]",
            list(database.execute("SELECT kind, key, sequence, data FROM record")),
        )
    rows = [Row.read(*row) for row in found]
    records = decode_records([(row.kind, row.data) for row in rows], genesis.bounds())
    return Epochs.of(genesis.chain_id, genesis.newest, records), records


def test_a_snapshot_of_a_later_epoch_brings_the_links_that_prove_it(
    changed: Chain, tmp_path: Path
) -> None:
    copied = offline.export(changed.source, tmp_path / "copy", changed.genesis)
    assert copied.lineage.newest.validators.epoch == 1
    offline.restore(tmp_path / "copy", changed.home, changed.genesis)
    epochs, records = records_of(changed)
    assert [member.name for member in epochs.newest.members] == ["n1", "n2", "n3", "n4"]
    # This is n0, which has left: it never signs above the end of its epoch.
    assert Retired(epoch=Epoch(1), base=Height(HEIGHT - 1)) in records
    assert ViewEntered(epoch=Epoch(1), view=View(0), active=True) in records
    assert not any(isinstance(record, Recovery) for record in records)


@pytest.mark.parametrize("done", [True, False])
def test_a_recovery_of_an_old_epoch_does_not_bind_views_of_a_restored_one(
    changed: Chain, done: bool
) -> None:
    old = Recovery(first_sequence=Place(70), first_view=View(5), done=done)
    row = encode_record(old)
    with contextlib.closing(apsw.Connection(str(changed.home.consensus_database))) as database:
        database.execute(
            "INSERT OR REPLACE INTO record VALUES(?,?,?,?)",
            (row.kind, row.key, row.sequence, row.stored),
        )
    offline.restore(changed.source, changed.home, changed.genesis)
    _, records = records_of(changed)
    place = Place(70) if done else Place(0)
    assert Recovery(first_sequence=place, first_view=View(0), done=done) in records


def test_without_its_links_a_later_epoch_is_not_believed(changed: Chain) -> None:
    whole = (changed.source / LINKS).read_bytes()
    for data, problem in (
        (None, "manifest: .*epoch 1"),
        (encode_links([]), "manifest: .*epoch 1"),
        (whole[:-1], "links"),
        (whole[:-40] + bytes([whole[-40] ^ 1]) + whole[-39:], "links"),
    ):
        (changed.source / LINKS).unlink()
        if data is not None:
            (changed.source / LINKS).write_bytes(data)
        with pytest.raises(SnapshotInvalid, match=problem):
            offline.restore(changed.source, changed.home, changed.genesis)
        (changed.source / LINKS).write_bytes(whole)
    assert not tip_of(changed.home)
