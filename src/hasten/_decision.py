"""The decision of a limit about one hit: one record for callers, observers and errors."""

from __future__ import annotations

from typing import NamedTuple

from hasten._request_info import RequestInfo


class Decision(NamedTuple):
    """The decision of the limit of this name about one hit. It is true if the hit passes.

    - limit: the highest cost that can pass at once.
    - remaining: the cost that can still pass now.
    - reset_after: the seconds until remaining increases.
    - retry_after: the seconds after which the same hit passes if no other hit comes first; 0 if it
      passes now. A cost above the limit never passes; then it is the time until nothing is used.
    - shadow: the limit refuses nothing, even if the hit does not pass.
    - unavailable: the store did not respond, and `on_store_error` ("allow" or "deny") decided.
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
