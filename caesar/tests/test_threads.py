"""Queries and admission on other threads while blocks execute."""

import threading

from caesar.core.proofs import verify_account_proof
from caesar.core.receipts import Outcome
from caesar.limits import SUPPLY
from caesar.tests.worlds import World, address, pay, plain_address
from native.batches import Batch

BLOCKS = 40
BLOCK_TRANSACTIONS = 10


def test_queries_see_whole_blocks_and_admission_harms_nothing() -> None:
    payloads = [
        pay(recipient=plain_address(number % 97), sequence=number)
        for number in range(BLOCKS * BLOCK_TRANSACTIONS)
    ]
    expected = World()
    world = World()
    done = threading.Event()
    failures: list[BaseException] = []

    def ask() -> None:
        try:
            while not done.is_set():
                view = world.application.account(address("alice"))
                proof = verify_account_proof(
                    view.proof, address=address("alice"), application_root=view.application_root
                )
                # A block is seen whole: all its transactions or none.
                assert proof.state.next_sequence() == view.height * BLOCK_TRANSACTIONS
                supply = world.application.supply()
                assert supply.accounts + supply.fees + supply.treasury == SUPPLY
        except BaseException as error:
            failures.append(error)

    def admit() -> None:
        try:
            while not done.is_set():
                batch = Batch.of(payloads[:50])
                world.application.prepare(batch)
                world.application.check(batch, range(50))
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for work in (ask, ask, admit)]
    for thread in threads:
        thread.start()
    try:
        for number in range(BLOCKS):
            part = payloads[number * BLOCK_TRANSACTIONS :][:BLOCK_TRANSACTIONS]
            executed = world.execute(*part)
            assert executed == expected.execute(*part)
            assert set(executed.codes) == {Outcome.APPLIED}
    finally:
        done.set()
        for thread in threads:
            thread.join()
    assert failures == []
