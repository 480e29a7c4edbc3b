"""Bounds of TrustChain, each with the reason beside it."""

from __future__ import annotations

from typing import Final

from consensus.core.quorum import weak_quorum
from consensus.limits import MEMBERS_MAX

# What is ordered
OPERATION_SIZE_BYTES_MAX: Final = 16_384  # ML-DSA-65 key twice, two signatures, 64 long names
REQUEST_INFO_SIZE_BYTES_MAX: Final = 8_192  # a key of 2 kB and some attributes
REQUEST_ID_SIZE_BYTES: Final = 16  # random at the requester: no two collide
NAMES_COUNT_MAX: Final = 16  # names one certificate may carry
NAME_LENGTH_MAX: Final = 253  # RFC 1035 section 2.3.4, as text
NAME_LABEL_LENGTH_MAX: Final = 63  # RFC 1035 section 2.3.4
PATTERNS_COUNT_MAX: Final = 64  # patterns of one enrolment key
ENROLMENT_KEYS_COUNT_MAX: Final = 64  # registration of more comes as an ordered operation
VALIDATORS_COUNT_MAX: Final = MEMBERS_MAX  # as many as consensus allows

# DER
DER_SIZE_BYTES_MAX: Final = 16_384  # reference 1.9: certificate of at most 16 kB
DER_DEPTH_MAX: Final = 12  # a certificate needs 8
DER_ELEMENTS_COUNT_MAX: Final = 512  # elements read from one document

# Time
LEAF_LIFE_S: Final = 86_400  # reference 1.1: 24 h leaves
LEAF_LIFE_S_MIN: Final = 300  # shorter would expire while a node restarts
LEAF_LIFE_S_MAX: Final = 7_776_000  # 90 days: beyond it revocation by short life is no plan
BACKDATE_S: Final = 60  # reference 1.11: tolerated clock skew
BACKDATE_S_MAX: Final = 3_600  # what Let's Encrypt does
RENEWAL_GRACE_S: Final = 604_800  # reference 1.11: renewal after expiry, 7 days
ISSUING_LIFE_S: Final = 1_095 * 86_400  # reference 1.4: three years
ROOT_LIFE_S: Final = 3_650 * 86_400  # reference 1.4: ten years

# Log
LOG_INDEX_MAX: Final = (1 << 48) - 1  # the serial number gives the index 48 bits
DELTA_SIZE_BYTES_MAX: Final = 1 << 26  # a full batch of operations, larger than any block
SNAPSHOT_RECORDS_PER_CHUNK: Final = 16  # a power of two; 16 of the largest records are 256 KiB
SNAPSHOT_CHUNK_SIZE_BYTES_MAX: Final = 270_336  # those, and 8 KiB around them
SNAPSHOT_PART_SIZE_BYTES_MAX: Final = 64  # an index, a count and a hash take 48
LOG_NUMBER_MAX: Final = (1 << 16) - 1  # and the log number 16
PROOF_HASHES_COUNT_MAX: Final = 48  # one for each bit of an index
HEADS_KEPT_COUNT: Final = 256  # recent heads a block left behind, for cosigning and proofs
JUDGED_KEPT_COUNT: Final = 1_024  # payloads whose signatures were checked at admission, 10 MB
TIME_S_MAX: Final = 253_402_300_799  # the last second X.509 can write: year 9999

# Files
KEY_FILE_SIZE_BYTES_MAX: Final = 65_536  # the largest key is 5 kB

# Cosignatures
COSIGNATURES_COUNT_MAX: Final = max(map(weak_quorum, range(1, MEMBERS_MAX + 1)))  # W of any set
COSIGNATURES_COUNT_USUAL: Final = 15  # published if they suffice: all readers accept 16 (ref. 1.7)
COSIGN_MESSAGE_SIZE_BYTES_MAX: Final = 262_144  # 64 cosignatures with room
COSIGN_ITEMS_COUNT_MAX: Final = 64  # cosignatures in one push
COSIGN_PENDING_COUNT_MAX: Final = 256  # tree heads collecting cosignatures, 2 MB at 4 validators
COSIGN_AHEAD_COUNT_MAX: Final = 65_536  # entries a peer may be ahead of us: some full blocks
COSIGN_HEADS_COUNT_MAX: Final = 8  # newest heads signed when many blocks commit at once
COSIGN_REPEAT_S: Final = 0.5  # a lost push is repeated this much later
COSIGN_PUSHES_IN_FLIGHT_MAX: Final = 32  # a silent peer holds each until its time-out
COSIGN_WAITERS_COUNT_MAX: Final = 4_096  # requests waiting for their checkpoint
EVIDENCE_SIZE_BYTES_MAX: Final = 24_576  # an issuing certificate, two signatures
EPOCH_END_SIZE_BYTES_MAX: Final = 65_536  # two records of the largest kind with their paths

# Text that comes from outside
SUBMISSION_SIZE_BYTES_MAX: Final = 65_536  # JSON with one request in PEM
BUNDLE_SIZE_BYTES_MAX: Final = 163_840  # three certificates of 22 kB in PEM, a proof, a checkpoint
BUNDLE_CERTIFICATES_COUNT_MAX: Final = 3  # reference 1.9: chain of at most three
CHECKPOINT_SIZE_BYTES_MAX: Final = 81_920  # 22 ML-DSA-44 cosignatures, a log's own, longest names
