"""Who votes: changes by quorum, evidence, tombstones, and removal that can cost no quorum."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from caesar.core import validators
from caesar.core.changes import (
    Accusation,
    Approval,
    Change,
    JoinProof,
    SignedChange,
    decode_validator_payload,
)
from caesar.core.validators import Registry, Verdict
from caesar.errors import ValidatorPayloadMalformed
from caesar.limits import (
    AUTOMATIC_MEMBERS_MIN,
    CHANGE_VALID_BLOCKS_MAX,
    EVIDENCE_AGE_BLOCKS_MAX,
)
from caesar.runtime.validators import ValidatorsApplication
from caesar.tests.validator_worlds import RegistryWorld, key, lie, node, nodes
from caesar.tests.worlds import CHAIN
from consensus.core import evidence
from consensus.core.evidence import Offence
from consensus.core.messages import SignedKind
from consensus.core.quorum import faults, quorum
from consensus.core.types import Epoch, Number
from consensus.core.validators import Validator
from consensus.errors import InvariantError
from consensus.limits import WINDOW_BLOCKS
from native.batches import Batch
from native.codec import encode
from native.hashing import sha256
from native.values import Digest, NodeId, PublicKey, Signature


def world(members: int = 4, *, blocks: int = 3) -> RegistryWorld:
    made = RegistryWorld(nodes(members))
    made.skip(blocks)
    return made


def names(registry: Registry) -> list[str]:
    return [validator.name for validator in registry.present.members]


# --- changes


def test_a_validator_is_added_after_the_window() -> None:
    net = world()
    change = net.change(adds=[node("n4")])
    done = net.execute(net.sign(change))
    assert done.codes == bytes([Verdict.APPLIED])
    assert done.ids == change.id
    assert done.next_validators is not None
    assert done.next_validators.epoch == 1
    assert [entry.name for entry in done.next_validators.members] == ["n0", "n1", "n2", "n3", "n4"]
    assert net.registry.pending is not None
    assert net.registry.pending.effective_after == net.height + WINDOW_BLOCKS
    assert net.registry.pending.ordered_at == net.height
    assert net.registry.pending.next == done.next_validators
    net.skip(WINDOW_BLOCKS)
    assert names(net.registry) == ["n0", "n1", "n2", "n3"]  # the last block of the old epoch
    net.execute()
    assert net.registry.pending is None
    assert names(net.registry) == ["n0", "n1", "n2", "n3", "n4"]
    assert net.registry.present == done.next_validators
    assert net.registry.previous is not None
    assert net.registry.previous.epoch == 0


def test_four_to_seven_to_four() -> None:
    net = world()
    assert net.verdict(net.sign(net.change(adds=nodes(7)[4:]))) is Verdict.APPLIED
    net.settle()
    assert net.registry.quorum == 5
    first = net.change(removes=["n0", "n1"])
    assert net.verdict(net.sign(first)) is Verdict.APPLIED
    net.settle()
    assert net.verdict(net.sign(net.change(removes=["n2"]))) is Verdict.APPLIED
    net.settle()
    assert names(net.registry) == ["n3", "n4", "n5", "n6"]
    assert net.registry.present.epoch == 3


def test_a_key_is_rotated_in_place() -> None:
    net = world()
    assert net.verdict(net.sign(net.change(rotations=[node("n1", "k1")]))) is Verdict.APPLIED
    net.settle()
    assert names(net.registry) == ["n0", "n1", "n2", "n3"]
    assert net.registry.present.members[1].node_id == key("k1").node_id
    back = net.change(rotations=[node("n1", "n1")])
    assert net.verdict(net.sign(back)) is Verdict.KEY_RETIRED


@pytest.mark.parametrize("members", [1, 2, 3, 4, 5, 7])
def test_a_change_needs_exactly_a_quorum(members: int) -> None:
    net = world(members)
    change = net.change(adds=[node("n9")])
    everybody = [validator.name for validator in nodes(members)]
    needed = quorum(members)
    few = net.sign(change, everybody[: needed - 1])
    assert net.verdict(few) is Verdict.APPROVALS_MISSING
    assert net.verdict(net.sign(change, everybody[members - needed :])) is Verdict.APPLIED


def test_approvals_count_only_for_what_was_signed() -> None:
    net = world()
    change = net.change(adds=[node("n4")])
    other = net.change(adds=[node("n5")])
    stolen = SignedChange(
        change=change,
        approvals=net.approvals(other),
        proofs=(net.proof(change, node("n4")),),
    )
    assert net.verdict(stolen.encode()) is Verdict.APPROVAL_INVALID
    moved = tuple(
        Approval(index=approval.index + 1, signature=approval.signature)
        for approval in net.approvals(change)
    )
    shifted = replace(stolen, approvals=moved)
    assert net.verdict(shifted.encode()) is Verdict.APPROVAL_INVALID
    outside = (*net.approvals(change)[:2], Approval(index=9, signature=Signature(b"s")))
    assert net.verdict(replace(stolen, approvals=outside).encode()) is Verdict.APPROVAL_INVALID


def test_one_bad_approval_spoils_the_rest() -> None:
    """Otherwise the same change would be sent with ever more rubbish under one id."""
    net = world()
    change = net.change(removes=["n3"])
    signed = SignedChange(
        change=change,
        approvals=(*net.approvals(change), Approval(index=3, signature=Signature(b"x" * 666))),
        proofs=(),
    )
    assert net.verdict(signed.encode()) is Verdict.APPROVAL_INVALID


REFUSED = [
    ({"removes": ["n7"]}, Verdict.UNKNOWN_MEMBER),
    ({"rotations": [node("n7")]}, Verdict.UNKNOWN_MEMBER),
    ({"adds": [node("n2", "k1")]}, Verdict.NAME_TAKEN),
    ({"adds": [node("n5", "n2")]}, Verdict.KEY_TAKEN),
    ({"rotations": [node("n2")]}, Verdict.KEY_TAKEN),
    ({"adds": [node("n5", "k1"), node("n6", "k1")]}, Verdict.KEY_TAKEN),
    ({"removes": ["n0", "n1"]}, Verdict.TOO_MANY_REMOVALS),
    ({"removes": ["n0"], "rotations": [node("n1", "k1")]}, Verdict.TOO_MANY_REMOVALS),
    ({"adds": [node("n4")], "valid_until": 3}, Verdict.EXPIRED),
    ({"adds": [node("n4")], "valid_until": CHANGE_VALID_BLOCKS_MAX + 99}, Verdict.VALID_TOO_LONG),
]


@pytest.mark.parametrize(("changes", "verdict"), REFUSED)
def test_a_change_that_cannot_be_made_is_refused(
    changes: dict[str, object], verdict: Verdict
) -> None:
    net = world()
    before = net.registry
    change = net.change(**changes)  # type: ignore[arg-type]
    assert net.verdict(net.sign(change)) is verdict
    assert replace(net.registry, headers=()) == replace(before, headers=())


def test_the_last_validator_stays() -> None:
    net = world(1)
    assert net.verdict(net.sign(net.change(removes=["n0"]))) is Verdict.SIZE_OUT_OF_BOUNDS


def test_a_change_fits_one_set_only() -> None:
    net = world()
    late = net.change(removes=["n3"])
    assert net.verdict(net.sign(net.change(adds=[node("n4")]))) is Verdict.APPLIED
    assert net.verdict(net.sign(late)) is Verdict.CHANGE_PENDING
    net.settle()
    signed = SignedChange(change=late, approvals=net.approvals(late), proofs=())
    assert net.verdict(signed.encode()) is Verdict.WRONG_BASE
    forged = replace(late, base_epoch=Epoch(1))
    resigned = SignedChange(change=forged, approvals=net.approvals(forged), proofs=())
    assert net.verdict(resigned.encode()) is Verdict.WRONG_BASE


def test_the_first_of_two_changes_in_one_block_wins() -> None:
    net = world()
    one, two = net.change(adds=[node("n4")]), net.change(removes=["n3"])
    assert net.verdicts(net.sign(one), net.sign(two)) == [Verdict.APPLIED, Verdict.CHANGE_PENDING]


def test_another_network_is_refused() -> None:
    net = world()
    change = replace(net.change(removes=["n3"]), chain_id=Digest(b"x" * 32))
    signed = SignedChange(change=change, approvals=net.approvals(change), proofs=())
    assert net.verdict(signed.encode()) is Verdict.WRONG_CHAIN


# --- joiners are learners first


def test_a_joiner_shows_a_block_of_the_window() -> None:
    net = world(blocks=WINDOW_BLOCKS + 10)
    change = net.change(adds=[node("n4")])
    assert net.verdict(net.sign(change, back=WINDOW_BLOCKS)) is Verdict.JOINER_BEHIND
    assert net.verdict(net.sign(change, back=WINDOW_BLOCKS - 1)) is Verdict.APPLIED


def test_a_joiner_signs_itself_and_this_change() -> None:
    net = world()
    change = net.change(adds=[node("n4")])
    other = net.change(adds=[node("n4"), node("n5")])
    approvals = net.approvals(change)
    good = net.proof(change, node("n4"))
    bad: list[tuple[JoinProof, Verdict]] = [
        (net.proof(other, node("n4")), Verdict.JOIN_PROOF_INVALID),
        (replace(good, signature=Signature(b"s" * 666)), Verdict.JOIN_PROOF_INVALID),
        (replace(good, header_hash=Digest(b"h" * 32)), Verdict.JOINER_BEHIND),
        (replace(good, height=good.height + 1), Verdict.JOINER_BEHIND),
    ]
    for proof, verdict in bad:
        signed = SignedChange(change=change, approvals=approvals, proofs=(proof,))
        assert net.verdict(signed.encode()) is verdict
    signed = SignedChange(change=change, approvals=approvals, proofs=(good,))
    assert net.verdict(signed.encode()) is Verdict.APPLIED


# --- evidence


@pytest.mark.parametrize("offence", [Offence.TWO_COMMITS, Offence.NUMBER_REUSED])
def test_a_proven_lie_leaves_a_tombstone_once(offence: Offence) -> None:
    net = world()
    payload = net.accuse("n2", lie("n2", offence=offence))
    done = net.execute(payload, payload)
    assert list(done.codes) == [Verdict.APPLIED, Verdict.EVIDENCE_KNOWN]
    assert done.ids[:32] == done.ids[32:]
    again = net.accuse("n2", lie("n2", offence=offence, place=2))
    assert net.verdict(again) is Verdict.EVIDENCE_KNOWN
    (tombstone,) = net.registry.tombstones
    assert (tombstone.name, tombstone.offence) == ("n2", offence)
    assert tombstone.evidence == done.ids[:32]


def test_a_lie_of_a_former_epoch_counts_until_the_next_one_is_over() -> None:
    net = world()
    assert net.verdict(net.sign(net.change(rotations=[node("n2", "k2")]))) is Verdict.APPLIED
    net.settle()
    former = net.accuse("n2", lie("n2", epoch=0, place=net.height))
    assert net.verdict(former) is Verdict.APPLIED
    assert {entry.name for entry in net.registry.tombstones} == {"n2"}
    escape = net.change(rotations=[node("n2", "k3")])
    assert net.verdict(net.sign(escape)) is Verdict.TOMBSTONED  # the new key does not help
    assert net.verdict(net.sign(net.change(rotations=[node("n1", "k1")]))) is Verdict.APPLIED
    net.settle()
    late = net.accuse("n1", lie("n1", epoch=0, place=net.height))
    assert net.verdict(late) is Verdict.EVIDENCE_EXPIRED


def test_evidence_by_place_expires() -> None:
    registry = validators.genesis(nodes(4))
    height = EVIDENCE_AGE_BLOCKS_MAX + 100
    for place, verdict in ((99, Verdict.EVIDENCE_EXPIRED), (100, Verdict.APPLIED)):
        payload = decode_validator_payload(world().accuse("n1", lie("n1", place=place)))
        _, found = validators.apply(
            registry, payload, chain_id=CHAIN, height=height, verify=lambda *_: True
        )
        assert found is verdict


def test_only_a_validators_own_words_convict_it() -> None:
    net = world()
    other = Digest(b"x" * 32)
    cases = [
        (net.accuse("k1", lie("k1")), Verdict.NOT_A_VALIDATOR),
        (net.accuse("n1", lie("n1", epoch=1)), Verdict.NOT_A_VALIDATOR),
        (net.accuse("n1", lie("n2")), Verdict.EVIDENCE_INVALID),
        (net.accuse("n1", lie("n1", second_key="n2")), Verdict.EVIDENCE_INVALID),
        (net.accuse("n1", lie("n1", chain_id=other)), Verdict.EVIDENCE_INVALID),
    ]
    for payload, verdict in cases:
        assert net.verdict(payload) is verdict
    assert not net.registry.tombstones


def test_neither_name_nor_key_of_a_liar_returns() -> None:
    net = world()
    assert net.verdict(net.accuse("n2")) is Verdict.APPLIED
    for change in (
        net.change(rotations=[node("n2", "k1")]),
        net.change(adds=[node("n9", "n2")]),
    ):
        assert net.verdict(net.sign(change)) is Verdict.TOMBSTONED
    swap = net.change(removes=["n2"], adds=[node("n4")])
    assert net.verdict(net.sign(swap)) is Verdict.APPLIED
    net.settle()
    for joiner in (node("n2", "k1"), node("n9", "n2")):
        change = net.change(adds=[joiner])
        assert net.verdict(net.sign(change)) is Verdict.TOMBSTONED


# --- removal by proof


def test_seven_lose_a_liar_without_a_vote() -> None:
    net = world(7)
    done = net.execute(net.accuse("n3"))
    assert done.next_validators is not None
    assert net.registry.pending is not None
    assert net.registry.pending.automatic
    net.settle()
    assert "n3" not in names(net.registry)
    assert key("n3").node_id in net.registry.retired


@pytest.mark.parametrize("members", [1, 2, 3, 4, 6, 9, 21])
def test_where_a_removal_could_cost_a_quorum_people_decide(members: int) -> None:
    net = world(members)
    done = net.execute(net.accuse("n0"))
    assert done.codes == bytes([Verdict.APPLIED])
    assert done.next_validators is None
    assert net.registry.pending is None


def test_proofs_beyond_f_remove_nobody() -> None:
    """Seven copied keys would otherwise shrink the set to four, proof by proof."""
    net = world(10)
    for at in range(6):
        net.execute(net.accuse(f"n{at}"))
        net.skip(66)
    registry = net.registry
    assert len(registry.tombstones) == 6
    assert registry.automatic_left >= 0
    assert len(registry.present.members) >= 10 - faults(10)
    assert registry.pending is None


def test_an_approved_set_starts_the_count_anew() -> None:
    net = world(5)
    net.execute(net.accuse("n0"))
    assert net.registry.automatic_left == 0
    net.settle()
    assert net.verdict(net.sign(net.change(adds=[node("n5")]))) is Verdict.APPLIED
    net.settle()
    assert net.registry.automatic_left == faults(5)


def test_an_offender_found_during_a_change_is_removed_after_it() -> None:
    net = world(7)
    assert net.verdict(net.sign(net.change(adds=[node("n7")]))) is Verdict.APPLIED
    net.execute(net.accuse("n1"))
    net.skip(WINDOW_BLOCKS)
    assert net.registry.present.epoch == 1
    pending = net.registry.pending
    assert pending is not None
    assert pending.automatic
    assert "n1" not in [entry.name for entry in pending.next.members]


@given(members=st.integers(1, 64))
def test_an_automatic_removal_never_takes_a_quorum_away(members: int) -> None:
    """Whatever voters were a quorum, they still are one without the offender."""
    registry = validators.genesis([_cheap(at) for at in range(members)])
    liar = registry.present.members[members // 2]
    tombstone = validators.Tombstone(
        name=liar.name,
        node_id=liar.node_id,
        offence=Offence.TWO_BATCHES,
        epoch=Epoch(0),
        height=1,
        evidence=Digest(bytes(32)),
    )
    after = validators.end(replace(registry, tombstones=(tombstone,)), 1, Digest(bytes(32)))
    if after.pending is None:
        return
    left = len(after.pending.next.members)
    assert left == members - 1 >= AUTOMATIC_MEMBERS_MIN
    assert quorum(left) <= quorum(members) - 1
    assert faults(left) >= 1
    assert left - quorum(left) >= members - quorum(members)  # as many may be down as before


@given(
    lies=st.lists(st.tuples(st.integers(0, 12), st.sampled_from(Offence)), max_size=30),
    members=st.integers(1, 13),
)
@settings(max_examples=60, deadline=None)
def test_no_flood_of_proofs_removes_more_than_f(
    lies: list[tuple[int, Offence]], members: int
) -> None:
    registry = validators.genesis([_cheap(at) for at in range(members)])
    start = registry.present.members
    for height, (who, offence) in enumerate(lies, start=1):
        registry = validators.begin(
            registry,
            registry.present.epoch if registry.pending is None else registry.pending.next.epoch,
        )
        liar = start[who % members]
        if not registry.knows(liar.node_id, offence):
            tombstone = validators.Tombstone(
                name=liar.name,
                node_id=liar.node_id,
                offence=offence,
                epoch=Epoch(0),
                height=height,
                evidence=Digest(bytes(32)),
            )
            registry = replace(registry, tombstones=(*registry.tombstones, tombstone))
        registry = validators.end(registry, height, Digest(bytes(32)))
    assert len(registry.present.members) >= members - faults(members)
    assert len(registry.present.members) >= min(members, AUTOMATIC_MEMBERS_MIN)


@pytest.fixture(scope="module", autouse=True)
def _keys_for_sizes() -> None:
    for at in range(64):
        _cheap(at)


_CHEAP: dict[int, Validator] = {}


def _cheap(at: int) -> Validator:
    """A validator whose key nobody uses: the raw bytes of an ML-DSA key need no generator."""
    from native.values import Algorithm

    if at not in _CHEAP:
        raw = bytes([at]) * Algorithm.ML_DSA_44.public_size_bytes
        public = PublicKey(algorithm=Algorithm.ML_DSA_44, raw=raw)
        _CHEAP[at] = Validator(name=f"n{at}", key=public)
    return _CHEAP[at]


# --- the epoch of the header


def test_a_block_of_an_unexpected_epoch_is_our_bug() -> None:
    with pytest.raises(InvariantError):
        validators.begin(validators.genesis(nodes(4)), 1)


def test_a_set_that_consensus_does_not_obey_stays_pending() -> None:
    net = RegistryWorld(nodes(4), obeyed=False)
    net.skip(2)
    assert net.verdict(net.sign(net.change(adds=[node("n4")]))) is Verdict.APPLIED
    net.skip(200)
    assert names(net.registry) == ["n0", "n1", "n2", "n3"]
    assert net.registry.pending is not None
    assert net.verdict(net.sign(net.change(adds=[node("n4")]))) is Verdict.CHANGE_PENDING


# --- bytes


def test_a_payload_survives_its_bytes() -> None:
    net = world()
    change = net.change(adds=[node("n4")], rotations=[node("n1", "k1")], removes=["n0"])
    for payload in (net.sign(change), net.accuse("n1")):
        assert decode_validator_payload(payload).encode() == payload


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_payloads_are_refused_and_never_raise(data: st.DataObject) -> None:
    net = PAYLOADS
    payload = bytearray(data.draw(st.sampled_from(net)))
    place = data.draw(st.integers(0, len(payload) - 1))
    payload[place] ^= data.draw(st.integers(1, 255))
    fresh = world()
    (code,) = fresh.application.check(Batch.of([bytes(payload)]), [0]).codes
    assert code >= 128


PAYLOADS = [
    (net := world()).sign(net.change(adds=[node("n4")], removes=["n0"])),
    world().accuse("n1"),
]


@pytest.mark.parametrize(
    "fields",
    [
        (1, 3, CHAIN),
        (2, 2, CHAIN),
        (1, 1, CHAIN, 0, bytes(32), 9, (), (), (), (), ()),  # changes nothing
        (1, 1, CHAIN, 0, bytes(32), 9, ("n0", "n0"), (), (), (), ()),
        (1, 1, CHAIN, 0, bytes(32), 9, ("N0",), (), (), (), ()),
        (1, 1, CHAIN, 0, bytes(32), 9, ("n0",), (), (), ((1, b"s"), (0, b"s")), ()),
        (1, 1, CHAIN, 0, bytes(32), 9, ("n0",), (), (), (), ((1, bytes(32), b"s"),)),
        (1, 1, CHAIN, 0, bytes(32), 9, ("n0",), (("n1", b"no key"),), (), (), ()),
        (True, 1, CHAIN),
    ],
)
def test_other_forms_are_malformed(fields: tuple[object, ...]) -> None:
    with pytest.raises(ValidatorPayloadMalformed):
        decode_validator_payload(b"\x03" + encode(fields))  # type: ignore[arg-type]


def test_a_key_of_another_kind_cannot_vote() -> None:
    change = Change(
        chain_id=CHAIN, base_epoch=Epoch(0), base_set=CHAIN, valid_until=9, adds=(_cheap(1),)
    )
    proof = JoinProof(height=1, header_hash=CHAIN, signature=Signature(b"s"))
    payload = SignedChange(change=change, approvals=(), proofs=(proof,)).encode()
    with pytest.raises(ValidatorPayloadMalformed, match="Falcon"):
        decode_validator_payload(payload)


def test_the_bytes_that_operators_sign_are_pinned() -> None:
    """Change them only with a new domain: approvals of operators are kept in files."""
    change = Change(
        chain_id=Digest(b"c" * 32),
        base_epoch=Epoch(7),
        base_set=Digest(b"s" * 32),
        valid_until=1_000,
        removes=("n0",),
    )
    assert change.signed_bytes.hex() == (
        b"hypermesh/validators/v1".hex()
        + "63" * 32
        + "970107c420"
        + "73" * 32
        + "cd03e8"
        + "91a26e30"
        + "90"
        + "90"
    )


def test_evidence_bytes_are_pinned() -> None:
    """They are ordered and stored for good: a change of form needs a new version."""
    said = [
        evidence.Numbered(
            kind=SignedKind.VOTES,
            epoch=Epoch(3),
            number=Number(300),
            digest=Digest(digest * 32),
            signature=Signature(b"sig"),
        )
        for digest in (b"b", b"a")
    ]
    accusation = Accusation(
        chain_id=Digest(b"c" * 32),
        offender=NodeId(b"n" * 32),
        proof=evidence.contradiction(said[0], said[1]),
    )
    one = "960402" + "03" + "cd012c" + "c420" + "61" * 32 + "c403" + b"sig".hex()
    other = one.replace("61" * 32, "62" * 32)
    assert accusation.encode().hex() == (
        "03" + "95" + "0102" + "c420" + "63" * 32 + "c420" + "6e" * 32 + "92" + one + other
    )
    named = b"\x92\xc4\x20" + b"n" * 32 + b"\x07"
    domain = b"hypermesh/validator-evidence/v1"
    assert accusation.id == sha256(domain + b"c" * 32 + named)


def test_the_root_is_the_hash_of_body_and_headers_as_specified() -> None:
    """Rebuilt here with hashlib and bytes, so that a change of form does not go unnoticed."""
    registry = validators.genesis([_cheap(0)])
    spki = _cheap(0).key.spki
    member = b"\x92\xa2n0\xc5" + len(spki).to_bytes(2, "big") + spki
    present = b"\x92\x00\x91" + member
    body = b"\x98\x01" + present + b"\x00\xc0\xc0\x00\x90\x90"
    header = b"\x91\x92\x05\xc4\x20" + b"h" * 32
    committed = b"\x92\xc4\x20" + hashlib.sha256(body).digest() + header
    expected = hashlib.sha256(b"hypermesh/validator-registry/v1" + committed).digest()
    found = validators.root(Digest(sha256(encode(registry.body()))), ((5, Digest(b"h" * 32)),))
    assert found == expected


# --- credentials


def vouched(joiner: Validator, evidence: bytes, others: Sequence[Validator]) -> bool:
    """An application that wants its evidence to repeat the credentials, which nobody else has."""
    taken = [entry.credentials for entry in others]
    return evidence == joiner.credentials and joiner.credentials not in taken


def holding(name: str, credentials: bytes = b"its log keys") -> Validator:
    return replace(node(name), credentials=credentials)


def shown(world: RegistryWorld, change: Change, *evidence: bytes) -> bytes:
    """The change, approved, with this evidence for its joiners."""
    proofs = [
        replace(world.proof(change, joiner), evidence=said)
        for joiner, said in zip(change.joiners, evidence, strict=True)
    ]
    return SignedChange(
        change=change, approvals=world.approvals(change), proofs=tuple(proofs)
    ).encode()


def world_with_a_voucher() -> RegistryWorld:
    world = RegistryWorld(nodes(4), vouch=vouched)
    world.skip(1)
    return world


def test_credentials_enter_the_set_with_their_validator() -> None:
    world = world_with_a_voucher()
    new = holding("n4")
    change = world.change(adds=[new])
    payload = shown(world, change, b"its log keys")
    assert decode_validator_payload(payload).encode() == payload
    assert world.verdict(payload) is Verdict.APPLIED
    world.settle()
    assert world.registry.present.members[-1] == new
    assert [entry.credentials for entry in world.registry.present.members[:-1]] == [b""] * 4
    # What is stored is the same state, and so is what a snapshot restores.
    other = ValidatorsApplication(CHAIN, nodes(4), vouch=vouched)
    deltas = [
        (block.header.height, done.delta)
        for block, done in zip(world.blocks, world.executed, strict=True)
    ]
    assert other.load([], deltas) == world.executed[-1].root
    assert other.registry == world.registry


@pytest.mark.parametrize(
    ("credentials", "evidence"),
    [(b"its log keys", b""), (b"its log keys", b"others"), (b"", b"its log keys")],
)
def test_evidence_and_credentials_belong_together(credentials: bytes, evidence: bytes) -> None:
    world = world_with_a_voucher()
    change = world.change(adds=[holding("n4", credentials), holding("n5", b"more")])
    payload = shown(world, change, evidence, b"more")
    assert world.verdict(payload) is Verdict.CREDENTIALS_INVALID
    assert world.registry.pending is None


def test_joiners_of_one_change_are_judged_beside_each_other() -> None:
    world = world_with_a_voucher()
    same = world.change(
        adds=[holding("n4")],
        rotations=[Validator(name="n1", key=key("x").public, credentials=b"its log keys")],
    )
    assert world.verdict(shown(world, same, b"its log keys", b"its log keys")) is (
        Verdict.CREDENTIALS_INVALID
    )
    change = world.change(
        adds=[holding("n4")],
        rotations=[Validator(name="n1", key=key("x").public, credentials=b"more")],
    )
    assert world.verdict(shown(world, change, b"its log keys", b"more")) is Verdict.APPLIED


def test_where_nobody_vouches_no_credentials_are_accepted() -> None:
    world = RegistryWorld(nodes(4))
    world.skip(1)
    change = world.change(adds=[holding("n4")])
    assert world.verdict(shown(world, change, b"its log keys")) is Verdict.CREDENTIALS_INVALID


def test_operators_approve_credentials_with_the_key() -> None:
    world = world_with_a_voucher()
    first = world.change(adds=[holding("n4")])
    second = world.change(adds=[holding("n4", b"others")])
    assert first.id != second.id
    swapped = SignedChange(
        change=second,
        approvals=world.approvals(first),
        proofs=(replace(world.proof(second, second.adds[0]), evidence=b"others"),),
    ).encode()
    assert world.verdict(swapped) is Verdict.APPROVAL_INVALID


def test_a_change_without_credentials_keeps_its_first_form() -> None:
    world = world_with_a_voucher()
    plain = world.change(adds=[node("n4")])
    assert plain.fields()[0] == 1
    assert world.change(adds=[holding("n4")]).fields()[0] == 2
    payload = world.sign(plain)
    assert payload[1:4] == b"\x9b\x01\x01"  # eleven fields, version 1, a change
    as_second = payload[:2] + b"\x02" + payload[3:]
    with pytest.raises(ValidatorPayloadMalformed):
        decode_validator_payload(as_second)
    assert world.verdict(payload) is Verdict.APPLIED
