"""The HTTP routes: read a request, ask the `NodeAPI`, write the answer.

Amounts are decimal strings, digests hexadecimal, proofs base64. Errors are RFC 9457 problem
documents with `code`, `cause` and `next_step`. No rule of the ledger, the log or agreement is here.
"""

from __future__ import annotations

import base64
import binascii
import inspect
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import trio
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from native.batches import Batch
from native.errors import NativeError
from node.health import ITEMS, findings, ready
from node.inputs import parse_json
from node.limits import (
    HTTP_BLOCKS_PER_PAGE_DEFAULT,
    HTTP_BLOCKS_PER_PAGE_MAX,
    HTTP_ENDS_PER_CALL_MAX,
    HTTP_HISTORY_ITEMS_MAX,
    HTTP_LINKS_PER_CALL_MAX,
    HTTP_METRICS_AGE_S_MAX,
    HTTP_OFF_LOOP_SIZE_BYTES,
    HTTP_PAYLOADS_PER_CALL_MAX,
    HTTP_RETRY_AFTER_S,
    HTTP_WAIT_MS_DEFAULT,
    HTTP_WAIT_MS_MAX,
    HTTP_WAITING_PER_PAGE_DEFAULT,
    HTTP_WAITING_PER_PAGE_MAX,
    READ_WAIT_MS_DEFAULT,
)
from node.metrics import CONTENT_TYPE
from node.runtime.api import (
    LOCAL,
    APIError,
    BadRequest,
    Freshness,
    NodeAPI,
    NotAllowed,
    NotFound,
    Outcome,
    Pruned,
    ReadMode,
    Refused,
    Submission,
    ValidatorView,
)
from node.runtime.endpoints import ENDPOINTS, Endpoint
from node.runtime.openapi import openapi_document
from node.status import to_json

if TYPE_CHECKING:
    from starlette.requests import Request

DIGEST_SIZE_BYTES: Final = 32
PROBLEM_TYPE: Final = "application/problem+json"
BATCH_TYPE: Final = "application/octet-stream"
HEIGHT_MAX: Final = 2**63 - 1

Handler = Callable[["Request"], Awaitable[Response]]


class BodyTooLarge(APIError):
    """The request body is bigger than the node reads."""

    code = "HM-D-612"
    status = 413


class Routes:
    """Every route, bound to one node."""

    def __init__(self, node: NodeAPI, *, body_size_bytes_max: int, debug: bool = False) -> None:
        self._node = node
        self._debug = debug
        self._body_size_bytes_max = body_size_bytes_max
        self._rendered = b""
        self._openapi: bytes | memoryview = b""
        self._rendered_at = -math.inf

    def table(self) -> list[Route]:
        """Return the routes for the application."""
        return [
            Route(
                endpoint.path,
                _only_known(endpoint, getattr(self, endpoint.handler)),
                methods=[endpoint.method],
            )
            for endpoint in ENDPOINTS
        ]

    # --- operator ---

    async def live(self, _request: Request) -> Response:
        """200 while a restart would not help."""
        alive = self._node.alive()
        return PlainTextResponse("ok\n" if alive else "stuck\n", 200 if alive else 503)

    async def ready(self, request: Request) -> Response:
        """200 when this node can serve; `?verbose` lists every item."""
        found = {finding.item.code: finding for finding in self._node.findings()}
        is_ready = ready(tuple(found.values()))
        code = 200 if is_ready else 503
        if "verbose" not in request.query_params:
            return PlainTextResponse("ready\n" if is_ready else "not ready\n", code)
        items = [
            found[item.code].to_json() | {"ok": False}
            if item.code in found
            else {"code": item.code, "title": item.title, "ok": True}
            for item in ITEMS
        ]
        return _json({"ready": is_ready, "items": items}, status=code)

    async def status(self, _request: Request) -> Response:
        """Everything `hypermesh node status` shows."""
        now = self._node.status()
        return _json(to_json(now, findings(now)))

    async def metrics(self, _request: Request) -> Response:
        """Prometheus text, at most so old that a flood of scrapes costs one rendering."""
        now = trio.current_time()
        if now - self._rendered_at >= HTTP_METRICS_AGE_S_MAX:
            self._rendered, self._rendered_at = self._node.metrics_text(), now
        return Response(self._rendered, headers={"content-type": CONTENT_TYPE})

    async def openapi(self, _request: Request) -> Response:
        """This interface as an OpenAPI 3.1 document."""
        if not self._openapi:
            self._openapi = _json(openapi_document(summaries())).body
        return Response(self._openapi, media_type="application/json")

    # --- ledger ---

    async def submit(self, request: Request) -> Response:
        """Take one or many payloads, as JSON or as one batch body."""
        wait = _flag(request, "wait")
        timeout_ms = _number(
            request, "timeout_ms", HTTP_WAIT_MS_DEFAULT, least=0, most=HTTP_WAIT_MS_MAX
        )
        brief = _flag(request, "brief")
        batch = await self._batch(request)
        answer = await self._node.submit(batch, wait=wait, timeout_s=timeout_ms / 1000)
        return self._submitted(batch, answer, brief=brief)

    async def receipt(self, request: Request) -> Response:
        """The final outcome of one payload."""
        identifier = _digest(request.path_params["id"], "receipt id")
        found = await self._node.receipt(identifier)
        if found is None:
            raise NotFound(
                f"no receipt for {identifier.hex()}",
                hint="it may still wait, or was refused: only executed payloads have one; "
                "ask again, or resubmit the same bytes",
            )
        return _json(
            {
                "id": found.id.hex(),
                "application": found.application,
                "outcome": found.outcome.name.lower(),
                "code": found.code,
                "height": found.height,
                "position": found.position,
                "block_time_ms": found.block_time_ms,
            }
        )

    async def waiting(self, request: Request) -> Response:
        """Payloads that wait to be agreed and executed, oldest first."""
        first = _number(request, "from", 0, least=0, most=HEIGHT_MAX)
        limit = _number(
            request,
            "limit",
            HTTP_WAITING_PER_PAGE_DEFAULT,
            least=1,
            most=HTTP_WAITING_PER_PAGE_MAX,
        )
        page = await self._node.waiting(first, limit=limit)
        return _json(
            {
                "items": [
                    {
                        "id": item.id.hex(),
                        "age_ms": item.age_ms,
                        "size_bytes": item.size_bytes,
                        "source": item.source,
                        "proposed": item.proposed,
                    }
                    for item in page.items
                ],
                "next_from": page.next_from,
                "count": page.count,
                "size_bytes": page.size_bytes,
                "oldest_ms": page.oldest_ms,
            }
        )

    async def ledger(self, _request: Request) -> Response:
        """Head and parameters of the ledger."""
        view = await self._node.ledger()
        document = {
            "chain": view.chain,
            "chain_id": view.chain_id.hex(),
            "height": view.height,
            "block_time_ms": view.block_time_ms,
            "supply": str(view.supply),
            "parameters": {name: str(value) for name, value in view.parameters.items()},
        }
        return _json(document, height=view.height)

    async def account(self, request: Request) -> Response:
        """One account, `?prove=1` with its proof and the block certificate."""
        view = await self._node.account(
            request.path_params["address"],
            prove=_flag(request, "prove"),
            fresh=_freshness(request),
        )
        document = {
            "address": view.address,
            "exists": view.exists,
            "balance": str(view.balance),
            "has_key": view.has_key,
            "lanes": [
                {"lane": lane.lane, "next_sequence": lane.next_sequence} for lane in view.lanes
            ],
            "height": view.height,
            "state_root": view.state_root.hex(),
            "read": view.read.value,
        }
        if view.proof is not None:
            document["proof"] = _base64(view.proof)
            document["certificate"] = _base64(view.certificate)
        return _json(document, height=view.height)

    async def history(self, request: Request) -> Response:
        """Payments of one account, newest first."""
        limit = _number(request, "limit", 50, least=1, most=HTTP_HISTORY_ITEMS_MAX)
        before = _number(request, "before", 0, least=0, most=HEIGHT_MAX)
        page = await self._node.history(
            request.path_params["address"], limit=limit, before=before or None
        )
        items = [
            {
                "id": item.id.hex(),
                "height": item.height,
                "block_time_ms": item.block_time_ms,
                "sender": item.sender,
                "recipient": item.recipient,
                "amount": str(item.amount),
                "fee": str(item.fee),
                "code": item.code,
            }
            for item in page.items
        ]
        return _json({"items": items, "next_before": page.next_before})

    async def blocks(self, request: Request) -> Response:
        """Blocks from a height on; waits for the first of them, so that a caller can follow."""
        first = _number(request, "from", None, least=1, most=HEIGHT_MAX)
        limit = _number(
            request,
            "limit",
            HTTP_BLOCKS_PER_PAGE_DEFAULT,
            least=1,
            most=HTTP_BLOCKS_PER_PAGE_MAX,
        )
        timeout_ms = _number(
            request, "timeout_ms", HTTP_WAIT_MS_DEFAULT, least=0, most=HTTP_WAIT_MS_MAX
        )
        try:
            page = await self._node.blocks(first, limit=limit, timeout_s=timeout_ms / 1000)
        except Pruned as gone:
            now = self._node.status()
            return problem(gone, oldest=now.height_oldest, newest=now.height)
        return _json(
            {
                "blocks": [
                    {
                        "height": block.height,
                        "hash": block.hash.hex(),
                        "parent": block.parent.hex(),
                        "time_ms": block.time_ms,
                        "state_root": block.state_root.hex(),
                        "applied": block.applied,
                        "failed": block.failed,
                        "payload_ids": [identifier.hex() for identifier in block.payload_ids],
                    }
                    for block in page.items
                ],
                "next_from": page.next_from,
                "oldest": page.oldest,
                "newest": page.newest,
            }
        )

    async def block(self, request: Request) -> Response:
        """One block by height, by its hash (64 hexadecimal digits), or `latest`.

        By its hash a block is looked for among the newest 20,000 and not by an index.
        """
        text = request.path_params["height"]
        if len(text) == 2 * DIGEST_SIZE_BYTES:
            height = await self._node.height_of(_digest(text, "hash of a block"))
            if height is None:
                raise NotFound(
                    f"no block {text} among the newest of this node",
                    hint="the hash is that of the block header; an older block is found by height",
                )
        else:
            height = None if text == "latest" else _decimal(text, "height", 0, HEIGHT_MAX)
        if height == 0:
            raise NotFound(
                "block 0 is genesis, which was never agreed and has no header",
                hint="read genesis.json; the first block is 1",
            )
        view = await self._node.block(height)
        if view is None:
            raise self._no_block(height, "no")
        document = {
            "height": view.height,
            "hash": view.hash.hex(),
            "parent": view.parent.hex(),
            "batch_digest": view.batch_digest.hex(),
            "time_ms": view.time_ms,
            "state_root_before": view.state_root_before.hex(),
            "state_root": view.state_root.hex(),
            "payloads": view.payloads,
            "size_bytes": view.size_bytes,
            "certificate": _base64(view.certificate),
            "payload_ids": [identifier.hex() for identifier in view.payload_ids],
        }
        return _json(document, height=view.height)

    async def headers(self, request: Request) -> Response:
        """Headers from this block to the next certified one, for light clients and auditors."""
        height = _decimal(request.path_params["height"], "height", 1, HEIGHT_MAX)
        view = await self._node.headers(height)
        if view is None:
            raise self._no_block(height, "no certified block at or above")
        return _json(
            {
                "height": view.height,
                "last": view.last,
                "proof": _base64(view.proof),
                "batches": [_base64(batch) for batch in view.batches],
            }
        )

    async def epoch_links(self, request: Request) -> Response:
        """Proofs of the validator sets, from one epoch on; a chain of them begins at 1."""
        first = _decimal(request.path_params["first"], "first", 1, HEIGHT_MAX)
        epoch, links = await self._node.epoch_links(first, HTTP_LINKS_PER_CALL_MAX)
        return _json({"epoch": epoch, "links": [_base64(link) for link in links]})

    async def body(self, request: Request) -> Response:
        """The agreed batch of one block, as bytes."""
        height = _decimal(request.path_params["height"], "height", 1, HEIGHT_MAX)
        body = await self._node.body(height)
        if body is None:
            raise self._no_block(height, "no")
        return Response(body, media_type=BATCH_TYPE)

    async def state_path(self, request: Request) -> Response:
        """The way down the ledger's tree to a key, for `hypermesh chain diff-state`."""
        view = await self._node.state_path(_digest(request.path_params["key"], "key of the tree"))
        document = {
            "height": view.height,
            "roots": {str(tag): root.hex() for tag, root in view.roots},
            "path": _base64(view.path),
            "address": None if view.address is None else view.address.hex(),
        }
        return _json(document, height=view.height)

    async def payload_proof(self, request: Request) -> Response:
        """That a payload is in an agreed block; says nothing about its outcome."""
        identifier = _digest(request.path_params["id"], "receipt id")
        found = await self._node.payload_proof(identifier)
        if found is None:
            raise NotFound(
                f"no executed payload {identifier.hex()}",
                hint="it may still wait, or was refused: see the receipt",
            )
        return _json(
            {
                "id": found.id.hex(),
                "height": found.height,
                "position": found.position,
                "size": found.size,
                "payload": _base64(found.payload),
                "path": [step.hex() for step in found.path],
                "batch": _base64(found.batch),
                "proof": _base64(found.proof),
            }
        )

    def _no_block(self, height: int | None, what: str) -> NotFound:
        now = self._node.status()
        pruned = height is not None and height < now.height_oldest
        return NotFound(
            f"block {height} was pruned here" if pruned else f"{what} block {height} here",
            hint=f"this node has the blocks {now.height_oldest} to {now.height}",
        )

    # --- validators ---

    async def validators(self, _request: Request) -> Response:
        """Who votes, who will, and who provably lied."""
        view = await self._node.validators()
        pending = view.pending
        document = {
            "chain": view.chain,
            "chain_id": view.chain_id.hex(),
            "height": view.height,
            "epoch": view.epoch,
            "hash": view.hash.hex(),
            "quorum": view.quorum,
            "removals_max": view.removals_max,
            "members": _members(view.members),
            "pending": None
            if pending is None
            else {
                "epoch": pending.epoch,
                "hash": pending.hash.hex(),
                "ordered_at": pending.ordered_at,
                "effective_after": pending.effective_after,
                "automatic": pending.automatic,
                "members": _members(pending.members),
            },
            "offences": [
                {
                    "name": entry.name,
                    "node_id": entry.node_id.hex(),
                    "offence": entry.offence,
                    "epoch": entry.epoch,
                    "height": entry.height,
                    "evidence": entry.evidence.hex(),
                }
                for entry in view.offences
            ],
        }
        return _json(document, height=view.height)

    # --- debugging ---

    async def agreement(self, _request: Request) -> Response:
        """What this node holds of the agreement: votes, who is missing, timers; no secrets."""
        if not self._debug:
            raise NotAllowed(
                "this node serves nothing below /debug",
                hint="set http.debug = true and restart it; `stall` in /status is always there",
            )
        found, timers = self._node.agreement()
        return _json(asdict(found) | {"timers": timers})

    # --- certificates ---

    async def issue(self, request: Request) -> Response:
        """Order a certificate and answer with its bundle."""
        bundle = await self._node.issue_certificate(await self._body(request))
        return Response(bundle, 201, media_type="application/x-pem-file")

    async def certificate(self, request: Request) -> Response:
        """The bundle of one log entry."""
        index = _decimal(request.path_params["index"], "index", 0, 2**48 - 1)
        bundle = await self._node.certificate(index)
        if bundle is None:
            raise NotFound(
                f"the log has no entry {index}", hint="see the size with `hypermesh ctlog head`"
            )
        return Response(bundle, media_type="application/x-pem-file")

    async def log_checkpoint(self, _request: Request) -> Response:
        """The newest cosigned checkpoint, a signed note."""
        return PlainTextResponse(await self._node.log_checkpoint())

    async def log_cosigners(self, request: Request) -> Response:
        """What proves where the log stood when each epoch ended, a page at a time."""
        first = _number(request, "from", 0, least=0, most=HEIGHT_MAX)
        view = await self._node.log_cosigners(first, HTTP_ENDS_PER_CALL_MAX)
        return _json(
            {
                "height": view.height,
                "certificate": _base64(view.certificate),
                "state": _base64(view.state),
                "ends": [_base64(end) for end in view.ends],
                "next_from": view.next_from,
            },
            height=view.height,
        )

    async def log_inclusion(self, request: Request) -> Response:
        """Proof that an entry is in the log."""
        index = _number(request, "index", None, least=0, most=2**48 - 1)
        size = _number(request, "size", 0, least=1, most=2**48 - 1)
        proof = await self._node.log_inclusion(index, size or None)
        return _json(
            {
                "index": proof.first,
                "size": proof.size,
                "leaf_hash": proof.leaf_hash.hex() if proof.leaf_hash else None,
                "hashes": [item.hex() for item in proof.hashes],
                "checkpoint": proof.checkpoint,
            }
        )

    async def log_consistency(self, request: Request) -> Response:
        """Proof that an older log is a prefix of a newer one."""
        old = _number(request, "old", None, least=0, most=2**48 - 1)
        new = _number(request, "new", 0, least=1, most=2**48 - 1)
        proof = await self._node.log_consistency(old, new or None)
        return _json(
            {
                "old": proof.first,
                "new": proof.size,
                "hashes": [item.hex() for item in proof.hashes],
                "checkpoint": proof.checkpoint,
            }
        )

    # --- reading and writing ---

    async def _body(self, request: Request) -> bytes:
        limit = self._body_size_bytes_max
        chunks: list[bytes] = []
        size = 0
        announced = request.headers.get("content-length", "0")
        if announced.isdigit() and int(announced) > limit:
            raise _too_large(limit)
        async with aclosing(request.stream()) as stream:
            async for chunk in stream:
                size += len(chunk)
                if size > limit:
                    raise _too_large(limit)
                chunks.append(chunk)
        return b"".join(chunks)

    async def _batch(self, request: Request) -> Batch:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (BATCH_TYPE, "application/json"):
            raise BadRequest(
                f"content type {kind or 'missing'} is not known here",
                hint=f'send {BATCH_TYPE} (a batch body) or application/json with {{"transactions": '
                "[base64, …]}",
            )
        body = await self._body(request)
        decode = _parse_batch if kind == BATCH_TYPE else _parse_json_batch
        if len(body) < HTTP_OFF_LOOP_SIZE_BYTES:
            batch = decode(body)
        else:
            batch = await trio.to_thread.run_sync(decode, body)
        if not 1 <= len(batch) <= HTTP_PAYLOADS_PER_CALL_MAX:
            raise BadRequest(
                f"{len(batch)} transactions in one call",
                hint=f"send 1 to {HTTP_PAYLOADS_PER_CALL_MAX:,}",
            )
        return batch

    def _submitted(self, batch: Batch, answer: Submission, *, brief: bool) -> Response:
        count = len(batch)
        outcomes = answer.outcomes
        results = []
        for at in range(count):
            outcome = Outcome(outcomes[at])
            if brief and outcome in (Outcome.APPLIED, Outcome.PENDING):
                continue
            result: dict[str, Any] = {
                "id": answer.ids[at * DIGEST_SIZE_BYTES : (at + 1) * DIGEST_SIZE_BYTES].hex(),
                "outcome": outcome.name.lower(),
                "height": answer.heights[at] or None,
            }
            if answer.codes[at]:
                text = self._node.explain_code(batch.payload(at)[0], answer.codes[at])
                result["code"] = text.code
                result["cause"] = text.title
                result["next_step"] = text.next_step
            if brief:
                result["position"] = at
            results.append(result)
        if count == 1 and outcomes[0] == Outcome.REFUSED:
            only = results[0]
            refusal = Refused(
                f"transaction refused: {only.get('cause', 'no reason given')}",
                hint=only.get("next_step", "see the cause"),
                code=only.get("code"),
            )
            return problem(refusal, results=results)
        document = {
            "pending": outcomes.count(Outcome.PENDING),
            "applied": outcomes.count(Outcome.APPLIED),
            "failed": outcomes.count(Outcome.FAILED),
            "refused": outcomes.count(Outcome.REFUSED),
            "results": results,
        }
        return _json(document, status=202 if document["pending"] else 200)


def summaries() -> dict[str, str]:
    """What each route does, by its handler."""
    return {
        endpoint.handler: inspect.cleandoc(getattr(Routes, endpoint.handler).__doc__ or "")
        for endpoint in ENDPOINTS
    }


def _only_known(endpoint: Endpoint, handler: Handler) -> Handler:
    """Refuse query parameters the route does not know: a misspelt one would be ignored."""

    async def checked(request: Request) -> Response:
        for name in request.query_params:
            if name not in endpoint.query_names:
                known = ", ".join(endpoint.query_names)
                raise BadRequest(
                    f"{endpoint.path} has no query parameter {name[:40]!r}",
                    hint=f"known here: {known}" if known else "it takes none",
                )
        return await handler(request)

    return checked


def problem(error: APIError, *, headers: dict[str, str] | None = None, **extra: Any) -> Response:
    """Render an error as an RFC 9457 problem document."""
    document = {
        "type": f"urn:hypermesh:error:{error.stable_code}",
        "title": error.message,
        "status": error.status,
        "code": error.stable_code,
        "cause": error.cause or error.message,
        "next_step": error.hint,
        **extra,
    }
    if error.status == 503:
        headers = {**(headers or {}), "retry-after": str(HTTP_RETRY_AFTER_S)}
    return _json(document, status=error.status, media_type=PROBLEM_TYPE, headers=headers)


def _json(
    document: dict[str, Any],
    *,
    status: int = 200,
    height: int | None = None,
    media_type: str = "application/json",
    headers: dict[str, str] | None = None,
) -> Response:
    if height is not None:
        headers = {**(headers or {}), "etag": f'"{height}"'}
    body = json.dumps(document, separators=(",", ":"), ensure_ascii=False).encode()
    return Response(body, status, headers, media_type)


def _parse_batch(body: bytes) -> Batch:
    try:
        return Batch.parse(body)
    except NativeError as error:
        raise BadRequest(
            f"not a batch body: {error}",
            hint="u32 count, count x u32 length, then the transactions, all big-endian",
        ) from None


def _parse_json_batch(body: bytes) -> Batch:
    try:
        document = parse_json(body)
    except ValueError as error:
        raise BadRequest(f"not JSON: {error}", hint=_JSON_EXAMPLE) from None
    listed = document.get("transactions") if isinstance(document, dict) else None
    if not isinstance(listed, list) or set(document) != {"transactions"}:
        raise BadRequest("the body must have exactly the key 'transactions'", hint=_JSON_EXAMPLE)
    payloads = []
    for at, text in enumerate(listed):
        try:
            payload = base64.b64decode(text, validate=True)
        except (binascii.Error, TypeError, ValueError):
            raise BadRequest(f"transactions[{at}] is not base64", hint=_JSON_EXAMPLE) from None
        if not payload:
            raise BadRequest(f"transactions[{at}] is empty", hint=_JSON_EXAMPLE)
        payloads.append(payload)
    try:
        return Batch.of(payloads)
    except NativeError as error:
        raise BadRequest(str(error), hint="send fewer or smaller transactions") from None


_JSON_EXAMPLE: Final = 'send {"transactions": ["<base64 of the signed bytes>", …]}'


def _too_large(limit: int) -> BodyTooLarge:
    return BodyTooLarge(
        f"the body is bigger than {limit:,} bytes", hint="split it over several calls"
    )


def _members(members: Sequence[ValidatorView]) -> list[dict[str, Any]]:
    return [
        {
            "name": member.name,
            "node_id": member.node_id.hex(),
            "key": _base64(member.key),
            "credentials": _base64(member.credentials),
            "tombstone": member.tombstone,
        }
        for member in members
    ]


def _base64(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def _digest(text: str, what: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != DIGEST_SIZE_BYTES or text != data.hex():
        raise BadRequest(f"not a {what}", hint="64 lower-case hexadecimal digits")
    return data


def _flag(request: Request, name: str) -> bool:
    text = request.query_params.get(name, "0")
    if text not in ("0", "1", "true", "false", ""):
        raise BadRequest(f"{name}={text} is not a yes or no", hint=f"{name}=1 or {name}=0")
    return text in ("1", "true", "")


def _freshness(request: Request) -> Freshness:
    """The read mode that the query asks for."""
    timeout_ms = _number(
        request, "timeout_ms", READ_WAIT_MS_DEFAULT, least=0, most=HTTP_WAIT_MS_MAX
    )
    height = _number(request, "min_height", 0, least=0, most=HEIGHT_MAX)
    if _flag(request, "linearizable"):
        if height:
            raise BadRequest(
                "min_height and linearizable are two read modes",
                hint="a linearizable read holds every height that was answered before it",
            )
        return Freshness(mode=ReadMode.LINEARIZABLE, timeout_s=timeout_ms / 1000)
    if height:
        return Freshness(mode=ReadMode.AT_HEIGHT, height=height, timeout_s=timeout_ms / 1000)
    return LOCAL


def _number(request: Request, name: str, default: int | None, *, least: int, most: int) -> int:
    text = request.query_params.get(name)
    if text is None:
        if default is None:
            raise BadRequest(f"the query must have {name}", hint=f"add ?{name}=0")
        return default
    return _decimal(text, name, least, most)


def _decimal(text: str, name: str, least: int, most: int) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and least <= int(text) <= most):
        raise BadRequest(
            f"{name}={text[:40]} is not a number here",
            hint=f"a whole number from {least} to {most}",
        )
    return int(text)
