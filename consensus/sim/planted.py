"""Known bugs, put in one at a time to prove that the hunt finds them (bft.md section 8).

The shipped code has no switch: a bug is planted by replacing functions of the core, the decoder,
the store or the simulated application while a context is open, and nothing remains afterwards. Each
bug names the scenes in which it is hunted. Where the original belongs to a protocol that is not
used here, its analogue is planted, as section 8 says.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from inspect import getattr_static
from pathlib import Path
from typing import Any, Final

from consensus.core import (
    catch_up,
    custody,
    epochs,
    frames,
    quorum,
    recovery,
    replica,
    retransmit,
    wire,
)
from consensus.core.effects import Effect, ForwardCustody
from consensus.core.inputs import Timer
from consensus.core.instance import Instance
from consensus.core.messages import (
    BlockCertificate,
    EpochLink,
    NewView,
    PreparedCertificate,
    PrePrepare,
    Stamp,
    Status,
    ViewChange,
    VoteProof,
)
from consensus.core.phases import checkpoint, commit, prepare, propose, view_change
from consensus.core.records import ExecutedBlock
from consensus.core.replica import Replica
from consensus.core.types import Number, Phase, ReplicaIndex, Sequence, View
from consensus.errors import MalformedMessage
from consensus.runtime import store
from consensus.sim import disk, liar, node
from consensus.sim.ledger import Ledger, LedgerNode, Operation, Snapshot
from consensus.sim.scenes import agreement, clients, liveness, memory
from consensus.sim.scenes import epochs as borders
from consensus.sim.scenes.agreement import among_liars
from consensus.sim.scenes.stage import Scene
from native.values import Digest

Replace = Callable[[object, str, object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One known bug: how it is planted, and where it is hunted."""

    number: int
    name: str
    plant: Callable[[Replace], None]
    scenes: tuple[Scene, ...]
    variant: str = ""

    @property
    def label(self) -> str:
        return f"{self.number}{self.variant}"


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """The bug is in, as long as this is open."""
    before: list[tuple[object, str, object]] = []

    def put(owner: object, name: str, value: object) -> None:
        before.append((owner, name, getattr_static(owner, name)))
        setattr(owner, name, value)

    try:
        bug.plant(put)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


# --- safety


def _naive_quorum(put: Replace) -> None:
    def naive(members: int) -> int:
        return 2 * quorum.faults(members) + 1

    put(quorum, "quorum", naive)
    put(replica, "quorum", naive)


def _prepared_dropped(put: Replace) -> None:
    def bare(**values: Any) -> ViewChange:
        return ViewChange(**{**values, "prepared": ()})

    put(view_change, "ViewChange", bare)


def _lowest_view_wins(put: Replace) -> None:
    selection = view_change.selection

    def lowest(changes: Iterable[ViewChange], committee: Any) -> Any:
        kept = list(changes)
        low: dict[int, int] = {}
        for change in kept:
            for entry in change.prepared:
                low[entry.sequence] = min(entry.view, low.get(entry.sequence, entry.view))
        return selection(
            [
                replace(
                    change,
                    prepared=tuple(
                        [entry for entry in change.prepared if entry.view == low[entry.sequence]]
                    ),
                )
                for change in kept
            ],
            committee,
        )

    put(view_change, "selection", lowest)


def _short(certificate: PreparedCertificate, members: int) -> bool:
    signers = {vote.signer for vote in certificate.votes} - {certificate.pre_prepare.signer}
    return len(signers) < quorum.quorum(members) - 1


def _bad_certificate_hides_good_ones(put: Replace) -> None:
    """Certificates are looked at when a place is decided, not when they are decoded."""
    selection = view_change.selection

    def hidden(changes: Iterable[ViewChange], committee: Any) -> Any:
        kept = list(changes)
        bad = {
            entry.sequence
            for change in kept
            for entry in change.prepared
            if _short(entry, committee.members)
        }
        return selection(
            [
                replace(
                    change,
                    prepared=tuple(
                        [entry for entry in change.prepared if entry.sequence not in bad]
                    ),
                )
                for change in kept
            ],
            committee,
        )

    put(view_change, "selection", hidden)
    put(wire, "_distinct", _any_signers_of_prepared)


_distinct = wire._distinct


def _any_signers_of_prepared(
    proofs: tuple[VoteProof, ...], needed: int, excluded: int | None
) -> None:
    if excluded is None:
        _distinct(proofs, needed, excluded)


def _matching_checkpoints_only(put: Replace) -> None:
    selection = view_change.selection

    def matching(changes: Iterable[ViewChange], committee: Any) -> Any:
        kept = list(changes)
        top = max(change.height for change in kept)
        return selection([change for change in kept if change.height == top], committee)

    put(view_change, "selection", matching)


def _re_proposals_validated_again(put: Replace) -> None:
    accept = propose.accept

    def validating(replica: Replica, message: PrePrepare, *, reproposed: bool = False) -> None:
        if reproposed and message.header.proposed_ms <= replica.tip.time_ms:
            return
        accept(replica, message, reproposed=reproposed)

    put(propose, "accept", validating)


def _sequence_reset_by_a_view(put: Replace) -> None:
    install = view_change.install

    def resetting(replica: Replica, message: NewView, certificate: Any) -> None:
        install(replica, message, certificate)
        replica.next_sequence = Sequence(max(replica.executed, replica.certified) + 1)

    put(view_change, "install", resetting)


def _new_view_not_recomputed(put: Replace) -> None:
    def trusting(replica: Replica, message: NewView) -> None:
        if message.view > replica.view or (message.view == replica.view and not replica.active):
            certificate, _ = view_change.selection(message.view_changes, replica.committee)
            view_change.enter(replica, message, certificate)

    put(view_change, "on_new_view", trusting)


def _signer_counted_twice(put: Replace) -> None:
    def counting(proofs: tuple[VoteProof, ...], needed: int, _excluded: int | None) -> None:
        if len(proofs) < needed:
            raise MalformedMessage("a certificate without a quorum")

    put(wire, "_distinct", counting)


def _primary_counted_twice(put: Replace) -> None:
    def careless(replica: Replica, instance: Instance, accepted: PrePrepare) -> None:
        mask = instance.voters(instance.prepares, accepted.digest)
        if mask.bit_count() + 1 >= replica.quorum:
            instance.prepared = True

    put(prepare, "_prepare", careless)


def _votes_forgotten_by_a_crash(put: Replace) -> None:
    restore = recovery._restore_votes

    def forgetting(replica: Replica, _accepted: object, _vectors: object) -> None:
        restore(replica, [], [])

    put(recovery, "_restore_votes", forgetting)


def _vote_leaves_before_it_is_durable(put: Replace) -> None:
    born = node.Node.__init__

    def eager(self: node.Node, cluster: Any, index: int) -> None:
        born(self, cluster, index)
        self.count_before_durable = True

    put(node.Node, "__init__", eager)


def _amnesia_after_disk_loss(put: Replace) -> None:
    put(disk.Disk, "born_again", disk.Disk.born)
    put(recovery, "check_number", _nothing)


def _no_bound_on_places(put: Replace) -> None:
    on_certified = recovery.on_certified

    def boundless(replica: Replica) -> None:
        if replica.phase is Phase.RECOVERING:
            replica.first_sequence = Sequence(1)
        on_certified(replica)

    put(recovery, "on_certified", boundless)


def _short_certificates_in_catch_up(put: Replace) -> None:
    def lax(proofs: tuple[VoteProof, ...], needed: int, excluded: int | None) -> None:
        if excluded is not None:
            _distinct(proofs, needed, excluded)

    put(wire, "_distinct", lax)


def _lock_without_certificate(put: Replace) -> None:
    may_prepare = prepare._may_prepare
    locks: dict[tuple[int, int], bytes] = {}

    def locking(replica: Replica, instance: Instance, accepted: PrePrepare) -> bool:
        place = (replica.boot, instance.sequence)
        return locks.setdefault(place, accepted.digest) == accepted.digest and may_prepare(
            replica, instance, accepted
        )

    put(prepare, "_may_prepare", locking)


def _speculative_execution(put: Replace) -> None:
    def hasty(replica: Replica, instance: Instance, accepted: PrePrepare) -> None:
        instance.committed = True
        if instance.batch is None:
            instance.batch = accepted.header
            if instance.sequence == replica.executed + 1:
                commit.execute_next(replica)

    put(commit, "progress", hasty)


def _execution_reads_the_clock(put: Replace) -> None:
    execute = node.Node._execute
    make = ExecutedBlock
    clock = [0]

    def executing(self: node.Node, effect: Any) -> None:
        clock[0] = self.now().unix_ms
        execute(self, effect)

    def block(**values: Any) -> Any:
        root = bytes(values["state_root"])
        values["state_root"] = Digest(root[:-1] + bytes([clock[0] // 10 % 256]))
        return make(**values)

    put(node.Node, "_execute", executing)
    put(node, "ExecutedBlock", block)


def _folder_not_synced(put: Replace) -> None:
    sync = store._sync

    def files_only(path: Path) -> None:
        if not path.is_dir():
            sync(path)

    put(store, "_sync", files_only)


def _snapshot_without_replies(put: Replace) -> None:
    """A node that starts from a snapshot does not know which payloads have had their effect."""

    def partial(self: Ledger) -> Snapshot:
        return Snapshot(balances=dict(self.balances), seen=frozenset())

    put(Ledger, "snapshot", partial)


def _set_without_the_old_quorum(put: Replace) -> None:
    """The certificate beside a set need not name it."""

    def believing(value: Any, bounds: wire.Bounds) -> EpochLink:
        certified, members = wire.fields(value, 2)
        return EpochLink(
            certificate=wire.block_certificate(certified, bounds),
            validators=wire.validator_set(members),
        )

    put(frames, "_READERS", {**frames._READERS, frames.FrameType.EPOCH_LINK: believing})


# --- liveness and performance


def _read_without_order(put: Replace) -> None:
    """A read asks a weak quorum and believes the newest answer."""

    def asking(self: clients.Client) -> None:
        stage = self.stage
        weak = quorum.weak_quorum(stage.members)
        up = [found for found in stage.nodes if found.up]
        asked = stage.world.random.sample(up, min(weak, len(up)))
        operation = Operation(payload=b"", invoked_us=stage.world.now_us, ordered=False)
        self.history.operations.append(operation)
        self.answered(operation, max(found.replica.executed for found in asked))

    put(clients.Client, "read", asking)


def _unsigned_payloads(put: Replace) -> None:
    def credulous(_payload: bytes) -> bool:
        return True

    put(LedgerNode, "accepts", staticmethod(credulous))


def _timer_restarted_by_each_block(put: Replace) -> None:
    def patient(replica: Replica, oldest_us: int) -> int:
        begin = max(oldest_us, replica.entered_us, replica.executed_us or 0)
        return begin + custody._patience_us(replica)

    put(custody, "_custody_deadline", patient)


def _load_restarts_the_view_timer(put: Replace) -> None:
    on_changed = custody.on_changed

    def restarting(replica: Replica, change: Any) -> None:
        on_changed(replica, change)
        if not replica.active and replica.view_timer_for == replica.view:
            replica.set_timer(
                Timer.VIEW_CHANGE,
                replica.now.monotonic_us + view_change.timeout_us(replica),
            )

    put(custody, "on_changed", restarting)


def _no_retransmission(put: Replace) -> None:
    put(retransmit, "on_timer", retransmit.arm)
    put(retransmit, "_help", _nothing)


def _nothing(*_arguments: object) -> None:
    """Left out."""


def _back_off_without_cap(put: Replace) -> None:
    put(view_change, "BACKOFF_DOUBLINGS_MAX", 60)


def _no_join(put: Replace) -> None:
    put(view_change, "_join", _nothing)


def _view_timer_without_quorum(put: Replace) -> None:
    def hasty(replica: Replica) -> None:
        if not replica.active and replica.view_timer_for != replica.view:
            replica.view_timer_for = replica.view
            replica.set_timer(
                Timer.VIEW_CHANGE,
                replica.now.monotonic_us + view_change.timeout_us(replica),
            )

    put(view_change, "_watch", hasty)


def _join_anybody(put: Replace) -> None:
    def joining(replica: Replica) -> None:
        higher = [
            message.view
            for signer, message in sorted(replica.view_changes.items())
            if message.view > replica.view and signer != replica.me
        ]
        if higher:
            view_change.start(replica, max(higher), "joined another")

    put(view_change, "_join", joining)


def _anybody_moves_all(put: Replace) -> None:
    _join_anybody(put)
    _view_timer_without_quorum(put)


def _catch_up_waits_for_the_view(put: Replace) -> None:
    fetch, on_timer, lead = catch_up.fetch, catch_up.on_timer, view_change.start

    def fetching(replica: Replica) -> None:
        if replica.active:
            fetch(replica)

    def firing(replica: Replica) -> None:
        if replica.active:
            on_timer(replica)

    def starting(replica: Replica, view: int, reason: str) -> None:
        if replica.executed >= replica.certified:
            lead(replica, view, reason)

    put(catch_up, "fetch", fetching)
    put(catch_up, "on_timer", firing)
    put(view_change, "start", starting)


def _status_without_certificate(put: Replace) -> None:
    def silent(**values: Any) -> Status:
        return Status(**{**values, "certificate": None})

    put(retransmit, "Status", silent)


def _counters_reset_by_a_known_height(put: Replace) -> None:
    adopt = checkpoint.adopt

    def resetting(replica: Replica, certificate: BlockCertificate) -> None:
        adopt(replica, certificate)
        if certificate.height == replica.executed:
            replica.next_sequence = Sequence(replica.executed + 1)

    put(checkpoint, "adopt", resetting)


def _only_a_dead_primary_is_suspected(put: Replace) -> None:
    on_suspect = custody.on_suspect

    def trusting(replica: Replica) -> None:
        primary = replica.committee.primary(replica.view)
        if primary == replica.me or not replica.peers[primary].connected:
            on_suspect(replica)
        else:
            replica.suspect_at = None
            custody.arm(replica)
            if replica.suspect_at is not None and replica.suspect_at <= replica.now.monotonic_us:
                replica.suspect_at = replica.now.monotonic_us + replica.request_timeout_us
                replica.set_timer(Timer.SUSPECT, replica.suspect_at)

    put(custody, "on_suspect", trusting)


def _no_window_for_votes(put: Replace) -> None:
    def unbounded(self: Replica, sequence: int) -> Instance | None:
        found = self.instances.get(sequence)
        if found is None and sequence > self.floor:
            found = self.instances[sequence] = Instance(sequence)
        return found

    put(Replica, "instance", unbounded)


def _signer_not_checked(put: Replace) -> None:
    def trusting(value: Any, _bounds: wire.Bounds) -> ReplicaIndex:
        return ReplicaIndex(wire.number(value))

    put(wire, "signer", trusting)


# --- found by modelling this protocol


def _records_dropped_after_execution(put: Replace) -> None:
    born = node.Node.__init__

    def dropping(self: node.Node, cluster: Any, index: int) -> None:
        born(self, cluster, index)
        self.drop_after_execution = True

    put(node.Node, "__init__", dropping)


def _no_bound_on_views(put: Replace) -> None:
    on_certified = recovery.on_certified

    def boundless(replica: Replica) -> None:
        if replica.phase is Phase.RECOVERING:
            replica.first_view = View(0)
        on_certified(replica)

    put(recovery, "on_certified", boundless)


def _view_timer_for_exactly_this_view(put: Replace) -> None:
    def exact(replica: Replica) -> None:
        if replica.active or replica.view_timer_for == replica.view:
            return
        wanting = sum(message.view == replica.view for message in replica.view_changes.values())
        if replica.me in replica.view_changes and wanting >= replica.quorum:
            replica.view_timer_for = replica.view
            replica.set_timer(
                Timer.VIEW_CHANGE,
                replica.now.monotonic_us + view_change.timeout_us(replica),
            )

    put(view_change, "_watch", exact)


def _checkpoint_cast_once(put: Replace) -> None:
    put(recovery, "take_part", _taking_part_without_checkpoints)


def _taking_part_without_checkpoints(replica: Replica) -> None:
    prepare.progress_all(replica)
    view_change.resume(replica)
    propose.propose(replica)
    replica.suspect_at = None
    custody.arm(replica)
    # Blocks of an earlier life are never voted for.
    replica.cast_through = replica.executed


def _timer_from_first_sight(put: Replace) -> None:
    def impatient(replica: Replica, oldest_us: int) -> int:
        return oldest_us + custody._patience_us(replica)

    put(custody, "_custody_deadline", impatient)


def _any_unknown_vector_is_amnesia(put: Replace) -> None:
    check_number = recovery.check_number

    def suspicious(replica: Replica, shown: Stamp) -> None:
        known = {vector.number for vector in replica.own_vectors}
        if shown.signer == replica.me and shown.number not in known:
            last, replica.last_number = replica.last_number, Number(0)
            check_number(replica, shown)
            replica.last_number = last
        else:
            check_number(replica, shown)

    put(recovery, "check_number", suspicious)


def _custody_not_forwarded(put: Replace) -> None:
    emit = Replica.emit

    def quiet(self: Replica, effect: Effect) -> None:
        if not isinstance(effect, ForwardCustody):
            emit(self, effect)

    put(Replica, "emit", quiet)


def _epoch_entered_early(put: Replace) -> None:
    """The next epoch begins when its predecessor's last block is executed."""
    due = epochs.enter_if_due

    def early(replica: Replica) -> None:
        certificate, validators = replica.certificate, replica.next_set
        if (
            certificate is not None
            and validators is not None
            and replica.cut == replica.executed
            and certificate.checkpoint.epoch == replica.committee.epoch
        ):
            claim = replace(
                certificate.checkpoint,
                height=replica.tip.height,
                header_hash=replica.tip.header_hash,
                state_root=replica.tip.state_root,
                next_set=validators.hash,
            )
            early_link = replace(certificate, checkpoint=claim)
            epochs.enter(replica, EpochLink(certificate=early_link, validators=validators))
        else:
            due(replica)

    put(epochs, "enter_if_due", early)


def _numbers_start_again(put: Replace) -> None:
    on_certified = recovery.on_certified

    def reusing(replica: Replica) -> None:
        last = replica.last_number
        on_certified(replica)
        replica.last_number = last

    put(recovery, "on_certified", reusing)


def _nothing_is_said_twice(put: Replace) -> None:
    """No vote again, STATUS only out of view, whatever comes early is dropped."""
    on_timer = retransmit.on_timer

    def only_out_of_view(replica: Replica) -> None:
        if replica.active:
            retransmit.arm(replica)
        else:
            on_timer(replica)

    def present_only(function: Any) -> Any:
        def counting(replica: Replica, signer: ReplicaIndex, leaf: Any, *rest: Any) -> Any:
            return None if leaf.view > replica.view else function(replica, signer, leaf, *rest)

        return counting

    put(retransmit, "_resend", _nothing)
    put(retransmit, "on_timer", only_out_of_view)
    put(propose, "_keep", _nothing)
    put(prepare, "on_prepare", present_only(prepare.on_prepare))
    put(commit, "on_commit", present_only(commit.on_commit))


BUGS: Final = (
    Bug(
        number=1,
        name="quorum 2f+1 for every n",
        plant=_naive_quorum,
        scenes=(agreement.split_quorums,),
    ),
    Bug(
        number=2,
        name="VIEW-CHANGE without what is prepared",
        plant=_prepared_dropped,
        scenes=(agreement.lonely_commit,),
    ),
    Bug(
        number=2,
        variant="b",
        name="certificate of the lowest view wins",
        plant=_lowest_view_wins,
        scenes=(agreement.two_certificates,),
    ),
    Bug(
        number=3,
        name="an invalid certificate hides valid ones",
        plant=_bad_certificate_hides_good_ones,
        scenes=(agreement.lonely_commit_and_forger,),
    ),
    Bug(
        number=4,
        name="selection from matching checkpoints only",
        plant=_matching_checkpoints_only,
        scenes=(agreement.uneven_checkpoints,),
    ),
    Bug(
        number=5,
        name="re-proposed batches validated again",
        plant=_re_proposals_validated_again,
        scenes=(agreement.proposed_again,),
    ),
    Bug(
        number=5,
        variant="b",
        name="sequence numbers start again in a view",
        plant=_sequence_reset_by_a_view,
        scenes=(agreement.proposed_again,),
    ),
    Bug(
        number=6,
        name="NEW-VIEW accepted without recomputing it",
        plant=_new_view_not_recomputed,
        scenes=(agreement.lonely_commit,),
    ),
    Bug(
        number=7,
        name="a certificate counts a signer twice",
        plant=_signer_counted_twice,
        scenes=(agreement.lonely_commit_and_forger,),
    ),
    Bug(
        number=7,
        variant="b",
        name="the primary's PREPARE counts twice",
        plant=_primary_counted_twice,
        scenes=(agreement.lonely_commit, among_liars(liar.equivocates, leads=True)),
    ),
    Bug(
        number=8,
        name="a crash forgets own votes",
        plant=_votes_forgotten_by_a_crash,
        scenes=(memory.power_cuts,),
    ),
    Bug(
        number=8,
        variant="b",
        name="a vote leaves before it is durable",
        plant=_vote_leaves_before_it_is_durable,
        scenes=(memory.power_cuts,),
    ),
    Bug(
        number=9,
        name="a new file renamed without syncing its folder",
        plant=_folder_not_synced,
        scenes=(memory.power_cut_after_birth,),
    ),
    Bug(
        number=10,
        name="amnesia after disk loss",
        plant=_amnesia_after_disk_loss,
        scenes=(memory.wiped_voter,),
    ),
    Bug(
        number=10,
        variant="b",
        name="recovery without a bound on places",
        plant=_no_bound_on_places,
        scenes=(memory.wiped_voter,),
    ),
    Bug(
        number=11,
        name="catch-up trusts certificates with too few signers",
        plant=_short_certificates_in_catch_up,
        scenes=(among_liars(liar.forged_tip),),
    ),
    Bug(
        number=12,
        name="a validator set that no old quorum has named",
        plant=_set_without_the_old_quorum,
        scenes=(borders.set_nobody_decided,),
    ),
    Bug(
        number=13,
        name="lock without a certificate",
        plant=_lock_without_certificate,
        scenes=(agreement.halves_and_a_silent_primary,),
    ),
    Bug(
        number=14,
        name="executed and answered before it is committed",
        plant=_speculative_execution,
        scenes=(agreement.two_certificates, agreement.lonely_commit),
    ),
    Bug(
        number=15,
        name="execution reads the clock",
        plant=_execution_reads_the_clock,
        scenes=(liveness.no_fault_at_all,),
    ),
    Bug(
        number=16,
        name="a snapshot without what was executed before",
        plant=_snapshot_without_replies,
        scenes=(clients.old_batches_again,),
    ),
    Bug(
        number=17,
        name="reads that are not ordered",
        plant=_read_without_order,
        scenes=(clients.clients_of_a_ledger,),
    ),
    Bug(
        number=18,
        name="a payload accepted without its client's signature",
        plant=_unsigned_payloads,
        scenes=(clients.clients_of_a_ledger,),
    ),
    Bug(
        number=19,
        name="custody timer restarted by each block",
        plant=_timer_restarted_by_each_block,
        scenes=(liveness.starved_client,),
    ),
    Bug(
        number=20,
        name="load restarts the view-change timer",
        plant=_load_restarts_the_view_timer,
        scenes=(liveness.dead_primary_under_load,),
    ),
    Bug(
        number=21,
        name="no retransmission",
        plant=_no_retransmission,
        scenes=(liveness.one_goes_ahead, liveness.late_and_idle),
    ),
    Bug(
        number=22,
        name="back-off without a cap",
        plant=_back_off_without_cap,
        scenes=(liveness.long_outage,),
    ),
    Bug(
        number=22,
        variant="b",
        name="no join on W VIEW-CHANGEs",
        plant=_no_join,
        scenes=(liveness.scattered_views,),
    ),
    Bug(
        number=23,
        name="view timer runs without a quorum",
        plant=_view_timer_without_quorum,
        scenes=(liveness.alone_for_long,),
    ),
    Bug(
        number=24,
        name="catch-up and view change wait for each other",
        plant=_catch_up_waits_for_the_view,
        scenes=(liveness.late_in_a_view_change,),
    ),
    Bug(
        number=25,
        name="STATUS shows no certificate",
        plant=_status_without_certificate,
        scenes=(liveness.late_and_idle,),
    ),
    Bug(
        number=26,
        name="a known height resets derived counters",
        plant=_counters_reset_by_a_known_height,
        scenes=(memory.power_cuts,),
    ),
    Bug(
        number=27,
        name="only a disconnected primary is suspected",
        plant=_only_a_dead_primary_is_suspected,
        scenes=(liveness.frozen_primary,),
    ),
    Bug(
        number=28,
        name="one node moves all to its view",
        plant=_anybody_moves_all,
        scenes=(liveness.deaf_node,),
    ),
    Bug(
        number=29,
        name="instances for votes outside the window",
        plant=_no_window_for_votes,
        scenes=(among_liars(liar.votes_far_ahead),),
    ),
    Bug(
        number=30,
        name="signer index used before it is checked",
        plant=_signer_not_checked,
        scenes=(among_liars(liar.mutates),),
    ),
    Bug(
        number=31,
        name="records dropped after execution",
        plant=_records_dropped_after_execution,
        scenes=(memory.power_cuts,),
    ),
    Bug(
        number=32,
        name="recovery without a bound on views",
        plant=_no_bound_on_views,
        scenes=(memory.old_view_change,),
    ),
    Bug(
        number=33,
        name="view timer needs Q for exactly this view",
        plant=_view_timer_for_exactly_this_view,
        scenes=(liveness.one_goes_ahead,),
    ),
    Bug(
        number=34,
        name="CHECKPOINT cast at execution only",
        plant=_checkpoint_cast_once,
        scenes=(liveness.uncertified_tip,),
    ),
    Bug(
        number=35,
        name="custody timer from first sight alone",
        plant=_timer_from_first_sight,
        scenes=(liveness.slow_links_after_an_outage,),
    ),
    Bug(
        number=36,
        name="amnesia judged by any unknown vector",
        plant=_any_unknown_vector_is_amnesia,
        scenes=(memory.power_cuts,),
    ),
    Bug(
        number=37,
        name="custody is not forwarded to the primary",
        plant=_custody_not_forwarded,
        scenes=(liveness.no_fault_at_all,),
    ),
    Bug(
        number=38,
        name="an epoch entered before the last one is certified",
        plant=_epoch_entered_early,
        scenes=(borders.last_block_uncertified,),
    ),
    Bug(
        number=39,
        name="a recovered replica reuses numbers",
        plant=_numbers_start_again,
        scenes=(memory.wiped_voter,),
    ),
    Bug(
        number=40,
        name="nothing is said twice or kept for later",
        plant=_nothing_is_said_twice,
        scenes=(liveness.lossy_network,),
    ),
)
