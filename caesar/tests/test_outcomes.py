"""Each outcome, by name: what is refused leaves no trace, what fails costs the fee."""

import pytest

from caesar.core.receipts import Outcome
from caesar.limits import U64_MAX
from caesar.tests.worlds import (
    FEE,
    MILLION,
    World,
    address,
    genesis,
    pay,
    plain_address,
    wallet,
)
from native.values import Digest


@pytest.fixture
def world() -> World:
    return World()


def assert_refused(world: World, payload: bytes, outcome: Outcome) -> None:
    """The outcome is this, no balance or sequence moved, and admission says the same."""
    before = world.application.tree_root
    assert world.advice(payload) == [outcome]
    assert world.outcomes(payload) == [outcome]
    assert world.application.tree_root == before
    assert outcome.kind == "refused"


def test_a_transfer_moves_the_amount_and_costs_the_fee(world: World) -> None:
    assert world.outcomes(pay(amount=100)) == [Outcome.APPLIED]
    assert world.balance("alice") == MILLION - 100 - FEE
    assert world.balance("bob") == MILLION + 100
    assert world.application.supply().fees == FEE


def test_bytes_that_are_no_transaction_are_refused(world: World) -> None:
    for payload in (b"\x01", b"\x01\x90", pay() + b"\x00", pay()[:-1], b"\x01" + b"\xff" * 9000):
        assert_refused(world, payload, Outcome.UNDECODABLE)


def test_a_transaction_of_another_chain_is_refused(world: World) -> None:
    assert_refused(world, pay(chain_id=Digest(b"\x07" * 32)), Outcome.WRONG_CHAIN)


def test_a_zero_amount_is_refused(world: World) -> None:
    assert_refused(world, pay(amount=0), Outcome.ZERO_AMOUNT)
    assert_refused(world, pay(more=[(plain_address(1), 0)]), Outcome.ZERO_AMOUNT)


def test_a_transfer_to_oneself_is_refused(world: World) -> None:
    assert_refused(world, pay(recipient="alice"), Outcome.SELF_TRANSFER)
    assert_refused(world, pay(more=[(address("alice"), 1)]), Outcome.SELF_TRANSFER)


def test_a_key_of_another_address_is_refused(world: World) -> None:
    payload = pay(as_sender=address("bob"), recipient=plain_address(1))
    assert_refused(world, payload, Outcome.KEY_MISMATCH)


def test_a_changed_signature_is_refused(world: World) -> None:
    payload = bytearray(pay())
    payload[-5] ^= 1
    assert_refused(world, bytes(payload), Outcome.BAD_SIGNATURE)


def test_somebody_elses_signature_is_refused_once_the_key_is_known(world: World) -> None:
    world.execute(pay())
    assert_refused(world, pay(sequence=1, key=False, signer="mallory"), Outcome.BAD_SIGNATURE)


def test_a_sender_nobody_ever_paid_is_refused(world: World) -> None:
    assert_refused(world, pay(sender="nobody"), Outcome.UNKNOWN_SENDER)
    assert_refused(world, pay(sender="nobody", key=False), Outcome.UNKNOWN_SENDER)


def test_a_first_transaction_without_the_key_is_refused(world: World) -> None:
    assert_refused(world, pay(key=False), Outcome.KEY_MISSING)


def test_an_expired_transaction_is_refused(world: World) -> None:
    world.skip_to(8)
    assert world.outcomes(pay(valid_until=9)) == [Outcome.APPLIED]
    assert_refused(world, pay(sequence=1, valid_until=9), Outcome.EXPIRED)


def test_a_transaction_valid_for_too_long_is_refused(world: World) -> None:
    assert_refused(world, pay(valid_until=1_002), Outcome.VALID_TOO_LONG)
    assert world.outcomes(pay(valid_until=1_002)) == [Outcome.APPLIED]


def test_a_fee_above_the_senders_maximum_is_refused(world: World) -> None:
    assert_refused(world, pay(max_fee=FEE - 1), Outcome.FEE_ABOVE_MAXIMUM)
    two = [(plain_address(1), 1)]
    assert_refused(world, pay(max_fee=2 * FEE - 1, more=two), Outcome.FEE_ABOVE_MAXIMUM)


def test_a_consumed_sequence_is_refused(world: World) -> None:
    world.execute(pay())
    assert_refused(world, pay(amount=7), Outcome.SEQUENCE_USED)


def test_a_sequence_ahead_is_refused_but_admitted_while_the_one_before_is_on_its_way(
    world: World,
) -> None:
    payload = pay(sequence=1)
    before = world.application.tree_root
    assert world.advice(payload) == [Outcome.APPLIED]
    assert world.outcomes(payload) == [Outcome.SEQUENCE_AHEAD]
    assert world.application.tree_root == before
    assert world.outcomes(pay(), payload) == [Outcome.APPLIED, Outcome.APPLIED]


def test_an_account_that_cannot_pay_the_fee_is_refused(world: World) -> None:
    world.execute(pay(recipient="carol", amount=FEE - 1))
    assert_refused(world, pay(sender="carol", amount=1), Outcome.CANNOT_PAY_FEE)


def test_too_little_money_fails_costs_the_fee_and_consumes_the_sequence(world: World) -> None:
    assert world.outcomes(pay(amount=MILLION - FEE + 1)) == [Outcome.INSUFFICIENT_FUNDS]
    assert world.balance("alice") == MILLION - FEE
    assert world.balance("bob") == MILLION
    view = world.application.account(address("alice"))
    assert view.next_sequence() == 1
    assert view.has_key
    assert Outcome.INSUFFICIENT_FUNDS.kind == "failed"
    assert world.outcomes(pay(sequence=1, amount=MILLION - 2 * FEE)) == [Outcome.APPLIED]
    assert world.balance("alice") == 0


def test_amounts_beyond_64_bits_fail(world: World) -> None:
    assert world.outcomes(pay(amount=U64_MAX)) == [Outcome.AMOUNT_OVERFLOW]
    two = pay(sequence=1, amount=U64_MAX - 5, more=[(plain_address(1), 6)])
    assert world.outcomes(two) == [Outcome.AMOUNT_OVERFLOW]
    assert world.balance("alice") == MILLION - 3 * FEE
    assert world.outcomes(pay(sequence=2, amount=U64_MAX - FEE)) == [Outcome.INSUFFICIENT_FUNDS]


def test_operations_of_a_transaction_apply_all_or_none(world: World) -> None:
    one, two = plain_address(1), plain_address(2)
    assert world.outcomes(pay(recipient=one, amount=5, more=[(two, 6), (one, 7)])) == [
        Outcome.APPLIED
    ]
    assert (world.balance(one), world.balance(two)) == (12, 6)
    assert world.balance("alice") == MILLION - 18 - 3 * FEE
    failed = pay(sequence=1, recipient=plain_address(3), amount=1, more=[(two, MILLION)])
    assert world.outcomes(failed) == [Outcome.INSUFFICIENT_FUNDS]
    assert not world.application.account(plain_address(3)).exists
    assert world.balance(two) == 6


def test_a_new_account_can_spend_in_the_block_that_opened_it(world: World) -> None:
    outcomes = world.outcomes(
        pay(recipient="dora", amount=1_000),
        pay(sender="dora", recipient="erik", amount=100),
        pay(sender="dora", recipient="erik", amount=100, sequence=1, key=False),
        pay(sender="erik", recipient="dora", amount=50),
    )
    assert outcomes == [Outcome.APPLIED] * 4
    assert world.balance("dora") == 1_000 - 200 - 2 * FEE + 50
    assert world.balance("erik") == 200 - 50 - FEE


def test_a_duplicate_id_is_executed_once(world: World) -> None:
    with_key, without_key = pay(), pay(key=False)
    # Falcon draws a nonce: these are different bytes with the same id.
    executed = world.execute(with_key, without_key, with_key)
    assert list(executed.codes) == [Outcome.APPLIED, Outcome.SEQUENCE_USED, Outcome.SEQUENCE_USED]
    assert executed.ids[:32] == executed.ids[32:64] == executed.ids[64:]
    root = world.application.tree_root
    assert world.outcomes(with_key, without_key) == [Outcome.SEQUENCE_USED] * 2
    assert world.application.tree_root == root


def test_lanes_count_for_themselves(world: World) -> None:
    outcomes = world.outcomes(
        pay(lane=3), pay(lane=255), pay(lane=3, sequence=1), pay(lane=3, sequence=1)
    )
    assert outcomes == [Outcome.APPLIED] * 3 + [Outcome.SEQUENCE_USED]
    assert world.application.account(address("alice")).lanes == ((3, 2), (255, 1))


def test_a_refused_transaction_may_come_again(world: World) -> None:
    payload = pay(sender="frida", amount=1)
    assert world.outcomes(payload) == [Outcome.UNKNOWN_SENDER]
    assert world.outcomes(pay(recipient="frida", amount=500), payload) == [Outcome.APPLIED] * 2


def test_the_key_is_needed_once_only(world: World) -> None:
    assert world.outcomes(pay(), pay(sequence=1, key=False)) == [Outcome.APPLIED] * 2
    assert world.outcomes(pay(sequence=2, key=True)) == [Outcome.APPLIED]
    assert wallet("alice").public.raw in world.application.rows(3, 1)[0].value


def test_a_free_chain_charges_nothing() -> None:
    world = World(genesis(fee=0))
    assert world.outcomes(pay(amount=MILLION, max_fee=0)) == [Outcome.APPLIED]
    assert world.balance("alice") == 0
    assert world.outcomes(pay(sequence=1, amount=1, key=False)) == [Outcome.INSUFFICIENT_FUNDS]


def test_every_outcome_has_a_code_a_sentence_and_a_next_step() -> None:
    assert len({outcome.code for outcome in Outcome}) == len(Outcome)
    for outcome in Outcome:
        assert outcome.code == f"HM-L-{outcome.value:03d}"
        assert outcome.text
        assert outcome.hint
        assert outcome.is_final == (outcome.value < 128)
