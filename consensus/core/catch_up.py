"""Fetching what was missed: certified headers first, then bodies by their root (bft.md 3.7).

A block is accepted because a certificate names its header, directly or through the parent hashes of
the headers above it; never because many said so. Bodies are found by payload root, so any holder
will do and each may be asked from another peer. Every fetched block is executed and its state
compared with the next header.
"""

from typing import TYPE_CHECKING

from consensus.core import epochs, transfer
from consensus.core.effects import Event, Fault, Send
from consensus.core.inputs import Timer
from consensus.core.messages import Blocks, FetchBlocks, FetchBodies
from consensus.core.phases import checkpoint, commit
from consensus.core.types import Height, ReplicaIndex
from consensus.limits import (
    BODIES_PER_FETCH_MAX,
    FETCH_AHEAD_BLOCKS_MAX,
    HEADERS_PER_REPLY_MAX,
    IN_FLIGHT_BLOCKS_MAX,
)
from native.values import Digest

if TYPE_CHECKING:
    from consensus.core.replica import Replica

FIRST_WAIT_US = 2_000  # a body or vote on its way arrives within this
PUSHED_WAIT_US = 20_000  # a large body that its primary sends after the PRE-PREPARE, likewise


def want_body(replica: "Replica", root: Digest, wait_us: int = FIRST_WAIT_US) -> None:
    """A body is needed; it may be on its way, so the first request is sent after `wait_us` only."""
    if root not in replica.wanted and not replica.holds(root):
        retry = replica.timing.fetch_retry_ms * 1_000
        replica.wanted[root] = replica.now.monotonic_us + wait_us - retry
        arm(replica, wait_us)


def arm(replica: "Replica", wait_us: int) -> None:
    """Look at what is missing after this time, or earlier if that is planned already."""
    at = replica.now.monotonic_us + wait_us
    if replica.fetch_at is None or at < replica.fetch_at:
        replica.fetch_at = at
        replica.set_timer(Timer.FETCH, at)


def fetch(replica: "Replica") -> None:
    """Ask for headers and bodies if execution is behind the certificate."""
    lag = replica.certified - replica.executed
    if lag <= 0:
        if replica.catching_up:
            replica.catching_up = False
            replica.note(Event.CATCH_UP_FINISHED, f"block {replica.executed}")
        return
    if lag > IN_FLIGHT_BLOCKS_MAX and not replica.catching_up:
        replica.catching_up = True
        replica.note(
            Event.CATCH_UP_STARTED, f"block {replica.executed}, certified {replica.certified}"
        )
    transfer.consider(replica)
    known = _known(replica)
    for height in range(
        replica.executed + 1, min(known, replica.executed + FETCH_AHEAD_BLOCKS_MAX) + 1
    ):
        want_body(replica, replica.fetched[height][1].payload_root)
    if known < replica.certified and len(replica.fetched) < HEADERS_PER_REPLY_MAX:
        if known > replica.executed or replica.catching_up:
            _ask_headers(replica, known + 1)
        elif not _decided(replica):
            arm(replica, replica.timing.fetch_retry_ms * 1_000)


def _known(replica: "Replica") -> int:
    """The highest certified header held in a row above the executed ones."""
    known = int(replica.executed)
    while known + 1 in replica.fetched:
        known += 1
    return known


def _decided(replica: "Replica") -> bool:
    instance = replica.instances.get(replica.executed + 1)
    return replica.executing is not None or (instance is not None and instance.batch is not None)


def _ask_headers(replica: "Replica", first: int) -> None:
    now = replica.now.monotonic_us
    retry = replica.timing.fetch_retry_ms * 1_000
    asked = replica.headers_asked_us
    if asked is None or now - asked >= retry:
        if asked is not None:
            transfer.unanswered(replica)
        peer = _next_peer(replica, first)
        if peer is not None:
            replica.headers_asked_us = now
            replica.emit(Send(peer=peer, message=FetchBlocks(first=Height(first))))
    arm(replica, retry)


def _next_peer(replica: "Replica", height: int) -> ReplicaIndex | None:
    """Another peer each time, first among those known to have got there.

    Who has said nothing since it was last asked comes last: it may have died, and its connection
    need not have noticed.
    """
    connected = [peer for peer in replica.others if replica.peers[peer].connected]
    able = [peer for peer in connected if replica.peers[peer].executed >= height]
    if not able:
        # Perhaps a set of new members that are all behind: those who left still serve.
        able = [guest for guest, known in replica.guests.items() if known.executed >= height]
    able = able or connected
    if not able:
        return None
    able = [peer for peer in able if not _owes_an_answer(replica, peer)] or able
    replica.fetch_turn += 1
    chosen = able[replica.fetch_turn % len(able)]
    _note_asked(replica, chosen)
    return chosen


def _owes_an_answer(replica: "Replica", peer: ReplicaIndex) -> bool:
    known = replica.peers.get(peer)
    if known is None or known.asked_us is None:
        return False
    return known.heard_us is None or known.heard_us < known.asked_us


def _note_asked(replica: "Replica", peer: ReplicaIndex) -> None:
    if peer in replica.peers:
        replica.peers[peer].asked_us = replica.now.monotonic_us


def on_timer(replica: "Replica") -> None:
    """Ask (again) for whatever is still missing."""
    now = replica.now.monotonic_us
    retry = replica.timing.fetch_retry_ms * 1_000
    if replica.certified > replica.executed and not _decided(replica):
        known = _known(replica)
        if known < replica.certified:
            _ask_headers(replica, known + 1)
    in_use = replica.roots_in_use()
    due: list[Digest] = []
    for root, asked in list(replica.wanted.items()):
        if root not in in_use or replica.holds(root):
            del replica.wanted[root]
        elif now - asked >= retry:
            due.append(root)
    if due:
        transfer.unanswered(replica)
    due = _ask_proposers(replica, due)
    for start in range(0, len(due), BODIES_PER_FETCH_MAX):
        roots = due[start : start + BODIES_PER_FETCH_MAX]
        peer = _next_peer(replica, replica.executed + 1)
        if peer is not None:
            for root in roots:
                replica.wanted[root] = now
            replica.emit(Send(peer=peer, message=FetchBodies(payload_roots=tuple(roots))))
    if replica.wanted:
        soonest = min(replica.wanted.values()) + retry - now
        arm(replica, soonest if soonest > 0 else retry)
    elif replica.certified > replica.executed and not _decided(replica):
        arm(replica, retry)


def _ask_proposers(replica: "Replica", due: list[Digest]) -> list[Digest]:
    """Ask for the body of a live proposal where it comes from, once; give back what is left."""
    asked: dict[ReplicaIndex, list[Digest]] = {}
    for instance in replica.instances.values():
        accepted = instance.pre_prepare
        if (
            accepted is not None
            and not instance.asked
            and not instance.reproposed
            and accepted.signer != replica.me
            and accepted.header.payload_root in due
        ):
            instance.asked = True
            asked.setdefault(accepted.signer, []).append(accepted.header.payload_root)
    for peer, roots in asked.items():
        for root in roots:
            replica.wanted[root] = replica.now.monotonic_us
        _note_asked(replica, peer)
        replica.emit(Send(peer=peer, message=FetchBodies(payload_roots=tuple(roots))))
    known = {root for roots in asked.values() for root in roots}
    return [root for root in due if root not in known]


def on_blocks(replica: "Replica", sender: ReplicaIndex, message: Blocks) -> None:
    """Certified headers (the decoder has checked that they chain to their certificate)."""
    if not epochs.certifies(replica, message.certificate):
        replica.blame(sender, Fault.BAD_CERTIFICATE)
        return
    checkpoint.adopt(replica, message.certificate)
    news = False
    for header, batch in zip(message.headers, message.batches, strict=True):
        height = header.height
        if height <= replica.executed or height in replica.fetched:
            continue
        if batch.epoch > replica.committee.epoch or header.epoch != batch.epoch:
            replica.blame(sender, Fault.BAD_BLOCKS)
            return
        if len(replica.fetched) >= 2 * HEADERS_PER_REPLY_MAX:
            break
        before = replica.fetched.get(height - 1)
        executing = replica.executing
        if before is not None:
            parent = before[0].hash
        elif height == replica.executed + 1:
            parent = replica.tip.header_hash
        elif executing is not None and executing[0].height == height - 1:
            parent = executing[0].hash
        else:
            continue
        if header.parent != parent:
            replica.diverge(f"block {height - 1} of this node is not the certified one")
            return
        if executing is not None and executing[0].height == height:
            if executing[0].hash != header.hash:
                replica.diverge(f"block {height} of this node is not the certified one")
                return
            continue
        replica.fetched[height] = (header, batch)
        news = True
    if news:
        # What is known already answers nothing: it must not keep us from asking others.
        replica.headers_asked_us = None
        transfer.answered(replica)
    commit.execute_next(replica)
    fetch(replica)
