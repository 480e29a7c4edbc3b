"""Checkpoints and cosignatures as signed notes (C2SP signed-note, tlog-checkpoint, cosignature).

A checkpoint is three lines (origin, size, root) and one line a cosignature. What a cosigner signs
is not that text but the `subtree/v1` message, so the same bytes serve checkpoints and subtrees.
Nothing here signs or verifies: time stamps and signatures are arguments.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from native.hashing import sha256
from trustchain import limits
from trustchain.core.names import printable
from trustchain.core.oids import FORM_OF, KeyAlgorithm
from trustchain.errors import MalformedCheckpoint

COSIGNATURE_LABEL: Final = b"subtree/v1\n\x00"
ML_DSA_44_TYPE: Final = 0x06
SIGNATURE_SIZE_BYTES: Final = FORM_OF[KeyAlgorithm.ML_DSA_44].signature_size_max

_HASH_SIZE_BYTES: Final = 32
_KEY_ID_SIZE_BYTES: Final = 4
_TIMESTAMP_SIZE_BYTES: Final = 8
_TIMESTAMP_MAX: Final = (1 << 63) - 1
_BLOB_SIZE_BYTES: Final = _KEY_ID_SIZE_BYTES + _TIMESTAMP_SIZE_BYTES + SIGNATURE_SIZE_BYTES
_LINE_PREFIX: Final = "— "  # em dash, U+2014
_SIGNATURES_COUNT_MAX: Final = limits.COSIGNATURES_COUNT_MAX + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Cosignature:
    """One ML-DSA-44 cosignature as it stands on a signature line."""

    name: str
    key_id: bytes
    timestamp_s: int
    signature: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Checkpoint:
    """One tree head with the cosignatures it carries, in the order of their lines."""

    origin: str
    size: int
    root: bytes
    cosignatures: tuple[Cosignature, ...] = ()

    def encode(self) -> str:
        """Return the note text."""
        lines = [self.origin, str(self.size), _text(self.root), ""]
        for cosignature in self.cosignatures:
            blob = (
                cosignature.key_id
                + cosignature.timestamp_s.to_bytes(_TIMESTAMP_SIZE_BYTES, "big")
                + cosignature.signature
            )
            lines.append(f"{_LINE_PREFIX}{cosignature.name} {_text(blob)}")
        return "\n".join(lines) + "\n"

    @staticmethod
    def decode(text: str) -> Checkpoint:
        """Read the note text, or raise MalformedCheckpoint.

        Only our own cosignature type is read; a second line of the same cosigner is an error.
        """
        if len(text) > limits.CHECKPOINT_SIZE_BYTES_MAX:
            raise MalformedCheckpoint("checkpoint is too long")
        lines = text.split("\n")
        if len(lines) < 5 or lines[3] or lines.pop():
            raise MalformedCheckpoint("checkpoint is not three lines, a blank and signatures")
        origin = lines[0]
        if not 1 <= len(origin) <= 255 or not printable(origin):
            raise MalformedCheckpoint("origin is not one short line of ASCII")
        size = read_number(lines[1])
        root = read_hash(lines[2])
        if len(lines) - 4 > _SIGNATURES_COUNT_MAX:
            raise MalformedCheckpoint("too many signature lines")
        cosignatures = tuple(_cosignature(line) for line in lines[4:])
        if len({cosignature.name for cosignature in cosignatures}) != len(cosignatures):
            raise MalformedCheckpoint("a cosigner signs twice")
        return Checkpoint(origin=origin, size=size, root=root, cosignatures=cosignatures)


def cosigned_message(
    *, name: str, timestamp_s: int, origin: str, start: int = 0, end: int, root: bytes
) -> bytes:
    """Return the bytes an ML-DSA-44 cosigner signs for a subtree; a checkpoint starts at 0."""
    signer, log = name.encode("ascii"), origin.encode("ascii")
    return b"".join(
        (
            COSIGNATURE_LABEL,
            bytes((len(signer),)),
            signer,
            timestamp_s.to_bytes(8, "big"),
            bytes((len(log),)),
            log,
            start.to_bytes(8, "big"),
            end.to_bytes(8, "big"),
            root,
        )
    )


def cosigner_key_id(name: str, public_key: bytes) -> bytes:
    """Return the four bytes that name a cosigner's key on a signature line."""
    return sha256(name.encode("ascii") + bytes((0x0A, ML_DSA_44_TYPE)) + public_key)[:4]


def read_number(text: str) -> int:
    """Read a decimal number without leading zeros that fits 63 bits."""
    if not (text.isascii() and text.isdigit()) or len(text) > 19:
        raise MalformedCheckpoint(f"{text[:24]!r} is not a number")
    value = int(text)
    if str(value) != text or value > _TIMESTAMP_MAX:
        raise MalformedCheckpoint(f"{text!r} is not in its shortest form")
    return value


def read_hash(text: str) -> bytes:
    """Read one SHA-256 hash in base64."""
    data = _octets(text)
    if len(data) != _HASH_SIZE_BYTES:
        raise MalformedCheckpoint("hash is not 32 bytes")
    return data


def _cosignature(line: str) -> Cosignature:
    if not line.startswith(_LINE_PREFIX):
        raise MalformedCheckpoint("signature line does not start with a dash")
    name, space, blob_text = line.removeprefix(_LINE_PREFIX).partition(" ")
    if not space or not 1 <= len(name) <= 255 or not printable(name):
        raise MalformedCheckpoint("signature line has no name")
    blob = _octets(blob_text)
    if len(blob) != _BLOB_SIZE_BYTES:
        raise MalformedCheckpoint("signature is not an ML-DSA-44 cosignature")
    timestamp_s = int.from_bytes(blob[4:12], "big")
    if timestamp_s > _TIMESTAMP_MAX:
        raise MalformedCheckpoint("time stamp is out of range")
    return Cosignature(name=name, key_id=blob[:4], timestamp_s=timestamp_s, signature=blob[12:])


def _octets(text: str) -> bytes:
    try:
        data = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedCheckpoint("not base64") from error
    if _text(data) != text:
        raise MalformedCheckpoint("not canonical base64")
    return data


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
