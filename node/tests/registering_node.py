"""A fake node with a real validator registry: the keys of a made cluster, but no agreement."""

from __future__ import annotations

from dataclasses import dataclass, field

from caesar.core.validators import Verdict
from caesar.runtime.validators import ValidatorsApplication
from consensus.application import Block, Executed
from consensus.core.messages import BlockHeader
from consensus.core.types import NO_DIGEST, Epoch, Height
from consensus.core.validators import Validator
from native.batches import Batch
from node.cluster.manifest import Cluster
from node.core.genesis import Genesis
from node.logkeys import voucher
from node.runtime.api import BlockView, CodeText, Outcome, Submission, ValidatorsView
from node.runtime.service import validators_view
from node.tests.fake_node import FakeNode


@dataclass
class RegisteringNode(FakeNode):
    """Executes every submission at once, in a block of its own."""

    genesis: Genesis = field(kw_only=True)
    application: ValidatorsApplication = field(kw_only=True)
    executed: list[Block] = field(default_factory=list)
    epoch: int = 0

    @staticmethod
    def of(cluster: Cluster) -> RegisteringNode:
        genesis = Genesis.from_json(cluster.genesis.read_text())
        application = ValidatorsApplication(
            genesis.chain_id,
            [Validator(name=entry.name, key=entry.key) for entry in genesis.validators],
            vouch=voucher(genesis),
        )
        application.genesis()
        node = RegisteringNode(genesis=genesis, application=application)
        node.execute([])
        return node

    def execute(self, payloads: list[bytes]) -> Executed:
        """Execute the next block."""
        header = BlockHeader(
            chain_id=self.genesis.chain_id,
            height=Height(len(self.executed) + 1),
            epoch=Epoch(self.epoch),
            parent=NO_DIGEST,
            batch=NO_DIGEST,
            time_ms=len(self.executed),
            state_root=NO_DIGEST,
        )
        self.executed.append(Block(header=header, batch=Batch.of(payloads)))
        return self.application.execute(self.executed[-1], range(len(payloads)))

    def settle(self) -> None:
        """Let the pending set vote."""
        for _ in range(64):
            self.execute([])
        self.epoch += 1
        self.execute([])

    def explain_code(self, tag: int, code: int) -> CodeText:
        assert tag == self.application.tag
        verdict = Verdict(code)
        return CodeText(code=verdict.code, title=verdict.text, next_step=verdict.hint)

    async def submit(self, batch: Batch, *, wait: bool, timeout_s: float) -> Submission:
        del timeout_s
        if self.outcome is Outcome.PENDING or not wait:
            return Submission(
                ids=bytes(32), outcomes=bytes([Outcome.PENDING]), codes=b"\0", heights=(0,)
            )
        done = self.execute([batch.payload(at) for at in range(len(batch))])
        return Submission(
            ids=done.ids,
            outcomes=bytes(Outcome.REFUSED if code else Outcome.APPLIED for code in done.codes),
            codes=done.codes,
            heights=tuple(len(self.executed) for _ in done.codes),
        )

    async def validators(self) -> ValidatorsView:
        return validators_view(self.application.registry, self.genesis.label, self.genesis.chain_id)

    async def block(self, height: int | None) -> BlockView | None:
        header = self.executed[-1 if height is None else height - 1].header
        return BlockView(
            height=int(header.height),
            hash=header.hash,
            parent=header.parent,
            batch_digest=header.batch,
            time_ms=header.time_ms,
            state_root_before=header.state_root,
            state_root=bytes(32),
            payloads=0,
            size_bytes=0,
        )
