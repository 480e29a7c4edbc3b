"""Caesar as an application of the agreed order (`consensus.application.Application`).

Everything consensus asks of the ledger, and the typed questions the node's API asks. `execute`,
`rows` and `load` run on the executor's thread; `check`, `prepare` and the queries on any thread:
they read what the last block committed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from caesar.core.accounts import SYSTEM_NAMES
from caesar.core.addresses import Address
from caesar.core.genesis import LedgerGenesis
from caesar.core.ledger import Ledger
from caesar.core.proofs import AccountProof, AccountState, Commitment
from caesar.core.receipts import Outcome
from caesar.core.rules import Parameters, parameters_at
from caesar.core.transactions import SENDER_AT, TAG
from caesar.errors import StateDamaged
from caesar.limits import (
    HEAD_ROW_SIZE_BYTES_MAX,
    OPENING_SIZE_BYTES_MAX,
    PART_SIZE_BYTES_MAX,
    SUPPLY,
)
from caesar.metrics import LedgerMetrics, LedgerStatistics
from consensus.application import Advice, Block, Executed, Outline, Row
from consensus.errors import SnapshotInvalid
from native.codec import decode, encode
from native.errors import NativeError
from native.hashing import HASH_SIZE_BYTES
from native.ledger import fold_parts, measure_part
from native.values import Amount, Digest

if TYPE_CHECKING:
    from consensus.core.types import Height
    from native.batches import Batch

TABLE_HEAD: Final = "caesar_head"
TABLE_ACCOUNTS: Final = "caesar_accounts"
ROW_VERSION: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """One account after the last executed block."""

    address: Address
    exists: bool
    balance: Amount
    has_key: bool
    lanes: tuple[tuple[int, int], ...]  # (lane, next sequence)
    height: int
    application_root: Digest
    proof: bytes  # for `caesar.core.proofs.verify_account_proof`

    def next_sequence(self, lane: int = 0) -> int:
        """The sequence that the next transaction of a lane needs."""
        return dict(self.lanes).get(lane, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class TreePath:
    """Siblings from the root of the account tree to a key, and the account the way ends at."""

    height: int
    address: Address | None
    path: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class SupplyView:
    """Where the supply is. `accounts` is the rest after the system accounts."""

    height: int
    supply: Amount
    fees: Amount
    treasury: Amount
    accounts: Amount
    account_count: int


class LedgerApplication:
    """The ledger behind the door that consensus knows."""

    def __init__(self, chain_id: Digest, genesis: LedgerGenesis) -> None:
        """Prepare the state after genesis."""
        self._chain_id = chain_id
        self._genesis = genesis
        self._ledger = Ledger(chain_id, genesis)
        self._metrics = LedgerMetrics()

    @property
    def name(self) -> str:
        """Metric label and owner of the rows."""
        return "caesar"

    @property
    def tag(self) -> int:
        """First byte of a ledger transaction."""
        return TAG

    @property
    def sender_at(self) -> int:
        """The first bytes of the sender's address."""
        return SENDER_AT

    @property
    def repeated_codes(self) -> frozenset[int]:
        """A used sequence, or an expiry since."""
        return frozenset((Outcome.SEQUENCE_USED, Outcome.EXPIRED))

    @property
    def malformed_codes(self) -> frozenset[int]:
        """What any node sees without the ledger."""
        return frozenset((Outcome.UNDECODABLE, Outcome.WRONG_CHAIN))

    def well_formed(self, batch: Batch, positions: Sequence[int]) -> bytes:
        """Which payloads decode and name this chain."""
        return self._ledger.accounts.well_formed(batch, positions)

    # --- consensus.application.Application

    def genesis(self) -> Digest:
        """Enter the state after genesis and return its application root."""
        if self._ledger.commitment.height != 0:
            self._ledger = Ledger(self._chain_id, self._genesis)
        return self._ledger.commitment.root

    def check(self, batch: Batch, positions: Sequence[int]) -> Advice:
        """Admission advice; a good signature is remembered and not checked again."""
        transactions = self._ledger.decode(batch, positions)
        codes = self._ledger.advise(transactions)
        self._metrics.advice_refused_total += len(codes) - codes.count(Outcome.APPLIED)
        return Advice(codes=codes, ids=transactions.ids)

    def prepare(self, batch: Batch) -> None:
        """Check the signatures of a batch ahead of its execution."""
        self._ledger.decode(batch)

    def execute(self, block: Block, positions: Sequence[int]) -> Executed:
        """Apply the transactions at `positions` in order."""
        transactions = self._ledger.decode(block.batch, positions)
        applied = self._ledger.apply(block.header.height, transactions)
        self._metrics.count(applied.codes)
        return Executed(
            root=applied.commitment.root,
            delta=applied.delta,
            positions=positions,
            ids=transactions.ids,
            codes=applied.codes,
        )

    def row_count(self) -> int:
        """The head and one row an account."""
        return 1 + len(self._ledger.accounts)

    def rows(self, first: int, count: int) -> Sequence[Row]:
        """Current rows from cursor `first` on; cursor 0 is the head."""
        rows = []
        if first == 0 and count > 0:
            commitment = self._ledger.commitment
            value = encode((ROW_VERSION, commitment.height, commitment.receipt_root))
            rows.append(Row(table=TABLE_HEAD, key=0, value=value))
        start = max(first - 1, 0)
        values = self._ledger.accounts.rows(start, max(first + count - 1 - start, 0))
        rows.extend(
            Row(table=TABLE_ACCOUNTS, key=start + offset, value=value)
            for offset, value in enumerate(values)
        )
        return rows

    def load(self, rows: Iterable[Row], deltas: Iterable[tuple[Height, bytes]]) -> Digest:
        """Rebuild the state on top of genesis; raises `StateDamaged`."""
        self._ledger = Ledger(self._chain_id, self._genesis)
        head: tuple[int, Digest] | None = None
        accounts: list[tuple[int, bytes]] = []
        for row in rows:
            if row.table == TABLE_HEAD:
                head = _head(row.value)
            elif row.table == TABLE_ACCOUNTS:
                accounts.append((row.key, row.value))
            else:
                raise StateDamaged(f"the ledger has no table {row.table!r}")
        ordered = list(deltas)
        for (before, _), (after, _) in itertools.pairwise(ordered):
            if after != before + 1:
                raise StateDamaged(f"no delta is stored between heights {before} and {after}")
        self._ledger.restore(accounts, [delta for _, delta in ordered], head)
        return self._ledger.commitment.root

    # --- snapshots

    def cut(self) -> bytes:
        """Keep the accounts of now readable; the opening is the commitment."""
        self._ledger.accounts.cut()
        return encode(self._ledger.commitment.value())

    def next_chunk(self) -> bytes | None:
        """Read the next part of the account tree."""
        return self._ledger.accounts.next_part()

    def end_cut(self) -> None:
        """Forget the cut."""
        self._ledger.accounts.end_cut()

    def measure(self, chunk: bytes) -> bytes:
        """Hash a part of the account tree; keys, addresses and order are checked on the way."""
        try:
            return encode(measure_part(chunk))
        except NativeError as error:
            raise SnapshotInvalid(str(error)) from None

    def check_outline(self, root: Digest, outline: Outline) -> None:
        """Fold the parts to the tree root that the application root opens to."""
        commitment = self._opened(outline.opening)
        if commitment.root != root:
            raise SnapshotInvalid("the opening belongs to another application root")
        try:
            found = fold_parts([_part(part) for part in outline.parts])
        except NativeError as error:
            raise SnapshotInvalid(str(error)) from None
        if found != (commitment.tree_root, commitment.state_sum):
            raise SnapshotInvalid("the parts do not make up the account tree")

    def restore(self, outline: Outline, chunks: Iterable[bytes]) -> Digest:
        """Enter the state of a snapshot on top of genesis."""
        commitment = self._opened(outline.opening)
        ledger = Ledger(self._chain_id, self._genesis)
        try:
            ledger.enter(commitment, chunks)
        except StateDamaged as error:
            raise SnapshotInvalid(str(error)) from None
        if ledger.commitment != commitment:
            raise SnapshotInvalid("the chunks make up another state than the outline says")
        self._ledger = ledger
        return commitment.root

    def _opened(self, opening: bytes) -> Commitment:
        try:
            decoded = decode(opening, size_max=OPENING_SIZE_BYTES_MAX)
        except NativeError as error:
            raise SnapshotInvalid(str(error)) from None
        match decoded:
            case (
                int(height),
                bytes(tree_root),
                int(state_sum),
                bytes(receipt_root),
                bytes(validators_hash),
                bytes(parameters_hash),
            ):
                commitment = Commitment(
                    height=height,
                    tree_root=Digest(tree_root),
                    state_sum=state_sum,
                    receipt_root=Digest(receipt_root),
                    validators_hash=Digest(validators_hash),
                    parameters_hash=Digest(parameters_hash),
                )
            case _:
                raise SnapshotInvalid("the opening of the ledger's root has an unknown form")
        if state_sum != SUPPLY:
            raise SnapshotInvalid(f"the snapshot holds {state_sum} base units, not {SUPPLY}")
        return commitment

    # --- questions, any thread

    @property
    def commitment(self) -> Commitment:
        """What the last executed block committed to; `.root` is the application root."""
        return self._ledger.commitment

    @property
    def tree_root(self) -> Digest:
        """Root of the account tree after the last executed block."""
        return self._ledger.commitment.tree_root

    def account(self, address: Address) -> AccountView:
        """An account with its proof, or the proof that there is none."""
        return self._view(address, self._ledger.accounts.account(address))

    def tree_path(self, key: bytes) -> TreePath:
        """The way down the account tree to any key, for finding where two trees differ."""
        height, _, _, address, path = self._ledger.accounts.path(key)
        return TreePath(
            height=height, address=None if address is None else Address(address), path=path
        )

    def system_account(self, name: str) -> AccountView:
        """A system account (`fees`, `treasury`) with its proof."""
        return self._view(Address(b""), self._ledger.accounts.system(name.encode()))

    def supply(self) -> SupplyView:
        """Where the supply is."""
        while True:
            fees, treasury = (self._ledger.accounts.system(name) for name in SYSTEM_NAMES)
            height = treasury[0][0]
            if fees[0][0] == height:  # otherwise a block came between the two readings
                break
        return SupplyView(
            height=height,
            supply=Amount(SUPPLY),
            fees=Amount(fees[2]),
            treasury=Amount(treasury[2]),
            accounts=Amount(SUPPLY - fees[2] - treasury[2]),
            account_count=len(self._ledger.accounts) - len(SYSTEM_NAMES),
        )

    def parameters(self) -> Parameters:
        """The parameters in force for the next block."""
        return parameters_at(self._genesis.parameters, self._ledger.commitment.height + 1)

    def statistics(self) -> LedgerStatistics:
        """A reading for status, metrics and the debug bundle."""
        outcomes = dict(self._metrics.outcomes_total)
        kinds = {"applied": 0, "failed": 0, "refused": 0}
        for outcome, count in outcomes.items():
            kinds[outcome.kind] += count
        commitment = self._ledger.commitment
        return LedgerStatistics(
            height=commitment.height,
            accounts=len(self._ledger.accounts) - len(SYSTEM_NAMES),
            applied_total=kinds["applied"],
            failed_total=kinds["failed"],
            refused_total=kinds["refused"],
            advice_refused_total=self._metrics.advice_refused_total,
            conservation_error=commitment.state_sum - SUPPLY,
        )

    def _view(
        self,
        address: Address,
        found: tuple[tuple[int, bytes, int, bytes], bool, int, bool, list[tuple[int, int]], bytes],
    ) -> AccountView:
        (height, tree_root, state_sum, receipt_root), exists, balance, has_key, lanes, path = found
        commitment = Commitment(
            height=height,
            tree_root=Digest(tree_root),
            state_sum=state_sum,
            receipt_root=Digest(receipt_root),
            parameters_hash=parameters_at(self._genesis.parameters, height).digest,
        )
        state = AccountState(
            exists=exists, balance=Amount(balance), has_key=has_key, lanes=tuple(lanes)
        )
        return AccountView(
            address=address,
            exists=exists,
            balance=state.balance,
            has_key=has_key,
            lanes=state.lanes,
            height=height,
            application_root=commitment.root,
            proof=AccountProof(state=state, commitment=commitment, path=path).encode(),
        )


def _part(data: bytes) -> tuple[bytes, int, int, bytes, int]:
    try:
        decoded = decode(data, size_max=PART_SIZE_BYTES_MAX)
    except NativeError as error:
        raise SnapshotInvalid(str(error)) from None
    match decoded:
        case (bytes(prefix), int(bits), int(accounts), bytes(found), int(total)):
            return prefix, bits, accounts, found, total
        case _:
            raise SnapshotInvalid("a part of the account tree has an unknown form")


def _head(value: bytes) -> tuple[int, Digest]:
    try:
        decoded = decode(value, size_max=HEAD_ROW_SIZE_BYTES_MAX)
    except NativeError as error:
        raise StateDamaged(str(error)) from None
    match decoded:
        case (version, int(height), bytes(receipt_root)) if (
            version == ROW_VERSION and len(receipt_root) == HASH_SIZE_BYTES
        ):
            return height, Digest(receipt_root)
        case _:
            raise StateDamaged("the ledger's head row has an unknown form")
