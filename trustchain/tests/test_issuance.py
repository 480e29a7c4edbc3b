"""Four validators in one process, from a request to a bundle that verifies offline."""

# ruff: noqa: ARG001  pytest-trio finds the virtual clock among the arguments of a test

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from cryptography import x509

from native import codec
from native.keys import SecretKey
from native.values import Algorithm
from trustchain import client, limits
from trustchain.core.bundle import Bundle, pem
from trustchain.core.checkpoint import cosigned_message
from trustchain.core.genesis import LogGenesis
from trustchain.core.oids import KeyAlgorithm
from trustchain.errors import (
    CosignerBusy,
    EntryUnknown,
    HeadUnknown,
    KeyFileError,
    MalformedCheckpoint,
)
from trustchain.runtime.authority import Authority
from trustchain.runtime.cosigner import Cosigner
from trustchain.runtime.verify import verify_bundle, verify_checkpoint
from trustchain.tests.network import CHAIN_ID, KEY_ALGORITHMS, NOW_S, Network


async def start(network: Network, nursery: trio.Nursery) -> None:
    for cosigner in network.cosigners:
        await nursery.start(cosigner.run)


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
async def test_a_requester_gets_a_bundle_that_verifies_offline(
    algorithm: KeyAlgorithm, autojump_clock: trio.testing.MockClock
) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        for place in range(5):
            network.order(network.issue([f"n{place}.mesh"]))
        network.order(network.issue(["alice.mesh"], client.generate_key(algorithm)))
        network.commit()
        with trio.fail_after(1):
            checkpoint = await network.cosigners[2].wait_cosigned(6)
        text = network.authority(2).bundle(5, checkpoint).encode()
        nursery.cancel_scope.cancel()
    verified = verify_bundle(text, network.genesis, at_s=NOW_S, name="alice.mesh")
    assert verified.index == 5
    assert verified.serial == (1 << 48) | 5
    assert verified.names == ("alice.mesh",)
    assert len(verified.cosigners) >= network.genesis.cosignatures_needed == 2
    assert verified.checkpoint_size == 6


async def test_two_validators_sign_one_entry_and_both_certificates_hold(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"]))
        network.commit()
        checkpoint = await network.cosigners[0].wait_cosigned(1)
        bundles = [network.authority(place).bundle(0, checkpoint) for place in (0, 3)]
        nursery.cancel_scope.cancel()
    assert bundles[0].leaf != bundles[1].leaf
    first, second = (verify_bundle(bundle, network.genesis, at_s=NOW_S) for bundle in bundles)
    assert first == second


@pytest.mark.parametrize("validators", [1, 2, 3, 4, 5, 7])
async def test_a_checkpoint_counts_with_w_cosignatures_for_every_size_of_cluster(
    validators: int,
) -> None:
    network = Network(validators)
    needed = network.genesis.cosignatures_needed
    network.silent = set(range(needed, validators))
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"]))
        network.commit()
        checkpoint = await network.cosigners[0].wait_cosigned(1)
        nursery.cancel_scope.cancel()
    assert len(verify_checkpoint(checkpoint, network.genesis)) == needed


async def test_without_w_validators_nothing_counts_and_it_does_once_they_are_back(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    network.silent = {1, 2, 3}
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"]))
        network.commit()
        with trio.move_on_after(60) as patience:
            await network.cosigners[0].wait_cosigned(1)
        assert patience.cancelled_caught
        assert network.cosigners[0].checkpoint() is None
        network.silent = set()
        network.commit()
        with trio.fail_after(2 * limits.COSIGN_REPEAT_S):
            await network.cosigners[0].wait_cosigned(1)
        nursery.cancel_scope.cancel()


async def test_nothing_is_signed_before_its_block_is_durable(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"]))
        await trio.sleep(10)
        assert [cosigner.statistics().signed_size for cosigner in network.cosigners] == [0] * 4
        network.silent = {0}
        network.commit()
        await trio.sleep(10)
        assert network.cosigners[0].statistics().signed_size == 0
        assert network.cosigners[0].checkpoint() is None  # three others signed, it did not
        nursery.cancel_scope.cancel()


async def test_blocks_without_entries_are_not_signed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order()
        network.order(b"\x02junk")
        network.commit()
        await trio.sleep(10)
        assert network.cosigners[0].statistics().signed_size == 0
        nursery.cancel_scope.cancel()


async def test_a_validator_that_catches_up_signs_only_the_newest_heads(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        for place in range(limits.COSIGN_HEADS_COUNT_MAX + 5):
            network.order(network.issue([f"n{place}.mesh"]))
        network.cosigners[0].on_block_committed(network.height)
        await trio.sleep(0.1)
        sizes = sorted(size for size, _ in network.cosigners[0]._collected)
        assert sizes == list(range(6, limits.COSIGN_HEADS_COUNT_MAX + 6))
        network.commit()
        with trio.fail_after(1):
            await network.cosigners[0].wait_cosigned(network.application.size)
        nursery.cancel_scope.cancel()


async def test_heads_of_a_state_that_differs_are_neither_signed_nor_offered_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    network.silent = {1, 2, 3}
    network.order(network.issue(["alice.mesh"]))
    sound = network.height
    network.order(network.issue(["bob.mesh"]))
    network.order(network.issue(["carol.mesh"]))
    signed = network.cosigners[0].statistics
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.cosigners[0].on_block_committed(sound + 1)
        await trio.sleep(0.1)
        assert signed().signed_size == 2
        network.cosigners[0].on_block_committed(sound + 2)
        network.cosigners[0].on_state_differs(sound)  # before anything was signed of the last
        await trio.sleep(3 * limits.COSIGN_REPEAT_S)
        assert signed().signed_size == 1
        assert {size for size, _ in network.cosigners[0]._collected} == {1, 2}
        nursery.cancel_scope.cancel()


async def test_who_asks_gets_no_signature_on_a_state_that_differs_and_it_does_not_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    target, application = network.cosigners[0], network.application
    network.silent = {1, 2, 3}
    sizes = [1, 2, 3]
    for size in sizes:
        network.order(network.issue([f"n{size}.mesh"]))

    async def ask(place: int, size: int) -> list[int]:
        """Push another validator's cosignature; return what heads the answer is about."""
        root = application.root(size)
        name = network.genesis.cosigner_names[place]
        message = cosigned_message(
            name=name, timestamp_s=NOW_S, origin=network.genesis.origin, end=size, root=root
        )
        signature = bytes(network.ceremony.validators[place].cosigner.sign(message))
        item = (place, size, root, NOW_S, signature)
        answered = await target.on_cosign(bytes(32), codec.encode((1, [item])))
        match codec.decode(answered, size_max=limits.COSIGN_MESSAGE_SIZE_BYTES_MAX):
            case (1, tuple(items)):
                return [int(found[1]) for found in items]
        raise AssertionError(answered)

    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        target.on_block_committed(3)
        await trio.sleep(0.1)
        assert [await ask(1, size) for size in sizes[:2]] == [[1], [2]]
        counted = target.checkpoint()
        assert counted is not None
        assert counted.size == 2  # with its own, which is of a state that differs
        target.on_state_differs(1)
        await trio.sleep(3 * limits.COSIGN_REPEAT_S)
        assert [await ask(2, size) for size in (2, 3)] == [[], []]
        assert await ask(2, 1) == [1]
        checkpoint = target.checkpoint()
        assert checkpoint is not None
        assert checkpoint.size == 1
        assert await ask(3, 3) == []
        assert target.checkpoint() == checkpoint  # two others do not make up for the own state
        nursery.cancel_scope.cancel()


async def test_a_restarted_cluster_cosigns_its_head_again(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    network.order(network.issue(["alice.mesh"]), network.issue(["bob.mesh"]))
    for application in network.applications:
        application.load([], network.deltas)
    network.cosigners = [network.cosigner(place) for place in range(4)]
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.commit()
        checkpoint = await network.cosigners[1].wait_cosigned(2)
        nursery.cancel_scope.cancel()
    assert {line.timestamp_s for line in checkpoint.cosignatures} == {NOW_S}


async def test_one_restarted_validator_learns_the_cosignatures_it_missed(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"]))
        network.commit()
        await network.cosigners[0].wait_cosigned(1)
        network.cosigners[3] = network.cosigner(3)
        await nursery.start(network.cosigners[3].run)
        network.cosigners[3].on_block_committed(network.height)
        with trio.fail_after(1):
            await network.cosigners[3].wait_cosigned(1)
        nursery.cancel_scope.cancel()


def push(network: Network, place: int, *, size: int, root: bytes, timestamp_s: int = 1) -> bytes:
    """One cosignature of a validator over anything it likes."""
    message = cosigned_message(
        name=network.genesis.cosigner_names[place],
        timestamp_s=timestamp_s,
        origin=network.genesis.origin,
        end=size,
        root=root,
    )
    signature = network.ceremony.validators[place].cosigner.sign(message)
    return codec.encode((1, [(place, size, root, timestamp_s, signature)]))


async def test_cosignatures_on_another_root_never_count(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    network.silent = {1, 2, 3}
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"]))
        network.commit()
        await trio.sleep(1)
        for place in (1, 2, 3):
            await network.cosigners[0].on_cosign(
                bytes(32), push(network, place, size=1, root=bytes(32))
            )
        await trio.sleep(1)
        assert network.cosigners[0].checkpoint() is None
        nursery.cancel_scope.cancel()


async def test_a_flood_of_cosignatures_is_bounded(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    cosigner = network.cosigners[0]
    for size in range(1, limits.COSIGN_PENDING_COUNT_MAX + 10):
        await cosigner.on_cosign(bytes(32), push(network, 1, size=size, root=bytes(32)))
    assert len(cosigner._collected) == limits.COSIGN_PENDING_COUNT_MAX
    far = limits.COSIGN_AHEAD_COUNT_MAX + 1
    await cosigner.on_cosign(bytes(32), push(network, 1, size=far, root=bytes(32)))
    assert all(size < far for size, _ in cosigner._collected)


async def test_an_invalid_or_foreign_cosignature_is_dropped(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    cosigner = network.cosigners[0]
    good = codec.decode(push(network, 1, size=1, root=bytes(32)), size_max=10_000)
    assert isinstance(good, tuple)
    assert isinstance(good[1], tuple)
    place, size, root, timestamp_s, signature = good[1][0]
    for fields in (
        (2, size, root, timestamp_s, signature),
        (0, size, root, timestamp_s, signature),
        (4, size, root, timestamp_s, signature),
        (place, size + 1, root, timestamp_s, signature),
        (place, size, root, 2, signature),
    ):
        await cosigner.on_cosign(bytes(32), codec.encode((1, [fields])))
    assert cosigner._collected == {}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"junk",
        codec.encode((2, [])),
        codec.encode((1, [()])),
        codec.encode((1, [(0, 0, bytes(32), 0, bytes(2_420))])),
        codec.encode((1, [(0, 1, bytes(31), 0, bytes(2_420))])),
        codec.encode((1, [(0, 1, bytes(32), 0, bytes(2_419))])),
        codec.encode((1, [(0, 1, bytes(32), 0, bytes(2_420))] * 65)),
    ],
)
async def test_a_push_in_another_form_is_refused(
    body: bytes, autojump_clock: trio.testing.MockClock
) -> None:
    with pytest.raises(MalformedCheckpoint):
        await Network().cosigners[0].on_cosign(bytes(32), body)


async def test_too_many_waiters_are_turned_away(
    monkeypatch: pytest.MonkeyPatch, autojump_clock: trio.testing.MockClock
) -> None:
    monkeypatch.setattr(limits, "COSIGN_WAITERS_COUNT_MAX", 0)
    with pytest.raises(CosignerBusy):
        await Network().cosigners[0].wait_cosigned(1)


def test_an_authority_signs_only_what_is_in_the_log() -> None:
    network = Network(1)
    with pytest.raises(EntryUnknown):
        network.authority().certificate(0)


async def test_a_checkpoint_that_does_not_reach_the_entry_is_refused(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network(1)
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["a.mesh"]))
        network.commit()
        checkpoint = await network.cosigners[0].wait_cosigned(1)
        network.order(network.issue(["b.mesh"]))
        with pytest.raises(HeadUnknown):
            network.authority().bundle(1, checkpoint)
        nursery.cancel_scope.cancel()


def test_keys_of_no_validator_are_refused_or_sign_nothing() -> None:
    network = Network(1)

    async def broadcast(method: str, body: bytes, /) -> None:
        raise AssertionError(method, body)

    for algorithm in (Algorithm.ML_DSA_44, Algorithm.ML_DSA_65):
        with pytest.raises(KeyFileError):
            Authority(network.application, SecretKey.generate(algorithm))
    other = SecretKey.generate(Algorithm.ML_DSA_65)
    with pytest.raises(KeyFileError):
        Cosigner(network.application, other, broadcast=broadcast)
    stranger = SecretKey.generate(Algorithm.ML_DSA_44)
    waits = Cosigner(network.application, stranger, broadcast=broadcast)
    assert not waits.is_seated
    assert waits.name == ""


async def issued(tmp_path: Path, algorithm: KeyAlgorithm) -> tuple[Path, Bundle, LogGenesis]:
    network = Network()
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"], client.generate_key(algorithm)))
        network.commit()
        checkpoint = await network.cosigners[0].wait_cosigned(1)
        nursery.cancel_scope.cancel()
    bundle = network.authority().bundle(0, checkpoint)
    path = tmp_path / "alice.pem"
    path.write_text(bundle.encode())
    return path, bundle, network.genesis


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
async def test_pyca_reads_the_chain_and_agrees_with_its_signatures(
    algorithm: KeyAlgorithm, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    _, bundle, genesis = await issued(tmp_path, algorithm)
    leaf, issuing = (x509.load_der_x509_certificate(encoded) for encoded in bundle.chain)
    root = x509.load_der_x509_certificate(genesis.root_certificate)
    leaf.verify_directly_issued_by(issuing)
    issuing.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["alice.mesh"]
    assert leaf.not_valid_before_utc.timestamp() == NOW_S - limits.BACKDATE_S


@pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")
@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
async def test_openssl_finds_the_leaf_first_in_the_bundle(
    algorithm: KeyAlgorithm, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    path, bundle, _ = await issued(tmp_path, algorithm)
    command = ["openssl", "x509", "-in", str(path), "-outform", "PEM"]
    done = await trio.run_process(command, capture_stdout=True, stderr=subprocess.DEVNULL)
    assert done.stdout.decode() == pem(bundle.leaf)


def test_the_log_section_of_genesis_reads_back() -> None:
    genesis = Network().genesis
    assert LogGenesis.from_document(genesis.document()) == genesis
    assert codec.encode(replace(genesis, log_number=2).fields()) != codec.encode(genesis.fields())


async def test_a_renewed_certificate_verifies_beside_the_old_one(
    autojump_clock: trio.testing.MockClock,
) -> None:
    network = Network()
    key = client.generate_key(KeyAlgorithm.P256)
    async with trio.open_nursery() as nursery:
        await start(network, nursery)
        network.order(network.issue(["alice.mesh"], key))
        network.time_s += 64_800
        renewal = client.renew_operation(
            key, ["alice.mesh"], chain_id=CHAIN_ID, index=0, request_id=client.new_request_id()
        )
        network.order(renewal)
        network.commit()
        checkpoint = await network.cosigners[0].wait_cosigned(2)
        old, new = (network.authority().bundle(index, checkpoint) for index in (0, 1))
        nursery.cancel_scope.cancel()
    now_s = NOW_S + 64_800
    first = verify_bundle(old, network.genesis, at_s=now_s)
    second = verify_bundle(new, network.genesis, at_s=now_s)
    assert first.permanent_id == second.permanent_id
    assert second.not_after_s - first.not_after_s == 64_800
