"""The exact comparison after a run: what every node holds against what the client was told.

The logs are read from the nodes' own `state.db` files, block by block, so nothing is sampled.
Every check is linear in the history; a violation names the place. Letters are of bft.md section 11.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

import apsw

from bench.load import Plan, read_payloads
from bench.network import Member, WaitExpired, until
from caesar.core.transactions import decode_transaction
from chaos.client import Acknowledged, Read
from chaos.linearizability import add, linearizable, read
from chaos.mesh import Mesh
from node.runtime.api import ReadMode
from node.runtime.receipts import ID_SIZE_BYTES, RECORD_SIZE_BYTES

SETTLE_TIMEOUT_S: Final = 120.0
BUSY_MS: Final = 10_000


class Violation(AssertionError):
    """A property does not hold."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """What one node executed above some height."""

    headers: dict[int, tuple[bytes, bytes]]  # header, state root
    receipts: dict[bytes, tuple[int, int]]  # id -> height, code

    @property
    def first(self) -> int:
        """The lowest block that is held; 0 without any."""
        return min(self.headers, default=0)

    def answers_from(self, whole: Log) -> int:
        """The lowest block whose receipts must be held: that of a snapshot comes without them."""
        first = self.first
        if first == whole.first or any(height == first for height, _ in self.receipts.values()):
            return first
        return first + 1


def read_log(member: Member, *, above: int, through: int) -> Log:
    """Read a node's blocks, also while it runs. Raises `Violation` for an id executed twice."""
    database = apsw.Connection(str(member.home.state_database), flags=apsw.SQLITE_OPEN_READONLY)
    headers: dict[int, tuple[bytes, bytes]] = {}
    receipts: dict[bytes, tuple[int, int]] = {}
    try:
        database.set_busy_timeout(BUSY_MS)
        for height, header, root, blob in database.execute(
            "SELECT height, header, state_root, receipts FROM block "
            "WHERE height>? AND height<=? ORDER BY height",
            (above, through),
        ):
            headers[int(height)] = (bytes(header), bytes(root))
            data = bytes(blob)
            for at in range(0, len(data), RECORD_SIZE_BYTES):
                identifier = data[at : at + ID_SIZE_BYTES]
                if identifier in receipts:
                    raise Violation(f"S4: {identifier.hex()} was executed twice on {member.name}")
                receipts[identifier] = (int(height), data[at + ID_SIZE_BYTES + 1])
    finally:
        database.close()
    return Log(headers=headers, receipts=receipts)


def settle(mesh: Mesh) -> int:
    """All nodes ready, voting and at one height with one root; return that height (L3, S3)."""
    network = mesh.network
    network.wait_ready(timeout_s=SETTLE_TIMEOUT_S)

    def voting() -> bool:
        statuses = [member.status() for member in mesh.members]
        return all(status is not None and status["voting"] for status in statuses)

    try:
        until(voting, "every node votes", timeout_s=SETTLE_TIMEOUT_S)
    except WaitExpired as problem:
        raise WaitExpired(f"{problem}\n{network.describe()}") from None
    network.agreed_root(timeout_s=SETTLE_TIMEOUT_S)
    if network.conservation_error() != 0:
        raise Violation("S11: the supply is not what genesis fixed")
    return min(member.height() for member in mesh.members)


def fullest(logs: Sequence[Log]) -> Log:
    """The log that reaches back furthest."""
    return min(logs, key=lambda log: (not log.headers, log.first))


def same_logs(logs: Sequence[Log], *, above: int, through: int) -> None:
    """Every node holds every block, and the same one (S1, S2, S3).

    A node whose state came from a snapshot has no block below it; one node at least has them all.
    """
    whole = fullest(logs)
    for height in range(above + 1, through + 1):
        held = [log for log in logs if log is whole or log.first <= height]
        found = {log.headers.get(height) for log in held}
        if None in found:
            missing = [at for at, log in enumerate(logs) if height not in log.headers]
            raise Violation(f"block {height} is missing on {missing}")
        if len(found) != 1:
            raise Violation(f"S1: block {height} differs between nodes")
    for log in logs:
        lowest = log.answers_from(whole)
        expected = {key: found for key, found in whole.receipts.items() if found[0] >= lowest}
        if log.receipts != expected:
            raise Violation("S3: receipts differ between nodes")


def identifiers(plan: Plan) -> list[bytes]:
    """What receipts of a plan's payloads are found by, in its order."""
    return [bytes(decode_transaction(payload).transaction.id) for payload in read_payloads(plan)]


def nothing_lost(
    acknowledged: Sequence[Acknowledged], ids: Sequence[bytes], logs: Sequence[Log]
) -> None:
    """Each answer is in each log that reaches back to it, with that result and height (S9)."""
    whole = fullest(logs)
    lowest = [log.answers_from(whole) for log in logs]
    for one in acknowledged:
        known = whole.receipts.get(ids[one.index])
        for at, log in enumerate(logs):
            if known is not None and known[0] < lowest[at]:
                continue  # not above the snapshot that this state came from
            found = log.receipts.get(ids[one.index])
            if found is None:
                raise Violation(f"S9: payload {one.index}, acknowledged, is not on node {at}")
            height, code = found
            if code != one.code:
                raise Violation(f"S9: payload {one.index} answered {one.code}, logged {code}")
            if height > one.height or (one.exact and height != one.height):
                raise Violation(
                    f"S9: payload {one.index} answered at {one.height}, logged at {height}"
                )


def real_time_order(acknowledged: Sequence[Acknowledged], ids: Sequence[bytes], log: Log) -> None:
    """What was answered before another was invoked was executed in an earlier block (S10)."""
    by_invocation = sorted(acknowledged, key=lambda one: one.invoked)
    by_answer = sorted(acknowledged, key=lambda one: one.answered)
    newest, answered = 0, 0
    for one in by_invocation:
        while answered < len(by_answer) and by_answer[answered].answered < one.invoked:
            newest = max(newest, log.receipts[ids[by_answer[answered].index]][0])
            answered += 1
        height = log.receipts[ids[one.index]][0]
        if height <= newest:
            raise Violation(
                f"S10: payload {one.index} was executed in block {height}, after block {newest} "
                "had been answered to its sender"
            )


def lanes_in_order(plan: Plan, ids: Sequence[bytes], log: Log) -> None:
    """The transfers of a lane were executed in their order, without a gap (S4)."""
    for strand in range(min(plan.strands, len(ids))):
        newest, ended = 0, False
        for index in range(strand, len(ids), plan.strands):
            found = log.receipts.get(ids[index])
            if found is None:
                ended = True
                continue
            if ended or found[0] < newest:
                raise Violation(f"S4: payload {index} was executed out of its lane's order")
            newest = found[0]


def reads_exact(
    reads: Sequence[Read], ids: Sequence[bytes], log: Log, *, before: int, above: int
) -> None:
    """Each read shows the balance the log gives the account at that height (S11)."""
    mine = sorted(
        height
        for identifier in ids
        if (found := log.receipts.get(identifier)) and found[1] == 0
        for height in (found[0],)
    )
    newest_first = sorted(reads, key=lambda one: one.height)
    paid, at = before, 0
    for one in newest_first:
        while at < len(mine) and mine[at] <= one.height:
            paid, at = paid + 1, at + 1
        if one.height >= above and one.balance != paid:
            raise Violation(
                f"node {one.node} showed {one.balance} at height {one.height}, the log gives {paid}"
            )


def reads_monotone(reads: Sequence[Read], *, forgot: Collection[int]) -> None:
    """Reads through one node never go back, unless it lost its data meanwhile."""
    for node in {one.node for one in reads} - set(forgot):
        _never_back([one for one in reads if one.node == node], f"node {node}")


def reads_of_a_session(
    reads: Sequence[Read], acknowledged: Sequence[Acknowledged], ids: Sequence[bytes], log: Log
) -> None:
    """Reads at a height hold all that this client was told before, whichever nodes it asks (G4)."""
    session = [one for one in reads if one.mode == ReadMode.AT_HEIGHT]
    _never_back(session, "the session")
    by_answer = sorted(acknowledged, key=lambda one: one.answered)
    newest, told = 0, 0
    for one in sorted(session, key=lambda one: one.invoked):
        while told < len(by_answer) and by_answer[told].answered < one.invoked:
            newest = max(newest, log.receipts[ids[by_answer[told].index]][0])
            told += 1
        if one.height < newest:
            raise Violation(
                f"G4: node {one.node} showed height {one.height} to a client that had been "
                f"answered at {newest}"
            )


def reads_linearizable(
    reads: Sequence[Read],
    acknowledged: Sequence[Acknowledged],
    ids: Sequence[bytes],
    log: Log,
    *,
    before: int,
    wrong_clocks: Collection[int] = (),
) -> None:
    """One order of all payments and linearizable reads explains every balance (G4, Wing and Gong).

    Nodes with `wrong_clocks` promise nothing: the mode rests on clocks that agree to 500 ms.
    """
    answers = {one.index: one for one in acknowledged}
    history = []
    for index, identifier in enumerate(ids):
        found = log.receipts.get(identifier)
        if found is None or found[1] != 0:
            continue
        answer = answers.get(index)
        if answer is None:
            history.append(add(1, invoked=0.0))
        else:
            history.append(add(1, invoked=answer.invoked, answered=answer.answered))
    history += [
        read(one.balance, invoked=one.invoked, answered=one.answered)
        for one in reads
        if one.mode == ReadMode.LINEARIZABLE and one.node not in wrong_clocks
    ]
    if not linearizable(history, before):
        raise Violation("G4: no order of the payments explains the linearizable reads")


def promises_named(reads: Sequence[Read]) -> None:
    """An answer names the read mode that was asked for (G4)."""
    for one in reads:
        if one.promised != one.mode:
            raise Violation(f"G4: node {one.node} was asked {one.mode} and promised {one.promised}")


def _never_back(reads: Sequence[Read], who: str) -> None:
    """What was shown before another read was invoked is not newer than what that one shows."""
    by_answer = sorted(reads, key=lambda one: one.answered)
    newest, seen = 0, 0
    for one in sorted(reads, key=lambda one: one.invoked):
        while seen < len(by_answer) and by_answer[seen].answered < one.invoked:
            newest = max(newest, by_answer[seen].height)
            seen += 1
        if one.height < newest:
            raise Violation(f"{who} showed height {newest} and then {one.height}")
