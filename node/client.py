"""How a command talks to a node: a small synchronous client of the HTTP interface.

Every failure becomes one of our errors, with the node's own code and next step where it gave one.
"""

from __future__ import annotations

import base64
import re
import time
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self

from node.errors import ExitCode, NotReachable, NotReady, OperationRefused, UnexpectedAnswer
from node.health import Finding
from node.limits import HTTP_BLOCKS_PER_PAGE_MAX, HTTP_WAIT_MS_DEFAULT, READ_WAIT_MS_DEFAULT
from node.status import Status, from_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import httpx

DEFAULT_URL: Final = "http://[::1]:9293"
TIMEOUT_S: Final = 10.0
POLL_INTERVAL_S: Final = 0.05
_HASH: Final = re.compile("[0-9a-f]{64}")


class RequestNotAllowed(OperationRefused):
    """The node does not permit this."""

    code = "HM-D-306"
    exit_code = ExitCode.NOT_ALLOWED


class NodeBusy(OperationRefused):
    """The node cannot serve this now."""

    code = "HM-D-307"
    exit_code = ExitCode.NOT_READY


class NodeClient:
    """A connection to one node's HTTP interface; use it as a context manager."""

    def __init__(self, url: str, *, timeout_s: float = TIMEOUT_S) -> None:
        import httpx

        self.url = url.rstrip("/")
        self._client: httpx.Client = httpx.Client(
            base_url=self.url,
            timeout=timeout_s,
            trust_env=False,
            verify=self.url.startswith("https:"),  # plain HTTP: load no certificates
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    # --- operator ---

    def status(self) -> tuple[Status, list[Finding]]:
        """Return the node's status and the health items that are not well."""
        document = self._json("GET", "/status")
        try:
            return from_json(document), [Finding.from_json(item) for item in document["health"]]
        except (KeyError, TypeError, ValueError) as error:
            raise self._strange(f"status without {error}") from None

    def readiness(self) -> dict[str, Any]:
        """Return the verbose readiness document, whether ready or not."""
        response = self._send("GET", "/readyz?verbose")
        if response.status_code not in (200, 503):
            raise self._failure(response)
        return self._document(response)

    def wait_ready(self, *, timeout_s: float, height: int = 0) -> Status:
        """Return once the node is ready and at `height`; raise `NotReady` with the reasons."""
        deadline = time.monotonic() + timeout_s
        reason = "it did not answer"
        while True:
            try:
                status, found = self.status()
                blocking = [finding for finding in found if finding.blocks_ready]
                if not blocking and status.height >= height:
                    return status
                reason = "; ".join(f"{item.item.code}: {item.detail}" for item in blocking)
                reason = reason or f"height {status.height:,} of {height:,}"
            except (NotReachable, NodeBusy) as error:
                if time.monotonic() >= deadline:
                    raise error from None
            if time.monotonic() >= deadline:
                raise NotReady(
                    f"{self.url} was not ready within {timeout_s:g} s: {reason}",
                    hint="see `hypermesh node status`, or wait longer with --timeout",
                )
            time.sleep(POLL_INTERVAL_S)

    def metrics(self) -> str:
        """Return the metrics page."""
        return self._ok("GET", "/metrics").text

    # --- ledger ---

    def submit(
        self, payloads: Sequence[bytes], *, timeout_s: float | None = None
    ) -> dict[str, Any]:
        """Submit payloads; with a time-out, wait for their execution."""
        query = f"?wait=1&timeout_ms={int(timeout_s * 1000)}" if timeout_s else ""
        body = {"transactions": [base64.b64encode(payload).decode() for payload in payloads]}
        extra = (timeout_s or 0) + TIMEOUT_S
        return self._json("POST", f"/api/v1/transactions{query}", json=body, timeout=extra)

    def receipt(self, identifier: str) -> dict[str, Any] | None:
        """Return a receipt, or None while there is none."""
        response = self._send("GET", f"/api/v1/receipts/{identifier}")
        if response.status_code == 404:
            return None
        return self._document(self._checked(response))

    def ledger(self) -> dict[str, Any]:
        """Return the ledger's head and parameters."""
        return self._json("GET", "/api/v1/ledger")

    def account(
        self,
        address: str,
        *,
        prove: bool = False,
        min_height: int = 0,
        linearizable: bool = False,
        timeout_s: float = READ_WAIT_MS_DEFAULT / 1000,
    ) -> dict[str, Any]:
        """Return an account, of a state as new as asked."""
        query = "?prove=1" if prove else "?prove=0"
        if not (min_height or linearizable):
            return self._json("GET", f"/api/v1/accounts/{address}{query}")
        query += f"&min_height={min_height}" if min_height else "&linearizable=1"
        query += f"&timeout_ms={int(timeout_s * 1000)}"
        return self._json(
            "GET", f"/api/v1/accounts/{address}{query}", timeout=timeout_s + TIMEOUT_S
        )

    def history(self, address: str, *, limit: int, before: int | None = None) -> dict[str, Any]:
        """Return a page of an account's payments."""
        query = f"?limit={limit}" + (f"&before={before}" if before else "")
        return self._json("GET", f"/api/v1/accounts/{address}/history{query}")

    def headers(self, height: int) -> dict[str, Any]:
        """Return headers from a block to the next certified one."""
        return self._json("GET", f"/api/v1/headers/{height}")

    def epoch_links(self, first: int) -> dict[str, Any]:
        """Return the links to epoch `first` and some after it."""
        return self._shaped("GET", f"/api/v1/epochs/{first}", links=list)

    def body(self, height: int) -> bytes:
        """Return the batch body of a block."""
        return self._ok("GET", f"/api/v1/blocks/{height}/body").content

    def state_path(self, key: str) -> dict[str, Any]:
        """Return the way down the ledger's tree to a key."""
        return self._json("GET", f"/api/v1/state/{key}")

    def payload_proof(self, identifier: str) -> dict[str, Any]:
        """Return the proof that a payload is in a block."""
        return self._json("GET", f"/api/v1/transactions/{identifier}/proof")

    def block(self, height: int | str | None = None) -> dict[str, Any]:
        """Return a block by height or hash, the newest for None."""
        return self._json("GET", f"/api/v1/blocks/{'latest' if height is None else height}")

    def waiting(self, first: int, *, limit: int) -> dict[str, Any]:
        """Return a page of the payloads that wait."""
        return self._json("GET", f"/api/v1/mempool?from={first}&limit={limit}")

    def agreement(self) -> dict[str, Any]:
        """Return what the node holds of the agreement."""
        return self._json("GET", "/debug/agreement")

    def blocks(self, first: int, *, timeout_s: float, limit: int) -> dict[str, Any]:
        """Return a page of blocks from a height on, waiting for the first of them."""
        query = f"?from={first}&limit={limit}&timeout_ms={int(timeout_s * 1000)}"
        return self._json("GET", f"/api/v1/blocks{query}", timeout=timeout_s + TIMEOUT_S)

    def follow(self, first: int) -> Iterator[dict[str, Any]]:
        """Yield block after block for ever. Raises when they do not make one chain.

        A block that was pruned before it was read ends this: nothing is left out in silence.
        """
        parent: str | None = None
        while True:
            page = self.blocks(
                first, timeout_s=HTTP_WAIT_MS_DEFAULT / 1000, limit=HTTP_BLOCKS_PER_PAGE_MAX
            )
            for block in page["blocks"]:
                if block["height"] != first or parent not in (None, block["parent"]):
                    raise self._strange(f"a block {first} that does not follow the one before")
                yield block
                first, parent = first + 1, block["hash"]

    def validators(self) -> dict[str, Any]:
        """Return the validator set, a pending one, and the proven offences."""
        return self._shaped("GET", "/api/v1/validators", members=list, offences=list)

    # --- certificates ---

    def issue_certificate(self, submission: bytes) -> str:
        """Order a certificate and return its bundle."""
        headers = {"content-type": "application/json"}
        response = self._send(
            "POST", "/api/v1/certificates", content=submission, headers=headers, timeout=60.0
        )
        return self._checked(response).text

    def certificate(self, index: int) -> str:
        """Return the bundle of a log entry."""
        return self._ok("GET", f"/api/v1/certificates/{index}").text

    def log_checkpoint(self) -> str:
        """Return the newest cosigned checkpoint."""
        return self._ok("GET", "/api/v1/ctlog/checkpoint").text

    def log_cosigners(self, first: int) -> dict[str, Any]:
        """Return what proves where the log stood when epoch `first` ended, and some after it."""
        return self._json("GET", f"/api/v1/ctlog/cosigners?from={first}")

    def log_inclusion(self, index: int, size: int | None = None) -> dict[str, Any]:
        """Return an inclusion proof."""
        query = f"?index={index}" + (f"&size={size}" if size else "")
        proof = self._shaped(
            "GET", f"/api/v1/ctlog/proof{query}", index=int, size=int, leaf_hash=str, hashes=list
        )
        return self._with_hashes(proof, proof["leaf_hash"], *proof["hashes"])

    def log_consistency(self, old: int, new: int | None = None) -> dict[str, Any]:
        """Return a consistency proof."""
        query = f"?old={old}" + (f"&new={new}" if new else "")
        proof = self._shaped("GET", f"/api/v1/ctlog/consistency{query}", hashes=list)
        return self._with_hashes(proof, *proof["hashes"])

    # --- plumbing ---

    def _with_hashes(self, proof: dict[str, Any], *hashes: object) -> dict[str, Any]:
        """The proof, if these are hashes: a node that lies about the log sends proper ones."""
        if not all(isinstance(found, str) and _HASH.fullmatch(found) for found in hashes):
            raise self._strange("a proof whose hashes are not 64 hexadecimal digits each")
        return proof

    def _shaped(self, method: str, path: str, **forms: type) -> dict[str, Any]:
        """Return a document that has these fields; raises `UnexpectedAnswer` for another."""
        document = self._json(method, path)
        for name, form in forms.items():
            if not isinstance(document.get(name), form):
                raise self._strange(f"a document without a proper {name!r}")
        return document

    def _json(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        return self._document(self._ok(method, path, **options))

    def _ok(self, method: str, path: str, **options: Any) -> httpx.Response:
        return self._checked(self._send(method, path, **options))

    def _send(self, method: str, path: str, **options: Any) -> httpx.Response:
        import httpx

        try:
            return self._client.request(method, path, **options)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise NotReachable(
                f"no node answers at {self.url}: {error}",
                hint="start it with `hypermesh node run` or `hypermesh cluster up`, or name "
                "another with --node URL or --cluster NAME",
            ) from None

    def _checked(self, response: httpx.Response) -> httpx.Response:
        if response.status_code >= 400:
            raise self._failure(response)
        return response

    def _failure(self, response: httpx.Response) -> OperationRefused | UnexpectedAnswer:
        try:
            document = response.json()
            kind: type[OperationRefused] = {
                401: RequestNotAllowed,
                403: RequestNotAllowed,
                503: NodeBusy,
            }.get(response.status_code, OperationRefused)
            return kind(
                document["title"],
                hint=document["next_step"],
                remote_code=document["code"],
                status=response.status_code,
                cause=document.get("cause", ""),
            )
        except (ValueError, KeyError, TypeError, RecursionError):
            return self._strange(f"HTTP {response.status_code} without a problem document")

    def _document(self, response: httpx.Response) -> dict[str, Any]:
        try:
            document = response.json()
        except (ValueError, RecursionError):
            raise self._strange("an answer that is not JSON") from None
        if not isinstance(document, dict):
            raise self._strange("an answer that is not a JSON object")
        return document

    def _strange(self, what: str) -> UnexpectedAnswer:
        return UnexpectedAnswer(
            f"{self.url} answered with {what}",
            hint="check that it is a HyperMesh node of the same version",
        )
