"""The enforcer holds requests against limits.

A middleware has one, and `@limit` and `RateLimited` use the same one for the limits of routes. All
middlewares that Litestar makes for the routes of one application share one.

The limits of a request are checked by one call of the store, which takes one round trip, whatever
their number. They are taken in their order up to the first that refuses: earlier ones stay charged,
later ones are not touched.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hasten._asgi import Scope
from hasten._loops import require_asyncio
from hasten._repeated_errors import RepeatedErrors
from hasten._request_info import RequestInfo
from hasten.ratelimit._circuit_breaker import PAUSE_US
from hasten.ratelimit._counter_store import (
    CheckGroup,
    OnStoreError,
    Outcome,
    find_effective_outcome,
)
from hasten.ratelimit._http.clients import Clients
from hasten.ratelimit._http.decision_log import DecisionLog
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.operator_warnings import OperatorWarnings
from hasten.ratelimit._http.plans import Plan
from hasten.ratelimit._http.policy_headers import HeaderWriter
from hasten.ratelimit._http.request_checks import FunctionFailed, RequestChecks, await_if_needed
from hasten.ratelimit._http.results import LimitResult
from hasten.ratelimit._resilient_store import ResilientStore

_UNAVAILABLE: Final = Outcome(False, 0, 0, PAUSE_US, PAUSE_US, unavailable=True)


class Enforcer:
    """Holds requests against limits, and counts and reports the decisions.

    on_store_error applies to limits without a value of their own. Of two enforcers of one namespace
    around a request, only one counts equal limits.
    """

    def __init__(
        self,
        store: ResilientStore,
        *,
        clients: Clients,
        writer: HeaderWriter,
        decisions: DecisionLog,
        errors: RepeatedErrors,
        warnings: OperatorWarnings,
        on_store_error: OnStoreError,
        namespace: str,
    ) -> None:
        self.store: Final = store
        self.client_of: Final = clients.client_of
        """Returns the client of a request."""
        self.writer: Final = writer
        self.decisions: Final = decisions
        self.errors: Final = errors
        self.warnings: Final = warnings
        self.namespace: Final = namespace
        self.immediate: Final = store.immediate if decisions.on_decision is None else None
        """A store to call without waiting; None if there is none, or an observer to call."""
        self._checks = RequestChecks(on_store_error, errors, warnings)
        self._on_store_error: OnStoreError = on_store_error
        self._plans: dict[tuple[Limit, ...], Plan] = {}

    def require_loop(self) -> None:
        """Raise `AsyncioRequired` if the store cannot work on the running event loop."""
        if self.store.immediate is None:
            require_asyncio(
                f"RateLimitMiddleware with {type(self.store.store).__name__}",
                "use store='memory://', or serve with asyncio",
            )

    def plan_of(self, limits: tuple[Limit, ...]) -> Plan:
        """Return the plan for requests under these limits."""
        plan = self._plans.get(limits)
        if plan is None:
            plan = self._plans[limits] = Plan(limits, self.writer, self._on_store_error)
        return plan

    async def enforce(
        self, request: RequestInfo, plan: Plan, route_of: Callable[[Scope], str]
    ) -> list[LimitResult]:
        """Hold a request against limits. After a refusal, results of later limits are missing.

        route_of returns the route of a request. A result without checks means that a function of
        its limit failed.
        """
        limits: Sequence[Limit] = plan.limits
        if plan.has_address_keys:
            groups: Sequence[CheckGroup] = plan.groups(request.client)
        else:
            try:
                limits, groups = await self._checks.build(request, plan, route_of)
            except FunctionFailed as failed:
                return [LimitResult(failed.limit, (), (_UNAVAILABLE,), refuses=True)]
            if not groups:
                return []
        outcomes = self.store.try_hit_now(groups)
        if outcomes is None:
            outcomes = await self.store.hit(groups)
        return self.record_outcomes(limits, groups, outcomes)

    async def notify_observers(self, results: Sequence[LimitResult], request: RequestInfo) -> None:
        """Call the observers of the application with results."""
        for result in results:
            if not result.checks:
                continue
            if self.decisions.on_decision is not None:
                self.decisions.report(result.decision(request))
            if result.limit.on_limited is not None and not result.effective_outcome.ok:
                await self._report_limited(result, request)

    def record_outcomes(
        self,
        limits: Sequence[Limit],
        groups: Sequence[CheckGroup],
        answer: Sequence[Sequence[Outcome]],
    ) -> list[LimitResult]:
        """Count the outcomes and return the results. After a refusal, later ones are missing."""
        results = []
        for limit, group, outcomes in zip(limits, groups, answer, strict=False):
            outcome = outcomes[0] if len(outcomes) == 1 else find_effective_outcome(outcomes)
            refuses = self.decisions.count(limit, outcome)
            results.append(LimitResult(limit, group, outcomes, refuses))
        return results

    async def _report_limited(self, result: LimitResult, request: RequestInfo) -> None:
        assert result.limit.on_limited is not None
        try:
            await await_if_needed(result.limit.on_limited(result.decision(request)))
        except Exception:  # noqa: BLE001  # of the application's own function
            self.errors.exception(f"{result.limit.name}: on_limited() failed")
