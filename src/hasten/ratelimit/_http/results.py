"""The result of one limit for one request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hasten._decision import Decision
from hasten._request_info import RequestInfo
from hasten.ratelimit._counter_store import (
    Check,
    Outcome,
    Settlement,
    decision_of,
    find_effective_outcome,
)
from hasten.ratelimit._http.limit import Limit
from hasten.ratelimit._http.policy_headers import PolicyState


@dataclass(slots=True, eq=False)
class LimitResult:
    """The checks of one limit and their outcomes. refuses: whether the request is refused."""

    limit: Limit
    checks: Sequence[Check]
    outcomes: Sequence[Outcome]
    refuses: bool
    keep: bool | None = None
    """Whether the handler wants the request to be counted; None if it did not decide."""
    is_settled: bool = False

    @property
    def effective_outcome(self) -> Outcome:
        """The outcome that decides, if there are several rates."""
        outcomes = self.outcomes
        return outcomes[0] if len(outcomes) == 1 else find_effective_outcome(outcomes)

    def decision(self, request: RequestInfo) -> Decision:
        """Return what callers and observers receive."""
        shadow = self.limit.shadow
        return decision_of(
            self.limit.name, self.effective_outcome, shadow=shadow, request=request
        )

    def policy_states(self) -> list[PolicyState]:
        """Return what headers describe, for each rate."""
        return [
            PolicyState(self.limit.policy_of(check.rule), outcome.remaining, outcome.reset_us)
            for check, outcome in zip(self.checks, self.outcomes, strict=False)
        ]

    @property
    def violated_policies(self) -> tuple[str, ...]:
        """The names of the rates that deny the request."""
        if len(self.checks) == 1:  # most limits have one
            return (self.limit.name,)
        return tuple(
            self.limit.policy_of(check.rule).name
            for check, outcome in zip(self.checks, self.outcomes, strict=False)
            if not outcome.ok
        )

    def take_settlements(self, *, keep: bool) -> list[Settlement]:
        """Return the settlements of all reservations; [] if they are settled already."""
        if self.is_settled:
            return []
        self.is_settled = True
        return [
            Settlement(outcome.token, check.cost if keep else 0)
            for check, outcome in zip(self.checks, self.outcomes, strict=True)
            if outcome.token is not None
        ]

    def add_refund(self) -> None:
        """Add a refund to what is left, for headers and decisions."""
        self.outcomes = [
            outcome
            if outcome.token is None
            else outcome._replace(remaining=min(outcome.limit, outcome.remaining + check.cost))
            for check, outcome in zip(self.checks, self.outcomes, strict=True)
        ]
