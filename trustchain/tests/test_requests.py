"""What is refused and with which code: one sentence for each."""

from dataclasses import replace

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, mldsa
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from native.keys import SecretKey
from native.values import Algorithm
from trustchain import client, limits
from trustchain.core import der
from trustchain.core.keys import SubjectKey
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.outcomes import EXPLANATIONS, Outcome
from trustchain.core.requests import CertificationRequest, Kind, Operation, read_request_info
from trustchain.core.submission import encode_submission, request_pem
from trustchain.errors import MalformedOperation, MalformedRequest, RequestRefused
from trustchain.runtime.intake import refusal, take_submission
from trustchain.tests.network import CHAIN_ID, KEY_ALGORITHMS, NOW_S, Network, block


@pytest.fixture
def network() -> Network:
    return Network(validators=1)


def reauthorise(network: Network, operation: Operation, **changes: object) -> Operation:
    """Change fields and sign again, as an enrolment key holder who lies could."""
    changed = replace(operation, **changes)  # type: ignore[arg-type]
    return replace(changed, authorisation=network.enrolment.sign(changed.authorised_message))


def request_of(key: client.RequesterKey, names: list[x509.GeneralName]) -> bytes:
    builder = x509.CertificateSigningRequestBuilder(
        x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "subject is ignored")])
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    algorithm = hashes.SHA256() if isinstance(key, ec.EllipticCurvePrivateKey) else None
    return builder.sign(key, algorithm).public_bytes(serialization.Encoding.DER)


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
def test_a_certificate_is_issued_for_each_kind_of_key(
    network: Network, algorithm: KeyAlgorithm
) -> None:
    operation = network.issue(["alice.mesh"], client.generate_key(algorithm))
    assert network.order(operation) == [Outcome.ISSUED]
    assert network.last.ids == operation.request_hash
    record = network.application.entry(0)
    assert record.names == ("alice.mesh",)
    assert (record.not_before_s, record.not_after_s) == (NOW_S - 60, NOW_S - 60 + 86_400)
    assert record.permanent_id == SubjectKey.decode(operation.spki).node_id


def test_the_same_request_gets_the_same_index(network: Network) -> None:
    operation = network.issue(["alice.mesh"])
    assert network.order(operation, operation) == [Outcome.ISSUED, Outcome.ALREADY_ISSUED]
    assert network.order(operation) == [Outcome.ALREADY_ISSUED]
    assert network.application.size == 1
    assert network.application.entry_of_request(operation.request_id).index == 0


def test_another_request_cannot_take_a_request_id(network: Network) -> None:
    first = network.issue(["alice.mesh"])
    second = network.issue(["bob.mesh"], request_id=first.request_id)
    assert network.order(first, second) == [Outcome.ISSUED, Outcome.REQUEST_ID_TAKEN]


def test_bytes_that_are_no_operation_are_malformed(network: Network) -> None:
    payload = network.issue(["alice.mesh"]).encode()
    assert network.order(b"\x02", payload[:-1], payload + b"\x00") == [Outcome.MALFORMED] * 3


def test_a_boolean_where_a_number_belongs_is_malformed(network: Network) -> None:
    payload = network.issue(["alice.mesh"]).encode()
    kind_at = 1 + 2 + 2 + 32  # tag, array header with version, bytes header, chain id
    assert payload[kind_at] == Kind.ISSUE
    forged = payload[:kind_at] + b"\xc3" + payload[kind_at + 1 :]
    assert network.order(forged) == [Outcome.MALFORMED]


def test_a_request_for_another_network_is_refused(network: Network) -> None:
    operation = reauthorise(network, network.issue(["alice.mesh"]), chain_id=bytes(32))
    assert network.order(operation) == [Outcome.WRONG_CHAIN]


@pytest.mark.parametrize("change", [{"profile": 2}, {"log_format": "mtc-plants-99"}])
def test_a_profile_of_the_future_is_refused(network: Network, change: dict[str, object]) -> None:
    operation = reauthorise(network, network.issue(["alice.mesh"]), **change)
    assert network.order(operation) == [Outcome.PROFILE_UNKNOWN]


def test_a_request_that_is_not_canonical_der_is_refused(network: Network) -> None:
    operation = network.issue(["alice.mesh"])
    longer = operation.request_info + b"\x00"
    assert network.order(reauthorise(network, operation, request_info=longer)) == [
        Outcome.REQUEST_MALFORMED
    ]


def test_a_request_for_another_key_is_refused(network: Network) -> None:
    other = network.issue(["alice.mesh"])
    operation = reauthorise(network, network.issue(["alice.mesh"]), spki=other.spki)
    assert network.order(operation) == [Outcome.KEY_MISMATCH]


def test_a_falcon_key_is_known_but_not_certified_yet(network: Network) -> None:
    falcon = SecretKey.generate(Algorithm.FALCON_512).public.spki
    operation = network.issue(["alice.mesh"])
    content = der.Reader(operation.request_info).content(der.SEQUENCE)
    info = der.sequence(content.replace(operation.spki, falcon))
    assert read_request_info(info).key.algorithm is KeyAlgorithm.FALCON_512
    operation = reauthorise(network, operation, spki=falcon, request_info=info)
    assert network.order(operation) == [Outcome.KEY_UNSUPPORTED]


@pytest.mark.parametrize("names", [("b.mesh", "a.mesh"), ("a.mesh", "a.mesh"), ("A.mesh",), ()])
def test_names_that_are_not_canonical_are_refused(network: Network, names: tuple[str, ...]) -> None:
    operation = reauthorise(network, network.issue(["a.mesh", "b.mesh"]), names=names)
    assert network.order(operation) == [Outcome.NAMES_MALFORMED]


@pytest.mark.parametrize("names", [("a.mesh",), ("a.mesh", "b.mesh", "c.mesh")])
def test_names_that_differ_from_the_request_are_refused(
    network: Network, names: tuple[str, ...]
) -> None:
    operation = reauthorise(network, network.issue(["a.mesh", "b.mesh"]), names=names)
    assert network.order(operation) == [Outcome.NAMES_MISMATCH]


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
def test_a_request_not_signed_by_its_key_is_refused(
    network: Network, algorithm: KeyAlgorithm
) -> None:
    operation = network.issue(["alice.mesh"], client.generate_key(algorithm))
    other = network.issue(["alice.mesh"], client.generate_key(algorithm))
    stolen = replace(operation, request_signature=other.request_signature)
    cut = replace(operation, request_signature=operation.request_signature[:-1])
    assert network.order(stolen, cut) == [Outcome.POSSESSION_UNPROVEN] * 2


def test_an_enrolment_key_genesis_does_not_know_is_refused(network: Network) -> None:
    stranger = client.FalconEnrolment(SecretKey.generate(Algorithm.FALCON_512))
    request = client.certification_request(
        client.generate_key(KeyAlgorithm.ED25519), ["alice.mesh"]
    )
    operation = client.issue_operation(
        request, chain_id=CHAIN_ID, enrolment=stranger, request_id=client.new_request_id()
    )
    assert network.order(operation) == [Outcome.ENROLMENT_KEY_UNKNOWN]


def test_an_authorisation_for_another_request_is_refused(network: Network) -> None:
    operation, other = network.issue(["alice.mesh"]), network.issue(["alice.mesh"])
    stolen = replace(operation, authorisation=other.authorisation)
    empty = replace(operation, authorisation=b"")
    assert network.order(stolen, empty) == [Outcome.AUTHORISATION_INVALID] * 2


def test_a_name_outside_the_patterns_is_refused(network: Network) -> None:
    assert network.order(network.issue(["alice.example"])) == [Outcome.NAME_NOT_GRANTED]
    assert network.order(network.issue(["a.mesh", "b.example"])) == [Outcome.NAME_NOT_GRANTED]
    assert network.order(network.issue(["gateway.example"])) == [Outcome.ISSUED]


def test_a_name_stays_with_the_key_that_first_got_it(network: Network) -> None:
    key = client.generate_key(KeyAlgorithm.ED25519)
    assert network.order(network.issue(["alice.mesh"], key)) == [Outcome.ISSUED]
    assert network.order(network.issue(["alice.mesh"])) == [Outcome.NAME_TAKEN]
    assert network.order(network.issue(["alice.mesh", "more.mesh"], key)) == [Outcome.ISSUED]
    assert network.application.entry_of_name("alice.mesh").index == 1


def renewal(key: client.RequesterKey, index: int, name: str) -> Operation:
    return client.renew_operation(
        key, [name], chain_id=CHAIN_ID, index=index, request_id=client.new_request_id()
    )


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
def test_a_certificate_is_renewed_by_its_own_key(network: Network, algorithm: KeyAlgorithm) -> None:
    key = client.generate_key(algorithm)
    network.order(network.issue(["alice.mesh"], key))
    network.time_s += 64_800
    assert network.order(renewal(key, 0, "alice.mesh")) == [Outcome.ISSUED]
    assert network.application.entry(1).permanent_id == network.application.entry(0).permanent_id


def test_an_entry_that_does_not_exist_is_not_renewed(network: Network) -> None:
    key = client.generate_key(KeyAlgorithm.ED25519)
    assert network.order(renewal(key, 0, "alice.mesh")) == [Outcome.RENEWAL_UNKNOWN]


def test_a_renewal_by_another_key_is_refused(network: Network) -> None:
    thief = client.generate_key(KeyAlgorithm.ED25519)
    victim = network.issue(["alice.mesh"])
    network.order(victim)
    operation = renewal(thief, 0, "alice.mesh")
    pretended = replace(operation, authority=SubjectKey.decode(victim.spki).spki_hash)
    assert network.order(operation, pretended) == [Outcome.RENEWAL_KEY_CHANGED] * 2


def test_a_renewal_works_within_the_grace_and_not_after(network: Network) -> None:
    key = client.generate_key(KeyAlgorithm.ED25519)
    network.order(network.issue(["alice.mesh"], key))
    end_s = network.application.entry(0).not_after_s + limits.RENEWAL_GRACE_S
    network.time_s = end_s + 1
    late = renewal(key, 0, "alice.mesh")
    assert network.order(late) == [Outcome.RENEWAL_TOO_LATE]
    network.time_s = end_s
    assert network.order(late) == [Outcome.ISSUED]


def test_a_renewal_cannot_add_a_name(network: Network) -> None:
    key = client.generate_key(KeyAlgorithm.ED25519)
    network.order(network.issue(["alice.mesh"], key))
    assert network.order(renewal(key, 0, "bob.mesh")) == [Outcome.RENEWAL_NAME_ADDED]


def test_a_full_log_issues_nothing(network: Network, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "LOG_INDEX_MAX", 0)
    assert network.order(network.issue(["a.mesh"]), network.issue(["b.mesh"])) == [
        Outcome.ISSUED,
        Outcome.LOG_FULL,
    ]


def test_a_block_time_that_no_certificate_can_carry_issues_nothing(network: Network) -> None:
    network.time_s = limits.TIME_S_MAX + 1
    assert network.order(network.issue(["a.mesh"])) == [Outcome.LOG_FULL]


def test_every_code_is_explained_and_refusals_leave_no_receipt() -> None:
    assert set(EXPLANATIONS) == set(Outcome)
    assert all(outcome >= 128 for outcome in Outcome if outcome is not Outcome.ISSUED)
    error = refusal(Outcome.NAME_TAKEN)
    assert (error.outcome, error.code, str(error)) == (141, "HM-A-141", "name taken")
    assert "another name" in error.hint


def test_admission_gives_the_same_code_as_execution_would(network: Network) -> None:
    good, bad = network.issue(["alice.mesh"]), network.issue(["alice.example"])
    payloads = [good.encode(), bad.encode(), b"\x02"]
    ordered, positions = block(payloads, height=1)
    codes = network.application.check(ordered.batch, positions).codes
    assert list(codes) == network.order(*payloads)
    assert list(network.application.check(ordered.batch, [0]).codes) == [Outcome.ALREADY_ISSUED]


def test_an_operation_whose_signatures_fail_cannot_speak_for_the_request(
    network: Network,
) -> None:
    """Its outcome is filed under its own bytes, so a waiting requester never sees it."""
    operation = network.issue(["alice.mesh"])
    network.order(replace(operation, authorisation=bytes(666)))
    assert network.last.ids != operation.request_hash


@given(st.binary(max_size=300))
def test_arbitrary_payloads_never_raise_anything_but_malformed(data: bytes) -> None:
    with pytest.raises(MalformedOperation):
        Operation.decode(b"\x02" + data)


@given(st.data())
def test_a_mutated_payload_is_never_issued(data: st.DataObject) -> None:
    network = MUTATION_NETWORK
    payload = MUTATION_PAYLOAD
    place = data.draw(st.integers(min_value=1, max_value=len(payload) - 1))
    changed = bytearray(payload)
    changed[place] ^= data.draw(st.integers(min_value=1, max_value=255))
    codes = network.order(bytes(changed))
    assert codes[0] >= 128
    assert network.application.size == 0


MUTATION_NETWORK = Network(validators=1)
MUTATION_PAYLOAD = MUTATION_NETWORK.issue(["alice.mesh"]).encode()


# --- what the node that takes a request does


@pytest.mark.parametrize("algorithm", KEY_ALGORITHMS)
def test_a_submission_reads_back_as_the_operation(
    network: Network, algorithm: KeyAlgorithm
) -> None:
    operation = network.issue(["alice.mesh", "bob.mesh"], client.generate_key(algorithm))
    assert take_submission(encode_submission(operation), chain_id=CHAIN_ID) == operation


def test_a_renewal_submission_reads_back() -> None:
    key = client.generate_key(KeyAlgorithm.P256)
    operation = renewal(key, 7, "alice.mesh")
    assert take_submission(encode_submission(operation), chain_id=CHAIN_ID) == operation


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ('"csr"', '"crs"', "csr is missing"),
        ('{"csr"', '{"extra": 1, "csr"', "extra is not known"),
        ('"request_id": "', '"request_id": "zz', "hexadecimal"),
        ('"request_id": "', '"request_id": "00', "16 bytes"),
        ('"authority": "', '"authority": "00', "32 bytes"),
        ('"authorisation": "', '"authorisation": "!', "base64"),
        ('{"csr"', '{"renewed": -1, "csr"', "renewed"),
        ('{"csr"', '{"renewed": true, "csr"', "renewed"),
        ("BEGIN CERTIFICATE REQUEST", "BEGIN CERTIFICATE", "PEM"),
        ("-----BEGIN", "{-----BEGIN", None),
        ('"}', "", "JSON"),
        ('{"csr"', '[{"csr"', "JSON"),
    ],
)
def test_a_submission_in_another_form_is_refused(
    network: Network, old: str, new: str, why: str | None
) -> None:
    body = encode_submission(network.issue(["alice.mesh"])).decode()
    assert old in body
    changed = body.replace(old, new, 1).encode()
    if why is None:  # text before the PEM block is ignored, as everywhere
        take_submission(changed, chain_id=CHAIN_ID)
        return
    with pytest.raises(MalformedRequest, match=why):
        take_submission(changed, chain_id=CHAIN_ID)


@pytest.mark.parametrize("body", [b"", b"null", b"[]", b'"x"', b"[" * 60_000, b" " * 70_000])
def test_a_body_that_is_no_submission_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedRequest):
        take_submission(body, chain_id=CHAIN_ID)


@pytest.mark.parametrize(
    ("names", "why"),
    [
        ([], "no DNS name"),
        ([x509.DNSName("UPPER.mesh")], "lower-case"),
        ([x509.DNSName("*.mesh")], "lower-case"),
        ([x509.RFC822Name("a@b.mesh")], "other than DNS"),
        ([x509.DNSName("a.mesh"), x509.UniformResourceIdentifier("x:y")], "other than DNS"),
        ([x509.DNSName(f"n{place}.mesh") for place in range(17)], "names"),
    ],
)
def test_a_request_whose_names_cannot_be_certified_is_refused(
    network: Network, names: list[x509.GeneralName], why: str
) -> None:
    request = request_of(ed25519.Ed25519PrivateKey.generate(), names)
    body = encode_submission(network.issue(["alice.mesh"])).decode()
    original = body[body.index("-----BEGIN") : body.index('", "request_id"')]
    changed = body.replace(original, request_pem(request).replace("\n", "\\n"))
    with pytest.raises(MalformedRequest, match=why):
        take_submission(changed.encode(), chain_id=CHAIN_ID)


def test_a_request_with_a_broken_signature_is_refused_at_the_door(network: Network) -> None:
    operation = network.issue(["alice.mesh"])
    broken = replace(operation, request_signature=bytes(64))
    with pytest.raises(RequestRefused, match="possession unproven"):
        take_submission(encode_submission(broken), chain_id=CHAIN_ID)


def test_a_request_for_an_ml_dsa_44_key_is_refused_at_the_door() -> None:
    request = request_of(mldsa.MLDSA44PrivateKey.generate(), [x509.DNSName("a.mesh")])  # type: ignore[arg-type]
    assert not CertificationRequest.decode(request).content.key.form.certifiable
