"""Parameters of the ledger, and the bounds that no parameter may leave.

Parameters are fixed by genesis; `parameters_at` is where a later change by height goes.
"""

from dataclasses import dataclass
from typing import Final

from caesar.errors import GenesisInvalid
from caesar.limits import TRANSFER_FEE_MAX, VALID_FOR_BLOCKS_LEAST, VALID_FOR_BLOCKS_MOST
from native.codec import encode
from native.hashing import sha256
from native.values import Amount, Digest

PARAMETERS_VERSION: Final = 1
TRANSFER_FEE_DEFAULT: Final = Amount(10_000)  # 0.00001 CAES


@dataclass(frozen=True, slots=True, kw_only=True)
class Parameters:
    """What genesis decides about fees and time; raises `GenesisInvalid` out of bounds."""

    transfer_fee: Amount = TRANSFER_FEE_DEFAULT  # per operation, in base units
    valid_for_blocks_max: int = 1_000_000  # how far ahead of the height valid_until may lie

    def __post_init__(self) -> None:
        """Keep the constitution's bounds."""
        _bound("transfer_fee", self.transfer_fee, 0, TRANSFER_FEE_MAX)
        _bound(
            "valid_for_blocks_max",
            self.valid_for_blocks_max,
            VALID_FOR_BLOCKS_LEAST,
            VALID_FOR_BLOCKS_MOST,
        )

    def value(self) -> tuple[int, int, int]:
        """Positional form for canonical encoding."""
        return (PARAMETERS_VERSION, self.transfer_fee, self.valid_for_blocks_max)

    @classmethod
    def from_value(cls, value: object) -> "Parameters":
        """Rebuild from the positional form; raises `GenesisInvalid`."""
        match value:
            case (version, int(fee), int(blocks)) if version == PARAMETERS_VERSION:
                return cls(transfer_fee=Amount(fee), valid_for_blocks_max=blocks)
            case _:
                raise GenesisInvalid("the ledger's parameters have an unknown form")

    @property
    def digest(self) -> Digest:
        """What the application root commits to."""
        return sha256(encode(self.value()))


def parameters_at(parameters: Parameters, height: int) -> Parameters:
    """The parameters in force at a height: those of genesis, at every height so far."""
    del height
    return parameters


def _bound(name: str, value: int, least: int, most: int) -> None:
    if isinstance(value, bool) or not least <= value <= most:
        raise GenesisInvalid(f"{name} must lie between {least} and {most}, not at {value}")
