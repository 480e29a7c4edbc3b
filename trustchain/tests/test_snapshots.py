"""State snapshots of the log: runs of records, each the subtree of the record tree it is."""

from dataclasses import replace

import pytest

from consensus.application import Outline
from consensus.errors import SnapshotInvalid
from native import codec
from trustchain import client, limits
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.outcomes import Outcome
from trustchain.core.snapshot import decode_chunk, encode_chunk
from trustchain.runtime.application import LogApplication
from trustchain.tests.network import CHAIN_ID, Network

KEY = client.generate_key(KeyAlgorithm.ED25519)


def filled(count: int) -> Network:
    network = Network(validators=1)
    for place in range(0, count, 7):
        names = range(place, min(place + 7, count))
        network.order(*[network.issue([f"n{number}.mesh"], KEY) for number in names])
    return network


def read_all(application: LogApplication) -> list[bytes]:
    chunks = []
    while (chunk := application.next_chunk()) is not None:
        chunks.append(chunk)
    return chunks


def outline_of(application: LogApplication) -> tuple[Outline, list[bytes]]:
    opening = application.cut()
    chunks = read_all(application)
    return Outline(opening=opening, parts=tuple(map(application.measure, chunks))), chunks


@pytest.mark.parametrize("count", [0, 1, 15, 16, 17, 50])
def test_a_snapshot_of_any_length_is_proven_and_restored(count: int) -> None:
    network = filled(count)
    root = network.application.application_root
    outline, chunks = outline_of(network.application)
    assert len(chunks) == -(-count // limits.SNAPSHOT_RECORDS_PER_CHUNK)
    again = LogApplication(CHAIN_ID, network.genesis)
    again.genesis()
    again.check_outline(root, outline)
    assert again.restore(outline, chunks) == root
    assert again.head() == network.application.head()
    assert again.root() == network.application.root()


def test_a_restored_log_issues_nothing_twice_and_goes_on_as_the_others() -> None:
    network = filled(20)
    old = network.issue(["late.mesh"], KEY)
    assert network.order(old) == [Outcome.ISSUED]
    outline, chunks = outline_of(network.application)
    again = LogApplication(CHAIN_ID, network.genesis)
    again.genesis()
    again.restore(outline, chunks)
    before, network.applications[0] = network.applications[0], again
    taken = network.issue(["n3.mesh"], client.generate_key(KeyAlgorithm.ED25519))
    assert network.order(old, taken) == [Outcome.ALREADY_ISSUED, Outcome.NAME_TAKEN]
    assert again.application_root == before.application_root


def test_entries_after_the_cut_are_not_in_it() -> None:
    network = filled(20)
    expected, chunks = outline_of(network.application)
    assert network.application.cut() == expected.opening
    network.order(network.issue(["late.mesh"], KEY))
    assert read_all(network.application) == chunks


def test_a_changed_record_is_another_part() -> None:
    outline, chunks = outline_of(filled(17).application)
    application = Network(validators=1).application
    first, records = decode_chunk(chunks[0])
    lies = [
        encode_chunk(first, records[:-1]),
        encode_chunk(first, (*records[:-1], records[-1][:-1] + bytes((records[-1][-1] ^ 1,)))),
        encode_chunk(16, records),
        chunks[1],
    ]
    assert all(application.measure(lie) != outline.parts[0] for lie in lies)
    for lie in (b"", encode_chunk(1, records), encode_chunk(0, ()), codec.encode((0, (1,)))):
        with pytest.raises(SnapshotInvalid):
            application.measure(lie)


def test_an_outline_that_lies_is_refused() -> None:
    network = filled(40)
    application = network.application
    root = application.application_root
    outline, chunks = outline_of(application)
    parts = outline.parts
    wrong = application.measure(encode_chunk(16, decode_chunk(chunks[0])[1]))
    for lie in (parts[1:], parts[::-1], (parts[0], wrong, parts[2]), (*parts[:2], b"junk")):
        with pytest.raises(SnapshotInvalid):
            application.check_outline(root, replace(outline, parts=tuple(lie)))
    with pytest.raises(SnapshotInvalid, match="another application root"):
        application.check_outline(filled(1).application.application_root, outline)
    with pytest.raises(SnapshotInvalid):
        application.restore(outline, chunks[1:])
    assert application.application_root == root
