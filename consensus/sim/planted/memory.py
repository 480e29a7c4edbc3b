"""Bugs of durable records, restart and recovery: what a node forgets, or says too early."""

from pathlib import Path
from typing import Any, Final

from consensus.core import recovery
from consensus.core.messages import BlockCertificate, Stamp
from consensus.core.phases import checkpoint
from consensus.core.replica import Replica
from consensus.core.types import Number, Phase, Sequence, View
from consensus.runtime import store
from consensus.sim import disk, node
from consensus.sim.planted.bug import Bug, Replace, nothing
from consensus.sim.scenes import memory


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
    put(recovery, "check_number", nothing)


def _no_bound_on_places(put: Replace) -> None:
    on_certified = recovery.on_certified

    def boundless(replica: Replica) -> None:
        if replica.phase is Phase.RECOVERING:
            replica.first_sequence = Sequence(1)
        on_certified(replica)

    put(recovery, "on_certified", boundless)


def _folder_not_synced(put: Replace) -> None:
    sync = store._sync

    def files_only(path: Path) -> None:
        if not path.is_dir():
            sync(path)

    put(store, "_sync", files_only)


def _counters_reset_by_a_known_height(put: Replace) -> None:
    adopt = checkpoint.adopt

    def resetting(replica: Replica, certificate: BlockCertificate) -> None:
        adopt(replica, certificate)
        if certificate.height == replica.executed:
            replica.next_sequence = Sequence(replica.executed + 1)

    put(checkpoint, "adopt", resetting)


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


def _numbers_start_again(put: Replace) -> None:
    on_certified = recovery.on_certified

    def reusing(replica: Replica) -> None:
        last = replica.last_number
        on_certified(replica)
        replica.last_number = last

    put(recovery, "on_certified", reusing)


BUGS: Final = (
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
        number=26,
        name="a known height resets derived counters",
        plant=_counters_reset_by_a_known_height,
        scenes=(memory.power_cuts,),
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
        number=36,
        name="amnesia judged by any unknown vector",
        plant=_any_unknown_vector_is_amnesia,
        scenes=(memory.power_cuts,),
    ),
    Bug(
        number=39,
        name="a recovered replica reuses numbers",
        plant=_numbers_start_again,
        scenes=(memory.wiped_voter,),
    ),
)
