"""The HTTP interface as a table: what each route takes and answers.

The routes are made from it, unknown query parameters are refused by it, and docs/reference/http.md
is written from it, so the three cannot disagree.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Final

from consensus.core.dump import AgreementDump
from node.limits import (
    HTTP_BLOCKS_PER_PAGE_DEFAULT,
    HTTP_BLOCKS_PER_PAGE_MAX,
    HTTP_ENDS_PER_CALL_MAX,
    HTTP_FOLLOWERS_MAX,
    HTTP_HISTORY_ITEMS_MAX,
    HTTP_IDS_PER_PAGE_MAX,
    HTTP_LINKS_PER_CALL_MAX,
    HTTP_PAYLOADS_PER_CALL_MAX,
    HTTP_WAIT_MS_DEFAULT,
    HTTP_WAIT_MS_MAX,
    HTTP_WAITING_PER_PAGE_DEFAULT,
    HTTP_WAITING_PER_PAGE_MAX,
    READ_WAIT_MS_DEFAULT,
)
from node.status import PHASES, Status

JSON: Final = "application/json"
TEXT: Final = "text/plain"
PEM: Final = "application/x-pem-file"


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """One route. `handler` is the method of `Routes`; its docstring says what the route does."""

    method: str
    path: str
    handler: str
    query: tuple[tuple[str, str], ...] = ()  # name, meaning
    body: str = ""
    answer_type: str = JSON
    answer: tuple[tuple[str, str], ...] = ()  # field, meaning
    errors: tuple[tuple[str, str], ...] = ()  # code, when

    @property
    def query_names(self) -> tuple[str, ...]:
        """The query parameters this route knows."""
        return tuple(name for name, _ in self.query)


_HEIGHT: Final = ("height", "block the answer holds for, also in the ETag header")
_HASHES: Final = ("hashes", "the proof, hexadecimal, from the leaf upwards")
_CHECKPOINT: Final = ("checkpoint", "newest cosigned checkpoint, a signed note")
_AGREEMENT_TEXT: Final = {
    "waits_for": "the reason in one sentence, as `stall` in /status gives it",
    "watermark_high": "no batch above it is taken up before a newer block is certified",
    "oldest_ms": "age of the oldest payload in custody; null for none",
    "view_changes": "name and view of each that wants one",
    "places": "sequence, digest, body_held, prepared, committed, prepares, commits, missing of "
    "each sequence number above the newest executed block; votes are names of validators",
    "checkpoints": "height, voters, missing of each block without a certificate",
    "peers": "name, connected, phase, view, executed, certified, status_age_ms of each other "
    "validator, by its newest STATUS",
}
_KIND: Final[dict[object, str]] = {
    name: text
    for kind, text in ((int, "whole number"), (str, "text"), (bool, "true or false"))
    for name in (kind, kind.__name__)
}
_STATUS_TEXT: Final = {
    "phase": ", ".join(PHASES),
    "peers": "name, node_id, address, connected, round_trip_ms, remote_address, dialled, "
    "path_mtu_bytes, key_exchange, signature, resumed, streams, packets_lost of every other "
    "validator",
    "supply": "base units, decimal text",
    "conservation_error": "base units, decimal text; anything but 0 is a defect",
}
_ADDRESS_WRONG: Final = ("HM-L-301", "not an address")

ENDPOINTS: Final = (
    Endpoint(
        method="GET",
        path="/livez",
        handler="live",
        answer_type=TEXT,
    ),
    Endpoint(
        method="GET",
        path="/readyz",
        handler="ready",
        query=(("verbose", "answer with every health item, as JSON"),),
        answer_type=f"{TEXT}, {JSON} with `verbose`",
        answer=(
            ("ready", "the verdict"),
            ("items", "every health item: code, title, ok; if not ok also detail, next_step, …"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/status",
        handler="status",
        answer=(
            *(
                (item.name, _STATUS_TEXT.get(item.name) or _KIND[str(item.type)])
                for item in fields(Status)
            ),
            ("ready", "true when no finding blocks readiness"),
            ("health", "findings: code, title, severity, blocks_ready, detail, next_step"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/metrics",
        handler="metrics",
        answer_type=f"{TEXT}; version=0.0.4",
    ),
    Endpoint(
        method="GET",
        path="/api/v1/openapi.json",
        handler="openapi",
        answer=(
            ("openapi", "3.1.0"),
            ("info", "title, version, description"),
            ("servers", "where it is asked"),
            ("paths", "every route of this page"),
            ("components", "the problem document"),
        ),
    ),
    Endpoint(
        method="POST",
        path="/api/v1/transactions",
        handler="submit",
        query=(
            ("wait", "1: answer when every payload is executed, or the time is over"),
            (
                "timeout_ms",
                f"how long to wait, 0 to {HTTP_WAIT_MS_MAX}; default {HTTP_WAIT_MS_DEFAULT}",
            ),
            ("brief", "1: list only results that are failed or refused, with their position"),
        ),
        body=f"1 to {HTTP_PAYLOADS_PER_CALL_MAX:,} signed payloads: `application/json` with "
        '`{"transactions": ["<base64>", …]}`, or `application/octet-stream` with u32 count, count '
        "x u32 length and the payloads, all big-endian.",
        answer=(
            ("pending", "how many are on their way; the status is 202 when there are any"),
            ("applied", "how many were executed"),
            ("failed", "how many were executed and rolled back; their fee is paid"),
            ("refused", "how many were not admitted or refused when executed"),
            ("results", "id, outcome, height; if not well also code, cause, next_step"),
        ),
        errors=(
            ("HM-D-602", "not what the body should be"),
            ("HM-D-612", "body too big"),
            ("HM-D-606", "a single payload was refused, where the room gives no code of its own"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/receipts/{id}",
        handler="receipt",
        answer=(
            ("id", "as asked"),
            ("application", "who executed it"),
            ("outcome", "applied or failed"),
            ("code", "outcome code of the application, 0 for applied"),
            ("height", "block that holds it"),
            ("position", "place in the block"),
            ("block_time_ms", "agreed time of the block, unix"),
        ),
        errors=(
            ("HM-D-604", "no receipt, or not yet"),
            ("HM-D-607", "too many look for old receipts"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/mempool",
        handler="waiting",
        query=(
            ("from", "`next_from` of the page before; default the oldest"),
            (
                "limit",
                f"1 to {HTTP_WAITING_PER_PAGE_MAX}; default {HTTP_WAITING_PER_PAGE_DEFAULT}",
            ),
        ),
        answer=(
            (
                "items",
                "id, age_ms, size_bytes, source (the validator that handed it over), proposed (in "
                "a batch that is being agreed on) of each payload, oldest first",
            ),
            ("next_from", "continues the page; null at the end"),
            ("count", "payloads in custody here, on this page or not"),
            ("size_bytes", "of all of them"),
            ("oldest_ms", "age of the oldest, 0 for none"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/ledger",
        handler="ledger",
        answer=(
            ("chain", "name and start of the id"),
            ("chain_id", "hexadecimal"),
            _HEIGHT,
            ("block_time_ms", "agreed time of that block, unix"),
            ("supply", "base units, decimal text"),
            ("parameters", "fees and bounds, decimal texts"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/accounts/{address}",
        handler="account",
        query=(
            ("prove", "1: with the proof and the block certificate"),
            ("min_height", "the state after this block or a later one; waits for it"),
            (
                "linearizable",
                "1: a state that holds all that was acknowledged before; waits for it",
            ),
            (
                "timeout_ms",
                f"how long to wait, 0 to {HTTP_WAIT_MS_MAX}; default {READ_WAIT_MS_DEFAULT}",
            ),
        ),
        answer=(
            ("address", "as asked"),
            ("exists", "false for an address nothing was ever paid to"),
            ("balance", "base units, decimal text"),
            ("has_key", "true once it has paid"),
            ("lanes", "lane and next_sequence of each"),
            _HEIGHT,
            ("state_root", "hexadecimal"),
            ("read", "which promise the answer keeps: local, at-height or linearizable"),
            ("proof", "with `prove`: base64"),
            ("certificate", "with `prove`: block certificate, base64"),
        ),
        errors=(
            _ADDRESS_WRONG,
            ("HM-D-608", "no certificate came in time"),
            ("HM-D-609", "the state did not become as new as asked in time"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/accounts/{address}/history",
        handler="history",
        query=(
            ("limit", f"1 to {HTTP_HISTORY_ITEMS_MAX}; default 50"),
            ("before", "only blocks below this height: `next_before` of the page before"),
        ),
        answer=(
            ("items", "id, height, block_time_ms, sender, recipient, amount, fee, code"),
            ("next_before", "continues the page; null at the end"),
        ),
        errors=(_ADDRESS_WRONG,),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/blocks",
        handler="blocks",
        query=(
            ("from", "the first block; `next_from` of the page before continues it"),
            (
                "limit",
                f"1 to {HTTP_BLOCKS_PER_PAGE_MAX}; default {HTTP_BLOCKS_PER_PAGE_DEFAULT}; a page "
                f"also ends with the block that brings it to {HTTP_IDS_PER_PAGE_MAX:,} ids",
            ),
            (
                "timeout_ms",
                "how long to wait for a block that is not there yet, 0 to "
                f"{HTTP_WAIT_MS_MAX}; default {HTTP_WAIT_MS_DEFAULT}",
            ),
        ),
        answer=(
            (
                "blocks",
                "height, hash, parent, time_ms, state_root, applied, failed, payload_ids of one "
                "block after the other, without a gap; empty when the time was over",
            ),
            ("next_from", "ask from here next; also after a restart of the node, or at another"),
            ("oldest", "the lowest block that is held here"),
            ("newest", "the highest block that is executed here"),
        ),
        errors=(
            ("HM-D-610", "the block was pruned here; `oldest` and `newest` are those held"),
            ("HM-D-607", f"{HTTP_FOLLOWERS_MAX} callers wait for blocks already"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/blocks/{height}",
        handler="block",
        answer=(
            _HEIGHT,
            ("hash", "of the block header, hexadecimal"),
            ("parent", "hash of the block before"),
            ("batch_digest", "of the agreed batch"),
            ("time_ms", "agreed time, unix"),
            ("state_root_before", "before execution"),
            ("state_root", "after execution"),
            ("payloads", "how many it holds"),
            ("size_bytes", "of the payloads"),
            ("certificate", "block certificate, base64; null until a quorum has signed"),
            ("payload_ids", "of executed payloads, sorted"),
        ),
        errors=(
            ("HM-D-604", "no such block, or not yet; block 0 is genesis and no block"),
            ("HM-D-607", "too many look for blocks by their hash"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/blocks/{height}/body",
        handler="body",
        answer_type="application/octet-stream",
        errors=(("HM-D-604", "no such block, or it was pruned"),),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/headers/{height}",
        handler="headers",
        answer=(
            ("height", "as asked"),
            ("last", "the certified block the run ends at"),
            ("proof", "canonical `[1, headers, certificate]`, base64"),
            ("batches", "canonical batch headers, base64, one for each header"),
        ),
        errors=(("HM-D-604", "no certified block at or above it here, or it was pruned"),),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/epochs/{first}",
        handler="epoch_links",
        answer=(
            ("epoch", "the newest epoch"),
            (
                "links",
                "canonical `[certificate, validators]`, base64, to epoch `first` and after it, "
                f"at most {HTTP_LINKS_PER_CALL_MAX}; empty above the newest epoch",
            ),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/state/{key}",
        handler="state_path",
        answer=(
            _HEIGHT,
            ("roots", "application roots by tag, hexadecimal"),
            ("path", "siblings from the root of the ledger's tree and the leaf, base64"),
            ("address", "of the account the way ends at, hexadecimal; null for none"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/transactions/{id}/proof",
        handler="payload_proof",
        answer=(
            ("id", "as asked"),
            ("height", "block that holds it"),
            ("position", "place in the block"),
            ("size", "payloads in the block"),
            ("payload", "its bytes, base64"),
            ("path", "Merkle path to the payload root, hexadecimal, from the leaf upwards"),
            ("batch", "canonical batch header, base64"),
            ("proof", "as `/api/v1/headers` gives it for the block"),
        ),
        errors=(
            ("HM-D-604", "no executed payload of this id"),
            ("HM-D-608", "its block is not certified yet, or was pruned"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/validators",
        handler="validators",
        answer=(
            ("chain", "name and start of the id"),
            ("chain_id", "hexadecimal"),
            _HEIGHT,
            ("epoch", "of the present set"),
            ("hash", "of the present set: what a change names as its base"),
            ("quorum", "approvals that a change needs"),
            ("removals_max", "keys that may leave with one change"),
            (
                "members",
                "name, node_id, key (SPKI, base64), credentials (log keys of one that joined, "
                "base64), tombstone; in replica order",
            ),
            (
                "pending",
                "epoch, hash, ordered_at, effective_after (last block of the present epoch), "
                "automatic, members of the next set; null when none is ordered",
            ),
            ("offences", "name, node_id, offence, epoch, height, evidence of each proven lie"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/debug/agreement",
        handler="agreement",
        answer=(
            *(
                (item.name, _AGREEMENT_TEXT.get(item.name) or _KIND[item.type])
                for item in fields(AgreementDump)
            ),
            ("timers", "name of each running timer, and in how many milliseconds it is due"),
        ),
        errors=(("HM-D-603", "`http.debug` is off"),),
    ),
    Endpoint(
        method="POST",
        path="/api/v1/certificates",
        handler="issue",
        body="JSON that `hypermesh cert issue` builds: a certification request and the "
        "authorisation of an enrolment key.",
        answer_type=f"{PEM}, status 201",
        errors=(
            ("HM-A-004", "the request cannot be taken"),
            ("HM-A-128 and above", "the agreed rules refuse it"),
            ("HM-D-608", "not ordered or not cosigned in time"),
            ("HM-D-612", "body too big"),
        ),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/certificates/{index}",
        handler="certificate",
        answer_type=PEM,
        errors=(("HM-D-604", "the log has no such entry"),),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/ctlog/checkpoint",
        handler="log_checkpoint",
        answer_type=TEXT,
        errors=(("HM-D-604", "nothing is cosigned yet"),),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/ctlog/cosigners",
        handler="log_cosigners",
        query=(
            ("from", "the first epoch; default 0; `next_from` of the page before continues it"),
        ),
        answer=(
            _HEIGHT,
            ("certificate", "of that block, base64; null while there was no block"),
            (
                "state",
                "canonical `[application roots, opening of the log's root]` after that block, "
                "base64",
            ),
            (
                "ends",
                "for each epoch that is over, from the one asked for on, at most "
                f"{HTTP_ENDS_PER_CALL_MAX}: what proves where the log stood then, base64",
            ),
            ("next_from", "continues the page, by a newer state; null at the end"),
        ),
        errors=(("HM-D-608", "no block was certified in time"),),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/ctlog/proof",
        handler="log_inclusion",
        query=(
            ("index", "which entry; required"),
            ("size", "in the log of this size, 1 or more; default the newest"),
        ),
        answer=(
            ("index", "as asked"),
            ("size", "of the log the proof leads to"),
            ("leaf_hash", "of the entry, hexadecimal"),
            _HASHES,
            _CHECKPOINT,
        ),
        errors=(("HM-A-010", "no such entry"), ("HM-A-011", "the log never had this size")),
    ),
    Endpoint(
        method="GET",
        path="/api/v1/ctlog/consistency",
        handler="log_consistency",
        query=(
            ("old", "size of the older log; required"),
            ("new", "size of the newer one, 1 or more; default the newest"),
        ),
        answer=(("old", "as asked"), ("new", "size of the newer log"), _HASHES, _CHECKPOINT),
        errors=(("HM-A-011", "the log never had this size"),),
    ),
)
COMMON_ERRORS: Final = (
    ("HM-D-602", "a parameter is wrong, or its name is unknown"),
    ("HM-D-607", "too many requests are being served; see Retry-After"),
    ("HM-D-611", "no such path"),
    ("HM-D-613", "a write for a foreign Host"),
    ("HM-D-614", "a write from a web page"),
    ("HM-D-615", "the path is there, the method is not; see Allow"),
    ("HM-D-600", "a defect of the node"),
)
