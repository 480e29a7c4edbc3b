"""Transaction bytes: fixed vectors, and the Rust decoder against its Python twin."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pqcrypto.sign import falcon_padded_512 as oracle

from caesar.core.addresses import address_text, parse_address
from caesar.core.receipts import Outcome
from caesar.core.transactions import (
    SENDER_AT,
    SignedTransaction,
    Transaction,
    Transfer,
    decode_transaction,
)
from caesar.errors import TransactionMalformed
from caesar.limits import OPERATIONS_MAX, TRANSACTION_SIZE_BYTES_MAX, U64_MAX
from caesar.tests.twins import refusal_of_bytes, signature_holds
from caesar.tests.worlds import CHAIN, address, pay, plain_address, wallet
from native.batches import Batch
from native.hashing import leaf_hash, sha256
from native.ledger import Accounts
from native.values import Amount, Signature

VECTORS = Path(__file__).parent / "vectors" / "transactions.json"
ODD = 1
U64 = st.integers(0, 300) | st.integers(0, U64_MAX)


@cache
def vectors() -> dict[str, Any]:
    document: dict[str, Any] = json.loads(VECTORS.read_text())
    assert "pqcrypto" in document["provenance"]
    return document


def test_vectors_decode_to_their_fields() -> None:
    for case in vectors()["cases"]:
        fields = case["fields"]
        signed = decode_transaction(bytes.fromhex(case["payload"]))
        transaction = signed.transaction
        assert transaction.id.hex() == case["id"]
        assert transaction.signed_bytes.hex() == case["signed_bytes"]
        assert transaction.chain_id.hex() == fields["chain_id"]
        assert address_text(transaction.sender) == fields["sender"]
        assert transaction.lane == fields["lane"]
        assert transaction.sequence == fields["sequence"]
        assert transaction.valid_until == fields["valid_until"]
        assert transaction.max_fee == fields["max_fee"]
        assert transaction.memo_hash.hex() == fields["memo_hash"]
        assert (signed.key is not None) == fields["carries_key"]
        assert [
            [address_text(operation.recipient), str(operation.amount)]
            for operation in transaction.operations
        ] == fields["operations"]


def test_vectors_are_what_another_msgpack_and_another_falcon_say() -> None:
    key = bytes.fromhex(vectors()["public_key"])
    for case in vectors()["cases"]:
        fields, payload = case["fields"], bytes.fromhex(case["payload"])
        nine = [
            1,
            bytes.fromhex(fields["chain_id"]),
            parse_address(fields["sender"]),
            fields["lane"],
            fields["sequence"],
            fields["valid_until"],
            fields["max_fee"],
            [[1, parse_address(to), int(amount)] for to, amount in fields["operations"]],
            bytes.fromhex(fields["memo_hash"]),
        ]
        signed_bytes = b"hypermesh/tx/v1" + nine[1] + msgpack.packb(nine)
        assert signed_bytes.hex() == case["signed_bytes"]
        signature = payload[-666:]
        assert oracle.verify(key, signed_bytes, signature)
        keys = [key] if fields["carries_key"] else []
        assert payload == b"\x01" + msgpack.packb([*nine, keys, [signature]])


def test_vectors_pass_the_rust_decoder() -> None:
    for case in vectors()["cases"]:
        accounts = Accounts(bytes.fromhex(case["fields"]["chain_id"]))
        sender = accounts.insert(parse_address(case["fields"]["sender"]))
        accounts.put_key(sender, bytes.fromhex(vectors()["public_key"]))
        payload = bytes.fromhex(case["payload"])
        transactions = accounts.transactions(Batch.of([payload]))
        assert transactions.ids.hex() == case["id"]
        assert transactions.statuses == bytes([ODD])
        code, found, key, lane, *_ = transactions.resolve(0)
        assert (code, found, key, lane) == (0, sender, None, case["fields"]["lane"])


@cache
def accounts_with_alice() -> Accounts:
    accounts = Accounts(CHAIN)
    accounts.insert(address("alice"))
    return accounts


def assert_twins_agree(payload: bytes) -> Outcome:
    """Rust and Python name the same outcome, id and fields for a payload of alice's or nobody's."""
    accounts = accounts_with_alice()
    transactions = accounts.transactions(Batch.of([payload]), [0])
    outcome, signed = refusal_of_bytes(payload, CHAIN)
    if signed is None:
        assert transactions.statuses == bytes([Outcome.UNDECODABLE])
        assert transactions.ids == leaf_hash(payload)
        assert transactions.operation_counts == b"\0"
        return Outcome.UNDECODABLE
    assert signed.encode() == payload
    transaction = signed.transaction
    assert transactions.ids == transaction.id == sha256(transaction.signed_bytes)
    assert transactions.operation_counts == bytes([len(transaction.operations)])
    if outcome is Outcome.APPLIED:
        if signed.key is not None and not signature_holds(signed.key, signed):
            outcome = Outcome.BAD_SIGNATURE
        elif transaction.sender != address("alice"):
            outcome = Outcome.UNKNOWN_SENDER
        elif signed.key is None:
            outcome = Outcome.KEY_MISSING
    code, _, key, lane, sequence, valid_until, max_fee, operations = transactions.resolve(0)
    assert code == outcome
    late = (Outcome.APPLIED, Outcome.UNKNOWN_SENDER, Outcome.KEY_MISSING)
    assert transactions.statuses == bytes([ODD if outcome in late else outcome])
    if outcome is Outcome.APPLIED:
        assert key == signed.key
        assert (lane, sequence) == (transaction.lane, transaction.sequence)
        assert (valid_until, max_fee) == (transaction.valid_until, transaction.max_fee)
        assert [(to, amount) for _, to, amount in operations] == [
            (operation.recipient, operation.amount) for operation in transaction.operations
        ]
    return outcome


@given(
    lane=st.integers(0, 255),
    sequence=U64,
    valid_until=U64,
    max_fee=U64,
    amounts=st.lists(U64, min_size=1, max_size=18),
    memo=st.sampled_from([b"", b"\x05" * 32]),
    key=st.booleans(),
)
@settings(max_examples=100)
def test_twins_agree_on_well_formed_transactions(
    lane: int,
    sequence: int,
    valid_until: int,
    max_fee: int,
    amounts: list[int],
    memo: bytes,
    key: bool,
) -> None:
    transaction = Transaction(
        chain_id=CHAIN,
        sender=address("alice"),
        lane=lane,
        sequence=sequence,
        valid_until=valid_until,
        max_fee=Amount(max_fee),
        operations=tuple(
            Transfer(recipient=plain_address(number), amount=Amount(amount))
            for number, amount in enumerate(amounts)
        ),
        memo_hash=memo,
    )
    signed = SignedTransaction(
        transaction=transaction,
        signature=wallet("alice").sign(transaction.signed_bytes),
        key=wallet("alice").public.raw if key else None,
    )
    assert signed.encode()[SENDER_AT:].startswith(address("alice"))
    outcome = assert_twins_agree(signed.encode())
    if 0 not in amounts:
        assert outcome is (Outcome.APPLIED if key else Outcome.KEY_MISSING)


@given(st.data())
@settings(max_examples=400)
def test_twins_agree_on_mutated_bytes(data: st.DataObject) -> None:
    payload = bytearray(pay(key=data.draw(st.booleans())))
    heads = st.integers(0, 130) | st.integers(0, len(payload) - 1)
    for _ in range(data.draw(st.integers(1, 3))):
        at = min(data.draw(heads), len(payload) - 1)
        match data.draw(st.sampled_from(["flip", "set", "insert", "delete", "cut"])):
            case "flip":
                payload[at] ^= 1 << data.draw(st.integers(0, 7))
            case "set":
                payload[at] = data.draw(st.integers(0, 255))
            case "insert":
                payload.insert(at, data.draw(st.integers(0, 255)))
            case "delete" if len(payload) > 1:
                del payload[at]
            case _ if at:
                del payload[at:]
            case _:
                pass
    assert_twins_agree(bytes(payload))


@given(st.binary(max_size=200).map(lambda tail: b"\x01" + tail))
def test_twins_agree_on_arbitrary_bytes(payload: bytes) -> None:
    assert_twins_agree(payload)


def test_forms_beside_the_canonical_one_are_refused() -> None:
    good = pay()
    for wrong in (
        good.replace(b"\x9b\x01", b"\xdc\x00\x0b\x01", 1),  # array head too long
        good.replace(b"\x9b\x01", b"\x9b\xcc\x01", 1),  # number too long
        good.replace(b"\x9b\x01", b"\x9b\xc3", 1),  # True is not 1
        good.replace(b"\x9b\x01", b"\x9b\x02", 1),  # another version
        b"\x02" + good[1:],
        good + b"\xc0",
    ):
        assert wrong != good
        assert assert_twins_agree(wrong) is Outcome.UNDECODABLE
        with pytest.raises(TransactionMalformed) as caught:
            decode_transaction(wrong)
        assert caught.value.hint


def test_counts_and_sizes_have_bounds() -> None:
    most = [(plain_address(number), 1) for number in range(OPERATIONS_MAX - 1)]
    assert assert_twins_agree(pay(more=most)) is Outcome.APPLIED
    assert len(pay(more=most)) < TRANSACTION_SIZE_BYTES_MAX
    more = [*most, (plain_address(99), 1)]
    assert assert_twins_agree(pay(more=more)) is Outcome.UNDECODABLE
    transaction = decode_transaction(pay()).transaction
    for signature, key in ((b"x", None), (b"x" * 666, b"k"), (b"x" * 667, None)):
        signed = SignedTransaction(transaction=transaction, signature=Signature(signature), key=key)
        assert assert_twins_agree(signed.encode()) is Outcome.UNDECODABLE
