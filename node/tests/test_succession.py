"""Founders leave, and a client that has genesis only still knows who speaks for the log.

Registry, log, rosters and router are real, as are all keys; only agreement is left out: every block
is executed at once, and its certificate is made from votes of a quorum of the set of its epoch.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass, field
from functools import cache
from typing import Any, cast

import pytest

from caesar.core.addresses import Address
from caesar.core.changes import Approval, Change, JoinProof, SignedChange, join_bytes
from caesar.core.genesis import LedgerGenesis
from caesar.core.validators import Verdict
from caesar.limits import SUPPLY
from caesar.runtime.validators import ValidatorsApplication
from consensus.application import Block
from consensus.core.certificates import block_certificate
from consensus.core.messages import (
    BlockCertificate,
    BlockHeader,
    Checkpoint,
    EpochLink,
    VoteVector,
)
from consensus.core.quorum import quorum
from consensus.core.types import NO_DIGEST, Epoch, Height, Number, ReplicaIndex
from consensus.core.validators import Validator, ValidatorSet
from consensus.limits import WINDOW_BLOCKS
from native.batches import Batch
from native.codec import encode
from native.keys import SecretKey
from native.values import Algorithm, Amount, Digest, Signature
from node import succession
from node.client import NodeClient
from node.core.genesis import Genesis, GenesisValidator
from node.core.rosters import roster_of
from node.errors import LogInvalid, ProofFileInvalid
from node.limits import HTTP_ENDS_PER_CALL_MAX
from node.logkeys import voucher
from node.runtime.membership import genesis_set
from node.runtime.router import Router
from trustchain import client as requester
from trustchain.core.bundle import Bundle
from trustchain.core.checkpoint import (
    Checkpoint as LogCheckpoint,
)
from trustchain.core.checkpoint import (
    Cosignature,
    cosigned_message,
    cosigner_key_id,
)
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.roster import Succession
from trustchain.errors import CosignersLeft, Expired, QuorumMissing
from trustchain.runtime.application import LogApplication
from trustchain.runtime.authority import Authority
from trustchain.runtime.ceremony import Ceremony, ValidatorKeys, hold_ceremony, make_issuing
from trustchain.runtime.credentials import make_credentials, make_evidence
from trustchain.runtime.verify import verify_bundle, verify_checkpoint
from trustchain.tests.joiners import made_up

NOW_S = 1_800_000_000


@dataclass(kw_only=True)
class Machine:
    """A node's secrets."""

    name: str
    secret: SecretKey
    log_keys: ValidatorKeys
    certificate: bytes

    def validator(self) -> Validator:
        """As a joiner."""
        return Validator(
            name=self.name,
            key=self.secret.public,
            credentials=make_credentials(self.log_keys.cosigner.public.raw, self.certificate),
        )


@dataclass(kw_only=True)
class Chain:
    """Applications that execute, and a quorum that signs."""

    ceremony: Ceremony
    genesis: Genesis
    machines: dict[str, Machine]  # by name, everybody that ever was
    log: LogApplication = field(init=False)
    registry: ValidatorsApplication = field(init=False)
    router: Router = field(init=False)
    headers: list[BlockHeader] = field(default_factory=list)
    links: list[EpochLink] = field(default_factory=list)
    certificate: BlockCertificate | None = None
    page: int = HTTP_ENDS_PER_CALL_MAX
    now_s: int = NOW_S

    def __post_init__(self) -> None:
        self.log = LogApplication(self.genesis.chain_id, self.genesis.log)
        self.registry = ValidatorsApplication(
            self.genesis.chain_id, genesis_set(self.genesis).members, vouch=voucher(self.genesis)
        )
        self.router = Router([self.log, self.registry])
        self.router.genesis()

    @staticmethod
    def of_founders(count: int) -> Chain:
        names = [f"n{at}" for at in range(count)]
        ceremony = hold_ceremony(names, trust_domain="demo.mesh", now_s=NOW_S)
        secrets = [SecretKey.generate(Algorithm.FALCON_512) for _ in names]
        genesis = Genesis(
            name="demo",
            time_ms=NOW_S * 1_000,
            validators=tuple(
                GenesisValidator(name=name, key=secret.public)
                for name, secret in zip(names, secrets, strict=True)
            ),
            log=ceremony.genesis,
            ledger=LedgerGenesis(allocations=((Address(bytes(32)), Amount(SUPPLY)),)),
        )
        machines = {
            name: Machine(name=name, secret=secret, log_keys=keys, certificate=certificate)
            for name, secret, keys, certificate in zip(
                names,
                secrets,
                ceremony.validators,
                ceremony.genesis.issuing_certificates,
                strict=True,
            )
        }
        return Chain(ceremony=ceremony, genesis=genesis, machines=machines)

    @property
    def present(self) -> ValidatorSet:
        return self.registry.registry.present

    def execute(self, *payloads: bytes) -> bytes:
        """One block, and its certificate; enters the next epoch after the last of the present."""
        pending = self.registry.registry.pending
        height = len(self.headers) + 1
        begins = pending is not None and height == pending.effective_after + 1
        epoch = int(self.present.epoch) + begins
        signers = pending.next if begins and pending is not None else self.present
        header = BlockHeader(
            chain_id=self.genesis.chain_id,
            height=Height(height),
            epoch=Epoch(epoch),
            parent=self.headers[-1].hash if self.headers else self.genesis.chain_id,
            batch=NO_DIGEST,
            time_ms=self.now_s * 1_000 + height,
            state_root=self.router.state_root,
        )
        outcome = self.router.execute(Block(header=header, batch=Batch.of(payloads)))
        self.headers.append(header)
        pending = self.registry.registry.pending
        ends = pending is not None and height == pending.effective_after
        following = pending.next if ends and pending is not None else None
        self.certificate = self._certify(
            header, outcome.state_root, signers, NO_DIGEST if following is None else following.hash
        )
        if following is not None:
            self.links.append(EpochLink(certificate=self.certificate, validators=following))
        return outcome.codes

    def issue(self, name: str) -> int:
        """Order a certificate; return its index."""
        operation = requester.issue_operation(
            requester.certification_request(requester.generate_key(KeyAlgorithm.ED25519), [name]),
            chain_id=self.genesis.chain_id,
            enrolment=requester.FalconEnrolment(self.ceremony.enrolment),
            request_id=requester.new_request_id(),
        )
        assert self.execute(operation.encode()) == b"\0"
        return self.log.entry_of_request(operation.request_id).index

    def joiner(self, name: str) -> Machine:
        keys = ValidatorKeys.draw()
        machine = Machine(
            name=name,
            secret=SecretKey.generate(Algorithm.FALCON_512),
            log_keys=keys,
            certificate=make_issuing(
                f"demo.mesh issuing {name}",
                keys.issuing.public.raw,
                root=self.ceremony.root,
                root_certificate=self.genesis.log.root_certificate,
                now_s=NOW_S,
            ),
        )
        self.machines[name] = machine
        return machine

    def change(self, removes: str, new: Machine, evidence_of: Machine | None = None) -> bytes:
        """An approved change of one member for another."""
        change = Change(
            chain_id=self.genesis.chain_id,
            base_epoch=self.present.epoch,
            base_set=self.present.hash,
            valid_until=len(self.headers) + 1_000,
            removes=(removes,),
            adds=(new.validator(),),
        )
        (joiner,) = change.adds
        shown = evidence_of or new
        newest = self.headers[-1]
        message = join_bytes(change, joiner.node_id, int(newest.height), newest.hash)
        return SignedChange(
            change=change,
            approvals=tuple(
                Approval(
                    index=index,
                    signature=self.machines[member.name].secret.sign(change.signed_bytes),
                )
                for index, member in enumerate(self.present.members)
            ),
            proofs=(
                JoinProof(
                    height=int(newest.height),
                    header_hash=newest.hash,
                    signature=new.secret.sign(message),
                    evidence=make_evidence(
                        self.genesis.chain_id,
                        spki=joiner.key.spki,
                        credentials=make_credentials(
                            shown.log_keys.cosigner.public.raw, shown.certificate
                        ),
                        cosigner=shown.log_keys.cosigner,
                        issuing=shown.log_keys.issuing,
                        issuing_certificate=shown.certificate,
                    ),
                ),
            ),
        ).encode()

    def replace(self, removes: str, name: str) -> Machine:
        new = self.joiner(name)
        assert self.execute(self.change(removes, new)) == bytes([Verdict.APPLIED])
        for _ in range(WINDOW_BLOCKS + 1):
            self.execute()
        assert name in [member.name for member in self.present.members]
        return new

    def cosigned(self, *names: str, size: int = 0, root: bytes = b"") -> LogCheckpoint:
        """The newest head or another, cosigned by these whether or not they are validators."""
        origin = self.genesis.log.origin
        size, root = size or self.log.size, root or self.log.root()
        lines = []
        for name in names:
            key = self.machines[name].log_keys.cosigner
            raw = key.public.raw
            if raw in self.genesis.log.cosigner_keys:
                said = self.genesis.log.cosigner_names[self.genesis.log.cosigner_keys.index(raw)]
            else:
                said = self.genesis.log.cosigner_name_of(raw)
            message = cosigned_message(
                name=said, timestamp_s=NOW_S, origin=origin, end=size, root=root
            )
            lines.append(
                Cosignature(
                    name=said,
                    key_id=cosigner_key_id(said, raw),
                    timestamp_s=NOW_S,
                    signature=bytes(key.sign(message)),
                )
            )
        return LogCheckpoint(origin=origin, size=size, root=root, cosignatures=tuple(lines))

    def bundle(self, index: int, issuer: str, *cosigners: str) -> str:
        machine = self.machines[issuer]
        authority = Authority(
            self.log,
            machine.log_keys.issuing,
            certificate=machine.certificate,
            roster=roster_of(self.genesis, self.present),
        )
        assert authority.is_seated
        return authority.bundle(index, self.cosigned(*cosigners)).encode()

    # --- what a node answers

    def epoch_links(self, first: int) -> dict[str, Any]:
        rows = [base64.b64encode(encode(link.value())).decode() for link in self.links]
        return {"epoch": len(rows), "links": rows[first - 1 : first + 1]}

    def log_consistency(self, old: int, new: int) -> dict[str, Any]:
        return {"hashes": [item.hex() for item in self.log.consistency_proof(old, new)]}

    def log_cosigners(self, first: int) -> dict[str, Any]:
        assert self.certificate is not None
        opening, height = self.log.opening(), len(self.headers)
        links = self.links[first : first + self.page]
        ends = [self.log.epoch_end(int(link.base), of=opening.size) for link in links]
        return {
            "height": height,
            "certificate": base64.b64encode(encode(self.certificate.value())).decode(),
            "state": base64.b64encode(encode((self.router.roots, opening.encode()))).decode(),
            "ends": [base64.b64encode(end.encode()).decode() for end in ends],
        }

    def _certify(
        self, header: BlockHeader, state_root: Digest, signers: ValidatorSet, next_set: Digest
    ) -> BlockCertificate:
        leaf = Checkpoint(
            epoch=header.epoch,
            height=header.height,
            header_hash=header.hash,
            state_root=state_root,
            next_set=next_set,
        )
        needed = quorum(len(signers.members))
        votes = []
        for index, member in enumerate(signers.members[:needed]):
            vector = VoteVector(
                epoch=header.epoch,
                signer=ReplicaIndex(index),
                number=Number(int(header.height)),
                leaves=(leaf,),
            )
            secret = self.machines[member.name].secret
            signed = vector.signed(Signature(secret.sign(vector.signed_bytes(header.chain_id))))
            votes.append((ReplicaIndex(index), signed, 0))
        return block_certificate(leaf, votes, needed)


def proven(chain: Chain) -> tuple[dict[str, Any], Succession]:
    return succession.fetch(cast("NodeClient", chain), chain.genesis)


@dataclass(kw_only=True)
class Replaced:
    """Four founders, replaced one by one, and a certificate of each epoch."""

    chain: Chain
    bundles: list[str]
    kept: list[LogCheckpoint]  # what the founders signed in epoch 0


@cache
def replaced() -> Replaced:
    chain = Chain.of_founders(4)
    chain.execute()
    first = chain.issue("epoch0.mesh")
    bundles = [chain.bundle(first, "n0", "n0", "n3")]
    kept = [chain.cosigned("n0", "n1")]
    for at in range(4):
        chain.replace(f"n{at}", f"m{at}")
        index = chain.issue(f"epoch{at + 1}.mesh")
        members = [member.name for member in chain.present.members]
        bundles.append(chain.bundle(index, f"m{at}", members[0], members[-1]))
    return Replaced(chain=chain, bundles=bundles, kept=kept)


def test_after_every_founder_was_replaced_a_client_with_genesis_only_verifies_all_epochs() -> None:
    found = replaced()
    chain = found.chain
    assert [member.name for member in chain.present.members] == ["m0", "m1", "m2", "m3"]
    _, known = proven(chain)
    assert len(known.rosters) == 5
    assert [end.size for end in known.ends] == [1, 2, 3, 4]
    assert [end.not_before_s for end in known.ends] == [
        chain.log.entry(end.size - 1).not_before_s for end in known.ends
    ]
    assert all(seat is not None for roster in known.rosters for seat in roster.seats)
    for at, text in enumerate(found.bundles):
        verified = verify_bundle(
            text, chain.genesis.log, at_s=NOW_S, name=f"epoch{at}.mesh", succession=known
        )
        assert len(verified.cosigners) == known.newest.needed == 2
    with pytest.raises(QuorumMissing) as caught:
        verify_bundle(found.bundles[-1], chain.genesis.log, at_s=NOW_S)
    assert "hypermesh cert cosigners --out FILE" in caught.value.hint
    assert "--cosigners FILE" in caught.value.hint


def test_a_cosignature_of_a_removed_validator_after_its_end_does_not_count() -> None:
    chain = replaced().chain
    _, known = proven(chain)
    log = chain.genesis.log
    assert len(verify_checkpoint(chain.cosigned("m1", "m2"), log, known)) == 2
    with pytest.raises(QuorumMissing):
        verify_checkpoint(chain.cosigned("n0", "n1", "n2", "n3"), log, known)
    with pytest.raises(QuorumMissing):
        verify_checkpoint(chain.cosigned("n0", "n1", "n2", "m3"), log, known)
    for old in replaced().kept:  # made while they were validators
        assert len(verify_checkpoint(old, log, known)) == 2


def test_removed_validators_cannot_mint_a_certificate_that_begins_now() -> None:
    chain = replaced().chain
    _, known = proven(chain)
    log, thief = chain.genesis.log, chain.machines["n0"]
    last_s = chain.log.entry(0).not_before_s  # of epoch 0, in which n0 and n1 voted

    def minted(not_before_s: int) -> str:
        certificates, root = made_up(
            log, thief.log_keys.issuing, thief.certificate, not_before_s, log.leaf_life_s
        )
        checkpoint = chain.cosigned("n0", "n1", size=1, root=root)
        return Bundle(chain=certificates, index=0, proof=(), checkpoint=checkpoint).encode()

    for late_s in (1, 60, log.leaf_life_s, 30 * log.leaf_life_s):
        with pytest.raises(CosignersLeft):
            verify_bundle(minted(last_s + late_s), log, at_s=last_s + late_s, succession=known)
    with pytest.raises(Expired):  # an old date is still theirs to write, and ends with the day
        verify_bundle(minted(last_s), log, at_s=last_s + log.leaf_life_s + 1, succession=known)


def test_a_checkpoint_of_who_left_is_shown_only_if_it_is_of_the_certified_log() -> None:
    chain = replaced().chain
    document, known = proven(chain)
    client, log = cast("NodeClient", chain), chain.genesis.log

    def check(checkpoint: LogCheckpoint) -> None:
        verify_checkpoint(checkpoint, log, known)  # its size and its keys are in order
        succession.check_present(client, chain.genesis, document, known, checkpoint)

    check(replaced().kept[0])
    check(chain.cosigned("m1", "m2"))
    check(chain.cosigned("m1", "m2", size=1, root=chain.log.root(1)))
    with pytest.raises(LogInvalid):
        check(chain.cosigned("n0", "n1", size=1, root=bytes(32)))
    with pytest.raises(LogInvalid):
        check(chain.cosigned("n2", "n3", "m0", size=1, root=bytes(32)))


def test_a_new_validator_vouches_for_what_the_log_held_before_it_came() -> None:
    chain = replaced().chain
    _, known = proven(chain)
    text = chain.bundle(0, "m2", "m0", "m3")
    assert verify_bundle(text, chain.genesis.log, at_s=NOW_S, succession=known).index == 0


def test_a_file_of_cosigners_is_verified_offline_and_every_change_of_it_is_found() -> None:
    chain = replaced().chain
    document, known = proven(chain)
    text = json.dumps(document)
    assert succession.read(text, chain.genesis) == known
    other = Chain.of_founders(4)
    with pytest.raises(ProofFileInvalid):
        succession.read(text, other.genesis)
    with pytest.raises(ProofFileInvalid):
        succession.read("{}", chain.genesis)
    for key in ("links", "ends", "state", "certificate"):
        with pytest.raises(ProofFileInvalid):
            succession.read(json.dumps(document | {key: None}), chain.genesis)
    ends, links = document["ends"], document["links"]
    lies: list[dict[str, Any]] = [
        {"ends": [ends[1], *ends[1:]]},  # an epoch that ends later than it did
        {"ends": [ends[0], ends[0], *ends[2:]]},
        {"links": links[1:]},
        {"links": [links[0], links[2]]},
        {"state": base64.b64encode(encode(((), chain.log.opening().encode()))).decode()},
        {"certificate": base64.b64encode(encode(chain.links[0].certificate.value())).decode()},
    ]
    for lie in lies:
        with pytest.raises(ProofFileInvalid):
            succession.read(json.dumps(document | lie), chain.genesis)
    # Fewer ends prove less and nothing wrong: those epochs are not heard.
    fewer = succession.read(json.dumps(document | {"ends": []}), chain.genesis)
    with pytest.raises(QuorumMissing):
        verify_bundle(replaced().bundles[0], chain.genesis.log, at_s=NOW_S, succession=fewer)
    assert verify_bundle(replaced().bundles[4], chain.genesis.log, at_s=NOW_S, succession=fewer)


@pytest.mark.parametrize("page", [1, 2, 3])
def test_more_epochs_than_a_page_has_are_fetched_page_by_page(page: int) -> None:
    chain = replaced().chain
    whole, known = proven(chain)
    try:
        chain.page = page
        document, found = proven(chain)
    finally:
        chain.page = HTTP_ENDS_PER_CALL_MAX
    assert "more" not in whole
    assert [len(part["ends"]) for part in (document, *document["more"])] == (
        {1: [1] * 4, 2: [2] * 2, 3: [3, 1]}[page]
    )
    assert found == known == succession.read(json.dumps(document), chain.genesis)
    again = {name: whole[name] for name in succession.NAMES}  # of other epochs than the next
    lies: list[Any] = [[{}], None, 3, [document["more"][0] | {"state": None}], [again]]
    for lie in lies:
        with pytest.raises(ProofFileInvalid):
            succession.read(json.dumps(document | {"more": lie}), chain.genesis)
    fewer = succession.read(json.dumps(document | {"more": []}), chain.genesis)
    assert fewer.ends == known.ends[:page]


def test_an_epoch_that_ends_while_its_end_is_fetched_is_proven_nevertheless() -> None:
    chain = Chain.of_founders(4)
    chain.execute()
    chain.issue("first.mesh")
    kept = chain.cosigned("n0", "n1")
    chain.replace("n0", "m0")
    stale = [chain.log_cosigners(first) for first in (0, 1)]
    assert [len(answer["ends"]) for answer in stale] == [1, 0]
    chain.replace("n1", "m1")

    class Racing:
        """A node whose state is behind its links the first times it is asked."""

        epoch_links = staticmethod(chain.epoch_links)
        asked = 0

        def log_cosigners(self, first: int) -> dict[str, Any]:
            self.asked += 1
            return stale[first] if self.asked <= len(stale) else chain.log_cosigners(first)

    document, known = succession.fetch(cast("NodeClient", Racing()), chain.genesis)
    assert [end.size for end in known.ends] == [1, 1]
    assert succession.read(json.dumps(document), chain.genesis) == known
    assert verify_checkpoint(kept, chain.genesis.log, known)


def test_before_any_change_genesis_tells_all() -> None:
    chain = Chain.of_founders(1)
    document, known = proven(chain)
    assert document["links"] == document["ends"] == []
    assert known == succession.read(json.dumps(document), chain.genesis)
    assert known == Succession.of_genesis(chain.genesis.log)


def test_keys_that_the_joiner_does_not_hold_are_not_ordered() -> None:
    chain = Chain.of_founders(4)
    chain.execute()
    new, other = chain.joiner("m0"), chain.joiner("m1")
    refused = chain.execute(chain.change("n0", new, evidence_of=other))
    assert refused == bytes([Verdict.CREDENTIALS_INVALID])
    assert chain.registry.registry.pending is None
    assert chain.execute(chain.change("n0", new)) == bytes([Verdict.APPLIED])


def test_a_set_with_validators_of_an_older_version_counts_them_without_hearing_them() -> None:
    chain = Chain.of_founders(4)
    members = genesis_set(chain.genesis).members
    stranger = Validator(name="n4", key=SecretKey.generate(Algorithm.FALCON_512).public)
    mixed = roster_of(chain.genesis, ValidatorSet(epoch=Epoch(1), members=(*members[1:], stranger)))
    assert [seat is None for seat in mixed.seats] == [False, False, False, True]
    assert mixed.needed == 2


def text_of(data: bytes) -> str:
    return base64.b64encode(data).decode()


def made_up_since(
    chain: Chain, height: int, epoch: int, signers: ValidatorSet, next_set: Digest
) -> dict[str, Any]:
    """A page of ends from a log that these validators made up, in a state that they certified."""
    fake = Chain(
        ceremony=chain.ceremony,
        genesis=chain.genesis,
        machines=chain.machines,
        now_s=NOW_S + 400 * 86_400,
    )
    fake.issue("evil.mesh")
    header = BlockHeader(
        chain_id=chain.genesis.chain_id,
        height=Height(height),
        epoch=Epoch(epoch),
        parent=chain.headers[height - 2].hash,
        batch=NO_DIGEST,
        time_ms=fake.now_s * 1_000,
        state_root=fake.router.state_root,
    )
    certificate = fake._certify(header, fake.router.state_root, signers, next_set)
    opening = fake.log.opening()
    ends = [
        fake.log.epoch_end(int(link.base), of=opening.size)
        for link in chain.links
        if int(link.base) <= height
    ]
    return {
        "height": height,
        "certificate": text_of(encode(certificate.value())),
        "state": text_of(encode((fake.router.roots, opening.encode()))),
        "ends": [text_of(end.encode()) for end in ends],
    }


@pytest.mark.parametrize("case", ["last block of epoch 0", "within epoch 1", "last block of all"])
def test_validators_that_left_cannot_make_up_where_their_epoch_ended(case: str) -> None:
    chain = Chain.of_founders(4)
    chain.execute()
    chain.issue("a.mesh")
    for at in range(3):
        chain.replace(f"n{at}", f"m{at}")
    document, _ = proven(chain)
    first, last = chain.links[0], chain.links[-1]
    founders = genesis_set(chain.genesis)
    forged = {
        "last block of epoch 0": (int(first.base), 0, founders, first.validators.hash),
        "within epoch 1": (int(first.base) + 1, 1, first.validators, NO_DIGEST),
        "last block of all": (int(last.base), 2, chain.links[1].validators, last.validators.hash),
    }[case]
    page = made_up_since(chain, *forged)
    known = len(page["ends"])
    more = [chain.log_cosigners(known)] if known < len(chain.links) else []
    lie = {name: document[name] for name in ("format", "kind", "links")} | page
    with pytest.raises(ProofFileInvalid, match=r"another certificate|is of an epoch that is over"):
        succession.read(json.dumps(lie | ({"more": more} if more else {})), chain.genesis)
