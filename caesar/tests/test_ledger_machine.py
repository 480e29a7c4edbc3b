"""Random histories: the ledger against a page of plain Python, with restarts in between."""

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from caesar.core.accounts import FEES, Balances
from caesar.core.addresses import Address
from caesar.limits import SUPPLY, U64_MAX
from caesar.runtime.application import LedgerApplication
from caesar.tests.twins import reference
from caesar.tests.worlds import CHAIN, FEE, MILLION, World, address, pay, plain_address
from consensus.application import Row
from native.batches import Batch
from native.values import Digest

NAMES = st.sampled_from(["alice", "bob", "carol", "dora"])
RECIPIENTS = NAMES.map(address) | st.integers(1, 3).map(plain_address)
AMOUNTS = st.integers(0, 50) | st.sampled_from([FEE, MILLION, MILLION - FEE, SUPPLY, U64_MAX])


class LedgerMachine(RuleBasedStateMachine):
    """Transactions gather in a block; blocks, restarts and proofs are steps of their own."""

    @initialize()
    def enter_genesis(self) -> None:
        self.world = World()
        rich = {address("alice"): MILLION, address("bob"): MILLION}
        self.reference = reference(CHAIN, FEE, 1_000, rich)
        self.pending: list[bytes] = []
        self.seen: list[bytes] = []
        self.sequences: dict[tuple[str, int], int] = {}
        self.rows: list[Row] = []
        self.cursor = 0

    @rule(
        sender=NAMES,
        recipient=RECIPIENTS,
        amount=AMOUNTS,
        lane=st.integers(0, 1),
        skew=st.sampled_from([0, 0, 0, 0, 0, 0, -1, 1]),
        key=st.sampled_from([True, True, False]),
        valid_for=st.sampled_from([50, 50, 50, 0, 1_000, 1_001, 5_000]),
        max_fee=st.sampled_from([64 * FEE, 64 * FEE, FEE, FEE - 1]),
        more=st.lists(st.tuples(RECIPIENTS, AMOUNTS), max_size=2),
    )
    def sign(
        self,
        sender: str,
        recipient: Address,
        amount: int,
        lane: int,
        skew: int,
        key: bool,
        valid_for: int,
        max_fee: int,
        more: list[tuple[Address, int]],
    ) -> None:
        expected = self.sequences.get((sender, lane), 0)
        payload = pay(
            sender,
            recipient,
            amount,
            sequence=max(expected + skew, 0),
            lane=lane,
            key=key,
            valid_until=self.world.height + valid_for,
            max_fee=max_fee,
            more=more,
        )
        if skew == 0:
            self.sequences[sender, lane] = expected + 1
        self.pending.append(payload)

    @rule(
        pairs=st.lists(st.tuples(NAMES, RECIPIENTS, st.integers(1, 500)), min_size=1, max_size=6),
        lane=st.integers(0, 1),
    )
    def sign_well(self, pairs: list[tuple[str, Address, int]], lane: int) -> None:
        """Transfers that mostly execute, and feed each other's accounts."""
        for name, recipient, amount in pairs:
            known = address(name) in self.reference.balances
            sender = name if known else "alice"
            if recipient != address(sender):
                self.sign(sender, recipient, amount, lane, 0, True, 50, 64 * FEE, [])

    @rule(sender=NAMES)
    def sign_badly(self, sender: str) -> None:
        self.pending.append(pay(sender, plain_address(9), signer="mallory", key=False))
        self.pending.append(pay(sender, plain_address(9), chain_id=Digest(bytes(32))))

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        self.pending.append(data.draw(st.sampled_from(self.seen)))

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def send_damaged(self, data: st.DataObject) -> None:
        payload = bytearray(data.draw(st.sampled_from(self.seen)))
        payload[data.draw(st.integers(1, len(payload) - 1))] ^= data.draw(st.integers(1, 255))
        self.pending.append(bytes(payload))

    @rule(prepared=st.booleans())
    def execute(self, prepared: bool) -> None:
        if prepared and self.pending:
            self.world.application.prepare(Batch.of(self.pending))
            self.world.advice(*self.pending)
        outcomes = self.world.outcomes(*self.pending)
        height = self.world.height
        assert outcomes == [self.reference.apply(payload, height) for payload in self.pending]
        self.sequences = {
            (name, lane): after
            for name in ("alice", "bob", "carol", "dora")
            for lane, after in self.reference.lanes.get(address(name), {}).items()
        }
        self.seen = (self.seen + self.pending)[-30:]
        self.pending = []

    @rule(count=st.integers(1, 4))
    def write_rows(self, count: int) -> None:
        """The cache slice of this height; restarts then use it with all deltas."""
        self.rows.extend(self.world.application.rows(self.cursor, count))
        self.cursor = (self.cursor + count) % self.world.application.row_count()

    @rule()
    def restart(self) -> None:
        fresh = LedgerApplication(CHAIN, self.world.start)
        before = self.world.application.commitment
        assert fresh.load(self.rows, self.world.deltas) == before.root
        assert fresh.commitment == before
        self.world.application = fresh

    @invariant()
    def both_ledgers_agree(self) -> None:
        if hasattr(self, "world"):
            commitment = self.world.application.commitment
            assert (commitment.tree_root, commitment.state_sum) == self.reference.tree_root()
            assert commitment.state_sum == SUPPLY


LedgerMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestLedgerMachine = LedgerMachine.TestCase


def test_a_balance_cannot_be_touched_but_by_moving_it() -> None:
    public = {name for name in dir(Balances) if not name.startswith("_")}
    assert public == {"consume", "drain", "issue", "move", "open", "sequences"}
    assert FEES == 0
