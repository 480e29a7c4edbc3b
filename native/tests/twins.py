"""Slow Python twins of what the extension computes. Written from the papers, not from the Rust."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

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


def batch_body(payloads: Sequence[bytes]) -> bytes:
    head = [len(payloads), *map(len, payloads)]
    return b"".join(number.to_bytes(4, "big") for number in head) + b"".join(payloads)


def parse_batch(body: bytes) -> list[bytes] | None:
    count = int.from_bytes(body[:4], "big")
    lengths = [int.from_bytes(body[4 + 4 * i : 8 + 4 * i], "big") for i in range(min(count, 100))]
    at, payloads = 4 + 4 * len(lengths), []
    for length in lengths:
        payloads.append(body[at : at + length])
        at += length
    return payloads if batch_body(payloads) == body and b"" not in payloads else None


@dataclass
class Entry:
    payload: bytes
    source: int
    since_ms: int
    proposed: bool = False

    @property
    def sender(self) -> object:
        """What follows a `t` names the sender; all else of a source is one."""
        named = self.payload[:1] == b"t" and len(self.payload) >= 9
        return self.payload[1:9] if named else self.source


class Mempool:
    """Custody as one list, oldest first; every question walks it."""

    def __init__(self, count_max: int, bytes_max: int, recent_count: int) -> None:
        self.count_max, self.bytes_max, self.recent_count = count_max, bytes_max, recent_count
        self.entries: list[Entry] = []
        self.recent: list[bytes] = []  # the generation that is filled
        self.old: list[bytes] = []
        self.rings: list[tuple[int, list[object]]] = []  # sources in turn, their senders in turn
        self.by_age = False

    def _settle(self) -> None:
        """Forget senders and sources that have nothing pending; new ones come last."""
        pending = [entry for entry in self.entries if not entry.proposed]
        senders = {entry.sender for entry in pending}
        kept = [(source, [s for s in ring if s in senders]) for source, ring in self.rings]
        self.rings = [(source, ring) for source, ring in kept if ring]
        for entry in pending:
            if any(entry.sender in ring for _, ring in self.rings):
                continue
            own = [ring for source, ring in self.rings if source == entry.source]
            if own:
                own[0].append(entry.sender)
            else:
                self.rings.append((entry.source, [entry.sender]))

    def add(
        self, payloads: Sequence[bytes], mask: bytes | None, source: int, now_ms: int, drop: bool
    ) -> bytes:
        return bytes(
            4
            if mask is not None and not mask[index]
            else self._add_one(Entry(payload, source, now_ms), drop)
            for index, payload in enumerate(payloads)
        )

    def _add_one(self, entry: Entry, drop: bool) -> int:
        if any(entry.payload == other.payload for other in self.entries):
            return 1
        if entry.payload in [*self.recent, *self.old]:
            return 3
        if len(entry.payload) > self.bytes_max:
            return 2
        while True:
            count_full = len(self.entries) == self.count_max
            held = {other.source: 0 for other in self.entries} | {entry.source: 0}
            for other in [*self.entries, entry]:
                held[other.source] += 1 if count_full else len(other.payload)
            size = sum(len(other.payload) for other in [*self.entries, entry])
            if not count_full and size <= self.bytes_max:
                break
            pending = [other for other in self.entries if not other.proposed]
            if not drop or not pending:
                return 2
            biggest = max({other.source for other in pending}, key=lambda item: (held[item], item))
            own = biggest == entry.source
            if own or held[biggest] <= held[entry.source]:
                return 2
            self.entries.remove([other for other in pending if other.source == biggest][-1])
            self._settle()
        self.entries.append(entry)
        self._settle()
        return 0

    def _batch(self, entries: Sequence[Entry], count_max: int, bytes_max: int) -> list[Entry]:
        chosen: list[Entry] = []
        for entry in entries[:count_max]:
            if len(batch_body([item.payload for item in [*chosen, entry]])) > bytes_max:
                break
            chosen.append(entry)
        return chosen

    def take(self, count_max: int, bytes_max: int) -> bytes | None:
        chosen: list[Entry] = []
        while len(chosen) < count_max:
            pending = [entry for entry in self.entries if not entry.proposed]
            if pending and not self.by_age:
                pending = [entry for entry in pending if entry.sender == self.rings[0][1][0]]
            if len(self._batch([*chosen, *pending[:1]], count_max, bytes_max)) == len(chosen):
                break
            if not self.by_age:
                source, ring = self.rings.pop(0)
                self.rings.append((source, [*ring[1:], ring[0]]))
            self.by_age = not self.by_age
            pending[0].proposed = True
            chosen.append(pending[0])
            self._settle()
        return batch_body([entry.payload for entry in chosen]) if chosen else None

    def oldest(self, count_max: int, bytes_max: int) -> bytes | None:
        chosen = self._batch(self.entries, count_max, bytes_max)
        return batch_body([entry.payload for entry in chosen]) if chosen else None

    def unproposed(self, until_ms: int, count_max: int, bytes_max: int) -> list[bytes]:
        pending = [entry for entry in self.entries if not entry.proposed]
        old = [entry for entry in pending if entry.since_ms <= until_ms]
        return [entry.payload for entry in self._batch(old, count_max, bytes_max)]

    def remove(self, payloads: Sequence[bytes], remember: bytes | None) -> int:
        before = len(self.entries)
        for index, payload in enumerate(payloads):
            self.entries = [entry for entry in self.entries if entry.payload != payload]
            if (remember is None or remember[index]) and payload not in self.recent:
                if len(self.recent) == self.recent_count:
                    self.old, self.recent = self.recent, []
                self.recent.append(payload)
        self._settle()
        return before - len(self.entries)

    def mark_proposed(self, payloads: Sequence[bytes]) -> None:
        for entry in self.entries:
            entry.proposed |= entry.payload in payloads
        self._settle()

    def release(self) -> None:
        for entry in self.entries:
            entry.proposed = False
        self._settle()
