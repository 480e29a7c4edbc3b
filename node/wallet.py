"""Wallets: sealed key files with a public companion, and building transfers from them.

A wallet is `NAME.key`, always sealed with a passphrase, and `NAME.json` with its address, so that a
balance needs no passphrase. Nothing here talks to a node.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from node.errors import (
    InvalidArgument,
    KeyUnreadable,
    PassphraseWrong,
    WalletExists,
    WalletNotFound,
)
from node.home import data_folder, write_new
from node.inputs import parse_json

if TYPE_CHECKING:
    from caesar.core.transactions import SignedTransaction
    from native.keys import SecretKey

NAME_PATTERN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,30}[a-z0-9])?")
VALID_FOR_BLOCKS: Final = 1_000  # how long a transfer may wait before it can never execute


@dataclass(frozen=True, slots=True, kw_only=True)
class Wallet:
    """One account's key on this machine."""

    name: str
    address: str
    key_file: Path

    def open(self, passphrase: str) -> SecretKey:
        """Unseal the key; raise `PassphraseWrong` or `KeyUnreadable`."""
        from native.errors import KeySealed, NativeError
        from native.keys import SecretKey

        try:
            return SecretKey.load(self.key_file, passphrase)
        except KeySealed:
            raise PassphraseWrong(
                f"the passphrase does not open wallet {self.name}",
                hint="try again; a forgotten passphrase cannot be recovered",
            ) from None
        except NativeError as error:
            raise KeyUnreadable(str(error), hint="restore the wallet from your backup") from None


def wallets_folder(chosen: Path | None = None) -> Path:
    """Return --wallets, $HYPERMESH_WALLETS, or the default."""
    if chosen is not None:
        return chosen
    variable = os.environ.get("HYPERMESH_WALLETS")
    return Path(variable).expanduser() if variable else data_folder() / "wallets"


def create_wallet(folder: Path, name: str, passphrase: str) -> Wallet:
    """Make a new sealed key; raise `WalletExists` rather than touch another one."""
    from caesar.core.addresses import address_of, address_text
    from native.keys import SecretKey
    from native.values import Algorithm

    check_name(name)
    key_file = folder / f"{name}.key"
    public_file = folder / f"{name}.json"
    if key_file.exists() or public_file.exists():
        raise WalletExists(
            f"there is a wallet {name} in {folder} already", hint="choose another name"
        )
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    key = SecretKey.generate(Algorithm.FALCON_512)
    key.save(key_file, passphrase)
    address = address_text(address_of(key.public))
    document = {"name": name, "address": address, "algorithm": key.algorithm.name_text}
    write_new(public_file, json.dumps(document, indent=2).encode() + b"\n")
    return Wallet(name=name, address=address, key_file=key_file)


def find_wallet(name: str, folders: list[Path]) -> Wallet:
    """Return the wallet of this name in the first folder that has it."""
    check_name(name)
    for folder in folders:
        public_file = folder / f"{name}.json"
        if public_file.is_file():
            try:
                address = str(parse_json(public_file.read_bytes())["address"])
            except (ValueError, KeyError, TypeError) as error:
                raise WalletNotFound(
                    f"{public_file} is damaged: {error}", hint="restore it from your backup"
                ) from None
            return Wallet(name=name, address=address, key_file=folder / f"{name}.key")
    looked = ", ".join(str(folder) for folder in folders)
    raise WalletNotFound(
        f"there is no wallet {name} in {looked}",
        hint=f"make one with `hypermesh wallet new {name}`, or name its folder with --wallets",
    )


def resolve_address(text: str, folders: list[Path]) -> str:
    """Return the address that a text names: an address, or a wallet of this machine."""
    if text.lower().startswith("hm1"):
        from caesar.core.addresses import address_text, parse_address

        return address_text(parse_address(text))
    return find_wallet(text, folders).address


def check_name(name: str) -> None:
    """Raise unless the text can be the name of a wallet."""
    if not NAME_PATTERN.fullmatch(name) or name.startswith("hm1"):
        raise InvalidArgument(
            f"{name!r} is not a wallet name",
            hint="1 to 32 lower-case letters, digits and inner hyphens, for example 'alice'",
        )


def build_transfer(
    key: SecretKey,
    *,
    ledger: dict[str, Any],
    account: dict[str, Any],
    recipient: str,
    amount: int,
    lane: int = 0,
    memo: str = "",
) -> SignedTransaction:
    """Build and sign a transfer from what a node says about the ledger and the sender.

    The chain id is signed, so a node that lies about it gets a transfer that is worth nothing.
    """
    from caesar.core.addresses import address_of, parse_address
    from caesar.core.transactions import SignedTransaction, Transaction, Transfer
    from native.hashing import sha256
    from native.values import Amount, Digest

    sequences = {item["lane"]: item["next_sequence"] for item in account["lanes"]}
    transaction = Transaction(
        chain_id=Digest(bytes.fromhex(ledger["chain_id"])),
        sender=address_of(key.public),
        lane=lane,
        sequence=sequences.get(lane, 0),
        valid_until=int(ledger["height"]) + VALID_FOR_BLOCKS,
        max_fee=Amount(int(ledger["parameters"]["transfer_fee"])),
        operations=(Transfer(recipient=parse_address(recipient), amount=Amount(amount)),),
        memo_hash=bytes(sha256(memo.encode())) if memo else b"",
    )
    return SignedTransaction(
        transaction=transaction,
        signature=key.sign(transaction.signed_bytes),
        key=None if account["has_key"] else key.public.raw,
    )
