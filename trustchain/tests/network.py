"""A cluster of validators without consensus: blocks go to everyone, in order, at once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache, partial

from consensus.application import Block, Executed
from consensus.core.messages import BlockHeader
from consensus.core.types import NO_DIGEST, Epoch, Height
from native.batches import Batch
from native.values import Digest
from trustchain import client
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.requests import Operation
from trustchain.runtime.application import LogApplication
from trustchain.runtime.authority import Authority
from trustchain.runtime.ceremony import Ceremony, hold_ceremony
from trustchain.runtime.cosigner import Cosigner

NOW_S = 1_800_000_000
CHAIN_ID = Digest(bytes(range(32)))
KEY_ALGORITHMS = (KeyAlgorithm.ED25519, KeyAlgorithm.P256, KeyAlgorithm.ML_DSA_65)


def ceremony(validators: int = 4) -> Ceremony:
    """One ceremony a size for all tests: its keys are drawn, its rules are not."""
    return _ceremony(validators)  # a cache tells a default from the same number given


@lru_cache(maxsize=8)
def _ceremony(validators: int) -> Ceremony:
    names = [f"validator-{place}" for place in range(validators)]
    patterns = ("*.mesh", "gateway.example")
    return hold_ceremony(names, trust_domain="demo.mesh", now_s=NOW_S, patterns=patterns)


def block(
    payloads: Sequence[bytes], *, height: int, time_s: int = NOW_S
) -> tuple[Block, list[int]]:
    header = BlockHeader(
        chain_id=CHAIN_ID,
        height=Height(height),
        epoch=Epoch(0),
        parent=NO_DIGEST,
        batch=NO_DIGEST,
        time_ms=time_s * 1_000,
        state_root=NO_DIGEST,
    )
    return Block(header=header, batch=Batch.of(payloads)), list(range(len(payloads)))


class Network:
    """Validators with their applications and cosigners, and one enrolled requester."""

    def __init__(self, validators: int = 4) -> None:
        self.ceremony = ceremony(validators)
        self.genesis = self.ceremony.genesis
        self.enrolment = client.FalconEnrolment(self.ceremony.enrolment)
        self.applications = [LogApplication(CHAIN_ID, self.genesis) for _ in range(validators)]
        self.roots = [application.genesis() for application in self.applications]
        self.silent: set[int] = set()
        self.height = 0
        self.time_s = NOW_S
        self.deltas: list[tuple[Height, bytes]] = []
        self.cosigners = [self.cosigner(place) for place in range(validators)]

    @property
    def application(self) -> LogApplication:
        return self.applications[0]

    def cosigner(self, place: int) -> Cosigner:
        return Cosigner(
            self.applications[place],
            self.ceremony.validators[place].cosigner,
            broadcast=partial(self._broadcast, place),
        )

    def authority(self, place: int = 0) -> Authority:
        return Authority(self.applications[place], self.ceremony.validators[place].issuing)

    def issue(
        self,
        names: Sequence[str],
        key: client.RequesterKey | None = None,
        *,
        request_id: bytes | None = None,
    ) -> Operation:
        """An authorised operation, not yet ordered."""
        request = client.certification_request(
            key or client.generate_key(KeyAlgorithm.ED25519), names
        )
        return client.issue_operation(
            request,
            chain_id=CHAIN_ID,
            enrolment=self.enrolment,
            request_id=request_id or client.new_request_id(),
        )

    def order(self, *operations: Operation | bytes) -> list[int]:
        """Execute one block on every validator and return the codes they agree on."""
        payloads = [
            operation if isinstance(operation, bytes) else operation.encode()
            for operation in operations
        ]
        self.height += 1
        ordered, positions = block(payloads, height=self.height, time_s=self.time_s)
        executed = [application.execute(ordered, positions) for application in self.applications]
        assert all(result == executed[0] for result in executed)
        self.deltas.append((Height(self.height), executed[0].delta))
        self.last: Executed = executed[0]
        return list(executed[0].codes)

    def commit(self) -> None:
        """Say on every validator that all blocks are durable."""
        for place, cosigner in enumerate(self.cosigners):
            if place not in self.silent:
                cosigner.on_block_committed(self.height)

    async def _broadcast(self, sender: int, method: str, body: bytes) -> Iterable[bytes]:
        assert method == "trustchain.cosign"
        answers = []
        for place, cosigner in enumerate(self.cosigners):
            if place != sender and not {place, sender} & self.silent:
                answers.append(await cosigner.on_cosign(bytes(32), body))
        return answers
