"""What browsers visit: the demo in one coding only, live events.

`uvicorn tests.acceptance.web:app` serves it. Of each answer /seen tells what was really sent, and
what a page finds out it posts to /reports: so nobody has to trust what a browser says of itself.
"""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Final

from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from examples.send_email.app import app as demo
from hasten.compression import CompressionMiddleware

CODINGS: Final = ("zstd", "br", "gzip")

WORDS: Final = json.dumps([{"id": n, "word": f"Wörter {n * n}"} for n in range(2000)]).encode()

EVENTS: Final = 5

# Posts to /reports/NAME what it could read of a URL, or why it could not.
FETCHING: Final = """<!doctype html><script>
  const {name, url} = %s;
  const report = text => fetch(`/reports/${name}`, {method: "POST", body: text});
  fetch(url).then(answer => answer.text()).then(report, error => report(String(error)));
</script>"""

# Posts to /reports/EVENT each event that it hears.
LISTENING: Final = """<!doctype html><script>
  const {url, last} = %s;
  const source = new EventSource(url);
  source.onmessage = ({data}) => {
    if (data === last) source.close();
    fetch(`/reports/${data}`, {method: "POST"});
  };
</script>"""


recorded: Final[dict[str, dict[str, str | None]]] = {}


class Recorded:
    """Keeps the Content-Encoding and body of the latest response at each path."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        entry = recorded[scope["path"]] = {}
        body = b""

        async def record(message: Message) -> None:
            nonlocal body
            if message["type"] == "http.response.start":
                entry["used"] = Headers(raw=message["headers"]).get("content-encoding")
            else:
                body += message.get("body", b"")
                entry["body"] = body.hex()
            await send(message)

        await self.app(scope, receive, record)


class Only:
    """Removes all codings but one from the Accept-Encoding of browsers."""

    def __init__(self, app: ASGIApp, coding: str) -> None:
        self.app = app
        self.coding = coding

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = MutableHeaders(raw=list(scope["headers"]))
        offered = headers.get("accept-encoding", "").split(", ")
        headers["accept-encoding"] = self.coding if self.coding in offered else "identity"
        await self.app({**scope, "headers": headers.raw}, receive, send)


class Report:
    """The report of a page."""

    def __init__(self) -> None:
        self.is_there = asyncio.Event()
        self.text = b""


reports: Final = defaultdict[str, Report](Report)


async def report(request: Request) -> Response:
    """POST stores the report, and GET waits for it."""
    report = reports[request.path_params["name"]]
    if request.method == "POST":
        report.text = await request.body()
        report.is_there.set()
        return Response(status_code=204)
    await report.is_there.wait()
    return Response(report.text)


async def seen(request: Request) -> Response:
    """Return what was recorded of the path."""
    return JSONResponse(recorded["/" + request.path_params["path"]])


async def fetching(request: Request) -> Response:
    return HTMLResponse(FETCHING % json.dumps(dict(request.query_params)))


async def listening(request: Request) -> Response:
    coding = request.path_params["coding"]
    facts = {"url": f"/events/{coding}", "last": f"{coding}-{EVENTS}"}
    return HTMLResponse(LISTENING % json.dumps(facts))


async def words(request: Request) -> Response:
    return Response(WORDS, media_type="application/json")


async def events(coding: str, request: Request) -> Response:
    """Each event waits until the page has reported the one before it."""

    async def send() -> AsyncIterator[str]:
        for number in range(1, EVENTS + 1):
            event = f"{coding}-{number}"
            yield f"data: {event}\n\n"
            await reports[event].is_there.wait()

    return StreamingResponse(send(), media_type="text/event-stream")


def live(coding: str) -> Route:
    compression = Middleware(CompressionMiddleware, encodings=[coding])
    return Route(f"/events/{coding}", partial(events, coding), middleware=[compression])


@asynccontextmanager
async def lifespan(_: Starlette) -> AsyncIterator[None]:
    async with demo.router.lifespan_context(demo):
        yield


app = Starlette(
    routes=[
        Route("/reports/{name}", report, methods=["GET", "POST"]),
        Route("/seen/{path:path}", seen),
        Route("/fetching", fetching),
        Route("/listening/{coding}", listening),
        Route("/words", words),
        *map(live, CODINGS),
        *(Mount(f"/demo/{coding}", Only(demo, coding)) for coding in CODINGS),
    ],
    middleware=[Middleware(Recorded)],
    lifespan=lifespan,
)
