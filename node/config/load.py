"""Merge defaults, file, environment and flags into one `NodeConfig`; report every problem at once.

Precedence rises in that order. Each value keeps its origin, so that `config show --origin` can say
where it comes from. The environment variable of `consensus.view_timeout_ms` is
`HYPERMESH_CONSENSUS_VIEW_TIMEOUT_MS`; the flag is `--set consensus.view_timeout_ms=500`.
"""

from __future__ import annotations

import difflib
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel, ValidationError

from node.config.locate import Path as KeyPath
from node.config.locate import line_index, line_of
from node.config.schema import NodeConfig
from node.errors import ExitCode, NodeError
from node.inputs import bounded_text
from node.limits import CONFIG_FILE_SIZE_BYTES_MAX

ENVIRONMENT_PREFIX: Final = "HYPERMESH_"
FREE_TABLES: Final = frozenset({"peers"})  # their keys are data, not names of ours
ORIGIN_DEFAULT: Final = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """One thing wrong with the configuration."""

    code: str
    place: str  # "line 14", an environment variable, or a flag
    key: str  # "consensus.view_timeout_ms", with the value where it helps
    message: str


class ConfigInvalid(NodeError):
    """The configuration has problems; all of them are listed."""

    code = "HM-D-101"
    exit_code = ExitCode.CONFIGURATION

    def __init__(self, source: str, problems: Sequence[Problem]) -> None:
        self.source = source
        self.problems = tuple(problems)
        width = "1 problem" if len(problems) == 1 else f"{len(problems)} problems"
        blocks = [f"{source}: {width}"]
        for problem in problems:
            place = f"{problem.place}  " if problem.place else ""
            indent = " " * (2 + len(place))
            blocks.append(f"\n  {place}{problem.key}\n{indent}{problem.message}")
        codes = ", ".join(sorted({problem.code for problem in problems}))
        super().__init__(
            "\n".join(blocks),
            hint=f"nothing was started; run `hypermesh config check` after editing [{codes}]",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A valid configuration, and where each value that is not a default comes from."""

    config: NodeConfig
    source: Path | None
    origins: Mapping[str, str] = field(default_factory=dict)

    def origin(self, key: str) -> str:
        """Return "default", "node.toml:14", an environment variable or a flag."""
        return self.origins.get(key, ORIGIN_DEFAULT)


def load_config(
    path: Path | None,
    *,
    environment: Mapping[str, str] | None = None,
    flags: Sequence[str] = (),
) -> Loaded:
    """Read the file (None: no file), apply environment and `KEY=VALUE` flags, and validate.

    Raises `ConfigInvalid` with every problem found, or with the syntax error alone.
    """
    source = str(path) if path else "configuration"
    text = _read(path) if path else ""
    merged, index = _parse(source, text), line_index(text)
    origins = {".".join(key): f"{source}:{line}" for key, line in index.items()}
    problems: list[Problem] = []
    _apply_environment(environment or {}, merged, origins, problems)
    _apply_flags(flags, merged, origins, problems)
    config: NodeConfig | None = None
    try:
        config = NodeConfig.model_validate(merged)
    except ValidationError as error:
        problems.extend(
            _problem(entry, merged, origins, index) for entry in error.errors(include_url=False)
        )
    if config is not None:
        problems.extend(_cross_checks(config, origins))
    if problems or config is None:
        raise ConfigInvalid(source, sorted(problems, key=_reading_order))
    known = {key: origins[key] for key, _ in leaves(config) if key in origins}
    return Loaded(config=config, source=path, origins=known)


def leaves(config: BaseModel, prefix: str = "") -> list[tuple[str, Any]]:
    """Return every value of a configuration as (dotted key, value), in the schema's order."""
    found: list[tuple[str, Any]] = []
    for name in type(config).model_fields:
        value, key = getattr(config, name), f"{prefix}{name}"
        if isinstance(value, BaseModel):
            found.extend(leaves(value, f"{key}."))
        elif isinstance(value, dict):
            found.extend((f"{key}.{item}", value[item]) for item in value)
        else:
            found.append((key, value))
    return found


def schema_keys() -> tuple[str, ...]:
    """Return every key that may be set, tables with free keys by their own name."""
    keys: list[str] = []
    for section, info in NodeConfig.model_fields.items():
        model = info.annotation
        if isinstance(model, type) and issubclass(model, BaseModel):
            keys.extend(f"{section}.{name}" for name in model.model_fields)
        else:
            keys.append(section)
    return tuple(keys)


def environment_name(key: str) -> str:
    """Return the environment variable that sets a key."""
    return ENVIRONMENT_PREFIX + key.replace(".", "_").upper()


def _read(path: Path) -> str:
    try:
        return bounded_text(path, CONFIG_FILE_SIZE_BYTES_MAX)
    except FileNotFoundError:
        raise ConfigInvalid(
            str(path),
            [_whole_file("HM-D-102", "no such file; create one with `hypermesh node init`")],
        ) from None
    except OSError as error:
        reason = error.strerror or "cannot be read"
        raise ConfigInvalid(str(path), [_whole_file("HM-D-102", reason)]) from None
    except ValueError as error:
        problem = _whole_file("HM-D-103", f"not a configuration: {error}")
        raise ConfigInvalid(str(path), [problem]) from None


def _whole_file(code: str, message: str) -> Problem:
    return Problem(code=code, place="", key="the file", message=message)


def _parse(source: str, text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except RecursionError:
        problem = _whole_file("HM-D-103", "nested too deeply to be a configuration")
        raise ConfigInvalid(source, [problem]) from None
    except tomllib.TOMLDecodeError as error:
        message, _, place = str(error).rpartition(" (at ")
        where = place.rstrip(")").split(",")[0] if message else "the file"
        problem = Problem(
            code="HM-D-103", place=where, key="not TOML", message=message or str(error)
        )
        raise ConfigInvalid(source, [problem]) from None


def _apply_environment(
    environment: Mapping[str, str],
    merged: dict[str, Any],
    origins: dict[str, str],
    problems: list[Problem],
) -> None:
    names = {environment_name(key): key for key in schema_keys() if key not in FREE_TABLES}
    prefixes = tuple(
        {f"{ENVIRONMENT_PREFIX}{key.split('.')[0].upper()}_" for key in names.values()}
    )
    for variable, text in sorted(environment.items()):
        if key := names.get(variable):
            _put(merged, key, _value(text), origins, f"${variable}", problems)
        elif variable.startswith(prefixes):
            problems.append(
                Problem(
                    code="HM-D-104",
                    place="environment",
                    key=variable,
                    message=_unknown("variable", variable, list(names)),
                )
            )


def _apply_flags(
    flags: Sequence[str],
    merged: dict[str, Any],
    origins: dict[str, str],
    problems: list[Problem],
) -> None:
    for flag in flags:
        key, equals, text = flag.partition("=")
        if not equals or "." not in key:
            problems.append(
                Problem(
                    code="HM-D-105",
                    place="--set",
                    key=flag,
                    message="write KEY=VALUE, for example --set consensus.view_timeout_ms=500",
                )
            )
            continue
        _put(merged, key.strip(), _value(text.strip()), origins, f"--set {key.strip()}", problems)


def _value(text: str) -> Any:
    """Read a value as TOML would, and anything else as a plain string."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError):
        return text


def _put(
    merged: dict[str, Any],
    key: str,
    value: Any,
    origins: dict[str, str],
    origin: str,
    problems: list[Problem],
) -> None:
    section, _, name = key.partition(".")
    table = merged.setdefault(section, {})
    if not isinstance(table, dict):
        problems.append(
            Problem(
                code="HM-D-105", place=origin, key=key, message=f"{section} is a value, not a table"
            )
        )
        return
    table[name] = value
    origins[key] = origin


def _problem(
    entry: Any,
    merged: Mapping[str, Any],
    origins: Mapping[str, str],
    index: dict[KeyPath, int],
) -> Problem:
    location = tuple(str(part) for part in entry["loc"] if part != "[key]")
    key = ".".join(location)
    origin = origins.get(key, "")
    if origin.startswith(("$", "--set")):
        place = origin
    else:
        line = line_of(index, location)
        place = f"line {line}" if line else ""
    if entry["type"] == "extra_forbidden":
        return Problem(
            code="HM-D-104",
            place=place,
            key=key,
            message=_unknown("key", key, _names_near(location)),
        )
    shown = f"{key} = {_shown(_lookup(merged, location))}" if location else key
    return Problem(code="HM-D-106", place=place, key=shown, message=_reason(entry))


def _names_near(location: Sequence[str]) -> list[str]:
    """Every key first, so that a key in the wrong table finds its place; then the tables."""
    return list(dict.fromkeys((*schema_keys(), *NodeConfig.model_fields))) if location else []


def _unknown(noun: str, name: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not near and "." in name:
        last = {key.rpartition(".")[2]: key for key in known}
        near = [last[hit] for hit in difflib.get_close_matches(name.rpartition(".")[2], last, n=1)]
    if near:
        return f"unknown {noun}. Did you mean {near[0]}?"
    section = name.partition(".")[0]
    inside = [key for key in known if key.startswith(f"{section}.")]
    listed = inside or [key for key in known if "." not in key]
    return f"unknown {noun}. Known here: {', '.join(listed)}"


def _reason(entry: Any) -> str:
    context = entry.get("ctx", {})
    match entry["type"]:
        case "value_error":
            return str(context.get("error", entry["msg"]))
        case "greater_than_equal":
            return f"must be at least {context['ge']:,}"
        case "less_than_equal":
            return f"must be at most {context['le']:,}"
        case "literal_error":
            return f"must be one of {context['expected']}"
        case "int_type" | "int_parsing":
            return "must be a whole number, without quotes"
        case "string_type":
            return "must be a text in quotes"
        case "bool_type":
            return "must be true or false, without quotes"
        case "model_type" | "dict_type" | "model_attributes_type":
            return "must be a table"
        case _:
            return str(entry["msg"])


def _lookup(merged: Mapping[str, Any], location: Sequence[str]) -> Any:
    value: Any = merged
    for part in location:
        if not isinstance(value, Mapping) or part not in value:
            return None
        value = value[part]
    return value


def _shown(value: Any) -> str:
    text = json.dumps(value, default=str, ensure_ascii=False)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _cross_checks(config: NodeConfig, origins: Mapping[str, str]) -> list[Problem]:
    """Check what no single key can know."""
    problems: list[Problem] = []

    def add(key: str, message: str) -> None:
        origin = origins.get(key, "")
        place = f"line {origin.rpartition(':')[2]}" if ":" in origin else origin
        problems.append(Problem(code="HM-D-107", place=place, key=key, message=message))

    seen: dict[str, str] = {}
    for node_id, address in config.peers.items():
        if (other := seen.setdefault(address, node_id)) != node_id:
            add(f"peers.{node_id}", f"{address} is already the address of peer {other[:16]}")
    return problems


def _reading_order(problem: Problem) -> tuple[int, int, str]:
    if problem.place.startswith("line "):
        return (0, int(problem.place[5:]), problem.key)
    return (1, 0, problem.place + problem.key)
