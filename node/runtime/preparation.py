"""Checks the signatures of batches on a thread, between their proposal and their execution.

The loop must not stand still for a batch of 500 signatures while votes wait to be counted. What was
found good is remembered by the applications, so execution finds it done. A batch whose turn to
execute comes first is left to the execution itself: nothing is checked twice.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import TYPE_CHECKING, Final

from consensus.limits import IN_FLIGHT_BLOCKS_MAX

if TYPE_CHECKING:
    from consensus.runtime.driver import Admission
    from native.batches import Batch
    from native.values import Digest

INLINE_PAYLOADS_MAX: Final = 8  # so few are checked by the execution: a hand-over costs more
OPEN_BATCHES_MAX: Final = 2 * IN_FLIGHT_BLOCKS_MAX  # more are a liar's; execution checks them


@dataclass(slots=True, kw_only=True, eq=False)
class _Job:
    """One batch. Whoever gets `claim` does the work."""

    batch: Batch
    claim: threading.Lock = field(default_factory=threading.Lock)
    done: threading.Event = field(default_factory=threading.Event)
    error: BaseException | None = None


class Preparation:
    """`prepare` on the loop, `settle` on the executor thread."""

    def __init__(self, admission: Admission) -> None:
        """`admission` is thread safe and remembers what it found good."""
        self._admission = admission
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._open: dict[Digest, _Job] = {}
        self._thread = threading.Thread(target=self._run, name="preparation", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def prepare(self, batch: Batch) -> None:
        """Check a batch soon."""
        if len(batch) <= INLINE_PAYLOADS_MAX or batch.root in self._open:
            return
        if len(self._open) >= OPEN_BATCHES_MAX:
            return
        job = _Job(batch=batch)
        self._open[batch.root] = job
        self._jobs.put(job)

    def well_formed(self, batch: Batch) -> bytes:
        """See `Admission`; at once."""
        return self._admission.well_formed(batch)

    def settle(self, batch: Batch) -> None:
        """Before a batch executes: wait for a check that runs, take over one that does not.

        Raises what the check raised.
        """
        job = self._open.get(batch.root)
        if job is None or job.claim.acquire(blocking=False):
            return
        job.done.wait()
        if job.error is not None:
            raise job.error

    def stop(self) -> None:
        """Finish the batch at hand, forget the others and join the thread."""
        for job in tuple(self._open.values()):
            job.claim.acquire(blocking=False)
        self._jobs.put(None)
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            if job.claim.acquire(blocking=False):
                try:
                    self._admission.prepare(job.batch)
                except BaseException as error:
                    job.error = error
                job.done.set()
            if job.error is None:
                self._open.pop(job.batch.root, None)
