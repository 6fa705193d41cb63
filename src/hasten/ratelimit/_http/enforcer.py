"""`Enforcer`: check requests against limits.

Each middleware has an enforcer, which `@limit` and `RateLimited` also use for the limits of routes.
Litestar makes one middleware for each route; those of one application share an enforcer.

All limits of a request are checked by one call of the store, which takes one round trip. The store
takes their costs in order, up to the first limit that refuses the request. The limits before it
stay charged, and those after it are not changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from hasten._asgi import Scope
from hasten._loops import require_asyncio
from hasten._repeated_errors import ThrottledErrorLog
from hasten._request_info import RequestInfo
from hasten.ratelimit._circuit_breaker import PAUSE_US
from hasten.ratelimit._counter_store import (
    CheckGroup,
    OnStoreError,
    Outcome,
    find_decisive_outcome,
)
from hasten.ratelimit._http.clients import ClientResolver
from hasten.ratelimit._http.decision_log import DecisionLog
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.operator_warnings import OperatorWarnings
from hasten.ratelimit._http.plans import LimitPlan
from hasten.ratelimit._http.policy_headers import HeaderWriter
from hasten.ratelimit._http.request_checks import CheckBuilder, LimitFunctionFailed, await_if_needed
from hasten.ratelimit._http.results import LimitResult
from hasten.ratelimit._resilient_store import ResilientStore

_UNAVAILABLE: Final = Outcome(False, 0, 0, PAUSE_US, PAUSE_US, unavailable=True)


class Enforcer:
    """Checks requests against limits, counts the decisions and reports them to observers.

    on_store_error applies to limits that do not set their own. namespace: if enforcers with the
    same namespace serve one request, limits that both have are counted only once.
    """

    def __init__(
        self,
        store: ResilientStore,
        *,
        clients: ClientResolver,
        writer: HeaderWriter,
        decisions: DecisionLog,
        errors: ThrottledErrorLog,
        warnings: OperatorWarnings,
        on_store_error: OnStoreError,
        namespace: str,
    ) -> None:
        self.store: Final = store
        self.resolve_client: Final = clients.resolve_client
        """A function that returns the client of a request."""
        self.writer: Final = writer
        self.decisions: Final = decisions
        self.errors: Final = errors
        self.warnings: Final = warnings
        self.namespace: Final = namespace
        self.immediate: Final = store.immediate if decisions.on_decision is None else None
        """The store if it never waits and there is no on_decision to call; else None."""
        self._checks = CheckBuilder(on_store_error, errors, warnings)
        self._on_store_error: OnStoreError = on_store_error
        self._plans: dict[tuple[Limit, ...], LimitPlan] = {}

    def require_supported_event_loop(self) -> None:
        """Raise `AsyncioRequired` if the store cannot work on the running event loop."""
        if self.store.immediate is None:
            require_asyncio(
                f"RateLimitMiddleware with {type(self.store.store).__name__}",
                "use store='memory://', or serve with asyncio",
            )

    def get_plan(self, limits: tuple[Limit, ...]) -> LimitPlan:
        """Return the plan for requests that these limits apply to. Plans are cached."""
        plan = self._plans.get(limits)
        if plan is None:
            plan = self._plans[limits] = LimitPlan(limits, self.writer, self._on_store_error)
        return plan

    async def enforce(
        self, request: RequestInfo, plan: LimitPlan, find_route_path: Callable[[Scope], str]
    ) -> list[LimitResult]:
        """Check a request against the limits of a plan, and return the results in order.

        After a limit that refuses the request, there are no results of later limits. A result
        without checks means that a function of its limit failed. find_route_path returns the path
        of a request, for limits with key="route".
        """
        limits: Sequence[Limit] = plan.limits
        if plan.has_address_keys:
            groups: Sequence[CheckGroup] = plan.make_check_groups(request.client)
        else:
            try:
                limits, groups = await self._checks.build_check_groups(
                    request, plan, find_route_path
                )
            except LimitFunctionFailed as failed:
                return [LimitResult(failed.limit, (), (_UNAVAILABLE,), refuses=True)]
            if not groups:
                return []
        outcomes = self.store.hit_now_if_possible(groups)
        if outcomes is None:
            outcomes = await self.store.hit(groups)
        return self.record_outcomes(limits, groups, outcomes)

    async def call_on_decision_and_on_limited(
        self, results: Sequence[LimitResult], request: RequestInfo
    ) -> None:
        """Call the functions on_decision and on_limited with the decisions of these results."""
        for result in results:
            if not result.checks:
                continue
            if self.decisions.on_decision is not None:
                self.decisions.report_decision(result.to_decision(request))
            if result.limit.on_limited is not None and not result.decisive_outcome.ok:
                await self._call_on_limited(result, request)

    def record_outcomes(
        self,
        limits: Sequence[Limit],
        groups: Sequence[CheckGroup],
        outcomes_by_group: Sequence[Sequence[Outcome]],
    ) -> list[LimitResult]:
        """Count the outcomes in the statistics, and return them as results.

        outcomes_by_group has no outcomes for limits after one that refuses the request.
        """
        results = []
        for limit, group, outcomes in zip(limits, groups, outcomes_by_group, strict=False):
            outcome = outcomes[0] if len(outcomes) == 1 else find_decisive_outcome(outcomes)
            refuses = self.decisions.count_outcome(limit, outcome)
            results.append(LimitResult(limit, group, outcomes, refuses))
        return results

    async def _call_on_limited(self, result: LimitResult, request: RequestInfo) -> None:
        assert result.limit.on_limited is not None
        try:
            await await_if_needed(result.limit.on_limited(result.to_decision(request)))
        except Exception:  # noqa: BLE001  # raised by the application's function
            self.errors.exception(
                f"limit {result.limit.name!r}: on_limited() failed; the decision stands"
            )
