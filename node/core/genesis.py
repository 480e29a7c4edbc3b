"""Genesis: what all nodes of a chain agree on before the first block.

`genesis.json` is its form for people; the chain id is the SHA-256 of the canonical bytes of the
decoded content, so spaces and key order in the file do not matter and nothing else is forgiven. The
ledger's and the log's parts are owned by their rooms; addresses of machines are not in here.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, cast

from caesar.core.addresses import address_text, parse_address
from caesar.core.genesis import LedgerGenesis
from caesar.core.rules import Parameters
from native.codec import Value, encode
from native.errors import NativeError
from native.hashing import sha256
from native.values import Amount, Digest, NodeId, PublicKey
from node.errors import GenesisInvalid
from node.limits import (
    GENESIS_FILE_SIZE_BYTES_MAX,
    GENESIS_NAME_LENGTH_MAX,
    GENESIS_VALIDATORS_MAX,
    ROTATION_BLOCKS_MAX,
    ROTATION_BLOCKS_MIN,
)
from trustchain.core.genesis import LogGenesis

GENESIS_VERSION: Final = 1
LABEL_DIGITS: Final = 8
NAME_PATTERN: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
KEYS: Final = ("version", "name", "time_ms", "validators", "agreement", "log", "ledger")
VALIDATOR_KEYS: Final = ("name", "node_id", "algorithm", "key")
TIME_MS_MAX: Final = 2**48  # the year 10889

HINT: Final = "copy genesis.json from another node of the chain; it is never edited by hand"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenesisValidator:
    """One founding validator; its place in the list is its replica index."""

    name: str
    key: PublicKey

    @property
    def node_id(self) -> NodeId:
        """What the key is called on the wire."""
        return self.key.node_id


@dataclass(frozen=True, kw_only=True)
class Genesis:
    """Everything the first block starts from. Raises `GenesisInvalid` when it cannot be true.

    The log's cosigner keys and issuing certificates stand in the validators' order.
    """

    name: str
    time_ms: int
    validators: tuple[GenesisValidator, ...]
    log: LogGenesis
    ledger: LedgerGenesis
    rotation_blocks: int = 0  # how many blocks a primary leads; 0: until it fails

    def __post_init__(self) -> None:
        """Check what no single part can know."""
        if len(self.name) > GENESIS_NAME_LENGTH_MAX or not NAME_PATTERN.fullmatch(self.name):
            raise _invalid(
                "name",
                f"must be 1 to {GENESIS_NAME_LENGTH_MAX} lower-case letters, digits and inner "
                "hyphens",
            )
        if not 0 <= self.time_ms < TIME_MS_MAX:
            raise _invalid("time_ms", "is not a time in milliseconds since 1970")
        least, most = ROTATION_BLOCKS_MIN, ROTATION_BLOCKS_MAX
        if self.rotation_blocks and not least <= self.rotation_blocks <= most:
            raise _invalid("agreement.rotation_blocks", f"must be 0, or {least} to {most}")
        if not 1 <= len(self.validators) <= GENESIS_VALIDATORS_MAX:
            raise _invalid("validators", f"must be 1 to {GENESIS_VALIDATORS_MAX}")
        for what in ("name", "node_id"):
            values = [getattr(validator, what) for validator in self.validators]
            if len(set(values)) != len(values):
                raise _invalid("validators", f"two have the same {what}")
        if len(self.log.cosigner_keys) != len(self.validators):
            raise _invalid("log.cosigner_keys", "must be as many as validators")

    @cached_property
    def chain_id(self) -> Digest:
        """SHA-256 of the canonical bytes."""
        return Digest(sha256(self.encode()))

    @property
    def label(self) -> str:
        """How the chain is shown: `name-xxxxxxxx`."""
        return chain_label(self.name, self.chain_id)

    def encode(self) -> bytes:
        """Return the canonical bytes that the chain id covers."""
        validators: tuple[Value, ...] = tuple(
            (validator.name, validator.key.spki) for validator in self.validators
        )
        return encode(
            (
                GENESIS_VERSION,
                self.name,
                self.time_ms,
                validators,
                (self.rotation_blocks,),
                self.log.fields(),
                cast("Value", self.ledger.value()),
            )
        )

    def to_json(self) -> str:
        """Write `genesis.json`."""
        document = {
            "version": GENESIS_VERSION,
            "name": self.name,
            "time_ms": self.time_ms,
            "validators": [
                {
                    "name": validator.name,
                    "node_id": validator.node_id.hex(),
                    "algorithm": validator.key.algorithm.name_text,
                    "key": base64.b64encode(validator.key.spki).decode(),
                }
                for validator in self.validators
            ],
            "agreement": {"rotation_blocks": self.rotation_blocks},
            "log": self.log.document(),
            "ledger": _ledger_document(self.ledger),
        }
        return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

    @staticmethod
    def from_json(text: str) -> Genesis:
        """Read `genesis.json`; raise `GenesisInvalid` that names the place at fault."""
        if len(text) > GENESIS_FILE_SIZE_BYTES_MAX:
            raise _invalid("the file", f"is bigger than {GENESIS_FILE_SIZE_BYTES_MAX} bytes")
        try:
            document = json.loads(text, object_pairs_hook=_object)
        except RecursionError:
            raise _invalid("the file", "is nested too deeply") from None
        except ValueError as error:
            raise _invalid("the file", f"is not JSON: {error}") from None
        values = _exact(document, KEYS, "the file")
        if values["version"] != GENESIS_VERSION:
            raise GenesisInvalid(
                f"genesis.json: version {values['version']!r} is not {GENESIS_VERSION}",
                hint="this file is for another version of HyperMesh; upgrade or downgrade the node",
            )
        listed = values["validators"]
        if not isinstance(listed, list):
            raise _invalid("validators", "is not a list")
        validators = tuple(_validator(item, at) for at, item in enumerate(listed))
        agreement = _exact(values["agreement"], ("rotation_blocks",), "agreement")
        try:
            log = LogGenesis.from_document(values["log"])
            ledger = _ledger(values["ledger"])
        except Exception as error:
            if not getattr(error, "code", "").startswith("HM-"):
                raise
            raise GenesisInvalid(f"genesis.json: {error}", hint=HINT) from error
        return Genesis(
            name=_text(values["name"], "name"),
            time_ms=_number(values["time_ms"], "time_ms"),
            validators=validators,
            log=log,
            ledger=ledger,
            rotation_blocks=_number(agreement["rotation_blocks"], "agreement.rotation_blocks"),
        )

    def validator_index(self, node_id: bytes) -> int | None:
        """Return the replica index of a node, or None when it is no validator."""
        for index, validator in enumerate(self.validators):
            if validator.node_id == node_id:
                return index
        return None


def chain_label(name: str, chain_id: bytes) -> str:
    """Write a chain as `name-xxxxxxxx`."""
    return f"{name}-{chain_id.hex()[:LABEL_DIGITS]}"


def _ledger_document(ledger: LedgerGenesis) -> dict[str, object]:
    """Write the ledger's part: amounts as decimal strings, as everywhere in JSON."""
    _, fee, valid_for = ledger.parameters.value()
    return {
        "allocations": [
            {"address": address_text(address), "amount": str(amount)}
            for address, amount in ledger.allocations
        ],
        "parameters": {"transfer_fee": str(fee), "valid_for_blocks_max": valid_for},
    }


def _ledger(document: object) -> LedgerGenesis:
    values = _exact(document, ("allocations", "parameters"), "ledger")
    listed = values["allocations"]
    if not isinstance(listed, list):
        raise _invalid("ledger.allocations", "is not a list")
    allocations = []
    for at, item in enumerate(listed):
        place = f"ledger.allocations[{at}]"
        fields = _exact(item, ("address", "amount"), place)
        address = parse_address(_text(fields["address"], f"{place}.address"))
        allocations.append((address, _amount(fields["amount"], f"{place}.amount")))
    place = "ledger.parameters"
    fields = _exact(values["parameters"], ("transfer_fee", "valid_for_blocks_max"), place)
    return LedgerGenesis(
        allocations=tuple(allocations),
        parameters=Parameters(
            transfer_fee=_amount(fields["transfer_fee"], f"{place}.transfer_fee"),
            valid_for_blocks_max=_number(
                fields["valid_for_blocks_max"], f"{place}.valid_for_blocks_max"
            ),
        ),
    )


def _amount(value: object, place: str) -> Amount:
    text = _text(value, place)
    if not (text.isascii() and text.isdigit() and text == str(int(text)) and len(text) <= 20):
        raise _invalid(place, f"{text[:40]!r} is not an amount in base units, such as '1000000000'")
    return Amount(int(text))


def _validator(item: object, at: int) -> GenesisValidator:
    place = f"validators[{at}]"
    values = _exact(item, VALIDATOR_KEYS, place)
    name = _text(values["name"], f"{place}.name")
    if len(name) > GENESIS_NAME_LENGTH_MAX or not NAME_PATTERN.fullmatch(name):
        raise _invalid(f"{place}.name", f"{name!r} is not a node name like 'n0'")
    try:
        key = PublicKey.from_spki(
            base64.b64decode(_text(values["key"], f"{place}.key"), validate=True)
        )
    except (binascii.Error, ValueError, NativeError) as error:
        raise _invalid(f"{place}.key", f"is not a public key: {error}") from None
    if values["algorithm"] != key.algorithm.name_text:
        raise _invalid(f"{place}.algorithm", f"is not {key.algorithm.name_text!r}")
    if values["node_id"] != key.node_id.hex():
        raise _invalid(f"{place}.node_id", "does not belong to the key")
    return GenesisValidator(name=name, key=key)


def _object(pairs: Sequence[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _exact(value: object, keys: Sequence[str], place: str) -> dict[str, object]:
    if not isinstance(value, dict):
        raise _invalid(place, "is not an object")
    for key in value:
        if key not in keys:
            raise _invalid(place, f"has the unknown key {key!r}")
    for key in keys:
        if key not in value:
            raise _invalid(place, f"has no {key!r}")
    return value


def _text(value: object, place: str) -> str:
    if not isinstance(value, str):
        raise _invalid(place, "is not a text")
    return value


def _number(value: object, place: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise _invalid(place, "is not a whole number")
    return value


def _invalid(place: str, message: str) -> GenesisInvalid:
    return GenesisInvalid(f"genesis.json: {place} {message}", hint=HINT)
