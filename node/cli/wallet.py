"""`hypermesh wallet`: keys that own CAES, and payments from them."""

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
    PassphraseFile,
    Timeout,
    connect,
    emit,
    examples,
    note,
    noun,
    passphrase,
    seconds,
    table,
)

if TYPE_CHECKING:
    from node.wallet import Wallet

app = noun("Make wallets, look at balances and pay.")

WalletName = Annotated[str, typer.Argument(metavar="WALLET", help="A wallet, or an address.")]
Wallets = Annotated[
    Path | None,
    typer.Option("--wallets", metavar="DIR", help="Folder of wallets. Also $HYPERMESH_WALLETS."),
]


@app.command(
    epilog=examples(
        "hypermesh wallet new alice",
        "hypermesh wallet new alice --passphrase-file alice.passphrase",
    )
)
def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Name of the new wallet.")],
    wallets: Wallets = None,
    passphrase_file: PassphraseFile = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Make a wallet: a new key, sealed with a passphrase. Nothing is sent anywhere."""
    from node.wallet import check_name, create_wallet, wallets_folder

    check_name(name)
    secret = passphrase(passphrase_file, prompt=f"Passphrase for wallet {name}", new=True)
    made = create_wallet(wallets_folder(wallets), name, secret)
    data = {"name": name, "address": made.address, "key_file": str(made.key_file)}
    emit(output, data, f"{name}  {made.address}")
    note(
        f"The key is in {made.key_file}. Back it up: without file and passphrase the money is lost."
    )


@app.command(
    epilog=examples(
        "hypermesh wallet balance alice --cluster demo",
        "hypermesh wallet balance hm1… --node http://[::1]:9293 --output json",
    )
)
def balance(
    wallet: WalletName,
    min_height: Annotated[
        int, typer.Option("--min-height", min=0, help="The state after this block or a later one.")
    ] = 0,
    linearizable: Annotated[
        bool,
        typer.Option("--linearizable", help="A state that holds all that was answered before."),
    ] = False,
    timeout: Timeout = "15s",
    wallets: Wallets = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show what an account holds."""
    from node.amounts import amount_text
    from node.errors import InvalidArgument
    from node.wallet import resolve_address

    if min_height and linearizable:
        raise InvalidArgument(
            "--min-height and --linearizable are two read modes", hint="use one of them"
        )
    limit = seconds(timeout)
    address = resolve_address(wallet, wallet_folders(wallets, cluster))
    with connect(node, cluster, home) as client:
        account = client.account(
            address, min_height=min_height, linearizable=linearizable, timeout_s=limit
        )
    data = {
        "address": address,
        "balance": account["balance"],
        "caes": amount_text(int(account["balance"])).replace(",", ""),
        "exists": account["exists"],
        "height": account["height"],
        "read": account["read"],
    }
    emit(
        output,
        data,
        f"{amount_text(int(account['balance']))} CAES at height {account['height']:,} "
        f"({account['read']} read)",
    )


@app.command(
    epilog=examples(
        "hypermesh wallet send --cluster demo --from treasury --to alice --amount 12.5",
        "hypermesh wallet send --from alice --to hm1… --amount 0.000000001 "
        "--passphrase-file alice.passphrase",
    )
)
def send(
    sender: Annotated[str, typer.Option("--from", metavar="WALLET", help="Who pays.")],
    recipient: Annotated[str, typer.Option("--to", metavar="WALLET|ADDRESS", help="Who is paid.")],
    amount: Annotated[str, typer.Option("--amount", metavar="CAES", help="How much, like 12.5.")],
    memo: Annotated[
        str, typer.Option("--memo", help="Its hash is recorded with the payment.")
    ] = "",
    lane: Annotated[
        int, typer.Option("--lane", min=0, max=255, help="Parallel counter to use.")
    ] = 0,
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it is executed.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Sign and show the payment, do not send it.")
    ] = False,
    timeout: Timeout = "30s",
    wallets: Wallets = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    passphrase_file: PassphraseFile = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Sign a payment here and have it executed; the key never leaves this machine."""
    from node.amounts import amount_text, parse_amount
    from node.errors import InvalidArgument
    from node.wallet import build_transfer, find_wallet, resolve_address

    units, limit = parse_amount(amount), seconds(timeout)
    folders = wallet_folders(wallets, cluster)
    payer = find_wallet(sender, folders)
    address = resolve_address(recipient, folders)
    if address == payer.address:
        raise InvalidArgument(
            "sender and recipient are the same account", hint="choose another recipient"
        )
    with connect(node, cluster, home) as client:
        ledger, account = client.ledger(), client.account(payer.address)
        secret = wallet_passphrase(payer, passphrase_file, cluster)
        signed = build_transfer(
            payer.open(secret),
            ledger=ledger,
            account=account,
            recipient=address,
            amount=units,
            lane=lane,
            memo=memo,
        )
        data: dict[str, Any] = {
            "id": signed.transaction.id.hex(),
            "from": payer.address,
            "to": address,
            "amount": str(units),
            "max_fee": str(signed.transaction.max_fee),
            "valid_until": signed.transaction.valid_until,
            "sequence": signed.transaction.sequence,
        }
        if dry_run:
            data["transaction"] = signed.encode().hex()
            emit(output, data, f"{data['id']}\n{data['transaction']}")
            note("not sent")
            return
        answer = client.submit([signed.encode()], timeout_s=limit if wait else None)
    result = answer["results"][0]
    data |= {"outcome": result["outcome"], "height": result["height"]}
    _raise_unless_paid(result, wait=wait)
    words = f"{amount_text(units)} CAES to {recipient}, fee {amount_text(int(data['max_fee']))}"
    where = f"in block {result['height']:,}" if result["height"] else "on its way"
    emit(output, data, f"{words}: {result['outcome']} {where}\n{data['id']}")


@app.command(
    epilog=examples(
        "hypermesh wallet history alice --cluster demo",
        "hypermesh wallet history alice --limit 500 --output json",
    )
)
def history(
    wallet: WalletName,
    limit: Annotated[int, typer.Option(min=1, max=500, help="How many payments.")] = 20,
    before: Annotated[
        int | None, typer.Option(min=1, help="Only payments below this height.")
    ] = None,
    wallets: Wallets = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show payments in and out of an account, newest first."""
    from node.wallet import resolve_address

    address = resolve_address(wallet, wallet_folders(wallets, cluster))
    with connect(node, cluster, home) as client:
        page = client.history(address, limit=limit, before=before)
    emit(output, {"address": address, **page}, lambda: _history_text(address, page["items"]))
    if page["next_before"]:
        note(f"more: --before {page['next_before']}")


def _history_text(address: str, items: list[dict[str, Any]]) -> str:
    from datetime import UTC, datetime

    from node.amounts import amount_text

    rows = []
    for item in items:
        out = item["sender"] == address
        when = datetime.fromtimestamp(item["block_time_ms"] / 1000, UTC)
        rows.append(
            (
                when.strftime("%Y-%m-%d %H:%M:%S"),
                f"{item['height']:,}",
                ("-" if out else "+") + amount_text(int(item["amount"])),
                item["recipient"] if out else item["sender"],
                "applied" if not item["code"] else f"failed ({item['code']})",
                item["id"][:16],
            )
        )
    return table(("time (UTC)", "height", "CAES", "with", "outcome", "id"), rows)


def wallet_folders(wallets: Path | None, cluster: str | None) -> list[Path]:
    """Where wallets are looked for: the chosen folder, then the cluster's own."""
    from node.wallet import wallets_folder

    folders = [wallets_folder(wallets)]
    if cluster:
        from node.cluster.manifest import find_cluster

        folders.append(find_cluster(cluster).wallets)
    return folders


def wallet_passphrase(payer: Wallet, file: str | None, cluster: str | None) -> str:
    """Ask for a passphrase; a cluster's own wallets may have theirs beside the root key."""
    if file is None and cluster:
        from node.cluster.manifest import find_cluster

        found = find_cluster(cluster)
        made = found.offline / "passphrase"
        if payer.key_file.parent == found.wallets and made.is_file():
            file = str(made)
    return passphrase(file, prompt=f"Passphrase of wallet {payer.name}")


def _raise_unless_paid(result: dict[str, Any], *, wait: bool) -> None:
    from node.errors import PaymentFailed, PaymentOpen

    if result["outcome"] == "applied" or (result["outcome"] == "pending" and not wait):
        return
    if result["outcome"] == "pending":
        raise PaymentOpen(
            f"payment {result['id']} was sent but not executed yet",
            hint="do not send it again: look with `hypermesh wallet history`; the same bytes can "
            "never be executed twice",
        )
    raise PaymentFailed(
        f"payment {result['id']} {result['outcome']}: {result.get('cause', 'no reason given')}",
        hint=result.get("next_step", "see the cause"),
        remote_code=result.get("code", PaymentFailed.code),
        status=200,
    )
