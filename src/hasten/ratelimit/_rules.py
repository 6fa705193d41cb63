"""Rules: rates as the algorithms need them, in whole numbers and microseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, get_args

from hasten._checks import check_choice, check_whole_number
from hasten._durations import MAX_SECONDS, Duration, to_nearest_us
from hasten.errors import InvalidOption
from hasten.ratelimit._rates import MAX_LIMIT, Rate

RuleKind = Literal["fixed", "sliding", "gcra", "concurrency"]

Algorithm = Literal["fixed", "sliding", "gcra"]

RUNS: Final = 128
"""The most runs (hits that are stored together, see `_algorithms.py`) that one key has.

Limits up to this number store hits at different times separately, and are exact.
"""

IN_FLIGHT_RETRY_US: Final = 1_000_000
"""The retry time of a denial that only unfinished requests cause.

Such a request may end at any moment, so the real time is unknown.
"""


@dataclass(frozen=True, slots=True)
class Rule:
    """A rate, or a limit of concurrent requests, as the algorithms need it.

    - kind: the algorithm.
    - limit: the highest total cost in one window. 0 rejects every request.
    - window_us: the length of the window. For a limit of concurrent requests ("concurrency") it is
      the lease: a request stops counting after this time even if it has not ended.
    - burst: the highest cost that can pass at once. Only for "gcra".
    """

    kind: RuleKind
    limit: int
    window_us: int
    burst: int = 0

    # Computed once here, because the algorithms need these values for each hit.
    interval_us: int = field(init=False, repr=False, compare=False)
    """For "gcra": how long it takes until a cost of 1 is available again.

    Rounded up, so that the rate is never exceeded.
    """
    tolerance_us: int = field(init=False, repr=False, compare=False)
    """For "gcra": how far the theoretical arrival time may be ahead of now."""
    run_us: int = field(init=False, repr=False, compare=False)
    """How long after the first hit of a run later hits join that run.

    0 for limits up to `RUNS`: only hits in the same microsecond share a run.
    """
    life_us: int = field(init=False, repr=False, compare=False)
    """How long a run of hits is counted, from the time of its first hit."""

    def __post_init__(self) -> None:
        derive = object.__setattr__
        derive(self, "interval_us", -(-self.window_us // self.limit) if self.limit else 0)
        derive(self, "tolerance_us", self.interval_us * self.burst)
        derive(self, "run_us", self.window_us // RUNS if self.capacity > RUNS else 0)
        derive(self, "life_us", max(self.window_us, self.tolerance_us) + self.run_us)

    @property
    def capacity(self) -> int:
        """The highest cost that can pass at once. A check with a higher cost never passes."""
        return self.burst if self.kind == "gcra" else self.limit

    @property
    def id(self) -> str:
        """The part of a bucket's name that identifies the rule.

        Because of it, a changed rate starts with new counts.
        """
        burst = f"-{self.burst}" if self.kind == "gcra" else ""
        return f"{self.kind}-{self.limit}{burst}-{self.window_us}"


def make_rule(rate: Rate, algorithm: Algorithm | None = None) -> Rule:
    """Return the rule for a rate. Raises `InvalidOption`.

    The default algorithm is "gcra" for a rate with a burst and "fixed" for others. With "gcra", a
    rate without a burst allows its whole limit at once.
    """
    kind: RuleKind
    if algorithm is None:
        kind = "fixed" if rate.burst is None else "gcra"
    else:
        kind = check_choice("algorithm", algorithm, get_args(Algorithm))
    if kind == "gcra":
        return _make_gcra_rule(rate)
    if rate.burst is not None:
        raise InvalidOption("algorithm", kind, f"'gcra', because the rate '{rate}' has a burst")
    return Rule(kind, rate.limit, rate.window_us)


def _make_gcra_rule(rate: Rate) -> Rule:
    if rate.limit > rate.window_us:
        raise InvalidOption("rate", str(rate), "at most one request per microsecond for 'gcra'")
    burst = rate.limit if rate.burst is None or not rate.limit else rate.burst
    rule = Rule("gcra", rate.limit, rate.window_us, burst)
    if rule.tolerance_us > MAX_SECONDS * 1_000_000:
        raise InvalidOption(
            "rate", str(rate), "a rate whose whole burst is available again within 100 years"
        )
    return rule


def make_concurrency_rule(limit: int, lease: Duration) -> Rule:
    """Return the rule for a limit of concurrent requests. Raises `InvalidOption`.

    After lease a request stops counting even if it has not ended, because its process may have
    died. Choose it longer than any request should take.
    """
    return Rule(
        "concurrency",
        check_whole_number("limit", limit, 0, MAX_LIMIT),
        to_nearest_us("lease", lease, at_least_us=1_000),
    )


def check_block_outlasts_denials(block_us: int, rules: Sequence[Rule]) -> None:
    """Raise `InvalidOption` if a block could end before the denial that starts it."""
    longest_us = max((rule.life_us for rule in rules), default=0)
    if 0 < block_us < longest_us:
        expected = f"0, or at least {longest_us / 1_000_000:g} s, as long as a denial can last"
        raise InvalidOption("block_for", block_us / 1_000_000, expected)


def make_bucket_name(name: str, rule: Rule) -> str:
    """Return the bucket of a rule: the name under which stores keep its counts.

    name is the name of the limit.
    """
    return f"{name}:{rule.id}"
