"""Every bound of the daemon, with its unit last and the reason beside it."""

from __future__ import annotations

from typing import Final

from consensus.limits import CLOCK_AHEAD_MS_MAX, MEMBERS_MAX

CONFIG_FILE_SIZE_BYTES_MAX: Final = 256 * 1024  # a file of 1,000 peers is 100 kB
GENESIS_FILE_SIZE_BYTES_MAX: Final = 16 * 1024 * 1024  # 100,000 allocations
GENESIS_VALIDATORS_MAX: Final = MEMBERS_MAX  # as many as agreement and log carry
GENESIS_ENROLMENT_KEYS_MAX: Final = 64
GENESIS_NAME_LENGTH_MAX: Final = 32  # shown in prompts, log lines and chain ids
ROTATION_BLOCKS_MIN: Final = 64  # a turn costs a view change, some 50 ms without a block
ROTATION_BLOCKS_MAX: Final = 1_000_000_000  # a year of 30 blocks a second
STATE_CHECK_SIZE_BYTES_MAX: Final = 256 * 1024 * 1024  # checked at each start: 0.2 s once cached
RETAIN_BLOCKS_MIN: Final = 1_024  # what a peer that is behind may still ask for, and a snapshot gap
PRUNE_SLICE_BLOCKS: Final = 16  # forgotten in one transaction: 8 MiB of bodies at full load
PRUNE_PAUSE_S: Final = 0.02  # between two slices: votes wait for the same threads
PRUNE_INTERVAL_S: Final = 5.0  # between two looks when there was nothing to do
SECRET_FILE_SIZE_BYTES_MAX: Final = 64 * 1024

THRIFT_LOOK_S: Final = 0.2  # quiet when nothing waits and no block came between two looks
THRIFT_PERIOD_LOOKS: Final = 25  # 5 s: 3 ms of each node's processor time

STALL_AFTER_S: Final = 5.0  # a view change and the first block after it take less
STALL_LOG_INTERVAL_S: Final = 10.0

HTTP_BODY_SIZE_BYTES_MAX: Final = 1024 * 1024  # one call of about 850 Falcon transfers
HTTP_IN_FLIGHT_MAX: Final = 32  # 32 clients already saturate the server (design 9)
HTTP_RETRY_AFTER_S: Final = 1
HTTP_WAIT_MS_MAX: Final = 60_000  # longer waits belong to the client
HTTP_WAIT_MS_DEFAULT: Final = 10_000
READ_WAIT_MS_DEFAULT: Final = 15_000  # an idle block and a view change
CLOCK_APART_MS_MAX: Final = 500  # between correct validators, as NTP keeps far better
LINEARIZABLE_MARGIN_MS: Final = CLOCK_AHEAD_MS_MAX + CLOCK_APART_MS_MAX  # how much newer a block is
STATE_PATH_SIZE_BYTES_MAX: Final = 32 * 1024  # 256 siblings of 44 bytes, and a leaf
STATE_QUESTIONS_MAX: Final = 1_024  # to each of two nodes; 20 to 40 are asked of a million accounts
STATES_MEET_ATTEMPTS_MAX: Final = 40
STATES_MEET_PAUSE_S: Final = 0.25
PROOF_FILE_SIZE_BYTES_MAX: Final = 192 * 1024 * 1024  # a payload, headers, all links, in base64
HTTP_LINKS_PER_CALL_MAX: Final = 16  # of epochs; 200 kB each with 64 validators
HTTP_ENDS_PER_CALL_MAX: Final = 64  # of epochs; two records and their paths, 8 kB each in base64
HTTP_PAYLOADS_PER_CALL_MAX: Final = 4_000  # one block's worth
HTTP_HISTORY_ITEMS_MAX: Final = 500
HTTP_BLOCKS_PER_PAGE_MAX: Final = 100
HTTP_BLOCKS_PER_PAGE_DEFAULT: Final = 20
HTTP_IDS_PER_PAGE_MAX: Final = 20_000  # 1.4 MB of JSON; a page ends with the block that passes it
HTTP_WAITING_PER_PAGE_MAX: Final = 100  # each is read, and its signature checked if nobody has yet
HTTP_WAITING_PER_PAGE_DEFAULT: Final = 20
HTTP_FOLLOWERS_MAX: Final = 16  # half the places for requests, so that others are served too
HTTP_METRICS_AGE_S_MAX: Final = 0.1  # a page takes 2 to 7 ms of the loop
HTTP_OFF_LOOP_SIZE_BYTES: Final = 16 * 1024  # bigger bodies are decoded in a thread
HTTP_RESTART_DELAY_S_MAX: Final = 30.0  # back-off of the supervised server

CLUSTER_NODES_MAX: Final = 64
CLUSTER_PORTS_PER_NODE: Final = 10
CLUSTER_BASE_PORT: Final = 9290
CLUSTER_START_TIMEOUT_S: Final = 30.0
CLUSTER_STOP_TIMEOUT_S: Final = 10.0  # twice the budget of a clean stop, then SIGKILL

LOAD_TRANSFERS_MAX: Final = 500_000  # of one run: 400 MB and 100 s of signing
LOAD_RATE_GUESS_MAX: Final = 15_000  # signed for each second when no rate is given
LOAD_IN_FLIGHT_MAX: Final = 50_000  # a node waits for 100,000 receipts at most

METRIC_LABELS_MAX: Final = 64  # per metric; more go to "other"
SNAPSHOT_SERVED_S: Final = 60.0  # a snapshot somebody fetches stays this long after the last chunk
SNAPSHOT_READ_SHARE: Final = 4  # of the time between two blocks, cutting takes a fifth
ACCUSATIONS_WAITING_MAX: Final = 128  # 7 offences of f liars at 64 validators do not fill it
ACCUSE_INTERVAL_S: Final = 1.0  # between two proofs: they are few, and a liar makes them

# --- patience

VIEW_TIMEOUT_MS: Final = 1_000  # first patience with a primary; 50 times an idle block
NODES_PER_CORE_AT_EASE: Final = 2  # 4 on 2 cores keep their patience under load, 21 do not
