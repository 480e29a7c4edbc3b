"""`hypermesh cert`: get certificates from the agreed log, look at them, verify them offline."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from node.cli.base import (
    ClusterName,
    HomeFolder,
    NodeURL,
    Output,
    OutputFormat,
    PassphraseFile,
    connect,
    emit,
    examples,
    note,
    noun,
    require_input,
)

if TYPE_CHECKING:
    from node.core.genesis import Genesis
    from trustchain.core.roster import Succession
    from trustchain.runtime.verify import Verified

app = noun("Issue, show and verify certificates.")

GenesisFile = Annotated[
    Path | None,
    typer.Option("--genesis", metavar="FILE", help="The genesis to trust; else the cluster's."),
]
CosignersFile = Annotated[
    Path | None,
    typer.Option("--cosigners", metavar="FILE", help="What `cert cosigners` wrote."),
]
BundleFile = Annotated[
    Path, typer.Argument(metavar="FILE", help="A bundle that `cert issue` wrote.")
]
KEY_ALGORITHMS = ("ml-dsa-65", "ed25519", "p-256")


@app.command(
    epilog=examples(
        "hypermesh cert issue --cluster demo --name alice.mesh",
        "hypermesh cert issue --node http://[::1]:9293 --genesis genesis.json "
        "--enrolment-key enrolment.key --name web.mesh --name www.mesh --key p-256 --out web",
    )
)
def issue(
    name: Annotated[
        list[str], typer.Option("--name", metavar="NAME", help="DNS name; may be repeated.")
    ],
    key: Annotated[
        str, typer.Option("--key", help=f"Algorithm: {', '.join(KEY_ALGORITHMS)}.")
    ] = "ml-dsa-65",
    key_file: Annotated[
        Path | None,
        typer.Option("--key-file", metavar="FILE", help="Use this key instead of a new one."),
    ] = None,
    out: Annotated[
        str | None, typer.Option("--out", metavar="PATH", help="Writes PATH.pem and PATH.key.")
    ] = None,
    enrolment_key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Key that authorises the request; else the cluster's."),
    ] = None,
    genesis: GenesisFile = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    passphrase_file: PassphraseFile = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Make a key here, have its certificate ordered and logged, verify it, and write both files.

    The bundle holds the X.509 chain, the proof that it is in the log, and the cosigned checkpoint.
    """
    from node.cli.base import passphrase
    from node.errors import InvalidArgument
    from node.home import write_new
    from node.succession import fetch
    from trustchain import client as requester
    from trustchain.core.oids import KeyAlgorithm
    from trustchain.runtime.verify import verify_bundle

    algorithms = {
        "ml-dsa-65": KeyAlgorithm.ML_DSA_65,
        "ed25519": KeyAlgorithm.ED25519,
        "p-256": KeyAlgorithm.P256,
    }
    if key not in algorithms:
        raise InvalidArgument(
            f"{key!r} is not a key algorithm", hint=f"use one of {', '.join(KEY_ALGORITHMS)}"
        )
    base = Path(out or name[0])
    bundle_path, key_path = base.with_name(f"{base.name}.pem"), base.with_name(f"{base.name}.key")
    if not (base.parent.is_dir() and os.access(base.parent, os.W_OK | os.X_OK)):
        raise InvalidArgument(
            f"{base.parent}: not a folder that can be written", hint="choose another with --out"
        )
    if bundle_path.exists():
        raise InvalidArgument(
            f"{bundle_path} exists already", hint="choose another name with --out"
        )
    if key_file is None and key_path.exists():
        raise InvalidArgument(
            f"{key_path} exists already",
            hint=f"choose another name with --out, or use this key: --key-file {key_path}",
        )
    chain = _trusted(genesis, cluster, home)
    require_input(key_file)
    enrolment_path = require_input(enrolment_key) or _enrolment_key(cluster, home)
    secret = passphrase(passphrase_file, prompt="Passphrase") if passphrase_file else None
    enrolment = requester.load_enrolment_key(enrolment_path, secret)
    own = requester.load_requester_key(key_file) if key_file else None
    own = own or requester.generate_key(algorithms[key])
    operation = requester.issue_operation(
        requester.certification_request(own, name),
        chain_id=chain.chain_id,
        enrolment=enrolment,
        request_id=requester.new_request_id(),
    )
    if key_file is None:  # before anything is ordered: a certificate without its key is lost
        requester.write_key(key_path, own, None)
    try:
        with connect(node, cluster, home) as client:
            began = time.perf_counter()
            text = client.issue_certificate(requester.encode_submission(operation))
            took_ms = (time.perf_counter() - began) * 1000
            _, succession = fetch(client, chain)
        verified = verify_bundle(
            text, chain.log, at_s=int(time.time()), name=name[0], succession=succession
        )
        write_new(bundle_path, text.encode())
    except BaseException:
        if key_file is None:
            note(f"the key is kept in {key_path}; to try again with it: --key-file {key_path}")
        raise
    data = _document(verified, chain, succession) | {
        "bundle": str(bundle_path),
        "key": str(key_file or key_path),
        "issue_ms": round(took_ms, 1),
    }
    emit(output, data, lambda: _text(data))
    note(f"wrote {bundle_path}" + ("" if key_file else f" and {key_path} (mode 0600)"))


@app.command(
    epilog=examples(
        "hypermesh cert show alice.mesh.pem",
        "hypermesh cert show --index 12 --cluster demo --save again.pem",
    )
)
def show(
    file: Annotated[
        Path | None, typer.Argument(metavar="FILE", help="A bundle that `cert issue` wrote.")
    ] = None,
    index: Annotated[
        int | None, typer.Option(min=0, help="Instead: this entry of the log, from a node.")
    ] = None,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="With --index: also write the bundle, a new file."),
    ] = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what a bundle says, without judging it; `cert verify` judges."""
    from node.errors import InvalidArgument
    from node.home import write_new
    from trustchain.core.bundle import Bundle
    from trustchain.core.certificates import Certificate

    if (file is None) == (index is None):
        raise InvalidArgument("name a file or an --index", hint="hypermesh cert show alice.pem")
    if save is not None and (index is None or save.exists()):
        raise InvalidArgument(
            f"{save} exists already" if index is not None else "--save needs --index",
            hint="hypermesh cert show --index 12 --save FILE, with a new file",
        )
    if index is not None:
        with connect(node, cluster, home) as client:
            text = client.certificate(index)
    else:
        assert file is not None
        text = _read(file)
    bundle = Bundle.decode(text)
    if save is not None:
        write_new(save, text.encode())
        note(f"wrote {save}")
    leaf = Certificate.decode(bundle.leaf)
    data: dict[str, Any] = {
        "index": bundle.index,
        "serial": f"{leaf.serial:x}",
        "algorithm": _key_name(leaf.key.algorithm.value),
        "not_before_s": leaf.not_before_s,
        "not_after_s": leaf.not_after_s,
        "log": bundle.checkpoint.origin,
        "checkpoint_size": bundle.checkpoint.size,
        "checkpoint_root": bundle.checkpoint.root.hex(),
        "cosigners": [item.name for item in bundle.checkpoint.cosignatures],
        "names": _names(bundle.leaf),
        "verified": False,
    }
    emit(output, data, lambda: _text(data))


@app.command(
    epilog=examples(
        "hypermesh cert verify alice.mesh.pem --cluster demo",
        "hypermesh cert verify alice.mesh.pem --genesis genesis.json --name alice.mesh",
    )
)
def verify(
    file: BundleFile,
    name: Annotated[
        str | None, typer.Option(metavar="NAME", help="Must be valid for this name.")
    ] = None,
    at: Annotated[
        int | None, typer.Option(metavar="UNIX", help="Must be valid at this second, not now.")
    ] = None,
    cosigners: CosignersFile = None,
    genesis: GenesisFile = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Verify a bundle with no network: chain, names, time, log proof and cosignatures.

    Once validators were replaced, genesis alone does not know the cosigners: fetch what leads to
    them with `cert cosigners` and name the file with --cosigners.
    """
    from trustchain.runtime.verify import verify_bundle

    text = _read(file)
    chain = _trusted(genesis, cluster, home)
    at_s = int(time.time()) if at is None else at
    succession = known_cosigners(cosigners, chain)
    verified = verify_bundle(text, chain.log, at_s=at_s, name=name, succession=succession)
    data = _document(verified, chain, succession)
    emit(output, data, lambda: _text(data))


@app.command(
    epilog=examples(
        "hypermesh cert cosigners --out cosigners.json --cluster demo",
        "hypermesh cert cosigners --out cosigners.json --node http://[::1]:9293 "
        "--genesis genesis.json",
    )
)
def cosigners(
    out: Annotated[Path, typer.Option("--out", metavar="FILE", help="The file to write.")],
    genesis: GenesisFile = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Fetch who cosigned the log in every epoch, check it against genesis, and write one file.

    It is public, and what `cert verify --cosigners` takes.
    """
    import json

    from node.home import write_replacing
    from node.succession import fetch

    chain = _trusted(genesis, cluster, home)
    with connect(node, cluster, home) as client:
        document, succession = fetch(client, chain)
    write_replacing(out, json.dumps(document).encode())
    newest = succession.newest
    seats = [seat for seat in newest.seats if seat is not None]
    data = {
        "file": str(out),
        "chain": chain.label,
        "epoch": newest.epoch,
        "validators": len(newest.seats),
        "cosigners": [seat.name for seat in seats],
        "issuers": sum(1 for seat in seats if seat.issuing_hash),
        "cosigners_needed": newest.needed,
        "ends": [end.size for end in succession.ends],
    }
    emit(
        output,
        data,
        f"{chain.label} in epoch {newest.epoch}: {len(seats)} of {len(newest.seats)} validators "
        f"cosign, {newest.needed} are needed, {data['issuers']} issue",
    )
    note(f"wrote {out}")


def known_cosigners(file: Path | None, chain: Genesis) -> Succession:
    """What a file of cosigners proves; without one what genesis tells."""
    from node.inputs import input_text
    from node.limits import PROOF_FILE_SIZE_BYTES_MAX
    from node.succession import read
    from trustchain.core.roster import Succession

    if file is None:
        return Succession.of_genesis(chain.log)
    text = input_text(
        file,
        size_max=PROOF_FILE_SIZE_BYTES_MAX,
        what="a file of cosigners",
        hint="write one with `hypermesh cert cosigners --out FILE`",
    )
    return read(text, chain)


def _document(verified: Verified, chain: Genesis, succession: Succession) -> dict[str, Any]:
    return {
        "index": verified.index,
        "serial": f"{verified.serial:x}",
        "names": list(verified.names),
        "algorithm": _key_name(verified.key.algorithm.value),
        "not_before_s": verified.not_before_s,
        "not_after_s": verified.not_after_s,
        "log": chain.log.origin,
        "checkpoint_size": verified.checkpoint_size,
        "checkpoint_root": verified.checkpoint_root.hex(),
        "cosigners": list(verified.cosigners),
        "cosigners_needed": succession.newest.needed,
        "chain": chain.label,
        "verified": True,
    }


def _text(data: dict[str, Any]) -> str:
    from datetime import UTC, datetime

    def moment(second: int) -> str:
        return datetime.fromtimestamp(second, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    left = data["not_after_s"] - int(time.time())
    life = f"{left // 3600}h{left // 60 % 60:02}m left" if left > 0 else "expired"
    needed = f" ({data['cosigners_needed']} needed)" if "cosigners_needed" in data else ""
    lines = [
        f"names      {', '.join(data['names'])}",
        f"key        {data['algorithm']}",
        f"valid      {moment(data['not_before_s'])} to {moment(data['not_after_s'])} ({life})",
        f"log        {data['log']}, entry {data['index']} of {data['checkpoint_size']}",
        f"cosigned   by {len(data['cosigners'])} validators{needed}",
        f"serial     {data['serial']}",
        f"verified   {'yes, against ' + data['chain'] if data['verified'] else 'not checked'}",
    ]
    if "issue_ms" in data:
        lines.append(f"issued in  {data['issue_ms']} ms")
    return "\n".join(lines)


def _key_name(algorithm: str) -> str:
    """Name a key algorithm as --key takes it."""
    return "p-256" if algorithm == "p256" else algorithm


def _names(certificate: bytes) -> list[str]:
    from cryptography import x509

    parsed = x509.load_der_x509_certificate(certificate)
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError):
        return []
    return list(names.get_values_for_type(x509.DNSName))


def _read(file: Path) -> str:
    from node.inputs import input_text
    from trustchain.limits import BUNDLE_SIZE_BYTES_MAX

    return input_text(
        file,
        size_max=BUNDLE_SIZE_BYTES_MAX,
        what="a bundle",
        hint="name the .pem file that `cert issue` wrote",
    )


def _enrolment_key(cluster: str | None, home: Path | None) -> Path:
    from node.errors import InvalidArgument

    if cluster:
        from node.cluster.manifest import find_cluster

        return find_cluster(cluster).enrolment_key
    if home is not None and (home / "enrolment.key").is_file():
        return home / "enrolment.key"
    raise InvalidArgument(
        "no key that could authorise the request is known",
        hint="name it with --enrolment-key FILE, or a local cluster with --cluster NAME",
    )


def trusted_genesis(genesis: Path | None, cluster: str | None, home: Path | None) -> Path:
    """Find the genesis to trust: --genesis, the cluster's, the home's, or the only cluster's."""
    from node.errors import InvalidArgument
    from node.home import Home, default_home

    if genesis is not None:
        return require_input(genesis)
    if cluster:
        from node.cluster.manifest import find_cluster

        return find_cluster(cluster).genesis
    own = Home(home or default_home()).genesis
    if home is not None or own.is_file():
        return own
    from node.cluster.manifest import clusters_folder

    folder = clusters_folder()
    known = sorted(folder.glob("*/genesis.json")) if folder.is_dir() else []
    if len(known) == 1:
        note(f"trusting {known[0]}, the only network known here")
        return known[0]
    raise InvalidArgument(
        "a certificate is verified against a genesis and none was named",
        hint="use --genesis FILE or --cluster NAME",
    )


def _trusted(genesis: Path | None, cluster: str | None, home: Path | None) -> Genesis:
    from node.preflight import read_genesis

    return read_genesis(trusted_genesis(genesis, cluster, home))
