"""Where a key stands in a TOML file: dotted key -> line.

The standard parser gives positions only for syntax errors, so this reads the lines of a file that
already parsed. It follows tables, dotted and quoted keys, and skips over multi-line values; keys
inside an inline table are found at the line of the table.
"""

from __future__ import annotations

import re
from typing import Final

_BARE: Final = r"[A-Za-z0-9_-]+"
_PART: Final = rf"""(?:{_BARE}|"(?:[^"\\]|\\.)*"|'[^']*')"""
_KEY: Final = rf"{_PART}(?:\s*\.\s*{_PART})*"
_TABLE: Final = re.compile(rf"\s*\[\[?\s*({_KEY})\s*\]\]?\s*(?:#.*)?$")
_PAIR: Final = re.compile(rf"\s*({_KEY})\s*=\s*(.*)$")
_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"' + r"|'[^']*'")

Path = tuple[str, ...]


def line_index(text: str) -> dict[Path, int]:
    """Map every table and key of a valid TOML text to its line, counted from 1."""
    found: dict[Path, int] = {}
    table: Path = ()
    open_brackets, open_string = 0, ""
    for number, line in enumerate(text.splitlines(), start=1):
        if open_string:
            if open_string in line:
                open_string = ""
            continue
        if open_brackets > 0:
            open_brackets += _brackets(line)
            continue
        if match := _TABLE.match(line):
            table = _parts(match[1])
            found.setdefault(table, number)
        elif match := _PAIR.match(line):
            path = table + _parts(match[1])
            for depth in range(len(table) + 1, len(path) + 1):
                found.setdefault(path[:depth], number)
            value = match[2]
            for quote in ('"' * 3, "'" * 3):
                if value.startswith(quote) and quote not in value[3:]:
                    open_string = quote
            open_brackets = 0 if open_string else _brackets(value)
    return found


def line_of(index: dict[Path, int], path: Path) -> int | None:
    """Return the line of a path, or of the nearest enclosing table that is in the file."""
    for depth in range(len(path), 0, -1):
        if (line := index.get(path[:depth])) is not None:
            return line
    return None


def _parts(key: str) -> Path:
    return tuple(part.strip("\"'") for part in re.findall(_PART, key))


def _brackets(value: str) -> int:
    plain = _STRING.sub("", value).split("#", 1)[0]
    return sum(map(plain.count, "[{")) - sum(map(plain.count, "]}"))
