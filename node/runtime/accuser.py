"""From a lie that the core saw to evidence in the agreed order.

A proof takes the way of every payload: admission here, custody everywhere, which is how it reaches
the others; no message of its own is needed. One submission at a time, one for each offender and
offence, a bounded number waiting; a proof that could not be ordered is tried again, because the
node that saw the lie may be the only one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import structlog
import trio

from caesar.core.changes import Accusation
from native.batches import Batch
from node.limits import ACCUSATIONS_WAITING_MAX, ACCUSE_INTERVAL_S
from node.runtime.api import APIError, Outcome

if TYPE_CHECKING:
    from caesar.runtime.validators import ValidatorsApplication
    from consensus.core.evidence import Contradiction, Offence
    from native.values import Digest, NodeId
    from node.runtime.submissions import Submissions

SUBMIT_TIMEOUT_S: Final = 30.0

log = structlog.get_logger("node")


class Accuser:
    """Submits what the core proves. Lives on the loop."""

    def __init__(
        self,
        submissions: Submissions,
        registry: ValidatorsApplication,
        *,
        chain_id: Digest,
        node_id_of: Callable[[int, int], NodeId | None],
    ) -> None:
        """`node_id_of` names the validator at an index in an epoch, if it is known."""
        self._submissions = submissions
        self._registry = registry
        self._chain_id = chain_id
        self._node_id_of = node_id_of
        self._waiting: dict[tuple[NodeId, Offence], Accusation] = {}
        self._wake = trio.Event()

    @property
    def waiting(self) -> int:
        """How many proofs are not ordered yet."""
        return len(self._waiting)

    def accuse_nowait(self, peer: int, proof: Contradiction) -> None:
        """Keep a proof to be submitted; drop it if the same was proven, or too many wait."""
        offender = self._node_id_of(peer, int(proof.epochs[0]))
        if offender is None or self._registry.knows(offender, proof.offence):
            return
        key = (offender, proof.offence)
        if key in self._waiting or len(self._waiting) >= ACCUSATIONS_WAITING_MAX:
            return
        self._waiting[key] = Accusation(chain_id=self._chain_id, offender=offender, proof=proof)
        self._wake.set()

    async def run(self) -> None:
        """Submit what is waiting, for ever."""
        while True:
            await self._wake.wait()
            for key, accusation in list(self._waiting.items()):
                if self._registry.knows(*key) or await self._submit(accusation):
                    del self._waiting[key]
                await trio.sleep(ACCUSE_INTERVAL_S)
            if not self._waiting:
                self._wake = trio.Event()

    async def _submit(self, accusation: Accusation) -> bool:
        """Whether nothing is left to do for this proof."""
        try:
            answer = await self._submissions.submit(
                Batch.of([accusation.encode()]), wait=True, timeout_s=SUBMIT_TIMEOUT_S
            )
        except APIError as error:
            log.info("evidence.delayed", reason=str(error))
            return False
        outcome = Outcome(answer.outcomes[0])
        log.warning(
            "evidence.submitted",
            offender=accusation.offender.hex()[:16],
            offence=accusation.proof.offence.text,
            outcome=outcome.name.lower(),
            height=answer.heights[0],
        )
        return outcome is not Outcome.PENDING
