"""Durable records: bytes, keys, and what may be dropped."""

from dataclasses import replace

import pytest

from consensus.core.effects import Persist
from consensus.core.inputs import Started
from consensus.core.messages import UNSIGNED, Checkpoint, SignedKind
from consensus.core.records import (
    Accepted,
    Agreed,
    Anchor,
    Birth,
    Diverged,
    ExecutedBlock,
    LastNumber,
    NewViewHeld,
    OwnViewChange,
    OwnVotes,
    PeerStamp,
    Prepared,
    Record,
    Recovery,
    Row,
    Tip,
    ViewEntered,
    decode_record,
    encode_record,
    reborn,
    record_key,
    signed_again,
)
from consensus.core.replica import Replica, genesis_block
from consensus.core.types import (
    Committee,
    Height,
    Instant,
    Number,
    Phase,
    ReplicaIndex,
    Sequence,
    Timing,
    View,
)
from consensus.errors import BirthMissing, CorruptRecord, WrongChain
from consensus.sim.disk import Disk
from consensus.tests import samples
from native.values import Digest, Signature

NODE = Digest(b"n" * 32)
BIRTH = Birth(chain_id=samples.CHAIN, node_id=NODE, incarnation=1)
RECORDS: list[Record] = [
    BIRTH,
    LastNumber(number=Number(2**63), kind=SignedKind.VOTES, digest=NODE),
    PeerStamp(stamp=samples.view_change(1, 2).stamp()),
    ViewEntered(epoch=samples.EPOCH, view=View(4), active=True),
    Accepted(pre_prepare=samples.pre_prepare(0, 6)),
    Prepared(certificate=samples.prepared(0, 6)),
    OwnVotes(vector=samples.vector(1, samples.prepare(0, 6), samples.commit(0, 5))),
    OwnViewChange(view_change=samples.view_change(1, 1)),
    NewViewHeld(new_view=samples.new_view(1)),
    Tip(certificate=samples.certificate(5)),
    Anchor(certificate=samples.certificate(70)),
    Agreed(header=samples.batch(7)),
    Diverged(height=Height(9), header_hash=NODE, state_root=NODE, sound_through=Height(8)),
    Recovery(first_sequence=Sequence(70), first_view=View(3), done=False),
]


def replica(*records: Record) -> Replica:
    return Replica(
        Committee(chain_id=samples.CHAIN, members=4, me=ReplicaIndex(1)),
        Timing(),
        boot=1,
        tip=genesis_block(samples.CHAIN, 0, NODE),
        records=records,
    )


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_survives_the_disk(record: Record) -> None:
    row = encode_record(record)
    assert (row.kind, row.key) == record_key(record)
    assert decode_record(row.kind, row.data, samples.BOUNDS) == record


def test_what_was_stored_before_it_was_signed_is_signed_again() -> None:
    proposal, vector = samples.pre_prepare(0, 6), samples.vector(1, samples.prepare(0, 6))
    stored: list[Record] = [
        Accepted(pre_prepare=proposal.signed(UNSIGNED)),
        OwnVotes(vector=vector.signed(UNSIGNED)),
        BIRTH,
    ]
    rows = [encode_record(record) for record in stored]
    read = [decode_record(row.kind, row.data, samples.BOUNDS) for row in rows]
    assert read == stored
    jobs: list[bytes] = []

    def sign(job: bytes) -> Signature:
        jobs.append(job)
        return Signature(b"signed")

    assert signed_again(read, samples.CHAIN, sign) == [
        Accepted(pre_prepare=proposal.signed(Signature(b"signed"))),
        OwnVotes(vector=vector.signed(Signature(b"signed"))),
        BIRTH,
    ]
    assert jobs == [proposal.signed_bytes(samples.CHAIN), vector.signed_bytes(samples.CHAIN)]


def test_a_divergence_goes_with_the_next_certificate() -> None:
    found = Diverged(height=Height(9), header_hash=NODE, state_root=NODE, sound_through=Height(8))
    assert encode_record(found).sequence == 9
    genesis = replace(found, height=Height(0), sound_through=Height(0))
    assert encode_record(genesis).sequence == 1, "0 would stay for ever"


def test_every_kind_has_its_own_number() -> None:
    assert len({record_key(record)[0] for record in RECORDS}) == len(RECORDS)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_damage_is_found(record: Record) -> None:
    row = encode_record(record)
    with pytest.raises(CorruptRecord):
        decode_record(row.kind, row.data + b"\0", samples.BOUNDS)
    stored = row.stored
    assert Row.read(row.kind, row.key, row.sequence, stored) == row
    for at in range(0, len(stored), 1 + len(stored) // 64):
        flipped = stored[:at] + bytes([stored[at] ^ 1 << at % 8]) + stored[at + 1 :]
        with pytest.raises(CorruptRecord, match="checksum"):
            Row.read(row.kind, row.key, row.sequence, flipped)
        with pytest.raises(CorruptRecord, match="checksum"):
            Row.read(row.kind, row.key, row.sequence, stored[:at])


def test_a_record_in_the_place_of_another_is_found() -> None:
    row = encode_record(ViewEntered(epoch=samples.EPOCH, view=View(4), active=True))
    for kind, key, sequence in ((row.kind, row.key, 1), (row.kind, 1, 0), (row.kind + 1, 0, 0)):
        with pytest.raises(CorruptRecord, match="checksum"):
            Row.read(kind, key, sequence, row.stored)


def test_only_what_a_certificate_covers_is_dropped() -> None:
    disk = Disk(records={record_key(record): record for record in RECORDS})
    disk.drop(5)
    assert len(disk.records) == len(RECORDS)
    disk.drop(6)
    gone = [record for record in RECORDS if record_key(record) not in disk.records]
    assert [type(record) for record in gone] == [Accepted, Prepared, OwnVotes]


def test_a_store_without_birth_record_is_refused() -> None:
    with pytest.raises(BirthMissing):
        replica()


def test_a_store_of_another_chain_is_refused() -> None:
    with pytest.raises(WrongChain):
        replica(Birth(chain_id=NODE, node_id=NODE, incarnation=1))


def test_a_store_made_again_does_not_vote() -> None:
    assert replica(*reborn(samples.CHAIN, NODE, 2)).statistics().phase is Phase.SEEKING


def test_a_store_with_a_bound_goes_on_recovering() -> None:
    found = replica(BIRTH, RECORDS[-1]).statistics()
    assert (found.phase, found.first_sequence, found.first_view) == (Phase.RECOVERING, 70, 3)


def test_numbers_go_on_above_everything_that_was_lost() -> None:
    done = Recovery(first_sequence=Sequence(70), first_view=View(3), done=True)
    low = LastNumber(number=Number(9), kind=SignedKind.VOTES, digest=NODE)
    for records in ((BIRTH, done, low), (BIRTH, low, done)):
        assert replica(*records).number_floor == 70 << 24


def test_a_restored_replica_is_in_the_view_it_had_entered() -> None:
    found = replica(
        BIRTH,
        ViewEntered(epoch=samples.EPOCH, view=View(1), active=False),
        NewViewHeld(new_view=samples.new_view(1)),
        Tip(certificate=samples.certificate(5)),
    )
    assert found.statistics().view == 1
    assert not found.statistics().in_view_change
    assert found.next_sequence == 9
    assert sorted(found.instances) == [6, 7, 8]


def test_a_replica_behind_its_own_certificate_catches_up_before_it_votes() -> None:
    found = replica(BIRTH, Tip(certificate=samples.certificate(5)))
    found.phase = Phase.VOTING
    assert not found.may_vote(View(0))
    found.tip = replace(found.tip, height=Height(5))
    assert found.may_vote(View(0))


def test_a_chain_of_one_counts_the_vote_it_died_after() -> None:
    header = samples.header(1)
    block = ExecutedBlock(height=Height(1), header_hash=header.hash, time_ms=1, state_root=NODE)
    vote = Checkpoint(
        epoch=samples.EPOCH, height=block.height, header_hash=header.hash, state_root=NODE
    )
    alone = Replica(
        Committee(chain_id=samples.CHAIN, members=1, me=ReplicaIndex(0)),
        Timing(),
        boot=1,
        tip=block,
        uncertified=[block],
        records=[
            BIRTH,
            Prepared(certificate=samples.prepared(0, 1)),
            OwnVotes(vector=samples.vector(0, vote)),
        ],
    )
    assert alone.statistics().certified == 0
    effects = alone.step(Started(), Instant(monotonic_us=1, unix_ms=1))
    assert alone.statistics().certified == 1
    kept = [one.record for one in effects if isinstance(one, Persist)]
    assert [one.certificate.checkpoint for one in kept if isinstance(one, Tip)] == [vote]
