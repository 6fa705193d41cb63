"""Responses to refused requests, which replace the responses of the application."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from hasten._asgi import ASGIApp, Headers, Message, Send
from hasten._problems import make_refusal, prefers_text
from hasten._request_info import RequestInfo
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.limited_request import LimitedRequest
from hasten.ratelimit._http.policy_headers import NAMES, retry_after
from hasten.ratelimit._http.request_checks import result_of
from hasten.ratelimit._http.results import LimitResult

POLICY_VIOLATION: Final = 1008
"""The code that closes a WebSocket. RFC 6455, section 7.4.1."""

MAX_CACHED: Final = 1_000

_REPLACED: Final = NAMES | {b"retry-after"}


class Refusal(NamedTuple):
    """A response without the headers that differ from client to client."""

    status: int
    headers: Headers
    body: bytes


class Refusals:
    """Sends refusals, and caches those that are always the same: an attack is refused from here."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Limit, bool, bool, tuple[str, ...]], Refusal] = {}

    async def refuse(self, request: LimitedRequest, send: Send) -> None:
        """Send the refusal of a request."""
        denied = request.denied
        assert denied is not None
        if callable(denied.limit.message):
            message = await _message(denied.limit, request)
            if callable(message):
                await _refuse_by(cast("ASGIApp", message), request, denied, send)
                return
            is_text = message is None and prefers_text(request.info.header("accept"))
            status, headers, body = _make(denied, message, is_text=is_text)
        else:
            status, headers, body = self._find(request.info, denied)
        if request.reserves:
            await _settle(request, status)
        request.has_started = True
        headers = [*headers, _retry_after(denied), *request.headers()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if request.scope.get("method") == "HEAD":
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def refuse_handshake(self, request: LimitedRequest, send: Send) -> None:
        """Refuse the handshake of a WebSocket: with a response, or by closing it."""
        if "websocket.http.response" not in (request.scope.get("extensions") or ()):
            await _settle(request, 403)
            request.has_started = True
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return

        async def send_for_handshake(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        await self.refuse(request, send_for_handshake)

    def _find(self, info: RequestInfo, denied: LimitResult) -> Refusal:
        limit = denied.limit
        is_text = limit.message is None and prefers_text(info.header("accept"))
        key = limit, denied.effective.unavailable, is_text, denied.violated_policies
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            found = self._cache[key] = _make(denied, limit.message, is_text=is_text)
        return found


def _make(denied: LimitResult, message: Any, *, is_text: bool) -> Refusal:
    is_unavailable = denied.effective.unavailable
    response = make_refusal(
        cast("str | Mapping[str, object] | None", message),
        status=503 if is_unavailable else denied.limit.status,
        limits=denied.violated_policies,
        is_busy=is_unavailable,
        is_text=is_text,
    )
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers.items()]
    return Refusal(response.status, headers, response.body)


async def _message(limit: Limit, request: LimitedRequest) -> object:
    try:
        return await result_of(limit.message(request.info))
    except Exception:  # noqa: BLE001  # of the application's own function
        request.enforcer.errors.exception(f"{limit.name}: message() failed")
        return None


async def _refuse_by(
    response: ASGIApp, request: LimitedRequest, denied: LimitResult, send: Send
) -> None:
    """Send a response of the application, with the headers of limits."""

    async def send_refusal(message: Message) -> None:
        if message["type"] == "http.response.start":
            await _settle(request, message["status"])
            request.has_started = True
            kept = [line for line in message["headers"] if line[0].lower() not in _REPLACED]
            headers = [*kept, _retry_after(denied), *request.headers()]
            message = {**message, "headers": headers}
        await send(message)

    scope = request.scope
    if scope["type"] == "websocket":  # responses are written for HTTP
        scope = {**scope, "type": "http", "method": "GET"}
    await response(scope, _receive_nothing, send_refusal)


async def _settle(request: LimitedRequest, status: int) -> None:
    """Settle what other limits have taken for a refused request, before headers describe it."""
    await request.settle(status)
    await request.finish()


def _retry_after(denied: LimitResult) -> tuple[bytes, bytes]:
    return b"retry-after", b"%d" % retry_after(denied.effective.retry_us)


async def _receive_nothing() -> Message:
    """Return a disconnect: a refusal does not read the request."""
    return {"type": "http.disconnect"}
