"""A running node as its callers see it: the one implementation of `NodeAPI`.

Each method gathers what the rooms know and turns it into values of `node.runtime.api`; the rules
are in the rooms. Questions about application state run on the executor thread, so they see the
state between two blocks.
"""

from __future__ import annotations

import os
import resource
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

import trio

from caesar.core import validators
from caesar.core.addresses import Address, address_text, parse_address
from caesar.core.changes import TAG as VALIDATORS_TAG
from caesar.core.receipts import Outcome as LedgerOutcome
from caesar.core.transactions import TAG as LEDGER_TAG
from caesar.core.transactions import decode_transaction
from caesar.core.validators import Registry, Verdict
from caesar.errors import AddressInvalid, TransactionMalformed
from consensus.application import CODE_APPLIED
from consensus.core import wire
from consensus.core.dump import AgreementDump, dump
from consensus.core.light import HeaderProof
from consensus.core.messages import EMPTY_ROOT, BatchHeader, BlockHeader, EpochLink
from consensus.core.quorum import faults, quorum
from consensus.core.types import Height, Phase
from consensus.core.validators import ValidatorSet
from consensus.limits import MESSAGE_BYTES_MAX
from native.batches import Batch
from native.codec import encode
from native.hashing import inclusion_proof, leaf_hash
from native.limits import BATCH_SIZE_BYTES_MAX
from node.health import Finding, findings
from node.limits import HTTP_FOLLOWERS_MAX, HTTP_IDS_PER_PAGE_MAX, LINEARIZABLE_MARGIN_MS
from node.runtime.acknowledged import HeldBack
from node.runtime.api import (
    LOCAL,
    AccountView,
    BadRequest,
    Behind,
    BlockNews,
    BlocksPage,
    BlockView,
    CodeText,
    Conflict,
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
    Overloaded,
    PayloadProof,
    PendingView,
    Pruned,
    ReadMode,
    ReceiptView,
    Refused,
    StatePathView,
    Submission,
    Unavailable,
    ValidatorsView,
    ValidatorView,
    WaitingPage,
    WaitingPayload,
)
from node.runtime.executor import SearchBusy
from node.runtime.receipts import find_receipt, id_at, receipt_codes, receipt_ids
from node.runtime.router import CODE_NO_APPLICATION, state_root
from node.runtime.store import FORMAT_VERSION, StoredBlock
from node.runtime.submissions import CODE_MEMPOOL_FULL, OWN_SOURCE, outcome_of
from node.status import PeerStatus, Status
from node.version import version
from transport.core.events import key_exchange_name, signature_name
from trustchain.core.outcomes import Outcome as LogOutcome
from trustchain.errors import (
    CosignerBusy,
    EntryUnknown,
    HeadUnknown,
    MalformedOperation,
    MalformedRequest,
    RequestRefused,
)
from trustchain.runtime.intake import take_submission

if TYPE_CHECKING:
    from consensus.core.validators import ValidatorSet
    from node.runtime.assemble import Parts
    from transport import Connection
    from trustchain.core.roster import Roster

T = TypeVar("T")

COSIGN_TIMEOUT_S: Final = 10.0  # W validators that are up answer within one round trip
CERTIFICATE_TIMEOUT_S: Final = 5.0  # one vote round, or an idle block when the tip is not certified
PROOF_ATTEMPTS_MAX: Final = 5  # under load another block may be certified in a block's place
ISSUE_TIMEOUT_S: Final = 30.0
HISTORY_BLOCKS_MAX: Final = 250  # searched for one page; the cursor continues below
PAGE_BYTES: Final = os.sysconf("SC_PAGE_SIZE")

FULL_TEXT: Final = CodeText(
    code="HM-D-030",
    title="this node holds as many payloads as it may",
    next_step="try again in a second, or use another node",
)
NOBODY_TEXT: Final = CodeText(
    code="HM-D-031",
    title="the first byte of the payload names no application of this chain",
    next_step="1 is a ledger transaction, 2 a certificate operation, 3 about validators",
)


class NodeService:
    """Answers for one node. Lives on the loop."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._started = trio.current_time()
        self._view_change_since: float | None = None
        self.last_block_ms = 0
        self.transactions_total = 0
        self.state_root = parts.root
        self.stopping = False
        self._followers = 0
        self._roster: Roster | None = None  # of the newest epoch, once asked for

    # --- status

    def status(self) -> Status:
        """Return the state of this node now."""
        parts = self._parts
        statistics = parts.driver.replica.statistics()
        genesis = parts.genesis
        validators = parts.membership.validators
        members = len(validators)
        ledger = parts.ledger.statistics()
        disk = os.statvfs(parts.home.path)
        primary = validators[statistics.view % members]
        known = max(int(statistics.certified), int(statistics.executed))
        roster = self._log_roster()
        seats = [seat for seat in roster.seats if seat is not None]
        return Status(
            name=parts.config.node.name,
            role="observer" if parts.membership.index is None else "validator",
            node_id=parts.secret.node_id.hex(),
            version=version(),
            chain=genesis.label,
            chain_id=genesis.chain_id.hex(),
            phase="stopping"
            if self.stopping
            else phase_word(statistics.phase, catching_up=statistics.catching_up),
            uptime_ms=int((trio.current_time() - self._started) * 1000),
            now_ms=parts.clock().unix_ms,
            height=int(statistics.executed),
            height_known=known,
            state_root=self.state_root.hex(),
            epoch=int(statistics.epoch),
            epoch_last=int(statistics.epoch_last),
            view=int(statistics.view),
            primary=primary.name,
            voting=statistics.phase is Phase.VOTING,
            view_change_ms=self._view_change_ms(active=statistics.in_view_change),
            last_block_ms=self.last_block_ms,
            idle_block_interval_ms=parts.config.consensus.idle_block_interval_ms,
            validators=members,
            quorum=quorum(members),
            faults_tolerated=faults(members),
            validators_connected=(parts.membership.index is not None) + len(parts.links.connected),
            peers=self._peers(),
            mempool_count=len(parts.mempool),
            mempool_count_max=parts.config.mempool.count_max,
            mempool_bytes=parts.mempool.bytes,
            mempool_oldest_ms=self._oldest_ms(),
            log_size=parts.log.size,
            log_cosigners=len(seats),
            log_cosigners_needed=roster.needed,
            log_issuers=sum(1 for seat in seats if seat.issuing_hash),
            supply=int(parts.ledger.supply().supply),
            conservation_error=ledger.conservation_error,
            transactions_total=self.transactions_total,
            rss_bytes=resident_bytes(),
            disk_free_bytes=disk.f_bavail * disk.f_frsize,
            disk_size_bytes=disk.f_blocks * disk.f_frsize,
            clock_offset_ms=statistics.clock_offset_ms,
            data_format=FORMAT_VERSION,
            stoq=parts.endpoint.address,
            http=parts.config.http.listen if parts.config.http.enabled else "",
            height_oldest=parts.pruner.oldest,
            records_damaged=parts.server.statistics().records_damaged,
            stall=parts.stall.text(),
        )

    def findings(self) -> Sequence[Finding]:
        """Return the health items that are not well now."""
        return findings(self.status())

    def alive(self) -> bool:
        """Return False only if a restart would help: never from in here, a dead loop is silent."""
        return True

    def metrics_text(self) -> bytes:
        """Return all metrics in Prometheus text form."""
        return self._parts.metrics.render()

    def explain_code(self, tag: int, code: int) -> CodeText:
        """Explain an outcome code of the application with this payload tag."""
        if code == CODE_MEMPOOL_FULL:
            return FULL_TEXT
        if code == CODE_NO_APPLICATION:
            return NOBODY_TEXT
        if tag == LEDGER_TAG:
            outcome = LedgerOutcome(code)
            return CodeText(code=outcome.code, title=outcome.text, next_step=outcome.hint)
        if tag == VALIDATORS_TAG:
            verdict = Verdict(code)
            return CodeText(code=verdict.code, title=verdict.text, next_step=verdict.hint)
        found = LogOutcome(code)
        return CodeText(code=found.code, title=found.text, next_step=found.explanation)

    # --- payloads

    async def submit(self, batch: Batch, *, wait: bool, timeout_s: float) -> Submission:
        """Admit payloads and, with `wait`, return once each is executed or the time is over."""
        return await self._parts.submissions.submit(batch, wait=wait, timeout_s=timeout_s)

    async def receipt(self, identifier: bytes) -> ReceiptView | None:
        """Return the final outcome of a payload, or None while there is none."""
        try:
            found = await self._parts.acknowledged.receipt(identifier)
        except SearchBusy:
            raise Overloaded(
                "others are looking for old receipts", hint="try again in a second"
            ) from None
        except HeldBack:
            return None
        if found is None:
            return None
        block = await self._parts.executor.block(found.height)
        names = {a.tag: a.name for a in self._parts.router.applications}
        return ReceiptView(
            id=found.id,
            application=names[found.tag],
            code=found.code,
            outcome=outcome_of(found.code),
            height=found.height,
            position=found.position,
            block_time_ms=0 if block is None else self._header(block).time_ms,
        )

    # --- ledger

    async def ledger(self) -> LedgerView:
        """Return the ledger's head and parameters."""
        parts = self._parts
        supply = parts.ledger.supply()
        parameters = parts.ledger.parameters()
        block = await parts.executor.block(supply.height)
        return LedgerView(
            chain=parts.genesis.label,
            chain_id=parts.genesis.chain_id,
            height=supply.height,
            block_time_ms=parts.genesis.time_ms if block is None else self._header(block).time_ms,
            supply=int(supply.supply),
            parameters={
                name: int(getattr(parameters, name)) for name in type(parameters).__slots__
            },
        )

    async def account(self, address: str, *, prove: bool, fresh: Freshness = LOCAL) -> AccountView:
        """Return an account, with a proof if asked, of a state as fresh as asked or refuse."""
        parsed = self._address(address)
        await self._reach(fresh)
        parts = self._parts
        _, (view, roots), certificate = await self._read(
            lambda: (parts.ledger.account(parsed), parts.router.roots),
            "the account's block",
            prove=prove,
        )
        return AccountView(
            address=address,
            exists=view.exists,
            balance=int(view.balance),
            has_key=view.has_key,
            lanes=tuple(LaneView(lane=lane, next_sequence=after) for lane, after in view.lanes),
            height=view.height,
            state_root=state_root(roots),
            proof=encode((view.proof, roots)) if prove else None,
            certificate=certificate,
            read=fresh.mode,
        )

    async def history(self, address: str, *, limit: int, before: int | None) -> HistoryPage:
        """Return payments of an account, newest first, below height `before`."""
        wanted = self._address(address)
        parts = self._parts
        newest = parts.acknowledged.height
        top = newest if before is None else min(before - 1, newest)
        items: list[HistoryItem] = []
        floor = max(0, top - HISTORY_BLOCKS_MAX)
        for height in range(top, floor, -1):
            block = await parts.executor.block(height)
            if block is None:
                return HistoryPage(items=tuple(items))
            if not block.receipts:
                continue
            body = await parts.store.body(height, self._batch(block).payload_root)
            if body is not None:
                items += await trio.to_thread.run_sync(self._payments, block, body, wanted)
            if len(items) >= limit:
                return HistoryPage(items=tuple(items), next_before=height)
        return HistoryPage(items=tuple(items), next_before=floor + 1 if floor else None)

    # --- blocks

    async def block(self, height: int | None) -> BlockView | None:
        """Return one block, the newest for None; None when it does not exist or was pruned."""
        parts = self._parts
        found = await parts.executor.block(parts.acknowledged.height if height is None else height)
        if found is None:
            return None
        header, agreed = self._header(found), self._batch(found)
        body = None
        if agreed.payload_root != EMPTY_ROOT:
            body = await parts.store.body(found.height, agreed.payload_root)
        batch = Batch.parse(body) if body is not None else None
        certificate = parts.board.at(found.height)
        return BlockView(
            height=found.height,
            hash=header.hash,
            parent=header.parent,
            batch_digest=header.batch,
            time_ms=header.time_ms,
            state_root_before=header.state_root,
            state_root=found.state_root,
            payloads=0 if batch is None else len(batch),
            size_bytes=0 if batch is None else batch.size,
            certificate=None if certificate is None else encode(certificate.value()),
            payload_ids=receipt_ids(found.receipts),
        )

    async def height_of(self, header_hash: bytes) -> int | None:
        """Return the height of the block with this hash; None when it is not held, or too old."""
        try:
            return await self._parts.executor.height_of(header_hash)
        except SearchBusy:
            raise Overloaded(
                "others are looking for old blocks", hint="try again in a second"
            ) from None

    async def waiting(self, first: int, *, limit: int) -> WaitingPage:
        """Return payloads in custody from number `first` on."""
        parts = self._parts
        await trio.lowlevel.checkpoint()
        page = parts.mempool.page(first, limit, BATCH_SIZE_BYTES_MAX)
        items: list[WaitingPayload] = []
        next_from = None
        if page is not None:
            batch, places = page
            ids = (await trio.to_thread.run_sync(parts.router.check, batch)).ids
            now_ms = parts.clock().monotonic_us // 1_000
            for at, (_, source, since_ms, proposed) in enumerate(places):
                payload = WaitingPayload(
                    id=id_at(ids, at),
                    age_ms=max(0, now_ms - since_ms),
                    size_bytes=len(batch.payload(at)),
                    source=parts.config.node.name if source == OWN_SOURCE else self._name(source),
                    proposed=proposed,
                )
                items.append(payload)
            following = places[-1][0] + 1
            next_from = (
                following if parts.mempool.page(following, 1, BATCH_SIZE_BYTES_MAX) else None
            )
        return WaitingPage(
            items=tuple(items),
            next_from=next_from,
            count=len(parts.mempool),
            size_bytes=parts.mempool.bytes,
            oldest_ms=self._oldest_ms(),
        )

    def agreement(self) -> tuple[AgreementDump, dict[str, int]]:
        """Return what this node holds of the agreement, and its running timers."""
        driver = self._parts.driver
        return dump(driver.replica, self._name, self._parts.clock()), driver.timers()

    async def blocks(self, first: int, *, limit: int, timeout_s: float) -> BlocksPage:
        """Return blocks from `first` on; above the tip wait for it, then return an empty page.

        Raises `Pruned` when `first` is no longer held, and `Overloaded` when too many wait.
        """
        parts = self._parts
        if first > parts.acknowledged.height:
            await self._follow(first, timeout_s)
        newest = parts.acknowledged.height
        items: list[BlockNews] = []
        ids = 0
        for height in range(first, min(first + limit - 1, newest) + 1):
            found = await parts.executor.block(height)
            if found is None:
                break  # pruned since, or all below it is: the next question is told
            items.append(self._block_news(found))
            ids += len(items[-1].payload_ids)
            if ids >= HTTP_IDS_PER_PAGE_MAX:
                break
        oldest = parts.pruner.oldest
        if not items and first <= newest:
            raise Pruned(
                f"block {first} is not held here any more: {oldest} to {newest} are",
                hint=f"go on from {oldest}, or ask a node that keeps more blocks",
            )
        return BlocksPage(
            items=tuple(items), next_from=first + len(items), oldest=oldest, newest=newest
        )

    async def epoch_links(self, first: int, count_max: int) -> tuple[int, tuple[bytes, ...]]:
        """Return the newest epoch, and encoded links to epoch `first` and after it."""
        await trio.lowlevel.checkpoint()
        links = self._parts.membership.epochs.links
        wanted = links[first - 1 : first - 1 + count_max]
        return len(links), tuple([encode(link.value()) for link in wanted])

    async def headers(self, first: int) -> HeadersView | None:
        """Return headers from `first` to the next certified one; None if they are not held."""
        blocks = await self._parts.server.blocks(Height(first))
        if blocks is None:
            return None
        proof = HeaderProof(headers=blocks.headers, certificate=blocks.certificate)
        return HeadersView(
            height=first,
            last=int(blocks.certificate.height),
            proof=proof.encode(),
            batches=tuple([encode(batch.value()) for batch in blocks.batches]),
        )

    async def body(self, height: int) -> bytes | None:
        """Return the batch body of a block; None when the block is not held."""
        found = await self._parts.executor.block(height)
        if found is None:
            return None
        root = self._batch(found).payload_root
        if root == EMPTY_ROOT:
            return Batch.of([]).body
        return await self._parts.store.body(height, root)

    async def state_path(self, key: bytes) -> StatePathView:
        """Return the way down the ledger's tree to a key that need not be in it."""
        parts = self._parts
        found, roots = await parts.executor.run(
            lambda: (parts.ledger.tree_path(key), tuple(parts.router.roots))
        )
        return StatePathView(
            height=found.height, roots=roots, path=found.path, address=found.address
        )

    async def payload_proof(self, identifier: bytes) -> PayloadProof | None:
        """Prove that an executed payload is in an agreed block; None while it is in none."""
        found = await self.receipt(identifier)
        if found is None:
            return None
        with trio.move_on_after(CERTIFICATE_TIMEOUT_S):
            await self._parts.board.wait(found.height)
        headers, body = await self.headers(found.height), await self.body(found.height)
        if headers is None or body is None:
            raise Unavailable(
                f"block {found.height} is not certified yet, or was pruned here",
                hint="try again in a second, or ask a node that keeps more blocks",
            )
        batch = Batch.parse(body)
        return PayloadProof(
            id=identifier,
            height=found.height,
            position=found.position,
            payload=batch.payload(found.position),
            size=len(batch),
            path=tuple(inclusion_proof(batch.hashes, found.position)),
            batch=headers.batches[0],
            proof=headers.proof,
        )

    # --- validators

    async def validators(self) -> ValidatorsView:
        """Return the validator set, a pending one, and the proven offences."""
        parts = self._parts
        registry = await parts.executor.run(lambda: parts.validators.registry)
        return validators_view(registry, parts.genesis.label, parts.genesis.chain_id)

    # --- certificates

    async def issue_certificate(self, submission: bytes) -> str:
        """Order a certificate; return its bundle (PEM) once the log is cosigned."""
        parts = self._parts
        try:
            operation = take_submission(submission, chain_id=parts.genesis.chain_id)
            payload = operation.encode()
        except (MalformedRequest, MalformedOperation) as error:
            raise BadRequest(str(error), hint=error.hint, code=error.code) from error
        except RequestRefused as error:
            raise Refused(str(error), hint=error.hint, code=error.code) from error
        answer = await parts.submissions.submit(
            Batch.of([payload]), wait=True, timeout_s=ISSUE_TIMEOUT_S
        )
        code = answer.codes[0]
        if answer.outcomes[0] == Outcome.PENDING:
            raise Unavailable(
                "the request was not ordered in time", hint="try again with the same request"
            )
        if code not in (LogOutcome.ISSUED, LogOutcome.ALREADY_ISSUED):
            text = self.explain_code(parts.log.tag, code)
            self._parts.metrics.certificates.labels(outcome="refused").inc()
            raise Refused(text.title, hint=text.next_step, code=text.code)
        try:
            record = parts.log.entry_of_request(operation.request_id)
        except EntryUnknown as error:
            raise Conflict(str(error), hint=error.hint, code=error.code) from error
        self._parts.metrics.certificates.labels(outcome="issued").inc()
        return await self._bundle(record.index)

    async def certificate(self, index: int) -> str | None:
        """Return the bundle of one log entry."""
        try:
            return await self._bundle(index)
        except EntryUnknown:
            return None

    async def log_checkpoint(self) -> str:
        """Return the newest cosigned checkpoint as a signed note."""
        cosigner = self._parts.cosigner
        checkpoint = None if cosigner is None else cosigner.checkpoint()
        if checkpoint is None:
            raise NotFound(
                "the log has no cosigned checkpoint yet", hint="issue a certificate first"
            )
        return checkpoint.encode()

    async def log_cosigners(self, first: int, count_max: int) -> CosignersView:
        """Prove where the log stood when epochs ended, from `first` on, from a certified state."""
        parts = self._parts
        height, (opening, roots), certificate = await self._read(
            lambda: (parts.log.opening(), parts.router.roots), "the newest block", prove=True
        )
        links = [link for link in parts.membership.epochs.links if link.base <= height]
        last = first + count_max
        ends = await trio.to_thread.run_sync(self._epoch_ends, links[first:last], opening.size)
        return CosignersView(
            height=height,
            certificate=certificate,
            state=encode((roots, opening.encode())),
            ends=ends,
            next_from=last if last < len(links) else None,
        )

    async def log_inclusion(self, index: int, size: int | None) -> LogProof:
        """Prove that entry `index` is in the log of `size` entries (None: newest checkpoint)."""
        log = self._parts.log
        checkpoint = await self.log_checkpoint()
        chosen = self._cosigned_size() if size is None else size
        try:
            return LogProof(
                first=index,
                size=chosen,
                hashes=log.inclusion_proof(index, chosen),
                leaf_hash=leaf_hash(log.entry(index).entry),
                checkpoint=checkpoint,
            )
        except (HeadUnknown, EntryUnknown) as error:
            raise NotFound(str(error), hint=error.hint, code=error.code) from error

    async def log_consistency(self, old: int, new: int | None) -> LogProof:
        """Prove that the log of `old` entries is a prefix of the one of `new`."""
        checkpoint = await self.log_checkpoint()
        chosen = self._cosigned_size() if new is None else new
        try:
            hashes = self._parts.log.consistency_proof(old, chosen)
        except HeadUnknown as error:
            raise NotFound(str(error), hint=error.hint, code=error.code) from error
        return LogProof(
            first=old, size=chosen, hashes=hashes, leaf_hash=None, checkpoint=checkpoint
        )

    # --- inside

    async def _read(
        self, read: Callable[[], T], what: str, *, prove: bool
    ) -> tuple[int, T, bytes | None]:
        """Read the newest state: its height, what `read` finds, and the block's certificate.

        The certificate is encoded; genesis has none, nor is there one unless it is to `prove`.
        Raises `Unavailable` when none comes in time.
        """
        executor = self._parts.executor
        for _ in range(PROOF_ATTEMPTS_MAX):
            height, found = await executor.run(lambda: (executor.height, read()))
            if height == 0 or not prove:
                return height, found, None
            certificate = None
            with trio.move_on_after(CERTIFICATE_TIMEOUT_S):
                certificate = await self._parts.board.wait(height)
            if certificate is not None:
                return height, found, encode(certificate.value())
        raise Unavailable(
            f"no certificate for {what} came in time",
            hint="try again; without a quorum there is no proof",
        )

    async def _follow(self, height: int, timeout_s: float) -> None:
        """Return when a block is executed, or its time is over."""
        if self._followers >= HTTP_FOLLOWERS_MAX:
            raise Overloaded(
                f"{HTTP_FOLLOWERS_MAX} callers wait for new blocks already",
                hint="come back after the time in Retry-After, or ask another node",
            )
        self._followers += 1
        try:
            fresh = Freshness(mode=ReadMode.AT_HEIGHT, height=height, timeout_s=timeout_s)
            with suppress(Behind):
                await self._reach(fresh)
        finally:
            self._followers -= 1

    async def _reach(self, fresh: Freshness) -> None:
        """Return when this node's state is as fresh as a read asks; raise `Behind` after its time.

        Linearizable: a block is executed here that was proposed, by its own agreed time, at least
        `LINEARIZABLE_MARGIN_MS` after the question came. Why that is enough: everything that was
        acknowledged before the question was executed somewhere, so every place up to its block was
        agreed by then. No correct replica prepares a batch before its own clock is within
        `CLOCK_AHEAD_MS_MAX` of the proposed time, so with clocks of correct validators at most
        `CLOCK_APART_MS_MAX` apart, such a block had no prepared certificate when the question came,
        in whatever view; the places agreed by then hold other batches, and it lies above them all.
        No liar can break this, only delay it; a wrong clock of this node can. An ordered no-op
        would need no clocks, but would let anybody who can read write to the chain for nothing.
        """
        if fresh.mode is ReadMode.LOCAL:
            return
        asked_ms = self._parts.clock().unix_ms
        executor, acknowledged = self._parts.executor, self._parts.acknowledged
        looked = acknowledged.height
        with trio.move_on_after(fresh.timeout_s):
            while True:
                height, news = acknowledged.height, acknowledged.news
                if fresh.mode is ReadMode.AT_HEIGHT:
                    if height >= fresh.height:
                        return
                else:
                    for at in range(looked + 1, height + 1):
                        block = await executor.block(at)
                        if block is not None and (
                            self._batch(block).proposed_ms >= asked_ms + LINEARIZABLE_MARGIN_MS
                        ):
                            return
                    looked = height
                if acknowledged.height == height:
                    await news.wait()
        raise Behind(
            f"this node is at block {acknowledged.height} and was asked for block {fresh.height}"
            if fresh.mode is ReadMode.AT_HEIGHT
            else f"no block proposed after the question was executed within {fresh.timeout_s:g} s",
            hint="ask again with a longer timeout_ms, or another node; see `stall` in /status",
        )

    def _log_roster(self) -> Roster:
        """Who cosigns and issues now; made once an epoch, because it hashes certificates."""
        membership = self._parts.membership
        if self._roster is None or self._roster.epoch != int(membership.epochs.newest.epoch):
            self._roster = membership.roster(self._parts.genesis)
        return self._roster

    def _oldest_ms(self) -> int:
        oldest = self._parts.mempool.oldest_ms()
        return 0 if oldest is None else max(0, self._parts.clock().monotonic_us // 1_000 - oldest)

    def _name(self, index: int) -> str:
        members = self._parts.membership.validators
        return members[index].name if index < len(members) else f"validator {index}"

    def _view_change_ms(self, *, active: bool) -> int:
        if not active:
            self._view_change_since = None
            return 0
        now = trio.current_time()
        if self._view_change_since is None:
            self._view_change_since = now
        return int((now - self._view_change_since) * 1000)

    def _peers(self) -> tuple[PeerStatus, ...]:
        parts = self._parts
        peers = []
        own = parts.membership.index
        for index, validator in enumerate(parts.membership.validators):
            if index == own:
                continue
            connection = parts.links.connection(index)
            node_id = validator.node_id.hex()
            away = PeerStatus(
                name=validator.name,
                node_id=node_id,
                address=parts.config.peers.get(node_id, ""),
                connected=False,
            )
            peers.append(away if connection is None else _connected(away, connection))
        return tuple(peers)

    def _address(self, text: str) -> Address:
        try:
            return parse_address(text)
        except AddressInvalid as error:
            raise BadRequest(str(error), hint=error.hint, code=error.code) from error

    def _header(self, block: StoredBlock) -> BlockHeader:
        value = wire.decode_value(block.header, MESSAGE_BYTES_MAX)
        return wire.block_header(value, self._parts.bounds)

    def _block_news(self, block: StoredBlock) -> BlockNews:
        header = self._header(block)
        codes = receipt_codes(block.receipts)
        applied = codes.count(CODE_APPLIED)
        return BlockNews(
            height=block.height,
            hash=header.hash,
            parent=header.parent,
            time_ms=header.time_ms,
            state_root=block.state_root,
            applied=applied,
            failed=len(codes) - applied,
            payload_ids=receipt_ids(block.receipts),
        )

    def _batch(self, block: StoredBlock) -> BatchHeader:
        value = wire.decode_value(block.batch, MESSAGE_BYTES_MAX)
        return wire.batch_header(value, self._parts.bounds)

    def _payments(self, block: StoredBlock, body: bytes, wanted: Address) -> list[HistoryItem]:
        """Payments of one account in one block, newest first. Any thread."""
        batch = Batch.parse(body)
        time_ms = self._header(block).time_ms
        items = []
        for at in range(len(batch) - 1, -1, -1):
            payload = batch.payload(at)
            if payload[0] != LEDGER_TAG or bytes(wanted) not in payload:
                continue
            try:
                transaction = decode_transaction(payload).transaction
            except TransactionMalformed:
                continue
            receipt = find_receipt(block.receipts, transaction.id, block.height)
            if receipt is None:
                continue
            items += [
                HistoryItem(
                    id=transaction.id,
                    height=block.height,
                    block_time_ms=time_ms,
                    sender=address_text(transaction.sender),
                    recipient=address_text(operation.recipient),
                    amount=int(operation.amount),
                    fee=self._parts.fee(len(transaction.operations)),
                    code=receipt.code,
                )
                for operation in transaction.operations
                if wanted in (transaction.sender, operation.recipient)
            ]
        return items

    def _epoch_ends(self, links: Sequence[EpochLink], size: int) -> tuple[bytes, ...]:
        """What proves where a log of this size stood at the end of each epoch. Any thread."""
        log = self._parts.log
        return tuple(log.epoch_end(int(link.base), of=size).encode() for link in links)

    async def _bundle(self, index: int) -> str:
        parts = self._parts
        parts.log.entry(index)
        if (
            parts.cosigner is None
            or parts.authority is None
            or not (parts.cosigner.is_seated and parts.authority.is_seated)
        ):
            raise Unavailable(
                "this node hands out no certificates: it is no validator now, or holds no issuing "
                "key that the validators agreed on",
                hint="ask a validator with an issuing certificate; the entry is in the log",
            )
        try:
            with trio.fail_after(COSIGN_TIMEOUT_S):
                checkpoint = await parts.cosigner.wait_cosigned(index + 1)
        except trio.TooSlowError:
            raise Unavailable(
                "the entry is in the log, but too few validators have cosigned it",
                hint="ask again with the same request: it keeps its index",
            ) from None
        except CosignerBusy as error:
            raise Overloaded(str(error), hint=error.hint, code=error.code) from error
        return parts.authority.bundle(index, checkpoint).encode()

    def _cosigned_size(self) -> int:
        cosigner = self._parts.cosigner
        return 0 if cosigner is None else cosigner.statistics().cosigned_size


def validators_view(registry: Registry, chain: str, chain_id: bytes) -> ValidatorsView:
    """The registry as its readers see it."""
    pending = registry.pending
    return ValidatorsView(
        chain=chain,
        chain_id=chain_id,
        height=registry.height,
        epoch=int(registry.present.epoch),
        hash=registry.present.hash,
        quorum=registry.quorum,
        removals_max=validators.removals_max(len(registry.present.members)),
        members=_members(registry, registry.present),
        pending=None
        if pending is None
        else PendingView(
            epoch=int(pending.next.epoch),
            hash=pending.next.hash,
            ordered_at=pending.ordered_at,
            effective_after=pending.effective_after,
            automatic=pending.automatic,
            members=_members(registry, pending.next),
        ),
        offences=tuple(
            OffenceView(
                name=entry.name,
                node_id=entry.node_id,
                offence=entry.offence.text,
                epoch=int(entry.epoch),
                height=entry.height,
                evidence=entry.evidence,
            )
            for entry in registry.tombstones
        ),
    )


def _members(registry: Registry, known: ValidatorSet) -> tuple[ValidatorView, ...]:
    return tuple(
        ValidatorView(
            name=entry.name,
            node_id=entry.node_id,
            key=entry.key.spki,
            credentials=entry.credentials,
            tombstone=registry.has_tombstone(entry),
        )
        for entry in known.members
    )


def phase_word(phase: Phase, *, catching_up: bool) -> str:
    """Name what a replica does. A lost voting record is `recovering` from the first moment on."""
    if phase in (Phase.SEEKING, Phase.RECOVERING):
        return "recovering"
    if catching_up:
        return "catching-up"
    return "starting" if phase is Phase.STARTING else "running"


def resident_bytes() -> int:
    """Resident memory of this process."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE_BYTES
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def _connected(peer: PeerStatus, connection: Connection) -> PeerStatus:
    """A peer together with the path to it."""
    path = connection.statistics()
    session = connection.engine.session(connection.handle)
    key_exchange, signature, resumed, _ = session or (0, 0, 0, 0)
    return replace(
        peer,
        connected=True,
        round_trip_ms=path.rtt_s * 1000,
        remote_address=connection.remote_address,
        dialled=connection.dialled,
        path_mtu_bytes=path.mtu_bytes,
        key_exchange=key_exchange_name(key_exchange),
        signature=signature_name(signature),
        resumed=bool(resumed),
        streams=path.streams,
        packets_lost=path.packets_lost,
    )
