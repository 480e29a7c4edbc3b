"""Offline verification: what holds, and which rule refuses everything else."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import pytest
import trio
from hypothesis import given
from hypothesis import strategies as st

from native.keys import SecretKey
from native.values import Algorithm
from trustchain import client, limits
from trustchain.core import der, oids
from trustchain.core.bundle import Bundle
from trustchain.core.certificates import (
    Certificate,
    LogReference,
    certificate,
    tbs_certificate,
)
from trustchain.core.entries import (
    EXTENSIONS_TAG,
    Entry,
    Extension,
    common_name,
    leaf_entry,
    write_extension,
    write_validity,
)
from trustchain.core.oids import KeyAlgorithm
from trustchain.errors import (
    ChainInvalid,
    Expired,
    MalformedBundle,
    NameMismatch,
    NotInLog,
    NotYetValid,
    ProfileInvalid,
    QuorumMissing,
    TrustChainError,
    VerificationError,
    WrongLog,
)
from trustchain.runtime.ceremony import hold_ceremony, make_issuing, make_root
from trustchain.runtime.verify import verify_bundle
from trustchain.tests.network import NOW_S, Network


@lru_cache(maxsize=1)
def issued() -> tuple[Network, Bundle]:
    """A log of three entries and the bundle of the one in the middle."""
    network = Network()

    async def main() -> Bundle:
        async with trio.open_nursery() as nursery:
            for cosigner in network.cosigners:
                await nursery.start(cosigner.run)
            for name in ("a.mesh", "alice.mesh", "c.mesh"):
                network.order(network.issue([name], client.generate_key(KeyAlgorithm.P256)))
            network.commit()
            checkpoint = await network.cosigners[0].wait_cosigned(3)
            nursery.cancel_scope.cancel()
        return network.authority().bundle(1, checkpoint)

    return network, trio.run(main)


def refuses(
    rule: type[TrustChainError], bundle: Bundle | str, *, at_s: int = NOW_S, name: str | None = None
) -> None:
    with pytest.raises(rule) as caught:
        verify_bundle(bundle, issued()[0].genesis, at_s=at_s, name=name)
    assert type(caught.value) is rule


def resigned(network: Network, tbs: bytes) -> bytes:
    """A leaf signed by a real issuing key, as one thief of one key could."""
    return certificate(tbs, network.ceremony.validators[0].issuing.sign(tbs))


def forged(entry: Entry | None = None, **changes: object) -> Bundle:
    """The bundle with another entry under a valid signature, or other fields."""
    network, bundle = issued()
    leaf, issuing = (Certificate.decode(encoded) for encoded in bundle.chain)
    arguments: dict[str, object] = {
        "log_number": 1,
        "reference": LogReference(origin=network.genesis.origin, index=1),
        "issuer": issuing,
        **changes,
    }
    entry = entry or Entry.decode(network.application.entry(1).entry)
    tbs = tbs_certificate(entry, leaf.key, **arguments)  # type: ignore[arg-type]
    return replace(bundle, chain=(resigned(network, tbs), bundle.chain[1]))


def test_the_bundle_itself_verifies() -> None:
    network, bundle = issued()
    verified = verify_bundle(bundle.encode(), network.genesis, at_s=NOW_S, name="alice.mesh")
    assert (verified.index, verified.checkpoint_size) == (1, 3)
    assert verify_bundle(forged(), network.genesis, at_s=NOW_S) == verified


def test_a_certificate_that_is_not_in_the_log_is_refused_though_its_signature_holds() -> None:
    network, bundle = issued()
    leaf = Certificate.decode(bundle.leaf)
    entry = leaf_entry(
        ca_id=network.genesis.ca_id,
        trust_domain="demo.mesh",
        permanent_id=leaf.key.node_id,
        names=["bank.mesh"],
        key=leaf.key,
        not_before_s=NOW_S - 60,
        not_after_s=NOW_S + 86_000,
    )
    refuses(NotInLog, forged(entry))


def test_a_longer_life_than_the_log_says_is_refused() -> None:
    entry = Entry.decode(issued()[0].application.entry(1).entry)
    validity = write_validity(entry.not_before_s, entry.not_after_s + 1)
    refuses(NotInLog, forged(replace(entry, validity=validity)))


def test_another_subject_than_the_log_says_is_refused() -> None:
    entry = Entry.decode(issued()[0].application.entry(1).entry)
    refuses(NotInLog, forged(replace(entry, subject=common_name("00" * 32))))


def test_an_extension_the_log_does_not_know_is_refused() -> None:
    entry = Entry.decode(issued()[0].application.entry(1).entry)
    authority = write_extension(oids.SUBJECT_KEY_ID, der.element(der.OCTET_STRING, b"x"))
    refuses(NotInLog, forged(replace(entry, extensions=(*entry.extensions, authority))))


def test_another_key_than_the_log_says_is_refused() -> None:
    network, bundle = issued()
    entry = Entry.decode(network.application.entry(1).entry)
    other = network.application.entry(0).key
    issuing = Certificate.decode(bundle.chain[1])
    reference = LogReference(origin=network.genesis.origin, index=1)
    tbs = tbs_certificate(entry, other, log_number=1, reference=reference, issuer=issuing)
    refuses(NotInLog, replace(bundle, chain=(resigned(network, tbs), bundle.chain[1])))


def test_a_certificate_with_the_reference_of_another_entry_is_refused() -> None:
    origin = issued()[0].genesis.origin
    refuses(NotInLog, forged(reference=LogReference(origin=origin, index=0)))
    bundle = replace(forged(reference=LogReference(origin=origin, index=0)), index=0)
    refuses(NotInLog, bundle)


def test_a_certificate_of_another_log_is_refused() -> None:
    refuses(WrongLog, forged(reference=LogReference(origin="oid/1.3.6.1.4.1.1.0.1", index=1)))
    refuses(NotInLog, forged(log_number=2))


def relisted(tbs: bytes, extensions: Sequence[Extension]) -> bytes:
    """The same TBSCertificate with another list of extensions."""
    kept = Certificate.decode(certificate(tbs, b"")).extensions
    content = der.Reader(tbs).content(der.SEQUENCE)
    return der.sequence(content.removesuffix(listed(kept)) + listed(extensions))


def listed(extensions: Sequence[Extension]) -> bytes:
    parts = (extension.encoded for extension in extensions)
    return der.element(EXTENSIONS_TAG, der.sequence(*parts))


def test_a_certificate_without_log_reference_is_refused() -> None:
    network, bundle = issued()
    leaf = Certificate.decode(bundle.leaf)
    tbs = relisted(leaf.tbs, leaf.extensions[:-1])
    refuses(NotInLog, replace(bundle, chain=(resigned(network, tbs), bundle.chain[1])))


def test_a_flag_that_the_leaf_hash_does_not_cover_is_refused() -> None:
    network, bundle = issued()
    leaf = Certificate.decode(bundle.leaf)
    kept = leaf.extensions[-1]
    critical = write_extension(kept.oid, kept.value, critical=True)
    tbs = relisted(leaf.tbs, (*leaf.extensions[:-1], critical))
    refuses(ProfileInvalid, replace(bundle, chain=(resigned(network, tbs), bundle.chain[1])))


def test_extensions_in_another_order_are_refused() -> None:
    network, bundle = issued()
    leaf = Certificate.decode(bundle.leaf)
    tbs = relisted(leaf.tbs, (leaf.extensions[-1], *leaf.extensions[:-1]))
    refuses(ProfileInvalid, replace(bundle, chain=(resigned(network, tbs), bundle.chain[1])))


def test_a_leaf_signed_by_anyone_else_is_refused() -> None:
    _, bundle = issued()
    leaf = Certificate.decode(bundle.leaf)
    thief = SecretKey.generate(Algorithm.ML_DSA_65)
    forged_leaf = certificate(leaf.tbs, thief.sign(leaf.tbs))
    refuses(ChainInvalid, replace(bundle, chain=(forged_leaf, bundle.chain[1])))


def test_an_issuing_certificate_under_another_root_is_refused() -> None:
    network, bundle = issued()
    name = "demo.mesh root"  # the same name, another key
    root, root_certificate = make_root(name, now_s=NOW_S)
    own = network.ceremony.validators[0].issuing
    issuing = make_issuing(
        "demo.mesh issuing validator-0",
        own.public.raw,
        root=root,
        root_certificate=root_certificate,
        now_s=NOW_S,
    )
    refuses(ChainInvalid, replace(bundle, chain=(bundle.leaf, issuing)))


def test_a_leaf_does_not_serve_as_an_issuing_certificate() -> None:
    _, bundle = issued()
    refuses(ChainInvalid, replace(bundle, chain=(bundle.leaf, bundle.leaf)))


def test_a_chain_of_another_length_is_refused() -> None:
    _, bundle = issued()
    refuses(MalformedBundle, replace(bundle, chain=(bundle.leaf,)))
    refuses(MalformedBundle, replace(bundle, chain=(*bundle.chain, bundle.chain[1])))


def test_a_certificate_counts_only_while_it_is_valid() -> None:
    network, bundle = issued()
    record = network.application.entry(1)
    for at_s in (record.not_before_s, record.not_after_s):
        verify_bundle(bundle, network.genesis, at_s=at_s)
    refuses(NotYetValid, bundle, at_s=record.not_before_s - 1)
    refuses(Expired, bundle, at_s=record.not_after_s + 1)
    refuses(Expired, bundle, at_s=NOW_S + limits.ROOT_LIFE_S)


@pytest.mark.parametrize("name", ["bob.mesh", "mesh", "x.alice.mesh", "ALICE.mesh", ""])
def test_another_name_is_refused(name: str) -> None:
    refuses(NameMismatch, issued()[1], name=name)


def test_a_proof_of_another_length_or_place_is_refused() -> None:
    _, bundle = issued()
    for proof in ((), bundle.proof[:-1], (*bundle.proof, bytes(32)), bundle.proof[::-1]):
        refuses(NotInLog, replace(bundle, proof=proof))


def test_a_checkpoint_with_too_few_cosignatures_is_refused() -> None:
    _, bundle = issued()
    few = replace(bundle.checkpoint, cosignatures=bundle.checkpoint.cosignatures[:1])
    refuses(QuorumMissing, replace(bundle, checkpoint=few))


def test_unknown_cosigners_do_not_count_and_do_not_harm() -> None:
    network, bundle = issued()
    lines = bundle.checkpoint.cosignatures
    stranger = replace(lines[0], name="oid/1.3.6.1.4.1.32473.2.99")
    more = replace(bundle.checkpoint, cosignatures=(*lines, stranger))
    verify_bundle(replace(bundle, checkpoint=more), network.genesis, at_s=NOW_S)
    few = replace(bundle.checkpoint, cosignatures=(lines[0], stranger))
    refuses(QuorumMissing, replace(bundle, checkpoint=few))


@pytest.mark.parametrize("change", [{"timestamp_s": 1}, {"signature": bytes(2_420)}])
def test_a_known_cosigner_with_a_bad_signature_is_fatal(change: dict[str, object]) -> None:
    _, bundle = issued()
    lines = bundle.checkpoint.cosignatures
    bad = replace(lines[0], **change)  # type: ignore[arg-type]
    checkpoint = replace(bundle.checkpoint, cosignatures=(bad, *lines[1:]))
    refuses(QuorumMissing, replace(bundle, checkpoint=checkpoint))


def test_a_checkpoint_of_another_size_or_root_or_log_is_refused() -> None:
    _, bundle = issued()
    refuses(NotInLog, replace(bundle, checkpoint=replace(bundle.checkpoint, root=bytes(32))))
    refuses(NotInLog, replace(bundle, checkpoint=replace(bundle.checkpoint, size=8)))
    other = replace(bundle.checkpoint, origin="oid/1.3.6.1.4.1.1.0.1")
    refuses(WrongLog, replace(bundle, checkpoint=other))


def test_the_genesis_of_another_network_refuses_the_bundle() -> None:
    _, bundle = issued()
    other = hold_ceremony(["a"], trust_domain="other.mesh", now_s=NOW_S).genesis
    with pytest.raises(WrongLog):
        verify_bundle(bundle, other, at_s=NOW_S)


def test_cosigners_of_another_network_do_not_count_even_for_the_same_log() -> None:
    network, bundle = issued()
    stranger = SecretKey.generate(Algorithm.ML_DSA_44).public.raw
    signed = {cosignature.name for cosignature in bundle.checkpoint.cosignatures}
    for position, name in enumerate(network.genesis.cosigner_names):
        keys = list(network.genesis.cosigner_keys)
        keys[position] = stranger
        genesis = replace(network.genesis, cosigner_keys=tuple(keys))
        # How many sign before the quorum is complete depends on who is first.
        if len(signed - {name}) < genesis.cosignatures_needed:
            with pytest.raises(QuorumMissing):
                verify_bundle(bundle, genesis, at_s=NOW_S)
        else:
            verified = verify_bundle(bundle, genesis, at_s=NOW_S)
            assert set(verified.cosigners) == signed - {name}


@given(st.data())
def test_every_changed_character_is_refused(data: st.DataObject) -> None:
    """Sampled; signature lines of single cosigners are covered, because a bad one is fatal."""
    network, bundle = issued()
    text = bundle.encode()
    place = data.draw(st.integers(min_value=0, max_value=len(text) - 1))
    character = data.draw(st.sampled_from("A0z+/=\n —-"))
    changed = text[:place] + character + text[place + 1 :]
    if changed == text:
        return
    try:
        verified = verify_bundle(changed, network.genesis, at_s=NOW_S, name="alice.mesh")
    except (VerificationError, MalformedBundle):
        return
    # A changed cosigner name or key id makes that one cosigner unknown, which is allowed.
    assert len(verified.cosigners) < len(bundle.checkpoint.cosignatures)
