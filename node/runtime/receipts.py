"""Receipts of one block as one sorted blob.

A record is 36 bytes: id (32), application tag (1), outcome code (1), position in the batch (u16
big-endian). Records rise by id, so a lookup is a binary search and no per-receipt row exists.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from consensus.application import Executed, has_receipt

ID_SIZE_BYTES: Final = 32
RECORD_SIZE_BYTES: Final = ID_SIZE_BYTES + 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The final outcome of one payload: where it was executed and how it ended."""

    id: bytes
    tag: int
    code: int
    height: int
    position: int


def id_at(ids: bytes, at: int) -> bytes:
    """The id in place `at` of a row of ids."""
    return ids[at * ID_SIZE_BYTES : (at + 1) * ID_SIZE_BYTES]


def pack_receipts(executed: Iterable[tuple[int, Executed]]) -> bytes:
    """Build the sorted blob of every final outcome of a block."""
    records = [
        id_at(result.ids, at) + bytes((tag, code)) + position.to_bytes(2, "big")
        for tag, result in executed
        for at, (position, code) in enumerate(zip(result.positions, result.codes, strict=True))
        if has_receipt(code)
    ]
    records.sort()
    return b"".join(records)


def receipt_ids(blob: bytes) -> tuple[bytes, ...]:
    """The ids of one block's receipts, rising."""
    return tuple(blob[at : at + ID_SIZE_BYTES] for at in range(0, len(blob), RECORD_SIZE_BYTES))


def receipt_codes(blob: bytes) -> bytes:
    """The outcome codes of one block's receipts, in the order of the ids."""
    return blob[ID_SIZE_BYTES + 1 :: RECORD_SIZE_BYTES]


def find_receipt(blob: bytes, identifier: bytes, height: int) -> Receipt | None:
    """Find the receipt of `identifier` in one block's blob, or None."""
    low, high = 0, len(blob) // RECORD_SIZE_BYTES
    while low < high:
        middle = (low + high) // 2
        at = middle * RECORD_SIZE_BYTES
        found = blob[at : at + ID_SIZE_BYTES]
        if found == identifier:
            tag, code = blob[at + ID_SIZE_BYTES], blob[at + ID_SIZE_BYTES + 1]
            position = int.from_bytes(blob[at + ID_SIZE_BYTES + 2 : at + RECORD_SIZE_BYTES], "big")
            return Receipt(id=identifier, tag=tag, code=code, height=height, position=position)
        if found < identifier:
            low = middle + 1
        else:
            high = middle
    return None
