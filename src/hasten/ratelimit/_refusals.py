"""How a request is refused, in the place of the application's answer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from hasten._asgi import ASGIApp, Headers, Message, Send
from hasten._problems import CAPACITY, QUOTA, prefers_text, refusal
from hasten._request_info import RequestInfo
from hasten.ratelimit._definitions import Limit
from hasten.ratelimit._exchange import Exchange, Taken, answer_of
from hasten.ratelimit._fields import NAMES, retry_after
from hasten.ratelimit._sockets import POLICY_VIOLATION

MAX_KNOWN: Final = 1_000

_OWN: Final = NAMES | {b"retry-after"}


class Refusal(NamedTuple):
    """An answer, without what differs from one client to the other."""

    status: int
    headers: Headers
    body: bytes


class Refusals:
    """Makes them, and keeps those that are the same each time: an attack is answered from here."""

    def __init__(self) -> None:
        self._known: dict[tuple[Limit, bool, bool, tuple[str, ...]], Refusal] = {}

    async def refuse(self, exchange: Exchange, send: Send) -> None:
        """Answer a request."""
        denied = exchange.denied
        assert denied is not None
        limit, is_away, names = denied.limit, denied.told.unavailable, denied.violated
        if callable(limit.message):
            message = await _message(limit, exchange)
            if callable(message):
                await _refuse_by(cast("ASGIApp", message), exchange, denied, send)
                return
            is_text = message is None and prefers_text(exchange.request.header("accept"))
            status, headers, body = _make(limit, names, message, is_away=is_away, is_text=is_text)
        else:
            status, headers, body = self._find(exchange.request, limit, names, is_away=is_away)
        if exchange.middleware.settles:
            await _settle(exchange, status)
        exchange.has_started = True
        told = _told(exchange, denied)
        await send({"type": "http.response.start", "status": status, "headers": headers + told})
        if exchange.scope.get("method") == "HEAD":
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def refuse_handshake(self, exchange: Exchange, send: Send) -> None:
        """Answer the handshake of a WebSocket, or where servers cannot do that, close it."""
        if "websocket.http.response" not in (exchange.scope.get("extensions") or ()):
            await _settle(exchange, 403)
            exchange.has_started = True
            await send({"type": "websocket.close", "code": POLICY_VIOLATION})
            return

        async def send_for_handshake(message: Message) -> None:
            await send({**message, "type": f"websocket.{message['type']}"})

        await self.refuse(exchange, send_for_handshake)

    def _find(
        self, request: RequestInfo, limit: Limit, names: tuple[str, ...], *, is_away: bool
    ) -> Refusal:
        is_text = limit.message is None and prefers_text(request.header("accept"))
        found = self._known.get((limit, is_away, is_text, names))
        if found is None:
            if len(self._known) >= MAX_KNOWN:
                self._known.clear()
            found = _make(limit, names, limit.message, is_away=is_away, is_text=is_text)
            self._known[limit, is_away, is_text, names] = found
        return found


def _make(
    limit: Limit, names: Sequence[str], message: Any, *, is_away: bool, is_text: bool
) -> Refusal:
    answer = refusal(
        cast("str | Mapping[str, object] | None", message),
        status=503 if is_away else limit.status,
        limits=names,
        kind=CAPACITY if is_away else QUOTA,
        is_text=is_text,
    )
    headers = [(name.encode(), value.encode("latin-1")) for name, value in answer.headers.items()]
    return Refusal(answer.status, headers, answer.body)


async def _message(limit: Limit, exchange: Exchange) -> object:
    try:
        return await answer_of(limit.message(exchange.request))
    except Exception:  # noqa: BLE001  # of the application's own function
        exchange.middleware.errors.exception(f"{limit.name}: its message failed")
        return None


async def _refuse_by(response: ASGIApp, exchange: Exchange, denied: Taken, send: Send) -> None:
    """Answer with a response of the application's own, and say with it when to come again."""

    async def send_refusal(message: Message) -> None:
        if message["type"] == "http.response.start":
            await _settle(exchange, message["status"])
            exchange.has_started = True
            kept = [line for line in message["headers"] if line[0].lower() not in _OWN]
            message = {**message, "headers": kept + _told(exchange, denied)}
        await send(message)

    scope = exchange.scope
    if scope["type"] == "websocket":  # an answer is one of HTTP, wherever it goes
        scope = {**scope, "type": "http", "method": "GET"}
    await response(scope, _nothing, send_refusal)


async def _settle(exchange: Exchange, status: int) -> None:
    """A refused request ends here: what was taken for it by others is settled before it is told."""
    await exchange.settle(status)
    await exchange.finish()


def _told(exchange: Exchange, denied: Taken) -> Headers:
    after = retry_after(denied.told.retry_us)
    return [(b"retry-after", b"%d" % after), *exchange.fields()]


async def _nothing() -> Message:
    """A refusal reads nothing of its request."""
    return {"type": "http.disconnect"}
