"""What answers tell of limits, in header fields.

"standard" is draft-ietf-httpapi-ratelimit-headers-10, whose fields are structured (RFC 9651) and
name every policy. "draft-7" knows one limit: the one that is nearest to its end. So does "legacy",
the X-RateLimit-* that most clients read.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import ceil
from typing import Final, NamedTuple, Protocol

from hasten._asgi import Headers
from hasten.errors import InvalidOption

STYLES: Final = ("standard", "draft-7", "legacy")

STYLES_BY_DEFAULT: Final = ("standard", "legacy")

NAMES: Final = frozenset(
    {
        b"ratelimit", b"ratelimit-policy", b"ratelimit-limit", b"ratelimit-remaining",
        b"ratelimit-reset", b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset",
    }
)  # fmt: skip
"""All that there are."""

SECOND_US: Final = 1_000_000

MAX_KNOWN: Final = 1_000


class Policy(NamedTuple):
    """What does not change of a limit: how much in which time."""

    name: str
    quota: int
    window_us: int | None
    """None for what has no window: requests under way at once."""
    unit: str | None = None
    """What is counted, if not requests: "concurrent-requests", "content-bytes"."""


class State(NamedTuple):
    """What is left of it for one client."""

    policy: Policy
    remaining: int
    reset_us: int


class Left(Protocol):
    """What a store says of a check."""

    @property
    def remaining(self) -> int: ...

    @property
    def reset_us(self) -> int: ...


class Fields:
    """Header fields in the styles that were asked for."""

    def __init__(self, styles: Collection[str], now: Callable[[], float]) -> None:
        """now is the time, in seconds since the epoch, that "legacy" tells by.

        Raises `InvalidOption`.
        """
        styles = _styles(styles)
        self._is_structured = "standard" in styles
        self._is_draft_7 = "draft-7" in styles
        if self._is_structured and self._is_draft_7:
            expected = "'standard' or 'draft-7', not both"
            raise InvalidOption("headers", styles, expected, code="conflict")
        self._is_legacy = "legacy" in styles
        self.are_there: Final = bool(styles)
        self._now = now
        self._policies: dict[tuple[Policy, ...], bytes] = {}
        self._items: dict[str, bytes] = {}

    def of(self, states: Sequence[State], violated: State | None = None) -> Headers:
        """The fields for the limits of one request; [] for none. violated is the one that refuses,
        which is the one to tell of where only one can be told."""
        if not states:
            return []
        lines: Headers = []
        if self._is_structured:
            lines.append((b"ratelimit-policy", self._policy(states)))
            lines.append((b"ratelimit", self._structured(states)))
        if self._is_draft_7 or self._is_legacy:
            shown = violated or min(states, key=lambda each: (each.remaining, each.policy.quota))
            if self._is_draft_7:
                lines.append((b"ratelimit-policy", self._policy(states)))
                lines.append((b"ratelimit", _draft_7(shown)))
            if self._is_legacy:
                reset = ceil(self._now() + shown.reset_us / SECOND_US)
                lines.append((b"x-ratelimit-limit", b"%d" % shown.policy.quota))
                lines.append((b"x-ratelimit-remaining", b"%d" % shown.remaining))
                lines.append((b"x-ratelimit-reset", b"%d" % reset))
        return lines

    def maker(self, policies: Sequence[Policy]) -> Callable[[Sequence[Left]], Headers]:
        """The same for requests that are all under these, of what is left of each.

        What does not change is written once; most requests are under one.
        """
        if not self._is_structured:
            return lambda outcomes: self.of(_states(policies, outcomes))
        policy_line = (b"ratelimit-policy", b", ".join(map(_described, policies)))
        items = b", ".join(
            _quoted(policy.name).replace(b"%", b"%%") + b";r=%d;t=%d" for policy in policies
        )

        def structured(outcomes: Sequence[Left]) -> Headers:
            values: list[int] = []
            for each in outcomes:
                values += each.remaining, -(-each.reset_us // SECOND_US)
            return [policy_line, (b"ratelimit", items % tuple(values))]

        if not self._is_legacy:
            return structured
        now = self._now
        quotas = [policy.quota for policy in policies]
        limit_lines = [(b"x-ratelimit-limit", b"%d" % quota) for quota in quotas]

        def with_legacy(outcomes: Sequence[Left]) -> Headers:
            left = [(each.remaining, quota) for each, quota in zip(outcomes, quotas, strict=True)]
            place = left.index(min(left))
            shown = outcomes[place]
            return [
                *structured(outcomes),
                limit_lines[place],
                (b"x-ratelimit-remaining", b"%d" % shown.remaining),
                (b"x-ratelimit-reset", b"%d" % ceil(now() + shown.reset_us / SECOND_US)),
            ]

        limit_line = limit_lines[0]

        def of_one(outcomes: Sequence[Left]) -> Headers:
            remaining, reset_us = outcomes[0].remaining, outcomes[0].reset_us
            return [
                policy_line,
                (b"ratelimit", items % (remaining, -(-reset_us // SECOND_US))),
                limit_line,
                (b"x-ratelimit-remaining", b"%d" % remaining),
                (b"x-ratelimit-reset", b"%d" % ceil(now() + reset_us / SECOND_US)),
            ]

        return of_one if len(policies) == 1 else with_legacy

    def _structured(self, states: Sequence[State]) -> bytes:
        # One policy is what most requests are under.
        if len(states) == 1:
            return self._item(states[0])
        return b", ".join([self._item(each) for each in states])

    def _item(self, state: State) -> bytes:
        name = state.policy.name
        quoted = self._items.get(name)
        if quoted is None:
            if len(self._items) >= MAX_KNOWN:
                self._items.clear()
            quoted = self._items[name] = _quoted(name)
        return b"%b;r=%d;t=%d" % (quoted, state.remaining, seconds(state.reset_us))

    def _policy(self, states: Sequence[State]) -> bytes:
        policies = tuple([each.policy for each in states])
        line = self._policies.get(policies)
        if line is None:
            if len(self._policies) >= MAX_KNOWN:
                self._policies.clear()
            describe = _described_before if self._is_draft_7 else _described
            line = b", ".join(map(describe, policies))
            self._policies[policies] = line
        return line


def _styles(value: object) -> Collection[str]:
    if isinstance(value, Collection) and not isinstance(value, str):
        known = [each for each in value if each in STYLES]
        if len(known) == len(value):
            return known
    raise InvalidOption("headers", value, f"some of {', '.join(map(repr, STYLES))}, in a list")


def _states(policies: Sequence[Policy], outcomes: Sequence[Left]) -> list[State]:
    return [
        State(policy, outcome.remaining, outcome.reset_us)
        for policy, outcome in zip(policies, outcomes, strict=True)
    ]


def seconds(us: int) -> int:
    """Whole seconds, never fewer: who waits so long has waited long enough."""
    return -(-us // SECOND_US)


def retry_after(retry_us: int) -> int:
    """The value of Retry-After. RFC 9110, section 10.2.3."""
    return max(1, seconds(retry_us))


def _described(policy: Policy) -> bytes:
    window = b"" if policy.window_us is None else b";w=%d" % max(1, seconds(policy.window_us))
    unit = b"" if policy.unit is None else b";qu=" + _quoted(policy.unit)
    return b"%b;q=%d%b%b" % (_quoted(policy.name), policy.quota, unit, window)


def _described_before(policy: Policy) -> bytes:
    """As it was up to draft 7: without a name."""
    if policy.window_us is None:
        return b"%d" % policy.quota
    return b"%d;w=%d" % (policy.quota, seconds(policy.window_us))


def _quoted(text: str) -> bytes:
    """A string. RFC 9651, section 4.1.6."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return b'"%b"' % escaped.encode("ascii")


def _draft_7(shown: State) -> bytes:
    quota, remaining, reset = shown.policy.quota, shown.remaining, seconds(shown.reset_us)
    return b"limit=%d, remaining=%d, reset=%d" % (quota, remaining, reset)
