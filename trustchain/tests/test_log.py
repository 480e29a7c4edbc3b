"""The log as a state machine: whatever happens, a restart ends in the same state."""

from collections.abc import Iterable

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from consensus.application import Row
from consensus.core.types import Height
from native.hashing import verify_consistency, verify_inclusion
from trustchain import client
from trustchain.core.entries import Entry
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.outcomes import Outcome
from trustchain.errors import EntryUnknown, HeadUnknown, StateCorrupt
from trustchain.runtime.application import LogApplication
from trustchain.tests.network import CHAIN_ID, Network


def position(application: LogApplication) -> tuple[int, bytes, int]:
    """Where the log stands, without what was counted on the way."""
    statistics = application.statistics()
    return statistics.size, statistics.root, statistics.height


class LogMachine(RuleBasedStateMachine):
    """Issue, renew, repeat and refuse in any order; write rows back lazily; restart at any time."""

    @initialize()
    def start(self) -> None:
        self.network = Network(validators=1)
        self.keys = [client.generate_key(KeyAlgorithm.ED25519) for _ in range(3)]
        self.rows: dict[int, Row] = {}
        self.deltas_from = 0
        self.issued = 0

    @rule(key=st.integers(0, 2), name=st.sampled_from(["a.mesh", "b.mesh", "c.mesh"]))
    def issue(self, key: int, name: str) -> None:
        codes = self.network.order(self.network.issue([name], self.keys[key]))
        assert codes[0] in (Outcome.ISSUED, Outcome.NAME_TAKEN)
        self.issued += codes.count(Outcome.ISSUED)

    @rule(key=st.integers(0, 2), index=st.integers(0, 5))
    def renew(self, key: int, index: int) -> None:
        names = ["a.mesh"]
        if index < self.network.application.size:
            names = list(self.network.application.entry(index).names)
        operation = client.renew_operation(
            self.keys[key],
            names,
            chain_id=CHAIN_ID,
            index=index,
            request_id=client.new_request_id(),
        )
        codes = self.network.order(operation, operation)
        if codes[0] == Outcome.ISSUED:
            assert codes[1] == Outcome.ALREADY_ISSUED
        self.issued += codes.count(Outcome.ISSUED)

    @rule()
    def refuse(self) -> None:
        before = position(self.network.application)
        assert self.network.order(b"\x02junk") == [Outcome.MALFORMED]
        assert position(self.network.application) == before

    @rule()
    def empty_block(self) -> None:
        self.network.order()

    @rule(share=st.integers(1, 4))
    def write_back(self, share: int) -> None:
        """Rows up to here are stored, so earlier deltas may go."""
        application = self.network.application
        for first in range(0, application.row_count(), share):
            for row in application.rows(first, share):
                self.rows[row.key] = row
        self.deltas_from = len(self.network.deltas)

    @rule()
    def restart(self) -> None:
        again = LogApplication(CHAIN_ID, self.network.genesis)
        root = again.load(self.rows.values(), self.network.deltas[self.deltas_from :])
        old = self.network.application
        assert position(again) == position(old)
        assert again.head() == old.head()
        if self.network.height:
            assert root == self.network.last.root
        self.network.applications = [again]

    @invariant()
    def nothing_is_issued_twice_or_lost(self) -> None:
        assert self.network.application.size == self.issued


LogMachine.TestCase.settings = settings(max_examples=25, stateful_step_count=20, deadline=None)
TestLogMachine = LogMachine.TestCase


@pytest.fixture(scope="module")
def filled() -> Network:
    network = Network(validators=1)
    for place in range(9):
        network.order(network.issue([f"n{place}.mesh"]))
    return network


def test_every_entry_is_proved_in_every_tree_that_contains_it(filled: Network) -> None:
    application = filled.application
    for size in range(1, 10):
        for index in range(size):
            leaf = Entry.decode(application.entry(index).entry).leaf
            proof = application.inclusion_proof(index, size)
            verify_inclusion(leaf, index, size, proof, application.root(size))


def test_every_tree_is_proved_to_continue_every_smaller_one(filled: Network) -> None:
    application = filled.application
    for old in range(1, 10):
        for new in range(old, 10):
            proof = application.consistency_proof(old, new)
            verify_consistency(old, new, application.root(old), application.root(new), proof)


def test_an_entry_decodes_to_what_was_asked(filled: Network) -> None:
    record = filled.application.entry(3)
    entry = Entry.decode(record.entry)
    assert entry.encode() == record.entry
    assert entry.names == record.names == ("n3.mesh",)
    assert entry.permanent_id == record.permanent_id
    assert (entry.not_before_s, entry.not_after_s) == (record.not_before_s, record.not_after_s)
    assert record.entry[:4] == bytes.fromhex("00000001")


def test_questions_beyond_the_log_have_their_own_errors(filled: Network) -> None:
    application = filled.application
    for index in (9, -1):
        with pytest.raises(EntryUnknown):
            application.entry(index)
    with pytest.raises(EntryUnknown):
        application.entry_of_name("nobody.mesh")
    with pytest.raises(EntryUnknown):
        application.entry_of_request(bytes(16))
    for size in (3, 10):
        with pytest.raises(HeadUnknown):
            application.inclusion_proof(3, size)
    for size in (4, 10):
        with pytest.raises(HeadUnknown):
            application.consistency_proof(5, size)
    with pytest.raises(HeadUnknown):
        application.root(10)


def corrupt(rows: Iterable[Row], deltas: list[tuple[Height, bytes]], network: Network) -> None:
    with pytest.raises(StateCorrupt):
        LogApplication(CHAIN_ID, network.genesis).load(rows, deltas)


def test_stored_state_with_a_hole_or_a_scratch_is_refused(filled: Network) -> None:
    rows = list(filled.application.rows(0, 9))
    corrupt(rows[1:], [], filled)
    corrupt([*rows[:4], *rows[5:]], [], filled)
    corrupt([Row(table="other", key=0, value=rows[0].value)], [], filled)
    corrupt([Row(table="log", key=0, value=rows[0].value[:-1])], [], filled)
    corrupt([Row(table="log", key=0, value=rows[1].value)], [], filled)
    corrupt([], [(Height(1), b"\x01")], filled)
    corrupt([], [(Height(1), b"junk")], filled)


def test_one_changed_byte_in_storage_changes_the_root(filled: Network) -> None:
    rows = list(filled.application.rows(0, 9))
    good = LogApplication(CHAIN_ID, filled.genesis).load(rows, [])
    scratched = bytearray(rows[4].value)
    place = scratched.index(filled.application.entry(4).request_id)
    scratched[place] ^= 1
    rows[4] = Row(table="log", key=4, value=bytes(scratched))
    assert LogApplication(CHAIN_ID, filled.genesis).load(rows, []) != good
