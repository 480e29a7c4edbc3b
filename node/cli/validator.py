"""`hypermesh validator`: see who votes, and change it together with the other operators."""

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
    Timeout,
    Yes,
    confirm,
    connect,
    emit,
    examples,
    note,
    noun,
    require_input,
    seconds,
    table,
)

if TYPE_CHECKING:
    from consensus.core.validators import Validator
    from native.keys import SecretKey
    from node.changes import ChangeFile, Present
    from node.client import NodeClient
    from node.core.genesis import Genesis

app = noun("See who votes, and change it together with the other operators.")

ChangePath = Annotated[Path, typer.Argument(metavar="FILE", help="The change file.")]
VALID_FOR_DEFAULT = 100_000


@app.command(
    epilog=examples(
        "hypermesh validator status --cluster demo", "hypermesh validator status --output json"
    )
)
def status(
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show the validator set, and the next one if it is ordered."""
    with connect(node, cluster, home) as client:
        data = client.validators()
    emit(output, data, lambda: _status_text(data))


@app.command(
    epilog=examples(
        "hypermesh validator evidence --cluster demo",
        "hypermesh validator evidence --output json",
    )
)
def evidence(
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show which validators provably said two things that exclude each other."""
    with connect(node, cluster, home) as client:
        data = client.validators()["offences"]
    emit(output, data, lambda: _evidence_text(data))


@app.command(epilog=examples("hypermesh validator key --home n4"))
def key(home: HomeFolder = None, output: Output = OutputFormat.TEXT) -> None:
    """Print the public keys of a home folder: what `propose --add` takes.

    The node's key, its cosigner key, and the hash of its issuing certificate if it has one.
    """
    from node.changes import key_text

    public, credentials = _secret(home).public, _credentials(home)
    text = key_text(public, credentials)
    emit(output, {"node_id": public.node_id.hex(), "key": text}, text)
    if not credentials:
        note("this home has no cosigner key, so its node would vote but not cosign: ca request")


@app.command(
    epilog=examples(
        "hypermesh validator propose change.json --remove n3 --add n4=MDkwBw... --cluster demo",
        "hypermesh validator propose change.json --rotate n1=new-home --cluster demo",
    )
)
def propose(
    file: ChangePath,
    remove: Annotated[
        list[str] | None, typer.Option("--remove", metavar="NAME", help="Who leaves.")
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option("--add", metavar="NAME=KEY", help="Who joins: key text or home folder."),
    ] = None,
    rotate: Annotated[
        list[str] | None,
        typer.Option("--rotate", metavar="NAME=KEY", help="Who gets a new key."),
    ] = None,
    valid_for: Annotated[
        int, typer.Option("--valid-for", metavar="BLOCKS", min=1, help="Void after so many blocks.")
    ] = VALID_FOR_DEFAULT,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Write a change of the present validator set to a new file. Nothing is sent."""
    from node.changes import explain
    from node.changes import propose as make
    from node.errors import InvalidArgument

    adds = [_named(text) for text in add or []]
    rotations = [_named(text) for text in rotate or []]
    with connect(node, cluster, home) as client:
        present = _present(client)
    found = make(
        present,
        removes=remove or [],
        adds=adds,
        rotations=rotations,
        valid_for=valid_for,
        genesis=_genesis_if_here(present, cluster, home),
    )
    try:
        found.write(file, new=True)
    except FileExistsError:
        raise InvalidArgument(
            f"{file} is there already", hint="choose another name, or remove that file"
        ) from None
    emit(output, _data(present, found, file), lambda: explain(present, found))
    note(f"wrote {file}; next: hypermesh validator approve {file}, by {_needed(present)} operators")


@app.command(
    epilog=examples(
        "hypermesh validator approve change.json --home n0",
        "hypermesh validator approve change.json --home n0 --yes",
    )
)
def approve(
    file: ChangePath,
    yes: Yes = False,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what a change means, and sign it with the key of this home."""
    from node.changes import ChangeFile, explain
    from node.errors import ChangeOutdated

    require_input(file)
    found = ChangeFile.read(file)
    secret = _secret(home)
    with connect(node, cluster, home) as client:
        present = _present(client)
    genesis = _genesis(home)
    if genesis.chain_id != present.chain_id:
        raise ChangeOutdated(
            f"{present.chain} is another network than that of this home",
            hint="approve with the home folder of a validator of that network",
        )
    approved = found.approved_by(present, secret)
    note(explain(present, found, genesis))
    confirm("Approve this change?", yes=yes)
    approved.write(file, new=False)
    count, needed = len(approved.valid_approvals(present)), _needed(present)
    emit(
        output,
        _data(present, approved, file),
        f"{file}: {count} of {needed} approvals",
    )
    if count >= needed:
        note(f"next: hypermesh validator submit {file}")


@app.command(
    epilog=examples(
        "hypermesh validator submit change.json --cluster demo",
        "hypermesh validator submit change.json --joiner n4 --cluster demo",
    )
)
def submit(
    file: ChangePath,
    joiner: Annotated[
        list[Path] | None,
        typer.Option("--joiner", metavar="HOME", help="Home folder of a new key, on this machine."),
    ] = None,
    timeout: Timeout = "30s",
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Have an approved change ordered; new keys sign the newest block first."""
    from native.values import Digest
    from node.changes import ChangeFile, check_log_keys
    from node.errors import ChangeImpossible, ChangeOpen
    from node.home import Home
    from node.logkeys import Joiner

    require_input(file)
    found = ChangeFile.read(file)
    limit = seconds(timeout)
    joiners = [Joiner(secret=_secret(folder), home=Home(folder)) for folder in joiner or []]
    with connect(node, cluster, home) as client:
        present = _present(client)
        members = present.after(found.change)
        check_log_keys(found.change, members, _genesis_if_here(present, cluster, home))
        count, needed = len(found.valid_approvals(present)), _needed(present)
        if count < needed:
            raise ChangeImpossible(
                f"{count} of {needed} approvals are there and hold",
                hint=f"have more operators run `hypermesh validator approve {file}`",
            )
        block = client.block()
        payload = found.signed(
            present,
            joiners,
            height=int(block["height"]),
            header_hash=Digest(bytes.fromhex(block["hash"])),
        ).encode()
        answer = client.submit([payload], timeout_s=limit)
        result = answer["results"][0]
        if result["outcome"] == "pending":
            raise ChangeOpen(
                f"change {result['id']} was sent but is not ordered yet",
                hint="look with `hypermesh validator status`; the same change is never made twice",
            )
        after = client.validators()["pending"]
    data = {"id": result["id"], "outcome": result["outcome"], "height": result["height"]}
    text = f"change {result['id']}: {result['outcome']} in block {result['height'] or 0:,}"
    if after is not None:
        data["effective_after"] = after["effective_after"]
        text += f", votes after block {after['effective_after']:,}"
    emit(output, data, text)


# --- inside


def _present(client: NodeClient) -> Present:
    from node.changes import Present

    return Present.of(client.validators(), client.url)


def _needed(present: Present) -> int:
    from consensus.core.quorum import quorum

    return quorum(len(present.members.members))


def _secret(home: Path | None) -> SecretKey:
    """The node key of a home folder."""
    from native.keys import SecretKey
    from node.home import Home, default_home, require_private

    found = Home(home or default_home())
    found.require_folder()
    require_private(found.node_key)
    return SecretKey.load(found.node_key)


def _credentials(home: Path | None) -> bytes:
    """What the node of a home folder brings for the certificate log."""
    from node.home import Home, default_home
    from node.logkeys import credentials_of

    found = Home(home or default_home())
    if not found.cosigner_key.exists():
        return b""
    return credentials_of(found, _genesis(home).log)


def _genesis(home: Path | None) -> Genesis:
    """The network that a home folder trusts."""
    from node.home import Home, default_home
    from node.preflight import read_genesis

    return read_genesis(Home(home or default_home()).genesis)


def _genesis_if_here(present: Present, cluster: str | None, home: Path | None) -> Genesis | None:
    """The genesis of the network of these validators, if this machine has it."""
    from node.errors import GenesisInvalid
    from node.home import Home, default_home
    from node.preflight import read_genesis

    if cluster:
        from node.cluster.manifest import find_cluster

        file = find_cluster(cluster).genesis
    else:
        file = Home(home or default_home()).genesis
    if not file.is_file():
        return None
    try:
        found = read_genesis(file)
    except GenesisInvalid:
        if cluster or home:
            raise
        return None  # of another network perhaps, and nobody named it
    return found if found.chain_id == present.chain_id else None


def _named(text: str) -> Validator:
    """Read NAME=KEY, where KEY is what `validator key` prints, or a home folder."""
    from caesar.core.changes import NAME_PATTERN
    from caesar.limits import VALIDATOR_NAME_LENGTH_MAX
    from consensus.core.validators import Validator
    from native.errors import NativeError
    from node.changes import parse_key
    from node.errors import InvalidArgument

    name, _, value = text.partition("=")
    if len(name) > VALIDATOR_NAME_LENGTH_MAX or not NAME_PATTERN.fullmatch(name) or not value:
        raise InvalidArgument(
            f"{text[:60]!r} is not NAME=KEY",
            hint="such as n4=KEY, with what `hypermesh validator key` prints on the new node",
        )
    try:
        is_folder = Path(value).is_dir()
    except OSError:  # a key is longer than a file name may be
        is_folder = False
    if is_folder:
        folder = Path(value)
        return Validator(name=name, key=_secret(folder).public, credentials=_credentials(folder))
    try:
        return parse_key(name, value)
    except (ValueError, NativeError) as error:
        raise InvalidArgument(
            f"{name}: neither a public key nor a home folder: {error}",
            hint="copy what `hypermesh validator key` prints on the new node, whole",
        ) from None


def _data(present: Present, found: ChangeFile, file: Path) -> dict[str, Any]:
    change = found.change
    return {
        "file": str(file),
        "id": change.id.hex(),
        "base_epoch": int(change.base_epoch),
        "valid_until": change.valid_until,
        "remove": list(change.removes),
        "add": [entry.name for entry in change.adds],
        "rotate": [entry.name for entry in change.rotations],
        "members": [entry.name for entry in present.after(change)],
        "approvals": len(found.valid_approvals(present)),
        "approvals_needed": _needed(present),
    }


def _status_text(data: dict[str, Any]) -> str:
    members = data["members"]
    rows = [
        (str(at), member["name"], member["node_id"][:16], "lied" if member["tombstone"] else "")
        for at, member in enumerate(members)
    ]
    lines = [
        f"{data['chain']} at height {data['height']:,}: epoch {data['epoch']}, "
        f"{len(members)} validators, quorum {data['quorum']}",
        table(("index", "name", "node id", ""), rows),
    ]
    pending = data["pending"]
    if pending is not None:
        names = ", ".join(member["name"] for member in pending["members"])
        why = "after proof of a lie" if pending["automatic"] else "by the operators"
        lines.append(
            f"epoch {pending['epoch']} ({why}) votes after block "
            f"{pending['effective_after']:,}: {names}"
        )
    return "\n".join(lines)


def _evidence_text(data: list[dict[str, Any]]) -> str:
    if not data:
        return "no lie of a validator was proven"
    rows = [
        (
            entry["name"],
            entry["node_id"][:16],
            entry["offence"],
            str(entry["epoch"]),
            f"{entry['height']:,}",
            entry["evidence"][:16],
        )
        for entry in data
    ]
    return table(("name", "node id", "offence", "epoch", "block", "evidence"), rows)
