"""Who is let in when clients have taken all places that are theirs."""

from typing import cast

import pytest

from caesar.core.validators import genesis
from caesar.tests.validator_worlds import RegistryWorld, node, nodes
from native.values import NodeId, PublicKey
from node.runtime.doorkeeper import Doorkeeper
from node.runtime.membership import expected_nodes
from transport import Endpoint, Hello
from transport.errors import PeerRefused

PLACES = 16


def key(number: int) -> NodeId:
    return NodeId(number.to_bytes(32, "big"))


VALIDATORS = [key(number) for number in range(4)]
JOINER = key(1_000)


class Line:
    """Stands for a connection."""

    def __init__(self, peer: NodeId) -> None:
        self.peer = peer


class Hall:
    """Stands for an endpoint with so many places."""

    def __init__(self) -> None:
        self.config = self
        self.connections_max = PLACES
        self.connections: list[Line] = []

    def fill(self, door: Doorkeeper) -> int:
        """Strangers come until one is refused; how many got in."""
        for number in range(PLACES + 1):
            try:
                admit(door, key(100 + number))
            except PeerRefused:
                return number
            self.connections.append(Line(key(100 + number)))
        raise AssertionError("nobody is refused")


def admit(door: Doorkeeper, peer: NodeId) -> None:
    door.verify_peer(peer, cast("PublicKey", None), cast("Hello", None))


def test_two_places_are_kept_for_each_validator_and_each_expected_node() -> None:
    hall = Hall()
    door = Doorkeeper(lambda: VALIDATORS, lambda: cast("Endpoint", hall), expected=lambda: {JOINER})
    assert hall.fill(door) == PLACES - 2 * 5
    for peer in (*VALIDATORS, JOINER):
        admit(door, peer)
        hall.connections.append(Line(peer))
    with pytest.raises(PeerRefused):
        admit(door, key(999))


def test_expected_are_the_operators_peers_and_the_sets_of_the_registry() -> None:
    before = nodes(4)
    registry = genesis(before)
    assert expected_nodes([JOINER], registry) == {JOINER, *[one.node_id for one in before]}
    net = RegistryWorld(before)
    joins = node("n9")
    net.skip(2)
    net.execute(net.sign(net.change(removes=["n3"], adds=[joins])))
    assert joins.node_id in expected_nodes([], net.registry)
    net.settle()
    assert [one.name for one in net.registry.present.members if one.name == "n3"] == []
    assert before[3].node_id in expected_nodes([], net.registry)  # it has left, and serves
