"""Strict DER (X.690 section 10)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trustchain import limits
from trustchain.core import der, entries
from trustchain.core.certificates import Certificate
from trustchain.core.entries import Entry
from trustchain.core.keys import SubjectKey, check_signature_form
from trustchain.core.oids import KeyAlgorithm
from trustchain.core.requests import CertificationRequest, read_request_info
from trustchain.errors import MalformedDER
from trustchain.tests.network import ceremony


def read_unsigned(data: bytes) -> int:
    reader = der.Reader(data)
    value = reader.unsigned()
    reader.close()
    return value


@pytest.mark.parametrize(
    ("data", "why"),
    [
        ("", "ends early"),
        ("02", "ends early"),
        ("0202ff", "cut"),
        ("020101ff", "left over"),
        ("0200", "size"),
        ("0201ff", "negative"),
        ("02020001", "shortest"),
        ("02810101", "shortest"),
        ("0282000101", "shortest"),
        ("0280010000", "indefinite"),
        ("0285000000000101", "too long"),
        ("030101", "expected"),
        ("1f810101", "expected"),
    ],
)
def test_integers_that_are_not_canonical_are_refused(data: str, why: str) -> None:
    with pytest.raises(MalformedDER, match=why):
        read_unsigned(bytes.fromhex(data))


@given(st.integers(min_value=0, max_value=(1 << 512) - 1))
def test_an_integer_reads_back(value: int) -> None:
    assert read_unsigned(der.unsigned(value)) == value


@given(st.lists(st.integers(min_value=0, max_value=(1 << 62) - 1), min_size=1, max_size=6))
def test_an_object_identifier_reads_back(arcs: list[int]) -> None:
    dotted = ".".join(str(arc) for arc in (1, 3, *arcs))
    reader = der.Reader(der.oid(dotted))
    assert reader.oid() == dotted


def test_an_object_identifier_under_joint_iso_itu_reads_back() -> None:
    assert der.Reader(der.oid("2.16.840.1.101.3.4.3.18")).oid() == "2.16.840.1.101.3.4.3.18"
    assert der.Reader(bytes.fromhex("0603883703")).oid() == "2.999.3"


@pytest.mark.parametrize("content", ["", "80", "8001", "2a80", "2a" + "ff" * 10 + "01"])
def test_an_object_identifier_that_is_not_canonical_is_refused(content: str) -> None:
    data = bytes.fromhex(content)
    with pytest.raises(MalformedDER):
        der.oid_text(data)


@given(st.binary(max_size=400))
def test_an_element_of_any_length_reads_back(content: bytes) -> None:
    reader = der.Reader(der.element(der.OCTET_STRING, content))
    assert reader.content(der.OCTET_STRING) == content
    reader.close()


def test_a_document_nested_too_deep_is_refused() -> None:
    data = b""
    for _ in range(limits.DER_DEPTH_MAX + 1):
        data = der.sequence(data)
    reader = der.Reader(data)
    for _ in range(limits.DER_DEPTH_MAX):
        reader = reader.sequence()
    with pytest.raises(MalformedDER, match="deeper"):
        reader.sequence()


def test_a_document_with_too_many_elements_is_refused() -> None:
    reader = der.Reader(der.unsigned(1) * (limits.DER_ELEMENTS_COUNT_MAX + 1))
    for _ in range(limits.DER_ELEMENTS_COUNT_MAX):
        reader.unsigned()
    with pytest.raises(MalformedDER, match="elements"):
        reader.unsigned()


def test_a_document_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(MalformedDER, match="at most"):
        der.Reader(bytes(limits.DER_SIZE_BYTES_MAX + 1))


@pytest.mark.parametrize("value", ["0101ff", "010100"])
def test_the_two_booleans_of_der_are_read(value: str) -> None:
    assert der.Reader(bytes.fromhex(value)).boolean() == (value == "0101ff")


def test_any_other_boolean_is_refused() -> None:
    with pytest.raises(MalformedDER, match="boolean"):
        der.Reader(bytes.fromhex("010101")).boolean()


@given(st.integers(min_value=0, max_value=limits.TIME_S_MAX))
def test_a_time_reads_back_and_years_before_2050_are_short(moment_s: int) -> None:
    encoded = entries.write_validity(moment_s, moment_s)
    assert entries.read_validity(encoded) == (moment_s, moment_s)
    assert (encoded[2] == der.UTC_TIME) == (moment_s < 2_524_608_000)


@pytest.mark.parametrize(
    "text",
    [
        "261121130000",
        "2611211300Z",
        "261121130000+0000",
        "261321130000Z",
        "2611211300.0Z",
        "2" * 13,
    ],
)
def test_a_time_in_another_form_is_refused(text: str) -> None:
    encoded = der.element(der.UTC_TIME, text.encode())
    with pytest.raises(MalformedDER):
        entries.read_validity(der.sequence(encoded, encoded))


def test_a_time_before_2050_in_the_long_form_is_refused() -> None:
    encoded = der.element(der.GENERALIZED_TIME, b"20261121130000Z")
    with pytest.raises(MalformedDER, match="2050"):
        entries.read_validity(der.sequence(encoded, encoded))


def strict_p256(r: int, s: int) -> bytes:
    return der.sequence(der.unsigned(r), der.unsigned(s))


ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


@pytest.mark.parametrize(
    "signature",
    [
        strict_p256(0, 1),
        strict_p256(1, 0),
        strict_p256(ORDER, 1),
        strict_p256(1, ORDER),
        strict_p256(1, 1) + b"\x00",
        der.sequence(der.unsigned(1)),
        der.sequence(der.unsigned(1), der.unsigned(1), der.unsigned(1)),
        der.sequence(bytes.fromhex("02020001"), der.unsigned(1)),
        b"",
    ],
)
def test_a_p256_signature_that_is_not_strict_is_refused(signature: bytes) -> None:
    with pytest.raises(MalformedDER):
        check_signature_form(KeyAlgorithm.P256, signature)


def test_a_strict_p256_signature_passes() -> None:
    check_signature_form(KeyAlgorithm.P256, strict_p256(1, ORDER - 1))


@given(st.binary(max_size=300))
def test_arbitrary_bytes_never_raise_anything_but_malformed(data: bytes) -> None:
    for decode in (
        SubjectKey.decode,
        Certificate.decode,
        Entry.decode,
        read_request_info,
        CertificationRequest.decode,
    ):
        with pytest.raises(MalformedDER):
            decode(data)


@given(st.data())
def test_a_mutated_certificate_is_refused_or_reads_as_something_else(data: st.DataObject) -> None:
    original = ceremony().genesis.issuing_certificates[0]
    place = data.draw(st.integers(min_value=0, max_value=len(original) - 1))
    value = data.draw(st.integers(min_value=1, max_value=255))
    changed = bytearray(original)
    changed[place] ^= value
    try:
        decoded = Certificate.decode(bytes(changed))
    except MalformedDER:
        return
    assert decoded != Certificate.decode(original)


def test_the_certificates_of_a_ceremony_are_read() -> None:
    genesis = ceremony().genesis
    root = Certificate.decode(genesis.root_certificate)
    assert root.key.algorithm is KeyAlgorithm.ML_DSA_87
    for encoded in genesis.issuing_certificates:
        issuing = Certificate.decode(encoded)
        assert issuing.authority_key_id == root.subject_key_id
        assert issuing.encoded == encoded
