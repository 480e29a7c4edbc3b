"""Batches and the mempool against slow twins."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from native import batches
from native.batches import Batch, Mempool
from native.errors import BatchInvalid, LimitExceeded, NativeError
from native.tests import twins

payload_lists = st.lists(st.binary(min_size=1, max_size=50), max_size=20)


@given(payload_lists)
def test_a_batch_is_what_its_twin_says(payloads: list[bytes]) -> None:
    batch = Batch.of(payloads)
    hashes = [twins.leaf_hash(payload) for payload in payloads]
    assert batch.body == twins.batch_body(payloads)
    assert batch.hashes == b"".join(hashes)
    assert batch.root == twins.root(hashes)
    assert batch.tags == bytes(payload[0] for payload in payloads)
    assert (len(batch), batch.size) == (len(payloads), len(batch.body))
    assert [batch.payload(index) for index in range(len(batch))] == payloads
    again = Batch.parse(batch.body)
    assert (again.root, again.body, again.hashes) == (batch.root, batch.body, batch.hashes)


@given(payload_lists, st.data())
def test_a_selection_is_a_batch_of_the_chosen(payloads: list[bytes], data: st.DataObject) -> None:
    size = len(payloads)
    mask = bytes(data.draw(st.lists(st.integers(0, 2), min_size=size, max_size=size)))
    chosen = [payload for payload, keep in zip(payloads, mask, strict=True) if keep]
    assert Batch.of(payloads).select(mask).body == twins.batch_body(chosen)
    with pytest.raises(NativeError, match="mask"):
        Batch.of(payloads).select(mask + b"\1")


@given(st.lists(payload_lists, max_size=4))
def test_batches_are_joined_in_order(parts: list[list[bytes]]) -> None:
    joined = Batch.join([Batch.of(part) for part in parts])
    whole = Batch.of([payload for part in parts for payload in part])
    assert (joined.body, joined.hashes, joined.root) == (whole.body, whole.hashes, whole.root)


@given(st.binary(max_size=60) | payload_lists.map(twins.batch_body))
def test_only_what_the_twin_parses_is_parsed(body: bytes) -> None:
    payloads = twins.parse_batch(body)
    if payloads is None:
        with pytest.raises(BatchInvalid):
            Batch.parse(body)
    else:
        batch = Batch.parse(body)
        assert [batch.payload(index) for index in range(len(batch))] == payloads


def test_bounds_are_kept_before_anything_is_allocated() -> None:
    refusals: list[Callable[[], object]] = [
        lambda: Batch.parse(b"\xff" * 8),
        lambda: Batch.parse(b"\0\0\0\1\xff\xff\xff\xff"),
        lambda: Batch.parse(bytes(8_388_609)),
        lambda: Batch.of([b""]),
        lambda: Batch.of([bytes(65_537)]),
        lambda: Batch.of([bytes(65_536)] * 128),
    ]
    for refused in refusals:
        with pytest.raises(BatchInvalid):
            refused()
    with pytest.raises(LimitExceeded):
        Batch.of([b"x"] * 16_385)
    with pytest.raises(IndexError):
        Batch.of([b"x"]).payload(1)


class MempoolMachine(RuleBasedStateMachine):
    """Runs the extension's mempool and its twin side by side."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.real = Mempool(8, 60, 5, sender_at=[(ord("t"), 1)])
        self.twin = twins.Mempool(8, 60, 5)

    payloads = st.lists(
        st.integers(0, 30).map(lambda n: b"p" * (1 + n % 12) + bytes([n]))
        | st.integers(0, 30).map(lambda n: b"t" + bytes([1 + n % 4]) * 8 + bytes([n])),
        max_size=6,
    )

    @rule(payloads=payloads, source=st.integers(0, 3), drop=st.booleans(), data=st.data())
    def add(self, payloads: list[bytes], source: int, drop: bool, data: st.DataObject) -> None:
        self.now_ms += 1
        mask = data.draw(
            st.none() | st.binary(min_size=len(payloads), max_size=len(payloads)), label="mask"
        )
        statuses = self.real.add(
            Batch.of(payloads), mask, source, self.now_ms, drop_newest_of_biggest_source=drop
        )
        assert statuses == self.twin.add(payloads, mask, source, self.now_ms, drop)

    @rule(count_max=st.integers(0, 5), bytes_max=st.integers(0, 80))
    def take(self, count_max: int, bytes_max: int) -> None:
        batch = self.real.take(count_max, bytes_max)
        expected = self.twin.take(count_max, bytes_max)
        assert (batch.body if batch else None) == expected

    @rule(count_max=st.integers(0, 9), bytes_max=st.integers(0, 120))
    def pending_batch(self, count_max: int, bytes_max: int) -> None:
        batch = self.real.pending_batch(count_max, bytes_max)
        assert (batch.body if batch else None) == self.twin.oldest(count_max, bytes_max)

    @rule(count_max=st.integers(1, 9))
    def page(self, count_max: int) -> None:
        seen: list[tuple[bytes, int, int, bool]] = []
        first = 0
        while (page := self.real.page(first, count_max, 1_000)) is not None:
            batch, items = page
            assert len(batch) == len(items) <= count_max
            first = items[-1][0] + 1
            seen += [(batch.payload(at), *item[1:]) for at, item in enumerate(items)]
        assert seen == [(e.payload, e.source, e.since_ms, e.proposed) for e in self.twin.entries]

    @rule(age_ms=st.integers(0, 9), count_max=st.integers(0, 9), bytes_max=st.integers(0, 120))
    def unproposed(self, age_ms: int, count_max: int, bytes_max: int) -> None:
        until_ms = max(0, self.now_ms - age_ms)
        batch, first, waiting_ms = self.real.unproposed(0, until_ms, count_max, bytes_max)
        shown = [batch.payload(at) for at in range(len(batch))] if batch else []
        assert shown == self.twin.unproposed(until_ms, count_max, bytes_max)
        pending = [entry for entry in self.twin.entries if not entry.proposed]
        left = pending[len(shown) :]
        assert waiting_ms == (left[0].since_ms if left else None)
        rest, _, _ = self.real.unproposed(first, self.now_ms, 9, 1_000)
        assert (len(rest) if rest else 0) == len(left)

    @rule(payloads=payloads, data=st.data())
    def remove(self, payloads: list[bytes], data: st.DataObject) -> None:
        mask = data.draw(
            st.none() | st.binary(min_size=len(payloads), max_size=len(payloads)), label="mask"
        )
        assert self.real.remove(Batch.of(payloads), mask) == self.twin.remove(payloads, mask)

    @rule(payloads=payloads)
    def mark_proposed(self, payloads: list[bytes]) -> None:
        self.real.mark_proposed(Batch.of(payloads))
        self.twin.mark_proposed(payloads)

    @precondition(lambda self: self.twin.entries)
    @rule()
    def release(self) -> None:
        self.real.release()
        self.twin.release()

    @invariant()
    def both_agree(self) -> None:
        entries = self.twin.entries
        pending = [entry for entry in entries if not entry.proposed]
        assert len(self.real) == len(entries) <= 8
        assert self.real.bytes == sum(len(entry.payload) for entry in entries) <= 60
        assert self.real.pending() == len(pending)
        assert self.real.pending_bytes == sum(len(entry.payload) for entry in pending)
        assert self.real.oldest_ms() == (entries[0].since_ms if entries else None)


TestMempool = MempoolMachine.TestCase
TestMempool.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)


def test_senders_share_a_batch_and_keep_their_order() -> None:
    pool = Mempool(5_000, 1_000_000, sender_at=[(1, 1)])
    flood = [b"\x01flooding%d" % number for number in range(4_000)]
    pool.add(Batch.of(flood), None, 0, 0)
    for number in range(20):
        pool.add(Batch.of([b"\x01sender%02d-%d" % (number, at) for at in range(3)]), None, 0, 0)
    batch = pool.take(200, 1_000_000)
    assert batch is not None
    taken = [batch.payload(at) for at in range(len(batch))]
    for number in range(20):
        own = [payload for payload in taken if payload.startswith(b"\x01sender%02d" % number)]
        assert own == [b"\x01sender%02d-%d" % (number, at) for at in range(3)]
    flooding = [payload for payload in taken if payload.startswith(b"\x01flooding")]
    assert flooding == flood[: 200 - 60]


def test_statistics_count_every_outcome() -> None:
    pool = Mempool(2, 100)
    statuses = pool.add(Batch.of([b"a", b"a", b"b", b"c"]), b"\1\1\1\1", 0, 7)
    assert list(statuses) == [
        batches.ADDED,
        batches.DUPLICATE,
        batches.ADDED,
        batches.FULL,
    ]
    pool.add(Batch.of([b"d"]), None, 1, 8, drop_newest_of_biggest_source=True)
    pool.remove(Batch.of([b"a"]))
    assert list(pool.add(Batch.of([b"a", b"z"]), b"\1\0", 0, 9)) == [
        batches.RECENT,
        batches.SKIPPED,
    ]
    counted = pool.statistics()
    assert (counted.custody, counted.pending, counted.custody_bytes) == (1, 1, 1)
    assert (counted.added, counted.duplicates, counted.refused_full) == (3, 1, 1)
    assert (counted.refused_recent, counted.dropped, counted.removed) == (1, 1, 1)


def test_a_mask_of_another_length_is_refused() -> None:
    pool, batch = Mempool(2, 100), Batch.of([b"a"])
    with pytest.raises(NativeError, match="mask"):
        pool.add(batch, b"", 0, 0)
    with pytest.raises(NativeError, match="mask"):
        pool.remove(batch, b"\1\1")
