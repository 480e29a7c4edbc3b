"""The Merkle tree against its twin, and proofs against every kind of damage."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from native import hashing
from native.errors import NativeError, ProofInvalid
from native.tests import twins

leaves_lists = st.lists(st.binary(max_size=40), max_size=70)
hash_lists = st.lists(st.binary(min_size=32, max_size=32), min_size=1, max_size=70)


@given(leaves_lists)
def test_root_is_that_of_the_rfc(leaves: list[bytes]) -> None:
    hashes = [twins.leaf_hash(leaf) for leaf in leaves]
    assert hashing.merkle_root(leaves) == twins.root(hashes)
    assert hashing.leaf_hashes(leaves) == b"".join(hashes)
    assert hashing.merkle_root_of_hashes(b"".join(hashes)) == twins.root(hashes)
    assert hashing.MerkleTree(b"".join(hashes)).root() == twins.root(hashes)


@given(st.data())
def test_proofs_are_those_of_the_rfc_and_hold(data: st.DataObject) -> None:
    hashes = data.draw(hash_lists)
    tree = hashing.MerkleTree()
    cut = data.draw(st.integers(0, len(hashes)))
    tree.append_many(b"".join(hashes[:cut]))
    tree.append_many(b"".join(hashes[cut:]))
    size = data.draw(st.integers(1, len(hashes)))
    index = data.draw(st.integers(0, size - 1))
    root = twins.root(hashes[:size])
    proof = tree.inclusion_proof(index, size)
    assert list(proof) == twins.inclusion_proof(index, hashes[:size])
    assert proof == hashing.inclusion_proof(b"".join(hashes[:size]), index)
    hashing.verify_inclusion(hashes[index], index, size, proof, root)
    old = data.draw(st.integers(0, size))
    consistency = tree.consistency_proof(old, size)
    assert list(consistency) == twins.consistency_proof(old, hashes[:size])
    assert consistency == hashing.consistency_proof(b"".join(hashes[:size]), old)
    hashing.verify_consistency(old, size, twins.root(hashes[:old]), root, consistency)


@given(st.data())
def test_a_damaged_inclusion_proof_is_refused(data: st.DataObject) -> None:
    hashes = data.draw(st.lists(st.binary(min_size=32, max_size=32), min_size=2, unique=True))
    size, index = len(hashes), data.draw(st.integers(0, len(hashes) - 1))
    proof, root = twins.inclusion_proof(index, hashes), twins.root(hashes)
    at = data.draw(st.integers(0, len(proof) - 1))
    bit = data.draw(st.integers(0, 255))
    flipped = bytearray(proof[at])
    flipped[bit // 8] ^= 1 << bit % 8
    for wrong in (
        [*proof[:at], bytes(flipped), *proof[at + 1 :]],
        proof[:at] + proof[at + 1 :],
        [*proof, root],
        [],
    ):
        with pytest.raises(ProofInvalid):
            hashing.verify_inclusion(hashes[index], index, size, wrong, root)
    with pytest.raises(ProofInvalid):
        hashing.verify_inclusion(hashes[index - 1], index, size, proof, root)
    with pytest.raises(ProofInvalid):
        hashing.verify_inclusion(hashes[index], size, size, proof, root)


@given(st.data())
def test_a_damaged_consistency_proof_is_refused(data: st.DataObject) -> None:
    hashes = data.draw(st.lists(st.binary(min_size=32, max_size=32), min_size=2, unique=True))
    new = len(hashes)
    old = data.draw(st.integers(1, new - 1))
    proof = twins.consistency_proof(old, hashes)
    old_root, new_root = twins.root(hashes[:old]), twins.root(hashes)
    flipped = bytes([proof[0][0] ^ 1]) + proof[0][1:]
    for wrong in (proof[1:], proof[:-1], [*proof, new_root], [flipped, *proof[1:]]):
        with pytest.raises(ProofInvalid):
            hashing.verify_consistency(old, new, old_root, new_root, wrong)
    with pytest.raises(ProofInvalid):
        hashing.verify_consistency(old, new, new_root, new_root, proof)
    with pytest.raises(ProofInvalid):
        hashing.verify_consistency(new, old, old_root, new_root, proof)


def test_a_history_rewritten_behind_the_old_size_is_noticed() -> None:
    hashes = [twins.leaf_hash(bytes([number])) for number in range(9)]
    old_root = twins.root(hashes[:5])
    forged = [bytes(32), *hashes[1:]]
    proof = twins.consistency_proof(5, forged)
    with pytest.raises(ProofInvalid):
        hashing.verify_consistency(5, 9, old_root, twins.root(forged), proof)


@given(st.data())
def test_a_subtree_is_a_tree_of_its_own(data: st.DataObject) -> None:
    hashes = data.draw(hash_lists)
    tree = hashing.MerkleTree(b"".join(hashes))
    start = data.draw(st.integers(0, len(hashes) - 1))
    end = data.draw(st.integers(start + 1, len(hashes)))
    if start % (1 << (end - start - 1).bit_length()):
        with pytest.raises(NativeError, match="aligned"):
            tree.subtree(start, end)
    else:
        assert tree.subtree(start, end) == twins.root(hashes[start:end])


def test_questions_about_missing_leaves_are_refused() -> None:
    tree = hashing.MerkleTree(bytes(96))
    assert (len(tree), tree.size, tree.leaf(2)) == (3, 3, bytes(32))
    for question in (
        lambda: tree.root(4),
        lambda: tree.leaf(3),
        lambda: tree.inclusion_proof(3, 3),
        lambda: tree.inclusion_proof(0, 4),
        lambda: tree.consistency_proof(3, 2),
        lambda: tree.subtree(0, 4),
        lambda: tree.append_many(b"x"),
        lambda: hashing.merkle_root_of_hashes(b"x"),
    ):
        with pytest.raises(NativeError):
            question()


def test_sizes_beyond_memory_are_verified_without_memory() -> None:
    with pytest.raises(ProofInvalid):
        hashing.verify_inclusion(bytes(32), 2**63, 2**64 - 1, [bytes(32)] * 63, bytes(32))
    with pytest.raises(ProofInvalid, match="too many"):
        hashing.verify_inclusion(bytes(32), 0, 1, [bytes(32)] * 129, bytes(32))


CT_LEAVES = [
    b"",
    b"\x00",
    b"\x10",
    b"\x20\x21",
    b"\x30\x31",
    bytes(range(0x40, 0x44)),
    bytes(range(0x50, 0x58)),
    bytes(range(0x60, 0x70)),
]
CT_ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]


def test_roots_are_those_of_the_certificate_transparency_code_base() -> None:
    """Vectors of the reference implementation of RFC 6962 (merkletree tests)."""
    for size, root in enumerate(CT_ROOTS, start=1):
        assert hashing.merkle_root(CT_LEAVES[:size]).hex() == root


def test_sha256_joins_its_parts() -> None:
    assert hashing.sha256(b"a", b"bc") == hashlib.sha256(b"abc").digest()
    assert hashing.merkle_root([]) == hashing.EMPTY_ROOT
