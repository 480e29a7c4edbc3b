"""Counters, configuration, and the names shared with the engine."""

from dataclasses import fields

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from pydantic import ValidationError

from native.quic import QUIC_CAUSES, QUIC_EVENTS, QUIC_REFUSALS
from transport import Endpoint, Identity, TransportConfig
from transport.core.events import (
    ENGINE_REFUSALS,
    HELLO_REFUSALS,
    Cause,
    CloseReason,
    EventKind,
    RefusalReason,
)
from transport.identity import AcceptAll
from transport.metrics import METRICS, EndpointStatistics, TransportMetrics
from transport.tests.conftest import Start, offer


def test_the_engine_and_the_transport_use_the_same_names() -> None:
    assert tuple(reason.value for reason in ENGINE_REFUSALS) == QUIC_REFUSALS
    assert tuple(cause.name.lower() for cause in Cause) == QUIC_CAUSES
    assert tuple(kind.name.lower() for kind in EventKind) == QUIC_EVENTS
    assert {*ENGINE_REFUSALS, *HELLO_REFUSALS.values()} == set(RefusalReason)


def test_an_unknown_close_code_has_a_name() -> None:
    assert CloseReason.of(2**40) is CloseReason.UNKNOWN


def test_every_counter_is_declared() -> None:
    assert set(METRICS) == {field.name for field in fields(EndpointStatistics)}


async def test_a_scrape_shows_every_reason(start: Start, identities: list[Identity]) -> None:
    endpoint = await start(identities[0])
    registry = CollectorRegistry()
    TransportMetrics(endpoint.statistics, registry)
    text = generate_latest(registry).decode()
    for reason in RefusalReason:
        assert f'hypermesh_transport_refused_total{{reason="{reason.value}"}} 0.0' in text
    assert "hypermesh_transport_connections 0.0" in text


def test_metrics_register_before_the_endpoint_runs(identities: list[Identity]) -> None:
    endpoint = Endpoint(identities[0], listen=None, hello=offer(), verifier=AcceptAll())
    TransportMetrics(endpoint.statistics, CollectorRegistry())


@pytest.mark.parametrize(
    "wrong",
    [{"engine": "carrier pigeon"}, {"mtu_bytes_max": 1_199}, {"no_such_key": 1}, {"idle": -1}],
)
def test_configuration_is_strict(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        TransportConfig.model_validate(wrong)
