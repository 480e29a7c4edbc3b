"""Which cosigners speak for which trees of the log, proven from genesis: the client's side.

A node gives the links of the epochs, whose certified sets name the cosigner keys, and what shows
where the log stood when each epoch ended. Nothing of it is believed: the links are checked as a
light client does, the ends against a state that a quorum certified. Everything together is one
file, so that a certificate can be verified later with no network.

It is not protected against a node that withholds the newest epochs: who needs to know that the last
cosigners still are asks several nodes.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

from consensus.core import wire
from consensus.core.light import Lineage
from consensus.errors import MalformedMessage, ProofInvalid, SnapshotInvalid
from consensus.limits import LINKS_MAX, MESSAGE_BYTES_MAX
from native.codec import decode
from native.errors import NativeError
from native.errors import ProofInvalid as NativeProofInvalid
from native.hashing import verify_consistency
from native.values import Digest
from node.chain import PROOF_FORMAT, lineage_of
from node.core.rosters import succession_of
from node.errors import LogInvalid, ProofFileInvalid
from node.inputs import parse_json
from node.limits import PROOF_FILE_SIZE_BYTES_MAX
from node.runtime.router import state_root
from trustchain.core.epoch_end import EpochEnd
from trustchain.core.requests import PAYLOAD_TAG
from trustchain.core.roster import Ended, Succession
from trustchain.core.snapshot import Opening
from trustchain.errors import QuorumMissing, TrustChainError
from trustchain.runtime.verify import verify_checkpoint

if TYPE_CHECKING:
    from consensus.core.messages import EpochLink
    from node.client import NodeClient
    from node.core.genesis import Genesis
    from trustchain.core.checkpoint import Checkpoint

KIND: Final = "cosigners"
ATTEMPTS_MAX: Final = 3  # epochs are at least 64 blocks long: a second state is new enough
NAMES: Final = ("height", "certificate", "state", "ends")
MORE: Final = "more"  # pages after the first, each proven by a state of its own


def fetch(client: NodeClient, genesis: Genesis) -> tuple[dict[str, Any], Succession]:
    """Ask a node, check its answer, and return the file with what it proves.

    Raises `ProofFileInvalid` for an answer that does not follow from genesis.
    """
    rows = _links(client, [])
    pages: list[dict[str, Any]] = []
    for _ in range(ATTEMPTS_MAX):
        pages = _pages(client, len(rows))
        known, rows = len(rows), _links(client, rows)
        if len(rows) == known and sum(len(page["ends"]) for page in pages) >= known:
            break  # else an epoch began meanwhile, and only states of the newest one count
    nothing: dict[str, Any] = {"height": 0, "certificate": None, "state": None, "ends": []}
    first, *more = pages or [nothing]
    document = {"format": PROOF_FORMAT, "kind": KIND, "links": rows, **first}
    if more:
        document[MORE] = more
    return document, _verified(document, genesis)


def check_present(
    client: NodeClient,
    genesis: Genesis,
    document: Mapping[str, Any],
    succession: Succession,
    checkpoint: Checkpoint,
) -> None:
    """Raise `LogInvalid` unless a checkpoint that counts is of the log that validators certified.

    One that the newest set cosigned is believed. After an epoch began a node may still have the one
    of an earlier set, which those who left could make up: it must be a prefix of the certified log
    that `document`, just fetched and checked, ends with.
    """
    if not checkpoint.size or not succession.ends:
        return
    with suppress(QuorumMissing):
        verify_checkpoint(checkpoint, genesis.log, Succession(rosters=(succession.newest,)))
        return
    page = (document, *document.get(MORE, ()))[-1]
    opening = _opening(base64.b64decode(page["state"]))[1]
    try:
        found = client.log_consistency(checkpoint.size, opening.size)
        hashes = tuple(bytes.fromhex(item) for item in found["hashes"])
        verify_consistency(checkpoint.size, opening.size, checkpoint.root, opening.log_root, hashes)
    except (NativeProofInvalid, ValueError, TypeError) as error:
        raise LogInvalid(
            f"only validators that have left cosigned this checkpoint, and it is not of the log "
            f"that was certified since: {error}",
            hint="ask another node; whoever made this checkpoint lies",
        ) from None


def read(text: str, genesis: Genesis) -> Succession:
    """Read a file that `fetch` made, offline; raises `ProofFileInvalid`."""
    try:
        document = parse_json(text) if len(text) <= PROOF_FILE_SIZE_BYTES_MAX else None
    except ValueError:
        document = None
    if not isinstance(document, dict) or (document.get("format"), document.get("kind")) != (
        PROOF_FORMAT,
        KIND,
    ):
        raise ProofFileInvalid(
            "not a file of cosigners", hint="write one with `hypermesh cert cosigners --out FILE`"
        )
    return _verified(document, genesis)


def _links(client: NodeClient, rows: list[str]) -> list[str]:
    """These links and all that follow."""
    while len(rows) < LINKS_MAX and (more := client.epoch_links(len(rows) + 1)["links"]):
        rows = [*rows, *map(str, more)]
    return rows


def _pages(client: NodeClient, epochs: int) -> list[dict[str, Any]]:
    """The ends of so many epochs, or of those that the node's state knows."""
    pages: list[dict[str, Any]] = []
    proven = 0
    while proven < epochs:
        answer = client.log_cosigners(proven)
        page = {name: answer.get(name) for name in NAMES}
        if not isinstance(page["ends"], list) or not page["ends"]:
            break
        pages.append(page)
        proven += len(page["ends"])
    return pages


def _verified(document: Mapping[str, Any], genesis: Genesis) -> Succession:
    try:
        lineage = lineage_of(genesis).decoded(
            [base64.b64decode(row, validate=True) for row in document["links"]]
        )
        ended: list[Ended] = []
        for page in (document, *document.get(MORE, ())):
            ended += _ended(page, lineage, lineage.links[len(ended) :])
        sets = [client.validators for client in lineage.clients]
        return succession_of(genesis, sets, ended)
    except (
        KeyError,
        TypeError,
        ValueError,
        MalformedMessage,
        NativeError,
        ProofInvalid,
        SnapshotInvalid,
        TrustChainError,
    ) as error:
        raise ProofFileInvalid(
            f"the cosigners do not follow from genesis: {error}",
            hint="check that genesis.json is the one of this chain; ask another node",
        ) from error


def _ended(
    page: Mapping[str, Any], lineage: Lineage, links: Sequence[EpochLink]
) -> Iterator[Ended]:
    """Where the log stood when these links began an epoch, from one certified state."""
    ends = [EpochEnd.decode(base64.b64decode(end, validate=True)) for end in page["ends"]]
    if not ends:
        return
    value = wire.decode_value(
        base64.b64decode(page["certificate"], validate=True), MESSAGE_BYTES_MAX
    )
    certificate = wire.block_certificate(value, lineage.bounds)
    lineage.verify_certificate(certificate)
    claim = certificate.checkpoint
    if claim.epoch < len(lineage.links) and claim != lineage.links[-1].certificate.checkpoint:
        # Its quorum has left, or some of it, and could have made up the state since.
        raise ProofInvalid(f"the state at block {claim.height} is of an epoch that is over")
    state = base64.b64decode(page["state"], validate=True)
    roots, opening = _opening(state)
    if state_root(roots.items()) != certificate.checkpoint.state_root:
        raise ProofInvalid("the application roots are not those that were certified")
    if opening.root != roots[PAYLOAD_TAG]:
        raise ProofInvalid("the log is not the one that was certified")
    for link, end in zip(links, ends, strict=False):
        if link.base > certificate.height:
            raise ProofInvalid("an epoch ended after the certified state")
        yield end.verify(opening, int(link.base))


def _opening(state: bytes) -> tuple[dict[int, Digest], Opening]:
    """The application roots of a state by their tags, and what the log's root opens to."""
    match decode(state, size_max=MESSAGE_BYTES_MAX):
        case (tuple(listed), bytes(opened)):
            roots = {
                wire.number(tag): wire.digest(root)
                for tag, root in (wire.fields(entry, 2) for entry in listed)
            }
            return roots, Opening.decode(opened)
    raise ProofInvalid("a state of an unknown form")
