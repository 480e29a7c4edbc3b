"""Keys and roots of a new network, and the files they live in."""

import copy
import json
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from cryptography.x509.oid import NameOID

from native.keys import SecretKey
from native.values import Algorithm
from trustchain import client
from trustchain.core.bundle import pem
from trustchain.core.genesis import EnrolmentKey, LogGenesis
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.outcomes import Outcome
from trustchain.errors import KeyFileError, MalformedDER, MalformedGenesis
from trustchain.runtime import keyfiles
from trustchain.runtime.application import LogApplication
from trustchain.runtime.authority import Authority
from trustchain.runtime.ceremony import (
    certificate_of_pem,
    certify_issuing,
    make_root,
    public_key_pem,
)
from trustchain.runtime.cosigner import Cosigner
from trustchain.tests.network import CHAIN_ID, KEY_ALGORITHMS, NOW_S, Network, ceremony


async def nobody(method: str, body: bytes, /) -> None:
    raise AssertionError(method, body)


def test_a_certificate_of_an_unknown_version_is_malformed() -> None:
    held = ceremony()
    known = held.genesis.issuing_certificates[0]
    version = bytes.fromhex("a003020102")
    assert known.count(version) == 1
    with pytest.raises(MalformedDER, match="not a certificate"):
        certificate_of_pem(pem(known.replace(version, version[:-1] + b"\x05")))


def test_a_validator_starts_from_the_files_a_ceremony_wrote(tmp_path: Path) -> None:
    held = ceremony()
    held.validators[1].save(tmp_path)
    application = LogApplication(CHAIN_ID, held.genesis)
    authority = Authority.load(tmp_path / "issuing.key", application)
    cosigner = Cosigner.load(tmp_path / "cosigner.key", application, broadcast=nobody)
    assert authority.issuing_certificate == held.genesis.issuing_certificates[1]
    assert cosigner.name == held.genesis.cosigner_names[1]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in tmp_path.iterdir())


def test_the_root_key_is_written_encrypted_and_reads_back(tmp_path: Path) -> None:
    held = ceremony()
    held.save_root(tmp_path, "a long passphrase")
    path = tmp_path / "root-key.pem"
    assert path.read_text().startswith("-----BEGIN ENCRYPTED PRIVATE KEY-----")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    loaded = keyfiles.load_root_key(path, "a long passphrase")
    assert loaded.private_bytes_raw() == held.root.private_bytes_raw()
    with pytest.raises(KeyFileError, match="passphrase is wrong"):
        keyfiles.load_root_key(path, "another")
    with pytest.raises(KeyFileError):
        held.save_root(tmp_path, "never over another file")


def test_what_cannot_be_certified_is_said_with_the_file_to_look_at(tmp_path: Path) -> None:
    held = ceremony()
    held.save_root(tmp_path, "secret")
    request = public_key_pem(held.validators[0].issuing.public.raw)

    def certify(text: str) -> str:
        with pytest.raises(KeyFileError) as caught:
            certify_issuing(text, name="n4", folder=tmp_path, passphrase="secret", now_s=NOW_S)
        assert "0600" not in caught.value.hint  # neither file is a secret
        return f"{caught.value} {caught.value.hint}"

    assert certify_issuing(request, name="n4", folder=tmp_path, passphrase="secret", now_s=NOW_S)
    assert "issuing.pub" in certify("no key")
    assert "issuing.pub" in certify(
        ed25519.Ed25519PrivateKey.generate()
        .public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode()
    )
    root = tmp_path / "root.pem"
    _, certificate = make_root("another root", now_s=NOW_S)
    root.write_text(pem(certificate))
    assert "belong together" in certify(request)
    builder = x509.CertificateBuilder().public_key(held.root.public_key())
    nameless = x509.Name([x509.NameAttribute(NameOID.ORGANIZATION_NAME, "nameless")])
    moment = datetime.fromtimestamp(NOW_S, UTC)
    signed = (
        builder.subject_name(nameless)
        .issuer_name(nameless)
        .serial_number(1)
        .not_valid_before(moment)
        .not_valid_after(moment + timedelta(days=1))
        .sign(held.root, None)
    )
    for text in (pem(signed.public_bytes(Encoding.DER)), "no certificate", ""):
        root.write_text(text)
        assert "root.pem" in certify(request)
    root.write_bytes(b"\xff\xfe")
    assert "root.pem" in certify(request)
    root.unlink()
    assert "root.pem" in certify(request)


def test_the_enrolment_key_of_a_ceremony_authorises(tmp_path: Path) -> None:
    network = Network(1)
    path = network.ceremony.save_enrolment(tmp_path, "secret")
    with pytest.raises(KeyFileError):
        client.load_enrolment_key(path)
    network.enrolment = client.load_enrolment_key(path, "secret")  # type: ignore[assignment]
    assert network.order(network.issue(["alice.mesh"])) == [Outcome.ISSUED]


def test_an_ed25519_enrolment_key_authorises_when_genesis_lists_it(tmp_path: Path) -> None:
    network = Network(1)
    key = ed25519.Ed25519PrivateKey.generate()
    keyfiles.write_key(tmp_path / "key.pem", key, None)
    signer = client.load_enrolment_key(tmp_path / "key.pem")
    listed = EnrolmentKey(label="ops", spki=signer.subject.spki, patterns=("*",))
    genesis = replace(network.genesis, enrolment_keys=(listed,))
    network.applications = [LogApplication(CHAIN_ID, genesis)]
    assert network.order(network.issue(["alice.mesh"])) == [Outcome.ENROLMENT_KEY_UNKNOWN]
    network.enrolment = signer  # type: ignore[assignment]
    assert network.order(network.issue(["alice.example"])) == [Outcome.ISSUED]


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
def test_the_key_of_a_requester_reads_back(algorithm: KeyAlgorithm, tmp_path: Path) -> None:
    key = client.generate_key(algorithm)
    client.write_key(tmp_path / "key.pem", key, "secret")
    loaded = client.load_requester_key(tmp_path / "key.pem", "secret")
    assert client.subject_key(loaded) == client.subject_key(key)


def test_a_key_file_others_can_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    client.write_key(path, client.generate_key(KeyAlgorithm.P256), None)
    path.chmod(0o640)
    with pytest.raises(KeyFileError, match="chmod 600"):
        client.load_requester_key(path)


def test_files_that_are_no_keys_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "key.pem"
    with pytest.raises(KeyFileError, match="No such file"):
        client.load_requester_key(path)
    keyfiles.write_new(path, b"hello", mode=0o600)
    with pytest.raises(KeyFileError, match="not a PKCS#8 key"):
        client.load_requester_key(path)
    falcon = tmp_path / "node.key"
    SecretKey.generate(Algorithm.FALCON_1024).save(falcon)
    with pytest.raises(KeyFileError, match="falcon-1024"):
        client.load_enrolment_key(falcon)
    client.write_key(tmp_path / "p256", client.generate_key(KeyAlgorithm.P256), None)
    with pytest.raises(KeyFileError, match="Falcon-512 or Ed25519"):
        client.load_enrolment_key(tmp_path / "p256")
    client.write_key(tmp_path / "sealed", client.generate_key(KeyAlgorithm.ED25519), "x")
    with pytest.raises(KeyFileError, match="ML-DSA-87"):
        keyfiles.load_root_key(tmp_path / "sealed", "x")


DOCUMENT = json.dumps(ceremony().genesis.document())


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"format": "mtc-plants-99"}, "format"),
        ({"profile": 2}, "not known"),
        ({"ca_id": "32473"}, "trust anchor"),
        ({"ca_id": "32473.01"}, "trust anchor"),
        ({"ca_id": "32473.2"}, "arc of the cosigners"),
        ({"log_number": 0}, "out of range"),
        ({"log_number": True}, "whole number"),
        ({"trust_domain": "Demo"}, "lower-case"),
        ({"cosigner_keys": []}, "out of range"),
        ({"cosigner_keys": ["AAAA"] * 4}, "share"),
        ({"cosigner_keys": ["AAAA", "BBBB", "CCCC", "DDDD"]}, "not an ML-DSA-44"),
        ({"cosigner_keys": ["?"]}, "base64"),
        ({"issuing_certificates": []}, "differ in number"),
        ({"root_certificate": "AAAA"}, "log:"),
        ({"root_certificate": 1}, "base64"),
        ({"enrolment_keys": [1]}, "not an object"),
        ({"enrolment_keys": [{"label": "x", "spki": "", "patterns": [1]}]}, "pattern"),
        ({"enrolment_keys": [{"label": "x", "spki": "", "patterns": ["*"]}]}, "log:"),
        ({"leaf_life_s": 1}, "out of range"),
        ({"backdate_s": -1}, "out of range"),
        ({"renewal_grace_s": 1 << 40}, "out of range"),
        ({"extra": 1}, "log.extra is not known"),
    ],
)
def test_a_genesis_that_cannot_be_true_is_refused(change: dict[str, object], why: str) -> None:
    document = json.loads(DOCUMENT)
    with pytest.raises(MalformedGenesis, match=why):
        LogGenesis.from_document({**document, **change})


@pytest.mark.parametrize("key", sorted(json.loads(DOCUMENT)))
def test_a_genesis_without_one_of_its_keys_is_refused(key: str) -> None:
    document = copy.copy(json.loads(DOCUMENT))
    del document[key]
    with pytest.raises(MalformedGenesis, match=f"log.{key} is missing"):
        LogGenesis.from_document(document)
