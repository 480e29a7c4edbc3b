"""Time to issue a certificate: the HTTP call that `hypermesh cert issue` makes, on four nodes."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from bench.network import Network
from bench.report import ATTEMPTS_MAX, Pauses, Result, Suite, progress, rounded
from node.client import NodeClient
from node.runtime.load import percentile
from trustchain import client as requester
from trustchain.core.oids import KeyAlgorithm

NODES: Final = 4
SAMPLES: Final = 200
WARM_UP: Final = 10
NAMES: Final = ("certificate_issue_p50_ms", "certificate_issue_p99_ms")


def run(wanted: frozenset[str]) -> Iterator[Result]:
    """Make a network, issue certificates one after the other, and leave nothing behind."""
    del wanted  # both figures come from the same samples
    folder = Path(tempfile.mkdtemp(prefix="hypermesh-bench-"))
    network = Network.create(folder, nodes=NODES, name="bench")
    try:
        network.up()
        for attempt in range(ATTEMPTS_MAX):
            with Pauses() as pauses:
                took = sorted(_issue(network, attempt, WARM_UP + SAMPLES)[WARM_UP:])
            if not pauses.excessive:
                break
            progress(f"  the machine paused for {pauses.longest_ms:.0f} ms: measuring again")
    finally:
        network.destroy()
        shutil.rmtree(folder, ignore_errors=True)
    conditions = (
        f"{SAMPLES} requests one after the other, each an HTTP call to one of n=4 nodes until the "
        "bundle with inclusion proof and cosigned checkpoint is back; ML-DSA-65 keys made before, "
        f"durable votes, otherwise idle; max {took[-1]:.1f} ms"
    )
    for name, percent in zip(NAMES, (50, 99), strict=True):
        value = rounded(percentile(took, percent))
        yield Result(name=name, value=value, unit="ms", conditions=conditions)


def _issue(network: Network, attempt: int, count: int) -> list[float]:
    """Return the milliseconds of each call."""
    assert network.cluster is not None
    enrolment = requester.load_enrolment_key(network.cluster.enrolment_key, None)
    chain_id = bytes.fromhex(network.chain_id)
    submissions = []
    for index in range(count):
        key = requester.generate_key(KeyAlgorithm.ML_DSA_65)
        operation = requester.issue_operation(
            requester.certification_request(key, [f"bench-{attempt}-{index}.mesh"]),
            chain_id=chain_id,
            enrolment=enrolment,
            request_id=requester.new_request_id(),
        )
        submissions.append(requester.encode_submission(operation))
    took = []
    with NodeClient(network.members[0].url) as client:
        for submission in submissions:
            began = time.perf_counter()
            client.issue_certificate(submission)
            took.append((time.perf_counter() - began) * 1000)
    return took


SUITE: Final = Suite(group="certificates", names=NAMES, run=run)
