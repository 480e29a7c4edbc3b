"""Merkle arithmetic against the accumulated vectors of the Merkle Tree Certificate draft.

Leaf i is the single byte i, sizes 0 to 130; lines and digests as published by the draft's authors
(reference/trustchain.md section 2.2).
"""

import hashlib

from native.hashing import EMPTY_ROOT, MerkleTree, leaf_hash, verify_inclusion

SUBTREES = "b82806ad4265bb151c1119c0f4db437bb4d1a1f887b3a7fba1cd4ebf552e3e81"
INCLUSION = "ac2a8f989e44d99e399db448050ff5f19757df53cfb716aa81015d3955d8163f"
SIZE_MAX = 130
LEAVES = [leaf_hash(bytes((place,))) for place in range(SIZE_MAX)]


def valid_ranges() -> list[tuple[int, int]]:
    """Every subtree the draft allows, in ascending order of end, then start."""
    return [
        (start, end)
        for end in range(SIZE_MAX + 1)
        for start in range(end + 1)
        if start == end or start % (1 << (end - start - 1).bit_length()) == 0
    ]


def test_subtree_hashes_match_the_vectors_of_the_draft() -> None:
    tree = MerkleTree(b"".join(LEAVES))
    digest = hashlib.sha256()
    for start, end in valid_ranges():
        root = tree.subtree(start, end) if end > start else EMPTY_ROOT
        digest.update(f"[{start}, {end}) {root.hex()}\n".encode())
    assert digest.hexdigest() == SUBTREES


def test_inclusion_proofs_match_the_vectors_of_the_draft() -> None:
    digest = hashlib.sha256()
    for start, end in valid_ranges():
        tree = MerkleTree(b"".join(LEAVES[start:end]))
        for index in range(start, end):
            proof = tree.inclusion_proof(index - start)
            hashes = "".join(f" {node.hex()}" for node in proof)
            digest.update(f"{index} [{start}, {end}){hashes}\n".encode())
        if end > start:
            verify_inclusion(LEAVES[end - 1], end - start - 1, end - start, proof, tree.root())
    assert digest.hexdigest() == INCLUSION
