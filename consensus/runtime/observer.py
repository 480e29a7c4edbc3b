"""What the driver tells whoever counts: the node's metrics, or nobody."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from consensus.core.effects import Fault


class Observer(Protocol):
    """Called on the loop; must neither wait nor raise."""

    def signed(self, seconds: float) -> None:
        """One signature was made, on average in this time."""
        ...

    def verified(self, seconds: float) -> None:
        """One signature was checked, on average in this time."""
        ...

    def committed(self, seconds: float) -> None:
        """`consensus.db` made a tick durable."""
        ...

    def phase(self, name: str, seconds: float) -> None:
        """A phase of a block took this long: prepare, commit, certify."""
        ...

    def agreed(self, payloads: int, size_bytes: int, seconds: float | None) -> None:
        """A block was executed; `seconds` since this node first saw its proposal, if it did."""
        ...

    def view_changed(self) -> None:
        """A new view was entered."""
        ...

    def misbehaved(self, fault: Fault) -> None:
        """A peer did what an honest one never does."""
        ...
