"""One WebSocket under its limits: those of its handshake, and those of its messages."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from hasten._asgi import Message, Receive
from hasten.ratelimit._http.limited_request import Exchange

POLICY_VIOLATION: Final = 1008
"""RFC 6455, section 7.4.1."""

_STATUSES: Final[Mapping[str, int | None]] = {
    "websocket.accept": 101,
    "websocket.close": 403,
    "websocket.http.response.start": None,
}
"""What answers a handshake, and with which status; None for the one that is in the message."""


class Connection:
    """What stands between an application and its WebSocket.

    takes_message says whether one more message may pass; None if there is no limit of messages.
    """

    def __init__(
        self,
        exchange: Exchange,
        takes_message: Callable[[], Awaitable[bool]] | None,
        receive: Receive,
    ) -> None:
        self._exchange = exchange
        self._takes_message = takes_message
        self._receive = receive
        self._is_cut_off = False

    async def receive(self) -> Message:
        """As the server's, up to the message that is one too many: with it the client is gone."""
        if not self._is_cut_off:
            message = await self._receive()
            if self._takes_message is None or message["type"] != "websocket.receive":
                return message
            if await self._takes_message():
                return message
            self._is_cut_off = True
            await self._exchange.hand_on({"type": "websocket.close", "code": POLICY_VIOLATION})
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}

    async def send(self, message: Message) -> None:
        """As the server's; to who is gone it sends nothing, as servers do."""
        exchange = self._exchange
        if self._is_cut_off:
            return
        if not exchange.has_started:
            if exchange.denied is not None:
                return  # the refusal is sent in the place of it
            if message["type"] in _STATUSES:
                exchange.has_started = True
                await exchange.settle(_STATUSES[message["type"]] or message.get("status"))
        await exchange.hand_on(message)
