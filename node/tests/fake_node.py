"""A node that exists only in memory: HTTP interface and commands are tested against it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import trio

from consensus.core.dump import (
    AgreementDump,
    CheckpointDump,
    PeerDump,
    PlaceDump,
    ViewChangeDump,
)
from native.batches import Batch
from native.hashing import sha256
from node.config.schema import HTTPSection
from node.health import Finding, findings
from node.metrics import Metrics
from node.runtime.api import (
    LOCAL,
    AccountView,
    Behind,
    BlockNews,
    BlocksPage,
    BlockView,
    CodeText,
    CosignersView,
    Freshness,
    HeadersView,
    HistoryItem,
    HistoryPage,
    LaneView,
    LedgerView,
    LogProof,
    NotFound,
    OffenceView,
    Outcome,
    PayloadProof,
    PendingView,
    Pruned,
    ReceiptView,
    StatePathView,
    Submission,
    ValidatorsView,
    ValidatorView,
    WaitingPage,
    WaitingPayload,
)
from node.runtime.http import create_app, serve
from node.status import PeerStatus, Status

CHAIN_ID = bytes(range(32))
STATUS = Status(
    name="n0",
    role="validator",
    node_id="ab" * 32,
    version="0.1.0",
    chain="demo-00010203",
    chain_id=CHAIN_ID.hex(),
    phase="running",
    uptime_ms=11_520_000,
    now_ms=1_700_000_100_000,
    height=42,
    height_known=42,
    state_root="cd" * 32,
    view=3,
    primary="n3",
    voting=True,
    view_change_ms=0,
    last_block_ms=1_700_000_099_000,
    idle_block_interval_ms=10_000,
    validators=4,
    quorum=3,
    faults_tolerated=1,
    validators_connected=4,
    peers=tuple(
        PeerStatus(name=f"n{at}", node_id=f"{at:064x}", address=f"[::1]:93{at}2", connected=True)
        for at in (1, 2, 3)
    ),
    mempool_count=5,
    mempool_count_max=1_000,
    mempool_bytes=5_000,
    mempool_oldest_ms=9_000,
    log_size=7,
    supply=10**18,
    conservation_error=0,
    transactions_total=12_345,
    rss_bytes=88_000_000,
    disk_free_bytes=60,
    disk_size_bytes=100,
    clock_offset_ms=2,
    data_format=1,
    stoq="[::1]:9292",
    http="[::1]:9293",
)


@dataclass
class FakeNode:
    """Implements `NodeAPI`: keeps what it was given and answers from it."""

    now: Status = STATUS
    outcome: Outcome = Outcome.APPLIED
    code: int = 0
    timeouts_s: list[float] = field(default_factory=list)
    reads: list[Freshness] = field(default_factory=list)
    submitted: list[bytes] = field(default_factory=list)
    submissions: list[bytes] = field(default_factory=list)
    gate: trio.Event | None = None
    bundle: str = "-----BEGIN CERTIFICATE-----\n"
    checkpoint: str = "oid/1\n7\nroot\n"
    balance: int = 12_500_000_000
    explode: bool = False
    forked_at: int = 0  # this block names another parent

    def set(self, **changes: object) -> None:
        """Change the status."""
        self.now = replace(self.now, **changes)  # type: ignore[arg-type]

    def status(self) -> Status:
        return self.now

    def findings(self) -> Sequence[Finding]:
        return findings(self.now)

    def alive(self) -> bool:
        return self.now.phase != "stuck"

    def metrics_text(self) -> bytes:
        metrics = Metrics()
        metrics.watch_status(lambda: (self.now, self.findings()))
        return metrics.render()

    def explain_code(self, tag: int, code: int) -> CodeText:
        return CodeText(
            code=f"HM-L-{code:03}", title=f"reason {code} of {tag}", next_step="do better"
        )

    async def submit(self, batch: Batch, *, wait: bool, timeout_s: float) -> Submission:
        self.timeouts_s.append(timeout_s)
        if self.gate is not None:
            await self.gate.wait()
        if self.explode:
            raise RuntimeError("a defect")
        payloads = [batch.payload(at) for at in range(len(batch))]
        self.submitted += payloads
        outcome = self.outcome if wait or self.outcome is Outcome.REFUSED else Outcome.PENDING
        executed = outcome in (Outcome.APPLIED, Outcome.FAILED)
        return Submission(
            ids=b"".join(sha256(payload) for payload in payloads),
            outcomes=bytes([outcome]) * len(payloads),
            codes=bytes([self.code]) * len(payloads),
            heights=[self.now.height if executed else 0] * len(payloads),
        )

    async def receipt(self, identifier: bytes) -> ReceiptView | None:
        if identifier != bytes(32):
            return None
        return ReceiptView(
            id=identifier,
            application="caesar",
            code=0,
            outcome=Outcome.APPLIED,
            height=9,
            position=1,
            block_time_ms=1_700_000_000_000,
        )

    async def ledger(self) -> LedgerView:
        return LedgerView(
            chain=self.now.chain,
            chain_id=CHAIN_ID,
            height=self.now.height,
            block_time_ms=self.now.last_block_ms,
            supply=self.now.supply,
            parameters={"transfer_fee": 10_000, "valid_for_blocks_max": 1_000_000},
        )

    async def account(self, address: str, *, prove: bool, fresh: Freshness = LOCAL) -> AccountView:
        self.reads.append(fresh)
        if fresh.height > self.now.height:
            raise Behind("not there yet", hint="wait longer")
        return AccountView(
            read=fresh.mode,
            address=address,
            exists=True,
            balance=self.balance,
            has_key=False,
            lanes=(LaneView(lane=0, next_sequence=4),),
            height=self.now.height,
            state_root=bytes.fromhex(self.now.state_root),
            proof=b"proof" if prove else None,
            certificate=b"certificate" if prove else None,
        )

    async def history(self, address: str, *, limit: int, before: int | None) -> HistoryPage:
        item = HistoryItem(
            id=bytes(32),
            height=(before or 100) - 1,
            block_time_ms=1_700_000_000_000,
            sender=address,
            recipient="hm1other",
            amount=1_500_000_000,
            fee=10_000,
            code=0,
        )
        return HistoryPage(items=(item,) * min(limit, 2), next_before=7)

    async def block(self, height: int | None) -> BlockView | None:
        if height is not None and height > self.now.height:
            return None
        return BlockView(
            height=self.now.height if height is None else height,
            hash=bytes(32),
            parent=bytes(32),
            batch_digest=bytes(32),
            time_ms=1,
            state_root_before=bytes(32),
            state_root=bytes.fromhex(self.now.state_root),
            payloads=0,
            size_bytes=0,
        )

    async def blocks(self, first: int, *, limit: int, timeout_s: float) -> BlocksPage:
        self.timeouts_s.append(timeout_s)
        now = self.now
        if first < now.height_oldest:
            raise Pruned(f"block {first} is not held here", hint=f"go on from {now.height_oldest}")
        items = tuple(
            BlockNews(
                height=at,
                hash=bytes([at]) * 32,
                parent=bytes([0 if at == self.forked_at else at - 1]) * 32,
                time_ms=at,
                state_root=bytes(32),
                applied=2,
                failed=1,
                payload_ids=(bytes(32),) * 3,
            )
            for at in range(first, min(first + limit - 1, now.height) + 1)
        )
        return BlocksPage(
            items=items,
            next_from=first + len(items),
            oldest=now.height_oldest,
            newest=now.height,
        )

    async def height_of(self, header_hash: bytes) -> int | None:
        return 7 if header_hash == bytes([7]) * 32 else None

    async def waiting(self, first: int, *, limit: int) -> WaitingPage:
        items = tuple(
            WaitingPayload(
                id=bytes([at]) * 32,
                age_ms=9_000 - at,
                size_bytes=1_000,
                source="n1",
                proposed=at == 0,
            )
            for at in range(first, min(first + limit, self.now.mempool_count))
        )
        after = first + len(items)
        return WaitingPage(
            items=items,
            next_from=after if after < self.now.mempool_count else None,
            count=self.now.mempool_count,
            size_bytes=self.now.mempool_bytes,
            oldest_ms=self.now.mempool_oldest_ms,
        )

    def agreement(self) -> tuple[AgreementDump, dict[str, int]]:
        found = AgreementDump(
            waits_for="block 43 has 2 of 3 PREPARE votes, none from n2",
            phase="voting",
            epoch=0,
            view=3,
            active=True,
            primary="n3",
            members=4,
            quorum=3,
            executed=42,
            certified=41,
            watermark_high=105,
            pending=5,
            oldest_ms=9_000,
            request_timeout_ms=2_000,
            failed_views=0,
            view_changes=(ViewChangeDump(name="n2", view=4),),
            places=(
                PlaceDump(
                    sequence=43,
                    digest="ef" * 32,
                    body_held=True,
                    prepared=False,
                    committed=False,
                    prepares=("n0", "n3"),
                    commits=(),
                    missing=("n1", "n2"),
                ),
            ),
            checkpoints=(CheckpointDump(height=42, voters=("n0", "n1"), missing=("n2", "n3")),),
            peers=(
                PeerDump(
                    name="n2",
                    connected=False,
                    phase="starting",
                    view=0,
                    executed=0,
                    certified=0,
                    status_age_ms=None,
                ),
            ),
        )
        return found, {"suspect": 1_500, "status": -3}

    async def headers(self, first: int) -> HeadersView | None:
        if first > self.now.height:
            return None
        return HeadersView(height=first, last=self.now.height, proof=b"proof", batches=(b"batch",))

    async def epoch_links(self, first: int, count_max: int) -> tuple[int, tuple[bytes, ...]]:
        links = tuple([b"link %d" % at for at in range(1, 41)])
        return len(links), links[first - 1 : first - 1 + count_max]

    async def body(self, height: int) -> bytes | None:
        return b"body" if height <= self.now.height else None

    async def state_path(self, key: bytes) -> StatePathView:
        return StatePathView(height=self.now.height, roots=((1, key),), path=b"path", address=None)

    async def payload_proof(self, identifier: bytes) -> PayloadProof | None:
        if identifier != bytes(32):
            return None
        return PayloadProof(
            id=identifier,
            height=9,
            position=1,
            payload=b"payload",
            size=2,
            path=(bytes(32),),
            batch=b"batch",
            proof=b"proof",
        )

    async def validators(self) -> ValidatorsView:
        members = tuple(
            ValidatorView(
                name=f"n{at}",
                node_id=bytes([at]) * 32,
                key=b"key",
                credentials=b"",
                tombstone=at == 2,
            )
            for at in range(4)
        )
        return ValidatorsView(
            chain=self.now.chain,
            chain_id=CHAIN_ID,
            height=self.now.height,
            epoch=1,
            hash=bytes(32),
            quorum=3,
            removals_max=1,
            members=members,
            pending=PendingView(
                epoch=2,
                hash=bytes(32),
                ordered_at=40,
                effective_after=104,
                automatic=False,
                members=members[:2],
            ),
            offences=(
                OffenceView(
                    name="n2",
                    node_id=bytes([2]) * 32,
                    offence="two commits",
                    epoch=0,
                    height=39,
                    evidence=bytes(32),
                ),
            ),
        )

    async def issue_certificate(self, submission: bytes) -> str:
        self.submissions.append(submission)
        return self.bundle

    async def certificate(self, index: int) -> str | None:
        return self.bundle if index < self.now.log_size else None

    async def log_checkpoint(self) -> str:
        return self.checkpoint

    async def log_cosigners(self, first: int, count_max: int) -> CosignersView:
        ends = (b"zero", b"one", b"two")
        last = first + count_max
        return CosignersView(
            height=0,
            certificate=None,
            state=b"state",
            ends=ends[first:last],
            next_from=last if last < len(ends) else None,
        )

    async def log_inclusion(self, index: int, size: int | None) -> LogProof:
        if index >= self.now.log_size:
            raise NotFound(f"no entry {index}", hint="see ctlog head", code="HM-A-010")
        return LogProof(
            first=index,
            size=size or self.now.log_size,
            hashes=(bytes(32),),
            leaf_hash=bytes(32),
            checkpoint=self.checkpoint,
        )

    async def log_consistency(self, old: int, new: int | None) -> LogProof:
        return LogProof(
            first=old,
            size=new or self.now.log_size,
            hashes=(),
            leaf_hash=None,
            checkpoint=self.checkpoint,
        )


class Served:
    """A fake node served on a free port of [::1], from a thread of its own."""

    def __init__(self, node: FakeNode) -> None:
        self.node = node
        self.url = ""
        self._ready = threading.Event()
        self._token: trio.lowlevel.TrioToken | None = None
        self._stop: trio.Event | None = None
        self._thread = threading.Thread(target=trio.run, args=(self._main,))

    def __enter__(self) -> Served:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        assert self._token is not None
        assert self._stop is not None
        self._token.run_sync_soon(self._stop.set)
        self._thread.join(10)

    async def _main(self) -> None:
        self._token, self._stop = trio.lowlevel.current_trio_token(), trio.Event()
        app = create_app(self.node, HTTPSection(debug=True))
        async with trio.open_nursery() as nursery:

            async def run(task_status: trio.TaskStatus[str]) -> None:
                assert self._stop is not None
                await serve(app, "[::1]:0", stop=self._stop, task_status=task_status)

            self.url = await nursery.start(run)
            self._ready.set()
