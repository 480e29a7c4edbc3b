"""A fake node with a real certificate log: the keys of a made cluster, but no agreement."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from consensus.application import Block
from consensus.core.messages import BlockHeader
from consensus.core.types import NO_DIGEST, Epoch, Height
from native.batches import Batch
from native.keys import SecretKey
from node.cluster.manifest import Cluster
from node.core.genesis import Genesis
from node.runtime.api import LogProof, Refused
from node.tests.fake_node import FakeNode
from trustchain.core.checkpoint import (
    Checkpoint,
    Cosignature,
    cosigned_message,
    cosigner_key_id,
)
from trustchain.runtime.application import LogApplication
from trustchain.runtime.authority import Authority
from trustchain.runtime.intake import refusal, take_submission


@dataclass
class CertifyingNode(FakeNode):
    """Appends every request at once and lets all cosigners sign."""

    genesis: Genesis = field(kw_only=True)
    cosigners: list[SecretKey] = field(kw_only=True)
    application: LogApplication = field(kw_only=True)
    authority: Authority = field(kw_only=True)
    height: int = 0

    @staticmethod
    def of(cluster: Cluster) -> CertifyingNode:
        genesis = Genesis.from_json(cluster.genesis.read_text())
        application = LogApplication(genesis.chain_id, genesis.log)
        application.genesis()
        return CertifyingNode(
            genesis=genesis,
            cosigners=[SecretKey.load(member.home.cosigner_key) for member in cluster.members],
            application=application,
            authority=Authority.load(cluster.members[0].home.issuing_key, application),
        )

    async def issue_certificate(self, submission: bytes) -> str:
        operation = take_submission(submission, chain_id=self.genesis.chain_id)
        self.height += 1
        header = BlockHeader(
            chain_id=self.genesis.chain_id,
            height=Height(self.height),
            epoch=Epoch(0),
            parent=NO_DIGEST,
            batch=NO_DIGEST,
            time_ms=int(time.time() * 1000),
            state_root=NO_DIGEST,
        )
        block = Block(header=header, batch=Batch.of([operation.encode()]))
        [code] = self.application.execute(block, [0]).codes
        if code:
            error = refusal(code)
            raise Refused(str(error), hint=error.hint, code=error.code)
        index = self.application.entry_of_request(operation.request_id).index
        return self.authority.bundle(index, self.head()).encode()

    async def epoch_links(self, first: int, count_max: int) -> tuple[int, tuple[bytes, ...]]:
        del first, count_max
        return 0, ()

    async def certificate(self, index: int) -> str | None:
        if index >= self.application.size:
            return None
        return self.authority.bundle(index, self.head()).encode()

    async def log_checkpoint(self) -> str:
        return self.head().encode()

    async def log_inclusion(self, index: int, size: int | None) -> LogProof:
        size = size or self.application.size
        return LogProof(
            first=index,
            size=size,
            hashes=tuple(self.application.inclusion_proof(index, size)),
            leaf_hash=self.leaf(index),
            checkpoint=self.head().encode(),
        )

    async def log_consistency(self, old: int, new: int | None) -> LogProof:
        new = new or self.application.size
        return LogProof(
            first=old,
            size=new,
            hashes=tuple(self.application.consistency_proof(old, new)),
            leaf_hash=None,
            checkpoint=self.head().encode(),
        )

    def leaf(self, index: int) -> bytes:
        from native.hashing import leaf_hash

        return bytes(leaf_hash(self.application.entry(index).entry))

    def head(self) -> Checkpoint:
        """The newest checkpoint, signed by everybody."""
        log = self.genesis.log
        size, root = self.application.size, bytes(self.application.root())
        now_s = int(time.time())
        lines = [
            Cosignature(
                name=name,
                key_id=cosigner_key_id(name, key.public.raw),
                timestamp_s=now_s,
                signature=bytes(
                    key.sign(
                        cosigned_message(
                            name=name, timestamp_s=now_s, origin=log.origin, end=size, root=root
                        )
                    )
                ),
            )
            for name, key in zip(log.cosigner_names, self.cosigners, strict=True)
        ]
        return Checkpoint(origin=log.origin, size=size, root=root, cosignatures=tuple(lines))
