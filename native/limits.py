"""Bounds of this room, unit last, reason beside. The numbers themselves live in the extension,
which enforces them before it allocates.
"""

from typing import Final

from native import _native

# A snapshot chunk or block body fits many times; larger values are streamed, never encoded.
CODEC_SIZE_BYTES_MAX: Final[int] = _native.CODEC_SIZE_BYTES_MAX
# The deepest message of the protocol nests 7 arrays.
CODEC_DEPTH_MAX: Final[int] = _native.CODEC_DEPTH_MAX
# Two hashes a leaf: a full tree takes 4 GiB. Certificate logs of this design stay far below.
MERKLE_LEAVES_MAX: Final[int] = _native.MERKLE_LEAVES_MAX
# A proof in a tree of 2**64 leaves has at most 65 hashes (inclusion 64).
PROOF_HASHES_MAX: Final[int] = _native.PROOF_HASHES_MAX
# About a second of work on one core; a caller with more shares it out.
VERIFY_JOBS_MAX: Final[int] = _native.VERIFY_JOBS_MAX
# A transfer has 0.8 to 1.8 kB, a certificate request 6 to 10 kB.
PAYLOAD_SIZE_BYTES_MAX: Final[int] = _native.PAYLOAD_SIZE_BYTES_MAX
# Adaptive batches stay below 1,000; a client may hand over more at once.
BATCH_PAYLOADS_MAX: Final[int] = _native.BATCH_PAYLOADS_MAX
# 8 MiB hold 8,000 transfers with their signatures.
BATCH_SIZE_BYTES_MAX: Final[int] = _native.BATCH_SIZE_BYTES_MAX

# Hashes of payloads that left custody, and up to as many again: 9 to 19 s at 3,000 transfers a
# second, 2.2 MB. Seven eighths of a power of two, so that a table is filled to its last place.
RECENT_PAYLOADS: Final[int] = _native.RECENT_PAYLOADS
# Results posted from Python that the loop has not drained: it has stopped if there are so many.
COMPLETIONS_MAX: Final[int] = _native.COMPLETIONS_MAX

# 64 operations, a key and a signature take 4.6 kB.
TRANSACTION_SIZE_BYTES_MAX: Final[int] = _native.TRANSACTION_SIZE_BYTES_MAX
# A payroll of 64 in one signature; beyond that lanes do the job.
OPERATIONS_MAX: Final[int] = _native.OPERATIONS_MAX
# 2**28 accounts take 100 GB: the table runs out of memory first.
ACCOUNTS_MAX: Final[int] = _native.ACCOUNTS_MAX
# 2 kB each; emptied when full.
ACCOUNT_KEYS_DECODED_MAX: Final[int] = _native.ACCOUNT_KEYS_DECODED_MAX
# Hashes of payloads whose signature was good, as above: more than the 50,000 that may wait; 4.3 MB.
VERIFIED_PAYLOADS_MAX: Final[int] = _native.VERIFIED_PAYLOADS_MAX
# A load generator's whole run in one call.
SIGN_JOBS_MAX: Final[int] = _native.SIGN_JOBS_MAX
SIGN_THREADS_MAX: Final[int] = _native.SIGN_THREADS_MAX

# A state snapshot: what travels as one piece, and what one account of the largest size adds to it.
PART_SIZE_BYTES_TARGET: Final[int] = _native.PART_SIZE_BYTES_TARGET
PART_SIZE_BYTES_MAX: Final[int] = _native.PART_SIZE_BYTES_MAX
# Accounts without a key take 40 bytes.
PART_ROWS_MAX: Final[int] = _native.PART_ROWS_MAX
# 16 GiB of accounts.
PARTS_MAX: Final[int] = _native.PARTS_MAX

# A sealed Falcon-1024 key takes about 3.5 kB of text.
KEY_FILE_SIZE_BYTES_MAX: Final = 16_384
# scrypt takes 128 * r * n bytes: this much memory at most, whatever a key file asks for.
SCRYPT_MEMORY_BYTES_MAX: Final = 268_435_456
