"""The result of checking one request against one limit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hasten._decision import Decision
from hasten._request_info import RequestInfo
from hasten.ratelimit._counter_store import (
    Check,
    Outcome,
    Settlement,
    find_decisive_outcome,
    make_decision,
)
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.policy_headers import PolicyState


@dataclass(slots=True, eq=False)
class LimitResult:
    """The checks of one limit for one request, and their outcomes.

    refuses: whether the limit refuses the request.
    """

    limit: Limit
    checks: Sequence[Check]
    outcomes: Sequence[Outcome]
    refuses: bool
    keep_cost: bool | None = None
    """Whether the cost stays charged: set by count_request() and refund(), None without them."""
    is_settled: bool = False

    @property
    def decisive_outcome(self) -> Outcome:
        """The longest denial; if there is none, the outcome with the least remaining."""
        outcomes = self.outcomes
        return outcomes[0] if len(outcomes) == 1 else find_decisive_outcome(outcomes)

    def to_decision(self, request: RequestInfo) -> Decision:
        """Return the result as the `Decision` that callers and observers receive."""
        shadow = self.limit.shadow
        return make_decision(self.limit.name, self.decisive_outcome, shadow=shadow, request=request)

    def make_policy_states(self) -> list[PolicyState]:
        """Return the policy of each rate, with what is left of it, for the rate limit headers."""
        return [
            PolicyState(self.limit.make_policy(check.rule), outcome.remaining, outcome.reset_us)
            for check, outcome in zip(self.checks, self.outcomes, strict=False)
        ]

    @property
    def violated_policy_names(self) -> tuple[str, ...]:
        """The names of the rates that deny the request, for the body of the refusal."""
        if len(self.checks) == 1:  # most limits have only one rate
            return (self.limit.name,)
        return tuple(
            self.limit.make_policy(check.rule).name
            for check, outcome in zip(self.checks, self.outcomes, strict=False)
            if not outcome.ok
        )

    def pop_settlements(self, *, keep_cost: bool) -> list[Settlement]:
        """Mark the reservations of this result as settled, and return their settlements.

        keep_cost: whether the whole cost stays charged, or is refunded. The second call returns [].
        """
        if self.is_settled:
            return []
        self.is_settled = True
        return [
            Settlement(outcome.reservation, check.cost if keep_cost else 0)
            for check, outcome in zip(self.checks, self.outcomes, strict=True)
            if outcome.reservation is not None
        ]

    def add_refund_to_remaining(self) -> None:
        """Add the refunded cost to the remaining quota that headers and decisions report."""
        self.outcomes = [
            outcome
            if outcome.reservation is None
            else outcome._replace(remaining=min(outcome.limit, outcome.remaining + check.cost))
            for check, outcome in zip(self.checks, self.outcomes, strict=True)
        ]
