"""Every bound of this room, unit last, reason beside it."""

from typing import Final

MEMBERS_MAX: Final = 64  # bit masks and certificates stay small; 21 is the largest planned set
GUESTS_MAX: Final = 64  # connected nodes outside the set that are answered at a time
STRANGERS_MAX: Final = 48  # of the guests; 16 places are left to who joins or has left
VALIDATOR_NAME_BYTES_MAX: Final = 64  # twice the 32 characters that genesis allows
CREDENTIALS_SIZE_BYTES_MAX: Final = 2_048  # a post-quantum key and a hash; every link has them
WINDOW_BLOCKS: Final = 64  # L of the protocol: how far agreement may run ahead of a certificate
AHEAD_BLOCKS_MAX: Final = 2 * WINDOW_BLOCKS  # what may wait: a peer's window is at most one ahead
IN_FLIGHT_BLOCKS_MAX: Final = 8  # P_MAX: 4 to 16 hide the disk on one machine, more only adds delay
LEAVES_PER_VECTOR_MAX: Final = 256  # three leaves for each block of a window, and room
VECTORS_KEPT_MAX: Final = 1_024  # own vote vectors kept for re-sending; certificates drop them
BATCH_PAYLOADS_MAX: Final = 1_000  # where the spike stopped gaining from larger batches
BATCH_SIZE_BYTES_MAX: Final = 1_048_576  # hard cap of a batch body
BATCH_SIZE_BYTES_TARGET: Final = 524_288  # the primary closes a batch here
UNUSED_BODIES_BYTES_MAX: Final = 8_388_608  # what 8 refused proposals leave before it is swept
EVIDENCE_SIZE_BYTES_MAX: Final = 8_192  # two statements of 0.5 kB, each with its signature
SIGNATURE_SIZE_BYTES_MAX: Final = 3_309  # ML-DSA-65, the largest algorithm of `native.values`
PATH_HASHES_MAX: Final = 9  # ceil(log2(LEAVES_PER_VECTOR_MAX)) + 1
HEADERS_PER_REPLY_MAX: Final = 256  # two anchor gaps: the next certificate is always inside
HURRIED_BLOCKS_MAX: Final = 4 * WINDOW_BLOCKS  # early for a recovery, which needs two windows
INLINE_BODY_BYTES_MAX: Final = 65_536  # larger bodies follow their PRE-PREPARE: votes pass them
EXECUTE_AHEAD_BLOCKS_MAX: Final = 16  # certified blocks handed out at once: one turn, one tick
FETCH_AHEAD_BLOCKS_MAX: Final = 48  # bodies wanted at once: what is handed out, and the next two
BODIES_PER_FETCH_MAX: Final = 16  # 16 bodies of the target size are 8 MiB in flight
LINKS_MAX: Final = 4_096  # of a file: a change of the set every day for eleven years
LINKS_SIZE_BYTES_MAX: Final = (
    134_217_728  # 4,096 links of 7 validators at 20 kB, 600 of 64 at 200 kB
)
HEADER_PROOF_SIZE_BYTES_MAX: Final = 524_288  # 256 headers and 64 votes of the largest kind
ANCHOR_BLOCKS: Final = 64  # a certificate is kept for the first certified block of every 64
CLOCK_AHEAD_MS_MAX: Final = 500  # PREPARE waits until our clock is this close to the proposed time
CLOCK_STALE_MS_MAX: Final = 5_000  # proposals older than this for longer than T are a complaint
FORWARD_PAYLOADS_MAX: Final = 512  # shown to a primary at a time: half a batch
FORWARD_SIZE_BYTES_MAX: Final = 262_144  # 21 nodes that forward at once send a primary 5 MiB
JUDGED_BATCHES: Final = 64  # how many batches the share of malformed payloads is taken over
BACKOFF_DOUBLINGS_MAX: Final = 5  # 32 x base caps every view timer
QUICK_BLOCKS: Final = 4  # in a row, before timers come down: one may be luck, 40 s when idle
SLOW_VIEW_PATIENCES_MAX: Final = 16  # then a doubling goes without evidence; 5 go in 1,000 T
STATUS_STRETCH_MAX: Final = 32  # 10 s between STATUS: 20 peers at 1 % of a core are read in 1 s
SUSPICIONS_POSTPONED_MAX: Final = 3  # who is late for ever must still depose a dead primary
VOTES_FRAME_BYTES_MAX: Final = 65_536  # a vector of 256 leaves of 140 B and a signature
DECODED_PARTS_MAX: Final = 512  # the same; 3.5 MB as objects, 10 MB for 64 members
DECODED_SIZE_BYTES_MAX: Final = 2_097_152  # three views of 21 members with two batches in flight
MESSAGE_BYTES_MAX: Final = 16_777_216  # NEW-VIEW at n=21 with full windows, with room
PROPOSAL_FRAME_BYTES_MAX: Final = BATCH_SIZE_BYTES_MAX + 8_192  # body and PRE-PREPARE
NUMBER_MAX: Final = 2**64 - 1  # u64 on the wire
RETIRED_SERVES_EPOCHS: Final = 2  # who left serves blocks and state until newer members can
SNAPSHOT_PERIOD_BLOCKS: Final = 1_024  # between two cuts: a transfer ends inside one at most rates
SNAPSHOTS_KEPT: Final = 2  # the newest may be too new for a peer whose transfer has begun
SNAPSHOT_CHUNK_BYTES_MAX: Final = 327_680  # 256 KiB, and the largest row that goes over it
SNAPSHOT_CHUNKS_MAX: Final = 65_536  # 16 GiB: a liar cannot make us fetch for ever
SNAPSHOT_OUTLINE_BYTES_MAX: Final = 8_388_608  # 65,536 parts of 88 B, and room
SNAPSHOT_GAP_BLOCKS: Final = 4_096  # a gap of four periods: fetching state is cheaper than replay
SNAPSHOT_ASKS_UNANSWERED: Final = 2  # rounds over all peers without a header: they have pruned
CHUNKS_IN_FLIGHT_PER_PEER: Final = 4  # 1 MiB on the way hides a round trip of 10 ms at 100 MB/s
CHUNK_FAILURES_MAX: Final = 3  # bad, missing or late chunks before a server is left
OWN_NUMBER_MAX: Final = 2**63 - 1  # own numbers are keys of rows; integers of SQLite are signed
NUMBERS_PER_BLOCK_BITS: Final = 24  # a recovered node numbers from S << 24: far above what it used
SNAPSHOTS_REFUSED_MAX: Final = 64  # one false offer of each member; older ones are asked again
