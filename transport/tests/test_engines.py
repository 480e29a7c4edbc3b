"""Both engines on both ends: what travels is the same whoever carries it."""

import os
from pathlib import Path

import pytest
import trio

from native.values import Algorithm
from transport import CloseReason, Connection, Identity, RefusalReason
from transport.core.events import ChannelKind
from transport.errors import DialFailed
from transport.tests.conftest import Start
from transport.tests.links import PAIRINGS, exchange, identity

MB = 1 << 20
MIXED = [pairing for pairing in PAIRINGS if pairing != ("rust", "rust")]


async def joined(
    start: Start, identities: list[Identity], pairing: tuple[str, str]
) -> tuple[Connection, Connection]:
    dialler = await start(identities[0], engine=pairing[0])
    acceptor = await start(identities[1], engine=pairing[1])
    with trio.fail_after(10):
        ours = await dialler.dial(acceptor.address, identities[1].node_id)
        return ours, await acceptor.accept()


@pytest.mark.parametrize("pairing", MIXED, ids="-".join)
async def test_streams_and_closing_words_and_exported_secrets(
    start: Start, identities: list[Identity], pairing: tuple[str, str]
) -> None:
    ours, theirs = await joined(start, identities, pairing)
    assert (ours.peer, theirs.peer) == (identities[1].node_id, identities[0].node_id)
    assert ours.export_keying_material(b"test") == theirs.export_keying_material(b"test")
    await exchange(ours, theirs, MB)
    with trio.fail_after(10):
        await ours.close(CloseReason.UNUSED, "not needed")
        await theirs.closed.wait()
    assert theirs.closure is not None
    assert theirs.closure.reason is CloseReason.UNUSED
    assert theirs.closure.detail == "not needed"


@pytest.mark.parametrize("pairing", MIXED, ids="-".join)
async def test_frames_of_channels_arrive_in_order(
    start: Start, identities: list[Identity], pairing: tuple[str, str]
) -> None:
    dialler = await start(identities[0], engine=pairing[0])
    acceptor = await start(identities[1], engine=pairing[1])
    sent = [(number, os.urandom(number * 1_000)) for number in range(1, 100)]
    got: list[tuple[int, bytes]] = []
    done = trio.Event()

    def arrived(_: Connection, kind: ChannelKind, frame_type: int, body: bytes) -> None:
        assert kind is ChannelKind.BULK
        got.append((frame_type, body))
        if len(got) == len(sent):
            done.set()

    acceptor.on_frame(arrived)
    with trio.fail_after(10):
        ours = await dialler.dial(acceptor.address, identities[1].node_id)
        for frame_type, body in sent:
            assert dialler.broadcast_nowait([ours], ChannelKind.BULK, frame_type, body) == []
        await done.wait()
    assert got == sent


@pytest.mark.parametrize("pairing", MIXED, ids="-".join)
async def test_another_node_than_the_one_dialled_is_refused(
    start: Start, identities: list[Identity], pairing: tuple[str, str]
) -> None:
    dialler = await start(identities[0], engine=pairing[0])
    acceptor = await start(identities[1], engine=pairing[1])
    with trio.fail_after(10), pytest.raises(DialFailed) as failure:
        await dialler.dial(acceptor.address, identities[2].node_id)
    assert failure.value.closure.refusal is RefusalReason.WRONG_KEY
    with trio.fail_after(10):
        while not acceptor.statistics().refused_total[RefusalReason.REFUSED_BY_PEER]:
            await trio.lowlevel.checkpoint()


@pytest.mark.parametrize("algorithm", [Algorithm.FALCON_1024, Algorithm.ML_DSA_65])
@pytest.mark.parametrize("pairing", MIXED, ids="-".join)
async def test_every_kind_of_key(
    start: Start, pairing: tuple[str, str], algorithm: Algorithm
) -> None:
    keys = [identity(algorithm, 0), identity(algorithm, 1)]
    ours, theirs = await joined(start, keys, pairing)
    assert (ours.peer, theirs.peer) == (keys[1].node_id, keys[0].node_id)


@pytest.mark.parametrize("pairing", MIXED, ids="-".join)
async def test_an_acceptor_that_always_wants_proof_of_the_address(
    start: Start, identities: list[Identity], pairing: tuple[str, str]
) -> None:
    dialler = await start(identities[0], engine=pairing[0])
    acceptor = await start(identities[1], engine=pairing[1], retry="always")
    with trio.fail_after(10):
        await dialler.dial(acceptor.address, identities[1].node_id)
    retries = acceptor.engine.statistics()["retries_sent"]
    assert retries in (1, 2)  # a hello of two packets may be answered twice


async def test_packets_are_never_larger_than_aioquic_can_write(
    start: Start, identities: list[Identity]
) -> None:
    dialler = await start(identities[0], engine="aioquic", mtu_bytes_max=65_000)
    acceptor = await start(identities[1], engine="aioquic", mtu_bytes_max=65_000)
    with trio.fail_after(10):
        ours = await dialler.dial(acceptor.address, identities[1].node_id)
        theirs = await acceptor.accept()
    path = dialler.engine.path(ours.handle)
    assert path is not None
    assert path[2] == 16_000
    await exchange(ours, theirs, MB)


async def test_a_log_of_keys_is_for_its_owner_only(
    start: Start, identities: list[Identity], tmp_path: Path
) -> None:
    log = tmp_path / "keys.log"
    dialler = await start(identities[0], engine="aioquic", key_log_path=str(log))
    acceptor = await start(identities[1])
    with trio.fail_after(10):
        await dialler.dial(acceptor.address, identities[1].node_id)
    assert log.stat().st_mode & 0o777 == 0o600
    assert "CLIENT_TRAFFIC_SECRET_0" in log.read_text()


async def test_both_engines_count_the_same_things(start: Start, identities: list[Identity]) -> None:
    rust = (await start(identities[0])).engine.statistics()
    other = (await start(identities[1], engine="aioquic")).engine.statistics()
    assert rust.keys() == other.keys()
    assert isinstance(rust["refused"], dict)
    assert isinstance(other["refused"], dict)
    assert list(rust["refused"]) == list(other["refused"])
