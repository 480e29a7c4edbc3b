"""Decisions of a bad link: repeatable, near the rates that were asked for, bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transport.core.impairment import CLEAN, Delivery, Impairment, Link, Loss

seeds = st.integers(0, 2**64 - 1)
probabilities = st.floats(0, 1)
impairments = st.builds(
    Impairment,
    drop=probabilities,
    corrupt=probabilities,
    duplicate=probabilities,
    reorder=probabilities,
    mark=probabilities,
    delay_s=st.floats(0, 1),
    jitter_s=st.floats(0, 1),
    rate_bytes_per_s=st.one_of(st.just(0.0), st.floats(1_000, 1e7)),
    queue_bytes_max=st.integers(1_000, 100_000),
    mtu_bytes=st.integers(100, 2_000),
)
traffic = st.lists(
    st.tuples(st.floats(0, 0.01), st.binary(min_size=1, max_size=40).map(lambda some: some * 40)),
    max_size=40,
)


def carried(link: Link, packets: list[tuple[float, bytes]]) -> list[Delivery]:
    """Everything that arrives of packets that come after these gaps."""
    now, arrived = 100.0, []
    for gap, data in packets:
        now += gap
        deliveries = link.decide(data, now)
        assert all(delivery.deliver_at >= now + link.impairment.delay_s for delivery in deliveries)
        arrived += deliveries
    return arrived


@given(seeds, impairments, traffic)
def test_one_seed_gives_one_trace(
    seed: int, impairment: Impairment, packets: list[tuple[float, bytes]]
) -> None:
    assert carried(Link(seed, impairment), packets) == carried(Link(seed, impairment), packets)


@given(seeds, impairments, traffic)
def test_every_datagram_is_delivered_or_counted_as_lost(
    seed: int, impairment: Impairment, packets: list[tuple[float, bytes]]
) -> None:
    link = Link(seed, impairment)
    arrived = carried(link, packets)
    counted = link.statistics()
    assert counted.datagrams_received == len(packets)
    assert counted.datagrams_delivered == len(arrived)
    assert counted.bytes_delivered == sum(len(delivery.data) for delivery in arrived)
    assert len(arrived) + counted.lost_total == len(packets) + counted.duplicated
    assert counted.largest_delivered_bytes <= impairment.mtu_bytes


@given(seeds, traffic)
def test_a_clean_link_changes_nothing(seed: int, packets: list[tuple[float, bytes]]) -> None:
    arrived = carried(Link(seed), packets)
    assert [delivery.data for delivery in arrived] == [data for _, data in packets]
    assert not any(delivery.marked for delivery in arrived)


@given(seeds, st.floats(1_000, 1e6), st.integers(2_000, 50_000), traffic)
def test_no_window_of_time_carries_more_than_the_rate(
    seed: int, rate: float, queue: int, packets: list[tuple[float, bytes]]
) -> None:
    link = Link(seed, Impairment(rate_bytes_per_s=rate, queue_bytes_max=queue, duplicate=0.3))
    arrived = carried(link, packets)
    for first, start in enumerate(arrived):
        carried_bytes = 0
        for delivery in arrived[first + 1 :]:
            carried_bytes += len(delivery.data)
            assert carried_bytes <= (delivery.deliver_at - start.deliver_at) * rate + 1


@given(seeds, st.floats(1_000, 1e6), st.integers(2_000, 50_000), traffic)
def test_nothing_waits_longer_than_a_full_queue_takes(
    seed: int, rate: float, queue: int, packets: list[tuple[float, bytes]]
) -> None:
    link, now = Link(seed, Impairment(rate_bytes_per_s=rate, queue_bytes_max=queue)), 0.0
    for gap, data in packets:
        now += gap
        for delivery in link.decide(data, now):
            assert delivery.deliver_at - now <= queue / rate + 1e-6


@given(seeds, st.floats(0, 1), traffic)
def test_jitter_alone_does_not_reorder(
    seed: int, jitter: float, packets: list[tuple[float, bytes]]
) -> None:
    arrived = carried(Link(seed, Impairment(jitter_s=jitter)), packets)
    assert arrived == sorted(arrived, key=lambda delivery: delivery.deliver_at)
    assert [delivery.data for delivery in arrived] == [data for _, data in packets]


@given(seeds, probabilities, probabilities)
def test_what_is_lost_at_a_low_rate_is_lost_at_a_higher_one(
    seed: int, one: float, other: float
) -> None:
    lost = []
    for rate in sorted((one, other)):
        link = Link(seed, Impairment(drop=rate))
        lost.append({number for number in range(50) if not link.decide(b"x", 0)})
    assert lost[0] <= lost[1]


@given(seeds, st.binary(min_size=1, max_size=100))
def test_corruption_changes_one_byte(seed: int, data: bytes) -> None:
    [delivery] = Link(seed, Impairment(corrupt=1)).decide(data, 0)
    assert len(delivery.data) == len(data)
    assert sum(a != b for a, b in zip(data, delivery.data, strict=True)) == 1


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("seed", range(3))
def test_the_rates_are_those_asked_for(seed: int, rate: float) -> None:
    link = Link(
        seed,
        Impairment(drop=rate, corrupt=rate, duplicate=rate, reorder=rate, mark=rate, reorder_s=1),
    )
    count = 20_000
    for _ in range(count):
        link.decide(bytes(100), 0)
    counted = link.statistics()
    assert counted.lost[Loss.CHANCE] / count == pytest.approx(rate, rel=0.15)
    survivors = count - counted.lost_total
    for happened in (counted.corrupted, counted.duplicated):
        assert happened / survivors == pytest.approx(rate, rel=0.15)
    for happened in (counted.reordered, counted.marked):
        assert happened / counted.datagrams_delivered == pytest.approx(rate, rel=0.15)


def test_a_held_back_datagram_is_overtaken() -> None:
    link = Link(1, Impairment(reorder=0.5, reorder_s=0.01))
    arrived = [link.decide(bytes([n]), n / 1000)[0] for n in range(100)]
    order = [delivery.data for delivery in sorted(arrived)]
    assert order != [bytes([n]) for n in range(100)]
    assert sorted(order) == [bytes([n]) for n in range(100)]


def test_a_scripted_loss_leaves_the_luck_of_others_alone() -> None:
    impairment = Impairment(drop=0.5)
    plain, scripted = Link(9, impairment), Link(9, impairment)
    fates = [bool(plain.decide(b"x", 0)) for _ in range(50)]
    scripted.lose(b"x", Loss.SCRIPTED)
    assert [bool(scripted.decide(b"x", 0)) for _ in range(49)] == fates[1:]
    assert scripted.statistics().lost[Loss.SCRIPTED] == 1


@pytest.mark.parametrize(
    "nonsense",
    [
        {"drop": 1.1},
        {"corrupt": -0.1},
        {"mark": float("nan")},
        {"delay_s": -1.0},
        {"jitter_s": float("inf")},
        {"rate_bytes_per_s": float("nan")},
        {"mtu_bytes": 0},
        {"mtu_bytes": 65_528},
    ],
)
def test_what_no_link_can_do_is_refused(nonsense: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(nonsense))):
        Impairment(**nonsense)  # type: ignore[arg-type]
    assert Impairment() == CLEAN
