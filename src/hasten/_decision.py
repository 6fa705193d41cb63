"""What a limit says of one hit: one record, for callers, observers and errors."""

from __future__ import annotations

from typing import NamedTuple

from hasten._request_info import RequestInfo


class Decision(NamedTuple):
    """What the limit of this name says of one hit. True if the hit passes. Times are in seconds.

    - limit: how much passes at most. remaining: how much is left now.
    - reset_after: when more is left than now.
    - retry_after: when the same hit passes, unless others come first; 0 if it passes now. A cost
      above the limit never passes: then it is when the limit is whole again.
    - shadow: the limit only watches. A hit that does not pass is not refused.
    - unavailable: the store did not answer, and `on_store_error` ("allow" or "deny") decided.
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
        """How much is used up."""
        return max(0, self.limit - self.remaining)
