"""Who lied, once two nodes hold different blocks at one height (bft.md S13, row E4).

Input is whatever was kept: certificates, votes, PRE-PREPAREs, VIEW-CHANGEs and NEW-VIEWs of one
epoch, from any number of nodes, and headers. Every signature is checked here; what does not hold is
left out, and nothing is believed because a node said it. Output is pairs of statements of one
replica that no correct replica signs both of, whatever it received and whenever it crashed:

- two batches at one place in one view (PRE-PREPARE, PREPARE and COMMIT alike);
- two blocks, or two states after one, at one height (CHECKPOINT), also when a block named higher up
  descends from another one;
- a COMMIT at a place, and a VIEW-CHANGE for a later view that neither shows a certificate at or
  above the place nor the certificate it had prepared there with that view or a later one;
- two NEW-VIEWs for one view.

Why f + 1 of them are found: two quorums share 2Q - n >= f + 1 replicas, and for a fork across views
the quorum that committed shares as many with the Q VIEW-CHANGEs of the NEW-VIEW that forgot it.
Where that NEW-VIEW is missing from the input the list is shorter, and `Verdict.complete` says so.
"""

from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass
from itertools import pairwise
from typing import assert_never

from consensus.core.certificates import vote_proof
from consensus.core.light import Check
from consensus.core.messages import (
    BlockCertificate,
    BlockHeader,
    Checkpoint,
    Commit,
    Equivocation,
    Leaf,
    NewView,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    SignatureJob,
    ViewChange,
    VoteProof,
    VoteVector,
)
from consensus.core.quorum import faults, quorum
from consensus.core.types import Epoch, ReplicaIndex
from native.values import Digest

Held = (
    BlockCertificate
    | PreparedCertificate
    | PrePrepare
    | VoteVector
    | ViewChange
    | NewView
    | Equivocation
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """One leaf with its proof: a signed statement that stands alone."""

    leaf: Leaf
    proof: VoteProof


Statement = Vote | PrePrepare | ViewChange | NewView


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """Two statements of one replica that exclude each other, and why in one sentence."""

    signer: ReplicaIndex
    first: Statement
    second: Statement
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Who is proved to have lied: one contradiction for each, by replica index."""

    contradictions: tuple[Contradiction, ...]
    needed: int  # f + 1: so many lied if there was a fork
    statements: int  # with a valid signature
    ignored: int  # with a wrong one

    @property
    def culprits(self) -> tuple[ReplicaIndex, ...]:
        return tuple([found.signer for found in self.contradictions])

    @property
    def complete(self) -> bool:
        """Everybody who must have lied in a fork is named, or more."""
        return len(self.contradictions) >= self.needed


def investigate(
    held: Iterable[Held],
    *,
    chain_id: Digest,
    members: int,
    epoch: Epoch,
    check: Check,
    headers: Iterable[BlockHeader] = (),
) -> Verdict:
    """Find every replica that contradicts itself in what is held, and one pair of each."""
    statements = _statements(held)
    valid = _valid(statements, chain_id=chain_id, members=members, epoch=epoch, check=check)
    ancestry = {header.hash: header for header in headers}
    sound = {
        id(change): _sound(change, chain_id=chain_id, members=members, check=check)
        for change in valid
        if isinstance(change, ViewChange)
    }
    by_signer: dict[int, list[Statement]] = {}
    for entry in valid:
        by_signer.setdefault(_signer(entry), []).append(entry)
    found: list[Contradiction] = []
    for signer in sorted(by_signer):
        own = by_signer[signer]
        contradiction = _first_contradiction(ReplicaIndex(signer), own, ancestry, sound)
        if contradiction is not None:
            found.append(contradiction)
    return Verdict(
        contradictions=tuple(found),
        needed=faults(members) + 1,
        statements=len(valid),
        ignored=len(statements) - len(valid),
    )


# --- taking apart what is held


def _statements(held: Iterable[Held]) -> list[Statement]:
    """Every signed statement inside, certificates and NEW-VIEWs taken apart and each once."""
    found: dict[tuple[object, ...], Statement] = {}
    waiting = list(held)
    while waiting:
        item = waiting.pop()
        match item:
            case BlockCertificate():
                _add(found, *[Vote(leaf=item.checkpoint, proof=vote) for vote in item.votes])
            case PreparedCertificate():
                _add(found, item.pre_prepare)
                _add(found, *[Vote(leaf=item.leaf(), proof=vote) for vote in item.votes])
            case VoteVector():
                for index, leaf in enumerate(item.leaves):
                    _add(found, Vote(leaf=leaf, proof=vote_proof(item, index)))
            case PrePrepare():
                _add(found, item)
            case ViewChange():
                _add(found, item)
                waiting.extend(item.prepared)
                if item.certificate is not None:
                    waiting.append(item.certificate)
            case NewView():
                _add(found, item)
                waiting.extend(item.view_changes)
                waiting.extend(item.proposals)
            case Equivocation():
                _add(found, item.first, item.second)
            case _:
                assert_never(item)
    return list(found.values())


def _add(found: dict[tuple[object, ...], Statement], *statements: Statement) -> None:
    for statement in statements:
        found.setdefault(_key(statement), statement)


def _key(statement: Statement) -> tuple[object, ...]:
    match statement:
        case Vote():
            return (0, statement.proof.value(), statement.leaf.value())
        case PrePrepare():
            return (1, statement.signer, statement.value())
        case ViewChange():
            return (2, statement.value())
        case NewView():
            return (3, statement.signer, statement.value())
        case _:
            assert_never(statement)


def _signer(statement: Statement) -> ReplicaIndex:
    return statement.proof.signer if isinstance(statement, Vote) else statement.signer


def _epoch(statement: Statement) -> Epoch:
    return statement.leaf.epoch if isinstance(statement, Vote) else statement.epoch


def _job(statement: Statement, chain_id: Digest) -> SignatureJob:
    if isinstance(statement, Vote):
        return statement.proof.job(chain_id, statement.leaf)
    return statement.signer, statement.signed_bytes(chain_id), statement.signature


def _valid(
    statements: Seq[Statement], *, chain_id: Digest, members: int, epoch: Epoch, check: Check
) -> list[Statement]:
    known = [entry for entry in statements if _signer(entry) < members and _epoch(entry) == epoch]
    marks = check([_job(entry, chain_id) for entry in known])
    return [entry for entry, mark in zip(known, marks, strict=True) if mark]


def _sound(change: ViewChange, *, chain_id: Digest, members: int, check: Check) -> ViewChange:
    """What a VIEW-CHANGE really shows: certificates in it that do not hold count as absent."""
    certificate = change.certificate
    if certificate is not None and not _holds(
        [vote.job(chain_id, certificate.checkpoint) for vote in certificate.votes],
        quorum(members),
        check,
    ):
        certificate = None
    return ViewChange(
        epoch=change.epoch,
        view=change.view,
        signer=change.signer,
        number=change.number,
        certificate=certificate,
        prepared=tuple(
            [
                entry
                for entry in change.prepared
                if _holds(
                    [
                        _job(entry.pre_prepare, chain_id),
                        *[vote.job(chain_id, entry.leaf()) for vote in entry.votes],
                    ],
                    quorum(members),
                    check,
                )
            ]
        ),
    )


def _holds(jobs: Seq[SignatureJob], needed: int, check: Check) -> bool:
    return len({signer for signer, _, _ in jobs}) >= needed and all(check(jobs))


# --- what excludes what


def _first_contradiction(
    signer: ReplicaIndex,
    own: Seq[Statement],
    ancestry: Mapping[Digest, BlockHeader],
    sound: Mapping[int, ViewChange],
) -> Contradiction | None:
    pair = (
        _two_batches(own)
        or _two_blocks(own, ancestry)
        or _forgotten(own, sound)
        or _two_new_views(own)
    )
    if pair is None:
        return None
    first, second, reason = pair
    return Contradiction(signer=signer, first=first, second=second, reason=reason)


Pair = tuple[Statement, Statement, str]


def _two_batches(own: Iterable[Statement]) -> Pair | None:
    at: dict[tuple[int, int], tuple[Statement, Digest]] = {}
    for statement in own:
        place = _place(statement)
        if place is None:
            continue
        view, sequence, digest = place
        first, bound_to = at.setdefault((view, sequence), (statement, digest))
        if bound_to != digest:
            return first, statement, f"two batches at sequence {sequence} in view {view}"
    return None


def _place(statement: Statement) -> tuple[int, int, Digest] | None:
    """View, sequence and batch that a statement of the first three phases binds its signer to."""
    if isinstance(statement, PrePrepare):
        return statement.view, statement.sequence, statement.digest
    if isinstance(statement, Vote) and isinstance(statement.leaf, Prepare | Commit):
        leaf = statement.leaf
        return leaf.view, leaf.sequence, leaf.digest
    return None


def _two_blocks(own: Iterable[Statement], ancestry: Mapping[Digest, BlockHeader]) -> Pair | None:
    at: dict[int, tuple[Vote, Checkpoint]] = {}
    for statement in own:
        if isinstance(statement, Vote) and isinstance(statement.leaf, Checkpoint):
            leaf = statement.leaf
            first, bound_to = at.setdefault(leaf.height, (statement, leaf))
            if bound_to != leaf:
                same = bound_to.header_hash == leaf.header_hash
                what = "states after" if same else "blocks at"
                return first, statement, f"two {what} height {leaf.height}"
    for low, high in pairwise(sorted(at)):
        below, above = at[low], at[high]
        reason = _descends_wrongly(below[1], above[1], ancestry)
        if reason:
            return below[0], above[0], reason
    return None


def _descends_wrongly(
    lower: Checkpoint, upper: Checkpoint, ancestry: Mapping[Digest, BlockHeader]
) -> str:
    """Follow parent hashes from the upper block; where a header is missing nothing is shown."""
    at, child = upper.header_hash, None
    for height in range(upper.height, lower.height, -1):
        child = ancestry.get(at)
        if child is None or child.height != height:
            return ""
        at = child.parent
    if at != lower.header_hash:
        return f"block {upper.height} descends from another block at height {lower.height}"
    if child is not None and child.state_root != lower.state_root:
        return f"block {upper.height} descends from another state after height {lower.height}"
    return ""


def _forgotten(own: Seq[Statement], sound: Mapping[int, ViewChange]) -> Pair | None:
    changes = [entry for entry in own if isinstance(entry, ViewChange)]
    for statement in own:
        if not (isinstance(statement, Vote) and isinstance(statement.leaf, Commit)):
            continue
        leaf = statement.leaf
        for change in changes:
            if change.view > leaf.view and not _shows(sound[id(change)], leaf):
                reason = (
                    f"committed sequence {leaf.sequence} in view {leaf.view} and does not show "
                    f"it in its VIEW-CHANGE for view {change.view}"
                )
                return statement, change, reason
    return None


def _shows(change: ViewChange, commit: Commit) -> bool:
    """A replica that cast this COMMIT could honestly send this VIEW-CHANGE."""
    return change.height >= commit.sequence or any(
        entry.sequence == commit.sequence
        and (
            entry.view > commit.view
            or (entry.view == commit.view and entry.pre_prepare.digest == commit.digest)
        )
        for entry in change.prepared
    )


def _two_new_views(own: Iterable[Statement]) -> Pair | None:
    at: dict[int, NewView] = {}
    for statement in own:
        if isinstance(statement, NewView):
            first = at.setdefault(statement.view, statement)
            if first.digest != statement.digest:
                return first, statement, f"two NEW-VIEWs for view {statement.view}"
    return None
