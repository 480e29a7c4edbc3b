"""What a planted bug is, and how it gets in and out again."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from inspect import getattr_static

from consensus.sim.scenes.stage import Scene

Replace = Callable[[object, str, object], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Bug:
    """One known bug: how it is planted, and where it is hunted."""

    number: int
    name: str
    plant: Callable[[Replace], None]
    scenes: tuple[Scene, ...]
    variant: str = ""

    @property
    def label(self) -> str:
        return f"{self.number}{self.variant}"


@contextmanager
def planted(bug: Bug) -> Iterator[None]:
    """The bug is in, as long as this is open."""
    before: list[tuple[object, str, object]] = []

    def put(owner: object, name: str, value: object) -> None:
        before.append((owner, name, getattr_static(owner, name)))
        setattr(owner, name, value)

    try:
        bug.plant(put)
        yield
    finally:
        for owner, name, value in reversed(before):
            setattr(owner, name, value)


def nothing(*_arguments: object) -> None:
    """Takes the place of what is left out."""
