"""Requests from outside: what the node that takes one does before it is ordered.

The certification request is parsed twice on purpose: by `cryptography`, whose opinion the rest of
the world shares, and by our own reader, whose opinion the validators agree on. What only one of the
two accepts is not taken.
"""

from __future__ import annotations

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm

from trustchain.core.outcomes import Outcome
from trustchain.core.requests import CertificationRequest, Operation
from trustchain.core.submission import decode_submission
from trustchain.errors import MalformedRequest, RequestRefused


def take_submission(body: bytes, *, chain_id: bytes) -> Operation:
    """Read a requester's JSON into the operation to order.

    Raises MalformedRequest for bytes that are no request, and RequestRefused when the request is
    not signed by its own key. Everything else is for `LogApplication.check` to say.
    """
    operation = decode_submission(body, chain_id=chain_id)
    _cross_check(operation)
    return operation


def refusal(code: int) -> RequestRefused:
    """Return the typed error for an outcome code other than ISSUED."""
    outcome = Outcome(code)
    return RequestRefused(outcome, code=outcome.code, text=outcome.text, hint=outcome.explanation)


def _cross_check(operation: Operation) -> None:
    request = CertificationRequest.of(operation.request_info, operation.request_signature)
    try:
        parsed = x509.load_der_x509_csr(request.encode())
        possession = parsed.is_signature_valid
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise MalformedRequest(f"csr: {error}") from error
    if not possession:
        raise refusal(Outcome.POSSESSION_UNPROVEN)
    try:
        names = parsed.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        listed = names.get_values_for_type(x509.DNSName)
    except (x509.ExtensionNotFound, x509.DuplicateExtension, ValueError) as error:
        raise MalformedRequest(f"csr: {error}") from error
    if set(listed) != set(operation.names):
        raise refusal(Outcome.NAMES_MISMATCH)
