"""The door to consensus: restart, rows, deltas, proofs and questions."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from caesar.core.genesis import LedgerGenesis
from caesar.core.invariants import InvariantError
from caesar.core.proofs import (
    AccountProof,
    decode_account_proof,
    verify_account_proof,
    verify_system_proof,
)
from caesar.core.receipts import Outcome, Receipt, receipt_root
from caesar.errors import AccountProofInvalid, StateDamaged
from caesar.limits import SUPPLY
from caesar.runtime.application import TABLE_ACCOUNTS, LedgerApplication
from caesar.tests.worlds import (
    CHAIN,
    FEE,
    MILLION,
    World,
    address,
    block,
    genesis,
    pay,
    plain_address,
)
from consensus.application import Row
from consensus.core.types import Height
from native.batches import Batch
from native.codec import encode
from native.hashing import EMPTY_ROOT
from native.values import Amount, Digest


@pytest.fixture
def world() -> World:
    """Thirty blocks of history."""
    world = World()
    for number in range(30):
        world.execute(
            pay(recipient=plain_address(number % 7), amount=1 + number, sequence=number),
            pay(sender="bob", recipient="alice", amount=3, sequence=number // 2, lane=number % 2),
        )
    return world


def reload(world: World, rows: list[Row], deltas: list[tuple[Height, bytes]]) -> LedgerApplication:
    application = LedgerApplication(CHAIN, world.start)
    application.load(rows, deltas)
    return application


def test_deltas_alone_rebuild_the_state(world: World) -> None:
    again = reload(world, [], world.deltas)
    assert again.commitment == world.application.commitment
    assert again.account(address("alice")) == world.application.account(address("alice"))


def test_rows_alone_rebuild_the_state(world: World) -> None:
    rows = list(world.application.rows(0, world.application.row_count()))
    assert len(rows) == world.application.row_count()
    random.Random(5).shuffle(rows)
    assert reload(world, rows, []).commitment == world.application.commitment


def test_slices_of_rows_written_at_different_heights_and_later_deltas_rebuild_the_state() -> None:
    world = World()
    rows: list[Row] = []
    cursor = first_written = 0
    for number in range(40):
        world.execute(pay(recipient=plain_address(number % 11), amount=1, sequence=number))
        if number >= 12:
            first_written = first_written or world.height
            rows.extend(world.application.rows(cursor, 3))
            cursor = (cursor + 3) % world.application.row_count()
    again = reload(world, rows, world.deltas[first_written:])
    assert again.commitment == world.application.commitment


def test_a_restarted_node_goes_on_like_one_that_never_stopped(world: World) -> None:
    again = reload(world, [], world.deltas)
    more = block(31, [pay(recipient=plain_address(99), sequence=30, key=False)])
    assert again.execute(more, [0]) == world.application.execute(more, [0])
    assert again.row_count() == world.application.row_count()


def test_replaying_a_delta_over_newer_rows_changes_nothing(world: World) -> None:
    rows = list(world.application.rows(0, 100))
    assert reload(world, rows, world.deltas[-20:]).commitment == world.application.commitment


def test_an_empty_block_keeps_the_tree_and_moves_the_height() -> None:
    world = World()
    before = world.application.commitment
    executed = world.execute()
    after = world.application.commitment
    assert executed.root == after.root != before.root
    assert (after.height, after.tree_root) == (1, before.tree_root)
    assert after.receipt_root == EMPTY_ROOT
    assert reload(world, [], world.deltas).commitment == after


def test_damage_in_rows_and_deltas_is_named(world: World) -> None:
    rows = list(world.application.rows(0, 100))
    for bad_rows, bad_deltas in (
        ([], [(Height(1), b"x")]),
        ([], [world.deltas[0], world.deltas[2]]),
        ([Row(table="other", key=0, value=b"")], []),
        ([Row(table="caesar_head", key=0, value=b"x")], []),
        ([Row(table=TABLE_ACCOUNTS, key=0, value=b"x")], []),
        ([rows[-1]], []),
    ):
        with pytest.raises(StateDamaged) as caught:
            reload(world, bad_rows, bad_deltas)
        assert caught.value.code == "HM-L-305"
        assert caught.value.hint


def test_rows_that_lose_money_stop_the_node(world: World) -> None:
    other = World(genesis(rich=("alice",)))
    lost = other.application.rows(2, 1)[0]  # a treasury of another chain
    with pytest.raises(StateDamaged, match="base units"):
        reload(world, [lost], [])


def test_blocks_out_of_order_stop_the_node(world: World) -> None:
    with pytest.raises(InvariantError):
        world.application.execute(block(30, []), [])


def test_only_the_positions_given_are_executed() -> None:
    world = World()
    payloads = [b"\x02other", pay(), b"\x03", pay(sequence=1)]
    executed = world.application.execute(block(1, payloads), [1, 3])
    assert list(executed.positions) == [1, 3]
    assert list(executed.codes) == [Outcome.APPLIED, Outcome.APPLIED]
    assert len(executed.ids) == 64
    assert executed.root == world.application.commitment.root


def test_preparing_and_checking_change_no_outcome() -> None:
    payloads = [pay(), pay(sequence=1), b"\x02x", pay(sequence=2, signer="mallory", key=False)]
    plain, prepared = World(), World()
    prepared.application.prepare(Batch.of(payloads))
    advice = prepared.application.check(Batch.of(payloads), [0, 1, 3])
    expected = plain.application.execute(block(1, payloads), [0, 1, 3])
    assert advice.ids == expected.ids
    assert prepared.application.execute(block(1, payloads), [0, 1, 3]) == expected


def test_the_receipt_root_covers_final_outcomes() -> None:
    world = World()
    executed = world.execute(
        pay(amount=2 * MILLION), b"\x01", pay(sequence=1, more=[(plain_address(1), 2)])
    )
    ids = [Digest(executed.ids[at : at + 32]) for at in (0, 64)]
    receipts = [
        Receipt(
            transaction_id=ids[0], height=1, outcome=Outcome.INSUFFICIENT_FUNDS, fee=Amount(FEE)
        ),
        Receipt(transaction_id=ids[1], height=1, outcome=Outcome.APPLIED, fee=Amount(2 * FEE)),
    ]
    assert world.application.commitment.receipt_root == receipt_root(receipts)


def test_the_delta_takes_about_25_bytes_for_each_touched_account(world: World) -> None:
    delta = world.execute(
        *(pay(recipient=plain_address(1), sequence=30 + number) for number in range(10))
    ).delta
    assert len(delta) < 80 + 3 * 25


def test_an_account_proof_is_checked_offline(world: World) -> None:
    root = world.application.commitment.root
    for name in ("alice", "bob"):
        view = world.application.account(address(name))
        proof = verify_account_proof(view.proof, address=address(name), application_root=root)
        assert proof.state.balance == view.balance == world.balance(name)
        assert proof.state.lanes == view.lanes
        assert proof.commitment.height == view.height == 30
        assert proof.encode() == view.proof


def test_the_absence_of_an_account_is_proved_as_well(world: World) -> None:
    root = world.application.commitment.root
    for number in range(100, 140):
        view = world.application.account(plain_address(number))
        proof = verify_account_proof(
            view.proof, address=plain_address(number), application_root=root
        )
        assert not proof.state.exists
        assert not view.exists
        with pytest.raises(AccountProofInvalid):
            verify_account_proof(view.proof, address=address("alice"), application_root=root)


def test_a_truth_value_is_no_number_in_a_proof(world: World) -> None:
    """Canonical msgpack has both; only one of them is the proof that was made."""
    view = world.application.account(address("alice"))
    proof = decode_account_proof(view.proof)
    commitment, path = proof.commitment.value(), proof.path
    balance, lanes = int(proof.state.balance), proof.state.lanes
    assert proof.state.has_key
    assert encode((1, commitment, (balance, 1, lanes), path)) == view.proof
    for changed in (
        (True, commitment, (balance, 1, lanes), path),
        (1, (True, *commitment[1:]), (balance, 1, lanes), path),
        (1, commitment, (True, 1, lanes), path),
        (1, commitment, (balance, True, lanes), path),
        (1, commitment, (balance, 1, ((False, 1),)), path),
    ):
        with pytest.raises(AccountProofInvalid, match="unknown form"):
            decode_account_proof(encode(changed))


def test_system_accounts_have_proofs(world: World) -> None:
    root = world.application.commitment.root
    supply = world.application.supply()
    for name, amount in (("fees", supply.fees), ("treasury", supply.treasury)):
        view = world.application.system_account(name)
        proof = verify_system_proof(view.proof, name=name, application_root=root)
        assert proof.state.balance == amount
    with pytest.raises(AccountProofInvalid):
        verify_system_proof(view.proof, name="mint", application_root=root)


def test_no_changed_byte_of_a_proof_is_accepted(world: World) -> None:
    root = world.application.commitment.root
    good = world.application.account(address("alice")).proof
    for index in range(len(good)):
        bad = bytearray(good)
        bad[index] ^= 1
        with pytest.raises(AccountProofInvalid) as caught:
            verify_account_proof(bytes(bad), address=address("alice"), application_root=root)
        assert caught.value.code == "HM-L-304"


def test_a_proof_of_an_older_block_does_not_pass_for_a_newer_one(world: World) -> None:
    view = world.application.account(address("alice"))
    world.execute(pay(sender="bob", recipient=plain_address(3), sequence=15, lane=0))
    with pytest.raises(AccountProofInvalid):
        verify_account_proof(
            view.proof,
            address=address("alice"),
            application_root=world.application.commitment.root,
        )


def test_a_proof_over_a_state_without_the_supply_is_refused(world: World) -> None:
    proof = decode_account_proof(world.application.account(address("alice")).proof)
    commitment = proof.commitment
    poor = type(commitment)(
        height=commitment.height,
        tree_root=commitment.tree_root,
        state_sum=SUPPLY - 1,
        receipt_root=commitment.receipt_root,
        parameters_hash=commitment.parameters_hash,
    )
    forged = AccountProof(state=proof.state, commitment=poor, path=proof.path)
    with pytest.raises(AccountProofInvalid, match="supply"):
        verify_account_proof(forged.encode(), address=address("alice"), application_root=poor.root)


def test_supply_and_statistics_add_up(world: World) -> None:
    supply = world.application.supply()
    assert supply.fees + supply.treasury + supply.accounts == supply.supply == SUPPLY
    assert supply.account_count == 2 + 7
    statistics = world.application.statistics()
    assert (statistics.applied_total, statistics.height) == (60, 30)
    assert statistics.conservation_error == 0
    assert world.application.parameters() == world.start.parameters


def test_genesis_is_entered_again_on_request(world: World) -> None:
    fresh = LedgerApplication(CHAIN, world.start)
    assert world.application.genesis() == fresh.genesis()
    assert world.application.name == "caesar"
    assert world.application.tag == 1


def test_a_ledger_without_allocations_belongs_to_the_treasury() -> None:
    application = LedgerApplication(CHAIN, LedgerGenesis())
    assert application.supply().treasury == SUPPLY


def test_the_order_of_independent_transfers_does_not_change_the_tree() -> None:
    world = World(genesis(rich=tuple("abcdefgh")))
    transfers = [
        pay(sender=name, recipient=plain_address(number), amount=1 + number)
        for number, name in enumerate("abcdefgh")
    ]
    first = world.application.tree_root
    roots = set()
    for seed in range(5):
        random.Random(seed).shuffle(transfers)
        again = World(world.start)
        again.execute(*transfers)
        roots.add(again.application.tree_root)
    assert len(roots) == 1
    assert first not in roots


@given(st.data())
def test_malformed_is_what_the_form_alone_shows(data: st.DataObject) -> None:
    """The codes that depose a primary are given exactly to what another node would not pass on."""
    world = World()
    good = [pay(recipient=plain_address(1), sequence=0), pay(sender="bob", recipient="alice")]
    foreign = bytearray(good[0])
    foreign[foreign.index(CHAIN)] ^= 1
    payloads = [*good, bytes(foreign), b"\x01", b"\x01" + bytes(40)]
    for payload in good:
        at = data.draw(st.integers(1, len(payload) - 1))
        bent = bytearray(payload)
        bent[at] ^= data.draw(st.integers(1, 255))
        payloads.append(bytes(bent))
    found = block(1, payloads)
    positions = range(len(payloads))
    formed = world.application.well_formed(found.batch, positions)
    codes = world.application.execute(found, positions).codes
    assert list(formed) == [code not in world.application.malformed_codes for code in codes]
    assert list(formed[:5]) == [1, 1, 0, 0, 0]
