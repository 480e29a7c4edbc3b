"""Falcon signatures as a Python caller sees them, one call at a time on one core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Final

from bench.report import Result, Suite, rounded
from native import keys
from native.values import Algorithm
from node.runtime.load import percentile

SAMPLES: Final = 2_000
WARM_UP: Final = 100
MESSAGE: Final = bytes(range(64))


def run(wanted: frozenset[str]) -> Iterator[Result]:
    """Yield p50 of signing and of verifying, per algorithm."""
    for algorithm, label in (
        (Algorithm.FALCON_512, "falcon512"),
        (Algorithm.FALCON_1024, "falcon1024"),
    ):
        if not any(name.startswith(label) for name in wanted):
            continue
        secret = keys.SecretKey.generate(algorithm)
        verifier = keys.verifier(secret.public)
        signature = secret.sign(MESSAGE)

        def sign(secret: keys.SecretKey = secret) -> object:
            return secret.sign(MESSAGE)

        def verify(verifier: keys.Verifier = verifier, signature: bytes = signature) -> None:
            verifier.verify(MESSAGE, signature)

        conditions = f"{SAMPLES} calls from Python, one thread, 64-byte message, padded signature"
        yield Result(
            name=f"{label}_sign_p50_us", value=_p50_us(sign), unit="us", conditions=conditions
        )
        yield Result(
            name=f"{label}_verify_p50_us", value=_p50_us(verify), unit="us", conditions=conditions
        )


def _p50_us(call: Callable[[], object]) -> float | int:
    for _ in range(WARM_UP):
        call()
    took = []
    for _ in range(SAMPLES):
        started = time.perf_counter_ns()
        call()
        took.append(time.perf_counter_ns() - started)
    return rounded(percentile(sorted(took), 50) / 1000)


SUITE: Final = Suite(
    group="falcon",
    names=(
        "falcon512_sign_p50_us",
        "falcon512_verify_p50_us",
        "falcon1024_sign_p50_us",
        "falcon1024_verify_p50_us",
    ),
    run=run,
)
