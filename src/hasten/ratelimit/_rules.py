"""Rules: the parameters of the algorithms, in whole numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from hasten._checks import check_choice, check_whole_number
from hasten._durations import MAX_SECONDS, Duration, to_us
from hasten.errors import InvalidOption
from hasten.ratelimit._rates import MAX_LIMIT, Rate

RuleKind = Literal["fixed", "sliding", "gcra", "concurrency"]

Algorithm = Literal["fixed", "sliding", "gcra"]

RUNS: Final = 128
"""The most runs of hits that a sliding window keeps. Up to this limit it is exact."""

IN_FLIGHT_RETRY_US: Final = 1_000_000
"""When to retry if only requests in flight cause the denial."""


@dataclass(frozen=True, slots=True)
class Rule:
    """The limit of one bucket.

    - limit: the highest total cost in one window. 0 rejects every request.
    - window_us: the length of the window. For a limit of concurrent requests ("concurrency") it is
      the lease: how long a request counts unless it ends earlier.
    - burst: for "gcra" only, the highest cost that can pass at once.
    """

    kind: RuleKind
    limit: int
    window_us: int
    burst: int = 0

    # Derived once, because the algorithms use them for each hit.
    interval_us: int = field(init=False, repr=False, compare=False)
    """For "gcra": the time after which a cost of 1 is returned. Rounded up, so the rate holds."""
    tolerance_us: int = field(init=False, repr=False, compare=False)
    """For "gcra": how far the arrival may be ahead of now."""
    run_us: int = field(init=False, repr=False, compare=False)
    """How long hits join one run; 0 if each hit has a run of its own."""
    life_us: int = field(init=False, repr=False, compare=False)
    """How long a run counts, from its first hit."""

    def __post_init__(self) -> None:
        derive = object.__setattr__
        derive(self, "interval_us", -(-self.window_us // self.limit) if self.limit else 0)
        derive(self, "tolerance_us", self.interval_us * self.burst)
        derive(self, "run_us", self.window_us // RUNS if self.capacity > RUNS else 0)
        derive(self, "life_us", max(self.window_us, self.tolerance_us) + self.run_us)

    @property
    def capacity(self) -> int:
        """The most that can pass at once: a check that costs more never passes."""
        return self.burst if self.kind == "gcra" else self.limit

    @property
    def id(self) -> str:
        """The part of a bucket that identifies the rule: a changed rate starts with new counts."""
        burst = f"-{self.burst}" if self.kind == "gcra" else ""
        return f"{self.kind}-{self.limit}{burst}-{self.window_us}"


def rule_of(rate: Rate, algorithm: Algorithm | None = None) -> Rule:
    """Return the rule for a rate. Raises `InvalidOption`.

    The default algorithm is "gcra" for a rate with a burst and "fixed" for others. Without a burst,
    "gcra" allows the whole limit at once.
    """
    kind: RuleKind
    if algorithm is None:
        kind = "fixed" if rate.burst is None else "gcra"
    else:
        kind = check_choice("algorithm", algorithm, get_args(Algorithm))
    if kind == "gcra":
        return _gcra_rule(rate)
    if rate.burst is not None:
        raise InvalidOption("algorithm", kind, f"'gcra', because the rate '{rate}' has a burst")
    return Rule(kind, rate.limit, rate.window_us)


def _gcra_rule(rate: Rate) -> Rule:
    if rate.limit > rate.window_us:
        raise InvalidOption("rate", str(rate), "at most 1 per microsecond for 'gcra'")
    burst = rate.limit if rate.burst is None or not rate.limit else rate.burst
    rule = Rule("gcra", rate.limit, rate.window_us, burst)
    if rule.tolerance_us > MAX_SECONDS * 1_000_000:
        raise InvalidOption("rate", str(rate), "a burst that is returned within a hundred years")
    return rule


def concurrency_rule(limit: int, lease: Duration) -> Rule:
    """Return the rule for a limit of concurrent requests. Raises `InvalidOption`.

    lease is how long a request counts unless it ends earlier: choose it longer than any request
    should take.
    """
    return Rule(
        "concurrency",
        check_whole_number("limit", limit, 0, MAX_LIMIT),
        to_us("lease", lease, at_least_us=1_000),
    )


def check_block(block_us: int, rules: Sequence[Rule]) -> None:
    """Raise `InvalidOption` for a block that might end before the denial that causes it."""
    longest_us = max((rule.life_us for rule in rules), default=0)
    if 0 < block_us < longest_us:
        expected = f"0, or at least {longest_us / 1_000_000:g} s: a denial may last that long"
        raise InvalidOption("block_for", block_us / 1_000_000, expected)


def bucket_of(name: str, rule: Rule) -> str:
    """Return the bucket of a limit of this name with this rule."""
    return f"{name}:{rule.id}"
