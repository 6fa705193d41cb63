"""What an algorithm needs to know, in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal

from hasten._durations import MAX_SECONDS, Duration, to_us
from hasten.errors import InvalidOption
from hasten.ratelimit._rates import Rate, to_limit

RuleKind = Literal["fixed", "sliding", "gcra", "concurrency"]

Algorithm = Literal["fixed", "sliding", "gcra"]

ALGORITHMS: Final[tuple[str, ...]] = ("fixed", "sliding", "gcra")

RUNS: Final = 128
"""How many runs of hits a sliding window keeps at most; up to so many hits it is exact."""

IN_FLIGHT_RETRY_US: Final = 1_000_000
"""When to come again if nothing but requests that are still under way stands in the way."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One limit of one bucket.

    limit is the cost that fits in, 0 for nothing. window_us is the window; for a limit of what is
    under way at once ("concurrency") it is the lease: how long one may be under way before it is
    taken for lost. burst is for "gcra" alone: the cost that may come at once.
    """

    kind: RuleKind
    limit: int
    window_us: int
    burst: int = 0

    # Derived, once: the algorithms ask for them with each hit.
    interval_us: int = field(init=False, repr=False, compare=False)
    """Of "gcra": the time that a cost of 1 takes to come back. Rounded up: never above the rate."""
    tolerance_us: int = field(init=False, repr=False, compare=False)
    """Of "gcra": how far ahead of an even flow one may be."""
    run_us: int = field(init=False, repr=False, compare=False)
    """How long hits gather in one run; 0 where each has one of its own."""
    life_us: int = field(init=False, repr=False, compare=False)
    """How long a run counts, from its first hit on."""

    def __post_init__(self) -> None:
        derive = object.__setattr__
        derive(self, "interval_us", -(-self.window_us // self.limit) if self.limit else 0)
        derive(self, "tolerance_us", self.interval_us * self.burst)
        derive(self, "run_us", self.window_us // RUNS if self.capacity > RUNS else 0)
        derive(self, "life_us", max(self.window_us, self.tolerance_us) + self.run_us)

    @property
    def capacity(self) -> int:
        """The most that can ever pass at once: a check that costs more never does."""
        return self.burst if self.kind == "gcra" else self.limit

    @property
    def id(self) -> str:
        """Different for different rules, as part of a bucket: a changed rate starts anew."""
        burst = f"-{self.burst}" if self.kind == "gcra" else ""
        return f"{self.kind}-{self.limit}{burst}-{self.window_us}"


def rule_of(rate: Rate, algorithm: Algorithm | None = None) -> Rule:
    """The rule for a rate. Raises `InvalidOption`.

    Without an algorithm a rate with a burst is a "gcra", any other one "fixed". Without a burst,
    "gcra" lets the whole limit come at once.
    """
    kind: RuleKind
    if algorithm is None:
        kind = "fixed" if rate.burst is None else "gcra"
    elif algorithm in ALGORITHMS:
        kind = algorithm
    else:
        expected = f"one of {', '.join(map(repr, ALGORITHMS))}"
        raise InvalidOption("algorithm", algorithm, expected)
    if kind == "gcra":
        return _gcra_rule(rate)
    if rate.burst is not None:
        raise InvalidOption("algorithm", kind, f"'gcra': the rate '{rate}' has a burst")
    return Rule(kind, rate.limit, rate.window_us)


def _gcra_rule(rate: Rate) -> Rule:
    if rate.limit > rate.window_us:
        raise InvalidOption("rate", str(rate), "at most 1 each microsecond for 'gcra'")
    burst = rate.limit if rate.burst is None or not rate.limit else rate.burst
    rule = Rule("gcra", rate.limit, rate.window_us, burst)
    if rule.tolerance_us > MAX_SECONDS * 1_000_000:
        raise InvalidOption("rate", str(rate), "a burst that comes back within a hundred years")
    return rule


def concurrency_rule(limit: int, lease: Duration) -> Rule:
    """The rule for so many at once. Raises `InvalidOption`.

    lease, in seconds, is after how long one that has not ended is taken for lost: longer than
    anything lasts that should last.
    """
    return Rule("concurrency", to_limit("limit", limit), to_us("lease", lease, at_least_us=1_000))


def check_block(block_us: int, rules: Sequence[Rule]) -> None:
    """Raise `InvalidOption` for a block that would end before the denial that leads to it."""
    longest_us = max((rule.life_us for rule in rules), default=0)
    if 0 < block_us < longest_us:
        expected = f"0, or {longest_us / 1_000_000:g} s at least: so long a denial may last anyway"
        raise InvalidOption("block_for", block_us / 1_000_000, expected)


def bucket_of(name: str, rule: Rule) -> str:
    """The bucket that a policy of this name keeps its counts in under this rule."""
    return f"{name}:{rule.id}"
