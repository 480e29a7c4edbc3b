"""Logs as events: a stable name and typed fields, for people or for machines.

`log.info("block.committed", height=…, view=…, txs=…, took_ms=…)`. Everything goes to stderr. Fields
whose name says that they hold a secret never reach the output.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final, TextIO

import structlog

LEVELS: Final[Mapping[str, int]] = {"debug": 10, "info": 20, "warning": 30, "error": 40}
REDACTED: Final = "[secret]"
EVENT_PATTERN: Final = re.compile(r"[a-z]+(?:[._][a-z0-9]+)+")

_SECRET_NAME: Final = re.compile(r"secret|passphrase|password|private|token|seed|credential", re.I)
_PEM_SECRET: Final = re.compile(
    r"-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]+-----|\Z)", re.S
)

Event = MutableMapping[str, Any]


def configure(*, level: str = "info", form: str = "console", stream: TextIO | None = None) -> None:
    """Set the process's log form; call it once, before the first event."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            _time,
            structlog.processors.format_exc_info,
            redact,
            json_line if form == "json" else console_line,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(file=stream or sys.stderr),
        cache_logger_on_first_use=False,
    )


def redact(_logger: Any, _method: str, event: Event) -> Event:
    """Replace values that are, or by their name must be, secrets."""
    for key, value in event.items():
        event[key] = _clean(key, value)
    return event


def console_line(_logger: Any, _method: str, event: Event) -> str:
    """Write `12:04:31 INFO  block.committed  height=18204 view=3`."""
    fields = dict(event)
    time = str(fields.pop("time"))[11:19]
    level, name = str(fields.pop("level")).upper(), fields.pop("event")
    trace = fields.pop("exception", None)
    shown = " ".join(f"{key}={_plain(value)}" for key, value in fields.items())
    line = f"{time} {level:<7} {name}  {shown}".rstrip()
    return f"{line}\n{trace}" if trace else line


def json_line(_logger: Any, _method: str, event: Event) -> str:
    """Write one JSON object with the same keys."""
    import json

    return json.dumps({key: _typed(value) for key, value in event.items()}, ensure_ascii=False)


def _time(_logger: Any, _method: str, event: Event) -> Event:
    now = datetime.now(UTC)
    event["time"] = now.strftime("%Y-%m-%dT%H:%M:%S.") + f"{now.microsecond // 1000:03}Z"
    return event


def _clean(key: str, value: Any) -> Any:
    if _SECRET_NAME.search(key):
        return REDACTED
    if isinstance(value, str) and "PRIVATE KEY" in value:
        return _PEM_SECRET.sub(REDACTED, value)
    if isinstance(value, Mapping):
        return {inner: _clean(str(inner), item) for inner, item in value.items()}
    return value


def _plain(value: Any) -> str:
    text = str(_typed(value))
    return f'"{text}"' if " " in text or not text else text.replace("\n", "\\n")


def _typed(value: Any) -> Any:
    match value:
        case bool() | int() | float() | str() | None:
            return value
        case bytes():
            return value.hex()
        case list() | tuple() | set() | frozenset():
            return [_typed(item) for item in value]
        case Mapping():
            return {str(key): _typed(item) for key, item in value.items()}
        case _:
            return str(value)
