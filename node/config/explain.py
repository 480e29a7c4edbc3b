"""Show a configuration: as TOML that could be a file, with origins, or key by key with its help."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from node.config.load import Loaded, environment_name, leaves
from node.config.schema import NodeConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One key as it is in force."""

    key: str
    value: Any
    origin: str
    default: Any
    description: str


def settings(loaded: Loaded) -> list[Setting]:
    """Return every key in force, in the schema's order."""
    found = []
    defaults = dict(leaves(NodeConfig()))
    for key, value in leaves(loaded.config):
        found.append(
            Setting(
                key=key,
                value=list(value) if isinstance(value, tuple) else value,
                origin=loaded.origin(key),
                default=defaults.get(key),
                description=description(key),
            )
        )
    return found


def description(key: str) -> str:
    """Return the help text of a key."""
    section, _, name = key.partition(".")
    info = NodeConfig.model_fields.get(section)
    if info is None:
        return ""
    model = info.annotation
    if isinstance(model, type) and issubclass(model, BaseModel) and name in model.model_fields:
        return model.model_fields[name].description or ""
    return info.description or ""


def to_toml(loaded: Loaded, *, origins: bool = False) -> str:
    """Render the configuration in force as a TOML text, each value with its origin if asked."""
    lines: list[str] = []
    section = ""
    for setting in settings(loaded):
        table, _, name = setting.key.partition(".")
        if table != section:
            lines += ["", f"[{table}]"] if lines else [f"[{table}]"]
            section = table
        label = f'"{name}"' if table == "peers" else name
        line = f"{label} = {toml_value(setting.value)}"
        lines.append(f"{line:<48} # {setting.origin}" if origins else line)
    return "\n".join(lines) + "\n"


def explain(key: str) -> str:
    """Return one paragraph on a key: meaning, default, environment variable."""
    default = dict(leaves(NodeConfig())).get(key)
    return (
        f"{key}\n  {description(key)}\n  default: {toml_value(default)}"
        f"\n  environment: {environment_name(key)}"
    )


def toml_value(value: Any) -> str:
    """Write a scalar or a list of scalars as TOML does."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(item) for item in value)}]"
    return json.dumps(value, ensure_ascii=False)
