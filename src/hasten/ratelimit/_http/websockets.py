"""Apply limits to a WebSocket: to its handshake, and to the messages of the client."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from hasten._asgi import Message, Receive, Scope, Send
from hasten.ratelimit._http.enforcer import Enforcer
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.limited_request import LimitedRequest
from hasten.ratelimit._http.plans import LimitPlan
from hasten.ratelimit._http.refusals import POLICY_VIOLATION

_STATUSES: Final[Mapping[str, int | None]] = {
    "websocket.accept": 101,
    "websocket.close": 403,
    "websocket.http.response.start": None,
}
"""The ASGI messages that answer a handshake, and the status that limits see for each.

None: the message itself has the status.
"""


class LimitedWebSocket(LimitedRequest):
    """A WebSocket that limits apply to.

    - message_plan: the limits of the messages that the client sends, None if there are none.
    - outer_websocket: the same WebSocket in the next outer middleware, None if there is none.
      Unlike the `outer` of an HTTP request, it does not write the headers of both middlewares: each
      middleware describes its own limits in the response to the handshake.
    """

    def __init__(
        self,
        enforcer: Enforcer,
        scope: Scope,
        receive: Receive,
        send: Send,
        find_route_path: Callable[[Scope], str],
        *,
        message_plan: LimitPlan | None,
        outer_websocket: LimitedRequest | None,
    ) -> None:
        super().__init__(enforcer, scope, send, find_route_path)
        self._receive = receive
        self._message_plan = message_plan
        self._around = outer_websocket
        self._is_closed = False

    def find_already_counted_limits(self, namespace: str) -> list[Limit]:
        """Return the limits that this middleware and those outside of it have counted.

        Only middlewares of this namespace are included.
        """
        found = super().find_already_counted_limits(namespace)
        if self._message_plan is not None and self.enforcer.namespace == namespace:
            found += self._message_plan.limits
        return (
            found
            if self._around is None
            else found + self._around.find_already_counted_limits(namespace)
        )

    async def receive(self) -> Message:
        """Return the next message of the client.

        If it exceeds a limit, close the connection and return a message of disconnection instead.
        """
        if not self._is_closed:
            message = await self._receive()
            if message["type"] != "websocket.receive" or await self._is_message_allowed():
                return message
            self._is_closed = True
            await self.server_send({"type": "websocket.close", "code": POLICY_VIOLATION})
        return {"type": "websocket.disconnect", "code": POLICY_VIOLATION}

    async def send(self, message: Message) -> None:
        """Send a message, unless a limit has disconnected the client or refused the handshake."""
        if self._is_closed:
            return
        if not self.has_started:
            if self.denied is not None:
                return  # the middleware sends the refusal instead
            if message["type"] in _STATUSES:
                self.has_started = True
                await self.settle_by_status(_STATUSES[message["type"]] or message.get("status"))
        await self.server_send(message)

    async def _is_message_allowed(self) -> bool:
        if self._message_plan is None:
            return True
        results = await self.enforcer.enforce(self.info, self._message_plan, self._route_of)
        await self.enforcer.call_on_decision_and_on_limited(results, self.info)
        return not any(result.refuses for result in results)
