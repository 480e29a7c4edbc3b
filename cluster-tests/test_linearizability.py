"""The checker of read histories, on histories whose verdict is known."""

from __future__ import annotations

from chaos.linearizability import add, linearizable, read, write


def test_reads_one_after_the_other_see_what_was_written() -> None:
    history = [write(1, invoked=0, answered=1), read(1, invoked=2, answered=3)]
    assert linearizable(history, 0)


def test_a_stale_read_after_an_answered_write_is_found() -> None:
    history = [write(1, invoked=0, answered=1), read(0, invoked=2, answered=3)]
    assert not linearizable(history, 0)


def test_a_read_beside_a_write_may_see_either_value() -> None:
    for value in (0, 1):
        assert linearizable(
            [write(1, invoked=0, answered=9), read(value, invoked=1, answered=2)], 0
        )


def test_two_reads_must_not_see_a_write_come_and_go() -> None:
    history = [
        write(1, invoked=0, answered=9),
        read(1, invoked=1, answered=2),
        read(0, invoked=3, answered=4),
    ]
    assert not linearizable(history, 0)


def test_a_write_without_an_answer_may_happen_late_or_never() -> None:
    pending = write(1, invoked=0)
    assert linearizable(
        [pending, read(0, invoked=1, answered=2), read(1, invoked=3, answered=4)], 0
    )
    assert linearizable([pending, read(0, invoked=5, answered=6)], 0)
    assert not linearizable([pending, read(2, invoked=5, answered=6)], 0)


def test_the_write_order_two_clients_see_must_be_one_order() -> None:
    writes = [write(1, invoked=0, answered=9), write(2, invoked=0, answered=9)]
    seen = [read(1, invoked=1, answered=2), read(2, invoked=3, answered=4)]
    assert linearizable([*writes, *seen], 0)
    again = read(1, invoked=5, answered=6)
    assert not linearizable([*writes, *seen, again], 0)


def test_payments_add_up_in_any_order_and_none_is_lost() -> None:
    paid = [add(amount, invoked=at, answered=at + 3) for at, amount in enumerate((1, 2, 4, 8))]
    assert linearizable([*paid, read(15, invoked=8, answered=9)], 0)
    assert not linearizable([*paid, read(14, invoked=8, answered=9)], 0)
    assert linearizable([*paid, read(5, invoked=2.5, answered=2.6)], 0)


def test_thousands_of_overlapping_payments_cost_a_step_each() -> None:
    paid = [add(1, invoked=at, answered=20_000) for at in range(5_000)]
    seen = [read(at, invoked=at + 0.5, answered=at + 0.6) for at in range(0, 5_000, 100)]
    assert linearizable([*paid, *seen], 0)
    too_much = read(101, invoked=100.7, answered=100.8)  # a hundred and one had been asked for
    assert linearizable([*paid, *seen, too_much], 0)
    assert not linearizable([*paid, *seen, read(99, invoked=100.7, answered=100.8)], 0)
