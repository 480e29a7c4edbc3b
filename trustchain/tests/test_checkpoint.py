"""C2SP signed notes: checkpoints, cosignatures and what is signed."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from consensus.core.quorum import weak_quorum
from consensus.limits import MEMBERS_MAX
from trustchain import limits
from trustchain.core.bundle import Bundle
from trustchain.core.checkpoint import Checkpoint, Cosignature, cosigned_message, cosigner_key_id
from trustchain.errors import MalformedBundle, MalformedCheckpoint

ORIGIN = "oid/1.3.6.1.4.1.32473.1.0.1"
COSIGNER = "oid/1.3.6.1.4.1.32473.2.1"


def cosignature(name: str = COSIGNER) -> Cosignature:
    return Cosignature(name=name, key_id=b"abcd", timestamp_s=1_800_000_000, signature=bytes(2_420))


def checkpoint(*names: str) -> Checkpoint:
    lines = tuple(cosignature(name) for name in names)
    return Checkpoint(origin=ORIGIN, size=20_852_163, root=bytes(range(32)), cosignatures=lines)


def test_the_signed_message_is_the_one_of_the_specification() -> None:
    """C2SP tlog-cosignature, `cosigned_message`: written out by hand."""
    message = cosigned_message(
        name=COSIGNER, timestamp_s=7, origin=ORIGIN, end=20_852_163, root=bytes(range(32))
    )
    assert message == (
        b"subtree/v1\n\x00"
        + b"\x19oid/1.3.6.1.4.1.32473.2.1"
        + b"\x00\x00\x00\x00\x00\x00\x00\x07"
        + b"\x1boid/1.3.6.1.4.1.32473.1.0.1"
        + b"\x00\x00\x00\x00\x00\x00\x00\x00"
        + b"\x00\x00\x00\x00\x01\x3e\x2d\xc3"
        + bytes(range(32))
    )


def test_the_key_id_is_the_one_of_the_specification() -> None:
    public = bytes(1_312)
    expected = hashlib.sha256(COSIGNER.encode() + b"\n\x06" + public).digest()[:4]
    assert cosigner_key_id(COSIGNER, public) == expected


def test_a_checkpoint_is_three_lines_a_blank_and_its_signatures() -> None:
    lines = checkpoint(COSIGNER).encode().split("\n")
    assert lines[:4] == [
        ORIGIN,
        "20852163",
        "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=",
        "",
    ]
    assert lines[4].startswith(f"— {COSIGNER} YWJjZAAAAABrSdIA")
    assert lines[5:] == [""]


@given(st.sets(st.sampled_from("abcdefgh"), max_size=8))
def test_a_checkpoint_reads_back(names: set[str]) -> None:
    written = checkpoint(*sorted(names))
    assert Checkpoint.decode(written.encode()) == written


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("20852163", "020852163"),
        ("20852163", "-1"),
        ("20852163", "9" * 19),
        ("20852163", "٣"),
        (ORIGIN, ""),
        (ORIGIN, "two words"),
        ("Hh8=\n", "Hh9=\n"),
        ("Hh8=\n", "\n"),
        ("Hh8=\n", "Hh8=\nextension\n"),
        ("— ", "- "),
        (f"— {COSIGNER} ", "—  "),
        ("AAA=\n", "A=\n"),
        ("\n", "\r\n"),
    ],
)
def test_a_checkpoint_in_another_form_is_refused(old: str, new: str) -> None:
    text = checkpoint(COSIGNER).encode()
    assert old in text
    with pytest.raises(MalformedCheckpoint):
        Checkpoint.decode(text.replace(old, new, 1))


def test_a_cosigner_that_signs_twice_is_refused() -> None:
    text = checkpoint(COSIGNER, COSIGNER).encode()
    with pytest.raises(MalformedCheckpoint, match="twice"):
        Checkpoint.decode(text)


def test_a_checkpoint_has_room_for_w_of_the_largest_set_and_the_log_itself() -> None:
    lines = weak_quorum(MEMBERS_MAX) + 1
    assert lines >= 16  # what readers must accept (C2SP tlog-checkpoint)
    names = [f"{place:0255}" for place in range(lines + 1)]
    longest = checkpoint(*names[:lines])
    assert Checkpoint.decode(longest.encode()) == longest
    with pytest.raises(MalformedCheckpoint, match="too many"):
        Checkpoint.decode(checkpoint(*(f"cosigner-{place}" for place in range(lines + 1))).encode())
    chain = tuple(bytes([at]) * limits.DER_SIZE_BYTES_MAX for at in range(3))
    proof = (bytes(32),) * limits.PROOF_HASHES_COUNT_MAX
    bundle = Bundle(chain=chain, index=0, proof=proof, checkpoint=longest)
    assert Bundle.decode(bundle.encode()) == bundle
    assert len(bundle.encode().encode()) <= limits.BUNDLE_SIZE_BYTES_MAX
    assert len(longest.encode().encode()) <= limits.CHECKPOINT_SIZE_BYTES_MAX


def test_more_text_than_that_is_refused() -> None:
    text = checkpoint(COSIGNER).encode() + "\n" * limits.CHECKPOINT_SIZE_BYTES_MAX
    with pytest.raises(MalformedCheckpoint):
        Checkpoint.decode(text)


@given(st.text(max_size=200))
def test_arbitrary_text_never_raises_anything_but_malformed(text: str) -> None:
    with pytest.raises(MalformedCheckpoint):
        Checkpoint.decode(text)
    with pytest.raises(MalformedBundle):
        Bundle.decode(text)


@given(
    chain=st.lists(st.binary(min_size=1, max_size=200), min_size=1, max_size=3),
    index=st.integers(min_value=0, max_value=1 << 47),
    proof=st.lists(st.binary(min_size=32, max_size=32), max_size=20),
)
def test_a_bundle_reads_back(chain: list[bytes], index: int, proof: list[bytes]) -> None:
    bundle = Bundle(
        chain=tuple(chain), index=index, proof=tuple(proof), checkpoint=checkpoint(COSIGNER)
    )
    assert Bundle.decode(bundle.encode()) == bundle


@given(st.binary(max_size=300), st.integers(min_value=0, max_value=2_000))
def test_a_bundle_with_bytes_put_in_is_refused_or_another_bundle(junk: bytes, place: int) -> None:
    bundle = Bundle(chain=(b"leaf",), index=3, proof=(bytes(32),), checkpoint=checkpoint(COSIGNER))
    text = bundle.encode()
    changed = text[:place] + junk.decode("latin-1") + text[place:]
    try:
        decoded = Bundle.decode(changed)
    except MalformedBundle:
        return
    assert changed == text or decoded != bundle
