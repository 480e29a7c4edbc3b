"""`hypermesh node`: make, run and look at one node."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.base import (
    ClusterName,
    HomeFolder,
    NodeURL,
    Output,
    OutputFormat,
    Timeout,
    connect,
    emit,
    examples,
    note,
    noun,
    require_input,
    seconds,
    table,
)
from node.cli.config import ConfigFile, Settings
from node.errors import DatabaseInvalid, ExitCode

if TYPE_CHECKING:
    from node.preflight import Inspection

app = noun("Make, run and look at one node.")


@app.command(
    epilog=examples(
        "hypermesh node init --home n0 --name n0",
        "hypermesh node init --home dev --name dev --chain dev --base-port 9400",
        "hypermesh node init --home n4 --name n4 --base-port 9330 --join demo/n0",
    )
)
def init(
    home: HomeFolder = None,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the node.")] = "n0",
    chain: Annotated[str, typer.Option(metavar="NAME", help="Name of the new chain.")] = "single",
    base_port: Annotated[int, typer.Option(help="First of the node's ten ports.")] = 9290,
    passphrase_file: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Passphrase for the root key and treasury wallet."),
    ] = None,
    join: Annotated[
        Path | None,
        typer.Option(metavar="HOME", help="Observe the chain of this home instead of a new one."),
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Make a home folder with a new key: a chain of one validator, or an observer of another.

    With `--join` genesis and addresses are taken from the home of a node of the chain; the new node
    follows it, and votes once it has been voted in: `hypermesh validator propose`.

    Never touches a home that already has a key. Larger networks: `hypermesh cluster new`, which
    makes the home of every validator.
    """
    from node.cli.cluster import chosen_passphrase
    from node.cluster.create import create_observer, create_single
    from node.cluster.manifest import check_layout, check_name, check_node_name
    from node.home import default_home

    check_node_name(name)
    check_name(chain)
    check_layout(1, base_port)
    folder = home or default_home()
    if join is not None:
        made = create_observer(folder, name=name, base_port=base_port, known=join)
    else:
        made = create_single(
            folder,
            name=name,
            chain=chain,
            base_port=base_port,
            passphrase=chosen_passphrase(passphrase_file),
        )
    emit(
        output,
        {"home": str(folder), "node_id": made.node_id, "chain": made.chain, "role": made.role},
        f"home     {folder}\nnode id  {made.node_id}\nchain    {made.chain} ({made.role})",
    )
    for line in made.notes:
        note(line)
    note(f"next: hypermesh node run --home {folder}")


@app.command(
    epilog=examples(
        "hypermesh node run --home n0",
        "hypermesh node run --home n0 --set log.level=debug --set log.format=json",
    )
)
def run(
    home: HomeFolder = None,
    config: ConfigFile = None,
    settings: Settings = None,
    output: Annotated[
        OutputFormat,
        typer.Option("--output", "-o", help="Form of an error on stderr; for logs: log.format."),
    ] = OutputFormat.TEXT,
) -> None:
    """Run a node until SIGTERM or SIGINT; logs go to stderr.

    Everything that can be checked is checked first, and nothing is started when a check fails.
    """
    from node.disk import disk_failure
    from node.preflight import inspect, peerless, take_lock, way_out

    del output  # the root command reads it, also from a command line that does not parse
    require_input(config)
    result = inspect(home, config, settings or [], environment=dict(os.environ))
    if result.errors:
        raise result.errors[0]
    assert result.loaded is not None
    from node import logging

    logging.configure(level=result.loaded.config.log.level, form=result.loaded.config.log.format)
    lock = take_lock(result.home)
    result.home.data.mkdir(mode=0o700, exist_ok=True)  # a lost one was reported as a warning
    if result.loaded.config.log.format == "console":
        note(start_card(result))
    import apsw
    import trio

    from consensus.runtime.store import StoreDamaged
    from node.runtime.assemble import run_node

    try:
        trio.run(run_node, result.loaded.config, result.home.path)
    except StoreDamaged as error:
        if not peerless(result):
            raise
        raise DatabaseInvalid(str(error), hint=way_out(result, error.path)) from error
    except (apsw.CorruptError, apsw.NotADBError) as error:
        raise DatabaseInvalid(
            f"a database in {result.home.data} is damaged: {error}",
            hint=way_out(result, result.home.consensus_database),
        ) from error
    except BaseException as error:
        if failed := disk_failure(error, result.home.data):
            raise failed from error
        raise
    finally:
        os.close(lock)
        result.home.api_file.unlink(missing_ok=True)


def start_card(result: Inspection) -> str:
    """Say in five lines what is about to run."""
    from node.version import DATA_FORMAT, version

    assert result.loaded is not None
    assert result.genesis is not None
    assert result.node_key is not None
    config = result.loaded.config
    http = config.http.listen if config.http.enabled else "off"
    return "\n".join(
        (
            f"hypermesh {version()}  python {sys.version.split()[0]}",
            f"  config    {result.loaded.source} ({len(result.loaded.origins)} keys set)",
            f"  identity  {config.node.name} ({config.node.role}) "
            f"{result.node_key.node_id.hex()} of {result.genesis.label}",
            f"  listens   STOQ {config.transport.listen}  HTTP {http}",
            f"  data      {result.home.data} (format {DATA_FORMAT})",
        )
    )


@app.command(
    epilog=examples(
        "hypermesh node status",
        "hypermesh node status --cluster demo --output json",
        "hypermesh node status --node http://[::1]:9303",
    )
)
def status(
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> int:
    """Show one node's state, reasons why it is not ready first. Exit code 5 when it is not."""
    from node.status import to_json, to_text

    with connect(node, cluster, home) as client:
        now, found = client.status()
    emit(output, to_json(now, found), lambda: to_text(now, found))
    blocked = any(finding.blocks_ready for finding in found)
    return ExitCode.NOT_READY if blocked else ExitCode.OK


@app.command(
    epilog=examples(
        "hypermesh node wait --ready --timeout 60s",
        "hypermesh node wait --height 1000 --node http://[::1]:9303",
    )
)
def wait(
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    ready: Annotated[bool, typer.Option("--ready", help="Wait until it is ready.")] = False,
    height: Annotated[int, typer.Option(min=0, help="Wait for this block.")] = 0,
    timeout: Timeout = "60s",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Wait until a node is ready, and at a height if given."""
    del ready  # the default and only condition beside the height
    limit = seconds(timeout)
    with connect(node, cluster, home) as client:
        now = client.wait_ready(timeout_s=limit, height=height)
    emit(
        output,
        {"name": now.name, "ready": True, "height": now.height},
        f"{now.name} is ready at height {now.height:,}",
    )


@app.command(
    epilog=examples(
        "hypermesh node mempool --cluster demo",
        "hypermesh node mempool --limit 100 --output json",
    )
)
def mempool(
    first: Annotated[
        int, typer.Option("--from", min=0, metavar="NUMBER", help="Where the page before ended.")
    ] = 0,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="At most so many.")] = 20,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show the payloads that wait, oldest first: age, size, and which validator gave them."""
    from node.status import duration

    with connect(node, cluster, home) as client:
        page = client.waiting(first, limit=limit)

    def text() -> str:
        rows = [
            (
                duration(item["age_ms"]),
                f"{item['size_bytes']:,}",
                item["source"],
                "yes" if item["proposed"] else "no",
                item["id"],
            )
            for item in page["items"]
        ]
        lines = [f"{page['count']:,} payloads wait, {page['size_bytes']:,} bytes"]
        if rows:
            lines.append(table(("age", "bytes", "from", "proposed", "id"), rows))
        if page["next_from"] is not None:
            lines.append(f"more with --from {page['next_from']}")
        return "\n".join(lines)

    emit(output, page, text)


@app.command(
    epilog=examples(
        "hypermesh node agreement --cluster demo",
        "hypermesh node agreement --node http://[::1]:9303 --output json",
    )
)
def agreement(
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what a node holds of the agreement: votes, who is missing, timers. No secrets.

    The node must have http.debug on.
    """
    with connect(node, cluster, home) as client:
        found = client.agreement()

    def text() -> str:
        lines = [
            found["waits_for"],
            f"phase {found['phase']}   epoch {found['epoch']}   view {found['view']}"
            f"{'' if found['active'] else ' (changing)'}   primary {found['primary']}   "
            f"quorum {found['quorum']} of {found['members']}",
            f"executed {found['executed']:,}   certified {found['certified']:,}   "
            f"may agree up to {found['watermark_high']:,}   waiting {found['pending']:,}",
            "timers " + (", ".join(f"{k} in {v} ms" for k, v in found["timers"].items()) or "none"),
        ]
        lines += [f"{item['name']} wants view {item['view']}" for item in found["view_changes"]]
        places = [
            (
                str(place["sequence"]),
                place["digest"][:16] or "-",
                "yes" if place["body_held"] else "no",
                str(len(place["prepares"])),
                str(len(place["commits"])),
                ", ".join(place["missing"]) or "-",
            )
            for place in found["places"]
        ]
        if places:
            titles = ("place", "batch", "body", "prepares", "commits", "missing")
            lines += ["", table(titles, places)]
        waiting = [
            (str(item["height"]), str(len(item["voters"])), ", ".join(item["missing"]) or "-")
            for item in found["checkpoints"]
        ]
        if waiting:
            lines += ["", table(("executed", "checkpoints", "missing"), waiting)]
        peers = [
            (
                peer["name"],
                "yes" if peer["connected"] else "no",
                peer["phase"],
                str(peer["view"]),
                f"{peer['executed']:,}",
                f"{peer['certified']:,}",
                "-" if peer["status_age_ms"] is None else f"{peer['status_age_ms']:,}",
            )
            for peer in found["peers"]
        ]
        if peers:
            heard = ("peer", "connected", "phase", "view", "executed", "certified", "heard ms ago")
            lines += ["", table(heard, peers)]
        return "\n".join(lines)

    emit(output, found, text)
