"""The HTTP interface: Starlette served by Hypercorn's trio worker, behind this one file.

It cannot stop consensus: a crash restarts it with back-off, a limiter keeps the number of requests
in flight small and answers the others 503 at once, and bodies are bounded. Health, status and
metrics have places of their own, so a flood of clients does not make the node look dead.

Write routes answer only to a Host of ours and never to a browser's cross-origin request.
"""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import TYPE_CHECKING, Any, Final

import structlog
import trio
from starlette.applications import Starlette
from starlette.exceptions import HTTPException

from node.config.schema import split_address
from node.limits import HTTP_RESTART_DELAY_S_MAX
from node.runtime.api import APIError, NotAllowed, Overloaded
from node.runtime.routes import Routes, problem

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from node.config.schema import HTTPSection
    from node.metrics import Metrics
    from node.runtime.api import NodeAPI

log = structlog.get_logger()

OPERATOR_PATHS: Final = frozenset({"/livez", "/readyz", "/status", "/metrics"})
OPERATOR_IN_FLIGHT_MAX: Final = 8
LOCAL_HOSTS: Final = frozenset({"localhost", "[::1]", "ip6-localhost"})
BACKLOG_CONNECTIONS: Final = 256
KEEP_ALIVE_REQUESTS_MAX: Final = 1_000_000  # a load generator keeps its connections
KEEP_ALIVE_S: Final = 30
GRACEFUL_STOP_S: Final = 1.0  # a stop as a whole takes less than five seconds

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class HostRefused(NotAllowed):
    """A write request for another host name: perhaps DNS rebinding."""

    code = "HM-D-613"


class OriginRefused(NotAllowed):
    """A write request from a web page."""

    code = "HM-D-614"


class InternalError(APIError):
    """Our own mistake; the log has the trace."""

    code = "HM-D-600"
    status = 500


class UnknownRoute(APIError):
    """No such path."""

    code = "HM-D-611"
    status = 404


class WrongMethod(APIError):
    """The path is there, and not for this method; the Allow header names those it takes."""

    code = "HM-D-615"
    status = 405


class Gate:
    """First to see a request: counts what is in flight, refuses strangers, measures."""

    def __init__(
        self, app: ASGIApp, *, in_flight_max: int, hosts: Iterable[str], metrics: Metrics | None
    ) -> None:
        self._app = app
        self._limits = {False: in_flight_max, True: OPERATOR_IN_FLIGHT_MAX}
        self._in_flight = {False: 0, True: 0}
        self._hosts = frozenset(hosts)
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request or refuse it without reading its body."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        operator = scope["path"] in OPERATOR_PATHS
        if self._in_flight[operator] >= self._limits[operator]:
            busy = Overloaded(
                f"{self._limits[operator]} requests are being served already",
                hint="come back after the time in Retry-After, or use fewer connections",
            )
            self._count(scope, 503)
            await problem(busy)(scope, receive, send)
            return
        if (refusal := self._stranger(scope)) is not None:
            self._count(scope, refusal.status)
            await problem(refusal)(scope, receive, send)
            return
        await self._serve(scope, receive, send, operator)

    async def _serve(self, scope: Scope, receive: Receive, send: Send, operator: bool) -> None:
        started = trio.current_time()
        status = 500

        async def watch(message: MutableMapping[str, Any]) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        self._in_flight[operator] += 1
        try:
            await self._app(scope, receive, watch)
        finally:
            self._in_flight[operator] -= 1
            self._count(scope, status)
            if self._metrics:
                self._metrics.http_request_seconds.observe(trio.current_time() - started)
                self._metrics.http_in_flight_count.set(sum(self._in_flight.values()))

    def _stranger(self, scope: Scope) -> NotAllowed | None:
        if scope["method"] in ("GET", "HEAD"):
            return None
        headers = dict(scope["headers"])
        if b"origin" in headers:
            return OriginRefused(
                "write requests from web pages are refused",
                hint="send the request from a program, without an Origin header",
            )
        host = _host_name(headers.get(b"host", b"").decode("latin-1"))
        if host not in self._hosts:
            return HostRefused(
                f"this node does not answer writes for host {host or '(none)'}",
                hint="use the address the node listens on, or add the name to http.hosts",
            )
        return None

    def _count(self, scope: Scope, status: int) -> None:
        if self._metrics:
            route = scope.get("route")
            path = getattr(route, "path", None) or "none"
            self._metrics.http_requests.labels(path, f"{status // 100}xx").inc()


def create_app(node: NodeAPI, config: HTTPSection, metrics: Metrics | None = None) -> ASGIApp:
    """Build the ASGI application for a node."""
    routes = Routes(node, body_size_bytes_max=config.body_size_bytes_max, debug=config.debug)
    app = Starlette(
        routes=routes.table(),
        exception_handlers={
            APIError: _api_error,
            HTTPException: _http_error,
            Exception: _internal_error,
        },
    )
    app.router.redirect_slashes = False
    host, _ = split_address(config.listen)
    hosts = LOCAL_HOSTS | {f"[{host}]"} | {_host_name(name) for name in config.hosts}
    return Gate(app, in_flight_max=config.in_flight_max, hosts=hosts, metrics=metrics)


async def serve(
    app: ASGIApp,
    listen: str,
    *,
    stop: trio.Event,
    task_status: trio.TaskStatus[str] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Serve until `stop` is set, restarting after a crash; starts with the URL.

    Raises OSError when the address cannot be bound at the first attempt.
    """
    delay = 0.1
    first = True
    while not stop.is_set():
        try:
            listener = _listener(listen)
            url = f"http://[{listener.getsockname()[0]}]:{listener.getsockname()[1]}"
            with listener:
                if first:
                    task_status.started(url)
                    first = False
                await _serve_once(app, listener, stop)
            return
        except OSError:
            if first:
                raise
            log.exception("http.bind_failed", listen=listen)
        except Exception:
            log.exception("http.crashed", restart_in_s=delay)
        with trio.move_on_after(delay):
            await stop.wait()
        delay = min(delay * 2, HTTP_RESTART_DELAY_S_MAX)


async def _serve_once(app: ASGIApp, listener: socket.socket, stop: trio.Event) -> None:
    from hypercorn.config import Config, Sockets
    from hypercorn.trio.run import worker_serve
    from hypercorn.utils import wrap_app

    config = Config()
    config.accesslog = None
    config.errorlog = None
    config.include_server_header = False
    config.graceful_timeout = GRACEFUL_STOP_S
    config.keep_alive_timeout = KEEP_ALIVE_S
    config.keep_alive_max_requests = KEEP_ALIVE_REQUESTS_MAX
    await worker_serve(
        wrap_app(app, config.wsgi_max_body_size, "asgi"),  # type: ignore[arg-type]
        config,
        sockets=Sockets(secure_sockets=[], insecure_sockets=[listener], quic_sockets=[]),
        shutdown_trigger=stop.wait,
    )


def _listener(listen: str) -> socket.socket:
    host, port = split_address(listen) if not listen.endswith("]:0") else (listen[1:-3], 0)
    listener = socket.socket(socket.AF_INET6, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG_CONNECTIONS)
        listener.setblocking(False)
    except OSError:
        listener.close()
        raise
    return listener


def _host_name(host: str) -> str:
    """Strip the port and the case of a Host header."""
    host = host.strip().lower()
    if host.startswith("["):
        return host.partition("]")[0] + "]"
    return host.partition(":")[0]


async def _api_error(_request: Request, error: Exception) -> Response:
    assert isinstance(error, APIError)
    return problem(error)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {}).get("Allow", "").split(", ")))
        return problem(
            WrongMethod(
                f"{request.url.path} does not take {request.method}", hint=f"use {allowed}"
            ),
            headers={"allow": allowed},
        )
    if error.status_code != 404:
        failed = APIError(str(error.detail), hint="see the API documentation")
        return problem(failed)
    return problem(
        UnknownRoute(
            f"no {request.method} {request.url.path} here",
            hint="the routes are under /api/v1, /livez, /readyz, /status and /metrics",
        )
    )


async def _internal_error(request: Request, error: Exception) -> Response:
    log.error("http.failed", path=request.url.path, exc_info=error)
    return problem(
        InternalError("the node failed to answer", hint="see the node's log and report it")
    )
