"""The record of what a rate limit has decided about one hit (one counted request or call)."""

from __future__ import annotations

from typing import NamedTuple

from hasten._request_info import RequestInfo


class Decision(NamedTuple):
    """What a rate limit has decided about one hit: a request, or a call of a `Limiter`.

    A decision is truthy if the hit is within the limit.

    - name: the name of the limit.
    - ok: whether the hit is within the limit.
    - limit: the highest total cost that the limit allows at once.
    - remaining: the cost that the limit still allows now.
    - reset_after: the seconds until remaining increases.
    - retry_after: the seconds until a hit of the same cost is allowed, if no other hit comes first;
      0 if it is allowed now. A cost above the limit is never allowed: then retry_after is the time
      until the limit is completely unused again.
    - shadow: the limit only counts. It rejects no request, even if ok is False.
    - unavailable: the store did not respond, and the option `on_store_error` ("allow" or "deny")
      decided.
    - request: the request, None in decisions of a `Limiter`.
    """

    name: str
    ok: bool
    limit: int
    remaining: int
    reset_after: float
    retry_after: float
    shadow: bool = False
    unavailable: bool = False
    request: RequestInfo | None = None

    def __bool__(self) -> bool:
        return self.ok

    @property
    def used(self) -> int:
        """The cost that is used up: limit minus remaining."""
        return max(0, self.limit - self.remaining)
