"""Cosigners and issuers of later epochs: admission, succession, and what a checkpoint counts."""

# ruff: noqa: ARG001  pytest-trio finds the virtual clock among the arguments of a test

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from functools import partial

import pytest
import trio
import trio.testing
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.core.quorum import weak_quorum
from consensus.limits import MEMBERS_MAX
from native import codec
from native.keys import SecretKey
from native.values import Algorithm
from trustchain.core.bundle import Bundle
from trustchain.core.checkpoint import (
    Checkpoint,
    Cosignature,
    cosigned_message,
    cosigner_key_id,
)
from trustchain.core.epoch_end import EpochEnd
from trustchain.core.roster import Credentials, Ended, Evidence, Roster, Seat, Succession
from trustchain.errors import (
    CosignersLeft,
    EpochEndUnproven,
    Expired,
    KeyFileError,
    MalformedCredentials,
    ProfileInvalid,
    QuorumMissing,
)
from trustchain.runtime.authority import Authority
from trustchain.runtime.ceremony import hold_ceremony
from trustchain.runtime.cosigner import Cosigner
from trustchain.runtime.credentials import acceptable, make_credentials
from trustchain.runtime.verify import verify_bundle, verify_checkpoint
from trustchain.tests.joiners import Joiner, joiner, keys, made_up, roster
from trustchain.tests.network import CHAIN_ID, NOW_S, Network, ceremony

CEREMONY = ceremony()
GENESIS = CEREMONY.genesis
FOUNDERS = (0, 1, 2, 3)
NEW = joiner("n4", CEREMONY)  # one for all examples: the length of a certificate is drawn with it
EVIDENCE = NEW.evidence()


def admitted(
    new: Joiner,
    *,
    evidence: bytes | None = None,
    credentials: bytes | None = None,
    others: tuple[bytes, ...] = (b"", b"", b""),
) -> bool:
    return acceptable(
        GENESIS,
        CHAIN_ID,
        spki=new.spki,
        credentials=new.credentials if credentials is None else credentials,
        evidence=new.evidence() if evidence is None else evidence,
        others=others,
    )


# --- admission


@pytest.mark.parametrize("issues", [True, False])
def test_a_joiner_that_holds_its_keys_is_admitted(issues: bool) -> None:
    assert admitted(joiner("n4", CEREMONY, issues=issues))


def test_a_joiner_that_does_not_hold_what_it_names_is_refused() -> None:
    new = joiner("n4", CEREMONY)
    shown = Evidence.decode(new.evidence())
    thief = joiner("n5", CEREMONY)
    stolen = replace(thief, keys=replace(thief.keys, cosigner=new.keys.cosigner))
    assert not admitted(thief, evidence=new.evidence())  # another node's proof
    assert not admitted(thief, evidence=new.evidence(), credentials=new.credentials)
    assert admitted(stolen)  # it does hold the key: its owner gave it away
    assert not admitted(new, evidence=new.evidence(chain_id=bytes(32)))
    for field in ("cosigner_signature", "issuing_signature"):
        signature = bytearray(getattr(shown, field))
        signature[7] ^= 1
        assert not admitted(new, evidence=replace(shown, **{field: bytes(signature)}).encode())
    for wrong in (b"", new.evidence()[:-1], codec.encode((2, b"", b"", b""))):
        assert not admitted(new, evidence=wrong)


def test_the_issuing_certificate_is_the_approved_one_under_the_root_of_genesis() -> None:
    new = joiner("n4", CEREMONY)
    plain = joiner("n4", CEREMONY, issues=False)
    stranger = hold_ceremony(["other"], trust_domain="demo.mesh", now_s=NOW_S)
    foreign = joiner("n4", stranger)
    assert not admitted(foreign)  # the same names, another root key
    assert not admitted(new, evidence=plain.evidence())  # approved with one, shown without
    assert not admitted(plain, evidence=new.evidence())  # approved without, shown with one
    own = replace(new, certificate=GENESIS.issuing_certificates[0])  # a founder's certificate
    assert not admitted(own)
    root = replace(new, certificate=GENESIS.root_certificate)
    assert not admitted(root)


def test_a_cosigner_key_has_one_holder() -> None:
    new = joiner("n4", CEREMONY)
    assert not admitted(new, others=(b"", new.credentials))
    founder = replace(new, keys=replace(new.keys, cosigner=CEREMONY.validators[1].cosigner))
    assert not admitted(founder)


def test_credentials_have_one_encoding() -> None:
    key = bytes(1312)
    found = Credentials(cosigner_key=key, issuing_hash=bytes(32))
    assert Credentials.decode(found.encode()) == found
    for wrong in (
        (1, key[1:], b""),
        (1, key, bytes(31)),
        (2, key, b""),
        (1, key),
        (1, key, b"", b""),
        (True, key, b""),
    ):
        with pytest.raises(MalformedCredentials):
            Credentials.decode(codec.encode(wrong))


@settings(max_examples=200)
@given(st.data())
def test_damaged_evidence_is_refused_and_never_raises(data: st.DataObject) -> None:
    new = NEW
    field = data.draw(st.sampled_from(("evidence", "credentials", "certificate")))
    whole = {
        "evidence": EVIDENCE,
        "credentials": new.credentials,
        "certificate": new.certificate,
    }[field]
    at = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[at] ^ data.draw(st.integers(1, 255))
    damaged = whole[:at] + bytes((flipped,)) + whole[at + 1 :]
    if field == "certificate":  # a hash and a proof that fit it
        damaged_node = replace(new, certificate=damaged)
        assert not admitted(damaged_node)
    elif field == "evidence":
        assert not admitted(new, evidence=damaged)
    else:
        assert not admitted(new, evidence=EVIDENCE, credentials=damaged)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 1 << 60) | st.binary(max_size=80) | st.text(),
    lambda inner: st.lists(inner, max_size=5),
    max_leaves=12,
)


@given(st.binary(max_size=200) | VALUES.map(codec.encode))
def test_decoders_of_what_strangers_send_raise_their_own_errors_only(data: bytes) -> None:
    for decode in (Credentials.decode, Evidence.decode):
        with pytest.raises(MalformedCredentials):
            decode(data)
    with suppress(EpochEndUnproven):
        assert EpochEnd.decode(data).encode() == data


# --- rosters


def test_a_roster_counts_every_validator_and_seats_those_with_keys() -> None:
    new = joiner("n4", CEREMONY)
    mixed = roster(CEREMONY, 3, 1, 2, 3, new, None, None, None)
    assert mixed.needed == weak_quorum(7) == 3
    assert [seat is not None for seat in mixed.seats] == [True] * 4 + [False] * 3
    assert mixed.place_of(new.keys.cosigner.public.raw) == 3
    assert mixed.place_of(GENESIS.cosigner_keys[0]) is None
    assert mixed.issues(new.certificate)
    assert mixed.issues(GENESIS.issuing_certificates[1])
    assert not mixed.issues(GENESIS.issuing_certificates[0])


def test_a_cosigner_key_is_never_counted_twice() -> None:
    new = joiner("n4", CEREMONY)
    twice = roster(CEREMONY, 1, 0, new, new)
    assert twice.seats[1] is not None
    assert twice.seats[2] is None


def test_names_of_joiners_follow_from_their_keys_and_are_no_founders() -> None:
    names = {GENESIS.cosigner_name_of(keys(f"n{at}").cosigner.public.raw) for at in range(4, 9)}
    assert len(names | set(GENESIS.cosigner_names)) == 9
    arc = GENESIS.cosigner_names[0].rpartition(".")[0]
    assert all(name.rpartition(".")[0] == arc for name in names)


# --- what a checkpoint counts


def cosigned(size: int, root: bytes, *signers: tuple[Seat | None, SecretKey]) -> Checkpoint:
    lines = []
    for seat, key in signers:
        assert seat is not None
        message = cosigned_message(
            name=seat.name, timestamp_s=NOW_S, origin=GENESIS.origin, end=size, root=root
        )
        lines.append(
            Cosignature(
                name=seat.name,
                key_id=cosigner_key_id(seat.name, seat.cosigner_key),
                timestamp_s=NOW_S,
                signature=bytes(key.sign(message)),
            )
        )
    return Checkpoint(origin=GENESIS.origin, size=size, root=root, cosignatures=tuple(lines))


def test_old_keys_count_on_trees_no_longer_than_their_epoch_s_and_new_keys_on_all() -> None:
    """About checkpoints alone: whether a smaller tree is the log's own, a size cannot say."""
    new = [joiner(f"n{at}", CEREMONY) for at in range(4, 8)]
    first, second = Roster.of_genesis(GENESIS), roster(CEREMONY, 1, *new)
    known = Succession(rosters=(first, second), ends=(Ended(size=10, not_before_s=NOW_S),))
    old = [(first.seats[at], CEREMONY.validators[at].cosigner) for at in FOUNDERS]
    now = [(second.seats[at], new[at].keys.cosigner) for at in FOUNDERS]
    root = bytes(32)
    for size in (1, 10):
        verify_checkpoint(cosigned(size, root, *old[:2]), GENESIS, known)
    for size in (1, 10, 11, 1_000):
        names = verify_checkpoint(cosigned(size, root, *now[2:]), GENESIS, known)
        assert names == tuple(seat.name for seat in second.seats[2:] if seat is not None)
    for late in (cosigned(11, root, *old), cosigned(11, root, *old, now[0])):
        with pytest.raises(QuorumMissing):
            verify_checkpoint(late, GENESIS, known)
    with pytest.raises(QuorumMissing):  # epochs do not add up
        verify_checkpoint(cosigned(10, root, old[0], now[0]), GENESIS, known)
    # Without a proven end an earlier roster is not heard; genesis alone knows only founders.
    with pytest.raises(QuorumMissing):
        verify_checkpoint(cosigned(1, root, *old), GENESIS, replace(known, ends=()))
    with pytest.raises(QuorumMissing):
        verify_checkpoint(cosigned(1, root, *now), GENESIS)


LIFE_S = GENESIS.leaf_life_s
OLD = [
    (Roster.of_genesis(GENESIS).seats[at], CEREMONY.validators[at].cosigner) for at in FOUNDERS[:2]
]


def minted(
    not_before_s: int, life_s: int = LIFE_S, *, signers: list[tuple[Seat | None, SecretKey]] = OLD
) -> Bundle:
    """A certificate that no block ordered: a tree of this one leaf, cosigned by these."""
    chain, root = made_up(
        GENESIS,
        CEREMONY.validators[0].issuing,
        GENESIS.issuing_certificates[0],
        not_before_s,
        life_s,
    )
    return Bundle(chain=chain, index=0, proof=(), checkpoint=cosigned(1, root, *signers))


def test_validators_that_left_cannot_certify_anything_that_began_after_their_epoch() -> None:
    now = [joiner(f"n{at}", CEREMONY) for at in range(4, 8)]
    ended = Ended(size=10, not_before_s=NOW_S)
    known = Succession(
        rosters=(Roster.of_genesis(GENESIS), roster(CEREMONY, 1, *now)), ends=(ended,)
    )
    for late in (NOW_S + 1, NOW_S + 3_600, NOW_S + 10 * LIFE_S):
        with pytest.raises(CosignersLeft):
            verify_bundle(minted(late), GENESIS, at_s=late, succession=known)
    # What bears the date of their epoch cannot be told from what they issued then, and ends soon.
    last = verify_bundle(minted(NOW_S), GENESIS, at_s=NOW_S + LIFE_S, succession=known)
    assert last.not_after_s == NOW_S + LIFE_S
    for back in (0, 1, 3_600):
        with pytest.raises(Expired):
            verify_bundle(minted(NOW_S - back), GENESIS, at_s=NOW_S + LIFE_S + 1, succession=known)
    # The validators of the newest epoch are bound by no such date.
    seats = known.newest.seats
    signers = [(seats[at], now[at].keys.cosigner) for at in FOUNDERS[:2]]
    assert verify_bundle(
        minted(NOW_S + 1, signers=signers), GENESIS, at_s=NOW_S + 1, succession=known
    )


def test_no_certificate_lives_longer_than_genesis_lets_the_log_write() -> None:
    assert verify_bundle(minted(NOW_S), GENESIS, at_s=NOW_S)
    assert verify_bundle(minted(NOW_S, LIFE_S - 1), GENESIS, at_s=NOW_S)
    for life_s in (LIFE_S + 1, 2 * LIFE_S, 3_650 * 86_400):
        with pytest.raises(ProfileInvalid):
            verify_bundle(minted(NOW_S, life_s), GENESIS, at_s=NOW_S)


def test_an_epoch_without_entries_lets_its_validators_certify_nothing() -> None:
    now = [joiner(f"n{at}", CEREMONY) for at in range(4, 8)]
    known = Succession(
        rosters=(Roster.of_genesis(GENESIS), roster(CEREMONY, 1, *now)), ends=(Ended(size=0),)
    )
    with pytest.raises(QuorumMissing):
        verify_bundle(minted(NOW_S), GENESIS, at_s=NOW_S, succession=known)


def test_the_end_of_an_epoch_is_proven_from_any_later_log_and_nothing_else_is() -> None:
    network = Network(1)
    sizes, starts = [0], [-1]
    for count in (0, 1, 2, 0, 3, 1, 0):
        at = len(sizes)
        network.time_s += at
        network.order(*[network.issue([f"a{at}-{n}.mesh"]) for n in range(count)])
        sizes.append(sizes[-1] + count)
        starts.append(network.time_s - GENESIS.backdate_s if count else starts[-1])
    application, opening = network.application, network.application.opening()
    assert opening.root == application.application_root
    for height, size in enumerate(sizes):
        end = application.epoch_end(height, of=opening.size)
        assert EpochEnd.decode(end.encode()) == end
        assert end.verify(opening, height) == Ended(size=size, not_before_s=starts[height])
        for other, wrong in enumerate(sizes):
            if wrong != size:
                with pytest.raises(EpochEndUnproven):
                    end.verify(opening, other)
        with pytest.raises(EpochEndUnproven):
            replace(end, size=size + 1).verify(opening, height)
        if end.after is not None:
            with pytest.raises(EpochEndUnproven):
                replace(end, after=None).verify(opening, height)
            record = end.after.record
            forged = replace(end.after, record=record[:-1] + bytes((record[-1] ^ 1,)))
            with pytest.raises(EpochEndUnproven):
                replace(end, after=forged).verify(opening, height)
    for wrong_bytes in (b"", codec.encode((1, None)), codec.encode((1, (b"", (b"x",)), None))):
        with pytest.raises(EpochEndUnproven):
            EpochEnd.decode(wrong_bytes)


# --- cosigners and issuers at work


class Succeeding(Network):
    """A cluster whose founders are replaced; place 4 and above are joiners."""

    def __init__(self, joiners: int = 4) -> None:
        super().__init__()
        self.joiners = [joiner(f"n{4 + at}", self.ceremony) for at in range(joiners)]
        self.rosters = [Roster.of_genesis(self.genesis)]
        self.ends: list[Ended] = []
        for at, new in enumerate(self.joiners):
            self.cosigners.append(
                Cosigner(
                    self.applications[at % 4],
                    new.keys.cosigner,
                    broadcast=partial(self._broadcast, 4 + at),
                )
            )

    @property
    def succession(self) -> Succession:
        return Succession(rosters=tuple(self.rosters), ends=tuple(self.ends))

    def enter(self, *members: int | Joiner | None) -> None:
        """The next epoch begins, everywhere at once."""
        size = self.application.size
        start = self.application.entry(size - 1).not_before_s if size else -1
        self.ends.append(Ended(size=size, not_before_s=start))
        self.rosters.append(roster(self.ceremony, len(self.rosters), *members))
        for cosigner in self.cosigners:
            cosigner.enter(self.rosters[-1])


async def test_every_founder_is_replaced_one_by_one_and_checkpoints_go_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Succeeding()
    members: list[int | Joiner | None] = [*FOUNDERS]
    bundles: list[tuple[str, int]] = []
    async with trio.open_nursery() as nursery:
        for cosigner in network.cosigners:
            await nursery.start(cosigner.run)
        for step in range(5):
            network.order(network.issue([f"step{step}.mesh"]))
            network.commit()
            voting = [at for at, cosigner in enumerate(network.cosigners) if cosigner.is_seated]
            assert voting == list(range(step, step + 4))
            for place in voting:
                with trio.fail_after(2):
                    checkpoint = await network.cosigners[place].wait_cosigned(step + 1)
                names = verify_checkpoint(checkpoint, network.genesis, network.succession)
                assert len(names) >= 2
            authority = network.authority(0)
            if step:
                new = network.joiners[0]
                authority = Authority(
                    network.application,
                    new.keys.issuing,
                    certificate=new.certificate,
                    roster=network.rosters[-1],
                )
            assert authority.is_seated
            bundles.append((authority.bundle(step, checkpoint).encode(), step))
            if step < 4:
                members[step] = network.joiners[step]
                network.enter(*members)
        nursery.cancel_scope.cancel()
    for text, index in bundles:  # those of every epoch hold, each with the keys of its epoch
        verified = verify_bundle(text, network.genesis, at_s=NOW_S, succession=network.succession)
        assert verified.index == index
    with pytest.raises(QuorumMissing):
        verify_bundle(bundles[-1][0], network.genesis, at_s=NOW_S)


async def test_a_new_set_signs_the_newest_head_again_so_that_none_of_the_old_is_needed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Succeeding()
    network.silent = set(range(8))  # nothing is exchanged while the founders have the word
    network.order(network.issue(["alice.mesh"]))
    async with trio.open_nursery() as nursery:
        for cosigner in network.cosigners:
            await nursery.start(cosigner.run)
        for cosigner in network.cosigners:
            cosigner.on_block_committed(1)
        await trio.sleep(3)
        assert all(cosigner.checkpoint() is None for cosigner in network.cosigners)
        network.enter(*network.joiners)
        network.silent = set(FOUNDERS)
        with trio.fail_after(2):
            checkpoint = await network.cosigners[5].wait_cosigned(1)
        assert network.cosigners[0].checkpoint() is None
        nursery.cancel_scope.cancel()
    assert verify_checkpoint(checkpoint, network.genesis, network.succession)


async def test_what_counted_is_kept_until_the_next_epoch_has_made_one_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Succeeding()
    network.order(network.issue(["alice.mesh"]))
    async with trio.open_nursery() as nursery:
        for cosigner in network.cosigners:
            await nursery.start(cosigner.run)
        network.commit()
        first = await network.cosigners[1].wait_cosigned(1)
        network.silent = set(range(8))
        network.enter(1, 2, 3, network.joiners[0])
        await trio.sleep(3)
        assert network.cosigners[1].checkpoint() == first
        assert network.cosigners[1].statistics().cosigned_size == 1
        network.silent = set()
        await trio.sleep(3)
        again = network.cosigners[1].checkpoint()
        assert again is not None
        assert {line.name for line in again.cosignatures} >= {
            network.cosigners[at].name for at in (1, 2)
        }
        assert network.cosigners[0].statistics().seated == 0
        nursery.cancel_scope.cancel()


async def test_the_published_log_does_not_shrink_when_an_epoch_begins(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Succeeding()
    network.order(network.issue(["alice.mesh"]))
    network.order(network.issue(["bob.mesh"]))
    target = network.cosigners[1]
    async with trio.open_nursery() as nursery:
        for cosigner in network.cosigners:
            await nursery.start(cosigner.run)
        network.commit()
        await target.wait_cosigned(2)
        network.silent = set(range(8))
        network.enter(1, 2, 3, network.joiners[0])
        await trio.sleep(1)
        for size in (1, 2):  # founder 2, now in place 1, is heard on both heads
            message = cosigned_message(
                name=GENESIS.cosigner_names[2],
                timestamp_s=NOW_S,
                origin=GENESIS.origin,
                end=size,
                root=network.application.root(size),
            )
            signature = bytes(CEREMONY.validators[2].cosigner.sign(message))
            item = (1, size, network.application.root(size), NOW_S, signature)
            await target.on_cosign(bytes(32), codec.encode((2, 1, [item])))
            checkpoint = target.checkpoint()
            assert checkpoint is not None
            assert checkpoint.size == 2
        after = target.checkpoint()
        assert after is not None
        names = {line.name for line in after.cosignatures}
        assert names == {GENESIS.cosigner_names[at] for at in (1, 2)}  # the new set's own
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("validators", [4, 21, 44, 45, 63, MEMBERS_MAX])
async def test_a_checkpoint_carries_enough_cosignatures_for_any_validator_set(
    validators: int, autojump_clock: trio.testing.MockClock
) -> None:
    network = Network(1)
    network.order(network.issue(["alice.mesh"]))
    head = network.application.head()
    assert head is not None
    secrets = [SecretKey.generate(Algorithm.ML_DSA_44) for _ in range(validators)]
    now = Roster.of(
        network.genesis,
        1,
        [(None, make_credentials(secret.public.raw, b"")) for secret in secrets],
    )
    target = Cosigner(
        network.application, secrets[-1], broadcast=partial(network._broadcast, 0), roster=now
    )
    network.silent = {0}
    async with trio.open_nursery() as nursery:
        await nursery.start(target.run)
        target.on_block_committed(1)
        for place, secret in enumerate(secrets[:-1]):
            message = cosigned_message(
                name=network.genesis.cosigner_name_of(secret.public.raw),
                timestamp_s=head.time_s,
                origin=network.genesis.origin,
                end=head.size,
                root=head.root,
            )
            item = (place, head.size, head.root, head.time_s, bytes(secret.sign(message)))
            await target.on_cosign(bytes(32), codec.encode((2, 1, [item])))
        with trio.fail_after(1):
            checkpoint = await target.wait_cosigned(1)
        nursery.cancel_scope.cancel()
    known = Succession(rosters=(Roster.of_genesis(network.genesis), now), ends=(Ended(size=0),))
    bundle = network.authority().bundle(0, checkpoint)
    text = bundle.encode()
    verified = verify_bundle(text, network.genesis, at_s=NOW_S, succession=known)
    assert now.needed <= len(verified.cosigners) <= max(15, now.needed)
    assert Checkpoint.decode(checkpoint.encode()) == checkpoint


async def test_a_removed_cosigner_s_push_counts_for_nothing(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Succeeding()
    network.silent = {1, 2, 3}
    network.enter(1, 2, 3, network.joiners[0])
    network.order(network.issue(["alice.mesh"]))
    removed, target = CEREMONY.validators[0].cosigner, network.cosigners[4]
    head = network.application.head()
    assert head is not None
    message = cosigned_message(
        name=GENESIS.cosigner_names[0],
        timestamp_s=head.time_s,
        origin=GENESIS.origin,
        end=head.size,
        root=head.root,
    )
    signature = bytes(removed.sign(message))
    async with trio.open_nursery() as nursery:
        await nursery.start(target.run)
        target.on_block_committed(1)
        for place in range(4):
            item = (place, head.size, head.root, head.time_s, signature)
            for body in ((1, [item]), (2, 1, [item]), (2, 2, [item])):
                await target.on_cosign(bytes(32), codec.encode(body))
        await trio.sleep(3)
        nursery.cancel_scope.cancel()
    assert target.checkpoint() is None
    counts = target.statistics().cosignatures_total
    assert counts["other_epoch"] == 8
    assert counts["invalid"] == 3
    assert counts["unknown"] == 1  # the target's own place


def test_a_certificate_of_no_member_issues_nothing() -> None:
    network = Network()
    new = joiner("n4", network.ceremony)
    issuing, application = new.keys.issuing, network.application
    authority = Authority(application, issuing, certificate=new.certificate)
    assert not authority.is_seated
    authority.enter(roster(network.ceremony, 1, 1, 2, 3, new))
    assert authority.is_seated
    founder = network.authority(0)
    assert founder.is_seated
    founder.enter(roster(network.ceremony, 1, 1, 2, 3, new))
    assert not founder.is_seated
    foreign = joiner("n4", hold_ceremony(["x"], trust_domain="demo.mesh", now_s=NOW_S))
    with pytest.raises(KeyFileError):
        Authority(application, issuing, certificate=foreign.certificate)
    with pytest.raises(KeyFileError):
        Authority(application, keys("n5").issuing, certificate=new.certificate)


def test_evidence_is_made_for_the_approved_keys_only() -> None:
    new = joiner("n4", CEREMONY)
    other = replace(new, keys=replace(new.keys, cosigner=SecretKey.generate(Algorithm.ML_DSA_44)))
    approved = make_credentials(new.keys.cosigner.public.raw, new.certificate)
    assert approved == new.credentials != other.credentials
    wrong = replace(new, keys=replace(new.keys, cosigner=new.keys.issuing))
    with pytest.raises(KeyFileError):
        wrong.evidence()
