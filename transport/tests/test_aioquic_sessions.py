"""Bounds and order of the tickets that the reference engine remembers."""

import datetime
from dataclasses import replace
from functools import cache

from aioquic.tls import CipherSuite, SessionTicket

from native.keys import SecretKey
from native.values import Algorithm, PublicKey
from transport.limits import (
    SESSIONS_MAX,
    TICKET_BYTES_MAX,
    TICKET_NODES_MAX,
    TICKETS_PER_NODE_MAX,
)
from transport.runtime.engines.aioquic_sessions import Sessions

NOW = datetime.datetime.now(datetime.UTC)


@cache
def peer(_: int) -> PublicKey:
    return SecretKey.generate(Algorithm.ML_DSA_65).public


def ticket(number: int) -> SessionTicket:
    return SessionTicket(
        age_add=0,
        cipher_suite=CipherSuite.AES_128_GCM_SHA256,
        not_valid_after=NOW + datetime.timedelta(hours=1),
        not_valid_before=NOW - datetime.timedelta(seconds=1),
        resumption_secret=bytes(32),
        server_name="",
        ticket=number.to_bytes(4),
    )


def test_a_ticket_is_redeemed_once() -> None:
    sessions = Sessions()
    sessions.give(ticket(1), peer(0))
    assert sessions.redeem(ticket(1).ticket) == (ticket(1), peer(0))
    assert sessions.redeem(ticket(1).ticket) is None
    assert sessions.redeem(b"made up") is None
    assert sessions.refused == 2


def test_the_oldest_tickets_given_out_make_room() -> None:
    sessions = Sessions()
    for number in range(SESSIONS_MAX + 1):
        sessions.give(ticket(number), peer(0))
    assert sessions.redeem(ticket(0).ticket) is None
    assert sessions.redeem(ticket(1).ticket) is not None


def test_a_dialler_uses_each_ticket_once_and_keeps_the_newest() -> None:
    sessions = Sessions()
    for number in range(TICKETS_PER_NODE_MAX + 1):
        sessions.keep(ticket(number), peer(0))
    used = []
    while (session := sessions.use(peer(0).node_id)) is not None:
        used.append(session)
    assert used == [(ticket(number), peer(0)) for number in range(1, TICKETS_PER_NODE_MAX + 1)]
    assert sessions.use(peer(1).node_id) is None


def test_a_ticket_that_has_expired_is_passed_over() -> None:
    sessions = Sessions()
    sessions.keep(replace(ticket(1), not_valid_after=NOW - datetime.timedelta(days=1)), peer(0))
    sessions.keep(ticket(2), peer(0))
    assert sessions.use(peer(0).node_id) == (ticket(2), peer(0))


def test_the_node_that_was_silent_longest_is_forgotten() -> None:
    sessions = Sessions()
    for number in range(TICKET_NODES_MAX):
        sessions.keep(ticket(number), peer(number))
    sessions.keep(ticket(0), peer(0))
    sessions.keep(ticket(0), peer(TICKET_NODES_MAX))
    assert sessions.use(peer(1).node_id) is None
    assert sessions.use(peer(0).node_id) is not None
    assert sessions.use(peer(TICKET_NODES_MAX).node_id) is not None


def test_a_ticket_that_fits_no_first_flight_is_not_kept() -> None:
    sessions = Sessions()
    sessions.keep(replace(ticket(1), ticket=bytes(TICKET_BYTES_MAX + 1)), peer(0))
    assert sessions.use(peer(0).node_id) is None
    sessions.keep(replace(ticket(1), ticket=bytes(TICKET_BYTES_MAX)), peer(0))
    assert sessions.use(peer(0).node_id) is not None


def test_no_peer_makes_us_send_early_data() -> None:
    sessions = Sessions()
    sessions.keep(replace(ticket(1), max_early_data_size=0xFFFF_FFFF), peer(0))
    session = sessions.use(peer(0).node_id)
    assert session is not None
    assert session[0].max_early_data_size is None
