"""The OpenAPI document names every route, and real answers have the forms it promises."""

from __future__ import annotations

import base64
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from node.config.schema import HTTPSection
from node.metrics import Metrics
from node.runtime.api import Outcome
from node.runtime.endpoints import ENDPOINTS, JSON, Endpoint
from node.runtime.http import create_app
from node.runtime.openapi import FORMS, answer_schema, openapi_document
from node.runtime.routes import summaries
from node.tests.fake_node import FakeNode

BASE = "http://[::1]:9293"
KINDS: dict[str, type | tuple[type, ...]] = {
    "object": dict,
    "array": list,
    "string": str,
    "boolean": bool,
    "integer": int,
    "number": (int, float),
    "null": type(None),
}
ANSWERED = [endpoint for endpoint in ENDPOINTS if endpoint.answer]
QUERIES = {
    "ready": "verbose",
    "account": "prove=1",
    "log_inclusion": "index=3",
    "blocks": "from=1",
    "log_consistency": "old=3",
}
PLACES = {"id": "00" * 32, "address": "hm1x", "first": "1", "index": "3", "key": "00" * 32}


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
async def client(node: FakeNode) -> AsyncIterator[httpx.AsyncClient]:
    app: Any = create_app(node, HTTPSection(debug=True), Metrics())
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as found:
        yield found


def faults(value: Any, schema: Any, at: str = "$") -> list[str]:
    """What of a value is not as its schema says, for the keywords that our schemas use."""
    unknown = set(schema) - {
        "type",
        "properties",
        "required",
        "additionalProperties",
        "items",
        "enum",
        "pattern",
        "minimum",
        "contentEncoding",
        "description",
    }
    assert not unknown, unknown
    kinds = schema.get("type", list(KINDS))
    kinds = [kinds] if isinstance(kinds, str) else kinds
    fitting = [
        kind
        for kind in kinds
        if isinstance(value, KINDS[kind])
        and not (isinstance(value, bool) and kind in ("integer", "number"))
    ]
    if not fitting:
        return [f"{at} is {value!r} and not {' or '.join(kinds)}"]
    found: list[str] = []
    if isinstance(value, str):
        if "pattern" in schema and not re.search(schema["pattern"], value):
            found.append(f"{at} is {value!r}")
        if schema.get("contentEncoding") == "base64":
            base64.b64decode(value, validate=True)
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{at} is {value!r}")
    if isinstance(value, int) and value < schema.get("minimum", value):
        found.append(f"{at} is {value}")
    if isinstance(value, list):
        for number, item in enumerate(value):
            found += faults(item, schema.get("items", {}), f"{at}[{number}]")
    if isinstance(value, dict):
        known = schema.get("properties", {})
        found += [
            f"{at}.{name} is missing" for name in schema.get("required", ()) if name not in value
        ]
        for name, item in value.items():
            rest = schema.get("additionalProperties", True)
            if name in known:
                found += faults(item, known[name], f"{at}.{name}")
            elif rest is False:
                found.append(f"{at}.{name} is unknown")
            elif rest is not True:
                found += faults(item, rest, f"{at}.{name}")
    return found


def test_the_checker_finds_what_is_wrong() -> None:
    schema = {
        "type": "object",
        "properties": {"a": {"type": "integer", "minimum": 0}, "b": {"type": ["string", "null"]}},
        "required": ["a"],
        "additionalProperties": False,
    }
    assert faults({"a": 1, "b": None}, schema) == []
    wrongs: list[Any] = [{}, {"a": True}, {"a": -1}, {"a": 1, "b": 2}, {"a": 1, "c": 1}, [], None]
    for wrong in wrongs:
        assert faults(wrong, schema), wrong


def path_of(endpoint: Endpoint) -> str:
    height = "42" if endpoint.handler in ("headers", "body") else "latest"
    return endpoint.path.format(**PLACES, height=height)


@pytest.mark.parametrize(
    "endpoint", [e for e in ANSWERED if e.method == "GET"], ids=lambda endpoint: endpoint.handler
)
async def test_a_real_answer_has_the_form_of_the_document(
    client: httpx.AsyncClient, endpoint: Endpoint
) -> None:
    document = (await client.get("/api/v1/openapi.json")).json()
    operation = document["paths"][endpoint.path]["get"]
    schema = operation["responses"]["200"]["content"][JSON]["schema"]
    answer = await client.get(f"{path_of(endpoint)}?{QUERIES.get(endpoint.handler, '')}")
    assert answer.status_code == 200
    assert faults(answer.json(), schema) == []


async def test_answers_to_a_submission_and_problems_have_their_forms(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    document = (await client.get("/api/v1/openapi.json")).json()
    responses = document["paths"]["/api/v1/transactions"]["post"]["responses"]
    one = {"transactions": [base64.b64encode(b"\x01one").decode()]}
    for outcome, path in ((Outcome.APPLIED, "?wait=1"), (Outcome.FAILED, "?wait=1"), (None, "")):
        node.outcome = outcome or Outcome.APPLIED
        node.code = 5 if outcome is Outcome.FAILED else 0
        answer = await client.post(f"/api/v1/transactions{path}", json=one)
        schema = responses[str(answer.status_code)]["content"][JSON]["schema"]
        assert faults(answer.json(), schema) == []
    problem = document["components"]["schemas"]["Problem"]
    for wrong in ("/api/v1/blocks/0", "/api/v1/nothing", "/api/v1/blocks"):
        answer = await client.get(wrong)
        assert answer.status_code >= 400
        assert faults(answer.json(), problem) == []


def test_every_route_parameter_and_field_of_the_table_is_in_the_document() -> None:
    assert all(summaries().values())
    document = openapi_document(summaries())
    assert document["openapi"] == "3.1.0"
    operations = [(path, method) for path, found in document["paths"].items() for method in found]
    assert sorted(operations) == sorted((e.path, e.method.lower()) for e in ENDPOINTS)
    assert set(FORMS) == {endpoint.handler for endpoint in ANSWERED}
    for endpoint in ENDPOINTS:
        operation = document["paths"][endpoint.path][endpoint.method.lower()]
        named = {(entry["in"], entry["name"]) for entry in operation["parameters"]}
        assert named == {("query", name) for name in endpoint.query_names} | {
            ("path", name) for name in re.findall(r"\{(\w+)\}", endpoint.path)
        }
        assert ("requestBody" in operation) == (endpoint.method == "POST")
        if endpoint.answer:
            assert set(FORMS[endpoint.handler]) == {name for name, _ in endpoint.answer}
            assert set(answer_schema(endpoint)["properties"]) == set(FORMS[endpoint.handler])
        for response in operation["responses"].values():
            assert response["description"]
    ids = [op["operationId"] for found in document["paths"].values() for op in found.values()]
    assert len(ids) == len(set(ids))
