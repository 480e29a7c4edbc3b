"""State transfer, one decision at a time: whom to ask, whom to leave, when to take it over."""

from dataclasses import replace

import pytest

from consensus.core.effects import (
    CheckSnapshot,
    Effect,
    Execute,
    Fault,
    KeepChunk,
    Misbehaved,
    RestoreSnapshot,
    Send,
)
from consensus.core.inputs import (
    BodyHeld,
    ChunkKept,
    PeerLost,
    SnapshotChecked,
    SnapshotRestored,
    Timer,
    TimerFired,
)
from consensus.core.messages import Blocks, Chunk, FetchBlocks, FetchChunk, FetchManifest, Manifest
from consensus.core.transfer import Download
from consensus.core.types import Height, ReplicaIndex
from consensus.limits import (
    CHUNK_FAILURES_MAX,
    CHUNKS_IN_FLIGHT_PER_PEER,
    SNAPSHOT_ASKS_UNANSWERED,
    SNAPSHOT_CHUNKS_MAX,
    SNAPSHOT_GAP_BLOCKS,
)
from consensus.tests import samples
from consensus.tests.test_replica import ROOT, Bench, status

FAR = SNAPSHOT_GAP_BLOCKS + 100


def manifest(height: int = FAR, outline: bytes = b"outline") -> Manifest:
    run = Blocks(
        headers=(samples.header(height),),
        batches=(samples.batch(height),),
        certificate=samples.certificate(height),
    )
    return Manifest(run=run, outline=outline)


def sent(effects: list[Effect], kind: type) -> list[tuple[int, object]]:
    return [
        (int(effect.peer), effect.message)
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, kind)
    ]


def behind(height: int = FAR) -> tuple[Bench, list[Effect]]:
    """A replica at genesis that hears of a certificate."""
    bench = Bench(1)
    effects = bench.hear(0, status(0, certificate=samples.certificate(height)))
    return bench, effects


def offered(*peers: int, chunks: int = 40, missing: range | None = None) -> Bench:
    """A replica whose manifest of these peers is proven."""
    bench, _ = behind()
    for peer in peers:
        bench.hear(peer, manifest())
        bench.feed(
            SnapshotChecked(
                peer=ReplicaIndex(peer),
                snapshot=manifest().id,
                valid=True,
                chunks=chunks,
                missing=tuple(range(chunks) if missing is None else missing),
            )
        )
    return bench


def download(bench: Bench) -> Download:
    found = bench.replica.transfer.download
    assert found is not None
    return found


def give(bench: Bench, peer: int, index: int, *, valid: bool = True) -> list[Effect]:
    """A chunk comes and is looked at."""
    chunk = Chunk(snapshot=manifest().id, index=index, data=b"data")
    effects = bench.hear(peer, chunk)
    assert KeepChunk(peer=ReplicaIndex(peer), manifest=manifest(), chunk=chunk) in effects
    return effects + bench.feed(
        ChunkKept(peer=ReplicaIndex(peer), snapshot=chunk.snapshot, index=index, valid=valid)
    )


def give_all(bench: Bench) -> list[Effect]:
    """Every chunk that is asked for comes, until none is."""
    effects: list[Effect] = []
    while bench.replica.transfer.download is not None and download(bench).asked:
        index, (peer, _) = sorted(download(bench).asked.items())[0]
        effects += give(bench, peer, index)
    return effects


def later(bench: Bench, timer: Timer, milliseconds: int = 2_100) -> list[Effect]:
    bench.late_us += milliseconds * 1_000
    return bench.feed(TimerFired(timer=timer))


def test_a_gap_too_large_for_blocks_asks_everybody_for_manifests_and_for_blocks() -> None:
    _, effects = behind()
    assert [peer for peer, _ in sent(effects, FetchManifest)] == [0, 2, 3]
    assert sent(effects, FetchBlocks)


def test_a_small_gap_asks_for_blocks_only() -> None:
    bench, effects = behind(SNAPSHOT_GAP_BLOCKS)
    assert sent(effects, FetchBlocks)
    assert not sent(effects, FetchManifest)
    assert not [
        effect
        for effect in bench.hear(0, manifest(SNAPSHOT_GAP_BLOCKS))
        if isinstance(effect, CheckSnapshot)
    ]


def test_peers_that_have_pruned_the_blocks_are_asked_for_their_state() -> None:
    bench, _ = behind(50)
    effects: list[Effect] = []
    for _ in range(SNAPSHOT_ASKS_UNANSWERED * 3):
        assert not sent(effects, FetchManifest)
        effects += later(bench, Timer.FETCH, 160)
    assert [peer for peer, _ in sent(effects, FetchManifest)] == [0, 2, 3]


def test_a_manifest_that_nobody_needs_is_not_looked_at() -> None:
    bench = Bench(1)
    effects = bench.hear(0, manifest(5))
    assert not [effect for effect in effects if isinstance(effect, CheckSnapshot)]
    assert bench.replica.certified == 5


def test_chunks_are_asked_from_all_who_offered_and_few_from_each() -> None:
    bench = offered(0, 2, 3)
    asked = [peer for peer, _ in download(bench).asked.values()]
    assert {peer: asked.count(ReplicaIndex(peer)) for peer in (0, 2, 3)} == {
        0: CHUNKS_IN_FLIGHT_PER_PEER,
        2: CHUNKS_IN_FLIGHT_PER_PEER,
        3: CHUNKS_IN_FLIGHT_PER_PEER,
    }
    assert len(download(bench).asked) == 3 * CHUNKS_IN_FLIGHT_PER_PEER


def test_only_what_is_missing_on_the_disk_is_fetched() -> None:
    bench = offered(0, chunks=40, missing=range(38, 40))
    assert sorted(download(bench).asked) == [38, 39]


def test_a_snapshot_that_is_all_there_is_taken_over_at_once() -> None:
    bench, _ = behind()
    bench.hear(0, manifest())
    effects = bench.feed(
        SnapshotChecked(peer=ReplicaIndex(0), snapshot=manifest().id, valid=True, chunks=40)
    )
    assert RestoreSnapshot(manifest=manifest()) in effects


def test_the_state_is_taken_over_when_every_chunk_is_kept_and_not_before() -> None:
    bench = offered(0, 2)
    effects = give_all(bench)
    assert effects.count(RestoreSnapshot(manifest=manifest())) == 1
    assert isinstance(effects[-1], RestoreSnapshot)
    assert bench.replica.executed == 0
    effects = bench.feed(SnapshotRestored(snapshot=manifest().id))
    assert bench.replica.executed == FAR
    assert bench.replica.tip.state_root == manifest().state_root
    assert bench.replica.transfer.download is None
    assert not bench.replica.transfer.restoring


def test_nothing_is_executed_while_the_state_is_replaced() -> None:
    bench = offered(0, chunks=1)
    give_all(bench)
    assert bench.replica.transfer.restoring
    bench.feed(BodyHeld(payload_root=ROOT, size_bytes=9))
    first = samples.header(1, samples.CHAIN)
    first = replace(first, time_ms=samples.batch(1).proposed_ms, state_root=ROOT)
    run = Blocks(
        headers=(first,),
        batches=(samples.batch(1),),
        certificate=samples.certificate(1, first.hash),
    )
    effects = bench.hear(2, run)
    assert not [effect for effect in effects if isinstance(effect, Execute)]


def test_who_offers_a_false_outline_is_blamed_and_the_offer_is_refused() -> None:
    bench, _ = behind()
    false = manifest(outline=b"false")
    bench.hear(3, false)
    effects = bench.feed(SnapshotChecked(peer=ReplicaIndex(3), snapshot=false.id, valid=False))
    assert Misbehaved(peer=ReplicaIndex(3), fault=Fault.BAD_SNAPSHOT) in effects
    again = bench.hear(2, false)
    assert not [effect for effect in again if isinstance(effect, CheckSnapshot)]
    assert [e for e in bench.hear(2, manifest()) if isinstance(e, CheckSnapshot)]


def test_a_snapshot_of_too_many_chunks_is_refused() -> None:
    bench, _ = behind()
    bench.hear(3, manifest())
    effects = bench.feed(
        SnapshotChecked(
            peer=ReplicaIndex(3), snapshot=manifest().id, valid=True, chunks=SNAPSHOT_CHUNKS_MAX + 1
        )
    )
    assert Misbehaved(peer=ReplicaIndex(3), fault=Fault.BAD_SNAPSHOT) in effects
    assert bench.replica.transfer.download is None


def test_who_gives_a_bad_chunk_is_left_at_once_and_the_others_give_it() -> None:
    bench = offered(0, 2)
    index = next(i for i, (peer, _) in download(bench).asked.items() if peer == 2)
    effects = give(bench, 2, index, valid=False)
    assert Misbehaved(peer=ReplicaIndex(2), fault=Fault.BAD_SNAPSHOT) in effects
    kept = effects[effects.index(Misbehaved(peer=ReplicaIndex(2), fault=Fault.BAD_SNAPSHOT)) :]
    assert not [peer for peer, _ in sent(kept, FetchChunk) if peer == 2]
    later(bench, Timer.TRANSFER)
    assert {peer for peer, _ in download(bench).asked.values()} == {0}
    effects = give_all(bench)
    assert RestoreSnapshot(manifest=manifest()) in effects


def test_who_stays_silent_is_left_after_some_chances() -> None:
    bench = offered(0, 2)
    for _ in range(CHUNK_FAILURES_MAX):
        for index, (peer, _) in sorted(download(bench).asked.items()):
            if peer == 0:
                give(bench, 0, index)
        later(bench, Timer.TRANSFER)
    assert {peer for peer, _ in download(bench).asked.values()} == {0}
    assert RestoreSnapshot(manifest=manifest()) in give_all(bench)


def test_a_server_that_is_gone_is_not_waited_for() -> None:
    bench = offered(0, 2)
    bench.feed(PeerLost(peer=ReplicaIndex(2)))
    bench.late_us += 500_000
    bench.feed(TimerFired(timer=Timer.TRANSFER))
    assert {peer for peer, _ in download(bench).asked.values()} == {0}


def test_an_offer_that_all_servers_let_die_is_dropped_and_others_are_sought() -> None:
    bench = offered(3)
    effects: list[Effect] = []
    for _ in range(CHUNK_FAILURES_MAX):
        effects = later(bench, Timer.TRANSFER)
        if bench.replica.transfer.download is None:
            break
    assert bench.replica.transfer.download is None
    assert [peer for peer, _ in sent(effects, FetchManifest)] == [0, 2, 3]
    assert not [e for e in bench.hear(3, manifest()) if isinstance(e, CheckSnapshot)]
    other = manifest(outline=b"the one of others")
    assert [e for e in bench.hear(0, other) if isinstance(e, CheckSnapshot)]


@pytest.mark.parametrize("sender", [0, 2])
def test_a_chunk_nobody_asked_this_peer_for_is_not_looked_at(sender: int) -> None:
    bench = offered(3)
    for index in (0, 39, 40):
        chunk = Chunk(snapshot=manifest().id, index=index, data=b"data")
        effects = bench.hear(sender, chunk)
        assert not [effect for effect in effects if isinstance(effect, KeepChunk)]


def test_a_transfer_that_blocks_have_overtaken_ends() -> None:
    bench = offered(0)
    bench.replica.tip = replace(bench.replica.tip, height=Height(FAR))
    later(bench, Timer.TRANSFER)
    assert bench.replica.transfer.download is None


def test_runs_that_end_at_other_certificates_are_offers_of_one_snapshot() -> None:
    first = samples.header(FAR)
    second = replace(samples.header(FAR + 1, first.hash), state_root=manifest().state_root)
    longer = Blocks(
        headers=(first, second),
        batches=(samples.batch(FAR), samples.batch(FAR + 1)),
        certificate=samples.certificate(FAR + 1, second.hash),
    )
    other = Manifest(run=longer, outline=b"outline")
    assert other.id == manifest().id
    assert other.state_root == manifest().state_root
    bench = offered(0)
    bench.hear(2, other)
    assert download(bench).holders == {0, 2}


def test_while_one_snapshot_is_fetched_no_other_is_looked_at() -> None:
    bench = offered(0, 2)
    for peer, other in ((3, manifest(FAR + 1_024)), (0, manifest(outline=b"a lie"))):
        effects = bench.hear(peer, other)
        assert not [effect for effect in effects if isinstance(effect, CheckSnapshot)]
    assert RestoreSnapshot(manifest=manifest()) in give_all(bench)


def test_chunks_that_wait_for_the_disk_count_as_asked() -> None:
    """A server faster than our disk does not fill the memory with chunks."""
    bench = offered(0, 2)
    effects: list[Effect] = []
    for _ in range(4):
        for index, (peer, _) in sorted(download(bench).asked.items()):
            chunk = Chunk(snapshot=manifest().id, index=index, data=b"data")
            effects += bench.hear(int(peer), chunk)
    keeps = [effect for effect in effects if isinstance(effect, KeepChunk)]
    assert len(keeps) == 2 * CHUNKS_IN_FLIGHT_PER_PEER
    for keep in keeps:
        kept = ChunkKept(peer=keep.peer, snapshot=manifest().id, index=keep.chunk.index, valid=True)
        bench.feed(kept)
    assert len(download(bench).asked) == 2 * CHUNKS_IN_FLIGHT_PER_PEER


def test_one_check_serves_all_who_offer_the_same_snapshot() -> None:
    bench, _ = behind()
    effects = [effect for peer in (0, 2, 3) for effect in bench.hear(peer, manifest())]
    assert [e for e in effects if isinstance(e, CheckSnapshot)] == [
        CheckSnapshot(peer=ReplicaIndex(0), manifest=manifest())
    ]
    bench.feed(
        SnapshotChecked(
            peer=ReplicaIndex(0),
            snapshot=manifest().id,
            valid=True,
            chunks=40,
            missing=tuple(range(40)),
        )
    )
    assert download(bench).holders == {0, 2, 3}
    assert not bench.replica.transfer.checking


def test_all_who_offer_the_same_lie_are_blamed() -> None:
    bench, _ = behind()
    for peer in (2, 3):
        bench.hear(peer, manifest())
    effects = bench.feed(SnapshotChecked(peer=ReplicaIndex(2), snapshot=manifest().id, valid=False))
    blamed = [int(effect.peer) for effect in effects if isinstance(effect, Misbehaved)]
    assert blamed == [2, 3]


def test_a_chunk_that_the_disk_refused_ends_the_transfer_until_everybody_is_asked_again() -> None:
    bench = offered(0, 2, chunks=3)
    chunk = Chunk(snapshot=manifest().id, index=min(download(bench).asked), data=b"")
    peer = download(bench).asked[chunk.index][0]
    bench.hear(peer, chunk)
    effects = bench.feed(
        ChunkKept(peer=peer, snapshot=manifest().id, index=chunk.index, valid=None, refused=True)
    )
    assert bench.replica.transfer.download is None
    assert not bench.replica.transfer.refused
    assert not [effect for effect in effects if isinstance(effect, Misbehaved | Send)]
    assert not asked_manifests(later(bench, Timer.TRANSFER, 100))
    assert asked_manifests(later(bench, Timer.TRANSFER, 10_000)) == [0, 2, 3]
    effects = bench.hear(0, manifest())
    assert [effect for effect in effects if isinstance(effect, CheckSnapshot)]


def asked_manifests(effects: list[Effect]) -> list[int]:
    return [
        int(effect.peer)
        for effect in effects
        if isinstance(effect, Send) and isinstance(effect.message, FetchManifest)
    ]


def test_what_nobody_had_time_to_look_at_is_asked_for_again_and_blames_nobody() -> None:
    bench, _ = behind()
    bench.hear(0, manifest())
    effects = bench.feed(SnapshotChecked(peer=ReplicaIndex(0), snapshot=manifest().id, valid=None))
    effects += bench.hear(0, manifest())
    assert [effect for effect in effects if isinstance(effect, CheckSnapshot)]
    bench = offered(0, chunks=1)
    chunk = Chunk(snapshot=manifest().id, index=0, data=b"data")
    bench.hear(0, chunk)
    effects += bench.feed(
        ChunkKept(peer=ReplicaIndex(0), snapshot=manifest().id, index=0, valid=None)
    )
    assert sorted(download(bench).asked) == [0]
    assert not [effect for effect in effects if isinstance(effect, Misbehaved)]
