"""`hypermesh ctlog`: look at the certificate log and check that it keeps its promises."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.base import (
    ClusterName,
    HomeFolder,
    NodeURL,
    Output,
    OutputFormat,
    connect,
    emit,
    examples,
    note,
    noun,
)
from node.cli.cert import GenesisFile, trusted_genesis

if TYPE_CHECKING:
    from node.core.genesis import Genesis
    from trustchain.core.checkpoint import Checkpoint
    from trustchain.core.roster import Succession

app = noun("Look at the certificate log and verify it.")


@app.command(
    epilog=examples("hypermesh ctlog head --cluster demo", "hypermesh ctlog head --output json")
)
def head(
    genesis: GenesisFile = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    save: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the signed note.")
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show the newest checkpoint, its cosignatures checked from genesis on."""
    from node.home import write_replacing
    from node.succession import check_present, fetch

    chain = _genesis(genesis, cluster, home)
    with connect(node, cluster, home) as client:
        text = client.log_checkpoint()  # before the epochs: those that come later know it too
        document, succession = fetch(client, chain)
        checkpoint, cosigners = _verified(text, chain, succession)
        check_present(client, chain, document, succession, checkpoint)
    if save:
        write_replacing(save, text.encode())
        note(f"wrote {save}")
    data = _head(checkpoint, cosigners, chain, succession)
    emit(output, data, _head_text(data))


@app.command(
    epilog=examples(
        "hypermesh ctlog proof 12 --cluster demo",
        "hypermesh ctlog proof 12 --size 100 --cluster demo --output json",
    )
)
def proof(
    index: Annotated[int, typer.Argument(metavar="INDEX", min=0, help="Which entry.")],
    size: Annotated[
        int | None, typer.Option(min=1, help="In the log of this size; else the newest.")
    ] = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Fetch the proof that an entry is in the log."""
    with connect(node, cluster, home) as client:
        data = client.log_inclusion(index, size)

    def text() -> str:
        hashes = "\n".join(f"  {item}" for item in data["hashes"])
        return (
            f"entry {data['index']} of {data['size']}\nleaf {data['leaf_hash']}\n{hashes}".rstrip()
        )

    emit(output, data, text)


@app.command(
    epilog=examples(
        "hypermesh ctlog verify --cluster demo",
        "hypermesh ctlog verify --cluster demo --from yesterday.checkpoint --index 12",
    )
)
def verify(
    since: Annotated[
        Path | None,
        typer.Option("--from", metavar="FILE", help="A checkpoint saved by `ctlog head --save`."),
    ] = None,
    index: Annotated[
        int | None, typer.Option(min=0, help="Also prove that this entry is in the log.")
    ] = None,
    genesis: GenesisFile = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Verify the newest checkpoint, that nothing older was rewritten, and an entry's place."""
    from native.errors import ProofInvalid
    from native.hashing import verify_consistency, verify_inclusion
    from node.errors import LogInvalid
    from node.succession import check_present, fetch

    chain = _genesis(genesis, cluster, home)
    saved = _read(since) if since else None
    with connect(node, cluster, home) as client:
        newest = client.log_checkpoint()  # before the epochs: those that come later know it too
        document, succession = fetch(client, chain)
        old = None if saved is None else _verified(saved, chain, succession)[0]
        checkpoint, cosigners = _verified(newest, chain, succession)
        check_present(client, chain, document, succession, checkpoint)
        data = _head(checkpoint, cosigners, chain, succession)
        lines = [_head_text(data)]
        try:
            if old is not None:
                if old.size > checkpoint.size:
                    raise ProofInvalid(f"the log shrank from {old.size} to {checkpoint.size}")
                hashes: tuple[bytes, ...] = ()
                if 0 < old.size < checkpoint.size:
                    found = client.log_consistency(old.size, checkpoint.size)
                    hashes = tuple(bytes.fromhex(item) for item in found["hashes"])
                if old.size:
                    verify_consistency(old.size, checkpoint.size, old.root, checkpoint.root, hashes)
                data["consistent_from"] = old.size
                lines.append(
                    f"grew from {old.size} to {checkpoint.size} entries, nothing rewritten"
                )
            if index is not None:
                found = client.log_inclusion(index, checkpoint.size)
                path = tuple(bytes.fromhex(item) for item in found["hashes"])
                leaf = bytes.fromhex(found["leaf_hash"])
                verify_inclusion(leaf, index, checkpoint.size, path, checkpoint.root)
                data["included"] = index
                lines.append(f"entry {index} is in the log")
        except ProofInvalid as error:
            raise LogInvalid(
                f"the log of this node contradicts its checkpoint: {error}",
                hint="ask another node; if it says the same, the validators lie",
            ) from None
    emit(output, data, "\n".join(lines))


def _genesis(genesis: Path | None, cluster: str | None, home: Path | None) -> Genesis:
    from node.preflight import read_genesis

    return read_genesis(trusted_genesis(genesis, cluster, home))


def _read(file: Path) -> str:
    from node.inputs import input_text
    from trustchain.limits import CHECKPOINT_SIZE_BYTES_MAX

    return input_text(
        file,
        size_max=CHECKPOINT_SIZE_BYTES_MAX,
        what="a checkpoint",
        hint="name a file that `hypermesh ctlog head --save FILE` wrote",
    )


def _verified(
    text: str, chain: Genesis, succession: Succession
) -> tuple[Checkpoint, tuple[str, ...]]:
    from trustchain.core.checkpoint import Checkpoint
    from trustchain.runtime.verify import verify_checkpoint

    checkpoint = Checkpoint.decode(text)
    return checkpoint, verify_checkpoint(checkpoint, chain.log, succession)


def _head(
    checkpoint: Checkpoint, cosigners: tuple[str, ...], chain: Genesis, succession: Succession
) -> dict[str, Any]:
    return {
        "log": checkpoint.origin,
        "size": checkpoint.size,
        "root": checkpoint.root.hex(),
        "cosigners": list(cosigners),
        "cosigners_needed": succession.newest.needed,
        "chain": chain.label,
    }


def _head_text(data: dict[str, Any]) -> str:
    return (
        f"log       {data['log']} of {data['chain']}\nsize      {data['size']:,}\n"
        f"root      {data['root']}\n"
        f"cosigned  by {len(data['cosigners'])} validators ({data['cosigners_needed']} needed)"
    )
