"""Every link between the nodes of a cluster, through UDP proxies in a process of their own.

There is one proxy for each ordered pair (who dials, who is dialled), so what node a sends to node b
passes through two of them: forwards through (a, b) if a dialled, backwards through (b, a) if b did.
A *directed link* is both together: it is cut, or impaired, whoever dialled.

The nodes keep their keys and their own ports; only the addresses in their `[peers]` point here.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import resource
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final, TypeAlias

import trio

from transport.core.impairment import CLEAN, Impairment
from transport.runtime.proxy import Direction, Proxy

Link: TypeAlias = tuple[int, int]  # from node, to node

# One-way delays in ms between five regions, half of typical round trips of a public cloud.
REGIONS: Final = ("us-east", "us-west", "europe", "asia", "brazil")
REGION_DELAY_MS: Final = (
    (1, 31, 38, 84, 57),
    (31, 1, 69, 54, 88),
    (38, 69, 1, 118, 93),
    (84, 54, 118, 1, 128),
    (57, 88, 93, 128, 1),
)


class Links:
    """The links of a cluster, as the test holds them: a child process that ends with this one."""

    def __init__(self, targets: Sequence[str], *, seed: int) -> None:
        self._nodes = range(len(targets))
        root = Path(__file__).parents[2]
        paths = [str(Path(__file__).parents[1]), str(root), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "chaos.links"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in paths if path)},
        )
        self._addresses: list[list[str]] = self._ask({"targets": list(targets), "seed": seed})

    def address(self, source: int, target: int) -> str:
        """Where `source` must dial to reach `target`."""
        return self._addresses[source][target]

    def cut(self, links: Iterable[Link]) -> None:
        """Lose everything on these directed links."""
        self._ask({"links": list(links), "cut": True})

    def join(self, links: Iterable[Link]) -> None:
        """End a cut."""
        self._ask({"links": list(links), "cut": False})

    def impair(self, links: Iterable[Link], impairment: Impairment) -> None:
        """Have these directed links behave like this from now on."""
        self._ask({"links": list(links), "impairment": asdict(impairment)})

    def heal(self) -> None:
        """Every link as good as new."""
        self._ask({"links": self.all(), "cut": False, "impairment": asdict(CLEAN)})

    def all(self) -> list[Link]:
        """Every directed link."""
        return list(itertools.permutations(self._nodes, 2))

    def between(self, group: Iterable[int]) -> list[Link]:
        """Both directions between a group and the rest: a symmetric partition."""
        inside = set(group)
        return [(a, b) for a, b in self.all() if (a in inside) != (b in inside)]

    def leaving(self, group: Iterable[int]) -> list[Link]:
        """Only what a group sends to the rest: an asymmetric partition."""
        inside = set(group)
        return [(a, b) for a, b in self.all() if a in inside and b not in inside]

    def delivered(self) -> int:
        """Datagrams that arrived at their far end so far."""
        return int(self._ask({"count": True}))

    def close(self) -> None:
        """End the proxies."""
        self._process.kill()
        self._process.communicate()

    def _ask(self, command: dict[str, Any]) -> Any:
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process of the proxies is gone")
        return json.loads(line)


def regions(links: Links, nodes: int, *, jitter_s: float = 0.002) -> None:
    """Spread the nodes over five regions, one after the other."""
    for a, b in itertools.permutations(range(nodes), 2):
        delay_ms = REGION_DELAY_MS[a % len(REGIONS)][b % len(REGIONS)]
        links.impair([(a, b)], Impairment(delay_s=delay_ms / 1000, jitter_s=jitter_s))


# -- the process


async def serve() -> None:
    """Make the proxies the first line asks for; then obey line by line until stdin ends."""
    plan = json.loads(await trio.to_thread.run_sync(sys.stdin.readline))
    targets, seed = plan["targets"], int(plan["seed"])
    proxies: dict[Link, Proxy] = {}
    async with trio.open_nursery() as nursery:
        for number, (a, b) in enumerate(itertools.permutations(range(len(targets)), 2)):
            proxies[a, b] = Proxy(targets[b], seed=seed * 1_000 + number)
            await nursery.start(proxies[a, b].run)
        nodes = range(len(targets))
        _answer([[proxies[a, b].address if a != b else "" for b in nodes] for a in nodes])
        readline = functools.partial(sys.stdin.readline)
        while line := await trio.to_thread.run_sync(readline, abandon_on_cancel=True):
            command = json.loads(line)
            if "count" in command:
                _answer(sum(_delivered(proxy) for proxy in proxies.values()))
                continue
            for a, b in command["links"]:
                for proxy, direction in (
                    (proxies[a, b], Direction.TO_TARGET),
                    (proxies[b, a], Direction.TO_CLIENT),
                ):
                    if "cut" in command:
                        proxy.partition(direction, command["cut"])
                    if "impairment" in command:
                        proxy.impair(Impairment(**command["impairment"]), direction)
            _answer(None)
        nursery.cancel_scope.cancel()


def _delivered(proxy: Proxy) -> int:
    counted = proxy.statistics()
    return counted.to_target.datagrams_delivered + counted.to_client.datagrams_delivered


def _answer(value: object) -> None:
    print(json.dumps(value), flush=True)


if __name__ == "__main__":
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # 21 nodes need some 900 sockets
    trio.run(serve)
