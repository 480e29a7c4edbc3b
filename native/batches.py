"""Batches of opaque payloads, and the mempool that holds them until they are executed.

A `Batch` is frozen and stays in Rust: consensus, transport and applications pass the handle around
and the payload bytes are never turned into Python objects one by one.

A `Mempool` is the custody table of one validator. A payload is in *custody* from the moment it is
admitted until `remove`; it is *pending* until a batch proposes it. `add` answers one byte a payload
(the constants below). Towards clients a full table refuses; between validators, with
`drop_newest_of_biggest_source`, it drops the newest pending payload of the source that holds most,
in the measure that is short (count or bytes), unless that source is the newcomer's own. What is
proposed is never dropped.

`take` is fair: every other place of a batch goes to the sender whose turn it is, the ones between
to the payload that waits longest. Sources (who handed a payload over) have their turns first, then
the senders of each. `sender_at` says where payloads of a kind name their sender, in 8 bytes that
mean nothing here; payloads without one are one sender, their source. What one sender has pending
leaves in the order it came.

`take`, `pending_batch`, `page` and `unproposed` bound the *body* of the batch they return; `take`
returns None also when the next payload alone exceeds the bound, which no bound of at least
`PAYLOAD_SIZE_BYTES_MAX + 8` ever does. `page(first, ...)` shows custody from arrival number `first`
on, with (arrival, source, since ms, proposed) of each payload. `unproposed(first, until_ms, ...)`
shows of it what no batch holds and what came no later than `until_ms`, with the arrival number to
go on from and since when the next payload there waits, None if there is none.

`remove(batch, remember)` remembers a payload as recently executed unless its byte in `remember` is
0: give 0 for a *refused* payload, which may come back.
"""

from typing import Final

from native._native import Batch, Mempool, MempoolStatistics
from native.errors import BatchInvalid

__all__ = [
    "ADDED",
    "DUPLICATE",
    "FULL",
    "RECENT",
    "SKIPPED",
    "Batch",
    "BatchInvalid",
    "Mempool",
    "MempoolStatistics",
]

# Status of a payload in the answer of `Mempool.add`.
ADDED: Final = 0
DUPLICATE: Final = 1  # in custody already
FULL: Final = 2  # a bound is reached
RECENT: Final = 3  # it left custody a short while ago
SKIPPED: Final = 4  # the mask left it out
