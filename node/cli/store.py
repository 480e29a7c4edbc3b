"""`hypermesh store`: what is in the databases of a stopped node, and whether it holds.

Numbers, kinds and heights only: no key is in these files, and no payload is printed.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.base import Output, OutputFormat, emit, examples, noun, table

app = noun("Look into the databases of a stopped node.")

Files = Annotated[
    Path, typer.Argument(metavar="HOME", help="Home folder of a node that does not run.")
]


@app.command(
    epilog=examples(
        "hypermesh store inspect /var/lib/hypermesh", "hypermesh store inspect n0 --output json"
    )
)
def inspect(files: Files, output: Output = OutputFormat.TEXT) -> None:
    """Show what a stopped node has stored: records by kind, blocks, sizes, its last number."""
    from node.inspection import inspect_stores
    from node.stopped import stopped_node

    with stopped_node(files) as found:
        data = inspect_stores(found)
    emit(output, data, lambda: _inspect_text(data))


@app.command(
    epilog=examples(
        "hypermesh store verify /var/lib/hypermesh", "hypermesh store verify n0 --output json"
    )
)
def verify(files: Files, output: Output = OutputFormat.TEXT) -> None:
    """Check every page, record, signature, certificate, body and header of a stopped node."""
    from node.inspection import verify_stores
    from node.stopped import stopped_node

    with stopped_node(files) as found:
        data = verify_stores(found)
    emit(
        output,
        data,
        f"{data['records']:,} records with {data['signatures']:,} signatures, "
        f"{data['bodies']:,} bodies and the blocks {data['oldest']:,} to {data['newest']:,} hold",
    )


def _inspect_text(data: dict[str, Any]) -> str:
    rows = [
        (
            kind,
            f"{found['count']:,}",
            f"{found['size_bytes']:,}",
            "-" if found["first"] is None else f"{found['first']:,}",
            "-" if found["last"] is None else f"{found['last']:,}",
        )
        for kind, found in data["records"].items()
    ]
    files = [
        (name, f"{found['size_bytes']:,}", f"{found['free_bytes']:,}", str(found["shrinks"]))
        for name, found in data["files"].items()
    ]
    blocks = data["blocks"]
    return "\n\n".join(
        (
            table(("record", "count", "bytes", "first", "last"), rows),
            table(("file", "bytes", "free", "can shrink"), files),
            f"incarnation {data['incarnation']}, last number {data['last_number']:,}, "
            f"view {data['view']}\n"
            f"blocks {blocks['oldest']:,} to {blocks['newest']:,}, certified to "
            f"{blocks['certified']:,}, {blocks['bodies']:,} bodies",
        )
    )
