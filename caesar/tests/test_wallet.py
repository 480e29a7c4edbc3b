"""Signing for wallets and load generators."""

import pytest

from caesar.core.receipts import Outcome
from caesar.core.transactions import decode_transaction
from caesar.runtime.wallet import TransactionBuilder, TransferOrder, sign_transfer, sign_transfers
from caesar.tests.worlds import CHAIN, FEE, MILLION, World, address, wallet
from native.errors import KeyInvalid, NativeError
from native.keys import SecretKey
from native.values import Algorithm, Amount


def order(signer: int, sequence: int, **changes: object) -> TransferOrder:
    fields: dict[str, object] = {
        "signer": signer,
        "recipient": address("carol"),
        "amount": Amount(7),
        "sequence": sequence,
        "valid_until": 100,
        "carries_key": sequence == 0,
    }
    return TransferOrder(**(fields | changes))  # type: ignore[arg-type]


@pytest.mark.parametrize("threads", [1, 3])
def test_transfers_signed_in_bulk_execute(threads: int) -> None:
    world = World()
    orders = [order(signer, sequence) for signer in (0, 1) for sequence in range(10)]
    payloads = sign_transfers(
        [wallet("alice"), wallet("bob")], orders, chain_id=CHAIN, threads=threads
    )
    assert world.outcomes(*payloads) == [Outcome.APPLIED] * 20
    assert world.balance("carol") == 140


def test_one_signature_and_many_agree_on_the_bytes() -> None:
    signed = sign_transfer(
        wallet("alice"),
        chain_id=CHAIN,
        recipient=address("carol"),
        amount=Amount(7),
        sequence=3,
        valid_until=100,
    )
    (bulk,) = sign_transfers([wallet("alice")], [order(0, 3)], chain_id=CHAIN)
    assert decode_transaction(bulk).transaction == decode_transaction(signed.payload).transaction
    assert decode_transaction(bulk).transaction.id == signed.id


def test_a_builder_counts_up_and_sends_the_key_until_it_is_known() -> None:
    world = World()
    view = world.application.account(address("alice"))
    builder = TransactionBuilder(
        wallet("alice"), chain_id=CHAIN, sequence=view.next_sequence(), has_key=view.has_key
    )
    first = builder.transfer(address("carol"), Amount(1), valid_until=50)
    second = builder.transfer(address("carol"), Amount(1), valid_until=50)
    builder.key_is_known()
    third = builder.transfer(address("carol"), Amount(1), valid_until=50)
    keys = [decode_transaction(signed.payload).key is not None for signed in (first, second, third)]
    assert keys == [True, True, False]
    executed = world.execute(first.payload, second.payload, third.payload)
    assert executed.codes == bytes(3)
    assert executed.ids == first.id + second.id + third.id
    assert world.balance("alice") == MILLION - 3 - 3 * FEE


def test_keys_of_other_algorithms_own_no_account() -> None:
    big = SecretKey.generate(Algorithm.FALCON_1024)
    with pytest.raises(KeyInvalid):
        sign_transfers([big], [order(0, 0)], chain_id=CHAIN)


def test_orders_that_make_no_sense_are_refused() -> None:
    for wrong in (order(1, 0), order(0, 0, recipient=b"short")):
        with pytest.raises(NativeError):
            sign_transfers([wallet("alice")], [wrong], chain_id=CHAIN)
    assert sign_transfers([wallet("alice")], [], chain_id=CHAIN) == []
