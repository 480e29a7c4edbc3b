"""The file that a change of validators travels in between operators.

`propose` writes it, each `approve` adds a signature, `submit` sends it. What an operator is shown
and signs is rebuilt from typed fields and from the set that the operator's own node reports; bytes
of the file are never signed as they are.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from caesar.core.changes import Approval, Change, JoinProof, SignedChange, join_bytes
from caesar.core.validators import Registry, Verdict, changed_members
from caesar.limits import CHANGE_VALID_BLOCKS_MAX, VALIDATOR_PAYLOAD_SIZE_BYTES_MAX
from caesar.runtime.validators import verify
from consensus.core.quorum import faults, quorum
from consensus.core.types import Epoch
from consensus.core.validators import Validator, ValidatorSet
from consensus.limits import CREDENTIALS_SIZE_BYTES_MAX
from native.errors import NativeError
from native.values import Digest, PublicKey, Signature
from node.errors import (
    ChangeFileInvalid,
    ChangeImpossible,
    ChangeOutdated,
    NotAMember,
    UnexpectedAnswer,
)
from node.home import write_new, write_replacing
from node.inputs import bounded_bytes, parse_json

if TYPE_CHECKING:
    from native.keys import SecretKey
    from node.core.genesis import Genesis
    from node.logkeys import Joiner

FILE_VERSION: Final = 1
FILE_SIZE_BYTES_MAX: Final = 4 * VALIDATOR_PAYLOAD_SIZE_BYTES_MAX  # base64, names, indentation
KEYS: Final = (
    "version",
    "chain_id",
    "base_epoch",
    "base_set",
    "valid_until",
    "remove",
    "add",
    "rotate",
    "approvals",
)
HINT: Final = "write it again with `hypermesh validator propose`"


@dataclass(frozen=True, slots=True, kw_only=True)
class Present:
    """What the operator's own node says of the validator set."""

    chain: str
    chain_id: Digest
    height: int
    members: ValidatorSet
    tombstones: frozenset[str]
    pending: bool

    @staticmethod
    def of(document: dict[str, Any], url: str) -> Present:
        """Read the answer of /api/v1/validators; the hash of the set is computed here."""
        try:
            found = ValidatorSet(
                epoch=Epoch(int(document["epoch"])),
                members=tuple(
                    Validator(
                        name=str(member["name"]),
                        key=PublicKey.from_spki(base64.b64decode(member["key"], validate=True)),
                        credentials=base64.b64decode(
                            member.get("credentials") or "", validate=True
                        ),
                    )
                    for member in document["members"]
                ),
            )
            present = Present(
                chain=str(document["chain"]),
                chain_id=Digest(bytes.fromhex(document["chain_id"])),
                height=int(document["height"]),
                members=found,
                tombstones=frozenset(
                    str(member["name"]) for member in document["members"] if member["tombstone"]
                ),
                pending=document["pending"] is not None,
            )
            honest = bytes.fromhex(document["hash"]) == found.hash and len(present.chain_id) == 32
        except (KeyError, TypeError, ValueError, NativeError) as error:
            raise UnexpectedAnswer(
                f"{url} answered with validators that cannot be read: {error}",
                hint="check that it is a HyperMesh node of the same version",
            ) from None
        if not honest:
            raise UnexpectedAnswer(
                f"{url} answered with validators that do not have the hash it names",
                hint="ask another node; this one lies or is damaged",
            )
        return present

    def after(self, change: Change) -> tuple[Validator, ...]:
        """The members after a change; raises `ChangeOutdated` or `ChangeImpossible`."""
        if change.chain_id != self.chain_id:
            raise ChangeOutdated(
                f"the change is for another network than {self.chain}",
                hint="name a node of the right network with --node, --cluster or --home",
            )
        if (change.base_epoch, change.base_set) != (self.members.epoch, self.members.hash):
            raise ChangeOutdated(
                f"the change was proposed for epoch {change.base_epoch}, and another set votes "
                f"now, in epoch {self.members.epoch}",
                hint="see `hypermesh validator status`, then propose and approve it again",
            )
        if change.valid_until <= self.height:
            raise ChangeOutdated(
                f"the change was valid until block {change.valid_until:,}; this is block "
                f"{self.height:,}",
                hint="propose and approve it again",
            )
        registry = Registry(present=self.members, automatic_left=0)
        members, verdict = changed_members(registry, change)
        if verdict is not Verdict.APPLIED:
            raise ChangeImpossible(f"{verdict.text} [{verdict.code}]", hint=verdict.hint)
        check_log_keys(change, members)
        return members


def check_log_keys(
    change: Change, members: Sequence[Validator], genesis: Genesis | None = None
) -> None:
    """Raise `ChangeImpossible` if a joiner's log keys are damaged or its cosigner key is taken.

    `members` are those after the change. The keys of founders stand in genesis and are never given
    to anyone else: without it only nodes notice, when the change is submitted.
    """
    from trustchain.core.roster import Credentials
    from trustchain.errors import MalformedCredentials

    def key_of(entry: Validator) -> bytes:
        return Credentials.decode(entry.credentials).cosigner_key if entry.credentials else b""

    founders = () if genesis is None else genesis.log.cosigner_keys
    for joiner in change.joiners:
        try:
            key = key_of(joiner)
            holders = [
                entry.name for entry in members if entry is not joiner and key_of(entry) == key
            ]
        except MalformedCredentials as error:
            raise ChangeImpossible(
                f"{joiner.name}: {error}",
                hint="copy what `hypermesh validator key` prints on the new node, whole",
            ) from None
        if genesis is not None and key in founders:
            holders = [f"founder {genesis.validators[founders.index(key)].name}"]
        if key and holders:
            raise ChangeImpossible(
                f"{joiner.name} brings the cosigner key of {holders[0]}, and a key has one holder",
                hint=f"in the home of {joiner.name} move keys/cosigner.key away, draw a new one "
                "with `hypermesh ca request`, and propose what `hypermesh validator key` prints",
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeFile:
    """A change and who approved it, by name."""

    change: Change
    approvals: tuple[tuple[str, Signature], ...] = ()

    @staticmethod
    def read(path: Path) -> ChangeFile:
        """Read a file; raises `ChangeFileInvalid`."""
        try:
            document = parse_json(bounded_bytes(path, FILE_SIZE_BYTES_MAX))
            if not isinstance(document, dict) or set(document) != set(KEYS):
                raise ValueError("its keys are not those of a change")
            if document["version"] != FILE_VERSION:
                raise ValueError(f"version {document['version']!r} is not {FILE_VERSION}")
            return ChangeFile(
                change=Change(
                    chain_id=_digest(document["chain_id"]),
                    base_epoch=Epoch(_number(document["base_epoch"])),
                    base_set=_digest(document["base_set"]),
                    valid_until=_number(document["valid_until"]),
                    removes=tuple(_text(name) for name in document["remove"]),
                    adds=tuple(_validator(entry) for entry in document["add"]),
                    rotations=tuple(_validator(entry) for entry in document["rotate"]),
                ),
                approvals=tuple(
                    (_text(entry["name"]), Signature(_bytes(entry["signature"])))
                    for entry in document["approvals"]
                ),
            )
        except (KeyError, TypeError, ValueError, NativeError) as error:
            raise ChangeFileInvalid(
                f"{path}: not a change of validators: {error}", hint=HINT
            ) from None

    def text(self) -> str:
        """The file's content."""
        change = self.change
        document = {
            "version": FILE_VERSION,
            "chain_id": change.chain_id.hex(),
            "base_epoch": int(change.base_epoch),
            "base_set": change.base_set.hex(),
            "valid_until": change.valid_until,
            "remove": list(change.removes),
            "add": [_entry(validator) for validator in change.adds],
            "rotate": [_entry(validator) for validator in change.rotations],
            "approvals": [
                {"name": name, "signature": base64.b64encode(signature).decode()}
                for name, signature in self.approvals
            ],
        }
        return json.dumps(document, indent=2) + "\n"

    def write(self, path: Path, *, new: bool) -> None:
        """Write the file; a new one never replaces another (`FileExistsError`)."""
        data = self.text().encode()
        if new:
            write_new(path, data)
        else:
            write_replacing(path, data)

    def approved_by(self, present: Present, secret: SecretKey) -> ChangeFile:
        """Add the approval of a node's key; raises `NotAMember`. The same key counts once."""
        index = present.members.index_of(secret.node_id)
        if index is None:
            raise NotAMember(
                "the key of this home is no validator's, so it has no say in this change",
                hint="approve with the home folder of a present validator",
            )
        name = present.members.members[index].name
        others = tuple(entry for entry in self.approvals if entry[0] != name)
        signature = secret.sign(self.change.signed_bytes)
        return replace(self, approvals=(*others, (name, signature)))

    def valid_approvals(self, present: Present) -> tuple[Approval, ...]:
        """Approvals that are by present members and hold, rising by index; others are left out."""
        found: dict[int, Approval] = {}
        names = [validator.name for validator in present.members.members]
        for name, signature in self.approvals:
            if name not in names:
                continue
            index = names.index(name)
            key = present.members.members[index].key
            if verify(key, self.change.signed_bytes, signature):
                found[index] = Approval(index=index, signature=signature)
        return tuple(found[index] for index in sorted(found))

    def signed(
        self,
        present: Present,
        joiners: Sequence[Joiner],
        *,
        height: int,
        header_hash: Digest,
    ) -> SignedChange:
        """Make the payload; every new key signs the block that was just read.

        Raises `NotAMember` for a joiner's home that is missing, `ChangeImpossible` for a payload
        that is too big.
        """
        homes = {entry.secret.node_id: entry for entry in joiners}
        proofs = []
        for joiner in self.change.joiners:
            home = homes.get(joiner.node_id)
            if home is None:
                raise NotAMember(
                    f"{joiner.name} has to show that it follows the chain, and its key is not here",
                    hint=f"submit on the machine of {joiner.name} with --joiner HOME",
                )
            message = join_bytes(self.change, joiner.node_id, height, header_hash)
            proofs.append(
                JoinProof(
                    height=height,
                    header_hash=header_hash,
                    signature=home.secret.sign(message),
                    evidence=home.evidence(self.change.chain_id, joiner.credentials),
                )
            )
        signed = SignedChange(
            change=self.change, approvals=self.valid_approvals(present), proofs=tuple(proofs)
        )
        size = len(signed.encode())
        if size > VALIDATOR_PAYLOAD_SIZE_BYTES_MAX:
            raise ChangeImpossible(
                f"the change takes {size:,} bytes, and {VALIDATOR_PAYLOAD_SIZE_BYTES_MAX:,} fit",
                hint="let fewer validators join at a time: one with an issuing certificate takes "
                "16,000 bytes",
            )
        return signed


def propose(
    present: Present,
    *,
    removes: Sequence[str],
    adds: Sequence[Validator],
    rotations: Sequence[Validator],
    valid_for: int,
    genesis: Genesis | None = None,
) -> ChangeFile:
    """A change of the present set; raises `ChangeImpossible`.

    With the genesis of the network, a founder's cosigner key is refused as well.
    """
    change = Change(
        chain_id=present.chain_id,
        base_epoch=present.members.epoch,
        base_set=present.members.hash,
        valid_until=present.height + valid_for,
        removes=tuple(removes),
        adds=tuple(adds),
        rotations=tuple(rotations),
    )
    if not change.names:
        raise ChangeImpossible("nothing would change", hint="use --add, --remove or --rotate")
    if len(set(change.names)) != len(change.names):
        raise ChangeImpossible(
            "a validator is named twice", hint="name each in one of --add, --remove and --rotate"
        )
    if not 1 <= valid_for <= CHANGE_VALID_BLOCKS_MAX:
        raise ChangeImpossible(
            f"valid for {valid_for:,} blocks", hint=f"1 to {CHANGE_VALID_BLOCKS_MAX:,}"
        )
    check_log_keys(change, present.after(change), genesis)
    return ChangeFile(change=change)


def explain(present: Present, found: ChangeFile, genesis: Genesis | None = None) -> str:
    """What a change means, for the person who is to approve it.

    With genesis also for the certificate log: the log keys of founders stand there. Raises
    `ChangeOutdated` or `ChangeImpossible`.
    """
    change = found.change
    members = present.after(change)
    check_log_keys(change, members, genesis)
    before, after = len(present.members.members), len(members)
    known = {validator.name: validator for validator in present.members.members}
    lines = [
        f"change     {change.id.hex()[:16]} of {present.chain}",
        f"applies to epoch {change.base_epoch}, set {change.base_set.hex()[:16]}, until block "
        f"{change.valid_until:,}",
    ]
    for name in change.removes:
        lie = ", which provably lied" if name in present.tombstones else ""
        lines.append(f"  remove   {name}  {known[name].node_id.hex()[:16]}{lie}")
    lines += [
        f"  add      {entry.name}  {entry.node_id.hex()}, {_log_role(entry)}"
        for entry in change.adds
    ]
    lines += [
        f"  rotate   {entry.name}  {known[entry.name].node_id.hex()[:16]} becomes "
        f"{entry.node_id.hex()}, {_log_role(entry)}"
        for entry in change.rotations
    ]
    lines.append(
        f"validators {before} become {after}, quorum {quorum(before)} becomes {quorum(after)}, "
        f"tolerated lies {faults(before)} become {faults(after)}"
    )
    if after < 4:
        lines.append("           with fewer than 4 validators no lie is tolerated")
    if genesis is not None:
        lines += _log_lines(present, members, genesis)
    approved = {approval.index for approval in found.valid_approvals(present)}
    names = [
        validator.name
        for index, validator in enumerate(present.members.members)
        if index in approved
    ]
    lines.append(
        f"approved   {len(approved)} of {quorum(before)} needed"
        + (f": {', '.join(names)}" if names else "")
    )
    return "\n".join(lines)


def _log_lines(present: Present, members: Sequence[Validator], genesis: Genesis) -> Iterator[str]:
    """Who would be left for the certificate log; a quorum can take its last issuer away."""
    from node.core.rosters import roster_of

    following = ValidatorSet(epoch=Epoch(present.members.epoch + 1), members=tuple(members))
    roster = roster_of(genesis, following)
    seats = [seat for seat in roster.seats if seat is not None]
    issuers = sum(1 for seat in seats if seat.issuing_hash)
    yield (
        f"log        {len(seats)} of {len(members)} would cosign, {roster.needed} are needed; "
        f"{issuers} would issue"
    )
    if len(seats) < roster.needed:
        yield "           NO CHECKPOINT would count any more"
    if not issuers:
        yield "           NOBODY would issue certificates any more"


def _log_role(entry: Validator) -> str:
    """What a new validator does for the certificate log."""
    from trustchain.core.roster import Credentials

    if not entry.credentials:
        return "votes but does not cosign the log"
    issues = bool(Credentials.decode(entry.credentials).issuing_hash)
    return "cosigns and issues" if issues else "cosigns but does not issue"


def _entry(validator: Validator) -> dict[str, str]:
    return {"name": validator.name, "key": key_text(validator.key, validator.credentials)}


def _validator(value: Any) -> Validator:
    return parse_key(_text(value["name"]), _text(value["key"]))


def key_text(key: PublicKey, credentials: bytes) -> str:
    """The key of a node with its credentials, if it has any: base64, a full stop between."""
    parts = (key.spki, credentials) if credentials else (key.spki,)
    return ".".join(base64.b64encode(part).decode() for part in parts)


def parse_key(name: str, text: str) -> Validator:
    """Read a key as `hypermesh validator key` prints it; raises ValueError."""
    spki, _, credentials = text.partition(".")
    found = Validator(
        name=name, key=PublicKey.from_spki(_bytes(spki)), credentials=_bytes(credentials)
    )
    if not found.key.algorithm.is_falcon:
        raise ValueError("validators have Falcon keys")
    if len(found.credentials) > CREDENTIALS_SIZE_BYTES_MAX:
        raise ValueError("more credentials than a validator can have")
    return found


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("expected a text")
    return value


def _number(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("expected a whole number")
    return value


def _bytes(value: Any) -> bytes:
    try:
        return base64.b64decode(_text(value), validate=True)
    except binascii.Error as error:
        raise ValueError(f"not base64: {error}") from None


def _digest(value: Any) -> Digest:
    data = bytes.fromhex(_text(value))
    if len(data) != 32:
        raise ValueError("expected 64 hexadecimal digits")
    return Digest(data)
