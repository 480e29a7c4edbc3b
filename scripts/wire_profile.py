"""Tables of docs/reference/stoq.md and docs/reference/limits.md, taken from the code."""

from __future__ import annotations

import ast
import importlib
import io
import json
import re
import tokenize
from collections.abc import Iterable, Iterator
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[1]
VECTORS: Final = ROOT / "transport" / "tests" / "vectors" / "stoq.json"
PROFILE: Final = Path(__file__).parent / "stoq_profile.md"
MARK: Final = re.compile(r"\{\{(\w+)\}\}")
UNITS: Final = {
    "BYTES": "bytes",
    "CHARS": "characters",
    "S": "s",
    "MS": "ms",
    "US": "µs",
    "BLOCKS": "blocks",
    "PERCENT": "%",
}
ROLES: Final = {"MAX", "MIN", "DEFAULT", "TARGET"}

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]


def profile_tables() -> dict[str, Table]:
    """Every table that the profile names."""
    from transport.core.events import CloseReason, RefusalReason, StreamKind
    from transport.core.frames import CallType, ControlType
    from transport.core.streams import ResetCode

    vectors: dict[str, Any] = json.loads(VECTORS.read_text(encoding="utf-8"))
    kinds = [kind for kind in StreamKind if kind is not StreamKind.CONTROL]
    keys: list[tuple[str, ...]] = [
        (
            row["algorithm"],
            f"`0x{row['scheme']:04X}`",
            row["oid"],
            str(row["raw_size_bytes"]),
            f"`{row['spki_prefix']}`",
            f"`{row['raw_first_byte']}`",
            f"`{row['node_id']}`",
        )
        for row in vectors["keys"]
    ]
    frames: list[tuple[str, ...]] = [(row["name"], f"`{row['hex']}`") for row in vectors["frames"]]
    columns: tuple[str, ...] = (
        "key",
        "scheme",
        "OID",
        "raw bytes",
        "SPKI prefix",
        "first byte",
        "NodeId",
    )
    return {
        "keys": (columns, keys),
        "streams": _numbers("kind", kinds),
        "control": _numbers("frame", ControlType),
        "calls": _numbers("frame", CallType),
        "resets": _numbers("code", ResetCode),
        "closes": _numbers("code", (code for code in CloseReason if code != CloseReason.UNKNOWN)),
        "refusals": (("reason",), [(f"`{reason.value}`",) for reason in RefusalReason]),
        "frames": (("frame", "bytes"), frames),
    }


def limit_rows(package: str) -> Iterator[tuple[str, str, str, str]]:
    """Name, value, unit and reason of every bound in the limits of a package, in their order."""
    module = importlib.import_module(f"{package}.limits")
    text = (ROOT / package / "limits.py").read_text(encoding="utf-8")
    comments = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(text).readline)
        if token.type == tokenize.COMMENT
    }
    lines = text.splitlines()
    for node in ast.parse(text).body:
        if not isinstance(node, ast.AnnAssign) or not isinstance(node.target, ast.Name):
            continue
        name = node.target.id
        if not name.startswith("_"):
            yield name, _value(getattr(module, name)), _unit(name), _reason(node, lines, comments)


def _numbers(word: str, members: Iterable[IntEnum]) -> Table:
    return (("number", word), [(str(item.value), f"`{item.name}`") for item in members])


def _value(value: object) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return f"{value:g}" if isinstance(value, float) else f"`{value}`"


def _unit(name: str) -> str:
    words = [word for word in name.split("_") if word not in ROLES]
    if "PER" in words:
        return " ".join(words[words.index("PER") - 1 :]).lower()
    return next((UNITS[word] for word in reversed(words) if word in UNITS), "")


def _reason(node: ast.AnnAssign, lines: list[str], comments: dict[int, str]) -> str:
    """The comment behind the bound, or the lines right above it."""
    beside = [
        comments[line]
        for line in range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if line in comments
    ]
    if beside:
        return " ".join(beside)
    above: list[str] = []
    line = node.lineno - 1
    while line in comments and lines[line - 1].startswith("#"):
        above.insert(0, comments[line])
        line -= 1
    return " ".join(above)
