"""`hypermesh chain`: look at the chain, check it, prove what is in it, and make it smaller."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from node.cli.base import (
    ClusterName,
    HomeFolder,
    NodeURL,
    Output,
    OutputFormat,
    Yes,
    confirm,
    connect,
    emit,
    examples,
    note,
    noun,
    table,
)
from node.cli.cert import GenesisFile, trusted_genesis

if TYPE_CHECKING:
    from node.client import NodeClient
    from node.core.genesis import Genesis
    from node.witnesses import Witness, Witnesses

WITNESS_BLOCKS: Final = 100  # old blocks are compared once a page: one in common proves those below

app = noun("Look at the chain, verify it and prove what is in it.")

StoppedHome = Annotated[
    Path | None,
    typer.Option(
        "--files", metavar="DIR", help="Home folder of a stopped node; read its files instead."
    ),
]


@app.command(
    epilog=examples(
        "hypermesh chain head --cluster demo", "hypermesh chain head --node http://[::1]:9303"
    )
)
def head(
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show the newest block, how far it is certified, and what is still held."""
    with connect(node, cluster, home) as client:
        status, _ = client.status()
        block = client.block() if status.height else None
    data = {
        "chain": status.chain,
        "height": status.height,
        "height_known": status.height_known,
        "height_oldest": status.height_oldest,
        "view": status.view,
        "primary": status.primary,
        "state_root": status.state_root,
        "block": block,
    }
    lines = [
        f"chain   {status.chain}",
        f"height  {status.height:,} of {status.height_known:,} known, held from "
        f"{status.height_oldest:,}",
        f"view    {status.view} (primary {status.primary})",
        f"root    {status.state_root}",
    ]
    if block is not None:
        lines.insert(2, f"block   {block['hash']}, {block['payloads']} payloads")
    emit(output, data, "\n".join(lines))


@app.command(
    epilog=examples(
        "hypermesh chain block 42 --cluster demo",
        "hypermesh chain block 3f… --cluster demo",
        "hypermesh chain block latest --output json",
    )
)
def block(
    height: Annotated[str, typer.Argument(metavar="HEIGHT|HASH|latest", help="Which block.")],
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show one block: its header, its certificate and what is in it."""
    which = height.lower() if _is_digest(height) else _height(height)
    with connect(node, cluster, home) as client:
        data = client.block(which)

    def text() -> str:
        names = ("height", "hash", "parent", "batch_digest", "time_ms", "state_root", "payloads")
        lines = [f"{name:<13} {data[name]}" for name in names]
        certified = "yes" if data["certificate"] else "by a block above it, or not yet"
        lines.append(f"{'certificate':<13} {certified}")
        return "\n".join(lines + [f"  {identifier}" for identifier in data["payload_ids"]])

    emit(output, data, text)


@app.command(
    epilog=examples(
        "hypermesh chain follow --cluster demo",
        "hypermesh chain follow --from 1 --count 1000 --output json",
        "hypermesh chain follow --cluster demo --witness http://[::1]:9303",
    )
)
def follow(
    first: Annotated[
        int | None,
        typer.Option("--from", min=1, metavar="HEIGHT", help="First block; else the next one."),
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, help="Stop after so many; else never.")
    ] = None,
    witness: Annotated[
        list[str] | None,
        typer.Option(
            "--witness", metavar="URL", help="Compare with this node as well; may be repeated."
        ),
    ] = None,
    genesis: GenesisFile = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> int:
    """Print every block as it is executed, one line each; as JSON, one document a line.

    It can be taken up again with --from, at this node or another, after the last height shown. A
    block that was pruned meanwhile is an error that says which are held: none is left out.

    With --witness every new block is proven from genesis and compared with the other nodes. Exit
    code 1 when one of them certifies another chain; who signed both is named then.
    """
    import json
    from contextlib import ExitStack
    from itertools import islice

    from node.client import NodeClient
    from node.errors import ExitCode

    with ExitStack() as stack:
        client = stack.enter_context(connect(node, cluster, home))
        others = [stack.enter_context(NodeClient(url)) for url in witness or ()]
        watch = None
        if others:
            trusted = _genesis(genesis, cluster, home)
            watch = _witnesses(trusted, client, others)
        tip = client.status()[0].height
        start = tip + 1 if first is None else first
        last: dict[str, Any] | None = None
        forked: Witness | None = None
        for block in islice(client.follow(start), count):
            if output is OutputFormat.JSON:
                typer.echo(json.dumps(block))
            else:
                typer.echo(
                    f"{block['height']:,} {block['hash'][:16]} applied {block['applied']:,} "
                    f"failed {block['failed']:,}"
                )
            # The block before: a certificate comes one round of votes after the block.
            earlier, last = last, block
            if earlier and (earlier["height"] >= tip or earlier["height"] % WITNESS_BLOCKS == 0):
                forked = _compare(watch, earlier)
            if forked is not None:
                break
        if last and forked is None:
            forked = _compare(watch, last)
        if forked is not None:
            return _forensics(trusted, client.url, forked.name, output)
        for other in () if watch is None else watch.others:
            note(
                f"{other.name} certifies the same chain up to block {other.agreed:,}"
                + (f"; last: {other.trouble}" if other.trouble else "")
            )
        return ExitCode.OK


@app.command(
    epilog=examples("hypermesh chain tx 3f… --cluster demo", "hypermesh chain tx 3f… --output json")
)
def tx(
    identifier: Annotated[str, typer.Argument(metavar="ID", help="Id of a transaction.")],
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what became of a transaction."""
    from node.errors import NotInBlock

    with connect(node, cluster, home) as client:
        found = client.receipt(identifier)
    if found is None:
        raise NotInBlock(
            f"no block of this node holds {identifier}",
            hint="it may still wait, was refused, or is older than the blocks that are kept; "
            "sending the same bytes again is safe",
        )
    text = (
        f"{found['outcome']} at place {found['position']} of block {found['height']:,} "
        f"({found['application']}, code {found['code']})"
    )
    emit(output, found, text)


@app.command(
    epilog=examples(
        "hypermesh chain validators --cluster demo",
        "hypermesh chain validators --genesis genesis.json --output json",
    )
)
def validators(
    genesis: Annotated[
        Path | None,
        typer.Option("--genesis", metavar="FILE", help="Prove the set from this genesis."),
    ] = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show who votes now, and whom the asked node is connected to.

    With --genesis the answer is believed only if every set was certified by the one before.
    """
    from consensus.core.quorum import faults
    from node.chain import ServedChain, lineage_of, require_proven

    with connect(node, cluster, home) as client:
        data = client.validators()
        if genesis is not None:
            require_proven(data, ServedChain(client, lineage_of(_genesis(genesis, cluster, home))))
        status, _ = client.status()
    connected = {peer.node_id: peer.connected for peer in status.peers}
    for member in data["members"]:
        member["connected"] = connected.get(member["node_id"], True)

    def text() -> str:
        rows = [
            (
                str(at),
                member["name"],
                "yes" if member["connected"] else "no",
                member["node_id"],
            )
            for at, member in enumerate(data["members"])
        ]
        return (
            table(("index", "name", "connected", "node id"), rows)
            + f"\nepoch {data['epoch']}, quorum {data['quorum']}, tolerates "
            f"{faults(len(data['members']))} faulty"
        )

    emit(output, data, text)


@app.command(
    epilog=examples(
        "hypermesh chain verify --cluster demo",
        "hypermesh chain verify --files /var/lib/hypermesh --genesis genesis.json",
        "hypermesh chain verify --no-bodies --node http://[::1]:9303",
    )
)
def verify(
    genesis: GenesisFile = None,
    files: StoppedHome = None,
    bodies: Annotated[
        bool, typer.Option("--bodies/--no-bodies", help="Also check every body against its root.")
    ] = True,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check all retained blocks from genesis: headers, certificates, batches and bodies.

    Every change of the validators is followed: the old ones certified the new ones. Nothing the
    node says is believed. Where old blocks were pruned the check begins at the oldest certificate
    that is left.
    """
    from node.chain import ServedChain, StoredChain, lineage_of, verify_chain

    if files is not None:
        from node.stopped import stopped_node

        with stopped_node(files) as found:
            trusted = found.genesis if genesis is None else _genesis(genesis, cluster, home)
            stored = StoredChain(found, lineage_of(trusted))
            report = verify_chain(stored, bodies=bodies)
            epoch = len(stored.lineage.links)
    else:
        trusted = _genesis(genesis, cluster, home)
        with connect(node, cluster, home) as client:
            served = ServedChain(client, lineage_of(trusted))
            report = verify_chain(served, bodies=bodies)
            epoch = len(served.lineage.links)
    data = {
        "chain": trusted.label,
        "epoch": epoch,
        "oldest": report.oldest,
        "certified": report.certified,
        "newest": report.newest,
        "certificates": report.certificates,
        "bodies": report.bodies,
        "payloads": report.payloads,
    }
    open_blocks = report.newest - report.certified
    emit(
        output,
        data,
        f"blocks {report.oldest:,} to {report.certified:,} of {trusted.label} hold: "
        f"{report.certificates:,} certificates, {report.bodies:,} bodies, "
        f"{report.payloads:,} payloads"
        + (f"; {epoch} changes of the validators" if epoch else "")
        + (f"\n{open_blocks} newer without a certificate yet" if open_blocks else ""),
    )


@app.command(
    epilog=examples(
        "hypermesh chain prove block 42 --out block.proof --cluster demo",
        "hypermesh chain prove tx 3f… --out payment.proof --cluster demo",
        "hypermesh chain prove account hm1… --out balance.proof --cluster demo",
    )
)
def prove(
    kind: Annotated[str, typer.Argument(metavar="block|tx|account", help="What to prove.")],
    subject: Annotated[str, typer.Argument(metavar="WHICH", help="A height, an id, an address.")],
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the proof goes.")],
    genesis: GenesisFile = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Fetch a proof, check it against genesis, and write it to a file for anybody to check."""
    import json

    from node import chain
    from node.errors import InvalidArgument
    from node.home import write_replacing

    trusted = _genesis(genesis, cluster, home)
    with connect(node, cluster, home) as client:
        match kind:
            case "block":
                number = _height(subject)
                number = client.status()[0].height if number is None else number
                document = chain.header_proof_file(client.headers(number))
            case "tx":
                document = chain.payload_proof_file(client.payload_proof(subject))
            case "account":
                document = {"address": subject} | client.account(subject, prove=True)
                document = chain.account_proof_file(document)
            case _:
                raise InvalidArgument(
                    f"nothing can be proved of a {kind!r}", hint="write block, tx or account"
                )
        lineage = chain.ServedChain(client, chain.lineage_of(trusted)).lineage
        document = chain.with_links(document, lineage)
    text = json.dumps(document, indent=1) + "\n"
    proved = chain.verify_proof_file(text, trusted)
    write_replacing(out, text.encode())
    emit(output, proved.data | {"file": str(out)}, f"{proved.what}\nwrote {out}")


@app.command(
    "verify-header",
    epilog=examples(
        "hypermesh chain verify-header block.proof --genesis genesis.json",
        "hypermesh chain verify-header payment.proof --genesis genesis.json --output json",
    ),
)
def verify_header(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="What `chain prove` wrote.")],
    genesis: GenesisFile = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Check a proof of a block, a transaction or an account offline; only genesis is trusted."""
    from node.chain import verify_proof_file
    from node.inputs import input_text
    from node.limits import PROOF_FILE_SIZE_BYTES_MAX

    trusted = _genesis(genesis, cluster, home)
    text = input_text(
        file,
        size_max=PROOF_FILE_SIZE_BYTES_MAX,
        what="a proof file",
        hint="write one with `hypermesh chain prove --out FILE`",
    )
    proved = verify_proof_file(text, trusted)
    emit(output, proved.data, proved.what)


@app.command(
    "diff-state",
    epilog=examples(
        "hypermesh chain diff-state http://[::1]:9293 http://[::1]:9303",
        "hypermesh chain diff-state http://[::1]:9293 http://[::1]:9303 --output json",
    ),
)
def diff_state(
    first: Annotated[str, typer.Argument(metavar="URL", help="One node.")],
    second: Annotated[str, typer.Argument(metavar="URL", help="The other node.")],
    output: Output = OutputFormat.TEXT,
) -> int:
    """Find where the states of two nodes differ, down to one account. Exit code 1 when they do."""
    from node.client import NodeClient
    from node.errors import ExitCode
    from node.states import compare

    with NodeClient(first) as one, NodeClient(second) as other:
        found = compare(one, other)
    names = {1: "ledger", 2: "certificate log", 3: "validators"}
    data = {
        "height": found.height,
        "same": not found.applications,
        "applications": [names.get(tag, str(tag)) for tag in found.applications],
        "key": None if found.key is None else found.key.hex(),
        "account": found.account or None,
        "balances": None
        if found.key is None
        else [None if leaf is None else str(leaf[1]) for leaf in (found.first, found.second)],
        "questions": found.questions,
    }

    def text() -> str:
        if not found.applications:
            return f"the states after block {found.height:,} are the same"
        lines = [f"after block {found.height:,} these differ: {', '.join(data['applications'])}"]  # type: ignore[arg-type]
        if found.key is not None:
            where = found.account or "an account"
            lines.append(f"{where} (tree key {found.key.hex()})")
            for url, leaf in ((first, found.first), (second, found.second)):
                holds = "is not there" if leaf is None else f"{leaf[1]:,} base units"
                lines.append(f"  {url}: {holds}")
        return "\n".join(lines)

    emit(output, data, text)
    return ExitCode.FAILED if found.applications else ExitCode.OK


@app.command(
    epilog=examples(
        "hypermesh chain forensics http://[::1]:9293 http://[::1]:9303 --genesis genesis.json",
        "hypermesh chain forensics http://[::1]:9293 http://[::1]:9303 --cluster demo -o json",
    )
)
def forensics(
    first: Annotated[str, typer.Argument(metavar="URL", help="One node.")],
    second: Annotated[str, typer.Argument(metavar="URL", help="The other node.")],
    genesis: GenesisFile = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> int:
    """Find where two nodes hold different certified blocks, and name who signed both.

    Exit code 1 when the chains differ. The contradictions are checked with the keys of the
    epoch they were signed in, proven from genesis.
    """
    return _forensics(_genesis(genesis, cluster, home), first, second, output)


def _witnesses(trusted: Genesis, client: NodeClient, others: list[NodeClient]) -> Witnesses:
    from node.chain import ServedChain, lineage_of
    from node.witnesses import Witness, Witnesses

    lineage = lineage_of(trusted)
    return Witnesses(
        ServedChain(client, lineage),
        [Witness(name=other.url, chain=ServedChain(other, lineage)) for other in others],
    )


def _compare(watch: Witnesses | None, block: dict[str, Any]) -> Witness | None:
    """The witness that certifies another block than this one."""
    if watch is None:
        return None
    forked = watch.compare(block["height"], bytes.fromhex(block["hash"]))
    if forked is not None:
        note(f"{forked.name} certifies another block {block['height']:,}")
    return forked


def _forensics(trusted: Genesis, first: str, second: str, output: OutputFormat) -> int:
    from node.chain import ServedChain, lineage_of
    from node.client import NodeClient
    from node.errors import ExitCode
    from node.forks import find_fork

    genesis_only = lineage_of(trusted)
    with NodeClient(first) as one, NodeClient(second) as other:
        fork = find_fork(ServedChain(one, genesis_only), ServedChain(other, genesis_only))
    if fork is None:
        emit(output, {"fork": None}, "the certified blocks of both nodes are one chain")
        return ExitCode.OK
    culprits = [
        {"name": fork.validators.members[found.signer].name, "reason": found.reason}
        for found in fork.verdict.contradictions
    ]
    data = {
        "fork": fork.height,
        "culprits": culprits,
        "needed": fork.verdict.needed,
        "complete": fork.verdict.complete,
    }
    lines = [f"block {fork.height:,} is another one on each side"]
    lines += [f"  {culprit['name']} signed {culprit['reason']}" for culprit in culprits]
    if not fork.verdict.complete:
        lines.append(
            f"at least {fork.verdict.needed} must have lied; the certificates of these two nodes "
            "do not show all of them"
        )
    emit(output, data, "\n".join(lines))
    return ExitCode.FAILED


@app.command(
    epilog=examples(
        "hypermesh chain prune --files /var/lib/hypermesh --keep-blocks 100000 --yes",
        "hypermesh chain prune --files n0",
    )
)
def prune(
    files: Annotated[
        Path, typer.Option("--files", metavar="DIR", help="Home folder of a stopped node.")
    ],
    keep_blocks: Annotated[
        int, typer.Option("--keep-blocks", min=0, help="As storage.retain_blocks; 0 is no limit.")
    ] = 0,
    keep_days: Annotated[
        int, typer.Option("--keep-days", min=0, help="As storage.retain_days; 0 is no limit.")
    ] = 0,
    yes: Yes = False,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Forget old blocks of a stopped node and write its files anew, as small as they can be.

    Without a limit nothing is forgotten, but files that could not shrink can from then on. A
    running node prunes itself: see storage.retain_blocks. Blocks from the height of the oldest
    snapshot on stay, and all of them where there is no snapshot. Signing records, certificates and
    state are never touched.
    """
    from consensus.runtime import space
    from node.runtime.pruner import Retention, prune_stopped
    from node.stopped import stopped_node

    retention = Retention(blocks=keep_blocks, days=keep_days)
    with stopped_node(files) as found:
        paths = (found.home.consensus_database, found.home.state_database)
        before = sum(path.stat().st_size for path in paths)
        if retention.limited:
            confirm(
                f"Forget old blocks of {found.home.path} for good? Other nodes may still have them",
                yes=yes,
            )
        blocks = prune_stopped(
            retention, found.state, found.store, found.bounds, snapshots=found.home.snapshots
        )
        oldest = found.state.oldest
        found.state.close()
        found.store.close()
        for path in paths:
            space.rebuild(path)
        after = sum(path.stat().st_size for path in paths)
    data = {
        "blocks_pruned": blocks,
        "height_oldest": oldest,
        "size_bytes_before": before,
        "size_bytes": after,
    }
    emit(
        output,
        data,
        f"forgot {blocks:,} blocks, the oldest is now {oldest:,}; "
        f"{before / 1e6:,.1f} MB became {after / 1e6:,.1f} MB",
    )


@app.command(epilog=examples("hypermesh chain replay --files n0"))
def replay(
    files: Annotated[
        Path, typer.Option("--files", metavar="DIR", help="Home folder of a stopped node.")
    ],
    output: Output = OutputFormat.TEXT,
) -> None:
    """Execute again the blocks that a stopped node agreed on and whose state it lost.

    For a node that has nobody to ask: after the loss of state.db on all nodes at once. After a
    power cut a node does this by itself when it starts, and one that lost more gets its state from
    the others. What was pruned is not there any more: restore a snapshot first.
    """
    from node.runtime.offline import replay as replay_stopped
    from node.stopped import stopped_node

    with stopped_node(files, state_may_be_lost=True) as found:
        before = found.state.height
        root = replay_stopped(found, lambda height: note(f"at block {height:,}"))
        after = found.state.height
    emit(
        output,
        {"height_before": before, "height": after, "state_root": root.hex()},
        f"executed {after - before:,} blocks again; the state is that of block {after:,}, "
        f"root {root.hex()}",
    )


@app.command(
    epilog=examples(
        "hypermesh chain rollback --files n0", "hypermesh chain rollback --files n0 --yes"
    )
)
def rollback(
    files: Annotated[
        Path, typer.Option("--files", metavar="DIR", help="Home folder of a stopped node.")
    ],
    yes: Yes = False,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Take the newest block of a stopped node back, so that it is executed again.

    Refused when this node has voted for the result: it could then say two things about one block.
    The signing record is never touched; the block stays agreed, only its execution is undone.
    """
    from node.rollback import roll_back
    from node.stopped import stopped_node

    with stopped_node(files) as found:
        confirm(f"Take back block {found.state.height:,} of {found.home.path}?", yes=yes)
        height = roll_back(found)
    emit(
        output,
        {"height": height},
        f"the newest block is now {height:,}; it goes on from there when the node starts",
    )
    note("next: start the node; it executes the block again from what was agreed")


def _is_digest(text: str) -> bool:
    return len(text) == 64 and all(digit in "0123456789abcdef" for digit in text.lower())


def _height(text: str) -> int | None:
    from node.errors import InvalidArgument

    if text == "latest":
        return None
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise InvalidArgument(f"{text!r} is not a height", hint="a whole number, or 'latest'")
    return int(text)


def _genesis(genesis: Path | None, cluster: str | None, home: Path | None) -> Genesis:
    from node.preflight import read_genesis

    return read_genesis(trusted_genesis(genesis, cluster, home))
