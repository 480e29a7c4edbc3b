"""When one thing may be said again to one peer: ever more rarely, and from the start in a new view.

A peer that does not show that it has read something large is probably still reading it. It knows
nothing of why the thing is said, nor to whom.
"""

from consensus.core.types import View


class Pace:
    """The pauses between repetitions to one peer: each twice the one before, up to a bound."""

    __slots__ = ("at_us", "pause_us", "view")

    def __init__(self) -> None:
        self.view: View | None = None
        self.at_us = 0  # not before this
        self.pause_us = 0  # the last one

    def may_repeat(
        self, view: View, now_us: int, *, first_us: int, longest_us: int, wait_us: int = 0
    ) -> bool:
        """Whether it is time in this view; if so, that is noted. Nothing is before `wait_us`."""
        if self.view != view:
            self.view = view
            self.at_us = now_us + wait_us
            self.pause_us = 0
        if now_us < self.at_us:
            return False
        self.pause_us = min(2 * self.pause_us or first_us, longest_us)
        self.at_us = now_us + self.pause_us
        return True

    def restart(self) -> None:
        """What was said is lost: it may be said at once."""
        self.at_us = 0
        self.pause_us = 0
