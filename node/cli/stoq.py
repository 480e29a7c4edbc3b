"""`hypermesh stoq`: reach a node, measure a path, look at the network and at who is connected."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any

import typer

from node.cli.base import (
    ClusterName,
    HomeFolder,
    NodeURL,
    Output,
    OutputFormat,
    Timeout,
    connect,
    emit,
    examples,
    note,
    noun,
    seconds,
    table,
)
from node.errors import InvalidArgument, NotReachable, StoqUnfit

app = noun("Reach nodes over STOQ and measure the way.")

PeerAddress = Annotated[str, typer.Argument(metavar="ADDRESS", help="IPv6 address and UDP port.")]
PeerNodeId = Annotated[str, typer.Argument(metavar="NODE_ID", help="64 hexadecimal digits.")]
PathMTU = Annotated[
    int, typer.Option("--mtu", min=1_200, max=65_000, help="Largest UDP payload to try, in bytes.")
]
NODE_ID_SIZE_BYTES = 32
_SAMPLE_NODE = "1f" * 4 + "…"


@app.command(
    epilog=examples(
        f"hypermesh stoq ping [::1]:9292 {_SAMPLE_NODE}",
        f"hypermesh stoq ping [2001:db8::7]:9292 {_SAMPLE_NODE} --count 10 --output json",
    )
)
def ping(
    address: PeerAddress,
    node_id: PeerNodeId,
    count: Annotated[int, typer.Option(min=1, max=100, help="How often to dial.")] = 5,
    mtu: PathMTU = 1_452,
    timeout: Timeout = "5s",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Dial a node and show how far it is, and how it proves its key.

    Uses a key of its own and stops before HELLO, so that it works for every node and disturbs none.
    """
    import trio

    _warnings_only()
    from node.stoq.ping import ping as measure

    wanted = _node_id(node_id)
    timeout_s = seconds(timeout)

    async def probe() -> Any:
        return await measure(address, wanted, count=count, timeout_s=timeout_s, mtu_bytes_max=mtu)

    try:
        report = trio.run(probe)
    except trio.TooSlowError:
        raise NotReachable(
            f"{address} gave no answer within {timeout_s:g} s",
            hint="check that the node runs and UDP reaches its port; try `hypermesh stoq netcheck`",
        ) from None
    later = "" if report.handshake_ms_later is None else f", later {report.handshake_ms_later:.2f}"
    emit(
        output,
        asdict(report),
        f"{address} is {report.node_id}\n"
        f"handshake     first {report.handshake_ms_first:.2f} ms{later} "
        f"({report.resumed} of {report.dials} resumed)\n"
        f"round trip    {report.round_trip_ms_min:.2f} / {report.round_trip_ms_median:.2f} / "
        f"{report.round_trip_ms_max:.2f} ms (min / median / max)\n"
        f"path MTU      {report.path_mtu_bytes} bytes\n"
        f"key exchange  {report.key_exchange}\n"
        f"signature     {report.signature}",
    )


@app.command(
    epilog=examples("hypermesh stoq netcheck", "hypermesh stoq netcheck --peer [2001:db8::7]:9292")
)
def netcheck(
    peer: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="Also look for a route to this peer.")
    ] = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Judge this machine's network: IPv6, MTU, segmentation offload, buffers. Sends nothing out."""
    from node.stoq.netcheck import Grade
    from node.stoq.netcheck import netcheck as look

    findings = look(peer)
    lines = []
    for finding in findings:
        lines.append(f"{finding.grade.value:5} {finding.name}: {finding.seen}")
        if finding.advice:
            lines.append(f"      → {finding.advice}")
    emit(output, [asdict(finding) for finding in findings], "\n".join(lines))
    failed = [finding.name for finding in findings if finding.grade is Grade.FAIL]
    if failed:
        raise StoqUnfit(
            f"{', '.join(failed)}: STOQ cannot work like this", hint="follow the advice above"
        )


@app.command(
    epilog=examples("hypermesh stoq peers", "hypermesh stoq peers --cluster demo --output json")
)
def peers(
    node: NodeURL = None,
    cluster: ClusterName = None,
    home: HomeFolder = None,
    output: Output = OutputFormat.TEXT,
) -> None:
    """Show whom a running node is connected to, and over what kind of path."""
    with connect(node, cluster, home) as client:
        status, _ = client.status()
    rows = [asdict(peer) for peer in status.peers]

    def text() -> str:
        path = ("RTT MS", "MTU", "KEY EXCHANGE", "SIGNATURE", "LOST")
        return table(
            ("PEER", "NODE ID", "ADDRESS", "STATE", *path),
            [
                (
                    peer.name,
                    peer.node_id[:16],
                    peer.remote_address or peer.address,
                    ("dialled" if peer.dialled else "accepted") if peer.connected else "away",
                    "-" if peer.round_trip_ms is None else f"{peer.round_trip_ms:.2f}",
                    str(peer.path_mtu_bytes or "-"),
                    peer.key_exchange or "-",
                    peer.signature or "-",
                    str(peer.packets_lost) if peer.connected else "-",
                )
                for peer in status.peers
            ],
        )

    emit(output, rows, text)


@app.command(
    epilog=examples(
        "hypermesh stoq bench",
        "hypermesh stoq bench --serve --listen [::]:9999",
        f"hypermesh stoq bench [2001:db8::7]:9999 {_SAMPLE_NODE} --size-mb 1000 --streams 4",
    )
)
def bench(
    address: Annotated[
        str | None,
        typer.Argument(metavar="ADDRESS", help="A machine that runs `bench --serve`."),
    ] = None,
    node_id: Annotated[
        str | None, typer.Argument(metavar="NODE_ID", help="What that machine printed.")
    ] = None,
    receive: Annotated[
        bool, typer.Option("--serve", help="Receive from others until stopped with Ctrl-C.")
    ] = False,
    listen: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Where --serve listens.")
    ] = "[::1]:0",
    size_mb: Annotated[int, typer.Option(min=1, max=65_536, help="How much to send.")] = 256,
    streams: Annotated[int, typer.Option(min=1, max=256, help="Over how many streams.")] = 1,
    mtu: PathMTU = 1_452,
    congestion: Annotated[str, typer.Option(help="cubic or bbr.")] = "cubic",
    output: Output = OutputFormat.TEXT,
) -> None:
    """Measure throughput to another machine, or between two processes of this one.

    MB are 1,000,000 bytes; CPU is that of the sending side. No real chain is touched.
    """
    if congestion not in ("cubic", "bbr"):
        raise InvalidArgument(f"{congestion!r} is no congestion control", hint="cubic or bbr")
    if (address is None) != (node_id is None):
        raise InvalidArgument(
            "an address without a NodeId", hint="name both, as `bench --serve` prints them"
        )
    _warnings_only()
    settings = {"mtu_bytes_max": mtu, "congestion": congestion}
    if receive:
        _receive(listen, settings, output)
    elif address is None or node_id is None:
        _send_here(size_mb, streams, settings, output)
    else:
        _send(address, _node_id(node_id), size_mb, streams, settings, output)


def _receive(listen: str, settings: dict[str, Any], output: OutputFormat) -> None:
    import json

    import trio

    from node.stoq import throughput
    from transport import TransportConfig

    acceptor = throughput.endpoint(listen, TransportConfig.model_validate(settings))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            await nursery.start(acceptor.run)
            there = {"address": acceptor.address, "node_id": acceptor.identity.node_id.hex()}
            if output is OutputFormat.JSON:
                typer.echo(json.dumps(there))  # one line: a program may read it
            else:
                note("receiving; run this elsewhere, with an address of this machine:")
                typer.echo(f"hypermesh stoq bench {there['address']} {there['node_id']}")
            await throughput.serve(acceptor)

    trio.run(main)


def _send(
    address: str,
    node_id: Any,
    size_mb: int,
    streams: int,
    settings: dict[str, Any],
    output: OutputFormat,
) -> None:
    import trio

    from node.stoq import throughput
    from transport import TransportConfig

    config = TransportConfig.model_validate(settings)
    size_bytes = size_mb * throughput.MEGA

    async def main() -> Any:
        return await throughput.run(
            address, node_id, size_bytes=size_bytes, streams=streams, config=config
        )

    _show(output, trio.run(main))


def _send_here(size_mb: int, streams: int, settings: dict[str, Any], output: OutputFormat) -> None:
    """To a second process on this machine: what its processor can do without a network."""
    import json
    import subprocess
    import sys

    words = ["-m", "node.cli", "stoq", "bench", "--serve", "--output", "json"]
    words += ["--mtu", str(settings["mtu_bytes_max"])]
    with subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE) as server:
        assert server.stdout is not None
        try:
            there = json.loads(server.stdout.readline())
            node_id = _node_id(there["node_id"])
            _send(there["address"], node_id, size_mb, streams, settings, output)
        finally:
            server.terminate()


def _warnings_only() -> None:
    from node import logging

    logging.configure(level="warning")


def _show(output: OutputFormat, report: Any) -> None:
    emit(
        output,
        asdict(report),
        f"{report.mb_per_s:.0f} MB/s, {report.mb_per_cpu_s:.0f} MB per CPU second of this side\n"
        f"{report.bytes_moved / 1e6:.0f} MB in {report.seconds:.2f} s over {report.streams} "
        f"stream{'' if report.streams == 1 else 's'}, path MTU {report.path_mtu_bytes}, round trip "
        f"{report.round_trip_ms:.2f} ms, lost {report.packets_lost} of {report.packets_sent}",
    )


def _node_id(text: str) -> Any:
    from native.values import NodeId

    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != NODE_ID_SIZE_BYTES:
        raise InvalidArgument(
            f"{text!r} is not a NodeId",
            hint="write its 64 hexadecimal digits; `hypermesh stoq peers` shows them",
        )
    return NodeId(raw)
