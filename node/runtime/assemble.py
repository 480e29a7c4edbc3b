"""The parts list of a node, and the order in which they start and stop.

One process, one loop: the transport's pump drives agreement, execution and both databases have a
thread each, and everything meets in one descriptor. HTTP runs in a supervised task of its own and
may crash without anybody here noticing.
"""

from __future__ import annotations

import functools
import gc
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import structlog
import trio

from caesar.runtime.application import LedgerApplication
from caesar.runtime.validators import ValidatorsApplication
from consensus.application import CODE_APPLIED, has_receipt
from consensus.core import wire
from consensus.core.effects import Fault
from consensus.core.epochs import Epochs
from consensus.core.inputs import SnapshotRestored
from consensus.core.messages import EpochLink, FetchChunk, FetchManifest
from consensus.core.records import Birth, Record, signed_again
from consensus.core.records import ExecutedBlock as ChainBlock
from consensus.core.replica import Replica, genesis_block
from consensus.core.types import NOBODY, Height, Instant, Timing
from consensus.limits import (
    BATCH_PAYLOADS_MAX,
    BATCH_SIZE_BYTES_MAX,
    WINDOW_BLOCKS,
)
from consensus.runtime.driver import Driver, Request
from consensus.runtime.links import Links
from consensus.runtime.snapshots import SnapshotServer
from consensus.runtime.store import (
    CommitFailed,
    Committed,
    ConsensusStore,
    recreate_consensus_store,
)
from consensus.runtime.sync import BlockServer
from native import Completions, Mempool, memory
from native.batches import Batch, MempoolStatistics
from native.codec import CodecError, decode, encode
from native.errors import NativeError
from native.keys import SecretKey
from native.values import Digest, NodeId
from node.core.genesis import Genesis
from node.errors import KeyMismatch
from node.home import Home, write_replacing
from node.limits import HTTP_PAYLOADS_PER_CALL_MAX
from node.logkeys import issuing_certificate, voucher
from node.metrics import Metrics
from node.runtime.accuser import Accuser
from node.runtime.acknowledged import Acknowledged
from node.runtime.alarm import Alarm
from node.runtime.api import APIError, Submission
from node.runtime.certificates import CertificateBoard
from node.runtime.doorkeeper import Doorkeeper
from node.runtime.executor import ExecutedBlock, ExecutionFailed, Executor, open_state
from node.runtime.http import create_app, serve
from node.runtime.intake import Intake
from node.runtime.membership import Membership, decision, expected_nodes, genesis_set
from node.runtime.preparation import Preparation
from node.runtime.pruner import Pruner, Retention
from node.runtime.receipts import ID_SIZE_BYTES
from node.runtime.replay import Keeper, execute_lost, keep_agreed, newest_block, stored_block
from node.runtime.router import Router
from node.runtime.service import NodeService
from node.runtime.snapshots import Done, Snapshots
from node.runtime.stall import StallWatch
from node.runtime.store import StateStore
from node.runtime.submissions import OWN_SOURCE, Submissions
from node.runtime.thrift import Thrift
from node.status import to_json
from transport import Connection, Endpoint, HelloOffer, Identity, TransportConfig
from transport.errors import RPCError
from transport.metrics import TransportMetrics
from trustchain.runtime.application import LogApplication
from trustchain.runtime.authority import Authority
from trustchain.runtime.cosigner import METHOD as COSIGN_METHOD
from trustchain.runtime.cosigner import Cosigner

if TYPE_CHECKING:
    from pathlib import Path

    from native.values import NodeId
    from node.config.schema import NodeConfig, TransportSection
    from trustchain.core.roster import Roster

STORE_TOKEN: Final = 1  # completions of consensus.db
EXECUTOR_TOKEN: Final = 2  # completions of execution and state.db
SWITCH_INTERVAL_S: Final = 0.0005  # a database thread gets the interpreter back within this
GC_THRESHOLDS: Final = (10_000, 50, 1_000)  # messages die young; old ones are few and frozen
STAGGER_BLOCKS: Final = (
    128  # between two nodes' write-back cycles, so that they never stall together
)
OUTCOMES_SIZE_BYTES_MAX: Final = 16 + ID_SIZE_BYTES * HTTP_PAYLOADS_PER_CALL_MAX
SUBMIT_TIMEOUT_S: Final = 30.0  # of one STOQ submission; the caller's deadline is usually shorter
COSIGN_CALL_TIMEOUT_S: Final = 2.0
STOP_TIMEOUT_S: Final = 4.0  # everything but the databases' last commit

BATCH_INTERVALS_MS: Final = ((4, 15), (7, 20), (13, 30))  # (validators at most, pause)

FINAL: Final = bytes(has_receipt(code) for code in range(256))

log = structlog.get_logger("node")


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """A wired node."""

    config: NodeConfig
    home: Home
    genesis: Genesis
    secret: SecretKey
    membership: Membership
    bounds: wire.Bounds
    root: Digest
    clock: Callable[[], Instant]
    metrics: Metrics
    completions: Completions
    endpoint: Endpoint
    links: Links
    mempool: Mempool
    ledger: LedgerApplication
    log: LogApplication
    validators: ValidatorsApplication
    router: Router
    preparation: Preparation
    state: StateStore
    executor: Executor
    store: ConsensusStore
    server: BlockServer
    snapshots: Snapshots
    snapshot_server: SnapshotServer
    driver: Driver
    alarm: Alarm
    board: CertificateBoard
    acknowledged: Acknowledged
    intake: Intake
    submissions: Submissions
    accuser: Accuser
    authority: Authority | None  # None for a home without an issuing certificate
    cosigner: Cosigner | None  # None for a home without a cosigner key
    pruner: Pruner
    keeper: Keeper
    stall: StallWatch
    thrift: Thrift

    def fee(self, operations: int) -> int:
        """What a transaction with this many operations pays."""
        return int(self.ledger.parameters().transfer_fee) * operations


async def run_node(config: NodeConfig, home: Path) -> None:
    """Run one validator until SIGTERM or SIGINT. Raises what stops a start or ends a process."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    with trio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        parts = assemble(config, Home(home))
        service = NodeService(parts)
        _wire(parts, service)
        try:
            async with trio.open_nursery() as nursery:
                await _start(parts, service, nursery)
                gc.collect()
                gc.freeze()
                gc.set_threshold(*GC_THRESHOLDS)
                async for number in signals:
                    log.info("node.stopping", signal=signal.Signals(number).name)
                    break
                service.stopping = True
                with trio.move_on_after(STOP_TIMEOUT_S):
                    await parts.endpoint.close()
                nursery.cancel_scope.cancel()
        finally:
            with trio.CancelScope(shield=True):
                await trio.to_thread.run_sync(parts.executor.stop)
                await trio.to_thread.run_sync(parts.preparation.stop)
                await trio.to_thread.run_sync(parts.store.stop)
            log.info("node.stopped", height=parts.executor.height)


def assemble(config: NodeConfig, home: Home) -> Parts:
    """Open the databases, rebuild the state and wire the parts; nothing runs yet."""
    genesis = Genesis.from_json(home.genesis.read_text())
    secret = SecretKey.load(home.node_key)
    founder = genesis.validator_index(secret.node_id)
    observer = config.node.role == "observer"
    if founder is None and not observer:
        raise KeyMismatch(
            f"{home.node_key}: genesis names no validator with this key",
            hint="use the genesis.json and the keys folder of the same home, or set node.role to "
            "observer",
        )
    chain_id = genesis.chain_id
    first = Epochs(chain_id=chain_id, sets=(genesis_set(genesis),))
    bounds = first.bounds()
    metrics = Metrics()
    completions = Completions()
    endpoint = Endpoint(
        Identity(secret),
        listen=config.transport.listen,
        hello=HelloOffer(chain_id=chain_id, chain_name=genesis.label, roles=(config.node.role,)),
        verifier=Doorkeeper(
            lambda: membership.node_ids, lambda: endpoint, expected=lambda: expected()
        ),
        config=_transport_config(config.transport),
    )
    ledger = LedgerApplication(chain_id, genesis.ledger)
    issuance = LogApplication(chain_id, genesis.log)
    validators = ValidatorsApplication(chain_id, first.newest.members, vouch=voucher(genesis))
    router = Router([ledger, issuance, validators])
    state = StateStore(home.state_database, chain_id=chain_id)
    root = open_state(router, state)
    preparation = Preparation(router)
    if not home.consensus_database.exists():
        log.warning("store.lost", path=home.consensus_database.name)
        recreate_consensus_store(
            home.consensus_database, chain_id=chain_id, node_id=Digest(secret.node_id)
        )
    store = ConsensusStore(
        home.consensus_database,
        completions,
        token=STORE_TOKEN,
        clock=time.perf_counter,
        durable=config.storage.durability == "sync",
    )
    records = signed_again(store.load(bounds), chain_id, secret.sign)
    membership = Membership(Epochs.of(chain_id, first.newest, records), secret.node_id)
    known = membership.epochs
    peers = {NodeId(bytes.fromhex(node_id)): address for node_id, address in config.peers.items()}

    def expected() -> frozenset[NodeId]:
        return expected_nodes(peers, validators.registry)

    _check_owner(records, secret.node_id)
    alone = len(membership.validators) == 1 and membership.index is not None
    root = _after_power_cut(
        router, state, store, records, known.bounds(), genesis, root, alone=alone
    )
    executor = Executor(
        router,
        state,
        completions,
        token=EXECUTOR_TOKEN,
        clock=time.perf_counter,
        stagger_blocks=(0 if founder is None else founder) * STAGGER_BLOCKS,
        settle=preparation.settle,
        snapshot_blocks=config.storage.snapshot_blocks,
    )
    replica = _replica(
        config, genesis, membership, secret.node_id, state, records, root, validators
    )
    mempool = Mempool(
        config.mempool.count_max, config.mempool.size_bytes_max, sender_at=router.sender_at
    )
    links = Links(
        endpoint,
        membership.node_ids,
        peers,
        expected=expected,
        me=NOBODY if membership.index is None else membership.index,
        own=secret.node_id,
        on_up=lambda peer: driver.peer_up(peer),
        on_down=lambda peer: driver.peer_down(peer),
    )
    server = BlockServer(links, store, executor, known.bounds(), lambda digest: driver.body(digest))
    snapshots = Snapshots(
        home.snapshots,
        router,
        executor,
        server,
        lambda: membership.epochs,
        done=lambda done: driver.transferred(_with_pending(done, validators)),
        restored=lambda _manifest: mempool_after_restore(mempool, router),
    )
    snapshot_server = SnapshotServer(links, snapshots)
    alarm = Alarm(lambda: driver.timers_due(), _monotonic_us)
    board = CertificateBoard()
    keys = membership.verifiers()

    roster = membership.roster(genesis)
    authority = _authority(home, genesis, issuance, roster, observer=observer)
    cosigner = _cosigner(home, issuance, roster, links, observer=observer)

    keeper = Keeper(executor, state, store)

    def entered(link: EpochLink) -> None:
        membership.enter(link)
        following = membership.roster(genesis)
        if authority is not None:
            authority.enter(following)
        if cosigner is not None:
            cosigner.enter(following)
        server.enter_epoch(len(link.validators.members))
        if len(membership.validators) == 1 and membership.index is not None:
            keeper.alone(membership.epochs.bounds())
        log.warning(
            "epoch.entered",
            epoch=int(link.epoch),
            after=int(link.base),
            validators=[validator.name for validator in link.validators.members],
        )

    driver = Driver(
        replica,
        bounds=known.bounds(),
        secret=secret,
        verifiers=keys[-1],
        earlier=keys[:-1],
        entered=entered,
        links=links,
        store=store,
        execution=executor,
        admission=preparation,
        mempool=mempool,
        observer=_MetricsObserver(metrics),
        clock=_now,
        seconds=time.perf_counter,
        wake_at=alarm.set,
        serve=_Desk(server, snapshot_server).serve_nowait,
        transfer=snapshots.work_soon,
        certified=board.post,
        accuse=lambda peer, proof: accuser.accuse_nowait(peer, proof),
    )
    acknowledged = Acknowledged(replica, executor)
    intake = Intake(
        router=router,
        mempool=mempool,
        driver=driver,
        links=links,
        me=OWN_SOURCE,
        now_ms=lambda: _monotonic_us() // 1_000,
        pause_s=batch_interval_ms(len(membership.validators)) / 1_000,
    )
    submissions = Submissions(
        router=router, receipts=acknowledged, driver=driver, intake=intake, metrics=metrics
    )
    accuser = Accuser(
        submissions,
        validators,
        chain_id=chain_id,
        node_id_of=functools.partial(_node_id_of, validators),
    )
    return Parts(
        config=config,
        home=home,
        genesis=genesis,
        secret=secret,
        membership=membership,
        bounds=bounds,
        root=root,
        clock=_now,
        metrics=metrics,
        completions=completions,
        endpoint=endpoint,
        links=links,
        mempool=mempool,
        ledger=ledger,
        log=issuance,
        validators=validators,
        router=router,
        preparation=preparation,
        state=state,
        executor=executor,
        store=store,
        server=server,
        snapshots=snapshots,
        snapshot_server=snapshot_server,
        driver=driver,
        alarm=alarm,
        board=board,
        acknowledged=acknowledged,
        intake=intake,
        submissions=submissions,
        accuser=accuser,
        authority=authority,
        cosigner=cosigner,
        keeper=keeper,
        stall=StallWatch(replica, membership, _now),
        thrift=Thrift(
            lambda: executor.height,
            lambda: mempool.statistics().custody,
            lambda: trio.to_thread.run_sync(memory.give_back),
        ),
        pruner=Pruner(
            Retention.of(config.storage),
            executor,
            state,
            store,
            bounds,
            seconds=time.perf_counter,
            snapshot=snapshots.oldest,
        ),
    )


def _authority(
    home: Home, genesis: Genesis, issuance: LogApplication, roster: Roster, *, observer: bool
) -> Authority | None:
    """The issuing key of a founder, or of a home that has a certificate for it."""
    if not observer:
        return Authority.load(home.issuing_key, issuance, roster=roster)
    certificate = issuing_certificate(home, genesis.log)
    if not certificate:
        return None
    return Authority.load(home.issuing_key, issuance, certificate=certificate, roster=roster)


def _cosigner(
    home: Home, issuance: LogApplication, roster: Roster, links: Links, *, observer: bool
) -> Cosigner | None:
    """The cosigner key; a home made by an older version may have none."""
    if observer and not home.cosigner_key.exists():
        return None
    return Cosigner.load(
        home.cosigner_key, issuance, broadcast=_Everybody(links).call, roster=roster
    )


def _node_id_of(validators: ValidatorsApplication, index: int, epoch: int) -> NodeId | None:
    """Who a replica index was in an epoch that the registry still knows."""
    known = validators.registry.set_of(epoch)
    if known is None or not 0 <= index < len(known.members):
        return None
    return known.members[index].node_id


def _transport_config(section: TransportSection) -> TransportConfig:
    return TransportConfig(
        engine=section.engine,
        mtu_bytes_max=section.path_mtu_bytes_max,
        idle_timeout_s=section.idle_timeout_ms / 1000,
        congestion=section.congestion,
        retry=section.retry,
        resumption=section.resumption,
        connections_max=section.connections_max,
        connections_per_prefix_max=section.connections_max // 2,
        memory_bytes_max=section.memory_mib_max << 20,
        key_log_path=section.key_log_path,
        qlog_folder=section.qlog_folder,
    )


def _after_power_cut(
    router: Router,
    state: StateStore,
    store: ConsensusStore,
    records: Sequence[Record],
    bounds: wire.Bounds,
    genesis: Genesis,
    root: Digest,
    *,
    alone: bool,
) -> Digest:
    """Execute again what `state.db` lost, as far as this node can without peers."""
    keep_agreed(state, store, bounds, alone=alone)
    tip = newest_block(state, genesis, root, bounds)
    return execute_lost(router, state, store, tip, alone=alone, records=records, bounds=bounds)


def _check_owner(records: Sequence[Record], own: NodeId) -> None:
    """Before anything of a `consensus.db` is used; raises `KeyMismatch`."""
    for record in records:
        if isinstance(record, Birth) and record.node_id != Digest(own):
            raise KeyMismatch(
                "consensus.db belongs to another node's key",
                hint="give every node its own data folder; never copy one",
            )


def _replica(
    config: NodeConfig,
    genesis: Genesis,
    membership: Membership,
    own: NodeId,
    state: StateStore,
    records: Sequence[Record],
    root: Digest,
    validators: ValidatorsApplication,
) -> Replica:
    """Rebuild the replica from what is durable."""
    height = state.height
    lowest = max(1, height - 2 * WINDOW_BLOCKS, state.first)
    chain = [
        _chain_block(state, at, membership.epochs.bounds(), validators)
        for at in range(lowest, height + 1)
    ]
    tip = chain[-1] if chain else genesis_block(genesis.chain_id, genesis.time_ms, root)
    patience = config.consensus.view_timeout_ms
    return Replica(
        membership.epochs.committee(own, rotation_blocks=genesis.rotation_blocks),
        Timing(
            request_timeout_ms=patience,
            request_timeout_ms_min=patience // 2,
            request_timeout_ms_max=4 * patience,
            idle_block_interval_ms=config.consensus.idle_block_interval_ms,
            batch_interval_ms=batch_interval_ms(len(membership.validators)),
        ),
        boot=secrets.randbelow(2**64 - 1) + 1,
        tip=tip,
        uncertified=chain,
        records=records,
        genesis_set=membership.epochs.sets[0],
        decided=decision(tip, validators),
    )


def batch_interval_ms(members: int) -> int:
    """How long the primary lets a batch grow while others are in flight.

    A block costs every node about as much as a hundred transfers, and more with every member: the
    bigger the set, the fewer blocks a second. An idle primary proposes at once in any case.
    """
    return next((pause for most, pause in BATCH_INTERVALS_MS if members <= most), 60)


def _with_pending(done: Done, validators: ValidatorsApplication) -> Done:
    """A restored state may have decided on the next set in a block that was never executed here."""
    pending = validators.registry.pending
    if not isinstance(done, SnapshotRestored) or pending is None:
        return done
    return replace(done, next_validators=pending.next, decided_at=Height(pending.ordered_at))


def _chain_block(
    state: StateStore, height: int, bounds: wire.Bounds, validators: ValidatorsApplication
) -> ChainBlock:
    pending = validators.registry.pending
    block = stored_block(state, height, bounds)
    if pending is None or pending.ordered_at != height:
        return block
    return replace(block, next_validators=pending.next)


def _wire(parts: Parts, service: NodeService) -> None:
    """Connect what calls whom."""
    endpoint, driver = parts.endpoint, parts.driver
    endpoint.on_frame(
        lambda connection, _kind, frame_type, payload: driver.frame_received(
            connection, frame_type, payload
        )
    )
    endpoint.on_turn(driver.turn)
    endpoint.on_turn(lambda: _acknowledge(parts))
    endpoint.watch(parts.completions.fileno(), lambda: _drain(parts, service))
    endpoint.serve(COSIGN_METHOD, _serve_cosign(parts))
    endpoint.serve("caesar.submit", _serve_submit(parts))
    endpoint.serve("node.outcomes", _serve_outcomes(parts))
    endpoint.serve("node.status", _serve_status(service))
    parts.metrics.watch_status(lambda: (service.status(), service.findings()))
    TransportMetrics(endpoint.statistics, parts.metrics.registry)
    parts.metrics.watch("consensus", driver.replica.statistics)
    parts.metrics.watch("consensus_driver", driver.statistics)
    parts.metrics.watch("mempool", lambda: MempoolCounters.of(parts.mempool.statistics()))
    parts.metrics.watch("caesar", parts.ledger.statistics)
    parts.metrics.watch("trustchain", parts.log.statistics)
    parts.metrics.watch("validators", parts.validators.statistics)
    if parts.cosigner is not None:
        parts.metrics.watch("trustchain_cosigner", parts.cosigner.statistics)
    parts.metrics.watch("node_pruner", parts.pruner.statistics)
    parts.metrics.watch("node_snapshots", parts.snapshots.statistics)
    parts.metrics.watch("consensus_sync", parts.server.statistics)


async def _start(parts: Parts, service: NodeService, nursery: trio.Nursery) -> None:
    """Start every task and thread, the network last but for HTTP."""
    parts.executor.start()
    parts.preparation.start()
    held = parts.store.bodies(parts.driver.replica.certified)
    parts.store.start()
    if parts.driver.replica.certificate is not None:
        parts.board.post(parts.driver.replica.certificate)
    await nursery.start(parts.endpoint.run)
    parts.driver.start(held)
    if parts.cosigner is not None:
        parts.cosigner.on_block_committed(parts.acknowledged.height)
    nursery.start_soon(parts.links.run, name="links")
    nursery.start_soon(parts.server.run, name="block-server")
    nursery.start_soon(parts.snapshots.run, name="snapshots")
    nursery.start_soon(parts.snapshot_server.run, name="snapshot-server")
    nursery.start_soon(parts.alarm.run, name="alarm")
    nursery.start_soon(parts.pruner.run, name="pruner")
    nursery.start_soon(parts.keeper.run, name="keeper")
    nursery.start_soon(parts.stall.run, name="stall")
    nursery.start_soon(parts.thrift.run, name="thrift")
    nursery.start_soon(parts.accuser.run, name="accuser")
    nursery.start_soon(parts.intake.run, name="intake")
    if parts.cosigner is not None:
        await nursery.start(parts.cosigner.run)
    url = ""
    if parts.config.http.enabled:
        app = create_app(service, parts.config.http, parts.metrics)
        stop = trio.Event()
        url = await nursery.start(
            functools.partial(serve, app, parts.config.http.listen, stop=stop), name="http"
        )
        parts.home.run.mkdir(mode=0o700, exist_ok=True)
        write_replacing(
            parts.home.api_file, json.dumps({"url": url, "pid": os.getpid()}).encode() + b"\n"
        )
    log.info(
        "node.started",
        chain=parts.genesis.label,
        node=parts.secret.node_id.hex()[:16],
        height=parts.executor.height,
        stoq=parts.endpoint.address,
        http=url,
    )


def _drain(parts: Parts, service: NodeService) -> None:
    """Hand what the threads finished to whom it concerns."""
    for _, value in parts.completions.drain():
        match value:
            case Committed() | CommitFailed():
                parts.driver.committed(value)
            case ExecutedBlock():
                _executed(parts, service, value)
            case ExecutionFailed():
                raise value.error


def _executed(parts: Parts, service: NodeService, block: ExecutedBlock) -> None:
    outcome = block.outcome
    service.state_root = outcome.state_root
    service.last_block_ms = parts.clock().unix_ms
    final = outcome.codes.translate(FINAL)
    service.transactions_total += final.count(1)
    parts.metrics.consensus_phase_seconds.labels("execute").observe(block.execute_s)
    parts.metrics.consensus_phase_seconds.labels("persist").observe(block.commit_s)
    parts.metrics.store_sync_seconds.labels("state").observe(block.commit_s)
    parts.driver.executed(
        block.header,
        block.batch,
        outcome.state_root,
        final,
        malformed=outcome.malformed,
        next_validators=outcome.next_validators,
    )
    if outcome.next_validators is not None:
        log.warning(
            "validators.next_set_ordered",
            height=int(block.header.height),
            epoch=int(outcome.next_validators.epoch),
            members=[validator.name for validator in outcome.next_validators.members],
        )
    parts.acknowledged.executed(block)
    parts.snapshots.executed()
    log.debug(
        "block.executed",
        height=int(block.header.height),
        payloads=len(block.batch),
        applied=outcome.codes.count(CODE_APPLIED),
    )


def _acknowledge(parts: Parts) -> None:
    """Tell whoever waits for a block, now that the replica has compared what it can."""
    taken = parts.acknowledged.take()
    sound = parts.driver.replica.sound_through
    if sound is not None and parts.cosigner is not None:
        parts.cosigner.on_state_differs(int(sound))
    for block in taken:
        parts.submissions.on_block(block)
    if taken and parts.cosigner is not None:
        parts.cosigner.on_block_committed(parts.acknowledged.height)


Handler = Callable[[Connection, bytes], Awaitable[bytes]]


def _serve_submit(parts: Parts) -> Handler:
    async def submit(_connection: Connection, request: bytes) -> bytes:
        """Answer `[height, codes, outcomes, ids]` once all is executed; `outcomes` says what is."""
        try:
            batch = Batch.parse(request)
        except NativeError as error:
            raise RPCError("malformed", str(error)) from error
        if len(batch) > HTTP_PAYLOADS_PER_CALL_MAX:
            raise RPCError("too-many", f"at most {HTTP_PAYLOADS_PER_CALL_MAX} payloads a call")
        try:
            answer = await parts.submissions.submit(batch, wait=True, timeout_s=SUBMIT_TIMEOUT_S)
        except APIError as error:
            raise RPCError(error.stable_code, str(error)) from error
        return _submission(answer)

    return submit


def _serve_outcomes(parts: Parts) -> Handler:
    async def outcomes(_connection: Connection, request: bytes) -> bytes:
        """Answer as `caesar.submit` does for `[height, ids]`, once that block is executed here."""
        try:
            question = decode(request, size_max=OUTCOMES_SIZE_BYTES_MAX)
        except CodecError as error:
            raise RPCError("malformed", str(error)) from error
        match question:
            case (int(height), bytes(ids)) if ids and not len(ids) % ID_SIZE_BYTES:
                timeout_s = SUBMIT_TIMEOUT_S
                answer = await parts.submissions.outcomes(ids, height=height, timeout_s=timeout_s)
                return _submission(answer)
        raise RPCError("malformed", "wanted: [height, the ids of 32 bytes each]")

    return outcomes


def _submission(answer: Submission) -> bytes:
    height = max(answer.heights, default=0)
    return encode((height, answer.codes, answer.outcomes, answer.ids))


def _serve_status(service: NodeService) -> Handler:
    async def status(_connection: Connection, _request: bytes) -> bytes:
        await trio.lowlevel.checkpoint()
        return json.dumps(to_json(service.status(), service.findings())).encode()

    return status


def _serve_cosign(parts: Parts) -> Handler:
    async def cosign(connection: Connection, request: bytes) -> bytes:
        if parts.cosigner is None or connection.peer not in parts.membership.node_ids:
            raise RPCError("not-a-validator", "only validators exchange cosignatures")
        return await parts.cosigner.on_cosign(connection.peer, request)

    return cosign


@dataclass(frozen=True, slots=True, kw_only=True)
class MempoolCounters:
    """What the metrics page shows of custody beside the gauges of the status."""

    added_total: int
    duplicates_total: int
    refused_full_total: int
    refused_recent_total: int
    dropped_total: int
    removed_total: int

    @staticmethod
    def of(found: MempoolStatistics) -> MempoolCounters:
        """Read the extension's counters."""
        return MempoolCounters(
            added_total=found.added,
            duplicates_total=found.duplicates,
            refused_full_total=found.refused_full,
            refused_recent_total=found.refused_recent,
            dropped_total=found.dropped,
            removed_total=found.removed,
        )


class _Desk:
    """Hands a peer's request to whoever serves it."""

    def __init__(self, blocks: BlockServer, snapshots: SnapshotServer) -> None:
        self._blocks = blocks
        self._snapshots = snapshots

    def serve_nowait(self, peer: int, request: Request) -> None:
        """Queue a request of a validator."""
        if isinstance(request, FetchManifest | FetchChunk):
            self._snapshots.serve_nowait(peer, request)
        else:
            self._blocks.serve_nowait(peer, request)


def mempool_after_restore(mempool: Mempool, router: Router) -> None:
    """Give up payloads that were executed in blocks this node has skipped."""
    mempool.release()
    while (batch := mempool.pending_batch(BATCH_PAYLOADS_MAX, BATCH_SIZE_BYTES_MAX)) is not None:
        codes = router.check(batch).codes
        done = [
            batch.payload(at)
            for at, (tag, code) in enumerate(zip(batch.tags, codes, strict=True))
            if router.repeated(tag, code)
        ]
        if not done:
            return
        mempool.remove(Batch.of(done))


class _Everybody:
    """Calls a method on every connected validator at once."""

    def __init__(self, links: Links) -> None:
        self._links = links

    async def call(self, method: str, body: bytes) -> Iterable[bytes]:
        """Answers that came in time; who fails is left out."""
        answers: list[bytes] = []

        async def one(connection: Connection) -> None:
            try:
                answers.append(await connection.call(method, body, timeout_s=COSIGN_CALL_TIMEOUT_S))
            except Exception as error:
                log.debug("call.failed", method=method, error=str(error))

        async with trio.open_nursery() as nursery:
            for index in self._links.connected:
                connection = self._links.connection(index)
                if connection is not None:
                    nursery.start_soon(one, connection)
        return answers


class _MetricsObserver:
    """Agreement's instruments, each looked up once."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._phases = {
            name: metrics.consensus_phase_seconds.labels(name).observe
            for name in ("prepare", "commit", "certify")
        }
        self.signed = metrics.falcon_sign_seconds.observe
        self.verified = metrics.falcon_verify_seconds.observe
        self.committed = metrics.store_sync_seconds.labels("consensus").observe

    def phase(self, name: str, seconds: float) -> None:
        """See `Observer`."""
        self._phases[name](seconds)

    def agreed(self, payloads: int, size_bytes: int, seconds: float | None) -> None:
        """See `Observer`."""
        self._metrics.consensus_batch_payloads_count.observe(payloads)
        self._metrics.consensus_batch_bytes.inc(size_bytes)
        if seconds is not None:
            self._metrics.consensus_commit_seconds.observe(seconds)

    def view_changed(self) -> None:
        """See `Observer`."""
        self._metrics.consensus_view_changes.inc()

    def misbehaved(self, fault: Fault) -> None:
        """See `Observer`."""
        self._metrics.consensus_misbehaviour.labels(kind=fault.value).inc()


def _monotonic_us() -> int:
    return time.monotonic_ns() // 1_000


def _now() -> Instant:
    return Instant(monotonic_us=_monotonic_us(), unix_ms=time.time_ns() // 1_000_000)
