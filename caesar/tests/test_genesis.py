"""Genesis of the ledger: the supply is fixed, and nothing hides in its encoding."""

from collections.abc import Callable

import pytest

from caesar.core.genesis import LedgerGenesis
from caesar.core.rules import Parameters
from caesar.errors import GenesisInvalid
from caesar.limits import SUPPLY, TRANSFER_FEE_MAX
from caesar.runtime.application import LedgerApplication
from caesar.tests.worlds import CHAIN, genesis, plain_address
from native.codec import decode, encode
from native.values import Amount

ONE, TWO = plain_address(1), plain_address(2)


def test_what_the_allocations_leave_over_belongs_to_the_treasury() -> None:
    start = LedgerGenesis(allocations=((ONE, Amount(3)), (TWO, Amount(4))))
    assert start.treasury == SUPPLY - 7
    assert LedgerApplication(CHAIN, start).supply().treasury == SUPPLY - 7


def test_the_whole_supply_can_be_allocated() -> None:
    assert LedgerGenesis(allocations=((ONE, Amount(SUPPLY)),)).treasury == 0


@pytest.mark.parametrize(
    "make",
    [
        lambda: LedgerGenesis(allocations=((ONE, Amount(SUPPLY)), (TWO, Amount(1)))),
        lambda: LedgerGenesis(allocations=((ONE, Amount(1)), (ONE, Amount(1)))),
        lambda: LedgerGenesis(allocations=((ONE, Amount(0)),)),
        lambda: LedgerGenesis(allocations=((ONE, Amount(-1)),)),
        lambda: LedgerGenesis(allocations=((type(ONE)(b"x"), Amount(1)),)),
        lambda: Parameters(transfer_fee=Amount(TRANSFER_FEE_MAX + 1)),
        lambda: Parameters(transfer_fee=Amount(-1)),
        lambda: Parameters(valid_for_blocks_max=1),
    ],
)
def test_a_genesis_that_does_not_hold_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(GenesisInvalid) as caught:
        make()
    assert caught.value.code == "HM-L-302"
    assert caught.value.hint


def test_genesis_comes_back_from_its_bytes() -> None:
    start = genesis()
    data = encode(start.value())  # type: ignore[arg-type]
    assert LedgerGenesis.from_value(decode(data, size_max=10_000)) == start


@pytest.mark.parametrize("value", [(), 5, (2, (), (1, 0, 100)), (1, (5,), (1, 0, 100)), (1, (), 7)])
def test_bytes_of_another_form_are_refused(value: object) -> None:
    with pytest.raises(GenesisInvalid):
        LedgerGenesis.from_value(value)


def test_parameters_are_part_of_the_application_root() -> None:
    cheap = LedgerApplication(CHAIN, genesis(fee=1)).commitment
    dear = LedgerApplication(CHAIN, genesis(fee=2)).commitment
    assert cheap.tree_root == dear.tree_root
    assert cheap.root != dear.root
