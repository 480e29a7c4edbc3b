"""One node at several addresses."""

import pytest
import trio
import trio.testing

from transport import Identity
from transport.errors import AddressInvalid, DialFailed, EndpointStopped, TransportError
from transport.limits import DIAL_ADDRESSES_MAX
from transport.runtime.dialling import first_admitted
from transport.tests.conftest import Start

SILENT = "[::1]:9"  # nobody listens there, and nothing says so


async def test_the_next_address_is_tried_when_one_is_silent(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1])
    with trio.fail_after(5):
        connection = await dialler.dial([SILENT, acceptor.address], identities[1].node_id)
    assert connection.remote_address == acceptor.address
    assert dialler.statistics().handshakes == 0  # the other attempt was given up


async def test_the_next_address_is_tried_at_once_when_one_fails(
    start: Start, identities: list[Identity]
) -> None:
    dialler, wrong = await start(identities[0]), await start(identities[2])
    acceptor = await start(identities[1])
    with trio.fail_after(5):
        connection = await dialler.dial([wrong.address, acceptor.address], identities[1].node_id)
    assert connection.remote_address == acceptor.address


async def test_the_same_node_at_two_addresses_gives_one_connection(
    start: Start, identities: list[Identity]
) -> None:
    dialler, acceptor = await start(identities[0]), await start(identities[1], listen="[::]:0")
    port = acceptor.address.rpartition(":")[2]
    addresses = [f"[::1]:{port}", f"[0::1]:{port}"]
    with trio.fail_after(5):
        connection = await dialler.dial(addresses, identities[1].node_id)
        await connection.ping()
    assert dialler.connections == (connection,)
    assert len(acceptor.connections) == 1


async def test_every_address_is_named_with_its_problem(
    start: Start, identities: list[Identity]
) -> None:
    dialler, wrong = await start(identities[0], admission_timeout_s=0.3), await start(identities[2])
    with trio.fail_after(5), pytest.raises(DialFailed) as caught:
        await dialler.dial([SILENT, wrong.address], identities[1].node_id)
    assert list(caught.value.problems) == [wrong.address, SILENT]
    assert "wrong_key" in caught.value.problems[wrong.address]
    assert caught.value.closure.name == "wrong_key"  # says more than silence
    assert SILENT in str(caught.value)
    assert "another node answers" in caught.value.hint


@pytest.mark.parametrize(
    "addresses", [[], ["[::1]:1", "127.0.0.1:1"], [f"[::1]:{port}" for port in range(1, 20)]]
)
async def test_addresses_are_checked_before_any_is_dialled(
    start: Start, identities: list[Identity], addresses: list[str]
) -> None:
    dialler = await start(identities[0])
    assert len(addresses) <= 2 or len(addresses) > DIAL_ADDRESSES_MAX
    with pytest.raises(AddressInvalid):
        await dialler.dial(addresses, identities[1].node_id)
    assert dialler.statistics().handshakes == 0


async def test_a_head_start_is_short_and_the_first_success_cancels_the_rest(
    autojump_clock: trio.testing.MockClock,
) -> None:
    assert autojump_clock.rate == 0.0
    log: list[str] = []

    async def dial(address: str) -> str:
        log.append(f"{address} at {trio.current_time() - began_s:.2f}")
        try:
            await trio.sleep({"slow": 10, "middle": 1, "late": 10}[address])
        except trio.Cancelled:
            log.append(f"{address} cancelled")
            raise
        return address

    began_s = trio.current_time()
    assert await first_admitted(["slow", "middle", "late"], dial) == "middle"
    assert log[:3] == ["slow at 0.00", "middle at 0.25", "late at 0.50"]
    assert sorted(log[3:]) == ["late cancelled", "slow cancelled"]
    assert trio.current_time() - began_s == pytest.approx(1.25)


async def test_an_endpoint_that_stops_ends_the_search() -> None:
    tried: list[str] = []

    async def dial(address: str) -> None:
        tried.append(address)
        raise EndpointStopped("the endpoint was stopped")

    with pytest.raises(EndpointStopped):
        await first_admitted(["one", "two"], dial)
    assert tried == ["one"]


async def test_a_search_in_which_no_address_could_be_used_fails_with_all_problems() -> None:
    async def dial(address: str) -> None:
        raise AddressInvalid(address, "no route")

    with pytest.raises(TransportError) as caught:
        await first_admitted(["one", "two"], dial)
    assert isinstance(caught.value, DialFailed)
    assert str(caught.value) == "one: 'one': no route; two: 'two': no route"
