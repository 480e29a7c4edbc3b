"""`hypermesh config`: check and show one node's configuration. Nothing here needs a network."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.base import (
    HomeFolder,
    Output,
    OutputFormat,
    emit,
    examples,
    noun,
    require_input,
    vars_of,
)

app = noun("Check and show a node's configuration.")

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE", help="Configuration file; else HOME/node.toml."),
]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key; may be repeated."),
]


@app.command(
    epilog=examples(
        "hypermesh config check --home /var/lib/hypermesh",
        "hypermesh config check --home n0 --output json",
    )
)
def check(
    home: HomeFolder = None,
    config: ConfigFile = None,
    settings: Settings = None,
    output: Output = OutputFormat.TEXT,
) -> int:
    """Check everything that needs no network: keys, genesis, file modes, free ports.

    All problems of the file are shown at once; then every other check, each with a next step.
    """
    from node.preflight import State, inspect

    require_input(config)
    result = inspect(home, config, settings or [], environment=dict(os.environ))
    data = {
        "ok": result.ok,
        "checks": [vars_of(item) for item in result.checks],
        "problems": [vars_of(problem) for problem in result.problems],
    }

    def text() -> str:
        lines = []
        for item in result.checks:
            lines.append(f"{item.state.value:<5} {item.name:<16} {item.detail}")
            if item.state is not State.OK and item.next_step:
                lines.append(f"{'':<22} next: {item.next_step}")
        return "\n".join(lines)

    emit(output, data, text)
    return result.exit_code


@app.command(
    epilog=examples(
        "hypermesh config show --home n0 --origin",
        "hypermesh config show --key consensus.view_timeout_ms",
    )
)
def show(
    home: HomeFolder = None,
    config: ConfigFile = None,
    settings: Settings = None,
    origin: Annotated[
        bool, typer.Option("--origin", help="Say where each value comes from.")
    ] = False,
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="Explain this one key.")
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show the configuration in force, as a file that would give it."""
    from node.config import load_config
    from node.config.explain import explain, to_toml
    from node.config.explain import settings as in_force
    from node.config.load import schema_keys
    from node.errors import InvalidArgument
    from node.home import Home, default_home

    require_input(config)
    if key is not None and key not in schema_keys():
        import difflib

        near = difflib.get_close_matches(key, schema_keys(), n=1)
        raise InvalidArgument(
            f"there is no key {key!r}",
            hint=f"did you mean {near[0]}?" if near else "see `hypermesh config show`",
        )
    folder = home or (None if config else default_home())
    path = config or (Home(folder).config if folder else None)
    if home is None and config is None and path is not None and not path.exists():
        path = None
    loaded = load_config(path, environment=dict(os.environ), flags=settings or [])
    rows = [item for item in in_force(loaded) if key is None or item.key == key]
    data: list[dict[str, Any]] = [vars_of(item) for item in rows]
    if key is not None:
        now = "".join(f"\n  now: {item.value} ({item.origin})" for item in rows)
        emit(output, data, f"{explain(key)}{now}")
        return
    emit(output, data, lambda: to_toml(loaded, origins=origin).rstrip())
