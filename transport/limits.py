"""Every bound of this room, unit last, reason beside it."""

from typing import Final

HELLO_SIZE_BYTES_MAX: Final = 65_536  # a TrustChain credential with its proofs is under 20 kB
HELLO_TEXT_CHARS_MAX: Final = 64  # chain name, one role, one capability
HELLO_ITEMS_MAX: Final = 32  # roles, and capabilities
HELLO_CONTEXT_BYTES_MAX: Final = 1_024  # an epoch and a height take 20
HELLO_CREDENTIAL_BYTES_MAX: Final = 32_768

HANDSHAKE_MESSAGE_BYTES_MAX: Final = 65_535  # a dialler nobody knows yet may make us keep no more

FRAME_SIZE_BYTES_MAX: Final = 16_777_216  # two batch bodies of 8 MiB
CHANNEL_QUEUE_BYTES_MAX: Final = 67_108_864  # four such frames; a slower peer is cut off, not kept

MTU_BYTES_MIN: Final = 1_200  # RFC 9000, section 14
MTU_BYTES_MAX: Final = 65_000
MTU_BYTES_DEFAULT: Final = 1_452  # Ethernet less IPv6 and UDP headers
MTU_BYTES_LINK_MAX: Final = 32_000  # loopback has more; two such packets fill a GRO buffer
IPV6_UDP_HEADER_BYTES: Final = 48
SOCKET_BUFFER_BYTES: Final = 4_194_304  # Linux's usual ceiling; the default loses bursts
STREAM_WINDOW_BYTES: Final = 16_777_216  # 1 GB/s at 16 ms
CONNECTION_WINDOW_BYTES: Final = 33_554_432
SEND_WINDOW_BYTES: Final = 16_777_216  # unacknowledged bytes kept for one connection
GSO_SEGMENTS_MAX: Final = 44  # 65,507 bytes at 1452; the engine clamps for other sizes

CONNECTIONS_MAX: Final = 256  # 64 validators, observers, and services
CONNECTIONS_PER_PREFIX_MAX: Final = 128  # half: one /64 must not lock the others out
HANDSHAKES_MAX: Final = 64  # half of it triggers Retry: 0.6 ms of cryptography each
HANDSHAKES_PER_PREFIX_MAX: Final = 32  # half, for the same reason
HANDSHAKES_PER_S_PER_PREFIX_MAX: Final = 2_000  # more than one core can finish
MEMORY_BYTES_MAX: Final = 2_147_483_648  # windows of all peers together; 44 at full size
STREAM_RESETS_PER_S_MAX: Final = 100  # calls given up by an impatient but honest peer
DATAGRAM_QUEUE_BYTES_MAX: Final = 1_048_576  # each way; older ones are worth less than new ones
STREAMS_MAX: Final = 256  # per direction and connection: calls in flight
ADMISSION_TIMEOUT_S: Final = 5.0  # handshake and HELLO together
IDLE_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 1.0  # what a graceful close waits for acknowledgements
CLOSE_DETAIL_CHARS_MAX: Final = 500  # words that travel with a close

RECEIVE_BATCHES_PER_TURN: Final = 16  # up to 32 datagrams of 64 KiB each; more starves other tasks
TURN_LATE_S: Final = 0.05  # callbacks that take longer show in round trips and in votes
READ_SIZE_BYTES: Final = 1_048_576  # what one `receive_some` takes when not told

SESSIONS_MAX: Final = 1_024  # tickets given out on aioquic; the rust engine keeps as many
TICKET_BYTES_MAX: Final = 1_024  # ours have 64 or less; a dial sends one before it knows the peer
TICKETS_PER_NODE_MAX: Final = 8  # more dials of one node at a time are rare
TICKET_NODES_MAX: Final = 256  # as many as there are connections
TRACE_EVENTS_MAX: Final = 100_000  # of one connection on aioquic, in memory until it ends
DATAGRAMS_RECEIVED_MAX: Final = 4_096  # unread ones of a connection; the oldest makes room
PINGS_OUTSTANDING_MAX: Final = 8  # of ours; more would measure our own queue
PINGS_PER_S_MAX: Final = 50  # of ours: half of what a peer bears
OBSERVED_PER_S_MAX: Final = 10  # of ours; with our pings well within what a peer bears
CONTROL_FRAMES_PER_S_MAX: Final = 100  # of the peer; each may cost an answer
CONTROL_FRAMES_AT_ONCE_MAX: Final = 100  # a second's worth, held up by a lost packet
CONTROL_QUEUE_BYTES_MAX: Final = 65_536  # one HELLO; more is a peer that asks and does not read
STREAM_PRIORITY_MIN: Final = -10
STREAM_PRIORITY_MAX: Final = 9  # votes have 10: nothing of an application goes before them

RPC_MESSAGE_SIZE_BYTES_MAX: Final = 16_777_216  # one batch body of 8 MiB, and room
RPC_PENDING_BYTES_MAX: Final = 67_108_864  # requests that have begun, of all peers
RPC_PENDING_BYTES_PER_CONNECTION_MAX: Final = 33_554_432  # two of the largest
RPC_CALLS_MAX: Final = 256  # served at a time, over all connections
RPC_CALLS_PER_CONNECTION_MAX: Final = 96  # no single peer takes all places
RPC_WORKERS_IDLE_MAX: Final = 64  # tasks kept for the next calls; as many as a burst has
RPC_REQUEST_TIMEOUT_S: Final = 5.0  # a caller that opens a stream has its request ready
RPC_METHOD_CHARS_MAX: Final = 128
RPC_ERROR_CHARS_MAX: Final = 4_096
RPC_TIMEOUT_S: Final = 10.0

DIAL_BACKOFF_S_MIN: Final = 0.05
DIAL_BACKOFF_S_MAX: Final = 2.0  # a restarted peer is back within this
DIAL_STAGGER_S: Final = 0.25  # head start of an address before the next one (RFC 8305, section 8)
DIAL_ADDRESSES_MAX: Final = 8  # of one node; each may cost a handshake
POOL_CONNECTIONS_MAX: Final = 64  # dialled on demand or kept; a quarter of an endpoint's
POOL_IDLE_TIMEOUT_S: Final = 60.0  # a new handshake a minute costs less than a connection kept
DIAL_TIMEOUT_S: Final = 2.0  # two round trips over any ocean, with one loss

UDP_PAYLOAD_BYTES_MAX: Final = 65_527  # what an IPv6 datagram holds without jumbograms
LINK_QUEUE_BYTES_MAX: Final = 262_144  # 200 ms at 10 Mbit/s: what a home router keeps
LINK_REORDER_S: Final = 0.01  # some ten packets at 10 Mbit/s overtake
PROXY_CLIENTS_MAX: Final = 256  # sockets that a proxy opens; the client silent longest makes room
PROXY_IN_FLIGHT_BYTES_MAX: Final = 67_108_864  # 1 s at 500 Mbit/s; beyond it, a link loses
PROXY_DATAGRAMS_PER_TURN: Final = 64  # read from one socket before other tasks run
