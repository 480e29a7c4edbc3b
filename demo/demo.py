"""Show everything once, with real processes, and check every claim.

Four validators on [::1]: pay between wallets, transfers under load, a certificate verified offline,
the primary killed while transfers go on, its restart and catch-up, equal states, exact supply.
Exit code 0 only if every check held; nothing runs afterwards.
"""

from __future__ import annotations

import contextlib
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

if __package__ in {None, ""}:
    sys.path.insert(0, str(Path(__file__).parents[1]))

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from bench.load import Load, Purse
from bench.network import Member, Network, until
from node.runtime.load import Report

NODES: Final = 4
RATE: Final = 300
ACCOUNTS: Final = 64
BURST_SECONDS: Final = 5.0
BURST_COUNT: Final = 30_000
PAID: Final = "12.5"
UNITS_PER_CAES: Final = 10**9


@dataclass(slots=True)
class Score:
    """Checks that were made and figures that were taken."""

    checks: list[tuple[str, bool, str]] = field(default_factory=list)
    figures: dict[str, str] = field(default_factory=dict)

    def check(self, claim: str, held: bool, seen: object = "") -> None:
        """Note whether a claim held."""
        self.checks.append((claim, held, str(seen)))

    @property
    def passed(self) -> bool:
        """True when every check held, and there was one."""
        return bool(self.checks) and all(held for _, held, _ in self.checks)


class Demo:
    """The steps, in the order a person sees them."""

    def __init__(self, network: Network, console: Console, progress: Progress) -> None:
        self.network = network
        self.console = console
        self.progress = progress
        self.task = progress.add_task("", total=9)
        self.score = Score()

    @contextlib.contextmanager
    def step(self, title: str) -> Iterator[None]:
        """One line of progress; prints what it took."""
        self.progress.update(self.task, description=title)
        began = time.monotonic()
        yield
        self.progress.advance(self.task)
        self.console.print(f"  [green]✓[/] {title} [dim]{time.monotonic() - began:.1f} s[/]")

    def run(self) -> None:
        """Do everything; failed checks are noted, failed steps raise."""
        self.start()
        self.pay()
        with self.step(f"{ACCOUNTS} funded accounts, their keys on the ledger"):
            purse = Purse.fill(self.network, accounts=ACCOUNTS)
        self.burst(purse)
        self.certify()
        self.lose_the_primary(purse)
        self.compare(purse)

    def start(self) -> None:
        with self.step("four validators start and agree on their first block"):
            began = time.monotonic()
            self.network.command("cluster", "up", self.network.name)
            self.network.wait_height(1)
            self.score.figures["start to first commit"] = f"{time.monotonic() - began:.2f} s"

    def pay(self) -> None:
        network = self.network
        with self.step(f"two wallets; the treasury pays alice, alice pays bob {PAID} CAES"):
            for name in ("alice", "bob"):
                network.command("wallet", "new", name, *network.passphrase)
            for sender, recipient, amount in (
                ("treasury", "alice", "100"),
                ("alice", "bob", PAID),
            ):
                network.command(
                    *("wallet", "send", "--cluster", network.name, "--from", sender),
                    *("--to", recipient, "--amount", amount, *network.passphrase),
                )
            answer = network.answer("wallet", "balance", "bob", "--cluster", network.name)
            expected = round(float(PAID) * UNITS_PER_CAES)
            self.score.check(
                "bob has exactly what alice sent",
                int(answer["balance"]) == expected,
                answer["caes"],
            )

    def burst(self, purse: Purse) -> None:
        with self.step(f"{BURST_COUNT:,} transfers signed with Falcon-512"):
            plan = purse.plan(
                targets=self.network.members,
                mode="saturate",
                count=BURST_COUNT,
                seconds=BURST_SECONDS,
                in_flight=3_000,
                call_size=250,
                lanes=64,
            )
        with self.step("as many transfers as four nodes on this machine carry"), Load(plan) as load:
            load.go()
            report = purse.book(load.report())
            self.score.figures["transfers/s, saturated"] = f"{report.tx_per_s:,.0f}"
            self.all_applied("every transfer of the burst was applied", report)

    def certify(self) -> None:
        network = self.network
        with self.step("a certificate from the agreed log, verified offline"):
            bundle = network.folder / "demo.mesh"
            issued = network.answer(
                *("cert", "issue", "--cluster", network.name, "--name", "demo.mesh"),
                *("--out", str(bundle)),
            )
            verified = network.command(
                *("cert", "verify", issued["bundle"], "--name", "demo.mesh"),
                *("--genesis", str(network.path / "genesis.json")),
                code=None,
            )
            self.score.figures["certificate"] = f"{issued['issue_ms']} ms"
            self.score.check(
                "the certificate verifies offline against the log",
                verified.returncode == 0,
                verified.stderr.strip(),
            )

    def lose_the_primary(self, purse: Purse) -> None:
        network = self.network
        victim = network.primary()
        others = [member for member in network.members if member is not victim]
        plan = purse.plan(targets=others, rate=RATE, seconds=40.0, lanes=32)
        with Load(plan) as load:
            with self.step(f"{RATE} transfers/s through the other three nodes"):
                load.go()
                network.wait_height(network.height() + 50, others)
            view = others[0].view()
            with self.step(f"SIGKILL to the primary {victim.name}, transfers go on, view changes"):
                killed = time.monotonic()
                victim.kill()
                until(lambda: others[0].view() > view, "view change", timeout_s=20)
                network.wait_height(network.height() + 20, others)
                recovered = time.monotonic()
            with self.step(f"{victim.name} starts again and catches up"):
                self.restart(victim, others)
            load.stop()
            report = purse.book(load.report())
        self.score.check("the view changed", others[0].view() > view, others[0].view())
        self.score.check(
            "the new primary is another node",
            network.primary() is not victim,
            network.primary().name,
        )
        self.all_applied("no transfer was lost when the primary died", report)
        gap = report.longest_silence(killed - 0.2, recovered)
        self.score.figures["gap without a receipt after the kill"] = f"{gap * 1000:.0f} ms"
        self.score.figures[f"latency at {RATE}/s, kill included"] = (
            f"p50 {report.p50_ms:.1f} ms, p99 {report.p99_ms:.0f} ms"
        )

    def restart(self, victim: Member, others: list[Member]) -> None:
        began = time.monotonic()
        victim.start()
        until(
            lambda: victim.ready() and victim.height() >= others[0].height() - 1,
            f"{victim.name} caught up",
            timeout_s=60,
        )
        self.score.figures["catch-up, process start included"] = f"{time.monotonic() - began:.2f} s"

    def compare(self, purse: Purse) -> None:
        network = self.network
        with self.step("state roots, supply and balances compared on all four nodes"):
            root = network.agreed_root()
            self.score.check("all four nodes have the same state root", True, root[:16])
            error = network.conservation_error()
            self.score.figures["conservation error"] = f"{error} base units"
            self.score.check("not one base unit appeared or vanished", error == 0, error)
            supplies = {str((member.status() or {}).get("supply")) for member in network.members}
            shown = ", ".join(sorted(supplies))
            self.score.check("all four nodes tell the same supply", len(supplies) == 1, shown)
            received = purse.received()
            self.score.check(
                "receipts and balances tell the same sum", received == purse.units, received
            )
            memory = ", ".join(f"{member.usage().rss_mb:.0f}" for member in network.members)
            self.score.figures["memory per node"] = f"{memory} MB"
            self.score.figures["transfers in total"] = f"{purse.executed:,}"

    def all_applied(self, claim: str, report: Report) -> None:
        """Check that every transfer that was sent has an applied receipt."""
        held = report.applied == report.sent > 0
        self.score.check(claim, held, f"{report.applied:,} of {report.sent:,}")


def main() -> int:
    console = Console()
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-demo-"))
    console.print("\n[bold]HyperMesh[/]: four nodes, one network\n")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    began = time.monotonic()
    network = Network.create(folder, nodes=NODES, name="demo")
    complete = False
    try:
        with Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
        ) as progress:
            demo = Demo(network, console, progress)
            demo.run()
        complete = True
    except (AssertionError, RuntimeError) as problem:
        console.print(f"\n[red]stopped:[/] {problem}", markup=True, highlight=False)
        return 1
    except KeyboardInterrupt:
        console.print("\ninterrupted")
        return 130
    finally:
        network.destroy()
        if complete and demo.score.passed:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            console.print(f"logs and databases are kept in {folder}")
    alive = [member.name for member in network.members if member.running]
    demo.score.check("nothing is left running", not alive, alive or "none")
    _summary(console, demo.score, time.monotonic() - began)
    return 0 if demo.score.passed else 1


def _summary(console: Console, score: Score, took: float) -> None:
    figures = Table(title="Figures on this machine", title_justify="left", show_header=False)
    for name, value in score.figures.items():
        figures.add_row(name, value)
    checks = Table(title="Checks", title_justify="left", show_header=False)
    for claim, held, seen in score.checks:
        checks.add_row("[green]✓[/]" if held else "[red]✗[/]", claim, f"[dim]{seen}[/]")
    console.print()
    console.print(figures)
    console.print(checks)
    verdict = "[green]every check held[/]" if score.passed else "[red]a check failed[/]"
    console.print(f"\n{verdict}, {took:.0f} s\n")


if __name__ == "__main__":
    sys.exit(main())
