"""Followed nodes are compared with others by certificates, and a fork is told with its signers."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from consensus.core.certificates import block_certificate
from consensus.core.light import HeaderProof
from consensus.core.messages import BlockCertificate, BlockHeader, Checkpoint, VoteVector
from consensus.core.types import Epoch, Height, Number, ReplicaIndex
from consensus.tests.test_light import FOUR, certified, chain
from native.keys import SecretKey
from native.values import Digest, Signature
from node.chain import Run
from node.cluster.manifest import Cluster
from node.core.genesis import Genesis
from node.errors import ChainInvalid, NotReachable
from node.preflight import load_key, read_genesis
from node.runtime.api import BlockNews, BlocksPage, HeadersView
from node.tests.fake_node import STATUS, FakeNode, Served
from node.tests.test_cli import run
from node.tests.test_forks import Held, branch
from node.witnesses import Witness, Witnesses

SHARED = chain(1, 9)


def held(headers: list[BlockHeader], *signers: int) -> Held:
    return Held(headers, [certified(headers[-1], FOUR, signers)])


def watch(main: Held, *others: Held) -> Witnesses:
    return Witnesses(main, [Witness(name=f"w{at}", chain=one) for at, one in enumerate(others)])


def test_a_witness_of_the_same_chain_agrees_up_to_what_was_compared() -> None:
    both = watch(held(SHARED, 0, 1, 2), held(SHARED, 1, 2, 3))
    assert both.compare(7, SHARED[6].hash) is None
    assert both.compare(5, SHARED[4].hash) is None
    assert (both.others[0].agreed, both.others[0].trouble) == (7, "")


def test_a_witness_of_another_chain_is_returned() -> None:
    left, right = branch(SHARED, 2, b"a"), branch(SHARED, 2, b"b")
    both = watch(held(left, 0, 1, 2), held(left, 0, 1, 3), held(right, 1, 2, 3))
    assert both.compare(9, left[8].hash) is None
    forked = both.compare(11, left[10].hash)
    assert forked is both.others[1]
    assert [witness.agreed for witness in both.others] == [11, 9]


def test_nothing_is_compared_before_both_have_a_certificate() -> None:
    left = branch(SHARED, 2, b"a")
    behind = watch(held(left, 0, 1, 2), held(SHARED, 0, 1, 2))
    assert behind.compare(11, left[10].hash) is None
    assert (behind.others[0].agreed, "no certificate" in behind.others[0].trouble) == (0, True)
    early = watch(held(SHARED, 0, 1, 2), held(left, 0, 1, 2))
    assert early.compare(11, left[10].hash) is None


def test_a_witness_that_invents_something_raises_no_alarm() -> None:
    """Its certificate has too few votes, or is not there at all."""
    left, right = branch(SHARED, 1, b"a"), branch(SHARED, 1, b"b")
    both = watch(held(left, 0, 1, 2), held(right, 1, 2))
    assert both.compare(10, left[9].hash) is None
    assert "not proven" in both.others[0].trouble


def test_a_witness_that_is_away_is_asked_again() -> None:
    class Away(Held):
        def run(self, first: int) -> Run | None:
            if first < 9:
                raise NotReachable("no node answers", hint="start it")
            return super().run(first)

    away = Away(SHARED, [certified(SHARED[-1], FOUR, (0, 1, 2))])
    both = watch(held(SHARED, 0, 1, 2), away)
    assert both.compare(8, SHARED[7].hash) is None
    assert both.others[0].trouble == "no node answers"
    assert both.compare(9, SHARED[8].hash) is None
    assert (both.others[0].agreed, both.others[0].trouble) == (9, "")


def test_a_node_that_shows_another_block_than_it_certifies_is_not_believed() -> None:
    alone = watch(held(SHARED, 0, 1, 2))
    with pytest.raises(ChainInvalid, match="another hash"):
        alone.compare(9, SHARED[7].hash)
    with pytest.raises(ChainInvalid, match="not proven"):
        watch(held(SHARED, 0, 1)).compare(9, SHARED[8].hash)


# --- through the command


@dataclass
class ChainNode(FakeNode):
    """Serves certified blocks of a real genesis."""

    headers_held: list[BlockHeader] = field(default_factory=list)
    certificates: dict[int, BlockCertificate] = field(default_factory=dict)

    async def epoch_links(self, first: int, count_max: int) -> tuple[int, tuple[bytes, ...]]:
        del first, count_max
        return 0, ()

    async def headers(self, first: int) -> HeadersView | None:
        if first not in self.certificates:
            return None
        proof = HeaderProof(
            headers=(self.headers_held[first - 1],), certificate=self.certificates[first]
        )
        return HeadersView(height=first, last=first, proof=proof.encode(), batches=())

    async def blocks(self, first: int, *, limit: int, timeout_s: float) -> BlocksPage:
        del timeout_s
        items = tuple(
            BlockNews(
                height=int(header.height),
                hash=header.hash,
                parent=header.parent,
                time_ms=header.time_ms,
                state_root=bytes(32),
                applied=0,
                failed=0,
                payload_ids=(),
            )
            for header in self.headers_held[first - 1 : first - 1 + limit]
        )
        newest = len(self.headers_held)
        return BlocksPage(items=items, next_from=first + len(items), oldest=1, newest=newest)


def served(genesis: Genesis, keys: list[SecretKey], marks: bytes, signers: list[int]) -> ChainNode:
    """A chain with a block for each mark, certified by these validators."""
    node = ChainNode()
    parent = Digest(bytes(genesis.chain_id))
    for height, mark in enumerate(marks, 1):
        header = BlockHeader(
            chain_id=Digest(bytes(genesis.chain_id)),
            height=Height(height),
            epoch=Epoch(0),
            parent=parent,
            batch=Digest(bytes([mark]) * 32),
            time_ms=1_700_000_000_000 + height,
            state_root=Digest(bytes([height]) * 32),
        )
        parent = header.hash
        leaf = Checkpoint(
            epoch=Epoch(0),
            height=header.height,
            header_hash=header.hash,
            state_root=Digest(bytes([height + 1]) * 32),
        )
        votes = []
        for signer in signers:
            vector = VoteVector(
                epoch=Epoch(0),
                signer=ReplicaIndex(signer),
                number=Number(height),
                leaves=(leaf,),
            )
            mark_of = Signature(keys[signer].sign(vector.signed_bytes(header.chain_id)))
            votes.append((ReplicaIndex(signer), vector.signed(mark_of), 0))
        node.headers_held.append(header)
        node.certificates[height] = block_certificate(leaf, votes, len(votes))
    node.now = STATUS
    node.set(height=len(marks), height_known=len(marks))
    return node


def test_following_with_a_witness_ends_at_a_fork_and_names_who_signed_both(
    made_cluster: Cluster,
) -> None:
    genesis = read_genesis(made_cluster.genesis)
    keys = [load_key(member.home.node_key) for member in made_cluster.members]
    keys.sort(key=lambda key: genesis.validator_index(key.node_id) or 0)
    names = [genesis.validators[at].name for at in (1, 2)]
    one = served(genesis, keys, b"sharedA", [0, 1, 2])
    other = served(genesis, keys, b"sharedB", [1, 2, 3])
    same = served(genesis, keys, b"sharedA", [0, 2, 3])
    with Served(one) as main, Served(other) as forked, Served(same) as witness:
        where = ("--node", main.url, "--genesis", made_cluster.genesis)
        words = ("chain", "follow", "--from", "1", *where)
        well = run(*words, "--count", "6", "--witness", witness.url)
        assert well.exit_code == 0, well.output
        one.headers_held.append(one.headers_held[-1])  # the last block is compared with the next
        one.headers_held[-1] = served(genesis, keys, b"sharedAA", [0]).headers_held[-1]
        result = run(*words, "--witness", witness.url, "--witness", forked.url)
    assert result.exit_code == 1, result.output
    assert f"{forked.url} certifies another block 7" in result.stderr
    assert "block 7 is another one on each side" in result.stdout
    assert [name for name in names if f"{name} signed" in result.stdout] == names
