"""The chain as an auditor sees it: checked from genesis, trusting no node.

Two sources give the same runs of headers and bodies: a running node over HTTP, and the files of a
stopped one. Proof files are JSON around the canonical bytes that a light client checks; they need
genesis.json and nothing else.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Protocol

from consensus.core import wire
from consensus.core.light import HeaderProof, Lineage, TrustedBlock, decode_header_proof
from consensus.core.messages import EMPTY_ROOT, BatchHeader
from consensus.core.records import Anchor, EpochBegun, Tip
from consensus.core.serving import blocks_from
from consensus.core.types import Height
from consensus.errors import MalformedMessage, ProofInvalid
from consensus.limits import HEADERS_PER_REPLY_MAX, LINKS_MAX, MESSAGE_BYTES_MAX
from native.batches import Batch
from native.codec import decode, encode
from native.errors import NativeError
from native.hashing import leaf_hash, verify_inclusion
from native.values import Digest
from node.errors import ChainInvalid, OperationRefused, ProofFileInvalid
from node.inputs import parse_json
from node.limits import PROOF_FILE_SIZE_BYTES_MAX
from node.runtime.membership import genesis_set
from node.runtime.router import state_root

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from consensus.core.messages import BlockCertificate, BlockHeader
    from consensus.core.wire import Bounds
    from node.client import NodeClient
    from node.core.genesis import Genesis
    from node.stopped import StoppedNode

PROOF_FORMAT: Final = "hypermesh-proof-1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """Headers up to a certified one, with the batch headers they name."""

    proof: HeaderProof
    batches: tuple[BatchHeader, ...]


class ChainSource(Protocol):
    """Where a chain is read from. Nothing it says is believed."""

    @property
    def lineage(self) -> Lineage:
        """The validator sets that its links prove from genesis."""
        ...

    @property
    def oldest(self) -> int:
        """The lowest block it has."""
        ...

    @property
    def newest(self) -> int:
        """The highest block it has."""
        ...

    def run(self, first: int) -> Run | None:
        """Headers from `first` to the next certified one; None when there is none."""
        ...

    def body(self, height: int, root: Digest) -> bytes | None:
        """The body of a block."""
        ...

    def state_root(self, height: int) -> Digest | None:
        """The state root it has stored for a block, if it can say."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ChainReport:
    """What was checked. Blocks above `certified` have no certificate yet."""

    oldest: int
    certified: int
    newest: int
    certificates: int
    bodies: int
    payloads: int


def lineage_of(genesis: Genesis) -> Lineage:
    """What a genesis proves by itself: who votes in epoch 0."""
    return Lineage.at_genesis(genesis.chain_id, genesis_set(genesis))


def verify_chain(
    source: ChainSource,
    *,
    bodies: bool = True,
    progress: Callable[[int, int], None] = lambda _at, _end: None,
) -> ChainReport:
    """Check every block a source has; raises `ChainInvalid` at the first that does not hold.

    The sets of all epochs are proven from genesis by their links, before and after pruned blocks.
    Headers chain from the oldest block (from genesis where nothing was pruned) to the newest
    certificate, every certificate holds, batch headers and bodies match what the headers name.
    """
    oldest, newest = source.oldest, source.newest
    parent: BlockHeader | None = None
    first, certificates, checked, payloads = oldest, 0, 0, 0
    while first <= newest:
        run = source.run(first)
        if run is None:
            break
        headers = run.proof.headers
        try:
            source.lineage.verify_header(run.proof)
        except ProofInvalid as error:
            raise ChainInvalid(
                f"blocks {first} to {headers[-1].height}: {error}",
                hint="restore this node's data from its peers; the other nodes decide what is true",
            ) from error
        _require(headers[0].height == first, first, "another height was given")
        genesis = source.lineage.newest.chain_id
        expected = genesis if first == 1 else None if parent is None else parent.hash
        _require(
            expected is None or headers[0].parent == expected,
            first,
            "it does not follow the block before",
        )
        _require(len(run.batches) == len(headers), first, "batch headers are missing")
        for at, (header, batch) in enumerate(zip(headers, run.batches, strict=True)):
            height = int(header.height)
            _require(header.batch == batch.digest, height, "its batch is another one")
            _require(batch.sequence == height, height, "its batch is of another place")
            after = (
                headers[at + 1].state_root
                if at + 1 < len(headers)
                else run.proof.certificate.checkpoint.state_root
            )
            stored = source.state_root(height)
            _require(stored in (None, after), height, "the stored state root is another one")
            if bodies:
                payloads += _check_body(source, height, batch.payload_root)
                checked += 1
        certificates += 1
        parent = headers[-1]
        first = int(parent.height) + 1
        progress(first - 1, newest)
    return ChainReport(
        oldest=oldest,
        certified=first - 1,
        newest=newest,
        certificates=certificates,
        bodies=checked,
        payloads=payloads,
    )


def _check_body(source: ChainSource, height: int, root: Digest) -> int:
    if root == EMPTY_ROOT:
        return 0
    body = source.body(height, root)
    if body is None:
        raise ChainInvalid(
            f"block {height}: its body is missing",
            hint="the node fetches it again from its peers when its data is rebuilt",
        )
    try:
        batch = Batch.parse(body)
    except NativeError as error:
        raise ChainInvalid(
            f"block {height}: its body is damaged ({error})", hint="restore this node's data"
        ) from None
    _require(batch.root == root, height, "its body is another one than was agreed")
    return len(batch)


def _require(condition: bool, height: int, problem: str) -> None:
    if not condition:
        raise ChainInvalid(f"block {height}: {problem}", hint="restore this node's data")


def require_proven(document: Mapping[str, Any], source: ChainSource) -> None:
    """The set that a node shows is the one its links prove; else `ChainInvalid`."""
    clients, epoch = source.lineage.clients, int(document["epoch"])
    known = clients[epoch].validators if 0 <= epoch < len(clients) else None
    shown = [(member["name"], member["node_id"]) for member in document["members"]]
    if known is None or shown != [(one.name, one.node_id.hex()) for one in known.members]:
        raise ChainInvalid(
            f"the validators of epoch {epoch} are not those that the chain proves",
            hint="check that genesis.json is the one of this chain; ask another node",
        )


class ServedChain:
    """A running node. Epochs that begin while it is read are followed."""

    def __init__(self, client: NodeClient, genesis: Lineage) -> None:
        """Raises `ChainInvalid` if the node's links do not lead from genesis to its epoch."""
        self._client = client
        self._lineage = genesis
        status, _ = client.status()
        self._oldest, self._newest = status.height_oldest, status.height
        self._follow()

    @property
    def lineage(self) -> Lineage:
        """See `ChainSource`."""
        return self._lineage

    def _follow(self) -> None:
        while True:
            document = self._client.epoch_links(len(self._lineage.clients))
            try:
                rows = [base64.b64decode(text) for text in document["links"]]
                self._lineage = self._lineage.decoded(rows)
            except (KeyError, TypeError, ValueError, ProofInvalid) as error:
                raise ChainInvalid(
                    f"the validator sets cannot be followed from genesis: {error}",
                    hint="check that genesis.json is the one of this chain; ask another node",
                ) from None
            if not rows:
                return

    @property
    def oldest(self) -> int:
        """See `ChainSource`."""
        return self._oldest

    @property
    def newest(self) -> int:
        """See `ChainSource`."""
        return self._newest

    def run(self, first: int) -> Run | None:
        """See `ChainSource`."""
        try:
            document = self._client.headers(first)
        except OperationRefused as error:
            if error.status == 404:
                return None
            raise
        try:
            data = base64.b64decode(document["proof"])
            try:
                proof = decode_header_proof(data, self._lineage.bounds)
            except ProofInvalid:  # perhaps of an epoch that has begun since
                self._follow()
                proof = decode_header_proof(data, self._lineage.bounds)
            bounds = self._lineage.bounds
            batches = [_batch(base64.b64decode(text), bounds) for text in document["batches"]]
        except (KeyError, TypeError, ValueError, MalformedMessage, ProofInvalid) as error:
            raise ChainInvalid(
                f"blocks from {first}: the node answers what is no chain ({error})",
                hint="ask another node",
            ) from None
        return Run(proof=proof, batches=tuple(batches))

    def body(self, height: int, root: Digest) -> bytes | None:
        """See `ChainSource`."""
        del root
        try:
            return self._client.body(height)
        except OperationRefused as error:
            if error.status == 404:
                return None
            raise

    def state_root(self, height: int) -> Digest | None:
        """A run already names the roots; a second word of the same node proves nothing."""
        del height
        return None


class StoredChain:
    """The files of a stopped node."""

    def __init__(self, node: StoppedNode, genesis: Lineage) -> None:
        """Raises `ChainInvalid` if the records do not lead from genesis to the newest epoch."""
        self._state = node.state
        self._store = node.store
        records = node.records()
        links = [record.link for record in records if isinstance(record, EpochBegun)]
        try:
            self._lineage = genesis.followed(sorted(links, key=lambda link: link.epoch))
        except ProofInvalid as error:
            raise ChainInvalid(
                f"the validator sets cannot be followed from genesis: {error}",
                hint="check that genesis.json is the one of this chain",
            ) from None
        self._bounds = self._lineage.bounds
        self._certificates = sorted(
            [
                *[record.certificate for record in records if isinstance(record, Anchor | Tip)],
                *[link.certificate for link in links],
            ],
            key=lambda certificate: certificate.height,
        )

    @property
    def lineage(self) -> Lineage:
        """See `ChainSource`."""
        return self._lineage

    @property
    def oldest(self) -> int:
        """See `ChainSource`."""
        return self._state.oldest

    @property
    def newest(self) -> int:
        """See `ChainSource`."""
        return self._state.height

    def run(self, first: int) -> Run | None:
        """See `ChainSource`."""
        pairs = self._state.headers(first, first + HEADERS_PER_REPLY_MAX - 1)

        def load(height: Height) -> tuple[BlockHeader, BatchHeader] | None:
            if not 0 <= height - first < len(pairs):
                return None
            header, batch = pairs[height - first]
            value = wire.decode_value(header, MESSAGE_BYTES_MAX)
            return wire.block_header(value, self._bounds), _batch(batch, self._bounds)

        try:
            blocks = blocks_from(
                Height(first),
                executed=Height(first + len(pairs) - 1),
                certificates=self._certificates,
                load=load,
            )
        except MalformedMessage as error:
            raise ChainInvalid(
                f"blocks from {first}: a header is damaged ({error})",
                hint="move state.db away and start the node: blocks are executed again",
            ) from None
        if blocks is None:
            return None
        proof = HeaderProof(headers=blocks.headers, certificate=blocks.certificate)
        return Run(proof=proof, batches=blocks.batches)

    def body(self, height: int, root: Digest) -> bytes | None:
        """See `ChainSource`."""
        return self._store.body_now(height, root)

    def state_root(self, height: int) -> Digest | None:
        """See `ChainSource`."""
        block = self._state.block(height)
        return None if block is None else Digest(block.state_root)


def _batch(data: bytes, bounds: Bounds) -> BatchHeader:
    return wire.batch_header(wire.decode_value(data, MESSAGE_BYTES_MAX), bounds)


# --- proof files


@dataclass(frozen=True, slots=True, kw_only=True)
class Proved:
    """What a proof file shows, in words and in data."""

    what: str
    block: TrustedBlock | None
    data: dict[str, Any]


def with_links(document: dict[str, Any], lineage: Lineage) -> dict[str, Any]:
    """The same proof file with the links to the epoch of its certificate, and no more of them."""
    try:
        if document["kind"] == "account":
            certificate = _certificate(document, lineage)
        else:
            proof = decode_header_proof(_bytes(document, "proof"), lineage.bounds)
            certificate = proof.certificate
    except (KeyError, ValueError, MalformedMessage, ProofInvalid) as error:
        raise ProofFileInvalid(
            f"the node answers what is no proof: {error}", hint="ask another node"
        ) from error
    links = lineage.through(int(certificate.checkpoint.epoch)).links
    rows = [base64.b64encode(encode(link.value())).decode() for link in links]
    return document | {"links": rows}


def header_proof_file(document: Mapping[str, Any]) -> dict[str, Any]:
    """A proof file of a block, of what `/api/v1/headers` answered."""
    return {"format": PROOF_FORMAT, "kind": "block", "proof": document["proof"]}


def payload_proof_file(document: Mapping[str, Any]) -> dict[str, Any]:
    """A proof file of a payload, of what its route answered."""
    names = ("id", "height", "position", "size", "payload", "path", "batch", "proof")
    return {"format": PROOF_FORMAT, "kind": "payload"} | {name: document[name] for name in names}


def account_proof_file(document: Mapping[str, Any]) -> dict[str, Any]:
    """A proof file of an account, of what its route answered with `prove`."""
    names = ("address", "proof", "certificate")
    return {"format": PROOF_FORMAT, "kind": "account"} | {name: document[name] for name in names}


def verify_proof_file(text: str, genesis: Genesis) -> Proved:
    """Check a proof file against a genesis, offline; raises `ProofFileInvalid`."""
    try:
        document = parse_json(text) if len(text) <= PROOF_FILE_SIZE_BYTES_MAX else None
        if not isinstance(document, dict) or document.get("format") != PROOF_FORMAT:
            raise ProofInvalid(f"not a file of the format {PROOF_FORMAT}")
        check = {"block": _block, "payload": _payload, "account": _account}.get(document["kind"])
        if check is None:
            raise ProofInvalid(f"nothing is known of a proof of {document['kind']!r}")
        links = document.get("links", [])
        if not isinstance(links, list) or len(links) > LINKS_MAX:
            raise ProofInvalid("no list of links")
        rows = [base64.b64decode(link, validate=True) for link in links]
        return check(document, lineage_of(genesis).decoded(rows))
    except (
        KeyError,
        TypeError,
        ValueError,
        OverflowError,
        MalformedMessage,
        ProofInvalid,
        NativeError,
    ) as error:
        what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
        raise ProofFileInvalid(
            f"the proof does not hold: {what}",
            hint="check that genesis.json is the one of this chain; ask another node for a proof",
        ) from error


def _bytes(document: Mapping[str, Any], name: str) -> bytes:
    return base64.b64decode(document[name], validate=True)


def _block(document: Mapping[str, Any], lineage: Lineage) -> Proved:
    block = lineage.verify_header(decode_header_proof(_bytes(document, "proof"), lineage.bounds))
    header = block.header
    return Proved(
        what=f"block {header.height:,} is agreed",
        block=block,
        data={
            "kind": "block",
            "height": int(header.height),
            "hash": header.hash.hex(),
            "time_ms": header.time_ms,
            "state_root": block.state_root.hex(),
        },
    )


def _payload(document: Mapping[str, Any], lineage: Lineage) -> Proved:
    block = lineage.verify_header(decode_header_proof(_bytes(document, "proof"), lineage.bounds))
    batch = _batch(_bytes(document, "batch"), lineage.bounds)
    if batch.digest != block.header.batch:
        raise ProofInvalid("the batch is not the one of the block")
    payload, position, size = _bytes(document, "payload"), document["position"], document["size"]
    verify_inclusion(
        leaf_hash(payload),
        position,
        size,
        [bytes.fromhex(step) for step in document["path"]],
        batch.payload_root,
    )
    data = {
        "kind": "payload",
        "height": int(block.header.height),
        "position": position,
        "time_ms": block.header.time_ms,
        "payload": payload.hex(),
    }
    return Proved(
        what=f"the payload was ordered at place {position} of block {block.header.height:,} "
        "(its outcome is not part of the proof)",
        block=block,
        data=data | _transaction(payload, document["id"]),
    )


def _transaction(payload: bytes, identifier: str) -> dict[str, Any]:
    """What a ledger transaction says; its id must be the one the file names."""
    from caesar.core.transactions import TAG, decode_transaction
    from caesar.errors import TransactionMalformed

    if payload[:1] != bytes([TAG]):
        return {}
    try:
        transaction = decode_transaction(payload).transaction
    except TransactionMalformed as error:
        raise ProofInvalid(str(error)) from None
    if transaction.id.hex() != identifier:
        raise ProofInvalid("the transaction has another id than the file says")
    return {"id": identifier}


def _certificate(document: Mapping[str, Any], lineage: Lineage) -> BlockCertificate:
    value = wire.decode_value(_bytes(document, "certificate"), MESSAGE_BYTES_MAX)
    return wire.block_certificate(value, lineage.bounds)


def _account(document: Mapping[str, Any], lineage: Lineage) -> Proved:
    from caesar.core.addresses import parse_address
    from caesar.core.proofs import verify_account_proof
    from caesar.core.transactions import TAG
    from caesar.errors import CaesarError
    from node.amounts import amount_text

    certificate = _certificate(document, lineage)
    lineage.verify_certificate(certificate)
    match decode(_bytes(document, "proof"), size_max=MESSAGE_BYTES_MAX):
        case (bytes(proof), tuple(roots)):
            pass
        case _:
            raise ProofInvalid("an account proof of an unknown form")
    pairs = [
        (wire.number(tag), wire.digest(root))
        for tag, root in (wire.fields(entry, 2) for entry in roots)
    ]
    if state_root(pairs) != certificate.checkpoint.state_root:
        raise ProofInvalid("the application roots are not those that were certified")
    try:
        found = verify_account_proof(
            proof,
            address=parse_address(str(document["address"])),
            application_root=dict(pairs)[TAG],
        )
    except CaesarError as error:
        raise ProofInvalid(str(error)) from None
    state, height = found.state, int(certificate.height)
    holds = f"holds {amount_text(int(state.balance))} CAES" if state.exists else "does not exist"
    return Proved(
        what=f"{document['address']} {holds} after block {height:,}",
        block=None,
        data={
            "kind": "account",
            "address": document["address"],
            "exists": state.exists,
            "balance": str(int(state.balance)),
            "height": height,
            "state_root": certificate.checkpoint.state_root.hex(),
        },
    )
