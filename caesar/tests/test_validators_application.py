"""The registry behind the application door: replay, rows and deltas end in one state."""

import pytest

from caesar.core.validators import Verdict
from caesar.errors import StateDamaged
from caesar.runtime.validators import ValidatorsApplication
from caesar.tests.validator_worlds import RegistryWorld, node, nodes
from caesar.tests.worlds import CHAIN
from consensus.application import Outline, Row
from consensus.core.types import Height
from consensus.errors import SnapshotInvalid
from native.codec import encode
from native.values import Digest


@pytest.fixture(scope="module")
def story() -> RegistryWorld:
    """Seven validators, a removal by proof, a key rotation, refusals in between."""
    net = RegistryWorld(nodes(7))
    net.skip(3)
    net.execute(net.accuse("n3"), b"\x03rubbish")
    net.settle()
    net.execute(net.sign(net.change(rotations=[node("n1", "k1")])))
    net.settle()
    net.execute(net.accuse("n0"))
    net.skip(5)
    return net


def deltas(net: RegistryWorld, after: int = 0) -> list[tuple[Height, bytes]]:
    return [
        (block.header.height, done.delta)
        for block, done in zip(net.blocks, net.executed, strict=True)
        if block.header.height > after
    ]


def test_the_same_blocks_give_the_same_roots(story: RegistryWorld) -> None:
    again = ValidatorsApplication(CHAIN, story.members)
    again.genesis()
    for block, done in zip(story.blocks, story.executed, strict=True):
        found = again.execute(block, range(len(block.batch)))
        assert found == done
    assert again.registry == story.registry


def test_every_prefix_is_rebuilt_from_rows_and_deltas(story: RegistryWorld) -> None:
    """Rows of any block, deltas from there or from further back: equal to having executed."""
    running = ValidatorsApplication(CHAIN, story.members)
    running.genesis()
    rows: list[tuple[int, list[Row]]] = [(0, [])]
    for block, done in zip(story.blocks, story.executed, strict=True):
        running.execute(block, range(len(block.batch)))
        assert running.row_count() == 1
        height = int(block.header.height)
        if height % 20 == 0:
            rows.append((height, list(running.rows(0, 10))))
        assert running.rows(1, 10) == []
        del done
    for height, stored in rows:
        for after in {0, max(0, height - 30), height}:
            loaded = ValidatorsApplication(CHAIN, story.members)
            assert loaded.load(stored, deltas(story, after)) == story.executed[-1].root
            assert loaded.registry == story.registry


def test_a_block_without_decisions_has_a_small_delta(story: RegistryWorld) -> None:
    assert len(story.executed[0].delta) < 50
    assert len(story.executed[3].delta) > 1_000


def test_genesis_starts_over(story: RegistryWorld) -> None:
    application = ValidatorsApplication(CHAIN, story.members)
    start = application.genesis()
    application.execute(story.blocks[0], [])
    assert application.genesis() == start
    assert application.load([], []) == start


def test_the_root_commits_to_everything(story: RegistryWorld) -> None:
    roots = [done.root for done in story.executed]
    assert len(set(roots)) == len(roots)
    other = ValidatorsApplication(CHAIN, nodes(6))
    assert other.genesis() != ValidatorsApplication(CHAIN, nodes(7)).genesis()


def test_the_next_set_is_returned_once(story: RegistryWorld) -> None:
    returned = [
        (int(block.header.height), int(done.next_validators.epoch))
        for block, done in zip(story.blocks, story.executed, strict=True)
        if done.next_validators is not None
    ]
    assert returned == [(4, 1), (70, 2)]


def test_outcomes_are_counted(story: RegistryWorld) -> None:
    found = story.application.statistics()
    assert (found.epoch, found.members, found.tombstones) == (2, 6, 2)
    assert (found.changes_total, found.refused_total, found.pending) == (1, 1, 0)
    assert Verdict.MALFORMED in story.executed[3].codes


@pytest.mark.parametrize(
    ("rows", "logged"),
    [
        ([Row(table="other", key=0, value=b"")], []),
        ([Row(table="validators", key=1, value=b"")], []),
        ([Row(table="validators", key=0, value=b"\xc1")], []),
        ([Row(table="validators", key=0, value=encode((b"\x90", ())))], []),
        ([Row(table="validators", key=0, value=encode((encode(()), ((1, b"short"),))))], []),
        ([], [(Height(1), b"\xc1")]),
        ([], [(Height(1), encode((2, bytes(32), None)))]),
        ([], [(Height(1), encode((1, bytes(31), None)))]),
        ([], [(Height(1), encode((1, bytes(32), 5)))]),
        ([], [(Height(3), encode((3, bytes(32), None)))]),  # blocks 1 and 2 are missing
    ],
)
def test_damaged_rows_and_deltas_are_found(
    rows: list[Row], logged: list[tuple[Height, bytes]]
) -> None:
    application = ValidatorsApplication(Digest(CHAIN), nodes(4))
    with pytest.raises(StateDamaged):
        application.load(rows, logged)


def test_a_snapshot_is_the_state_itself_and_proven_by_its_root(story: RegistryWorld) -> None:
    running = ValidatorsApplication(CHAIN, story.members)
    running.genesis()
    for block in story.blocks:
        running.execute(block, range(len(block.batch)))
    root = story.executed[-1].root
    outline = Outline(opening=running.cut(), parts=())
    assert running.next_chunk() is None
    running.end_cut()
    again = ValidatorsApplication(CHAIN, story.members)
    again.genesis()
    again.check_outline(root, outline)
    assert again.restore(outline, ()) == root
    assert again.registry == story.registry
    for lie in (b"", outline.opening[:-1], ValidatorsApplication(CHAIN, story.members).cut()):
        with pytest.raises(SnapshotInvalid):
            again.check_outline(root, Outline(opening=lie, parts=()))
    with pytest.raises(SnapshotInvalid, match="no chunks"):
        again.check_outline(root, Outline(opening=outline.opening, parts=(b"more",)))
    with pytest.raises(SnapshotInvalid, match="no chunks"):
        again.measure(b"chunk")
    assert again.registry == story.registry
