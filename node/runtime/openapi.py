"""The HTTP interface as an OpenAPI 3.1 document, made from the table of routes.

The table says which routes, parameters and fields there are and what they mean; here stands what
form each field has. A test holds both against the answers, and a field without a form is an error
when the document is made, so neither can be forgotten.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import fields
from types import NoneType
from typing import Any, Final, get_args, get_origin, get_type_hints

from consensus.core.dump import AgreementDump
from node.runtime.endpoints import COMMON_ERRORS, JSON, PEM, TEXT, Endpoint
from node.runtime.endpoints import ENDPOINTS as ALL
from node.status import PHASES, PeerStatus, Status
from node.version import version

Schema = Mapping[str, Any]

DIGEST: Final = {"type": "string", "pattern": "^[0-9a-f]{64}$"}
HEX: Final = {"type": "string", "pattern": "^([0-9a-f]{2})*$"}
BASE64: Final = {"type": "string", "contentEncoding": "base64"}
DECIMAL: Final = {"type": "string", "pattern": "^-?[0-9]+$"}
INTEGER: Final = {"type": "integer"}
COUNT: Final = {"type": "integer", "minimum": 0}
NUMBER: Final = {"type": "number"}
STRING: Final = {"type": "string"}
BOOLEAN: Final = {"type": "boolean"}
PLAIN: Final[Mapping[type, Schema]] = {int: INTEGER, str: STRING, bool: BOOLEAN, float: NUMBER}

PROBLEM_REFERENCE: Final = {"$ref": "#/components/schemas/Problem"}
PROBLEM_TYPE: Final = "application/problem+json"
STREAM: Final = "application/octet-stream"


def record(optional: Iterable[str] = (), /, **properties: Schema) -> dict[str, Any]:
    """An object with exactly these fields, of which the optional ones may be left out."""
    left_out = set(optional)
    return {
        "type": "object",
        "properties": dict(properties),
        "required": [name for name in properties if name not in left_out],
        "additionalProperties": False,
    }


def rows(item: Schema) -> dict[str, Any]:
    """Any number of the same."""
    return {"type": "array", "items": item}


def table_of(value: Schema) -> dict[str, Any]:
    """An object whose keys are data."""
    return {"type": "object", "additionalProperties": value}


def maybe(schema: Schema) -> dict[str, Any]:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def of_class(kind: type, **overrides: Schema) -> dict[str, Any]:
    """The schema of a frozen dataclass as `asdict` and JSON show it."""
    hints = get_type_hints(kind)
    forms = {
        item.name: overrides.get(item.name) or _of_type(hints[item.name]) for item in fields(kind)
    }
    return record((), **forms)


def _of_type(hint: Any) -> Schema:
    if hint in PLAIN:
        return PLAIN[hint]
    arguments = get_args(hint)
    if get_origin(hint) is tuple:
        return rows(_of_type(arguments[0]))
    if NoneType in arguments:
        (only,) = [argument for argument in arguments if argument is not NoneType]
        return maybe(_of_type(only))
    return of_class(hint)


_FINDING: Final = record(
    ("severity", "blocks_ready", "detail", "next_step", "ok"),
    code=STRING,
    title=STRING,
    severity=STRING,
    blocks_ready=BOOLEAN,
    detail=STRING,
    next_step=STRING,
    ok=BOOLEAN,
)
_MEMBER: Final = record(
    (), name=STRING, node_id=DIGEST, key=BASE64, credentials=BASE64, tombstone=BOOLEAN
)
_NODE_STATUS: Final = of_class(
    Status,
    peers=rows(of_class(PeerStatus)),
    supply=DECIMAL,
    conservation_error=DECIMAL,
    chain_id=DIGEST,
    node_id=DIGEST,
    state_root=DIGEST,
    phase={"type": "string", "enum": list(PHASES)},
)
FORMS: Final[Mapping[str, Mapping[str, Schema]]] = {
    "ready": {"ready": BOOLEAN, "items": rows(_FINDING)},
    "status": {**_NODE_STATUS["properties"], "ready": BOOLEAN, "health": rows(_FINDING)},
    "openapi": {
        "openapi": STRING,
        "info": table_of(STRING),
        "servers": rows(table_of(STRING)),
        "paths": table_of({"type": "object"}),
        "components": table_of({"type": "object"}),
    },
    "submit": {
        "pending": COUNT,
        "applied": COUNT,
        "failed": COUNT,
        "refused": COUNT,
        "results": rows(
            record(
                ("code", "cause", "next_step", "position"),
                id=DIGEST,
                outcome={"type": "string", "enum": ["pending", "applied", "failed", "refused"]},
                height=maybe(COUNT),
                code=STRING,
                cause=STRING,
                next_step=STRING,
                position=COUNT,
            )
        ),
    },
    "receipt": {
        "id": DIGEST,
        "application": STRING,
        "outcome": {"type": "string", "enum": ["applied", "failed"]},
        "code": COUNT,
        "height": COUNT,
        "position": COUNT,
        "block_time_ms": COUNT,
    },
    "waiting": {
        "items": rows(
            record((), id=DIGEST, age_ms=COUNT, size_bytes=COUNT, source=STRING, proposed=BOOLEAN)
        ),
        "next_from": maybe(COUNT),
        "count": COUNT,
        "size_bytes": COUNT,
        "oldest_ms": COUNT,
    },
    "ledger": {
        "chain": STRING,
        "chain_id": DIGEST,
        "height": COUNT,
        "block_time_ms": COUNT,
        "supply": DECIMAL,
        "parameters": table_of(DECIMAL),
    },
    "account": {
        "address": STRING,
        "exists": BOOLEAN,
        "balance": DECIMAL,
        "has_key": BOOLEAN,
        "lanes": rows(record((), lane=COUNT, next_sequence=COUNT)),
        "height": COUNT,
        "state_root": DIGEST,
        "read": {"type": "string", "enum": ["local", "at-height", "linearizable"]},
        "proof": BASE64,
        "certificate": maybe(BASE64),
    },
    "history": {
        "items": rows(
            record(
                (),
                id=DIGEST,
                height=COUNT,
                block_time_ms=COUNT,
                sender=STRING,
                recipient=STRING,
                amount=DECIMAL,
                fee=DECIMAL,
                code=COUNT,
            )
        ),
        "next_before": maybe(COUNT),
    },
    "blocks": {
        "blocks": rows(
            record(
                (),
                height=COUNT,
                hash=DIGEST,
                parent=DIGEST,
                time_ms=COUNT,
                state_root=DIGEST,
                applied=COUNT,
                failed=COUNT,
                payload_ids=rows(DIGEST),
            )
        ),
        "next_from": COUNT,
        "oldest": COUNT,
        "newest": COUNT,
    },
    "block": {
        "height": COUNT,
        "hash": DIGEST,
        "parent": DIGEST,
        "batch_digest": DIGEST,
        "time_ms": COUNT,
        "state_root_before": DIGEST,
        "state_root": DIGEST,
        "payloads": COUNT,
        "size_bytes": COUNT,
        "certificate": maybe(BASE64),
        "payload_ids": rows(DIGEST),
    },
    "headers": {"height": COUNT, "last": COUNT, "proof": BASE64, "batches": rows(BASE64)},
    "epoch_links": {"epoch": COUNT, "links": rows(BASE64)},
    "state_path": {
        "height": COUNT,
        "roots": table_of(DIGEST),
        "path": BASE64,
        "address": maybe(HEX),
    },
    "payload_proof": {
        "id": DIGEST,
        "height": COUNT,
        "position": COUNT,
        "size": COUNT,
        "payload": BASE64,
        "path": rows(DIGEST),
        "batch": BASE64,
        "proof": BASE64,
    },
    "validators": {
        "chain": STRING,
        "chain_id": DIGEST,
        "height": COUNT,
        "epoch": COUNT,
        "hash": DIGEST,
        "quorum": COUNT,
        "removals_max": COUNT,
        "members": rows(_MEMBER),
        "pending": maybe(
            record(
                (),
                epoch=COUNT,
                hash=DIGEST,
                ordered_at=COUNT,
                effective_after=COUNT,
                automatic=BOOLEAN,
                members=rows(_MEMBER),
            )
        ),
        "offences": rows(
            record(
                (),
                name=STRING,
                node_id=DIGEST,
                offence=STRING,
                epoch=COUNT,
                height=COUNT,
                evidence=DIGEST,
            )
        ),
    },
    "agreement": {**of_class(AgreementDump)["properties"], "timers": table_of(INTEGER)},
    "log_cosigners": {
        "height": COUNT,
        "certificate": maybe(BASE64),
        "state": BASE64,
        "ends": rows(BASE64),
        "next_from": maybe(COUNT),
    },
    "log_inclusion": {
        "index": COUNT,
        "size": COUNT,
        "leaf_hash": maybe(DIGEST),
        "hashes": rows(DIGEST),
        "checkpoint": STRING,
    },
    "log_consistency": {
        "old": COUNT,
        "new": COUNT,
        "hashes": rows(DIGEST),
        "checkpoint": STRING,
    },
}
OPTIONAL: Final = {"account": ("proof", "certificate")}  # only with `prove`

# What has another form than a whole number, or a least and a most that the table says in words.
_TEXT_PARAMETERS: Final = {
    "verbose": STRING,
    "wait": STRING,
    "brief": STRING,
    "prove": STRING,
    "linearizable": STRING,
    "id": DIGEST,
    "key": DIGEST,
    "address": STRING,
}
_REQUIRED: Final = {("blocks", "from"), ("log_inclusion", "index"), ("log_consistency", "old")}


def answer_schema(endpoint: Endpoint) -> dict[str, Any]:
    """The schema of a route's JSON answer."""
    forms = FORMS[endpoint.handler]
    return record(
        OPTIONAL.get(endpoint.handler, ()),
        **{name: {**forms[name], "description": text} for name, text in endpoint.answer},
    )


def openapi_document(summaries: Mapping[str, str]) -> dict[str, Any]:
    """The whole interface; `summaries` say by handler what a route does."""
    paths: dict[str, dict[str, Any]] = {}
    for endpoint in ALL:
        operation = _operation(endpoint, summaries[endpoint.handler])
        paths.setdefault(endpoint.path, {})[endpoint.method.lower()] = operation
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "HyperMesh node",
            "version": version(),
            "description": "Amounts are decimal texts in base units, digests hexadecimal, proofs "
            "base64. A query parameter that is not named is refused.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {"schemas": {"Problem": _problem()}},
    }


def _problem() -> dict[str, Any]:
    """RFC 9457; some routes add fields."""
    known = record(
        (),
        type=STRING,
        title=STRING,
        status=COUNT,
        code=STRING,
        cause=STRING,
        next_step=STRING,
    )
    return {**known, "additionalProperties": True}


def _operation(endpoint: Endpoint, text: str) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": endpoint.handler,
        "summary": text.partition("\n")[0],
        "description": text,
        "parameters": [
            {"name": name, "in": "path", "required": True, "schema": _path_form(endpoint, name)}
            for name in re.findall(r"\{(\w+)\}", endpoint.path)
        ]
        + [
            {
                "name": name,
                "in": "query",
                "required": (endpoint.handler, name) in _REQUIRED,
                "description": meaning,
                "schema": _TEXT_PARAMETERS.get(name, COUNT),
            }
            for name, meaning in endpoint.query
        ],
        "responses": _responses(endpoint),
    }
    if endpoint.body:
        operation["requestBody"] = {
            "required": True,
            "description": endpoint.body,
            "content": {
                JSON: {"schema": {"type": "object"}},
                **({STREAM: {"schema": {}}} if STREAM in endpoint.body else {}),
            },
        }
    return operation


def _path_form(endpoint: Endpoint, name: str) -> Schema:
    if endpoint.handler == "block":
        return {"type": "string", "pattern": "^(latest|[0-9]+|[0-9a-f]{64})$"}
    return _TEXT_PARAMETERS.get(name, COUNT)


def _responses(endpoint: Endpoint) -> dict[str, Any]:
    content: dict[str, Any] = {}
    if endpoint.answer:
        content[JSON] = {"schema": answer_schema(endpoint)}
    for kind in (TEXT, PEM, STREAM):
        if endpoint.answer_type.startswith(kind):
            content[kind] = {"schema": {} if kind == STREAM else STRING}
    good = {"description": "as asked", "content": content}
    codes = ["200"]
    if endpoint.handler == "submit":
        codes = ["200", "202"]
    elif "201" in endpoint.answer_type:
        codes = ["201"]
    errors = "; ".join(f"{code}: {when}" for code, when in (*endpoint.errors, *COMMON_ERRORS))
    responses: dict[str, Any] = dict.fromkeys(codes, good)
    if endpoint.handler in ("live", "ready"):
        responses["503"] = {"description": "not now", "content": content}
    responses["default"] = {
        "description": errors,
        "content": {PROBLEM_TYPE: {"schema": PROBLEM_REFERENCE}},
    }
    return responses
