"""What the HTTP interface needs from a running node: the door between the two.

`NodeAPI` is implemented by the assembly and by a fake in tests. Everything here is a value or an
error that maps mechanically to an HTTP answer; nothing knows about HTTP itself.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

from node.errors import NodeError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from consensus.core.dump import AgreementDump
    from native.batches import Batch
    from node.health import Finding
    from node.status import Status


class APIError(NodeError):
    """Root of what a `NodeAPI` may answer instead of a value."""

    code = "HM-D-601"
    status: ClassVar[int] = 400

    def __init__(
        self, message: str, *, hint: str, code: str | None = None, cause: str = ""
    ) -> None:
        """`code` is the code of the room that refused, where it has one; `cause` explains it."""
        super().__init__(message, hint=hint)
        self.stable_code = code or type(self).code
        self.cause = cause


class BadRequest(APIError):
    """The request cannot be understood."""

    code = "HM-D-602"
    status = 400


class NotAllowed(APIError):
    """The request is understood and not permitted to this caller."""

    code = "HM-D-603"
    status = 403


class NotFound(APIError):
    """There is no such thing, or not yet."""

    code = "HM-D-604"
    status = 404


class Conflict(APIError):
    """The request contradicts what is already there."""

    code = "HM-D-605"
    status = 409


class Refused(APIError):
    """The agreed rules refuse what was asked."""

    code = "HM-D-606"
    status = 422


class Overloaded(APIError):
    """Too much is waiting; the caller should come back."""

    code = "HM-D-607"
    status = 503


class Unavailable(APIError):
    """This node cannot answer now: it starts, stops, catches up, or has no quorum."""

    code = "HM-D-608"
    status = 503


class Behind(APIError):
    """This node has not reached the state that the read asks for, and waited as long as it may."""

    code = "HM-D-609"
    status = 503


class Pruned(NotFound):
    """A block that was held here is not any more; the answer says which are."""

    code = "HM-D-610"
    status = 410


class ReadMode(StrEnum):
    """What an answer about state promises about its age."""

    LOCAL = "local"  # the newest state of this node, however old
    AT_HEIGHT = "at-height"  # the state after the height that was asked for, or a later one
    LINEARIZABLE = "linearizable"  # holds everything that was acknowledged before the question


@dataclass(frozen=True, slots=True, kw_only=True)
class Freshness:
    """Which state a read accepts, and how long it may wait for it."""

    mode: ReadMode = ReadMode.LOCAL
    height: int = 0
    timeout_s: float = 0.0


LOCAL: Final = Freshness()


class Outcome(IntEnum):
    """Fate of one submitted payload, as far as it is known when the answer is written."""

    PENDING = 0  # admitted and on its way; the receipt will tell
    APPLIED = 1  # executed, final
    FAILED = 2  # executed and rolled back, the fee is paid, final
    REFUSED = 3  # not admitted, or refused when executed: state untouched, no receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """Answer to a submitted batch: parallel columns, one place a payload.

    `ids` are what receipts are found by (32 bytes each); `codes` are the application's outcome
    codes (0 for pending and applied); `heights` are 0 where nothing was executed.
    """

    ids: bytes
    outcomes: bytes
    codes: bytes
    heights: Sequence[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class CodeText:
    """What an application's outcome code means to a person."""

    code: str  # stable, HM-x-NNN
    title: str
    next_step: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ReceiptView:
    """One final outcome."""

    id: bytes
    application: str
    code: int
    outcome: Outcome
    height: int
    position: int
    block_time_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LaneView:
    """One of an account's parallel counters."""

    lane: int
    next_sequence: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountView:
    """One account after the block at `height`.

    With a proof: `proof` is the ledger's Merkle-sum proof, `certificate` the block certificate that
    commits to its root; both in their canonical encoding. `exists` is False for an address nothing
    was ever paid to; a proof then shows its absence.
    """

    address: str
    exists: bool
    balance: int
    has_key: bool
    lanes: tuple[LaneView, ...]
    height: int
    state_root: bytes
    proof: bytes | None = None
    certificate: bytes | None = None
    read: ReadMode = ReadMode.LOCAL


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryItem:
    """One payment in or out of an account."""

    id: bytes
    height: int
    block_time_ms: int
    sender: str
    recipient: str
    amount: int
    fee: int
    code: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryPage:
    """Newest first; `next_before` continues the page, or is None at the end."""

    items: tuple[HistoryItem, ...]
    next_before: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockView:
    """One executed block; `certificate` is None until a quorum has signed it."""

    height: int
    hash: bytes
    parent: bytes
    batch_digest: bytes
    time_ms: int
    state_root_before: bytes
    state_root: bytes
    payloads: int
    size_bytes: int
    certificate: bytes | None = None
    payload_ids: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class BlockNews:
    """One executed block as a follower sees it: its place in the chain and what became of it."""

    height: int
    hash: bytes
    parent: bytes
    time_ms: int
    state_root: bytes
    applied: int
    failed: int
    payload_ids: tuple[bytes, ...]  # of the applied and the failed, sorted


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksPage:
    """Blocks in a row without a gap; `next_from` continues where they end."""

    items: tuple[BlockNews, ...]
    next_from: int
    oldest: int
    newest: int


@dataclass(frozen=True, slots=True, kw_only=True)
class HeadersView:
    """A run of headers up to a certified one: `proof` is an encoded `HeaderProof`.

    `batches` are the canonical batch headers beside them, which name the bodies.
    """

    height: int
    last: int
    proof: bytes
    batches: tuple[bytes, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class StatePathView:
    """The way down the ledger's tree to a key, with the application roots of the same block."""

    height: int
    roots: tuple[tuple[int, bytes], ...]
    path: bytes
    address: bytes | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PayloadProof:
    """That a payload is in an agreed block: its bytes, its place, and the way to a header."""

    id: bytes
    height: int
    position: int
    payload: bytes
    size: int  # payloads in the batch
    path: tuple[bytes, ...]
    batch: bytes  # canonical batch header
    proof: bytes  # encoded `HeaderProof` of the block


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPayload:
    """One payload in custody: admitted here or at another validator, and not executed yet."""

    id: bytes  # what its receipt will be found by
    age_ms: int
    size_bytes: int
    source: str  # the validator that handed it over, this node included
    proposed: bool  # in a batch that is being agreed on, as far as this node knows


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitingPage:
    """Payloads in custody, oldest first; `next_from` continues, or is None at the end."""

    items: tuple[WaitingPayload, ...]
    next_from: int | None
    count: int  # in custody altogether
    size_bytes: int
    oldest_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LedgerView:
    """What a wallet must know before it signs."""

    chain: str
    chain_id: bytes
    height: int
    block_time_ms: int
    supply: int
    parameters: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorView:
    """One member of a validator set; its place in the list is its replica index."""

    name: str
    node_id: bytes
    key: bytes  # SPKI
    credentials: bytes  # log keys of one that joined; empty for founders
    tombstone: bool  # a lie of this name or key was proven


@dataclass(frozen=True, slots=True, kw_only=True)
class PendingView:
    """A set that is ordered and votes after the block `effective_after`."""

    epoch: int
    hash: bytes
    ordered_at: int
    effective_after: int
    automatic: bool  # decided by proof, not by the operators
    members: tuple[ValidatorView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class OffenceView:
    """One proven lie."""

    name: str
    node_id: bytes
    offence: str
    epoch: int
    height: int
    evidence: bytes  # id of the payload, as of its receipt


@dataclass(frozen=True, slots=True, kw_only=True)
class ValidatorsView:
    """Who votes after the block at `height`, and what is known of the next set."""

    chain: str
    chain_id: bytes
    height: int
    epoch: int
    hash: bytes
    quorum: int
    removals_max: int  # keys that may leave with one change
    members: tuple[ValidatorView, ...]
    pending: PendingView | None
    offences: tuple[OffenceView, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class CosignersView:
    """What proves, to who follows the epochs, which cosigners speak for which trees."""

    height: int  # of the block that the state is after
    certificate: bytes | None  # of that block; None before the first one
    state: bytes  # canonical `[application roots, opening of the log's root]`
    ends: tuple[bytes, ...]  # encoded `EpochEnd` of epochs that are over, from the one asked for on
    next_from: int | None  # the epoch that continues the page; None at the end


@dataclass(frozen=True, slots=True, kw_only=True)
class LogProof:
    """A Merkle proof of the certificate log and the checkpoint it leads to."""

    first: int  # index of an inclusion proof, older size of a consistency proof
    size: int
    hashes: tuple[bytes, ...]
    leaf_hash: bytes | None
    checkpoint: str  # signed note


class NodeAPI(Protocol):
    """A running node, as its HTTP interface sees it. All methods may raise `APIError`."""

    def status(self) -> Status:
        """Return the state of this node now."""
        ...

    def findings(self) -> Sequence[Finding]:
        """Return the health items that are not well now."""
        ...

    def alive(self) -> bool:
        """Return False only if a restart would help."""
        ...

    def metrics_text(self) -> bytes:
        """Return all metrics in Prometheus text form."""
        ...

    def explain_code(self, tag: int, code: int) -> CodeText:
        """Explain an outcome code of the application with this payload tag."""
        ...

    async def submit(self, batch: Batch, *, wait: bool, timeout_s: float) -> Submission:
        """Admit payloads and, with `wait`, return once each is executed or the time is over."""
        ...

    async def receipt(self, identifier: bytes) -> ReceiptView | None:
        """Return the final outcome of a payload, or None while there is none."""
        ...

    async def ledger(self) -> LedgerView:
        """Return the ledger's head and parameters."""
        ...

    async def account(self, address: str, *, prove: bool, fresh: Freshness = LOCAL) -> AccountView:
        """Return an account, with a proof if asked, of a state as fresh as asked or refuse."""
        ...

    async def history(self, address: str, *, limit: int, before: int | None) -> HistoryPage:
        """Return payments of an account, newest first, below height `before`."""
        ...

    async def block(self, height: int | None) -> BlockView | None:
        """Return one block, the newest for None; None when it does not exist or was pruned."""
        ...

    async def height_of(self, header_hash: bytes) -> int | None:
        """Return the height of the block with this hash; None when it is not held, or too old."""
        ...

    async def waiting(self, first: int, *, limit: int) -> WaitingPage:
        """Return payloads in custody from number `first` on."""
        ...

    def agreement(self) -> tuple[AgreementDump, dict[str, int]]:
        """Return what this node holds of the agreement, and its running timers."""
        ...

    async def blocks(self, first: int, *, limit: int, timeout_s: float) -> BlocksPage:
        """Return blocks from `first` on; above the tip wait for it, then return an empty page.

        Raises `Pruned` when `first` is no longer held, and `Overloaded` when too many wait.
        """
        ...

    async def headers(self, first: int) -> HeadersView | None:
        """Return headers from `first` to the next certified one; None if they are not held."""
        ...

    async def epoch_links(self, first: int, count_max: int) -> tuple[int, tuple[bytes, ...]]:
        """Return the newest epoch, and encoded links to epoch `first` and after it."""
        ...

    async def body(self, height: int) -> bytes | None:
        """Return the batch body of a block; None when the block is not held."""
        ...

    async def state_path(self, key: bytes) -> StatePathView:
        """Return the way down the ledger's tree to a key that need not be in it."""
        ...

    async def payload_proof(self, identifier: bytes) -> PayloadProof | None:
        """Prove that an executed payload is in an agreed block; None while it is in none."""
        ...

    async def validators(self) -> ValidatorsView:
        """Return the validator set, a pending one, and the proven offences."""
        ...

    async def issue_certificate(self, submission: bytes) -> str:
        """Order a certificate; return its bundle (PEM) once the log is cosigned."""
        ...

    async def certificate(self, index: int) -> str | None:
        """Return the bundle of one log entry."""
        ...

    async def log_checkpoint(self) -> str:
        """Return the newest cosigned checkpoint as a signed note."""
        ...

    async def log_cosigners(self, first: int, count_max: int) -> CosignersView:
        """Prove where the log stood when epochs ended, from `first` on, from a certified state."""
        ...

    async def log_inclusion(self, index: int, size: int | None) -> LogProof:
        """Prove that entry `index` is in the log of `size` entries (None: newest checkpoint)."""
        ...

    async def log_consistency(self, old: int, new: int | None) -> LogProof:
        """Prove that the log of `old` entries is a prefix of the one of `new`."""
        ...
