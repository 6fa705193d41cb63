"""Send the responses to requests that a limit refuses."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, cast

from hasten._asgi import ASGIApp, Headers, Message, Send
from hasten._problems import make_refusal_response, prefers_text
from hasten._request_info import RequestInfo
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.limited_request import LimitedRequest
from hasten.ratelimit._http.policy_headers import NAMES, to_retry_after_seconds
from hasten.ratelimit._http.request_checks import await_if_needed
from hasten.ratelimit._http.results import LimitResult

POLICY_VIOLATION: Final = 1008
"""The code with which a refused WebSocket is closed. RFC 6455, section 7.4.1."""

MAX_CACHED: Final = 1_000

_REPLACED: Final = NAMES | {b"retry-after"}


class RefusalResponse(NamedTuple):
    """The part of the response to a refused request that is the same for all clients."""

    status: int
    headers: Headers
    body: bytes


class RefusalSender:
    """Sends responses to refused requests. Caches them, so that refusals are cheap under attack."""

    def __init__(self) -> None:
        self._cache: dict[tuple[Limit, bool, bool, tuple[str, ...]], RefusalResponse] = {}

    async def refuse(self, request: LimitedRequest, send: Send) -> None:
        """Send the response to a request that its limit `request.denied` refuses."""
        denied = request.denied
        assert denied is not None
        if callable(denied.limit.message):
            message = await _call_message_function(denied.limit, request)
            if callable(message):
                await _send_custom_response(cast("ASGIApp", message), request, denied, send)
                return
            is_text = message is None and prefers_text(request.info.header("accept"))
            status, headers, body = _build_refusal(denied, message, is_text=is_text)
        else:
            status, headers, body = self._find_or_build_refusal(request.info, denied)
        if request.reserves:
            await _settle_refused_request(request, status)
        request.has_started = True
        headers = [*headers, _make_retry_after_header(denied), *request.make_headers()]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if request.scope.get("method") == "HEAD":
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def refuse_handshake(self, request: LimitedRequest, send: Send) -> None:
        """Refuse the handshake of a WebSocket: by a response if the server can, else by a close."""
        if "websocket.http.response" not in (request.scope.get("extensions") or ()):
            await _settle_refused_request(request, 403)
            request.has_started = True
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return

        async def send_as_handshake_response(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        await self.refuse(request, send_as_handshake_response)

    def _find_or_build_refusal(self, info: RequestInfo, denied: LimitResult) -> RefusalResponse:
        limit = denied.limit
        is_text = limit.message is None and prefers_text(info.header("accept"))
        key = limit, denied.decisive_outcome.unavailable, is_text, denied.violated_policy_names
        found = self._cache.get(key)
        if found is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            found = self._cache[key] = _build_refusal(denied, limit.message, is_text=is_text)
        return found


def _build_refusal(denied: LimitResult, message: Any, *, is_text: bool) -> RefusalResponse:
    is_unavailable = denied.decisive_outcome.unavailable
    response = make_refusal_response(
        cast("str | Mapping[str, object] | None", message),
        status=503 if is_unavailable else denied.limit.status,
        exceeded_limits=denied.violated_policy_names,
        server_lacks_capacity=is_unavailable,
        is_text=is_text,
    )
    headers = [(name.encode(), value.encode("latin-1")) for name, value in response.headers.items()]
    return RefusalResponse(response.status, headers, response.body)


async def _call_message_function(limit: Limit, request: LimitedRequest) -> object:
    try:
        return await await_if_needed(limit.message(request.info))
    except Exception:  # noqa: BLE001  # raised by the application's function
        request.enforcer.errors.exception(
            f"limit {limit.name!r}: message() failed; the default body is sent"
        )
        return None


async def _send_custom_response(
    response: ASGIApp, request: LimitedRequest, denied: LimitResult, send: Send
) -> None:
    """Send the response that the option `message` returned, with the rate limit headers."""

    async def send_refusal(message: Message) -> None:
        if message["type"] == "http.response.start":
            await _settle_refused_request(request, message["status"])
            request.has_started = True
            kept = [line for line in message["headers"] if line[0].lower() not in _REPLACED]
            headers = [*kept, _make_retry_after_header(denied), *request.make_headers()]
            message = {**message, "headers": headers}
        await send(message)

    scope = request.scope
    if scope["type"] == "websocket":  # responses of frameworks accept only HTTP scopes
        scope = {**scope, "type": "http", "method": "GET"}
    await response(scope, _receive_disconnect, send_refusal)


async def _settle_refused_request(request: LimitedRequest, status: int) -> None:
    """Settle the costs that other limits have reserved for a refused request.

    Call it before the rate limit headers are made: they show what remains after the settlement.
    """
    await request.settle_by_status(status)
    await request.settle_at_request_end()


def _make_retry_after_header(denied: LimitResult) -> tuple[bytes, bytes]:
    return b"retry-after", b"%d" % to_retry_after_seconds(denied.decisive_outcome.retry_us)


async def _receive_disconnect() -> Message:
    """Return a disconnect message, so that a custom response cannot read the request body."""
    return {"type": "http.disconnect"}
