"""One request under its limits: what was taken for it, what is told of that, what is given back."""

from __future__ import annotations

import asyncio
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from hasten._asgi import Headers, Message, Scope, Send
from hasten._decision import Decision
from hasten._loops import trio_token
from hasten._request_info import RequestInfo
from hasten.ratelimit._counter_store import Check, Outcome, Settlement, decision_of, shown
from hasten.ratelimit._http.limit import Limit, MaybeAwaitable
from hasten.ratelimit._http.policy_headers import NAMES, State

if TYPE_CHECKING:
    from hasten.ratelimit._http.middleware import RateLimitMiddleware
    from hasten.ratelimit._http.plans import Plan

T = TypeVar("T")

current: Final[ContextVar[Exchange | None]] = ContextVar("hasten.ratelimit", default=None)
"""The request that this task or thread is about."""


@dataclass(slots=True, eq=False)
class Taken:
    """What one limit has to say of a request."""

    limit: Limit
    checks: Sequence[Check]
    outcomes: Sequence[Outcome]
    keep: bool | None = None
    """What the handler said of it; None if it said nothing."""
    is_settled: bool = False

    @property
    def is_denied(self) -> bool:
        return not all(outcome.ok for outcome in self.outcomes)

    @property
    def told(self) -> Outcome:
        """Of several rates the one that is to be told of."""
        return self.outcomes[0] if len(self.outcomes) == 1 else shown(self.outcomes)

    def decision(self, request: RequestInfo) -> Decision:
        """What callers and observers are told of it."""
        return decision_of(self.limit.name, self.told, shadow=self.limit.shadow, request=request)

    def states(self) -> list[State]:
        """What is told of it, for each of its rates."""
        policies = self.limit.policies
        return [
            State(policies(check.rule), outcome.remaining, outcome.reset_us)
            for check, outcome in zip(self.checks, self.outcomes, strict=True)
        ]

    @property
    def violated(self) -> tuple[str, ...]:
        """The names of those of its rates that deny, as answers tell them."""
        if len(self.checks) == 1:  # most limits have one
            return (self.limit.name,)
        return tuple(
            self.limit.policies(check.rule).name
            for check, outcome in zip(self.checks, self.outcomes, strict=False)
            if not outcome.ok
        )

    def settlements(self, *, keep: bool) -> list[Settlement]:
        """Ends what was reserved, once."""
        if self.is_settled:
            return []
        self.is_settled = True
        return [
            Settlement(outcome.token, check.cost if keep else 0)
            for check, outcome in zip(self.checks, self.outcomes, strict=True)
            if outcome.token is not None
        ]

    def give_back(self) -> None:
        """What is told from now on counts a refund in."""
        self.outcomes = [
            outcome
            if outcome.token is None
            else outcome._replace(remaining=min(outcome.limit, outcome.remaining + check.cost))
            for check, outcome in zip(self.checks, self.outcomes, strict=True)
        ]


_NOTHING: Final[tuple[Sequence[State], State | None]] = ((), None)


class Exchange:
    """A request that some limits are for.

    outer is the same request under another middleware around this one, if there is one.
    """

    __slots__ = (
        "_told_inside",
        "denied",
        "hand_on",
        "has_started",
        "loop",
        "make_fields",
        "middleware",
        "outer",
        "request",
        "taken",
    )  # fmt: skip

    def __init__(
        self,
        middleware: RateLimitMiddleware,
        request: RequestInfo,
        send: Send,
        outer: Exchange | None = None,
    ) -> None:
        self.middleware = middleware
        self.outer: Final = outer
        self.request = request
        self.taken: list[Taken] = []
        self.denied: Taken | None = None
        """The limit that refuses it, once one does."""
        self.has_started = False
        try:
            self.loop: AbstractEventLoop | Any = asyncio.get_running_loop()
        except RuntimeError:
            self.loop = trio_token()
        self.make_fields: Callable[[Sequence[Outcome]], Headers] | None = None
        """What tells of what was taken, if that is all of what a plan tells of."""
        self.hand_on = send
        self._told_inside: tuple[Sequence[State], State | None] = _NOTHING
        """What a middleware inside this one has to tell: the states, and the one that refuses."""

    @property
    def scope(self) -> Scope:
        return self.request.scope

    @property
    def is_to_be_refused(self) -> bool:
        """Whether a handler was refused, and nothing has been answered yet."""
        return self.denied is not None and not self.has_started

    async def send(self, message: Message) -> None:
        """Hand on what the application sends, and tell with its head what is left."""
        if message["type"] == "http.response.start" and not self.has_started:
            if self.denied is not None:
                return  # a refusal is sent in the place of whatever the framework makes of it
            status = message["status"]
            if status >= 400 and not await self.middleware.take_missed(self, status):
                return
            self.has_started = True
            if self.middleware.settles:
                await self.settle(status)
            fields = self.fields()
            if fields:
                headers = message.get("headers", ())
                # In the place of those that another one has set.
                kept = [line for line in headers if line[0].lower() not in NAMES]
                message = {**message, "headers": kept + fields}
        elif self.denied is not None and not self.has_started:
            return
        await self.hand_on(message)
        if self.middleware.settles and is_last(message):
            # What the application does after its answer takes no place of others.
            await self.finish()

    def fields(self) -> Headers:
        """The header fields that tell what is left."""
        taken, denied = self.taken, self.denied
        inside, violated = self._told_inside
        if self.make_fields is not None and self.outer is None and not inside:
            outcomes = taken[0].outcomes  # all there are, mostly
            if len(taken) > 1:
                outcomes = [outcome for each in taken for outcome in each.outcomes]
            if denied is None or len(outcomes) == 1:
                return self.make_fields(outcomes)
        states = [state for each in taken if each.limit.is_told for state in each.states()]
        states += inside
        if denied is not None and denied.limit.headers and denied.checks:
            violated = denied.states()[denied.outcomes.index(denied.told)]
        if self.outer is not None and self.outer.middleware.fields.are_there:
            # It replaces what this one would write, so it tells of both.
            self.outer._told_inside = (states, violated)
            return []
        return self.middleware.fields.of(states, violated)

    async def settle(self, status: int | None) -> None:
        """Keep or give back what was reserved, now that it is known how the request ends.

        Slots of concurrency are kept until `finish`: the body is still to come.
        """
        self.request.status = status
        settlements: list[Settlement] = []
        for each in self.taken:
            if not each.limit.is_settled or each.is_settled or each.limit.is_concurrency:
                continue
            keep = each.keep
            if keep is None:
                is_success = await self._is_success(each.limit, status)
                keep = each.limit.keeps(status, is_success)
            settlements += each.settlements(keep=keep)
            if not keep:
                each.give_back()
        if settlements:
            self.middleware.guard.settle_soon(settlements)

    async def fail(self) -> None:
        """The application has raised: the answer, if there was none, is made by others, a 500."""
        if not self.has_started:
            await self.settle(500)

    async def finish(self) -> None:
        """Settle what is left when nothing more will come: places that were taken, and all else
        of a request that was never answered."""
        if not self.has_started:
            await self.settle(None if self.denied is None else self.denied.limit.status)
        settlements = [
            one
            for each in self.taken
            if each.limit.is_concurrency
            for one in each.settlements(keep=False)
        ]
        if settlements:
            self.middleware.guard.settle_soon(settlements)

    def counted_by(self, namespace: str) -> list[Limit]:
        """The limits that middlewares of this namespace have counted here and around it."""
        found = (
            [each.limit for each in self.taken] if self.middleware.namespace == namespace else []
        )
        return found if self.outer is None else found + self.outer.counted_by(namespace)

    async def _is_success(self, limit: Limit, status: int | None) -> bool:
        if status is None:
            return False
        if limit.is_success is None:
            return status < 400
        try:
            return bool(await answer_of(limit.is_success(self.request)))
        except Exception:  # noqa: BLE001  # of the application's own function
            what = f"{limit.name}: is_success failed; the request is counted"
            self.middleware.errors.exception(what)
            return limit.skip_failed


class SocketExchange(Exchange):
    """A WebSocket that some limits are for. of_messages are those of its messages.

    Nothing replaces the headers of what the application sends, so a middleware inside this one
    tells of its limits by itself: around is not `outer`.
    """

    __slots__ = ("_around", "_of_messages")

    def __init__(
        self,
        middleware: RateLimitMiddleware,
        request: RequestInfo,
        send: Send,
        around: Exchange | None,
        of_messages: Plan | None,
    ) -> None:
        super().__init__(middleware, request, send)
        self._around = around
        self._of_messages = of_messages

    def counted_by(self, namespace: str) -> list[Limit]:
        found = super().counted_by(namespace)
        if self._of_messages is not None and self.middleware.namespace == namespace:
            found += self._of_messages.limits
        return found if self._around is None else found + self._around.counted_by(namespace)


def is_last(message: Message) -> bool:
    """Whether nothing of the response follows."""
    match message["type"]:
        case "http.response.body":
            return not message.get("more_body", False)
        case "http.response.pathsend":
            return True
    return False


async def answer_of(found: MaybeAwaitable[T]) -> T:
    return await found if isawaitable(found) else found
