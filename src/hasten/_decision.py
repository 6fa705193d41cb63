"""The result of a limit for one hit: one record for callers, observers and errors."""

from __future__ import annotations

from typing import NamedTuple

from hasten._request_info import RequestInfo


class Decision(NamedTuple):
    """The decision of the limit with this name about one hit. True if it is allowed.

    - limit: the maximum. remaining: how much of it is left.
    - reset_after: in how many seconds more is left.
    - retry_after: in how many seconds the same hit is allowed, unless other hits come first; 0 if
      it is allowed now. A cost above the limit is never allowed: then it is the time until the
      limit is unused.
    - shadow: the limit only observes. A hit that is not allowed is not rejected.
    - unavailable: the store is unavailable, and `on_store_error` ("allow" or "deny") decided.
    - request: the request, None outside of HTTP.
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
        """How much of the limit is used."""
        return max(0, self.limit - self.remaining)
