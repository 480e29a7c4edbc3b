"""What the ledger commits to, and proofs of single accounts that need no node to check.

Application root = SHA-256 of canonical `[height, tree root, state sum, receipt root, validators
hash, parameters hash]`. An account proof leads from an account to that root; from there the router
leads to the state root, which the block certificate signs. Every proof re-adds the sums on its
path, so checking one's own balance checks the supply as well.
"""

from dataclasses import dataclass
from typing import Final

from caesar.core.accounts import SYSTEM_NAMES
from caesar.core.addresses import Address
from caesar.errors import AccountProofInvalid
from caesar.limits import ACCOUNT_PROOF_SIZE_BYTES_MAX, SUPPLY
from native.codec import decode, encode
from native.errors import NativeError
from native.hashing import HASH_SIZE_BYTES, sha256
from native.ledger import account_tree_key, system_tree_key, verify_sum_proof
from native.values import Amount, Digest

PROOF_VERSION: Final = 1
VALUE_VERSION: Final = 1
NO_VALIDATORS: Final = Digest(bytes(32))  # until validators have stake on the ledger


@dataclass(frozen=True, slots=True, kw_only=True)
class Commitment:
    """The state of the ledger after one block, in six fields."""

    height: int
    tree_root: Digest
    state_sum: int
    receipt_root: Digest
    validators_hash: Digest = NO_VALIDATORS
    parameters_hash: Digest

    def value(self) -> tuple[int, bytes, int, bytes, bytes, bytes]:
        """Positional form."""
        return (
            self.height,
            self.tree_root,
            self.state_sum,
            self.receipt_root,
            self.validators_hash,
            self.parameters_hash,
        )

    @property
    def root(self) -> Digest:
        """The application root."""
        return sha256(encode(self.value()))


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountState:
    """What the leaf of an account says; an account that is not there has nothing."""

    exists: bool
    balance: Amount
    has_key: bool
    lanes: tuple[tuple[int, int], ...]  # (lane, next sequence) of the lanes ever used

    def next_sequence(self, lane: int = 0) -> int:
        """The sequence that the next transaction of a lane needs."""
        return dict(self.lanes).get(lane, 0)

    def value(self) -> bytes:
        """Canonical bytes under the leaf."""
        return encode((VALUE_VERSION, self.balance, int(self.has_key), self.lanes))


NOTHING: Final = AccountState(exists=False, balance=Amount(0), has_key=False, lanes=())


@dataclass(frozen=True, slots=True, kw_only=True)
class AccountProof:
    """An account at one height with everything needed to check it against the root."""

    state: AccountState
    commitment: Commitment
    path: bytes

    def encode(self) -> bytes:
        """Canonical bytes for wire and file."""
        state = self.state
        account = (state.balance, int(state.has_key), state.lanes) if state.exists else ()
        return encode((PROOF_VERSION, self.commitment.value(), account, self.path))

    def verify(self, tree_key: bytes, application_root: Digest) -> None:
        """Check path, sums, supply and root; raises `AccountProofInvalid`."""
        commitment = self.commitment
        if commitment.root != application_root:
            raise AccountProofInvalid("the proof belongs to another application root")
        if commitment.state_sum != SUPPLY:
            raise AccountProofInvalid("the state the proof belongs to does not hold the supply")
        try:
            verify_sum_proof(
                commitment.tree_root,
                commitment.state_sum,
                tree_key,
                self.path,
                self.state.balance,
                self.state.value() if self.state.exists else None,
            )
        except NativeError as error:
            raise AccountProofInvalid(str(error)) from None


def verify_account_proof(
    proof: bytes, *, address: Address, application_root: Digest
) -> AccountProof:
    """Check an encoded proof offline and return it; raises `AccountProofInvalid`."""
    decoded = decode_account_proof(proof)
    decoded.verify(account_tree_key(address), application_root)
    return decoded


def verify_system_proof(proof: bytes, *, name: str, application_root: Digest) -> AccountProof:
    """Check an encoded proof of a system account such as `treasury`; same contract."""
    if name.encode() not in SYSTEM_NAMES:
        raise AccountProofInvalid(f"there is no system account {name!r}")
    decoded = decode_account_proof(proof)
    decoded.verify(system_tree_key(name.encode()), application_root)
    return decoded


def decode_account_proof(data: bytes) -> AccountProof:
    """Decode without checking; raises `AccountProofInvalid`."""
    try:
        value = decode(data, size_max=ACCOUNT_PROOF_SIZE_BYTES_MAX)
    except NativeError as error:
        raise AccountProofInvalid(str(error)) from None
    match value:
        case (version, tuple(commitment), tuple(account), bytes(path)) if (
            _integers(version) and version == PROOF_VERSION
        ):
            return AccountProof(
                state=_state(account), commitment=_commitment(commitment), path=path
            )
        case _:
            raise AccountProofInvalid("the proof has an unknown form")


def _commitment(value: tuple[object, ...]) -> Commitment:
    match value:
        case (
            int(height),
            bytes(tree_root),
            int(state_sum),
            bytes(receipt_root),
            bytes(validators_hash),
            bytes(parameters_hash),
        ) if _integers(height, state_sum) and {
            len(tree_root),
            len(receipt_root),
            len(validators_hash),
            len(parameters_hash),
        } == {HASH_SIZE_BYTES}:
            return Commitment(
                height=height,
                tree_root=Digest(tree_root),
                state_sum=state_sum,
                receipt_root=Digest(receipt_root),
                validators_hash=Digest(validators_hash),
                parameters_hash=Digest(parameters_hash),
            )
        case _:
            raise AccountProofInvalid("the proof's commitment has an unknown form")


def _state(value: tuple[object, ...]) -> AccountState:
    match value:
        case ():
            return NOTHING
        case (int(balance), int(algorithm), tuple(lanes)) if _integers(
            balance, algorithm
        ) and algorithm in (0, 1):
            return AccountState(
                exists=True,
                balance=Amount(balance),
                has_key=algorithm == 1,
                lanes=tuple(_lane(item) for item in lanes),
            )
        case _:
            raise AccountProofInvalid("the proof's account has an unknown form")


def _lane(value: object) -> tuple[int, int]:
    match value:
        case (int(lane), int(after)) if _integers(lane, after):
            return lane, after
        case _:
            raise AccountProofInvalid("the proof's lanes have an unknown form")


def _integers(*values: object) -> bool:
    """Whether these are integers: `true` equals 1 and is another encoding."""
    return all(type(value) is int for value in values)
