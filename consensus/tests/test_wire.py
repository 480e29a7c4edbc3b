"""Messages on the wire: what is written is read back, and nothing else is."""

from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from consensus.core import frames, wire
from consensus.core.messages import (
    DOMAINS,
    Blocks,
    Equivocation,
    Message,
    PreparedCertificate,
    PrePrepare,
    ViewChange,
    path_length,
    root_of_path,
    signatures,
)
from consensus.core.types import Number, ReplicaIndex, Sequence
from consensus.errors import MalformedMessage
from consensus.limits import WINDOW_BLOCKS
from consensus.sim.node import sign
from consensus.tests import samples
from native.codec import decode, encode
from native.hashing import inclusion_proof, leaf_hash, merkle_root
from native.values import Digest

MESSAGES = samples.messages()
IDS = [type(message).__name__ for message in MESSAGES]


def through(message: Message) -> Message:
    _, frame_type, data = frames.encode(message)
    return frames.decode(frame_type, data, samples.BOUNDS)


@pytest.mark.parametrize("message", MESSAGES, ids=IDS)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert through(message) == message


@pytest.mark.parametrize("message", MESSAGES, ids=IDS)
def test_every_signature_inside_is_listed_and_valid(message: Message) -> None:
    for _, signer, signed, signature in signatures(through(message), samples.CHAIN):
        assert sign(signer, signed) == signature


def test_a_new_view_lists_all_nested_signatures() -> None:
    # itself, 3 VIEW-CHANGEs of (itself, 3 checkpoints, 2 x 3 of a prepared batch), 3 proposals
    assert len(signatures(samples.new_view(1), samples.CHAIN)) == 1 + 3 * (1 + 3 + 2 * 3) + 3


@pytest.mark.parametrize("message", MESSAGES, ids=IDS)
def test_another_chain_signs_other_bytes(message: Message) -> None:
    other = Digest(b"x" * 32)
    mine = signatures(message, samples.CHAIN)
    theirs = signatures(message, other)
    assert all(one[2] != another[2] for one, another in zip(mine, theirs, strict=True))


@pytest.mark.parametrize("message", MESSAGES, ids=IDS)
@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_damaged_bytes_never_raise_anything_else(message: Message, data: st.DataObject) -> None:
    _, frame_type, encoded = frames.encode(message)
    damaged = bytearray(encoded)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(damaged) - 1))
        damaged[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(damaged)))
    for candidate in (bytes(damaged), bytes(damaged[:cut])):
        try:
            read = frames.decode(frame_type, candidate, samples.BOUNDS)
        except MalformedMessage:
            continue
        assert frames.encode(read)[2] == candidate


@pytest.mark.parametrize("message", MESSAGES, ids=IDS)
def test_true_is_not_one(message: Message) -> None:
    """Both compare equal in Python; on the wire only one of them is the number."""
    _, frame_type, encoded = frames.encode(message)
    for place, byte in enumerate(encoded):
        if byte in (0, 1):
            damaged = bytearray(encoded)
            damaged[place] = 0xC2 + byte
            try:
                read = frames.decode(frame_type, bytes(damaged), samples.BOUNDS)
            except MalformedMessage:
                continue
            assert frames.encode(read)[2] == bytes(damaged), place


def test_domains_differ_and_none_begins_another() -> None:
    texts = list(DOMAINS.values())
    assert not any(a != b and a.startswith(b) for a in texts for b in texts)


@given(st.integers(1, 300), st.data())
def test_paths_lead_to_the_root(size: int, data: st.DataObject) -> None:
    index = data.draw(st.integers(0, size - 1))
    leaves = [b"%d" % leaf for leaf in range(size)]
    path = inclusion_proof(b"".join(leaf_hash(leaf) for leaf in leaves), index)
    assert len(path) == path_length(index, size)
    digests = [Digest(step) for step in path]
    assert root_of_path(leaves[index], index, size, digests) == merkle_root(leaves)


def test_a_proposal_travels_with_its_body() -> None:
    message = samples.pre_prepare(0, 1)
    data = frames.proposal_head(message) + b"the body"
    found, body = frames.split_proposal(data, samples.BOUNDS)
    assert found == message
    assert bytes(body) == b"the body"


@pytest.mark.parametrize("cut", [0, 1, 2, 50])
def test_a_truncated_proposal_is_refused(cut: int) -> None:
    data = frames.proposal_head(samples.pre_prepare(0, 1))
    with pytest.raises(MalformedMessage):
        frames.split_proposal(data[:cut], samples.BOUNDS)


def twice(certificate: PreparedCertificate) -> PreparedCertificate:
    return replace(certificate, votes=(certificate.votes[0], certificate.votes[0]))


def too_few(certificate: PreparedCertificate) -> PreparedCertificate:
    return replace(certificate, votes=certificate.votes[:1])


def with_primary(certificate: PreparedCertificate) -> PreparedCertificate:
    primary = replace(certificate.votes[0], signer=certificate.pre_prepare.signer)
    return replace(certificate, votes=(primary, certificate.votes[1]))


def stranger(certificate: PreparedCertificate) -> PreparedCertificate:
    return replace(
        certificate,
        votes=(replace(certificate.votes[0], signer=ReplicaIndex(4)), certificate.votes[1]),
    )


@pytest.mark.parametrize("spoil", [twice, too_few, with_primary, stranger])
def test_a_bad_prepared_certificate_discards_its_message(
    spoil: Callable[[PreparedCertificate], PreparedCertificate],
) -> None:
    message = samples.view_change(1, 3)
    bad = replace(message, prepared=(message.prepared[0], spoil(message.prepared[1])))
    with pytest.raises(MalformedMessage):
        through(bad)


def _rebuilt(message: ViewChange, *places: int) -> ViewChange:
    return replace(message, prepared=tuple(samples.prepared(0, place) for place in places))


@pytest.mark.parametrize(
    "places",
    [(8, 6), (6, 6), (5,), (5 + WINDOW_BLOCKS + 1,)],
    ids=["out of order", "one place twice", "below the certificate", "above the window"],
)
def test_prepared_places_ascend_inside_the_window(places: tuple[int, ...]) -> None:
    with pytest.raises(MalformedMessage):
        through(_rebuilt(samples.view_change(1, 3), *places))


def test_a_certificate_of_the_asked_view_is_no_evidence() -> None:
    with pytest.raises(MalformedMessage):
        through(replace(samples.view_change(1, 3), prepared=(samples.prepared(1, 6),)))


def test_new_view_needs_a_quorum_of_distinct_senders_for_its_view() -> None:
    message = samples.new_view(1)
    changes = message.view_changes
    for bad in (changes[:2], (*changes[:2], changes[0]), (*changes[:2], samples.view_change(2, 3))):
        with pytest.raises(MalformedMessage):
            through(replace(message, view_changes=bad))


def test_blocks_must_chain_and_end_at_their_certificate() -> None:
    message = MESSAGES[8]
    assert isinstance(message, Blocks)
    for bad in (
        replace(message, headers=message.headers[::-1], batches=message.batches[::-1]),
        replace(message, headers=message.headers[:1], batches=message.batches[:1]),
        replace(message, batches=message.batches[::-1]),
        replace(message, certificate=samples.certificate(7)),
    ):
        with pytest.raises(MalformedMessage):
            through(bad)


def test_equivocation_needs_a_contradiction() -> None:
    same = samples.pre_prepare(0, 1)
    elsewhere = samples.pre_prepare(0, 2, b"q" * 32)
    for second in (same, elsewhere):
        with pytest.raises(MalformedMessage):
            through(Equivocation(first=same, second=second))


def test_numbers_above_64_bits_and_sequence_zero_are_refused() -> None:
    header = replace(samples.batch(1), sequence=Sequence(0))
    with pytest.raises(MalformedMessage):
        through(replace(samples.pre_prepare(0, 1), header=header))


def test_a_batch_of_another_chain_is_refused() -> None:
    header = replace(samples.batch(1), chain_id=Digest(b"x" * 32))
    with pytest.raises(MalformedMessage):
        through(replace(samples.pre_prepare(0, 1), header=header))


def test_the_signer_of_a_pre_prepare_is_the_primary_of_its_view() -> None:
    for view in range(9):
        message = through(samples.pre_prepare(view, 3))
        assert isinstance(message, PrePrepare)
        assert message.signer == view % 4


def test_unknown_frames_are_refused() -> None:
    with pytest.raises(MalformedMessage):
        frames.decode(0x7F, encode(()), samples.BOUNDS)


def test_lists_longer_than_their_limit_are_refused_before_they_are_read() -> None:
    value = decode(frames.encode(samples.view_change(1, 3))[2], size_max=1_000_000)
    assert isinstance(value, tuple)
    flooded = (*value[:5], (b"",) * (WINDOW_BLOCKS + 1), value[6])
    with pytest.raises(MalformedMessage, match="entries"):
        wire.view_change(flooded, samples.BOUNDS)


def test_a_signed_message_has_a_number() -> None:
    message = samples.pre_prepare(0, 1)
    value = replace(message, number=Number(0)).value()
    with pytest.raises(MalformedMessage, match="without a number"):
        wire.pre_prepare(value, samples.BOUNDS)
