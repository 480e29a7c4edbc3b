"""The `hypermesh` command: one file per noun.

`hypermesh --help` must stay fast, so a command imports what it needs when it runs.
"""

from __future__ import annotations

from typing import Annotated

import typer

from node.cli.base import Root, examples
from node.cli.ca import app as ca
from node.cli.cert import app as cert
from node.cli.chain import app as chain
from node.cli.cluster import app as cluster
from node.cli.config import app as config
from node.cli.ctlog import app as ctlog
from node.cli.load import app as load
from node.cli.node import app as node
from node.cli.snapshot import register as register_snapshots
from node.cli.stoq import app as stoq
from node.cli.store import app as store
from node.cli.validator import app as validator
from node.cli.wallet import app as wallet

app = typer.Typer(
    name="hypermesh",
    cls=Root,
    no_args_is_help=True,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    epilog=examples(
        "hypermesh cluster new demo --nodes 4",
        "hypermesh cluster up demo",
        "hypermesh wallet balance treasury --cluster demo",
        "hypermesh cluster down demo",
    ),
)
app.add_typer(node, name="node", rich_help_panel="Node")
app.add_typer(config, name="config", rich_help_panel="Node")
register_snapshots(chain)
app.add_typer(store, name="store", rich_help_panel="Node")
app.add_typer(cluster, name="cluster", rich_help_panel="Network")
app.add_typer(stoq, name="stoq", rich_help_panel="Network")
app.add_typer(chain, name="chain", rich_help_panel="Network")
app.add_typer(load, name="load", rich_help_panel="Network")
app.add_typer(validator, name="validator", rich_help_panel="Trust")
app.add_typer(cert, name="cert", rich_help_panel="Trust")
app.add_typer(ca, name="ca", rich_help_panel="Trust")
app.add_typer(ctlog, name="ctlog", rich_help_panel="Trust")
app.add_typer(wallet, name="wallet", rich_help_panel="Money")


def _show_version(wanted: bool) -> None:
    if wanted:
        from node.version import version

        typer.echo(f"hypermesh {version()}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and stop.",
            is_eager=True,
            callback=_show_version,
        ),
    ] = False,
) -> None:
    """Run a HyperMesh node, a small network of them, a wallet, and a certificate authority."""
    del version
