"""Account addresses: the hash of a key, and its bech32m text (BIP 350) with the prefix `hm`."""

from typing import Final, NewType

from bech32 import CHARSET, bech32_hrp_expand, bech32_polymod, convertbits

from caesar.errors import AddressInvalid
from native.hashing import sha256
from native.values import PublicKey

Address = NewType("Address", bytes)  # 32 bytes

ADDRESS_SIZE_BYTES: Final = 32
ADDRESS_TEXT_LENGTH: Final = 61  # "hm1", 52 characters of data, 6 of checksum
PREFIX: Final = "hm"

_DOMAIN: Final = b"hypermesh/account/v1"
_BECH32M: Final = 0x2BC830A3  # BIP 350; the library knows the older constant only
_CHECKSUM_LENGTH: Final = 6


def address_of(key: PublicKey) -> Address:
    """Address of the account that this key owns."""
    return Address(sha256(_DOMAIN, key.spki))


def address_text(address: Address) -> str:
    """The form people see: `hm1...`."""
    data = convertbits(address, 8, 5) or []
    remainder = bech32_polymod([*bech32_hrp_expand(PREFIX), *data, *[0] * _CHECKSUM_LENGTH])
    remainder ^= _BECH32M
    checksum = [remainder >> 5 * (5 - index) & 31 for index in range(_CHECKSUM_LENGTH)]
    return PREFIX + "1" + "".join(CHARSET[value] for value in (*data, *checksum))


def parse_address(text: str) -> Address:
    """The address that a text names; raises `AddressInvalid`."""
    folded = text.lower()
    if text not in (folded, text.upper()):
        raise AddressInvalid("an address is written in lower case or upper case, not in both")
    prefix, separator, rest = folded.rpartition("1")
    if separator == "" or prefix != PREFIX:
        raise AddressInvalid(f"an address starts with {PREFIX}1")
    values = [CHARSET.find(character) for character in rest]
    if -1 in values:
        raise AddressInvalid("the address contains a character that no address has")
    if len(folded) != ADDRESS_TEXT_LENGTH:
        raise AddressInvalid(
            f"an address has {ADDRESS_TEXT_LENGTH} characters, this has {len(folded)}"
        )
    if bech32_polymod([*bech32_hrp_expand(PREFIX), *values]) != _BECH32M:
        raise AddressInvalid("the address was mistyped: its checksum does not fit")
    data = convertbits(values[:-_CHECKSUM_LENGTH], 5, 8, False)
    if data is None or len(data) != ADDRESS_SIZE_BYTES:
        raise AddressInvalid("the address was mistyped: its last character does not fit")
    return Address(bytes(data))
