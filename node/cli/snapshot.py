"""`hypermesh chain snapshot` and `hypermesh chain restore`: the state of a chain in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from node.cli.base import (
    ClusterName,
    HomeFolder,
    Output,
    OutputFormat,
    emit,
    examples,
)
from node.cli.cert import GenesisFile, trusted_genesis

if TYPE_CHECKING:
    from node.runtime.offline import Checked


def register(chain: typer.Typer) -> None:
    """Put both commands into the group `chain`."""
    chain.command(
        epilog=examples(
            "hypermesh chain snapshot backup --home n0",
            "hypermesh chain snapshot /mnt/backup/demo --home /var/lib/hypermesh --output json",
        )
    )(snapshot)
    chain.command(
        epilog=examples(
            "hypermesh chain restore backup --home n0",
            "hypermesh chain restore /mnt/backup/demo --home /var/lib/hypermesh --output json",
        )
    )(restore)


def snapshot(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="A new folder for the copy.")],
    home: HomeFolder = None,
    genesis: GenesisFile = None,
    cluster: ClusterName = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Copy the newest state snapshot of a node, running or stopped, and check all of the copy."""
    from node.home import Home, default_home
    from node.preflight import read_genesis
    from node.runtime import offline

    place = Home(home or default_home())
    chain = read_genesis(trusted_genesis(genesis, cluster, home))
    checked = offline.export(offline.newest(place), folder, chain)
    _show(output, checked, f"copied and checked: {folder}")


def restore(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="What `chain snapshot` wrote.")],
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Give a stopped node the state of a snapshot, after checking it against its genesis.

    Keys and the signing record are not touched: a node that lost them recovers as after any loss.
    """
    from node.home import Home, default_home
    from node.preflight import read_genesis, take_lock
    from node.runtime import offline

    place = Home(home or default_home())
    take_lock(place)
    chain = read_genesis(place.genesis)
    checked = offline.restore(folder, place, chain)
    _show(output, checked, f"restored into {place.state_database}; start the node now")


def _show(output: OutputFormat, checked: Checked, sentence: str) -> None:
    data = {
        "height": checked.height,
        "state_root": checked.manifest.state_root.hex(),
        "certified_by": int(checked.manifest.run.certificate.height),
        "chunks": checked.outlines.chunk_count,
        "bytes": checked.size_bytes,
        "snapshot": checked.manifest.id.hex(),
    }
    emit(
        output,
        data,
        f"block {checked.height:,}, {checked.outlines.chunk_count:,} chunks, "
        f"{checked.size_bytes:,} bytes, state root {data['state_root']}\n{sentence}",
    )
