"""Places for nodes outside the set: strangers never take those of nodes that are expected."""

from collections.abc import Callable
from typing import cast

from consensus.core.epochs import GUEST_FIRST
from consensus.limits import GUESTS_MAX, STRANGERS_MAX
from consensus.runtime.links import Links
from native.values import NodeId
from transport import ChannelKind, CloseReason, Connection, Endpoint
from transport.errors import ChannelFull

Notice = Callable[[Connection], None]


def node(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


MEMBERS = [node(number) for number in range(4)]


class Door:
    """Stands for `Endpoint`: tells of connections that come and go."""

    def on_connection(self, notice: Notice) -> None:
        self.came = notice

    def on_closed(self, notice: Notice) -> None:
        self.went = notice


class Line:
    """Stands for `Connection`."""

    def __init__(self, door: Door, peer: NodeId) -> None:
        self.door = door
        self.peer = peer
        self.close_reason: CloseReason | None = None

        self.queued: list[int] = []
        self.full = False

    def channel(self, _kind: ChannelKind) -> "Line":
        return self

    def send_nowait(self, frame_type: int, *_parts: bytes) -> None:
        if self.full:
            raise ChannelFull("the channel is full")
        self.queued.append(frame_type)

    def close_now(self, reason: CloseReason, _detail: str = "") -> None:
        self.close_reason = reason
        self.door.went(cast("Connection", self))


class Bench:
    """The links of member 0, and lines to them."""

    def __init__(self, *expected: NodeId) -> None:
        self.door = Door()
        self.lost: list[int] = []
        self.links = Links(
            cast("Endpoint", self.door),
            MEMBERS,
            {},
            me=0,
            on_up=lambda _peer: None,
            on_down=self.lost.append,
            expected=lambda: expected,
        )

    def speak(self, peer: NodeId) -> tuple[int | None, Line]:
        """A node connects and says something: its place."""
        line = Line(self.door, peer)
        connection = cast("Connection", line)
        self.door.came(connection)
        return self.links.take_place(connection), line


def test_strangers_leave_places_to_nodes_that_are_expected() -> None:
    joiner = node(1_000)
    bench = Bench(joiner)
    places = [bench.speak(node(100 + number))[0] for number in range(GUESTS_MAX)]
    assert places == [
        *range(GUEST_FIRST, GUEST_FIRST + STRANGERS_MAX),
        *[None] * (GUESTS_MAX - STRANGERS_MAX),
    ]
    assert bench.speak(joiner)[0] == GUEST_FIRST + STRANGERS_MAX


def test_a_place_is_free_again_when_its_stranger_goes() -> None:
    bench = Bench()
    lines = [bench.speak(node(100 + number))[1] for number in range(STRANGERS_MAX)]
    lines[3].close_now(CloseReason.SHUTDOWN)
    assert bench.speak(node(999))[0] == GUEST_FIRST + 3


def test_a_guest_is_turned_away_and_a_member_is_not() -> None:
    bench = Bench()
    place, guest = bench.speak(node(100))
    index, member = bench.speak(MEMBERS[2])
    assert place is not None
    assert index == 2
    bench.links.turn_away_nowait(place, "bad signature")
    bench.links.turn_away_nowait(index, "bad signature")
    assert guest.close_reason is CloseReason.PROTOCOL_VIOLATION
    assert member.close_reason is None
    assert bench.lost == [place]
    assert bench.links.connection(place) is None


def test_a_sender_is_told_whether_its_frame_was_queued() -> None:
    bench = Bench()
    links = bench.links
    assert not links.send_nowait(2, ChannelKind.BULK, 7, b"nobody is connected")
    _, line = bench.speak(MEMBERS[2])
    assert links.send_nowait(2, ChannelKind.BULK, 7, b"taken")
    line.full = True
    assert not links.send_nowait(2, ChannelKind.BULK, 7, b"no room")
    assert line.queued == [7]
    assert links.dropped_total == 2
