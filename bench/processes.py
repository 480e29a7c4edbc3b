"""Two processes that measure something between them, each on its own core."""

from __future__ import annotations

import multiprocessing
import os
import resource
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection as Pipe
from typing import Any, Final

MEGA: Final = 1e6
ANSWER_TIMEOUT_S: Final = 120


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """What one upload took."""

    bytes_moved: int
    seconds: float
    cpu_s: float  # user and system time of both processes

    @property
    def mb_per_s(self) -> float:
        """Goodput in 10^6 bytes."""
        return self.bytes_moved / self.seconds / MEGA

    @property
    def mb_per_cpu_s(self) -> float:
        """The same by processor time, which a busy machine stretches less than the clock."""
        return self.bytes_moved / self.cpu_s / MEGA


def between(server: Callable[..., None], client: Callable[..., None], plan: Any) -> Any:
    """Run a server and a client, both told the plan; returns what the client says.

    The client gets what the server says first; the server stops at the word that follows.
    """
    context = multiprocessing.get_context("spawn")
    server_end, server_pipe = context.Pipe()
    client_end, client_pipe = context.Pipe()
    first = context.Process(target=server, args=(server_pipe, plan), daemon=True)
    second = context.Process(target=client, args=(client_pipe, plan), daemon=True)
    first.start()
    second.start()
    server_pipe.close()  # so that a process that dies is noticed at once
    client_pipe.close()
    try:
        client_end.send(receive(server_end))
        answer = receive(client_end)
        server_end.send("stop")
        return answer
    finally:
        for process in (second, first):
            process.join(timeout=5)
            if process.is_alive():
                process.kill()
                process.join()


def receive(pipe: Pipe) -> Any:
    """What the other process says, within bounds."""
    if not pipe.poll(ANSWER_TIMEOUT_S):
        raise TimeoutError("the other process says nothing")
    return pipe.recv()


def cpu_s() -> float:
    """User and system time of this process so far."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def cores() -> list[int]:
    """The cores we may use; the first two are the ends of a transfer."""
    return sorted(os.sched_getaffinity(0))


def pin(position: int) -> None:
    """Give each end its own core, for all stacks alike."""
    available = cores()
    os.sched_setaffinity(0, {available[position % len(available)]})
