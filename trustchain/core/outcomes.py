"""What can become of an ordered operation: stable codes, and what each tells the requester.

TrustChain takes no fee, so nothing ever *fails*: an operation is applied or refused without trace
(consensus.application: 0 applied, 128 and above refused). A code never changes its meaning.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from trustchain import limits


class Outcome(IntEnum):
    """One byte for each operation of a block."""

    ISSUED = 0
    ALREADY_ISSUED = 128
    MALFORMED = 129
    WRONG_CHAIN = 130
    PROFILE_UNKNOWN = 131
    REQUEST_MALFORMED = 132
    KEY_UNSUPPORTED = 133
    KEY_MISMATCH = 134
    NAMES_MALFORMED = 135
    NAMES_MISMATCH = 136
    POSSESSION_UNPROVEN = 137
    ENROLMENT_KEY_UNKNOWN = 138
    AUTHORISATION_INVALID = 139
    NAME_NOT_GRANTED = 140
    NAME_TAKEN = 141
    REQUEST_ID_TAKEN = 142
    RENEWAL_UNKNOWN = 143
    RENEWAL_KEY_CHANGED = 144
    RENEWAL_TOO_LATE = 145
    RENEWAL_NAME_ADDED = 146
    LOG_FULL = 147

    @property
    def code(self) -> str:
        """The stable error code people quote."""
        return f"HM-A-{self:03d}"

    @property
    def text(self) -> str:
        """The outcome in words."""
        return self.name.lower().replace("_", " ")

    @property
    def explanation(self) -> str:
        """What it means and what to do, in one sentence."""
        return EXPLANATIONS[self]


EXPLANATIONS: Final = {
    Outcome.ISSUED: "the entry is in the log",
    Outcome.ALREADY_ISSUED: "this request already has an entry; ask for it by its request id",
    Outcome.MALFORMED: "the bytes are not an operation of this version; update the client",
    Outcome.WRONG_CHAIN: "the request names another network; use that network's genesis",
    Outcome.PROFILE_UNKNOWN: "this profile or log format is not known here; update the client",
    Outcome.REQUEST_MALFORMED: "the certification request is not canonical DER; create it again",
    Outcome.KEY_UNSUPPORTED: "certificates are issued for ML-DSA-65, Ed25519 and P-256 keys",
    Outcome.KEY_MISMATCH: "the certification request is for another key; create it again",
    Outcome.NAMES_MALFORMED: "names are 1 to "
    f"{limits.NAMES_COUNT_MAX} different lower-case DNS names in sorted order, without wildcards",
    Outcome.NAMES_MISMATCH: "the names differ from the subjectAltName of the request; list DNS "
    "names there and nothing else",
    Outcome.POSSESSION_UNPROVEN: "the request is not signed by its own key; create it again",
    Outcome.ENROLMENT_KEY_UNKNOWN: "genesis knows no such enrolment key; use one it lists",
    Outcome.AUTHORISATION_INVALID: "the authorisation is not a signature over this request by "
    "the key it names; sign the request again",
    Outcome.NAME_NOT_GRANTED: "the enrolment key may not grant this name; see its patterns in "
    "genesis",
    Outcome.NAME_TAKEN: "the name belongs to the holder of another key; use that key, or choose "
    "another name",
    Outcome.REQUEST_ID_TAKEN: "another request already used this request id; take a fresh one",
    Outcome.RENEWAL_UNKNOWN: "there is no entry with the index to renew; check the index",
    Outcome.RENEWAL_KEY_CHANGED: "a renewal keeps the key of the certificate; use that key",
    Outcome.RENEWAL_TOO_LATE: "the certificate expired too long ago to renew; issue a new one "
    "with an enrolment key",
    Outcome.RENEWAL_NAME_ADDED: "a renewal cannot add names; issue a new certificate with an "
    "enrolment key",
    Outcome.LOG_FULL: "the log has reached its last index; the operators must open a new log",
}
