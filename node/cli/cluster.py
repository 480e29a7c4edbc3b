"""`hypermesh cluster`: small networks of real processes on this machine."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Any

import typer

from node.cli.base import (
    Output,
    OutputFormat,
    PassphraseFile,
    Timeout,
    Yes,
    confirm,
    emit,
    examples,
    note,
    noun,
    passphrase,
    seconds,
    table,
)
from node.errors import ExitCode

app = noun("Make, run and hurt a small network on this machine.")

Name = Annotated[str, typer.Argument(metavar="NAME", help="Name of the cluster, or its folder.")]
Folder = Annotated[
    Path | None,
    typer.Option("--dir", metavar="DIR", help="Folder of all clusters. Also $HYPERMESH_CLUSTERS."),
]
Height = Annotated[
    str | None, typer.Option(metavar="N|+N", help="Wait for this block, or for so many more.")
]


@app.command(
    epilog=examples(
        "hypermesh cluster new demo --nodes 4",
        "hypermesh cluster new seven --nodes 7 --base-port 9400 --dir ./clusters",
    )
)
def new(
    name: Name,
    nodes: Annotated[int, typer.Option("--nodes", "-n", help="How many validators.")] = 4,
    base_port: Annotated[int, typer.Option(help="First port; each node takes ten.")] = 9290,
    rotation_blocks: Annotated[
        int,
        typer.Option(help="Blocks a primary leads before the next one; 0: until it fails."),
    ] = 0,
    folder: Folder = None,
    passphrase_file: PassphraseFile = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Make keys, genesis and a home for each node; start nothing.

    The enrolment key may have certificates issued for every name below `mesh`, such as alice.mesh.
    Without --passphrase-file a random passphrase for the root key and the treasury wallet is
    written into the folder `offline`, which you then move away.
    """
    from node.cluster.create import create_cluster
    from node.cluster.manifest import check_layout, check_name, check_rotation, clusters_folder

    check_layout(nodes, base_port)
    check_rotation(rotation_blocks)
    cluster = create_cluster(
        clusters_folder(folder) / check_name(name),
        name=name,
        nodes=nodes,
        base_port=base_port,
        passphrase=chosen_passphrase(passphrase_file),
        rotation_blocks=rotation_blocks,
    )
    data = {
        "name": name,
        "chain": cluster.chain,
        "folder": str(cluster.folder),
        "nodes": [
            {"name": member.name, "node_id": member.node_id, "url": member.url}
            for member in cluster.members
        ],
        "treasury": str(cluster.wallets / "treasury.key"),
        "enrolment_key": str(cluster.enrolment_key),
        "offline": str(cluster.offline),
    }
    rows = [
        (member.name, str(member.stoq_port), str(member.http_port), member.node_id[:16])
        for member in cluster.members
    ]
    head = f"chain {cluster.chain} in {cluster.folder}"
    emit(output, data, f"{head}\n\n{table(('node', 'STOQ', 'HTTP', 'id'), rows)}")
    note(
        f"\nMove {cluster.offline} to a safe place: it holds the root key of all certificates. "
        "Nodes never need it."
    )
    note(f"next: hypermesh cluster up {name}")


def chosen_passphrase(file: str | None) -> str | None:
    """Return the passphrase of a file, or None to have one made."""
    return None if file is None else passphrase(file, prompt="Passphrase", new=True)


@app.command(
    epilog=examples("hypermesh cluster up demo", "hypermesh cluster up demo --timeout 60s")
)
def up(
    name: Name,
    folder: Folder = None,
    height: Height = "1",
    timeout: Timeout = "30s",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Start every node that does not run, and wait until all are ready at block 1.

    All ports are checked first; the process that holds one is named and nothing is started.
    """
    from node.cluster.manifest import Member, find_cluster
    from node.cluster.operate import running_process, start, wait_ready
    from node.status import Status

    limit = seconds(timeout)
    cluster = find_cluster(name, folder)
    began = time.monotonic()
    started = start(cluster.members)
    note(f"started {', '.join(member.name for member in started) or 'nothing: all run already'}")

    def report(member: Member, status: Status) -> None:
        note(f"  {member.name} ready at height {status.height:,}  {member.url}")

    wait_ready(
        cluster.members, timeout_s=limit, height=_absolute(height, lambda: 0), on_ready=report
    )
    took = time.monotonic() - began
    data = {
        "name": cluster.name,
        "chain": cluster.chain,
        "ready_s": round(took, 3),
        "nodes": [
            {
                "name": member.name,
                "url": member.url,
                "pid": found.pid if (found := running_process(member)) else None,
            }
            for member in cluster.members
        ],
    }
    emit(output, data, f"cluster {cluster.name} is up after {took:.1f} s ({cluster.chain})")


@app.command(epilog=examples("hypermesh cluster down demo"))
def down(
    name: Name,
    folder: Folder = None,
    timeout: Timeout = "10s",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Stop all nodes: SIGTERM, and SIGKILL after the time-out."""
    from node.cluster.manifest import find_cluster
    from node.cluster.operate import stop

    limit = seconds(timeout)
    cluster = find_cluster(name, folder)
    ended = stop(cluster.members, timeout_s=limit)
    data = {
        "name": cluster.name,
        "nodes": {member.name: ended.get(member.name, "not running") for member in cluster.members},
    }
    words = ", ".join(f"{node} {how}" for node, how in ended.items())
    emit(output, data, f"cluster {cluster.name}: {words or 'nothing was running'}")


@app.command(
    epilog=examples("hypermesh cluster status demo", "hypermesh cluster status demo -o json")
)
def status(name: Name, folder: Folder = None, output: Output = OutputFormat.TEXT) -> int:
    """Show every node in one table. Exit code 5 unless all are ready."""
    from node.cluster.manifest import find_cluster
    from node.cluster.operate import MemberState, inspect
    from node.processes import resident_bytes

    cluster = find_cluster(name, folder)
    states = [inspect(member) for member in cluster.members]

    def document(state: MemberState) -> dict[str, Any]:
        found: dict[str, Any] = {
            "name": state.member.name,
            "url": state.member.url,
            "state": state.word,
            "reason": state.reason,
            "pid": state.process.pid if state.process else None,
            "rss_bytes": resident_bytes(state.process.pid) if state.process else 0,
        }
        if state.status:
            found |= {
                "height": state.status.height,
                "view": state.status.view,
                "primary": state.status.primary,
                "state_root": state.status.state_root,
                "voting": state.status.voting,
            }
        return found

    documents = [document(state) for state in states]

    def text() -> str:
        rows = [
            (
                item["name"],
                item["state"],
                f"{item['height']:,}" if "height" in item else "-",
                str(item.get("view", "-")),
                str(item.get("primary", "-")),
                f"{item['rss_bytes'] // 1_000_000}",
                str(item["pid"] or "-"),
                item.get("state_root", "-")[:16],
                item["reason"],
            )
            for item in documents
        ]
        columns = (
            "node",
            "state",
            "height",
            "view",
            "primary",
            "MB",
            "pid",
            "root",
            "why not ready",
        )
        return f"cluster {cluster.name}  {cluster.chain}\n\n{table(columns, rows)}"

    emit(output, {"name": cluster.name, "chain": cluster.chain, "nodes": documents}, text)
    if all(state.process is None for state in states):
        return ExitCode.NOT_REACHABLE
    return ExitCode.OK if all(state.ready for state in states) else ExitCode.NOT_READY


@app.command(
    epilog=examples(
        "hypermesh cluster wait demo --height +10",
        "hypermesh cluster wait demo --ready --timeout 2m",
    )
)
def wait(
    name: Name,
    folder: Folder = None,
    ready: Annotated[
        bool, typer.Option("--ready", help="Wait until all are ready; always done.")
    ] = False,
    height: Height = None,
    timeout: Timeout = "60s",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Wait until all running nodes are ready, and at a height if given."""
    from node.cluster.manifest import find_cluster

    del ready  # the default and only condition beside the height
    cluster = find_cluster(name, folder)
    _wait(cluster, height, seconds(timeout), output)


def _wait(cluster: Any, height: str | None, limit: float, output: OutputFormat) -> None:
    from node.cluster.operate import highest, running_process, wait_ready
    from node.errors import NotReady

    goal = _absolute(height, lambda: highest(cluster))
    running = [member for member in cluster.members if running_process(member)]
    if not running:
        raise NotReady(
            f"no node of {cluster.name} runs", hint=f"hypermesh cluster up {cluster.name}"
        )
    began = time.monotonic()
    wait_ready(running, timeout_s=limit, height=goal)
    data = {
        "name": cluster.name,
        "nodes": [member.name for member in running],
        "height": goal,
        "waited_s": round(time.monotonic() - began, 3),
    }
    emit(
        output, data, f"{len(running)} nodes of {cluster.name} are ready at height {goal:,} or more"
    )


@app.command(
    epilog=examples(
        "hypermesh cluster perturb demo kill n2",
        "hypermesh cluster perturb demo kill n2 --then wait --height +10",
        "hypermesh cluster perturb demo restart n2",
    )
)
def perturb(
    name: Name,
    action: Annotated[
        str, typer.Argument(metavar="ACTION", help="kill, pause, resume or restart.")
    ],
    node: Annotated[str, typer.Argument(metavar="NODE", help="Which node, such as n2.")],
    folder: Folder = None,
    then: Annotated[
        str | None, typer.Option("--then", metavar="wait", help="Afterwards wait for the others.")
    ] = None,
    height: Height = None,
    timeout: Timeout = "60s",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Hurt or heal one node: SIGKILL, SIGSTOP, SIGCONT, or stop and start it."""
    from node.cluster import operate
    from node.cluster.manifest import find_cluster
    from node.errors import InvalidArgument

    limit = seconds(timeout)
    try:
        what = operate.Action(action)
    except ValueError:
        known = ", ".join(operate.Action)
        raise InvalidArgument(f"{action!r} is not an action", hint=f"use one of {known}") from None
    if then not in (None, "wait"):
        raise InvalidArgument(f"--then {then} is not known", hint="the only one is --then wait")
    if height is not None and then is None:
        raise InvalidArgument(
            "--height says what to wait for and nothing waits", hint="add --then wait"
        )
    cluster = find_cluster(name, folder)
    member = cluster.member(node)
    goal = height
    if then and height and height.startswith("+"):
        goal = str(_absolute(height, lambda: operate.highest(cluster)))
    operate.perturb(member, what)
    data: dict[str, Any]
    if then is None:
        data = {"name": cluster.name, "node": node, "action": what.value}
        emit(output, data, f"{node}: {what.value} done")
        return
    note(f"{node}: {what.value} done")
    others = [
        other
        for other in cluster.members
        if (found := operate.running_process(other)) and not found.paused
    ]
    began = time.monotonic()
    operate.wait_ready(others, timeout_s=limit, height=_absolute(goal, lambda: 0))
    data = {
        "name": cluster.name,
        "node": node,
        "action": what.value,
        "nodes": [other.name for other in others],
        "height": _absolute(goal, lambda: 0),
        "waited_s": round(time.monotonic() - began, 3),
    }
    emit(output, data, f"{len(others)} nodes are ready at height {data['height']:,} or more")


@app.command(epilog=examples("hypermesh cluster destroy demo --yes"))
def destroy(
    name: Name, folder: Folder = None, yes: Yes = False, output: Output = OutputFormat.TEXT
) -> None:
    """Stop all nodes and delete the cluster's folder with all keys and data."""
    import shutil

    from node.cluster.manifest import find_cluster
    from node.cluster.operate import stop

    cluster = find_cluster(name, folder)
    confirm(f"Delete {cluster.folder} with all its keys, wallets and data?", yes=yes)
    stop(cluster.members)
    shutil.rmtree(cluster.folder)
    data = {"name": cluster.name, "folder": str(cluster.folder), "destroyed": True}
    emit(output, data, f"cluster {cluster.name} is gone ({cluster.folder})")


def _absolute(height: str | None, base: Any) -> int:
    """Read a height: a number, or +N on top of `base()`."""
    from node.errors import InvalidArgument

    if height is None:
        return 0
    number = height.removeprefix("+")
    if not number.isdigit():
        raise InvalidArgument(f"{height!r} is not a height", hint="write 10, or +10 for ten more")
    return int(number) + (int(base()) if height.startswith("+") else 0)
