"""Section 3.6 item 4: what a set of VIEW-CHANGEs demands of the new primary."""

from dataclasses import replace

from consensus.core.messages import EMPTY_ROOT, ViewChange
from consensus.core.phases.view_change import selection
from consensus.core.types import Committee, ReplicaIndex
from consensus.tests import samples

COMMITTEE = Committee(chain_id=samples.CHAIN, members=4, me=ReplicaIndex(0))


def change(signer: int, certified: int, *prepared: tuple[int, int, bytes]) -> ViewChange:
    """A VIEW-CHANGE of a replica with batches prepared at (view, sequence, payload root)."""
    entries = []
    for view, sequence, root in prepared:
        certificate = samples.prepared(view, sequence)
        entries.append(replace(certificate, pre_prepare=samples.pre_prepare(view, sequence, root)))
    return replace(
        samples.view_change(9, signer),
        certificate=samples.certificate(certified) if certified else None,
        prepared=tuple(entries),
    )


def chosen(*changes: ViewChange) -> list[tuple[int, bytes]]:
    _, batches = selection(changes, COMMITTEE)
    return [(header.sequence, header.payload_root) for header in batches]


def test_the_certificate_of_the_highest_view_wins() -> None:
    old, new = b"o" * 32, b"n" * 32
    changes = [change(1, 5, (0, 6, old)), change(2, 5, (3, 6, new)), change(3, 5, (2, 6, old))]
    assert chosen(*changes) == [(6, new)]
    assert chosen(*reversed(changes)) == [(6, new)]


def test_one_holder_is_enough() -> None:
    batch = b"b" * 32
    assert chosen(change(1, 5), change(2, 5, (0, 6, batch)), change(3, 5)) == [(6, batch)]


def test_a_gap_is_filled_with_the_null_batch() -> None:
    batch = b"b" * 32
    _, batches = selection([change(1, 5, (0, 8, batch)), change(2, 5), change(3, 5)], COMMITTEE)
    assert [(header.sequence, header.payload_root) for header in batches] == [
        (6, EMPTY_ROOT),
        (7, EMPTY_ROOT),
        (8, batch),
    ]
    assert [header.proposed_ms for header in batches[:2]] == [0, 0]


def test_the_digest_is_copied_unchanged() -> None:
    _, batches = selection([change(1, 5, (4, 6, b"b" * 32))], COMMITTEE)
    assert batches[0].digest == samples.batch(6, b"b" * 32).digest


def test_what_the_highest_certificate_covers_is_not_proposed_again() -> None:
    batch = b"b" * 32
    behind = change(1, 5, (0, 6, batch), (0, 7, batch), (0, 8, batch))
    certificate, batches = selection([behind, change(2, 7), change(3, 5)], COMMITTEE)
    assert certificate is not None
    assert certificate.height == 7
    assert [header.sequence for header in batches] == [8]


def test_nothing_prepared_means_nothing_to_propose_again() -> None:
    assert chosen(change(1, 5), change(2, 7), change(3, 0)) == []
