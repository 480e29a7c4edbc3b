"""A disk that can lose its power: records what SQLite does to its files, and replays half of it.

`Recorder` is an SQLite VFS over the real one that writes down every write, truncation, sync and
deletion. `after_power_cut` then rebuilds the files as they may be found after a cut at any moment:
what was synced is there, and of what was not, each write is there, missing or torn at a sector, in
whatever combination the seed draws (a disk reorders what it was not told to sync).

SQLite's shared memory has no place in a VFS written in Python, so connections lock exclusively.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import apsw

SECTOR_SIZE_BYTES = 512


@dataclass(frozen=True, slots=True)
class Write:
    """Bytes put at an offset."""

    name: str
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Truncate:
    """The file ends here from now on."""

    name: str
    size: int


@dataclass(frozen=True, slots=True)
class Sync:
    """All that was done to this file before is on the disk."""

    name: str


@dataclass(frozen=True, slots=True)
class Delete:
    """The file is gone, and for certain if its folder was synced."""

    name: str
    synced: bool


Operation = Write | Truncate | Sync | Delete


class Recorder(apsw.VFS):
    """The default VFS, and a list of what went through it."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []
        self.real = apsw.vfs_names()[0]  # the default so far
        super().__init__("recorder", self.real, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> apsw.VFSFile:
        return _File(self, name, flags)

    def xDelete(self, filename: str, syncdir: bool) -> None:
        self.operations.append(Delete(Path(filename).name, synced=syncdir))
        super().xDelete(filename, syncdir)


class _File(apsw.VFSFile):
    def __init__(
        self, recorder: Recorder, name: str | apsw.URIFilename | None, flags: list[int]
    ) -> None:
        self._operations = recorder.operations
        text = name.filename() if isinstance(name, apsw.URIFilename) else name
        self._name = "" if text is None else Path(text).name
        super().__init__(recorder.real, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:
        self._operations.append(Write(self._name, offset, bytes(data)))
        super().xWrite(data, offset)

    def xTruncate(self, newsize: int) -> None:
        self._operations.append(Truncate(self._name, newsize))
        super().xTruncate(newsize)

    def xSync(self, flags: int) -> None:
        super().xSync(flags)
        self._operations.append(Sync(self._name))


@contextmanager
def recorded() -> Iterator[list[Operation]]:
    """Record what every connection that is opened meanwhile does."""

    def exclusively(connection: apsw.Connection) -> None:
        connection.execute("PRAGMA locking_mode=EXCLUSIVE").fetchall()

    recorder = Recorder()
    apsw.connection_hooks.append(exclusively)
    try:
        yield recorder.operations
    finally:
        apsw.connection_hooks.remove(exclusively)
        recorder.unregister()


def after_power_cut(
    before: dict[str, bytes], operations: Sequence[Operation], seed: int
) -> dict[str, bytes]:
    """The files after a cut that follows the last of `operations`; `before` was there, synced."""
    chance = random.Random(seed)
    synced_through = {
        operation.name: at for at, operation in enumerate(operations) if isinstance(operation, Sync)
    }
    files = {name: bytearray(data) for name, data in before.items()}
    for at, operation in enumerate(operations):
        certain = at < synced_through.get(operation.name, -1)
        match operation:
            case Write():
                data = operation.data if certain else _torn(chance, operation.data)
                content = files.setdefault(operation.name, bytearray())
                if data:
                    if len(content) < operation.offset:
                        content.extend(bytes(operation.offset - len(content)))
                    content[operation.offset : operation.offset + len(data)] = data
            case Truncate():
                if certain or chance.random() < 0.5:
                    del files.setdefault(operation.name, bytearray())[operation.size :]
            case Delete():
                if operation.synced or chance.random() < 0.5:
                    files.pop(operation.name, None)
            case Sync():
                pass
    return {name: bytes(data) for name, data in files.items()}


def _torn(chance: random.Random, data: bytes) -> bytes:
    """All of a write, nothing of it, or its first sectors."""
    draw = chance.random()
    if draw < 0.4:
        return data
    if draw < 0.8:
        return b""
    sectors = len(data) // SECTOR_SIZE_BYTES
    return data[: SECTOR_SIZE_BYTES * chance.randint(0, sectors)]
