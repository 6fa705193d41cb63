"""A client that drives an ASGI application in this process, message by message.

It is a strict server, too: messages out of order, or a body of another length than declared, fail
the test. What reached the client can be looked at after every `send` of the application: whatever
runs after that `send` reads `Exchange.messages`.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self, TypeAlias

from tests.http.codings import decode, decode_beginning

Scope: TypeAlias = MutableMapping[str, Any]
Message: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[Message]]
Send: TypeAlias = Callable[[Message], Awaitable[None]]
App: TypeAlias = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

BODILESS = frozenset({204, 205, 304})


class Patience:
    """The time-out of a condition, far longer than it should take."""

    seconds = 60.0


async def until(condition: Callable[[], object], what: str = "the condition") -> None:
    """Wait until a condition is true, by polling."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(Patience.seconds):
            while not condition():
                await asyncio.sleep(0.001)
    assert condition(), f"waited in vain for {what}"


async def stays(condition: Callable[[], object], what: str, *, seconds: float = 0.05) -> None:
    """Fail if a condition does not stay true while other tasks run."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while condition():
                await asyncio.sleep(0.001)
    assert condition(), what


@dataclass
class Response:
    """The response as the client received it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_whole: bool
    messages: list[Message] = field(default_factory=list, repr=False)

    def all(self, name: str) -> list[str]:
        wanted = name.lower().encode()
        return [value.decode("latin-1") for key, value in self.headers if key.lower() == wanted]

    def get(self, name: str) -> str | None:
        """Return the value of a header. Several lines are combined: RFC 9110, section 5.3."""
        values = self.all(name)
        return ", ".join(values) if values else None

    def members(self, name: str) -> list[str]:
        """Return the members of a list header, in lower case."""
        members = (member.strip().lower() for member in ",".join(self.all(name)).split(","))
        return [member for member in members if member]

    @property
    def coding(self) -> str | None:
        return self.get("content-encoding")

    def decoded(self) -> bytes:
        assert self.is_whole, "the response has not ended"
        return self.body if self.coding is None else decode(self.coding, self.body)


class Exchange:
    """One request and its response. Entering starts the application, and leaving ends it."""

    def __init__(
        self, app: App, scope: Scope, body: Iterable[bytes], *, raises_when_gone: bool = False
    ) -> None:
        self.scope = scope
        self.messages: list[Message] = []
        self.receives = 0  # messages of the request that the application has received
        self.raises_when_gone = raises_when_gone
        self._app = app
        self._parts = list(body) or [b""]
        self._open = asyncio.Event()
        self._open.set()
        self._is_gone = False
        self._over = asyncio.Event()  # the client has disconnected, or has its response
        self._task: asyncio.Task[None] | None = None
        self._around = contextlib.ExitStack()

    async def __aenter__(self) -> Self:
        around = getattr(self._app, "around", contextlib.nullcontext)  # see hosts.Leaky
        self._around.enter_context(around())
        self._task = asyncio.create_task(self._run(), name="exchange")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()
        if not self.task.done():
            self.task.cancel()
        await asyncio.wait([self.task])
        if not self.task.cancelled():
            self.task.exception()  # others have reported it
        self._around.close()

    async def _run(self) -> None:
        await self._app(self.scope, self.receive, self.send)

    @property
    def task(self) -> asyncio.Task[None]:
        assert self._task is not None
        return self._task

    # What the application calls

    async def receive(self) -> Message:
        if self.receives < len(self._parts):
            part = self._parts[self.receives]
            self.receives += 1
            more = self.receives < len(self._parts)
            return {"type": "http.request", "body": part, "more_body": more}
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        await self._open.wait()
        if self._is_gone:
            if self.raises_when_gone:
                raise OSError("the client is gone")
            return
        self._check_order(message)
        if message["type"] == "http.response.start":
            headers = [(bytes(name), bytes(value)) for name, value in message.get("headers", ())]
            message = {**message, "headers": headers}
        self.messages.append({**message})
        if self.has_ended:
            self._over.set()

    def _check_order(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            assert not self.has_started, "a response started twice"
        elif kind == "http.response.body":
            assert self.has_started, "a body before the start"
            assert not self.has_ended, "a body after the end"

    # What the test reads

    @property
    def start(self) -> Message | None:
        return next((m for m in self.messages if m["type"] == "http.response.start"), None)

    @property
    def has_started(self) -> bool:
        return self.start is not None

    @property
    def has_ended(self) -> bool:
        return any(
            m["type"] == "http.response.pathsend"
            or (
                m["type"] in {"http.response.body", "http.response.zerocopysend"}
                and not m.get("more_body", False)
            )
            for m in self.messages
        )

    @property
    def body(self) -> bytes:
        bodies = (m for m in self.messages if m["type"] == "http.response.body")
        return b"".join(bytes(message.get("body", b"")) for message in bodies)

    def so_far(self) -> Response:
        start: Message = self.start or {"status": 0, "headers": []}
        return Response(
            start["status"], start["headers"], self.body, self.has_ended, list(self.messages)
        )

    def decoded(self) -> bytes:
        """Return the decoded body so far."""
        if not self.has_started:
            return b""
        return decode_beginning(self.so_far().coding or "identity", self.body)

    async def until(self, condition: Callable[[], object], what: str = "the condition") -> None:
        await until(condition, what)

    async def until_read(self, body: bytes) -> None:
        await until(lambda: self.decoded() == body, f"{body[-40:]!r} to be decodable")

    async def ended(self) -> BaseException | None:
        """Wait for the application to return, and return its exception or None."""
        done, _ = await asyncio.wait([self.task], timeout=Patience.seconds)
        assert done, "the application did not return"
        if self.task.cancelled():
            return asyncio.CancelledError()
        return self.task.exception()

    async def response(self) -> Response:
        """Wait for the whole response. Exceptions of the application are raised."""
        error = await self.ended()
        if error is not None:
            raise error
        assert self.has_started, "the application returned without a response"
        assert self.has_ended, "the application returned without ending its response"
        response = self.so_far()
        self._check_length(response)
        return response

    def _check_length(self, response: Response) -> None:
        declared = response.all("content-length")
        assert len(declared) <= 1, "several content-length"
        if self.scope["method"] == "HEAD" or response.status in BODILESS:
            return
        if declared and all(m["type"].endswith((".start", ".body")) for m in self.messages):
            assert int(declared[0]) == len(response.body), "content-length is not what was sent"

    # What the test does

    def hold(self) -> None:
        """Stop reading, so that each send of the application waits."""
        self._open.clear()

    def release(self) -> None:
        self._open.set()

    def disconnect(self) -> None:
        self._is_gone = True
        self._over.set()

    async def cancel(self) -> None:
        self.task.cancel()
        await asyncio.wait([self.task], timeout=Patience.seconds)
        assert self.task.done(), "the application outlived its cancellation"


class Client:
    def __init__(self, app: App) -> None:
        self._app = app

    def open(
        self,
        accept: str | Sequence[str] | None = None,
        *,
        headers: Headers = (),
        method: str = "GET",
        path: str = "/",
        query: bytes = b"",
        body: Iterable[bytes] = (b"",),
        scheme: str = "https",
        extensions: dict[str, Any] | None = None,
        raises_when_gone: bool = False,
    ) -> Exchange:
        """Prepare a request. accept is the Accept-Encoding. A list makes several lines."""
        lines = [accept] if isinstance(accept, str) else list(accept or ())
        scope: Scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "1.1",
            "method": method,
            "scheme": scheme,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query,
            "root_path": "",
            "headers": [
                (b"host", b"example.org"),
                *((b"accept-encoding", line.encode("latin-1")) for line in lines),
                *headers,
            ],
            "client": ("192.0.2.1", 4711),
            "server": ("example.org", 443),
            "state": {},
        }
        if extensions is not None:
            scope["extensions"] = extensions
        return Exchange(self._app, scope, body, raises_when_gone=raises_when_gone)

    async def get(self, accept: str | Sequence[str] | None = None, **request: Any) -> Response:
        async with self.open(accept, **request) as exchange:
            return await exchange.response()

    async def head(self, accept: str | None = None, **request: Any) -> Response:
        return await self.get(accept, method="HEAD", **request)

    async def post(self, body: Iterable[bytes], **request: Any) -> Response:
        return await self.get(None, method="POST", body=body, **request)
