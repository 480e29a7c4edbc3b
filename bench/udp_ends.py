"""The floor of every round trip on this machine: plain datagrams, without QUIC, trio or Python's
own work between two system calls."""

from __future__ import annotations

import socket
import time
from multiprocessing.connection import Connection as Pipe

from bench.processes import pin
from bench.stoq_ends import Plan

HOST = "::1"


def server(pipe: Pipe, plan: Plan) -> None:
    """Send back whatever comes."""
    pin(0)
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours:
        ours.bind((HOST, 0))
        pipe.send(ours.getsockname()[1])
        for _ in range(plan.count):
            data, peer = ours.recvfrom(plan.message)
            ours.sendto(data, peer)
    pipe.recv()


def round_trips(pipe: Pipe, plan: Plan) -> None:
    """`count` datagrams there and back, one after the other; says how long each took."""
    pin(0 if plan.one_core else 1)
    data, took = bytes(plan.message), []
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours:
        ours.connect((HOST, pipe.recv()))
        for _ in range(plan.count):
            started = time.perf_counter()
            ours.send(data)
            ours.recv(plan.message)
            took.append(time.perf_counter() - started)
    pipe.send(took)
