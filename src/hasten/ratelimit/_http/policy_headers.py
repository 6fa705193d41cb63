"""Write the response headers that describe limits.

The style "standard" is draft-ietf-httpapi-ratelimit-headers-10: structured fields (RFC 9651) that
describe every limit. "draft-7" and "legacy" (the X-RateLimit-* headers that most clients read)
describe only one limit: the one that refuses the request, or else the one with the least left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from math import ceil
from typing import Final, NamedTuple, Protocol, TypeAlias

from hasten._asgi import Headers
from hasten.errors import InvalidOption

STYLES: Final = ("standard", "draft-7", "legacy")

DEFAULT_STYLES: Final = ("standard", "legacy")

NAMES: Final = frozenset(
    {
        b"ratelimit", b"ratelimit-policy", b"ratelimit-limit", b"ratelimit-remaining",
        b"ratelimit-reset", b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset",
    }
)  # fmt: skip
"""The names of all headers that describe limits, in any style.

Other libraries use them, too.
"""

SECOND_US: Final = 1_000_000

MAX_CACHED: Final = 1_000


class RateLimitPolicy(NamedTuple):
    """The name, quota and window of one rate of a limit, as response headers describe it."""

    name: str
    quota: int
    window_us: int | None
    """None for a limit of concurrent requests, which has no window."""
    unit: str | None = None
    """The unit of quota if it is not requests, such as "concurrent-requests"."""


class RemainingQuota(Protocol):
    """An object that has the remaining quota of a policy, such as an `Outcome`."""

    @property
    def remaining(self) -> int:
        """The cost that can still pass."""

    @property
    def reset_us(self) -> int:
        """The time until remaining increases, in microseconds."""


class PolicyState(NamedTuple):
    """A policy with the remaining quota of one client."""

    policy: RateLimitPolicy
    remaining: int
    reset_us: int


WriteHeaders: TypeAlias = Callable[[Sequence[RemainingQuota], int | None], Headers]
"""A function that returns the headers for the remaining quotas of several policies.

The second argument is the index of the policy that headers describe if they can describe only one.
None means the policy with the least left.
"""


class HeaderWriter:
    """Writes the rate limit headers in the styles that the option `headers` names."""

    def __init__(self, styles: Collection[str], now: Callable[[], float]) -> None:
        """Raise `InvalidOption` for unknown styles.

        now returns the time in seconds since the epoch, which the style "legacy" needs.
        """
        styles = _check_styles(styles)
        self._is_standard = "standard" in styles
        self._is_draft_7 = "draft-7" in styles
        self._is_legacy = "legacy" in styles
        if self._is_standard and self._is_draft_7:
            raise InvalidOption(
                "headers", styles, "a list with either 'standard' or 'draft-7'", code="conflict"
            )
        self.writes_headers: Final = bool(styles)
        self._now = now
        self._cache: dict[tuple[RateLimitPolicy, ...], WriteHeaders] = {}

    def make_headers(
        self, states: Sequence[PolicyState], shown_index: int | None = None
    ) -> Headers:
        """Return the headers that describe these states; [] if there are none.

        Some styles can describe only one state: shown_index is the index of that state, None for
        the one with the least remaining.
        """
        if not states:
            return []
        return self.get_write_function(tuple([state.policy for state in states]))(
            states, shown_index
        )

    def get_write_function(self, policies: tuple[RateLimitPolicy, ...]) -> WriteHeaders:
        """Return the function that writes the headers for these policies. It is cached."""
        writer = self._cache.get(policies)
        if writer is None:
            if len(self._cache) >= MAX_CACHED:
                self._cache.clear()
            writer = self._cache[policies] = self._make_write_function(policies)
        return writer

    def _make_write_function(self, policies: tuple[RateLimitPolicy, ...]) -> WriteHeaders:
        # Parts that are the same for all requests are encoded here, once.
        is_standard, is_draft_7, is_legacy = self._is_standard, self._is_draft_7, self._is_legacy
        is_single, now = len(policies) == 1, self._now
        quotas = [policy.quota for policy in policies]
        describe = _encode_draft_7_policy if is_draft_7 else _encode_policy
        policy_line = (b"ratelimit-policy", b", ".join(map(describe, policies)))
        limit_lines = [(b"x-ratelimit-limit", b"%d" % quota) for quota in quotas]
        # A template into which the numbers of a request are inserted.
        template = b", ".join(
            _quote_structured_string(policy.name).replace(b"%", b"%%") + b";r=%d;t=%d"
            for policy in policies
        )

        def write(remaining_quotas: Sequence[RemainingQuota], shown_index: int | None) -> Headers:
            if is_single:
                shown_index = 0
            elif shown_index is None:
                order = [
                    (each.remaining, quota)
                    for each, quota in zip(remaining_quotas, quotas, strict=True)
                ]
                shown_index = order.index(min(order))
            shown = remaining_quotas[shown_index]
            remaining, reset_us = shown.remaining, shown.reset_us
            reset_s = -(-reset_us // SECOND_US)
            lines: Headers = []
            if is_standard:
                numbers = [remaining, reset_s]
                if not is_single:
                    numbers = []
                    for each in remaining_quotas:
                        numbers += each.remaining, -(-each.reset_us // SECOND_US)
                lines += policy_line, (b"ratelimit", template % tuple(numbers))
            elif is_draft_7:
                value = b"limit=%d, remaining=%d, reset=%d"
                value %= quotas[shown_index], remaining, reset_s
                lines += policy_line, (b"ratelimit", value)
            if is_legacy:
                reset_at = ceil(now() + reset_us / SECOND_US)
                lines += (
                    limit_lines[shown_index],
                    (b"x-ratelimit-remaining", b"%d" % remaining),
                    (b"x-ratelimit-reset", b"%d" % reset_at),
                )
            return lines

        return write


def round_up_to_seconds(us: int) -> int:
    """Convert microseconds to whole seconds, rounded up, so that waiting this long is enough."""
    return -(-us // SECOND_US)


def to_retry_after_seconds(retry_us: int) -> int:
    """Return the value of the header Retry-After (RFC 9110): seconds, rounded up, at least 1."""
    return max(1, -(-retry_us // SECOND_US))


def _check_styles(value: object) -> Collection[str]:
    if isinstance(value, Collection) and not isinstance(value, str):
        known = [style for style in value if style in STYLES]
        if len(known) == len(value):
            return known
    raise InvalidOption(
        "headers", value, f"a list whose items are all one of {', '.join(map(repr, STYLES))}"
    )


def _encode_policy(policy: RateLimitPolicy) -> bytes:
    unit = b"" if policy.unit is None else b";qu=" + _quote_structured_string(policy.unit)
    window = b""
    if policy.window_us is not None:
        window = b";w=%d" % max(1, round_up_to_seconds(policy.window_us))
    return b"%b;q=%d%b%b" % (_quote_structured_string(policy.name), policy.quota, unit, window)


def _encode_draft_7_policy(policy: RateLimitPolicy) -> bytes:
    """Return a policy as the header RateLimit-Policy has it in draft 7: without a name."""
    if policy.window_us is None:
        return b"%d" % policy.quota
    return b"%d;w=%d" % (policy.quota, round_up_to_seconds(policy.window_us))


def _quote_structured_string(text: str) -> bytes:
    """Return the text as a quoted string of a structured field. RFC 9651, section 4.1.6."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return b'"%b"' % escaped.encode("ascii")
