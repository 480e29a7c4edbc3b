"""The JSON form in which a requester hands an operation to any node.

    {"csr": "-----BEGIN CERTIFICATE REQUEST-----...", "request_id": "hex", "authority": "hex",
     "authorisation": "base64", "renewed": 12}

`renewed` is present for a renewal only. Names and key come from the request itself.
"""

from __future__ import annotations

import base64
import binascii
import json
from typing import Final

from trustchain import limits
from trustchain.core import oids
from trustchain.core.names import parse_names
from trustchain.core.requests import CertificationRequest, Kind, Operation
from trustchain.errors import MalformedDER, MalformedName, MalformedRequest

_BEGIN: Final = "-----BEGIN CERTIFICATE REQUEST-----"
_END: Final = "-----END CERTIFICATE REQUEST-----"
_REQUIRED: Final = frozenset(("csr", "request_id", "authority", "authorisation"))
_OPTIONAL: Final = frozenset(("renewed",))


def encode_submission(operation: Operation) -> bytes:
    """Return the JSON body for an operation; raises MalformedDER for one that cannot pass."""
    request = CertificationRequest.of(operation.request_info, operation.request_signature)
    document: dict[str, object] = {
        "csr": request_pem(request.encode()),
        "request_id": operation.request_id.hex(),
        "authority": operation.authority.hex(),
        "authorisation": base64.b64encode(operation.authorisation).decode("ascii"),
    }
    if operation.renewed is not None:
        document["renewed"] = operation.renewed
    return json.dumps(document).encode("ascii")


def decode_submission(body: bytes, *, chain_id: bytes) -> Operation:
    """Read the JSON body into the operation to order, or raise MalformedRequest."""
    if len(body) > limits.SUBMISSION_SIZE_BYTES_MAX:
        raise MalformedRequest(f"body is longer than {limits.SUBMISSION_SIZE_BYTES_MAX} bytes")
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise MalformedRequest("body is not JSON") from error
    if not isinstance(document, dict):
        raise MalformedRequest("body is not a JSON object")
    for key in sorted(_REQUIRED - document.keys()):
        raise MalformedRequest(f"{key} is missing")
    for key in sorted(document.keys() - _REQUIRED - _OPTIONAL):
        raise MalformedRequest(f"{key[:32]} is not known")
    renewed = document.get("renewed")
    if renewed is not None and (
        not isinstance(renewed, int)
        or isinstance(renewed, bool)
        or not 0 <= renewed <= limits.LOG_INDEX_MAX
    ):
        raise MalformedRequest("renewed is not the index of an entry")
    return build_operation(
        _request(_text(document, "csr")),
        chain_id=chain_id,
        request_id=_octets(document, "request_id", size=limits.REQUEST_ID_SIZE_BYTES),
        authority=_octets(document, "authority", size=32),
        renewed=renewed,
        authorisation=_base64(_text(document, "authorisation"), "authorisation"),
    )


def build_operation(
    request: CertificationRequest,
    *,
    chain_id: bytes,
    request_id: bytes,
    authority: bytes,
    renewed: int | None,
    authorisation: bytes,
) -> Operation:
    """Put an operation around a certification request, or raise MalformedRequest."""
    key = request.content.key
    if not key.form.certifiable:
        raise MalformedRequest(f"certificates are not issued for {key.algorithm.value} keys yet")
    if not request.content.names:
        raise MalformedRequest("the request lists no DNS name in its subjectAltName")
    try:
        names = parse_names(request.content.names)
    except MalformedName as error:
        raise MalformedRequest(str(error)) from error
    return Operation(
        chain_id=chain_id,
        kind=Kind.ISSUE if renewed is None else Kind.RENEW,
        log_format=oids.LOG_FORMAT,
        profile=oids.PROFILE_VERSION,
        names=names,
        spki=key.spki,
        request_info=request.info,
        request_signature=request.signature,
        request_id=request_id,
        authority=authority,
        renewed=renewed,
        authorisation=authorisation,
    )


def request_pem(request: bytes) -> str:
    """Write a certification request as PEM."""
    text = base64.b64encode(request).decode("ascii")
    lines = [text[at : at + 64] for at in range(0, len(text), 64)]
    return "\n".join((_BEGIN, *lines, _END)) + "\n"


def request_from_pem(text: str) -> bytes:
    """Read the one certification request of a PEM text, or raise MalformedRequest."""
    _, begin, rest = text.partition(_BEGIN)
    body, end, after = rest.partition(_END)
    if not begin or not end or _BEGIN in after:
        raise MalformedRequest("csr is not one PEM certification request")
    return _base64("".join(body.split()), "csr")


def _request(text: str) -> CertificationRequest:
    try:
        return CertificationRequest.decode(request_from_pem(text))
    except MalformedDER as error:
        raise MalformedRequest(f"csr: {error}") from error


def _text(document: dict[str, object], key: str) -> str:
    value = document[key]
    if not isinstance(value, str):
        raise MalformedRequest(f"{key} is not text")
    return value


def _octets(document: dict[str, object], key: str, *, size: int) -> bytes:
    try:
        data = bytes.fromhex(_text(document, key))
    except ValueError as error:
        raise MalformedRequest(f"{key} is not hexadecimal") from error
    if len(data) != size:
        raise MalformedRequest(f"{key} is not {size} bytes")
    return data


def _base64(text: str, what: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise MalformedRequest(f"{what} is not base64") from error
