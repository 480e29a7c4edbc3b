"""Sends what a turn of trio's loop has queued, before the loop waits for more.

An instrument rather than a task: it runs in the turn that queued, not in the next one, so that a
call costs a turn less on each side, and what all tasks of a turn wrote shares packets.
"""

import trio

from transport.core.engine import Engine


class Flusher(trio.abc.Instrument):
    """Of one endpoint."""

    def __init__(self) -> None:
        self.wanted = False
        self._engine: Engine | None = None
        self._failure: BaseException | None = None

    def start(self, engine: Engine) -> None:
        """Flush this engine from now on; called inside of trio."""
        self._engine = engine
        trio.lowlevel.add_instrument(self)

    def stop(self) -> None:
        """Flush no more."""
        if self._engine is not None:
            self._engine = None
            trio.lowlevel.remove_instrument(self)

    def check(self) -> None:
        """Raise what went wrong: trio itself would only log it and go on without us."""
        if self._failure is not None:
            raise self._failure

    def before_io_wait(self, _timeout: float) -> None:
        """Called by trio when the tasks that were ready have run."""
        engine = self._engine
        if not self.wanted or engine is None:
            return
        self.wanted = False
        try:
            engine.flush()
            if engine.timeout() is not None:
                engine.kick()  # the pump has to look when to wake
        except BaseException as error:
            self._failure = error
            engine.kick()
