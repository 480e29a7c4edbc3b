"""What is in the databases of a stopped node, and whether all of it holds. Reads only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from consensus.core.epochs import Epochs
from consensus.core.light import falcon_check
from consensus.core.messages import UNSIGNED, EpochJob, signatures
from consensus.core.records import (
    Accepted,
    Anchor,
    Birth,
    EpochBegun,
    LastNumber,
    NewViewHeld,
    OwnViewChange,
    OwnVotes,
    PeerStamp,
    Prepared,
    Record,
    Tip,
    ViewEntered,
    certified_height,
    encode_record,
)
from consensus.errors import ConsensusError
from native.batches import Batch
from native.errors import NativeError
from node.chain import StoredChain, lineage_of, verify_chain
from node.errors import DatabaseInvalid

if TYPE_CHECKING:
    from consensus.runtime.space import Usage
    from node.stopped import StoppedNode


def inspect_stores(node: StoppedNode) -> dict[str, Any]:
    """Kinds, counts, sizes and numbers; no payload, no signature."""
    records = node.records()
    kinds: dict[str, dict[str, Any]] = {}
    for record in records:
        row = encode_record(record)
        found = kinds.setdefault(
            type(record).__name__, {"count": 0, "size_bytes": 0, "first": None, "last": None}
        )
        found["count"] += 1
        found["size_bytes"] += len(row.data)
        place = row.sequence or row.key
        if place:
            found["first"] = min(found["first"] or place, place)
            found["last"] = max(found["last"] or place, place)
    return {
        "chain": node.genesis.label,
        "incarnation": _one(records, Birth, "incarnation", 0),
        "last_number": int(_one(records, LastNumber, "number", 0)),
        "view": int(_one(records, ViewEntered, "view", 0)),
        "records": dict(sorted(kinds.items())),
        "blocks": {
            "oldest": node.state.oldest,
            "newest": node.state.height,
            "certified": certified_height(records),
            "bodies": node.store.count_bodies(),
        },
        "files": {
            "consensus.db": _usage(node.store.usage()),
            "state.db": _usage(node.state.usage()),
        },
    }


def verify_stores(node: StoppedNode) -> dict[str, Any]:
    """Check every page, record, signature, body and block; raises `DatabaseInvalid` or the like."""
    for path, answer in (
        (node.home.consensus_database, node.store.check_pages()),
        (node.home.state_database, node.state.check_pages()),
    ):
        if answer != "ok":
            raise DatabaseInvalid(
                f"{path}: {answer}",
                hint="move it away and start the node: what it held is fetched or executed again",
            )
    try:
        records = node.records()
    except ConsensusError as error:
        raise DatabaseInvalid(
            f"{node.home.consensus_database}: {error}", hint=error.hint
        ) from error
    # What this node was signing when it stopped has no signature yet; a start makes it again.
    jobs = [job for record in records for job in _jobs(record, node) if job[3] != UNSIGNED]
    genesis = lineage_of(node.genesis)
    epochs = Epochs.of(node.genesis.chain_id, genesis.newest.validators, records)
    for validators in epochs.sets:
        own = [job[1:] for job in jobs if job[0] == validators.epoch]
        for (signer, _, _), valid in zip(own, falcon_check(validators)(own), strict=True):
            if not valid:
                raise DatabaseInvalid(
                    f"{node.home.consensus_database}: a record holds a signature of "
                    f"{validators.members[signer].name} that is not valid",
                    hint="move it away and start as after disk loss; the node recovers from its "
                    "peers",
                )
    bodies = 0
    for sequence, root, data in node.store.bodies_now():
        try:
            same = Batch.parse(data).root == root
        except NativeError:
            same = False
        if not same:
            raise DatabaseInvalid(
                f"{node.home.consensus_database}: the body at sequence {sequence} is not the one "
                "it is stored as",
                hint="move it away and start as after disk loss; the node recovers from its peers",
            )
        bodies += 1
    report = verify_chain(StoredChain(node, genesis), bodies=True)
    return {
        "records": len(records),
        "signatures": len(jobs),
        "bodies": bodies,
        "oldest": report.oldest,
        "newest": report.newest,
        "certified": report.certified,
        "certificates": report.certificates,
    }


def _jobs(record: Record, node: StoppedNode) -> Iterable[EpochJob]:
    """Every signature inside a record."""
    chain_id = node.genesis.chain_id
    match record:
        case Accepted():
            return signatures(record.pre_prepare, chain_id)
        case OwnVotes():
            return signatures(record.vector, chain_id)
        case OwnViewChange():
            return signatures(record.view_change, chain_id)
        case NewViewHeld():
            return signatures(record.new_view, chain_id)
        case Tip() | Anchor():
            return record.certificate.jobs(chain_id)
        case EpochBegun():
            return signatures(record.link, chain_id)
        case Prepared():
            leaf = record.certificate.leaf()
            return [
                *signatures(record.certificate.pre_prepare, chain_id),
                *[(leaf.epoch, *vote.job(chain_id, leaf)) for vote in record.certificate.votes],
            ]
        case PeerStamp():
            stamp = record.stamp
            return [(stamp.epoch, stamp.signer, stamp.signed_bytes(chain_id), stamp.signature)]
        case _:
            return []


def _one(records: Iterable[Record], kind: type, name: str, default: int) -> Any:
    found = [getattr(record, name) for record in records if isinstance(record, kind)]
    return found[0] if found else default


def _usage(found: Usage) -> dict[str, Any]:
    return {
        "size_bytes": found.pages * found.page_bytes,
        "free_bytes": found.free_pages * found.page_bytes,
        "shrinks": found.shrinks,
    }
