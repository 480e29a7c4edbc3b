"""Bugs of execution, clients and reads: what is answered, and what the state becomes."""

from typing import Any, Final

from consensus.core import quorum
from consensus.core.instance import Instance
from consensus.core.messages import PrePrepare
from consensus.core.phases import commit
from consensus.core.records import ExecutedBlock
from consensus.core.replica import Replica
from consensus.sim import node
from consensus.sim.ledger import Ledger, LedgerNode, Operation, Snapshot
from consensus.sim.planted.bug import Bug, Replace
from consensus.sim.scenes import agreement, clients, liveness
from native.values import Digest


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


def _snapshot_without_replies(put: Replace) -> None:
    """A node that starts from a snapshot does not know which payloads have had their effect."""

    def partial(self: Ledger) -> Snapshot:
        return Snapshot(balances=dict(self.balances), seen=frozenset())

    put(Ledger, "snapshot", partial)


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


BUGS: Final = (
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
)
