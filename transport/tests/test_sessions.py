"""Sessions, kinds of keys and the key log, between two engines."""

import stat
from itertools import product
from pathlib import Path

import pytest
import trio

from native.errors import KeyInvalid
from native.keys import SecretKey
from native.quic import QuicEngine
from native.values import Algorithm, NodeId
from transport import Identity, TransportConfig
from transport.core.engine import EngineEvent
from transport.core.events import EventKind
from transport.runtime.engines.settings import engine_settings
from transport.tests.conftest import Start

RESUMED = 2
KEY_TYPES = [Algorithm.FALCON_512, Algorithm.FALCON_1024, Algorithm.ML_DSA_65]


@pytest.fixture(scope="module")
def kinds() -> dict[Algorithm, Identity]:
    return {algorithm: Identity(SecretKey.generate(algorithm)) for algorithm in KEY_TYPES}


@pytest.fixture(scope="module")
def others() -> dict[Algorithm, Identity]:
    return {algorithm: Identity(SecretKey.generate(algorithm)) for algorithm in KEY_TYPES}


def engine(identity: Identity, listen: str = "[::1]:0", **config: object) -> QuicEngine:
    settings = engine_settings(TransportConfig(**config))  # type: ignore[arg-type]
    return QuicEngine(identity.signer, listen, settings)


async def turn(ours: QuicEngine, theirs: QuicEngine) -> tuple[list[EngineEvent], list[EngineEvent]]:
    await trio.lowlevel.checkpoint()
    return ours.step(4)[1], theirs.step(4)[1]


async def meet(ours: QuicEngine, theirs: QuicEngine, node_id: NodeId) -> tuple[int, bytes, int]:
    """Dial; what the dialler says of the session, the key the acceptor saw, and its session."""
    dialled = ours.connect(theirs.address(), node_id)
    ours.flush()
    seen: tuple[int, bytes] | None = None
    mine = theirs_resumed = None
    with trio.fail_after(10):
        while seen is None or mine is None:
            for event in (events := await turn(ours, theirs))[1]:
                if event[0] == EventKind.CONNECTED:
                    assert isinstance(event[4], bytes)
                    seen = event[1], event[4]
            assert not [event for event in events[0] if event[:2] == (EventKind.CLOSED, dialled)]
            mine = ours.session(dialled)
        session = theirs.session(seen[0])
        assert session is not None
        theirs_resumed = session[RESUMED]
        # The ticket follows the handshake.
        tickets = ours.statistics()["datagrams_received"]
        for _ in range(20):
            await turn(ours, theirs)
        assert ours.statistics()["datagrams_received"] >= tickets  # type: ignore[operator]
    ours.close(dialled, 0, "")
    ours.flush()
    return mine[RESUMED], seen[1], theirs_resumed


@pytest.mark.parametrize(("ours", "theirs"), list(product(KEY_TYPES, KEY_TYPES)))
async def test_every_kind_of_key_dials_every_other(
    kinds: dict[Algorithm, Identity],
    others: dict[Algorithm, Identity],
    ours: Algorithm,
    theirs: Algorithm,
    start: Start,
) -> None:
    dialler, acceptor = await start(kinds[ours], listen=None), await start(others[theirs])
    with trio.fail_after(10):
        connection = await dialler.dial(acceptor.address, others[theirs].node_id)
        other = await acceptor.accept()
    assert connection.peer == others[theirs].node_id
    assert other.peer == kinds[ours].node_id


def test_ml_dsa_44_is_no_key_of_a_node() -> None:
    with pytest.raises(KeyInvalid):
        Identity(SecretKey.generate(Algorithm.ML_DSA_44))


async def test_a_second_connection_resumes_the_session_with_the_same_peers(
    kinds: dict[Algorithm, Identity],
) -> None:
    mine, other = kinds[Algorithm.FALCON_512], kinds[Algorithm.ML_DSA_65]
    ours, theirs = engine(mine), engine(other)
    spki = mine.public_key.spki
    assert await meet(ours, theirs, other.node_id) == (0, spki, 0)
    for _ in range(2):
        assert await meet(ours, theirs, other.node_id) == (1, spki, 1)


async def test_the_key_log_has_the_secrets_of_a_connection_and_is_for_its_owner_alone(
    kinds: dict[Algorithm, Identity], tmp_path: Path
) -> None:
    mine, other = kinds[Algorithm.FALCON_512], kinds[Algorithm.FALCON_1024]
    path = tmp_path / "keys.log"
    await meet(engine(mine, key_log_path=str(path)), engine(other), other.node_id)
    lines = [line.split(" ") for line in path.read_text().splitlines()]
    assert {label for label, _, _ in lines} >= {
        "CLIENT_HANDSHAKE_TRAFFIC_SECRET",
        "SERVER_HANDSHAKE_TRAFFIC_SECRET",
        "CLIENT_TRAFFIC_SECRET_0",
        "SERVER_TRAFFIC_SECRET_0",
    }
    assert {len(random) for _, random, _ in lines} == {64}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_key_log_behind_a_link_or_open_to_others_is_refused(
    kinds: dict[Algorithm, Identity], tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "keys.log")
    (tmp_path / "open").touch(0o644)
    for name in ("link", "open"):
        with pytest.raises(OSError, match=r"."):
            engine(kinds[Algorithm.FALCON_512], key_log_path=str(tmp_path / name))
    assert not (tmp_path / "keys.log").exists()
