"""`hypermesh ca`: certify the issuing keys of validators that join, with the offline root."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from node.cli.base import (
    HomeFolder,
    Output,
    OutputFormat,
    PassphraseFile,
    emit,
    examples,
    note,
    noun,
)

app = noun("Certify the issuing keys of validators that join.")


@app.command(epilog=examples("hypermesh ca request --home n4"))
def request(home: HomeFolder = None, output: Output = OutputFormat.TEXT) -> None:
    """Make the log keys of a home that has none yet, and print the key to be certified.

    `node init --join` does this already. Keys that are there are never replaced.
    """
    from node.home import Home, default_home, require_private
    from node.logkeys import make_log_keys

    found = Home(home or default_home())
    found.require_folder()
    require_private(found.node_key)
    path = make_log_keys(found)
    text = path.read_text()
    emit(output, {"request": str(path), "key": text}, text.rstrip("\n"))
    note(f"next, where the root key is: hypermesh ca sign-issuer {path.name} --name NAME")


@app.command(
    "sign-issuer",
    epilog=examples(
        "hypermesh ca sign-issuer n4/keys/issuing.pub --name n4 --root demo/offline "
        "--passphrase-file demo/offline/passphrase --out n4/keys/issuing.pem"
    ),
)
def sign_issuer(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The issuing.pub of the node that joins.")
    ],
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the validator.")],
    root: Annotated[
        Path, typer.Option(metavar="FOLDER", help="Where root-key.pem and root.pem are.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The certificate; goes to keys/issuing.pem.")
    ],
    passphrase_file: PassphraseFile = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Sign the certificate of a validator's issuing key with the offline root, for three years.

    It takes effect when the validators agree on the node that holds the key.
    """
    from node.cli.base import passphrase
    from node.cluster.manifest import check_node_name
    from node.errors import InvalidArgument
    from node.home import write_new
    from node.inputs import input_text
    from trustchain.core.bundle import pem
    from trustchain.core.certificates import Certificate
    from trustchain.limits import KEY_FILE_SIZE_BYTES_MAX
    from trustchain.runtime.ceremony import certify_issuing

    check_node_name(name)
    request_text = input_text(
        file,
        size_max=KEY_FILE_SIZE_BYTES_MAX,
        what="a public key in PEM",
        hint="name the issuing.pub that `hypermesh ca request` wrote on the new node",
    )
    if out.exists():
        raise InvalidArgument(f"{out} exists already", hint="choose another name with --out")
    secret = passphrase(passphrase_file, prompt="Passphrase of the root key")
    encoded = certify_issuing(
        request_text, name=name, folder=root, passphrase=secret, now_s=int(time.time())
    )
    write_new(out, pem(encoded).encode())
    until = Certificate.decode(encoded).not_after_s
    emit(
        output,
        {"certificate": str(out), "name": name, "not_after_s": until},
        f"{out}: issuing certificate of {name}, {(until - int(time.time())) // 86_400:,} days",
    )
    note(f"next: put it into the home of {name} as keys/issuing.pem, before it is proposed")
