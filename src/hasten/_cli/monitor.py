"""The HTTP server of `hasten worker --metrics-port`: metrics and health of the worker processes.

It answers from threads, so it also answers while a handler blocks the event loop. It reads the head
of a request only, and answers a limited number of requests at once.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from hasten._logs import get_logger
from hasten.errors import UsageError
from hasten.jobs import Queue
from hasten.jobs._health_app import (
    DEFAULT_STORE_TIMEOUT,
    ENDPOINTS,
    HealthChecks,
    encode_response,
)
from hasten.jobs._queue_readings import start_reading_queues
from hasten.jobs._worker_state import WorkerProcessReport
from hasten.prometheus._command_page import make_worker_command_page
from hasten.prometheus._foreign_families import Family

logger = get_logger("hasten.cli")

MAX_REQUESTS: Final = 8  # at once; further connections wait
REQUEST_SECONDS: Final = 5.0  # how long to wait for more of a request
CONNECTION_SECONDS: Final = 15.0  # after this time, a connection is closed whatever it does
POLL_SECONDS: Final = 0.2
CLOSE_SECONDS: Final = 1.0  # how long responses in progress may take when the server is closed

METRICS: Final = "metrics"


class ReportSource(Protocol):
    """Where the server gets the reports of the processes from. Called in several threads."""

    def read_health(self) -> list[WorkerProcessReport]:
        """Return a report of each process, for the health endpoints."""

    def read_metrics(self) -> tuple[list[WorkerProcessReport], list[Family]]:
        """Return a report of each process, and the metrics of other libraries in them."""


class Response(NamedTuple):
    """A response: its status, headers and body."""

    status: int
    headers: dict[str, str]
    body: bytes


class Monitor:
    """Holds the port from its creation to `close`, and answers requests after `start`.

    It serves /metrics, /livez, /readyz and /scale from threads. Raises `UsageError` if the port
    cannot be used.
    """

    def __init__(self, host: str, port: int, queues: Sequence[Queue], checks: HealthChecks) -> None:
        self._queues = list({queue.name: queue for queue in queues}.values())
        self._checks = checks
        try:
            family, *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
            self._server = _Server(self, host, port, family)
        except (OSError, OverflowError) as exc:
            raise UsageError(
                f"--metrics-port {port} cannot be used on {host} ({exc}): choose a free port, or "
                "another --metrics-host"
            ) from exc
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": POLL_SECONDS},
            name="hasten monitor",
            daemon=True,
        )

    @property
    def url(self) -> str:
        """The URL of the server."""
        host, port = self._server.server_address[:2]
        name = host.decode() if isinstance(host, bytes) else str(host)
        return f"http://{f'[{name}]' if ':' in name else name}:{port}"

    def start(self, source: ReportSource) -> None:
        """Begin to answer requests."""
        self._source = source
        logger.info("metrics: %s/metrics; health: /livez, /readyz, /scale?queue=NAME", self.url)
        self._thread.start()

    def close(self) -> None:
        """Finish the responses in progress, and close the port. Safe to call twice."""
        is_serving = self._thread.is_alive()
        self._server.close(is_serving=is_serving)
        if is_serving:
            self._thread.join(CLOSE_SECONDS)

    def respond(self, target: str, accept: str, accept_encoding: str) -> Response:
        """Return the response to a GET request. Called in several threads."""
        path, query = urlsplit(target)[2:4]
        page = path.strip("/")
        if page == METRICS:
            # The stores and the processes are read at the same time.
            reading = start_reading_queues(self._queues, DEFAULT_STORE_TIMEOUT)
            reports, foreign = self._source.read_metrics()
            written = make_worker_command_page(
                reading.result(), reports, foreign, accept=accept, accept_encoding=accept_encoding
            )
            return Response(200, written.headers, written.body)
        if page in ENDPOINTS:
            response = self._checks.start_check(page, query, self._source.read_health()).result()
            return _json_response(response.status, encode_response(response))
        pages = [f"/{name}" for name in (METRICS, *ENDPOINTS)]
        return _json_response(404, json.dumps({"status": "no such page", "pages": pages}).encode())


def _json_response(status: int, body: bytes) -> Response:
    return Response(status, {"content-type": "application/json", "cache-control": "no-store"}, body)


class _Server(HTTPServer):
    """Handles each connection in a thread, and closes connections that last too long."""

    def __init__(self, monitor: Monitor, host: str, port: int, family: int) -> None:
        self.monitor = monitor
        self.address_family = family
        self._free = threading.BoundedSemaphore(MAX_REQUESTS)
        self._connections: dict[socket.socket, float] = {}  # and when they began
        self._is_closing = False
        self._is_closed = False
        super().__init__((host, port), _Handler)

    def server_bind(self) -> None:
        """Bind the socket. Unlike the method of HTTPServer, it does not look up the host name."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()

    def process_request(self, request: Any, client_address: Any) -> None:
        """Handle a connection in a new thread.

        If the maximum number of threads is running, wait until one of them has ended.
        """
        while not self._free.acquire(timeout=POLL_SECONDS):
            self.service_actions()
            if self._is_closing:
                self.shutdown_request(request)
                return
        self._connections[request] = time.monotonic()
        threading.Thread(
            target=self._run_connection_thread,
            args=(request, client_address),
            name="hasten monitor request",
            daemon=True,
        ).start()

    def _run_connection_thread(self, request: Any, client_address: Any) -> None:
        """Respond to the request of a connection, and log errors. This is a thread's function."""
        try:
            self.finish_request(request, client_address)
        except OSError as error:  # includes TimeoutError
            logger.debug("metrics: connection of %s ended: %s", client_address, error)
        except Exception:
            logger.exception("metrics: internal error, the request has no response")
        finally:
            self._connections.pop(request, None)
            self.shutdown_request(request)
            self._free.release()

    def service_actions(self) -> None:
        """Close the connections that have lasted too long. Called several times a second."""
        oldest = time.monotonic() - CONNECTION_SECONDS
        for connection, began in list(self._connections.items()):
            if began < oldest:
                with contextlib.suppress(OSError):
                    connection.shutdown(socket.SHUT_RDWR)

    def close(self, *, is_serving: bool) -> None:
        """Accept no more connections, and wait for the responses in progress. Safe to call twice.

        The wait takes at most `CLOSE_SECONDS`. is_serving: `serve_forever` is running in a thread,
        and is stopped first.
        """
        if self._is_closed:
            return
        self._is_closed = self._is_closing = True
        if is_serving:  # otherwise `shutdown` would wait for ever
            self.shutdown()
        self.server_close()
        deadline = time.monotonic() + CLOSE_SECONDS
        for _ in range(MAX_REQUESTS):
            self._free.acquire(timeout=max(0.0, deadline - time.monotonic()))


class _Handler(BaseHTTPRequestHandler):
    """Handles one request of a connection, and closes the connection then (HTTP/1.0)."""

    timeout = REQUEST_SECONDS
    server: _Server

    def do_GET(self) -> None:
        """Respond to a GET request."""
        self._respond(has_body=True)

    def do_HEAD(self) -> None:
        """Respond like to a GET request, without the body."""
        self._respond(has_body=False)

    def _send_method_not_allowed(self) -> None:
        """Send the response 405 to a request whose method is not GET or HEAD."""
        body = json.dumps({"status": "only GET and HEAD are allowed"}).encode()
        headers = {"allow": "GET, HEAD", "content-type": "application/json"}
        self._send(Response(405, headers, body), has_body=True)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = _send_method_not_allowed  # noqa: N815

    def _respond(self, *, has_body: bool) -> None:
        try:
            response = self.server.monitor.respond(
                self.path,
                ",".join(self.headers.get_all("accept", [])),
                ",".join(self.headers.get_all("accept-encoding", [])),
            )
        except Exception:
            logger.exception("metrics: internal error, cannot respond to %s", self.path)
            response = _json_response(500, json.dumps({"status": "internal error"}).encode())
        self._send(response, has_body=has_body)

    def _send(self, response: Response, *, has_body: bool) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(response.body)))
        self.end_headers()
        if has_body:
            self.wfile.write(response.body)

    def version_string(self) -> str:
        """Return the value of the header Server."""
        return "hasten"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002  # the name in http.server
        """Log a request, for debugging only."""
        logger.debug("metrics: %s: " + format, self.client_address[0], *args)  # noqa: G003
