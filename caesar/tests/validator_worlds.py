"""A registry to drive by hand: named nodes with keys, blocks, approvals, lies."""

from collections.abc import Iterable, Sequence
from functools import cache

from caesar.core.changes import (
    Accusation,
    Approval,
    Change,
    JoinProof,
    SignedChange,
    join_bytes,
)
from caesar.core.validators import Registry, Verdict, Vouch, nobody_vouches
from caesar.runtime.validators import ValidatorsApplication
from caesar.tests.worlds import CHAIN
from consensus.application import Block, Executed
from consensus.core import evidence
from consensus.core.evidence import Contradiction, Offence
from consensus.core.messages import BlockHeader, Commit, SignedKind, VoteVector
from consensus.core.types import NO_DIGEST, Epoch, Height, Number, ReplicaIndex, View
from consensus.core.types import Sequence as Place
from consensus.core.validators import Validator
from native.batches import Batch
from native.keys import SecretKey
from native.values import Algorithm, Digest, NodeId, Signature

NAME_OF: dict[NodeId, str] = {}


@cache
def key(name: str) -> SecretKey:
    """A key per name, made once a test run."""
    made = SecretKey.generate(Algorithm.FALCON_512)
    NAME_OF[made.node_id] = name
    return made


def node(name: str, key_name: str | None = None) -> Validator:
    """A validator with the key of its name, or of another one."""
    return Validator(name=name, key=key(key_name or name).public)


def nodes(count: int) -> tuple[Validator, ...]:
    """n0, n1, ..."""
    return tuple(node(f"n{at}") for at in range(count))


def lie(
    key_name: str,
    *,
    offence: Offence = Offence.TWO_COMMITS,
    epoch: int = 0,
    place: int = 5,
    second_epoch: int | None = None,
    second_key: str | None = None,
    chain_id: Digest = CHAIN,
    secret: SecretKey | None = None,
) -> Contradiction:
    """Two statements under one key that exclude each other."""
    signers = (secret or key(key_name), secret or key(second_key or key_name))
    if offence is Offence.NUMBER_REUSED:
        epochs = (epoch, epoch if second_epoch is None else second_epoch)
        one, other = (
            evidence.Numbered(
                kind=SignedKind.VOTES,
                epoch=Epoch(at),
                number=Number(9),
                digest=Digest(bytes([index]) * 32),
                signature=Signature(b"none"),
            )
            for index, at in enumerate(epochs)
        )
        return evidence.contradiction(
            *(
                evidence.Numbered(
                    kind=said.kind,
                    epoch=said.epoch,
                    number=said.number,
                    digest=said.digest,
                    signature=signer.sign(said.signed_bytes(chain_id)),
                )
                for said, signer in zip((one, other), signers, strict=True)
            )
        )
    assert offence is Offence.TWO_COMMITS
    said = []
    for index, signer in enumerate(signers):
        vector = VoteVector(
            epoch=Epoch(epoch),
            signer=ReplicaIndex(0),
            number=Number(10 + index),
            leaves=(
                Commit(
                    epoch=Epoch(epoch),
                    view=View(0),
                    sequence=Place(place),
                    digest=Digest(bytes([index + 1]) * 32),
                ),
            ),
        )
        signed = vector.signed(signer.sign(vector.signed_bytes(chain_id)))
        said.append(evidence.of_vote(signed, 0))
    return evidence.contradiction(*said)


class RegistryWorld:
    """The application, and what consensus does with the sets it returns."""

    def __init__(
        self,
        members: Sequence[Validator],
        *,
        obeyed: bool = True,
        vouch: Vouch = nobody_vouches,
    ) -> None:
        self.members = tuple(members)
        self.application = ValidatorsApplication(CHAIN, self.members, vouch=vouch)
        self.application.genesis()
        self.obeyed = obeyed
        self.height = 0
        self.epoch = 0
        self.switch_after: int | None = None
        self.blocks: list[Block] = []
        self.executed: list[Executed] = []

    @property
    def registry(self) -> Registry:
        return self.application.registry

    def execute(self, *payloads: bytes) -> Executed:
        """Execute the next block, in the epoch consensus would give it."""
        if self.switch_after is not None and self.height == self.switch_after:
            self.epoch += 1
            self.switch_after = None
        self.height += 1
        header = BlockHeader(
            chain_id=CHAIN,
            height=Height(self.height),
            epoch=Epoch(self.epoch),
            parent=self.blocks[-1].header.hash if self.blocks else CHAIN,
            batch=NO_DIGEST,
            time_ms=self.height,
            state_root=NO_DIGEST,
        )
        block = Block(header=header, batch=Batch.of(payloads))
        done = self.application.execute(block, range(len(payloads)))
        self.blocks.append(block)
        self.executed.append(done)
        if done.next_validators is not None and self.obeyed:
            self.switch_after = self.height + 64
        return done

    def verdicts(self, *payloads: bytes) -> list[Verdict]:
        return [Verdict(code) for code in self.execute(*payloads).codes]

    def verdict(self, payload: bytes) -> Verdict:
        """Advice and outcome of one payload; they agree while nothing else is in the block."""
        (advice,) = self.application.check(Batch.of([payload]), [0]).codes
        (found,) = self.verdicts(payload)
        assert advice == found
        return found

    def skip(self, blocks: int) -> None:
        for _ in range(blocks):
            self.execute()

    def settle(self) -> None:
        """Run until the pending set votes."""
        self.skip(65)
        assert self.registry.pending is None

    def change(
        self,
        *,
        removes: Iterable[str] = (),
        adds: Iterable[Validator] = (),
        rotations: Iterable[Validator] = (),
        valid_until: int = 100_000,
    ) -> Change:
        """A change of the present set."""
        present = self.registry.present
        return Change(
            chain_id=CHAIN,
            base_epoch=present.epoch,
            base_set=present.hash,
            valid_until=valid_until,
            removes=tuple(removes),
            adds=tuple(adds),
            rotations=tuple(rotations),
        )

    def approvals(
        self, change: Change, signers: Iterable[str] | None = None
    ) -> tuple[Approval, ...]:
        """Approvals of these members, of a quorum by default."""
        members = self.registry.present.members
        chosen = [entry.name for entry in members][: self.registry.quorum]
        names = set(chosen if signers is None else signers)
        return tuple(
            Approval(index=index, signature=key(NAME_OF[entry.node_id]).sign(change.signed_bytes))
            for index, entry in enumerate(members)
            if entry.name in names
        )

    def proof(self, change: Change, joiner: Validator, *, back: int = 0) -> JoinProof:
        """The joiner has seen the block this far back."""
        header = self.blocks[-1 - back].header
        height = int(header.height)
        message = join_bytes(change, joiner.node_id, height, header.hash)
        signature = key(NAME_OF[joiner.node_id]).sign(message)
        return JoinProof(height=height, header_hash=header.hash, signature=signature)

    def sign(self, change: Change, signers: Iterable[str] | None = None, *, back: int = 0) -> bytes:
        """A payload that should be applied."""
        return SignedChange(
            change=change,
            approvals=self.approvals(change, signers),
            proofs=tuple(self.proof(change, joiner, back=back) for joiner in change.joiners),
        ).encode()

    def accuse(self, key_name: str, proof: Contradiction | None = None) -> bytes:
        """Evidence against the holder of a key."""
        return Accusation(
            chain_id=CHAIN,
            offender=key(key_name).node_id,
            proof=lie(key_name, epoch=self.epoch, place=max(1, self.height))
            if proof is None
            else proof,
        ).encode()
