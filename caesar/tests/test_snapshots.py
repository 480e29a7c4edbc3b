"""State snapshots of the ledger: the same parts everywhere, each provable, nothing left out."""

import random
from contextlib import suppress
from dataclasses import replace
from functools import cache

import pytest

from caesar.core.addresses import Address
from caesar.core.genesis import LedgerGenesis
from caesar.core.receipts import Outcome
from caesar.core.rules import Parameters
from caesar.runtime.application import LedgerApplication
from caesar.tests.worlds import CHAIN, FEE, MILLION, World, address, genesis, pay, plain_address
from consensus.application import Outline
from consensus.errors import SnapshotInvalid
from native.codec import decode, encode
from native.hashing import sha256
from native.limits import PART_SIZE_BYTES_MAX, PART_SIZE_BYTES_TARGET
from native.values import Amount

CROWD = 20_000  # accounts enough for several chunks


@cache
def crowd() -> LedgerGenesis:
    """Two wallets and thousands of accounts that nobody can sign for."""
    others = ((Address(sha256(number.to_bytes(4, "big"))), Amount(7)) for number in range(CROWD))
    mine = ((address(name), Amount(MILLION)) for name in ("alice", "bob"))
    return LedgerGenesis(
        allocations=(*mine, *others),
        parameters=Parameters(transfer_fee=Amount(FEE), valid_for_blocks_max=1_000),
    )


def read_all(application: LedgerApplication) -> list[bytes]:
    chunks = []
    while (chunk := application.next_chunk()) is not None:
        chunks.append(chunk)
    return chunks


def outline_of(application: LedgerApplication) -> tuple[Outline, list[bytes]]:
    opening = application.cut()
    chunks = read_all(application)
    return Outline(opening=opening, parts=tuple(map(application.measure, chunks))), chunks


@pytest.fixture
def busy() -> World:
    """A state with keys, lanes, new accounts, and enough accounts for several chunks."""
    world = World(crowd())
    for number in range(5):
        world.execute(
            pay(recipient=plain_address(number), amount=1 + number, sequence=number),
            pay(sender="bob", recipient="alice", amount=3, sequence=number // 2, lane=number % 2),
        )
    return world


def test_a_snapshot_holds_the_whole_state_and_is_proven_before_its_chunks(busy: World) -> None:
    outline, chunks = outline_of(busy.application)
    assert len(chunks) >= 4
    assert all(len(chunk) <= PART_SIZE_BYTES_MAX for chunk in chunks)
    assert max(map(len, chunks)) > PART_SIZE_BYTES_TARGET // 2
    root = busy.application.commitment.root
    again = LedgerApplication(CHAIN, busy.start)
    again.genesis()
    again.check_outline(root, outline)
    assert again.restore(outline, chunks) == root
    assert again.account(address("alice")) == busy.application.account(address("alice"))
    assert again.account(address("bob")).lanes == ((0, 3), (1, 2))
    assert again.supply() == busy.application.supply()


def test_a_restored_ledger_goes_on_as_the_others_and_executes_nothing_twice(busy: World) -> None:
    again = World(busy.start)
    again.application.restore(*outline_of(busy.application))
    again.height = busy.height
    old = pay(recipient=plain_address(4), amount=5, sequence=4)
    new = pay(recipient=plain_address(99), amount=5, sequence=5, key=False)
    for world in (again, busy):
        assert world.outcomes(old, new) == [Outcome.SEQUENCE_USED, Outcome.APPLIED]
    assert again.application.commitment == busy.application.commitment
    rows = again.application.rows(0, again.application.row_count())
    reloaded = LedgerApplication(CHAIN, busy.start)
    assert reloaded.load(rows, []) == busy.application.commitment.root


def test_blocks_after_the_cut_do_not_change_what_it_holds(busy: World) -> None:
    expected, chunks = outline_of(busy.application)
    before = busy.application.commitment.root
    opening = busy.application.cut()
    found = []
    at = 0
    while (chunk := busy.application.next_chunk()) is not None:
        found.append(chunk)
        # Old accounts change, get their key and are joined by new ones, all over the tree.
        busy.execute(
            pay(recipient=plain_address(1_000 + at), amount=2, sequence=5 + at),
            pay(sender="bob", recipient=plain_address(at), amount=1, sequence=at, lane=9),
        )
        at += 1
    assert found == chunks
    assert opening == expected.opening
    assert busy.application.commitment.root != before


def test_a_key_that_came_after_the_cut_is_not_in_it() -> None:
    world = World(genesis())
    expected, chunks = outline_of(world.application)
    world.application.cut()
    world.execute(pay(), pay(sender="bob", recipient="alice"))
    assert read_all(world.application) == chunks
    assert world.application.account(address("alice")).has_key
    world.application.check_outline(World(genesis()).application.commitment.root, expected)


def test_the_order_in_which_accounts_came_does_not_change_the_chunks() -> None:
    start = crowd()
    shuffled = list(start.allocations)
    random.Random(5).shuffle(shuffled)
    one = World(start)
    other = World(replace(start, allocations=tuple(shuffled)))
    assert outline_of(one.application) == outline_of(other.application)


def test_a_chunk_with_any_bit_changed_is_another_part_or_none() -> None:
    world = World()
    world.execute(pay(), pay(sender="bob", recipient=plain_address(5)))
    outline, (chunk,) = outline_of(world.application)
    for at in range(len(chunk)):
        bad = bytearray(chunk)
        bad[at] ^= 1 << at % 8
        with suppress(SnapshotInvalid):
            assert world.application.measure(bytes(bad)) != outline.parts[0]


def test_an_outline_that_lies_is_refused(busy: World) -> None:
    application = busy.application
    root = application.commitment.root
    outline, _ = outline_of(application)
    parts = outline.parts
    first = decode(parts[0], size_max=128)
    assert isinstance(first, tuple)
    lies = [
        parts[1:],
        parts[:-1],
        (*parts, parts[-1]),
        (parts[1], parts[0], *parts[2:]),
        (encode((*first[:4], int(first[4]) + 1)), *parts[1:]),
        (encode((*first[:3], bytes(32), first[4])), *parts[1:]),
        (encode((first[0], 65, *first[2:])), *parts[1:]),
        (b"junk", *parts[1:]),
        (encode((1, 2)), *parts[1:]),
        (),
    ]
    for lie in lies:
        with pytest.raises(SnapshotInvalid):
            application.check_outline(root, replace(outline, parts=tuple(lie)))
    for opening in (b"", encode((1, 2)), outline.opening[:-1]):
        with pytest.raises(SnapshotInvalid):
            application.check_outline(root, replace(outline, opening=opening))
    with pytest.raises(SnapshotInvalid, match="another application root"):
        application.check_outline(World().application.commitment.root, outline)


def test_chunks_that_are_not_those_of_the_outline_leave_the_state_alone(busy: World) -> None:
    outline, chunks = outline_of(busy.application)
    other = World(busy.start)
    before = other.application.commitment
    _, others = outline_of(World(genesis()).application)
    for wrong in ([], others, [*chunks[:-1], chunks[-1][:-1]]):
        with pytest.raises(SnapshotInvalid):
            other.application.restore(outline, wrong)
    assert other.application.commitment == before
    other.execute(pay())


def test_a_cut_that_is_dropped_costs_nothing_and_a_new_one_starts_over(busy: World) -> None:
    _, chunks = outline_of(busy.application)
    busy.application.cut()
    busy.application.next_chunk()
    busy.application.end_cut()
    assert busy.application.next_chunk() is None
    busy.application.cut()
    busy.application.next_chunk()
    busy.application.cut()
    assert read_all(busy.application) == chunks
