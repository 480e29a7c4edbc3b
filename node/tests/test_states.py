"""Where two states differ: the bisection finds a differing key of any two trees, and only there."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field, replace
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caesar.tests.worlds import World, address, pay, plain_address
from native.codec import decode
from native.hashing import sha256
from native.ledger import SumTree, account_tree_key, system_tree_key
from node.client import NodeClient
from node.errors import StatesMoving, UnexpectedAnswer
from node.runtime.api import StatePathView
from node.states import (
    START,
    Way,
    _leaf,
    _Search,
    _sibling,
    compare,
    cut,
    flip,
    read_way,
    same_bits,
)
from node.tests.fake_node import FakeNode, Served
from node.tests.test_cli import answer, run

Leaves = dict[bytes, tuple[int, bytes]]


def tree_of(leaves: Leaves) -> SumTree:
    tree = SumTree()
    tree.put_many([(key, total, value) for key, (total, value) in leaves.items()])
    tree.root()
    return tree


def way(tree: SumTree, key: bytes, height: int = 7) -> Way:
    value = decode(tree.proof(key), size_max=100_000)
    assert isinstance(value, tuple)
    _, terminal, siblings = value
    assert isinstance(terminal, tuple)
    assert isinstance(siblings, tuple)
    return Way(
        height=height,
        roots={},
        key=key,
        terminal=_leaf(terminal),
        siblings=tuple([_sibling(entry) for entry in siblings]),
        address=None,
    )


# Keys that share long beginnings as well as keys that do not.
keys = st.one_of(
    st.binary(min_size=32, max_size=32),
    st.integers(0, 40).map(lambda number: number.to_bytes(32, "big")),
    st.integers(0, 40).map(lambda number: number.to_bytes(2, "big") + bytes(30)),
)
leaves = st.dictionaries(keys, st.tuples(st.integers(0, 2**40), st.binary(max_size=3)), max_size=24)


@given(leaves, keys)
def test_every_way_leads_to_the_root_of_its_tree(content: Leaves, key: bytes) -> None:
    tree = tree_of(content)
    found = way(tree, key)
    assert found.at(0) == tree.root()
    assert (found.terminal is not None and found.terminal[0] == key) == (key in content)


@given(leaves, leaves)
def test_a_key_that_differs_is_found_whenever_the_roots_differ(one: Leaves, other: Leaves) -> None:
    first, second = tree_of(one), tree_of(other)
    search = _Search(lambda key: way(first, key), lambda key: way(second, key), 7)
    if first.root() == second.root():
        assert one == other
        return
    key = search.differing(way(first, START), way(second, START))
    assert key is not None
    assert one.get(key) != other.get(key)


@given(leaves.filter(lambda content: len(content) > 2), st.data())
def test_one_changed_leaf_among_many_is_named(content: Leaves, data: st.DataObject) -> None:
    key = data.draw(st.sampled_from(sorted(content)))
    total, value = content[key]
    change = data.draw(st.sampled_from(("sum", "value", "gone")))
    other = dict(content)
    if change == "gone":
        del other[key]
    else:
        other[key] = (total + 1, value) if change == "sum" else (total, value + b"!")
    first, second = tree_of(content), tree_of(other)
    for one, two in ((first, second), (second, first)):
        search = _Search(partial(way, one), partial(way, two), 7)
        assert search.differing(way(one, START), way(two, START)) == key


def test_a_large_tree_takes_few_questions() -> None:
    content = {bytes(sha256(b"%d" % at)): (at, b"v") for at in range(3_000)}
    other = dict(content)
    changed = sorted(content)[2_345]
    other[changed] = (10**9, b"v")
    first, second = tree_of(content), tree_of(other)
    search = _Search(lambda key: way(first, key), lambda key: way(second, key), 7)
    assert search.differing(way(first, START), way(second, START)) == changed
    assert search.questions <= 2 * 16


def test_a_node_that_moves_on_ends_the_search() -> None:
    first = tree_of({bytes([at]) * 32: (at, b"") for at in range(64, 256)})
    second = tree_of({bytes([at]) * 32: (at + 1, b"") for at in range(64, 256)})
    search = _Search(lambda key: way(first, key, 8), lambda key: way(second, key), 7)
    search.differing(way(first, START), way(second, START))
    assert search.moved


@given(st.binary(min_size=32, max_size=32), st.integers(0, 255))
def test_bits_are_cut_and_flipped_from_the_front(key: bytes, at: int) -> None:
    assert same_bits(key, flip(key, at), at)
    assert not same_bits(key, flip(key, at), at + 1)
    assert cut(flip(key, at), at) == cut(key, at)


def test_the_way_down_a_real_ledger_names_its_accounts() -> None:
    first, second = World(), World()
    first.execute(pay(recipient=plain_address(1), amount=5, sequence=0))
    second.execute(pay(recipient=plain_address(1), amount=6, sequence=0))

    def ask(world: World, key: bytes) -> Way:
        found = world.application.tree_path(key)
        way = read_way(
            {
                "height": found.height,
                "roots": {},
                "path": base64.b64encode(found.path),
                "address": None if found.address is None else found.address.hex(),
            },
            key,
        )
        assert way.at(0)[0] == world.application.tree_root
        return way

    payee = plain_address(1)
    assert ask(first, account_tree_key(payee)).address == payee
    assert ask(first, system_tree_key(b"treasury")).address is None
    search = _Search(partial(ask, first), partial(ask, second), 1)
    key = search.differing(ask(first, START), ask(second, START))
    assert key in (account_tree_key(payee), account_tree_key(address("alice")))


# --- over HTTP


@dataclass
class TreeNode(FakeNode):
    """Answers from a tree of its own."""

    tree: SumTree = field(default_factory=SumTree)
    roots: tuple[tuple[int, bytes], ...] = ()
    garbage: bool = False

    async def state_path(self, key: bytes) -> StatePathView:
        path = b"?" if self.garbage else self.tree.proof(key)
        return StatePathView(height=self.now.height, roots=self.roots, path=path, address=None)


def node(total: int, log_root: bytes = b"l" * 32) -> TreeNode:
    tree = tree_of(
        {
            system_tree_key(b"fees"): (total, b"v"),
            system_tree_key(b"treasury"): (5, b"v"),
            b"\x01" * 32: (9, b"v"),
        }
    )
    return TreeNode(tree=tree, roots=((1, bytes(sha256(tree.root()[0]))), (2, log_root)))


def test_two_nodes_of_one_state_are_the_same() -> None:
    with Served(node(3)) as one, Served(node(3)) as other:
        found = answer("chain", "diff-state", one.url, other.url)
        assert found["same"]
        assert "the same" in run("chain", "diff-state", one.url, other.url).stdout


def test_the_account_that_differs_is_named_with_what_each_side_says() -> None:
    with Served(node(3)) as one, Served(node(4)) as other:
        found = answer("chain", "diff-state", one.url, other.url, code=1)
        text = run("chain", "diff-state", one.url, other.url)
    assert found["applications"] == ["ledger"]
    assert found["account"] == "fees"
    assert found["balances"] == ["3", "4"]
    assert bytes.fromhex(found["key"]) == system_tree_key(b"fees")
    assert "fees (tree key" in text.stdout
    assert "4 base units" in text.stdout


def test_another_application_that_differs_is_named() -> None:
    with Served(node(3)) as one, Served(node(3, b"m" * 32)) as other:
        found = answer("chain", "diff-state", one.url, other.url, code=1)
    assert (found["applications"], found["key"]) == (["certificate log"], None)


def test_nodes_at_different_blocks_are_not_compared() -> None:
    ahead = node(3)
    ahead.now = replace(ahead.now, height=43)
    pauses: list[float] = []
    with (
        Served(node(3)) as one,
        Served(ahead) as other,
        NodeClient(one.url) as first,
        NodeClient(other.url) as second,
        pytest.raises(StatesMoving, match=r"block 42 and .* at block 43"),
    ):
        compare(first, second, pause=pauses.append)
    assert len(pauses) == 40


def test_an_answer_that_is_no_path_is_refused() -> None:
    strange = node(3)
    strange.garbage = True
    with (
        Served(node(3)) as one,
        Served(strange) as other,
        NodeClient(one.url) as first,
        NodeClient(other.url) as second,
        pytest.raises(UnexpectedAnswer, match="no way down a tree"),
    ):
        compare(first, second)
