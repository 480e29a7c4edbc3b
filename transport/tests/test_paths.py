"""Failure modes of UDP paths that were met before: one test each (reference, section 15)."""

import pytest
import trio

from transport import ChannelKind, Identity
from transport.limits import SOCKET_BUFFER_BYTES
from transport.tests.conftest import Start, pair


@pytest.mark.parametrize("mtu_bytes", [1_200, 1_452, 8_900, 16_300, 65_000])
async def test_no_send_fails_whatever_the_path_allows(
    start: Start, identities: list[Identity], mtu_bytes: int
) -> None:
    """A GSO batch over 65,507 bytes would vanish, and look like a black hole."""
    ours, theirs = await pair(start, identities, mtu_bytes_max=mtu_bytes)
    size = 24 << 20
    done = trio.Event()
    received = 0

    def count(*frame: object) -> None:
        nonlocal received
        body = frame[3]
        assert isinstance(body, bytes)
        received += len(body)
        if received == size:
            done.set()

    theirs.endpoint.on_frame(count)
    for _ in range(24):
        ours.channel(ChannelKind.BULK).send_nowait(1, bytes(1 << 20))
    with trio.fail_after(10):
        await done.wait()
    assert ours.endpoint.statistics().send_errors_total == 0
    assert ours.statistics().black_holes == 0
    assert 1_200 <= ours.statistics().mtu_bytes <= mtu_bytes


async def test_the_granted_socket_buffers_are_reported(
    start: Start, identities: list[Identity]
) -> None:
    small = await start(identities[0], socket_buffer_bytes=65_536)
    large = await start(identities[1], socket_buffer_bytes=SOCKET_BUFFER_BYTES)
    granted = small.statistics().receive_buffer_bytes
    assert 65_536 <= granted <= large.statistics().receive_buffer_bytes
