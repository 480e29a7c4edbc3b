"""The floor of every round trip on this machine: datagrams without QUIC, in a plain loop and in
trio's."""

from __future__ import annotations

import socket
import time
from multiprocessing.connection import Connection as Pipe

import trio

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
    pin(1)
    data, took = bytes(plan.message), []
    with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours:
        ours.connect((HOST, pipe.recv()))
        for _ in range(plan.count):
            started = time.perf_counter()
            ours.send(data)
            ours.recv(plan.message)
            took.append(time.perf_counter() - started)
    pipe.send(took)


def trio_server(pipe: Pipe, plan: Plan) -> None:
    """Send back whatever comes, through trio's sockets."""
    pin(0)

    async def main() -> None:
        with trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours:
            await ours.bind((HOST, 0))
            pipe.send(ours.getsockname()[1])
            for _ in range(plan.count):
                data, peer = await ours.recvfrom(plan.message)
                await ours.sendto(data, peer)

    trio.run(main)
    pipe.recv()


def trio_round_trips(pipe: Pipe, plan: Plan) -> None:
    """`round_trips` through trio's sockets."""
    pin(1)
    data, took, port = bytes(plan.message), [], pipe.recv()

    async def main() -> None:
        with trio.socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as ours:
            await ours.connect((HOST, port))
            for _ in range(plan.count):
                started = time.perf_counter()
                await ours.send(data)
                await ours.recv(plan.message)
                took.append(time.perf_counter() - started)

    trio.run(main)
    pipe.send(took)
