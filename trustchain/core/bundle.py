"""The file a requester gets: certificate chain, inclusion proof and cosigned checkpoint.

One text: the leaf and its issuing certificate as PEM (so tools that read the first certificate of a
file find the leaf), then a C2SP tlog-proof. The root is left out: a verifier brings its own.
There is exactly one text for one content, so a changed byte is either refused or a changed fact.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Final

from trustchain import limits
from trustchain.core.checkpoint import Checkpoint, read_hash, read_number
from trustchain.errors import MalformedBundle, MalformedCheckpoint

PROOF_HEADER: Final = "c2sp.org/tlog-proof@v1"

_BEGIN: Final = "-----BEGIN CERTIFICATE-----"
_END: Final = "-----END CERTIFICATE-----"
_PEM_LINE_LENGTH: Final = 64  # RFC 7468 section 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A certificate with everything an offline verifier needs but the genesis."""

    chain: tuple[bytes, ...]  # DER, leaf first, root omitted
    index: int
    proof: tuple[bytes, ...]
    checkpoint: Checkpoint

    @property
    def leaf(self) -> bytes:
        """The certificate itself, DER."""
        return self.chain[0]

    def encode(self) -> str:
        """Return the text of the file."""
        blocks = "".join(pem(certificate) for certificate in self.chain)
        return blocks + self.encode_proof()

    def encode_proof(self) -> str:
        """Return the part that is a C2SP tlog-proof."""
        hashes = "".join(f"{_text(node)}\n" for node in self.proof)
        return f"{PROOF_HEADER}\nindex {self.index}\n{hashes}\n{self.checkpoint.encode()}"

    @staticmethod
    def decode(text: str) -> Bundle:
        """Read the text of the file, or raise MalformedBundle."""
        if len(text) > limits.BUNDLE_SIZE_BYTES_MAX:
            raise MalformedBundle("bundle is too long")
        head, found, rest = text.partition(PROOF_HEADER + "\n")
        if not found:
            raise MalformedBundle("bundle has no log proof")
        bundle = _read(head, rest)
        if bundle.encode() != text:
            raise MalformedBundle("bundle is not in its one canonical form")
        return bundle


def pem(certificate: bytes) -> str:
    """Write one certificate as a PEM block."""
    text = _text(certificate)
    lines = [text[at : at + _PEM_LINE_LENGTH] for at in range(0, len(text), _PEM_LINE_LENGTH)]
    return "\n".join((_BEGIN, *lines, _END)) + "\n"


def _read(head: str, rest: str) -> Bundle:
    chain: list[bytes] = []
    while head:
        body, found, head = head.removeprefix(_BEGIN + "\n").partition(_END + "\n")
        if not found or len(chain) == limits.BUNDLE_CERTIFICATES_COUNT_MAX:
            raise MalformedBundle("certificates are cut, too many, or mixed with other text")
        chain.append(_octets(body.replace("\n", "")))
    if not chain:
        raise MalformedBundle("bundle has no certificate")
    proof_text, found, note = rest.partition("\n\n")
    index_line, *hash_lines = proof_text.split("\n")
    if not found or not index_line.startswith("index "):
        raise MalformedBundle("log proof has no index")
    if len(hash_lines) > limits.PROOF_HASHES_COUNT_MAX:
        raise MalformedBundle("log proof is too long")
    try:
        return Bundle(
            chain=tuple(chain),
            index=read_number(index_line.removeprefix("index ")),
            proof=tuple(read_hash(line) for line in hash_lines),
            checkpoint=Checkpoint.decode(note),
        )
    except MalformedCheckpoint as error:
        raise MalformedBundle(str(error)) from error


def _octets(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedBundle("certificate is not base64") from error


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
