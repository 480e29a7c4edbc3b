"""Well-formed messages of a chain of four, signed with the simulator's hashes."""

from consensus.core.certificates import block_certificate, prepared_certificate
from consensus.core.messages import (
    BatchHeader,
    BlockCertificate,
    BlockHeader,
    Blocks,
    Checkpoint,
    Chunk,
    Commit,
    Equivocation,
    FetchBlocks,
    FetchBodies,
    FetchChunk,
    FetchManifest,
    Leaf,
    Manifest,
    Message,
    NewView,
    Prepare,
    PreparedCertificate,
    PrePrepare,
    RecoveryAnswer,
    Status,
    ViewChange,
    VoteVector,
)
from consensus.core.types import Epoch, Height, Number, Phase, ReplicaIndex, Sequence, View
from consensus.core.wire import Bounds
from consensus.sim.node import sign
from native.values import Digest

CHAIN = Digest(b"c" * 32)
BOUNDS = Bounds(chain_id=CHAIN, members=4)
EPOCH = Epoch(0)


def batch(sequence: int, root: bytes = b"r" * 32) -> BatchHeader:
    return BatchHeader(
        chain_id=CHAIN,
        epoch=EPOCH,
        sequence=Sequence(sequence),
        proposed_ms=1_700_000_000_000,
        payload_root=Digest(root),
    )


def pre_prepare(view: int, sequence: int, root: bytes = b"r" * 32) -> PrePrepare:
    signer = ReplicaIndex(view % 4)
    message = PrePrepare(
        view=View(view), signer=signer, number=Number(sequence), header=batch(sequence, root)
    )
    return message.signed(sign(signer, message.signed_bytes(CHAIN)))


def vector(signer: int, *leaves: Leaf) -> VoteVector:
    message = VoteVector(
        epoch=EPOCH, signer=ReplicaIndex(signer), number=Number(100 + signer), leaves=leaves
    )
    return message.signed(sign(signer, message.signed_bytes(CHAIN)))


def prepare(view: int, sequence: int, root: bytes = b"r" * 32) -> Prepare:
    digest = batch(sequence, root).digest
    return Prepare(epoch=EPOCH, view=View(view), sequence=Sequence(sequence), digest=digest)


def commit(view: int, sequence: int) -> Commit:
    digest = batch(sequence).digest
    return Commit(epoch=EPOCH, view=View(view), sequence=Sequence(sequence), digest=digest)


def prepared(view: int, sequence: int) -> PreparedCertificate:
    signers = [index for index in range(4) if index != view % 4][:2]
    leaf = prepare(view, sequence)
    votes = [(ReplicaIndex(who), vector(who, commit(0, 1), leaf), 1) for who in signers]
    return prepared_certificate(pre_prepare(view, sequence), votes, 2)


def header(height: int, parent: bytes = b"p" * 32) -> BlockHeader:
    return BlockHeader(
        chain_id=CHAIN,
        height=Height(height),
        epoch=EPOCH,
        parent=Digest(parent),
        batch=batch(height).digest,
        time_ms=1_700_000_000_000,
        state_root=Digest(b"s" * 32),
    )


def certificate(height: int, header_hash: bytes | None = None) -> BlockCertificate:
    leaf = Checkpoint(
        epoch=EPOCH,
        height=Height(height),
        header_hash=Digest(header_hash or header(height).hash),
        state_root=Digest(b"t" * 32),
    )
    votes = [
        (ReplicaIndex(who), vector(who, leaf, commit(0, 1), commit(0, 2)), 0) for who in (0, 2, 3)
    ]
    return block_certificate(leaf, votes, 3)


def view_change(view: int, signer: int) -> ViewChange:
    message = ViewChange(
        epoch=EPOCH,
        view=View(view),
        signer=ReplicaIndex(signer),
        number=Number(7),
        certificate=certificate(5),
        prepared=(prepared(0, 6), prepared(0, 8)),
    )
    return message.signed(sign(signer, message.signed_bytes(CHAIN)))


def new_view(view: int) -> NewView:
    signer = ReplicaIndex(view % 4)
    message = NewView(
        epoch=EPOCH,
        view=View(view),
        signer=signer,
        number=Number(9),
        view_changes=tuple(view_change(view, who) for who in (1, 2, 3)),
        proposals=(pre_prepare(view, 6), pre_prepare(view, 7), pre_prepare(view, 8)),
    )
    return message.signed(sign(signer, message.signed_bytes(CHAIN)))


def messages() -> list[Message]:
    """One of each kind."""
    first = header(6)
    second = header(7, first.hash)
    return [
        pre_prepare(0, 1),
        vector(2, prepare(0, 1), commit(0, 1), certificate(4).checkpoint),
        view_change(1, 3),
        new_view(1),
        Status(
            epoch=EPOCH,
            view=View(3),
            in_view_change=True,
            phase=Phase.STARTING,
            boot=2**63,
            echo=0,
            executed=Height(9),
            certificate=certificate(9),
            view_changes_held=5,
            held=pre_prepare(0, 1).stamp(),
            unix_ms=1_700_000_000_000,
        ),
        RecoveryAnswer(
            epoch=EPOCH,
            echo=11,
            executed=Height(9),
            certificate=certificate(9),
            new_view=new_view(1),
            view_changes=(view_change(2, 1), view_change(2, 3)),
        ),
        Equivocation(first=pre_prepare(0, 1), second=pre_prepare(0, 1, b"q" * 32)),
        FetchBlocks(first=Height(3)),
        Blocks(
            headers=(first, second),
            batches=(batch(6), batch(7)),
            certificate=certificate(7, second.hash),
        ),
        FetchBodies(payload_roots=(Digest(b"a" * 32), Digest(b"b" * 32))),
        FetchManifest(above=Height(9)),
        Manifest(
            run=Blocks(
                headers=(first, second),
                batches=(batch(6), batch(7)),
                certificate=certificate(7, second.hash),
            ),
            outline=b"what there is",
        ),
        FetchChunk(snapshot=Digest(b"a" * 32), index=65_535),
        Chunk(snapshot=Digest(b"a" * 32), index=0, data=b"some of it"),
    ]
