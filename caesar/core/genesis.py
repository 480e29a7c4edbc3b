"""The ledger's part of genesis: who owns the supply, and the parameters.

The supply is fixed. What the allocations leave over belongs to the treasury.
"""

from dataclasses import dataclass, field
from typing import Final

from caesar.core.addresses import ADDRESS_SIZE_BYTES, Address
from caesar.core.rules import Parameters
from caesar.errors import GenesisInvalid
from caesar.limits import ALLOCATIONS_MAX, SUPPLY
from native.values import Amount

GENESIS_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerGenesis:
    """Allocations in order and parameters; raises `GenesisInvalid` where they do not hold."""

    allocations: tuple[tuple[Address, Amount], ...] = ()
    parameters: Parameters = field(default_factory=Parameters)

    def __post_init__(self) -> None:
        """Check addresses, amounts and their sum."""
        if len(self.allocations) > ALLOCATIONS_MAX:
            raise GenesisInvalid(f"more than {ALLOCATIONS_MAX} allocations")
        seen = set()
        for address, amount in self.allocations:
            if len(address) != ADDRESS_SIZE_BYTES:
                raise GenesisInvalid("an allocation names no address")
            if isinstance(amount, bool) or not 0 < amount <= SUPPLY:
                raise GenesisInvalid(f"an allocation of {amount} base units is not possible")
            if address in seen:
                raise GenesisInvalid("an address has two allocations")
            seen.add(address)
        if self.allocated > SUPPLY:
            raise GenesisInvalid(
                f"the allocations sum up to {self.allocated}, more than the supply of {SUPPLY}"
            )

    @property
    def allocated(self) -> int:
        """Sum of the allocations."""
        return sum(amount for _, amount in self.allocations)

    @property
    def treasury(self) -> Amount:
        """What the allocations leave over."""
        return Amount(SUPPLY - self.allocated)

    def value(self) -> tuple[object, ...]:
        """Positional form for canonical encoding, part of the chain id."""
        return (GENESIS_VERSION, self.allocations, self.parameters.value())

    @classmethod
    def from_value(cls, value: object) -> "LedgerGenesis":
        """Rebuild from the positional form; raises `GenesisInvalid`."""
        match value:
            case (version, tuple(allocations), parameters) if version == GENESIS_VERSION:
                return cls(
                    allocations=tuple(_allocation(item) for item in allocations),
                    parameters=Parameters.from_value(parameters),
                )
            case _:
                raise GenesisInvalid("the ledger's genesis has an unknown form")


def _allocation(value: object) -> tuple[Address, Amount]:
    match value:
        case (bytes(address), int(amount)):
            return Address(address), Amount(amount)
        case _:
            raise GenesisInvalid("an allocation is an address and an amount")
