"""S12: what a light client accepts was agreed, and everything near it is refused.

Keys are real Falcon keys; the sets are made up, so a chain of epochs fits in a test.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import pytest

from consensus.core import wire
from consensus.core.certificates import block_certificate
from consensus.core.light import (
    HeaderProof,
    LightClient,
    Lineage,
    decode_header_proof,
    decode_links,
    encode_links,
)
from consensus.core.messages import (
    BlockCertificate,
    BlockHeader,
    Checkpoint,
    Commit,
    EpochLink,
    Leaf,
    VoteVector,
)
from consensus.core.quorum import faults, quorum
from consensus.core.types import NO_DIGEST, Epoch, Height, Number, ReplicaIndex, View
from consensus.core.types import Sequence as Place
from consensus.core.validators import Validator, ValidatorSet
from consensus.errors import MalformedMessage, ProofInvalid
from consensus.limits import LINKS_MAX, LINKS_SIZE_BYTES_MAX, MESSAGE_BYTES_MAX
from native.codec import encode
from native.keys import SecretKey
from native.values import Algorithm, Digest, Signature

CHAIN = Digest(b"c" * 32)
ROOT_AFTER = Digest(b"t" * 32)


@cache
def secret(_at: int) -> SecretKey:
    return SecretKey.generate(Algorithm.FALCON_512)


def members(epoch: int, *keys: int) -> ValidatorSet:
    return ValidatorSet(
        epoch=Epoch(epoch),
        members=tuple([Validator(name=f"v{at}", key=secret(at).public) for at in keys]),
    )


def chain(first: int, last: int, epoch: int = 0, parent: Digest = CHAIN) -> list[BlockHeader]:
    headers: list[BlockHeader] = []
    for height in range(first, last + 1):
        header = BlockHeader(
            chain_id=CHAIN,
            height=Height(height),
            epoch=Epoch(epoch),
            parent=parent,
            batch=Digest(bytes([height % 256]) * 32),
            time_ms=1_700_000_000_000 + height,
            state_root=Digest(b"s%31d" % height),
        )
        headers.append(header)
        parent = header.hash
    return headers


def certified(
    header: BlockHeader,
    keys: Sequence[int],
    signers: Sequence[int],
    *,
    next_set: Digest = NO_DIGEST,
    neighbours: int = 2,
) -> BlockCertificate:
    """A certificate by `signers` (indexes into `keys`), its leaf among others of one vector."""
    leaf = Checkpoint(
        epoch=header.epoch,
        height=header.height,
        header_hash=header.hash,
        state_root=ROOT_AFTER,
        next_set=next_set,
    )
    others: list[Leaf] = [
        Commit(epoch=header.epoch, view=View(0), sequence=Place(at + 1), digest=header.batch)
        for at in range(neighbours)
    ]
    votes = []
    for signer in signers:
        vector = VoteVector(
            epoch=header.epoch,
            signer=ReplicaIndex(signer),
            number=Number(header.height),
            leaves=(*others, leaf),
        )
        mark = secret(keys[signer]).sign(vector.signed_bytes(CHAIN))
        votes.append((ReplicaIndex(signer), vector.signed(Signature(mark)), neighbours))
    return block_certificate(leaf, votes, len(votes))


FOUR = (0, 1, 2, 3)
CLIENT = LightClient.at_genesis(CHAIN, members(0, *FOUR))
GENESIS = Lineage.at_genesis(CHAIN, members(0, *FOUR))
HEADERS = chain(1, 6)
CERTIFICATE = certified(HEADERS[-1], FOUR, (0, 2, 3))


def test_a_certified_header_is_trusted_with_the_state_after_it() -> None:
    found = CLIENT.verify_header(HeaderProof(headers=(HEADERS[-1],), certificate=CERTIFICATE))
    assert found.header == HEADERS[-1]
    assert found.state_root == ROOT_AFTER


@pytest.mark.parametrize("height", [1, 3, 5])
def test_an_ancestor_is_trusted_with_the_root_its_child_names(height: int) -> None:
    proof = HeaderProof(headers=tuple(HEADERS[height - 1 :]), certificate=CERTIFICATE)
    found = CLIENT.verify_header(proof)
    assert found.header.height == height
    assert found.state_root == HEADERS[height].state_root


def test_a_proof_survives_its_encoding_and_nothing_longer_or_other_does() -> None:
    proof = HeaderProof(headers=tuple(HEADERS[2:]), certificate=CERTIFICATE)
    data = proof.encode()
    assert decode_header_proof(data, GENESIS.bounds) == proof
    other = wire.Bounds(chain_id=Digest(b"d" * 32), members=4)
    own = GENESIS.bounds
    for wrong, bounds in ((data + b"\0", own), (data[:-1], own), (data, other)):
        with pytest.raises(ProofInvalid):
            decode_header_proof(wrong, bounds)


def test_fewer_than_a_quorum_is_refused_for_every_size() -> None:
    for size in (1, 2, 3, 4, 5, 6, 7):
        keys = tuple(range(size))
        client = LightClient.at_genesis(CHAIN, members(0, *keys))
        needed = quorum(size)
        client.verify_certificate(certified(HEADERS[0], keys, keys[:needed]))
        with pytest.raises(ProofInvalid, match="quorum"):
            client.verify_certificate(certified(HEADERS[0], keys, keys[: needed - 1]))


def test_the_liars_alone_convince_nobody_however_often_they_are_counted() -> None:
    liars = range(faults(4))
    vote = certified(HEADERS[0], FOUR, tuple(liars))
    stuffed = replace(vote, votes=vote.votes * quorum(4))
    with pytest.raises(ProofInvalid, match="twice"):
        CLIENT.verify_certificate(stuffed)


def test_every_changed_field_of_the_checkpoint_voids_the_certificate() -> None:
    checkpoint = CERTIFICATE.checkpoint
    for changed in (
        replace(checkpoint, height=Height(7)),
        replace(checkpoint, header_hash=HEADERS[0].hash),
        replace(checkpoint, state_root=Digest(b"x" * 32)),
        replace(checkpoint, next_set=Digest(b"x" * 32)),
        replace(checkpoint, epoch=Epoch(1)),
    ):
        with pytest.raises(ProofInvalid):
            CLIENT.verify_certificate(replace(CERTIFICATE, checkpoint=changed))


def test_every_changed_field_of_a_vote_voids_the_certificate() -> None:
    first = CERTIFICATE.votes[0]
    for changed in (
        replace(first, signer=ReplicaIndex(1)),
        replace(first, signer=ReplicaIndex(4)),
        replace(first, number=Number(first.number + 1)),
        replace(first, index=first.index - 1),
        replace(first, index=first.size),
        replace(first, size=first.size + 1),
        replace(first, path=(*first.path, first.path[0])),
        replace(first, path=()),
        replace(first, signature=CERTIFICATE.votes[1].signature),
    ):
        with pytest.raises(ProofInvalid):
            CLIENT.verify_certificate(replace(CERTIFICATE, votes=(changed, *CERTIFICATE.votes[1:])))


def test_every_changed_field_of_a_header_breaks_the_proof() -> None:
    header = HEADERS[4]
    for changed in (
        replace(header, height=Height(4)),
        replace(header, epoch=Epoch(1)),
        replace(header, parent=Digest(b"x" * 32)),
        replace(header, batch=Digest(b"x" * 32)),
        replace(header, time_ms=header.time_ms + 1),
        replace(header, state_root=Digest(b"x" * 32)),
        replace(header, chain_id=Digest(b"x" * 32)),
    ):
        for headers in ((changed, HEADERS[5]), (changed,)):
            with pytest.raises(ProofInvalid):
                CLIENT.verify_header(HeaderProof(headers=headers, certificate=CERTIFICATE))
    with pytest.raises(ProofInvalid):
        CLIENT.verify_header(HeaderProof(headers=(), certificate=CERTIFICATE))
    with pytest.raises(ProofInvalid):
        CLIENT.verify_header(HeaderProof(headers=(HEADERS[3], HEADERS[5]), certificate=CERTIFICATE))


def test_another_chain_or_other_keys_do_not_verify() -> None:
    elsewhere = LightClient.at_genesis(Digest(b"d" * 32), members(0, *FOUR))
    strangers = LightClient.at_genesis(CHAIN, members(0, 4, 5, 6, 7))
    for client in (elsewhere, strangers):
        with pytest.raises(ProofInvalid):
            client.verify_certificate(CERTIFICATE)


# --- epochs


def test_the_old_quorum_names_the_next_set_and_the_chain_goes_on() -> None:
    client = CLIENT
    keys: tuple[int, ...] = FOUR
    height = 0
    for epoch, after in enumerate([(0, 1, 2, 3, 4, 5, 6), (4, 5, 6, 7), (6, 7, 8)], start=1):
        following = members(epoch, *after)
        height += 10
        (header,) = chain(height, height, epoch - 1)
        signers = tuple(range(quorum(len(keys))))
        client = client.advance(
            certified(header, keys, signers, next_set=following.hash), following
        )
        keys = after
        above = chain(height + 1, height + 1, epoch, header.hash)
        certificate = certified(above[0], keys, tuple(range(quorum(len(keys)))))
        found = client.verify_header(HeaderProof(headers=(header, *above), certificate=certificate))
        assert found.header == header  # of the old epoch, under a certificate of the new one
    assert client.validators.epoch == 3
    assert client.first == 31


def test_the_new_set_cannot_install_itself() -> None:
    """The "I still work here" attack from the other side: only the old quorum names a set."""
    following = members(1, 4, 5, 6, 7)
    own = certified(HEADERS[0], (4, 5, 6, 7), (0, 1, 2), next_set=following.hash)
    with pytest.raises(ProofInvalid, match="signature"):
        CLIENT.advance(own, following)


def test_a_removed_set_cannot_go_on_in_its_own_epoch() -> None:
    following = members(1, 4, 5, 6, 7)
    end = certified(HEADERS[2], FOUR, (0, 1, 2), next_set=following.hash)
    client = CLIENT.advance(end, following)
    with pytest.raises(ProofInvalid, match="epoch 0"):
        client.verify_certificate(certified(HEADERS[3], FOUR, (0, 1, 2)))


def test_an_epoch_has_no_certificate_below_its_first_block() -> None:
    following = members(1, *FOUR)
    end = certified(HEADERS[4], FOUR, (0, 1, 2), next_set=following.hash)
    client = CLIENT.advance(end, following)
    early = certified(replace(HEADERS[4], epoch=Epoch(1)), FOUR, (0, 1, 2))
    with pytest.raises(ProofInvalid, match="begins at block 6"):
        client.verify_certificate(early)


def test_a_set_is_taken_only_by_its_hash_and_in_its_turn() -> None:
    following = members(1, 4, 5, 6, 7)
    end = certified(HEADERS[2], FOUR, (0, 1, 2), next_set=following.hash)
    plain = certified(HEADERS[2], FOUR, (0, 1, 2))
    with pytest.raises(ProofInvalid, match="another validator set"):
        CLIENT.advance(end, members(1, 4, 5, 6, 0))
    with pytest.raises(ProofInvalid, match="does not end"):
        CLIENT.advance(plain, following)
    skipped = members(2, 4, 5, 6, 7)
    with pytest.raises(ProofInvalid, match="next is 1"):
        CLIENT.advance(certified(HEADERS[2], FOUR, (0, 1, 2), next_set=skipped.hash), skipped)


# --- size


@pytest.mark.parametrize(("size", "bytes_max"), [(4, 2_400), (21, 11_200)])
def test_a_certificate_stays_as_small_as_the_reference_says(size: int, bytes_max: int) -> None:
    """14 x 666 bytes of signatures at n = 21 and a path of two hashes each (row F3)."""
    keys = tuple(range(size))
    certificate = certified(HEADERS[0], keys, keys[: quorum(size)])
    data = encode(certificate.value())
    assert quorum(size) * 666 < len(data) <= bytes_max
    LightClient.at_genesis(CHAIN, members(0, *keys)).verify_certificate(certificate)
    smaller = replace(certificate, votes=certificate.votes[1:])
    value = wire.decode_value(encode(smaller.value()), 65_536)
    with pytest.raises(MalformedMessage, match="without a quorum"):
        wire.block_certificate(value, wire.Bounds(chain_id=CHAIN, members=size))


# --- every epoch from genesis


def links(*sets: Sequence[int], every: int = 10) -> list[EpochLink]:
    """Links from the set of genesis through these sets, an epoch of `every` blocks each."""
    made = []
    keys: tuple[int, ...] = FOUR
    for epoch, after in enumerate(sets, start=1):
        (last,) = chain(every * epoch, every * epoch, epoch - 1)
        following = members(epoch, *after)
        signers = tuple(range(quorum(len(keys))))
        certificate = certified(last, keys, signers, next_set=following.hash)
        made.append(EpochLink(certificate=certificate, validators=following))
        keys = tuple(after)
    return made


def test_a_lineage_checks_certificates_of_every_epoch_it_has_proven() -> None:
    sets: list[tuple[int, ...]] = [(0, 1, 2, 3, 4, 5, 6), (4, 5, 6, 7), (6, 7, 8)]
    made = links(*sets)
    lineage = GENESIS.decoded(decode_links(encode_links(made)))
    assert lineage.links == tuple(made)
    assert lineage.bounds.earlier == (4, 7, 4)
    assert lineage.bounds.members == 3
    for epoch, keys in enumerate([FOUR, *sets]):
        headers = chain(10 * epoch + 3, 10 * epoch + 5, epoch)
        signers = tuple(range(quorum(len(keys))))
        certificate = certified(headers[-1], keys, signers)
        proof = HeaderProof(headers=tuple(headers), certificate=certificate)
        decoded = decode_header_proof(proof.encode(), lineage.bounds)
        assert lineage.verify_header(decoded).header == headers[0]
        if epoch:
            with pytest.raises(ProofInvalid):
                decode_header_proof(proof.encode(), lineage.through(epoch - 1).bounds)
            with pytest.raises(ProofInvalid, match="proven is epoch"):
                lineage.through(epoch - 1).verify_header(proof)


def test_an_old_quorum_cannot_certify_beyond_the_end_of_its_epoch() -> None:
    (link,) = links((4, 5, 6, 7))
    lineage = GENESIS.followed([link])
    other = link.validators.hash
    for height, named, refused in (
        (9, NO_DIGEST, False),
        (9, other, True),
        (10, NO_DIGEST, True),
        (10, other, False),
        (11, NO_DIGEST, True),
        (11, other, True),
    ):
        (header,) = chain(height, height)
        certificate = certified(header, FOUR, (0, 1, 2), next_set=named)
        proof = HeaderProof(headers=(header,), certificate=certificate)
        if refused:
            GENESIS.verify_header(proof)  # without the link nobody can know
            with pytest.raises(ProofInvalid, match="ends with block 10"):
                lineage.verify_header(proof)
        else:
            lineage.verify_header(proof)


def test_links_out_of_turn_of_other_keys_or_damaged_prove_nothing() -> None:
    good = links((0, 1, 2, 3, 4), (1, 2, 3, 4))
    with pytest.raises(ProofInvalid):
        GENESIS.followed(good[1:])
    with pytest.raises(ProofInvalid):
        GENESIS.followed([good[0], good[0]])
    rows = decode_links(encode_links(good))
    with pytest.raises(ProofInvalid, match="link to epoch 1"):
        GENESIS.decoded(rows[1:])
    strangers = Lineage.at_genesis(CHAIN, members(0, 5, 6, 7, 8))
    with pytest.raises(ProofInvalid, match="signature"):
        strangers.decoded(rows)
    for at in range(0, len(rows[0]), 97):
        damaged = rows[0][:at] + bytes([rows[0][at] ^ 1]) + rows[0][at + 1 :]
        with pytest.raises(ProofInvalid):
            GENESIS.decoded([damaged, rows[1]])
    for junk in (b"", b"\x01", encode(("text",)), encode_links(good)[:-1]):
        with pytest.raises(ProofInvalid, match="not the links"):
            decode_links(junk)


@pytest.mark.parametrize(("size", "count"), [(7, LINKS_MAX), (64, 600)])
def test_as_many_links_as_the_limits_say_fit_into_a_file(size: int, count: int) -> None:
    keys = tuple(at % 8 for at in range(size))
    (header,) = chain(10, 10)
    following = members(1, *keys)
    signers = tuple(range(quorum(size)))
    certificate = certified(header, keys, signers, next_set=following.hash)
    link = EpochLink(certificate=certificate, validators=following)
    data = encode(link.value())
    assert len(data) < MESSAGE_BYTES_MAX
    assert count * len(data) < LINKS_SIZE_BYTES_MAX


def test_credentials_are_certified_with_the_set_that_has_them() -> None:
    plain = members(1, 1, 2, 3, 4)
    first, *rest = plain.members
    held = replace(plain, members=(replace(first, credentials=b"log keys"), *rest))
    assert held.hash != plain.hash
    assert encode(members(1, 1, 2, 3, 4).value()) == encode(plain.value())  # as before
    end = chain(1, 64)[-1]
    link = EpochLink(
        certificate=certified(end, FOUR, (0, 1, 2), next_set=held.hash), validators=held
    )
    (row,) = decode_links(encode_links([link]))
    known = GENESIS.decoded([row]).newest.validators
    assert known == held
    assert known.members[0].credentials == b"log keys"
    for other in (plain, replace(held, members=(replace(first, credentials=b"mine"), *rest))):
        with pytest.raises(ProofInvalid):
            GENESIS.followed([replace(link, validators=other)])


@pytest.mark.parametrize("credentials", [b"", bytes(2_049), "text", 7])
def test_credentials_are_bounded_bytes(credentials: bytes | str | int) -> None:
    entry = ("v0", secret(0).public.spki, credentials)
    with pytest.raises(MalformedMessage):
        wire.validator_set((1, (entry,)))
    short = ("v0", secret(0).public.spki, bytes(2_048))
    assert wire.validator_set((1, (short,))).members[0].credentials == bytes(2_048)
