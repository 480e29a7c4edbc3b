"""Liars lie in every way they know, under their own key only, and through the front door."""

import random

import pytest

from consensus.sim.checker import Violation
from consensus.sim.ledger import History, Ledger, Operation, payment
from consensus.sim.liars import (
    TRICKS,
    Liar,
    Trick,
    admitted,
    liar_with,
    loses_some,
    mutated,
    says_nothing,
)
from consensus.sim.node import sign
from consensus.sim.scenes.agreement import with_liar
from consensus.sim.scenes.stage import opened
from consensus.tests import samples


@pytest.mark.parametrize("trick", TRICKS, ids=lambda trick: trick.__name__)
def test_a_liar_with_one_trick_lies_and_does_no_harm(trick: Trick) -> None:
    lies = 0
    for seed in (0, 1, 5, 10, 11):
        stage = with_liar(seed, (trick,))
        lies += sum(n for name, n in stage.world.counters.items() if name.startswith("lies: "))
    assert lies or trick in (says_nothing, loses_some)


@pytest.mark.parametrize("seed", range(4))
def test_what_f_primaries_in_a_row_starve_is_executed_after_f_view_changes(seed: int) -> None:
    """The censorship bound: in custody of W correct validators, executed in view f at the latest.

    Everything else goes on being executed meanwhile, so nobody has another reason to complain.
    """
    stage = opened(seed, (7,), {0: liar_with(), 1: liar_with()})
    starved = b"payload of a client nobody likes"
    stage.checker.injected.add(starved)
    for index in (0, 1):
        liar = stage.nodes[index]
        assert isinstance(liar, Liar)
        liar.starves = starved
    for node in list(stage.honest)[:3]:  # W of 7
        node.take_payloads((starved,))
    began_us = stage.world.now_us
    stage.pay_for(5_000, 60)
    assert stage.run(5_000, lambda: starved in stage.checker.acknowledged)
    assert {node.replica.view for node in stage.honest} == {2}
    timeout_us = max(node.replica.request_timeout_us for node in stage.honest)
    assert stage.world.now_us - began_us < 2 * timeout_us + 200_000


def test_what_a_liar_signs_in_the_name_of_another_is_refused() -> None:
    message = samples.pre_prepare(1, 1)
    assert admitted(message, samples.CHAIN, 4) == message
    forged = message.signed(sign(2, message.signed_bytes(samples.CHAIN)))
    assert admitted(forged, samples.CHAIN, 4) is None


def test_a_message_with_one_changed_field_is_refused_or_decoded_and_nothing_else() -> None:
    chance = random.Random(1)
    refused = 0
    for message in samples.messages():
        assert admitted(message, samples.CHAIN, 4) is not None
        for _ in range(60):
            refused += admitted(mutated(message, chance), samples.CHAIN, 4) is None
    assert refused > 100


def test_the_reference_ledger_conserves_refuses_and_applies_once() -> None:
    ledger = Ledger()
    pay = payment(1, 2, 60, 1)
    assert ledger.apply(pay) == "left 40"
    assert ledger.apply(pay) == "known"
    assert ledger.apply(payment(1, 2, 60, 2)) == "failed"
    assert ledger.apply(pay[:-1] + b"x") == "refused"
    assert ledger.balances == {1: 40, 2: 160}


def test_an_answer_that_contradicts_real_time_is_found() -> None:
    history = History()
    history.operations.append(Operation(payload=b"a", invoked_us=1, responded_us=5, height=7))
    history.operations.append(Operation(payload=b"b", invoked_us=6, responded_us=9, height=7))
    with pytest.raises(Violation, match="real time"):
        history.check({})
    history.operations[1].ordered = False
    history.check({})


def test_a_reply_the_log_does_not_give_is_found() -> None:
    history = History()
    history.replied(0, payment(1, 2, 3, 4), 1, "left 97")
    with pytest.raises(Violation, match="acknowledged payload lost"):
        history.check({})
