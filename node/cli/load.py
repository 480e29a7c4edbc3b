"""`hypermesh load`: signed transfers at a given rate, and how long each took to be executed."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from node.cli.base import (
    ClusterName,
    HomeFolder,
    NodeURL,
    Output,
    OutputFormat,
    PassphraseFile,
    candidate_urls,
    connect,
    emit,
    examples,
    note,
    noun,
    seconds,
    table,
)

if TYPE_CHECKING:
    from node.client import NodeClient
    from node.runtime.load import Generator, Report, Schedule, Target
    from node.status import Status
    from node.wallet import Wallet

app = noun("Put load on a network and measure it.")

RATE_DEFAULT: Final = 100.0
BUSY_ATTEMPTS: Final = 3  # a node that refuses for load is not one that is gone
WINDOWS_MAX: Final = 60  # rows of the report's time line


@app.command(
    epilog=examples(
        "hypermesh load run --cluster demo --from treasury --to hm1… --rate 500 --for 30s",
        "hypermesh load run --node http://[::1]:9293 --from alice --to hm1… --ramp 100:5000 "
        "--for 2m --histogram latency.csv --report load.json --passphrase-file alice.passphrase",
        "hypermesh load run --cluster demo --from treasury --to hm1… --in-flight 4000 --for 20s",
    )
)
def run(
    sender: Annotated[
        str, typer.Option("--from", metavar="WALLET", help="Who pays: one base unit a transfer.")
    ],
    recipient: Annotated[str, typer.Option("--to", metavar="WALLET|ADDRESS", help="Who is paid.")],
    rate: Annotated[
        float | None,
        typer.Option("--rate", metavar="N", help="Transfers a second; 100 if nothing is said."),
    ] = None,
    ramp: Annotated[
        str | None,
        typer.Option("--ramp", metavar="FROM:TO", help="A rate that rises or falls evenly."),
    ] = None,
    in_flight: Annotated[
        int | None,
        typer.Option("--in-flight", metavar="N", help="No rate: keep N transfers on their way."),
    ] = None,
    duration: Annotated[str, typer.Option("--for", metavar="TIME", help="How long.")] = "10s",
    warm_up: Annotated[
        str, typer.Option("--warm-up", metavar="TIME", help="Left out of the latencies.")
    ] = "1s",
    lanes: Annotated[
        int,
        typer.Option("--lanes", min=1, max=256, help="Lanes of the payer; one call each at once."),
    ] = 64,
    report_file: Annotated[
        Path | None, typer.Option("--report", metavar="FILE", help="Write the report as JSON.")
    ] = None,
    histogram_file: Annotated[
        Path | None,
        typer.Option("--histogram", metavar="FILE", help="Write latencies as CSV: le_ms,count."),
    ] = None,
    wallets: Annotated[
        Path | None,
        typer.Option("--wallets", metavar="DIR", help="Folder of wallets."),
    ] = None,
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    passphrase_file: PassphraseFile = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Sign transfers beforehand, send each at its time, and report what became of them.

    With --cluster they go to every node in turn, else to the one node. Latencies count from the
    moment a transfer was meant to be sent, so a slow network cannot hide behind a slow generator.
    """
    from node.cli.wallet import wallet_folders, wallet_passphrase
    from node.errors import InvalidArgument, LoadRefused
    from node.wallet import find_wallet, resolve_address

    schedule = _schedule(rate, ramp, in_flight, seconds(duration), seconds(warm_up), lanes)
    for file in (report_file, histogram_file):
        _require_writable(file)
    folders = wallet_folders(wallets, cluster)
    payer = find_wallet(sender, folders)
    address = resolve_address(recipient, folders)
    if address == payer.address:
        raise InvalidArgument(
            "sender and recipient are the same account", hint="choose another recipient"
        )
    with connect(node, cluster, home) as client:
        status, _ = client.status()
        targets = _targets(status, client.url, cluster, candidate_urls(node, cluster, home))
        secret = wallet_passphrase(payer, passphrase_file, cluster)
        payloads = _signed(client, payer, secret, address, schedule)
    note(f"sending {len(payloads):,} transfers to {len(targets)} node(s) of {status.chain}")
    generator, report, started = _send(schedule, targets, status, payloads)
    data = _document(generator, report, started, schedule, targets, status)
    if report_file is not None:
        report_file.write_text(json.dumps(data, indent=2) + "\n")
    if histogram_file is not None:
        rows = [f"{bound:g},{count}" for bound, count in data["histogram"]]
        histogram_file.write_text("\n".join(["le_ms,count", *rows]) + "\n")
    emit(output, data, lambda: _text(data))
    if not report.applied:
        raise LoadRefused(
            f"not one of {report.sent:,} transfers was executed: {data['outcomes']}",
            hint="look at `hypermesh node status`, and at the payer's balance",
        )


def _schedule(
    rate: float | None,
    ramp: str | None,
    in_flight: int | None,
    duration_s: float,
    warm_up_s: float,
    lanes: int,
) -> Schedule:
    from node.errors import InvalidArgument
    from node.limits import LOAD_IN_FLIGHT_MAX, LOAD_TRANSFERS_MAX
    from node.runtime.load import Schedule

    if sum(choice is not None for choice in (rate, ramp, in_flight)) > 1:
        raise InvalidArgument(
            "--rate, --ramp and --in-flight exclude each other", hint="keep one of them"
        )
    if duration_s <= warm_up_s:
        raise InvalidArgument(
            f"--for {duration_s:g}s leaves nothing after --warm-up {warm_up_s:g}s",
            hint="run for longer, or use --warm-up 0s",
        )
    if in_flight is not None:
        if not 1 <= in_flight <= LOAD_IN_FLIGHT_MAX:
            raise InvalidArgument(
                f"--in-flight {in_flight} is not between 1 and {LOAD_IN_FLIGHT_MAX:,}",
                hint="4000 saturates four nodes on one machine",
            )
        size = max(1, -(-in_flight // lanes))
        return Schedule(
            mode="saturate",
            strands=lanes,
            seconds=duration_s,
            warm_up_s=warm_up_s,
            in_flight=in_flight,
            call_size=size,
        )
    first, last = _ramp(ramp) if ramp is not None else (rate or RATE_DEFAULT, None)
    if not first > 0 or (last is not None and not last > 0):
        raise InvalidArgument("a rate must be above 0", hint="write --rate 500 or --ramp 100:5000")
    schedule = Schedule(
        strands=lanes, rate=first, rate_end=last, seconds=duration_s, warm_up_s=warm_up_s
    )
    if not 1 <= schedule.count <= LOAD_TRANSFERS_MAX:
        raise InvalidArgument(
            f"this would be {schedule.count:,} transfers; 1 to {LOAD_TRANSFERS_MAX:,} are signed "
            "beforehand and held in memory",
            hint="lower the rate or the time",
        )
    return schedule


def _ramp(text: str) -> tuple[float, float]:
    from node.errors import InvalidArgument

    first, _, last = text.partition(":")
    try:
        return float(first), float(last)
    except ValueError:
        raise InvalidArgument(f"{text!r} is not a ramp", hint="write it like 100:5000") from None


def _require_writable(path: Path | None) -> None:
    """Find out before the load and not after it."""
    from node.errors import InvalidArgument

    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise InvalidArgument(f"{path} cannot be written", hint="name a file in a folder there is")


def _targets(status: Status, url: str, cluster: str | None, urls: list[str]) -> list[Target]:
    """Where to send: every node of a local cluster that answers, or the one node."""
    from node.client import NodeClient
    from node.errors import NodeError
    from node.runtime.load import Target

    found = [Target(node_id=status.node_id, address=_reachable(status.stoq, url))]
    for other in urls if cluster else []:
        if other.rstrip("/") == url:
            continue
        with NodeClient(other) as client:
            try:
                its = _status(client)
            except NodeError:
                note(f"{other} does not answer and gets no load")
                continue
        found.append(Target(node_id=its.node_id, address=_reachable(its.stoq, other)))
    return found


def _status(client: NodeClient) -> Status:
    """The node's status; one that is busy is asked again before it is left out."""
    from node.client import NodeBusy
    from node.limits import HTTP_RETRY_AFTER_S

    for _ in range(BUSY_ATTEMPTS - 1):
        try:
            return client.status()[0]
        except NodeBusy:
            time.sleep(HTTP_RETRY_AFTER_S)
    return client.status()[0]


def _reachable(listen: str, url: str) -> str:
    """A node that listens everywhere is reached at the host of its HTTP address."""
    from urllib.parse import urlsplit

    host, _, port = listen.rpartition(":")
    return f"[{urlsplit(url).hostname}]:{port}" if host == "[::]" else listen


def _signed(
    client: NodeClient, payer: Wallet, secret: str, recipient: str, schedule: Schedule
) -> list[bytes]:
    """Sign all transfers, operation i on lane i modulo the lanes."""
    from caesar.core.addresses import parse_address
    from caesar.runtime.wallet import TransferOrder, sign_transfers
    from native.values import Amount, Digest
    from node.errors import InvalidArgument, LoadRefused
    from node.limits import LOAD_RATE_GUESS_MAX, LOAD_TRANSFERS_MAX
    from node.wallet import VALID_FOR_BLOCKS, build_transfer

    ledger, account = client.ledger(), client.account(payer.address)
    count = schedule.count
    if schedule.mode == "saturate":
        count = min(LOAD_TRANSFERS_MAX, int(LOAD_RATE_GUESS_MAX * schedule.seconds))
    fee = int(ledger["parameters"]["transfer_fee"])
    needed = (count + 1) * (fee + 1)
    if int(account["balance"]) < needed:
        raise InvalidArgument(
            f"{payer.name} holds {account['balance']} base units; {count:,} transfers with their "
            f"fees take up to {needed}",
            hint="pay more into the wallet, or send less",
        )
    key = payer.open(secret)
    if not account["has_key"]:
        first = build_transfer(key, ledger=ledger, account=account, recipient=recipient, amount=1)
        result = client.submit([first.encode()], timeout_s=10.0)["results"][0]
        if result["outcome"] != "applied":
            raise LoadRefused(
                f"the first transfer, which carries the key, was {result['outcome']}",
                hint=result.get("next_step", "try `hypermesh wallet send` first"),
            )
        account = client.account(payer.address)
    next_of = {item["lane"]: item["next_sequence"] for item in account["lanes"]}
    valid_for = min(int(ledger["parameters"]["valid_for_blocks_max"]), 1_000 * VALID_FOR_BLOCKS)
    note(f"signing {count:,} transfers")
    orders = [
        TransferOrder(
            signer=0,
            lane=index % schedule.strands,
            sequence=next_of.get(index % schedule.strands, 0) + index // schedule.strands,
            recipient=parse_address(recipient),
            amount=Amount(1),
            valid_until=int(ledger["height"]) + valid_for,
            max_fee=Amount(fee),
        )
        for index in range(count)
    ]
    return sign_transfers([key], orders, chain_id=Digest(bytes.fromhex(ledger["chain_id"])))


def _send(
    schedule: Schedule, targets: list[Target], status: Status, payloads: list[bytes]
) -> tuple[Generator, Report, float]:
    import time

    import trio

    from node.errors import NotReachable
    from node.runtime.load import Generator, quiet, stoq_channels
    from transport.errors import TransportError

    async def send() -> tuple[Generator, Report, float]:
        async with stoq_channels(
            targets, chain_id=bytes.fromhex(status.chain_id), chain_name=status.chain
        ) as channels:
            for channel in channels:
                try:
                    await channel.connected()
                except (TransportError, trio.TooSlowError) as error:
                    raise NotReachable(
                        f"no STOQ connection to {channel.target.address}: {error}",
                        hint="the UDP port of the node must be open from here",
                    ) from None
            generator = Generator(schedule, channels, payloads)
            offset = time.monotonic() - trio.current_time()
            started = trio.current_time()
            await generator.run()
            return generator, generator.report(started, trio.current_time(), offset), started

    quiet()
    return trio.run(send)


def _document(
    generator: Generator,
    report: Report,
    started: float,
    schedule: Schedule,
    targets: list[Target],
    status: Status,
) -> dict[str, Any]:
    from dataclasses import asdict

    from node.runtime.load import histogram

    data = asdict(report)
    for name in ("samples", "started", "finished"):
        del data[name]
    counted = started + schedule.warm_up_s
    return {
        "chain": status.chain,
        "targets": [target.address for target in targets],
        "schedule": asdict(schedule),
        **data,
        "windows": _windows(generator.samples, started, schedule),
        "histogram": histogram(generator.latencies_ms(counted)),
    }


def _windows(
    samples: list[tuple[float, float]], started: float, schedule: Schedule
) -> list[dict[str, Any]]:
    """A time line by intended moment: how a ramp went."""
    from node.runtime.load import percentile

    width = max(1.0, schedule.seconds / WINDOWS_MAX)
    groups: dict[int, list[float]] = {}
    for intended, done in samples:
        groups.setdefault(int((intended - started) / width), []).append((done - intended) * 1000)
    return [
        {
            "at_s": round(place * width, 3),
            "applied_per_s": round(len(took) / width, 1),
            "p50_ms": round(percentile(sorted(took), 50), 3),
            "p99_ms": round(percentile(sorted(took), 99), 3),
        }
        for place, took in sorted(groups.items())
    ]


def _text(data: dict[str, Any]) -> str:
    rows = [
        (
            f"{window['at_s']:g}",
            *(f"{window[name]:g}" for name in ("applied_per_s", "p50_ms", "p99_ms")),
        )
        for window in data["windows"]
    ]
    return "\n".join(
        (
            f"{data['applied']:,} of {data['sent']:,} applied, {data['tx_per_s']:g}/s",
            f"latency from the intended moment: p50 {data['p50_ms']:g} ms, p90 {data['p90_ms']:g}, "
            f"p99 {data['p99_ms']:g}, p99.9 {data['p999_ms']:g}, max {data['max_ms']:g}",
            f"this generator was at most {data['late_ms_max']:g} ms late",
            "",
            table(("second", "applied/s", "p50 ms", "p99 ms"), rows),
        )
    )
