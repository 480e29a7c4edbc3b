"""The Merkle-sum tree against its definition."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caesar.tests.twins import EMPTY, sha256, sum_tree_root
from native.errors import NativeError, ProofInvalid
from native.ledger import SumTree, account_tree_key, system_tree_key, verify_sum_proof

# Few distinct bytes, so that keys share long prefixes.
KEYS = st.lists(st.sampled_from([0, 1, 128, 255]), min_size=32, max_size=32).map(bytes) | (
    st.integers(0, 30).map(lambda number: sha256(bytes([number])))
)
LEAVES = st.dictionaries(KEYS, st.tuples(st.integers(0, 2**50), st.binary(max_size=8)), max_size=24)


def tree_of(leaves: dict[bytes, tuple[int, bytes]]) -> SumTree:
    tree = SumTree()
    tree.put_many([(key, amount, value) for key, (amount, value) in leaves.items()])
    return tree


def listed(leaves: dict[bytes, tuple[int, bytes]]) -> list[tuple[bytes, int, bytes]]:
    return [(key, amount, value) for key, (amount, value) in leaves.items()]


@given(LEAVES, LEAVES, st.data())
def test_the_root_follows_the_definition_through_updates_and_removals(
    first: dict[bytes, tuple[int, bytes]],
    second: dict[bytes, tuple[int, bytes]],
    data: st.DataObject,
) -> None:
    tree = tree_of(first)
    assert tree.root() == sum_tree_root(listed(first))
    tree.put_many(listed(second))
    both = first | second
    assert tree.root() == sum_tree_root(listed(both))
    gone = data.draw(st.sets(st.sampled_from(sorted(both)))) if both else set()
    for key in gone:
        assert tree.remove(key)
        assert not tree.remove(key)
    left = {key: leaf for key, leaf in both.items() if key not in gone}
    assert tree.root() == sum_tree_root(listed(left))
    assert len(tree) == len(left)


@given(LEAVES, KEYS)
def test_a_key_is_provably_there_or_provably_absent(
    leaves: dict[bytes, tuple[int, bytes]], asked: bytes
) -> None:
    tree = tree_of(leaves)
    root, total = tree.root()
    for key in {asked, *leaves}:
        proof = tree.proof(key)
        if key in leaves:
            amount, value = leaves[key]
            verify_sum_proof(root, total, key, proof, amount, value)
            wrong = [(amount + 1, value), (amount, value + b"x"), (0, None)]
        else:
            verify_sum_proof(root, total, key, proof)
            wrong = [(0, b""), (1, b"x")]
        for amount, claimed in wrong:
            with pytest.raises(ProofInvalid):
                verify_sum_proof(root, total, key, proof, amount, claimed)
        with pytest.raises(ProofInvalid):
            verify_sum_proof(root, total + 1, key, proof)


@given(LEAVES, st.binary(max_size=200))
def test_bytes_that_are_no_proof_are_refused(
    leaves: dict[bytes, tuple[int, bytes]], data: bytes
) -> None:
    root, total = tree_of({**leaves, bytes(32): (1, b"")}).root()
    with pytest.raises(ProofInvalid):
        verify_sum_proof(root, total, bytes(32), data, 2, b"x")


def test_an_empty_tree_is_zero() -> None:
    tree = SumTree()
    assert tree.root() == EMPTY
    verify_sum_proof(*EMPTY, bytes(32), tree.proof(bytes(32)))


def test_sums_beyond_64_bits_are_an_error() -> None:
    tree = tree_of({bytes(32): (2**64 - 1, b""), b"\x01" * 32: (1, b"")})
    with pytest.raises(NativeError, match="64 bits"):
        tree.root()
    with pytest.raises(OverflowError):
        tree.put_many([(bytes(32), 2**64, b"")])


def test_the_order_of_updates_does_not_matter() -> None:
    leaves = {sha256(bytes([number])): (number, b"v") for number in range(100)}
    backwards = dict(reversed(leaves.items()))
    assert tree_of(leaves).root() == tree_of(backwards).root()


def test_tree_keys_separate_accounts_from_system_accounts() -> None:
    assert account_tree_key(bytes(32)) == sha256(b"\x01", bytes(32))
    assert system_tree_key(b"fees") == sha256(b"\x02", sha256(b"hypermesh/system/v1", b"fees"))
