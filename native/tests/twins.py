"""Slow Python twins of what the extension computes. Written from the papers, not from the Rust."""

import hashlib
from collections.abc import Sequence

import msgpack


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def leaf_hash(data: bytes) -> bytes:
    return sha256(b"\0" + data)


def node_hash(left: bytes, right: bytes) -> bytes:
    return sha256(b"\1" + left + right)


def split(count: int) -> int:
    """Largest power of two below `count`."""
    return 1 << (count - 1).bit_length() - 1


def root(hashes: Sequence[bytes]) -> bytes:
    """MTH of RFC 9162 section 2.1.1, over leaf hashes."""
    if not hashes:
        return sha256(b"")
    if len(hashes) == 1:
        return hashes[0]
    k = split(len(hashes))
    return node_hash(root(hashes[:k]), root(hashes[k:]))


def inclusion_proof(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PATH of RFC 9162 section 2.1.3.1."""
    if len(hashes) == 1:
        return []
    k = split(len(hashes))
    if m < k:
        return [*inclusion_proof(m, hashes[:k]), root(hashes[k:])]
    return [*inclusion_proof(m - k, hashes[k:]), root(hashes[:k])]


def consistency_proof(m: int, hashes: Sequence[bytes]) -> list[bytes]:
    """PROOF of RFC 9162 section 2.1.4.1."""

    def subproof(m: int, hashes: Sequence[bytes], known: bool) -> list[bytes]:
        if m == len(hashes):
            return [] if known else [root(hashes)]
        k = split(len(hashes))
        if m <= k:
            return [*subproof(m, hashes[:k], known), root(hashes[k:])]
        return [*subproof(m - k, hashes[k:], False), root(hashes[:k])]

    return subproof(m, hashes, True) if m else []


def encode(value: object) -> bytes:
    """What msgpack-python writes: shortest forms, tuples as arrays."""
    data: bytes = msgpack.packb(value, use_bin_type=True)
    return data


def decode(data: bytes) -> object:
    return msgpack.unpackb(data, use_list=False, raw=False, strict_map_key=False)


def der(tag: int, content: bytes) -> bytes:
    """One DER element with the shortest length."""
    if len(content) < 128:
        return bytes([tag, len(content)]) + content
    length = len(content).to_bytes((len(content).bit_length() + 7) // 8, "big")
    return bytes([tag, 0x80 | len(length)]) + length + content


def oid(text: str) -> bytes:
    """OBJECT IDENTIFIER, X.690 section 8.19."""
    first, second, *rest = map(int, text.split("."))
    out = bytearray([40 * first + second])
    for arc in rest:
        groups = [arc & 0x7F]
        while arc := arc >> 7:
            groups.insert(0, 0x80 | arc & 0x7F)
        out += bytes(groups)
    return der(0x06, bytes(out))


def spki(algorithm_oid: str, raw: bytes) -> bytes:
    return der(0x30, der(0x30, oid(algorithm_oid)) + der(0x03, b"\0" + raw))
