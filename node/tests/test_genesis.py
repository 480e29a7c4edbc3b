from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from native.codec import decode
from native.hashing import sha256
from node.cluster.manifest import Cluster
from node.core.genesis import Genesis, chain_label
from node.errors import GenesisInvalid


@pytest.fixture(scope="module")
def text(made_cluster: Cluster) -> str:
    return made_cluster.genesis.read_text()


def test_genesis_survives_its_file(text: str, made_cluster: Cluster) -> None:
    genesis = Genesis.from_json(text)
    assert genesis.to_json() == text
    assert genesis.label == made_cluster.chain
    assert [item.name for item in genesis.validators] == ["n0", "n1", "n2", "n3"]
    assert [item.node_id.hex() for item in genesis.validators] == [
        member.node_id for member in made_cluster.members
    ]


def test_the_chain_id_is_the_hash_of_the_canonical_bytes(text: str) -> None:
    genesis = Genesis.from_json(text)
    data = genesis.encode()
    assert genesis.chain_id == sha256(data)
    fields = decode(data, size_max=len(data))
    assert isinstance(fields, tuple)
    assert fields[:3] == (1, "demo", genesis.time_ms)


def test_the_chain_id_does_not_depend_on_spaces_or_order_of_the_file(text: str) -> None:
    document = json.loads(text)
    shuffled = json.dumps(dict(reversed(document.items())), separators=(",", ":"))
    assert Genesis.from_json(shuffled).chain_id == Genesis.from_json(text).chain_id


def test_every_change_of_content_is_another_chain(text: str) -> None:
    genesis = Genesis.from_json(text)
    others = [
        replace(genesis, name="other"),
        replace(genesis, time_ms=genesis.time_ms + 1),
        replace(genesis, rotation_blocks=64),
        replace(genesis, ledger=replace(genesis.ledger, allocations=())),
        replace(genesis, log=replace(genesis.log, leaf_life_s=3_600)),
        replace(
            genesis,
            validators=(*genesis.validators[:3], replace(genesis.validators[3], name="x")),
        ),
    ]
    assert len({genesis.chain_id, *(other.chain_id for other in others)}) == 7


def test_a_chain_is_shown_by_name_and_eight_digits() -> None:
    assert chain_label("demo", bytes(32)) == "demo-00000000"


def _set(document: dict[str, Any], path: str, value: object) -> None:
    *parents, last = path.split("/")
    target: Any = document
    for part in parents:
        target = target[int(part) if part.isdigit() else part]
    if value is KeyError:
        del target[last]
    else:
        target[int(last) if last.isdigit() else last] = value


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        ("version", 2, "version 2 is not 1"),
        ("name", "Demo", "name must be"),
        ("name", 5, "name is not a text"),
        ("name", KeyError, "has no 'name'"),
        ("surplus", 1, "unknown key 'surplus'"),
        ("time_ms", "now", "time_ms is not a whole number"),
        ("time_ms", -1, "time_ms is not a time"),
        ("time_ms", True, "time_ms is not a whole number"),
        ("agreement", KeyError, "has no 'agreement'"),
        ("agreement/rotation_blocks", 63, "agreement.rotation_blocks must be 0, or 64 to"),
        ("agreement/rotation_blocks", "64", "rotation_blocks is not a whole number"),
        ("validators", {}, "validators is not a list"),
        ("validators", [], "validators must be 1 to"),
        ("validators/1", 7, "validators[1] is not an object"),
        ("validators/1/name", "N 1", "validators[1].name"),
        ("validators/1/name", "n0", "two have the same name"),
        ("validators/1/key", "!!", "validators[1].key is not a public key"),
        ("validators/1/key", "AAAA", "validators[1].key is not a public key"),
        ("validators/1/algorithm", "rsa", "validators[1].algorithm is not 'falcon-512'"),
        ("validators/1/node_id", "00" * 32, "does not belong to the key"),
        ("log", [], "log is not an object"),
        ("log/profile", 99, "log: format"),
        ("log/cosigner_keys/0", "AAAA", "cosigner key"),
        ("ledger", None, "ledger is not an object"),
        ("ledger/allocations", 3, "ledger.allocations is not a list"),
        ("ledger/allocations/0/address", "hm1nonsense", "address"),
        ("ledger/allocations/0/amount", 5, "is not a text"),
        ("ledger/allocations/0/amount", "1.5", "is not an amount"),
        ("ledger/allocations/0/amount", "007", "is not an amount"),
        ("ledger/allocations/0/amount", "9" * 20, "supply|possible"),
        ("ledger/parameters/transfer_fee", "-1", "is not an amount"),
        ("ledger/parameters/valid_for_blocks_max", 1, "valid_for_blocks_max must lie"),
    ],
)
def test_a_wrong_genesis_is_refused_and_the_place_is_named(
    text: str, path: str, value: object, reason: str
) -> None:
    document = json.loads(text)
    _set(document, path, value)
    with pytest.raises(GenesisInvalid) as caught:
        Genesis.from_json(json.dumps(document))
    assert any(part in str(caught.value) for part in reason.split("|")), str(caught.value)
    assert caught.value.hint


def test_json_that_says_a_thing_twice_is_refused(text: str) -> None:
    doubled = text.replace('"version": 1,', '"version": 1, "version": 1,', 1)
    with pytest.raises(GenesisInvalid, match="twice"):
        Genesis.from_json(doubled)
    for nonsense in ("", "[]", "nul", "{" * 100):
        with pytest.raises(GenesisInvalid):
            Genesis.from_json(nonsense)


def test_a_validator_is_found_by_its_node_id(text: str) -> None:
    genesis = Genesis.from_json(text)
    assert genesis.validator_index(genesis.validators[2].node_id) == 2
    assert genesis.validator_index(bytes(32)) is None
