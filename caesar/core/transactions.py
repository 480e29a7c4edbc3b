"""The transaction and its bytes, in Python: what wallets read and what tests hold Rust against.

Payload = 0x01 || canonical msgpack of `[1, chain id, sender, lane, sequence, valid until, max fee,
[[1, recipient, amount], ...], memo hash, keys, signatures]`. Signed are `"hypermesh/tx/v1" ||
chain id || msgpack of the first nine fields`; their SHA-256 is the transaction id, so whether the
key comes along changes neither id nor signature. Blocks are decoded by `native/src/transaction.rs`.
"""

from dataclasses import dataclass
from typing import Final

from caesar.core.addresses import ADDRESS_SIZE_BYTES, Address
from caesar.errors import TransactionMalformed
from caesar.limits import LANES_MAX, OPERATIONS_MAX, TRANSACTION_SIZE_BYTES_MAX
from native.codec import CodecError, decode, encode
from native.hashing import HASH_SIZE_BYTES, sha256
from native.values import Algorithm, Amount, Digest, Signature

TAG: Final = 1
VERSION: Final = 1
TRANSFER: Final = 1
DOMAIN: Final = b"hypermesh/tx/v1"
# Tag, array head, version, two bytes of head and the chain id, two of head: then the sender.
SENDER_AT: Final = 1 + 1 + 1 + 2 + HASH_SIZE_BYTES + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Transfer:
    """One operation: an amount to a recipient."""

    recipient: Address
    amount: Amount

    def value(self) -> tuple[int, bytes, int]:
        """Positional form."""
        return (TRANSFER, self.recipient, self.amount)


@dataclass(frozen=True, slots=True, kw_only=True)
class Transaction:
    """Everything a signature covers."""

    chain_id: Digest
    sender: Address
    lane: int
    sequence: int
    valid_until: int  # last height at which it may execute
    max_fee: Amount
    operations: tuple[Transfer, ...]
    memo_hash: bytes = b""

    def fields(self) -> tuple[object, ...]:
        """The first nine fields of the payload."""
        return (
            VERSION,
            self.chain_id,
            self.sender,
            self.lane,
            self.sequence,
            self.valid_until,
            self.max_fee,
            tuple(operation.value() for operation in self.operations),
            self.memo_hash,
        )

    @property
    def signed_bytes(self) -> bytes:
        """What the signature covers."""
        return DOMAIN + self.chain_id + encode(self.fields())  # type: ignore[arg-type]

    @property
    def id(self) -> Digest:
        """The idempotency key: what receipts are found by."""
        return sha256(self.signed_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class SignedTransaction:
    """A transaction with its signature and, the first time, the sender's key."""

    transaction: Transaction
    signature: Signature
    key: bytes | None = None  # raw Falcon-512 public key

    def encode(self) -> bytes:
        """The payload."""
        keys = () if self.key is None else (self.key,)
        fields = (*self.transaction.fields(), keys, (self.signature,))
        return bytes([TAG]) + encode(fields)  # type: ignore[arg-type]


def decode_transaction(payload: bytes) -> SignedTransaction:
    """Decode a payload; raises `TransactionMalformed`. Checks form only, no signature."""
    if len(payload) > TRANSACTION_SIZE_BYTES_MAX:
        raise TransactionMalformed("the transaction is too long")
    if payload[:1] != bytes([TAG]):
        raise TransactionMalformed("the payload is not a ledger transaction")
    try:
        value = decode(payload[1:], size_max=TRANSACTION_SIZE_BYTES_MAX)
    except CodecError as error:
        raise TransactionMalformed(str(error)) from None
    match value:
        case (
            version,
            bytes(chain_id),
            bytes(sender),
            int(lane),
            int(sequence),
            int(valid_until),
            int(max_fee),
            tuple(operations),
            bytes(memo_hash),
            tuple(keys),
            (bytes(signature),),
        ) if version == VERSION and not _has_bool(value):
            pass
        case _:
            raise TransactionMalformed("the fields are not those of a transaction")
    _size("chain id", chain_id, HASH_SIZE_BYTES)
    _size("sender", sender, ADDRESS_SIZE_BYTES)
    _size("signature", signature, Algorithm.FALCON_512.signature_size_bytes)
    if memo_hash:
        _size("memo hash", memo_hash, HASH_SIZE_BYTES)
    if lane >= LANES_MAX:
        raise TransactionMalformed("the lane is not below 256")
    if not 1 <= len(operations) <= OPERATIONS_MAX:
        raise TransactionMalformed(f"a transaction has 1 to {OPERATIONS_MAX} operations")
    return SignedTransaction(
        transaction=Transaction(
            chain_id=Digest(chain_id),
            sender=Address(sender),
            lane=lane,
            sequence=sequence,
            valid_until=valid_until,
            max_fee=Amount(max_fee),
            operations=tuple(_operation(item) for item in operations),
            memo_hash=memo_hash,
        ),
        signature=Signature(signature),
        key=_key(keys),
    )


def _has_bool(value: object) -> bool:
    """Python takes True for 1; the wire does not."""
    if isinstance(value, tuple):
        return any(_has_bool(item) for item in value)
    return isinstance(value, bool)


def _operation(value: object) -> Transfer:
    match value:
        case (kind, bytes(recipient), int(amount)) if kind == TRANSFER:
            _size("recipient", recipient, ADDRESS_SIZE_BYTES)
            return Transfer(recipient=Address(recipient), amount=Amount(amount))
        case _:
            raise TransactionMalformed("an operation of unknown kind")


def _key(keys: tuple[object, ...]) -> bytes | None:
    match keys:
        case ():
            return None
        case (bytes(key),):
            _size("key", key, Algorithm.FALCON_512.public_size_bytes)
            return key
        case _:
            raise TransactionMalformed("a transaction carries at most one key")


def _size(name: str, value: bytes, size: int) -> None:
    if len(value) != size:
        raise TransactionMalformed(f"the {name} has {len(value)} bytes instead of {size}")
