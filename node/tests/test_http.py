from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import trio

from native.batches import Batch
from node.config.schema import HTTPSection
from node.limits import HTTP_LINKS_PER_CALL_MAX, HTTP_WAITING_PER_PAGE_MAX
from node.metrics import Metrics
from node.runtime.api import Outcome
from node.runtime.endpoints import ENDPOINTS
from node.runtime.http import OPERATOR_IN_FLIGHT_MAX, create_app
from node.tests.fake_node import FakeNode, Served

BASE = "http://[::1]:9293"


@pytest.fixture
def node() -> FakeNode:
    return FakeNode()


@pytest.fixture
def config() -> HTTPSection:
    return HTTPSection(
        in_flight_max=2, hosts=("ledger.example.net",), body_size_bytes_max=4_096, debug=True
    )


@pytest.fixture
async def client(node: FakeNode, config: HTTPSection) -> AsyncIterator[httpx.AsyncClient]:
    app: Any = create_app(node, config, Metrics())
    transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as found:
        yield found


def transactions(*payloads: bytes) -> dict[str, list[str]]:
    return {"transactions": [base64.b64encode(payload).decode() for payload in payloads]}


async def test_a_transaction_is_applied_when_the_caller_waits(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    answer = await client.post("/api/v1/transactions?wait=1", json=transactions(b"\x01one"))
    assert answer.status_code == 200
    assert answer.json()["applied"] == 1
    assert answer.json()["results"][0]["height"] == 42
    assert node.submitted == [b"\x01one"]


async def test_links_of_epochs_come_in_bounded_pages(client: httpx.AsyncClient) -> None:
    found: list[str] = []
    while True:
        answer = (await client.get(f"/api/v1/epochs/{len(found) + 1}")).json()
        assert answer["epoch"] == 40
        assert len(answer["links"]) <= HTTP_LINKS_PER_CALL_MAX
        if not answer["links"]:
            break
        found += answer["links"]
    assert [base64.b64decode(link) for link in found] == [b"link %d" % n for n in range(1, 41)]
    for wrong in ("0", "-1", "x", "9" * 30):
        assert (await client.get(f"/api/v1/epochs/{wrong}")).status_code == 400


async def test_a_transaction_is_pending_when_the_caller_does_not_wait(
    client: httpx.AsyncClient,
) -> None:
    answer = await client.post("/api/v1/transactions", json=transactions(b"\x01one"))
    assert answer.status_code == 202
    assert answer.json()["results"][0] == {
        "id": answer.json()["results"][0]["id"],
        "outcome": "pending",
        "height": None,
    }


async def test_a_batch_body_carries_many_transactions(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    body = Batch.of([b"\x01one", b"\x01two"]).body
    answer = await client.post(
        "/api/v1/transactions?wait=1&brief=1",
        content=body,
        headers={"content-type": "application/octet-stream"},
    )
    assert answer.json() == {
        "pending": 0,
        "applied": 2,
        "failed": 0,
        "refused": 0,
        "results": [],
    }
    assert node.submitted == [b"\x01one", b"\x01two"]


async def test_a_refused_transaction_is_a_problem_with_its_code(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    node.outcome, node.code = Outcome.REFUSED, 130
    answer = await client.post("/api/v1/transactions?wait=1", json=transactions(b"\x01one"))
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["code"] == "HM-L-130"
    assert problem["next_step"] == "do better"
    assert problem["results"][0]["outcome"] == "refused"


async def test_refusals_among_many_are_listed_with_their_position(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    node.outcome, node.code = Outcome.REFUSED, 131
    answer = await client.post(
        "/api/v1/transactions?wait=1&brief=1", json=transactions(b"\x01one", b"\x01two")
    )
    assert answer.status_code == 200
    assert [result["position"] for result in answer.json()["results"]] == [0, 1]


@pytest.mark.parametrize(
    ("body", "kind", "status"),
    [
        (b"", "application/json", 400),
        (b"[]", "application/json", 400),
        (b"{", "application/json", 400),
        (b'{"transactions": "x"}', "application/json", 400),
        (b'{"transactions": []}', "application/json", 400),
        (b'{"transactions": ' + b"[" * 3_000, "application/json", 400),
        (b'{"transactions": [""]}', "application/json", 400),
        (b'{"transactions": [1]}', "application/json", 400),
        (b'{"transactions": ["!!"]}', "application/json", 400),
        (b'{"transactions": ["QQ=="], "more": 1}', "application/json", 400),
        (b"{}", "text/plain", 400),
        (b"{}", "", 400),
        (b"", "application/octet-stream", 400),
        (b"\0\0\0\x01\0\0\0\xffx", "application/octet-stream", 400),
        (b"x" * 5_000, "application/octet-stream", 413),
    ],
)
async def test_a_malformed_submission_says_what_to_send(
    client: httpx.AsyncClient, node: FakeNode, body: bytes, kind: str, status: int
) -> None:
    answer = await client.post("/api/v1/transactions", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert answer.json()["next_step"]
    assert node.submitted == []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # httpx's own stream
async def test_a_body_without_a_length_is_bounded_too(client: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(10):
            yield b"x" * 1_000

    answer = await client.post(
        "/api/v1/transactions",
        content=chunks(),
        headers={"content-type": "application/octet-stream"},
    )
    assert answer.status_code == 413
    assert answer.json()["code"] == "HM-D-612"


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/receipts/zz",
        "/api/v1/receipts/" + "AB" * 32,
        "/api/v1/blocks/-1",
        "/api/v1/blocks/1e3",
        "/api/v1/blocks/" + "9" * 30,
        "/api/v1/blocks",
        "/api/v1/blocks?from=0",
        "/api/v1/blocks?from=1&limit=101",
        "/api/v1/accounts/hm1x?prove=maybe",
        "/api/v1/accounts/hm1x/history?limit=0",
        "/api/v1/accounts/hm1x/history?limit=501",
        "/api/v1/certificates/x",
        "/api/v1/ctlog/proof",
        "/api/v1/ctlog/proof?index=x",
        "/api/v1/ctlog/cosigners?from=-1",
        "/api/v1/ctlog/consistency?new=3",
        "/api/v1/ctlog/consistency?old=1&new=0",
        "/api/v1/ctlog/proof?index=0&size=0",
    ],
)
async def test_a_wrong_parameter_is_refused_with_a_next_step(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    assert answer.status_code == 400
    assert answer.json()["code"] == "HM-D-602"
    assert answer.json()["next_step"]


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/receipts/" + "11" * 32,
        "/api/v1/blocks/43",
        "/api/v1/certificates/7",
        "/api/v1/ctlog/proof?index=7",
        "/api/v1/nothing",
        "/",
    ],
)
async def test_what_is_not_there_is_404_with_a_next_step(
    client: httpx.AsyncClient, path: str
) -> None:
    answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["next_step"]


async def test_reads_answer_with_strings_for_amounts_and_the_height_as_etag(
    client: httpx.AsyncClient,
) -> None:
    account = await client.get("/api/v1/accounts/hm1x?prove=1")
    assert account.json()["balance"] == "12500000000"
    assert account.json()["proof"] == base64.b64encode(b"proof").decode()
    assert account.headers["etag"] == '"42"'
    assert "proof" not in (await client.get("/api/v1/accounts/hm1x")).json()
    assert (await client.get("/api/v1/ledger")).json()["supply"] == "1000000000000000000"
    assert (await client.get("/api/v1/blocks/latest")).json()["height"] == 42
    assert (await client.get("/api/v1/receipts/" + "00" * 32)).json()["outcome"] == "applied"
    page = (await client.get("/api/v1/accounts/hm1x/history?limit=1&before=50")).json()
    assert page["items"][0]["height"] == 49
    assert page["items"][0]["amount"] == "1500000000"


async def test_certificates_and_the_log_are_served(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    issued = await client.post("/api/v1/certificates", content=b'{"csr": "x"}')
    assert issued.status_code == 201
    assert issued.text == node.bundle
    assert node.submissions == [b'{"csr": "x"}']
    assert (await client.get("/api/v1/certificates/6")).text == node.bundle
    assert (await client.get("/api/v1/ctlog/checkpoint")).text == node.checkpoint
    for query, ends in (("", 3), ("?from=0", 3), ("?from=2", 1), ("?from=9", 0)):
        page = (await client.get(f"/api/v1/ctlog/cosigners{query}")).json()
        assert (len(page["ends"]), page["next_from"]) == (ends, None)
    assert (await client.get("/api/v1/ctlog/proof?index=3")).json()["size"] == 7
    assert (await client.get("/api/v1/ctlog/consistency?old=3")).json()["old"] == 3


async def test_an_unknown_query_parameter_is_refused_with_the_known_ones(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    answer = await client.get("/api/v1/accounts/hm1x/history?bound=3")
    assert answer.status_code == 400
    assert answer.json()["code"] == "HM-D-602"
    assert answer.json()["next_step"] == "known here: limit, before"
    answer = await client.get("/status?x=1")
    assert answer.json()["next_step"] == "it takes none"
    answer = await client.post("/api/v1/transactions?waiting=1", json=transactions(b"\x01one"))
    assert answer.status_code == 400
    assert node.submitted == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/api/v1/transactions", "POST"),
        ("DELETE", "/api/v1/blocks/1", "GET, HEAD"),
        ("POST", "/status", "GET, HEAD"),
    ],
)
async def test_a_wrong_method_is_405_and_names_the_right_ones(
    client: httpx.AsyncClient, method: str, path: str, allowed: str
) -> None:
    answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.headers["allow"] == allowed
    assert answer.json()["code"] == "HM-D-615"
    assert answer.json()["next_step"] == f"use {allowed}"


async def test_block_0_is_said_to_be_genesis(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/blocks/0")
    assert answer.status_code == 404
    assert "genesis" in answer.json()["title"]


async def test_every_answer_has_the_fields_of_its_page(client: httpx.AsyncClient) -> None:
    values = {
        "{id}": "00" * 32,
        "{address}": "hm1x",
        "{height}": "latest",
        "{first}": "1",
        "{index}": "3",
        "{key}": "00" * 32,
    }
    queries = {
        "ready": "verbose",
        "account": "prove=1",
        "log_inclusion": "index=3",
        "blocks": "from=1",
    }
    queries |= {"log_consistency": "old=3"}
    for endpoint in ENDPOINTS:
        path = endpoint.path
        values["{height}"] = "42" if endpoint.handler in ("headers", "body") else "latest"
        for name, value in values.items():
            path = path.replace(name, value)
        if endpoint.method == "POST" or not endpoint.answer:
            continue
        answer = await client.get(f"{path}?{queries.get(endpoint.handler, '')}")
        assert answer.status_code == 200, path
        assert set(answer.json()) == {name for name, _ in endpoint.answer}, path


async def test_what_waits_is_shown_in_bounded_pages(client: httpx.AsyncClient) -> None:
    seen: list[str] = []
    following: int | None = 0
    while following is not None:
        page = (await client.get(f"/api/v1/mempool?from={following}&limit=2")).json()
        assert len(page["items"]) <= 2
        assert (page["count"], page["size_bytes"], page["oldest_ms"]) == (5, 5_000, 9_000)
        seen += [item["id"] for item in page["items"]]
        following = page["next_from"]
    assert seen == [(bytes([at]) * 32).hex() for at in range(5)]
    for wrong in ("limit=0", f"limit={HTTP_WAITING_PER_PAGE_MAX + 1}", "from=-1"):
        assert (await client.get(f"/api/v1/mempool?{wrong}")).status_code == 400


async def test_a_block_is_found_by_its_hash(client: httpx.AsyncClient) -> None:
    found = await client.get(f"/api/v1/blocks/{'07' * 32}")
    assert found.json()["height"] == 7
    missing = await client.get(f"/api/v1/blocks/{'08' * 32}")
    assert missing.status_code == 404
    assert "newest" in missing.json()["title"]
    assert (await client.get(f"/api/v1/blocks/{'0G' * 32}")).status_code == 400


async def test_the_state_of_the_agreement_is_shown_only_where_it_is_allowed(
    node: FakeNode, client: httpx.AsyncClient
) -> None:
    document = (await client.get("/debug/agreement")).json()
    assert document["places"][0]["missing"] == ["n1", "n2"]
    assert document["timers"] == {"suspect": 1_500, "status": -3}
    closed: Any = create_app(node, HTTPSection(), Metrics())
    transport = httpx.ASGITransport(app=closed, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=BASE) as other:
        refusal = await other.get("/debug/agreement")
    assert refusal.status_code == 403
    assert "http.debug" in refusal.json()["next_step"]


@pytest.mark.parametrize("host", ["localhost", "[::1]:9293", "ledger.example.net", "LOCALHOST:80"])
async def test_a_write_for_a_host_of_ours_is_taken(client: httpx.AsyncClient, host: str) -> None:
    answer = await client.post(
        "/api/v1/transactions", json=transactions(b"\x01"), headers={"host": host}
    )
    assert answer.status_code == 202


@pytest.mark.parametrize("host", ["evil.example", "", "localhost.evil.example", "[::2]"])
async def test_a_write_for_a_foreign_host_is_refused(
    client: httpx.AsyncClient, node: FakeNode, host: str
) -> None:
    answer = await client.post(
        "/api/v1/transactions", json=transactions(b"\x01"), headers={"host": host}
    )
    assert answer.status_code == 403
    assert answer.json()["code"] == "HM-D-613"
    assert node.submitted == []


async def test_a_write_from_a_web_page_is_refused(client: httpx.AsyncClient) -> None:
    for origin in ("http://evil.example", "null", BASE):
        answer = await client.post(
            "/api/v1/certificates", content=b"{}", headers={"origin": origin}
        )
        assert answer.status_code == 403
        assert answer.json()["code"] == "HM-D-614"


async def test_more_requests_than_places_are_answered_503_at_once(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    node.gate = trio.Event()
    codes: list[int] = []

    async def post() -> None:
        answer = await client.post("/api/v1/transactions?wait=1", json=transactions(b"\x01"))
        codes.append(answer.status_code)

    async with trio.open_nursery() as nursery:
        for _ in range(2):
            nursery.start_soon(post)
        await trio.testing.wait_all_tasks_blocked()
        refused = await client.post("/api/v1/transactions", json=transactions(b"\x01"))
        assert refused.status_code == 503
        assert refused.headers["retry-after"] == "1"
        assert (await client.get("/livez")).status_code == 200  # has places of its own
        node.gate.set()
    assert codes == [200, 200]
    assert (await client.get("/api/v1/blocks/latest")).status_code == 200
    assert OPERATOR_IN_FLIGHT_MAX > 0


async def test_a_defect_is_answered_500_and_the_next_request_is_served(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    node.explode = True
    answer = await client.post("/api/v1/transactions", json=transactions(b"\x01"))
    assert answer.status_code == 500
    assert answer.json()["code"] == "HM-D-600"
    node.explode = False
    assert (await client.get("/api/v1/blocks/latest")).status_code == 200


async def test_readiness_lists_every_item_and_its_next_step(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    assert (await client.get("/readyz")).text == "ready\n"
    node.set(phase="catching-up", height=10)
    assert (await client.get("/readyz")).status_code == 503
    verbose = await client.get("/readyz?verbose")
    assert verbose.status_code == 503
    items = {item["code"]: item for item in verbose.json()["items"]}
    assert items["catching-up"]["ok"] is False
    assert items["catching-up"]["detail"] == "32 blocks behind"
    assert items["disk-low"]["ok"] is True
    assert (await client.get("/livez")).status_code == 200


async def test_status_and_metrics_show_the_same_height(client: httpx.AsyncClient) -> None:
    assert (await client.get("/status")).json()["height"] == 42
    page = await client.get("/metrics")
    assert (await client.get("/metrics")).content == page.content  # a flood renders it once
    assert "hypermesh_consensus_height 42.0" in page.text
    assert page.headers["content-type"].startswith("text/plain; version=0.0.4")


def test_a_real_server_answers_on_loopback_and_stops(node: FakeNode) -> None:
    with Served(node) as served:
        assert httpx.get(f"{served.url}/livez").text == "ok\n"
        answer = httpx.post(
            f"{served.url}/api/v1/transactions?wait=1", json=transactions(b"\x01real")
        )
        assert answer.json()["applied"] == 1
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"{served.url}/livez")


async def test_the_validator_set_is_shown_with_what_comes_next(client: httpx.AsyncClient) -> None:
    answer = await client.get("/api/v1/validators")
    assert answer.status_code == 200
    assert answer.headers["etag"] == '"42"'
    document = answer.json()
    assert [member["name"] for member in document["members"]] == ["n0", "n1", "n2", "n3"]
    assert [member["tombstone"] for member in document["members"]] == [False, False, True, False]
    assert base64.b64decode(document["members"][0]["key"]) == b"key"
    assert (document["epoch"], document["quorum"], document["removals_max"]) == (1, 3, 1)
    assert document["pending"]["effective_after"] == 104
    assert document["pending"]["automatic"] is False
    assert document["offences"][0]["offence"] == "two commits"


async def test_blocks_are_followed_without_a_gap_and_resumed_by_height(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    first = (await client.get("/api/v1/blocks?from=38&limit=3&timeout_ms=0")).json()
    assert [block["height"] for block in first["blocks"]] == [38, 39, 40]
    rest = (await client.get(f"/api/v1/blocks?from={first['next_from']}")).json()
    assert [block["height"] for block in rest["blocks"]] == [41, 42]
    assert rest["blocks"][0]["parent"] == first["blocks"][-1]["hash"]
    assert (rest["blocks"][0]["applied"], rest["blocks"][0]["failed"]) == (2, 1)
    assert len(rest["blocks"][0]["payload_ids"]) == 3
    above = (await client.get("/api/v1/blocks?from=43&timeout_ms=250")).json()
    assert (above["blocks"], above["next_from"], above["newest"]) == ([], 43, 42)
    assert node.timeouts_s == [0.0, 10.0, 0.25]


async def test_a_pruned_block_is_gone_and_the_answer_names_those_that_are_held(
    client: httpx.AsyncClient, node: FakeNode
) -> None:
    node.set(height_oldest=40)
    answer = await client.get("/api/v1/blocks?from=39")
    assert answer.status_code == 410
    document = answer.json()
    assert (document["code"], document["oldest"], document["newest"]) == ("HM-D-610", 40, 42)
    assert "40" in document["next_step"]
