"""Write the page of metrics in the format that a client accepts."""

from __future__ import annotations

import gzip
from typing import NamedTuple

from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from hasten._asgi import Headers, Receive, Scope, Send, join_header_values
from hasten._loops import run_in_thread
from hasten._quality import parse_weights_in_thousandths
from hasten._responses import send_response


class Page(NamedTuple):
    """A page of metrics: its body and headers."""

    body: bytes
    headers: dict[str, str]


def make_page(collector: Collector, accept: str, accept_encoding: str) -> Page:
    """Collect all metrics, and write them as OpenMetrics or as Prometheus' text format.

    accept and accept_encoding are headers of the request, empty if missing.
    """
    encode, content_type = choose_encoder(accept)
    body = encode(collector)
    headers = {"content-type": content_type, "vary": "accept, accept-encoding"}
    if parse_weights_in_thousandths(accept_encoding).get("gzip", 0):
        body = gzip.compress(body, compresslevel=5, mtime=0)
        headers["content-encoding"] = "gzip"
    return Page(body, headers)


class MetricsPage:
    """The page of metrics of a collector, as an ASGI application."""

    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Respond to a request."""
        if scope["type"] != "http":
            return
        if scope["method"] not in ("GET", "HEAD"):
            await send_response(scope, send, 405, [(b"allow", b"GET, HEAD")], b"")
            return
        accept, encoding = (_header(scope, name) for name in (b"accept", b"accept-encoding"))
        page = await run_in_thread(make_page, self._collector, accept, encoding)
        headers: Headers = [(k.encode(), v.encode()) for k, v in page.headers.items()]
        await send_response(scope, send, 200, headers, page.body)


def _header(scope: Scope, name: bytes) -> str:
    return (join_header_values(list(scope["headers"]), name) or b"").decode("latin-1")
