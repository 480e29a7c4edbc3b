"""Files that a person names: read once, with a bound, and as the text they should be.

Whatever is wrong with such a file ends in an error that says what was expected, what is there and
what to do. Nothing here knows a format; `parse_json` only keeps the parser from failing otherwise
than with ValueError.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from node.errors import InputMissing, InputUnreadable

if TYPE_CHECKING:
    from pathlib import Path


def input_text(path: Path, *, size_max: int, what: str, hint: str) -> str:
    """Read a text file of at most `size_max` bytes; `what` names what it should be.

    Raises `InputMissing`, or `InputUnreadable` with `hint` as the next step.
    """
    try:
        return bounded_text(path, size_max)
    except (FileNotFoundError, NotADirectoryError):
        raise InputMissing(f"{path}: no such file", hint="check the path that was given") from None
    except IsADirectoryError:
        raise InputMissing(f"{path}: is a folder", hint="check the path that was given") from None
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise InputUnreadable(f"{path}: {reason}", hint="check its permissions") from None
    except ValueError as error:
        raise InputUnreadable(f"{path} is not {what}: {error}", hint=hint) from None


def bounded_bytes(path: Path, size_max: int) -> bytes:
    """Read a file; raises OSError, or ValueError for a longer one."""
    with path.open("rb") as file:
        data = file.read(size_max + 1)
    if len(data) > size_max:
        raise ValueError(f"it is longer than {size_max:,} bytes")
    return data


def bounded_text(path: Path, size_max: int) -> str:
    """Read a text file; raises OSError, or ValueError for a longer one or one that is no text."""
    data = bounded_bytes(path, size_max)
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start:,} is not text in UTF-8") from None


def parse_json(
    text: str | bytes, *, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None
) -> Any:
    """Parse JSON; raises ValueError, also for what is nested too deeply to be ours."""
    try:
        return json.loads(text, object_pairs_hook=pairs, parse_constant=_no_number)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _no_number(text: str) -> Any:
    raise ValueError(f"{text} is no number")
